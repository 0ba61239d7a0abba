"""The iterations of an event loop: what it does between two waits, timed, since all else waits for one to end.

To be woken costs more than most of what a loop is woken for: the processor has forgotten all of it meanwhile. So a loop
that waits by this lets what comes right after the first event be of the same iteration, as network cards do with
packets ("interrupt coalescing"). One that is busy does not: what it is woken for is worth that, such as the pages of a
list, and each pause would only make them later.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import Final

LONG: Final = 0.005
"""Seconds of CPU. An iteration that takes as many or more is told of; a shorter one keeps nobody waiting."""
_BUSY: Final = 0.25  # the part of the time for which a loop works that had better not pause


class Iterations(selectors.DefaultSelector):
    """What an event loop waits by. It tells `seen` of each long iteration: the seconds of CPU that it took.

    All that is ready at the same time is one iteration, and what comes within `coalesce` seconds after a wait, unless
    the loop is busy. The CPU of the loop's own thread is counted, so that what other threads and programs take
    meanwhile is not.
    """

    def __init__(
        self,
        cpu: Callable[[], float],
        now: Callable[[], float],
        pause: Callable[[float], None] = lambda _: None,
        coalesce: float = 0.0,
    ) -> None:
        """`cpu` tells the CPU time of the thread that calls it, `now` the time; `pause` lets time pass. In seconds."""
        super().__init__()
        self._now = now
        self._pause = pause
        self._coalesce = coalesce
        self.seen: Callable[[float], None] = lambda _: None
        self._cpu = cpu
        self._began = cpu()
        self._woken = now(), cpu()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as any selector does. With this call one iteration ends; when it returns, the next begins."""
        took = self._cpu() - self._began
        if took >= LONG:
            self.seen(took)
        ready = super().select(timeout)
        if ready and self._coalesce and timeout != 0 and not self._is_busy():
            self._pause(self._coalesce)
            ready = super().select(0)
        self._began = self._cpu()
        return ready

    def _is_busy(self) -> bool:
        """Whether the loop has worked for a good part of the time since it was woken before."""
        (woken, used), self._woken = self._woken, (self._now(), self._cpu())
        return self._woken[1] - used > _BUSY * (self._woken[0] - woken)

    def loop(self) -> asyncio.AbstractEventLoop:
        """Make the event loop that waits by this."""
        return asyncio.SelectorEventLoop(self)
