"""Answers of token endpoints are hostile until proven: what is taken, what is refused, and what is said about it."""

import json
import string
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tuinly_operator.base.foreign_json import DEEPEST
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.token_response import (
    MAX_BODY,
    MAX_LIFETIME,
    Answer,
    TokenResponse,
    check_verification,
    parse_token_response,
)

ORIGIN = "https://oauth.example:8443"
NOW = datetime(2026, 11, 24, 6, 0, 0, tzinfo=UTC).timestamp()
CANARY = "canary-bird"  # what a server says; no message may repeat it
GOOD: Mapping[str, object] = {
    "access_token": "at-1",
    "refresh_token": "rt-1",
    "token_type": "Bearer",
    "expires_in": 3600,
}
TOKEN_CHARACTERS = "".join(sorted(set(map(chr, range(0x21, 0x7F))) - set('"\\')))  # RFC 6749's NQCHAR


def answer(
    body: bytes | Mapping[str, object] = GOOD,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(ORIGIN, status, headers or {}, raw)


def nested(levels: int) -> bytes:
    """A good answer, in which something else has so many levels."""
    return json.dumps(GOOD).encode()[:-1] + b', "more": ' + b"[" * levels + b"]" * levels + b"}"


def judge(given_answer: Answer) -> TokenResponse | TokenRequestFailed:
    try:
        return parse_token_response(given_answer, NOW)
    except TokenRequestFailed as failure:
        return failure


def refused(given_answer: Answer) -> TokenRequestFailed:
    failure = judge(given_answer)
    assert isinstance(failure, TokenRequestFailed)
    assert failure.status == given_answer.status
    assert f"the token endpoint {ORIGIN}" in failure.message
    return failure


@pytest.mark.rule("ANS-1")
def test_what_else_an_answer_has_may_be_nested() -> None:
    assert parse_token_response(answer(nested(DEEPEST - 1)), NOW) == parse_token_response(answer(), NOW)


def test_a_good_answer_becomes_a_token_response() -> None:
    assert parse_token_response(answer(), NOW) == TokenResponse(
        access_token=Sensitive("at-1"),
        refresh_token=Sensitive("rt-1"),
        lifetime=3600,
        scopes=None,
        server_time=None,
    )


def test_no_repr_shows_a_token() -> None:
    good = answer(headers={"set-cookie": "at-1", "x-refresh": "rt-1"})
    assert "at-1" not in repr(good) + repr(parse_token_response(good, NOW))
    assert "rt-1" not in repr(good) + repr(parse_token_response(good, NOW))


tokens = st.text(TOKEN_CHARACTERS, min_size=1, max_size=200)
lifetimes = st.integers(1, MAX_LIFETIME)


@pytest.mark.rule("ANS-1")
@given(
    access=tokens,
    refresh=tokens | st.none(),
    lifetime=lifetimes,
    scopes=st.none() | st.frozensets(tokens, max_size=5),
    written=st.tuples(st.sampled_from(["Bearer", "bearer", "BEARER", "bEaReR"]), st.sampled_from([int, float, str])),
)
def test_generated_good_answers_come_back_whole(
    access: str,
    refresh: str | None,
    lifetime: int,
    scopes: frozenset[str] | None,
    written: tuple[str, type[int | float | str]],
) -> None:
    assume(not any(access in scope or (refresh or access) in scope for scope in scopes or ()))
    token_type, number = written
    members = {
        "access_token": access,
        "refresh_token": refresh,
        "token_type": token_type,
        "expires_in": number(lifetime),
        "scope": None if scopes is None else " ".join(scopes),
        "something_else": {"is": ["ignored"]},
    }
    expected = TokenResponse(Sensitive(access), Sensitive(refresh) if refresh else None, lifetime, scopes, None)
    assert parse_token_response(answer(members), NOW) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
# Valid members with any of them replaced: gets further than bytes that are no JSON at all.
nearly_good = st.dictionaries(st.sampled_from([*GOOD, "scope", "error"]), json_values, max_size=3).map(
    lambda odd: json.dumps({**GOOD, **odd}).encode(),
)
header_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40)


