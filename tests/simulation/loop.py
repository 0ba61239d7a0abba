"""An event loop of our own: virtual time, an order that a seed picks, and processes that can be stopped and crashed.

Every handle that asyncio makes carries a context, and the context names the process that it belongs to. So one loop
runs several processes, and knows of each step whose it is: a stopped process's handles wait until it goes on, a crashed
one's never run again.
"""

import asyncio
import heapq
import sys
from asyncio import events
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from itertools import count
from random import Random
from typing import Any, Final, Never

_STEP_SECONDS: Final = 1e-5  # that a step takes: no clock stands still between two looks at it


class Process:
    """What runs together, and is stopped and crashed together."""

    def __init__(self, name: str) -> None:
        """It runs."""
        self.name = name
        self.stopped = False
        self.crashed = False
        self.held: list[events.Handle] = []  # what would run, were it not stopped
        self.remains: list[object] = []  # of a crash: kept, so that no `finally` runs

    def __repr__(self) -> str:
        return self.name


PROCESS: Final[ContextVar[Process | None]] = ContextVar("process", default=None)  # None: the world around them


class StepsExhaustedError(Exception):
    """Something goes round and round."""


class _Task(asyncio.Task[Any]):
    """A task that is told apart by its number: sets of tasks have the same order in each process."""

    def __init__(self, number: int, coro: Any, **options: Any) -> None:  # noqa: ANN401 -- asyncio's
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


def make_loop(chance: Random, *, most_steps: int = 20_000) -> "SimulatedLoop":
    """A loop that has only what asyncio needs of one: no sockets, signals, files or other processes."""
    return SimulatedLoop(chance, most_steps)  # type: ignore[abstract]


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs handles one at a time; when none is ready, time jumps to the next timer."""

    def __init__(self, chance: Random, most_steps: int) -> None:
        """`chance` picks which ready handle is next. `most_steps` is how many a second may have."""
        self._draw = chance.random
        self._most_steps = most_steps
        self._now = 0.0
        self._ready: list[events.Handle] = []
        self._timers: list[tuple[float, int, events.TimerHandle]] = []
        self._numbers = count()
        self.steps = 0
        self.over = False
        self.failures: list[dict[str, Any]] = []  # what asyncio found wrong

    # --- Running ------------------------------------------------------------------------------------------------------

    def run_until(self, end: float) -> None:
        """Run everything that is due until `end`, in seconds of this loop's time. Raises StepsExhaustedError."""
        before = events._get_running_loop()  # noqa: SLF001 -- what asyncio's own loops do
        hooks = sys.get_asyncgen_hooks()
        events._set_running_loop(self)  # noqa: SLF001 -- the same
        sys.set_asyncgen_hooks(finalizer=self._close_generator)
        try:
            self._run_until(end)
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(before)  # noqa: SLF001 -- the same

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Let an asynchronous generator that nobody iterates any more clean up, as asyncio's own loops do."""
        if not self.over:
            self.call_soon(self.create_task, generator.aclose())

    def _run_until(self, end: float) -> None:
        ready, timers, draw = self._ready, self._timers, self._draw
        left, second = self._most_steps, self._now
        while not self.over:
            if not ready:
                while timers and timers[0][2].cancelled():
                    heapq.heappop(timers)
                if not timers or timers[0][0] > end:
                    self._now = max(self._now, end)
                    return
                self._now = max(self._now, timers[0][0])
            while timers and timers[0][0] <= self._now:
                ready.append(heapq.heappop(timers)[2])
            place = int(draw() * len(ready))
            handle, ready[place] = ready[place], ready[-1]
            ready.pop()
            if handle.cancelled():
                continue
            process = handle._context.get(PROCESS)  # type: ignore[attr-defined]  # noqa: SLF001 -- what it belongs to
            if process is not None and (process.crashed or process.stopped):
                (process.remains if process.crashed else process.held).append(handle)
                continue
            self.steps += 1
            self._now += _STEP_SECONDS
            left -= 1
            if self._now - second >= 1.0:
                left, second = self._most_steps, self._now
            elif left < 0:
                raise StepsExhaustedError(f"{self._most_steps} steps within a second, the last of {process}: {handle}")
            handle._run()  # noqa: SLF001

    def resume(self, process: Process) -> None:
        """Let a stopped process go on, with all that has become ready meanwhile."""
        process.stopped = False
        held, process.held = process.held, []
        self._ready += held

    def crash(self, process: Process) -> None:
        """End a process between two steps: it never runs again, and nothing of it is cleaned up."""
        process.crashed = True
        process.remains += [*process.held, *asyncio.all_tasks(self)]
        process.held = []

    def end(self) -> None:
        """Run nothing any more, and let all tasks go in silence."""
        self.over = True
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 -- they end with the world
        self._ready.clear()
        self._timers.clear()

    # --- What asyncio asks of a loop ----------------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds since the loop began."""
        return self._now

    def call_soon(
        self,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> events.Handle:
        """Have something called in one of the next steps."""
        handle = events.Handle(callback, args, self, copy_context() if context is None else context)
        if not self.over:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> events.Handle:
        """The same: there are no threads."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> events.TimerHandle:
        """Have something called after `delay` seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> events.TimerHandle:
        """Have something called at a time of this loop."""
        timer = events.TimerHandle(when, callback, args, self, copy_context() if context is None else context)
        if not self.over:
            heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """Leave it: it is dropped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        """A task of this loop, of the process that the context names."""
        return _Task(next(self._numbers), coro, loop=self, name=name, context=context)

    def run_in_executor(self, executor: object, func: Callable[..., object], *args: object) -> Never:
        """There are no threads."""
        raise AssertionError(f"a thread is asked for, to run {func} with {args}, by {executor}")

    def get_debug(self) -> bool:
        """Whether asyncio looks out for more."""
        return False

    def is_running(self) -> bool:
        """Whether it runs."""
        return not self.over

    def is_closed(self) -> bool:
        """Whether nothing will run any more. Said of no loop here: what is left of a history asks in silence."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what asyncio found wrong, such as an exception that nobody has looked at."""
        if not self.over:
            self.failures.append(context)
