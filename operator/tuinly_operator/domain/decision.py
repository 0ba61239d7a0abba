"""What to do for a credential, decided purely: from what is known and the time to one next act.

Reconciling is: gather facts, decide, act, and again until the decision is to rest. Each rule below looks at the facts
and either decides or leaves it to the next; their order is the operator's judgement of what comes first.
"""

from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import Final

from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.acts import (
    AskWhoServes,
    Attempt,
    Cause,
    Decision,
    Exchange,
    Need,
    ProveAbsence,
    Publish,
    ReadClientSecret,
    Refresh,
    RemoveOldTargets,
    Rest,
    Verify,
)
from tuinly_operator.domain.credential import ClientSecretRef, DeletionPolicy, GrantType
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.facts import Block, Facts, Purpose
from tuinly_operator.domain.memory import (
    Client,
    ClientSecretRead,
    IssuedToken,
    Pending,
    Setback,
    WantedTarget,
    WriteInputs,
)
from tuinly_operator.domain.push import Push
from tuinly_operator.domain.schedule import MIN_LEAD, lead, refresh_offset, slack
from tuinly_operator.domain.target import Ownership, SecretMeta, believe, is_for_another, is_let_go, ownership

RECHECK: Final = 300.0  # seconds until another look at what no watch may tell of
RESTORES_AT_ONCE: Final = 3  # in a row, each within twice the least interval of the one before
FORCED_INTERVAL: Final = 10.0  # seconds between two forced exchanges
UNTRIED: Final = Failure(
    Reason.VERIFICATION_INCONCLUSIVE,
    "nobody could tell whether the new token works, and it was published all the same, since there was no other for "
    "much longer; check the GraphQL endpoint",
)
SAME_END: Final = 10.0  # seconds by which a token that is given again may seem to end otherwise: answers take time
SURE_OF_LIFE: Final = 5.0  # seconds after a token was asked for, for which its credential is taken to exist still
READ_AGAIN: Final = 1.0  # seconds between two reads of a client Secret that changes again and again
LAST_CALL: Final = 100.0  # seconds before expiry at which an unverified token is better than none

Rule = Callable[[Facts], Decision | None]


def decide(facts: Facts) -> Decision:
    """Decide the one next act for a credential."""
    return _look_first(
        facts, next((decision for rule in _RULES if (decision := rule(facts)) is not None), unblocked(facts))
    )


def _look_first(f: Facts, decided: Decision) -> Decision:
    """Have the credential read live before an act that must not rest on the watch's word alone, which may be late."""
    if f.served:
        return decided
    doubtful, other = not f.confirmed or is_for_another(f.target, f.credential), None
    match decided:
        case Publish(held=held):
            other = written_by_another(f)
            recent = f.now.boot - held.issued.boot <= SURE_OF_LIFE
            needed = doubtful or not recent or other is not None or is_let_go(f.target, f.credential)
        case Exchange() | Refresh():
            needed = doubtful or f.spec.target.deletion_policy is DeletionPolicy.RETAIN
        case RemoveOldTargets(targets=targets):
            needed = doubtful or bool(targets)
        case Verify():
            needed = not f.confirmed
        case _:
            needed = False  # it changes nothing, or looks for itself
    return AskWhoServes(other, target=doubtful) if needed else decided


def meanwhile(facts: Facts) -> Rest:
    """What the status is to tell while a token request is under way: what would forbid another one now, if anything."""
    return next((rest for rule in _FORBIDDING if (rest := rule(facts)) is not None), unblocked(facts))


def unblocked(f: Facts) -> Rest:
    """Rest until the refresh is due."""
    held = f.memory.current
    return _rest(f, requeue_at=refresh_at(f, held) if held else None)


