"""Runs a story in virtual time: hours of waiting take a moment."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from tests.simulation.loop import make_loop
from tuinly_operator.base.chance import Chance
from tuinly_operator.base.clock import Moment

_LONG_ENOUGH = 1e6  # seconds


class VirtualClock:
    """The operator's two clocks, by the loop's time."""

    def now(self) -> Moment:
        """Read both clocks."""
        time = asyncio.get_running_loop().time()
        return Moment(1_800_000_000.0 + time, 1_000.0 + time)


def live(story: Coroutine[Any, Any, None], seed: int = 0) -> None:
    """Run it to its end; `seed` picks the order of what happens at the same time."""
    loop = make_loop(Chance(seed))
    task = loop.create_task(story)
    loop.run_until(_LONG_ENOUGH)
    task.result()
