"""What to do for a credential, decided purely: from what is known and the time to one next act.

Reconciling is: gather facts, decide, act, and again until the decision is to rest. Each rule below looks at the facts
and either decides or leaves it to the next; their order is the operator's judgement of what comes first.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from tuinly_operator.clock import Deadline, Moment
from tuinly_operator.credential import Credential, GrantType, Key, Refresh, Spec, parse_duration
from tuinly_operator.errors import Failure, Reason
from tuinly_operator.memory import Held, Memory, Setback
from tuinly_operator.state import Ownership, SecretMeta, TokenState, exchange_inputs, intact, ownership

MIN_LEAD: Final = 120.0  # seconds: 80 for the kubelet to show a changed Secret to its Pods, the rest for retries
DEFAULT_LEAD_PERCENTAGE: Final = 33
JITTER: Final = 0.1  # of the lifetime less the lead
CONFLICT_RECHECK: Final = 300.0  # seconds
BACKOFF_BASE: Final = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Policy:
    """What the cluster admin allows and wants; `min_interval` is seconds between two attempts of one credential."""

    token_url: str
    graphql_url: str
    allowed_token_urls: frozenset[str]
    allowed_graphql_urls: frozenset[str]
    min_interval: float


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision may look at, gathered at `now`.

    `old_targets` are Secrets that we wrote for this credential under other names. `absence_proven` says that a live
    read confirmed that there is no target.
    """

    credential: Credential
    policy: Policy
    memory: Memory
    now: Moment
    client_secret: SecretMeta | None
    target: SecretMeta | None
    old_targets: tuple[tuple[Key, SecretMeta], ...] = ()
    absence_proven: bool = False

    @property
    def spec(self) -> Spec:
        """What the team asks for."""
        return self.credential.spec

    @property
    def token_url(self) -> str:
        """The effective token URL."""
        return self.spec.token_url or self.policy.token_url

    @property
    def inputs(self) -> str:
        """Digest of what a token would be issued for now."""
        return exchange_inputs(self.token_url, self.spec)

    @property
    def client_identity(self) -> str:
        """Which content of the client Secret is there now; empty where there is none."""
        return self.client_secret.identity if self.client_secret else ""

    @property
    def tried_inputs(self) -> str:
        """What an attempt would be tried with now: a change of it ends the wait for a retry."""
        return f"{self.inputs} {self.client_identity}"

    @property
    def in_place(self) -> bool:
        """Whether the target holds what we last wrote, untouched."""
        held, target = self.memory.published, self.target
        return (
            held is not None
            and target is not None
            and target.target is not None
            and intact(target, self.credential)
            and target.target.state == held.state
        )


class Act(Enum):
    """The acts that a decision can ask for."""

    REST = auto()
    READ_CLIENT_SECRET = auto()
    PROVE_ABSENCE = auto()
    EXCHANGE = auto()
    REFRESH = auto()
    PUBLISH = auto()
    REMOVE_OLD_TARGETS = auto()


@dataclass(frozen=True, slots=True)
class Decision:
    """One next act.

    At rest, `hindrance` says what keeps a token from being asked for, `look_again` when time alone changes that.
    """

    act: Act
    hindrance: Failure | None = None
    look_again: Deadline | None = None
    silent: bool = False


Rule = Callable[[Facts], Decision | None]


def decide(facts: Facts) -> Decision:
    """Decide the one next act for a credential."""
    for rule in _RULES:
        decision = rule(facts)
        if decision is not None:
            return decision
    return Decision(Act.REST, look_again=next_refresh(facts))


def _leave_deleted_alone(f: Facts) -> Decision | None:
    return Decision(Act.REST, silent=True) if f.credential.deleting else None


def _refuse(f: Facts) -> Decision | None:
    """Nothing is read or sent for what the admin does not allow or this version cannot do."""
    failure = f.credential.problem or _not_implemented(f) or _url_not_allowed(f)
    return Decision(Act.REST, failure) if failure else None


def _suspend(f: Facts) -> Decision | None:
    if not f.spec.suspend:
        return None
    return Decision(Act.REST, Failure(Reason.SUSPENDED, "spec.suspend is true; set it to false to go on"))


def _respect_foreign_target(f: Facts) -> Decision | None:
    if f.target is None or ownership(f.target, f.credential) is not Ownership.FOREIGN:
        return None
    message = (
        f"the Secret {f.credential.target.name} exists and is not this credential's; "
        "delete it, or choose another name in spec.target.name"
    )
    return Decision(Act.REST, Failure(Reason.TARGET_CONFLICT, message), Deadline.after(CONFLICT_RECHECK, f.now))


