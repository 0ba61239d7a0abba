"""A proxy before a server that can break what passes: reset, swallow, delay, lose an answer, or give another one.

It ends TLS with a certificate of its own and passes requests on one by one, watches as they come; logins go through
unread. Everything passes until it is told otherwise. It is made for the API server; any server with TLS will do.
"""

import asyncio
import json
import re
import ssl
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
from aiohttp import web

from tests.support.cluster.any_cluster import write_private
from tests.support.pki import Authority

T = TypeVar("T")

HOST: Final = "127.0.0.1"
_BODY_LIMIT: Final = 8 * 1024 * 1024  # more than the API server takes
START_SECONDS: Final = 30.0
_LAST_TURNS: Final = 0.25  # seconds in which the loop closes the sockets of connections that were broken
# They speak of one connection, not of the message (RFC 9110, section 7.6.1); aiohttp sets its own.
_OF_THE_HOP: Final = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})


class Mode(Enum):
    """What happens to everything."""

    PASS = auto()
    SWALLOW = auto()  # connections stay open, requests are taken, nothing is ever answered
    CUT = auto()  # connections break, and new ones at their first request


@dataclass(kw_only=True)
class Fault:
    """What to do to some requests while everything else passes.

    Attributes:
        path: A regular expression that is searched for in path and query; `method` narrows it.
        times: How many requests are met; None for all.
        status: Answer this, as the API server words it, instead of asking it.
        headers: Headers of that answer.
        in_stream: Send that answer as the first event of a watch, which is how an API server ends one.
        lost: Pass the request on, and reset the connection in place of the answer.
        swallowed: Do not pass the request on, and never answer.
        unanswered: Pass the request on, but not the answer: the connection stays open and silent.
    """

    path: str
    method: str | None = None
    times: int | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    in_stream: bool = False
    lost: bool = False
    swallowed: bool = False
    unanswered: bool = False
    met: int = 0

    def meets(self, request: web.Request) -> bool:
        """Tell whether this is for a request; if so, count it."""
        over = self.times is not None and self.met >= self.times
        if over or self.method not in {None, request.method} or not re.search(self.path, request.path_qs):
            return False
        self.met += 1
        return True

    def answer(self) -> web.Response:
        """The answer in the API server's stead (Kubernetes API conventions, "response status kind")."""
        assert self.status is not None  # noqa: S101 -- for the type checker: it is asked for where there is one
        document: dict[str, object] = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": {410: "Expired", 429: "TooManyRequests"}.get(self.status, "InternalError"),
            "message": "a fault of the test",
            "code": self.status,
        }
        if not self.in_stream:
            return web.json_response(document, status=self.status, headers=self.headers)
        return web.Response(text=json.dumps({"type": "ERROR", "object": document}) + "\n")


