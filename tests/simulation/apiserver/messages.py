"""What goes to the API server's model and comes back: requests, answers, and refusals as the real one words them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request; the names of its headers are compared without regard to case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def header(self, name: str) -> str:
        """Return a header's value, empty where there is none."""
        return next((value for key, value in self.headers.items() if key.lower() == name), "")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer with its whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def answer(status: int, body: Mapping[str, Any]) -> Answer:
    """An answer with an object."""
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(body, separators=(",", ":")).encode())


class Refusal(Exception):  # noqa: N818 - named like what it is
    """A request is refused.

    Attributes:
        code: the HTTP status.
        reason: why, in a word that programs read.
        details: what is refused, and the causes.
        retry_after: seconds for which the server asks to be left alone.
    """

    def __init__(
        self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None, retry_after: int = 0
    ) -> None:
        """Tell of a refusal; `message` is for people."""
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details
        self.retry_after = retry_after
        self.metadata: Json = {}

    def status(self) -> Json:
        """The refusal as a Status object."""
        details = dict(self.details or {})
        if self.retry_after:
            details["retryAfterSeconds"] = self.retry_after
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": str(self),
            **({"reason": self.reason} if self.reason else {}),
            **({"details": details} if details else {}),
            "code": self.code,
        }

    def answer(self) -> Answer:
        """The refusal as an answer."""
        plain = answer(self.code, self.status())
        wait = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        return Answer(plain.status, {**plain.headers, **wait}, plain.body)


def _details(name: str, group: str, kind: str, causes: Sequence[Mapping[str, str]] = ()) -> Json:
    parts: Json = {"name": name, "group": group, "kind": kind, "causes": list(causes)}
    return {part: value for part, value in parts.items() if value}


def not_found(group: str, plural: str, name: str) -> Refusal:
    """There is none of that name."""
    details = _details(name, group, plural)
    return Refusal(HTTPStatus.NOT_FOUND, "NotFound", f'{plural} "{name}" not found', details)


def no_such_page() -> Refusal:
    """There is no such resource."""
    return Refusal(HTTPStatus.NOT_FOUND, "NotFound", "the server could not find the requested resource", {})


def exists(group: str, plural: str, name: str) -> Refusal:
    """There is one of that name already."""
    details = _details(name, group, plural)
    return Refusal(HTTPStatus.CONFLICT, "AlreadyExists", f'{plural} "{name}" already exists', details)


def conflict(group: str, plural: str, name: str, why: str, causes: Sequence[Mapping[str, str]] = ()) -> Refusal:
    """A precondition does not hold, or fields are somebody else's."""
    details = _details(name, group, plural, causes)
    return Refusal(
        HTTPStatus.CONFLICT, "Conflict", f'Operation cannot be fulfilled on {plural} "{name}": {why}', details
    )


def invalid(group: str, kind: str, name: str, causes: Sequence[Mapping[str, str]]) -> Refusal:
    """The object is not valid."""
    message = f'{kind} "{name}" is invalid: ' + ", ".join(f"{cause['field']}: {cause['message']}" for cause in causes)
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message, _details(name, group, kind, causes))


def cause(reason: str, field_: str, message: str = "") -> dict[str, str]:
    """One of the causes of a refusal: a reason such as FieldValueInvalid, and the field's path."""
    return {"reason": reason, "message": message, "field": field_}


def own_failure(why: str) -> Refusal:
    """What the server takes for a failure of its own: without a reason."""
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "", why)


def bad_request(message: str) -> Refusal:
    """The request makes no sense."""
    return Refusal(HTTPStatus.BAD_REQUEST, "BadRequest", message)


def expired(message: str) -> Refusal:
    """What was asked for is too long ago: a version that has been compacted."""
    return Refusal(HTTPStatus.GONE, "Expired", message)


def forbidden(group: str, plural: str, name: str, why: str, causes: Sequence[Mapping[str, str]] = ()) -> Refusal:
    """It is not allowed: no right, a quota, an admission policy, a namespace that ends."""
    details = _details(name, group, plural, causes)
    return Refusal(HTTPStatus.FORBIDDEN, "Forbidden", f'{plural} "{name}" is forbidden: {why}', details)
