"""The reconciler over the fake edge of world.py: what only shows where decisions, acts and gate come together."""

from dataclasses import dataclass, field

import pytest

from tests.unit.world import CLIENT_SECRET, CREDENTIAL, FakeApi, FakeEndpoint, FakeEvents, Process, World
from tuinly_operator.credential import Key
from tuinly_operator.store import Record

TARGET = Key(CREDENTIAL.namespace, f"{CREDENTIAL.name}-token")
HOUR = 3600


@dataclass
class Shop:
    """A credential with its first token, and what it lives among."""

    world: World = field(default_factory=World)
    events: FakeEvents = field(default_factory=FakeEvents)

    def __post_init__(self) -> None:
        self.api = FakeApi(self.world)
        self.endpoint = FakeEndpoint(self.world, {"shop": "canary-secret"}, gives_refresh_tokens=False)
        self.api.put_secret(CLIENT_SECRET, {"client_id": "shop", "client_secret": "canary-secret"})
        self.api.put_credential(CREDENTIAL, {"clientSecretRef": {"name": CLIENT_SECRET.name}})
        self.process = self.start()

    def start(self) -> Process:
        return Process(self.world, self.api, self.endpoint, self.events)

    async def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.world.pass_time(1)
            await self.process.work()

    def record(self) -> Record:
        record = self.process.store.get(CREDENTIAL)
        assert record is not None
        return record

    def refreshed(self) -> str:
        condition = self.record().credential.status.condition("Refreshed")
        assert condition is not None
        return f"{condition.status} {condition.reason}"


@pytest.fixture
async def shop() -> Shop:
    shop = Shop()
    await shop.process.work()
    assert len(shop.endpoint.requests) == 1
    return shop


async def test_a_target_that_the_watch_has_not_brought_yet_is_believed_once_it_is_found(shop: Shop) -> None:
    """Another leader may have written it a moment ago."""
    writes = len(shop.api.writes)
    shop.process = shop.start()
    shop.process.store.secret_gone(TARGET)
    await shop.process.work()
    assert len(shop.endpoint.requests) == 1
    assert len(shop.api.writes) == writes


async def test_what_the_probe_was_told_by_the_endpoint_is_waited_for_and_told(shop: Shop) -> None:
    """The 4xx opens the gate, and it is a failure of this side of the opening."""
    shop.endpoint.mood = "down"
    await shop.pass_time(HOUR * 2 // 3 + 60)
    assert shop.process.gate.closed() == {"https://oauth.example.com": True}
    shop.endpoint.mood, shop.endpoint.clients = "good", {}
    requests = len(shop.endpoint.requests)
    while len(shop.endpoint.requests) == requests:
        await shop.pass_time(1)
    assert shop.process.gate.closed() == {"https://oauth.example.com": False}
    assert shop.refreshed() == "False InvalidClient"


async def test_how_late_a_refresh_is_counts_from_when_it_was_due_and_not_from_an_earlier_one(shop: Shop) -> None:
    shop.endpoint.mood = "repeats"
    await shop.pass_time(HOUR * 2 // 3)
    assert len(shop.endpoint.requests) > 1
    assert shop.record().memory.due is None
