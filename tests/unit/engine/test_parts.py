"""Parts that end: started again, told with their cause, and missed where they do not come back."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tuinly_operator.base.chance import Chance
from tuinly_operator.engine import parts as parts_module
from tuinly_operator.engine.parts import PATIENCE, STEADY, Part, Parts


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Failing:
    """What a part runs: it ends of each of these, one after the other, and then runs on."""

    def __init__(self, *causes: BaseException | None) -> None:
        self.causes = list(causes)
        self.runs = 0
        self.end = asyncio.Event()

    async def __call__(self) -> None:
        self.runs += 1
        if not self.causes:
            await self.end.wait()
        elif (cause := self.causes.pop(0)) is not None:
            raise cause


MAX_BACKOFF = parts_module._MAX_BACKOFF  # noqa: SLF001 -- the tests but one do not wait


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "_MAX_BACKOFF", 0.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def parts(clock: Clock) -> Parts:
    return Parts(clock, Chance(1))


@asynccontextmanager
async def kept(part: Part) -> AsyncIterator[None]:
    task = asyncio.create_task(part.keep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0)


class RefusedError(Exception):
    status = 403


@pytest.mark.rule("OUT-6")
@pytest.mark.parametrize(
    ("cause", "told", "traced"),
    [
        (ZeroDivisionError("of a canary"), "ZeroDivisionError", True),
        (RefusedError(), "RefusedError 403", False),
        (asyncio.CancelledError(), "CancelledError", True),
        (None, "it returned", False),
    ],
    ids=["a defect", "an answer", "cancelled by nobody", "nothing"],
)
async def test_a_part_that_ends_is_started_again_and_its_cause_told_once(
    parts: Parts, caplog: pytest.LogCaptureFixture, cause: BaseException | None, told: str, *, traced: bool
) -> None:
    """With a traceback, unless a server's answer says it all."""
    run = Failing(cause, cause, cause)
    async with kept(parts.add("the census", run)):
        await until(lambda: run.runs == 4)
    [line] = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert (line.levelname, line.getMessage()) == ("ERROR", "the census ended, starting it again")
    assert (line.name, vars(line)["fields"]) == ("tuinly_operator.engine.parts", {"cause": told})
    assert (line.exc_info[1] if line.exc_info else None) is (cause if traced else None)


@pytest.mark.rule("OUT-6")
async def test_a_part_that_has_ended_thousands_of_times_is_started_again(parts: Parts) -> None:
    """As in an outage of hours: the wait before it has a bound, and so has the arithmetic."""
    run = Failing(*(ValueError() for _ in range(1100)))  # one that is raised again has an ever longer traceback
    async with kept(parts.add("the census", run)):
        await until(lambda: run.runs == 1101)


class Shortest(Chance):
    """Draws what is least, and notes what would be most."""

    def __init__(self) -> None:
        super().__init__(1)
        self.most: list[float] = []

    def uniform(self, low: float, high: float) -> float:
        self.most.append(high)
        return low


async def test_it_waits_the_longer_the_more_often_it_has_ended_and_anew_once_it_was_steady(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "_MAX_BACKOFF", MAX_BACKOFF)
    drawn, lasts = Shortest(), [0.0] * 7 + [STEADY] + [0.0] * 2

    async def run() -> None:
        clock.seconds += lasts[len(drawn.most)]
        await asyncio.sleep(0)

    async with kept(Parts(clock, drawn).add("the census", run)):
        await until(lambda: len(drawn.most) == len(lasts) - 1)
    assert drawn.most[:9] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 0.2, 0.4])


@pytest.mark.rule("OUT-6")
async def test_another_cause_is_told_too(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    run = Failing(ValueError(), ValueError(), KeyError(), ValueError())
    async with kept(parts.add("the census", run)):
        await until(lambda: run.runs == 5)
    causes = [vars(record)["fields"]["cause"] for record in caplog.records if record.levelno >= logging.INFO]
    assert causes == ["ValueError", "KeyError", "ValueError"]


async def test_who_wants_its_end_gets_it(parts: Parts) -> None:
    run = Failing()
    async with kept(parts.add("the census", run)):
        await until(lambda: run.runs == 1)
    assert run.runs == 1


@pytest.mark.rule("REPL-6")
async def test_one_that_runs_is_not_missed_however_long_it_waits_for_something(parts: Parts, clock: Clock) -> None:
    run = Failing()
    async with kept(parts.add("the census", run)):
        await until(lambda: run.runs == 1)
        clock.seconds += 1e6
        assert parts.lost() == []
        assert not parts.down("the census")


async def test_one_that_came_back_is_not_missed(parts: Parts, clock: Clock) -> None:
    run = Failing(*[ValueError()] * 3)
    async with kept(parts.add("the census", run)), kept(parts.add("the timers", Failing())):
        await until(lambda: run.runs == 4)
        assert parts.down("the census")
        clock.seconds += STEADY
        assert not parts.down("the census")
        clock.seconds += 1e6
        assert parts.lost() == []


async def steadily_failing(clock: Clock, seconds: float) -> None:
    """Fail after so many seconds, again and again."""
    await asyncio.sleep(0)
    clock.seconds += seconds
    raise ValueError


@pytest.mark.rule("REPL-6")
@pytest.mark.parametrize(("seconds", "lost"), [(0.5, ["the census"]), (STEADY - 0.1, ["the census"]), (STEADY, [])])
async def test_one_is_back_once_it_has_run_for_long_enough(
    parts: Parts, clock: Clock, seconds: float, lost: list[str]
) -> None:
    async with kept(parts.add("the census", lambda: steadily_failing(clock, seconds))):
        begin = clock.seconds
        await until(lambda: clock.seconds > begin + PATIENCE + 2 * STEADY)
        assert parts.lost() == lost


@pytest.mark.rule("REPL-6")
@pytest.mark.parametrize(("answers_for", "lost"), [(None, []), (PATIENCE - 1, []), (PATIENCE, ["the census"])])
async def test_nobody_is_missed_while_the_api_server_does_not_answer(
    parts: Parts, clock: Clock, answers_for: float | None, lost: list[str]
) -> None:
    """Nor right after: what ended of the outage needs its time to come back."""
    async with kept(parts.add("the census", lambda: steadily_failing(clock, 0.0))):
        parts.note_api(answers=False)
        await until(lambda: parts.down("the census"))
        clock.seconds += 1000
        assert parts.lost() == []
        if answers_for is not None:
            parts.note_api(answers=True)
            clock.seconds += answers_for
        assert parts.lost() == lost


async def test_one_of_several_of_a_name_is_enough(parts: Parts, clock: Clock) -> None:
    bad = parts.add("a worker", lambda: steadily_failing(clock, 0.0))
    async with kept(parts.add("a worker", Failing())), kept(bad):
        await until(lambda: parts.down("a worker"))
        clock.seconds += PATIENCE
        assert parts.lost() == ["a worker"]
