"""What is between the replicas and their two servers: delays, and what gets lost.

A request is sent in the replica's own step; its arrival, what the server makes of it, and the answer's way back are
steps of the world: they take place whether or not the replica still runs.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from random import Random
from types import SimpleNamespace, TracebackType
from typing import Any, Final, Protocol, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import httpx

from tests.simulation.apiserver import Answer, Request, Server, Watch
from tests.simulation.endpoint import Endpoint, Reply
from tests.simulation.loop import SimulatedLoop
from tuinly_operator.domain.credential import PLURAL

WORLD: Final = Context()  # of what belongs to no replica
API: Final = "https://api.example.com"
_NEVER: Final = float("inf")

T = TypeVar("T")


@dataclass
class Ways:
    """The ways between one machine and one server: how many faults there are on each of them now."""

    refused: int = 0
    lost_out: int = 0
    lost_back: int = 0


@dataclass
class Machine:
    """Where one replica runs after the other."""

    name: str
    chance: Random  # of its delays
    api: Ways = field(default_factory=Ways)
    endpoint: Ways = field(default_factory=Ways)
    deaf: dict[str, int] = field(default_factory=dict)  # watches that fall silent, by plural
    late: dict[str, float] = field(default_factory=dict)  # seconds by which watches are late, by plural

    def delay(self) -> float:
        """Seconds that something takes on its way: mostly milliseconds."""
        drawn = self.chance.random()
        return 0.001 + 0.02 * drawn * drawn if drawn < 0.99 else self.chance.random() * 2.0


class Sender(Protocol):
    """A replica, as far as the network knows it."""

    machine: Machine


class Observer(Protocol):
    """Who looks on."""

    def api_sent(self, sender: Any, request: Request) -> None:  # noqa: ANN401 -- a replica
        """A replica sends a request to the API server, in this very step."""

    def api_made(self, sender: Any, request: Request, answer: Answer) -> None:  # noqa: ANN401 -- the same
        """It has arrived, and is answered so."""

    def api_heard(self, sender: Any, request: Request, answer: Answer) -> None:  # noqa: ANN401 -- the same
        """The answer is back."""

    def token_sent(self, sender: Any, request: httpx.Request) -> None:  # noqa: ANN401 -- the same
        """A replica sends a token request or a verification, in this very step."""

    def token_made(self, sender: Any, _request: httpx.Request, reply: Reply) -> None:  # noqa: ANN401 -- the same
        """It has arrived, and is answered so."""

    def token_heard(self, sender: Any, _request: httpx.Request, reply: Reply) -> None:  # noqa: ANN401 -- the same
        """The answer is back."""

    def token_over(self, sender: Any, request: httpx.Request) -> None:  # noqa: ANN401 -- the same
        """The replica waits for it no more."""


class Network:
    """Carries requests and answers."""

    def __init__(self, loop: SimulatedLoop, server: Server, endpoint: Endpoint, now: Callable[[], float]) -> None:
        """`now` is the true time in seconds since the epoch. The observer is set before anything is sent."""
        self.loop = loop
        self.server = server
        self.endpoint = endpoint
        self.now = now
        self.observer: Observer
        self.api_down = 0
        self.api_moods: list[int] = []  # statuses by which the API server answers writes; the last counts
        self.refused: list[str] = []  # namespaces in which the operator has no rights now; an empty name for all
        self.slow: dict[str, float] = {}  # seconds that writes take, by namespace, as admission webhooks have it
        self.streams: dict[Stream, None] = {}

    def later(self, seconds: float, call: Callable[..., object], *args: object) -> None:
        """Have something of the world called."""
        self.loop.call_later(seconds, call, *args, context=WORLD)

    def changed(self) -> None:
        """Something has changed on the API server: its watches tell of it, each in its own time."""
        for stream in self.streams:
            stream.look_soon()

    def break_streams(self) -> None:
        """End all watches, as a server does that ends itself."""
        for stream in list(self.streams):
            stream.end(aiohttp.ClientPayloadError("broken off"))

    async def carry(
        self, machine: Machine, ways: Ways, handle: Callable[[], tuple[T, float] | None], limit: float, *, down: bool
    ) -> T:
        """Send a request and wait for its answer; `handle` gives it, and how long that takes, None for never.

        Raises ClientConnectionError, or TimeoutError after `limit` seconds.
        """
        answer: asyncio.Future[T] = self.loop.create_future()

        def arrive() -> None:
            if ways.lost_out == 0 and (made := handle()) is not None:
                self.later(made[1] + machine.delay(), come_back, made[0])

        def come_back(made: T) -> None:
            if ways.lost_back == 0 and not answer.done():
                answer.set_result(made)

        if ways.refused or down:
            self.later(machine.delay(), _fail, answer, aiohttp.ClientConnectionError("refused"))
        else:
            self.later(machine.delay(), arrive)
        timer = None if limit == _NEVER else self.loop.call_later(limit, _fail, answer, TimeoutError())
        try:
            return await answer
        finally:
            if timer is not None:
                timer.cancel()


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


class Rest:
    """In the place of the Kubernetes client's rest client."""

    def __init__(self, network: Network, sender: Sender, _configuration: object = None) -> None:
        """Requests are those of `sender`."""
        self._network = network
        self._sender = sender

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Any = None,  # noqa: ANN401 -- the library's
        _request_timeout: aiohttp.ClientTimeout,
    ) -> Any:  # noqa: ANN401 -- the library's
        """Send a request. Raises ClientError and TimeoutError."""
        network, machine = self._network, self._sender.machine
        parts = urlsplit(url)
        data = b"" if body is None else (body if isinstance(body, str) else json_of(body)).encode()
        request = Request(method, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), headers, data)
        network.observer.api_sent(self._sender, request)
        watches = request.query.get("watch") == "true"
        limit = _request_timeout.total or _request_timeout.sock_connect or _NEVER
        handle = partial(self._watch if watches else self._handle, request)
        answer = await network.carry(machine, machine.api, handle, limit, down=network.api_down > 0)
        if isinstance(answer, Stream):
            answer.silence = _request_timeout.sock_read or _NEVER
            return SimpleNamespace(response=Response(200, {}, b"", answer))
        network.observer.api_heard(self._sender, request, answer)
        return SimpleNamespace(response=Response(answer.status, answer.headers, answer.body))

    async def close(self) -> None:
        """Nothing is open."""

    def _handle(self, request: Request) -> tuple[Answer, float] | None:
        network = self._network
        if network.api_down:
            return None
        namespace = _namespace(request)
        changes = request.method != "GET"
        if self._is_refused(request):
            answer = failure(403)
        elif changes and network.api_moods and "/leases" not in request.path:
            answer = failure(network.api_moods[-1])
        else:
            answer = network.server.handle(request, network.now())
        network.observer.api_made(self._sender, request, answer)
        if changes and answer.status < 300 and "/leases" not in request.path:  # which nobody watches
            network.changed()
        return answer, network.slow.get(namespace, 0.0) if changes else 0.0

    def _watch(self, request: Request) -> tuple["Answer | Stream", float] | None:
        if self._network.api_down:
            return None
        if self._is_refused(request):
            return failure(403), 0.0
        watch = self._network.server.watch(request, self._network.now())
        if isinstance(watch, Answer):
            return watch, 0.0
        return Stream(self._network, self._sender.machine, request, watch), 0.0

    def _is_refused(self, request: Request) -> bool:
        """Whether the operator has no right to it now. Leases are in a namespace of their own; anybody may discover."""
        refused = {"", _namespace(request)} & {*self._network.refused}
        return bool(refused) and any(f"/{plural}" in request.path for plural in ("secrets", PLURAL, "events"))


