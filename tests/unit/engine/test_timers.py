"""Timers: each deadline is told once, by whichever clock reaches it first; replaced and cancelled ones are not."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.facts import ISSUED as NOW
from tests.unit.virtual import VirtualClock, live
from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.engine.timers import Timers

A, B, C = (NamespacedName("shop", name) for name in "abc")
INFINITY = float("inf")


class FakeClock:
    """Time that stands still until it is told to pass."""

    def __init__(self) -> None:
        self.moment = NOW

    def now(self) -> Moment:
        return self.moment

    def after(self, wall: float, boot: float | None = None) -> Moment:
        """Let time pass, and jump where the clocks differ; return what the clocks then say."""
        self.moment = Moment(self.moment.wall + wall, self.moment.boot + (wall if boot is None else boot))
        return self.moment


@pytest.fixture
def told() -> list[NamespacedName]:
    return []


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def timers(clock: FakeClock, told: list[NamespacedName]) -> Timers:
    return Timers(clock, told.append)


def in_seconds(seconds: float) -> Deadline:
    return Deadline.after(seconds, NOW)


@pytest.mark.rule("CLOCK-1")
@pytest.mark.parametrize(
    ("jump", "due"),
    [
        ((59, 59), False),
        ((60, 60), True),
        ((-3600 + 60, 60), True),  # the wall clock was set back an hour
        ((-3600 + 59, 59), False),
        ((3600 + 1, 1), True),  # it was set forward an hour: rather too early than too late
        ((8 * 3600, 8 * 3600), True),  # the machine slept; both clocks went on
        ((1, 8 * 3600), True),
    ],
)
def test_a_deadline_is_told_by_whichever_clock_gets_there_first(
    timers: Timers, clock: FakeClock, told: list[NamespacedName], jump: tuple[float, float], *, due: bool
) -> None:
    timers.set(A, in_seconds(60))
    timers.fire(clock.after(*jump))
    assert told == ([A] if due else [])
    assert timers.get(A) == (None if due else in_seconds(60))


def test_a_deadline_is_told_once(timers: Timers, clock: FakeClock, told: list[NamespacedName]) -> None:
    timers.set(A, in_seconds(60))
    for _ in range(3):
        timers.fire(clock.after(60))
    assert told == [A]
    assert len(timers) == 0


def test_each_that_is_due_is_told_and_the_next_is_awaited(
    timers: Timers, clock: FakeClock, told: list[NamespacedName]
) -> None:
    for key, seconds in ((A, 60), (B, 30), (C, 90)):
        timers.set(key, in_seconds(seconds))
    assert timers.fire(clock.after(60)) == 30
    assert sorted(told) == [A, B]
    assert timers.fire(clock.after(30)) == INFINITY


def test_the_next_is_the_one_that_either_clock_reaches_first(timers: Timers, clock: FakeClock) -> None:
    timers.set(A, Deadline(NOW.wall + 60, NOW.boot + 10))
    timers.set(B, Deadline(NOW.wall + 20, NOW.boot + 40))
    assert timers.fire(clock.now()) == 10


@pytest.mark.parametrize(("first", "second"), [(60, 30), (30, 60)], ids=["earlier", "later"])
def test_a_deadline_replaces_the_one_before(
    timers: Timers, clock: FakeClock, told: list[NamespacedName], first: float, second: float
) -> None:
    timers.set(A, in_seconds(first))
    timers.set(A, in_seconds(second))
    assert len(timers) == 1
    assert timers.fire(clock.after(second - 1)) == 1
    assert told == []
    timers.fire(clock.after(1))
    assert told == [A]


def test_a_deadline_that_differs_by_one_clock_replaces_too(
    timers: Timers, clock: FakeClock, told: list[NamespacedName]
) -> None:
    timers.set(A, Deadline(NOW.wall + 60, NOW.boot + 60))
    timers.set(A, Deadline(NOW.wall + 60, NOW.boot + 90))
    timers.fire(clock.after(0, 89))
    assert told == []
    timers.fire(clock.after(0, 1))
    timers.fire(clock.after(60))
    assert told == [A]


def test_a_cancelled_deadline_is_not_told(timers: Timers, clock: FakeClock, told: list[NamespacedName]) -> None:
    timers.set(A, in_seconds(60))
    timers.cancel(A)
    timers.cancel(B)
    assert timers.get(A) is None
    assert timers.fire(clock.after(60)) == INFINITY
    assert told == []


def test_a_told_deadline_can_be_set_again_to_the_same_time(
    timers: Timers, clock: FakeClock, told: list[NamespacedName]
) -> None:
    timers.set(A, in_seconds(60))
    timers.fire(clock.after(60))
    timers.set(A, in_seconds(60))
    timers.fire(clock.now())
    timers.fire(clock.now())
    assert told == [A, A]


# --- Slack ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_bursts(clock: FakeClock, told: list[NamespacedName]) -> Timers:
    return Timers(clock, told.append, burst=2)


@pytest.mark.rule("WHEN-5")
@pytest.mark.parametrize(("by_wall", "by_boot"), [(1, 0), (0, 1)], ids=["wall", "boot"])
def test_what_may_be_early_comes_with_what_is_due_and_not_by_itself(
    in_bursts: Timers, clock: FakeClock, told: list[NamespacedName], by_wall: int, by_boot: int
) -> None:
    in_bursts.set(A, in_seconds(60), slack=10)
    in_bursts.set(B, in_seconds(65), slack=10)
    assert in_bursts.fire(clock.after(59 * by_wall, 59 * by_boot)) == 1
    assert told == []
    in_bursts.fire(clock.after(by_wall, by_boot))
    assert told == [A, B]


def test_nobody_comes_earlier_than_by_its_slack(
    in_bursts: Timers, clock: FakeClock, told: list[NamespacedName]
) -> None:
    in_bursts.set(A, in_seconds(60))
    in_bursts.set(B, in_seconds(65), slack=4.9)
    assert in_bursts.fire(clock.after(60)) == 5
    assert told == [A]


def test_who_has_no_slack_does_not_come_early_at_all(
    in_bursts: Timers, clock: FakeClock, told: list[NamespacedName]
) -> None:
    in_bursts.set(A, in_seconds(60))
    in_bursts.set(B, in_seconds(60.5))
    assert in_bursts.fire(clock.after(60)) == 0.5
    assert told == [A]


@pytest.mark.rule("WHEN-5")
def test_a_burst_is_bounded_but_for_what_is_due(
    in_bursts: Timers, clock: FakeClock, told: list[NamespacedName]
) -> None:
    for key, seconds in ((A, 58), (B, 59), (C, 61)):
        in_bursts.set(key, in_seconds(seconds), slack=10)
    in_bursts.fire(clock.after(58))
    assert told == [A, B]
    for key in (A, B):
        in_bursts.set(key, in_seconds(60))
    assert in_bursts.fire(clock.after(2)) == 1
    assert told == [A, B] * 2
    in_bursts.fire(clock.after(1))
    assert told == [A, B, A, B, C]


def test_slack_goes_with_the_deadline_it_was_given_with(
    in_bursts: Timers, clock: FakeClock, told: list[NamespacedName]
) -> None:
    in_bursts.set(A, in_seconds(60))
    in_bursts.set(B, in_seconds(65), slack=10)
    in_bursts.set(B, in_seconds(65))
    in_bursts.set(C, in_seconds(65), slack=10)
    in_bursts.cancel(C)
    in_bursts.set(C, in_seconds(65))
    in_bursts.fire(clock.after(60))
    assert told == [A]


@pytest.mark.parametrize(("by_wall", "by_boot"), [(1, 0), (0, 1)], ids=["wall", "boot"])
def test_memory_follows_the_number_of_credentials(
    timers: Timers, clock: FakeClock, told: list[NamespacedName], by_wall: int, by_boot: int
) -> None:
    """A deadline moved ten thousand times leaves no such heap behind, and none that is still meant is lost."""
    moved, others = (
        NamespacedName("shop", "moved often"),
        [NamespacedName("shop", f"set once {number}") for number in range(40)],
    )
    before = sys.getrefcount(moved)
    for number, key in enumerate(others):
        timers.set(key, in_seconds(5000 - number))
    for seconds in range(10_000, 0, -1):
        timers.set(moved, in_seconds(seconds))
    assert sys.getrefcount(moved) - before < 500
    timers.fire(clock.after(by_wall, by_boot))
    assert told == [moved]
    passed = 1
    for seconds in range(4961, 5001):
        told.clear()
        timers.fire(clock.after((seconds - passed) * by_wall, (seconds - passed) * by_boot))
        assert told == [others[5000 - seconds]]
        passed = seconds


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from((A, B, C)), st.integers(0, 50), st.integers(0, 50)),
        st.tuples(st.just("cancel"), st.sampled_from((A, B, C)), st.just(0), st.just(0)),
        st.tuples(st.just("pass"), st.just(A), st.integers(-20, 20), st.integers(0, 20)),
    ),
    max_size=40,
)


@pytest.mark.rule("CLOCK-1")
@given(CHANGES)
def test_what_is_told_is_what_is_due(changes: list[tuple[str, NamespacedName, int, int]]) -> None:
    """Whatever is set, replaced and cancelled in whatever order, while the wall clock jumps to and fro."""
    clock, told = FakeClock(), list[NamespacedName]()
    timers, meant = Timers(clock, told.append), dict[NamespacedName, Deadline]()
    for what, key, wall, boot in changes:
        if what == "set":
            meant[key] = Deadline(clock.moment.wall + wall, clock.moment.boot + boot)
            timers.set(key, meant[key])
        elif what == "cancel":
            meant.pop(key, None)
            timers.cancel(key)
        else:
            now = clock.after(wall, boot)
            told.clear()
            wait = timers.fire(now)
            due = {key for key, deadline in meant.items() if deadline.due(now)}
            assert sorted(told) == sorted(due)
            meant = {key: deadline for key, deadline in meant.items() if key not in due}
            assert wait <= min((deadline.remaining(now) for deadline in meant.values()), default=INFINITY)
        assert {key: timers.get(key) for key in (A, B, C)} == {key: meant.get(key) for key in (A, B, C)}


# --- The task that watches the clocks ---------------------------------------------------------------------------------


@asynccontextmanager
async def running(timers: Timers) -> AsyncIterator[None]:
    task = asyncio.create_task(timers.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def comes_true(told: list[NamespacedName], expected: list[NamespacedName]) -> None:
    async with asyncio.timeout(30):
        while told != expected:  # noqa: ASYNC110 -- what is awaited is a callback's doing
            await asyncio.sleep(0.005)


async def test_a_deadline_is_told_soon_after_a_clock_reaches_it(
    timers: Timers, clock: FakeClock, told: list[NamespacedName]
) -> None:
    """Also where that clock jumped: asyncio's own would not have noticed."""
    timers.set(A, in_seconds(3600))
    async with running(timers):
        await asyncio.sleep(0)
        assert told == []
        clock.after(3600, 0)
        await comes_true(told, [A])


