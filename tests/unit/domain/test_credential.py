"""From an object of the API to a credential: what is read, and that no object whatever does harm."""

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.merge import merged
from tests.unit.domain.test_schema_parity import SCHEMA, described
from tests.unit.facts import Json, credential, credential_object
from tuinly_operator.base.clock import parse_duration
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import (
    Condition,
    Credential,
    DeletionPolicy,
    GrantType,
    PodDelivery,
    Status,
    VerificationMode,
    parse_spec,
    parse_status,
    to_json,
)
from tuinly_operator.domain.errors import Failure, Reason

T = TypeVar("T")
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=10), below, max_size=3),
    max_leaves=10,
)
FULL_SPEC: Json = {
    "clientSecretRef": {"name": "c", "clientIDKey": "id", "clientSecretKey": "secret"},
    "scopes": ["orders:read", "orders:write"],
    "tokenURL": "https://oauth.example.com/token",
    "target": {
        "name": "t",
        "deletionPolicy": "Retain",
        "template": {
            "metadata": {"labels": {"team": "shop"}, "annotations": {"note": "n"}},
            "data": {"authorization": "Bearer ${access_token}"},
        },
    },
    "refresh": {"before": "20m", "grant": "ClientCredentials"},
    "verification": {"mode": "Enabled", "graphqlURL": "https://graphql.example.com/graphql"},
    "delivery": {"pods": "Push"},
    "suspend": True,
}
PERCENTAGE = {"refresh": {"before": None, "beforePercentage": 50}}
# Each path of the schema that the full spec has, items and map values by an index or key that is there.
ITEMS = {"scopes": "0", "labels": "team", "annotations": "note", "data": "authorization"}


def paths() -> Iterator[tuple[str, ...]]:
    """Every path of the spec below its root, as keys and indices into the full spec."""
    for path, _ in described(SCHEMA["spec"], "spec"):
        steps: list[str] = []
        for step in path.split(".")[1:]:
            name = step.removesuffix("[]")
            steps += [name, ITEMS[name]] if step.endswith("[]") else [name]
        if steps:
            yield tuple(steps)


PATHS = list(paths())


def put(spec: Json, path: tuple[str, ...], value: object) -> Json:
    """A copy of a spec with one value replaced."""
    copy: Json = json.loads(json.dumps(spec))
    place: Any = copy
    for step in path[:-1]:
        place = place[step]
    place[int(path[-1]) if isinstance(place, list) else path[-1]] = value
    return copy


def written(path: tuple[str, ...]) -> str:
    """A path as a person would write it."""
    return "spec" + "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in path)


# --- What is read -----------------------------------------------------------------------------------------------------


def test_the_least_object() -> None:
    seen = credential()
    assert (seen.key, seen.version, seen.generation) == (NamespacedName("shop", "storefront"), "10", 1)
    assert seen.problem is None
    assert seen.client_secret == NamespacedName("shop", "storefront-client")
    assert seen.target == NamespacedName("shop", "storefront-token")
    assert (seen.refresh_requested, seen.deleting, seen.status) == ("", False, Status())


def test_every_field_is_read() -> None:
    spec = parse_spec(FULL_SPEC)
    ref, target, template = spec.client_secret_ref, spec.target, spec.target.template
    assert (ref.name, ref.client_id_key, ref.client_secret_key) == ("c", "id", "secret")
    assert spec.scopes == {"orders:read", "orders:write"}
    assert spec.token_url == "https://oauth.example.com/token"
    assert (target.name, target.deletion_policy) == ("t", DeletionPolicy.RETAIN)
    assert template is not None
    assert (template.metadata.labels, template.metadata.annotations) == ({"team": "shop"}, {"note": "n"})
    assert template.data == {"authorization": "Bearer ${access_token}"}
    assert (spec.refresh.before, spec.refresh.grant) == ("20m", GrantType.CLIENT_CREDENTIALS)
    assert spec.verification.mode is VerificationMode.ENABLED
    assert spec.verification.graphql_url == "https://graphql.example.com/graphql"
    assert (spec.delivery.pods, spec.suspend) == (PodDelivery.PUSH, True)
    assert parse_spec(merged(FULL_SPEC, PERCENTAGE)).refresh.before_percentage == 50


