"""The iterations of an event loop: what it does between two waits, timed, since all else waits for one to end."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Final

LONG: Final = 0.005
"""Seconds of CPU. An iteration that takes as many or more is told of; a shorter one keeps nobody waiting."""


class Iterations(selectors.DefaultSelector):
    """What an event loop waits by. It tells `seen` of each long iteration: the seconds of CPU that it took.

    All that is ready at the same time is one iteration. The CPU of the loop's own thread is counted, so that what other
    threads and programs take meanwhile is not.
    """

    def __init__(self, cpu: Callable[[], float]) -> None:
        """`cpu` tells the CPU time of the thread that calls it, in seconds."""
        super().__init__()
        self.seen: Callable[[float], None] = lambda _: None
        self._cpu = cpu
        self._began = cpu()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as any selector does. With this call one iteration ends; when it returns, the next begins."""
        took = self._cpu() - self._began
        if took >= LONG:
            self.seen(took)
        ready = super().select(timeout)
        self._began = self._cpu()
        return ready

    def loop(self) -> asyncio.AbstractEventLoop:
        """Make the event loop that waits by this."""
        return asyncio.SelectorEventLoop(self)
