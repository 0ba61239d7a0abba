"""The way to Pods: what each answer of the API server becomes, and how much of a namespace is in memory at once."""

import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.edges.test_kube import write_kubeconfig
from tests.unit.virtual import VirtualClock
from tuinly_operator.domain.push import PUSHED, SCHEDULED, Outcome, Pod, Reply
from tuinly_operator.edges.kube import ApiFailure, Kube, connect
from tuinly_operator.edges.pods import PodDoor
from tuinly_operator.engine.leadership import Leadership

Json = dict[str, Any]

POD = Pod("web-1", "uid", "", None, frozenset({"token"}), frozenset())
MIB = 1024 * 1024


class FakeKube:
    """Answers the requests about Pods as it is told."""

    def __init__(self, answer: Mapping[str, str] | ApiFailure) -> None:
        self.answer = answer
        self.pods: list[Json] = []
        self.sent: list[tuple[str, Pod, Mapping[str, str], bool]] = []

    async def annotate_pod(
        self, namespace: str, pod: Pod, annotations: Mapping[str, str], *, dry_run: bool = False
    ) -> Mapping[str, str]:
        self.sent.append((namespace, pod, annotations, dry_run))
        if isinstance(self.answer, ApiFailure):
            raise self.answer
        return self.answer

    async def list_pods(
        self, _namespace: str, selector: str, keep: Callable[[Mapping[str, Any]], Pod | None]
    ) -> Sequence[Pod]:
        assert selector == SCHEDULED
        if isinstance(self.answer, ApiFailure):
            raise self.answer
        return [POD, *filter(None, map(keep, self.pods))]


def door(answer: Mapping[str, str] | ApiFailure) -> tuple[PodDoor, FakeKube]:
    kube = FakeKube(answer)
    return PodDoor(cast("Kube", kube)), kube


async def test_a_pod_is_told_by_one_annotation() -> None:
    way, kube = door({PUSHED: "77", "note": "theirs"})
    assert await way.tell("shop", POD, "77") == Reply(Outcome.DONE)
    assert kube.sent == [("shop", POD, {PUSHED: "77"}, False)]


@pytest.mark.rule("PUSH-7")
@pytest.mark.parametrize("annotations", [{}, {PUSHED: "76"}, {"note": "theirs"}], ids=str)
async def test_an_answer_without_the_annotation_is_a_refusal(annotations: Mapping[str, str]) -> None:
    reply = await door(annotations)[0].tell("shop", POD, "77")
    assert reply.outcome is Outcome.REFUSED
    assert PUSHED in reply.why


async def test_retry_after_is_handed_on() -> None:
    reply = await door(ApiFailure(429, "TooManyRequests", 7.0))[0].tell("shop", POD, "77")
    assert (reply.outcome, reply.retry_after) == (Outcome.AGAIN, 7.0)


@pytest.mark.rule("PUSH-8")
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"tuinly.com/push-trial": "1"}, Outcome.DONE),
        (ApiFailure(403, "Forbidden"), Outcome.REFUSED),
        # Its annotations are full: another Pod may tell.
        pytest.param(ApiFailure(422, "Invalid"), Outcome.GONE, id="full annotations"),
        (ApiFailure(422, "Invalid", other_uid=True), Outcome.GONE),
        (ApiFailure(404, "NotFound"), Outcome.GONE),
        (ApiFailure(400, "BadRequest"), Outcome.DONE),  # as where a webhook knows no dry run
        (ApiFailure(401, "Unauthorized"), Outcome.DONE),
        (ApiFailure(409, "Conflict"), Outcome.AGAIN),
        (ApiFailure(None, "TimeoutError"), Outcome.AGAIN),
    ],
    ids=str,
)
async def test_only_a_refusal_as_policies_refuse_says_that_one_is_in_force(
    answer: Mapping[str, str] | ApiFailure, expected: Outcome
) -> None:
    way, kube = door(answer)
    reply = await way.try_forbidden("shop", POD)
    assert reply.outcome is expected
    assert bool(reply.why) or expected is not Outcome.DONE
    ((_, _, annotations, dry_run),) = kube.sent
    assert dry_run
    assert PUSHED not in annotations


