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
