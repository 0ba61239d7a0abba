"""The target while the operator runs: restored from memory, moved, kept, adopted, never taken from somebody else."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import pytest

from tests.support.acts import appearance, await_restored, edit, force, kept_credentials, refused_tokens
from tests.support.cluster import Cluster
from tests.support.merge import merged
from tests.support.objects import Json, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault
from tests.support.tenant import Target, Tenant
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.usefixtures("operator")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def kubectl(tenant: Tenant, *args: str, given: Json | None = None) -> None:
    """Run kubectl in the tenant's namespace."""
    tenant.objects.cluster.kubectl(
        *args, "--namespace", tenant.objects.namespace, input=None if given is None else json.dumps(given)
    )


def apply_as_somebody(tenant: Tenant, secret: Json, *flags: str) -> None:
    """Apply fields of the target by server-side apply, as another manager."""
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": tenant.target_name}, **secret}
    kubectl(tenant, "apply", "--server-side", "--field-manager=somebody", *flags, "-f", "-", given=manifest)


def await_moved(tenant: Tenant, name: str) -> Target:
    """Return the target as soon as it is there under another name."""
    tenant.target_name = name
    wait_until(lambda: tenant.find_target() is not None, what=f"the target {name}")
    assert tenant.await_ready().raw["metadata"]["name"] == name
    return tenant.target()


# Drift ----------------------------------------------------------------------------------------------------------------


