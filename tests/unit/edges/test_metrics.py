"""Metrics: what is recorded, what is read off the state at each scrape, and that nothing outlives what it tells of."""

import asyncio

import pytest

from tests.unit.exposition import KEY, ORIGIN, TOKEN, Scraped, condition, every_metric, everything
from tests.unit.facts import ISSUED
from tuinly_operator.base.clock import Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import GrantType
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.memory import IssuedToken
from tuinly_operator.engine.limiter import Ask

OTHER = "https://oauth.example.org"
STOREFRONT = ("storefront", "shop")


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


# Of a credential ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "value"), [("True", 1), ("False", 0), ("Unknown", 0), (None, 0)])
def test_ready_is_the_condition(scraped: Scraped, status: str | None, value: float) -> None:
    scraped.see("storefront", conditions=[condition("Ready", status, "Issued")] if status else [])
    assert scraped.samples("tuinly_credential_ready") == {STOREFRONT: value}


@pytest.mark.parametrize(("status", "failing"), [("False", True), ("True", False), ("Unknown", False)])
def test_failing_tells_the_reason_as_long_as_it_fails(scraped: Scraped, status: str, *, failing: bool) -> None:
    scraped.see("storefront", conditions=[condition("Refreshed", status, "InvalidClient")])
    expected = {(*STOREFRONT, "InvalidClient"): 1} if failing else {}
    assert scraped.samples("tuinly_credential_failing") == expected


def test_another_reason_takes_the_place_of_the_first(scraped: Scraped) -> None:
    for reason in ("EndpointUnavailable", "InvalidClient"):
        scraped.see("storefront", conditions=[condition("Refreshed", "False", reason)])
    assert scraped.samples("tuinly_credential_failing") == {(*STOREFRONT, "InvalidClient"): 1}


def test_suspended_is_told_as_long_as_it_is(scraped: Scraped) -> None:
    scraped.see("storefront", spec={"suspend": True})
    assert scraped.samples("tuinly_credential_suspended") == {STOREFRONT: 1}
    scraped.see("storefront", spec={"suspend": False})
    assert scraped.samples("tuinly_credential_suspended") == {}


TIMES = {
    "tokenExpirationTime": "tuinly_credential_expiration_timestamp_seconds",
    "nextRefreshTime": "tuinly_credential_next_refresh_timestamp_seconds",
}


@pytest.mark.parametrize("field", TIMES)
@pytest.mark.parametrize(
    ("time", "value"),
    [("2026-11-24T07:00:00Z", ISSUED.wall), (None, None), ("", None), ("soon", None), ("2026-11-24T07:00:00", None)],
)
def test_times_are_those_of_the_status_and_no_nonsense(
    scraped: Scraped, field: str, time: str | None, value: float | None
) -> None:
    """Whoever may write a status may write anything there, and the other metrics must not suffer from it."""
    scraped.see("storefront", **{field: time})
    assert scraped.samples(TIMES[field]) == ({} if value is None else {STOREFRONT: value})
    assert scraped.samples("tuinly_credential_ready") == {STOREFRONT: 0}


def test_a_reason_may_be_anybodys_text(scraped: Scraped) -> None:
    """Whoever may write a status may write anything there."""
    scraped.see("storefront", conditions=[condition("Refreshed", "False", 'of "mine"\\n')])
    assert scraped.samples("tuinly_credential_failing") == {(*STOREFRONT, 'of "mine"\\n'): 1}


@pytest.mark.rule("OBS-26")
def test_many_credentials_are_told_of_in_pieces(scraped: Scraped) -> None:
    for number in range(1100):
        scraped.see(f"storefront-{number}")
    pieces = [piece for piece in scraped.metrics.render() if piece.startswith(b"tuinly_credential_ready")]
    assert [piece.count(b"\n") for piece in pieces] == [500, 500, 100]
    assert len(scraped.samples("tuinly_credential_ready")) == 1100


def test_all_series_of_a_credential_go_with_it() -> None:
    scraped = everything()
    assert 'credential="storefront"' in scraped.text()
    scraped.store.credential_gone(NamespacedName("shop", "storefront"), "storefront")
    scraped.store.credential_gone(NamespacedName("shop", "paused"), "paused")
    assert 'credential="' not in scraped.text()
    assert scraped.samples("tuinly_credentials") == {(): 0}


# Of an endpoint -------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_no_credential_uses_any_more_is_not_told_of(scraped: Scraped) -> None:
    for origin in (ORIGIN, OTHER):
        scraped.limiter.begin(Ask(KEY, origin), ISSUED)
        scraped.metrics.clock_difference(origin, -2.5)
    scraped.origins = {ORIGIN, OTHER, "https://never-asked.example.com"}
    assert scraped.samples("tuinly_endpoint_down") == {(ORIGIN,): 0, (OTHER,): 0}
    assert scraped.samples("tuinly_clock_difference_seconds") == {(ORIGIN,): -2.5, (OTHER,): -2.5}
    scraped.origins = {OTHER}
    assert scraped.samples("tuinly_endpoint_down") == {(OTHER,): 0}
    assert scraped.samples("tuinly_clock_difference_seconds") == {(OTHER,): -2.5}


