"""A team that uses the operator: a client at the sandbox, its Secret, a credential, and what became of them."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from tests.support.objects import Json, Objects
from tests.support.sandbox import Client, IssuedToken, SandboxAdmin, TokenRequest
from tests.support.waiting import eventually

ANNOTATIONS = "tuinly.com/"


@dataclass(frozen=True)
class Target:
    """The Secret with the token. `raw` is all of it; `data` is decoded; `notes` are our annotations without prefix."""

    raw: Json = field(repr=False)

    @property
    def data(self) -> dict[str, str]:
        """What it holds."""
        return {key: base64.b64decode(value).decode() for key, value in self.raw.get("data", {}).items()}

    @property
    def token(self) -> str:
        """The access token."""
        return self.data["access_token"]

    @property
    def notes(self) -> dict[str, str]:
        """The operator's annotations, without their prefix."""
        annotations = self.raw["metadata"].get("annotations", {})
        return {
            name.removeprefix(ANNOTATIONS): value for name, value in annotations.items() if name.startswith(ANNOTATIONS)
        }

    @property
    def version(self) -> str:
        """Its resourceVersion, which each write changes."""
        version: str = self.raw["metadata"]["resourceVersion"]
        return version


@dataclass(frozen=True)
class Condition:
    """A condition of the credential."""

    status: str
    reason: str
    message: str

    @property
    def verdict(self) -> tuple[str, str]:
        """Status and reason."""
        return self.status, self.reason


