"""Which credential is reconciled next: each once, one reconcile per credential at a time, the most urgent first.

What one tenant does in a loop must not delay the refreshes of another. So keys wait in three orders, and the first two
take turns: credentials whose token lives, the one that ends first at the head; and those without a living token, for
which all namespaces take turns. Those that need only a status come after both, until one has waited for a second.

An admission webhook may hold up writes in some namespaces, however many; that must hold up no other namespace. So
there are three lanes. Namespaces with slow writes have one of their own, with places of its own, and a namespace moves
there as soon as one of its writes is slow. Of those places it has an eighth at most: what makes its writes slow may be
that they are many, and costly for the API server. Namespaces of which nothing is known yet get the places that those
with quick writes leave free (docs/decisions/0021-lanes-by-how-quick-writes-are.md).
"""

import asyncio
import heapq
from collections.abc import Callable
from enum import IntEnum
from itertools import count
from typing import Final, NamedTuple

from tuinly_operator.base.names import NamespacedName

_LANES = _QUICK, _UNKNOWN, _SLOW = range(3)
_SLOW_SECONDS: Final = 120.0  # that a namespace counts as slow after a slow write: twice the longest retry
_QUICK_SECONDS: Final = 7200.0  # that it counts as quick after a quick one: many tokens live for an hour
_MOST_QUICK: Final = 20_000  # namespaces that are remembered

_STATUS_SECONDS: Final = 1.0  # that a status waits behind everything else


class Order(IntEnum):
    """The order in which a key waits."""

    LIVING = 0
    ENDED = 1
    STATUS = 2


class Urgency(NamedTuple):
    """How urgent a credential is: its order, and for one whose token lives the time at which that ends, in seconds."""

    order: Order
    end: float = 0.0


_Entry = tuple[Order, float, int, NamespacedName]
_Heap = list[_Entry]


