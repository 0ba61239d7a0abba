"""The operator as a whole, as far as it can be looked at without a cluster."""

import asyncio
from pathlib import Path

import pytest
import yaml

from tuinly_operator import operator as operator_module
from tuinly_operator import watch as watch_module
from tuinly_operator.credential import Key
from tuinly_operator.election import RELEASE_SECONDS
from tuinly_operator.operator import Operator
from tuinly_operator.settings import parse_settings

BROKEN, SOUND = Key("shop", "broken"), Key("shop", "sound")


class Defective:
    """A reconciler with a defect that one credential brings to light."""

    def __init__(self) -> None:
        self.seen: list[Key] = []
        self.both = asyncio.Event()

    async def reconcile(self, key: Key) -> None:
        self.seen.append(key)
        if key == BROKEN:
            raise ZeroDivisionError
        self.both.set()


async def test_a_defect_is_logged_and_tried_again_in_a_minute_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    operator, reconciler = Operator(parse_settings(["run"], {})), Defective()
    monkeypatch.setattr(operator, "_reconciler", reconciler, raising=False)
    for why in operator._queue.holds:  # noqa: SLF001 -- nothing else opens it without an API server
        operator._queue.release(why)  # noqa: SLF001 -- the same
    operator._queue.add(BROKEN)  # noqa: SLF001 -- the same
    operator._queue.add(SOUND)  # noqa: SLF001 -- the same
    worker = asyncio.create_task(operator._work())  # noqa: SLF001 -- the part under test
    async with asyncio.timeout(10):
        await reconciler.both.wait()
    worker.cancel()
    assert reconciler.seen == [BROKEN, SOUND]
    again = operator._timers.get(BROKEN)  # noqa: SLF001 -- what it leaves behind
    assert again is not None
    assert 50 < again.remaining(operator._clock.now()) <= 60  # noqa: SLF001 -- the same
    assert operator._timers.get(SOUND) is None  # noqa: SLF001 -- the same
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("waiting", "closed", "gives_way"),
    [(True, False, True), (False, False, False), (True, True, False)],
    ids=["others wait", "nobody waits", "others wait, but the queue is closed"],
)
def test_a_report_gives_way_to_tokens_only_where_its_turn_will_come(
    waiting: bool,  # noqa: FBT001 -- a column of the table
    closed: bool,  # noqa: FBT001 -- the same
    gives_way: bool,  # noqa: FBT001 -- the same
) -> None:
    """Behind a queue that SIGTERM, an outage or a lost lead has closed, it would not be told at all."""
    operator = Operator(parse_settings(["run"], {}))
    queue = operator._queue  # noqa: SLF001 -- nothing else opens it without an API server
    for why in queue.holds:
        queue.release(why)
    if waiting:
        queue.add(SOUND)
    if closed:
        queue.hold("the operator is stopping")
    before = len(queue)
    assert operator._give_way(BROKEN) is gives_way  # noqa: SLF001 -- the part under test
    assert len(queue) == before + gives_way


class Resting:
    """A reconciler that finds nothing to do, and so waits for nothing."""

    async def reconcile(self, key: Key) -> None:
        pass


async def test_a_full_queue_lets_others_have_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the renewal of the Lease, when a new leader looks at all credentials."""
    operator = Operator(parse_settings(["run"], {}))
    monkeypatch.setattr(operator, "_reconciler", Resting(), raising=False)
    queue = operator._queue  # noqa: SLF001 -- nothing else opens it without an API server
    for why in queue.holds:
        queue.release(why)
    for number in range(100):
        queue.add(Key("shop", str(number)))
    worker = asyncio.create_task(operator._work())  # noqa: SLF001 -- the part under test
    await asyncio.sleep(0)
    assert 0 < len(queue) < 100
    worker.cancel()


class Part:
    """A part of the operator that notes its end, and what else is asked of it."""

    def __init__(self, name: str, order: list[str]) -> None:
        self._name = name
        self._order = order
        self.listed = asyncio.Event()

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self._order.append(self._name)

    async def settle(self) -> None:
        await asyncio.Event().wait()

    async def release(self) -> None:
        self._order.append("released")


async def test_the_lead_is_given_up_once_nobody_works_and_before_the_rest_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest takes its time, in which another replica works already."""
    operator, stop, order = Operator(parse_settings(["run"], {})), asyncio.Event(), list[str]()
    for name in ("_election", "_events", "_census"):
        monkeypatch.setattr(operator, name, Part(name, order), raising=False)
    for name in ("_watch_credentials", "_probe_api"):
        monkeypatch.setattr(operator, name, Part(name, order).run)
    monkeypatch.setattr(operator, "_secret_watches", [Part("_secret_watches", order)], raising=False)
    monkeypatch.setattr(operator, "_work", Part("_work", order).run)
    work = asyncio.create_task(operator.work_until(stop))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(10):
        await work
    before, after = order[: order.index("released")], order[order.index("released") + 1 :]
    assert set(before) == {"_election", "_work"}
    assert set(after) == {"_secret_watches", "_events", "_watch_credentials", "_census", "_probe_api"}


@pytest.mark.parametrize("manifest", ["install.yaml", "namespaced.yaml"])
def test_the_longest_stop_is_shorter_than_kubernetes_waits(manifest: str) -> None:
    """What is in flight, the Lease, kopf's thread, and a second for who asks for the health just then."""
    text = (Path(__file__).parents[2] / "deploy" / manifest).read_text()
    [deployment] = [each for each in yaml.safe_load_all(text) if each["kind"] == "Deployment"]
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    longest = operator_module._GRACE + RELEASE_SECONDS + watch_module._STOP_TIMEOUT + 1  # noqa: SLF001 -- its parts
    assert longest < grace