def _namespace(request: Request) -> str:
    """The namespace that a request is about, empty where it is all."""
    return request.path.split("/namespaces/")[-1].split("/")[0] if "/namespaces/" in request.path else ""


def failure(status: int) -> Answer:
    """An answer that the API server's own machinery gives, whatever was asked."""
    words = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 403: "Forbidden"}
    body = {"kind": "Status", "status": "Failure", "reason": words[status], "code": status}
    return Answer(status, {"Retry-After": "1"} if status == 429 else {}, json_of(body).encode())


def json_of(value: object) -> str:
    """As it goes over the wire."""
    return json.dumps(value, separators=(",", ":"))


class Stream:
    """A watch on its way from the API server to a replica."""

    def __init__(self, network: Network, machine: Machine, request: Request, watch: Watch) -> None:
        """It has just been granted."""
        self._network = network
        self._machine = machine
        self._plural = request.path.rsplit("/", 1)[-1]
        self._watch: Watch | None = watch  # None once its connection is dead, of which nobody knows yet
        self._chunks: list[bytes] = []
        self._error: Exception | None = None
        self._over = False
        self._news: asyncio.Future[None] | None = None
        self._looks = False  # whether a look at the server is under way
        self.silence = _NEVER
        network.streams[self] = None
        self._wake_up()
        self.look_soon()

    def look_soon(self) -> None:
        """Bring what there is, in a while: each watch takes its own time."""
        if not self._looks and not self._over:
            self._looks = True
            late = self._machine.late.get(self._plural, 0.0)
            self._network.later(self._machine.delay() + late, self._look)

    def end(self, error: Exception | None = None) -> None:
        """No more comes."""
        self._over, self._error = True, error
        self._network.streams.pop(self, None)
        self._tell()

    def _wake_up(self) -> None:
        """Look when the server has something to tell without a change: a bookmark, or the end."""
        at = _NEVER if self._watch is None else self._watch.wakes_at()
        if not self._over and at != _NEVER:
            self._network.later(max(0.0, at - self._network.now()) + 0.001, self._wake)

    def _wake(self) -> None:
        self.look_soon()

    def _look(self) -> None:
        self._looks = False
        if self._over or self._watch is None:
            return
        if self._machine.api.lost_back or self._machine.deaf.get(self._plural):
            self._watch = None
            return
        due = self._watch.wakes_at() <= self._network.now()
        self._chunks += self._watch.poll(self._network.now())
        self._tell()
        if self._watch.ended:
            self.end()
        elif due:
            self._wake_up()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """What comes, as it comes. Raises ClientError where it breaks, TimeoutError where it falls silent."""
        loop = self._network.loop
        while True:
            if self._chunks:
                chunks, self._chunks = self._chunks, []
                for chunk in chunks:
                    yield chunk
                continue
            if self._over:
                if self._error is not None:
                    raise self._error
                return
            self._news = loop.create_future()
            timer = None
            if self.silence != _NEVER:
                timer = loop.call_later(self.silence, _fail, self._news, aiohttp.SocketTimeoutError())
            try:
                await self._news
            finally:
                if timer is not None:
                    timer.cancel()


