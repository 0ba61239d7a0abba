"""What the API server fails or refuses: waited for longer each time, told where it stays, and no word of an outage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NoReturn

import pytest

from tests.unit.shop import HOUR, TARGET, Shop
from tests.unit.world import CREDENTIAL, World
from tuinly_operator.edges.kube import ApiFailure


@pytest.fixture
async def shop() -> Shop:
    shop = Shop()
    await shop.process.work()
    assert len(shop.endpoint.requests) == 1
    return shop


@dataclass
class Failing:
    """A method of the API server that fails, and when it was asked."""

    world: World
    failure: ApiFailure
    asked: list[float] = field(default_factory=list)

    async def __call__(self, *_: object) -> NoReturn:
        self.asked.append(self.world.boot)
        raise self.failure

    def waits(self) -> list[float]:
        return [after - before for before, after in pairwise(self.asked)]


CALLS: Mapping[str, Callable[[Shop], None]] = {
    "read_secret": lambda shop: shop.client_secret("canary-rotated"),
    "delete_secret": lambda shop: shop.spec(target={"name": "renamed"}),
    "write_status": lambda shop: shop.spec(suspend=True),
    "read_secret_meta": lambda shop: shop.api.remove_secret(TARGET),
}
"""Which of the API server's methods are asked when what happens."""


