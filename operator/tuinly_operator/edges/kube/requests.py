"""Requests to the API server: sent, bounded, fenced, and judged when they fail.

They go through `kubernetes.aio`'s connection, login and TLS, but not through its typed models: those cost 27 MB of
memory and most of the time of a call, and what is read here is mostly metadata.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import client

from tuinly_operator.base.foreign_json import loads
from tuinly_operator.base.http_times import parse_retry_after
from tuinly_operator.domain.target import MANAGER
from tuinly_operator.edges.kube.failures import ApiFailure, NotLeading, is_of_uid, word
from tuinly_operator.edges.kube.session import split
from tuinly_operator.engine.leadership import Leadership

REQUEST_TIMEOUT: Final = 10.0  # seconds; the library's own default is five minutes
WATCH_SILENCE: Final = 75.0  # seconds without even a bookmark, which come every 60: the connection is dead
PAGE: Final = 500
# Bytes. Anybody may fill the metadata of an object with a quarter of a MiB of annotations, and more of managed fields;
# parsed, those take up to thirty times as much.
_MOST_OF_A_PAGE: Final = 4 * 1024 * 1024
_SLOW_WRITE: Final = 1.0  # seconds; one that nobody holds up takes some 10 ms, and on a busy API server more
_OWN_LIMIT: Final = aiohttp.ClientTimeout(total=3.0)  # for asking the API server whether it is ready
_READY: Final = "/readyz"
# Seconds after an outage in which a failure may be a part of it: what hung until then, and what came too early.
_SETTLING: Final = REQUEST_TIMEOUT

# A large answer would be compressed: for the API server and for us more work than a near network saves.
_ALWAYS: Final = {"User-Agent": MANAGER, "Accept-Encoding": "identity"}

METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
JSON_PATCH: Final = "application/json-patch+json"
MERGE: Final = "application/merge-patch+json"


def rest_client(configuration: client.Configuration) -> Any:  # noqa: ANN401 -- untyped
    """What the Kubernetes client sends requests with."""
    return client.ApiClient(configuration).rest_client


class Requests:
    """A connection to the API server, and what every request on it has in common."""

    def __init__(  # noqa: PLR0913 -- what it rests on, and whom it tells
        self,
        configuration: client.Configuration,
        leadership: Leadership,
        *,
        reachable: Callable[[bool], None],
        pace: Callable[[str, bool], None],
        silence: float = WATCH_SILENCE,
        rest: Callable[[client.Configuration], Any] = rest_client,
    ) -> None:
        """`reachable` is called whenever it becomes known that the API server is, or is not, within reach.

        `pace` is told of each namespace whether its writes are slow. A watch counts as dead after `silence` seconds
        without a word. `rest` makes what sends the requests.
        """
        # The proxy of the environment is looked up once: aiohttp's own trust_env asks a thread at each request.
        configuration.client_session_kwargs = {"cookie_jar": aiohttp.DummyCookieJar(), "trust_env": False}
        configuration.proxy = configuration.proxy or _proxy(configuration.host)
        # No limit: reconciles are limited elsewhere, and the renewal of the Lease must not wait behind them.
        configuration.connection_pool_maxsize = 0
        self.configuration = configuration
        self._make_rest = rest
        self._rest = rest(configuration)
        self._notify = reachable
        self._reachable = True
        self._settled_at = float("-inf")  # when the last outage is over for certain, by the clock of the loop
        self._check: asyncio.Task[None] | None = None
        self._pace = pace
        self._leadership = leadership
        self.silence = silence

    @property
    def reachable(self) -> bool:
        """Whether the API server has answered well since it last did not answer."""
        return self._reachable

    @contextmanager
    def writing(self, namespace: str) -> Iterator[None]:
        """Tell `pace` that a write of this namespace is slow, as soon as it is, or that it was quick."""
        loop = asyncio.get_running_loop()
        begun, late = loop.time(), loop.call_later(_SLOW_WRITE, self._pace, namespace, True)  # noqa: FBT003 -- a callback
        try:
            yield
        finally:
            late.cancel()
        if loop.time() - begun < _SLOW_WRITE:
            self._pace(namespace, False)  # noqa: FBT003 -- a callback

    async def answers(self) -> bool:
        """Whether the API server has been within reach for some seconds, so that a failure is no part of an outage.

        After a failure that made that doubtful, wait for the check.
        """
        if self._check is not None:
            await asyncio.wait({self._check})
        return self._reachable and asyncio.get_running_loop().time() >= self._settled_at

    def fence(self, seconds: float = 0.0) -> None:
        """Stop a replica that does not lead (any more), right before what only the leader may do.

        `seconds` is for how long it must be sure of its lead. Raises NotLeading.
        """
        if not self._leadership.holds(seconds):
            raise NotLeading

    def refused(self, authorization: str | None) -> None:
        """Called with the login that the API server refused (401)."""

    def require_reach(self) -> None:
        """Refuse to go on while the API server is known to be out of reach. Raises ApiFailure."""
        if not self._reachable:
            raise ApiFailure(None, "OutOfReach")

    async def close(self) -> None:
        """Close all connections."""
        if self._check is not None:
            self._check.cancel()
        await self._rest.close()

    async def reconnect(self) -> None:
        """Close all connections and use new ones from now on, by the configuration as it is now."""
        old, self._rest = self._rest, self._make_rest(self.configuration)
        await old.close()

    async def check_ready(self) -> None:
        """Ask the API server whether it is ready. Raises ApiFailure."""
        async with self.send("GET", _READY, {}, limit=_OWN_LIMIT):
            pass

    async def pages(
        self,
        path: str,
        query: Mapping[str, str],
        *,
        accept: str = METADATA_LIST,
        page: int | None = None,
        most: int | None = None,
    ) -> AsyncGenerator[tuple[list[Mapping[str, Any]], str]]:
        """List by pages of so many objects, and bytes. One that is too large is asked for again in smaller ones.

        Each page is emptied as the next is asked for.
        """
        page, most = page or PAGE, most or _MOST_OF_A_PAGE
        more, limit = "", page
        while True:
            part = {**query, "limit": str(limit), **({"continue": more} if more else {})}
            try:
                answer = await self.ask("GET", path, query=part, accept=accept, most=most if limit > 1 else None)
            except _TooLargeError:
                limit = max(1, limit // 8)
                continue
            limit = min(page, limit * 2)  # they grow again
            meta, items = answer["metadata"], answer.get("items") or []
            yield items, str(meta.get("resourceVersion") or "")
            items.clear()  # else two pages would be in memory
            more = meta.get("continue") or ""
            if not more:
                return

    async def ask(  # noqa: PLR0913 -- a request has that many parts
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | None = None,
        content: str = "application/json",
        accept: str = "application/json",
        limit: aiohttp.ClientTimeout | None = None,
        most: int | None = None,
        fenced: bool = True,
    ) -> Mapping[str, Any]:
        """Send a request and give the object that was answered, of `most` bytes at most. Raises ApiFailure."""
        sent = self.send(
            method, path, query or {}, body=body, content=content, accept=accept, limit=limit, fenced=fenced
        )
        async with sent as response:
            answer = loads(await _read(response, most))
        if not isinstance(answer, Mapping):
            raise ApiFailure(response.status, "NotAnObject")
        return answer

    @asynccontextmanager
    async def send(  # noqa: PLR0913 -- a request has that many parts
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | None = None,
        content: str = "application/json",
        accept: str = "application/json",
        limit: aiohttp.ClientTimeout | None = None,
        fenced: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give its answer if it is a good one; note whether the API server is within reach.

        Only the leader may change anything, except by a request that is not `fenced`. Whether this replica leads is
        looked at in the very step that sends: the process may have been stopped after any earlier look. Raises
        ApiFailure.
        """
        failure: ApiFailure
        try:
            headers = {**_ALWAYS, "Accept": accept, "Content-Type": content}
            if authorization := await self.configuration.get_api_key_with_prefix("BearerToken"):
                headers["Authorization"] = authorization
            url = f"{self.configuration.host}{path}" + (f"?{_encoded(tuple(query.items()))}" if query else "")
            limit = limit or aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
            if fenced and method != "GET":
                self.fence()
            answer = await self._rest.request(method, url, headers=headers, body=body, _request_timeout=limit)
            async with answer.response as response:
                if response.status < HTTPStatus.BAD_REQUEST:
                    self._note(reachable=True)
                    yield response
                    return
                failure = _failure(response, await response.read())
                if response.status == HTTPStatus.UNAUTHORIZED:
                    self.refused(authorization)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = ApiFailure(None, type(error).__name__)
        if failure.out_of_reach:
            self._doubt()
        elif failure.needs_rights and path != _READY:
            # A server that has just started knows no rights yet.
            self._doubt()
            if not await self.answers():
                failure = ApiFailure(None, "NotReady")
        failure.request = f"{method} {path}"
        raise failure from None

    def _doubt(self) -> None:
        """Have the API server asked about itself, once for all who have doubts.

        A time-out or a 504 of one write proves nothing: an admission webhook, which tenants may run, can cause both.
        Nor does a refusal: a server that has just started refuses everybody everything, and is not back yet. One that
        refuses the login refuses this too, and then counts as out of reach: until the login is renewed, nothing can be
        written, so no token is requested.
        """
        if self._reachable and (self._check is None or self._check.done()):
            self._check = asyncio.create_task(self._check_reach())

    async def _check_reach(self) -> None:
        try:
            await self.check_ready()
        except ApiFailure as failure:
            status = failure.status or HTTPStatus.GATEWAY_TIMEOUT
            if status == HTTPStatus.UNAUTHORIZED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self._note(reachable=False)

    def _note(self, *, reachable: bool) -> None:
        if reachable is not self._reachable:
            self._reachable = reachable
            self._settled_at = asyncio.get_running_loop().time() + _SETTLING
            self._notify(reachable)