@pytest.mark.rule("ANS-2")
@given(
    body=st.binary(max_size=400) | nearly_good | json_values.map(lambda value: json.dumps(value).encode()),
    status=st.just(200) | st.integers(100, 999),
    headers=st.dictionaries(st.sampled_from(["date", "retry-after", "content-encoding"]), header_values),
)
def test_any_answer_is_a_token_response_in_bounds_or_a_failure(
    body: bytes, status: int, headers: dict[str, str]
) -> None:
    outcome = judge(answer(body, status=status, headers=headers))
    if isinstance(outcome, TokenResponse):
        assert status == 200
        assert 1 <= outcome.lifetime <= MAX_LIFETIME
        assert set(outcome.access_token.reveal()) <= set(TOKEN_CHARACTERS)
    else:
        assert outcome.__context__ is None  # a JSON error would hold the whole body
        assert outcome.retry_after is None or 0 <= outcome.retry_after <= 300


@pytest.mark.rule("ANS-8")
@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        pytest.param(1, 1, id="least"),
        pytest.param(2_592_000, 2_592_000, id="most"),
        pytest.param(3600.0, 3600, id="integral-number"),
        pytest.param("3600", 3600, id="digits"),
        pytest.param("0003600", 3600, id="leading-zeros"),
    ],
)
def test_lifetimes_that_are_taken(expires_in: object, lifetime: int) -> None:
    assert parse_token_response(answer({**GOOD, "expires_in": expires_in}), NOW).lifetime == lifetime


@pytest.mark.rule("ANS-8")
@pytest.mark.parametrize(
    "expires_in",
    [
        b"0",
        b"-3600",
        b"2592001",
        b"3600.5",
        b"0.5",
        b"true",
        b"null",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e400",
        b"[3600]",
        b'{"seconds": 3600}',
        b'""',
        b'"3600.0"',
        b'"-1"',
        b'" 3600"',
        b'"3600\\n"',
        b'"1e3"',
        b'"1_000"',
        pytest.param('"\N{FULLWIDTH DIGIT THREE}600"'.encode(), id="a-digit-that-is-not-ascii"),
        pytest.param(b"9" * 5000, id="an-integer-that-python-refuses-to-read"),
        pytest.param(b'"' + b"9" * 5000 + b'"', id="digits-that-python-refuses-to-read"),
    ],
)
def test_lifetimes_that_are_refused(expires_in: bytes) -> None:
    body = b'{"access_token": "at-1", "token_type": "Bearer", "expires_in": ' + expires_in + b"}"
    assert refused(answer(body)).reason is Reason.INVALID_RESPONSE


@pytest.mark.parametrize("name", ["access_token", "token_type", "expires_in"])
@pytest.mark.parametrize("change", ["missing", "null"])
def test_what_is_required_cannot_be_left_out(name: str, change: str) -> None:
    members = {**GOOD, name: None}
    if change == "missing":
        del members[name]
    failure = refused(answer(members))
    assert failure.reason is Reason.INVALID_RESPONSE
    assert f"its {name} is not" in failure.message


@pytest.mark.rule("ANS-10")
@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("two words", id="space"),
        pytest.param("line\n", id="newline"),
        pytest.param("carriage\rreturn: x", id="header-injection"),
        pytest.param('quo"te', id="quote"),
        pytest.param("back\\slash", id="backslash"),
        pytest.param("caf\u00e9", id="not-ascii"),
        pytest.param("\x7f", id="delete"),
        pytest.param("nul\x00", id="nul"),
        pytest.param("\ud800", id="half-a-surrogate-pair"),
        pytest.param("a" * 32_769, id="too-long"),
        pytest.param(5, id="number"),
        pytest.param(["at-1"], id="list"),
    ],
)
def test_tokens_that_are_refused(name: str, token: object) -> None:
    failure = refused(answer({**GOOD, name: token}))
    assert failure.reason is Reason.INVALID_RESPONSE
    assert f"its {name} is not" in failure.message


