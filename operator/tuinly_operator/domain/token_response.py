"""What an endpoint answered, proven or refused: pure functions from an answer to what it is worth, no I/O.

An answer is hostile until proven: nothing in it is believed before it was checked, and of its text only the error codes
that RFC 6749 lists ever reach a message.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from tuinly_operator.base.foreign_json import shallow
from tuinly_operator.base.http_times import parse_http_date, parse_retry_after
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.base.text import NQCHARS
from tuinly_operator.domain.errors import Reason, TokenRequestFailed

MAX_BODY: Final = 64 * 1024  # bytes
MAX_TOKEN: Final = 32 * 1024  # characters
MAX_LIFETIME: Final = 2_592_000  # seconds; 30 days
_LEAST_SECRET: Final = 8  # characters; anything shorter occurs in innocent words by chance, and is no secret

# RFC 6749 section 5.2. Any other `error` is the server's own text and is not repeated.
_ERROR_CODES: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    },
)
_CLIENT_ERRORS: Final = frozenset({"invalid_client", "unauthorized_client"})

_DIGITS: Final = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from the endpoint at `origin`, nothing of it believed yet.

    `headers` finds a field by its lower-case name. `body` holds the raw bytes as sent; its reader stops one byte after
    `MAX_BODY`, so that a longer answer is known to be one.
    """

    origin: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """A proven answer (RFC 6749 section 5.1).

    `lifetime` is in seconds, 1 to `MAX_LIFETIME`. `scopes` is None where the answer does not say: those requested.
    `server_time` is the answer's `Date` in seconds since the epoch, None where it cannot be read.
    """

    access_token: Sensitive
    refresh_token: Sensitive | None
    lifetime: int
    scopes: frozenset[str] | None
    server_time: float | None


def check_verification(answer: Answer, now: float) -> None:
    """Prove by a GraphQL answer to `{__typename}` that the token works, or raise TokenRequestFailed.

    VERIFICATION_FAILED: the answer is about the token, and it does not work (RFC 6750 section 3.1; a GraphQL answer
    whose `errors` left no `data`). VERIFICATION_INCONCLUSIVE: any other answer, which says nothing about the token.
    `now` counts as for `parse_token_response`.
    """
    status = answer.status
    members = _json_object(answer.body) if status == HTTPStatus.OK else None
    if members is not None and members.get("data") is not None:
        return
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) or (members is not None and members.get("errors")):
        message = f"the new token does not work at {answer.origin}; check the client's rights"
        raise TokenRequestFailed(Reason.VERIFICATION_FAILED, message, status)
    message = f"{unverified(answer.origin)} answered HTTP {status} without data; it is tried again"
    raise TokenRequestFailed(
        Reason.VERIFICATION_INCONCLUSIVE, message, status, _retry_after(answer, now), transport=_is_outage(status)
    )


def unverified(origin: str) -> str:
    """The beginning of a sentence that says why a verification showed nothing."""
    return f"the new token is not verified: the GraphQL endpoint {origin}"


def parse_token_response(answer: Answer, now: float, sent: Collection[Sensitive] = ()) -> TokenResponse:
    """Prove `answer`, or raise TokenRequestFailed with the reason that its status and error code stand for.

    `now`, the wall clock in seconds since the epoch, only counts for a `Retry-After` date that comes without a `Date`.
    `sent` are the secrets of the request, which the answer may echo.
    """
    if answer.status != HTTPStatus.OK:
        raise _refusal(answer, now)
    members = _members(answer)
    _check_type(answer, members)
    refresh_token = members.get("refresh_token")
    response = TokenResponse(
        access_token=_token(answer, members, "access_token"),
        # A member that is null is one that was not sent.
        refresh_token=None if refresh_token is None else _token(answer, members, "refresh_token"),
        lifetime=_lifetime(answer, members),
        scopes=_scopes(answer, members),
        server_time=_server_time(answer),
    )
    tokens = [token for token in (response.access_token, response.refresh_token) if token is not None]
    if _tells(response.scopes or (), [*sent, *tokens]):
        raise _unusable(answer, "its scope repeats a secret, and scopes are shown to people")
    return response


def _tells(scopes: Collection[str], secrets: Collection[Sensitive]) -> bool:
    """Whether a scope holds a secret."""
    values = [value for value in (secret.reveal() for secret in secrets) if len(value) >= _LEAST_SECRET]
    return any(value in scope for scope in scopes for value in values)


def _members(answer: Answer) -> dict[str, object]:
    """The members of the JSON object in a good answer."""
    if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise _unusable(answer, "it is compressed, though that was not asked for")
    if len(answer.body) > MAX_BODY:
        raise _unusable(answer, f"it is longer than {MAX_BODY // 1024} KiB")
    members = _json_object(answer.body)
    if members is None:
        raise _unusable(answer, "it is not a JSON object in UTF-8 that has each key once")
    return members


def _check_type(answer: Answer, members: Mapping[str, object]) -> None:
    token_type = members.get("token_type")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise _unusable(answer, "its token_type is not Bearer")


def _token(answer: Answer, members: Mapping[str, object], name: str) -> Sensitive:
    value = members.get(name)
    if not isinstance(value, str) or len(value) > MAX_TOKEN or not NQCHARS.fullmatch(value):
        limits = f"without space, quote and backslash, 1 to {MAX_TOKEN:,} characters"
        raise _unusable(answer, f"its {name} is not printable ASCII {limits}")
    return Sensitive(value)


