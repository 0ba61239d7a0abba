"""What Secrets' metadata tells: the state that annotations hold, whose a target is, and whether anybody touched it."""

import re
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.merge import merged
from tests.unit.facts import (
    ISSUED,
    LIFETIME,
    OTHER_UID,
    UID,
    Json,
    TargetObject,
    credential,
    foreign_secret,
    token_state,
)
from tuinly_operator.domain.target import (
    Ownership,
    SecretMeta,
    TokenState,
    believe,
    exchange_inputs,
    holds_state,
    looks_as_asked,
    ownership,
    secret_key,
    target_manifest,
    template_values,
)
from tuinly_operator.domain.template import VARIABLES, layout_of

DEFAULT = layout_of(None)
DEFAULT_KEYS = ("access_token", "token_type", "expires_at")
ANNOTATIONS = {
    f"tuinly.com/{name}"
    for name in (
        *("state-version", "credential-uid", "issued-at", "expires-at", "next-refresh", "granted-scopes"),
        *("exchange-inputs", "template", "client-secret-version", "handled-refresh"),
    )
}
LABELS = ("app.kubernetes.io/managed-by", "tuinly.com/credential")
RETAIN: Json = {"spec": {"target": {"deletionPolicy": "Retain"}}}
TEMPLATED: Json = {
    "spec": {
        "target": {
            "template": {
                "metadata": {"labels": {"team": "shop"}, "annotations": {"example.com/note": "n"}},
                "data": {"authorization": "Bearer ${access_token}"},
            }
        }
    }
}

# --- State in annotations ---------------------------------------------------------------------------------------------

TEXT = st.text(max_size=40)
TIME = st.integers(0, 4_102_444_800)  # until 2100
STATES = st.builds(
    lambda issued, lifetime, refresh, texts: TokenState(
        credential_uid=texts[0],
        issued_at=issued,
        expires_at=issued + lifetime,
        next_refresh=refresh,
        granted_scopes=texts[1],
        exchange_inputs=texts[2],
        template=texts[3],
        client_secret_version=texts[4],
        handled_refresh=texts[5],
    ),
    TIME,
    st.integers(1, 2_592_000),
    TIME,
    st.lists(TEXT, min_size=6, max_size=6),
)


@given(STATES)
def test_a_state_round_trips_through_annotations(state: TokenState) -> None:
    assert TokenState.from_annotations(state.annotations()) == state


@pytest.mark.rule("STATE-2")
def test_the_annotations_are_those_of_the_contract() -> None:
    annotations = token_state(lifetime=LIFETIME).annotations()
    assert annotations.keys() == ANNOTATIONS
    assert annotations["tuinly.com/state-version"] == "1"
    assert annotations["tuinly.com/expires-at"] == "2026-11-24T08:00:00Z"
    assert annotations["tuinly.com/credential-uid"] == UID
    assert all(type(value) is str for value in annotations.values())


@pytest.mark.parametrize("missing", sorted(ANNOTATIONS))
def test_a_state_that_lacks_an_annotation_is_none(missing: str) -> None:
    annotations = token_state().annotations()
    del annotations[missing]
    assert TokenState.from_annotations(annotations) is None


@pytest.mark.parametrize("name", ["issued-at", "expires-at", "next-refresh"])
@pytest.mark.parametrize(
    "value",
    ["", "soon", "1795503600", "2026-11-24T07:00:00", "2026-13-24T07:00:00Z", "9999-12-31T23:59:59-23:59", "\x00"],
)
def test_a_state_with_an_odd_time_is_none_or_only_odd(name: str, value: str) -> None:
    odd = TokenState.from_annotations(token_state().annotations() | {f"tuinly.com/{name}": value})
    # The next refresh is only written for people; any time that is one will do.
    assert odd is None or (name == "next-refresh" and value.startswith("9999"))


@pytest.mark.parametrize("version", ["2", "0", "1.0", " 1", ""])
def test_a_state_of_another_version_is_none(version: str) -> None:
    assert TokenState.from_annotations(token_state().annotations() | {"tuinly.com/state-version": version}) is None


@pytest.mark.parametrize(
    ("lifetime", "known"), [(1, True), (2_592_000, True), (0, False), (-1, False), (2_592_001, False)]
)
def test_a_state_with_a_lifetime_out_of_range_is_none(lifetime: int, *, known: bool) -> None:
    assert (TokenState.from_annotations(token_state(lifetime=lifetime).annotations()) is not None) is known