def _publish(f: Facts) -> Decision | None:
    """Write a token in memory that the target lacks: new, edited away, or wanted under another name."""
    held = unwritten(f)
    if held is None:
        return None
    if f.target is None and not f.absence_proven:
        return Decision(Act.PROVE_ABSENCE)
    refused = f.memory.write_setback
    if refused and refused.inputs == f.credential.target.name and not refused.retry.due(f.now):
        return Decision(Act.REST, refused.failure, refused.retry)
    return Decision(Act.PUBLISH)


def _need_client(f: Facts) -> Decision | None:
    """Know the client id and secret whenever they may differ from those that the present token was issued for."""
    held, read = f.memory.current, f.memory.client
    if held is not None and f.client_secret and held.state.client_secret_version == f.client_identity:
        return None
    if read is None or read.identity != f.client_identity:
        return Decision(Act.READ_CLIENT_SECRET)
    return Decision(Act.REST, read.client) if isinstance(read.client, Failure) else None


def _attempt(f: Facts) -> Decision | None:
    if need(f) is None:
        return None
    wait = _wait_before_attempt(f)
    if wait is not None:
        failed = setback(f)
        return Decision(Act.REST, failed.failure if failed else None, wait)
    if f.target is None and not f.absence_proven:
        return Decision(Act.PROVE_ABSENCE)
    if use_refresh_token(f):
        return Decision(Act.REFRESH)
    read = f.memory.client
    if read is None or read.identity != f.client_identity:
        return Decision(Act.READ_CLIENT_SECRET)
    return Decision(Act.REST, read.client) if isinstance(read.client, Failure) else Decision(Act.EXCHANGE)


def _clean_up(f: Facts) -> Decision | None:
    return Decision(Act.REMOVE_OLD_TARGETS) if f.old_targets and f.in_place else None


_RULES: Final[tuple[Rule, ...]] = (
    _leave_deleted_alone,
    _refuse,
    _suspend,
    _respect_foreign_target,
    _publish,
    _need_client,
    _attempt,
    _clean_up,
)


class Need(Enum):
    """Why a token is asked for."""

    FIRST = auto()
    LOST = auto()
    EXPIRED = auto()
    INPUTS_CHANGED = auto()
    CLIENT_CHANGED = auto()
    DUE = auto()


def need(f: Facts) -> Need | None:
    """Why a token must be asked for now, or None."""
    held = f.memory.current
    if held is None:
        return Need.FIRST
    if held.token is None and not f.in_place:
        return Need.LOST
    if held.expiry.due(f.now):
        return Need.EXPIRED
    if held.state.exchange_inputs != f.inputs:
        return Need.INPUTS_CHANGED
    if client_changed(f):
        return Need.CLIENT_CHANGED
    return Need.DUE if refresh_at(f, held).due(f.now) else None


def client_changed(f: Facts) -> bool:
    """Whether the client id or secret is known to differ from the one that the present token was issued for."""
    held, read = f.memory.current, f.memory.client
    if held is None or held.state.client_secret_version == f.client_identity:
        return False
    return read is not None and read.client != held.client


def unwritten(f: Facts) -> Held | None:
    """The token that should be written to the target now, or None."""
    held = f.memory.pending
    if held is None and not f.in_place:
        held = f.memory.published
    if held is None or held.token is None or held.expiry.due(f.now):
        return None
    # A new target never starts with a token for other inputs than it is asked for.
    return held if f.target is not None or held.state.exchange_inputs == f.inputs else None


def use_refresh_token(f: Facts) -> bool:
    """Whether the next attempt starts with the refresh token: only for a routine refresh, where one is welcome."""
    memory = f.memory
    return (
        memory.refresh_token is not None
        and f.spec.refresh.grant is GrantType.REFRESH_TOKEN
        and memory.refresh_refused != f.tried_inputs
        and need(f) in (Need.DUE, Need.EXPIRED, Need.LOST)
        and memory.current is not None
        and memory.current.state.exchange_inputs == f.inputs
    )


def setback(f: Facts) -> Setback | None:
    """The setback of the last attempt, as long as it was tried with what is there now."""
    last = f.memory.setback
    return last if last is not None and last.inputs == f.tried_inputs else None


