"""Attacks by a token or GraphQL endpoint that the admin allows, and by clients that it refuses."""

import asyncio
import contextlib
import gzip
import itertools
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs

from tests.hostile.stage import Stage
from tests.hostile.verdict import Attack
from tests.support.acts import force
from tests.support.sandbox import Fault
from tests.support.sandbox.answers import catalogue
from tests.support.tenant import Tenant

_TURN: Final = 0.05  # seconds between two pieces of what drips
_IDLE: Final = 0.3  # seconds after an answer; by then the operator has read it, and the connection is idle
_numbers = itertools.count(1)


class Peer:
    """A connection of the operator's to an evil endpoint; `sent` counts bytes over all connections."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]
    ) -> None:
        self._reader, self._writer, self._count = reader, writer, count

    async def request(self) -> dict[str, str]:
        """Read a request; return its form, empty for a verification."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        form = parse_qs((await self._reader.readexactly(length)).decode())
        return {name: values[0] for name, values in form.items() if not head.startswith(b"POST /graphql")}

    async def send(self, data: bytes) -> None:
        """Send something, and wait until the operator takes more."""
        self._writer.write(data)
        self._count(len(data))
        await self._writer.drain()

    async def repeat(self, data: bytes, pause: float = 0.0) -> None:
        """Send the same without end."""
        while True:
            await self.send(data)
            await asyncio.sleep(pause)


Behaviour = Callable[[Peer], Awaitable[None]]


class Endpoint:
    """A server in a thread of its own that behaves as an attack wants, until the operator hangs up."""

    def __init__(self, stage: Stage, behaviour: Behaviour) -> None:
        """Nothing listens yet."""
        self._behaviour, self._measured = behaviour, stage.measured
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        """Listen on a free port of loopback."""
        self._thread.start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(30)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/token"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Hang up."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled by `_stop`: asyncio would print a connection's task that ends so.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._behaviour(Peer(reader, writer, self._count))
        writer.close()

    def _count(self, sent: int) -> None:
        self._measured.sent += sent
        self._measured.requests += 1

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answer(body: bytes) -> bytes:
    """A good head, and a body."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def token(owner: str = "evil", expires_in: object = 12) -> bytes:
    """A good answer with a new token that names its owner."""
    text = {"access_token": f"token-{next(_numbers)}-{owner}", "token_type": "Bearer", "expires_in": expires_in}
    return answer(json.dumps(text).encode())


UNASKED: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
GRAPHQL: Final = answer(b'{"data":{"__typename":"Query"}}')


# Rows of what a second attack found -----------------------------------------------------------------------------------


async def flood_when_idle(peer: Peer) -> None:
    """Give one good answer, then send others without end on the idle connection."""
    await peer.send(token() if await peer.request() else GRAPHQL)
    await asyncio.sleep(_IDLE)
    await peer.repeat(UNASKED * 400)


def idle_flood(stage: Stage, endpoints: int = 1) -> None:
    """One connection per endpoint, and a new one for each refresh."""
    urls = [stage.use(Endpoint(stage, flood_when_idle)).url for _ in range(endpoints)]
    with stage.served(*(part for url in urls for part in ("--allowed-token-url", url))):
        for number, url in enumerate(urls):
            stage.tenants(1, {"tokenURL": url}, f"evil-{number}")


def idle_flood_20(stage: Stage) -> None:
    """The same from 20 endpoints."""
    idle_flood(stage, 20)


def idle_flood_of_verifications(stage: Stage) -> None:
    """The same after verifications, from 5 endpoints."""
    urls = [stage.use(Endpoint(stage, flood_when_idle)).url.replace("token", "graphql") for _ in range(5)]
    with stage.served(*(part for url in urls for part in ("--allowed-graphql-url", url))):
        for number, url in enumerate(urls):
            stage.tenants(1, {"verification": {"mode": "Enabled", "graphqlURL": url}}, f"evil-{number}", lifetime=12.0)


async def answer_twice(peer: Peer) -> None:
    """Send each answer again 0.3 s later."""
    while True:
        good = token((await peer.request())["client_id"])
        await peer.send(good)
        await asyncio.sleep(_IDLE)
        await peer.send(good)


def doubled_answer(stage: Stage) -> None:
    """12 credentials, one after the other: each must hold a token of its own client."""
    url = stage.use(Endpoint(stage, answer_twice)).url
    tenants: list[Tenant] = []
    taken: set[str] = set()
    with stage.served("--allowed-token-url", url):
        for number in stage.beats(2.0):
            if number < 12:  # noqa: PLR2004 -- as the sentence says
                tenants += stage.tenants(1, {"tokenURL": url}, f"evil-{number}")
            targets = {each.client.id: each.find_target() for each in tenants}
            taken |= {client for client, target in targets.items() if target and not target.token.endswith(client)}
    stage.finding(f"{len(taken)} of {len(tenants)} credentials held another client's token", unless=not taken)


VERIFIED: Final = {"verification": {"mode": "Enabled"}}


def verification_429(stage: Stage) -> None:
    """Two credentials with a good token force another, whose verification is answered 429 with Retry-After: 120."""
    with stage.served():
        tenants = stage.tenants(2, VERIFIED, lifetime=3600.0)
        for tenant in tenants:
            tenant.await_ready()
            stage.admin.fault(Fault(kind="throttle", endpoint="graphql", retry_after=120, client=tenant.client.id))
            force(tenant, "asked")
        stage.rest()
        asked = sum(stage.admin.counts(tenant.client.id)["graphql"] - 1 for tenant in tenants)
    stage.finding(f"2 credentials sent {asked} verifications within Retry-After", unless=asked <= len(tenants))


def verification_404(stage: Stage) -> None:
    """30 credentials whose verifications are answered 404, at the origin of the token endpoint."""
    least = float("inf")
    with stage.served() as operator:
        origin = stage.world.sandbox.https_token_url.removesuffix("/token")
        before = operator.metric("tuinly_endpoint_limit", origin=origin) or 0.0
        stage.tenants(30, VERIFIED, answered=[Fault(kind="fail", endpoint="graphql", status=404)], lifetime=3600.0)
        for _ in stage.beats(2.0):
            least = min(least, operator.metric("tuinly_endpoint_limit", origin=origin) or 0.0)
    stage.finding(f"the limit of the origin fell from {before:g} to {least:g}", unless=least >= before)


# What held before -----------------------------------------------------------------------------------------------------


def answers(stage: Stage) -> None:
    """A credential for each answer in the sandbox's catalogue, forced to ask again and again."""
    kinds = [Fault(kind="answer", answer=name, seconds=0.2) for name in catalogue("token")]
    kinds += [Fault(kind="answer", answer=name, endpoint="graphql", seconds=0.2) for name in catalogue("graphql")]
    with stage.served():
        tenants = stage.tenants(len(kinds), VERIFIED, answered=kinds)
        for number in stage.beats(20.0):
            force(tenants[number % len(tenants)], str(number))


