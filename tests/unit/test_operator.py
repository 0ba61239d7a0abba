"""The operator as a whole, as far as it can be looked at without a cluster."""

import asyncio

import pytest

from tuinly_operator.credential import Key
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