def _rest(
    f: Facts,
    blocked_by: Failure | None = None,
    requeue_at: Deadline | None = None,
    parks: frozenset[Purpose] = frozenset(),
) -> Rest:
    """Rest as the arguments say; a token that is held back until it is verified may add a wait and a failure to that.

    As long as a credential merely waits for its turn at an endpoint, and briefly, its status is not written, unless its
    token has ended.
    """
    waits = held_back(f)
    if waits is not None:
        block, again = f.verify_permit.block, _wait_before_verification(f, waits)
        failure = waits.unverified.failure if waits.unverified else None
        if block is not None and (block.long or again is None):
            failure, again = failure or block.failure, block.until
            parks |= {Purpose.VERIFICATION} if block.parks else set()
        blocked_by = blocked_by or failure
        requeue_at = _earliest(requeue_at, again, _last_call_at(f))
    published = f.memory.published
    ended = published is not None and published.expiry.due(f.now)
    silent = bool(parks) and blocked_by is None and not ended
    return Rest(blocked_by, requeue_at, recheck_at=_read_again_at(f), parks=parks, silent=silent)


def _earliest(*deadlines: Deadline | None) -> Deadline | None:
    """The deadline that is due first, None where there is none."""
    first: Deadline | None = None
    for deadline in deadlines:
        first = deadline.earlier(first) if deadline is not None else first
    return first


def _leave_deleted_alone(f: Facts) -> Rest | None:
    return Rest(silent=True) if f.credential.deleting or f.memory.namespace_ends else None


def _refuse(f: Facts) -> Rest | None:
    """Nothing is read or sent for what the admin does not allow, or what cannot be understood."""
    failure = f.problem or _url_not_allowed(f)
    return Rest(failure) if failure else None


def _suspend(f: Facts) -> Rest | None:
    if not f.spec.suspend:
        return None
    return Rest(Failure(Reason.SUSPENDED, "spec.suspend is true; set it to false to go on"))


def _respect_foreign_target(f: Facts) -> Rest | None:
    if f.target is None or ownership(f.target, f.credential) is not Ownership.FOREIGN:
        return None
    message = (
        f"the Secret {f.credential.target.name} exists and is not this credential's; "
        "delete it, or choose another name in spec.target.name"
    )
    return Rest(Failure(Reason.TARGET_CONFLICT, message), recheck_at=Deadline.after(RECHECK, f.now))


def _verify(f: Facts) -> Decision | None:
    """Try a new token before it is published. Between two tries, the other rules decide as if it had not come."""
    waits = held_back(f)
    if waits is None or waits.held.token is None:
        return None
    if f.verify_permit.block is not None or _wait_before_verification(f, waits) is not None:
        return None
    return Verify(waits.held, waits.held.token, waits.unverified)


def _wait_before_verification(f: Facts, pending: Pending) -> Deadline | None:
    """When a failed verification is tried again; None if now. At once, if the endpoint has been seen to work since."""
    failed = pending.unverified
    if failed is None:
        return None
    least = Deadline.at(failed.at + f.policy.min_interval, f.now)
    wait = failed.retry.earlier(least) if f.verify_permit.at_once else failed.retry
    return None if wait.due(f.now) else wait


def _publish(f: Facts) -> Decision | None:
    """Write a token in memory that the target lacks: new, edited away, or wanted under another name."""
    wanted = unwritten(f)
    if wanted is None:
        return None
    if f.target is None and not f.may_create:
        return ProveAbsence()
    refused = f.memory.write
    if refused and refused.inputs == write_inputs(f) and not refused.retry.due(f.now):
        return _rest(f, refused.failure, refused.retry)
    again = _restore_again(f) if wanted.cause is Cause.BROKEN else None
    return wanted if again is None else _rest(f, requeue_at=again)


def _restore_again(f: Facts) -> Deadline | None:
    """When to restore a target that somebody keeps breaking, None if now. At once each time, that would never end."""
    last = f.memory.restores
    if last is None or last.count < RESTORES_AT_ONCE:
        return None
    again = Deadline.after(f.policy.min_interval, last.last)
    return None if again.due(f.now) else again


