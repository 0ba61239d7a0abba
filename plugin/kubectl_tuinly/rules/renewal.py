"""What came of something that was asked for, as the credential's status tells it, and why it has to wait."""

from typing import Final, NamedTuple

from tuinly_operator.base.clock import parse_rfc3339
from tuinly_operator.domain.credential import READY, REFRESHED, Credential
from tuinly_operator.domain.decision import FORCED_INTERVAL
from tuinly_operator.domain.errors import Reason

_UNKNOWN: Final = "nobody has told yet"


class Came(NamedTuple):
    """What came of it: `good` is None as long as it is under way."""

    good: bool | None
    text: str


def outcome_of(credential: Credential, value: str) -> Came:
    """Whether the exchange that was asked for by that value was tried, and what it gave."""
    refreshed, ready = credential.status.condition(REFRESHED), credential.status.condition(READY)
    told = f"{refreshed.reason}: {refreshed.message}" if refreshed is not None else _UNKNOWN
    if credential.status.last_handled_refresh != value or refreshed is None:
        return Came(None, told)
    if refreshed.status == "Unknown":
        return Came(None, told)
    if refreshed.status == "True":
        return Came(good=True, text=f"there is a new token, until {credential.status.token_expiration_time}")
    stays = "; the present token stays" if ready is not None and ready.status == "True" else ""
    return Came(good=False, text=f"{told}{stays}")


def suspension_of(credential: Credential, *, wanted: bool) -> Came:
    """Whether the operator has taken note of spec.suspend."""
    status = credential.status
    refreshed = status.condition(REFRESHED)
    if credential.spec.suspend is not wanted:
        return Came(good=False, text="somebody has set spec.suspend to the contrary meanwhile")
    if status.observed_generation != credential.generation or refreshed is None:
        return Came(None, "the operator has yet to look at it")
    if wanted:
        return Came(good=True, text="suspended: no token is asked for")
    return Came(good=True, text=f"resumed; {refreshed.reason}: {refreshed.message}")


def why_it_waits(credential: Credential, now: float) -> str:
    """Why an exchange that is forced now does not begin at once, as far as the status tells; empty if it should."""
    told = credential.status
    refreshed = told.condition(REFRESHED)
    if credential.spec.suspend:
        return "it is suspended, so nothing happens until it is resumed: kubectl tuinly resume"
    if told.observed_generation in {None, -1}:
        return "no operator has ever looked at it: kubectl tuinly why tells more"
    if refreshed is not None and refreshed.status == "False" and refreshed.reason == Reason.ENDPOINT_THROTTLED:
        return f"forcing does not pass a Retry-After of the endpoint; the next attempt is due {told.next_refresh_time}"
    if told.last_refresh_time and _since(told.last_refresh_time, now) < FORCED_INTERVAL:
        return f"a token came a moment ago, and exchanges are up to {FORCED_INTERVAL:g} s apart: it may take that long"
    return ""


def after_refusal(credential: Credential) -> str:
    """What to say where nothing came in time, though somebody serves it."""
    refreshed = credential.status.condition(REFRESHED)
    return f"{refreshed.reason}: {refreshed.message}" if refreshed is not None else _UNKNOWN


def _since(text: str, now: float) -> float:
    try:
        return now - parse_rfc3339(text)
    except ValueError:
        return float("inf")
