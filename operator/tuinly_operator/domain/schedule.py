"""When a token is refreshed and when a failed attempt is tried again: lead, jitter, slack, backoff, pure arithmetic."""

import hashlib
from functools import lru_cache
from typing import Final

from tuinly_operator.base.clock import parse_duration
from tuinly_operator.domain.credential import RefreshSpec
from tuinly_operator.domain.errors import Failure
from tuinly_operator.domain.target import TokenState

MIN_LEAD: Final = 120.0  # seconds: 80 for the kubelet to show a changed Secret to its Pods, the rest for retries
DEFAULT_LEAD_PERCENTAGE: Final = 33
JITTER: Final = 0.1  # of the time from issue to the latest refresh; and the least jitter above a least wait
_SLACK: Final = 0.01  # of the lifetime
_MOST_SLACK: Final = 3.0  # seconds: at 5 refreshes per second and more, a longer slack saves hardly more
_BACKOFF_BASE: Final = 2.0  # seconds
_LONGEST: Final = 60.0  # seconds between two attempts
_SOON: Final = 10.0  # the same, at the end of a token's life
_LONGEST_PATIENT: Final = 300.0  # the same, for failures that only a person can mend


def lead(refresh: RefreshSpec, lifetime: float) -> float:
    """Seconds before expiry at which a token is refreshed at the latest.

    What the spec asks for, raised to two minutes, cut to half the lifetime: a token is used for at least half of its
    life.
    """
    if refresh.before is not None:
        wanted = parse_duration(refresh.before)
    else:
        wanted = lifetime * (refresh.before_percentage or DEFAULT_LEAD_PERCENTAGE) / 100
    return min(max(wanted, MIN_LEAD), lifetime / 2)


def refresh_offset(refresh: RefreshSpec, state: TokenState) -> float:
    """Seconds after issue at which to refresh: the lead before expiry, less a jitter that only makes it earlier.

    The jitter is computed from the token's identity, as if it were drawn: it is uniform over credentials, and yet the
    same each time it is asked for, also after a restart or with another lead.
    """
    latest = state.lifetime - lead(refresh, state.lifetime)
    return latest * (1 - JITTER * _drawn(state.credential_uid, state.issued_at))


@lru_cache(maxsize=256)  # asked for more than a dozen times in a refresh
def _drawn(credential_uid: str, issued_at: int) -> float:
    digest = hashlib.sha256(f"{credential_uid} {issued_at}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def slack(lifetime: float) -> float:
    """Seconds by which a refresh may be earlier than it is due, so as to share a wake-up with others."""
    return min(lifetime * _SLACK, _MOST_SLACK)


def retry_delay(failure: Failure, attempts: int, life_left: float, least: float, drawn: float) -> float:
    """Seconds to wait after a failed attempt: at least `least`, and a jitter above it that grows with each failure.

    `attempts` counts failures in a row, `life_left` is in seconds, `drawn` is uniform in [0, 1). The whole of what is
    above the least wait is drawn ("full jitter"), so that those who failed together do not come back together. A token
    that still lives is worth several tries before its end; where there is none left to save, there is no hurry.
    """
    cap = _LONGEST_PATIENT if failure.patient else _LONGEST
    if life_left > 0:
        cap = min(cap, max(_SOON, life_left / 4))
    span = min(cap - least, _BACKOFF_BASE * 2.0 ** min(attempts, 16))
    return least + drawn * max(span, least * JITTER)
