"""Looks at a cluster from outside: lists and watches all that matters of it, and writes down what it sees."""

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from tests.support.auditor.timeline import CredentialSeen, Event, Key, NamespaceSeen, SecretSeen, Seen, Session
from tuinly_operator.base.foreign_json import loads

CREDENTIAL_LABEL = "tuinly.com/credential"
TOKEN_KEY = "access_token"

# Secrets before credentials: a Secret that is listed, and whose credential goes before the next list, is no absence.
PATHS = {
    "namespaces": "/api/v1/namespaces",
    "secrets": "/api/v1/secrets",
    "tuinlycredentials": "/apis/tuinly.com/v1alpha1/tuinlycredentials",
}
PAGE = 500
LIST_TIMEOUT = aiohttp.ClientTimeout(total=30)
# A watch sends a bookmark about once a minute: after more silence than that the connection is dead.
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=90)
WATCH_SECONDS = 3600
PAUSE = 0.1  # seconds between two attempts to connect

TokenOf = Callable[[Mapping[str, bytes]], str | None]


class OutOfReachError(Exception):
    """The API server did not do what was asked; the message says what, without its answer."""


def token_of_default_key(data: Mapping[str, bytes]) -> str | None:
    """Return what a target with the default keys holds; bytes that are no token's stay recognizably none."""
    value = data.get(TOKEN_KEY)
    return None if value is None else value.decode("utf-8", errors="backslashreplace")


class Observer:
    """Observes one cluster until cancelled.

    Args:
        kubeconfig: The login; it must be allowed to list and watch all of it.
        token_of: Reads the token from a target's data.
        namespaces: What to look at; None for all.
    """

    def __init__(self, kubeconfig: Path, token_of: TokenOf, namespaces: Collection[str] | None) -> None:
        self._kubeconfig = kubeconfig
        self._token_of = token_of
        self._namespaces = namespaces
        self.sessions: list[Session] = []
        self.trouble = "nothing was tried yet"

    async def run(self, on_listed: Callable[[], None]) -> None:
        """Observe; `on_listed` is called whenever complete lists begin a session.

        Raises:
            ValueError: If the kubeconfig is none.
        """
        async with await _login(self._kubeconfig) as api:
            while True:
                try:
                    await self._session(api, on_listed)
                except (OutOfReachError, aiohttp.ClientError, TimeoutError) as error:
                    self.trouble = str(error) or type(error).__name__
                await asyncio.sleep(PAUSE)

    async def _session(self, api: client.ApiClient, on_listed: Callable[[], None]) -> None:
        """List all, then watch all until the first watch ends."""
        objects: dict[Key, Seen] = {}
        versions: dict[str, str] = {}
        for resource in PATHS:
            items, versions[resource] = await _list(api, resource)
            objects.update(self._seen(resource, items))
        session = Session(time.time(), objects)
        self.sessions.append(session)
        on_listed()
        watches = [asyncio.create_task(self._watch(api, session, *item)) for item in versions.items()]
        try:
            done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.ended_at = time.time()
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
        for watch in done:
            watch.result()

    async def _watch(self, api: client.ApiClient, session: Session, resource: str, version: str) -> None:
        """Write down the events of one resource until the watch ends."""
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async with _get(api, resource, query, WATCH_TIMEOUT) as response:
            while line := await response.content.readline():
                event = loads(line)
                now = time.time()
                if event["type"] == "BOOKMARK":
                    continue
                if event["type"] == "ERROR":
                    raise OutOfReachError(f"the watch of {resource} ended with {event['object'].get('code')}")
                revision = int(event["object"]["metadata"]["resourceVersion"])
                for key, seen in self._seen(resource, [event["object"]]):
                    session.events.append(Event(now, revision, key, None if event["type"] == "DELETED" else seen))

    def _seen(self, resource: str, items: Iterable[Mapping[str, Any]]) -> Iterable[tuple[Key, Seen]]:
        """Yield what matters of objects, and of those only what is in the wanted namespaces."""
        for item in items:
            metadata = item["metadata"]
            namespace = metadata.get("namespace", metadata["name"])
            if self._namespaces is None or namespace in self._namespaces:
                yield Key(resource, metadata.get("namespace", ""), metadata["name"]), self._reduced(resource, item)

    def _reduced(self, resource: str, item: Mapping[str, Any]) -> Seen:
        metadata = item["metadata"]
        deleting = "deletionTimestamp" in metadata
        match resource:
            case "namespaces":
                return NamespaceSeen(deleting)
            case "tuinlycredentials":
                return CredentialSeen(metadata["uid"], _targets(item), deleting)
        data = {key: _decoded(value) for key, value in (item.get("data") or {}).items()}
        return SecretSeen(metadata["uid"], metadata.get("labels", {}).get(CREDENTIAL_LABEL), self._token_of(data))


async def _login(kubeconfig: Path) -> client.ApiClient:
    """Return a client; its connections are made when they are needed.

    Raises:
        ValueError: If the file is no kubeconfig.
    """
    try:
        api = await config.new_client_from_config(str(kubeconfig), persist_config=False)  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 -- the library raises whatever its parsing runs into
        raise ValueError(f"{kubeconfig} is no kubeconfig ({type(error).__name__})") from None
    return cast("client.ApiClient", api)


def _targets(credential: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names that the target may have: what the spec asks for, else (before a rename is done) the status'."""
    spec, status = credential.get("spec") or {}, credential.get("status") or {}
    wanted = (spec.get("target") or {}).get("name") or f"{credential['metadata']['name']}-token"
    written = status.get("secretName") or wanted
    return tuple(dict.fromkeys((wanted, written)))


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except binascii.Error:
        return b""


async def _list(api: client.ApiClient, resource: str) -> tuple[list[dict[str, Any]], str]:
    """Return all objects of a resource, and the version at which they were these."""
    items: list[dict[str, Any]] = []
    query = {"limit": str(PAGE)}
    while True:
        async with _get(api, resource, query, LIST_TIMEOUT) as response:
            page = loads(await response.read())
        items += page["items"]
        if not page["metadata"].get("continue"):
            return items, page["metadata"]["resourceVersion"]
        query["continue"] = page["metadata"]["continue"]


@asynccontextmanager
async def _get(
    api: client.ApiClient, resource: str, query: Mapping[str, str], limits: aiohttp.ClientTimeout
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a GET with the library's login and TLS, but without its models, which would cost more than all the rest."""
    headers = {"Accept": "application/json"}
    await api.update_params_for_auth(headers, [], ["BearerToken"], PATHS[resource], "GET", None)
    url = f"{api.configuration.host}{PATHS[resource]}?{urlencode(query)}"
    request = api.rest_client.request
    answer = await request("GET", url, headers=headers, _request_timeout=limits)  # type: ignore[no-untyped-call]
    response: aiohttp.ClientResponse = answer.response
    async with response:
        try:
            if response.status != HTTPStatus.OK:
                raise OutOfReachError(f"the API server answers {response.status} for {resource}")
            yield response
        finally:
            if response.connection is not None and response.connection.transport is not None:
                # Amid a watch. A polite end of TLS would wait for the other side, longer than the loop lives.
                response.connection.transport.abort()
