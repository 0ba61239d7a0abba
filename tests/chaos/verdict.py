"""The judgement: what targets held, and what struck when, against the contract's promises and waits. Pure.

*Unwell* is a credential whose target holds no token, a bad or an expired one, or one whose refresh is overdue.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from tests.chaos.kinds import CLOCKS, COMMON, KINDS, OFF, Whom
from tests.support.auditor import Change, Credential, Finding, Wrong, audit
from tests.support.sandbox import IssuedToken
from tuinly_operator.domain.credential import RefreshSpec
from tuinly_operator.domain.schedule import lead

WINDOW: Final = 90.0
"""Seconds of reach within the lead, by which a token must be fresh: the premise of the first promise."""
OVERDUE: Final = 5.0
"""Seconds after the latest moment for a refresh, from which on it counts as overdue: room for a busy machine."""
QUICK: Final = 10.0
"""Seconds in which what is wrong is put right where nothing else is at work: it takes less than one."""
STILL: Final = 15.0
"""Seconds without anything unwell, after which all counts as well again: a lead that nobody has lasts as long."""
GAP: Final = 3.0
"""Seconds that a write of a target may take on a busy machine: for so long it may hold a token that was revoked by the
issue of its successor, and is none the less well."""
_SEEN: Final = 10.0  # seconds after which the auditor has surely seen what was done, if the API server is there


class Span(NamedTuple):
    """From a moment until another, in seconds of `time.time`."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin


@dataclass(frozen=True)
class Struck:
    """A fault that struck, in seconds of `time.time`; `hit` is a replica or a credential, where it is one alone."""

    kind: str
    at: float
    end: float
    hit: str = COMMON

    @property
    def span(self) -> Span:
        """While it was in force."""
        return Span(self.at, self.end)

    def keeps(self, replica: str, credential: str) -> bool:
        """Whether it keeps a replica from what a refresh of a credential needs."""
        match KINDS[self.kind].whom:
            case Whom.ALL:
                return True
            case Whom.REPLICA:
                return self.hit == replica
            case Whom.CREDENTIAL:
                return self.hit == credential
        return False

    def concerns(self, credential: str) -> bool:
        """Whether it may be felt by a credential."""
        return KINDS[self.kind].takes != () or self.hit == credential


@dataclass(frozen=True)
class Lifetime:
    """A token in a target.

    Attributes:
        since: When it was first seen there; `until` when another one was, or None.
        due: When it is to be refreshed at the latest; `expires` when it ends.
        premise: Whether the first promise is about it; None where its end is not known yet.
    """

    credential: str
    token: int
    since: float
    until: float | None
    due: float
    expires: float
    premise: bool | None


@dataclass(frozen=True)
class Judgement:
    """What all comes to; seconds are summed over credentials.

    Attributes:
        findings: What the auditor found, and for how many seconds of each that was beyond what the contract says.
        late: The same of refreshes that were overdue.
        doubt: Seconds of which the auditor cannot tell, at worst, since the API server was away.
        unwell: When anybody was unwell, by credential.
        recoveries: Seconds until all was well again, by kind of fault.
    """

    lifetimes: Sequence[Lifetime]
    findings: Sequence[tuple[Finding, float]]
    late: Sequence[tuple[Lifetime, float]]
    doubt: float
    unwell: Mapping[str, Sequence[Span]] = field(repr=False)
    recoveries: Mapping[str, Sequence[float]]

    def beyond(self, *wrongs: Wrong) -> float:
        """For how many seconds something was wrong in one of these ways, beyond the bounds."""
        return sum(beyond for finding, beyond in self.findings if finding.wrong in wrongs)

    def found(self, *wrongs: Wrong) -> float:
        """For how many seconds it was in all."""
        return sum(finding.seconds for finding, _ in self.findings if finding.wrong in wrongs)


def judge(
    histories: Mapping[Credential, Sequence[Change]],
    tokens: Iterable[IssuedToken],
    struck: Sequence[Struck],
    replicas: Sequence[str],
    seen: Span,
) -> Judgement:
    """Judge a run from what the auditor has seen, in the time that it looked, and what struck."""
    ledger = list(tokens)
    verdict = audit(histories, ledger, seen.begin, seen.end)
    lives = list(_lifetimes(histories, ledger, struck, replicas, seen.end))
    overdue = [(life, span) for life in lives if (span := _overdue(life, struck, seen.end)) is not None]
    unwell: dict[str, list[Span]] = {}
    for finding in verdict.findings:
        if finding.wrong is not Wrong.SUPERSEDED or finding.seconds > GAP:
            unwell.setdefault(finding.credential.name, []).append(Span(finding.since, finding.since + finding.seconds))
    for life, span in overdue:
        unwell.setdefault(life.credential, []).append(span)
    recoveries: dict[str, list[float]] = {}
    for fault in struck:
        recoveries.setdefault(fault.kind, []).append(recovery(fault, struck, unwell))
    return Judgement(
        lives,
        [(finding, _beyond(finding, histories[finding.credential], lives, struck)) for finding in verdict.findings],
        [(life, max(0.0, span.end - deadline(span.begin, life.credential, struck))) for life, span in overdue],
        verdict.doubt_seconds,
        unwell,
        recoveries,
    )


