"""Why something is not as it should be: the reasons that conditions, Events and metrics share, and their exceptions.

    Failure                  an attempt or a write failed; its reason and message are shown to users
    ├── TokenRequestFailed   an endpoint gave no usable token, or did not accept one
    └── WorseAnswer          it gave one that would make things worse

Failures are values of the domain: their messages are ours, say what to do next and never hold a secret.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from http import HTTPStatus
from typing import Final, Self

from tuinly_operator.base.text import cut, printable

MOST_TOLD: Final = 500  # characters of a message that people are shown


class Reason(StrEnum):
    """One CamelCase word per cause (Kubernetes API conventions, "conditions"), told in docs/reference/reasons.md."""

    ISSUED = "Issued"
    ISSUING = "Issuing"
    SUSPENDED = "Suspended"
    TEMPLATE_CHANGED = "TemplateChanged"
    INVALID_SPEC = "InvalidSpec"
    CLIENT_SECRET_NOT_FOUND = "ClientSecretNotFound"  # noqa: S105 -- a reason, not a password
    CLIENT_SECRET_INVALID = "ClientSecretInvalid"  # noqa: S105 -- a reason, not a password
    URL_NOT_ALLOWED = "URLNotAllowed"
    INVALID_CLIENT = "InvalidClient"
    INVALID_SCOPE = "InvalidScope"
    REQUEST_REJECTED = "RequestRejected"
    ENDPOINT_UNAVAILABLE = "EndpointUnavailable"
    ENDPOINT_THROTTLED = "EndpointThrottled"
    INVALID_RESPONSE = "InvalidResponse"
    VERIFICATION_FAILED = "VerificationFailed"
    VERIFICATION_INCONCLUSIVE = "VerificationInconclusive"
    TARGET_CONFLICT = "TargetConflict"
    TARGET_REJECTED = "TargetRejected"
    TOKEN_EXPIRED = "TokenExpired"  # noqa: S105 -- a reason, not a password
    # The condition Delivered only:
    PUSHED = "Pushed"
    PUSHING = "Pushing"
    PUSH_NOT_ENABLED = "PushNotEnabled"
    PUSH_REFUSED = "PushRefused"
    PUSH_INCOMPLETE = "PushIncomplete"
    # Events only:
    RESTORED = "Restored"
    ANOTHER_OPERATOR = "AnotherOperator"
    LOOK_ALIKE = "TargetLookAlike"
    SCOPE_NARROWED = "ScopeNarrowed"
    LIFETIME_TOO_SHORT = "LifetimeTooShort"
    REFRESH_REFUSED = "RefreshRefused"


# What only a person can mend: retried, but with the longer cap.
MENDED_BY_PEOPLE = frozenset(
    {Reason.INVALID_CLIENT, Reason.INVALID_SCOPE, Reason.REQUEST_REJECTED, Reason.TARGET_CONFLICT}
)


@dataclass
class Failure(Exception):  # noqa: N818 -- it is a value of the domain, no error of the program
    """An expected failure, told to users by `reason` and `message` (a sentence that says what to do next)."""

    reason: Reason
    message: str

    def __post_init__(self) -> None:
        """A message is shown on one line, and not a long one, whatever text of others it quotes."""
        self.message = cut(printable(self.message), MOST_TOLD)

    @property
    def patient(self) -> bool:
        """Whether retrying soon is of no use, since only a person can mend it."""
        return self.reason in MENDED_BY_PEOPLE

    def to_keep(self) -> Self:
        """An equal one, to be remembered. One that was raised holds, by its traceback, all that was at hand there.

        Among that is what was remembered then, and in it the failure before: none of a long row would ever be freed.
        """
        return replace(self)

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


@dataclass
class WorseAnswer(Failure):
    """A well-formed token that would make things worse than they are."""

    @property
    def patient(self) -> bool:
        """Asking again soon would only give the same."""
        return True


@dataclass
class TokenRequestFailed(Failure):
    """A token request that gave no usable token, or a verification that did not show that a token works.

    `status` is the HTTP status, None where no answer came. `retry_after` is in seconds from now, None where the
    server did not ask for it. `transport` marks what may be a failure of the endpoint itself: no answer, or a 5xx.
    """

    status: int | None = None
    retry_after: float | None = None
    transport: bool = False

    @property
    def rejected(self) -> bool:
        """Whether the server understood and refused (4xx but 429): such a refresh token is dead (RFC 6749, 5.2)."""
        return self.status in range(400, 500) and self.status != HTTPStatus.TOO_MANY_REQUESTS