@pytest.mark.rule("ANS-10")
def test_the_longest_token_is_taken() -> None:
    token = "a" * 32_768
    assert parse_token_response(answer({**GOOD, "access_token": token}), NOW).access_token.reveal() == token


@pytest.mark.rule("ANS-9")
@pytest.mark.parametrize("token_type", ["mac", "", "bearer ", "DPoP", 1, ["Bearer"]])
def test_only_bearer_tokens_are_taken(token_type: object) -> None:
    assert refused(answer({**GOOD, "token_type": token_type})).reason is Reason.INVALID_RESPONSE


@pytest.mark.rule("ANS-11")
@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("orders:read", {"orders:read"}),
        ("b a b", {"a", "b"}),
        ("", set[str]()),
    ],
)
def test_scopes_that_are_taken(scope: str, scopes: set[str]) -> None:
    assert parse_token_response(answer({**GOOD, "scope": scope}), NOW).scopes == frozenset(scopes)


@pytest.mark.rule("ANS-11")
@pytest.mark.parametrize(
    "scope", [" ", "a  b", "a ", " a", 'a "b"', "a\\b", "a\tb", "a\u00a0b", ["a"], 7, {"a": 1}, True]
)
def test_odd_scopes_are_refused(scope: object) -> None:
    assert refused(answer({**GOOD, "scope": scope})).reason is Reason.INVALID_RESPONSE


LONG = {**GOOD, "access_token": "access-token", "refresh_token": "refresh-token"}


@pytest.mark.parametrize("secret", ["access-token", "refresh-token", "client-secret"])
@pytest.mark.parametrize("scope", ["{}", "a {} b", "client_secret={}", "({})"])
def test_a_scope_that_repeats_a_secret_is_refused(scope: str, secret: str) -> None:
    """It would be shown in the status and in the target's annotations."""
    said = answer({**LONG, "scope": scope.format(secret)})
    with pytest.raises(TokenRequestFailed, match="its scope repeats a secret") as failed:
        parse_token_response(said, NOW, [Sensitive("client-secret")])
    assert secret not in failed.value.message


@pytest.mark.parametrize(("sent", "taken"), [("rs:read", True), ("ers:read", False)], ids=["7", "8"])
def test_a_scope_that_holds_what_is_too_short_for_a_secret_is_taken(sent: str, *, taken: bool) -> None:
    said = answer({**GOOD, "scope": "orders:read"})
    if taken:
        assert parse_token_response(said, NOW, [Sensitive(sent)]).scopes == frozenset({"orders:read"})
    else:
        with pytest.raises(TokenRequestFailed):
            parse_token_response(said, NOW, [Sensitive(sent)])