async def test_a_list_that_fails_is_an_answer() -> None:
    assert await door({})[0].users("shop", frozenset({"token"})) == [POD]
    reply = await door(ApiFailure(403, "Forbidden"))[0].users("shop", frozenset({"token"}))
    assert isinstance(reply, Reply)
    assert (reply.outcome, "403" in reply.why) == (Outcome.REFUSED, True)


@pytest.mark.rule("PUSH-8")
async def test_a_pod_that_cannot_be_read_keeps_no_other_from_being_told() -> None:
    way, kube = door({})
    odd = {**large_pod(1), "spec": {"nodeName": "node", "volumes": [{}]}}
    kube.pods = [odd, large_pod(2)]
    found = await way.users("shop", frozenset({"token"}))
    assert not isinstance(found, Reply)
    assert [pod.name for pod in found] == [POD.name, "web-2"]


async def test_a_pod_that_takes_no_annotation_is_named() -> None:
    reply = await door(ApiFailure(422, "Invalid"))[0].tell("shop", POD, "77")
    assert reply.outcome is Outcome.REFUSED
    assert f"the Pod {POD.name} (422 Invalid); its annotations may be full" in reply.why


# --- How much is in memory --------------------------------------------------------------------------------------------


def large_pod(number: int) -> Json:
    """One of 13 KB, as they are with managed fields, status and some variables."""
    variables = [{"name": f"VARIABLE_{each}", "value": "x" * 100} for each in range(40)]
    containers = [
        {"name": f"c{each}", "image": "app:1", "env": variables, "volumeMounts": [{"name": "t", "mountPath": "/t"}]}
        for each in range(2)
    ]
    fields: Json = {f"f:{each}": {"f:name": {}, "f:value": {}} for each in range(40)}
    return {
        "metadata": {"name": f"web-{number}", "uid": f"uid-{number}", "managedFields": [{"fieldsV1": fields}]},
        "spec": {
            "nodeName": f"node-{number % 50}",
            "containers": containers,
            "volumes": [{"name": "t", "secret": {"secretName": "token"}}],
        },
        "status": {"phase": "Running", "startTime": "2026-11-24T07:00:00Z"},
    }


class Pages:
    """What a namespace with very many Pods sends, page by page, as an answer that is read in pieces."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.limits: list[int] = []
        self.status = 200
        self.content = self
        self._page = b""
        self._parts = json.dumps(large_pod(0)).split("-0")  # of which each is told apart by its number

    @asynccontextmanager
    async def send(self, _method: str, _path: str, query: Mapping[str, str], **_: Any) -> AsyncIterator["Pages"]:  # noqa: ANN401
        begin, limit = int(query.get("continue", "0")), int(query["limit"])
        self.limits.append(limit)
        end = min(self.count, begin + limit)
        meta = {"resourceVersion": "1", "continue": str(end) if end < self.count else ""}
        items = ",".join(f"-{number}".join(self._parts) for number in range(begin, end))
        self._page = f'{{"metadata": {json.dumps(meta)}, "items": [{items}]}}'.encode()
        yield self

    def close(self) -> None:
        self._page = b""

    async def iter_any(self) -> AsyncIterator[bytes]:
        page, self._page = self._page, b""
        for begin in range(0, len(page), 65536):
            yield page[begin : begin + 65536]


@pytest.mark.rule("PUSH-5")
async def test_five_thousand_pods_take_less_than_20_mb_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(5000)
    kube = await connect(write_kubeconfig(tmp_path))
    monkeypatch.setattr(kube, "send", pages.send)
    try:
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        pods = await PodDoor(kube).users("shop", frozenset({"token"}))
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await kube.close()
    assert not isinstance(pods, Reply)
    assert len(pods) == 5000
    assert peak - before < 20 * MIB
    assert after - before < 5 * MIB
    assert max(pages.limits) == 100


@pytest.mark.rule("PUSH-10")
async def test_who_does_not_lead_lists_no_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Pages(1)
    kube = await connect(write_kubeconfig(tmp_path), leadership=Leadership(VirtualClock()))
    monkeypatch.setattr(kube, "send", pages.send)
    try:
        reply = await PodDoor(kube).users("shop", frozenset({"token"}))
    finally:
        await kube.close()
    assert isinstance(reply, Reply)
    assert (reply.outcome, pages.limits) == (Outcome.AGAIN, [])