@pytest.mark.rule("RETRY-5")
@pytest.mark.parametrize("status", [409, 429, 500, 503, None])
@pytest.mark.parametrize("method", CALLS)
async def test_what_the_api_server_fails_is_tried_less_and_less(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, method: str, status: int | None
) -> None:
    """And soon again once it has worked: what was counted is forgotten."""
    failing = Failing(shop.world, ApiFailure(status, "Word"))
    monkeypatch.setattr(shop.api, method, failing)
    CALLS[method](shop)
    await shop.process.work()
    await shop.pass_time(HOUR // 2)
    # A census is no part of this; the old target of a conflict is looked at anew.
    assert 30 <= len(failing.asked) <= 100
    assert max(failing.waits()) <= 62
    assert max(failing.waits()[:2]) <= 10
    monkeypatch.undo()
    await shop.pass_time(62)
    assert shop.record().memory.refusal is None


@pytest.mark.rule("RETRY-5")
async def test_for_how_long_the_api_server_asks_to_be_left_alone_it_is(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(shop.world, ApiFailure(429, "TooManyRequests", 40.0))
    monkeypatch.setattr(shop.api, "read_secret", failing)
    shop.client_secret("canary-rotated")
    await shop.process.work()
    await shop.pass_time(HOUR // 4)
    assert min(failing.waits()) >= 40
    assert max(failing.waits()) <= 62


@pytest.mark.rule("RETRY-5")
async def test_trouble_with_the_status_holds_up_no_refresh(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop.api, "write_status", Failing(shop.world, ApiFailure(500, "InternalError")))
    await shop.pass_time(HOUR * 2)
    ends = [token.expires for token in shop.endpoint.ledger]
    begins = [token.issued for token in shop.endpoint.ledger[1:]]
    assert len(begins) == 3
    assert all(end - begin > HOUR // 3 - 62 for end, begin in zip(ends, begins, strict=False))


@pytest.mark.rule("RETRY-5")
async def test_what_fails_again_and_again_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop.api, "read_secret", Failing(shop.world, ApiFailure(500, "InternalError")))
    shop.client_secret("canary-rotated")
    await shop.process.work()
    assert shop.refreshed() == "True Issued"  # it may pass
    await shop.pass_time(60)
    assert shop.refreshed() == "False ClientSecretUnreadable"
    assert shop.told("Ready") == "True Issued"
    monkeypatch.undo()
    shop.endpoint.clients["shop"] = "canary-rotated"
    await shop.pass_time(62)
    assert shop.refreshed() == "True Issued"


def refresh_what_is_retained(shop: Shop) -> None:
    """Before such a refresh the credential is read."""
    shop.spec(target={"deletionPolicy": "Retain"})
    shop.world.pass_time(HOUR * 2 // 3)


OBJECTS: Mapping[str, tuple[str, Callable[[Shop], None]]] = {
    "ClientSecretUnreadable": ("read_secret", CALLS["read_secret"]),
    "CredentialUnreadable": ("find_credential", refresh_what_is_retained),
    "TargetRejected": ("delete_secret", CALLS["delete_secret"]),
}


@pytest.mark.rule("RETRY-5")
@pytest.mark.parametrize("reason", OBJECTS)
async def test_the_reason_names_the_object_and_the_message_the_request(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    method, happens = OBJECTS[reason]
    failure = ApiFailure(500, "InternalError")
    failure.request = "VERB /path"
    monkeypatch.setattr(shop.api, method, Failing(shop.world, failure))
    happens(shop)
    await shop.process.work()
    await shop.pass_time(60)
    assert shop.refreshed() == f"False {reason}"
    assert "VERB /path (500 InternalError)" in shop.message("Refreshed")


async def a_write_fails(shop: Shop, monkeypatch: pytest.MonkeyPatch, failure: ApiFailure) -> None:
    """Have the target spoilt, and the write that would restore it fail, from now on; that is told."""
    monkeypatch.setattr(shop.api, "apply_secret", Failing(shop.world, failure))
    shop.api.edit_secret(TARGET, "access_token", "spoilt")
    await shop.process.work()
    assert shop.refreshed() == "False TargetRejected"


@pytest.mark.rule("WRITE-7")
async def test_a_write_that_is_too_slow_is_told_with_what_to_look_at(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server answers for itself: it is a webhook that has the request."""
    await a_write_fails(shop, monkeypatch, ApiFailure(None, "TimeoutError"))
    assert "an admission webhook may be slow" in shop.message("Refreshed")
    monkeypatch.undo()
    await shop.pass_time(60)
    assert shop.told("Ready") == "True Issued"
    assert len(shop.endpoint.requests) == 1


@pytest.mark.rule("WRITE-7")
async def test_a_connection_that_breaks_is_told_as_one_and_not_as_a_slow_webhook(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_write_fails(shop, monkeypatch, ApiFailure(None, "ServerDisconnectedError"))
    assert "was written (ServerDisconnectedError)" in shop.message("Refreshed")
    assert "webhook" not in shop.message("Refreshed")


@pytest.mark.rule("WRITE-7")
async def test_a_conflict_without_a_change_is_told_as_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has undone the change before it was looked at, or it is an admission webhook's answer."""
    await a_write_fails(shop, monkeypatch, ApiFailure(409, "Conflict"))
    message = shop.message("Refreshed")
    assert "(409 Conflict)" in message
    assert "somebody else changes or deletes it again and again, or an admission webhook answers so" in message
    assert "quota" not in message


@pytest.mark.rule("WRITE-7")
async def test_a_write_that_fails_is_told_though_others_wait_for_a_token(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the report of a token that was published gives way to theirs: that of trouble would never have its turn."""
    monkeypatch.setattr(shop.process.reconciler, "_give_way", lambda _: True)  # others always wait
    await a_write_fails(shop, monkeypatch, ApiFailure(504, "Timeout"))


@pytest.mark.rule("OUT-2")
async def test_an_outage_is_nobodys_failure(shop: Shop) -> None:
    """All go on soon after its end, however often they had tried."""
    shop.api.reachable = False
    shop.client_secret("canary-rotated")
    for _ in range(20):
        await shop.process.reconcile(CREDENTIAL)
        assert shop.record().memory.refusal is None
        shop.world.pass_time(3)
    deadline = shop.process.timers.get(CREDENTIAL)
    assert deadline is not None
    assert deadline.remaining(shop.world.now()) <= 5
