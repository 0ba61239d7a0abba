"""What this process remembers of a credential, and how that changes by what happens: each change gives a new memory.

What changes together is one value, so that what is dropped leaves nothing behind: a refresh token goes with the token
that it came with, and all that is known of a token that waits goes with that token.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.credential import ClientSecretRef, DeletionPolicy, GrantType
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.push import Content, Delivery
from tuinly_operator.domain.target import TokenState


class AttemptInputs(NamedTuple):
    """What an attempt is made with: digest of the exchange inputs, and which content of the client Secret (or none)."""

    exchange: str
    client_secret: str


class WriteInputs(NamedTuple):
    """What a write of the target is tried with: its name, digest of its layout, and the version that is there."""

    name: str
    layout: str
    version: str


class WantedTarget(NamedTuple):
    """How a spec asks the target to be, apart from the token; `layout` is its digest."""

    name: str
    layout: str
    deletion_policy: DeletionPolicy


@dataclass(frozen=True, slots=True)
class Client:
    """A client id and secret (RFC 6749 section 2.2, 2.3.1)."""

    id: str
    secret: Sensitive


@dataclass(frozen=True, slots=True)
class ClientSecretRead:
    """What reading the client Secret, by name and keys, gave at a time.

    `identity` is its uid and version, empty where the watch does not show it: it is not there, or its type is left out.
    """

    ref: ClientSecretRef
    identity: str
    client: Client | Failure
    at: Moment


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token; `proven` says that it, or one that it replaced, has worked."""

    value: Sensitive
    proven: bool = False


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, when it was issued on both clocks, and what came with it.

    After a restart the token itself is unknown, and so is its client. `ask_again` is set where the server gave this
    very token again: when it is asked next. `handled` is what users had asked for when it did.
    """

    state: TokenState
    issued: Moment
    token: Sensitive | None = None
    client: Client | None = None
    grant: GrantType | None = None
    refresh: RefreshToken | None = None
    ask_again: Deadline | None = None
    handled: str = ""

    @property
    def expiry(self) -> Deadline:
        """When it expires."""
        return Deadline.after(self.state.lifetime, self.issued)


@dataclass(frozen=True, slots=True)
class Setback:
    """Something failed and is tried again: an attempt, a verification, or a write of the target.

    `attempts` counts failures in a row, `at` is in seconds since the epoch, `inputs` is what was tried: a change of it
    ends the wait until `retry`. `asked` is what users had asked for by annotation until then.
    """

    failure: Failure
    attempts: int
    at: float
    retry: Deadline
    inputs: Hashable
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """A token that was obtained and waits to be written.

    `unverified` is set where it could not be told whether it works; `due` is when the refresh that gave it was due,
    None where it was no routine refresh.
    """

    held: IssuedToken
    verified: bool = False
    unverified: Setback | None = None
    due: Deadline | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What the target holds by the last write, or by its annotations.

    `wanted` is how the spec asked it to be at that write, None where that is not known; `untried` says that it was
    written though nobody could tell whether it works.
    """

    held: IssuedToken
    wanted: WantedTarget | None = None
    untried: bool = False


@dataclass(frozen=True, slots=True)
class Removed:
    """A target that was deleted to be made again: what is applied to put it back, which is of use until its token ends.

    `manifest` is JSON. `refused` is set where it could not be put back, and says when that is tried again.
    """

    key: NamespacedName
    manifest: Sensitive
    until: Deadline
    refused: Setback | None = None


@dataclass(frozen=True, slots=True)
class Attempted:
    """The last attempt: when it counts as made, and with what it was."""

    at: Moment
    inputs: AttemptInputs


@dataclass(frozen=True, slots=True)
class Restores:
    """How often in a row, each soon after the one before, the target was restored, and when it was last."""

    count: int
    last: Moment