def test_what_is_written_out_but_equals_its_default_takes_no_memory_of_its_own() -> None:
    """The API server fills in each default, in thousands of credentials."""
    written_out = {"refresh": {"grant": "RefreshToken"}, "target": {"deletionPolicy": "Delete"}, "delivery": {}}
    one, other = (credential({"spec": {**written_out, "clientSecretRef": {"name": name}}}).spec for name in "ab")
    assert one.refresh is other.refresh
    assert one.target is other.target
    assert one.delivery is other.delivery


@pytest.mark.rule("RES-10")
def test_the_target_has_the_name_that_was_chosen() -> None:
    assert credential({"spec": {"target": {"name": "chosen"}}}).target == NamespacedName("shop", "chosen")


@pytest.mark.rule("RES-14")
@pytest.mark.parametrize(
    ("annotations", "asked"),
    [
        (None, ""),
        ({}, ""),
        ({"tuinly.com/other": "1"}, ""),
        ({"tuinly.com/refresh-requested": ""}, ""),
        ({"tuinly.com/refresh-requested": "2026-11-24"}, "2026-11-24"),
        ({"tuinly.com/refresh-requested": "\U0001f600" * 128}, "\U0001f600" * 128),
        (
            {"tuinly.com/refresh-requested": "\ud800" * 129},
            "sha256:cf5bf4d27338a46eb3a9002a9ab7c550aea320840d008c225f24a220c33b9557",
        ),
        (
            {"tuinly.com/refresh-requested": "x" * 129},
            "sha256:0ec9eb33e74510bcdd1f2ea55206e82f21649c5c2becbf2b433eb475b34c01bd",
        ),
    ],
    ids=["none", "empty", "other", "blank", "set", "longest", "long, and no Unicode", "long"],
)
def test_a_forced_exchange_is_asked_for_by_annotation(annotations: Json | None, asked: str) -> None:
    raw = credential_object()
    raw["metadata"]["annotations"] = annotations
    assert Credential.from_object(raw).refresh_requested == asked


@pytest.mark.rule("OWN-18")
def test_a_credential_being_deleted_says_so() -> None:
    assert credential({"metadata": {"deletionTimestamp": "2026-11-24T07:00:00Z"}}).deleting


def optional(path: tuple[str, ...]) -> bool:
    return path[-1] not in ITEMS.values() and path not in {("clientSecretRef",), ("clientSecretRef", "name")}


@pytest.mark.parametrize("path", [path for path in PATHS if optional(path)], ids=written)
def test_null_means_absent(path: tuple[str, ...]) -> None:
    """A CRD without defaults leaves null where the API server would have filled in."""
    absent = put(FULL_SPEC, path, None)
    place: Any = absent
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    assert parse_spec(put(FULL_SPEC, path, None)) == parse_spec(absent)


def test_unknown_fields_are_left_out() -> None:
    assert parse_spec({**FULL_SPEC, "later": {"a": 1}}) == parse_spec(FULL_SPEC)


def test_an_object_says_what_is_wrong_with_its_spec_and_still_is_a_credential() -> None:
    seen = credential({"spec": {"suspend": "yes"}})
    assert seen.key == NamespacedName("shop", "storefront")
    assert seen.problem is not None
    assert seen.problem.reason is Reason.INVALID_SPEC


def test_equal_texts_are_in_memory_once() -> None:
    """Thousands of credentials name the same keys and URLs."""
    one, other = (parse_spec(json.loads(json.dumps(FULL_SPEC))) for _ in range(2))
    assert one.token_url is other.token_url
    assert one.client_secret_ref.client_secret_key is other.client_secret_ref.client_secret_key