@pytest.mark.rule("STATE-7")
@given(st.dictionaries(st.sampled_from(sorted(ANNOTATIONS)), st.one_of(TEXT, st.none(), st.integers())))
def test_no_annotations_do_harm(changes: Json) -> None:
    found = TokenState.from_annotations(token_state().annotations() | changes)
    assert found is None or 1 <= found.lifetime <= 2_592_000


@given(st.datetimes(timezones=st.timezones()), TIME)
def test_no_time_does_harm(expiry: datetime, issued: int) -> None:
    at = datetime.fromtimestamp(issued, UTC).isoformat()
    times = {"tuinly.com/expires-at": expiry.isoformat(), "tuinly.com/issued-at": at}
    found = TokenState.from_annotations(token_state().annotations() | times)
    assert found is None or 1 <= found.lifetime <= 2_592_000


@pytest.mark.rule("RES-14")
def test_what_users_asked_for_is_known_again_however_long_it_was_and_whoever_wrote_it() -> None:
    """An earlier version wrote all of a long value; this one writes and keeps what tells it from others."""
    long = "x" * 262_000
    written = token_state(credential({"metadata": {"annotations": {"tuinly.com/refresh-requested": long}}}))
    for note in (long, written.handled_refresh):
        read = TokenState.from_annotations(written.annotations() | {"tuinly.com/handled-refresh": note})
        assert read == written
    assert len(written.handled_refresh) < 128


@pytest.mark.rule("SEC-24")
@pytest.mark.parametrize("name", sorted(ANNOTATIONS - {"tuinly.com/granted-scopes"}))
def test_no_annotation_is_kept_at_length(name: str) -> None:
    found = TokenState.from_annotations(token_state().annotations() | {name: "x" * 250_000})
    assert found is None or max(len(str(value)) for value in asdict(found).values()) < 1000


@pytest.mark.rule("SEC-24")
def test_of_scopes_no_more_is_believed_than_an_answer_can_hold() -> None:
    for length, known in ((65_536, True), (65_537, False)):
        assert (
            TokenState.from_annotations(token_state(granted_scopes="s" * length).annotations()) is not None
        ) is known


@pytest.mark.rule("SEC-24")
@pytest.mark.parametrize("part", ["data", "labels", "annotations"])
def test_of_very_many_fields_under_our_name_none_is_kept(part: str) -> None:
    """Anybody can apply a Secret in our manager's name: what has more fields than a template was never ours."""
    target = TargetObject()
    for number in range(256):
        target.shared(part, f"key{number}")
        target.meta["managedFields"].pop()
        TargetObject._fields(target.ours, part)[f"f:key{number}"] = {}
    found = target.seen()
    assert found.target is not None
    assert len(found.target.owned) == 1
    assert not holds_state(found, credential(), token_state(), DEFAULT)


@pytest.mark.parametrize(("fields", "kept"), [(256, 256), (257, 1)])
def test_as_many_fields_are_kept_as_a_template_can_have(fields: int, kept: int) -> None:
    target = TargetObject()
    for number in range(fields - len(LABELS) - len(ANNOTATIONS)):
        target.ours["f:data"][f"f:{number}"] = {}
    for key in DEFAULT_KEYS:
        del target.ours["f:data"][f"f:{key}"]
    found = target.seen().target
    assert found is not None
    assert len(found.owned) == kept


@pytest.mark.rule("SEC-24")
@pytest.mark.parametrize(("length", "kept"), [(317, True), (1_000_000, False)])
def test_no_name_of_a_field_is_kept_at_length(length: int, kept: bool) -> None:  # noqa: FBT001 -- a parameter
    """What the API server would take for a name, and more: it looks at no names in managed fields."""
    target = TargetObject()
    target.ours["f:data"]["f:" + "x" * length] = {}
    found = target.seen().target
    assert found is not None
    assert (len(found.owned) > 1) is kept


@pytest.mark.rule("SEC-24")
def test_no_uid_is_kept_at_length() -> None:
    """Of an owner reference the API server asks no more than that its uid is not empty."""
    owner: Json = {"uid": "x" * 250_000, "controller": True}
    meta: Json = {"uid": "u", "resourceVersion": "1", "labels": {"tuinly.com/credential": "storefront"}}
    meta |= {"ownerReferences": [owner], "annotations": {"tuinly.com/credential-uid": "y" * 250_000}}
    found = SecretMeta.from_object({"metadata": meta}).target
    assert found is not None
    assert len(found.owner_uid) < 128
    assert len(found.written_for) < 128


def test_granted_scopes_are_read_as_a_set() -> None:
    assert token_state(granted_scopes="b a").scopes == {"a", "b"}
    assert token_state(granted_scopes="").scopes == frozenset()


