"""What the kubelet and Prometheus ask over HTTP: /healthz, /readyz and /metrics."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from aiohttp import web

from tuinly_operator.base.settings import SettingsError

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"  # the Prometheus text format

MOST_CONNECTIONS: Final = 100
"""Of those who ask. Everybody in the cluster may come here, and each connection takes a descriptor and memory."""
_SETTLED: Final = 5.0  # seconds after which a connection has begun

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
        self._metrics = metrics
        app = web.Application()
        app.router.add_get("/healthz", _answer("alive", alive, list))
        app.router.add_get("/readyz", _answer("ready", ready, notes))
        app.router.add_get("/metrics", self._serve_metrics)
        app.on_response_prepare.append(_hide_server)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._listener: asyncio.Server | None = None
        self._served: list[tuple[float, web.RequestHandler]] = []  # when, and what serves it

    async def start(self) -> tuple[str, int]:
        """Listen, and return the address and port. Raises SettingsError where that cannot be listened on."""
        listener = _listen_on(*self._listen)
        await self._runner.setup()
        self._listener = await asyncio.get_running_loop().create_server(self._serve, sock=listener)
        host, port = listener.getsockname()[:2]
        return host, port

    async def stop(self) -> None:
        """Stop listening; answers under way have a second to finish."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    def _serve(self) -> asyncio.Protocol:
        """Make what serves a connection; it takes the place of the oldest one where there are too many."""
        server = self._runner.server
        assert server is not None  # noqa: S101 -- it is set up before anybody can come
        now, connection = asyncio.get_running_loop().time(), server()
        # One without a transport is closed, unless it was made just now.
        self._served = [each for each in self._served if each[1].transport is not None or now - each[0] < _SETTLED]
        self._served.append((now, connection))
        for _, oldest in self._served[:-MOST_CONNECTIONS]:
            oldest.force_close()
            if oldest.transport is not None:
                oldest.transport.abort()  # it may be of one who asks, and does not read what is sent
        return connection

    async def _serve_metrics(self, _request: web.Request) -> web.Response:
        try:
            pieces = []
            for piece in self._metrics():
                pieces.append(piece)
                await asyncio.sleep(0)  # a long answer must not hold up the refreshes
            return web.Response(body=b"".join(pieces), headers={"Content-Type": METRICS_CONTENT_TYPE})
        except Exception:  # noqa: BLE001 -- whatever it is, it must not end the server
            _log.exception("the metrics failed")
            return web.Response(status=500, text="the metrics failed\n")


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


async def _hide_server(_request: web.Request, response: web.StreamResponse) -> None:
    """Tell nobody the versions of Python and aiohttp."""
    response.headers.popall("Server", None)