@dataclass(frozen=True, slots=True)
class Memory:
    """Lost with the process, and nothing breaks: what is missing costs at most one attempt."""

    met: bool = False  # the target's annotations have been read
    written: Written | None = None
    pending: Pending | None = None
    rejected_token: Sensitive | None = None  # did not work when it was tried, and may be given once more
    client: ClientSecretRead | None = None
    refresh_refused: AttemptInputs | None = None  # the inputs for which a refresh token was refused at its first use
    last_attempt: Attempted | None = None
    last_forced: Moment | None = None
    restores: Restores | None = None
    attempt: Setback | None = None  # of the last attempt
    refusal: Setback | None = None  # of something else that the API server would not do
    write: Setback | None = None  # of the last write of the target
    removed: Removed | None = None  # until it is made again
    namespace_ends: bool = False  # the API server said so
    told: frozenset[str] = frozenset()  # one-time Events that were sent
    unpushed: Content | None = None  # what was written, and no Pod was told of yet
    thawed: float | None = (
        None  # when the target was last made again since it was immutable, in seconds since the epoch
    )
    delivery: Delivery | None = None  # what came of the last push
    look_alikes: frozenset[str] = frozenset()  # names of Secrets that were told of, since they look like old targets

    @property
    def published(self) -> IssuedToken | None:
        """The token that the target holds, as far as is known."""
        return self.written.held if self.written else None

    @property
    def current(self) -> IssuedToken | None:
        """The newest token."""
        return self.pending.held if self.pending else self.published

    # --- What happens -------------------------------------------------------------------------------------------------

    def met_target(self, held: IssuedToken | None) -> "Memory":
        """The target was looked at; `held` is what its annotations tell, if they are believed and news."""
        if held is None:
            return self if self.met else replace(self, met=True)
        later = self.pending is not None and self.pending.held.state.issued_at > held.state.issued_at
        return replace(self, met=True, written=Written(held), pending=self.pending if later else None)

    def asked_for(self, inputs: str, *, verified: bool) -> "Memory":
        """Tokens are wanted for these inputs, verified or not.

        One that waits to be written for others is nobody's any more, and where nothing is verified none is unverified.
        """
        pending, written = self.pending, self.written
        if pending is not None and pending.held.state.exchange_inputs != inputs:
            pending = None
        if pending is not None and pending.unverified and not verified:
            pending = replace(pending, unverified=None)
        if written is not None and written.untried and not verified:
            written = replace(written, untried=False)
        same = pending is self.pending and written is self.written
        return self if same else replace(self, pending=pending, written=written)

    def client_secret_read(self, read: ClientSecretRead) -> "Memory":
        """The client Secret was read."""
        return replace(self, client=read)

    def attempt_begun(self, attempt: Attempted, *, forced_at: Moment | None) -> "Memory":
        """An attempt begins; `forced_at` is when, where users have asked for it."""
        return replace(self, last_attempt=attempt, last_forced=forced_at or self.last_forced)

    def attempt_failed(self, setback: Setback) -> "Memory":
        """It came to nothing, and is tried again."""
        return replace(self, attempt=setback)

    def refresh_token_spent(self, used: RefreshToken) -> "Memory":
        """The refresh token was sent, and what came of it is of no use: it is not sent again."""
        pending, written = self.pending, self.written
        if pending is not None and pending.held.refresh is used:
            pending = replace(pending, held=replace(pending.held, refresh=None))
        if written is not None and written.held.refresh is used:
            written = replace(written, held=replace(written.held, refresh=None))
        return replace(self, pending=pending, written=written)

    def refresh_token_refused(self, used: RefreshToken, inputs: AttemptInputs) -> "Memory":
        """The server refused the refresh token, for these inputs; the exchange to make up for it follows at once."""
        refused = self.refresh_refused if used.proven else inputs
        return replace(self.refresh_token_spent(used), refresh_refused=refused, last_attempt=None)

    def obtained(self, held: IssuedToken, due: Deadline | None) -> "Memory":
        """A token came that is no worse than the present one: it waits to be verified and written."""
        return replace(self, pending=Pending(held, due=due))

    def renewed(self, held: IssuedToken, due: Deadline | None) -> "Memory":
        """The server gave the newest token once more, with a later end: that is written, what is known of it stays."""
        if self.pending is not None:
            return replace(self, pending=replace(self.pending, held=held, due=due))
        tried = self.written is not None and not self.written.untried
        return replace(self, pending=Pending(held, verified=tried, due=due))

    def same_again(self, asked: str, ask_again: Deadline, refresh: RefreshToken | None) -> "Memory":
        """The server gave the newest token once more: it is asked again later, by the refresh token that came now."""
        held = self.current
        if held is None:
            return self
        held = replace(held, handled=asked or held.handled, ask_again=ask_again, refresh=refresh)
        if self.pending is not None:
            return replace(self, pending=replace(self.pending, held=held), attempt=None)
        written = replace(self.written, held=held) if self.written else None
        return replace(self, written=written, attempt=None)

    def verified(self, held: IssuedToken) -> "Memory":
        """The token works."""
        return self._with_pending(held, verified=True, unverified=None)

    def unverified(self, held: IssuedToken, setback: Setback) -> "Memory":
        """Nobody could tell whether it works: it is tried again."""
        return self._with_pending(held, unverified=setback)

    def rejected(self, held: IssuedToken) -> "Memory":
        """It does not work: neither is it written, nor is a refresh token used that would give more of the same."""
        waits = self.pending is not None and self.pending.held is held
        return replace(self, pending=None, rejected_token=held.token) if waits else self

    def wrote(self, held: IssuedToken, wanted: WantedTarget | None, *, untried: bool = False) -> "Memory":
        """The target holds this token now, as the spec asked for at that time."""
        new = self.pending is not None and self.pending.held.state.same_token(held.state)
        memory = replace(self, written=Written(held, wanted, untried), write=None, removed=None)
        return replace(memory, pending=None, attempt=None) if new else memory

    def overtaken(self, held: IssuedToken) -> "Memory":
        """Somebody else who serves the credential, too, wrote this into the target, and it is as good."""
        return replace(self, written=Written(held, self.written.wanted if self.written else None))

    def write_failed(self, setback: Setback) -> "Memory":
        """The target could not be written, and is tried again."""
        return replace(self, write=setback)

    def target_removed(self, removed: Removed) -> "Memory":
        """The target is deleted, to be made again."""
        return replace(self, removed=removed)

    def not_put_back(self, setback: Setback) -> "Memory":
        """It could not be made again, nor put back; the latter is tried again."""
        return replace(self, removed=replace(self.removed, refused=setback)) if self.removed else self

    def put_back(self) -> "Memory":
        """It is there again, or still, as it was."""
        return replace(self, removed=None)

    def restored(self, now: Moment, soon: float) -> "Memory":
        """What somebody else broke was restored; within `soon` seconds of the time before it is one of a row."""
        last = self.restores
        in_a_row = last.count if last and not Deadline.after(soon, last.last).due(now) else 0
        return replace(self, restores=Restores(in_a_row + 1, now))

    def refused(self, setback: Setback) -> "Memory":
        """The API server will not do something else that is needed; it is tried again."""
        return replace(self, refusal=setback)

    def came_to_rest(self) -> "Memory":
        """All that was to be done could be done."""
        return replace(self, refusal=None) if self.refusal else self

    def namespace_ended(self) -> "Memory":
        """The API server said that the namespace is being deleted."""
        return replace(self, namespace_ends=True)

    def to_be_pushed(self, content: Content) -> "Memory":
        """The target has new content, which Pods are to be told of."""
        return replace(self, unpushed=content)

    def push_ordered(self) -> "Memory":
        """They will be."""
        return replace(self, unpushed=None)

    def pushed(self, delivery: Delivery) -> "Memory":
        """This came of it."""
        return replace(self, delivery=delivery)

    def was_immutable(self, until: float) -> "Memory":
        """The target was immutable until then, in seconds since the epoch: some Pods may see it so for ever."""
        return replace(self, thawed=until)

    def told_of_look_alikes(self, names: frozenset[str]) -> "Memory":
        """These Secrets look like old targets, and no others; whoever is new among them was told of."""
        return replace(self, look_alikes=names)

    def told_once(self, reason: Reason) -> "Memory":
        """An Event was sent that is not sent again."""
        return replace(self, told=self.told | {reason})

    def may_tell_again(self, reason: Reason) -> "Memory":
        """What it told of is over."""
        return replace(self, told=self.told - {reason}) if reason in self.told else self

    def _with_pending(self, held: IssuedToken, **changes: Any) -> "Memory":  # noqa: ANN401 -- fields of a pending token
        """Change what is known of the token that waits, if it is still this one."""
        pending = self.pending
        if pending is None or pending.held is not held:
            return self
        return replace(self, pending=replace(pending, **changes))