# --- What is written --------------------------------------------------------------------------------------------------


def manifest(patch: Json | None = None, present: SecretMeta | None = None) -> Json:
    seen = credential(patch)
    form = layout_of(seen.spec.target.template)
    return target_manifest(seen, token_state(seen), form, dict.fromkeys(form.data, b"\xff1"), present)


@pytest.mark.rule("WRITE-2")
def test_the_first_write_creates_or_conflicts() -> None:
    """Measured: with version "1" and no uid an absent object is created, and one that came meanwhile gives a 409."""
    metadata = manifest()["metadata"]
    assert metadata["resourceVersion"] == "1"
    assert "uid" not in metadata


@pytest.mark.rule("WRITE-3")
def test_every_later_write_is_conditional_on_what_was_seen() -> None:
    metadata = manifest(present=SecretMeta("target-uid", "77"))["metadata"]
    assert (metadata["uid"], metadata["resourceVersion"]) == ("target-uid", "77")


@pytest.mark.rule("STATE-1")
def test_a_target_is_opaque_labelled_annotated_and_owned() -> None:
    written = manifest()
    metadata = written["metadata"]
    assert (written["apiVersion"], written["kind"], written["type"]) == ("v1", "Secret", "Opaque")
    assert (metadata["namespace"], metadata["name"]) == ("shop", "storefront-token")
    assert metadata["labels"] == {
        "app.kubernetes.io/managed-by": "tuinly-operator",
        "tuinly.com/credential": "storefront",
    }
    assert metadata["annotations"] == token_state().annotations()
    assert metadata["ownerReferences"] == [
        {
            "apiVersion": "tuinly.com/v1alpha1",
            "kind": "TuinlyCredential",
            "name": "storefront",
            "uid": UID,
            "controller": True,  # and no blockOwnerDeletion, which would take rights on finalizers
        }
    ]
    assert written["data"] == dict.fromkeys(DEFAULT_KEYS, "/zE=")


@pytest.mark.rule("OWN-3")
def test_a_retained_target_has_no_owner() -> None:
    assert "ownerReferences" not in manifest(RETAIN)["metadata"]


@pytest.mark.rule("TARGET-5")
def test_a_template_adds_labels_and_annotations_and_replaces_the_keys() -> None:
    written = manifest(TEMPLATED)
    assert written["data"].keys() == {"authorization"}
    assert written["metadata"]["labels"].keys() == {*LABELS, "team"}
    assert written["metadata"]["annotations"].keys() == ANNOTATIONS | {"example.com/note"}


def test_a_templates_variables_stand_for_what_is_known_of_the_token() -> None:
    values = template_values(token_state(granted_scopes="orders:read orders:write"), "the-token", "shop")
    assert values == {
        "access_token": "the-token",
        "token_type": "Bearer",
        "expires_at": "2026-11-24T08:00:00Z",
        "expires_in": "3600",
        "scope": "orders:read orders:write",
        "client_id": "shop",
    }
    assert values.keys() == VARIABLES


OF_ANOTHER: Json = {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "name": "storefront"}


@pytest.mark.parametrize("patch", [None, RETAIN], ids=["owned", "retained"])
@pytest.mark.parametrize(
    ("found", "stays"),
    [
        ("ours", False),
        ("retained", False),
        ("recreated", False),  # what this operator has applied, it takes away by leaving it out
        ("recreated, a copy", True),
        ("recreated, retained, a copy", False),  # which has no owner
    ],
)
def test_a_controller_that_came_with_a_copy_is_taken_over_as_an_owner_that_controls_nothing(
    found: str, patch: Json | None, *, stays: bool
) -> None:
    owners = manifest(patch, OWNERSHIPS[found][0])["metadata"].get("ownerReferences", [])
    ours = [OF_ANOTHER | {"uid": UID, "controller": True}] if patch is None else []
    assert owners == [*ours, *([OF_ANOTHER | {"uid": OTHER_UID, "controller": False}] if stays else [])]


# --- Whose it is ------------------------------------------------------------------------------------------------------


Interference = Callable[[TargetObject], None]


def reannotated(name: str, value: str) -> Interference:
    """An edit of an annotation's value, which is theirs then."""

    def interfere(target: TargetObject) -> None:
        target.taken("annotations", name)
        target.meta["annotations"][name] = value

    return interfere


def with_owner(target: TargetObject, uid: str | None) -> None:
    target.touched()
    if uid is None:
        del target.meta["ownerReferences"]
    else:
        target.meta["ownerReferences"][0]["uid"] = uid


