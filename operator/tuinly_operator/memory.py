"""What this process remembers of a credential: tokens that may still have to be written, and how attempts went."""

from dataclasses import dataclass

from tuinly_operator.clock import Deadline, Moment
from tuinly_operator.credential import ClientSecretRef, GrantType
from tuinly_operator.errors import Failure
from tuinly_operator.sensitive import Sensitive
from tuinly_operator.state import TokenState


@dataclass(frozen=True, slots=True)
class Client:
    """A client id and secret (RFC 6749 section 2.2, 2.3.1)."""

    id: str
    secret: Sensitive


@dataclass(frozen=True, slots=True)
class ClientSecretRead:
    """What reading the client Secret, by name and keys, gave. `identity` is its uid and version, empty for none."""

    ref: ClientSecretRef
    identity: str
    client: Client | Failure


@dataclass(frozen=True, slots=True)
class Held:
    """A token and when it was issued on both clocks.

    After a restart the token itself is unknown, and so is its client.
    """

    state: TokenState
    issued: Moment
    token: Sensitive | None = None
    client: Client | None = None
    grant: GrantType | None = None

    @property
    def expiry(self) -> Deadline:
        """When it expires."""
        return Deadline.after(self.state.lifetime, self.issued)


@dataclass(frozen=True, slots=True)
class Setback:
    """Something failed and is tried again: an attempt, a verification, or a write of the target.

    `attempts` counts failures in a row, `at` is in seconds since the epoch, `inputs` is what was tried: a change of it
    ends the wait until `retry`.
    """

    failure: Failure
    attempts: int
    at: float
    retry: Deadline
    inputs: str


@dataclass(slots=True)
class Memory:
    """Lost with the process, and nothing breaks: what is missing costs at most one attempt."""

    met: bool = False  # the target's annotations have been read
    published: Held | None = None  # what the target holds
    written_as: str = ""  # what the spec asked the target to look like at the last write
    pending: Held | None = None  # obtained, not yet written
    verified: bool = False  # the pending token has been tried
    client: ClientSecretRead | None = None
    refresh_token: Sensitive | None = None
    refresh_proven: bool = False  # a refresh token of this server has worked
    refresh_refused: str | None = None  # the inputs for which it was refused at its first use
    look_again: Deadline | None = None  # the server gave the same token again
    tried_request: str = ""  # what users asked for by annotation when the last attempt was made
    handled_refresh: str = ""  # a forced exchange that gave the same token again
    last_attempt: Moment | None = None  # when it counts as made
    tried: str = ""  # the exchange inputs and the client Secret that it was made with
    due: Deadline | None = None  # when the refresh under way was due
    last_forced: Moment | None = None
    last_restore: Moment | None = None
    restores: int = 0  # in a row, each soon after the one before
    attempt: Setback | None = None  # of the last attempt
    verification: Setback | None = None  # of the pending token's verification
    refusal: Setback | None = None  # of something else that the API server would not do
    write: Setback | None = None  # of the last write of the target
    namespace_ends: bool = False  # the API server said so
    told: frozenset[str] = frozenset()  # one-time Events that were sent
    look_alikes: frozenset[str] = frozenset()  # names of Secrets that were told of, since they look like old targets

    def keep_for(self, inputs: str) -> None:
        """Drop a token that waits to be written for other inputs than these: nobody asks for it any more.

        Its refresh token would only give more of the same.
        """
        if self.pending is not None and self.pending.state.exchange_inputs != inputs:
            self.pending = self.refresh_token = None

    @property
    def current(self) -> Held | None:
        """The newest token."""
        return self.pending or self.published
