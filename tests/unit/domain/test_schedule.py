"""When: the lead before expiry, the jitter that only makes a refresh earlier, and the wait after a failure."""

from dataclasses import replace
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.facts import UID
from tuinly_operator.domain.credential import RefreshSpec
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.schedule import JITTER, lead, refresh_offset, retry_delay, slack
from tuinly_operator.domain.target import TokenState

HOUR, DAY = 3600, 86_400
STATE = TokenState(
    credential_uid=UID,
    issued_at=1_795_503_600,
    expires_at=1_795_503_600 + HOUR,
    next_refresh=0,
    granted_scopes="",
    exchange_inputs="",
    template="",
    client_secret_version="",
    handled_refresh="",
)
REFRESHES = st.one_of(
    st.builds(RefreshSpec),
    st.builds(RefreshSpec, before=st.integers(120, DAY).map("{}s".format)),
    st.builds(RefreshSpec, before_percentage=st.integers(5, 50)),
)
LIFETIMES = st.integers(1, 2_592_000)
DRAWN = st.floats(0, 1, exclude_max=True)
MENDS_ITSELF = Failure(Reason.ENDPOINT_UNAVAILABLE, "")
MENDED_BY_PEOPLE = Failure(Reason.INVALID_CLIENT, "")


def state(*, issued_at: int = STATE.issued_at, lifetime: int = HOUR, uid: str = UID) -> TokenState:
    return replace(STATE, credential_uid=uid, issued_at=issued_at, expires_at=issued_at + lifetime)


@pytest.mark.rule("WHEN-2")
@pytest.mark.parametrize(
    ("refresh", "lifetime", "seconds"),
    [
        (RefreshSpec(), HOUR, 1188),
        (RefreshSpec(before_percentage=5), HOUR, 180),
        (RefreshSpec(before_percentage=50), HOUR, 1800),
        (RefreshSpec(before="20m"), HOUR, 1200),
        (RefreshSpec(before="1h30m"), DAY, 5400),
        # raised to two minutes
        (RefreshSpec(before="2m"), HOUR, 120),
        (RefreshSpec(before="30s"), HOUR, 120),
        (RefreshSpec(before_percentage=5), 20 * 60, 120),
        (RefreshSpec(), 300, 120),
        # cut to half the lifetime, which comes last
        (RefreshSpec(before="24h"), HOUR, 1800),
        (RefreshSpec(before="2m"), 240, 120),
        (RefreshSpec(before="2m"), 239, 119.5),
        (RefreshSpec(before_percentage=5), 60, 30),
        (RefreshSpec(), 1, 0.5),
    ],
)
def test_the_lead_is(refresh: RefreshSpec, lifetime: float, seconds: float) -> None:
    assert lead(refresh, lifetime) == pytest.approx(seconds)


@pytest.mark.rule("WHEN-2")
@given(REFRESHES, LIFETIMES)
def test_the_lead_is_two_minutes_and_half_of_the_lifetime_at_most(refresh: RefreshSpec, lifetime: int) -> None:
    assert min(120, lifetime / 2) <= lead(refresh, lifetime) <= lifetime / 2


@pytest.mark.rule("WHEN-4")
@given(REFRESHES, LIFETIMES, st.integers(0, 2**32))
def test_the_jitter_only_makes_a_refresh_earlier_and_by_a_tenth_at_most(
    refresh: RefreshSpec, lifetime: int, issued_at: int
) -> None:
    latest = lifetime - lead(refresh, lifetime)
    offset = refresh_offset(refresh, state(issued_at=issued_at, lifetime=lifetime))
    assert latest * (1 - JITTER) <= offset <= latest
    assert JITTER == 0.1


@pytest.mark.rule("WHEN-6")
@given(REFRESHES, REFRESHES, st.integers(0, 2**32))
def test_a_changed_lead_moves_the_refresh_but_draws_no_new_jitter(
    before: RefreshSpec, after: RefreshSpec, issued_at: int
) -> None:
    token = state(issued_at=issued_at)
    parts = [refresh_offset(refresh, token) / (HOUR - lead(refresh, HOUR)) for refresh in (before, after)]
    assert parts[0] == pytest.approx(parts[1])


def test_the_jitter_is_drawn_anew_for_each_token_and_each_credential() -> None:
    """Credentials that were created together must not stay together."""
    by_token = {refresh_offset(RefreshSpec(), state(issued_at=seconds)) for seconds in range(100)}
    by_credential = {refresh_offset(RefreshSpec(), state(uid=f"uid-{number}")) for number in range(100)}
    assert len(by_token) == len(by_credential) == 100


@pytest.mark.rule("WHEN-4")
def test_the_jitter_is_uniform() -> None:
    latest = HOUR - lead(RefreshSpec(), HOUR)
    drawn = [1 - refresh_offset(RefreshSpec(), state(uid=f"uid-{number}")) / latest for number in range(2000)]
    assert fmean(drawn) == pytest.approx(JITTER / 2, rel=0.05)
    for tenth in range(10):
        share = sum(tenth / 100 <= jitter < (tenth + 1) / 100 for jitter in drawn) / len(drawn)
        assert share == pytest.approx(0.1, abs=0.03)