def owned_by(uid: str | None) -> Interference:
    return lambda target: with_owner(target, uid)


def without_annotations(*names: str) -> Interference:
    def interfere(target: TargetObject) -> None:
        for name in names:
            target.removed("annotations", name)
            del target.meta["annotations"][name]

    return interfere


def fields_taken(target: TargetObject) -> None:
    target.touched()
    target.meta["managedFields"][0] |= {"manager": "kubectl-replace", "operation": "Update"}


def copied(target: TargetObject) -> None:
    """Created by somebody from what it looks like: the API server gives all fields to whoever creates an object."""
    fields_taken(target)


def subresource(target: TargetObject) -> None:
    target.touched()
    target.meta["managedFields"][0]["subresource"] = "status"


def without_labels(target: TargetObject) -> None:
    for name in LABELS:
        target.removed("labels", name)
    del target.meta["labels"]


def all_but_proof(target: TargetObject) -> None:
    """What is left is whose it is, by a label and an annotation."""
    for key in DEFAULT_KEYS:
        target.removed("data", key)
    target.removed("labels", "app.kubernetes.io/managed-by")
    without_annotations(*sorted(ANNOTATIONS - {"tuinly.com/credential-uid"}))(target)


def target_for(patch: Json | None = None, *interferences: Interference) -> SecretMeta:
    """A target as written for a credential, and what others did to it since."""
    target = TargetObject(credential(patch))
    for interfere in interferences:
        interfere(target)
    return target.seen()


NO_STATE = without_annotations(*sorted(ANNOTATIONS))
NO_UID = without_annotations("tuinly.com/credential-uid")
GARBLED = reannotated("tuinly.com/expires-at", "soon")
RECREATED: Json = {"metadata": {"uid": OTHER_UID}}
LATEST = "tuinly.com/handled-refresh"
NEIGHBOUR: Json = {
    "metadata": {"name": "neighbour", "uid": OTHER_UID},
    "spec": {"target": {"name": "storefront-token"}},
}
OWNERSHIPS: dict[str, tuple[SecretMeta, Ownership]] = {
    # Written by this operator and by nobody else.
    "ours": (target_for(), Ownership.PROVEN),
    "retained": (target_for(RETAIN), Ownership.PROVEN),
    "owner reference edited away": (target_for(None, owned_by(None)), Ownership.PROVEN),
    "recreated": (target_for(RECREATED), Ownership.PROVEN),
    "recreated, retained": (target_for(merged(RECREATED, RETAIN)), Ownership.PROVEN),
    "all but its proof edited away": (target_for(None, all_but_proof), Ownership.PROVEN),
    "another version's": (target_for(None, lambda target: target.removed("annotations", LATEST)), Ownership.PROVEN),
    # By an owner reference or an annotation, which come with any copy.
    "a copy": (target_for(None, copied), Ownership.OURS),
    "a copy without owner": (target_for(None, copied, owned_by(None)), Ownership.OURS),
    "a copy by an apply of our name through a subresource": (target_for(None, subresource), Ownership.OURS),
    "annotations edited away": (target_for(None, NO_STATE), Ownership.OURS),
    "replaced, so that nothing is ours by its fields": (target_for(None, fields_taken), Ownership.OURS),
    "labels edited away": (target_for(None, without_labels), Ownership.OURS),
    "retained, one annotation garbled": (target_for(RETAIN, GARBLED), Ownership.OURS),
    # Written for a credential of this name that was deleted and made again.
    "recreated, a copy": (target_for(RECREATED, copied), Ownership.ADOPTABLE),
    "recreated, retained, a copy": (target_for(merged(RECREATED, RETAIN), copied), Ownership.ADOPTABLE),
    "recreated, one annotation garbled": (target_for(RECREATED, GARBLED), Ownership.ADOPTABLE),
    # Somebody else's. Of two credentials with one target the owner keeps it.
    "foreign": (foreign_secret(), Ownership.FOREIGN),
    "retained, annotations edited away": (target_for(RETAIN, NO_STATE), Ownership.FOREIGN),
    "recreated, annotations edited away": (target_for(RECREATED, NO_UID), Ownership.FOREIGN),
    "recreated, labels edited away": (target_for(RECREATED, without_labels), Ownership.FOREIGN),
    "a neighbour's": (target_for(NEIGHBOUR), Ownership.FOREIGN),
    "a neighbour's, retained": (target_for(merged(NEIGHBOUR, RETAIN)), Ownership.FOREIGN),
    "under another controller": (target_for(None, owned_by("deployment-uid")), Ownership.FOREIGN),
    "recreated, under another controller": (target_for(RECREATED, owned_by("deployment-uid")), Ownership.FOREIGN),
}


