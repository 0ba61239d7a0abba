"""What to tell users: the status of a credential and the Events of its transitions, from the facts and the decision."""

from dataclasses import replace
from typing import Any, Final

from tuinly_operator.base.clock import rfc3339
from tuinly_operator.base.text import cut
from tuinly_operator.domain.acts import Rest
from tuinly_operator.domain.credential import (
    DELIVERED,
    READY,
    RECONCILING,
    REFRESHED,
    STALLED,
    Condition,
    PodDelivery,
    Status,
)
from tuinly_operator.domain.decision import UNTRIED, need, setback, unwritten
from tuinly_operator.domain.errors import MOST_TOLD, Failure, Mark, Reason
from tuinly_operator.domain.facts import Facts
from tuinly_operator.domain.memory import Reported
from tuinly_operator.domain.notices import Notice
from tuinly_operator.domain.push import delivered, story

# For these, Ready is False whatever the target holds.
_NEVER_READY: Final = frozenset({Reason.INVALID_SPEC, Reason.URL_NOT_ALLOWED})
# While Ready is False for these, somebody must mend something. Endpoints recover, and a missing Secret may yet come.
_UNDER_WAY: Final = "an access token is being requested"
# What came of a push; it is told until there is another one.
_RESULTS: Final = frozenset({Reason.PUSHED, Reason.PUSH_REFUSED, Reason.PUSH_INCOMPLETE})
# Repeating failures change these; alone they are not worth a write each time.
_VOLATILE: Final = ("failed_attempts", "last_failure_time", "next_refresh_time")


def status(f: Facts, decision: Rest) -> Status:
    """Build the status.

    What only an earlier process knew (the last grant, the last failure) is carried over from the status before, until
    this process has reported it.
    """
    known = f.memory.reported or Reported.of(f.credential.status)
    before, published = f.credential.status, f.memory.published if f.in_place else None
    failed = f.memory.attempt
    next_time = decision.requeue_at
    return Status(
        observed_generation=f.credential.generation,
        conditions=_conditions(f, decision),
        secret_name=f.credential.target.name if f.in_place else before.secret_name,
        token_url=f.token_url,
        token_expiration_time=rfc3339(published.state.expires_at) if published else None,
        next_refresh_time=rfc3339(next_time.wall) if next_time else None,
        last_refresh_time=rfc3339(published.state.issued_at) if published else None,
        last_grant=(published.grant if published else None) or known.last_grant,
        scopes=tuple(sorted(published.state.scopes)) or None if published else None,
        failed_attempts=failed.attempts if failed else 0,
        last_failure_time=rfc3339(failed.at) if failed else known.last_failure_time,
        last_handled_refresh=_handled(f) or known.last_handled_refresh,
    )


def same_story(one: Status, other: Status) -> bool:
    """Whether two statuses differ at most in what changes with each repeated failure, or in mere numbers of Pods."""
    return _story(one) == _story(other)


def digest(told: Status) -> int:
    """The same number for all statuses that tell the same story."""
    return hash(_story(told))


def _story(told: Status) -> Status:
    """A status without what changes when nothing else does: numbers of failures and of Pods, and when it became so."""
    blank: dict[str, Any] = dict.fromkeys(_VOLATILE)
    conditions = tuple(
        replace(c, last_transition_time="", message=story(c.message) if c.type == DELIVERED else c.message)
        for c in told.conditions
    )
    return replace(told, conditions=conditions, **blank)


def transitions(before: Status, after: Status) -> list[Notice]:
    """What users might be told of a change of status: one notice per reason, none while a token is under way."""
    told: dict[str, Notice] = {}
    for kind in (READY, REFRESHED):
        old, new = before.condition(kind), after.condition(kind)
        if new is None or (old is not None and old.verdict == new.verdict) or new.reason == Reason.ISSUING:
            continue
        warning = new.status == "False" and new.reason != Reason.SUSPENDED
        told.setdefault(new.reason, Notice(warning, Reason(new.reason), new.message))
    old, new = before.condition(DELIVERED), after.condition(DELIVERED)
    if old is not None and new is not None and {old.status, new.status} == {"True", "False"}:
        told[DELIVERED] = Notice(new.status == "False", Reason(new.reason), new.message, DELIVERED)
    return list(told.values())


def _conditions(f: Facts, decision: Rest) -> tuple[Condition, ...]:
    """Ready and Refreshed, what tools that wait for health look for besides (kstatus), and what came of a push."""
    ready = _ready(f, decision)
    value, reason, message = ready
    conditions = [_stamp(f, READY, *ready), _stamp(f, REFRESHED, *_refreshed(f, decision))]
    if value == "False" and Mark.STALLS in reason.mark:
        conditions.append(_stamp(f, STALLED, "True", reason, message))
    if value == "True" and not f.spec.suspend and not _has_template(f):  # nothing is under way while it is suspended
        message = "the target Secret does not look yet as spec.target asks for; the condition Refreshed says why"
        conditions.append(_stamp(f, RECONCILING, "True", Reason.TEMPLATE_CHANGED, message))
    if f.problem is None and f.spec.delivery.pods is PodDelivery.PUSH:
        conditions.append(_stamp(f, DELIVERED, *_delivered(f)))
    return tuple(conditions)


