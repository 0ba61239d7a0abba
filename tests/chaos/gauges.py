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


def growth(samples: Iterable[Sample], calms: Sequence[Span]) -> Mapping[str, float]:
    """Return by how much more was ever held at the end of a calm than at that of the first, leaders and others apart.

    So what stays behind after a fault shows, also where the processes are not the same any more.
    """
    most = dict.fromkeys(HELD, 0.0)
    for leads in (True, False):
        last: dict[int, Sample] = {}
        for sample in samples:
            for number, calm in enumerate(calms):
                if sample.leads is leads and calm.begin <= sample.at <= calm.end and sample.tasks is not None:
                    last[number] = sample
        if last:
            first = last[min(last)]
            for what in HELD:
                grown = max(getattr(sample, what) - getattr(first, what) for sample in last.values())
                most[what] = max(most[what], grown)
    return most


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much the second grows with the first, by least squares; 0 where there is nothing to tell."""
    if len(points) < 2:  # noqa: PLR2004 -- a line
        return 0.0
    mean_x, mean_y = (sum(each) / len(points) for each in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
