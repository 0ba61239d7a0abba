"""When a refresh token is sent again after a failed request, and when it is not."""

import pytest

from tests.unit.shop import Shop


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


@pytest.mark.parametrize("mood", ["down", "garbage"])
async def test_a_refresh_token_whose_request_ended_in_doubt_is_not_sent_again(shop: Shop, mood: str) -> None:
    assert await grants_after(shop, mood) == ["refresh", "exchange"]


async def test_a_throttled_request_leaves_the_refresh_token_as_it_is(shop: Shop) -> None:
    assert await grants_after(shop, "throttles") == ["refresh", "refresh"]


async def test_a_refused_refresh_token_is_followed_by_an_exchange_in_the_same_attempt(shop: Shop) -> None:
    assert await grants_after(shop, "refuses refreshes") == ["refresh", "exchange"]
