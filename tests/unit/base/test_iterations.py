"""How long an event loop was held by what it did is told, and nothing else is."""

import asyncio
import selectors
import socket

import pytest

from tuinly_operator.base.iterations import LONG, Iterations


class Cpu:
    """Time that passes when it is spent."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def told(*iterations: tuple[float, ...]) -> list[float]:
    """What is told where each iteration has callbacks that take as many seconds."""
    cpu, seen = Cpu(), list[float]()
    waits = Iterations(cpu, Cpu())
    waits.seen = lambda seconds: seen.append(round(seconds, 6))

    def spend(seconds: float) -> None:
        cpu.now += seconds

    async def live() -> None:
        loop = asyncio.get_running_loop()
        for callbacks in iterations:
            for seconds in callbacks:
                loop.call_soon(spend, seconds)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=waits.loop) as runner:
        runner.run(live())
    return seen


@pytest.mark.parametrize(
    ("iterations", "seen"),
    [
        (((0.5,),), [0.5]),
        (((0.25, 0.5),), [0.75]),  # what is ready together, is one iteration
        (((0.25,), (0.5,)), [0.25, 0.5]),
        (((LONG,),), [LONG]),
        (((LONG * 0.99,),), []),
        (((),), []),
    ],
)
def test_long_iterations_are_told_of_with_all_that_was_done_in_them(
    iterations: tuple[tuple[float, ...]], seen: list[float]
) -> None:
    assert told(*iterations) == seen


def test_what_passes_while_the_loop_waits_is_no_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, seen = Cpu(), list[float]()

    def wait(*_: object) -> list[object]:
        cpu.now += 1.0
        return []

    monkeypatch.setattr(selectors.DefaultSelector, "select", wait)
    with Iterations(cpu, Cpu()) as waits:
        waits.seen = seen.append
        waits.select(0)
        cpu.now += 0.25
        waits.select(0)
        waits.select(0)
    assert seen == [0.25]


def test_what_comes_right_after_a_wait_is_of_the_same_iteration() -> None:
    """Also where the loop is woken by one of two, and the other comes while it pauses."""
    pauses, (near, far), (other, its_far) = list[float](), socket.socketpair(), socket.socketpair()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        its_far.send(b"2")

    with near, far, other, its_far, Iterations(Cpu(), Cpu(), pause, 0.003) as waits:
        for each in (near, other):
            waits.register(each, selectors.EVENT_READ)
        far.send(b"1")
        assert {key.fileobj for key, _ in waits.select(30)} == {near, other}
    assert pauses == [0.003]


@pytest.mark.parametrize(
    ("coalesce", "timeout", "ready"),
    [(0.003, 0, True), (0.003, 0.001, False), (0.0, 30, True)],
    ids=["it has more to do", "nothing came", "it need not"],
)
def test_a_loop_pauses_only_after_a_wait_that_brought_something(
    coalesce: float, timeout: float, *, ready: bool
) -> None:
    pauses, (near, far) = list[float](), socket.socketpair()
    with near, far, Iterations(Cpu(), Cpu(), pauses.append, coalesce) as waits:
        waits.register(near, selectors.EVENT_READ)
        if ready:
            far.send(b"1")
        assert bool(waits.select(timeout)) is ready
    assert pauses == []


@pytest.mark.parametrize(
    ("work", "pauses"), [((0.24, 0.24), 2), ((0.24, 0.26), 1), ((0.26, 0.24), 1), ((0.26, 0.26), 0), ((0.0, 0.0), 2)]
)
def test_a_loop_pauses_only_if_it_was_idle_for_most_of_the_time_since_it_was_woken(
    work: tuple[float, ...], pauses: int
) -> None:
    """What it is woken for stays ready here, so that each wait ends at once. A second passes between two of them."""
    cpu, clock, made, (near, far) = Cpu(), Cpu(), list[float](), socket.socketpair()
    with near, far, Iterations(cpu, clock, made.append, 0.003) as waits:
        waits.register(near, selectors.EVENT_READ)
        far.send(b"1")
        for seconds in work:
            cpu.now += seconds
            clock.now += 1.0
            waits.select(30)
    assert made == [0.003] * pauses


def test_a_wait_without_an_event_is_no_waking() -> None:
    """What was done before it counts with what was done after: all of it since the loop was woken."""
    cpu, clock, made, (near, far) = Cpu(), Cpu(), list[float](), socket.socketpair()
    with near, far, Iterations(cpu, clock, made.append, 0.003) as waits:
        waits.register(near, selectors.EVENT_READ)
        cpu.now, clock.now = 0.3, 0.5
        waits.select(0.001)
        clock.now = 1.0
        far.send(b"1")
        waits.select(30)
    assert made == []
