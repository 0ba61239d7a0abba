"""Times that servers tell in the fields of an HTTP answer: when it was made, and how long they ask to be left alone."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

MAX_RETRY_AFTER: Final = 300.0  # seconds; no more is waited, since anybody may ask, such as an admission webhook

_DIGITS: Final = re.compile(r"[0-9]+")
# RFC 9110 section 5.6.7: the format that is sent today, and the two old ones that a recipient must still take.
_DATES: Final = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")


@lru_cache(maxsize=64)  # all answers of a second have the same
def parse_http_date(text: str) -> float | None:
    """An HTTP-date (RFC 9110 section 5.6.7) in seconds since the epoch, None for anything else."""
    for form in _DATES:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return None


def parse_retry_after(text: str, now: float | None = None) -> float | None:
    """Seconds to wait by `Retry-After` (RFC 9110 section 10.2.3), 0 to `MAX_RETRY_AFTER`; None where it tells none.

    `now`, in seconds since the epoch, is what a date is counted from; without it a date tells nothing.
    """
    if _DIGITS.fullmatch(text):
        seconds = float(text)
    elif now is not None and (date := parse_http_date(text)) is not None:
        seconds = date - now
    else:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
