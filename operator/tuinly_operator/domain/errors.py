"""Why something is not as it should be: the reasons that conditions, Events and metrics share, and their exceptions.

    Failure                  an attempt or a write failed; its reason and message are shown to users
    └── TokenRequestFailed   an endpoint gave no usable token, or did not accept one

Failures are values of the domain: their messages are ours, say what to do next and never hold a secret.
"""

from dataclasses import dataclass, replace
from enum import Flag, StrEnum, auto
from http import HTTPStatus
from typing import Final, Self

from tuinly_operator.base.text import cut, printable

MOST_TOLD: Final = 500  # characters of a message that people are shown


class Actor(StrEnum):
    """Who can do something about a reason: the value is what the plugin prints."""

    YOU = "you"  # who writes the credential and its client Secret
    ADMIN = "cluster admin"  # who runs the operator and the cluster
    ENDPOINT = "Tuinly"
    NOBODY = ""


class Mark(Flag):
    """What else a reason means."""

    NONE = 0
    STALLS = auto()  # waiting is of no use: `Stalled` goes with Ready False
    SLOW = auto()  # retrying soon is of no use: retries have the longer cap


class Reason(StrEnum):
    """One CamelCase word per cause (Kubernetes API conventions, "conditions"), told in docs/reference/reasons.md.

    Beside each stands who can do something about it, if anybody can, and how it is marked.
    """

    actor: Actor
    mark: Mark

    ISSUED = "Issued"
    ISSUING = "Issuing"
    SUSPENDED = "Suspended", Actor.YOU
    TEMPLATE_CHANGED = "TemplateChanged"
    INVALID_SPEC = "InvalidSpec", Actor.ADMIN, Mark.STALLS
    CREDENTIAL_UNREADABLE = "CredentialUnreadable", Actor.ADMIN
    CLIENT_SECRET_NOT_FOUND = "ClientSecretNotFound", Actor.YOU
    CLIENT_SECRET_UNREADABLE = "ClientSecretUnreadable", Actor.ADMIN
    CLIENT_SECRET_INVALID = "ClientSecretInvalid", Actor.YOU, Mark.STALLS
    URL_NOT_ALLOWED = "URLNotAllowed", Actor.ADMIN, Mark.STALLS
    INVALID_CLIENT = "InvalidClient", Actor.YOU, Mark.STALLS | Mark.SLOW
    INVALID_SCOPE = "InvalidScope", Actor.YOU, Mark.STALLS | Mark.SLOW
    REQUEST_REJECTED = "RequestRejected", Actor.YOU, Mark.STALLS | Mark.SLOW
    ENDPOINT_UNAVAILABLE = "EndpointUnavailable", Actor.ENDPOINT
    ENDPOINT_THROTTLED = "EndpointThrottled", Actor.ENDPOINT
    INVALID_RESPONSE = "InvalidResponse", Actor.ENDPOINT
    WORSE_TOKEN = "WorseToken", Actor.YOU, Mark.SLOW
    VERIFICATION_FAILED = "VerificationFailed", Actor.YOU
    VERIFICATION_INCONCLUSIVE = "VerificationInconclusive", Actor.ENDPOINT
    TARGET_CONFLICT = "TargetConflict", Actor.YOU, Mark.STALLS | Mark.SLOW
    TARGET_REJECTED = "TargetRejected", Actor.ADMIN
    TOKEN_EXPIRED = "TokenExpired"  # noqa: S105 -- a reason, not a password
    # The condition Delivered only:
    PUSHED = "Pushed"
    PUSHING = "Pushing"
    PUSH_NOT_ENABLED = "PushNotEnabled", Actor.ADMIN
    PUSH_REFUSED = "PushRefused", Actor.ADMIN
    PUSH_INCOMPLETE = "PushIncomplete", Actor.YOU
    # Events only:
    RESTORED = "Restored", Actor.YOU
    ANOTHER_OPERATOR = "AnotherOperator", Actor.ADMIN
    LOOK_ALIKE = "TargetLookAlike", Actor.YOU
    SCOPE_NARROWED = "ScopeNarrowed", Actor.YOU
    LIFETIME_TOO_SHORT = "LifetimeTooShort", Actor.ENDPOINT
    REFRESH_REFUSED = "RefreshRefused"

    def __new__(cls, word: str, actor: Actor = Actor.NOBODY, mark: Mark = Mark.NONE) -> Self:
        """Let the word alone be the value, by which it is found and printed."""
        reason = str.__new__(cls, word)
        reason._value_ = word
        reason.actor, reason.mark = actor, mark
        return reason


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
        return Mark.SLOW in self.reason.mark

    @property
    def in_doubt(self) -> bool:
        """Whether a token may have been issued all the same."""
        return False

    def to_keep(self) -> Self:
        """An equal one, to be remembered. One that was raised holds, by its traceback, all that was at hand there.

        Among that is what was remembered then, and in it the failure before: none of a long row would ever be freed.
        """
        return replace(self)

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


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
    def in_doubt(self) -> bool:
        """Whether a token may have been issued all the same: no answer came, or one that says nothing of it."""
        return self.status not in range(400, 500)

    @property
    def rejected(self) -> bool:
        """Whether the server understood and refused (4xx but 429): such a refresh token is dead (RFC 6749, 5.2)."""
        return self.status in range(400, 500) and self.status != HTTPStatus.TOO_MANY_REQUESTS
