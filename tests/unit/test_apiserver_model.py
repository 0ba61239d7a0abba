"""The model of the API server, where no real one can be asked in a moment: time, lost history, restarts, backups."""

import json
from random import Random
from typing import Any

import pytest

from tests.simulation.apiserver import Answer, Refusal, Request, Review, Server, Watch
from tests.simulation.apiserver.controllers import quota
from tests.simulation.apiserver.definition import kind_of
from tests.simulation.apiserver.messages import forbidden
from tests.simulation.apiserver.rules import PREDICATES, rules_of
from tests.support.crd import CRD, GOOD, SCHEMA, Case, cases
from tests.support.merge import merged

Json = dict[str, Any]

NOW = 1_800_000_000.0
SECRETS = "/api/v1/namespaces/shop/secrets"
CREDENTIALS = "/apis/tuinly.com/v1alpha1/namespaces/shop/tuinlycredentials"


class Asked:
    """A server with the namespace shop, and short ways to ask it."""

    def __init__(self) -> None:
        self.server = Server(Random(1), [CRD])  # noqa: S311 - no secret
        self.send("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})

    def send(self, method: str, path: str, body: Json | None = None, **query: str) -> tuple[int, Json]:
        content = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        sent = b"" if body is None else json.dumps(body).encode()
        answer = self.server.handle(Request(method, path, query, content, sent), NOW)
        return answer.status, json.loads(answer.body)

    def secret(self, name: str, **meta: object) -> Json:
        status, raw = self.send("POST", SECRETS, {"metadata": {"name": name, **meta}})
        assert status == 201
        return raw

    def watch(self, path: str = SECRETS, **query: str) -> Watch:
        watch = self.server.watch(Request("GET", path, {"watch": "true", **query}), NOW)
        assert not isinstance(watch, Answer)
        return watch

    @property
    def version(self) -> str:
        return str(self.server.storage.version)


@pytest.fixture
def asked() -> Asked:
    return Asked()


def told(watch: Watch, after: float = 0.0) -> list[tuple[str, str]]:
    """What a watch tells: kind of event, and name, or reason of an error."""
    events = [json.loads(line) for line in watch.poll(NOW + after)]
    return [(e["type"], e["object"]["metadata"].get("name") or e["object"].get("reason", "")) for e in events]


def test_a_watch_tells_what_changes_after_its_version(asked: Asked) -> None:
    asked.secret("before")
    watch = asked.watch(resourceVersion=asked.version)
    asked.secret("one")
    asked.send("PATCH", f"{SECRETS}/one", {"metadata": {"labels": {"a": "b"}}})
    asked.send("DELETE", f"{SECRETS}/one")
    assert told(watch) == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]
    assert told(watch) == []


def test_a_watch_without_a_version_begins_with_what_is_there(asked: Asked) -> None:
    asked.secret("one")
    assert told(asked.watch()) == [("ADDED", "one")]


def test_what_is_selected_no_more_was_deleted_for_a_watch(asked: Asked) -> None:
    watch = asked.watch(labelSelector="a=b")
    asked.secret("one", labels={"a": "b"})
    asked.send("PATCH", f"{SECRETS}/one", {"metadata": {"labels": {"a": "c"}}})
    assert told(watch) == [("ADDED", "one"), ("DELETED", "one")]


def test_bookmarks_come_each_minute_and_before_the_end(asked: Asked) -> None:
    watch = asked.watch(resourceVersion=asked.version, allowWatchBookmarks="true", timeoutSeconds="100")
    assert [told(watch, after) for after in (59, 60, 97, 98, 99)] == [
        [],
        [("BOOKMARK", "")],
        [],
        [("BOOKMARK", "")],
        [],
    ]
    assert not watch.ended
    told(watch, 100)
    assert watch.ended


def test_a_bookmark_tells_how_far_all_kinds_have_come(asked: Asked) -> None:
    watch = asked.watch(CREDENTIALS, resourceVersion=asked.version, allowWatchBookmarks="true", timeoutSeconds="100")
    asked.secret("one")
    [line] = watch.poll(NOW + 60)
    assert json.loads(line)["object"]["metadata"] == {"resourceVersion": asked.version}


def test_history_that_is_compacted_ends_watches_and_pages_that_need_it(asked: Asked) -> None:
    asked.secret("one")
    asked.secret("two")
    _, page = asked.send("GET", SECRETS, limit="1")
    late, fresh = asked.watch(resourceVersion="1"), asked.watch(resourceVersion=asked.version)
    asked.secret("three")
    told(fresh)
    asked.server.compact()
    assert (told(late), late.ended) == ([("ERROR", "Expired")], True)
    assert (told(fresh), fresh.ended) == ([], False)
    status, refusal = asked.send("GET", SECRETS, limit="1", **{"continue": page["metadata"]["continue"]})
    assert (status, refusal["reason"]) == (410, "Expired")
    _, rest = asked.send("GET", SECRETS, **{"continue": refusal["metadata"]["continue"]})
    assert [each["metadata"]["name"] for each in rest["items"]] == ["three", "two"]


