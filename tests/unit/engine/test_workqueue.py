"""The queue: each credential once, one reconcile of it at a time, the most urgent first, nothing while it is held."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tuinly_operator.base.names import NamespacedName
from tuinly_operator.engine.workqueue import Order, Urgency, WorkQueue

A, B, C = KEYS = tuple(NamespacedName("shop", name) for name in "abc")


@dataclass
class World:
    """What the queue asks for: how urgent a credential is, and the time in seconds."""

    urgency: dict[NamespacedName, float] = field(default_factory=dict)
    order: dict[NamespacedName, Order] = field(default_factory=dict)
    time: float = 1000.0

    def urgency_of(self, key: NamespacedName) -> Urgency:
        order = self.order.get(key, Order.LIVING)
        return Urgency(order, self.urgency.get(key, 0.0))

    def queue(self) -> WorkQueue:
        return WorkQueue(self.urgency_of, lambda: self.time, places=20)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def queue(world: World) -> WorkQueue:
    return world.queue()


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def take(queue: WorkQueue, count: int) -> list[NamespacedName]:
    """Take that many, finishing each before the next."""
    taken = []
    for _ in range(count):
        async with asyncio.timeout(30):
            taken.append(await queue.get())
        queue.done(taken[-1])
    return taken


async def test_a_key_that_waits_is_not_doubled(queue: WorkQueue) -> None:
    queue.add(A)
    queue.add(A)
    assert len(queue) == 1
    assert await take(queue, 1) == [A]
    assert len(queue) == 0


@pytest.mark.rule("WHEN-13")
async def test_a_reconcile_under_way_is_followed_by_one_more_and_never_joined_by_it(queue: WorkQueue) -> None:
    queue.add(A)
    assert await queue.get() == A
    queue.add(A)
    queue.add(A)
    queue.add(B)
    assert queue.active == 1
    assert await queue.get() == B
    assert len(queue) == 0
    queue.done(A)
    assert await queue.get() == A
    queue.done(A)
    queue.done(B)
    assert (len(queue), queue.active) == (0, 0)


async def test_what_the_reconcile_under_way_has_caught_up_with_is_followed_by_none(queue: WorkQueue) -> None:
    queue.add(A)
    assert await queue.get() == A
    queue.add(A)
    queue.caught_up(A)
    queue.done(A)
    assert len(queue) == 0
    queue.add(A)
    assert await queue.get() == A
    queue.caught_up(A)
    queue.add(A)
    queue.done(A)
    assert len(queue) == 1


@pytest.mark.rule("WHEN-10")
async def test_the_most_urgent_comes_first_and_equals_in_their_order(world: World, queue: WorkQueue) -> None:
    fourth = NamespacedName("shop", "d")
    world.urgency = {A: 30.0, B: 10.0, C: 20.0, fourth: 10.0}
    for key in (A, B, C, fourth):
        queue.add(key)
    assert await take(queue, 4) == [B, fourth, C, A]


@pytest.mark.rule("ABS-1")
async def test_nothing_is_handed_out_while_anything_holds_the_queue(queue: WorkQueue) -> None:
    queue.hold("not listed")
    queue.hold("no leader")
    getting = asyncio.create_task(queue.get())
    queue.add(A)
    await settle()
    assert queue.holds == {"not listed", "no leader"}
    queue.release("not listed")
    await settle()
    assert not getting.done()
    queue.release("no leader")
    assert await asyncio.wait_for(getting, 30) == A
    assert queue.holds == frozenset()


async def test_a_hold_spares_what_is_under_way_and_keeps_what_comes_meanwhile(queue: WorkQueue) -> None:
    queue.add(A)
    assert await queue.get() == A
    queue.hold("out of reach")
    queue.add(A)
    queue.add(B)
    queue.done(A)
    getting = asyncio.create_task(queue.get())
    await settle()
    assert not getting.done()
    assert len(queue) == 2
    queue.release("out of reach")
    assert await asyncio.wait_for(getting, 30) == B
    assert await take(queue, 1) == [A]


async def test_releasing_what_does_not_hold_is_no_error(queue: WorkQueue) -> None:
    queue.release("never held")
    queue.add(A)
    assert await take(queue, 1) == [A]


async def test_all_waiting_workers_get_what_there_is(queue: WorkQueue) -> None:
    workers = [asyncio.create_task(queue.get()) for _ in range(4)]
    await settle()
    for key in KEYS:
        queue.add(key)
    await settle()
    assert sorted(w.result() for w in workers if w.done()) == list(KEYS)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def test_a_release_lets_as_many_workers_go_on_as_there_is_work(queue: WorkQueue) -> None:
    queue.hold("not listed")
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await settle()
    for key in KEYS:
        queue.add(key)
    queue.release("not listed")
    async with asyncio.timeout(30):
        assert sorted(await asyncio.gather(*workers)) == list(KEYS)


@pytest.mark.parametrize("when", ["long before", "just before", "just after"])
async def test_a_cancelled_worker_takes_no_work_along(queue: WorkQueue, when: str) -> None:
    stays, goes = (asyncio.create_task(queue.get()) for _ in range(2))
    await settle()
    steps: list[Callable[[], object]] = [goes.cancel, lambda: queue.add(A)]
    for step in reversed(steps) if when == "just after" else steps:
        step()
        if when == "long before":
            await settle()
    await asyncio.gather(goes, return_exceptions=True)
    await settle()
    try:
        assert stays.done()
    finally:
        stays.cancel()
        await asyncio.gather(stays, return_exceptions=True)


async def test_the_age_is_that_of_the_key_that_has_waited_longest(world: World, queue: WorkQueue) -> None:
    assert queue.age == 0
    world.urgency = {A: 2.0, B: 1.0}
    queue.add(A)
    world.time += 5
    queue.add(B)
    queue.add(A)
    world.time += 1
    assert queue.age == 6
    assert await take(queue, 1) == [B]
    assert queue.age == 6
    assert await take(queue, 1) == [A]
    assert queue.age == 0


async def test_a_queue_that_moves_is_not_stalled_however_long_one_key_waits(world: World, queue: WorkQueue) -> None:
    """A restart would not help those that wait behind many others."""
    world.urgency = {A: 1.0, B: 2.0}
    queue.add(B)
    world.time += 1000
    queue.add(A)
    assert queue.stalled == 1000
    assert await take(queue, 1) == [A]
    assert queue.age == 1000
    assert queue.stalled == 0
    world.time += 5
    assert queue.stalled == 5
    assert await take(queue, 1) == [B]
    world.time += 5
    assert queue.stalled == 0


async def test_who_waits_while_anything_holds_the_queue_has_not_waited(world: World, queue: WorkQueue) -> None:
    queue.add(A)
    for why in ("a list", "the lead"):
        queue.hold(why)
    world.time += 10
    queue.release("a list")
    assert queue.age == queue.stalled == 0
    queue.release("the lead")
    assert queue.age == 0
    world.time += 10
    assert queue.age == 10


async def test_what_comes_again_under_way_waits_from_the_end_of_that(world: World, queue: WorkQueue) -> None:
    queue.add(A)
    await queue.get()
    queue.add(A)
    world.time += 100
    assert queue.age == 0
    queue.done(A)
    world.time += 1
    assert queue.age == 1


async def test_who_waits_for_a_hold_has_not_waited_yet(world: World, queue: WorkQueue) -> None:
    """A standby's keys lie in its queue for days: at its promotion nothing hangs."""
    queue.hold("a")
    queue.hold("b")
    queue.add(A)
    world.time += 100
    queue.release("a")
    world.time += 100
    queue.release("b")
    assert queue.age == 0
    world.time += 1
    queue.release("b")
    assert queue.age == 1


