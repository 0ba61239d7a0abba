"""The API server as the bench's admin uses it: thousands of objects quickly, and its own count of requests."""

import asyncio
import base64
import json
import ssl
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from bench.measures import requests, watches

Json = dict[str, Any]

SECRETS = "/api/v1/namespaces/{}/secrets"
CREDENTIALS = "/apis/tuinly.com/v1alpha1/namespaces/{}/tuinlycredentials"
CLIENT = "{}.{}"  # the id of a client, of a namespace and a credential: each fleet has clients of its own
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE = 5000
_AT_ONCE = 16  # requests under way; more gain nothing on two cores
_TIMEOUT = aiohttp.ClientTimeout(total=120.0)
_PATIENCE = 60.0  # seconds for one change to show
_LONGEST = 3600.0  # seconds in which a fleet does what it is waited for; 100,000 first tokens take 1,000 and more


class Api:
    """A connection to the API server of a kubeconfig that holds everything itself, with a token."""

    def __init__(self, kubeconfig: Path) -> None:
        """Read the kubeconfig; nothing is connected yet."""
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self.server: str = cluster["server"]
        self.tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        self._token: str = config["users"][0]["user"]["token"]

    async def __aenter__(self) -> Self:
        """Open the session."""
        headers = {"Authorization": f"Bearer {self._token}"}
        connector = aiohttp.TCPConnector(ssl=self.tls, limit=_AT_ONCE + 4)
        self._session = aiohttp.ClientSession(self.server, headers=headers, connector=connector, timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self._session.close()

    async def send(self, method: str, path: str, body: Json | None = None, **options: str) -> Json:
        """Send a request and return its answer.

        `options` are `content` and `accept`, the headers, where they are not JSON; the others make the query.

        Raises:
            RuntimeError: the answer is a refusal.
        """
        headers = {"Content-Type": options.pop("content", "application/json")}
        headers["Accept"] = options.pop("accept", "application/json")
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, path, params=options, headers=headers, data=data) as answer:
            found: Json = json.loads(await answer.read())
            if not answer.ok:
                raise RuntimeError(f"{method} {path}: {answer.status} {found.get('reason')}: {found.get('message')}")
            return found

    async def create(self, path: str, body: Json) -> Json:
        """Create an object; return its metadata."""
        return await self.send("POST", path, body, accept=METADATA)

    async def merge(self, path: str, patch: Json) -> Json:
        """Change an object by a JSON merge patch; return its metadata."""
        return await self.send("PATCH", path, patch, content="application/merge-patch+json", accept=METADATA)

    async def metadata(self, path: str) -> list[Json]:
        """Return the metadata of all objects of a collection."""
        return [item["metadata"] async for item in self.all(path, accept=METADATA_LIST)]

    async def all(self, path: str, **options: str) -> AsyncGenerator[Json]:
        """Go through a collection by pages, so that no answer of the API server's is too large."""
        options["limit"] = str(_PAGE)
        while True:
            page = await self.send("GET", path, None, **options)
            for item in page["items"]:
                yield item
            options["continue"] = page["metadata"].get("continue", "")
            if not options["continue"]:
                return

    async def count(self, path: str) -> int:
        """Count the objects of a collection without reading them all."""
        first = await self.send("GET", path, accept=METADATA_LIST, limit="1")
        return len(first["items"]) + int(first["metadata"].get("remainingItemCount", 0))

    async def requests(self) -> Counter[str]:
        """Count the requests that the API server has answered, by "VERB resource/subresource"."""
        return requests(await self._metrics())

    async def is_watched(self, resource: str) -> bool:
        """Whether anybody watches a resource."""
        return watches(await self._metrics())[resource] > 0

    async def _metrics(self) -> str:
        async with self._session.get("/metrics") as answer:
            return await answer.text()

    async def seconds_until(
        self, path: str, name: str, change: Callable[[], Coroutine[Any, Any, object]], shown: Callable[[Json], bool]
    ) -> float:
        """Make a change, and return the seconds until an object of a collection shows what it is to bring.

        The watch stands before the change is sent, and the time counts from then.

        Raises:
            TimeoutError: it does not within a minute.
        """
        async with asyncio.timeout(_PATIENCE):
            # As of now: what the object has is among very many too old a version to watch from.
            present = await self.send("GET", path, accept=METADATA_LIST, fieldSelector=f"metadata.name={name}")
            watch = self._watch(path, name, present["metadata"]["resourceVersion"])
            await anext(watch)  # the mark that the watch stands
            start = time.monotonic()
            changing = asyncio.create_task(change())
            async for event in watch:
                if event["type"] != "DELETED" and shown(event["object"]["metadata"]):
                    break
            seconds = time.monotonic() - start
            await changing
            await watch.aclose()
            return seconds

    async def _watch(self, path: str, name: str, version: str) -> AsyncGenerator[Json]:
        query = {"watch": "true", "fieldSelector": f"metadata.name={name}", "resourceVersion": version}
        async with self._session.get(path, params=query, headers={"Accept": METADATA}) as answer:
            answer.raise_for_status()
            yield {}
            async for line in answer.content:
                yield json.loads(line)


async def until(check: Callable[[], Awaitable[bool]], every: float) -> None:
    """Wait until a check holds, asked every so many seconds and no oftener, since it costs.

    Raises:
        TimeoutError: it takes longer than anything here does.
    """
    async with asyncio.timeout(_LONGEST):
        while not await check():  # noqa: ASYNC110 -- what it waits for happens in other processes
            await asyncio.sleep(every)


async def all_of(calls: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Run all, some at a time. The first failure ends it."""
    pending = iter(calls)

    async def work() -> None:
        for call in pending:
            await call

    async with asyncio.TaskGroup() as workers:
        for _ in range(_AT_ONCE):
            workers.create_task(work())
