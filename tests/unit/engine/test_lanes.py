"""Two lanes in the queue: namespaces whose writes take long hold up no other, however many there are."""

import asyncio
import heapq
import random
import sys
from itertools import count, pairwise

import pytest

from tuinly_operator.base.names import NamespacedName
from tuinly_operator.engine.workqueue import Order, Urgency, WorkQueue

PLACES = 20
LATE = 1.0
"""Seconds after which a write is told of as slow."""
HELD = 10.0
"""Seconds that a slow reconcile takes."""
QUICK = 0.02


def living(end: float | str) -> Urgency:
    return Urgency(Order.LIVING, float(end))


class Clock:
    """Time that passes as soon as nothing else happens, so that minutes take no time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), future))
        await future

    async def run_until(self, end: float) -> None:
        while True:
            for _ in range(5):  # let all that can go on do so
                await asyncio.sleep(0)
            if not self._sleepers or self._sleepers[0][0] > end:
                return
            self.now, _, sleeper = heapq.heappop(self._sleepers)
            sleeper.set_result(None)


class Rush:
    """Workers at a queue. In slow namespaces each reconcile takes 10 s, and is tried again 20 s later."""

    def __init__(self, slow: set[str]) -> None:
        self.clock, self.slow = Clock(), slow
        self.queue = WorkQueue(lambda key: living(key.namespace not in slow), lambda: self.clock.now, PLACES)
        self.added: dict[NamespacedName, float] = {}
        self.late: list[float] = []
        self.busy: list[int] = []

    def add(self, key: NamespacedName) -> None:
        self.added[key] = self.clock.now
        self.queue.add(key)

    async def work(self) -> None:
        while True:
            key = await self.queue.get()
            self.busy.append(self.queue.active)
            self._tasks.append(asyncio.create_task(self.reconcile(key)))

    async def reconcile(self, key: NamespacedName) -> None:
        if key.namespace not in self.slow:
            self.late.append(self.clock.now - self.added[key])
            await self.clock.sleep(QUICK)
            self.queue.mark(key.namespace, slow=False)
            self.queue.done(key)
            return
        await self.clock.sleep(LATE)
        self.queue.mark(key.namespace, slow=True)
        await self.clock.sleep(HELD - LATE)
        self.queue.done(key)
        await self.clock.sleep(20)
        self.add(key)

    async def come(self) -> None:
        """Quick ones come all the time, 200 in each second."""
        for number in range(100_000):
            self.add(NamespacedName("quick", f"c{number % 1000}"))
            await self.clock.sleep(0.005)

    async def run(self, seconds: float) -> None:
        self._tasks = [asyncio.create_task(self.work()), asyncio.create_task(self.come())]
        await self.clock.run_until(seconds)
        for task in self._tasks:
            task.cancel()


@pytest.mark.rule("WHEN-12")
@pytest.mark.parametrize(("namespaces", "each"), [(1, 500), (20, 25), (200, 3)])
async def test_slow_namespaces_hold_up_no_other(namespaces: int, each: int) -> None:
    """The slow ones are the more urgent, and come all at once; of the others it is known that they are quick."""
    rush = Rush({f"slow{number}" for number in range(namespaces)})
    rush.queue.mark("quick", slow=False)
    for namespace in sorted(rush.slow):
        for number in range(each):
            rush.add(NamespacedName(namespace, f"c{number}"))
    await rush.run(55)
    late = sorted(rush.late)
    assert len(late) > 10_000
    assert late[int(len(late) * 0.99)] <= LATE
    assert late[-1] <= 2 * LATE
    # The two lanes, and what changed over for as long as its write takes.
    assert max(rush.busy) <= PLACES * (2 + HELD / LATE)


@pytest.mark.rule("WHEN-12")
async def test_what_is_under_way_changes_over_and_so_does_what_waits() -> None:
    queue = WorkQueue(lambda _: living(0), lambda: 0.0, places=2)
    queue._most_of_one = 2  # noqa: SLF001 -- all
    slow, quick = [NamespacedName("slow", name) for name in "abcde"], NamespacedName("quick", "a")
    for key in (*slow, quick):
        queue.add(key)
    assert [await queue.get(), await queue.get()] == slow[:2]
    assert queue.active == 2
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.mark("slow", slow=True)
    assert await waiting == quick
    more = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not more.done()  # the lane of the slow is full
    queue.done(slow[0])
    assert await more == slow[2]


@pytest.mark.rule("WHEN-13")
async def test_a_slow_namespace_has_an_eighth_of_the_places_and_the_most_urgent_first() -> None:
    """Its writes may be slow as they are many, and costly for the API server."""
    queue = WorkQueue(lambda key: living(key.name), lambda: 0.0, places=16)
    for namespace in ("slow", "slower"):
        queue.mark(namespace, slow=True)
    for number in (7, 3, 5, 1, 9):
        queue.add(NamespacedName("slow", str(number)))
        queue.add(NamespacedName("slower", str(number + 1)))
    taken = [await queue.get() for _ in range(4)]
    assert [int(key.name) for key in taken] == [1, 2, 3, 4]
    more = asyncio.create_task(queue.get())
    await settle()
    assert not more.done()
    queue.add(NamespacedName("slow", "0"))
    await settle()
    assert not more.done()
    for key in taken[::2]:  # those of the one
        queue.done(key)
    await settle()
    names = [more.result().name, (await queue.get()).name]
    assert names == ["0", "5"]
    more = asyncio.create_task(queue.get())
    await settle()
    assert (more.done(), len(queue)) == (False, 5)
    more.cancel()


@pytest.mark.rule("WHEN-13")
async def test_what_waits_for_others_of_its_namespace_comes_also_once_that_is_slow_no_more() -> None:
    now = 0.0
    queue = WorkQueue(lambda key: living(key.name), lambda: now, places=8)
    queue.mark("slow", slow=True)
    for number in range(6):
        queue.add(NamespacedName("slow", str(number)))
    first = await queue.get()
    more = asyncio.create_task(queue.get())
    await settle()
    assert not more.done()
    now = 121.0
    queue.add(NamespacedName("slow", "3.5"))
    queue.done(first)
    async with asyncio.timeout(30):
        taken = [await more, *[await queue.get() for _ in range(5)]]
    assert [key.name for key in taken] == ["1", "2", "3", "3.5", "4", "5"]


@pytest.mark.rule("WHEN-12")
async def test_after_a_while_a_namespace_is_as_good_as_any_other() -> None:
    now = 0.0
    queue = WorkQueue(lambda _: living(0), lambda: now, places=1)
    queue.mark("slow", slow=True)
    queue.add(NamespacedName("slow", "a"))
    queue.add(NamespacedName("quick", "a"))
    taken = {await queue.get(), await queue.get()}
    assert {key.namespace for key in taken} == {"slow", "quick"}
    for key in taken:
        queue.done(key)
    now = 121.0
    queue.add(NamespacedName("slow", "a"))
    queue.add(NamespacedName("quick", "a"))
    await queue.get()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()  # they share the one place
    waiting.cancel()


@pytest.mark.rule("WHEN-12")
@pytest.mark.parametrize("held", [False, True])
async def test_what_has_waited_for_long_is_begun_by_what_is_known_then(*, held: bool) -> None:
    """As after an outage or a lead of another replica, during which nothing is handed out."""
    now = 0.0
    queue = WorkQueue(lambda _: living(0), lambda: now, places=2)
    queue.mark("slow", slow=True)
    if held:
        queue.hold("an outage")
    for number in range(20):
        queue.add(NamespacedName("slow", str(number)))
    now = 121.0
    queue.release("an outage")
    for _ in range(2):
        await queue.get()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()  # as many as there are places
    queue.mark("slow", slow=True)
    await asyncio.sleep(0)
    assert not waiting.done()  # nor are there others in the lane of the slow
    queue.add(NamespacedName("other", "a"))
    assert await waiting == NamespacedName("other", "a")


@pytest.mark.rule("WHEN-12")
async def test_namespaces_that_are_no_more_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuinly_operator.engine.workqueue._MOST_QUICK", 2)
    now = 0.0
    queue = WorkQueue(lambda key: living(key.namespace == "later"), lambda: now, places=4)
    for namespace in ("one", "other", "later"):
        queue.mark(namespace, slow=False)
    now = 7201.0
    queue.mark("later", slow=False)
    for number in range(4):
        queue.add(NamespacedName("later", str(number)))
        queue.add(NamespacedName("unknown", str(number)))
    taken = [(await queue.get()).namespace for _ in range(4)]
    assert taken == ["unknown"] + ["later"] * 3


@pytest.mark.rule("WHEN-12")
async def test_urgency_counts_in_both_lanes() -> None:
    queue = WorkQueue(lambda key: living(key.name), lambda: 0.0, places=24)
    queue.mark("slow", slow=True)
    for number in (5, 3, 1, 4, 2):
        queue.add(NamespacedName("slow" if number % 2 else "quick", str(number)))
    taken = [int((await queue.get()).name) for _ in range(5)]
    assert all(one < other for one, other in pairwise(taken))


@pytest.mark.rule("WHEN-12")
async def test_those_of_whom_nothing_is_known_leave_places_to_those_who_are_quick() -> None:
    queue = WorkQueue(lambda key: living(key.name), lambda: 0.0, places=8)
    queue.mark("quick", slow=False)
    for number in range(20):
        queue.add(NamespacedName(f"new{number}", str(number)))
        queue.add(NamespacedName("quick", str(100 + number)))
    taken = [(await queue.get()).namespace for _ in range(8)]
    assert taken == ["new0", "new1"] + ["quick"] * 6
    # Where none of these waits, all places are theirs.
    queue = WorkQueue(lambda key: living(key.name), lambda: 0.0, places=8)
    for number in range(20):
        queue.add(NamespacedName(f"new{number}", str(number)))
    for _ in range(8):
        await queue.get()
    assert queue.active == 8


async def test_all_places_are_those_of_quick_and_unknown_ones_together() -> None:
    queue = WorkQueue(lambda _: living(0), lambda: 0.0, places=2)
    for name in ("a", "b"):
        queue.add(NamespacedName("unknown", name))
        await queue.get()
    queue.mark("quick", slow=False)
    queue.add(NamespacedName("quick", "c"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await queue.get()
    queue.done(NamespacedName("unknown", "a"))
    assert await queue.get() == NamespacedName("quick", "c")


@pytest.mark.rule("WHEN-12")
async def test_a_quick_write_does_not_make_a_namespace_quick_in_which_others_are_slow() -> None:
    """As where a webhook holds up the writes of Secrets, and not those of statuses."""
    now = 0.0
    queue = WorkQueue(lambda _: living(0), lambda: now, places=4)
    queue._most_of_one = 4  # noqa: SLF001 -- all
    queue.mark("odd", slow=False)
    queue.mark("odd", slow=True)
    queue.mark("odd", slow=False)
    queue.mark("quick", slow=False)
    for namespaces in (["odd"] * 4 + ["quick"] * 4, ["odd"] + ["quick"] * 3):
        for number in range(4):
            queue.add(NamespacedName("odd", str(number)))
        for number in range(4):
            queue.add(NamespacedName("quick", str(number)))
        taken = [await queue.get() for _ in namespaces]
        assert sorted(key.namespace for key in taken) == namespaces
        for key in taken:
            queue.done(key)
        now = 121.0  # it is slow no more, but not known to be quick, either


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("places", "unknown"), [(1, 1), (2, 1), (7, 1), (8, 2), (20, 5)])
async def test_while_quick_ones_wait_those_of_whom_nothing_is_known_have_a_quarter_and_at_least_one(
    places: int, unknown: int
) -> None:
    queue = WorkQueue(lambda key: living(key.name), lambda: 0.0, places)
    queue.mark("quick", slow=False)
    for number in range(places):
        queue.add(NamespacedName(f"new{number}", str(number)))
        queue.add(NamespacedName("quick", str(100 + number)))
    taken = [(await queue.get()).namespace for _ in range(places)]
    assert taken == [f"new{number}" for number in range(unknown)] + ["quick"] * (places - unknown)


@pytest.mark.parametrize("next_one", ["quick", "unknown"])
async def test_where_quick_ones_have_all_places_the_next_one_waits(next_one: str) -> None:
    queue = WorkQueue(lambda _: living(0), lambda: 0.0, places=4)
    queue.mark("quick", slow=False)
    for name in "abcd":
        queue.add(NamespacedName("quick", name))
        await queue.get()
    waiting = asyncio.create_task(queue.get())
    queue.add(NamespacedName(next_one, "e"))
    await settle()
    assert not waiting.done()
    queue.done(NamespacedName("quick", "a"))
    await settle()
    assert waiting.result() == NamespacedName(next_one, "e")


async def test_a_lane_of_slow_ones_that_is_more_than_full_keeps_no_worker_of_the_others_asleep() -> None:
    queue = WorkQueue(lambda _: living(0), lambda: 0.0, places=2)
    for namespace in ("one", "other"):
        for name in "ab":
            queue.add(NamespacedName(namespace, name))
            await queue.get()
        queue.mark(namespace, slow=True)
    workers = [asyncio.create_task(queue.get()) for _ in range(2)]
    await settle()
    for name in "ab":
        queue.add(NamespacedName("quick", name))
    queue.add(NamespacedName("one", "c"))
    await settle()
    assert [worker.done() for worker in workers] == [True, True]


@pytest.mark.parametrize("seed", range(10))
async def test_however_namespaces_turn_slow_and_quick_again_the_most_urgent_key_is_the_next(seed: int) -> None:
    """With a place for each, so that no lane has to wait."""
    chance, now = random.Random(seed), 0.0  # noqa: S311 -- the same each time
    queue = WorkQueue(lambda key: living(key.name), lambda: now, places=400)
    for number in chance.sample(range(60), 60):
        queue.add(NamespacedName(chance.choice("abc"), str(number)))
        if chance.random() < 0.2:
            queue.mark(chance.choice("abc"), slow=chance.random() < 0.7)
            now += chance.choice([0.0, 50.0, 121.0])
    now += chance.choice([0.0, 121.0])
    assert [(await queue.get()).name for _ in range(60)] == [str(number) for number in range(60)]


@pytest.mark.parametrize("known", [False, True])
async def test_what_turns_slow_waits_no_more_behind_what_cannot_be_begun(*, known: bool) -> None:
    queue = WorkQueue(lambda key: living(key.name), lambda: 0.0, places=1)
    if known:
        queue.mark("turns", slow=False)
        queue.mark("quick", slow=False)
    for namespace, name in (("quick", "0"), ("quick", "1"), ("turns", "2")):
        queue.add(NamespacedName(namespace, name))
    assert (await queue.get()).name == "0"
    worker = asyncio.create_task(queue.get())
    await settle()
    queue.mark("turns", slow=True)
    await settle()
    assert worker.result() == NamespacedName("turns", "2")


async def test_a_worker_wakes_for_a_key_that_may_be_begun_since_time_has_passed_as_soon_as_anything_happens() -> None:
    now = 0.0
    queue = WorkQueue(lambda _: living(0), lambda: now, places=1)
    queue.mark("slow", slow=True)
    queue.mark("slow once", slow=True)
    queue.add(NamespacedName("slow", "a"))
    await queue.get()
    queue.add(NamespacedName("slow once", "a"))
    worker = asyncio.create_task(queue.get())
    await settle()
    now = 60.0
    queue.mark("slow", slow=True)
    now = 120.0
    await settle()
    assert not worker.done()
    queue.add(NamespacedName("slow", "b"))
    await settle()
    assert worker.result() == NamespacedName("slow once", "a")


@pytest.mark.parametrize(("passed", "alive"), [(119.9, True), (120.0, False)])
async def test_a_namespace_is_slow_for_two_minutes_after_its_last_slow_write(passed: float, *, alive: bool) -> None:
    now = 0.0
    queue = WorkQueue(lambda _: living(0), lambda: now, places=1)
    queue.mark("slow", slow=True)
    now = 60.0
    queue.mark("slow", slow=True)
    queue.mark("slow", slow=False)  # says nothing against that
    now += passed
    queue.add(NamespacedName("slow", "a"))
    queue.add(NamespacedName("other", "a"))
    await queue.get()
    waiting = asyncio.create_task(queue.get())
    await settle()
    assert waiting.done() is alive  # there is a place in each lane
    waiting.cancel()


@pytest.mark.parametrize(("passed", "quick"), [(7199.9, True), (7200.0, False)])
async def test_a_namespace_is_quick_for_two_hours_after_its_last_quick_write(passed: float, *, quick: bool) -> None:
    now = 0.0
    queue = WorkQueue(lambda key: living(key.name), lambda: now, places=4)
    queue.mark("quick", slow=False)
    now = 100.0
    queue.mark("quick", slow=False)
    now += passed
    for number in range(4):
        queue.add(NamespacedName("unknown", str(number)))
        queue.add(NamespacedName("quick", str(10 + number)))
    taken = [(await queue.get()).namespace for _ in range(4)]
    assert taken == (["unknown"] + ["quick"] * 3 if quick else ["unknown"] * 4)


async def test_so_many_quick_namespaces_are_remembered_and_the_first_to_end_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tuinly_operator.engine.workqueue._MOST_QUICK", 2)
    now = 0.0
    queue = WorkQueue(lambda key: living(key.name), lambda: now, places=4)

    async def is_quick(namespace: str) -> bool:
        keys = [NamespacedName("unknown", str(number)) for number in range(2)] + [NamespacedName(namespace, "9")]
        for key in keys:
            queue.add(key)
        taken = [await queue.get() for _ in keys]
        for key in taken:
            queue.done(key)
        return taken[1].namespace == namespace

    for namespace in ("first", "second", "third"):
        queue.mark(namespace, slow=False)
    assert [await is_quick(namespace) for namespace in ("first", "second", "third")] == [True, True, False]
    now = 10.0
    queue.mark("first", slow=False)
    now = 7200.0
    queue.mark("third", slow=False)  # in the place of the second
    assert [await is_quick(namespace) for namespace in ("first", "second", "third")] == [True, False, True]


async def test_no_more_than_twenty_thousand_quick_namespaces_are_remembered() -> None:
    """Each takes memory, and nobody has said how many there may be."""
    queue = WorkQueue(lambda _: living(0), lambda: 0.0, places=4)
    for number in range(20_001):
        queue.mark(str(number), slow=False)
    unknown, last, first_beyond = (NamespacedName(name, "a") for name in ("unknown", "19999", "20000"))
    for key in (unknown, first_beyond, last):
        queue.add(key)
    assert [await queue.get() for _ in range(3)] == [unknown, last, first_beyond]


def test_a_namespace_that_is_slow_no_more_is_forgotten() -> None:
    now = 0.0
    queue = WorkQueue(lambda _: living(0), lambda: now, places=4)
    namespace = "slow once".replace(" ", "-")  # of its own, not the constant
    before = sys.getrefcount(namespace)
    queue.mark(namespace, slow=True)
    queue.mark("another", slow=True)
    assert sys.getrefcount(namespace) > before
    now = 120.0
    queue.mark("a third", slow=True)
    assert sys.getrefcount(namespace) == before