def _wait_before_attempt(f: Facts) -> Deadline | None:
    waits = []
    failed = setback(f)
    if failed is not None:
        waits.append(failed.retry)
    if f.memory.last_attempt is not None:
        waits.append(Deadline.after(f.policy.min_interval, f.memory.last_attempt))
    return max((wait for wait in waits if not wait.due(f.now)), default=None)


def _not_implemented(f: Facts) -> Failure | None:
    asked = f.spec.not_implemented()
    if asked is None:
        return None
    return Failure(
        Reason.NOT_IMPLEMENTED, f"{asked} is not supported by this version of the operator; remove it from the spec"
    )


def _url_not_allowed(f: Facts) -> Failure | None:
    if f.token_url in f.policy.allowed_token_urls:
        return None
    message = "spec.tokenURL is not one that the cluster admin allows; omit it, or ask for an --allowed-token-url"
    return Failure(Reason.URL_NOT_ALLOWED, message)


def lead(refresh: Refresh, lifetime: float) -> float:
    """Seconds before expiry at which a token is refreshed at the latest.

    What the spec asks for, raised to two minutes, cut to half the lifetime: a token is used for at least half of its
    life.
    """
    if refresh.before is not None:
        wanted = parse_duration(refresh.before)
    else:
        wanted = lifetime * (refresh.before_percentage or DEFAULT_LEAD_PERCENTAGE) / 100
    return min(max(wanted, MIN_LEAD), lifetime / 2)


def refresh_offset(refresh: Refresh, state: TokenState) -> float:
    """Seconds after issue at which to refresh: the lead before expiry, less a jitter that only makes it earlier.

    The jitter is drawn from the token's identity, so that it is uniform over credentials and yet the same each time
    it is asked for: a restart or a changed lead never draws again.
    """
    latest = state.lifetime - lead(refresh, state.lifetime)
    drawn = hashlib.sha256(f"{state.credential_uid} {state.issued_at}".encode()).digest()
    return latest * (1 - JITTER * int.from_bytes(drawn[:8]) / 2**64)


def refresh_at(f: Facts, held: Held) -> Deadline:
    """When the token is due for its refresh."""
    again = f.memory.look_again
    return again or Deadline.after(refresh_offset(f.spec.refresh, held.state), held.issued)


def next_refresh(f: Facts) -> Deadline | None:
    """When time alone makes the credential due: its refresh, or None while it has no token."""
    held = f.memory.current
    return refresh_at(f, held) if held else None


def retry_delay(failure: Failure, attempts: int, life_left: float, min_interval: float, drawn: float) -> float:
    """Seconds to wait after a failed attempt: exponential with full jitter, and quicker as the token's end comes near.

    `attempts` counts failures in a row, `drawn` is uniform in [0, 1). Where only a person can mend it and there is no
    token left to save, there is no hurry: a change of the client Secret or the spec ends the wait anyway.
    """
    longest = 300.0 if failure.patient else 60.0
    cap = longest if failure.patient and life_left <= 0 else min(longest, max(10.0, life_left / 4))
    return max(min_interval, drawn * min(cap, BACKOFF_BASE * 2.0 ** min(attempts, 16)))


class Comparison(Enum):
    """How a well-formed answer compares with the token that is held."""

    BETTER = auto()
    SAME = auto()
    WORSE = auto()


@dataclass(frozen=True, slots=True)
class Offer:
    """What an answer offers, for comparison: its expiry (seconds since the epoch) and scopes as granted."""

    expires_at: int
    scopes: frozenset[str] = field(default_factory=frozenset)


def compare(f: Facts, offer: Offer, *, same_token: bool) -> Comparison:
    """Judge an answer by the promise never to make things worse.

    A good token is only replaced by one that expires later and whose scopes are no narrower, unless the spec changed;
    an earlier expiry is accepted after a change of the client too. Once the present token has less than the least
    lead left, anything well-formed is better than nothing.
    """
    held = f.memory.current
    if held is None or held.expiry.due(f.now) or held.state.exchange_inputs != f.inputs:
        return Comparison.BETTER
    replaced = client_changed(f)
    if same_token and not replaced:
        return Comparison.SAME
    if held.expiry.remaining(f.now) < MIN_LEAD:
        return Comparison.BETTER
    narrower = not offer.scopes >= frozenset(held.state.granted_scopes.split())
    earlier = offer.expires_at < held.state.expires_at and not replaced
    return Comparison.WORSE if narrower or earlier else Comparison.BETTER