def keys(namespace: str, count: int) -> list[NamespacedName]:
    return [NamespacedName(namespace, f"{number:03}") for number in range(count)]


@pytest.mark.rule("WHEN-10")
async def test_namespaces_take_turns_among_credentials_without_a_living_token(world: World, queue: WorkQueue) -> None:
    many, few = keys("many", 50), keys("few", 3)
    world.order = dict.fromkeys(many + few, Order.ENDED)
    for key in many + few:
        queue.add(key)
    taken = await take(queue, 53)
    assert [key for key in taken if key in few] == few
    assert set(few) < set(taken[:7])


@pytest.mark.rule("WHEN-10")
async def test_a_namespace_that_adds_its_keys_one_by_one_gets_no_more_turns(world: World, queue: WorkQueue) -> None:
    many, few = keys("many", 50), keys("few", 3)
    world.order = dict.fromkeys(many + few, Order.ENDED)
    for key in few:
        queue.add(key)
    taken = []
    for key in many:
        queue.add(key)
        taken += await take(queue, 1)
    assert set(few) < set(taken[:7])


@pytest.mark.rule("WHEN-10")
async def test_living_and_ended_tokens_take_turns(world: World, queue: WorkQueue) -> None:
    living, ended = keys("living", 20), keys("ended", 200)
    world.order = dict.fromkeys(ended, Order.ENDED)
    world.urgency = {key: -number for number, key in enumerate(living)}
    for key in ended + living:
        queue.add(key)
    taken = await take(queue, 220)
    assert [key for key in taken[:40] if key in living] == living[::-1]


@pytest.mark.rule("WHEN-11")
async def test_a_status_comes_last_until_it_has_waited_for_a_second(world: World, queue: WorkQueue) -> None:
    statuses, others = keys("statuses", 20), keys("others", 100)
    world.order = {**dict.fromkeys(statuses, Order.STATUS), **dict.fromkeys(others[::2], Order.ENDED)}
    for key in statuses + others:
        queue.add(key)
    assert set(await take(queue, 40)) < set(others)
    world.time += 1.0
    assert set(statuses) < set(await take(queue, 60))


