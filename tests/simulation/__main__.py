"""Plays histories: one by its seed, or as many as there is time for, on all cores; see docs/reliability.md."""

import argparse
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

from tests.simulation.faults import Fault
from tests.simulation.history import Result, play
from tests.simulation.reach import missing
from tests.simulation.shrink import shortest

FAILED: Final = Path(__file__).with_name("failed.json")  # histories that once failed, played by each test run


@dataclass
class Sums:
    """What all histories come to."""

    histories: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    refreshes: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    reached: set[str] = field(default_factory=set)
    failed: list[Result] = field(default_factory=list)

    def add(self, result: Result, cpu: float) -> None:
        """Add one history."""
        self.histories += 1
        self.seconds += result.seconds
        self.cpu += cpu
        self.refreshes += result.refreshes
        self.struck.update(result.struck)
        self.reached |= result.reached
        if result.broken:
            self.failed.append(result)

    def line(self) -> str:
        """All of it in one line."""
        days, speed = self.seconds / 86400, self.seconds / 60 / self.cpu if self.cpu else 0.0
        return (
            f"{self.histories} histories, {days:.1f} simulated days, {self.struck.total()} faults of "
            f"{len(self.struck)} kinds, {self.refreshes} refreshes, {len(self.failed)} failed, "
            f"{speed:.0f} simulated minutes per CPU second"
        )


def _play(seed: int) -> tuple[Result, float]:
    began = time.process_time()
    try:
        result = play(seed)
    except Exception:  # noqa: BLE001 -- told with its seed
        result = Result(seed, [], broken=f"the simulation itself: {traceback.format_exc()}")
    return result, time.process_time() - began


def play_for(seconds: float, seeds: Iterator[int], *, quiet: bool = False) -> Sums:
    """Play one history after the other on all cores until the time is over, and end at the first few that fail."""
    sums, end = Sums(), time.monotonic() + seconds
    told = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        running: set[Future[tuple[Result, float]]] = set()
        while time.monotonic() < end and len(sums.failed) < 3:
            while len(running) < 2 * (os.cpu_count() or 1):
                running.add(pool.submit(_play, next(seeds)))
            done, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            for each in done:
                result, cpu = each.result()
                sums.add(result, cpu)
                if result.broken and not quiet:
                    print(f"seed {result.seed}: {result.broken}", flush=True)  # noqa: T201 -- for a person
            if not quiet and time.monotonic() - told > 15:
                told = time.monotonic()
                print(f"{end - told:5.0f} s left: {sums.line()}", flush=True)  # noqa: T201 -- for a person
        for each in running:
            each.cancel()
    return sums


def failed() -> list[tuple[int, list[Fault]]]:
    """The histories that once failed: seeds, and the faults that it took."""
    return [(each["seed"], [Fault(**fault) for fault in each["faults"]]) for each in json.loads(FAILED.read_text())]


def seeds_of(text: str) -> Iterator[int]:
    """Seeds drawn from a text."""
    chance = Random(text)  # noqa: S311 -- the same each time
    while True:
        yield chance.randrange(10**9)


def _explain(result: Result) -> None:
    """Shorten a history that fails, and print it."""
    print(f"\nseed {result.seed}: {result.broken}", flush=True)  # noqa: T201 -- for a person
    faults, broken = shortest(result, tell=lambda told: print(f"  {told}", flush=True))  # noqa: T201 -- the same
    print(f"with {len(faults)} of its {len(result.faults)} faults still: {broken}")  # noqa: T201 -- the same
    for fault in faults:
        print(f"  {fault}")  # noqa: T201 -- the same
    story = {"seed": result.seed, "story": broken, "faults": [fault.plain() for fault in faults]}
    print(json.dumps(story))  # noqa: T201 -- the same


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; return 1 where anything failed or was not reached."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for how long")
    parser.add_argument("--seed", type=int, help="play the history of this seed alone")
    parser.add_argument("--from-seed", type=int, default=1, help="the first of the seeds")
    parser.add_argument("--trace", type=Path, help="where to write what happens")
    options = parser.parse_args(argv)
    if options.seed is not None:
        result = play(options.seed, traced=options.trace is not None)
        if options.trace is not None:
            options.trace.write_text("\n".join(result.trace) + "\n")
        if result.broken:
            _explain(result)
        played = (
            f"{len(result.faults)} faults, {result.seconds / 60:.1f} simulated minutes, {result.refreshes} refreshes"
        )
        print(f"seed {result.seed}: {result.broken or 'all was well'}; {played}")  # noqa: T201 -- for a person
        return 1 if result.broken else 0
    sums = play_for(options.minutes * 60, count(options.from_seed))
    for result in sums.failed:
        _explain(result)
    for kind, number in sorted(sums.struck.items()):
        print(f"{number:8d} {kind}")  # noqa: T201 -- for a person
    unreached = missing(sums.reached) if options.minutes >= 10 else []
    for what in unreached:
        print(f"never reached: {what}")  # noqa: T201 -- for a person
    print(sums.line())  # noqa: T201 -- for a person
    return 1 if sums.failed or unreached else 0


if __name__ == "__main__":
    sys.exit(main())
