"""Runs the soak: `python -m tests.chaos.soak` refreshes each of many credentials once a minute, for hours.

Nothing is broken meanwhile. What two replicas hold must not grow, and all tokens must be good all the time.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.measures import machine
from bench.report import Figure, Lines, table
from bench.run import paced
from bench.stand import Fleet, Narrator, standing
from tests.chaos.gauges import HELD, Sample, slope, watch
from tests.chaos.picture import Plot, per_second, picture
from tests.chaos.replicas import Replica, placed, start_all
from tests.chaos.report import MOST_GROWTH
from tests.chaos.verdict import Span
from tests.support.auditor import Auditor, Verdict

FOLDER: Final = Path(__file__).parents[2] / ".chaos"
INTERVAL: Final = 60.0
"""Seconds from one refresh of a credential to the next."""
SETTLED: Final = 600.0
"""Seconds after which memory must not grow any more; a third of the time, where that is less."""
MOST_SLOPE: Final = 1.0
"""Megabytes per hour by which it may."""
_TOLD_EVERY: Final = 60.0
_NAMES: Final = ("a", "b")


@dataclass(frozen=True)
class Soaked:
    """A soak that is over: the time that was measured, what replicas held in it, and what the auditor says of it."""

    credentials: int
    within: Span
    samples: Sequence[Sample]
    issued: Sequence[float]
    requests: int
    verdict: Verdict

    @property
    def settled(self) -> Span:
        """The time in which nothing may grow."""
        return Span(self.within.begin + min(SETTLED, self.within.seconds / 3), self.within.end)

    def of(self, replica: str) -> list[Sample]:
        """What a replica held in that time."""
        return [each for each in self.samples if each.replica == replica and each.at >= self.settled.begin]


def figures(soaked: Soaked) -> list[Figure]:
    """Return all figures, with what they must be."""
    refreshes, verdict = len(soaked.issued), soaked.verdict
    found = [
        ("refreshes", refreshes, "", None),
        ("refreshes per credential and minute", refreshes / soaked.credentials / soaked.within.seconds * 60, "", None),
        ("token requests per refresh", soaked.requests / max(1, refreshes), "", 1.05),
        ("expired-token-seconds", verdict.expired_token_seconds, "s", 0.0),
        ("bad-token-seconds", verdict.bad_token_seconds, "s", 0.0),
        ("absent-seconds", verdict.absent_seconds, "s", 0.0),
    ]
    for name in _NAMES:
        samples = soaked.of(name)
        memory = slope([(each.at / 3600, each.rss) for each in samples])
        found.append((f"memory slope of replica {name}", memory, "MB/h", MOST_SLOPE))
        found += [
            (f"growth of replica {name}: {MOST_GROWTH[what][0]}", _grown(samples, what), "", MOST_GROWTH[what][2])
            for what in HELD
            if what != "rss"
        ]
    return [Figure(what, soaked.credentials, value, unit, most=most) for what, value, unit, most in found]


def _grown(samples: Sequence[Sample], what: str) -> float:
    """By how much more was held at least in the last third than in the first: between bursts of work, that is."""
    values = [value for each in samples if (value := getattr(each, what)) is not None]
    third = -(-len(values) // 3)
    return float(min(values[-third:]) - min(values[:third])) if values else 0.0


def drawn(soaked: Soaked) -> str:
    """Return the picture."""
    memory = {
        f"replica {name}": [(each.at, each.rss) for each in soaked.samples if each.replica == name] for name in _NAMES
    }
    refreshes = {"refreshes": per_second(soaked.issued, soaked.within, seconds=60.0)}
    title = f"Soak with {soaked.credentials} credentials: memory is measured where it is shaded"
    plots = [Plot("memory (MB)", memory), Plot("per second", refreshes)]
    return picture(title, soaked.within, [soaked.settled], [], plots)


async def soak(options: argparse.Namespace, tell: Narrator) -> Soaked:
    """Run it."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(16))
    async with standing(tell) as stand:
        flags = ["--token-url", stand.sandbox.https_token_url, "--ca-bundle", str(stand.sandbox.ca_file)]
        with placed(stand.cluster.directory, dict.fromkeys(_NAMES, stand.login), flags, clocks=False) as replicas:
            await start_all(replicas)
            fleet, admin = Fleet(stand, "soak"), stand.sandbox.admin
            tell(f"until there are {options.credentials:,} credentials")
            await fleet.start(options.credentials)
            await paced(stand, fleet, options.credentials / INTERVAL)
            with Auditor(stand.cluster.kubeconfig, admin, [fleet.namespace]) as auditor:
                before, begun = await asyncio.to_thread(admin.counts), time.time()
                samples = await _samples(replicas, options.hours * 3600, tell)
                after, within = await asyncio.to_thread(admin.counts), Span(begun, time.time())
                verdict = await asyncio.to_thread(auditor.verdict)
            tokens = await asyncio.to_thread(admin.tokens, since=before["tokens"])
            issued = [token.issued_at for token in tokens if token.issued_at <= within.end]
            requests = after["requests"] - before["requests"]
            return Soaked(options.credentials, within, samples, issued, requests, verdict)


async def _samples(replicas: Sequence[Replica], seconds: float, tell: Narrator) -> list[Sample]:
    """Look at the replicas for so many seconds, and tell now and then."""
    samples: list[Sample] = []
    looking, end = asyncio.create_task(watch(replicas, samples, leading=False)), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(_TOLD_EVERY, left))
        held = ", ".join(f"{each.replica} {each.rss:.1f} MB" for each in samples[-len(replicas) :])
        tell(f"{max(0.0, end - time.monotonic()) / 60:.0f} minutes left: {held}")
    looking.cancel()
    return samples


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return 0 if all figures are what they must be, else 1."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0, help="for how long (default: %(default)g)")
    parser.add_argument("--credentials", type=int, default=1000, metavar="N", help="how many (default: %(default)d)")
    options = parser.parse_args(arguments)
    FOLDER.mkdir(exist_ok=True)
    name, tell = f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}-soak", Narrator()
    with (FOLDER / f"{name}.jsonl").open("w") as file:
        lines, where = Lines(file), machine()
        lines.write("machine", where)
        tell(", ".join(f"{what} {value}" for what, value in where.items()))
        soaked = asyncio.run(soak(options, tell))
        for sample in soaked.samples:
            lines.write("sample", asdict(sample))
        for figure in figures(soaked):
            lines.figure(figure)
    (FOLDER / f"{name}.svg").write_text(drawn(soaked))
    tell(f"written: {file.name}, and the picture beside it")
    missed = [figure.name for figure in figures(soaked) if figure.met is False]
    print(soaked.verdict)  # noqa: T201 -- to a person
    print(table(figures(soaked)))  # noqa: T201 -- the same
    print(  # noqa: T201 -- the same
        f"soak: {len(soaked.issued):,} refreshes of {soaked.credentials:,} credentials in "
        f"{soaked.within.seconds / 60:.0f} minutes: " + (f"MISSED {', '.join(missed)}" if missed else "all was well")
    )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
