"""Answers: the right one as data, and the catalogue of hostile and odd ones, each made from the right one by name."""

import gzip
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http import HTTPStatus

JSON_TYPE = "application/json;charset=UTF-8"
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749, section 5.1
WITHOUT_DATE = ""  # as the Date header's value: the server, which adds one to every answer, leaves it out
SIZE_LIMIT = 64 * 1024  # what a careful client reads of an answer at most


@dataclass(frozen=True)
class Answer:
    """An HTTP answer before it is sent.

    Attributes:
        chunked: Sent without a Content-Length.
        cut: The connection is reset after so many bytes of the body.
        raw: Sent in place of anything that HTTP knows.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    chunked: bool = False
    cut: int | None = None
    raw: bytes | None = None


def json_answer(status: int, document: object, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a JSON answer that no cache may keep."""
    body = json.dumps(document).encode()
    return Answer(status, body, {"Content-Type": JSON_TYPE, **NO_STORE, **(headers or {})})


@dataclass(frozen=True)
class Twist:
    """What a hostile answer is made from.

    Attributes:
        good: The right answer, status 200.
        form: The parameters of the request (empty at the GraphQL endpoint).
        seconds: The fault's ``seconds``, where the answer has use for them.
        headers: The fault's headers; they are added to whatever the answer's are.
    """

    good: Answer
    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    seconds: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, object]:
        """The right answer's JSON object."""
        document: dict[str, object] = json.loads(self.good.body)
        return document

    def with_body(self, body: bytes) -> Answer:
        """Return the right answer with another body."""
        return replace(self.good, body=body)

    def with_headers(self, **headers: str) -> Answer:
        """Return the right answer with more headers (``_`` stands for ``-``)."""
        added = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self.good, headers={**self.good.headers, **added})

    def with_fields(self, **fields: object) -> Answer:
        """Return the right answer with other fields in its JSON object."""
        return self.with_body(json.dumps({**self.document, **fields}).encode())

    def without(self, name: str) -> Answer:
        """Return the right answer without a field."""
        return self.with_body(json.dumps({key: value for key, value in self.document.items() if key != name}).encode())

    def with_literal(self, name: str, literal: str) -> Answer:
        """Return the right answer with a field written as JSON (or what is none) literally."""
        others = {key: value for key, value in self.document.items() if key != name}
        return self.with_body(f'{json.dumps(others)[:-1]}, "{name}": {literal}}}'.encode())


@dataclass(frozen=True)
class Named:
    """An answer of the catalogue; `usable` ones are odd, but a client has no reason to refuse them."""

    description: str
    make: Callable[[Twist], Answer]
    usable: bool = False


def catalogue(endpoint: str) -> Mapping[str, Named]:
    """Return the named answers of an endpoint, ``token`` or ``graphql``."""
    return _OF_ENDPOINT[endpoint]


def twisted(name: str, endpoint: str, twist: Twist) -> Answer:
    """Make the answer of this name. The fault's own headers come on top."""
    answer = catalogue(endpoint)[name].make(twist)
    return replace(answer, headers={**answer.headers, **twist.headers})


def _padding(size: int) -> str:
    return "x" * size


def _duplicate_keys(twist: Twist) -> Answer:
    """Say each thing twice, the second time otherwise: parsers differ in which one they believe."""
    body = twist.good.body.decode()
    first = next(iter(twist.document))
    return twist.with_body(f'{body[:-1]}, "{first}": "the-other-one"}}'.encode())


def _gzipped(twist: Twist, document: object) -> Answer:
    return replace(twist.with_headers(Content_Encoding="gzip"), body=gzip.compress(json.dumps(document).encode()))


def _redirect(status: HTTPStatus) -> Named:
    """A redirect to the endpoint itself, so that the ledger shows who follows; the fault's headers may name another."""
    return Named(
        f"{status.value}, Location: the endpoint itself (or the fault's headers' own)",
        lambda twist: Answer(status.value, headers={**NO_STORE, "Location": "?redirected"}, body=twist.good.body),
    )


def _status(status: HTTPStatus, *, body: bool = True) -> Named:
    return Named(
        f"{status.value} {status.phrase} {'with the right body' if body else 'without a body'}",
        lambda twist: replace(twist.good, status=status.value, body=twist.good.body if body else b""),
    )


def _body(description: str, body: bytes) -> Named:
    return Named(description, lambda twist: twist.with_body(body))


