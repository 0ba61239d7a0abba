"""Two clocks read together, and deadlines that are due by whichever clock gets there first."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading of both clocks, in seconds: since the Unix epoch, and since boot with time spent suspended."""

    wall: float
    boot: float

    def moved_to(self, wall: float) -> "Moment":
        """The moment of another wall-clock time (seconds since the epoch), as seen from this one."""
        return Moment(wall, self.boot - (self.wall - wall))


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A time that is due once either clock has reached it.

    Each of the two can be wrong. The wall clock may be set back; then the boot clock reaches the deadline in time. The
    boot clock may lag, as after a virtual machine was restored from a snapshot; then the wall clock reaches it in time.
    So a token is never refreshed too late because one of them is wrong; at worst it is too early.
    """

    wall: float
    boot: float

    @classmethod
    def at(cls, wall: float, now: Moment) -> "Deadline":
        """The deadline for a wall-clock time (seconds since the epoch), as seen from `now`."""
        return cls(wall, now.boot + (wall - now.wall))

    @classmethod
    def after(cls, seconds: float, now: Moment) -> "Deadline":
        """The deadline `seconds` from `now`."""
        return cls(now.wall + seconds, now.boot + seconds)

    def due(self, now: Moment) -> bool:
        """Whether either clock has reached it."""
        return now.wall >= self.wall or now.boot >= self.boot

    def remaining(self, now: Moment) -> float:
        """Seconds until it is due by the clock that gets there first; negative once past."""
        return min(self.wall - now.wall, self.boot - now.boot)

    def earlier(self, other: "Deadline | None") -> "Deadline":
        """The one that is due first."""
        if other is None:
            return self
        return Deadline(min(self.wall, other.wall), min(self.boot, other.boot))


class Clock(Protocol):
    """What reads the time; tests inject their own."""

    def now(self) -> Moment:
        """Read both clocks."""


class SystemClock:
    """The machine's clocks. CLOCK_BOOTTIME, since `time.monotonic` stands still while a machine is suspended."""

    def now(self) -> Moment:
        """Read both clocks."""
        return Moment(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str) -> float:
    """Seconds in a duration as Go writes it (`1m30s`, `1.5h`, `250ms`). Raises ValueError for anything else."""
    if not _DURATION.fullmatch(text):
        raise ValueError("is not a duration such as 8s")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def rfc3339(wall: float, timespec: Literal["seconds", "milliseconds", "microseconds"] = "seconds") -> str:
    """Format seconds since the epoch as Kubernetes does (RFC 3339, UTC), cut to whole seconds or parts of them."""
    moment = datetime.fromtimestamp(int(wall) if timespec == "seconds" else wall, UTC)
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


def parse_rfc3339(text: str) -> float:
    """Parse an RFC 3339 time with a zone into seconds since the epoch. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        message = "a time without a zone"
        raise ValueError(message)
    return moment.timestamp()


def noted_time(text: str | None) -> float:
    """A time that the API server keeps, in seconds since the epoch; 0 for none.

    0 also for what is no time here: the API server takes the year 0 from whoever writes an object; Python has none.
    """
    try:
        return parse_rfc3339(text) if text else 0.0
    except ValueError:
        return 0.0
