"""One credential with its first token in the fake world of world.py, and what people do to it."""

import base64
from dataclasses import dataclass, field
from typing import Any

from tests.unit.world import CLIENT_SECRET, CREDENTIAL, FakeApi, FakeEndpoint, FakeEvents, Json, Process, World
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import REFRESH_REQUESTED
from tuinly_operator.domain.errors import Reason
from tuinly_operator.engine.store import Record

TARGET = NamespacedName(CREDENTIAL.namespace, f"{CREDENTIAL.name}-token")
HOUR = 3600


@dataclass
class Shop:
    """A credential with its first token, and what it lives among."""

    world: World = field(default_factory=World)
    events: FakeEvents = field(default_factory=FakeEvents)

    def __post_init__(self) -> None:
        self.started = self.world.boot
        self.api = FakeApi(self.world)
        self.endpoint = FakeEndpoint(self.world, {"shop": "canary-secret"}, gives_refresh_tokens=False)
        self.client_secret("canary-secret")
        self.api.put_credential(CREDENTIAL, {"clientSecretRef": {"name": CLIENT_SECRET.name}})
        self.process = self.start()

    def start(self) -> Process:
        return Process(self.world, self.api, self.endpoint, self.events)

    async def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.world.pass_time(1)
            await self.process.work()

    async def until_a_request(self) -> None:
        """Let time pass until the next token request."""
        before = len(self.endpoint.requests)
        for _ in range(HOUR):
            await self.pass_time(1)
            if len(self.endpoint.requests) > before:
                return
        raise AssertionError("no token request within an hour")

    def grants(self) -> list[str]:
        """Those of the token requests until now."""
        return [grant for grant, _ in self.endpoint.requests]

    def record(self) -> Record:
        record = self.process.store.get(CREDENTIAL)
        assert record is not None
        return record

    def status(self) -> Json:
        """As the API server has it."""
        found: Json = self.api.credentials[CREDENTIAL]["status"]
        return found

    def told(self, kind: str) -> str:
        condition = self.record().credential.status.condition(kind)
        assert condition is not None
        return f"{condition.status} {condition.reason}"

    def refreshed(self) -> str:
        return self.told("Refreshed")

    def client_secret(self, value: str, kind: str = "Opaque") -> None:
        self.api.put_secret(CLIENT_SECRET, {"client_id": "shop", "client_secret": value}, kind)

    def spec(self, **more: Any) -> None:  # noqa: ANN401 -- JSON
        self.api.put_credential(CREDENTIAL, {"clientSecretRef": {"name": CLIENT_SECRET.name}, **more})
        self.process.credentials_changed()

    def force(self, value: str) -> None:
        """Ask for an exchange by annotation."""
        self.api.put_credential(CREDENTIAL, self.api.credentials[CREDENTIAL]["spec"], {REFRESH_REQUESTED: value})
        self.process.credentials_changed()

    def unforce(self) -> None:
        """Take that back."""
        self.api.put_credential(CREDENTIAL, self.api.credentials[CREDENTIAL]["spec"], {})
        self.process.credentials_changed()

    def annotation(self, name: str, key: NamespacedName = TARGET) -> str:
        return str(self.api.secrets[key]["metadata"]["annotations"][f"tuinly.com/{name}"])

    def token(self, key: NamespacedName = TARGET) -> str:
        """The token in a target."""
        return base64.b64decode(self.api.secrets[key]["data"]["access_token"]).decode()

    def events_of(self, reason: Reason) -> list[str]:
        return [event.message for event in self.events.sent if event.reason is reason]

    def message(self, kind: str) -> str:
        condition = self.record().credential.status.condition(kind)
        assert condition is not None
        return condition.message
