"""Which credential is reconciled next: each once, one reconcile per credential at a time, the most urgent first."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from tuinly_operator.credential import Key


class WorkQueue:
    """A deduplicating priority queue that hands out nothing while something holds it."""

    def __init__(self, urgency: Callable[[Key], float], monotonic: Callable[[], float]) -> None:
        """`urgency` gives a credential's place, the smallest first; `monotonic` is a clock in seconds."""
        self._urgency = urgency
        self._monotonic = monotonic
        self._heap: list[tuple[float, int, Key]] = []
        self._waiting: dict[Key, float] = {}
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._holds: set[str] = set()
        self._order = count()
        self._taken = float("-inf")  # when a key was last handed out
        self._wakers: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def active(self) -> int:
        """How many reconciles are under way."""
        return len(self._active)

    @property
    def age(self) -> float:
        """Seconds that the longest waiting key has waited since it could be handed out; 0 where none waits."""
        return self._monotonic() - next(iter(self._waiting.values())) if self._waiting else 0.0

    @property
    def stalled(self) -> float:
        """Seconds for which keys have waited and none was handed out. A long queue that moves is no stalled one."""
        return min(self.age, self._monotonic() - self._taken)

    @property
    def holds(self) -> frozenset[str]:
        """What keeps the queue closed now."""
        return frozenset(self._holds)

    def hold(self, why: str) -> None:
        """Close the queue until `why` is released. Several reasons may hold it at once."""
        self._holds.add(why)

    def release(self, why: str) -> None:
        """Take back a hold. With the last one waiting begins: until then nobody could have done anything."""
        if why not in self._holds:
            return
        self._holds.discard(why)
        if not self._holds:
            self._waiting = dict.fromkeys(self._waiting, self._monotonic())
        self._wake()

    def add(self, key: Key) -> None:
        """Ask for a reconcile. One that is under way is followed by another; one that waits is not doubled."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._monotonic()
            heapq.heappush(self._heap, (self._urgency(key), next(self._order), key))
            self._wake()

    async def get(self) -> Key:
        """Wait for the most urgent credential. The caller must say `done` for it."""
        while self._holds or not self._heap:
            waker = asyncio.get_running_loop().create_future()
            self._wakers.append(waker)
            try:
                await waker
            except asyncio.CancelledError:
                if waker in self._wakers:
                    self._wakers.remove(waker)
                self._wake()  # for another, if this one had been woken already
                raise
        _, _, key = heapq.heappop(self._heap)
        del self._waiting[key]
        self._active.add(key)
        self._taken = self._monotonic()
        return key

    def done(self, key: Key) -> None:
        """End a reconcile."""
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _wake(self) -> None:
        """Let as many waiting workers look as there is work."""
        if self._holds:
            return
        for _ in range(min(len(self._heap), len(self._wakers))):
            waker = self._wakers.pop()
            if not waker.done():
                waker.set_result(None)