@pytest.mark.rule("ANS-1")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"access_token=at-1&token_type=bearer", id="a-form"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"at-1"', id="string"),
        pytest.param(json.dumps(GOOD).encode("utf-16"), id="utf-16"),
        pytest.param(json.dumps(GOOD).encode("utf-8-sig"), id="byte-order-mark"),
        pytest.param(json.dumps(GOOD).encode()[:-1] + b', "name": "caf\xe9"}', id="latin-1"),
        pytest.param(json.dumps(GOOD).encode() + b"{}", id="two-objects"),
        pytest.param(json.dumps(GOOD).encode()[:-1], id="cut-off"),
        pytest.param(json.dumps(GOOD).encode()[:-1] + b', "access_token": "at-2"}', id="a-key-twice"),
        pytest.param(json.dumps(GOOD).encode()[:-1] + b', "more": [{"a": 1, "a": 1}]}', id="a-key-twice-further-down"),
        pytest.param(json.dumps(GOOD).encode()[:-1] + b', "more": NaN}', id="not-a-number"),
        pytest.param(json.dumps(GOOD).encode()[:-1] + b', "more": -Infinity}', id="infinity"),
        pytest.param(b"[" * MAX_BODY, id="nested-too-deep"),
        pytest.param(b'{"a":' * (MAX_BODY // 5), id="objects-nested-too-deep"),
        pytest.param(nested(DEEPEST), id="good-but-for-one-level"),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    failure = refused(answer(body))
    assert failure.reason is Reason.INVALID_RESPONSE
    assert "not a JSON object in UTF-8 that has each key once" in failure.message


@pytest.mark.rule("ANS-1")
def test_the_size_of_an_answer_is_bounded() -> None:
    body = json.dumps(GOOD).encode()
    assert parse_token_response(answer(body.ljust(MAX_BODY)), NOW).lifetime == 3600
    failure = refused(answer(body.ljust(MAX_BODY + 1)))
    assert failure.reason is Reason.INVALID_RESPONSE
    assert "longer than 64 KiB" in failure.message


def test_identity_is_no_compression() -> None:
    assert parse_token_response(answer(headers={"content-encoding": "Identity"}), NOW).lifetime == 3600


@pytest.mark.rule("ANS-1")
@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "aes128gcm", ""])
def test_compressed_answers_are_refused(encoding: str) -> None:
    failure = refused(answer(headers={"content-encoding": encoding}))
    assert failure.reason is Reason.INVALID_RESPONSE
    assert "compressed" in failure.message


UNAVAILABLE = Reason.ENDPOINT_UNAVAILABLE


@pytest.mark.rule("ERR-1")
@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (100, None, Reason.INVALID_RESPONSE),
        (201, None, Reason.INVALID_RESPONSE),
        (204, None, Reason.INVALID_RESPONSE),
        (206, None, Reason.INVALID_RESPONSE),
        (302, None, Reason.INVALID_RESPONSE),
        (307, None, Reason.INVALID_RESPONSE),
        (600, None, Reason.INVALID_RESPONSE),
        (400, None, Reason.REQUEST_REJECTED),
        (400, "invalid_request", Reason.REQUEST_REJECTED),
        (400, "invalid_grant", Reason.REQUEST_REJECTED),
        (400, "unsupported_grant_type", Reason.REQUEST_REJECTED),
        (400, "invalid_client", Reason.INVALID_CLIENT),
        (400, "unauthorized_client", Reason.INVALID_CLIENT),
        (400, "invalid_scope", Reason.INVALID_SCOPE),
        (401, None, Reason.INVALID_CLIENT),
        (401, "invalid_scope", Reason.INVALID_CLIENT),
        (403, None, Reason.REQUEST_REJECTED),
        (403, "invalid_client", Reason.INVALID_CLIENT),
        (404, None, Reason.REQUEST_REJECTED),
        (408, None, Reason.REQUEST_REJECTED),
        (499, None, Reason.REQUEST_REJECTED),
        (429, None, Reason.ENDPOINT_THROTTLED),
        (429, "invalid_client", Reason.ENDPOINT_THROTTLED),
        (500, None, UNAVAILABLE),
        (500, "invalid_client", UNAVAILABLE),
        (503, "invalid_scope", UNAVAILABLE),
        (599, None, UNAVAILABLE),
    ],
)
def test_what_a_status_means(status: int, error: str | None, reason: Reason) -> None:
    # The members of a good answer go with it: they must not redeem a wrong status.
    failure = refused(answer({**GOOD, "error": error} if error else GOOD, status=status))
    assert failure.reason is reason
    assert failure.transport == (reason is UNAVAILABLE)
    assert failure.rejected == (400 <= status < 500 and status != 429)
    assert (error or f"HTTP {status}") in failure.message or not failure.rejected