@pytest.mark.rule("OWN-1", "OWN-9")
@pytest.mark.parametrize(("secret", "whose"), OWNERSHIPS.values(), ids=OWNERSHIPS.keys())
def test_ownership(secret: SecretMeta, whose: Ownership) -> None:
    assert ownership(secret, credential()) is whose


@pytest.mark.rule("OWN-9")
@pytest.mark.parametrize(
    ("part", "name", "proven"),
    [
        ("data", "theirs", False),
        ("data", "access_token", False),
        ("labels", "tuinly.com/credential", False),
        ("labels", "app.kubernetes.io/managed-by", False),
        ("annotations", "tuinly.com/expires-at", False),
        ("annotations", "tuinly.com/theirs", False),
        ("labels", "velero.io/backup-name", True),
        ("annotations", "example.com/note", True),
        ("finalizers", "example.com/hold", True),
        ("ownerReferences", "k", True),
    ],
)
@pytest.mark.parametrize("manager", ["somebody", "before-first-apply", "kube-controller-manager"])
def test_what_somebody_has_a_hand_in_is_not_proven(part: str, name: str, manager: str, *, proven: bool) -> None:
    """Labels, finalizers and the like come from others without a claim to the whole; nothing is lost with them."""
    target = TargetObject()
    target.shared(part, name)
    target.meta["managedFields"][-1]["manager"] = manager
    assert ownership(target.seen(), credential()) is (Ownership.PROVEN if proven else Ownership.OURS)


def test_our_own_reference_that_came_with_a_copy_is_written_once() -> None:
    owners = manifest(present=OWNERSHIPS["a copy"][0])["metadata"]["ownerReferences"]
    assert owners == [OF_ANOTHER | {"uid": UID, "controller": True}]


def test_without_our_label_it_is_the_target_of_no_name() -> None:
    found = target_for(None, without_labels).target
    assert found is not None
    assert found.credential == ""


def test_an_owner_that_controls_nothing_owns_nothing() -> None:
    target = TargetObject()
    target.meta["ownerReferences"].insert(0, {"uid": OTHER_UID, "name": "backup"})
    assert ownership(target.seen(), credential()) is Ownership.PROVEN
    del target.meta["ownerReferences"][1]
    seen = target.seen().target
    assert seen is not None
    assert seen.owner_uid == ""


def test_what_was_taken_back_by_force_is_proven_again() -> None:
    """What is left of the other manager's entry then owns nothing by name."""
    target = TargetObject()
    entry = {"manager": "kubectl-create", "operation": "Update", "fieldsV1": {"f:data": {".": {}}, "f:type": {}}}
    target.meta["managedFields"].append(entry)
    assert ownership(target.seen(), credential()) is Ownership.PROVEN


# --- Whether anybody touched it ---------------------------------------------------------------------------------------


def holds(target: TargetObject, patch: Json | None = None) -> bool:
    seen = credential(patch)
    return holds_state(target.seen(), seen, token_state(seen), layout_of(seen.spec.target.template))


def fits(target: TargetObject, patch: Json | None = None) -> bool:
    seen = credential(patch)
    return looks_as_asked(target.seen(), seen, layout_of(seen.spec.target.template))


def terminating(target: TargetObject) -> None:
    target.touched()
    target.meta["deletionTimestamp"] = "2026-11-24T07:00:00Z"


@pytest.mark.parametrize("patch", [None, RETAIN, TEMPLATED], ids=["default", "retained", "templated"])
def test_a_target_as_written_holds_its_token_and_is_in_shape(patch: Json | None) -> None:
    target = TargetObject(credential(patch))
    assert holds(target, patch)
    assert fits(target, patch)


@pytest.mark.rule("DRIFT-5")
@pytest.mark.parametrize("key", DEFAULT_KEYS)
@pytest.mark.parametrize("operation", ["Update", "Apply"])
def test_an_edited_key_is_seen(key: str, operation: str) -> None:
    target = TargetObject()
    target.taken("data", key, operation)
    assert not holds(target)


@pytest.mark.rule("DRIFT-5")
@pytest.mark.parametrize("key", DEFAULT_KEYS)
def test_a_removed_key_is_seen(key: str) -> None:
    target = TargetObject()
    target.removed("data", key)
    assert not holds(target)


