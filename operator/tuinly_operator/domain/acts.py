"""What can be decided for a credential: one next act, with what it was decided on, or rest."""

from dataclasses import dataclass
from enum import Enum, auto

from tuinly_operator.base.clock import Deadline
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.errors import Failure
from tuinly_operator.domain.facts import Purpose
from tuinly_operator.domain.memory import Client, IssuedToken, RefreshToken, Setback
from tuinly_operator.domain.target import SecretMeta


class Need(Enum):
    """Why a token is asked for."""

    FIRST = auto()
    LOST = auto()
    LAYOUT_CHANGED = auto()
    EXPIRED = auto()
    INPUTS_CHANGED = auto()
    CLIENT_CHANGED = auto()
    FORCED = auto()
    DUE = auto()


class Cause(Enum):
    """Why the target is written."""

    NEW_TOKEN = auto()
    BROKEN = auto()  # by somebody else
    NEW_LAYOUT = auto()  # is asked for


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is to be done now.

    `blocked_by` says what keeps a token from being asked for or written. `requeue_at` is when time alone changes
    something; users are told of it. `recheck_at` is when to look once more at what no watch may tell of. `parks` are
    the requests of which the limiter will say when it is their turn. A `silent` rest writes no status.
    """

    blocked_by: Failure | None = None
    requeue_at: Deadline | None = None
    recheck_at: Deadline | None = None
    parks: frozenset[Purpose] = frozenset()
    silent: bool = False


@dataclass(frozen=True, slots=True)
class ReadClientSecret:
    """Read the client id and secret."""


@dataclass(frozen=True, slots=True)
class ProveAbsence:
    """Ask the API server itself whether there is really no target: the watch may be late, or leave it out."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Ask for a token by client credentials; `version` is that of the client Secret that they were read from."""

    why: Need
    client: Client
    version: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """Ask for one by the refresh token that came with the present one; `version` is as in an exchange."""

    why: Need
    token: RefreshToken
    present: IssuedToken
    version: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Try a new token; `last` is what came of it the last time."""

    held: IssuedToken
    token: Sensitive
    last: Setback | None


@dataclass(frozen=True, slots=True)
class Publish:
    """Write a token to the target.

    `untried` says that nobody could tell whether it works; `due` is when the refresh that gave it was due, None if that
    was no routine refresh.
    """

    held: IssuedToken
    token: Sensitive
    cause: Cause
    untried: bool
    due: Deadline | None = None


@dataclass(frozen=True, slots=True)
class AskWhoServes:
    """Ask the API server for the credential as it is, right before something is done for it: ours to serve, or gone.

    `other` is the token that somebody else has written into the target since our last write, if anybody has. With
    `target` the target is read live before: another leader may have written it.
    """

    other: IssuedToken | None
    target: bool = False


@dataclass(frozen=True, slots=True)
class RemoveOldTargets:
    """Delete earlier targets under other names, and tell users of `look_alikes`: names of Secrets that only look so."""

    targets: tuple[tuple[NamespacedName, SecretMeta], ...]
    look_alikes: frozenset[str]


Attempt = Exchange | Refresh
Act = ReadClientSecret | ProveAbsence | Exchange | Refresh | Verify | Publish | AskWhoServes | RemoveOldTargets
Decision = Rest | Act  # one next act, with what it was decided on