@pytest.mark.rule("ERR-4")
@pytest.mark.parametrize(
    ("status", "error", "advice"),
    [
        (401, "invalid_client", "refused the client id or secret (invalid_client); check the client Secret"),
        (400, "invalid_scope", "does not grant these scopes (invalid_scope); check spec.scopes"),
        (400, None, "rejected the request (HTTP 400); check the token URL"),
        (299, None, "answered HTTP 299 where 200 brings a token; check that the token URL is right"),
        (300, None, "redirects (HTTP 300)"),
        (399, None, "redirects (HTTP 399)"),
        (302, None, "redirects (HTTP 302), which a secret must not follow; set the token URL to its target"),
        (429, None, "limits the rate of requests"),
        (500, None, "fails (HTTP 500)"),
    ],
)
def test_messages_say_what_to_do(status: int, error: str | None, advice: str) -> None:
    assert f"the token endpoint {ORIGIN} {advice}" in refused(answer({"error": error}, status=status)).message


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xff\xfe", id="not-utf-8"),
        pytest.param(b"[" * MAX_BODY, id="nested-too-deep"),
        pytest.param(b'["invalid_scope"]', id="list"),
        pytest.param(b'{"error": ["invalid_scope"]}', id="list-of-codes"),
        pytest.param(b'{"error": {"invalid_scope": 1}}', id="object"),
        pytest.param(b'{"error": "invalid_scope "}', id="nearly-a-code"),
        pytest.param(b'{"error": "invalid_scope", "error": "invalid_scope"}', id="twice"),
        pytest.param(b'{"error": "invalid_scope"}'.ljust(MAX_BODY + 1), id="too-long"),
    ],
)
def test_an_error_body_that_is_odd_leaves_the_status_to_speak(body: bytes) -> None:
    failure = refused(answer(body, status=400))
    assert failure.reason is Reason.REQUEST_REJECTED
    assert "(HTTP 400)" in failure.message


@pytest.mark.rule("ERR-4")
@pytest.mark.parametrize("status", [200, 201, 302, 400, 401, 429, 500, 503])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"error": CANARY, "error_description": CANARY, "error_uri": f"https://{CANARY}/"}, id="error"),
        pytest.param({"error": "invalid_client", "error_description": CANARY, CANARY: CANARY}, id="description"),
        pytest.param({**GOOD, "access_token": f'{CANARY}"', "refresh_token": CANARY}, id="access-token"),
        pytest.param({**GOOD, "refresh_token": f"{CANARY} "}, id="refresh-token"),
        pytest.param({**GOOD, "scope": f"{CANARY}  "}, id="scope"),
        pytest.param({**GOOD, "token_type": CANARY}, id="token-type"),
        pytest.param({**GOOD, "expires_in": CANARY}, id="lifetime"),
        pytest.param(f"{CANARY} {{".encode(), id="no-json"),
        pytest.param(f'{{"{CANARY}": "{CANARY}", "{CANARY}": "{CANARY}"}}'.encode(), id="key-twice"),
    ],
)
def test_no_message_repeats_what_the_server_said(status: int, body: bytes | Mapping[str, object]) -> None:
    headers = {"retry-after": CANARY, "date": CANARY, "location": f"https://{CANARY}/", "server": CANARY}
    failure = refused(answer(body, status=status, headers=headers))
    assert CANARY not in f"{failure} {failure!r} {failure.args}"


def http_date(seconds_from_now: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW + seconds_from_now, UTC), usegmt=True)


@pytest.mark.rule("LIM-9")
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("17", 17),
        (" 17 ", 17),
        ("300", 300),
        ("301", 300),
        pytest.param("9" * 8000, 300, id="thousands-of-digits"),
        (http_date(45), 45),
        (http_date(-45), 0),
        (http_date(86400), 300),
        ("Tuesday, 24-Nov-26 06:00:45 GMT", 45),
        ("Tue Nov 24 06:00:45 2026", 45),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("5, 7", None),
        ("0x10", None),
        ("Tue, 24 Nov 2026 06:00:45 CET", None),
        ("Tue, 32 Nov 2026 06:00:45 GMT", None),
        ("Tue, 24 Nov 0000 06:00:45 GMT", None),
    ],
)
def test_retry_after(status: int, text: str, seconds: float | None) -> None:
    assert refused(answer(b"", status=status, headers={"retry-after": text})).retry_after == seconds


