"""What can go wrong with a request to the API server."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from tuinly_operator.domain.errors import Reason

_UNREACHABLE: Final = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
_ENDING: Final = "NamespaceTerminating"
_REFUSALS: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
_WORD: Final = re.compile(r"[A-Za-z]{1,40}")


class ApiFailure(Exception):  # noqa: N818 -- named like the failures of the domain
    """A request to the API server failed.

    `status` is the HTTP status, None where there was no answer; `word` the machine-readable reason of the answer;
    `retry_after` the seconds for which it asks to be left alone; `other_uid` says that the object of that name is
    another one. `request` is its method and path, `reason` what users are told where it stays: a read names its object
    here. The library's exceptions hold headers and body, so they never come as cause or context.
    """

    def __init__(
        self,
        status: int | None,
        word: str,
        retry_after: float = 0.0,
        *,
        other_uid: bool = False,
        reason: Reason = Reason.TARGET_REJECTED,
    ) -> None:
        super().__init__(
            f"the API server answered {status} {word}" if status else f"no answer from the API server: {word}"
        )
        self.status = status
        self.word = word
        self.retry_after = retry_after
        self.other_uid = other_uid
        self.request = ""
        self.reason = reason

    @property
    def out_of_reach(self) -> bool:
        """Whether the whole API server may be unavailable; a slow or broken admission webhook looks the same."""
        return self.status is None or self.status in _UNREACHABLE

    @property
    def refused(self) -> bool:
        """Whether the API server understood the request and will refuse it until somebody changes something."""
        return self.status in _REFUSALS

    @property
    def needs_rights(self) -> bool:
        """Whether it was refused for want of a login or of rights, as far as one can see."""
        return self.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} and not self.namespace_ends

    @property
    def namespace_ends(self) -> bool:
        """Whether the namespace is being deleted or is gone, and takes nothing new."""
        return self.word == _ENDING

    @property
    def exists(self) -> bool:
        """Whether there is one of that name already."""
        return self.word == "AlreadyExists"

    @property
    def not_found(self) -> bool:
        """Whether the object is not there."""
        return self.status == HTTPStatus.NOT_FOUND


class NotLeading(ApiFailure):
    """This replica must not act: it does not lead, or cannot be sure of it for long enough."""

    def __init__(self) -> None:
        super().__init__(None, "NotLeading")


def word(status: Mapping[str, Any]) -> str:
    """The reason of a Status object, if it is one word. Its message is not used: it may quote what was sent."""
    # What matters more than the reason it comes with: Forbidden while the namespace ends, NotFound once it is gone.
    gone = (status.get("details") or {}).get("kind") == "namespaces"
    ending = gone or any(cause.get("reason") == _ENDING for cause in _causes(status))
    word = _ENDING if ending else str(status.get("reason") or "")
    return word if _WORD.fullmatch(word) else "Unknown"


def is_of_uid(status: Mapping[str, Any]) -> bool:
    """Whether a Status object says that it is the uid that is wrong."""
    return any(cause.get("field") == "metadata.uid" for cause in _causes(status))


def _causes(status: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (status.get("details") or {}).get("causes") or ()
