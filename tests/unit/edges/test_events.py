"""Events: of each namespace one after the other, and no namespace holds up another or crowds it out."""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, cast

import pytest

from tests.unit.facts import credential
from tuinly_operator.base.clock import SystemClock
from tuinly_operator.domain.credential import Credential
from tuinly_operator.domain.errors import Reason
from tuinly_operator.domain.notices import Notice
from tuinly_operator.edges import events as events_module
from tuinly_operator.edges.election import LOOK_SECONDS
from tuinly_operator.edges.events import EventSender
from tuinly_operator.edges.kube import ApiFailure, Kube, NotLeading
from tuinly_operator.edges.kube import leases as leases_module


def of(namespace: str) -> Credential:
    return credential({"metadata": {"namespace": namespace}})


def failed(message: str = "failed") -> Notice:
    return Notice(warning=True, reason=Reason.INVALID_CLIENT, message=message)


class Posts:
    """What the API server got, and in which namespaces it does not answer."""

    def __init__(self) -> None:
        self.leads = True
        self.hanging: set[str] = set()
        self.reachable = True
        self.unheard = False  # whether, in an outage, what is sent arrives all the same
        self.tries = 0
        self.failing: set[str] = set()
        self.got: list[tuple[str, Mapping[str, Any]]] = []
        self.open: dict[str, int] = {}
        self.most = 0

    def lead(self) -> None:
        self.leads = True

    async def answers(self) -> bool:
        return self.reachable

    async def post_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        self.tries += 1
        self.open[namespace] = self.open.get(namespace, 0) + 1
        self.most = max(self.most, self.open[namespace])
        if namespace in self.hanging:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        self.open[namespace] -= 1
        if self.reachable and not self.leads:
            raise NotLeading
        if namespace in self.failing:
            raise ApiFailure(500, "InternalError")
        if not self.reachable and not self.unheard:
            raise ApiFailure(None, "ServerDisconnectedError")
        if any(event == before for _, before in self.got):
            raise ApiFailure(409, "AlreadyExists")
        self.got.append((namespace, event))
        if not self.reachable:
            raise ApiFailure(None, "ServerDisconnectedError")

    def namespaces(self) -> list[str]:
        return [namespace for namespace, _ in self.got]


@pytest.fixture
def posts() -> Posts:
    return Posts()


@pytest.fixture
async def sender(posts: Posts) -> AsyncIterator[EventSender]:
    sender = EventSender(cast("Kube", posts), SystemClock(), "tests")
    running = asyncio.create_task(sender.run())
    yield sender
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def until(posts: Posts, count: int) -> None:
    async with asyncio.timeout(30):
        while len(posts.got) < count:  # noqa: ASYNC110 -- a poll does
            await asyncio.sleep(0.001)


@pytest.mark.rule("OBS-2")
async def test_a_namespace_that_takes_its_time_holds_up_no_other(
    posts: Posts, sender: EventSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: each request gives up its place after a second, here sooner."""
    monkeypatch.setattr(events_module, "_PLACE_SECONDS", 0.02)
    posts.hanging = {f"slow{number}" for number in range(50)}
    for namespace in sorted(posts.hanging):
        for _ in range(3):
            sender.tell(of(namespace), failed())
    for number in range(20):
        sender.tell(of(f"quick{number % 4}"), failed())
    await until(posts, 20)
    assert not posts.hanging & set(posts.namespaces())
    assert max(posts.open.values()) == 1
    for number in range(20):  # a place that was given up is not given back again
        sender.tell(of(f"quick{number % 4}"), failed())
    await until(posts, 40)


@pytest.mark.rule("OBS-2")
async def test_those_of_one_namespace_come_one_by_one_and_in_their_order(posts: Posts, sender: EventSender) -> None:
    for number in range(30):
        sender.tell(of(f"ns{number % 2}"), failed(str(number)))
    await until(posts, 30)
    assert posts.most == 1
    for name in ("ns0", "ns1"):
        told = [int(event["note"]) for namespace, event in posts.got if namespace == name]
        assert told == sorted(told)


async def test_one_that_fails_is_no_harm_to_the_next(posts: Posts, sender: EventSender) -> None:
    posts.failing = {"broken"}
    for namespace in ("broken", "broken", "good"):
        sender.tell(of(namespace), failed())
    await until(posts, 1)
    posts.failing = set()
    sender.tell(of("broken"), failed())
    await until(posts, 2)


@pytest.mark.rule("OBS-2")
async def test_who_has_most_waiting_loses_when_there_are_too_many(
    posts: Posts, sender: EventSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "_MOST_WAITING", 50)
    posts.hanging = {"loud"}
    for number in range(500):
        if number % 50 == 0:
            sender.tell(of(f"quiet{number}"), failed())
        sender.tell(of("loud"), failed(str(number)))
    await until(posts, 10)
    assert set(posts.namespaces()) == {f"quiet{number}" for number in range(0, 500, 50)}


@pytest.mark.rule("OBS-2")
async def test_a_note_is_cut_by_bytes_and_between_letters(posts: Posts, sender: EventSender) -> None:
    sender.tell(of("shop"), failed("x" + "é" * 800))
    await until(posts, 1)
    note = posts.got[0][1]["note"]
    assert note == "x" + "é" * 511
    assert len(note.encode()) <= 1024


@pytest.mark.rule("OBS-3")
@pytest.mark.parametrize("unheard", [False, True], ids=["lost", "its answer is lost"])
async def test_an_event_that_meets_an_outage_is_sent_after_it_and_once(
    posts: Posts,
    sender: EventSender,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    unheard: bool,
) -> None:
    """While the outage lasts nothing is tried."""
    monkeypatch.setattr(events_module, "_OUTAGE_SECONDS", 0.02)
    monkeypatch.setattr(events_module, "_LEAD_SECONDS", 0.02)
    posts.reachable, posts.unheard = False, unheard
    sender.tell(of("shop"), failed("first"))
    sender.tell(of("shop"), failed("second"))
    await asyncio.sleep(0.2)
    assert posts.tries == 1
    posts.reachable = True
    await until(posts, 2)
    assert [event["note"] for _, event in posts.got] == ["first", "second"]
    assert not caplog.records


async def test_an_event_that_meets_an_outage_in_which_the_lead_ends_is_sent_once_it_is_back(
    posts: Posts, sender: EventSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Lease is taken again at the next look, some time after the API server answers."""
    monkeypatch.setattr(events_module, "_OUTAGE_SECONDS", 0.02)
    monkeypatch.setattr(events_module, "_LEAD_SECONDS", 0.2)
    posts.reachable = posts.leads = False
    sender.tell(of("shop"), failed())
    await asyncio.sleep(0.3)
    posts.reachable = True
    asyncio.get_running_loop().call_later(0.15, posts.lead)
    await until(posts, 1)
    assert len(posts.got) == 1


def test_after_an_outage_the_lease_has_been_looked_at_before_an_event_is_sent() -> None:
    hangs = leases_module._LEASE_LIMIT.total or 0.0  # noqa: SLF001 -- what a look may take
    assert hangs + LOOK_SECONDS < events_module._LEAD_SECONDS  # noqa: SLF001 -- how long it waits


@pytest.mark.rule("OBS-2")
def test_an_event_that_waits_keeps_nothing_of_its_credential_but_its_identity(posts: Posts) -> None:
    def kept() -> int:
        gc.collect()
        return sum(isinstance(found, Credential) for found in gc.get_objects())

    sender, before = EventSender(cast("Kube", posts), SystemClock(), "tests"), kept()
    for number in range(10):
        sender.tell(of(f"namespace{number}"), failed())
    assert kept() == before
