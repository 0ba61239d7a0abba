"""When a refresh token is sent again after a failed request, and when it is not."""

import pytest

from tests.unit.shop import Shop
from tuinly_operator.domain.errors import Reason


@pytest.fixture
async def shop() -> Shop:
    """A shop whose token came with a refresh token."""
    shop = Shop()
    shop.endpoint.gives_refresh_tokens = True
    await shop.process.work()
    assert [grant for grant, _ in shop.endpoint.requests] == ["exchange"]
    return shop


async def grants_after(shop: Shop, mood: str) -> list[str]:
    """Let a refresh fail once, and the next attempt work; return the grants that were sent."""
    shop.world.pass_time(2000)
    shop.endpoint.mood = mood
    while len(shop.endpoint.requests) == 1:
        await shop.pass_time(1)
    shop.endpoint.mood = "good"
    await shop.pass_time(100)
    return [grant for grant, _ in shop.endpoint.requests[1:]]


@pytest.mark.rule("REQ-7")
@pytest.mark.parametrize("mood", ["down", "garbage"])
async def test_a_refresh_token_whose_request_ended_in_doubt_is_not_sent_again(shop: Shop, mood: str) -> None:
    assert await grants_after(shop, mood) == ["refresh", "exchange"]


@pytest.mark.rule("REQ-8")
async def test_a_throttled_request_leaves_the_refresh_token_as_it_is(shop: Shop) -> None:
    assert await grants_after(shop, "throttles") == ["refresh", "refresh"]


async def test_a_refused_refresh_token_is_followed_by_an_exchange_in_the_same_attempt(shop: Shop) -> None:
    assert await grants_after(shop, "refuses refreshes") == ["refresh", "exchange"]


@pytest.mark.rule("REQ-6")
async def test_a_token_refused_at_first_use_is_reported_once_and_ends_refreshes_by_token(shop: Shop) -> None:
    """The exchange follows at once: this is no failed attempt."""
    shop.endpoint.mood = "refuses refreshes"
    await shop.until_a_request()
    (_, refused), (_, made_up) = shop.endpoint.requests[1:]
    assert shop.grants()[1:] == ["refresh", "exchange"]
    assert refused == made_up
    assert shop.refreshed().startswith("True")
    shop.endpoint.mood = "good"
    await shop.until_a_request()
    await shop.until_a_request()
    assert shop.grants()[3:] == ["exchange", "exchange"]
    assert len(shop.events_of(Reason.REFRESH_REFUSED)) == 1


@pytest.mark.rule("REQ-6")
async def test_after_a_refusal_changed_inputs_give_refresh_tokens_another_try(shop: Shop) -> None:
    shop.endpoint.mood = "refuses refreshes"
    await shop.until_a_request()
    shop.endpoint.mood = "good"
    shop.spec(scopes=["orders:read"])
    await shop.until_a_request()
    await shop.until_a_request()
    assert shop.grants()[3:] == ["exchange", "refresh"]


@pytest.mark.rule("REQ-4")
async def test_a_proven_refresh_token_that_ends_is_replaced_and_not_reported(shop: Shop) -> None:
    await shop.until_a_request()
    assert shop.grants()[1:] == ["refresh"]
    shop.endpoint.mood = "refuses refreshes"
    await shop.until_a_request()
    assert shop.grants()[2:] == ["refresh", "exchange"]
    assert not shop.events_of(Reason.REFRESH_REFUSED)
    shop.endpoint.mood = "good"
    await shop.until_a_request()
    assert shop.grants()[4:] == ["refresh"]


@pytest.mark.rule("REQ-9")
async def test_a_refresh_token_that_the_server_does_not_replace_is_used_again(shop: Shop) -> None:
    shop.endpoint.gives_refresh_tokens = False
    await shop.until_a_request()
    await shop.until_a_request()
    assert shop.grants()[1:] == ["refresh", "refresh"]
    assert len(shop.endpoint.ledger) == 3