def _need_client(f: Facts) -> Decision | None:
    """Know the client id and secret whenever they may differ from those that the present token was issued for."""
    held = f.memory.current
    if held is not None and f.client_secret and held.state.client_secret_version == f.client_identity:
        return None
    client = _client(f)
    return None if isinstance(client, Client) else client


def _attempt(f: Facts) -> Decision | None:
    """Ask for a token where one is needed and the limiter lets the request go.

    While it does not, what the request needs is fetched all the same, unless the wait is long.
    """
    why, block = need(f), f.permit.block
    if why is None:
        return None
    if block is None:
        return _request(f, why)
    request = None if block.long else _request(f, why)
    return _kept_back(f, block) if request is None or isinstance(request, Attempt) else request


def _request(f: Facts, why: Need) -> Decision:
    """The token request, or what has to be done or waited for before it."""
    failed, wait = setback(f), _wait_before_attempt(f, why)
    if wait is not None:
        return _rest(f, failed.failure if failed else None, wait)
    if f.target is None and not f.may_create:
        return ProveAbsence()
    refresh = _refresh(f, why)
    if refresh is not None:
        return refresh
    client = _client(f)
    version = f.memory.client.identity if f.memory.client else ""
    return Exchange(why, client, version) if isinstance(client, Client) else client


def _kept_back(f: Facts, block: Block) -> Rest:
    """Wait until the limiter lets the token request go; the status tells the last failure, or that the wait is long."""
    failed = setback(f)
    failure = failed.failure if failed is not None else block.failure
    return _rest(f, failure, block.until, frozenset({Purpose.TOKEN}) if block.parks else frozenset())


def _clean_up(f: Facts) -> Decision | None:
    """After a rename, delete the old target. A Secret that only looks like one stays, and users are told of it once."""
    if f.spec.target.deletion_policy is DeletionPolicy.RETAIN or not f.in_place:
        return None
    old, alike = leftovers(f), look_alikes(f)
    return RemoveOldTargets(old, alike) if old or alike != f.memory.look_alikes else None


_FORBIDDING: Final[tuple[Callable[[Facts], Rest | None], ...]] = (
    _leave_deleted_alone,
    _refuse,
    _suspend,
    _respect_foreign_target,
)
_RULES: Final[tuple[Rule, ...]] = (
    _leave_deleted_alone,
    _refuse,
    _suspend,
    _respect_foreign_target,
    _verify,
    _publish,
    _need_client,
    _attempt,
    _clean_up,
)


def need(f: Facts) -> Need | None:
    """Why a token must be asked for now, or None."""
    held = f.memory.current
    if held is None:
        return Need.FIRST
    due = refresh_at(f, held)
    reasons = (
        (Need.LOST, _lost(f, held)),
        (Need.LAYOUT_CHANGED, held.token is None and not f.looks_as_asked),
        (Need.EXPIRED, held.expiry.due(f.now)),
        (Need.INPUTS_CHANGED, held.state.exchange_inputs != f.inputs),
        (Need.CLIENT_CHANGED, client_changed(f)),
        (Need.FORCED, forced(f)),
        (Need.DUE, due.remaining(f.now) <= _slack(held)),
    )
    return next((why for why, true in reasons if true), None)


def _lost(f: Facts, held: IssuedToken) -> bool:
    """Whether the target has lost the token, and this process, which never knew it, cannot restore it."""
    return held.token is None and not f.in_place


def client_changed(f: Facts) -> bool:
    """Whether the client id or secret is known to differ from the one that the present token was issued for."""
    held, read = f.memory.current, f.memory.client
    if held is None or held.state.client_secret_version == f.client_identity:
        return False
    return read is not None and read.client != held.client


def forced(f: Facts) -> bool:
    """Whether users have asked for an exchange that has not been made. Removing the annotation asks for nothing."""
    held, asked = f.memory.current, f.credential.refresh_requested
    return bool(asked) and held is not None and asked not in (held.state.handled_refresh, held.handled)