class WorkQueue:
    """A deduplicating priority queue that hands out nothing while something holds it."""

    def __init__(
        self, urgency: Callable[[NamespacedName], Urgency], monotonic: Callable[[], float], places: int
    ) -> None:
        """`urgency` says where a credential waits; `monotonic` is a clock in seconds.

        At most `places` reconciles run at a time, and besides as many of slow namespaces.
        """
        self._urgency = urgency
        self._monotonic = monotonic
        self._places = places
        self._most_of_one = max(1, places // 8)  # reconciles of one slow namespace
        self._heaps: dict[tuple[Order, int], _Heap] = {(order, lane): [] for order in Order for lane in _LANES}
        self._served = dict.fromkeys(Order, 0)  # when each order was last served, by a count
        # The last turn that was served in each lane, and the last one that each namespace has taken there.
        self._turn = {(order, lane): 0.0 for order in Order for lane in _LANES}
        self._turns: dict[tuple[Order, int, str], float] = {}
        self._parked: dict[str, _Heap] = {}  # by namespace: slow, and with as many under way as it may have
        self._slow: dict[str, float] = {}  # namespaces, and until when they are
        self._quick: dict[str, float] = {}  # the same
        self._waiting: dict[NamespacedName, float] = {}
        self._first: dict[NamespacedName, int] = {}  # the number of its first entry; one that is lower is of the past
        self._statuses: set[NamespacedName] = set()  # those that wait only for a status
        self._active: set[NamespacedName] = set()
        self._again: dict[NamespacedName, bool] = {}  # and whether only for a status
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
        """Seconds for which the oldest key has waited in the open queue; 0 where none waits, or anything holds it."""
        if self._holds or not self._waiting:
            return 0.0
        return self._monotonic() - next(iter(self._waiting.values()))

    @property
    def stalled(self) -> float:
        """Seconds for which keys have waited and none was handed out: near 0 in a queue that moves."""
        return min(self.age, self._monotonic() - self._taken)

    @property
    def holds(self) -> frozenset[str]:
        """What keeps the queue closed now."""
        return frozenset(self._holds)

    def hold(self, why: str) -> None:
        """Close the queue until `why` is released. Several reasons may hold it at once."""
        self._holds.add(why)

    def release(self, why: str) -> None:
        """Take back a hold. When the last one goes, all keys count as waiting from that moment on."""
        if why not in self._holds:
            return
        self._holds.discard(why)
        if not self._holds:
            self._waiting = dict.fromkeys(self._waiting, self._monotonic())
        self._wake()

    def add(self, key: NamespacedName, *, status_only: bool = False) -> None:
        """Ask for a reconcile. One that is under way is followed by another; one that waits is not doubled."""
        if key in self._active:
            self._again[key] = self._again.get(key, True) and status_only
            return
        order, end = Urgency(Order.STATUS) if status_only else self._urgency(key)
        now, number = self._monotonic(), next(self._order)
        if key not in self._waiting:
            self._waiting[key], self._first[key] = now, number
            if order is Order.STATUS:
                self._statuses.add(key)
        elif key in self._statuses and order is not Order.STATUS:
            self._statuses.discard(key)  # it waits in both orders, and comes when the first lets it
        else:
            return
        self._place((order, end, number, key), now)
        self._wake()

    def _place(self, entry: _Entry, now: float) -> None:
        """Put a key where it waits, in the next turn of its namespace there."""
        order, rank, number, key = entry
        heap, lane = self._heap(order, key, now), self._lane(key, now)
        if order is not Order.LIVING:
            parked = heap is not self._heaps[order, lane]
            rank = float(number) if parked else self._take_turn(order, lane, key.namespace)
        heapq.heappush(heap, (order, rank, number, key))

    def _take_turn(self, order: Order, lane: int, namespace: str) -> float:
        """The turn in which a namespace is served next; each has one key in a turn, also if it adds them one by one."""
        if len(self._turns) > 2 * len(self._waiting) + 64:
            self._turns = {of: turn for of, turn in self._turns.items() if turn > self._turn[of[:2]]}
        last = self._turns.get((order, lane, namespace), 0.0)
        turn = self._turns[order, lane, namespace] = max(self._turn[order, lane], last) + 1
        return turn

    def caught_up(self, key: NamespacedName) -> None:
        """Let a reconcile be followed by none for what was asked for until now: all of that is known to it."""
        self._again.pop(key, None)

    async def get(self) -> NamespacedName:
        """Wait for the most urgent credential that can be begun. The caller must say `done` for it."""
        while (place := self._next()) is None:
            waker = asyncio.get_running_loop().create_future()
            self._wakers.append(waker)
            try:
                await waker
            except asyncio.CancelledError:
                if waker in self._wakers:
                    self._wakers.remove(waker)
                self._wake()  # for another, if this one had been woken already
                raise
        order, rank, _, key = heapq.heappop(self._heaps[place])
        self._served[order] = next(self._order)
        self._turn[place] = max(self._turn[place], rank)
        del self._waiting[key], self._first[key]
        self._statuses.discard(key)
        self._active.add(key)
        self._taken = self._monotonic()
        return key

    def done(self, key: NamespacedName) -> None:
        """End a reconcile."""
        self._active.discard(key)
        self._unpark(key.namespace)
        if key in self._again:
            self.add(key, status_only=self._again.pop(key))
        self._wake()

    def mark(self, namespace: str, *, slow: bool) -> None:
        """Note that a write in a namespace is slow, already while it lasts, or that one was quick.

        All keys of a slow namespace move to its lane, also those that are being reconciled, even if the lane is full
        already: each write ends by its time-out.
        """
        now = self._monotonic()
        was_slow = self._slow.get(namespace, now) > now
        if slow:
            self._slow[namespace] = now + _SLOW_SECONDS
            self._quick.pop(namespace, None)
            if not was_slow:
                self._slow = {name: until for name, until in self._slow.items() if until > now}
                self._change_over(namespace)
        elif not was_slow:
            self._remember_quick(namespace, now)

    def _remember_quick(self, namespace: str, now: float) -> None:
        """Remember a quick namespace for a while. They stand in the order in which that ends, and are dropped then."""
        self._quick.pop(namespace, None)
        while self._quick and next(iter(self._quick.values())) <= now:
            del self._quick[next(iter(self._quick))]
        if len(self._quick) < _MOST_QUICK:
            self._quick[namespace] = now + _QUICK_SECONDS

    def _change_over(self, namespace: str) -> None:
        now = self._monotonic()
        for heap in [heap for (_, lane), heap in self._heaps.items() if lane != _SLOW]:
            moved = [entry for entry in heap if entry[-1].namespace == namespace]
            heap[:] = [entry for entry in heap if entry[-1].namespace != namespace]
            heapq.heapify(heap)
            for entry in moved:
                self._place(entry, now)
        self._wake()

    def _settle(self) -> None:
        """Move the first key of each lane to where it belongs: that may have changed as time passed."""
        now = self._monotonic()
        for (order, _), heap in self._heaps.items():
            while heap and (self._is_past(heap[0]) or self._heap(order, heap[0][-1], now) is not heap):
                entry = heapq.heappop(heap)
                if not self._is_past(entry):
                    self._place(entry, now)

    def _is_past(self, entry: _Entry) -> bool:
        """Whether a key no longer waits by this entry: another one of it was served."""
        return self._first.get(entry[-1], entry[2] + 1) > entry[2]

    def _heap(self, order: Order, key: NamespacedName, now: float) -> _Heap:
        """Where a key waits: in the lane of its namespace, or parked."""
        lane, namespace = self._lane(key, now), key.namespace
        if lane == _SLOW and sum(each.namespace == namespace for each in self._active) >= self._most_of_one:
            return self._parked.setdefault(namespace, [])
        return self._heaps[order, lane]

    def _unpark(self, namespace: str) -> None:
        """As one of a namespace has ended, let the next that is parked come; all of them, where it is slow no more."""
        if namespace not in self._parked:
            return
        heap, now = self._parked[namespace], self._monotonic()
        slow = self._lane(heap[0][-1], now) == _SLOW
        while heap:
            entry = heapq.heappop(heap)
            if not self._is_past(entry):
                self._place(entry, now)
                if slow:
                    break
        if not self._parked[namespace]:
            del self._parked[namespace]

    def _lane(self, key: NamespacedName, now: float) -> int:
        if self._slow.get(key.namespace, now) > now:
            return _SLOW
        return _QUICK if self._quick.get(key.namespace, now) > now else _UNKNOWN

    def _free(self) -> tuple[int, int, int]:
        """How many more reconciles could begin in each lane now.

        While keys of quick namespaces wait, those of unknown ones have a quarter of the places at most.
        """
        now = self._monotonic()
        lanes = [0, 0, 0]
        for key in self._active:
            lanes[self._lane(key, now)] += 1
        free = self._places - lanes[_QUICK] - lanes[_UNKNOWN]
        share = max(1, self._places // 4) if self._keys(_QUICK) else self._places
        return free, min(free, share - lanes[_UNKNOWN]), self._places - lanes[_SLOW]

    def _keys(self, lane: int) -> int:
        """How many keys wait in a lane."""
        return sum(len(self._heaps[order, lane]) for order in Order)

    def _next(self) -> tuple[Order, int] | None:
        """The order and lane of the next key that can be begun now, or None if there is none."""
        if self._holds:
            return None
        self._settle()
        free = self._free()
        for order in sorted(Order, key=lambda order: (self._may_wait(order), self._served[order])):
            if lanes := [lane for lane in _LANES if self._heaps[order, lane] and free[lane] > 0]:
                return order, min(lanes, key=lambda lane: self._heaps[order, lane][0])
        return None

    def _may_wait(self, order: Order) -> bool:
        """Whether an order comes after the others: that of statuses does, while none of them has waited for long."""
        heads = [heap[0][-1] for lane in _LANES if (heap := self._heaps[order, lane])]
        latest = self._monotonic() - _STATUS_SECONDS
        return order is Order.STATUS and all(self._waiting[key] > latest for key in heads)

    def _wake(self) -> None:
        """Wake as many waiting `get`s as there are keys that can be handed out."""
        if self._holds or not self._wakers:
            return
        self._settle()
        ready = sum(max(0, min(self._keys(lane), free)) for lane, free in enumerate(self._free()))
        for _ in range(min(ready, len(self._wakers))):
            waker = self._wakers.pop()
            if not waker.done():
                waker.set_result(None)
