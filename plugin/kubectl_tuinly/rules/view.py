"""A credential as a row of `status`: what its conditions come to, how long its token lives, who can do something."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tuinly_operator.base.clock import parse_rfc3339, rfc3339
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import READY, REFRESHED, Condition, Credential
from tuinly_operator.domain.errors import Actor, Reason

PENDING: Final = "Pending"  # what the API server says of a credential that no operator has looked at

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class Row:
    """A credential at one moment. Times are seconds since the epoch, None where there is none; `life` is 0 to 1."""

    key: NamespacedName
    ready: str
    reason: str
    message: str
    whose: str
    suspended: bool
    current: bool
    expires: float | None
    issued: float | None
    refresh: float | None
    secret: str
    failures: int
    now: float

    @property
    def is_ready(self) -> bool:
        """Whether the target holds a good token for the spec as it is, now."""
        return self.ready == "True" and self.current and (self.expires is None or self.expires > self.now)

    @property
    def is_fine(self) -> bool:
        """Whether nobody needs to look at it."""
        return self.is_ready and self.reason == Reason.ISSUED

    @property
    def life(self) -> float | None:
        """Which part of the token's life is left."""
        if self.expires is None or self.issued is None or self.expires <= self.issued:
            return None
        return min(max((self.expires - self.now) / (self.expires - self.issued), 0.0), 1.0)

    @property
    def need(self) -> tuple[int, float, NamespacedName]:
        """What to sort by: those that need attention first, and of equals the one whose token ends first."""
        fine = 0 if not self.is_ready and self.reason != Reason.SUSPENDED else 1 if not self.is_fine else 2
        return fine, self.expires if self.expires is not None else float("-inf"), self.key

    def as_data(self) -> dict[str, Any]:
        """The row for programs."""
        return {
            "namespace": self.key.namespace,
            "name": self.key.name,
            "ready": self.is_ready,
            "reason": self.reason,
            "message": self.message,
            "upTo": self.whose or None,
            "suspended": self.suspended,
            "secretName": self.secret or None,
            "tokenExpirationTime": _time(self.expires),
            "secondsLeft": None if self.expires is None else int(self.expires - self.now),
            "nextRefreshTime": _time(self.refresh),
            "lastRefreshTime": _time(self.issued),
            "failedAttempts": self.failures,
        }


def row_of(raw: Mapping[str, Any], now: float) -> Row:
    """Read a credential of the API; one that cannot be understood shows as such."""
    credential = Credential.from_object(raw)
    told = credential.status
    ready, refreshed = told.condition(READY), told.condition(REFRESHED)
    telling = _telling(ready, refreshed)
    expires = _seconds(told.token_expiration_time)
    reason, message = (telling.reason, telling.message) if telling else (PENDING, "no operator has looked at this yet")
    if ready is not None and ready.status == "True" and expires is not None and expires <= now:
        reason, message = Reason.TOKEN_EXPIRED, "the token has expired, and no operator has told of it: none is at work"
    return Row(
        key=credential.key,
        ready=ready.status if ready else "Unknown",
        reason=reason,
        message=message,
        whose=_whose(reason, refreshed),
        suspended=credential.spec.suspend,
        current=told.observed_generation == credential.generation,
        expires=expires,
        issued=_seconds(told.last_refresh_time),
        refresh=_seconds(told.next_refresh_time),
        secret=told.secret_name or "",
        failures=told.failed_attempts or 0,
        now=now,
    )


def rows_of(raw: Iterable[Mapping[str, Any]], now: float) -> list[Row]:
    """Read credentials, those first that need attention."""
    return sorted((row_of(each, now) for each in raw), key=lambda row: row.need)


def _telling(ready: Condition | None, refreshed: Condition | None) -> Condition | None:
    """The condition that says what is the matter: of a ready one, what hinders its next token."""
    if ready is None or refreshed is None or ready.status != "True":
        return ready
    return ready if refreshed.status == "True" else refreshed


def actor_of(reason: str) -> Actor:
    """Who can do something about a reason; nobody, where another version of the operator wrote it."""
    if reason == PENDING:
        return Actor.ADMIN
    try:
        return Reason(reason).actor
    except ValueError:
        return Actor.NOBODY


def _whose(reason: str, refreshed: Condition | None) -> Actor:
    if reason == Reason.TOKEN_EXPIRED:
        cause = refreshed.reason if refreshed is not None else PENDING
        return Actor.ADMIN if cause in {Reason.ISSUED, Reason.TOKEN_EXPIRED} else actor_of(cause)
    return actor_of(reason)


def _seconds(text: str | None) -> float | None:
    try:
        return parse_rfc3339(text) if text else None
    except ValueError:
        return None


def _time(seconds: float | None) -> str | None:
    try:
        return None if seconds is None else rfc3339(seconds)
    except ValueError:  # the year 10000, as a zone makes it of what the schema takes
        return None


def span(seconds: float) -> str:
    """A time that passes, as kubectl writes ages: `45s`, `12m`, `3h20m`, `5d`."""
    whole = int(seconds)
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 2 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d"


def moment(seconds: float | None, now: float, *, past: str = "ago") -> str:
    """A time as seen from now: `in 12m`, `3m ago`; `past` is what is said of one that is over."""
    if seconds is None:
        return "-"
    if seconds > now:
        return f"in {span(seconds - now)}"
    return f"{span(now - seconds)} ago" if past == "ago" else past