def edit_by_kubectl(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBE_EDITOR", f"sed -i s/{encoded('Bearer')}/{encoded('Basic')}/")
    kubectl(tenant, "edit", "secret", tenant.target_name)


def apply_by_force(tenant: Tenant, _: pytest.MonkeyPatch) -> None:
    apply_as_somebody(tenant, {"data": {"access_token": encoded("theirs")}}, "--force-conflicts")


def merge(patch: Json) -> Callable[[Tenant, pytest.MonkeyPatch], None]:
    return lambda tenant, _: edit(tenant, patch)


DAMAGE: Mapping[str, Callable[[Tenant, pytest.MonkeyPatch], None]] = {
    "deleted": lambda tenant, _: tenant.objects.delete("Secret", tenant.target_name),
    "token-edited": merge({"data": {"access_token": encoded("stolen")}}),
    "token-removed": merge({"data": {"access_token": None}}),
    "all-data-removed": merge({"data": None}),
    "edited-with-kubectl": edit_by_kubectl,
    "applied-by-force": apply_by_force,
    "annotation-edited": merge({"metadata": {"annotations": {"tuinly.com/expires-at": "2100-01-01T00:00:00Z"}}}),
    "annotation-garbled": merge({"metadata": {"annotations": {"tuinly.com/issued-at": "yesterday"}}}),
    "annotation-removed": merge({"metadata": {"annotations": {"tuinly.com/state-version": None}}}),
    "label-edited": merge({"metadata": {"labels": {"tuinly.com/credential": "another"}}}),
    "label-removed": merge({"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}),
    "labels-removed": merge({"metadata": {"labels": None}}),
}


@pytest.mark.rule("DRIFT-1", "DRIFT-3")
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_mended_from_memory(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch, damage: str, policy: str
) -> None:
    """At once, by one write, without a token request; and an Event tells of it."""
    tenant.start({"target": {"deletionPolicy": policy}})
    before = tenant.await_ready()
    DAMAGE[damage](tenant, monkeypatch)
    after = await_restored(tenant, before)
    assert tenant.await_event("Restored")["type"] == "Warning"
    assert len(tenant.requests()) == 1
    if damage != "deleted":
        assert after.raw["metadata"]["uid"] == before.raw["metadata"]["uid"]
        assert len(tenant.objects.versions("Secret", tenant.target_name, since=before.version)) == 2
    assert tenant.await_ready().token == before.token
    assert tenant.verdicts("Ready")[-1:] == [("True", "Issued")]


@pytest.mark.rule("OWN-1")
def test_a_target_without_our_annotations_is_still_its_owners(tenant: Tenant) -> None:
    tenant.start()
    before = tenant.await_ready()
    edit(tenant, {"metadata": {"annotations": None}})
    await_restored(tenant, before)
    assert len(tenant.requests()) == 1


@pytest.mark.rule("OWN-1")
def test_a_retained_target_without_our_annotations_is_nobodys_any_more(tenant: Tenant) -> None:
    """Whoever kept it may take it away from us."""
    tenant.start({"target": {"deletionPolicy": "Retain"}})
    tenant.await_ready()
    edit(tenant, {"metadata": {"annotations": None}})
    theirs = tenant.target().version
    tenant.await_condition("Ready", "False", "TargetConflict")
    force(tenant, "now")
    tenant.apply({"target": {"deletionPolicy": "Retain"}, "scopes": []})
    tenant.await_condition("Refreshed", "False", "TargetConflict")
    assert tenant.target().version == theirs
    assert len(tenant.requests()) == 1


@pytest.mark.rule("DRIFT-3")
def test_a_removed_owner_reference_is_put_back(tenant: Tenant) -> None:
    tenant.start()
    before = tenant.await_ready()
    edit(tenant, {"metadata": {"ownerReferences": None}})
    await_restored(tenant, before)
    tenant.await_event("Restored")
    assert len(tenant.requests()) == 1


OTHERS: Mapping[str, Callable[[Tenant], None]] = {
    "key": lambda tenant: edit(tenant, {"data": {"theirs": encoded("theirs")}}),
    "applied-key": lambda tenant: apply_as_somebody(tenant, {"data": {"theirs": encoded("theirs")}}),
    "label": lambda tenant: edit(tenant, {"metadata": {"labels": {"team": "shop"}}}),
    "annotation": lambda tenant: edit(tenant, {"metadata": {"annotations": {"example.com/note": "theirs"}}}),
    "same-value": lambda tenant: apply_as_somebody(tenant, {"data": {"token_type": encoded("Bearer")}}),
    "owner": lambda tenant: edit(tenant, {"metadata": {"ownerReferences": [*_owners(tenant), _client_owner(tenant)]}}),
}


def _owners(tenant: Tenant) -> list[Json]:
    owners: list[Json] = tenant.target().raw["metadata"]["ownerReferences"]
    return owners


def _client_owner(tenant: Tenant) -> Json:
    """Return a reference to the client Secret as an owner: no controller, as ours is that."""
    uid = tenant.objects.get("Secret", tenant.client_secret_name)["metadata"]["uid"]
    return {"apiVersion": "v1", "kind": "Secret", "name": tenant.client_secret_name, "uid": uid}


def additions(target: Target) -> Json:
    """Return what others may have added to a target."""
    meta = target.raw["metadata"]
    return {
        "data": target.data.get("theirs"),
        "label": meta["labels"].get("team"),
        "annotation": meta["annotations"].get("example.com/note"),
        "owners": meta["ownerReferences"],
        "managers": {entry["manager"] for entry in meta["managedFields"]},
    }


@pytest.mark.rule("DRIFT-6")
@pytest.mark.parametrize("other", OTHERS)
def test_what_others_add_is_theirs_and_stays(tenant: Tenant, other: str) -> None:
    """Also when the next token is written."""
    tenant.start()
    before = tenant.await_ready()
    OTHERS[other](tenant)
    added = additions(tenant.target())
    assert added != additions(before)
    force(tenant, "now")
    after = tenant.await_token(other_than=before.token)
    assert additions(after) == added
    assert len(tenant.objects.versions("Secret", tenant.target_name, since=before.version)) == 2
    assert "Restored" not in tenant.event_reasons()


@pytest.mark.rule("DRIFT-8")
def test_a_fight_over_the_target_stays_bounded(tenant: Tenant) -> None:
    """Somebody writes it as fast as the API server lets them: after three restores, one per least interval."""
    tenant.start()
    before = tenant.await_ready()
    begin, writes, restored = time.monotonic(), 0, 0
    while restored < 2 and time.monotonic() < begin + 60:  # on a busy machine all of its writes may come too late
        end = time.monotonic() + 3
        while time.monotonic() < end:
            edit(tenant, {"data": {"access_token": encoded(f"theirs {writes}")}})
            writes += 1
        restored = sum(target.token == before.token for target in tenant.targets()[1:])
    most = 3 + (time.monotonic() - begin) / 0.2 + 1
    assert 2 <= restored <= most < writes
    await_restored(tenant, before)
    assert len(tenant.requests()) == 1
    assert tenant.event_reasons().count("Restored") <= most + 1


@pytest.mark.rule("DRIFT-9")
def test_a_target_that_a_finalizer_holds_is_kept_up_to_date_and_made_again(tenant: Tenant) -> None:
    """The API server takes writes to what is being deleted."""
    tenant.start()
    before = tenant.await_ready()
    edit(tenant, {"metadata": {"finalizers": ["example.com/hold"]}})
    kubectl(tenant, "delete", "secret", tenant.target_name, "--wait=false")
    wait_until(lambda: "is being deleted" in tenant.await_condition("Ready", "True", "Issued").message, what="told")
    force(tenant, "now")
    after = tenant.await_token(other_than=before.token)
    assert after.raw["metadata"]["deletionTimestamp"]
    edit(tenant, {"metadata": {"finalizers": None}})
    wait_until(
        lambda: (found := tenant.find_target()) and "deletionTimestamp" not in found.raw["metadata"], what="a new one"
    )
    assert tenant.await_ready().token == after.token
    assert len(tenant.requests()) == 2


# A target that cannot be written to -----------------------------------------------------------------------------------


@pytest.mark.rule("OWN-12", "OWN-13")
def test_an_immutable_target_is_a_conflict_until_it_is_deleted(tenant: Tenant) -> None:
    """Its token works on; the next one waits, and is written as soon as the Secret is gone."""
    tenant.start()
    before = tenant.await_ready()
    edit(tenant, {"immutable": True})
    theirs = tenant.target().raw
    force(tenant, "now")
    assert "immutable" in tenant.await_condition("Refreshed", "False", "TargetConflict").message
    tenant.await_condition("Ready", "True", "Issued")
    assert tenant.target().raw == theirs
    tenant.objects.delete("Secret", tenant.target_name)
    after = tenant.await_token(other_than=before.token)
    assert after.token == tenant.tokens()[-1].value
    tenant.await_condition("Refreshed", "True", "Issued")
    assert len(tenant.requests()) == 2


def replace_by_copy(tenant: Tenant, **changes: Any) -> None:  # noqa: ANN401 -- fields of a Secret
    """Put a copy in place of the target, with its labels, annotations and owner, before the operator looks again."""
    before = tenant.target()
    tenant.apply({"suspend": True})
    tenant.await_condition("Refreshed", "Unknown", "Suspended")
    tenant.objects.delete("Secret", tenant.target_name)
    kept = {name: before.raw["metadata"][name] for name in ("name", "labels", "annotations", "ownerReferences")}
    kubectl(tenant, "create", "-f", "-", given={**before.raw, "metadata": kept, **changes})
    tenant.apply({"suspend": False})


@pytest.mark.rule("OWN-12")
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("x/y", {"a": "b"}),
        ("kubernetes.io/basic-auth", {"username": "a"}),
        ("kubernetes.io/tls", {"tls.crt": "", "tls.key": ""}),
    ],
    ids=["any-type", "watched-type", "unwatched-type"],
)
def test_a_target_with_another_type_is_not_ours_to_delete(tenant: Tenant, kind: str, data: Mapping[str, str]) -> None:
    """The type of a Secret cannot be changed, and this operator writes one type alone."""
    tenant.start()
    before = tenant.await_ready()
    replace_by_copy(tenant, type=kind, data=None, stringData=data)
    theirs = tenant.target()
    tenant.await_condition("Ready", "False", "TargetConflict")
    tenant.await_condition("Refreshed", "False", "TargetConflict")
    assert tenant.target().raw == theirs.raw
    tenant.objects.delete("Secret", tenant.target_name)
    tenant.apply({"refresh": {"beforePercentage": 40}})
    await_restored(tenant, before)
    assert len(tenant.requests()) == 1


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("OWN-8")
def test_a_renamed_target_is_published_and_then_the_old_one_deleted(tenant: Tenant) -> None:
    tenant.start()
    old_name, before = tenant.target_name, tenant.await_ready()
    tenant.apply({"target": {"name": "moved"}})
    after = await_moved(tenant, "moved")
    wait_until(lambda: tenant.objects.find("Secret", old_name) is None, what="the old target gone")
    assert appearance(after) == appearance(before)
    assert len(tenant.requests()) == 1
    assert tenant.status()["secretName"] == "moved"
    assert "Restored" not in tenant.event_reasons()


@pytest.mark.rule("OWN-8")
def test_the_old_target_stays_until_the_new_one_is_there(tenant: Tenant) -> None:
    tenant.start()
    before = tenant.await_ready()
    tenant.apply_client_secret({"precious": "data"}, name="taken")
    tenant.apply({"target": {"name": "taken"}})
    tenant.await_condition("Ready", "False", "TargetConflict")
    assert tenant.target().version == before.version
    tenant.objects.delete("Secret", "taken")
    old_name = tenant.target_name
    assert await_moved(tenant, "taken").token == before.token
    wait_until(lambda: tenant.objects.find("Secret", old_name) is None, what="the old target gone")
    assert len(tenant.requests()) == 1


@pytest.mark.rule("OWN-8")
@pytest.mark.parametrize("spec", [{"deletionPolicy": "Retain"}, {}], ids=["retained before", "retained from now on"])
def test_the_old_target_of_a_rename_stays_if_retained(tenant: Tenant, spec: Json) -> None:
    tenant.start({"target": spec})
    old_name, before = tenant.target_name, tenant.await_ready()
    tenant.apply({"target": {"name": "moved", "deletionPolicy": "Retain"}})
    after = await_moved(tenant, "moved")
    force(tenant, "now")
    tenant.await_token(other_than=after.token)
    assert Target(tenant.objects.get("Secret", old_name)).token == before.token
    assert len(tenant.requests()) == 2


@pytest.mark.rule("OWN-10")
def test_a_copy_of_the_target_is_never_deleted(tenant: Tenant) -> None:
    """Neither while the target is in place nor after a rename; managed fields that come with it prove nothing."""
    tenant.start()
    before = tenant.await_ready()
    meta = {name: before.raw["metadata"][name] for name in ("labels", "annotations", "ownerReferences")}
    kubectl(tenant, "create", "-f", "-", given={**before.raw, "metadata": {**meta, "name": "backup"}})
    managed = {"managedFields": before.raw["metadata"]["managedFields"]}
    kubectl(tenant, "create", "-f", "-", given={**before.raw, "metadata": {**meta, **managed, "name": "backup-2"}})
    copies = [tenant.objects.get("Secret", name) for name in ("backup", "backup-2")]
    old_name = tenant.target_name
    tenant.apply({"target": {"name": "moved"}})
    await_moved(tenant, "moved")
    wait_until(lambda: tenant.objects.find("Secret", old_name) is None, what="the old target gone")
    assert tenant.await_event("TargetLookAlike")["type"] == "Warning"
    force(tenant, "now")
    tenant.await_token(other_than=before.token)
    assert [tenant.objects.get("Secret", name) for name in ("backup", "backup-2")] == copies
    assert tenant.event_reasons().count("TargetLookAlike") <= len(copies)


# Retain, and adoption -------------------------------------------------------------------------------------------------


@pytest.mark.rule("OWN-3")
def test_a_retained_target_has_no_owner_and_survives(tenant: Tenant) -> None:
    """Two credentials go; the garbage collector takes the target of the one that does not retain it."""
    other = Tenant(tenant.objects, tenant.sandbox, "other").start()
    tenant.start({"target": {"deletionPolicy": "Retain"}})
    other.await_ready()
    before = tenant.await_ready()
    assert "ownerReferences" not in before.raw["metadata"]
    tenant.delete()
    other.delete()
    # In a new cluster the garbage collector learns only after half a minute that there are TuinlyCredentials.
    wait_until(lambda: other.find_target() is None, what="the other target collected", seconds=90)
    assert tenant.target().version == before.version


@pytest.mark.rule("OWN-3")
def test_the_deletion_policy_can_be_changed(tenant: Tenant) -> None:
    tenant.start()
    before = tenant.await_ready()
    tenant.apply({"target": {"deletionPolicy": "Retain"}})
    wait_until(lambda: "ownerReferences" not in tenant.target().raw["metadata"], what="no owner")
    tenant.apply({"target": {"deletionPolicy": "Delete"}})
    await_restored(tenant, before)
    tenant.await_ready()
    assert len(tenant.requests()) == 1
    assert "Restored" not in tenant.event_reasons()


def await_collector(tenant: Tenant) -> None:
    """Wait until the garbage collector knows all Secrets that there are, as it has taken one that came after them.

    What it does not know yet loses no owner by a deletion that leaves it, but is taken later on: its owner is gone.
    """
    owner = {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "name": "gone", "uid": str(uuid4())}
    meta = {"name": "later", "ownerReferences": [owner]}
    tenant.objects.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta})
    wait_until(lambda: tenant.objects.find("Secret", "later") is None, seconds=60, what="the collector")