async def test_a_deadline_set_later_but_due_earlier_is_told_first(
    timers: Timers, clock: FakeClock, told: list[NamespacedName]
) -> None:
    timers.set(A, in_seconds(3600))
    async with running(timers):
        await asyncio.sleep(0)
        clock.after(10)
        timers.set(B, in_seconds(10))
        await comes_true(told, [B])
        clock.after(3600)
        await comes_true(told, [B, A])


class JumpingClock(VirtualClock):
    """Follows the loop's time, and can be set."""

    jump = 0.0

    def now(self) -> Moment:
        moment = super().now()
        return Moment(moment.wall + self.jump, moment.boot)


def test_each_deadline_is_told_on_time_and_after_a_jump_of_a_clock_within_half_a_second() -> None:
    """Also one that is set while the task sleeps, however soon it is due."""
    clock, told = JumpingClock(), dict[NamespacedName, float]()

    async def story() -> None:
        def due(key: NamespacedName) -> None:
            told[key] = asyncio.get_running_loop().time()

        timers = Timers(clock, due)
        async with running(timers):
            timers.set(C, Deadline.after(3600, clock.now()))
            timers.set(A, Deadline.after(0.9, clock.now()))
            await asyncio.sleep(0.6)
            timers.set(B, Deadline.after(0.1, clock.now()))
            await asyncio.sleep(10.1)
            clock.jump = 3600
            await asyncio.sleep(0.51)

    live(story())
    assert told == {A: pytest.approx(0.9, abs=0.01), B: pytest.approx(0.7, abs=0.01), C: pytest.approx(11, abs=0.25)}