@pytest.mark.parametrize("name", ["a", "a-b.c-d", "0", "a" * 63 + "." + "b" * 189, "a" * 253])
def test_names_that_a_secret_can_have_are_taken(name: str) -> None:
    spec = parse_spec({"clientSecretRef": {"name": name}, "target": {"name": name}})
    assert (spec.client_secret_ref.name, spec.target.name) == (name, name)


# In a URL's path, some of these would lead into another namespace, or to another kind of object.
NO_NAMES = [
    "",
    "../../kube-system/secrets/s",
    "..",
    ".",
    "%2e%2e",
    "a/b",
    "a?b",
    "a#b",
    "A",
    "-a",
    "a-",
    "a..b",
    "a\n",
    "a" * 254,
]


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.rule("RES-11")
@pytest.mark.parametrize("path", PATHS, ids=written)
def test_a_value_of_another_type_is_refused_by_its_path(path: tuple[str, ...]) -> None:
    """Wrong for every type there is: a list in a list, or a list where none belongs."""
    with pytest.raises(Failure) as refused:
        parse_spec(put(merged(FULL_SPEC, PERCENTAGE) if path[-1] == "beforePercentage" else FULL_SPEC, path, [[]]))
    below = f"{written(path)}[0]" if path == ("scopes",) else written(path)
    assert refused.value.reason is Reason.INVALID_SPEC
    assert refused.value.message.startswith(f"{below} must be ")


@pytest.mark.rule("RES-11")
@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"clientSecretRef": None}, "spec.clientSecretRef"),
        ({"clientSecretRef": {"name": None}}, "spec.clientSecretRef.name"),
        *(({"clientSecretRef": {"name": name}}, "spec.clientSecretRef.name") for name in NO_NAMES),
        *(({"target": {"name": name}}, "spec.target.name") for name in NO_NAMES),
        ({"clientSecretRef": {"clientIDKey": "a", "clientSecretKey": "a"}}, "spec.clientSecretRef"),
        ({"scopes": ["a b"]}, "spec.scopes"),
        ({"scopes": [""]}, "spec.scopes"),
        ({"scopes": ['a"']}, "spec.scopes"),
        ({"scopes": ["a\\"]}, "spec.scopes"),
        ({"scopes": ["ä"]}, "spec.scopes"),
        ({"scopes": ["a\n"]}, "spec.scopes"),
        ({"target": {"deletionPolicy": "delete"}}, "spec.target.deletionPolicy"),
        ({"refresh": {"beforePercentage": 33}}, "spec.refresh"),
        ({"refresh": {"before": "soon"}}, "spec.refresh.before"),
        ({"suspend": 1}, "spec.suspend"),
        ({"refresh": {"before": None, "beforePercentage": True}}, "spec.refresh.beforePercentage"),
        ({"refresh": {"before": None, "beforePercentage": 33.0}}, "spec.refresh.beforePercentage"),
    ],
    ids=str,
)
def test_what_means_nothing_is_refused_by_its_path(patch: Json, path: str) -> None:
    with pytest.raises(Failure) as refused:
        parse_spec(merged(FULL_SPEC, patch))
    assert refused.value.reason is Reason.INVALID_SPEC
    assert refused.value.message.startswith(f"{path} must be ")


@pytest.mark.parametrize(
    ("patch", "wanted"),
    [
        ({"clientSecretRef": None}, "spec.clientSecretRef must be present"),
        ({"scopes": "orders:read"}, "spec.scopes must be a list"),
        ({"target": []}, "spec.target must be an object"),
        ({"target": {"template": {"data": []}}}, "spec.target.template.data must be an object"),
        ({"refresh": {"grant": "any"}}, "spec.refresh.grant must be one of RefreshToken, ClientCredentials"),
        ({"tokenURL": 5}, "spec.tokenURL must be a string"),
        ({"refresh": {"beforePercentage": "33"}}, "spec.refresh.beforePercentage must be an integer"),
        ({"suspend": "yes"}, "spec.suspend must be true or false"),
        ({"target": {"name": "A"}}, "spec.target.name must be the name of a Secret"),
        ({"refresh": {"before": "soon"}}, "spec.refresh.before must be a duration such as 20m"),
    ],
    ids=str,
)
def test_what_it_must_be_is_said_and_where_the_rule_comes_from(patch: Json, wanted: str) -> None:
    with pytest.raises(Failure) as refused:
        parse_spec(merged(FULL_SPEC, patch))
    assert refused.value.message == f"{wanted}; apply the CRD of this operator's version and mend the spec"


