"""What all scenarios share: the run and what it leaves for the picture, and the states they bring the stand into."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.measures import Process, Times
from bench.report import Bars, Figure
from bench.stand import RESTS, Fleet, Stand, Window, lifetime_for
from tests.support.operator import OperatorProcess
from tuinly_operator.base.iterations import LONG as LONG_ITERATION
from tuinly_operator.edges.kube import CREDENTIALS_PAGE, PAGE

ROOT = Path(__file__).parents[1]
CPU_CREATE = "CPU per credential, create to ready (ms)"
CPU_REFRESH = "CPU per refresh, at the same number per second (ms)"
CPU_RESTART = "CPU of a restart (s)"
WALL_CREATE = "credentials applied at once, until ready (s)"
RSS = "memory with as many credentials, after their first tokens (MB)"

PACE = 50.0
"""Refreshes per second in a steady run, at most one per credential in `LEAST_INTERVAL`."""
LEAST_INTERVAL = 20.0
STEADY_SECONDS = 40.0
"""Seconds for which steady refreshes are measured."""
MANY = 20_000
"""Credentials beyond which an operator may take more memory and time, and fewer refreshes a second are steady ones."""

Figures = AsyncIterator[Figure]


@dataclass
class Run:
    """A run of the bench: the stand, how many credentials, and what one scenario leaves for the picture or another.

    CPU of the bare loop and of a refresh with few credentials is in milliseconds, memory without credentials in MB. The
    bare loop's refreshes come at the operator's pace, and flat out; `bare_servers` is what API server and etcd used for
    one at that pace, while an operator watched.
    """

    stand: Stand
    count: int
    bare_create: float | None = None
    bare_refresh: float | None = None
    bare_refresh_flat: float | None = None
    bare_servers: float | None = None
    empty_rss: float | None = None
    few_refresh: float | None = None
    bars: dict[str, dict[str, float]] = field(default_factory=dict)

    def bar(self, title: str, who: str, count: int, value: float) -> None:
        """Note a value for the picture: who has it, with how many credentials."""
        self.bars.setdefault(title, {})[f"{who}, {count:,}"] = value

    def picture(self) -> list[Bars]:
        """What was noted."""
        return [Bars(title, bars) for title, bars in self.bars.items()]


@dataclass(frozen=True)
class Start:
    """How a start went: seconds until ready and at rest, CPU seconds, megabytes at the peak and at rest, lists needed.

    All Secrets are listed once, and credentials twice: by kopf, and to check that kopf brings all.
    """

    seconds: float
    cpu: float
    peak: float
    rss: float
    lists: int
    window: Window


async def restarted(stand: Stand) -> Start:
    """Restart the operator, and check that it has scheduled all."""
    await asyncio.to_thread(stand.stop_operator)
    size = stand.fleet.size
    # And one credential, to see whether it may watch them at all, and one Secret, to see whether versions went back.
    lists = pages(await stand.api.count("/api/v1/secrets")) + 2 * pages(size, CREDENTIALS_PAGE) + 2
    before = await stand.snapshot()
    begun = time.monotonic()
    running = await stand.start_operator()
    operator = Process(running.pid)
    rested = await stand.at_rest(operator, patience(size))
    cpu, peak, rss = operator.cpu, operator.peak, operator.rss
    window = await stand.since(before)
    await asyncio.to_thread(assert_scheduled, [running], stand.fleet.size)
    return Start(rested - begun, cpu, peak, rss, lists, window)


def bound(count: int, usual: float, many: float | None = None) -> float | None:
    """What a figure must not exceed with so many credentials; None where nothing is asked of it with as many."""
    return many if count > MANY else usual


def most_memory(count: int) -> float | None:
    """Megabytes that the operator may hold at rest with so many credentials."""
    return bound(count, 140.0, 800.0)


def servers_cpu(window: Window) -> float:
    """Seconds of CPU that API server and etcd used."""
    return window.cpu["kube-apiserver"] + window.cpu["etcd"]


def longest_iteration(scenario: str, count: int, held: Times) -> Figure:
    """For how long the operator's event loop was held at most in a scenario: what is below 5 ms is not told."""
    longest = held.bound(1.0) if held.count else LONG_ITERATION
    details = {"iterations": dict(held.buckets)}
    what, most = f"{scenario}: longest iteration of the loop, at most", bound(count, 0.05, 0.25)
    return Figure(what, count, longest, "s", most=most, details=details)


def patience(count: int) -> float:
    """Seconds in which an operator with so many credentials comes to rest on a busy machine."""
    return 300.0 + count / 50


def pages(count: int, size: int = PAGE) -> int:
    """Pages in a list of so many objects: one also where there are none."""
    return max(1, -(-count // size))


def assert_scheduled(operators: Sequence[OperatorProcess], size: int) -> None:
    """Raise RuntimeError unless operators have scheduled so many credentials together, and none waits."""
    told = [operator.metrics() for operator in operators]
    known = sum(metrics["tuinly_credentials", frozenset()] for metrics in told)
    waiting = sum(metrics["tuinly_queue_depth", frozenset()] for metrics in told)
    due = sum(name == "tuinly_credential_next_refresh_timestamp_seconds" for metrics in told for name, _ in metrics)
    if (known, waiting, due) != (size, 0.0, size):
        raise RuntimeError(f"{known:.0f} of {size} credentials known, {waiting:.0f} waiting, {due} with a next refresh")


async def started(run: Run) -> None:
    """Have the operator running, and all credentials."""
    stand, fleet = run.stand, run.stand.fleet
    await stand.start_operator()
    if fleet.size < run.count:
        stand.tell(f"until there are {run.count:,} credentials")
        await fleet.start(run.count)


async def fresh(run: Run) -> None:
    """Have the operator running, and all tokens live long."""
    await started(run)
    stand, fleet = run.stand, run.stand.fleet
    if fleet.lifetime != RESTS:
        stand.tell("until all tokens live long")
        await fleet.pace(RESTS)


async def measured(stand: Stand, seconds: float) -> Window:
    """Let so many seconds pass, and return what happened in them."""
    stand.tell(f"measuring for {seconds:.0f} s")
    before = await stand.snapshot()
    await asyncio.sleep(seconds)
    return await stand.since(before)


def pace_of(count: int) -> float:
    """Refreshes per second in the steady run of so many credentials."""
    return min(PACE, count / LEAST_INTERVAL)


async def paced(stand: Stand, fleet: Fleet, rate: float) -> None:
    """Have a fleet that has started refreshed so many times a second."""
    interval = fleet.size / rate
    lifetime = lifetime_for(interval)
    if lifetime != fleet.lifetime:
        stand.tell(f"until tokens live {lifetime:.0f} s: {rate:g} refreshes per second")
        # Tokens that live shorter are due within less than a round, and so their successors would be due together.
        evenly = fleet.lifetime == RESTS or fleet.lifetime < lifetime
        await fleet.pace(lifetime, over=interval if evenly else None)
        stand.tell(f"a round of {interval:.0f} s, until all of the change is told")
        await asyncio.sleep(interval)
