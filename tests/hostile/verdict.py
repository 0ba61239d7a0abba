"""What an attack is, what was measured while it ran, and whether the operator held. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bench.report import aligned, number

if TYPE_CHECKING:
    from tests.hostile.stage import Stage

LIMIT: Final = 537.0
"""Megabytes (10^6 bytes) of memory that the Deployment allows: 512 MiB."""
LATE: Final = 1.0
"""Seconds by which 99 % of the refreshes of others can be late; targets note whole seconds."""
PROBES: Final = 3
"""Failed liveness probes in a row that restart the container (failureThreshold of the Deployment)."""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name: By which ONLY chooses it.
        sentence: What the attacker does.
        play: Does it, on a stage of its own.
        growth: Megabytes by which the operator can grow while it lasts.
        cpu: Cores that the operator can use while it lasts.
        lifetime: Seconds that tokens of others live.
        seconds: How long it must last at least to show anything.
        brief: Whether it is part of the short choice that each change must pass.
    """

    name: str
    sentence: str
    play: "Callable[[Stage], None]"
    growth: float = 20.0
    cpu: float = 0.5
    lifetime: float = 12.0
    seconds: float = 0.0
    brief: bool = True


@dataclass
class Measured:
    """What an attack cost both sides.

    Attributes:
        seconds: How long it lasted.
        requests, sent: What the attacker sent: requests, connections or answers, and bytes.
        attacker, cpu: Cores that the attacker and the operator used.
        growth, peak: Megabytes of the operator.
        expired: Credential-seconds of others without a valid token.
        late: The 99th percentile of the lateness of others' refreshes, in seconds.
        untrue: How often a look found a credential Ready whose token had ended.
        failed: The most liveness probes that failed in a row.
        findings: What else was wrong.
    """

    seconds: float = 0.0
    requests: int = 0
    sent: int = 0
    attacker: float = 0.0
    cpu: float = 0.0
    growth: float = 0.0
    peak: float = 0.0
    expired: float = 0.0
    late: float = 0.0
    untrue: int = 0
    failed: int = 0
    findings: list[str] = field(default_factory=list)


def faults(attack: Attack, measured: Measured, *, brief: bool) -> list[str]:
    """Return why the operator did not hold; empty if it did.

    In the short choice CPU and lateness do not count, because the machine may be busy.
    """
    return [*_faults(attack, measured), *([] if brief else _timed(attack, measured)), *measured.findings]


def _faults(attack: Attack, measured: Measured) -> Iterator[str]:
    if measured.peak > LIMIT:
        yield f"{measured.peak:.0f} MB of memory, killed at {LIMIT:.0f} MB"
    elif measured.growth > attack.growth:
        yield f"memory grew by {measured.growth:.0f} MB, more than {attack.growth:.0f} MB"
    if measured.expired:
        yield f"tokens of others were expired for {measured.expired:.0f} s"
    if measured.untrue:
        yield f"{measured.untrue} times others were Ready after the end of their token"
    if measured.failed >= PROBES:
        yield f"{measured.failed} liveness probes in a row failed"


def _timed(attack: Attack, measured: Measured) -> Iterator[str]:
    if measured.cpu > attack.cpu:
        yield f"the operator used {measured.cpu:.0%} of a core, more than {attack.cpu:.0%}"
    if measured.late > LATE:
        yield f"refreshes of others were {measured.late:.0f} s late (p99)"


HEAD: Final = (
    "attack",
    "attacker: requests",
    "MB sent",
    "core",
    "operator: grew by (MB)",
    "peak (MB)",
    "core",
    "others: p99 late (s)",
    "expired (s)",
    "held",
)


def row(attack: Attack, measured: Measured, *, brief: bool) -> Sequence[str]:
    """Return the row of the table for an attack."""
    return (
        attack.name,
        number(measured.requests),
        number(measured.sent / 1e6),
        f"{measured.attacker:.0%}",
        number(round(measured.growth)),
        number(round(measured.peak)),
        f"{measured.cpu:.0%}",
        number(measured.late),
        number(round(measured.expired)),
        "no" if faults(attack, measured, brief=brief) else "yes",
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return the table, in Markdown."""
    return aligned([HEAD, *rows])
