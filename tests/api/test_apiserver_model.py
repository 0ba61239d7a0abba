"""The tests' model of the API server, held against the real one: the same requests get the same answers.

What was once found to differ is among the fixed sequences.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from random import Random
from typing import Any

import pytest

from tests.simulation.apiserver import Answer, Request
from tests.simulation.apiserver.controllers import collect_garbage, empty_namespaces, path_of
from tests.simulation.apiserver.definition import kind_of
from tests.simulation.comparison.players import Model, Real
from tests.simulation.comparison.random_steps import (
    APPLY,
    CREDENTIALS,
    EVENTS,
    JSON,
    JSON_PATCH,
    LEASES,
    MERGE,
    PARTIAL,
    PARTIAL_LIST,
    SECRETS,
)
from tests.simulation.comparison.random_steps import Sequence as RandomSequence
from tests.simulation.comparison.sameness import Names
from tests.simulation.comparison.steps import NOBODYS, Player, Step, play
from tests.support.cluster import Cluster
from tests.support.crd import CRD, walk
from tests.support.objects import new_namespace
from tests.support.waiting import wait_until

Json = dict[str, Any]

SEEDS = range(20)
NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def real(cluster: Cluster) -> Iterator[Real]:
    """Return the real API server."""
    player = Real(cluster)
    yield player
    player.close()


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """Return the namespace in which all this happens: a new one each time would be too much to clean up."""
    with new_namespace(cluster) as name:
        yield name


def model_with(namespace: str) -> Model:
    model = Model()
    send(model, "POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    return model


def send(player: Player, method: str, path: str, body: Json | None = None, kind: Mapping[str, str] = JSON) -> Answer:
    headers = {"User-Agent": "tests/1.0", **kind}
    return player.send(Request(method, path, {}, headers, b"" if body is None else json.dumps(body).encode()))


def clear(model: Model, real: Real) -> None:
    """Delete from the real server what the model has: they are the same."""
    for key in [key for key in model.server.storage.objects if key.namespace]:
        path = path_of(model.server, key)
        send(real, "PATCH", path, {"metadata": {"finalizers": []}}, MERGE)
        send(real, "DELETE", path)


def assert_same(real: Real, steps: Sequence[Step], namespace: str) -> None:
    """The model and the real one answer a sequence of requests alike, and tell the same of it to watches."""
    model = model_with(namespace)
    told = []
    try:
        for player in (model, real):
            names = Names(namespace)
            since = [(path, version_of(player, path.replace("NS", namespace))) for path in (SECRETS, CREDENTIALS)]
            answers = [(each.status, names.comparable(each.body)) for each in play(player, steps, namespace)]
            watched = [(0, names.comparable(events(player, path, version, namespace))) for path, version in since]
            told.append([*answers, *watched])
    finally:
        clear(model, real)
    for step, ours, theirs in zip([*steps, "watch of Secrets", "watch of credentials"], *told, strict=True):
        assert ours == theirs, json.dumps(asdict(step) if isinstance(step, Step) else step)


def version_of(player: Player, path: str) -> str:
    answer = player.send(Request("GET", path, {"limit": "1"}, PARTIAL_LIST))
    return str(json.loads(answer.body)["metadata"]["resourceVersion"])


def events(player: Player, path: str, version: str, namespace: str) -> list[Json]:
    """What a watch tells that begins at a version; it ends with an object that is made for that."""
    path, last = path.replace("NS", namespace), {"name": "last"}
    if "secrets" in path:
        send(player, "POST", path, {"metadata": last})
    else:
        spec = {"clientSecretRef": {"name": "client"}}
        own = {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential"}
        send(player, "POST", path, {**own, "metadata": last, "spec": spec})
    query = {"watch": "true", "resourceVersion": version, "fieldSelector": "metadata.name!=three"}
    if "secrets" in path:
        query["fieldSelector"] = "type!=kubernetes.io/tls,type!=kubernetes.io/basic-auth"
    request = Request("GET", path, query, PARTIAL)
    found = player.watch(request, _is_last)
    send(player, "DELETE", f"{path}/last")
    return found


def _is_last(event: Json) -> bool:
    return bool(event["object"]["metadata"]["name"] == "last")


@pytest.mark.parametrize("seed", SEEDS)
def test_random_requests_get_the_same_answers(real: Real, place: str, seed: int) -> None:
    random = Random(seed)  # noqa: S311 - no secret
    assert_same(real, RandomSequence(random).draw(30), place)


# --- What was found to differ -----------------------------------------------------------------------------------------

apply = partial(Step, "PATCH", headers=APPLY)
merge = partial(Step, "PATCH", headers=MERGE)
post = partial(Step, "POST", headers=JSON)
delete = partial(Step, "DELETE", headers=JSON)
OURS = {"fieldManager": "tuinly-operator", "force": "true"}
THEIRS = {"fieldManager": "kubectl"}


def secret(*, data: Json | None = None, raw: Json | None = None, **meta: object) -> Json:
    body: Json = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "one", **meta}, **(raw or {})}
    return body if data is None else {**body, "data": data}


def credential(spec: Json | None = None, status: Json | None = None) -> Json:
    own = {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "metadata": {"name": "one"}}
    body: Json = {**own, "spec": {"clientSecretRef": {"name": "client"}, **(spec or {})}}
    return body if status is None else {**body, "status": status}


def event(**values: object) -> Json:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "one.1", "namespace": "NS"},
        "regarding": {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "namespace": "NS"},
        "reportingController": "tuinly.com/tuinly-operator",
        "reportingInstance": "here",
        "action": "Refresh",
        "reason": "Issued",
        "type": "Normal",
        "eventTime": "2026-11-24T07:00:00.000000Z",
        **values,
    }


ONE, CREDENTIAL = f"{SECRETS}/one", f"{CREDENTIALS}/one"
OWNER = {"apiVersion": "example.com/v1", "kind": "Nothing", "name": "owner", "uid": NOBODYS}

FOUND: dict[str, list[Step]] = {
    "an empty list": [Step("GET", CREDENTIALS), Step("GET", SECRETS), Step("GET", SECRETS, {}, PARTIAL_LIST)],
    "an empty value is applied": [
        apply(ONE, OURS, body=secret(data={"a": "eA=="})),
        apply(ONE, OURS, body=secret(data={"a": ""})),
    ],
    "a version in what is created": [
        post(SECRETS, body=secret(resourceVersion="1")),
        post(SECRETS, {"dryRun": "All"}, body=secret(resourceVersion="1")),
        post(SECRETS, body=secret(resourceVersion="1", raw={"type": "kubernetes.io/tls"})),
        apply(ONE, OURS, body=secret(resourceVersion="1")),
    ],
    "an apply of what is no such object": [
        apply(CREDENTIAL, OURS, body=credential({"tokenURL": 1})),
        apply(CREDENTIAL, OURS, body=credential({"unknown": "field"})),
        apply(CREDENTIAL, OURS, body=credential({"scopes": ["a", "a"]})),
        apply(ONE, OURS, body=secret(data={"a": "no base64"})),
        post(SECRETS, body=secret(data={"a": "no base64"})),
        post(SECRETS, body=secret(data={"a": "eA=="})),
        merge(ONE, body={"data": {"a": "no base64"}}),
    ],
    "a schema's refusals": [
        post(CREDENTIALS, body=credential({"target": {"deletionPolicy": "Perhaps"}})),
        post(CREDENTIALS, body=credential({"clientSecretRef": None})),
        post(CREDENTIALS, body=credential({"scopes": ["a", "a"]})),
        post(CREDENTIALS, body=credential()),
        merge(f"{CREDENTIAL}/status", body={"status": {"tokenExpirationTime": "tomorrow"}}),
    ],
    "a default status is stored by the first update": [
        post(CREDENTIALS, body=credential(status={"tokenExpirationTime": "tomorrow"})),
        merge(CREDENTIAL, body={"metadata": {}}),
        merge(CREDENTIAL, body={"metadata": {}}),
        merge(f"{CREDENTIAL}/status", body={"status": None}),
        Step("GET", CREDENTIAL),
    ],
    "a uid in a merge patch of a status is not looked at": [
        post(CREDENTIALS, body=credential()),
        merge(f"{CREDENTIAL}/status", body={"metadata": {"uid": NOBODYS}, "status": {"secretName": "a"}}),
        merge(CREDENTIAL, body={"metadata": {"uid": NOBODYS}, "spec": {"suspend": True}}),
    ],
    "a uid in a JSON patch of a status is": [
        post(CREDENTIALS, body=credential()),
        Step(
            "PATCH",
            f"{CREDENTIAL}/status",
            {"fieldManager": "tuinly-operator"},
            JSON_PATCH,
            [
                {"op": "test", "path": "/metadata/uid", "value": NOBODYS},
                {"op": "add", "path": "/status", "value": {"secretName": "a"}},
            ],
        ),
        Step(
            "PATCH",
            f"{CREDENTIAL}/status",
            {},
            JSON_PATCH,
            [
                {"op": "test", "path": "/metadata/uid", "value": {"$uid": 0}},
                {"op": "add", "path": "/status", "value": {"secretName": "a"}},
            ],
        ),
    ],
    "conflicts of fields": [
        apply(ONE, OURS, body=secret(data={"a": "eA=="}, labels={"a": "x"}, ownerReferences=[OWNER])),
        apply(ONE, THEIRS, body=secret(data={"a": "eQ=="}, labels={"a": "x"})),
        apply(ONE, THEIRS, body=secret(ownerReferences=[{**OWNER, "controller": True}], finalizers=["example.com/a"])),
        apply(ONE, THEIRS | {"force": "true"}, body=secret(data={"a": "eQ=="})),
        apply(ONE, OURS, body=secret(data={"b": "eQ=="})),
    ],
    "an immutable Secret": [
        apply(ONE, OURS, body=secret(data={"a": "eA=="}, raw={"immutable": True})),
        apply(ONE, OURS, body=secret(data={"a": "eQ=="}, raw={"immutable": True})),
        apply(ONE, OURS, body=secret(data={}, labels={"a": "b"})),
        merge(ONE, body={"immutable": None}),
        merge(ONE, body={"metadata": {"labels": {"a": "b"}}}),
    ],
    "pages of few that match": [
        *(post(SECRETS, body=secret(name=name, labels={"n": name})) for name in ("one", "two", "zed")),
        Step("GET", SECRETS, {"limit": "1", "labelSelector": "n=one"}, PARTIAL_LIST),
        Step("GET", SECRETS, {"limit": "1", "labelSelector": "n=one", "continue": {"$continue": 3}}, PARTIAL_LIST),
        Step("GET", SECRETS, {"limit": "1", "fieldSelector": "metadata.name=one"}),
        Step("GET", SECRETS, {"limit": "2"}),
        delete(f"{SECRETS}/two"),
        Step("GET", SECRETS, {"limit": "2", "continue": {"$continue": 6}}),
    ],
    "a held Secret": [
        post(SECRETS, body=secret(finalizers=["example.com/hold"])),
        delete(ONE, body={"preconditions": {"resourceVersion": {"$version": 0}, "uid": NOBODYS}}),
        delete(ONE, body={"preconditions": {"resourceVersion": {"$version": 0}, "uid": {"$uid": 0}}}),
        delete(ONE),
        apply(ONE, OURS, body=secret(data={"a": "eA=="}, uid={"$uid": 0})),
        merge(ONE, body={"metadata": {"finalizers": ["example.com/more"]}}),
        merge(ONE, body={"metadata": {"finalizers": None}}),
        Step("GET", ONE),
    ],
    "a Lease": [
        Step("PUT", f"{LEASES}/one", body={"metadata": {"name": "one", "resourceVersion": "7"}, "spec": {}}),
        Step("PUT", f"{LEASES}/one", body={"metadata": {"name": "one"}, "spec": {"holderIdentity": "a"}}),
        delete(f"{LEASES}/one"),
        Step("PUT", f"{LEASES}/one", body={"metadata": {"name": "one", "uid": {"$uid": 0}}, "spec": {}}),
        post(LEASES, body={"metadata": {"name": "one"}, "spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
    ],
    "Events": [
        post(EVENTS, body=event(type="Other", reportingController="")),
        post(EVENTS, body=event(eventTime=None, note="x" * 1025)),
        post(EVENTS, body=event(note="x" * 1025)),
        post(EVENTS, body=event()),
        post(EVENTS, body=event()),
    ],
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_to_differ_is_the_same_now(real: Real, place: str, name: str) -> None:
    assert_same(real, FOUND[name], place)


DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OLDERS = "/apis/older.example.com/v1alpha1/namespaces/NS/olders"


def definition(*, rules: bool) -> Json:
    """The definition under another name, which nobody else uses, with or without its rules."""
    copied: Json = json.loads(json.dumps(CRD))
    names = {"kind": "Older", "listKind": "OlderList", "plural": "olders", "singular": "older"}
    copied["metadata"] = {"name": "olders.older.example.com"}
    copied["spec"] |= {"group": "older.example.com", "names": names}
    if not rules:
        schema = copied["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for _, part in list(walk(schema, "")):
            part.pop("x-kubernetes-validations", None)
    return copied


def older(name: str, spec: Json | None = None) -> Json:
    own = {"apiVersion": "older.example.com/v1alpha1", "kind": "Older", "metadata": {"name": name}}
    return {**own, "spec": {"clientSecretRef": {"name": "client"}, **(spec or {})}}


@pytest.fixture
def redefine(real: Real) -> Iterator[Callable[[Player, bool], None]]:
    """Return what gives a server that definition, with or without rules."""
    path = f"{DEFINITIONS}/olders.older.example.com"

    def define(player: Player, rules: bool) -> None:  # noqa: FBT001 - one of two
        made = definition(rules=rules)
        if isinstance(player, Model):
            player.server.serve(kind_of(made))
            return
        if send(player, "POST", DEFINITIONS, made).status == 409:
            send(player, "PATCH", path, {"spec": {"versions": made["spec"]["versions"]}}, MERGE)
        wrong = json.dumps(older("wrong", {"target": {"name": "client"}})).encode()
        trial = Request("POST", OLDERS.replace("NS", "default"), {"dryRun": "All"}, JSON, wrong)
        wait_until(lambda: player.send(trial).status == (422 if rules else 201), what="the definition is in force")

    yield define
    send(real, "DELETE", path)


def test_what_an_older_definition_let_through_is_judged_where_it_changes(
    real: Real, place: str, redefine: Callable[[Player, bool], None]
) -> None:
    """And the rules at the root with each write, since that changes by it: then no status is taken either."""
    bad: dict[str, Json] = {
        "one": {"target": {"template": {"data": {"env": "${nonsense}"}}}},
        "two": {"target": {"name": "client"}},
    }
    both = [f"{OLDERS}/{name}" for name in bad]
    steps = [
        *(merge(f"{path}/status", body={"status": {"secretName": "a"}}) for path in both),
        *(merge(path, body={"spec": {"suspend": True}}) for path in both),
        *(merge(path, body={"metadata": {"labels": {"a": "b"}}}) for path in both),
        merge(both[0], body={"spec": {"target": {"template": {"data": {"more": "$"}}}}}),
        *(merge(path, body={"spec": {"target": None}}) for path in both),
        *(merge(f"{path}/status", body={"status": {"secretName": "b"}}) for path in both),
    ]
    told = []
    for player in (model_with(place), real):
        redefine(player, False)  # noqa: FBT003 - without rules
        for name, spec in bad.items():
            assert send(player, "POST", OLDERS.replace("NS", place), older(name, spec)).status == 201
        redefine(player, True)  # noqa: FBT003 - with them
        names = Names(place)
        told.append([(each.status, names.comparable(each.body)) for each in play(player, steps, place)])
    assert [status for status, _ in told[0]] == [200, 422, 200, 422, 200, 422, 422, 200, 200, 200, 200]
    assert told[0] == told[1]


# --- Controllers ------------------------------------------------------------------------------------------------------


def test_garbage_is_collected_and_owners_that_are_gone_are_dropped(real: Real, place: str) -> None:
    """A Secret of a credential goes with it, unless somebody else owns it, too, or a kind that nobody knows does."""
    model = model_with(place)
    kept = []
    for player in (model, real):
        own = CREDENTIALS.replace("NS", place), SECRETS.replace("NS", place)
        uids = {}
        for name in ("one", "two"):
            made = send(player, "POST", own[0], {**credential(), "metadata": {"name": name}})
            uids[name] = json.loads(made.body)["metadata"]["uid"]
        refs = [
            {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "name": n, "uid": uids[n]} for n in uids
        ]
        for name, owners in {"goes": refs[:1], "stays": refs, "unknown": [OWNER, refs[0]], "free": []}.items():
            send(player, "POST", own[1], secret(name=name, ownerReferences=owners))
        send(player, "DELETE", f"{own[0]}/one", {"propagationPolicy": "Background"})

        def left(player: Player = player, path: str = own[1]) -> Json:
            if isinstance(player, Model):
                collect_garbage(player.server, NOW)
            items = json.loads(send(player, "GET", path).body)["items"]
            return {each["metadata"]["name"]: len(each["metadata"].get("ownerReferences") or ()) for each in items}

        def collected(left: Callable[[], Json] = left) -> bool:
            return left().get("stays") == 1 and "goes" not in left()

        # The collector looks only every half minute whether there are new kinds.
        wait_until(collected, what="the garbage is collected", seconds=90)
        kept.append(left())
    clear(model, real)
    assert kept[0] == kept[1] == {"stays": 1, "unknown": 2, "free": 0}


def test_a_namespace_that_ends_takes_nothing_new_and_goes_once_it_is_empty(cluster: Cluster, real: Real) -> None:
    told = []
    with new_namespace(cluster) as namespace:
        model = model_with(namespace)
        for player in (model, real):
            path, names = SECRETS.replace("NS", namespace), Names(namespace)
            made = send(player, "POST", path, secret(finalizers=["example.com/hold"]))
            ended = send(player, "DELETE", f"/api/v1/namespaces/{namespace}")
            late = [
                send(player, "POST", path, {"metadata": {"name": "two"}}),
                send(player, "PATCH", f"{path}/one", {"metadata": {"labels": {"a": "b"}}}, MERGE),
                player.send(Request("PATCH", f"{path}/two", OURS, APPLY, json.dumps(secret(name="two")).encode())),
            ]
            assert (made.status, ended.status) == (201, 200)
            told.append([(each.status, names.comparable(json.loads(each.body))) for each in (late[0], late[2])])
            assert late[1].status == 200
            send(player, "PATCH", f"{path}/one", {"metadata": {"finalizers": None}}, MERGE)

            def is_gone(player: Player = player) -> bool:
                if isinstance(player, Model):
                    empty_namespaces(player.server, NOW)
                return send(player, "GET", f"/api/v1/namespaces/{namespace}").status == 404

            wait_until(is_gone, what="the namespace is gone")
            late = [send(player, "POST", path, {"metadata": {"name": "two"}})]
            told[-1] += [(each.status, names.comparable(json.loads(each.body))) for each in late]
    assert told[0] == told[1]
