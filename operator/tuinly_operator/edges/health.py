"""What the kubelet and Prometheus ask over HTTP: /healthz, /readyz and /metrics."""

import asyncio
import logging
import socket
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from tuinly_operator.base.settings import SettingsError
from tuinly_operator.edges.listener import Listener

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"  # the Prometheus text format

SEND_SECONDS: Final = 10.0  # for the metrics; Prometheus waits no longer by default
_SHARED_SECONDS: Final = 5.0  # for which a rendering that a client still reads is also given to others
_REST: Final = 5  # times as long as a rendering took nothing is rendered, so scrapes cost a sixth of a core at most

_log = logging.getLogger(__name__)

# What is not as it should be, a line each, such as "secrets listed: no". Empty: all is well.
Check = Callable[[], Sequence[str]]
Pieces = Callable[[], Iterable[bytes]]


class HealthServer:
    """Serves GET and HEAD of three paths. The checks and `metrics` answer at once, from memory.

    A check that raises counts as not passed and is logged. None can hang, unlike the probes of kopf's own server.
    """

    def __init__(self, listen: tuple[str, int], *, alive: Check, ready: Check, notes: Check, metrics: Pieces) -> None:
        """`notes` are lines that /readyz adds; they do not make it fail. `metrics` come in pieces."""
        self._listen = listen
        self._scrapes = _Scrapes(metrics)
        app = web.Application()
        app.router.add_get("/healthz", _answer("alive", alive, list))
        app.router.add_get("/readyz", _answer("ready", ready, notes))
        app.router.add_get("/metrics", self._serve_metrics)
        app.on_response_prepare.append(_prepare)
        # A body that nobody needs is not awaited: to read and drop it costs as much as its sender likes.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, lingering_time=0.0)
        self._listener: Listener | None = None

    async def start(self) -> tuple[str, int]:
        """Listen, and return the address and port. Raises SettingsError where that cannot be listened on."""
        listener = _listen_on(*self._listen)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # noqa: S101 -- it is set up
        self._listener = Listener(listener, server)
        host, port = listener.getsockname()[:2]
        return host, port

    async def stop(self) -> None:
        """Stop listening; answers under way have a second to finish."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    async def _serve_metrics(self, request: web.Request) -> web.StreamResponse:
        try:
            rendering = await self._scrapes.rendering()
        except Exception:  # noqa: BLE001 -- whatever it is, it must not end the server
            _log.exception("the metrics failed")
            return web.Response(status=500, text="the metrics failed\n")
        response = web.StreamResponse(headers={"Content-Type": METRICS_CONTENT_TYPE})
        response.content_length = sum(map(len, rendering.pieces))
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await response.prepare(request)
                for piece in rendering.pieces if request.method == "GET" else ():
                    await response.write(piece)  # waits for a client that reads slowly
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Rendering:
    pieces: Sequence[bytes]


class _Scrapes:
    """Renders the metrics, so that neither CPU nor memory grow with the number of those who ask.

    All who ask at the same time share one rendering, and the next one waits for five times as long as this one took.
    While a client still reads the last one, others get it as well for some seconds: few are kept in memory.
    """

    def __init__(self, metrics: Pieces) -> None:
        self._metrics = metrics
        self._next: asyncio.Task[_Rendering] | None = None
        self._rested = 0.0  # when the next may begin, by the loop's time
        self._last: Callable[[], _Rendering | None] = lambda: None
        self._fresh_until = 0.0

    async def rendering(self) -> _Rendering:
        """Return the metrics as they are now, unless a client still reads the last rendering."""
        loop = asyncio.get_running_loop()
        last = self._last()
        if last is not None and loop.time() < self._fresh_until:
            return last
        if self._next is None:
            self._next = loop.create_task(self._render())
        return await asyncio.shield(self._next)

    async def _render(self) -> _Rendering:
        time = asyncio.get_running_loop().time
        begun, pieces = time(), []
        try:
            await asyncio.sleep(self._rested - begun)
            begun = time()
            for piece in self._metrics():
                pieces.append(piece)
                await asyncio.sleep(0)  # a long answer must not delay the refreshes
        finally:
            self._next = None
            self._rested = time() + _REST * (time() - begun)
        rendering = _Rendering(pieces)
        self._last, self._fresh_until = weakref.ref(rendering), time() + _SHARED_SECONDS
        return rendering


def _listen_on(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # [::] serves IPv4 too, as programs in Go do: one setting for every kind of cluster.
        return socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # in the brackets Python repeats the address
        raise SettingsError(f"--listen (TUINLY_LISTEN): cannot listen on {host} port {port}: {reason}") from None


def _answer(name: str, check: Check, notes: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        try:
            problems, also = check(), notes()
        except Exception:  # noqa: BLE001 -- whatever it is, the check has not passed
            _log.exception("the check %s failed", name)
            problems, also = [f"the check {name} failed"], []
        return web.Response(status=503 if problems else 200, text="\n".join([*(problems or ["ok"]), *also]) + "\n")

    return answer


async def _prepare(_request: web.Request, response: web.StreamResponse) -> None:
    """Hide the versions of Python and aiohttp, and close the connection: new ones are bounded, requests are not."""
    response.headers.popall("Server", None)
    response.headers["Connection"] = "close"
    response.force_close()