def unwritten(f: Facts) -> Publish | None:
    """The token that should be written to the target now, and why, or None.

    While a new one is held for its verification, what is restored is the one that was written last.
    """
    pending, written = f.memory.pending, f.memory.written
    if pending is not None and held_back(f) is None and (token := _writable(f, pending.held)):
        return Publish(pending.held, token, Cause.NEW_TOKEN, f.verifies and not pending.verified, pending.due)
    if written is not None and not f.looks_as_asked and (token := _writable(f, written.held)):
        cause = Cause.BROKEN if written.wanted == wanted_target(f) else Cause.NEW_LAYOUT
        return Publish(written.held, token, cause, written.untried)
    return None


def written_by_another(f: Facts) -> IssuedToken | None:
    """The token that another shard or another leader wrote into the target, if it is intact and no older than ours.

    Then one of the two operators does not serve this credential any more.
    """
    state = believe(f.target, f.credential, f.layout, f.now.wall) if f.target else None
    last = f.memory.published
    if state is None or last is None or state.same_token(last.state) or state.issued_at < last.state.issued_at:
        return None
    return IssuedToken(state, f.now.moved_to(state.issued_at))


def _writable(f: Facts, held: IssuedToken) -> Sensitive | None:
    """The token, if it may be written: it lives, and a target that is new does not begin with one for an older spec."""
    if held.expiry.due(f.now) or (f.target is None and held.state.exchange_inputs != f.inputs):
        return None
    return held.token


def held_back(f: Facts) -> Pending | None:
    """The new token, while it must not be published yet: it is to be verified, and there is time left to try."""
    pending = f.memory.pending
    if pending is None or pending.verified or not f.verifies:
        return None
    if _given_again(f):
        return pending
    last_call, block = _last_call_at(f), f.verify_permit.block
    if last_call is not None:
        return None if (pending.unverified or block) and last_call.due(f.now) else pending
    # One that merely waits for its turn to be verified is held back: its turn will come.
    return None if pending.unverified or (block is not None and block.long and block.failure) else pending


def _given_again(f: Facts) -> bool:
    """Whether the new token failed a verification, and the server gave it again: only another verification counts."""
    pending = f.memory.pending
    token = pending.held.token if pending else None
    return token is not None and token == f.memory.rejected_token


def to_push(f: Facts) -> Push | None:
    """The content of the target that Pods are to be told of now, if any."""
    new, credential = f.memory.unpushed, f.credential
    if new is None or not f.pushes or not f.in_place or new.until.due(f.now):
        return None
    return Push(credential.key, credential.uid, credential.target, new)


def leftovers(f: Facts) -> tuple[tuple[NamespacedName, SecretMeta], ...]:
    """The targets under other names that are to be deleted; one that a finalizer holds is left to whoever set it."""
    return tuple((key, meta) for key, meta in f.old_targets if _proven(f, meta) and not meta.deleting)


def look_alikes(f: Facts) -> frozenset[str]:
    """The names of Secrets that say they are this credential's target under another name, and cannot prove it."""
    return frozenset(key.name for key, meta in f.old_targets if not _proven(f, meta))


def _proven(f: Facts, meta: SecretMeta) -> bool:
    return ownership(meta, f.credential) is Ownership.PROVEN


def present_end(f: Facts) -> float | None:
    """When the newest token ends, in seconds since the epoch; None if there is none.

    One that only an earlier process knew counts only while the spec asks for the same.
    """
    held = f.memory.current
    if held is None or (held.token is None and held.state.exchange_inputs != f.inputs):
        return None
    return held.expiry.wall


def wanted_target(f: Facts) -> WantedTarget:
    """How the spec asks the target to be: as long as that is the same, any difference is somebody else's doing."""
    return WantedTarget(f.credential.target.name, f.layout.digest, f.spec.target.deletion_policy)


