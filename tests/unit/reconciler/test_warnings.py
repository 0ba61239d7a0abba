"""Events that warn: what comes and goes is one story, told once in ten minutes."""

import pytest

from tests.unit.shop import HOUR, TARGET, Shop
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain import notices
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.token_response import TokenResponse


def reasons(shop: Shop) -> list[Reason]:
    return [event.reason for event in shop.events.sent]


class Moody:
    """A token endpoint that answers well or fails, as it is told."""

    def __init__(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reason: Reason | None = None
        self._exchange = shop.endpoint.exchange
        monkeypatch.setattr(shop.endpoint, "exchange", self)

    async def __call__(self, url: str, client: str, secret: Sensitive, scopes: frozenset[str]) -> TokenResponse:
        if self.reason is not None:
            raise TokenRequestFailed(self.reason, "it failed", status=400)
        return await self._exchange(url, client, secret, scopes)


async def flap(shop: Shop, moody: Moody, *moods: Reason | None) -> None:
    """Have each mood last for a forced exchange and its retries, about a minute."""
    for mood in moods:
        moody.reason = mood
        shop.force(f"{shop.world.boot}")
        await shop.pass_time(61)


@pytest.mark.rule("OBS-1")
async def test_what_comes_back_within_ten_minutes_is_not_told_again_nor_is_its_end(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    moody = Moody(shop, monkeypatch)
    bad = Reason.INVALID_RESPONSE
    assert reasons(shop) == [Reason.ISSUED]
    await flap(shop, moody, bad, None, bad, None, bad, None)
    assert reasons(shop) == [Reason.ISSUED, bad, Reason.ISSUED]
    await shop.pass_time(600)
    await flap(shop, moody, bad, None)
    assert reasons(shop) == [Reason.ISSUED, bad, Reason.ISSUED, bad, Reason.ISSUED]


@pytest.mark.rule("OBS-1")
async def test_each_reason_is_told_of_by_itself(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    moody = Moody(shop, monkeypatch)
    one, other = Reason.INVALID_RESPONSE, Reason.INVALID_CLIENT
    await flap(shop, moody, one, other, one, other, one)
    assert reasons(shop) == [Reason.ISSUED, one, other]


@pytest.mark.rule("OBS-1")
async def test_a_fight_over_the_target_is_told_of_once_in_ten_minutes(shop: Shop) -> None:
    for _ in range(HOUR // 10):
        shop.api.edit_secret(TARGET, "access_token", "spoilt")
        await shop.pass_time(10)
    assert 5 <= reasons(shop).count(Reason.RESTORED) <= 6


@pytest.mark.rule("OBS-1")
async def test_what_is_remembered_of_warnings_is_bounded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    moody = Moody(shop, monkeypatch)
    for most in (2, 1):  # the second time there is one more to remember than fits
        monkeypatch.setattr(notices, "_MOST_WARNED", most)
        for _ in range(3):
            await flap(shop, moody, Reason.INVALID_RESPONSE, Reason.INVALID_CLIENT, None)
        shop.world.pass_time(600)
        assert len(shop.record().memory.notices.warned) == most


@pytest.mark.rule("WHEN-3")
async def test_a_short_lifetime_is_told_once_and_again_where_a_longer_one_came_between(shop: Shop) -> None:
    for lifetime, told in ((200, 1), (200, 1), (HOUR, 1), (HOUR, 1), (200, 2), (200, 2)):
        shop.endpoint.lifetime = lifetime
        shop.force(f"{shop.world.boot}")
        await shop.pass_time(12)
        shop.world.pass_time(600)  # so that what is told again is no repetition
        assert reasons(shop).count(Reason.LIFETIME_TOO_SHORT) == told