class Response:
    """In the place of aiohttp's response."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, stream: Stream | None = None) -> None:
        """With a `stream`, that is the content."""
        self.status = status
        self.headers = headers
        self._body = body
        self._stream = stream

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def content(self) -> Self:
        """What aiohttp's content is asked for, this one knows as well."""
        return self

    async def read(self) -> bytes:
        """The body."""
        return self._body

    async def iter_any(self) -> AsyncIterator[bytes]:
        """The body, or what comes of the stream."""
        if self._stream is None:
            yield self._body
            return
        async for chunk in self._stream.chunks():
            yield chunk

    def close(self) -> None:
        """Want no more."""
        if self._stream is not None:
            self._stream.end()


class Transport(httpx.AsyncBaseTransport):
    """In the place of httpx's transport."""

    def __init__(self, network: Network, sender: Sender) -> None:
        """Requests are those of `sender`."""
        self._network = network
        self._sender = sender

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises ClientError."""
        network, machine = self._network, self._sender.machine
        await request.aread()
        network.observer.token_sent(self._sender, request)
        try:
            handle = partial(self._handle, request)
            reply = await network.carry(machine, machine.endpoint, handle, _NEVER, down=False)
            network.observer.token_heard(self._sender, request, reply)
        finally:
            network.observer.token_over(self._sender, request)
        return httpx.Response(reply.status, headers=dict(reply.headers), stream=httpx.ByteStream(reply.body))

    def _handle(self, request: httpx.Request) -> tuple[Reply, float] | None:
        endpoint = self._network.endpoint
        if request.url.path.endswith("/graphql"):
            reply = endpoint.verify(request.headers.get("Authorization", ""))
        else:
            reply = endpoint.token_request(request.content, str(request.url))
        self._network.observer.token_made(self._sender, request, reply)
        return None if reply.hangs else (reply, self.patience())

    def patience(self) -> float:
        """Seconds that the endpoint takes."""
        drawn = self._sender.machine.chance.random()
        return 0.02 + drawn * 0.1 if drawn < 0.97 else 3.0 * self._sender.machine.chance.random()