def test_pages_show_what_there_was_when_the_first_was_asked_for(asked: Asked) -> None:
    asked.secret("one")
    asked.secret("two")
    _, page = asked.send("GET", SECRETS, limit="1")
    asked.send("DELETE", f"{SECRETS}/two")
    asked.secret("three")
    _, rest = asked.send("GET", SECRETS, **{"continue": page["metadata"]["continue"]})
    assert [each["metadata"]["name"] for each in rest["items"]] == ["two"]


def test_a_restart_ends_watches_and_none_goes_on_from_before(asked: Asked) -> None:
    watch = asked.watch(resourceVersion=asked.version)
    before = asked.version
    asked.secret("one")
    asked.server.restart()
    assert (told(watch), watch.ended) == ([], True)
    again = asked.watch(resourceVersion=before)
    assert (told(again), again.ended) == ([("ERROR", "Expired")], True)
    assert told(asked.watch(resourceVersion=asked.version)) == []


def test_after_a_restore_a_watch_from_what_was_lost_is_silent_until_that_version_comes_again(asked: Asked) -> None:
    backup = asked.server.back_up()
    asked.secret("one")
    lost = asked.secret("two")["metadata"]["resourceVersion"]
    asked.server.restore(backup)
    assert asked.send("GET", f"{SECRETS}/one")[0] == 404
    watch = asked.watch(resourceVersion=lost)
    for name in ("three", "four", "five"):
        asked.secret(name)
    assert told(watch) == [("ADDED", "five")]


def test_a_definition_that_is_deleted_takes_its_objects_along(asked: Asked) -> None:
    own = {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "metadata": {"name": "one"}}
    asked.send("POST", CREDENTIALS, {**own, "spec": {"clientSecretRef": {"name": "client"}}})
    watch = asked.watch(CREDENTIALS, resourceVersion=asked.version)
    kind = watch.kind
    asked.server.remove(kind)
    assert (told(watch), watch.ended) == ([("DELETED", "one")], True)
    assert [asked.send("GET", path)[0] for path in (CREDENTIALS, "/apis/tuinly.com/v1alpha1")] == [404, 404]
    asked.server.serve(kind)
    assert asked.send("GET", CREDENTIALS)[1]["items"] == []


def test_a_quota_refuses_what_is_one_too_many(asked: Asked) -> None:
    asked.server.admissions.append(quota(asked.server, "shop", "secrets", 1))
    asked.secret("one")
    status, refusal = asked.send("POST", SECRETS, {"metadata": {"name": "two"}})
    assert (status, refusal["reason"]) == (403, "Forbidden")
    assert asked.send("PATCH", f"{SECRETS}/one", {"data": {"a": "eA=="}})[0] == 200


def test_admission_sees_what_is_there_and_what_it_would_become(asked: Asked) -> None:
    asked.secret("one")
    seen: list[tuple[str, bool, bool]] = []

    def admit(review: Review) -> Refusal | None:
        seen.append((review.operation, review.before is not None, review.after is not None))
        return forbidden("", "secrets", review.key.name, "not today")

    asked.server.admissions.append(admit)
    statuses = [
        asked.send("POST", SECRETS, {"metadata": {"name": "two"}})[0],
        asked.send("PATCH", f"{SECRETS}/one", {"data": {"a": "eA=="}})[0],
        asked.send("DELETE", f"{SECRETS}/one")[0],
    ]
    assert statuses == [403, 403, 403]
    assert seen == [("CREATE", False, True), ("UPDATE", True, True), ("DELETE", True, False)]


def test_the_same_draws_give_the_same_uids() -> None:
    assert Asked().secret("one")["metadata"]["uid"] == Asked().secret("one")["metadata"]["uid"]


# --- Rules of the definition ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_the_model_judges_each_case_of_the_definition_as_the_real_one_does(asked: Asked, case: Case) -> None:
    """Those are the cases that the real one judges in tests/api/test_crd.py."""
    status, answer = asked.send("POST", CREDENTIALS, merged(GOOD, case.patch))
    assert (status == 201) is (case.refused is None)
    if case.refused is not None:
        causes = [each for each in answer["details"]["causes"] if each["field"] != "<nil>"]
        assert [each["field"] for each in causes] == [case.field]


def test_each_rule_of_the_definition_can_be_judged_and_no_other() -> None:
    assert set(rules_of(SCHEMA)) == set(PREDICATES)
    [version] = CRD["spec"]["versions"]
    schema = {**SCHEMA, "x-kubernetes-validations": [{"rule": "self.spec.suspend", "message": "pause"}]}
    other = {**CRD, "spec": {**CRD["spec"], "versions": [{**version, "schema": {"openAPIV3Schema": schema}}]}}
    with pytest.raises(AssertionError, match=r"self\.spec\.suspend"):
        kind_of(other)