class Tenant:
    """A credential by some name in a namespace, and all that belongs to it.

    Attributes:
        client: the OAuth client, as the sandbox knows it.
        labels: what the credential is labelled with when it is applied.
    """

    def __init__(self, objects: Objects, sandbox: SandboxAdmin, name: str = "storefront") -> None:
        """Nothing is applied nor registered yet."""
        self.objects = objects
        self.sandbox = sandbox
        self.name = name
        self.target_name = f"{name}-token"
        self.client_secret_name = f"{name}-client"
        # The id is unique in the sandbox, which serves all tests.
        self.client = Client(id=f"{objects.namespace}.{name}", secret=_new_secret())
        self.begin = objects.version("TuinlyCredential")
        self.labels: dict[str, str] = {}

    @property
    def key(self) -> str:
        """Namespace and name, as the operator logs them."""
        return f"{self.objects.namespace}/{self.name}"

    # What a team does -------------------------------------------------------------------------------------------------

    def start(self, spec: Json | None = None, **ways: Any) -> Self:  # noqa: ANN401 - those of Client
        """Register the client, with the server's ways of it, and apply its Secret and the credential."""
        self.register(**ways)
        self.apply_client_secret()
        self.apply(spec)
        return self

    def register(self, **ways: Any) -> None:  # noqa: ANN401 - those of Client
        """Register the client at the sandbox, or change how the server treats it."""
        self.client = self.sandbox.add_client(replace(self.client, **ways))

    def rotate_secret(self) -> None:
        """Give the client another secret at the endpoint; its Secret still holds the old one."""
        self.client = replace(self.client, secret=self.sandbox.rotate_secret(self.client.id, _new_secret()))

    def apply_client_secret(
        self,
        data: Mapping[str, str | bytes] | None = None,
        *,
        kind: str = "Opaque",
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Json:
        """Apply the client Secret, by default with the id and secret that the sandbox takes; return it."""
        data = {"client_id": self.client.id, "client_secret": self.client.secret} if data is None else data
        return self.objects.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name or self.client_secret_name, "labels": dict(labels or {})},
                "type": kind,
                "data": {key: base64.b64encode(_bytes(value)).decode() for key, value in data.items()},
            }
        )

    def apply(self, spec: Json | None = None) -> Json:
        """Apply the credential with a spec that has at least its client Secret; return it."""
        return self.objects.apply(
            {
                "apiVersion": "tuinly.com/v1alpha1",
                "kind": "TuinlyCredential",
                "metadata": {"name": self.name, "labels": self.labels},
                "spec": {"clientSecretRef": {"name": self.client_secret_name}, **(spec or {})},
            }
        )

    def delete(self) -> None:
        """Delete the credential."""
        self.objects.delete("TuinlyCredential", self.name)

    # What became of it ------------------------------------------------------------------------------------------------

    def credential(self) -> Json:
        """Return the credential."""
        return self.objects.get("TuinlyCredential", self.name)

    def status(self) -> Json:
        """Return its status, empty if there is none yet."""
        status: Json = self.credential().get("status", {})
        return {} if status.get("observedGeneration") == -1 else status

    def condition(self, kind: str) -> Condition | None:
        """Return a condition that is about the present spec, or None."""
        credential = self.credential()
        return condition_of(credential, kind, credential["metadata"]["generation"])

    def find_target(self) -> Target | None:
        """Return the target, or None where there is none."""
        raw = self.objects.find("Secret", self.target_name)
        return Target(raw) if raw is not None else None

    def target(self) -> Target:
        """Return the target. Raises AssertionError where there is none, as between a delete and what follows it."""
        found = self.find_target()
        if found is None:
            raise AssertionError(f"no Secret {self.target_name}")
        return found

    def targets(self) -> list[Target]:
        """Return each version of the target that was ever written, oldest first."""
        return [Target(raw) for raw in self.objects.versions("Secret", self.target_name, since=self.begin)]

    def requests(self) -> list[TokenRequest]:
        """Return the token requests that the sandbox got from this client, oldest first."""
        return self.sandbox.requests(self.client.id)

    def grants(self) -> list[str]:
        """Return which grant each of them asked for."""
        return [str(request.grant) for request in self.requests()]

    def tokens(self) -> list[IssuedToken]:
        """Return the access tokens that the sandbox issued to this client, oldest first."""
        return self.sandbox.tokens(self.client.id)

    def events(self) -> list[Json]:
        """Return the Events about the credential, oldest first."""
        mine = [event for event in self.objects.all("Event") if event["regarding"]["name"] == self.name]
        return sorted(mine, key=lambda event: str(event["eventTime"]))

    def event_reasons(self) -> list[str]:
        """Return the reasons of the Events, oldest first."""
        return [event["reason"] for event in self.events()]

    def verdicts(self, kind: str) -> list[tuple[str, str]]:
        """Return status and reason of each state that a condition ever had, without repetitions."""
        found: list[tuple[str, str]] = []
        for version in self.objects.versions("TuinlyCredential", self.name, since=self.begin):
            condition = condition_of(version, kind)
            if condition is not None and found[-1:] != [condition.verdict]:
                found.append(condition.verdict)
        return found

    # Waiting ----------------------------------------------------------------------------------------------------------

    def await_condition(self, kind: str, status: str, reason: str, seconds: float = 30.0) -> Condition:
        """Return a condition as soon as it has this status and reason, for the present spec.

        Raises:
            AssertionError: it has not in time; the message tells what it has.
        """

        def check() -> Condition:
            found = self.condition(kind)
            if found is None or found.verdict != (status, reason):
                raise AssertionError(f"{kind} of {self.name} is not {status} {reason}, but {found}")
            return found

        return eventually(check, seconds=seconds)

    def await_ready(self, seconds: float = 30.0) -> Target:
        """Wait until both conditions are True, for the present spec, and return the target."""
        self.await_condition("Ready", "True", "Issued", seconds)
        self.await_condition("Refreshed", "True", "Issued", seconds)
        return self.target()

    def await_token(self, *, other_than: str, seconds: float = 30.0) -> Target:
        """Return the target as soon as it holds another token."""

        def check() -> Target:
            target = self.target()
            if target.token == other_than:
                raise AssertionError(f"{self.target_name} still holds the same token")
            return target

        return eventually(check, seconds=seconds)

    def await_requests(self, count: int, seconds: float = 30.0) -> list[TokenRequest]:
        """Return this client's token requests as soon as there are so many."""

        def check() -> list[TokenRequest]:
            requests = self.requests()
            if len(requests) < count:
                raise AssertionError(f"{len(requests)} token requests, not {count}")
            return requests

        return eventually(check, seconds=seconds)

    def await_event(self, reason: str, seconds: float = 30.0) -> Json:
        """Return the first Event with this reason as soon as it is there."""

        def check() -> Json:
            found = next((event for event in self.events() if event["reason"] == reason), None)
            if found is None:
                raise AssertionError(f"no Event {reason}, only {self.event_reasons()}")
            return found

        return eventually(check, seconds=seconds)

    def await_events(self, *reasons: str) -> None:
        """Wait until these, oldest first, are the reasons of all Events: they are sent after the status is written."""

        def check() -> None:
            if (found := self.event_reasons()) != list(reasons):
                raise AssertionError(f"the Events are {found}, not {list(reasons)}")

        eventually(check)


def condition_of(credential: Json, kind: str, generation: int | None = None) -> Condition | None:
    """Return a condition of a credential's status, or None; with `generation`, only if it is about that."""
    status = credential.get("status", {})
    if status.get("observedGeneration") == -1:  # what the API server shows before any operator has looked
        return None
    for condition in status.get("conditions", []):
        if condition["type"] == kind and generation in (None, condition["observedGeneration"]):
            return Condition(condition["status"], condition["reason"], condition["message"])
    return None


def seconds_of(time: str) -> float:
    """Return an RFC 3339 time as seconds since the epoch."""
    return datetime.fromisoformat(time).timestamp()


def _new_secret() -> str:
    """Make up a client secret that is known for what it is wherever it turns up."""
    return f"canary-{secrets.token_urlsafe(24)}"


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
