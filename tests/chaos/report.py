"""What a run came to: figures with their bounds, a table by kind of fault, and the picture over time. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.measures import quantile
from bench.report import Figure, aligned, number, table
from tests.chaos.gauges import Sample, growth
from tests.chaos.picture import Plot, how_many, per_second, picture
from tests.chaos.verdict import Judgement, Span, Struck
from tests.support.auditor import Wrong

MOST_GROWTH: Final[Mapping[str, tuple[str, str, float]]] = {
    "rss": ("memory", "MB", 25.0),
    "files": ("file descriptors", "", 45.0),  # two pools of 20 connections, which stay for a while
    "tasks": ("tasks", "", 25.0),
    "threads": ("threads", "", 8.0),
}
"""By how much more may be held in a later calm than in the first: connections come and go, leaks add up."""
MOST_REQUESTS: Final = 2.0
"""Token requests per refresh due, in the long run: an attempt that is lost costs another one."""


@dataclass(frozen=True)
class Outcome:
    """A run that is over.

    Attributes:
        within: From the first credential to the end.
        requests: When token requests reached the endpoint.
        not_ready: How many credentials were not Ready in the end.
        defects: What replicas logged as errors: nobody expects these.
    """

    seed: int
    credentials: int
    within: Span
    bursts: Sequence[Span]
    struck: Sequence[Struck]
    judgement: Judgement
    requests: Sequence[float]
    samples: Sequence[Sample]
    not_ready: int
    defects: Sequence[str]

    @property
    def refreshes(self) -> list[float]:
        """When a target was seen with another token than before."""
        return [life.until for life in self.judgement.lifetimes if life.until is not None]

    @property
    def due(self) -> int:
        """How many tokens were replaced, or were to be."""
        return sum(life.until is not None or life.due < self.within.end for life in self.judgement.lifetimes)

    @property
    def calms(self) -> list[Span]:
        """What is after each burst."""
        begins = [burst.begin for burst in self.bursts[1:]] + [self.within.end]
        return [Span(burst.end, begin) for burst, begin in zip(self.bursts, begins, strict=True)]


def figures(outcome: Outcome) -> list[Figure]:
    """Return all figures, with what they must be."""
    judged = outcome.judgement
    known = [life.premise for life in judged.lifetimes if life.premise is not None]
    late = [max(0.0, life.until - life.due) for life in judged.lifetimes if life.until is not None] or [0.0]
    asked = len(outcome.requests) - outcome.credentials
    found = [
        ("faults injected", len(outcome.struck), "", None, None),
        ("refreshes", len(outcome.refreshes), "", None, None),
        ("expired-token-seconds beyond the bounds", judged.beyond(Wrong.EXPIRED), "s", 0.0, None),
        ("bad-token-seconds beyond the bounds", judged.beyond(*_BAD), "s", 0.0, None),
        ("absent-seconds beyond the bounds", judged.beyond(Wrong.ABSENT), "s", 0.0, None),
        ("overdue-seconds beyond the waits", sum(seconds for _, seconds in judged.late), "s", 0.0, None),
        ("expired-token-seconds in all", judged.found(Wrong.EXPIRED), "s", None, None),
        ("bad-token-seconds in all", judged.found(*_BAD), "s", None, None),
        ("absent-seconds in all", judged.found(Wrong.ABSENT), "s", None, None),
        ("seconds in doubt", judged.doubt, "s", None, None),
        ("lifetimes that were judged", len(known), "", None, None),
        ("of these, with the promise's premise", 100 * sum(known) / max(1, len(known)), "%", None, 50.0),
        ("token requests per refresh due", asked / max(1, outcome.due), "", MOST_REQUESTS, None),
        *((f"refreshes late, {name}", quantile(late, share), "s", None, None) for name, share in QUANTILES.items()),
        ("not Ready in the end", outcome.not_ready, "", 0.0, None),
        ("defects in the logs", len(outcome.defects), "", 0.0, None),
    ]
    grown = growth(outcome.samples, outcome.calms)
    found += [(f"growth of {name}", grown[what], unit, most, None) for what, (name, unit, most) in MOST_GROWTH.items()]
    return [
        Figure(name, outcome.credentials, value, unit, most=most, least=least)
        for name, value, unit, most, least in found
    ]


def told(outcome: Outcome) -> str:
    """Return the tables for a person."""
    rows = [("fault", "injected", *(f"recovery, {name} (s)" for name in QUANTILES))]
    for kind, seconds in sorted(outcome.judgement.recoveries.items()):
        rows.append((kind, str(len(seconds)), *(number(quantile(seconds, share)) for share in QUANTILES.values())))
    return f"{aligned(rows)}\n\n{table(figures(outcome))}"


def drawn(outcome: Outcome) -> str:
    """Return the picture."""
    memory = {
        f"replica {name}": [(each.at, each.rss) for each in outcome.samples if each.replica == name]
        for name in sorted({each.replica for each in outcome.samples})
    }
    unwell = [span for spans in outcome.judgement.unwell.values() for span in spans]
    plots = [
        Plot("absent, bad, expired", {"or overdue": how_many(unwell, outcome.within)}),
        Plot(
            "per second",
            {
                "refreshes": per_second(outcome.refreshes, outcome.within),
                "token requests": per_second(outcome.requests, outcome.within),
            },
        ),
        Plot("memory (MB)", memory),
    ]
    title = f"Chaos with {outcome.credentials} credentials, seed {outcome.seed}: bursts of faults, then calm"
    return picture(title, outcome.within, outcome.bursts, outcome.struck, plots)


def summary(outcome: Outcome) -> str:
    """Return all of it in one line."""
    missed = [figure.name for figure in figures(outcome) if figure.met is False]
    judged = outcome.judgement
    wrong = (
        f"expired {judged.beyond(Wrong.EXPIRED):.0f} s, bad {judged.beyond(*_BAD):.0f} s and "
        f"absent {judged.beyond(Wrong.ABSENT):.0f} s beyond the bounds"
    )
    return (
        f"chaos with seed {outcome.seed}: {len(outcome.struck)} faults of {len(judged.recoveries)} kinds, "
        f"{len(outcome.refreshes)} refreshes of {outcome.credentials} credentials in "
        f"{outcome.within.seconds / 60:.1f} minutes, {wrong}: "
        + (f"MISSED {', '.join(missed)}" if missed else "all was well")
    )


_BAD: Final = (Wrong.NEVER_ISSUED, Wrong.REVOKED, Wrong.SUPERSEDED)
QUANTILES: Final = {"p50": 0.5, "p99": 0.99, "max": 1.0}