def _has_template(f: Facts) -> bool:
    """Whether the target was last written by the template that the spec has now; what others did to it is no matter."""
    state = f.target.state if f.target else None
    return state is not None and state.template == f.layout.digest


def _handled(f: Facts) -> str | None:
    """The value of `refresh-requested` for which an exchange was last tried; None if that is not known here."""
    failed, held, asked = f.memory.attempt, f.memory.current, f.credential.refresh_requested
    if failed is not None and failed.asked:
        return failed.asked
    # An older value says nothing of attempts that failed since; of those, only the status before can tell.
    done = (held.handled or held.state.handled_refresh) if held is not None else None
    return done if done == asked else None


def _ready(f: Facts, decision: Rest) -> tuple[str, Reason, str]:
    blocked_by, published = decision.blocked_by, f.memory.published
    if blocked_by is not None and blocked_by.reason in _NEVER_READY:
        return "False", blocked_by.reason, blocked_by.message
    if f.in_place and published is not None and published.expiry.due(f.now):
        return "False", Reason.TOKEN_EXPIRED, "the token in the target has expired; the condition Refreshed says why"
    if f.usable:
        return "True", Reason.ISSUED, f"Secret {f.credential.target.name} holds a valid access token{_leaving(f)}"
    failed = blocked_by or _failure(f)
    if failed is not None:
        return "False", failed.reason, failed.message
    return "False", Reason.ISSUING, _UNDER_WAY


def _leaving(f: Facts) -> str:
    """What to say of a target that is being deleted, but held by a finalizer."""
    if f.target is None or not f.target.deleting:
        return ""
    return "; it is being deleted and held by a finalizer: it is kept up to date, and made again once it is gone"


def _refreshed(f: Facts, decision: Rest) -> tuple[str, Reason, str]:
    failed = decision.blocked_by or _failure(f)
    if failed is not None and failed.reason in (Reason.SUSPENDED, Reason.ISSUING):  # stopped, or waiting for its turn
        return "Unknown", failed.reason, failed.message
    if failed is not None:
        return "False", failed.reason, failed.message
    published = f.memory.published
    if f.in_place and published is not None and published.expiry.due(f.now):
        return "False", Reason.TOKEN_EXPIRED, "no new token came before the present one expired"
    # If a token is being asked for anew after a failure, neither that failure counts any more, nor has anything worked.
    settled = f.usable and f.memory.attempt is None
    if published is None or (not settled and (unwritten(f) or need(f))):
        return "Unknown", Reason.ISSUING, _UNDER_WAY
    return "True", Reason.ISSUED, "the last token request worked"


def _delivered(f: Facts) -> tuple[str, Reason, str]:
    """Whether Pods were told of the present token: by the last push, also where an earlier process made it."""
    if not f.policy.push:
        message = (
            "the operator was installed without Push, so that Pods see a new token within about 90 seconds; ask the "
            "cluster admin for it, or remove spec.delivery.pods"
        )
        return "False", Reason.PUSH_NOT_ENABLED, message
    if f.memory.delivery is not None:
        return delivered(f.memory.delivery)
    before = f.credential.status.condition(DELIVERED)
    if before is not None and before.reason in _RESULTS:
        return before.status, Reason(before.reason), before.message
    return "Unknown", Reason.PUSHING, "no Pod has been told of a token yet; the next one is pushed"


def _failure(f: Facts) -> Failure | None:
    """What went wrong last: an attempt, or the verification of the token that is held back or was published untried."""
    failed, pending = setback(f), f.memory.pending
    if failed is None and pending is not None:
        failed = pending.unverified
    if failed is not None:
        return failed.failure
    return UNTRIED if _untried(f) else None


def _untried(f: Facts) -> bool:
    """Whether the target holds a token that nobody could try, by memory or by the status before."""
    written, told = f.memory.written, f.credential.status
    if written is None or written.untried or not f.verifies:
        return written is not None and written.untried
    before, issued = told.condition(REFRESHED), rfc3339(written.held.state.issued_at)
    of_this = written.held.token is None and told.last_refresh_time == issued
    return of_this and before is not None and before.message == UNTRIED.message


def _stamp(f: Facts, kind: str, value: str, reason: Reason, message: str) -> Condition:
    """Complete a condition; its transition time moves only with its status."""
    old = f.credential.status.condition(kind)
    since = old.last_transition_time if old is not None and old.status == value else rfc3339(f.now.wall)
    return Condition(kind, value, reason, cut(message, MOST_TOLD), f.credential.generation, since)