def _lifetimes(
    histories: Mapping[Credential, Sequence[Change]],
    tokens: Iterable[IssuedToken],
    struck: Sequence[Struck],
    replicas: Sequence[str],
    until: float,
) -> Iterator[Lifetime]:
    """Yield each token that each target held, once, however often somebody took it away meanwhile."""
    ledger = {token.value: token for token in tokens}
    for credential, changes in histories.items():
        first: dict[str, float] = {}
        for change in changes:
            if change.token in ledger:
                first.setdefault(change.token, change.at)
        held = [*first.items(), (None, None)]
        for (value, since), (_, following) in pairwise(held):
            if value is None or since is None:
                continue
            token = ledger[value]
            due = token.expires_at - lead(RefreshSpec(), token.expires_in)
            within = Span(due, token.expires_at)
            premise = meets_premise(within, credential.name, struck, replicas, until)
            yield Lifetime(credential.name, token.sequence, since, following, due, token.expires_at, premise)


def meets_premise(
    within: Span, credential: str, struck: Sequence[Struck], replicas: Sequence[str], until: float
) -> bool | None:
    """Whether one and the same replica had all it needs for long enough within a lead; None if nobody can tell yet."""
    looked = Span(within.begin, min(within.end, until))
    for replica in replicas:
        out = [fault.span for fault in struck if fault.keeps(replica, credential)]
        if any(gap.seconds >= WINDOW for gap in gaps(out, looked)):
            return True
    return False if within.end <= until else None


def gaps(spans: Iterable[Span], within: Span) -> Iterator[Span]:
    """Yield what is in none of the spans."""
    at = within.begin
    for span in sorted(spans):
        if span.begin > at:
            yield Span(at, min(span.begin, within.end))
        at = max(at, span.end)
        if at >= within.end:
            return
    if at < within.end:
        yield Span(at, within.end)


def _overdue(life: Lifetime, struck: Iterable[Struck], until: float) -> Span | None:
    """While a refresh was overdue; None if it never was.

    A token that a replica with a wrong clock was given is refreshed by the end that it has by that clock.
    """
    wrong = any(fault.kind in CLOCKS and fault.at <= life.since <= fault.end + GAP for fault in struck)
    span = Span(life.due + OVERDUE + OFF * wrong, until if life.until is None else life.until)
    return span if span.seconds > 0 else None


def _beyond(finding: Finding, history: Iterable[Change], lives: Iterable[Lifetime], struck: Sequence[Struck]) -> float:
    """For how many seconds of a finding the contract has no excuse."""
    name, end = finding.credential.name, finding.since + finding.seconds
    # While the API server was away nobody saw when it came to be like this.
    since = next((change.earliest for change in history if change.at == finding.since), finding.since)
    match finding.wrong:
        case Wrong.EXPIRED:
            excused = not any(life.token == finding.token and life.premise for life in lives)
        case Wrong.ABSENT:
            excused = _was(struck, "target deleted", name, Span(since, finding.since))
        case Wrong.NEVER_ISSUED:
            excused = _was(struck, "target spoilt", name, Span(since, finding.since))
        case Wrong.SUPERSEDED:
            excused = True  # until the next one is written
        case _:
            excused = False
    return max(0.0, end - deadline(finding.since, name, struck)) if excused else finding.seconds


def _was(struck: Iterable[Struck], kind: str, credential: str, when: Span) -> bool:
    """Whether somebody did this to a credential's target at that time."""
    return any(
        fault.kind == kind
        and fault.hit == credential
        and fault.at - _SEEN <= when.end
        and when.begin <= fault.end + _SEEN
        for fault in struck
    )


def deadline(since: float, credential: str, struck: Sequence[Struck]) -> float:
    """By when what went wrong at a moment must be well, by the waits of all that strikes before that."""
    by, before = since + QUICK, 0.0
    while by != before:
        before = by
        ends = [fault.end + KINDS[fault.kind].wait for fault in struck if fault.at < by and fault.concerns(credential)]
        by = max([by, *ends])
    return by


def recovery(fault: Struck, struck: Sequence[Struck], unwell: Mapping[str, Sequence[Span]]) -> float:
    """Seconds until all that a fault may have harmed was well again, without those in which others were in force."""
    kind = KINDS[fault.kind]
    begin = fault.at if kind.from_start else fault.end
    alone = kind.takes == ()
    spans = sorted(span for name, each in unwell.items() if not alone or name == fault.hit for span in each)
    end = begin
    for span in spans:
        if span.begin <= end + STILL:
            end = max(end, span.end)
    others = [other.span for other in struck if other is not fault and other.concerns(fault.hit)]
    return sum(gap.seconds for gap in gaps(others, Span(begin, end)))