def write_inputs(f: Facts) -> WriteInputs:
    """What a write would be tried with now: a change of it ends the wait after a refused one."""
    return WriteInputs(f.credential.target.name, f.layout.digest, f.target.version if f.target else "")


def _refresh(f: Facts, why: Need) -> Refresh | None:
    """The grant by refresh token, if it can be used: for a routine refresh, with one that was issued for this spec."""
    held, read = f.memory.current, f.memory.client
    welcome = f.spec.refresh.grant is GrantType.REFRESH_TOKEN and f.memory.refresh_refused != f.attempt_inputs
    routine = why in (Need.DUE, Need.EXPIRED) and not client_changed(f) and not forced(f)
    if held is None or held.refresh is None or held.state.exchange_inputs != f.inputs or not (welcome and routine):
        return None
    version = read.identity if read and read.client == held.client else held.state.client_secret_version
    return Refresh(why, held.refresh, held, version)


def counts_from(f: Facts) -> Moment:
    """The time from which the least interval after an attempt that begins now is counted.

    A change lets an attempt begin before the interval of the last one is over. It is counted from the end of that
    interval, so the next one waits the longer: who edits in a loop gets one attempt per interval on average.
    """
    if f.memory.last_attempt is None:
        return f.now
    end = Deadline.after(f.policy.min_interval, f.memory.last_attempt.at)
    return f.now if end.due(f.now) else Moment(end.wall, end.boot)


def setback(f: Facts) -> Setback | None:
    """The failure of the last attempt, as long as nothing changed since: neither the inputs, nor what users ask for."""
    last = f.memory.attempt
    if last is None or last.inputs != f.attempt_inputs or f.credential.refresh_requested not in ("", last.asked):
        return None
    return last


def refresh_at(f: Facts, held: IssuedToken) -> Deadline:
    """When the token is due for its refresh.

    Also once an attempt ended in doubt after it was issued: a server that revokes may have issued another one, and the
    answer was lost. Such a token may be met in the target only when that attempt is under way, or over.
    """
    due = held.ask_again or Deadline.after(refresh_offset(f.spec.refresh, held.state), held.issued)
    last = f.memory.attempt
    if last is None or not last.failure.in_doubt or held.state.issued_at > last.at:
        return due
    return last.retry.earlier(due)


def slack_before(f: Facts, wake: Deadline | None) -> float:
    """Seconds by which what is to be done at a deadline may be done earlier: a refresh may, and nothing else."""
    held = f.memory.current
    return _slack(held) if held and wake == refresh_at(f, held) else 0.0


def _slack(held: IssuedToken) -> float:
    """Seconds by which a token may be refreshed earlier than it is due; none where it is another try."""
    return 0.0 if held.ask_again else slack(held.state.lifetime)


def _wait_before_attempt(f: Facts, why: Need) -> Deadline | None:
    waits = []
    failed = setback(f)
    if failed is not None and not f.permit.at_once:
        waits.append(failed.retry)
    last = f.memory.last_attempt
    again = _read_again_at(f)
    if again is not None and why not in (Need.DUE, Need.EXPIRED):
        waits.append(again)  # what was read may be what has just been corrected
    if last is not None:
        changed = last.inputs != f.attempt_inputs
        waits.append(Deadline.after(0.0 if changed else f.policy.min_interval, last.at))
    if why is Need.FORCED and f.memory.last_forced is not None:
        waits.append(Deadline.after(FORCED_INTERVAL, f.memory.last_forced))
    return max((wait for wait in waits if not wait.due(f.now)), default=None)


