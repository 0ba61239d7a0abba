"""Runs chaos: `python -m tests.chaos` breaks what there is around two replicas, and judges; see docs/reliability.md."""

import argparse
import asyncio
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.measures import machine
from bench.report import Lines
from bench.stand import Narrator, is_ready
from tests.chaos.acts import strike
from tests.chaos.gauges import Sample, watch
from tests.chaos.kinds import CLOCKS, KINDS
from tests.chaos.plan import Planned, draw
from tests.chaos.replicas import start_all
from tests.chaos.report import Outcome, drawn, figures, summary, told
from tests.chaos.stage import NAMES, NAMESPACE, Stage, staged
from tests.chaos.verdict import Span, Struck, judge
from tests.support.auditor import Auditor
from tests.support.wall_clock import LIBRARY

FOLDER: Final = Path(__file__).parents[2] / ".chaos"
SPREAD: Final = 60.0
"""Seconds in which the credentials are created, so that they are not due all at once."""
FIRST: Final = 100.0
"""Seconds until the first burst: the first of them are due soon after."""
_THREADS: Final = 32  # what waits in them waits for long


class Chaos:
    """A run: what is to happen, and what has."""

    def __init__(self, options: argparse.Namespace, tell: Narrator) -> None:
        """Draw the plan."""
        self.seed: int = options.seed
        self.credentials: int = options.credentials
        self.lifetimes: tuple[float, float] = options.lifetimes
        self.seconds = options.minutes * 60.0
        self.tell = tell
        self.logs: Path = options.logs
        kinds = [kind for kind in options.kinds or KINDS if LIBRARY is not None or kind not in CLOCKS]
        self.bursts = draw(self.seed, FIRST, self.seconds, kinds)
        self.spans: list[Span] = []
        self.struck: list[Struck] = []
        self.samples: list[Sample] = []

    async def run(self) -> Outcome:
        """Play it."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
        async with staged(self.tell, self.lifetimes) as stage:
            admin = stage.stand.sandbox.admin
            self.tell("two replicas, until they are ready")
            await start_all(stage.replicas)
            with Auditor(stage.stand.cluster.kubeconfig, admin, [NAMESPACE]) as auditor:
                gauging = asyncio.create_task(watch(stage.replicas, self.samples))
                begun = time.time()
                await self._play(stage, begun)
                found = (await stage.stand.api.send("GET", stage.shop.credentials))["items"]
                gauging.cancel()
                self._keep_logs(stage)
                histories, _, until = await asyncio.to_thread(auditor.histories)
            seen = Span(begun, until)
            return Outcome(
                self.seed,
                self.credentials,
                seen,
                self.spans,
                sorted(self.struck, key=lambda fault: fault.at),
                judge(histories, admin.tokens(), self.struck, NAMES, seen),
                [request.received_at for request in admin.requests()],
                self.samples,
                sum(not is_ready(credential) for credential in found),
                _defects(stage),
            )

    async def _play(self, stage: Stage, begun: float) -> None:
        """Create the credentials; let burst after burst strike, and the calm after the last one pass."""
        self.tell(f"{self.credentials} credentials, in {SPREAD:.0f} s")
        await stage.shop.grow(self.credentials, SPREAD)
        origin = begun  # later, where a burst takes longer than it should: calm is not cut short by that
        for number, burst in enumerate(self.bursts, 1):
            await _until(origin + burst.at)
            self.tell(f"burst {number} of {len(self.bursts)}: {', '.join(fault.kind for fault in burst.faults)}")
            async with asyncio.TaskGroup() as faults:
                for fault in burst.faults:
                    faults.create_task(self._strike(stage, origin, fault))
            await _until(origin + burst.end)
            self.spans.append(Span(origin + burst.at, time.time()))
            self.tell(f"calm, after {self.spans[-1].seconds:.0f} s")
            origin = self.spans[-1].end - burst.end
        await _until(origin + self.seconds)

    async def _strike(self, stage: Stage, origin: float, planned: Planned) -> None:
        await _until(origin + planned.at)
        self.struck.append(await strike(stage, planned))

    def _keep_logs(self, stage: Stage) -> None:
        """Keep what the replicas logged, which holds no secret."""
        self.logs.mkdir(parents=True)
        for replica in stage.replicas:
            for process in replica.processes:
                shutil.copy(process.log_file, self.logs)


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.time()))


def _defects(stage: Stage) -> list[str]:
    """What the replicas logged as errors; to kopf, each retry in an outage is one."""
    processes = [process for replica in stage.replicas for process in replica.processes]
    errors = [line for process in processes for line in process.logs() if line["level"] == "error"]
    return [str(line["msg"]) for line in errors if not str(line["logger"]).startswith("kopf")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return 0 if all figures are what they must be, else 1."""
    options = _parser().parse_args(arguments)
    FOLDER.mkdir(exist_ok=True)
    name = f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}-seed-{options.seed}"
    tell = Narrator()
    options.logs = FOLDER / name
    with (FOLDER / f"{name}.jsonl").open("w") as file:
        lines, where = Lines(file), machine()
        lines.write("machine", where)
        tell(f"seed {options.seed}; " + ", ".join(f"{what} {value}" for what, value in where.items()))
        outcome = asyncio.run(Chaos(options, tell).run())
        for fault in outcome.struck:
            lines.write("fault", asdict(fault))
        for name_of, spans in outcome.judgement.unwell.items():
            lines.write("unwell", {"credential": name_of, "spans": spans})
        for sample in outcome.samples:
            lines.write("sample", asdict(sample))
        for figure in figures(outcome):
            lines.figure(figure)
    picture = FOLDER / f"{name}.svg"
    picture.write_text(drawn(outcome))
    tell(f"written: {file.name}, {picture}")
    for what, beyond in [*outcome.judgement.findings, *outcome.judgement.late]:
        if beyond:
            print(f"{beyond:.1f} s beyond the bounds: {what}")  # noqa: T201 -- to a person
    for defect in sorted(set(outcome.defects)):
        print(f"logged as an error: {defect}")  # noqa: T201 -- the same
    print(told(outcome))  # noqa: T201 -- the same
    print(summary(outcome))  # noqa: T201 -- the same
    return int(any(figure.met is False for figure in figures(outcome)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="for how long (default: %(default)g)")
    parser.add_argument("--credentials", type=int, default=300, metavar="N", help="how many (default: %(default)d)")
    parser.add_argument(
        "--lifetimes",
        type=_seconds,
        default=(240.0, 600.0),
        metavar="LEAST-MOST",
        help="how many seconds tokens live (default: 240-600; the first promise is about 240 and more)",
    )
    parser.add_argument(
        "--kinds",
        type=lambda text: text.split(";"),
        metavar="KIND;…",
        help=f"some kinds of faults (default: all): {'; '.join(KINDS)}",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=secrets.randbelow(10**9),
        help="from which all is drawn that happens (default: another each time, which is told)",
    )
    return parser


def _seconds(text: str) -> tuple[float, float]:
    """The least and the most of something."""
    least, _, most = text.partition("-")
    return float(least), float(most)


if __name__ == "__main__":
    sys.exit(main())
