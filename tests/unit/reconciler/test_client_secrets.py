"""One read of a client Secret serves all credentials that name it, however often that Secret changes."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.shop import Shop
from tests.unit.world import CLIENT_SECRET, CREDENTIAL
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.edges.kube import ApiFailure

CROWD = 30


class Reads:
    """Counts the reads of Secrets, each of which lets others go on meanwhile."""

    def __init__(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shop, self.times = shop, []
        self._read, self.failure = shop.api.read_secret, None
        self.begun = asyncio.Event()
        monkeypatch.setattr(shop.api, "read_secret", self.read)

    times: list[float]
    failure: ApiFailure | None

    async def read(self, key: NamespacedName) -> Mapping[str, Any]:
        self.times.append(self.shop.world.boot)
        self.begun.set()
        raw = await self._read(key)
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        return raw


@pytest.fixture
async def crowd(shop: Shop) -> list[NamespacedName]:
    """Credentials that name the client Secret of the shop, each with its first token."""
    keys = [NamespacedName("shop", f"crowd{number}") for number in range(CROWD)]
    for key in keys:
        shop.api.put_credential(key, {"clientSecretRef": {"name": CLIENT_SECRET.name}})
    shop.process.credentials_changed()
    await shop.pass_time(10)
    return keys


@pytest.fixture
def reads(crowd: list[NamespacedName], shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Reads:
    assert crowd
    return Reads(shop, monkeypatch)


def edit(shop: Shop) -> None:
    """Change the client Secret, but neither id nor secret."""
    shop.client_secret("canary-secret")


def count_reconciles(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[NamespacedName]:
    """The credentials that are reconciled from now on."""
    reconciled, reconcile = list[NamespacedName](), shop.process.reconciler.reconcile

    async def counted(key: NamespacedName) -> None:
        reconciled.append(key)
        await reconcile(key)

    monkeypatch.setattr(shop.process.reconciler, "reconcile", counted)
    return reconciled


@pytest.mark.rule("CLIENT-6")
async def test_an_edited_client_secret_is_read_once_for_all_that_name_it(shop: Shop, reads: Reads) -> None:
    edit(shop)
    await shop.pass_time(10)
    assert len(reads.times) == 1


@pytest.mark.rule("CLIENT-6")
async def test_a_client_secret_that_is_edited_in_a_loop_is_read_once_per_second(shop: Shop, reads: Reads) -> None:
    for _ in range(40):
        edit(shop)
        shop.world.pass_time(0.25)
        await shop.process.work()
    assert 8 <= len(reads.times) <= 11
    assert all(later - earlier >= 1 for earlier, later in zip(reads.times, reads.times[1:], strict=False))


@pytest.mark.rule("CLIENT-6")
async def test_an_edit_in_a_loop_costs_each_credential_one_reconcile_per_second(
    shop: Shop, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciled = count_reconciles(shop, monkeypatch)
    for _ in range(100):
        edit(shop)
        shop.world.pass_time(0.1)
        await shop.process.work()
    assert len(reads.times) >= 9
    assert len(reconciled) <= 13 * (CROWD + 1)


@pytest.mark.rule("CLIENT-6")
async def test_an_edit_does_not_concern_a_credential_that_is_suspended(
    shop: Shop, crowd: list[NamespacedName], reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (CREDENTIAL, *crowd[1:]):
        shop.api.put_credential(key, {"clientSecretRef": {"name": CLIENT_SECRET.name}, "suspend": True})
    shop.process.credentials_changed()
    await shop.pass_time(2)
    reconciled = count_reconciles(shop, monkeypatch)
    edit(shop)
    await shop.pass_time(3)
    assert set(reconciled) == {crowd[0]}
    assert len(reads.times) == 1


@pytest.mark.rule("CLIENT-6")
async def test_a_change_that_only_the_read_of_another_has_shown_is_followed_by_all(
    shop: Shop, crowd: list[NamespacedName], reads: Reads
) -> None:
    shop.endpoint.clients["shop"] = "canary-rotated"
    shop.api.changed = lambda _: None  # the watch of Secrets brings nothing
    shop.client_secret("canary-rotated")
    before = len(shop.endpoint.requests)
    shop.api.put_credential(NamespacedName("shop", "new"), {"clientSecretRef": {"name": CLIENT_SECRET.name}})
    shop.process.credentials_changed()
    await shop.pass_time(2)
    assert len(reads.times) == 1
    assert len(shop.endpoint.requests) == before + len(crowd) + 2


@pytest.mark.rule("CLIENT-6")
async def test_a_secret_that_changed_right_after_a_read_is_followed_within_a_second(shop: Shop, reads: Reads) -> None:
    edit(shop)
    await shop.process.work()
    shop.endpoint.clients["shop"] = "canary-rotated"
    shop.client_secret("canary-rotated")
    await shop.process.work()
    assert len(reads.times) == 1
    before = len(shop.endpoint.requests)
    await shop.pass_time(1)
    assert len(reads.times) == 2
    assert len(shop.endpoint.requests) == before + CROWD + 1


@pytest.mark.rule("CLIENT-6")
async def test_a_due_refresh_does_not_wait_for_a_client_secret_that_changes_in_a_loop(shop: Shop, reads: Reads) -> None:
    before = len(shop.endpoint.requests)
    shop.world.pass_time(2400)
    for _ in range(20):
        edit(shop)
        await shop.process.work()
        edit(shop)
        await shop.pass_time(1)
    assert len(shop.endpoint.requests) == before + CROWD + 1
    assert len(reads.times) <= 21


async def at_once(shop: Shop, keys: list[NamespacedName]) -> None:
    await asyncio.gather(*(shop.process.reconcile(key) for key in keys))


@pytest.mark.rule("CLIENT-6")
async def test_reconciles_at_the_same_time_share_a_read(shop: Shop, crowd: list[NamespacedName], reads: Reads) -> None:
    edit(shop)
    await at_once(shop, crowd)
    assert len(reads.times) == 1


@pytest.mark.rule("CLIENT-6")
async def test_a_failed_read_fails_for_all_that_wait_for_it(
    shop: Shop, crowd: list[NamespacedName], reads: Reads
) -> None:
    reads.failure = ApiFailure(500, "InternalError")
    edit(shop)
    await at_once(shop, crowd)
    assert len(reads.times) == 1
    reads.failure = None
    await shop.pass_time(60)
    assert len(reads.times) == 2


async def test_a_client_secret_that_is_not_there_is_not_read_at_each_reconcile(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(shop, monkeypatch)
    shop.api.remove_secret(CLIENT_SECRET)
    await shop.pass_time(5)
    assert len(reads.times) == 1
    for _ in range(5):
        await shop.process.reconcile(CREDENTIAL)
        await shop.pass_time(2)
    assert len(reads.times) == 1


@pytest.mark.rule("CLIENT-6")
async def test_after_a_cancelled_read_one_of_those_that_wait_reads(
    shop: Shop, crowd: list[NamespacedName], reads: Reads
) -> None:
    edit(shop)
    tasks = [asyncio.create_task(shop.process.reconcile(key)) for key in crowd]
    await reads.begun.wait()
    shop.process.reconciler.give_up(crowd[0])
    await asyncio.gather(*tasks)
    assert len(reads.times) == 2
