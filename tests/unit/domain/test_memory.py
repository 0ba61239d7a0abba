"""What is remembered, change by change: each is named after what happened, and makes another memory of the last."""

from collections.abc import Callable
from dataclasses import MISSING, fields, replace

import pytest

from tests.unit.facts import CLIENT, ISSUED, OTHER_CLIENT, REF, token_state
from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.credential import DeletionPolicy, GrantType
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.memory import (
    Attempted,
    AttemptInputs,
    ClientSecretRead,
    IssuedToken,
    Memory,
    Pending,
    RefreshToken,
    Restores,
    Setback,
    WantedTarget,
    Written,
)
from tuinly_operator.domain.notices import NO_NOTICES, Notice, Notices
from tuinly_operator.domain.push import Content, Delivery

CONTENT = Content("31", ISSUED, ours=True)
INPUTS = AttemptInputs(token_state().exchange_inputs, "client-uid/20")
OTHER_INPUTS = INPUTS._replace(client_secret="client-uid/21")
WANTED = WantedTarget("storefront-token", "a layout", DeletionPolicy.DELETE)
OTHERWISE = WANTED._replace(layout="another")
SOON = Deadline.after(30, ISSUED)


def held(number: int = 1, **changes: object) -> IssuedToken:
    """A token with its refresh token, issued so many seconds after the first."""
    at = int(ISSUED.wall) + number - 1
    state = token_state(issued_at=at, expires_at=at + 3600)
    known = IssuedToken(
        state,
        Moment(ISSUED.wall + number - 1, ISSUED.boot + number - 1),
        Sensitive(f"token-{number}"),
        CLIENT,
        GrantType.CLIENT_CREDENTIALS,
        RefreshToken(Sensitive(f"refresh-{number}")),
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def setback(reason: Reason = Reason.VERIFICATION_INCONCLUSIVE) -> Setback:
    return Setback(Failure(reason, "what it means"), 1, ISSUED.wall, SOON, INPUTS)


@pytest.fixture
def one() -> IssuedToken:
    """The token in the target."""
    return held(1)


@pytest.fixture
def two() -> IssuedToken:
    """The one that comes next."""
    return held(2)


@pytest.fixture
def memory(one: IssuedToken) -> Memory:
    """The first token is written; nothing waits."""
    return Memory(met=True, written=Written(one, WANTED))


# --- Tokens -----------------------------------------------------------------------------------------------------------


def test_at_the_first_meeting_what_the_target_tells_is_known(one: IssuedToken) -> None:
    assert Memory().met_target(None) == Memory(met=True)
    assert Memory().met_target(one) == Memory(met=True, written=Written(one))


def test_a_later_token_in_the_target_takes_the_place_of_one_that_waits(memory: Memory, two: IssuedToken) -> None:
    three = held(3)
    assert memory.obtained(two, None).met_target(three) == replace(memory, written=Written(three))
    assert memory.obtained(three, None).met_target(two).pending == Pending(three)


def test_a_token_that_comes_waits_to_be_verified_and_written(
    memory: Memory, one: IssuedToken, two: IssuedToken
) -> None:
    after = memory.obtained(two, SOON)
    assert after.pending == Pending(two, due=SOON)
    assert (after.published, after.current) == (one, two)


def test_one_that_comes_in_the_place_of_one_that_waits_inherits_nothing(memory: Memory, two: IssuedToken) -> None:
    waiting = memory.obtained(two, SOON).unverified(two, setback())
    assert waiting.obtained(held(3), None).pending == Pending(held(3))


def test_once_it_is_written_nothing_waits_and_the_failures_before_are_over(memory: Memory, two: IssuedToken) -> None:
    failed = memory.obtained(two, None).attempt_failed(setback()).write_failed(setback())
    after = failed.wrote(two, OTHERWISE, untried=True)
    assert after.written == Written(two, OTHERWISE, untried=True)
    assert (after.pending, after.attempt, after.write) == (None, None, None)


def test_what_is_restored_while_another_waits_ends_no_wait(memory: Memory, one: IssuedToken, two: IssuedToken) -> None:
    failed = memory.obtained(two, None).attempt_failed(setback())
    after = failed.wrote(one, OTHERWISE)
    assert after.written == Written(one, OTHERWISE)
    assert (after.pending, after.attempt) == (failed.pending, failed.attempt)


def test_one_that_waits_for_other_inputs_is_nobodys_any_more(memory: Memory, two: IssuedToken) -> None:
    waiting = memory.obtained(two, None)
    assert waiting.asked_for(INPUTS.exchange, verified=True) is waiting
    assert waiting.asked_for("other", verified=True) == memory


def test_where_nothing_is_verified_none_is_unverified(memory: Memory, two: IssuedToken) -> None:
    waiting = memory.wrote(held(1), None, untried=True).obtained(two, None).unverified(two, setback())
    assert waiting.asked_for(INPUTS.exchange, verified=True) is waiting
    after = waiting.asked_for(INPUTS.exchange, verified=False)
    assert (after.pending, after.written) == (Pending(two), Written(held(1)))


def test_a_verification_is_of_one_token_and_no_other(memory: Memory, two: IssuedToken) -> None:
    waiting = memory.obtained(two, None)
    unsure = waiting.unverified(two, setback())
    assert unsure.pending == Pending(two, unverified=setback())
    assert unsure.verified(two).pending == Pending(two, verified=True)
    gone = waiting.rejected(two)
    assert gone == replace(memory, rejected_token=two.token)
    for other in (held(2), held(3)):  # the one that was tried may have gone while it was
        assert waiting.verified(other) == waiting.unverified(other, setback()) == waiting.rejected(other) == waiting


def test_the_same_token_with_a_later_end_is_written_and_what_is_known_of_it_stays(
    memory: Memory, two: IssuedToken
) -> None:
    assert memory.renewed(two, SOON).pending == Pending(two, verified=True, due=SOON)
    untried = memory.wrote(held(1), None, untried=True)
    assert untried.renewed(two, None).pending == Pending(two)
    unsure = memory.obtained(two, None).unverified(two, setback())
    assert unsure.renewed(held(3), SOON).pending == Pending(held(3), unverified=setback(), due=SOON)


@pytest.mark.parametrize("waits", [False, True])
def test_the_same_token_again_is_asked_for_later_by_what_came_with_it(
    memory: Memory, two: IssuedToken, *, waits: bool
) -> None:
    before = (memory.obtained(two, None) if waits else memory).attempt_failed(setback())
    newest = RefreshToken(Sensitive("refresh-9"), proven=True)
    after = before.same_again("now", SOON, newest)
    assert before.current is not None
    assert after.current == replace(before.current, ask_again=SOON, handled="now", refresh=newest)
    assert after.attempt is None
    assert (after.published == before.published) is waits
    assert after.same_again("", SOON, None).current == replace(after.current, refresh=None)  # it stays handled


def test_of_two_tokens_of_the_same_second_the_one_in_the_target_counts(memory: Memory, two: IssuedToken) -> None:
    other = replace(two, token=None)
    assert memory.obtained(two, None).met_target(other) == replace(memory, written=Written(other))


@pytest.mark.parametrize("written", [None, Written(held(1), WANTED, untried=True)])
def test_what_another_wrote_is_what_the_target_holds_and_how_it_is_wanted_stays(
    two: IssuedToken, written: Written | None
) -> None:
    after = Memory(met=True, written=written).overtaken(two)
    assert after == Memory(met=True, written=Written(two, written.wanted if written else None))


# --- Refresh tokens ---------------------------------------------------------------------------------------------------


def test_a_refresh_token_goes_with_the_token_that_it_came_with(
    memory: Memory, one: IssuedToken, two: IssuedToken
) -> None:
    assert memory.obtained(two, None).rejected(two).current == one
    assert memory.obtained(two, None).asked_for("other", verified=False).current == one


def test_one_that_was_spent_is_gone_wherever_it_was(memory: Memory, one: IssuedToken, two: IssuedToken) -> None:
    waiting = memory.obtained(two, None)
    assert one.refresh is not None
    assert two.refresh is not None
    assert waiting.refresh_token_spent(one.refresh) == replace(
        waiting, written=Written(replace(one, refresh=None), WANTED)
    )
    assert waiting.refresh_token_spent(two.refresh) == replace(waiting, pending=Pending(replace(two, refresh=None)))
    assert waiting.refresh_token_spent(RefreshToken(Sensitive("refresh-1"))) == waiting


def test_only_a_refusal_at_its_first_use_counts_for_what_comes(memory: Memory, one: IssuedToken) -> None:
    attempted = memory.attempt_begun(Attempted(ISSUED, INPUTS), forced_at=None)
    assert one.refresh is not None
    first = attempted.refresh_token_refused(one.refresh, INPUTS)
    assert (first.refresh_refused, first.last_attempt) == (INPUTS, None)  # the exchange follows at once
    assert first.current == replace(one, refresh=None)
    proven = RefreshToken(Sensitive("refresh-1"), proven=True)
    worked = replace(attempted, written=Written(replace(one, refresh=proven)))
    assert worked.refresh_token_refused(proven, INPUTS).refresh_refused is None


# --- Attempts and the rest --------------------------------------------------------------------------------------------


def test_an_attempt_that_was_not_forced_leaves_when_the_last_one_was(memory: Memory) -> None:
    later = Moment(ISSUED.wall + 60, ISSUED.boot + 60)
    forced = memory.attempt_begun(Attempted(ISSUED, INPUTS), forced_at=ISSUED)
    after = forced.attempt_begun(Attempted(later, OTHER_INPUTS), forced_at=None)
    assert (after.last_attempt, after.last_forced) == (Attempted(later, OTHER_INPUTS), ISSUED)


def test_restores_are_counted_in_a_row(memory: Memory) -> None:
    def at(seconds: float) -> Moment:
        return Moment(ISSUED.wall + seconds, ISSUED.boot + seconds)

    twice = memory.restored(at(0), 10).restored(at(9), 10)
    assert twice.restores == Restores(2, at(9))
    assert twice.restored(at(19), 10).restores == Restores(1, at(19))


def test_what_is_told_once_is_told_again_once_it_was_over(memory: Memory) -> None:
    told = memory.told_once(Reason.LIFETIME_TOO_SHORT)
    assert told.told == {Reason.LIFETIME_TOO_SHORT}
    assert told.may_tell_again(Reason.LIFETIME_TOO_SHORT) == memory


def test_the_look_alikes_that_were_told_of_are_those_of_the_last_time(memory: Memory) -> None:
    one, other = frozenset({"a"}), frozenset({"b"})
    assert memory.told_of_look_alikes(one).told_of_look_alikes(other) == replace(memory, look_alikes=other)


def test_each_thing_that_is_told_once_is_kept_apart(memory: Memory) -> None:
    both = memory.told_once(Reason.LIFETIME_TOO_SHORT).told_once(Reason.SCOPE_NARROWED)
    assert both.told == {Reason.LIFETIME_TOO_SHORT, Reason.SCOPE_NARROWED}
    assert both.may_tell_again(Reason.SCOPE_NARROWED) == memory.told_once(Reason.LIFETIME_TOO_SHORT)


def test_at_rest_nothing_is_refused_any_more(memory: Memory) -> None:
    assert memory.refused(setback()).came_to_rest() == memory


def test_what_was_read_of_the_client_secret_is_the_latest(memory: Memory) -> None:
    first = ClientSecretRead(REF, "a/1", CLIENT, ISSUED)
    second = ClientSecretRead(REF, "a/2", OTHER_CLIENT, ISSUED)
    assert memory.client_secret_read(first).client_secret_read(second).client == second


NOW = Moment(5000.0, 300.0)
FAILED = Notice(warning=True, reason=Reason.INVALID_CLIENT, message="failed")

KEPT: dict[str, tuple[Callable[[Memory], Memory], dict[str, object]]] = {
    "an attempt that failed": (lambda memory: memory.attempt_failed(setback()), {"attempt": setback()}),
    "a write that failed": (lambda memory: memory.write_failed(setback()), {"write": setback()}),
    "something else that was refused": (lambda memory: memory.refused(setback()), {"refusal": setback()}),
    "a namespace that ends": (Memory.namespace_ended, {"namespace_ends": True}),
    "content that no Pod knows": (lambda memory: memory.to_be_pushed(CONTENT), {"unpushed": CONTENT}),
    "a warning": (
        lambda memory: memory.warned_of(Reason.RESTORED, "again", NOW),
        {"notices": NO_NOTICES.warned_of(Reason.RESTORED, "again", NOW.boot)},
    ),
    "a condition": (
        lambda memory: memory.condition_changed(FAILED, NOW),
        {"notices": NO_NOTICES.condition_changed(FAILED, NOW.boot)},
    ),
    "what came of a push": (lambda memory: memory.pushed(Delivery(told=7)), {"delivery": Delivery(told=7)}),
}


@pytest.mark.parametrize(("happens", "changes"), KEPT.values(), ids=KEPT.keys())
def test_what_happened_is_kept_and_changes_nothing_else(
    memory: Memory, happens: Callable[[Memory], Memory], changes: dict[str, object]
) -> None:
    assert happens(memory) == replace(memory, **changes)  # type: ignore[arg-type]


def test_once_a_push_is_ordered_its_content_is_not_pushed_again(memory: Memory) -> None:
    assert memory.to_be_pushed(CONTENT).push_ordered() == memory


NOTHING: dict[str, Callable[[Memory], Memory]] = {
    "a target that was met": lambda memory: memory.met_target(None),
    "the same inputs": lambda memory: memory.asked_for(INPUTS.exchange, verified=True),
    "the same inputs, not to be verified": lambda memory: memory.asked_for(INPUTS.exchange, verified=False),
    "rest, and nothing was refused": Memory.came_to_rest,
    "what was not told": lambda memory: memory.may_tell_again(Reason.LIFETIME_TOO_SHORT),
    "a token that does not wait": lambda memory: memory.verified(held(2)),
}


@pytest.mark.parametrize("happens", NOTHING.values(), ids=NOTHING.keys())
@pytest.mark.parametrize("waits", [False, True], ids=["", "a token waits"])
@pytest.mark.parametrize("written", [None, Written(held(1), WANTED)], ids=["new", "written"])
def test_what_changes_nothing_leaves_the_very_memory(
    happens: Callable[[Memory], Memory], written: Written | None, *, waits: bool
) -> None:
    """Nothing is made anew, each time that a credential is looked at."""
    memory = Memory(met=True, written=written, pending=Pending(held(2)) if waits else None)
    assert happens(memory) is memory


def test_without_a_token_none_can_be_the_same() -> None:
    memory = Memory()
    assert memory.same_again("now", SOON, None) is memory
    assert memory.published is None
    assert memory.current is None


def test_a_token_expires_a_lifetime_after_its_issue_by_both_clocks(two: IssuedToken) -> None:
    assert two.expiry == Deadline(ISSUED.wall + 3601, ISSUED.boot + 3601)


def test_what_this_process_wrote_it_has_met(one: IssuedToken) -> None:
    assert Memory().wrote(one, WANTED) == Memory(met=True, written=Written(one, WANTED))


@pytest.mark.parametrize("kind", [IssuedToken, RefreshToken, Setback, Pending, Written, Notices, Memory])
def test_what_is_not_told_is_not_known(kind: type) -> None:
    assert not any(field.default for field in fields(kind) if field.default not in (MISSING, NO_NOTICES))


def test_a_namespace_that_ends_stays_so(memory: Memory) -> None:
    assert memory.namespace_ended().wrote(held(2), None).namespace_ends


def test_no_secret_is_shown(memory: Memory, two: IssuedToken) -> None:
    shown = repr(memory.obtained(two, None).client_secret_read(ClientSecretRead(REF, "a/1", CLIENT, ISSUED)))
    assert not any(secret in shown for secret in ("token-1", "token-2", "refresh-1", "client-secret'"))