class ApiProxy:
    """A running proxy, as a context manager; its methods may be called from any thread.

    Attributes:
        requests: Method, path and query of each request so far.
    """

    def __init__(self, upstream: str, ca_file: Path, directory: Path) -> None:
        """Prepare a proxy for the API server `upstream` (a URL), whose certificates `ca_file` vouches for.

        `directory` is for this object's files.
        """
        self._upstream = upstream
        self._trust = ssl.create_default_context(cafile=ca_file)
        self._directory = directory
        self._authority = Authority.create(directory)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api-proxy")
        self._parts = AsyncExitStack()
        self._faults: list[Fault] = []
        self._mode = Mode.PASS
        self._silent: list[tuple[int, str]] = []  # of that many requests, those with such a path never go on
        self._delay = 0.0
        self._port = 0
        self.requests: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        """Start it and wait until it listens."""
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it; connections break."""
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        return f"https://{HOST}:{self._port}"

    @property
    def ca_file(self) -> Path:
        """The PEM file of the authority that vouches for it."""
        return self._authority.ca_file

    def kubeconfig(self, login: Path) -> Path:
        """Return a kubeconfig of the same login as another (JSON), but through this proxy."""
        config = json.loads(login.read_text())
        for entry in config["clusters"]:
            entry["cluster"] = {"server": self.url, "certificate-authority": str(self.ca_file)}
        path = self._directory / "kubeconfig"
        write_private(path, json.dumps(config))
        return path

    def fault(self, fault: Fault) -> Fault:
        """Put a fault in force and return it; of those that meet a request the oldest is done to it."""
        self._faults.append(fault)
        return fault

    def end(self, fault: Fault) -> None:
        """End one fault."""
        self._faults = [other for other in self._faults if other is not fault]

    def clear_faults(self) -> None:
        """End all faults."""
        self._faults = []

    def cut(self) -> None:
        """Break all connections, and new ones at their first request."""
        self._do(self._set_mode(Mode.CUT))

    def swallow(self) -> None:
        """Let nothing through any more, in either direction, without closing a connection."""
        self._do(self._set_mode(Mode.SWALLOW))

    def silence(self, path: str) -> None:
        """Keep requests under way whose path and query have something (a regular expression) open, and silent."""
        self._silent.append((len(self.requests), path))

    def delay(self, seconds: float) -> None:
        """Pass each new request on only after so many seconds."""
        self._delay = seconds

    def pass_on(self) -> None:
        """Let new requests through again, at once. What was swallowed stays silent for ever."""
        self._delay = 0.0
        self._do(self._set_mode(Mode.PASS))

    def count(self, path: str, method: str = "GET") -> int:
        """Return how many requests of a method have had something in path and query (a regular expression)."""
        return sum(asked == method and bool(re.search(path, where)) for asked, where in list(self.requests))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        done: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(START_SECONDS)

    async def _start(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._trust, limit=0)
        session = aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout())
        self._session = await self._parts.enter_async_context(session)
        application = web.Application(client_max_size=_BODY_LIMIT)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        self._parts.push_async_callback(self._runner.cleanup)
        await web.TCPSite(self._runner, HOST, 0, ssl_context=self._authority.server_context(HOST)).start()
        self._port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._set_mode(Mode.CUT)
        await self._parts.aclose()
        await asyncio.sleep(_LAST_TURNS)

    async def _set_mode(self, mode: Mode) -> None:
        if mode is not Mode.PASS:
            self.silence("")
        self._mode = mode
        if mode is Mode.CUT:
            for connection in self._runner.server.connections if self._runner.server else ():
                if connection.transport is not None:
                    connection.transport.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        if self._mode is Mode.CUT:
            return _reset(request)
        if self._mode is Mode.SWALLOW:
            await _silence()
        fault = next((fault for fault in list(self._faults) if fault.meets(request)), None)
        if fault is not None and fault.swallowed:
            await _silence()
        if fault is not None and fault.status is not None:
            return fault.answer()
        return await self._pass(request, len(self.requests), fault)

    async def _pass(self, request: web.Request, number: int, fault: Fault | None) -> web.StreamResponse:
        """Ask the API server, and send its answer on as it comes, if it is to come."""
        await asyncio.sleep(self._delay)
        await self._unless_silent(request, number)
        url = self._upstream + request.raw_path
        body = await request.read() or None
        try:
            async with self._session.request(
                request.method, url, headers=_passed_on(request.headers), data=body, allow_redirects=False
            ) as answer:
                if fault is not None and fault.unanswered:
                    await _silence()
                if fault is not None and fault.lost:
                    return _reset(request)
                response = web.StreamResponse(status=answer.status, headers=_passed_on(answer.headers))
                await self._unless_silent(request, number)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await self._unless_silent(request, number)
                    await response.write(chunk)
        except aiohttp.ClientError:
            return _reset(request)  # the API server is gone
        await self._unless_silent(request, number)
        await response.write_eof()
        return response

    async def _unless_silent(self, request: web.Request, number: int) -> None:
        """Go on, unless requests like this one were silenced since it came."""
        if any(number <= last and re.search(path, request.path_qs) for last, path in self._silent):
            await _silence()


async def _silence() -> None:
    """Wait until the client gives up or the proxy ends."""
    await asyncio.Event().wait()


def _passed_on(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in _OF_THE_HOP]


def _reset(request: web.Request) -> web.StreamResponse:
    """Break the connection. What is returned is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
