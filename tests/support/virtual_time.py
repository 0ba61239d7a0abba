"""An event loop for tests in which an hour is over at once."""

import asyncio
import selectors
from collections.abc import Callable


class _Skipping(selectors.DefaultSelector):
    """Waits for nothing: where a loop would wait, its time goes on."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.loop.passes(timeout or 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time goes on only while all tasks wait; `passing` is told how many seconds that were."""

    def __init__(self, passing: Callable[[float], None] = lambda _: None) -> None:
        selector = _Skipping()
        selector.loop = self
        self.now, self._passing = 0.0, passing
        super().__init__(selector)

    def time(self) -> float:
        """Seconds that have passed."""
        return self.now

    def passes(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now += seconds
        self._passing(seconds)