@pytest.mark.rule("OWN-4", "ABS-3")
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_a_credential_that_is_made_again_adopts_the_target_that_was_left(tenant: Tenant, policy: str) -> None:
    spec = {"target": {"deletionPolicy": policy}}
    tenant.start(spec)
    before = tenant.await_ready()
    await_collector(tenant)
    kubectl(tenant, "delete", "tuinlycredential", tenant.name, "--cascade=orphan")
    wait_until(lambda: "ownerReferences" not in tenant.target().raw["metadata"], what="an orphan")
    uid = tenant.apply(spec)["metadata"]["uid"]
    after = tenant.await_token(other_than=before.token)
    tenant.await_ready()
    assert after.raw["metadata"]["uid"] == before.raw["metadata"]["uid"]
    assert after.notes["credential-uid"] == uid
    owners = [owner["uid"] for owner in after.raw["metadata"].get("ownerReferences", [])]
    assert owners == ([uid] if policy == "Delete" else [])
    assert len(tenant.requests()) == 2


@pytest.mark.rule("OWN-5")
@pytest.mark.parametrize("order", ["target first", "credential first"])
@pytest.mark.parametrize("owners", [True, False], ids=["owners kept", "owners dropped"])
def test_a_namespace_that_is_restored_from_a_backup_has_fresh_tokens_soon(
    tenant: Tenant, order: str, *, owners: bool
) -> None:
    """Everything has a new uid; the garbage collector and the operator see to the rest, and nobody has to."""
    tenant.start()
    before = tenant.await_ready()
    parts = ("labels", "annotations", *(["ownerReferences"] if owners else []))
    kept = {**before.raw, "metadata": {part: before.raw["metadata"][part] for part in parts}}
    tenant.delete()
    kubectl(tenant, "delete", "secret", tenant.target_name, "--ignore-not-found")
    wait_until(lambda: tenant.find_target() is None, what="the target gone")

    if order == "target first":
        kubectl(tenant, "create", "-f", "-", given=merged(kept, {"metadata": {"name": tenant.target_name}}))
    uid = tenant.apply()["metadata"]["uid"]
    if order == "credential first":
        tenant.await_ready()
        edit(tenant, kept)  # as tools do that write over what is there

    def check() -> None:
        target = tenant.await_ready()
        owners = [owner["uid"] for owner in target.raw["metadata"]["ownerReferences"] if owner.get("controller")]
        assert (target.token, target.notes["credential-uid"]) == (tenant.tokens()[-1].value, uid)
        assert (owners, target.token == before.token) == ([uid], False)

    eventually(check)
    assert "TargetConflict" not in tenant.event_reasons()