def test_a_removed_key_of_a_template_is_seen() -> None:
    target = TargetObject(credential(TEMPLATED))
    target.removed("data", "authorization")
    assert not holds(target, TEMPLATED)


@pytest.mark.rule("DRIFT-5")
@pytest.mark.parametrize("name", sorted(ANNOTATIONS))
def test_an_edited_annotation_of_ours_is_seen(name: str) -> None:
    target = TargetObject()
    target.taken("annotations", name)
    assert not holds(target)
    assert not fits(target)


def test_one_more_key_in_our_name_is_seen() -> None:
    target = TargetObject()
    target.ours["f:data"]["f:more"] = {}
    assert not holds(target)


def test_a_label_for_another_credential_in_our_name_is_put_right() -> None:
    target = TargetObject()
    target.meta["labels"]["tuinly.com/credential"] = "neighbour"
    assert not fits(target)


@pytest.mark.parametrize("interfere", [NO_STATE, GARBLED], ids=["gone", "garbled"])
def test_annotations_that_tell_nothing_hold_no_token(interfere: Interference) -> None:
    target = TargetObject()
    interfere(target)
    assert not holds(target)


def test_the_same_token_in_another_shape_is_the_same_token() -> None:
    """The write was made, and its answer lost."""
    assert holds(TargetObject(state=replace(token_state(), template="another digest")))


def test_another_state_is_another_token() -> None:
    """Both by us, but not the one that is remembered: a former leader wrote it, or a write was answered and lost."""
    later = replace(token_state(), issued_at=int(ISSUED.wall) + 1)
    assert not holds(TargetObject(state=later))


@pytest.mark.parametrize("name", [field.name for field in fields(TokenState)])
def test_a_token_is_the_same_if_all_that_is_known_of_it_is_but_for_the_template(name: str) -> None:
    state = token_state()
    other = replace(state, **{name: getattr(state, name) * 2 + type(getattr(state, name))(1)})
    assert state.same_token(replace(state))
    assert state.same_token(other) is (name == "template")


@pytest.mark.rule("DRIFT-6")
@pytest.mark.parametrize(
    "interfere",
    [
        lambda target: target.shared("data", "access_token"),  # the same value, applied by another manager
        lambda target: target.shared("data", "theirs", "Update"),
        lambda target: target.shared("annotations", "example.com/theirs", "Update"),
        lambda target: target.shared("labels", "theirs", "Update"),
    ],
    ids=["co-owned key", "added key", "added annotation", "added label"],
)
def test_what_others_add_is_left_alone(interfere: Interference) -> None:
    target = TargetObject()
    interfere(target)
    assert holds(target)
    assert fits(target)


@pytest.mark.rule("REPL-17")
@pytest.mark.parametrize(
    ("part", "name", "no_matter"),
    [
        ("annotations", "tuinly.com/written-by", True),
        ("annotations", "example.com/note", False),
        ("labels", "tuinly.com/written-by", False),
    ],
)
def test_an_annotation_of_another_version_is_no_reason_to_write(part: str, name: str, *, no_matter: bool) -> None:
    """Else each credential would cost a token request when a version follows one that writes more."""
    target = TargetObject()
    target.ours["f:metadata"][f"f:{part}"][f"f:{name}"] = {}
    assert holds(target)
    assert fits(target) is no_matter


@pytest.mark.parametrize(
    ("patch", "interfere"),
    [
        (None, lambda target: target.removed("labels", LABELS[0])),
        (None, lambda target: target.taken("labels", LABELS[1])),
        (None, lambda target: with_owner(target, None)),
        (TEMPLATED, lambda target: target.removed("labels", "team")),
        (TEMPLATED, lambda target: target.taken("annotations", "example.com/note")),
    ],
    ids=["label", "label taken", "owner reference", "label of the template", "annotation of the template"],
)
def test_what_surrounds_the_token_is_put_right_and_the_token_is_still_held(
    patch: Json | None, interfere: Interference
) -> None:
    target = TargetObject(credential(patch))
    interfere(target)
    assert holds(target, patch)
    assert not fits(target, patch)


REWORDED: Json = {"spec": {"target": {"template": {"data": dict.fromkeys(DEFAULT_KEYS, "Bearer ${access_token}")}}}}


@pytest.mark.rule("TARGET-8")
@pytest.mark.parametrize("patch", [TEMPLATED, REWORDED, RETAIN], ids=["template", "same keys", "deletion policy"])
def test_a_changed_spec_of_the_target_puts_it_out_of_shape_and_never_touches_the_token(patch: Json) -> None:
    """So a changed template never touches Ready."""
    target = TargetObject()
    assert holds_state(
        target.seen(), credential(patch), token_state(), layout_of(credential(patch).spec.target.template)
    )
    assert not fits(target, patch)