@lru_cache(maxsize=64)  # nearly all requests have one of a few
def _encoded(query: tuple[tuple[str, str], ...]) -> str:
    return urlencode(query)


def collection(root: str, namespace: str | None, plural: str) -> str:
    """The path of all objects of a kind, in one namespace or in all."""
    return f"{root}/{plural}" if namespace is None else f"{root}/namespaces/{namespace}/{plural}"


def _proxy(server: str) -> str | None:
    """The proxy that the environment names for a URL (HTTPS_PROXY, NO_PROXY), if any."""
    url = urlsplit(server)
    return None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)


async def lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a stream. Raises ApiFailure where it breaks, or falls silent."""
    try:
        async for line in split(response.content.iter_any()):
            yield line
    except (aiohttp.ClientError, TimeoutError) as error:
        failure = ApiFailure(None, type(error).__name__)
    else:
        return
    raise failure from None


class _TooLargeError(Exception):
    """An answer has more bytes than is wanted at once."""


async def _read(response: aiohttp.ClientResponse, most: int | None) -> bytes:
    """Read an answer, of `most` bytes at most. Raises _TooLargeError, and what aiohttp does."""
    if most is None:
        return await response.read()
    parts, size = [], 0
    async for chunk in response.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size > most:
            response.close()  # unread: the rest is not wanted
            raise _TooLargeError
    return b"".join(parts)


def _failure(response: aiohttp.ClientResponse, body: bytes) -> ApiFailure:
    """Read an answer that is no good."""
    reason, other_uid = "Unknown", False
    with suppress(ValueError, AttributeError):
        status = loads(body)
        reason, other_uid = word(status), is_of_uid(status)
    wait = parse_retry_after(response.headers.get("Retry-After", "")) or 0.0  # it never sends a date
    return ApiFailure(response.status, reason, wait, other_uid=other_uid)