def outcome(read: Callable[[], T]) -> T | Failure:
    try:
        return read()
    except Failure as failure:
        return failure


@pytest.mark.rule("RES-11")
@given(st.sampled_from([(), *PATHS]), JSON)
def test_no_spec_does_harm(path: tuple[str, ...], value: object) -> None:
    read = outcome(lambda: parse_spec(put(FULL_SPEC, path, value) if path else value))
    if isinstance(read, Failure):
        assert read.reason is Reason.INVALID_SPEC
        assert read.message.startswith("spec")


METADATA = ("name", "namespace", "uid", "resourceVersion", "generation", "annotations", "deletionTimestamp")


@given(st.sampled_from([("metadata",), ("status",), *(("metadata", name) for name in METADATA)]), JSON)
@example(("metadata", "annotations"), {"tuinly.com/refresh-requested": 1})
@example(("metadata", "annotations"), ["tuinly.com/refresh-requested"])
@example(("metadata", "name"), ["storefront"])
@example(("metadata", "generation"), "1")
def test_no_object_does_harm(path: tuple[str, ...], value: object) -> None:
    read = outcome(lambda: Credential.from_object(put(credential_object(), path, value)))
    if isinstance(read, Failure):
        assert read.reason is Reason.INVALID_SPEC
        return
    texts = (*read.key, read.uid, read.version, read.refresh_requested)
    assert [type(text) for text in texts] == [str] * len(texts)
    assert isinstance(read.generation, int)


@pytest.mark.parametrize("name", ["name", "namespace", "uid", "resourceVersion"])
@pytest.mark.parametrize("value", [None, "", 5], ids=repr)
def test_an_object_that_lacks_what_every_object_has_is_none(name: str, value: object) -> None:
    with pytest.raises(Failure) as refused:
        Credential.from_object(credential_object({"metadata": {name: value}}))
    assert refused.value.message == "an object without namespace, name, uid, resourceVersion"


@pytest.mark.parametrize(("generation", "known"), [(None, 0), ("2", 0), (2, 2)])
def test_an_object_without_a_generation_has_the_first(generation: object, known: int) -> None:
    assert credential({"metadata": {"generation": generation}}).generation == known