def test_of_an_earlier_template_only_the_annotations_say_whether_the_token_is_held() -> None:
    """Which keys it wrote is not known any more: it may have written none."""
    target = TargetObject(credential(TEMPLATED))
    target.removed("data", "authorization")
    target.removed("annotations", "example.com/note")
    for name in ("team", *LABELS):
        target.removed("labels", name)
    assert holds(target)
    target.removed("annotations", LATEST)
    assert not holds(target)


def test_a_target_that_is_somebody_elses_holds_no_token_of_ours() -> None:
    target = TargetObject()
    with_owner(target, "deployment-uid")
    assert not holds(target)


@pytest.mark.rule("DRIFT-9")
def test_a_target_on_its_way_out_holds_its_token_until_it_is_gone() -> None:
    """Somebody's finalizer may hold it for long; Pods can read it for as long."""
    target = TargetObject()
    terminating(target)
    assert holds(target)
    assert fits(target)
    assert (target.seen().deleting, TargetObject().seen().deleting) == (True, False)


def test_only_our_own_applies_count() -> None:
    """Not what a manager of our name did by update, nor what came through a subresource."""
    for changes in ({"operation": "Update"}, {"subresource": "status"}, {"manager": "kubectl"}):
        target = TargetObject()
        target.meta["managedFields"][0] |= changes
        assert not holds(target), changes


# --- What is believed after a restart ---------------------------------------------------------------------------------


def believed(target: TargetObject, *, wall: float = ISSUED.wall) -> TokenState | None:
    return believe(target.seen(), credential(), DEFAULT, wall)


@pytest.mark.rule("STATE-5")
def test_an_untouched_state_is_believed() -> None:
    assert believed(TargetObject()) == token_state()


def test_an_expired_state_is_believed() -> None:
    """It tells since when the token has been expired."""
    assert believed(TargetObject(), wall=ISSUED.wall + 10 * LIFETIME) == token_state()


@pytest.mark.rule("STATE-5")
@pytest.mark.parametrize(("ahead", "believable"), [(0, True), (60, True), (60.5, False), (3600, False)])
def test_a_state_from_the_future_is_believed_up_to_a_minute(ahead: float, *, believable: bool) -> None:
    assert (believed(TargetObject(), wall=ISSUED.wall - ahead) is not None) is believable


@pytest.mark.rule("STATE-5")
@pytest.mark.parametrize(
    "interfere",
    [
        lambda target: target.taken("annotations", "tuinly.com/expires-at"),
        lambda target: target.removed("annotations", "tuinly.com/handled-refresh"),
        lambda target: target.taken("data", "access_token"),
        reannotated("tuinly.com/state-version", "2"),
        reannotated("tuinly.com/credential-uid", OTHER_UID),
        lambda target: target.meta.pop("managedFields"),
        lambda target: target.meta.pop("annotations"),
    ],
    ids=["annotation", "removed annotation", "data", "version", "uid", "no managedFields", "no annotations"],
)
def test_a_touched_state_is_not_believed(interfere: Interference) -> None:
    target = TargetObject()
    interfere(target)
    assert believed(target) is None


@pytest.mark.rule("STATE-5")
@pytest.mark.parametrize(
    "changes",
    [{"credential_uid": OTHER_UID}, {"expires_at": int(ISSUED.wall)}, {"expires_at": int(ISSUED.wall) + 2_592_001}],
    ids=["other uid", "no lifetime", "too long a lifetime"],
)
def test_a_state_that_cannot_be_is_not_believed(changes: Json) -> None:
    assert believed(TargetObject(state=token_state(**changes))) is None


def test_nothing_is_believed_of_a_strangers_secret() -> None:
    assert believe(foreign_secret(), credential(), DEFAULT, ISSUED.wall) is None


@pytest.mark.rule("OWN-4")
def test_the_state_of_a_deleted_credential_of_this_name_is_not_believed() -> None:
    """The target is adopted, but its token was issued for a spec that is gone."""
    assert believed(TargetObject(credential(RECREATED))) is None


# --- Versions and digests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "newer"),
    [("10", "9", True), ("9", "10", False), ("10", "10", False), ("x", "10", True), ("x", "x", False)],
)
def test_newer(one: str, other: str, *, newer: bool) -> None:
    """Resource versions are compared as numbers (KEP-5504); what is no number is believed as it comes."""
    assert SecretMeta("u", one).newer_than(SecretMeta("u", other)) is newer


