"""The kinds of faults: what each of them takes, how long it lasts, and what the contract says of the time after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

BOUNDARIES: Final = ("asks", "given", "writes", "written", "tells", "told")
"""Of a refresh: the request, its answer, the write of the target, its answer, that of the status, and its answer."""
COMMON: Final = ""
"""What is out of reach for everybody, in the place of a replica's or credential's name."""


class Whom(Enum):
    """Whom a kind of fault keeps from what a refresh needs."""

    ALL = auto()  # every replica
    REPLICA = auto()  # the one that it strikes
    CREDENTIAL = auto()  # a credential alone
    NOBODY = auto()  # it breaks something, or is no more than a nuisance


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        takes: What nothing else may strike in the same burst.
        wait: How long what went wrong may last once it is over, in seconds: the contract's table of waits.
        least, most: Seconds that it lasts.
        whom: Whom it keeps from what a refresh needs.
        from_start: Whether what follows counts from its beginning: another replica takes over while it lasts.
    """

    takes: tuple[str, ...]
    wait: float
    least: float
    most: float
    whom: Whom
    from_start: bool = False


REPLICA_GONE: Final = 75.0
SERVER_FAILED: Final = 150.0
CLIENT_REFUSED: Final = 360.0
RETRY_AFTER: Final = 20.0
"""Seconds that a throttled request is asked to wait."""

_KILL: Final = Kind(("leader",), REPLICA_GONE, 2, 20, Whom.REPLICA, from_start=True)
_API: Final = Kind(("api",), SERVER_FAILED, 2, 30, Whom.ALL)
_ENDPOINT: Final = Kind(("endpoint",), SERVER_FAILED, 5, 45, Whom.ALL)
_WAY_OF_LEADER: Final = Kind(("way of leader",), SERVER_FAILED, 5, 45, Whom.REPLICA, from_start=True)
_WAY_OF_STANDBY: Final = Kind(("way of standby",), SERVER_FAILED, 5, 45, Whom.REPLICA)

KINDS: Final[Mapping[str, Kind]] = {
    **{f"leader killed: {boundary}": _KILL for boundary in BOUNDARIES},
    "leader stopped": Kind(("leader",), REPLICA_GONE, 5, 45, Whom.REPLICA, from_start=True),
    "standby killed": Kind(("standby",), REPLICA_GONE, 2, 20, Whom.REPLICA),
    "standby stopped": Kind(("standby",), REPLICA_GONE, 5, 45, Whom.REPLICA),
    "rollout": Kind(("leader", "standby"), REPLICA_GONE, 15, 15, Whom.REPLICA),
    "clock ahead": Kind(("clock",), REPLICA_GONE, 10, 45, Whom.NOBODY),
    "clock behind": Kind(("clock",), REPLICA_GONE, 10, 45, Whom.NOBODY),
    "API server killed": _API,
    "etcd killed": _API,
    "API server cut, for the leader": _WAY_OF_LEADER,
    "API server swallows, for the leader": _WAY_OF_LEADER,
    "API server slow, for the leader": Kind(("way of leader",), SERVER_FAILED, 5, 45, Whom.NOBODY),
    "API server fails writes, for the leader": Kind(("way of leader",), SERVER_FAILED, 5, 45, Whom.REPLICA),
    "API server cut, for the standby": _WAY_OF_STANDBY,
    "API server swallows, for the standby": _WAY_OF_STANDBY,
    "endpoint answers 500": _ENDPOINT,
    "endpoint answers 503": _ENDPOINT,
    "endpoint answers 429": Kind(("endpoint",), SERVER_FAILED + RETRY_AFTER, 5, 45, Whom.ALL),
    "endpoint answers garbage": _ENDPOINT,
    "endpoint hangs": _ENDPOINT,
    "endpoint resets": _ENDPOINT,
    "endpoint cut": _ENDPOINT,
    "endpoint swallows": _ENDPOINT,
    "endpoint slow": Kind(("endpoint",), SERVER_FAILED, 5, 45, Whom.NOBODY),
    "target spoilt": Kind((), 0, 0, 0, Whom.NOBODY),
    "target deleted": Kind((), 0, 0, 0, Whom.NOBODY),
    "client secret rotated": Kind((), CLIENT_REFUSED, 1, 20, Whom.CREDENTIAL),
    "exchange asked for": Kind((), 0, 0, 0, Whom.NOBODY),
}
"""All kinds, by name."""
CLOCKS: Final = frozenset({"clock ahead", "clock behind"})
"""Those that need libfaketime."""
OFF: Final = 25.0
"""Seconds by which they have a wall clock be wrong: within the 30 of the first promise."""
