"""Who asks for a new token by annotation can wait for it: the status repeats the value once its exchange was tried."""

import pytest

from tests.unit.shop import HOUR, Shop

LONG = "x" * 129


@pytest.fixture
async def shop() -> Shop:
    shop = Shop()
    await shop.pass_time(30)
    return shop


def handled(shop: Shop) -> str | None:
    found: str | None = shop.status().get("lastHandledRefresh")
    return found


async def forced(shop: Shop, value: str, seconds: int = 30) -> Shop:
    shop.force(value)
    await shop.pass_time(seconds)
    return shop


async def test_nobody_asked(shop: Shop) -> None:
    assert handled(shop) is None


@pytest.mark.rule("STATUS-15")
@pytest.mark.parametrize("mood", ["good", "down", "throttles", "garbage"])
async def test_it_is_told_once_it_was_tried_with_success_or_not(shop: Shop, mood: str) -> None:
    shop.endpoint.mood = mood
    await forced(shop, "one")
    assert handled(shop) == "one"


@pytest.mark.rule("STATUS-15")
async def test_it_is_told_where_nothing_else_changed(shop: Shop) -> None:
    """The server gives the very token that it gave before."""
    shop.endpoint.mood = "repeats"
    await forced(shop, "one")
    assert handled(shop) == "one"


@pytest.mark.rule("STATUS-15")
async def test_it_is_not_told_before(shop: Shop) -> None:
    await forced(shop, "one")
    shop.spec(suspend=True)
    await forced(shop, "two")
    assert handled(shop) == "one"


async def test_a_second_failure_tells_of_the_later_request_at_once(shop: Shop) -> None:
    shop.endpoint.mood = "down"
    await forced(shop, "one")
    await forced(shop, "two")
    assert handled(shop) == "two"


async def test_it_stays_told_once_the_annotation_is_gone_and_after_routine_refreshes(shop: Shop) -> None:
    await forced(shop, "one")
    shop.unforce()
    await shop.pass_time(HOUR)
    assert handled(shop) == "one"


@pytest.mark.rule("STATUS-15")
@pytest.mark.parametrize("mood", ["good", "down"])
async def test_a_restart_takes_nothing_back(shop: Shop, mood: str) -> None:
    await forced(shop, "one")
    shop.endpoint.mood = mood
    await forced(shop, "two")
    shop.endpoint.mood = "down"
    shop.process = shop.start()
    await shop.pass_time(30)
    assert handled(shop) == "two"


@pytest.mark.rule("STATUS-15")
async def test_a_long_value_is_told_by_its_digest(shop: Shop) -> None:
    await forced(shop, LONG)
    assert (handled(shop) or "").startswith("sha256:")
    assert len(handled(shop) or "") <= 128


async def test_a_value_that_was_there_from_the_start_is_handled_by_the_first_token() -> None:
    shop = Shop()
    await forced(shop, "early")
    assert handled(shop) == "early"
