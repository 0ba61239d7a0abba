"""What the replicas hold, looked at from outside every few seconds: memory, file descriptors, tasks, threads."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.measures import Process
from tests.chaos.replicas import Replica
from tests.chaos.verdict import Span

EVERY: Final = 5.0
"""Seconds between two looks."""
HELD: Final = ("rss", "files", "tasks", "threads")


@dataclass(frozen=True)
class Sample:
    """What a process held at a moment, in seconds of `time.time`; memory in MB."""

    at: float
    replica: str
    pid: int
    leads: bool
    rss: float
    files: int
    threads: int
    tasks: int | None


async def watch(replicas: Sequence[Replica], samples: list[Sample], *, leading: bool = True) -> None:
    """Take samples of all that run, until cancelled; who leads is in their logs, which it takes time to read."""
    while True:
        await asyncio.sleep(EVERY)
        samples += await asyncio.to_thread(_look, replicas, leading=leading)


def _look(replicas: Sequence[Replica], *, leading: bool) -> list[Sample]:
    found = []
    for replica in replicas:
        process = Process(replica.process.pid)
        try:
            held = process.rss, process.files, process.threads
        except (OSError, IndexError):  # it is gone, or only a zombie
            continue
        leads = leading and replica.led_since is not None
        found.append(Sample(time.time(), replica.name, process.pid, leads, *held, replica.tasks))
    return found


def growth(samples: Sequence[Sample], calms: Sequence[Span]) -> Mapping[str, float]:
    """Return by how much more was ever held in a later calm than in the first, leaders and others apart.

    Of memory it is what was held in the end of a calm, of all else the least in it, when nobody works. So what stays
    behind after a fault shows, also where the processes are not the same any more.
    """
    most = dict.fromkeys(HELD, 0.0)
    for leads in (True, False):
        held = [_at_rest([each for each in samples if each.leads is leads], calm) for calm in calms]
        first, *later = [each for each in held if each] or [{}]
        for rest in later:
            most = {what: max(most[what], rest[what] - first[what]) for what in HELD}
    return most


def _at_rest(samples: Iterable[Sample], calm: Span) -> Mapping[str, float]:
    """What was held in a calm; nothing where there was nobody, or had not counted its tasks yet."""
    within = [each for each in samples if calm.begin <= each.at <= calm.end]
    tasks = [each.tasks for each in within if each.tasks is not None]
    if not tasks:
        return {}
    files, threads = min(each.files for each in within), min(each.threads for each in within)
    return {"rss": within[-1].rss, "files": files, "tasks": min(tasks), "threads": threads}


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much the second grows with the first, by least squares; 0 where there is nothing to tell."""
    if len(points) < 2:  # noqa: PLR2004 -- a line
        return 0.0
    mean_x, mean_y = (sum(each) / len(points) for each in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
