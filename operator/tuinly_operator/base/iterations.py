"""The iterations of an event loop: what it does between two waits, timed, since all else waits for one to end.

To be woken costs more than most of what a loop is woken for: the processor has forgotten all of it meanwhile. So a loop
that waits by this lets what comes right after the first event be of the same iteration, as network cards do with
packets ("interrupt coalescing").
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import Final

LONG: Final = 0.005
"""Seconds of CPU. An iteration that takes as many or more is told of; a shorter one keeps nobody waiting."""


class Iterations(selectors.DefaultSelector):
    """What an event loop waits by. It tells `seen` of each long iteration: the seconds of CPU that it took.

    All that is ready at the same time is one iteration, and what comes within `coalesce` seconds after a wait. The CPU
    of the loop's own thread is counted, so that what other threads and programs take meanwhile is not.
    """

    def __init__(
        self, cpu: Callable[[], float], pause: Callable[[float], None] = lambda _: None, coalesce: float = 0.0
    ) -> None:
        """`cpu` tells the CPU time of the thread that calls it, in seconds; `pause` lets so many seconds pass."""
        super().__init__()
        self._pause = pause
        self._coalesce = coalesce
        self.seen: Callable[[float], None] = lambda _: None
        self._cpu = cpu
        self._began = cpu()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as any selector does. With this call one iteration ends; when it returns, the next begins."""
        took = self._cpu() - self._began
        if took >= LONG:
            self.seen(took)
        ready = super().select(timeout)
        if ready and self._coalesce and timeout != 0:
            self._pause(self._coalesce)
            ready = super().select(0)
        self._began = self._cpu()
        return ready

    def loop(self) -> asyncio.AbstractEventLoop:
        """Make the event loop that waits by this."""
        return asyncio.SelectorEventLoop(self)
