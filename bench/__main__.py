"""Run the bench: `python -m bench` measures on this machine, prints a table and a picture, and writes JSON lines."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from bench import everyday, extremes, pods, rivals, shards
from bench.measures import machine
from bench.report import Figure, Lines, picture, table
from bench.run import Figures, Run, longest_iteration
from bench.stand import Narrator, standing
from tests.support.cluster import KubectlError
from tests.support.node import NodeError, Unavailable, check_machine
from tests.support.objects import ApiError

SCENARIOS: Mapping[str, Callable[[Run], Figures]] = {
    "bare": rivals.bare_loop,
    "few": everyday.few,
    "first-tokens": everyday.first_tokens,
    "restart": everyday.restart,
    "idle": everyday.idle,
    "handover": extremes.handover,
    "herd": extremes.herd,
    "bare-again": rivals.bare_loop,
    "steady": everyday.steady,
    "slowly": everyday.slowly,
    "hour": everyday.hour,
    "repairs": everyday.repairs,
    "memory": everyday.memory,
    "rate": everyday.highest_rate,
    "naive": rivals.naive,
    "unrelated": extremes.unrelated,
    "shards": shards.shards,
}
"""They run in this order. Each brings about the state that it needs, so that one can be run alone."""
PUSH = "push"
"""The scenario that needs a node; it comes first."""
FOLDER = Path(__file__).parents[1] / ".bench"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return 0 if no scenario broke off and all figures are what they must be, else 1."""
    options = _parser().parse_args(arguments)
    begun = datetime.now(UTC)
    out: Path = options.out or FOLDER / f"{begun:%Y-%m-%dT%H%M%SZ}-{options.credentials}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    tell = Narrator()
    with out.open("w") as file:
        lines = Lines(file)
        where = machine()
        lines.write("machine", where)
        tell(", ".join(f"{name} {value}" for name, value in where.items()))
        chosen = options.only or [*SCENARIOS, PUSH]
        figures, bars, broken = _on_a_node(lines, tell) if PUSH in chosen else ([], "", [])
        if any(name in SCENARIOS for name in chosen):
            more, bars, others = asyncio.run(_run(options.credentials, chosen, lines, tell))
            figures, broken = figures + more, broken + others
    print(table(figures))  # noqa: T201 -- to a person
    print(bars)  # noqa: T201 -- the same
    tell(f"JSON lines: {out}")
    return int(bool(broken) or any(figure.met is False for figure in figures))


def _on_a_node(lines: Lines, tell: Narrator) -> tuple[list[Figure], str, list[str]]:
    """Run the scenario that needs a node, in a thread of its own: that moves into the node's network."""
    figures: list[Figure] = []

    def run() -> None:
        for figure in pods.push(tell):
            figures.append(figure)
            lines.figure(figure)

    try:
        check_machine()
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(run).result()
    except Unavailable as reason:
        tell(f"{PUSH} is left out: {reason}")
    except (OSError, RuntimeError, TimeoutError, NodeError, ApiError, KubectlError) as error:
        tell(f"{PUSH} broke off: {type(error).__name__}: {error}")
        return figures, "", [PUSH]
    return figures, "", []


async def _run(count: int, chosen: Sequence[str], lines: Lines, tell: Narrator) -> tuple[list[Figure], str, list[str]]:
    figures: list[Figure] = []
    broken: list[str] = []
    async with standing(tell) as stand:
        run = Run(stand, count)
        for name in (name for name in SCENARIOS if name in chosen):
            tell(f"{name}: {(SCENARIOS[name].__doc__ or '').splitlines()[0]}")
            before = stand.held()
            try:
                async for figure in SCENARIOS[name](run):
                    figures.append(figure)
                    lines.figure(figure)
                held = stand.held().since(before)
                figures.append(longest_iteration(name, count, held))
                lines.figure(figures[-1])
            except (OSError, RuntimeError, TimeoutError, aiohttp.ClientError) as error:
                tell(f"{name} broke off: {type(error).__name__}: {error}")  # what was measured before it stays
                broken.append(name)
        stand.stop_operator()
        lines.write("setbacks", stand.setbacks)
        tell(f"failures that the operator met: {stand.setbacks.most_common(5) or 'none'}")
    return figures, picture(run.picture()), broken


def _parser() -> argparse.ArgumentParser:
    scenarios: Mapping[str, Callable[..., object]] = {PUSH: pods.push, **SCENARIOS}
    about = "\n".join(
        f"  {name:<13} {(scenario.__doc__ or '').splitlines()[0]}" for name, scenario in scenarios.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures the operator on this machine: real API server, real sockets, the Tuinly sandbox.",
        epilog=f"scenarios, in this order:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--credentials", type=_count, default=1000, metavar="N", help="how many (default: 1000)")
    parser.add_argument("--only", type=_scenarios, metavar="NAME,…", help="some scenarios (default: all)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="for the JSON lines (default: a new one in .bench)")
    return parser


def _scenarios(text: str) -> list[str]:
    """Names that there are."""
    names = text.split(",")
    if unknown := [name for name in names if name not in {PUSH, *SCENARIOS}]:
        raise argparse.ArgumentTypeError(f"there is no scenario {unknown[0]!r}; see --help for those that there are")
    return names


def _count(text: str) -> int:
    """A number of credentials that makes sense."""
    least, most = 100, 100_000  # with more, a start takes longer than is waited for
    if not text.isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"a whole number from {least} to {most} is needed, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