def endless(start: bytes, more: bytes, pause: float = 0.0) -> Behaviour:
    """Begin an answer, and never end it."""

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(start)
        await peer.repeat(more, pause)

    return behave


async def bomb(peer: Peer) -> None:
    """Send a small answer that unpacks to 100 MB."""
    await peer.request()
    body = gzip.compress(b" " * 100_000_000, 9)
    await peer.send(answer(body).replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1))


OK: Final = b"HTTP/1.1 200 OK\r\n"
ENDLESS: Final = (
    endless(OK + b"X: ", b"x" * 65_536),
    endless(OK, b"X-Header: x\r\n" * 4096),
    endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2048),
    endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1024),
    endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65_536 + b"\r\n"),
    endless(OK + b"Transfer-Encoding: chunked\r\n\r\n1", b"0" * 65_536),
    endless(OK + b"Content-Length: 60000\r\n\r\n", b" ", _TURN),
    endless(OK + b"X: ", b"x", _TURN),
    bomb,
)
"""Lines, headers, interim answers, bodies and chunk sizes without end; a body and a header that drip; a bomb."""


def endless_answers(stage: Stage) -> None:
    """Nine endpoints, each with answers of one kind that do not end, for 5 credentials each."""
    urls = [stage.use(Endpoint(stage, behaviour)).url for behaviour in ENDLESS]
    with stage.served(*(part for url in urls for part in ("--allowed-token-url", url))):
        for number, url in enumerate(urls):
            stage.tenants(5, {"tokenURL": url}, f"evil-{number}")


LIFETIMES: Final[Sequence[object]] = (1, 2, 0.001, 1e308, 2**63, -1, 0, 10**400, "1", "1e9", True, None, [], 2_592_000)


async def odd_lifetimes(peer: Peer) -> None:
    """Answer each request with another odd `expires_in`."""
    for lifetime in itertools.cycle(LIFETIMES):
        await peer.request()
        await peer.send(token(expires_in=lifetime))


def lifetimes(stage: Stage) -> None:
    """100 credentials with tokens of a second, of years, and of odd `expires_in`."""
    url = stage.use(Endpoint(stage, odd_lifetimes)).url
    with stage.served("--allowed-token-url", url):
        stage.tenants(100, {"tokenURL": url})


ATTACKS: Final = (
    Attack("idle-flood", "an endpoint sends answers without end on a connection that is idle", idle_flood, 10.0),
    Attack("idle-flood-20", "20 endpoints do so", idle_flood_20, 10.0),
    Attack("idle-flood-graphql", "5 GraphQL endpoints do so", idle_flood_of_verifications, 10.0),
    Attack("doubled-answer", "an endpoint sends each answer a second time, 0.3 s later", doubled_answer),
    Attack("verification-429", "a GraphQL endpoint asks for patience", verification_429, seconds=20.0),
    Attack("verification-404", "a GraphQL endpoint answers 404 to 30 credentials", verification_404),
    Attack("answers", "140 credentials get another odd answer each, and ask all the time", answers),
    Attack("endless-answers", "9 endpoints send headers, interim answers and bodies without end", endless_answers),
    Attack("lifetimes", "an endpoint gives tokens of a second and odd expires_in to 100 credentials", lifetimes),
)