_COMMON = {
    "not_json": Named(
        "an HTML page of a proxy",
        lambda twist: replace(twist.with_headers(Content_Type="text/html"), body=b"<html><body>Welcome</body></html>"),
    ),
    "empty_body": _body("200 without a body", b""),
    "truncated_json": Named("JSON that stops in the middle", lambda twist: twist.with_body(twist.good.body[:-9])),
    "truncated_transfer": Named(
        "the connection is reset in the middle of the body", lambda twist: replace(twist.good, cut=20)
    ),
    "not_http": Named("no HTTP at all", lambda twist: replace(twist.good, raw=b"220 mail.example ESMTP\r\n")),
    "non_utf8": Named(
        "bytes that are no UTF-8", lambda twist: twist.with_body(twist.good.body[:-1] + b', "note": "\xff\xfe"}')
    ),
    "utf16": Named("UTF-16", lambda twist: twist.with_body(twist.good.body.decode().encode("utf-16"))),
    "array": Named("a JSON array around the object", lambda twist: twist.with_body(b"[" + twist.good.body + b"]")),
    "json_null": _body("null", b"null"),
    "json_string": _body("a JSON string", b'"token"'),
    "deeply_nested": _body("30,000 nested arrays", b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
    "duplicate_keys": Named("a key that is there twice", _duplicate_keys),
    "huge": Named("a body over 64 KiB", lambda twist: twist.with_fields(note=_padding(SIZE_LIMIT))),
    "huge_chunked": Named(
        "the same without a Content-Length",
        lambda twist: replace(twist.with_fields(note=_padding(SIZE_LIMIT)), chunked=True),
    ),
    "gzip": Named("gzip, whatever was asked for", lambda twist: _gzipped(twist, twist.document)),
    "gzip_bomb": Named(
        "a few KiB that unpack to 8 MiB", lambda twist: _gzipped(twist, {**twist.document, "note": _padding(1 << 23)})
    ),
    "huge_header": Named("a header of 40 KiB", lambda twist: twist.with_headers(X_Note=_padding(40 * 1024))),
    "created": _status(HTTPStatus.CREATED),
    "accepted": _status(HTTPStatus.ACCEPTED),
    "no_content": _status(HTTPStatus.NO_CONTENT, body=False),
    "partial_content": _status(HTTPStatus.PARTIAL_CONTENT),
    "redirect_301": _redirect(HTTPStatus.MOVED_PERMANENTLY),
    "redirect_302": _redirect(HTTPStatus.FOUND),
    "redirect_303": _redirect(HTTPStatus.SEE_OTHER),
    "redirect_307": _redirect(HTTPStatus.TEMPORARY_REDIRECT),
    "redirect_308": _redirect(HTTPStatus.PERMANENT_REDIRECT),
    "set_cookie": Named("sets a cookie", lambda twist: twist.with_headers(Set_Cookie="tenant=1; Path=/"), usable=True),
    "unknown_fields": Named("fields that nobody knows", lambda twist: twist.with_fields(note={"a": [1]}), usable=True),
    "text_plain": Named(
        "the right body as text/plain", lambda twist: twist.with_headers(Content_Type="text/plain"), usable=True
    ),
    "date_wrong": Named(
        "a Date header that is `seconds` (an hour) off",
        lambda twist: twist.with_headers(
            Date=formatdate(time.time() + (3600 if twist.seconds is None else twist.seconds), usegmt=True)
        ),
        usable=True,
    ),
    "date_junk": Named("a Date header that is none", lambda twist: twist.with_headers(Date="yesterday"), usable=True),
    "date_missing": Named("no Date header", lambda twist: twist.with_headers(Date=WITHOUT_DATE), usable=True),
}


def _field(name: str, value: object, description: str | None = None, *, usable: bool = False) -> Named:
    return Named(
        description or f"{name} is {json.dumps(value)}", lambda twist: twist.with_fields(**{name: value}), usable=usable
    )


def _literal(name: str, literal: str, description: str | None = None, *, usable: bool = False) -> Named:
    return Named(description or f"{name} is {literal}", lambda twist: twist.with_literal(name, literal), usable=usable)


def _missing(name: str) -> Named:
    return Named(f"no {name}", lambda twist: twist.without(name))


def _of_token(name: str) -> dict[str, Named]:
    """What a token may not look like (RFC 6749, appendix A.12 and A.17; a space would split the Bearer header)."""
    bad = {
        "null": None,
        "empty": "",
        "number": 12345,
        "object": {"token": "sandbox"},
        "space": "sandbox token",
        "quote": 'sandbox"token',
        "backslash": "sandbox\\token",
        "newline": "sandbox\ntoken",
        "trailing_newline": "sandbox-token\n",
        "header_injection": "sandbox\r\nX-Admin: yes",
        "nul": "sandbox\0token",
        "delete_character": "sandbox\x7ftoken",
        "non_ascii": "sandbox-töken",
        "lone_surrogate": "sandbox-\ud800",
        "too_long": _padding(32 * 1024 + 1),
    }
    return {f"{name}_{what}": _field(name, value, f"{name}: {what.replace('_', ' ')}") for what, value in bad.items()}


def _echo(field_name: str, status: int) -> Callable[[Twist], Answer]:
    """Refuse, and repeat the request's secrets: none of them may reach a log."""
    return lambda twist: json_answer(
        status,
        {"error": "invalid_request", field_name: " ".join(f"{key}={value}" for key, value in twist.form.items())},
    )


_TOKEN = {
    "expires_in_missing": _missing("expires_in"),
    "expires_in_null": _field("expires_in", None),
    "expires_in_zero": _field("expires_in", 0),
    "expires_in_negative": _field("expires_in", -3600),
    "expires_in_fraction": _field("expires_in", 3600.5),
    "expires_in_bool": _field("expires_in", value=True),
    "expires_in_list": _field("expires_in", [3600]),
    "expires_in_too_long": _field("expires_in", 2_592_001, "expires_in is a second over 30 days"),
    "expires_in_huge": _field("expires_in", 10**18),
    "expires_in_4400_digits": _literal("expires_in", "9" * 4400, "expires_in has more digits than Python converts"),
    "expires_in_nan": _literal("expires_in", "NaN"),
    "expires_in_infinity": _literal("expires_in", "1e999"),
    "expires_in_words": _field("expires_in", "one hour"),
    "expires_in_empty_string": _field("expires_in", ""),
    "expires_in_signed_string": _field("expires_in", "+3600"),
    "expires_in_padded_string": _field("expires_in", " 3600 "),
    "expires_in_underscored_string": _field("expires_in", "3_600"),
    "expires_in_other_digits": _field("expires_in", "\uff13\uff16\uff10\uff10", "expires_in in full-width digits"),
    "expires_in_string": Named(
        "expires_in is a string of digits",
        lambda twist: twist.with_fields(expires_in=str(twist.document["expires_in"])),
        usable=True,
    ),
    "expires_in_float": Named(
        "expires_in is an integral number such as 3600.0",
        lambda twist: twist.with_literal("expires_in", f"{twist.document['expires_in']}.0"),
        usable=True,
    ),
    "token_type_missing": _missing("token_type"),
    "token_type_null": _field("token_type", None),
    "token_type_number": _field("token_type", 1),
    "token_type_mac": _field("token_type", "mac"),
    "token_type_lower_case": _field("token_type", "bearer", usable=True),
    "token_type_upper_case": _field("token_type", "BEARER", usable=True),
    "access_token_missing": _missing("access_token"),
    **_of_token("access_token"),
    **_of_token("refresh_token"),
    "scope_number": _field("scope", 1),
    "scope_list": _field("scope", ["orders:read"]),
    "error_in_200": Named("200 with an error", lambda _: json_answer(200, {"error": "invalid_client"})),
    "error_beside_token": _field("error", "invalid_client", "200 with a token and an error"),
    "error_unlisted": Named("400 with an error code of its own", lambda _: json_answer(400, {"error": "no_luck"})),
    "error_not_json": Named("400 with a text", lambda _: Answer(400, b"Bad Request", {"Content-Type": "text/plain"})),
    "echo_in_error": Named("400 whose error repeats the request, secrets and all", _echo("error", 400)),
    "echo_in_description": Named("400 whose error_description does", _echo("error_description", 400)),
    "echo_in_uri": Named("401 whose error_uri does", _echo("error_uri", 401)),
    "echo_in_reason": Named(
        "200 with a field, a type and a header that repeat the request",
        lambda twist: replace(
            twist.with_fields(token_type=" ".join(twist.form.values())),
            headers={**twist.good.headers, "X-Request": " ".join(twist.form.values())},
        ),
    ),
}

_GRAPHQL = {
    "errors_null_data": _body("errors and null data", b'{"data": null, "errors": [{"message": "access denied"}]}'),
    "errors_without_data": _body("errors alone", b'{"errors": [{"message": "access denied"}]}'),
    "errors_beside_data": _field("errors", [{"message": "a part failed"}], "data and errors", usable=True),
    "data_null": _body("null data", b'{"data": null}'),
    "data_missing": _body("an empty object", b"{}"),
}

_OF_ENDPOINT: Mapping[str, Mapping[str, Named]] = {
    "token": {**_COMMON, **_TOKEN},
    "graphql": {**_COMMON, **_GRAPHQL},
}
