"""What this process remembers of a credential, and how that changes by what happens: each change gives a new memory.

What belongs together is one value, so that nothing is left behind when it is dropped: a refresh token is part of the
token that it came with, and all that is known of a token that waits to be written is part of that token's value.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.credential import ClientSecretRef, DeletionPolicy, GrantType, Status
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.notices import NO_NOTICES, Notice, Notices
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
    """What reading the client Secret gave: `client`, read at `at` by the name and keys of `ref`.

    `identity` is the Secret's uid and version. It is empty if the watch does not show the Secret: there is none, or it
    is of a type that the watch leaves out.
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

    After a restart the token itself is unknown, and so is its client. If the server gave this very token once more when
    it was asked for a new one, `ask_again` is when to ask next, and `handled` the value of the annotation
    refresh-requested that was thereby handled.
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
    ends the wait until `retry`. `asked` is the last value of the annotation refresh-requested until then.
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
class Attempted:
    """The last attempt: from when its interval is counted (decision.counts_from), and what it was made with."""

    at: Moment
    inputs: AttemptInputs


@dataclass(frozen=True, slots=True)
class Restores:
    """How often the target was restored in a row, each time soon after the last, and when that was last."""

    count: int
    last: Moment


class Reported(NamedTuple):
    """What only the status says of the past. Whoever has rights on statuses can change it there, so it is kept here."""

    last_grant: GrantType | None
    last_failure_time: str | None
    last_handled_refresh: str | None

    @classmethod
    def of(cls, status: Status) -> Self:
        """Take it from a status."""
        return cls(status.last_grant, status.last_failure_time, status.last_handled_refresh)