@pytest.mark.rule("STATE-3")
def test_the_identity_of_a_content_is_uid_and_version_and_no_digest() -> None:
    assert SecretMeta("u", "10").identity == "u/10"


@pytest.mark.rule("STATE-3")
@pytest.mark.parametrize(
    ("patch", "url", "same"),
    [
        ({}, "https://a", True),
        ({"scopes": ["b", "a"]}, "https://a", True),
        ({"refresh": {"before": "20m"}, "suspend": True, "target": {"name": "t"}}, "https://a", True),
        ({"tokenURL": "https://a"}, "https://a", True),  # it is the effective URL that counts
        ({}, "https://b", False),
        ({"scopes": ["a"]}, "https://a", False),
        ({"clientSecretRef": {"name": "other"}}, "https://a", False),
        ({"clientSecretRef": {"clientIDKey": "other"}}, "https://a", False),
        ({"clientSecretRef": {"clientSecretKey": "other"}}, "https://a", False),
    ],
    ids=str,
)
def test_the_inputs_of_an_exchange_are_url_scopes_and_where_the_client_is(patch: Json, url: str, *, same: bool) -> None:
    base: Json = {"spec": {"scopes": ["a", "b"]}}
    before = exchange_inputs("https://a", credential(base).spec)
    after = exchange_inputs(url, credential(merged(base, {"spec": patch})).spec)
    assert (before == after) is same


@pytest.mark.rule("STATE-4")
@pytest.mark.parametrize(
    ("spec", "digest"),
    [({}, "03bc9cf77db98444b8508b4b82eb7fc8"), ({"scopes": ["b", "a"]}, "83033517e435c633c94f58e907a5fcac")],
    ids=str,
)
def test_the_digest_of_the_exchange_inputs_is_the_same_in_each_version(spec: Json, digest: str) -> None:
    """Targets hold it: another digest would make each credential unready after an upgrade, and cost an exchange."""
    assert exchange_inputs("https://a", credential({"spec": spec}).spec) == digest


@given(
    st.frozensets(st.text("ab:,[]\"' ", max_size=4), max_size=3),
    st.frozensets(st.text("ab:,[]\"' ", max_size=4), max_size=3),
)
def test_different_scopes_never_look_the_same(one: frozenset[str], other: frozenset[str]) -> None:
    spec = credential().spec
    digests = [exchange_inputs("https://a", replace(spec, scopes=scopes)) for scopes in (one, other)]
    assert (digests[0] == digests[1]) is (one == other)
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in digests)


# --- A few words of each Secret ---------------------------------------------------------------------------------------


@pytest.mark.rule("SEC-27")
def test_of_a_strangers_secret_only_its_version_is_kept() -> None:
    raw: Json = {
        "metadata": {
            "uid": "u",
            "resourceVersion": "5",
            "labels": {"app": "x"},
            "annotations": {"tuinly.com/credential-uid": UID},
            "managedFields": [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:data": {"f:a": {}}}}],
        }
    }
    assert SecretMeta.from_object(raw) == SecretMeta("u", "5")


@pytest.mark.rule("STATE-7")
@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"tuinly.com/credential": "storefront"}},
        {"managedFields": [{"manager": "tuinly-operator", "operation": "Apply"}]},
        {"labels": None, "annotations": None, "ownerReferences": None, "managedFields": None},
    ],
    ids=["label only", "fields only", "nulls"],
)
def test_whatever_bears_our_name_does_no_harm(metadata: Json) -> None:
    seen = SecretMeta.from_object({"metadata": {"uid": "u", "resourceVersion": "5"} | metadata})
    assert ownership(seen, credential()) is Ownership.FOREIGN
    assert not looks_as_asked(seen, credential(), DEFAULT)


def test_a_key_is_namespace_and_name() -> None:
    assert str(secret_key({"metadata": {"namespace": "shop", "name": "s"}})) == "shop/s"


@pytest.mark.parametrize(
    ("time", "written"),
    [("2026-11-24T07:00:00Z", ISSUED.wall), (None, 0.0), ("", 0.0), ("yesterday", 0.0)],
)
def test_when_it_was_written_last_is_what_the_api_server_says(time: str | None, written: float) -> None:
    """Whatever others have written since."""
    target = TargetObject()
    target.meta["managedFields"][0]["time"] = time
    target.shared("annotations", "note")
    target.meta["managedFields"][-1]["time"] = "2026-11-24T08:00:00Z"
    seen = target.seen().target
    assert seen is not None
    assert seen.written == written
