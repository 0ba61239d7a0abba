"""When to look at a credential again: deadlines on both clocks, kept in two heaps and watched by one task.

A single wake-up is dear, here and at the API server, so those that may be a little early come with the next that is due
(docs/decisions/0025-timers-with-slack.md).
"""

import asyncio
import heapq
from collections.abc import Callable

from tuinly_operator.base.clock import Clock, Deadline, Moment
from tuinly_operator.base.names import NamespacedName

# asyncio sleeps by a clock that stands still while the machine is suspended, so the heaps are looked at this often.
# In seconds.
_TICK = 1.0


class Timers:
    """One deadline per credential; setting another replaces it."""

    def __init__(self, clock: Clock, due: Callable[[NamespacedName], None], burst: int = 1) -> None:
        """`due` is called with each credential whose deadline has come, once.

        Those that have slack come with one that is due, until they are `burst` together.
        """
        self._clock = clock
        self._due = due
        self._burst = burst
        self._deadlines: dict[NamespacedName, Deadline] = {}
        self._slacks: dict[NamespacedName, float] = {}  # of those that have any
        # Entries that were replaced or cancelled stay in the heaps until they come first; the dictionary tells.
        self._by_wall: list[tuple[float, NamespacedName]] = []
        self._by_boot: list[tuple[float, NamespacedName]] = []
        self._look = asyncio.Event()  # set when a tick is over, or a deadline has become the first

    def __len__(self) -> int:
        return len(self._deadlines)

    def get(self, key: NamespacedName) -> Deadline | None:
        """The deadline that is set for a credential."""
        return self._deadlines.get(key)

    def set(self, key: NamespacedName, deadline: Deadline, slack: float = 0.0) -> None:
        """Set or replace a credential's deadline; `slack` is the seconds by which it may come earlier, with others."""
        self._slacks.pop(key, None)
        if slack:
            self._slacks[key] = slack
        if self._deadlines.get(key) == deadline:
            return
        self._deadlines[key] = deadline
        heapq.heappush(self._by_wall, (deadline.wall, key))
        heapq.heappush(self._by_boot, (deadline.boot, key))
        if self._by_wall[0][1] == key or self._by_boot[0][1] == key:
            self._look.set()
        self._compact()

    def cancel(self, key: NamespacedName) -> None:
        """Forget a credential's deadline."""
        self._deadlines.pop(key, None)
        self._slacks.pop(key, None)

    def fire(self, now: Moment) -> float:
        """Hand over every credential whose deadline is due by either clock, and with them those that may be early.

        Returns the seconds until the next.
        """
        soonest, handed_over = float("inf"), 0
        for heap, time, clock in ((self._by_wall, now.wall, "wall"), (self._by_boot, now.boot, "boot")):
            while heap:
                at, key = heap[0]
                deadline = self._deadlines.get(key)
                if deadline is None or getattr(deadline, clock) != at:
                    heapq.heappop(heap)
                elif at - time <= (self._slacks.get(key, 0.0) if 0 < handed_over < self._burst else 0.0):
                    heapq.heappop(heap)
                    self.cancel(key)
                    self._due(key)
                    handed_over += 1
                else:
                    soonest = min(soonest, at - time)
                    break
        return soonest

    async def run(self) -> None:
        """Watch the clocks until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._look.clear()
            tick = loop.call_later(min(self.fire(self._clock.now()), _TICK), self._look.set)
            await self._look.wait()
            tick.cancel()

    def _compact(self) -> None:
        """Rebuild the heaps once most entries are old, so that their size follows the number of credentials."""
        if len(self._by_wall) <= 64 + 2 * len(self._deadlines):
            return
        self._by_wall = [(d.wall, key) for key, d in self._deadlines.items()]
        self._by_boot = [(d.boot, key) for key, d in self._deadlines.items()]
        heapq.heapify(self._by_wall)
        heapq.heapify(self._by_boot)