@dataclass(frozen=True, slots=True)
class Memory:
    """It is lost with the process, and nothing breaks by that: what is missing costs one attempt at most."""

    met: bool = False  # the target's annotations have been read, or written
    written: Written | None = None
    pending: Pending | None = None
    rejected_token: Sensitive | None = None  # failed its verification; the server may give it once more
    client: ClientSecretRead | None = None
    refresh_refused: AttemptInputs | None = None  # the inputs for which a refresh token was refused at its first use
    last_attempt: Attempted | None = None
    last_forced: Moment | None = None
    restores: Restores | None = None
    attempt: Setback | None = None  # the last attempt failed
    refusal: Setback | None = None  # the API server would not do something else
    write: Setback | None = None  # the last write of the target failed
    namespace_ends: bool = False  # the API server said so
    notices: Notices = NO_NOTICES
    told: frozenset[str] = frozenset()  # one-time Events that were sent
    unpushed: Content | None = None  # what was written, and no Pod was told of yet
    delivery: Delivery | None = None  # what came of the last push
    reported: Reported | None = None  # by the last status; None before the first one of this process
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
        """The target was looked at. `held` is what its annotations tell; None if that is no news, or not believed."""
        if held is None:
            return self if self.met else replace(self, met=True)
        later = self.pending is not None and self.pending.held.state.issued_at > held.state.issued_at
        return replace(self, met=True, written=Written(held), pending=self.pending if later else None)

    def asked_for(self, inputs: str, *, verified: bool) -> "Memory":
        """The spec asks for a token for these inputs, to be `verified` before it is published or not.

        A token for other inputs that still waits to be written is dropped. If nothing is to be verified any more, it no
        longer counts that a token could not be.
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
        """The refresh token was sent, and is not sent again, whatever came of it."""
        pending, written = self.pending, self.written
        if pending is not None and pending.held.refresh is used:
            pending = replace(pending, held=replace(pending.held, refresh=None))
        if written is not None and written.held.refresh is used:
            written = replace(written, held=replace(written.held, refresh=None))
        return replace(self, pending=pending, written=written)

    def refresh_token_refused(self, used: RefreshToken, inputs: AttemptInputs) -> "Memory":
        """The server refused the refresh token, for these inputs. An exchange follows, whatever the interval."""
        refused = self.refresh_refused if used.proven else inputs
        return replace(self.refresh_token_spent(used), refresh_refused=refused, last_attempt=None)

    def obtained(self, held: IssuedToken, due: Deadline | None) -> "Memory":
        """A token came that is no worse than the present one: it waits to be verified and written."""
        return replace(self, pending=Pending(held, due=due))

    def renewed(self, held: IssuedToken, due: Deadline | None) -> "Memory":
        """The server gave the newest token once more, with a later end, which is to be written; the rest stays."""
        if self.pending is not None:
            return replace(self, pending=replace(self.pending, held=held, due=due))
        tried = self.written is not None and not self.written.untried
        return replace(self, pending=Pending(held, verified=tried, due=due))

    def same_again(self, asked: str, ask_again: Deadline, refresh: RefreshToken | None) -> "Memory":
        """The server gave the newest token once more, unchanged. It is asked again later, by the new refresh token."""

        def again(held: IssuedToken) -> IssuedToken:
            return replace(held, handled=asked or held.handled, ask_again=ask_again, refresh=refresh)

        if self.pending is not None:
            return replace(self, pending=replace(self.pending, held=again(self.pending.held)), attempt=None)
        if self.written is not None:
            return replace(self, written=replace(self.written, held=again(self.written.held)), attempt=None)
        return self

    def verified(self, held: IssuedToken) -> "Memory":
        """The token works."""
        return self._with_pending(held, verified=True, unverified=None)

    def unverified(self, held: IssuedToken, setback: Setback) -> "Memory":
        """Nobody could tell whether it works: it is tried again."""
        return self._with_pending(held, unverified=setback)

    def rejected(self, held: IssuedToken) -> "Memory":
        """It does not work: it is not written, and the refresh token that came with it is dropped, too."""
        waits = self.pending is not None and self.pending.held is held
        return replace(self, pending=None, rejected_token=held.token) if waits else self

    def wrote(self, held: IssuedToken, wanted: WantedTarget | None, *, untried: bool = False) -> "Memory":
        """The target holds this token now, and is as the spec wanted it when that was decided."""
        new = self.pending is not None and self.pending.held.state.same_token(held.state)
        memory = replace(self, met=True, written=Written(held, wanted, untried), write=None)
        return replace(memory, pending=None, attempt=None) if new else memory

    def overtaken(self, held: IssuedToken) -> "Memory":
        """Another operator, which serves the credential too, wrote this into the target; it is as good as ours."""
        return replace(self, written=Written(held, self.written.wanted if self.written else None))

    def write_failed(self, setback: Setback) -> "Memory":
        """The target could not be written, and is tried again."""
        return replace(self, write=setback)

    def restored(self, now: Moment, soon: float) -> "Memory":
        """What somebody else broke was restored; within `soon` seconds of the last time, that is one more in a row."""
        last = self.restores
        in_a_row = last.count if last and not Deadline.after(soon, last.last).due(now) else 0
        return replace(self, restores=Restores(in_a_row + 1, now))

    def refused(self, setback: Setback) -> "Memory":
        """The API server would not do something that is needed, other than a write of the target; it is tried again."""
        return replace(self, refusal=setback)

    def came_to_rest(self) -> "Memory":
        """All that was to be done could be done."""
        return replace(self, refusal=None) if self.refusal else self

    def has_reported(self, status: Status) -> "Memory":
        """This is the status by now, or is just being written."""
        told = Reported.of(status)
        return self if told == self.reported else replace(self, reported=told)

    def namespace_ended(self) -> "Memory":
        """The API server said that the namespace is being deleted."""
        return replace(self, namespace_ends=True)

    def to_be_pushed(self, content: Content) -> "Memory":
        """The target has new content, which Pods are to be told of."""
        return replace(self, unpushed=content)

    def not_to_be_pushed(self) -> "Memory":
        """The target has new content, of which no Pod is told: what came of an earlier push says nothing of it."""
        return replace(self, unpushed=None, delivery=None)

    def push_ordered(self) -> "Memory":
        """Pods will be told of that content."""
        return replace(self, unpushed=None)

    def pushed(self, delivery: Delivery) -> "Memory":
        """A push is over, and `delivery` came of it."""
        return replace(self, delivery=delivery)

    def told_of_look_alikes(self, names: frozenset[str]) -> "Memory":
        """These are all Secrets that look like old targets; users were told of each."""
        return replace(self, look_alikes=names)

    def warned_of(self, reason: Reason, message: str, now: Moment) -> "Memory":
        """There was something to warn of: it is remembered, unless the same was told within the last ten minutes."""
        return replace(self, notices=self.notices.warned_of(reason, message, now.boot))

    def condition_changed(self, change: Notice, now: Moment) -> "Memory":
        """A condition changed, and users were told of it where that was worth an Event."""
        return replace(self, notices=self.notices.condition_changed(change, now.boot))

    def told_once(self, reason: Reason) -> "Memory":
        """An Event was sent that is not sent again."""
        return replace(self, told=self.told | {reason})

    def may_tell_again(self, reason: Reason) -> "Memory":
        """What the Event told of is over: if it happens again, it is told again."""
        return replace(self, told=self.told - {reason}) if reason in self.told else self

    def _with_pending(self, held: IssuedToken, **changes: Any) -> "Memory":  # noqa: ANN401 -- fields of a pending token
        """Change what is known of the token that waits, if it is still this one."""
        pending = self.pending
        if pending is None or pending.held is not held:
            return self
        return replace(self, pending=replace(pending, **changes))