# --- Durations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20m", 1200), ("1h30m", 5400), ("90s", 90), ("1.5h", 5400), ("2m0.5s", 120.5), ("24h", 86_400), ("1s1h", 3601)],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "20", "m", "20 m", "-20m", "+20m", "1d", "20us", "20m ", "20m\n", "1e3s", ".5h", "5.h", "20M", "20m,5s"),
        "\u0662\u0660m",  # digits, but of another script
    ],
)
def test_no_duration(text: str) -> None:
    with pytest.raises(Failure) as refused:
        parse_spec({"clientSecretRef": {"name": "storefront-client"}, "refresh": {"before": text}})
    assert refused.value.reason is Reason.INVALID_SPEC


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@given(st.text(alphabet="0123456789.hms", max_size=12))
def test_a_duration_is_as_long_as_it_says_or_none(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert text.endswith(("h", "m", "s"))
    assert 0 <= seconds < 10**12 * 3600


# --- The status -------------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=20)
MAYBE = st.none() | TEXT
CONDITIONS = st.builds(Condition, TEXT, TEXT, TEXT, TEXT, st.integers(0), TEXT)
STATUSES = st.builds(
    Status,
    observed_generation=st.none() | st.integers(0),
    conditions=st.lists(CONDITIONS, max_size=3).map(tuple),
    secret_name=MAYBE,
    token_url=MAYBE,
    token_expiration_time=MAYBE,
    next_refresh_time=MAYBE,
    last_refresh_time=MAYBE,
    last_grant=st.none() | st.sampled_from(GrantType),
    scopes=st.none() | st.lists(TEXT, max_size=3).map(tuple),
    failed_attempts=st.none() | st.integers(0),
    last_failure_time=MAYBE,
)


@given(STATUSES)
def test_a_status_round_trips(status: Status) -> None:
    assert parse_status(json.loads(json.dumps(to_json(status)))) == status


def test_what_is_not_set_is_null_so_that_a_merge_patch_removes_it() -> None:
    assert to_json(Status(secret_name="t"))["tokenExpirationTime"] is None


@pytest.mark.rule("STATUS-23")
@given(JSON | st.dictionaries(st.sampled_from(sorted(SCHEMA["status"]["properties"])), JSON))
def test_no_status_does_harm(raw: object) -> None:
    """It is about to be replaced."""
    assert isinstance(parse_status(raw), Status)


def test_a_condition_is_found_by_its_type() -> None:
    ready = Condition("Ready", "True", "Issued", "", 1, "2026-11-24T07:00:00Z")
    status = Status(conditions=(Condition("Refreshed", "False", "InvalidClient", "", 1, ""), ready))
    assert status.condition("Ready") is ready
    assert status.condition("Other") is None


MOST = 64 * 1024
TEXTS = (
    *("secretName", "tokenURL", "lastFailureTime", "tokenExpirationTime"),
    *("nextRefreshTime", "lastRefreshTime", "lastHandledRefresh"),
)


def conditions(number: int, characters: int) -> list[Json]:
    """Conditions, one of them with so many characters over all its texts."""
    plain = {"type": "t", "status": "s", "reason": "r", "message": "", "lastTransitionTime": "l"}
    return [plain | {"message": "x" * (characters - 4), "observedGeneration": 1}] + [
        dict.fromkeys(plain, "") | {"observedGeneration": 1} for _ in range(number - 1)
    ]


@pytest.mark.parametrize(
    ("most", "more"),
    [
        *(({name: "x" * MOST}, {name: "x" * (MOST + 1)}) for name in TEXTS),
        ({"scopes": [""] * MOST}, {"scopes": [""] * (MOST + 1)}),
        ({"scopes": ["x" * 2 * MOST]}, {"scopes": ["x" * 2 * MOST, "x"]}),
        ({"conditions": conditions(8, 2 * MOST)}, {"conditions": conditions(9, 2 * MOST)}),
        ({"conditions": conditions(1, 2 * MOST)}, {"conditions": conditions(1, 2 * MOST + 1)}),
        (
            {"conditions": conditions(2, MOST), "scopes": ["x" * MOST]},
            {"conditions": conditions(2, MOST), "scopes": ["x" * MOST, "x"]},
        ),
    ],
    ids=[*TEXTS, "scopes", "all scopes", "conditions", "one condition", "all of it"],
)
def test_a_status_is_kept_up_to_a_length(most: Json, more: Json) -> None:
    assert parse_status(most) != Status()
    assert parse_status(more) == Status()


LONG = "x" * 200_000


@pytest.mark.rule("STATUS-23")
@pytest.mark.parametrize(
    "status",
    [
        {"secretName": LONG},
        {"tokenURL": LONG},
        {"lastFailureTime": LONG},
        {"scopes": [LONG]},
        {"scopes": ["s"] * 200_000},
        {
            "conditions": [
                dict.fromkeys(("type", "status", "reason", "lastTransitionTime"), "Ready") | {"message": LONG}
            ]
        },
        {"conditions": [dict.fromkeys(("type", "status", "reason", "lastTransitionTime", "message"), "R")] * 9},
    ],
    ids=["name", "url", "time", "scope", "scopes", "message", "conditions"],
)
def test_no_status_is_kept_at_length(status: Json) -> None:
    """Whoever may write it puts into it what the schema lets pass."""
    for condition in status.get("conditions", ()):
        condition["observedGeneration"] = 1
    assert credential({"status": status}).status == Status()