# Conflicts ------------------------------------------------------------------------------------------------------------


def make_secret(tenant: Tenant, kind: str, data: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Make a Secret that has the target's name and nothing to do with the credential."""
    tenant.apply_client_secret(data, kind=kind, labels=labels, name=tenant.target_name)


@pytest.mark.rule("OWN-6")
@pytest.mark.parametrize(
    ("kind", "data", "labels", "requests"),
    [
        ("Opaque", {"access_token": "precious"}, {}, 0),
        ("Opaque", {"access_token": "precious"}, {"tuinly.com/credential": "storefront"}, 0),
        ("kubernetes.io/tls", {"tls.crt": "", "tls.key": ""}, {}, 1),
    ],
    ids=["any", "labelled by hand", "type that is not watched"],
)
def test_a_secret_of_somebody_else_is_never_touched(
    tenant: Tenant, kind: str, data: Mapping[str, str], labels: Mapping[str, str], requests: int
) -> None:
    """Of a type that no watch tells of, the first write learns, which only creates."""
    make_secret(tenant, kind, data, labels)
    before = tenant.target()
    tenant.start()
    condition = tenant.await_condition("Ready", "False", "TargetConflict")
    assert tenant.target_name in condition.message
    tenant.await_condition("Refreshed", "False", "TargetConflict")
    assert tenant.await_event("TargetConflict")["type"] == "Warning"
    assert (tenant.target().version, len(tenant.requests())) == (before.version, requests)
    tenant.objects.delete("Secret", tenant.target_name)
    # Where the type is kept out of the watch this is noticed within minutes, or at the next occasion.
    tenant.apply({"refresh": {"beforePercentage": 40}})
    tenant.await_ready()
    assert len(tenant.requests()) == 1


@pytest.mark.rule("OWN-6")
def test_a_secret_of_somebody_else_in_place_of_the_target_is_never_touched(tenant: Tenant) -> None:
    """Somebody deletes the target and makes a Secret of their own; the credential recovers when that goes."""
    tenant.start()
    before = tenant.await_ready()
    tenant.apply({"suspend": True})
    tenant.await_condition("Refreshed", "Unknown", "Suspended")
    tenant.objects.delete("Secret", tenant.target_name)
    make_secret(tenant, "Opaque", {"precious": "data"}, {})
    theirs = tenant.target().version
    tenant.apply({"suspend": False})
    tenant.await_condition("Ready", "False", "TargetConflict")
    assert tenant.target().version == theirs
    tenant.objects.delete("Secret", tenant.target_name)
    await_restored(tenant, before)
    assert len(tenant.requests()) == 1


def test_a_secret_that_comes_while_the_token_is_asked_for_is_not_overwritten(tenant: Tenant) -> None:
    """The watch leaves its type out, and a look from before the request is old by then. The token waits in memory."""
    tenant.sandbox.fault(Fault(kind="slow", seconds=1, client=tenant.client.id, count=1))
    tenant.start()
    tenant.await_requests(1)
    make_secret(tenant, "kubernetes.io/tls", {"tls.crt": "", "tls.key": ""}, {})
    theirs = tenant.target().version
    tenant.await_condition("Ready", "False", "TargetConflict")
    assert tenant.target().version == theirs
    tenant.objects.delete("Secret", tenant.target_name)
    tenant.apply({"refresh": {"beforePercentage": 40}})
    [token] = tenant.tokens()
    assert tenant.await_ready().token == token.value
    assert len(tenant.requests()) == 1


@pytest.mark.rule("OWN-7")
def test_of_two_credentials_with_one_target_the_owner_keeps_it(tenant: Tenant) -> None:
    other = Tenant(tenant.objects, tenant.sandbox, "other")
    other.target_name = tenant.target_name
    tenant.start()
    before = tenant.await_ready()
    other.start({"target": {"name": tenant.target_name}})
    other.await_condition("Ready", "False", "TargetConflict")
    assert (tenant.target().version, other.requests()) == (before.version, [])
    force(tenant, "now")
    tenant.await_token(other_than=before.token)
    assert other.requests() == []
    tenant.delete()
    assert other.await_ready().raw["metadata"]["labels"]["tuinly.com/credential"] == "other"


# Refused writes -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("WRITE-5")
def test_a_first_token_that_a_quota_refuses_is_written_once_there_is_room(tenant: Tenant) -> None:
    tenant.register()
    tenant.apply_client_secret()
    kubectl(tenant, "create", "quota", "full", "--hard=count/secrets=1")
    kubectl(tenant, "wait", "--for=jsonpath={.status.used.count/secrets}=1", "quota/full", "--timeout=30s")
    tenant.apply()
    condition = tenant.await_condition("Ready", "False", "TargetRejected")
    assert "quota" in condition.message
    tenant.await_event("TargetRejected")
    assert tenant.find_target() is None
    kubectl(tenant, "delete", "quota", "full")
    [token] = tenant.tokens()
    assert tenant.await_ready().token == token.value
    assert len(tenant.requests()) == 1


@pytest.mark.rule("WRITE-5")
def test_a_new_token_that_a_policy_refuses_is_written_once_it_may_be(tenant: Tenant, cluster: Cluster) -> None:
    """The old token stays, and is as good as ever."""
    tenant.start()
    before = tenant.await_ready()
    with refused_tokens(cluster, tenant.objects.namespace):
        force(tenant, "now")
        tenant.await_condition("Refreshed", "False", "TargetRejected")
        assert tenant.condition("Ready") is not None
        tenant.await_condition("Ready", "True", "Issued")
        assert tenant.target().version == before.version
    tenant.await_token(other_than=before.token)
    assert tenant.await_ready().token == tenant.tokens()[-1].value
    assert len(tenant.requests()) == 2
    assert "Restored" not in tenant.event_reasons()


@pytest.mark.rule("WRITE-5")
def test_a_deleted_target_that_a_policy_refuses_is_restored_once_it_may_be(tenant: Tenant, cluster: Cluster) -> None:
    tenant.start()
    before = tenant.await_ready()
    with refused_tokens(cluster, tenant.objects.namespace):
        tenant.objects.delete("Secret", tenant.target_name)
        tenant.await_condition("Ready", "False", "TargetRejected")
    await_restored(tenant, before)
    tenant.await_ready()
    assert len(tenant.requests()) == 1


# Nobody's -------------------------------------------------------------------------------------------------------------


def test_a_namespace_ends_quietly(tenant: Tenant, operator: OperatorProcess, cluster: Cluster) -> None:
    """Its Secrets go before its credential: there is nothing to be said, asked for or restored, however often."""
    tenant.start()
    tenant.await_ready()
    lines = len(operator.logs())
    with new_namespace(cluster) as elsewhere, kept_credentials(cluster, tenant.objects.namespace, tenant.name):
        cluster.kubectl("delete", "namespace", tenant.objects.namespace, "--wait=false")
        wait_until(lambda: tenant.objects.all("Secret") == [], what="the Secrets gone")
        force(tenant, "now")
        Tenant(Objects(cluster, elsewhere), tenant.sandbox).start().await_ready()
        assert len(tenant.requests()) == 1
        assert tenant.find_target() is None
        assert [line for line in operator.logs()[lines:] if line.get("credential") == tenant.key] == []


@pytest.mark.rule("OWN-19")
def test_an_orphaned_target_is_left_to_whoever_kept_it(tenant: Tenant, operator: OperatorProcess) -> None:
    """Edited or not: what has no credential is nothing to the operator."""
    tenant.start({"target": {"deletionPolicy": "Retain"}})
    tenant.await_ready()
    tenant.delete()
    labels = {"namespace": tenant.objects.namespace, "credential": tenant.name}
    eventually(lambda: _is_forgotten(operator, labels))
    edit(tenant, {"data": {"access_token": encoded("theirs")}})
    edited = tenant.target().version
    other = Tenant(tenant.objects, tenant.sandbox, "other").start()
    other.await_ready()
    assert tenant.target().version == edited
    assert len(tenant.requests()) == 1


def _is_forgotten(operator: OperatorProcess, labels: Mapping[str, str]) -> None:
    assert operator.metric("tuinly_credential_ready", **labels) is None