@pytest.mark.rule("WHEN-11")
async def test_namespaces_take_turns_among_statuses(world: World, queue: WorkQueue) -> None:
    many, few = keys("many", 50), keys("few", 3)
    world.order = dict.fromkeys(many + few, Order.STATUS)
    for key in many + few:
        queue.add(key)
    assert set(few) < set(await take(queue, 7))


@pytest.mark.rule("WHEN-11")
async def test_a_key_that_comes_again_only_for_its_status_waits_behind_others(world: World, queue: WorkQueue) -> None:
    world.urgency = {A: 1.0, B: 2.0}
    queue.add(A)
    await queue.get()
    queue.add(A, status_only=True)
    queue.add(B)
    queue.done(A)
    assert await take(queue, 2) == [B, A]


async def test_a_key_that_comes_again_for_more_than_its_status_does_not(world: World, queue: WorkQueue) -> None:
    world.urgency = {A: 1.0, B: 2.0}
    queue.add(A)
    await queue.get()
    for status_only in (True, False, True):
        queue.add(A, status_only=status_only)
    queue.add(B)
    queue.done(A)
    assert await take(queue, 2) == [A, B]


@pytest.mark.rule("WHEN-11")
async def test_a_key_that_waits_for_its_status_comes_in_time_for_more(world: World, queue: WorkQueue) -> None:
    statuses = keys("statuses", 20)
    for key in statuses:
        queue.add(key, status_only=True)
    queue.add(A, status_only=True)
    world.urgency = {A: 1.0, B: 2.0}
    queue.add(B)
    queue.add(A)
    assert await take(queue, 2) == [A, B]
    assert sorted(await take(queue, 20)) == statuses
    assert len(queue) == 0


@pytest.mark.rule("WHEN-10")
async def test_turns_that_are_served_in_one_lane_move_nobody_in_another(world: World, queue: WorkQueue) -> None:
    busy, many, slow, victim = keys("busy", 20), keys("many", 50), keys("slow", 60), NamespacedName("victim", "a")
    world.order = dict.fromkeys([*busy, *many, *slow, victim], Order.ENDED)
    queue.mark("slow", slow=True)
    for key in busy:
        queue.add(key)
        await queue.get()
    for key in many:
        queue.add(key)
    for key in slow:
        queue.add(key)
        assert await take(queue, 1) == [key]
    queue.add(victim)
    for key in busy:
        queue.done(key)
    assert victim in await take(queue, 3)


async def test_turns_of_namespaces_that_no_longer_wait_are_forgotten(world: World, queue: WorkQueue) -> None:
    for number in range(1000):
        key = NamespacedName(f"n{number}", "a")
        world.order[key] = Order.ENDED
        queue.add(key)
        await take(queue, 1)
    assert len(queue._turns) < 100  # noqa: SLF001 -- memory that others could fill


class QueueMachine(RuleBasedStateMachine):
    """Any order of adds, takes, ends and holds, against the plainest model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.queue = self.world.queue()
        self.waiting: dict[NamespacedName, float] = {}
        self.active: set[NamespacedName] = set()
        self.again: set[NamespacedName] = set()
        self.held: set[str] = set()

    def run(self, awaitable: Awaitable[NamespacedName]) -> NamespacedName | None:
        async def promptly() -> NamespacedName | None:
            task = asyncio.ensure_future(awaitable)
            await settle()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return None
            return task.result()

        return self.loop.run_until_complete(promptly())

    @rule(key=st.sampled_from(KEYS), urgency=st.integers(0, 3))
    def add(self, key: NamespacedName, urgency: float) -> None:
        self.world.urgency[key] = urgency
        self.queue.add(key)
        if key in self.active:
            self.again.add(key)
        else:
            self.waiting.setdefault(key, urgency)

    @rule()
    def get(self) -> None:
        key = self.run(self.queue.get())
        if self.held or not self.waiting:
            assert key is None
            return
        assert key is not None
        assert self.waiting[key] == min(self.waiting.values())
        del self.waiting[key]
        self.active.add(key)

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.active)))
        self.active.discard(key)
        self.queue.done(key)
        if key in self.again:
            self.again.discard(key)
            self.waiting[key] = self.world.urgency[key]

    @rule(why=st.sampled_from(["a", "b"]))
    def hold(self, why: str) -> None:
        self.held.add(why)
        self.queue.hold(why)

    @rule(why=st.sampled_from(["a", "b"]))
    def release(self, why: str) -> None:
        self.held.discard(why)
        self.queue.release(why)

    @invariant()
    def counts_agree(self) -> None:
        assert (len(self.queue), self.queue.active) == (len(self.waiting), len(self.active))
        assert self.queue.holds == frozenset(self.held)

    def teardown(self) -> None:
        self.loop.close()


QueueMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestQueueMachine = QueueMachine.TestCase
