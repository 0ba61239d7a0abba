"""What an attempt sends, what it tells the limiter, the metrics and the status, and what it makes of the answer."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import pairwise

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.virtual_time import VirtualLoop
from tests.unit.shop import HOUR, Shop
from tests.unit.world import CREDENTIAL, INCONCLUSIVE, OTHER_URL, POLICY, TOKEN_URL
from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.facts import Purpose
from tuinly_operator.domain.schedule import refresh_offset
from tuinly_operator.edges.election import ASKING_SECONDS
from tuinly_operator.engine.limiter import FIRST_LIMIT, Ask, Ticket

DUE = HOUR * 2 // 3
ORIGIN, GRAPHQL = "https://oauth.example.com", "https://graphql.example.com"


@pytest.fixture
async def renewing(shop: Shop) -> Shop:
    """Its second token came by an exchange, with a refresh token."""
    shop.endpoint.gives_refresh_tokens = True
    shop.force("one")
    await shop.pass_time(12)
    assert shop.grants() == ["exchange", "exchange"]
    return shop


def metric(shop: Shop, name: str, **labels: str) -> float:
    """A sample of the metrics, 0 where there is none."""
    text = b"".join(shop.process.metrics.render()).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return next((each.value for each in samples if (each.name, each.labels) == (name, labels)), 0.0)


def attempts(shop: Shop, grant: str, outcome: str) -> float:
    return metric(shop, "tuinly_token_requests_total", grant=grant, outcome=outcome)


def limit(shop: Shop, origin: str) -> int:
    return shop.process.limiter.seen(shop.world.now())[origin].limit


def asks_of(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[Ask]:
    """What the limiter is told of the requests that begin from now on."""
    asks, begin = list[Ask](), shop.process.limiter.begin

    def heard(ask: Ask, now: Moment) -> Ticket:
        asks.append(ask)
        return begin(ask, now)

    monkeypatch.setattr(shop.process.limiter, "begin", heard)
    return asks


def failures_of(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[Reason]:
    """What the limiter is told of the requests that fail from now on."""
    reasons, failed = list[Reason](), shop.process.limiter.failed

    def heard(ticket: Ticket, failure: TokenRequestFailed, now: Moment) -> None:
        reasons.append(failure.reason)
        failed(ticket, failure, now)

    monkeypatch.setattr(shop.process.limiter, "failed", heard)
    return reasons


# --- What is sent -----------------------------------------------------------------------------------------------------


async def test_requests_go_where_the_spec_says(shop: Shop) -> None:
    shop.endpoint.gives_refresh_tokens = True
    shop.spec(tokenURL=OTHER_URL, verification={"mode": "Enabled"})
    await shop.pass_time(DUE + 10)
    assert shop.grants() == ["exchange", "exchange", "refresh"]
    assert shop.endpoint.urls == [TOKEN_URL, OTHER_URL, POLICY.graphql_url, OTHER_URL, POLICY.graphql_url]


async def test_the_limiter_is_asked_for_what_the_request_is(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asks_of(shop, monkeypatch)
    end = shop.endpoint.ledger[0].wall + HOUR
    shop.spec(verification={"mode": "Enabled"})
    await shop.pass_time(DUE)
    token, verification = begun
    assert token == Ask(CREDENTIAL, ORIGIN, Purpose.TOKEN, end, "shop")
    assert replace(verification, end=None) == Ask(CREDENTIAL, GRAPHQL, Purpose.VERIFICATION, None, "shop")


async def test_after_a_restart_the_client_is_known_to_the_limiter_as_soon_as_it_is_read(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.process = shop.start()
    begun = asks_of(shop, monkeypatch)
    await shop.pass_time(DUE)
    assert [ask.client for ask in begun] == ["shop"]


async def test_no_token_request_begins_with_too_little_of_the_lead_left(shop: Shop) -> None:
    attempt = shop.record().memory.last_attempt
    shop.world.pass_time(DUE)
    shop.api.lead = ASKING_SECONDS
    await shop.process.reconcile(CREDENTIAL)
    assert shop.grants() == ["exchange"]
    assert shop.record().memory.last_attempt == attempt
    assert shop.process.limiter.seen(shop.world.now())[ORIGIN].in_flight == 0


async def test_no_token_request_begins_while_the_api_server_is_out_of_reach(shop: Shop) -> None:
    shop.world.pass_time(DUE)
    shop.api.reachable = False
    await shop.process.reconcile(CREDENTIAL)
    assert shop.grants() == ["exchange"]


async def test_a_replica_that_does_not_lead_verifies_nothing(shop: Shop) -> None:
    shop.spec(verification={"mode": "Enabled"})
    shop.endpoint.graphql = INCONCLUSIVE
    await shop.pass_time(DUE)
    tried = len(shop.endpoint.verifications)
    assert tried
    shop.api.lead = 0.0
    await shop.pass_time(120)
    assert len(shop.endpoint.verifications) == tried


# --- What the limiter and the metrics are told ------------------------------------------------------------------------


async def test_requests_are_counted_by_grant_and_outcome(renewing: Shop) -> None:
    await renewing.until_a_request()
    renewing.endpoint.mood = "down"
    await renewing.until_a_request()
    await renewing.until_a_request()
    assert renewing.grants() == ["exchange", "exchange", "refresh", "refresh", "exchange"]
    assert attempts(renewing, "ClientCredentials", "Issued") == 2
    assert attempts(renewing, "RefreshToken", "Issued") == 1
    assert attempts(renewing, "RefreshToken", "EndpointUnavailable") == 1
    assert attempts(renewing, "ClientCredentials", "EndpointUnavailable") == 1


async def test_a_published_token_is_counted_by_its_grant(renewing: Shop) -> None:
    await renewing.until_a_request()
    assert metric(renewing, "tuinly_refreshes_total", grant="ClientCredentials") == 2
    assert metric(renewing, "tuinly_refreshes_total", grant="RefreshToken") == 1
    assert renewing.status()["lastGrant"] == "RefreshToken"


@pytest.mark.parametrize(
    ("mood", "told"),
    [("refuses refreshes", []), ("down", [Reason.ENDPOINT_UNAVAILABLE]), ("garbage", [Reason.INVALID_RESPONSE])],
)
async def test_of_a_refresh_the_limiter_is_told_all_failures_but_a_refusal(
    renewing: Shop, monkeypatch: pytest.MonkeyPatch, mood: str, told: list[Reason]
) -> None:
    """After a refusal an exchange follows at once, and tells."""
    heard = failures_of(renewing, monkeypatch)
    renewing.endpoint.mood = mood
    await renewing.until_a_request()
    assert heard == told


async def test_an_exchange_that_is_refused_is_told_to_the_limiter(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = failures_of(shop, monkeypatch)
    shop.endpoint.clients = {}
    await shop.until_a_request()
    assert heard == [Reason.INVALID_CLIENT]


async def test_tokens_and_verifications_that_succeed_raise_the_limit_of_their_endpoint(shop: Shop) -> None:
    shop.spec(verification={"mode": "Enabled"})
    await shop.pass_time(DUE)
    assert len(shop.endpoint.verifications) == 1
    assert limit(shop, ORIGIN) == FIRST_LIMIT + 2
    assert limit(shop, GRAPHQL) == FIRST_LIMIT + 1


def lateness(shop: Shop) -> float:
    return metric(shop, "tuinly_refresh_lateness_seconds_count")


async def test_how_late_it_was_is_counted_for_routine_refreshes_alone(shop: Shop) -> None:
    assert lateness(shop) == 0
    shop.force("one")
    await shop.pass_time(12)
    shop.spec(scopes=["orders:read"])
    await shop.pass_time(12)
    assert (len(shop.endpoint.ledger), lateness(shop)) == (3, 0)
    await shop.until_a_request()
    assert lateness(shop) == 1
    shop.world.pass_time(2 * HOUR)
    await shop.pass_time(1)
    assert (len(shop.endpoint.ledger), lateness(shop)) == (5, 2)
    shop.endpoint.mood = "renews"
    await shop.until_a_request()
    assert (len(shop.endpoint.ledger), lateness(shop)) == (5, 3)


# --- Clocks -----------------------------------------------------------------------------------------------------------

APART = "this machine's clock and the token endpoint's are more than 30 s apart"


async def test_clocks_that_are_too_far_apart_are_told_once_until_they_agree(
    shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, measured = [], list[tuple[str, float]]()
    monkeypatch.setattr(shop.process.metrics, "clock_difference", lambda *seen: measured.append(seen))
    for ahead in (-30.0, 30.0, -30.5, -31.0, 30.5, 0.0, 47.25, None):
        shop.endpoint.clock_ahead = ahead
        caplog.clear()
        shop.force(f"{ahead}")
        await shop.pass_time(12)
        told += [(ahead, vars(entry)["fields"]) for entry in caplog.records if entry.getMessage() == APART]
    assert told == [
        (-30.5, {"origin": ORIGIN, "ahead_seconds": 30.5}),
        (47.25, {"origin": ORIGIN, "ahead_seconds": -47.2}),
    ]
    assert measured == [(ORIGIN, ahead) for ahead in (30.0, -30.0, 30.5, 31.0, -30.5, 0.0, -47.25)]


async def test_of_each_endpoint_it_is_told(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.endpoint.clock_ahead = 100.0
    for url in (TOKEN_URL, OTHER_URL, TOKEN_URL):
        shop.spec(tokenURL=url)
        await shop.pass_time(12)
    origins = [vars(entry)["fields"]["origin"] for entry in caplog.records if entry.getMessage() == APART]
    assert origins == ["https://oauth.example.org", ORIGIN]


# --- What becomes of an answer ----------------------------------------------------------------------------------------


async def test_a_target_tells_when_it_is_refreshed_next_and_what_was_granted(shop: Shop) -> None:
    shop.spec(scopes=["orders:write", "orders:read"])
    await shop.pass_time(10)
    assert shop.annotation("granted-scopes") == "orders:read orders:write"
    held = shop.record().memory.published
    assert held is not None
    spec = shop.record().credential.spec
    assert held.state.next_refresh == int(held.state.issued_at + refresh_offset(spec.refresh, held.state))
    assert len([write for write in shop.api.writes if write.kind == "target"]) == 2


async def test_the_same_token_again_is_asked_again_after_half_of_what_is_left(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shop.endpoint.mood = "repeats"
    await shop.until_a_request()
    held = shop.record().memory.published
    assert held is not None
    now = shop.world.now()
    assert held.ask_again == Deadline.after(held.expiry.remaining(now) / 2, now)
    [said] = [entry for entry in caplog.records if "same token again" in entry.getMessage()]
    assert vars(said)["fields"] == {"credential": str(CREDENTIAL)}


async def test_the_refresh_token_of_the_same_token_again_is_used_again(renewing: Shop) -> None:
    renewing.endpoint.mood = "repeats"
    await renewing.until_a_request()
    await renewing.until_a_request()
    assert renewing.grants()[2:] == ["refresh", "refresh"]


async def test_a_grant_by_refresh_token_keeps_what_was_forced_and_for_which_client(renewing: Shop) -> None:
    """Neither the annotation nor an edit that changes nothing then asks for another exchange."""
    await renewing.until_a_request()
    renewing.client_secret("canary-secret")
    await renewing.pass_time(60)
    assert renewing.grants() == ["exchange", "exchange", "refresh"]
    assert renewing.annotation("handled-refresh") == "one"


async def test_the_end_of_the_present_token_during_a_request_counts(shop: Shop) -> None:
    """What was worse than a good token is better than one that has ended."""
    shop.spec(scopes=["orders:read", "orders:write"])
    await shop.pass_time(10)
    shop.endpoint.mood = "narrows"
    shop.endpoint.meanwhile = lambda: shop.world.pass_time(HOUR)
    await shop.until_a_request()
    assert shop.annotation("granted-scopes") == "orders:read"


@pytest.mark.rule("ANS-17")
async def test_narrower_scopes_are_told_once_by_an_event_until_all_are_granted(shop: Shop) -> None:
    """A spec that asks for more than the server grants is no less worth telling than a first token."""
    shop.endpoint.mood = "narrows"
    for scopes, told in ((["a", "b"], 1), (["a", "b", "c"], 1), (["a"], 1), (["b", "c"], 2)):
        shop.spec(scopes=scopes)
        await shop.pass_time(DUE)
        assert shop.annotation("granted-scopes") == scopes[0]
        assert len(shop.events_of(Reason.SCOPE_NARROWED)) == told


@pytest.mark.parametrize(("lifetime", "told"), [(239, 1), (240, 0)])
async def test_a_lifetime_that_leaves_the_least_lead_is_long_enough(lifetime: int, told: int) -> None:
    shop = Shop()
    shop.endpoint.lifetime = lifetime
    await shop.process.work()
    assert len(shop.events_of(Reason.LIFETIME_TOO_SHORT)) == told


# --- What becomes of a failure ----------------------------------------------------------------------------------------


async def test_a_value_that_was_asked_for_before_does_not_end_the_wait_of_a_failure(shop: Shop) -> None:
    """An annotation that is taken away and put back asks for nothing new."""
    shop.world.pass_time(DUE)
    shop.endpoint.clients = {}
    shop.force("one")
    await shop.until_a_request()
    shop.unforce()
    for _ in range(6):
        await shop.until_a_request()
    before = len(shop.endpoint.requests)
    retry = shop.record().memory.attempt
    assert retry is not None
    wait = retry.retry.remaining(shop.world.now())
    assert wait > 12
    shop.force("one")
    await shop.pass_time(int(wait) - 1)
    assert len(shop.endpoint.requests) == before


@pytest.mark.rule("RETRY-7")
@pytest.mark.parametrize(("mood", "again"), [("down", True), ("garbage", True), ("throttles", False)])
async def test_an_attempt_in_doubt_is_made_again_though_nobody_asks_for_it_any_more(
    shop: Shop, mood: str, *, again: bool
) -> None:
    """A server that revokes may have ended the present token as it issued the one whose answer was lost."""
    await shop.pass_time(60)
    shop.endpoint.mood = mood
    shop.force("one")
    await shop.until_a_request()
    shop.endpoint.mood = "good"
    shop.unforce()
    await shop.pass_time(120)
    assert len(shop.endpoint.ledger) == 1 + again
    await shop.pass_time(HOUR // 2)
    assert len(shop.endpoint.ledger) == 1 + again


async def test_between_two_forced_exchanges_lie_ten_seconds(shop: Shop) -> None:
    """Each value is another one, and each exchange succeeds."""
    for second in range(60):
        shop.force(f"{second}")
        await shop.pass_time(1)
    times = [at for _, at in shop.endpoint.requests]
    assert len(times) == 7
    assert min(later - earlier for earlier, later in pairwise(times[1:])) >= 10


async def test_other_exchanges_do_not_count_as_forced(shop: Shop) -> None:
    await shop.pass_time(10)
    shop.spec(scopes=["orders:read"])
    await shop.pass_time(1)
    before = len(shop.endpoint.requests)
    shop.force("one")
    await shop.pass_time(6)
    assert len(shop.endpoint.requests) == before + 1


async def test_each_inconclusive_verification_in_a_row_is_counted(shop: Shop) -> None:
    shop.spec(verification={"mode": "Enabled"})
    shop.endpoint.graphql = INCONCLUSIVE
    counts = []
    for _ in range(DUE + 60):
        await shop.pass_time(1)
        pending = shop.record().memory.pending
        if pending is not None and pending.unverified is not None:
            counts.append(pending.unverified.attempts)
    assert sorted(set(counts)) == list(range(1, len(shop.endpoint.verifications) + 1))
    assert len(shop.endpoint.verifications) >= 3


# --- A request that takes long ----------------------------------------------------------------------------------------

Story = Callable[[Shop], Coroutine[None, None, None]]


def play(story: Story) -> None:
    """Play a story in which the world's time passes as the loop's does: only while all tasks wait."""
    shop = Shop()
    loop = VirtualLoop(shop.world.pass_time)
    try:
        loop.run_until_complete(story(shop))
    finally:
        loop.close()


def statuses(shop: Shop, since: float) -> list[tuple[float, str, str]]:
    """The statuses that were written since then: when, and the reasons of Ready and Refreshed."""
    written = []
    for write in shop.api.writes:
        if write.kind == "status" and write.at.boot >= since and write.after is not None:
            conditions = {each["type"]: each for each in write.after["status"]["conditions"]}
            ready, refreshed = (f"{conditions[k]['status']} {conditions[k]['reason']}" for k in ("Ready", "Refreshed"))
            written.append((round(write.at.boot - since, 3), ready, refreshed))
    return written


ISSUED = "True Issued"


@pytest.mark.parametrize(("takes", "told"), [(0.9, []), (1.9, [(1.0, "False Issuing", "Unknown Issuing")])])
def test_a_token_request_is_told_of_once_it_takes_a_second(takes: float, told: list[tuple[float, str, str]]) -> None:
    async def story(shop: Shop) -> None:
        begin, shop.endpoint.takes = shop.world.boot, takes
        await shop.process.work()
        assert statuses(shop, begin) == [*told, (takes, ISSUED, ISSUED)]

    play(story)


def test_the_end_of_the_published_token_is_told_while_a_request_takes_long() -> None:
    async def story(shop: Shop) -> None:
        await shop.process.work()
        shop.world.pass_time(HOUR - 30)
        begin, shop.endpoint.takes = shop.world.boot, 100.0
        await shop.process.work()
        assert statuses(shop, begin) == [
            (30.0, "False TokenExpired", "False TokenExpired"),
            (100.0, ISSUED, ISSUED),
        ]

    play(story)


def test_an_answer_counts_though_the_status_could_not_be_written_meanwhile() -> None:
    async def story(shop: Shop) -> None:
        await shop.process.work()
        shop.world.pass_time(DUE)
        shop.endpoint.takes = 3.0
        work = asyncio.create_task(shop.process.work())
        await asyncio.sleep(0.5)
        shop.api.reachable = False
        await asyncio.sleep(1.5)
        shop.api.reachable = True
        await work
        assert shop.token() == shop.endpoint.ledger[1].value

    play(story)


def test_a_request_that_is_given_up_leaves_its_place() -> None:
    async def story(shop: Shop) -> None:
        await shop.process.work()
        shop.world.pass_time(DUE)
        shop.endpoint.takes = 10.0
        work = asyncio.create_task(shop.process.work())
        await asyncio.sleep(0.5)
        assert shop.process.limiter.seen(shop.world.now())[ORIGIN].in_flight == 1
        shop.process.reconciler.give_up(CREDENTIAL)
        await asyncio.sleep(0.5)
        assert shop.process.limiter.seen(shop.world.now())[ORIGIN].in_flight == 0
        work.cancel()

    play(story)