def _client(f: Facts) -> Client | ReadClientSecret | Rest:
    """The client id and secret; if they are not known, the act that reads them, or the rest until that is of use."""
    read = f.memory.client
    if read is None or read.ref != f.spec.client_secret_ref:
        return ReadClientSecret()
    if read.identity != f.client_identity and _read_again_at(f) is None:
        return ReadClientSecret()
    if isinstance(read.client, Client):
        return read.client
    if f.client_secret is not None:
        return _rest(f, read.client)
    again = Deadline.after(RECHECK, read.at)  # no watch tells of Secrets of some types
    return ReadClientSecret() if again.due(f.now) else replace(_rest(f, read.client), recheck_at=again)


def read_again_at(
    read: ClientSecretRead | None, ref: ClientSecretRef, there: SecretMeta | None, now: Moment
) -> Deadline | None:
    """When a client Secret is read that changed right after its last read; None if now, or if it did not.

    Until then the client that was read counts. Else whoever edits the Secret in a loop would keep the operator reading.
    """
    if read is None or read.ref != ref or read.identity == (there.identity if there else ""):
        return None
    again = Deadline.after(READ_AGAIN, read.at)
    return None if again.due(now) else again


def _read_again_at(f: Facts) -> Deadline | None:
    return read_again_at(f.memory.client, f.spec.client_secret_ref, f.client_secret, f.now)


def _last_call_at(f: Facts) -> Deadline | None:
    """When a new token is published even if nobody could verify it: shortly before the present token ends.

    None where there is no present token, neither in the target, nor in memory so that it could be restored; and for a
    new one that must be verified all the same.
    """
    held = f.memory.published
    if held is None or _lost(f, held) or held.state.exchange_inputs != f.inputs or held.expiry.due(f.now):
        return None
    if _given_again(f):
        return None
    before = min(LAST_CALL, lead(f.spec.refresh, held.state.lifetime) / 2)
    return Deadline.after(held.state.lifetime - before, held.issued)


def _url_not_allowed(f: Facts) -> Failure | None:
    if f.token_url not in f.policy.allowed_token_urls:
        field, flag = "spec.tokenURL", "--allowed-token-url"
    elif f.verifies and f.graphql_url not in f.policy.allowed_graphql_urls:
        field, flag = "spec.verification.graphqlURL", "--allowed-graphql-url"
    else:
        return None
    message = f"{field} is not one that the cluster admin allows; omit it, or ask for it to be added to {flag}"
    return Failure(Reason.URL_NOT_ALLOWED, message)


class Comparison(Enum):
    """How a well-formed answer compares with the token that is held."""

    BETTER = auto()
    SAME = auto()
    RENEWED = auto()  # the same, with a later end
    WORSE = auto()


def compare(f: Facts, offer: IssuedToken) -> Comparison:
    """Judge an answer by the promise never to make things worse.

    A good token is only replaced by one that expires later and whose scopes are no narrower, unless the spec changed;
    an earlier expiry is accepted after a change of the client and when users asked for it. Once the present token has
    less than the least lead left, anything well-formed is better than nothing.
    """
    held = f.memory.current
    if held is None or _lost(f, held) or held.expiry.due(f.now) or held.state.exchange_inputs != f.inputs:
        return Comparison.BETTER
    replaced = client_changed(f)
    narrower = not offer.state.scopes >= held.state.scopes and held.expiry.remaining(f.now) >= MIN_LEAD
    if held.token is not None and held.token == offer.token and not replaced:
        later = offer.expiry.remaining(f.now) > held.expiry.remaining(f.now) + SAME_END
        return Comparison.RENEWED if later and not narrower else Comparison.SAME
    if held.expiry.remaining(f.now) < MIN_LEAD:
        return Comparison.BETTER
    # Only if both clocks say so: after a wall clock was set back, every new token seems to end before the old one. And
    # the token of an earlier process, which this one does not know, may be the very one that is given again.
    ends, end, tolerated = offer.expiry, held.expiry, SAME_END if held.token is None else 0.0
    sooner = ends.wall + tolerated < end.wall and ends.boot + tolerated < end.boot
    earlier = sooner and not replaced and not forced(f)
    return Comparison.WORSE if narrower or earlier else Comparison.BETTER