def _lifetime(answer: Answer, members: Mapping[str, object]) -> int:
    """`expires_in` in seconds. RFC 6749 only recommends it, but a refresh in time needs it, so here it is required."""
    value = members.get("expires_in")
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = float(value)  # not int(), which refuses thousands of digits with an exception
    # A bool is an int to Python. The range goes first: int() takes no infinity.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MAX_LIFETIME or value % 1:
        raise _unusable(answer, f"its expires_in is not a whole number of seconds from 1 to {MAX_LIFETIME:,}")
    return int(value)


def _scopes(answer: Answer, members: Mapping[str, object]) -> frozenset[str] | None:
    """The granted scopes (RFC 6749 section 3.3). An empty string, which real servers send, grants none."""
    value = members.get("scope")
    if value is None:
        return None
    if value == "":
        return frozenset()
    if not isinstance(value, str) or not all(NQCHARS.fullmatch(token) for token in value.split(" ")):
        raise _unusable(answer, "its scope is not a list of scopes with one space between them")
    return frozenset(value.split(" "))


def _unusable(answer: Answer, flaw: str) -> TokenRequestFailed:
    message = (
        f"the answer of the token endpoint {answer.origin} holds no usable token: {flaw}; "
        "check that the token URL is right and what answers there"
    )
    return TokenRequestFailed(Reason.INVALID_RESPONSE, message, status=answer.status)


def _refusal(answer: Answer, now: float) -> TokenRequestFailed:
    """What a status other than 200 means."""
    endpoint, status = f"the token endpoint {answer.origin}", answer.status
    kind = status // 100
    if _is_outage(status):
        # Whatever its body says: an error code from a server that fails proves nothing about the client.
        message = f"{endpoint} fails (HTTP {status}); it is asked again until it recovers"
        retry_after = _retry_after(answer, now)
        return TokenRequestFailed(Reason.ENDPOINT_UNAVAILABLE, message, status, retry_after, transport=True)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        message = f"{endpoint} limits the rate of requests (HTTP {status}); it is asked again later"
        return TokenRequestFailed(Reason.ENDPOINT_THROTTLED, message, status, _retry_after(answer, now))
    if kind == 4:  # noqa: PLR2004 -- HTTP status classes
        return _rejection(answer)
    if kind == 3:  # noqa: PLR2004 -- HTTP status classes
        message = (
            f"{endpoint} redirects (HTTP {status}), which a secret must not follow; set the token URL to its target"
        )
    else:
        message = f"{endpoint} answered HTTP {status} where 200 brings a token; check that the token URL is right"
    return TokenRequestFailed(Reason.INVALID_RESPONSE, message, status)


def _is_outage(status: int) -> bool:
    """Whether a status speaks against the endpoint itself, not against the request."""
    return status // 100 == 5  # noqa: PLR2004 -- HTTP status classes


def _rejection(answer: Answer) -> TokenRequestFailed:
    """What a 4xx means, by its status and its error code (RFC 6749 section 5.2)."""
    endpoint, status, code = f"the token endpoint {answer.origin}", answer.status, _error_code(answer.body)
    detail = f"({code or f'HTTP {status}'})"
    if status == HTTPStatus.UNAUTHORIZED or code in _CLIENT_ERRORS:
        reason, message = Reason.INVALID_CLIENT, f"refused the client id or secret {detail}; check the client Secret"
    elif code == "invalid_scope":
        reason, message = Reason.INVALID_SCOPE, f"does not grant these scopes {detail}; check spec.scopes"
    else:
        reason = Reason.REQUEST_REJECTED
        message = f"rejected the request {detail}; check the token URL and what this client is allowed there"
    return TokenRequestFailed(reason, f"{endpoint} {message}", status)


def _error_code(body: bytes) -> str | None:
    """The error code of a 4xx, None where there is none that RFC 6749 lists: the status alone is meaning enough."""
    code = (_json_object(body) or {}).get("error")
    return code if isinstance(code, str) and code in _ERROR_CODES else None


def _json_object(body: bytes) -> dict[str, object] | None:
    """The JSON object that `body` is, None if it is anything else.

    None instead of an exception: JSON errors carry the whole text with them, and with it the token.
    """
    if len(body) > MAX_BODY or shallow(body) != body:  # at the end of its stack Python fails at all that it does
        return None
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except ValueError:  # not UTF-8, not JSON, or an integer of thousands of digits
        return None
    return value if isinstance(value, dict) else None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse an object that has a key twice: readers differ on which one counts (RFC 8259 section 4)."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _no_number(_: str) -> object:
    """Refuse NaN and the infinities, which Python's parser takes and JSON does not have."""
    raise ValueError


def _retry_after(answer: Answer, now: float) -> float | None:
    """Seconds to wait by the `Retry-After` of a 429 or 503. A date counts by the server's own clock, if known."""
    if answer.status not in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return None
    server_time = _server_time(answer)
    return parse_retry_after(answer.headers.get("retry-after", "").strip(), now if server_time is None else server_time)


def _server_time(answer: Answer) -> float | None:
    return parse_http_date(answer.headers.get("date", "").strip())