@pytest.mark.rule("WHEN-5")
@pytest.mark.parametrize(("lifetime", "seconds"), [(60, 0.6), (240, 2.4), (HOUR, 3), (DAY, 3)])
def test_the_slack_is_a_hundredth_of_the_lifetime_and_three_seconds_at_most(lifetime: float, seconds: float) -> None:
    assert slack(lifetime) == pytest.approx(seconds)


@pytest.mark.rule("RETRY-2", "RETRY-3")
@pytest.mark.parametrize(
    ("failure", "life_left", "longest"),
    [
        (MENDS_ITSELF, HOUR, 60),
        (MENDS_ITSELF, 241, 60),
        (MENDS_ITSELF, 160, 40),  # a quarter of the life left
        (MENDS_ITSELF, 40, 10),
        (MENDS_ITSELF, 1, 10),
        (MENDS_ITSELF, 0, 60),  # no token at all: nothing to save
        (MENDS_ITSELF, -HOUR, 60),
        (Failure(Reason.ENDPOINT_THROTTLED, ""), 0, 60),
        (Failure(Reason.VERIFICATION_FAILED, ""), 0, 60),
        (Failure(Reason.INVALID_RESPONSE, ""), 0, 60),
        (MENDED_BY_PEOPLE, HOUR, 300),
        (MENDED_BY_PEOPLE, 400, 100),
        (MENDED_BY_PEOPLE, 1, 10),
        (MENDED_BY_PEOPLE, 0, 300),  # nothing to save, and only a person can help
        (MENDED_BY_PEOPLE, -HOUR, 300),
        (Failure(Reason.INVALID_SCOPE, ""), HOUR, 300),
        (Failure(Reason.REQUEST_REJECTED, ""), HOUR, 300),
        (Failure(Reason.WORSE_TOKEN, ""), HOUR, 300),
        (Failure(Reason.INVALID_RESPONSE, ""), HOUR, 60),
    ],
)
def test_in_the_end_the_wait_is_drawn_from_at_most(failure: Failure, life_left: float, longest: float) -> None:
    for attempts in (16, 17, 10**6):
        assert retry_delay(failure, attempts, life_left, 0, 0.5) == longest / 2


@pytest.mark.rule("RETRY-1")
def test_each_failure_in_a_row_doubles_what_the_wait_is_drawn_from() -> None:
    delays = [retry_delay(MENDS_ITSELF, attempts, HOUR, 0, 0.5) for attempts in range(1, 7)]
    assert delays == [2, 4, 8, 16, 30, 30]


@pytest.mark.rule("RETRY-1")
@given(
    st.sampled_from([MENDS_ITSELF, MENDED_BY_PEOPLE]),
    st.integers(1, 1000),
    st.floats(-DAY, DAY),
    st.floats(0.01, 300),
    DRAWN,
)
def test_the_wait_is_never_less_than_the_least_interval_nor_long(
    failure: Failure, attempts: int, life_left: float, least: float, drawn: float
) -> None:
    """The least interval is what an admin sets, or what the endpoint asked for by Retry-After."""
    assert least <= retry_delay(failure, attempts, life_left, least, drawn) <= max(least * 1.1, 300)


@pytest.mark.rule("RETRY-1")
@given(
    st.sampled_from([MENDS_ITSELF, MENDED_BY_PEOPLE]),
    st.integers(1, 1000),
    st.floats(-DAY, DAY),
    st.floats(0.01, 300),
)
def test_all_of_the_wait_above_the_least_is_drawn(
    failure: Failure, attempts: int, life_left: float, least: float
) -> None:
    """Evenly: no two draws give the same wait, at the least interval least of all."""
    quarters = [retry_delay(failure, attempts, life_left, least, drawn / 4) for drawn in range(5)]
    steps = [after - before for before, after in pairwise(quarters)]
    assert quarters[0] == least
    assert min(steps) >= least * JITTER / 4 * 0.999
    assert max(steps) == pytest.approx(min(steps))


@pytest.mark.rule("RETRY-2")
def test_without_a_token_it_is_tried_twice_a_minute_at_most_in_the_end() -> None:
    waits = [retry_delay(MENDS_ITSELF, 10, 0, 5, drawn / 1000) for drawn in range(1000)]
    assert fmean(waits) >= 30


@pytest.mark.rule("RETRY-3")
@given(st.integers(1, 1000), st.floats(40, DAY), DRAWN)
def test_a_token_that_lives_is_worth_several_tries_before_its_end(
    attempts: int, life_left: float, drawn: float
) -> None:
    for failure in (MENDS_ITSELF, MENDED_BY_PEOPLE):
        assert retry_delay(failure, attempts, life_left, 0, drawn) <= life_left / 4


@pytest.mark.rule("RETRY-1")
@given(st.integers(1, 1000), DRAWN, DRAWN)
def test_the_wait_is_drawn(attempts: int, one: float, other: float) -> None:
    assume(other - one > 1e-9)
    assert retry_delay(MENDS_ITSELF, attempts, HOUR, 0, one) < retry_delay(MENDS_ITSELF, attempts, HOUR, 0, other)
