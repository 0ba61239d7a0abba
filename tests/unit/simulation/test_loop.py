"""The simulation's event loop: virtual time, an order that the seed picks, stops and crashes."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from random import Random
from typing import Any

import pytest

from tests.simulation.loop import PROCESS, Process, SimulatedLoop, StepsExhaustedError, make_loop


def loop_of(seed: int, **options: int) -> SimulatedLoop:
    return make_loop(Random(seed), **options)  # noqa: S311 -- the same each time


def begin(loop: SimulatedLoop, work: Coroutine[Any, Any, Any], process: Process | None = None) -> asyncio.Task[Any]:
    context = Context()
    context.run(PROCESS.set, process)
    return loop.create_task(work, context=context)


def test_time_jumps_and_nothing_waits_for_it() -> None:
    loop, seen = loop_of(1), list[float]()

    async def sleep() -> None:
        for seconds in (0.5, 3600.0, 86400.0):
            await asyncio.sleep(seconds)
            seen.append(loop.time())

    begin(loop, sleep())
    loop.run_until(3600.6)
    assert seen == pytest.approx([0.5, 3600.5], abs=0.01)
    loop.run_until(1e6)
    assert seen == pytest.approx([0.5, 3600.5, 90000.5], abs=0.01)
    assert loop.time() == 1e6


def order(seed: int) -> list[int]:
    loop, seen = loop_of(seed), list[int]()

    async def tell(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(number)

    for number in range(5):
        begin(loop, tell(number))
    loop.run_until(1.0)
    return seen


def test_the_seed_picks_the_order_and_the_same_seed_the_same() -> None:
    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(20)}) > 10
    assert sorted(order(1)) == sorted([*range(5)] * 3)


def test_what_asyncio_builds_on_a_loop_works() -> None:
    loop, seen = loop_of(1), list[object]()

    async def work() -> None:
        try:
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.append(loop.time())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(n, n)) for n in range(3)]
        seen.extend(task.result() for task in tasks)
        queue = asyncio.Queue[int]()
        loop.call_later(1, queue.put_nowait, 7)
        seen.append(await queue.get())

    task = begin(loop, work())
    loop.run_until(100.0)
    assert task.done()
    assert seen == pytest.approx([5.0, 0, 1, 2, 7], abs=0.01)


def test_a_stopped_process_goes_on_with_what_became_due_meanwhile_and_others_do_not_wait() -> None:
    loop, seen = loop_of(1), list[tuple[str, float]]()
    stopped, other = Process("stopped"), Process("other")

    async def work(name: str) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append((name, round(loop.time(), 2)))

    begin(loop, work("stopped"), stopped)
    begin(loop, work("other"), other)
    loop.run_until(1.5)
    stopped.stopped = True
    loop.run_until(10.0)
    assert sorted(seen) == [("other", 1.0), ("other", 2.0), ("other", 3.0), ("stopped", 1.0)]
    loop.resume(stopped)
    loop.run_until(20.0)
    assert seen[-2:] == [("stopped", 10.0), ("stopped", 11.0)]


def test_nothing_of_a_crashed_process_runs_again_no_finally_either_and_what_it_sent_arrives() -> None:
    loop, seen = loop_of(1), list[str]()
    process = Process("crashed")

    async def work() -> None:
        try:
            loop.call_later(5, seen.append, "arrived", context=Context())
            loop.call_later(5, seen.append, "its own timer")
            await asyncio.sleep(5)
        finally:
            seen.append("finally")

    async def others() -> None:
        task = asyncio.create_task(work())
        await task

    begin(loop, others(), process)
    loop.run_until(1.0)
    loop.crash(process)
    loop.run_until(100.0)
    assert seen == ["arrived"]
    loop.end()


def test_a_generator_that_is_left_is_closed() -> None:
    loop, seen = loop_of(1), list[str]()

    async def numbers() -> Any:  # noqa: ANN401 -- a generator
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            seen.append("closed")

    async def work() -> None:
        async for _ in numbers():
            break

    begin(loop, work())
    loop.run_until(10.0)
    assert seen == ["closed"]


def test_what_goes_round_and_round_is_found() -> None:
    loop = loop_of(1, most_steps=100)

    async def spin() -> None:
        while True:  # noqa: ASYNC110 -- the mistake that is to be found
            await asyncio.sleep(0)

    begin(loop, spin())
    with pytest.raises(StepsExhaustedError):
        loop.run_until(1.0)
    loop.end()


def test_there_are_no_threads() -> None:
    loop = loop_of(1)

    async def work() -> None:
        await asyncio.to_thread(print)

    task = begin(loop, work())
    loop.run_until(1.0)
    assert isinstance(task.exception(), AssertionError)