@pytest.mark.parametrize(("wall", "boot"), [(0.1, 100), (100, 0.1)], ids=["wall", "boot"])
def test_one_that_comes_sooner_by_one_clock_alone_is_told_on_time(wall: float, boot: float) -> None:
    told: list[float] = []

    async def story() -> None:
        timers = Timers(clock := VirtualClock(), lambda _: told.append(asyncio.get_running_loop().time()))
        async with running(timers):
            timers.set(A, Deadline.after(50, clock.now()))
            await asyncio.sleep(0.01)
            now = clock.now()
            timers.set(B, Deadline(now.wall + wall, now.boot + boot))
            await asyncio.sleep(1)

    live(story())
    assert told == [pytest.approx(0.11, abs=0.02)]


def test_unless_it_is_said_nobody_has_slack_and_nobody_comes_with_another() -> None:
    clock, told = FakeClock(), list[NamespacedName]()
    timers = Timers(clock, told.append, burst=5)
    timers.set(A, in_seconds(60))
    timers.set(B, in_seconds(60.1))
    timers.fire(clock.after(60))
    assert told == [A]
    alone = Timers(clock, told.append)
    alone.set(B, in_seconds(60), slack=10)
    alone.set(C, in_seconds(60.1), slack=10)
    alone.fire(clock.now())
    assert told == [A, B]


def test_of_slack_nothing_is_kept_but_of_those_that_have_any() -> None:
    timers = Timers(FakeClock(), lambda _: None)
    for key, slack in ((A, 0.0), (B, 10.0), (C, 10.0)):
        timers.set(key, in_seconds(60), slack)
    timers.cancel(B)
    assert timers._slacks == {C: 10.0}  # noqa: SLF001 -- a leak is seen nowhere else