@pytest.mark.rule("LIM-10")
def test_a_retry_after_date_goes_by_the_clock_it_was_made_with() -> None:
    headers = {"date": http_date(-600), "retry-after": http_date(-570)}
    assert refused(answer(b"", status=503, headers=headers)).retry_after == 30


@pytest.mark.parametrize("status", [201, 302, 400, 401, 403, 500, 502, 504])
def test_retry_after_counts_nowhere_else(status: int) -> None:
    assert refused(answer(b"", status=status, headers={"retry-after": "17"})).retry_after is None


@pytest.mark.parametrize(
    ("text", "server_time"),
    [
        (http_date(-20), NOW - 20),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("", None),
        ("yesterday", None),
        ("2026-11-24T06:00:00Z", None),
        (f"{string.digits} {CANARY}", None),
    ],
)
def test_the_servers_clock_is_read_from_date(text: str, server_time: float | None) -> None:
    assert parse_token_response(answer(headers={"date": text}), NOW).server_time == server_time


# --- Whether a token works --------------------------------------------------------------------------------------------

ERRORS = [{"message": CANARY}]
FAILED, UNKNOWN = Reason.VERIFICATION_FAILED, Reason.VERIFICATION_INCONCLUSIVE


def verification(status: int, body: object = b"", headers: dict[str, str] | None = None) -> TokenRequestFailed | None:
    """Return what a GraphQL answer raises."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        check_verification(Answer("https://graphql.example", status, headers or {}, raw), NOW)
    except TokenRequestFailed as failure:
        return failure
    return None


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        # It speaks of the token.
        (401, b"", FAILED),
        (403, b"", FAILED),
        (401, {"data": {"__typename": "Query"}}, FAILED),
        (200, {"errors": ERRORS}, FAILED),
        (200, {"errors": ERRORS, "data": None}, FAILED),
        (200, {"data": {"__typename": "Query"}}, None),
        (200, {"data": {}}, None),
        (200, {"data": {"__typename": "Query"}, "errors": ERRORS}, None),
        # It does not.
        (200, {}, UNKNOWN),
        (200, {"data": None}, UNKNOWN),
        (200, {"errors": []}, UNKNOWN),
        (200, [{"data": {}}], UNKNOWN),
        (200, b"<html>", UNKNOWN),
        (200, b'{"data": {}}'.ljust(MAX_BODY + 1), UNKNOWN),
        (201, {"data": {}}, UNKNOWN),
        (400, {"errors": ERRORS}, UNKNOWN),
        (402, {"errors": ERRORS}, UNKNOWN),
        (429, b"", UNKNOWN),
        (500, {"errors": ERRORS}, UNKNOWN),
    ],
    ids=range(19),
)
def test_only_an_answer_that_speaks_of_the_token_accepts_or_rejects_it(
    status: int, body: object, reason: Reason | None
) -> None:
    failure = verification(status, body)
    assert (failure.reason if failure else None) is reason
    assert failure is None or "https://graphql.example" in failure.message
    assert CANARY not in str(failure)


@pytest.mark.rule("VERIFY-4")
@pytest.mark.parametrize("status", [200, 204, 301, 302, 308, 400, 404, 429, 431, 499, 500, 502, 503, 599])
def test_only_a_5xx_to_a_verification_speaks_against_the_endpoint(status: int) -> None:
    failure = verification(status, b"<html>")
    assert failure is not None
    assert (failure.status, failure.transport) == (status, status >= 500)


@pytest.mark.rule("VERIFY-5")
@pytest.mark.parametrize(("status", "wait"), [(429, 120.0), (503, 120.0), (500, None), (404, None), (403, None)])
def test_retry_after_of_a_verification_is_read_where_it_has_a_meaning(status: int, wait: float | None) -> None:
    failure = verification(status, headers={"retry-after": "120"})
    assert failure is not None
    assert failure.retry_after == wait