def test_a_replica_that_leads_no_more_tells_of_credentials_but_of_no_endpoint() -> None:
    """What it remembers of an endpoint is from then; a credential's status is the new leader's, told to all."""
    scraped = everything()
    scraped.leading = False
    assert scraped.samples("tuinly_leader") == {(): 0}
    assert scraped.samples("tuinly_endpoint_down") == {}
    assert scraped.samples("tuinly_clock_difference_seconds") == {}
    assert STOREFRONT in scraped.samples("tuinly_credential_expiration_timestamp_seconds")


def test_what_the_limiter_has_learned_of_an_endpoint_is_told(scraped: Scraped) -> None:
    scraped.origins = {ORIGIN}
    limiter, ask, now = scraped.limiter, Ask(KEY, ORIGIN, end=ISSUED.wall), ISSUED
    for seconds, failure in enumerate((429, 500, 500, 500)):
        now = Moment(ISSUED.wall + seconds, ISSUED.boot + seconds)
        refused = TokenRequestFailed(Reason.ENDPOINT_UNAVAILABLE, "", failure, transport=failure == 500)
        limiter.failed(limiter.begin(ask, now), refused, now)
    limiter.begin(ask, now)
    limiter.park(Ask(NamespacedName("shop", "other"), ORIGIN), now)
    told = {name: scraped.samples(f"tuinly_endpoint_{name}") for name in ("down", "limit", "in_flight", "waiting")}
    assert told == {
        "down": {(ORIGIN,): 1},
        "limit": {(ORIGIN,): 2},
        "in_flight": {(ORIGIN,): 1},
        "waiting": {(ORIGIN,): 1},
    }
    assert scraped.samples("tuinly_endpoint_rate")[(ORIGIN,)] > 0


def test_an_endpoint_whose_rate_is_not_bounded_tells_none(scraped: Scraped) -> None:
    scraped.origins = {ORIGIN}
    scraped.limiter.begin(Ask(KEY, ORIGIN), ISSUED)
    assert scraped.samples("tuinly_endpoint_rate") == {}


# Of the operator ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Reason.INVALID_CLIENT, Reason.ENDPOINT_UNAVAILABLE])
def test_token_requests_are_counted_and_timed_by_grant_and_outcome(scraped: Scraped, outcome: Reason) -> None:
    with pytest.raises(TokenRequestFailed), scraped.metrics.token_request(GrantType.CLIENT_CREDENTIALS):
        raise TokenRequestFailed(outcome, "refused")
    with pytest.raises(asyncio.CancelledError), scraped.metrics.token_request(GrantType.REFRESH_TOKEN):
        raise asyncio.CancelledError
    with scraped.metrics.token_request(GrantType.REFRESH_TOKEN):
        pass
    assert scraped.samples("tuinly_token_requests_total") == {
        ("ClientCredentials", outcome): 1,
        ("RefreshToken", "Abandoned"): 1,
        ("RefreshToken", "Issued"): 1,
    }
    assert scraped.samples("tuinly_token_request_duration_seconds_count") == {
        ("ClientCredentials",): 1,
        ("RefreshToken",): 2,
    }


@pytest.mark.parametrize(("lateness", "counted", "total"), [(2.5, 1, 2.5), (-0.5, 1, 0), (None, 0, 0)])
def test_only_routine_refreshes_can_be_late(
    scraped: Scraped, lateness: float | None, counted: int, total: float
) -> None:
    scraped.metrics.published(IssuedToken(TOKEN, ISSUED, grant=GrantType.REFRESH_TOKEN), lateness)
    assert scraped.samples("tuinly_refreshes_total") == {("RefreshToken",): 1}
    assert scraped.samples("tuinly_refresh_lateness_seconds_count") == {(): counted}
    assert scraped.samples("tuinly_refresh_lateness_seconds_sum") == {(): total}


def test_the_reach_of_the_api_server_is_told(scraped: Scraped) -> None:
    assert scraped.samples("tuinly_api_reachable") == {(): 1}
    scraped.reachable = False
    assert scraped.samples("tuinly_api_reachable") == {(): 0}


def test_what_is_refused_is_told_as_long_as_it_is(scraped: Scraped) -> None:
    assert scraped.samples("tuinly_namespace_refused") == {}
    scraped.refused = [("secrets", "gone"), ("tuinlycredentials", "*")]
    assert scraped.samples("tuinly_namespace_refused") == {("gone", "secrets"): 1.0, ("*", "tuinlycredentials"): 1.0}


def test_the_queue_is_told(scraped: Scraped) -> None:
    assert (scraped.samples("tuinly_queue_depth"), scraped.samples("tuinly_queue_age_seconds")) == ({(): 0}, {(): 0})
    scraped.queue.add(NamespacedName("shop", "storefront"))
    assert scraped.samples("tuinly_queue_depth") == {(): 1}
    assert scraped.samples("tuinly_queue_age_seconds")[()] > 0


def test_labels_are_few_and_none_is_of_unbounded_values() -> None:
    """One series per credential, endpoint, grant or outcome: never one per token, client, time or message."""
    labels = set().union(*(labels for _, labels in every_metric().values()))
    assert labels == {"namespace", "credential", "reason", "origin", "grant", "outcome", "version", "resource"}
