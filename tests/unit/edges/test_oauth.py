"""Token requests over real sockets: what is sent, and how little slow, broken, hostile and unproven servers can do."""

import asyncio
import gzip
import json
import logging
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qs

import pytest
import trustme

from tuinly_operator.base.clock import SystemClock
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.token_response import MAX_BODY, TokenResponse
from tuinly_operator.edges.oauth import TokenEndpoint, origin_of

CLIENT_SECRET = "canary-secret/+ &=%"  # sent, and shown nowhere
REFRESH_TOKEN = "canary-refresh"
CANARY = "canary"  # in all that must not be shown, in the answers too
GOOD = {"access_token": "canary-access", "token_type": "Bearer", "expires_in": 3600}


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


GRANTED = http("200 OK", json.dumps(GOOD).encode())


@dataclass
class Request:
    """What a server heard."""

    line: str
    headers: Message
    body: str = field(repr=False)

    @property
    def form(self) -> dict[str, str]:
        return {name: value for name, [value] in parse_qs(self.body, keep_blank_values=True).items()}


Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


def sends(*pieces: bytes) -> Reply:
    """Reply with these bytes."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.writelines(pieces)
        await writer.drain()

    return reply


Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(conversation: Conversation, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Hold this conversation with whoever connects to a loopback port, the value (int); leave no connection behind."""
    tasks = set[asyncio.Task[None]]()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await conversation(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (asyncio.CancelledError, OSError):
            # Swallowed: asyncio's streams of Python 3.11 log a handler that ends in its cancellation.
            writer.transport.abort()

    async with await asyncio.start_server(converse, "127.0.0.1", 0, ssl=tls) as listener:
        try:
            yield listener.sockets[0].getsockname()[1]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks)
            await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn of the loop


@dataclass
class Server:
    """An HTTP server that hears whole requests and replies, byte by byte, as its test says."""

    reply: Reply
    port: int = 0
    connections: int = 0
    busy: int = 0
    busiest: int = 0
    requests: list[Request] = field(default_factory=list, repr=False)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                self.requests.append(await self._read(reader))
                self.busy += 1
                self.busiest = max(self.busiest, self.busy)
                try:
                    await self.reply(writer)
                finally:
                    self.busy -= 1
        self.hung_up.set()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> Request:
        line, _, head = (await reader.readuntil(b"\r\n\r\n")).decode().partition("\r\n")
        headers = Parser().parsestr(head)
        body = await reader.readexactly(int(headers.get("Content-Length", "0")))
        return Request(line, headers, body.decode())


@asynccontextmanager
async def serving(reply: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(reply)
    async with listening(server.converse, tls) as server.port:
        yield server


def url(server: Server, host: str = "127.0.0.1", scheme: str = "http") -> str:
    return f"{scheme}://{host}:{server.port}/token?canary-query"


@asynccontextmanager
async def client(
    *,
    ca_bundle: Path | None = None,
    request_timeout: float = 10.0,
    connections: int = 4,
) -> AsyncIterator[TokenEndpoint]:
    endpoint = TokenEndpoint(
        SystemClock(), ca_bundle=ca_bundle, request_timeout=request_timeout, connections=connections
    )
    try:
        yield endpoint
    finally:
        await endpoint.aclose()


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with client() as made:
        yield made


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the proxies and roots of whoever runs the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _quiet_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No library may warn with a word of the request or the answer."""
    caplog.set_level(logging.WARNING)
    yield
    assert CANARY not in caplog.text


async def exchange(endpoint: TokenEndpoint, at: str) -> TokenResponse:
    return await endpoint.exchange(at, "client-1", Sensitive(CLIENT_SECRET), ["b", "a"])


async def refused(endpoint: TokenEndpoint, at: str) -> TokenRequestFailed:
    """Ask by both grants, see both fail alike, and see that the exceptions hold nothing of request and answer."""
    exchanged = await failure_of(lambda: exchange(endpoint, at))
    refreshed = await failure_of(lambda: endpoint.refresh(at, Sensitive(REFRESH_TOKEN)))
    assert exchanged == refreshed
    for failure in (exchanged, refreshed):
        holds_nothing(failure, at)
    return exchanged


def holds_nothing(failure: TokenRequestFailed, at: str) -> None:
    """See that neither the failure nor its frames hold a word of the request or the answer."""
    told = "".join(traceback.TracebackException.from_exception(failure, capture_locals=True).format())
    assert CANARY not in told.replace(at, "")  # the URL is the caller's own
    assert CANARY not in failure.message
    assert (failure.__cause__, failure.__context__) == (None, None)


async def failure_of(request: Callable[[], Awaitable[TokenResponse | None]]) -> TokenRequestFailed:
    with pytest.raises(TokenRequestFailed) as caught:
        await request()
    return caught.value


@pytest.mark.rule("REQ-1")
async def test_an_exchange_sends_the_client_credentials(endpoint: TokenEndpoint) -> None:
    async with serving(sends(GRANTED)) as server:
        response = await exchange(endpoint, url(server))
    assert response == TokenResponse(Sensitive("canary-access"), None, 3600, None, None)
    [request] = server.requests
    assert request.line == "POST /token?canary-query HTTP/1.1"
    assert request.form == {
        "grant_type": "client_credentials",
        "client_id": "client-1",
        "client_secret": CLIENT_SECRET,
        "scope": "a b",
    }
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["User-Agent"] == "tuinly-operator"
    assert "Authorization" not in request.headers


@pytest.mark.rule("REQ-1")
async def test_no_scopes_are_no_scope_field(endpoint: TokenEndpoint) -> None:
    async with serving(sends(GRANTED)) as server:
        await endpoint.exchange(url(server), "client-1", Sensitive(CLIENT_SECRET), [])
    assert set(server.requests[0].form) == {"grant_type", "client_id", "client_secret"}


@pytest.mark.rule("REQ-2")
async def test_a_refresh_sends_the_refresh_token_alone(endpoint: TokenEndpoint) -> None:
    async with serving(sends(GRANTED)) as server:
        await endpoint.refresh(url(server), Sensitive(REFRESH_TOKEN))
    assert server.requests[0].form == {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN}


async def test_the_servers_clock_comes_with_the_grant(endpoint: TokenEndpoint) -> None:
    answer = http("200 OK", json.dumps(GOOD).encode(), "date: Tue, 24 Nov 2026 06:00:00 GMT")
    async with serving(sends(answer)) as server:
        response = await exchange(endpoint, url(server))
    assert response.server_time == datetime(2026, 11, 24, 6, tzinfo=UTC).timestamp()


@pytest.mark.rule("ANS-4")
async def test_no_cookie_is_kept(endpoint: TokenEndpoint) -> None:
    cookies = ("Set-Cookie: session=canary; Path=/", "Set-Cookie: c(a)nary[]=1", 'Set-Cookie: canary="')
    async with serving(sends(http("200 OK", json.dumps(GOOD).encode(), *cookies))) as server:
        for _ in range(2):
            # By name, since for an address the libraries' own jars keep none.
            await exchange(endpoint, url(server, "localhost"))
    assert [request.headers.get("Cookie") for request in server.requests] == [None, None]


@pytest.mark.rule("ANS-4")
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Again", "308 Gone"])
async def test_no_redirect_is_followed(endpoint: TokenEndpoint, status: str) -> None:
    async with serving(sends(GRANTED)) as elsewhere:
        async with serving(sends(http(status, b"canary", f"Location: {url(elsewhere)}"))) as server:
            failure = await refused(endpoint, url(server))
        assert elsewhere.requests == []
    assert (failure.reason, failure.transport) == (Reason.INVALID_RESPONSE, False)


@pytest.mark.rule("ERR-1", "ANS-3")
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("401 Unauthorized", Reason.INVALID_CLIENT),
        ("401 Ung\u00fcltig", Reason.INVALID_CLIENT),
        ("401", Reason.INVALID_CLIENT),
        ("400 Bad Request", Reason.INVALID_CLIENT),
        ("503 Unavailable", Reason.ENDPOINT_UNAVAILABLE),
        ("200 OK", Reason.INVALID_RESPONSE),
        ("204 No Content", Reason.INVALID_RESPONSE),
    ],
)
async def test_errors_are_judged_by_status_and_code(endpoint: TokenEndpoint, status: str, reason: Reason) -> None:
    body = b"" if status.startswith("204") else b'{"error": "invalid_client", "error_description": "canary"}'
    async with serving(sends(http(status, body))) as server:
        failure = await refused(endpoint, url(server))
        assert f"http://127.0.0.1:{server.port} " in f"{failure.message} "
    assert (failure.reason, failure.status) == (reason, int(status[:3]))


@pytest.mark.parametrize("status", ["429 Too Many", "503 Unavailable"])
async def test_retry_after_is_read(endpoint: TokenEndpoint, status: str) -> None:
    async with serving(sends(http(status, b"", "Retry-After: 17"))) as server:
        assert (await refused(endpoint, url(server))).retry_after == 17


ACCESS_TOKEN = "canary-access"


async def test_a_verification_sends_the_token_and_the_least_query(endpoint: TokenEndpoint) -> None:
    async with serving(sends(http("200 OK", b'{"data": {"__typename": "Query"}}'))) as server:
        await endpoint.verify(url(server), Sensitive(ACCESS_TOKEN))
    [request] = server.requests
    assert request.headers["Authorization"] == f"Bearer {ACCESS_TOKEN}"
    assert json.loads(request.body) == {"query": "{__typename}"}


@pytest.mark.rule("VERIFY-4")
@pytest.mark.parametrize(
    ("answer", "reason", "wait", "transport"),
    [
        (http("429 Too Many", b"canary", "Retry-After: 17"), Reason.VERIFICATION_INCONCLUSIVE, 17, False),
        (http("503 Unavailable", b"", "Retry-After: 17"), Reason.VERIFICATION_INCONCLUSIVE, 17, True),
        (http("404 Not Found", b"canary"), Reason.VERIFICATION_INCONCLUSIVE, None, False),
        (http("302 Found", b"", "Location: /canary"), Reason.VERIFICATION_INCONCLUSIVE, None, False),
        (http("200 OK", b"canary"), Reason.VERIFICATION_INCONCLUSIVE, None, False),
        (b"canary\r\n\r\n", Reason.VERIFICATION_INCONCLUSIVE, None, True),
        (http("401 Unauthorized", b"canary"), Reason.VERIFICATION_FAILED, None, False),
    ],
)
async def test_a_verification_that_fails_says_what_was_learned(
    endpoint: TokenEndpoint, answer: bytes, reason: Reason, wait: float | None, *, transport: bool
) -> None:
    async with serving(sends(answer)) as server:
        failure = await failure_of(lambda: endpoint.verify(url(server), Sensitive(ACCESS_TOKEN)))
    assert (failure.reason, failure.retry_after, failure.transport) == (reason, wait, transport)
    assert f"http://127.0.0.1:{server.port}" in failure.message
    holds_nothing(failure, url(server))


async def hang(_: asyncio.StreamWriter) -> None:
    """Say nothing, for ever."""
    await asyncio.Event().wait()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close the connection instead of an answer."""
    writer.close()
    await writer.wait_closed()
    raise ConnectionError


async def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection off hard."""
    writer.transport.abort()
    raise ConnectionError


def then(first: bytes, second: Reply) -> Reply:
    """Send some bytes, then go on in another way."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        await sends(first)(writer)
        await second(writer)

    return reply


def dripping(start: bytes) -> Reply:
    """Send a start, then a byte at a time, for ever: no single read is slow, the whole never ends."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(b"1")
            await writer.drain()
            await asyncio.sleep(0.01)

    return reply


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CUT_OFF = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"


@pytest.mark.rule("ERR-2")
@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        pytest.param(hang_up, "closed the connection", id="closes"),
        pytest.param(reset, "closed the connection", id="resets"),
        pytest.param(then(CUT_OFF, hang_up), "did not complete its answer", id="closes-in-the-body"),
        pytest.param(then(CUT_OFF, reset), "did not complete its answer", id="resets-in-the-body"),
        pytest.param(sends(b"canary\r\n\r\n"), "does not speak HTTP", id="is-no-http-server"),
        pytest.param(sends(b"HTTP/1.1 200 OK\r\ncanary\r\n\r\n"), "does not speak HTTP", id="broken-header"),
        pytest.param(
            sends(b"HTTP/1.1 200 OK\r\nX-Long: " + b"canary" * 20_000 + b"\r\n\r\n"),
            "does not speak HTTP",
            id="endless-header",
        ),
        pytest.param(then(CHUNKED, sends(b"canary\r\n")), "", id="broken-chunk"),
    ],
)
async def test_broken_answers_are_no_answers(endpoint: TokenEndpoint, reply: Reply, sentence: str) -> None:
    async with serving(reply) as server:
        failure = await refused(endpoint, url(server))
    assert (failure.reason, failure.status, failure.transport) == (Reason.ENDPOINT_UNAVAILABLE, None, True)
    assert f"the token endpoint http://127.0.0.1:{server.port} {sentence}" in failure.message


@pytest.mark.rule("ANS-5")
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(hang, id="hangs"),
        pytest.param(then(CUT_OFF, hang), id="hangs-in-the-body"),
        pytest.param(dripping(b"HTTP/1.1 200 OK\r\nX-Slow: "), id="drips-a-header"),
        pytest.param(dripping(CUT_OFF), id="drips-a-body"),
        pytest.param(dripping(CUT_OFF.replace(b"200 OK", b"401 Unauthorized")), id="drips-an-error"),
    ],
)
async def test_the_whole_request_is_bounded(reply: Reply) -> None:
    async with serving(reply) as server, client(request_timeout=0.2) as endpoint:
        failure = await refused(endpoint, url(server))
    assert (failure.reason, failure.status, failure.transport) == (Reason.ENDPOINT_UNAVAILABLE, None, True)
    assert "did not answer in time" in failure.message


async def test_a_failing_server_is_told_by_its_status_alone(endpoint: TokenEndpoint) -> None:
    head = b"HTTP/1.1 503 Unavailable\r\nRetry-After: 9\r\nContent-Length: 1000\r\n\r\n"
    async with serving(then(head, hang)) as server:
        failure = await refused(endpoint, url(server))
    assert (failure.status, failure.retry_after) == (503, 9)


async def endless(writer: asyncio.StreamWriter) -> None:
    """Send a body without an end."""
    writer.write(CHUNKED)
    while True:
        writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        await writer.drain()


@pytest.mark.rule("ANS-4")
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(endless, id="endless"),
        pytest.param(sends(http("200 OK", json.dumps(GOOD).encode().ljust(MAX_BODY + 1))), id="one-byte-more"),
    ],
)
async def test_reading_stops_at_the_limit(endpoint: TokenEndpoint, reply: Reply) -> None:
    async with serving(reply) as server:
        failure = await refused(endpoint, url(server))
    assert failure.reason is Reason.INVALID_RESPONSE
    assert "longer than 64 KiB" in failure.message


async def test_an_endless_answer_is_hung_up_on(endpoint: TokenEndpoint) -> None:
    async with serving(endless) as server:
        await refused(endpoint, url(server))
        await server.hung_up.wait()


async def test_the_longest_answer_is_read_whole(endpoint: TokenEndpoint) -> None:
    async with serving(sends(http("200 OK", json.dumps(GOOD).encode().ljust(MAX_BODY)))) as server:
        assert (await exchange(endpoint, url(server))).lifetime == 3600


@pytest.mark.rule("ANS-4")
async def test_a_bomb_is_not_decompressed(endpoint: TokenEndpoint) -> None:
    bomb = gzip.compress(json.dumps(GOOD).encode().ljust(10_000_000))
    async with serving(sends(http("200 OK", bomb, "Content-Encoding: gzip"))) as server:
        failure = await refused(endpoint, url(server))
    assert failure.reason is Reason.INVALID_RESPONSE
    assert "compressed" in failure.message


@pytest.mark.rule("ERR-2")
async def test_a_closed_port(endpoint: TokenEndpoint) -> None:
    async with serving(hang) as server:
        pass
    failure = await refused(endpoint, url(server))
    assert (failure.reason, failure.transport) == (Reason.ENDPOINT_UNAVAILABLE, True)
    assert "cannot be connected to" in failure.message


@pytest.mark.rule("ERR-2")
async def test_a_name_that_does_not_resolve(endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "canary")

    # No real name will do: asking for one would leave the machine.
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    failure = await refused(endpoint, "http://oauth.example/token")
    assert (failure.reason, failure.transport) == (Reason.ENDPOINT_UNAVAILABLE, True)
    assert "the token endpoint http://oauth.example has a host name that does not resolve" in failure.message


@pytest.mark.rule("ERR-5")
@pytest.mark.parametrize(
    ("at", "origin"),
    [
        ("ftp://user:canary@host.example/canary", "ftp://host.example"),
        ("https://user:canary@host.example:99999/canary", "(not a URL)"),
        ("https://[::1/canary", "(not a URL)"),
        ("https:///canary", "https://"),
        ("http://[::1]:1/canary?canary#canary", "http://[::1]:1"),
        ("", "://"),
    ],
)
async def test_a_url_of_no_use_is_told_by_its_origin(endpoint: TokenEndpoint, at: str, origin: str) -> None:
    failure = await refused(endpoint, at)
    assert (failure.reason, failure.transport) == (Reason.ENDPOINT_UNAVAILABLE, True)
    assert f"the token endpoint {origin} " in failure.message


@pytest.mark.rule("LIM-1")
@pytest.mark.parametrize(
    ("spellings", "origin"),
    [
        (["https://h/a", "https://h:443/b", "HTTPS://H:0443", "https://u:p@h:/"], "https://h"),
        (["http://h", "http://h:80/"], "http://h"),
        (["https://[::A]:443/", "https://[::a]/"], "https://[::a]"),
        (["https://h:80/"], "https://h:80"),
        (["http://h:443/"], "http://h:443"),
    ],
)
def test_all_spellings_of_an_origin_are_one(spellings: list[str], origin: str) -> None:
    assert {origin_of(spelling) for spelling in spellings} == {origin}


async def test_cancelling_passes_through(endpoint: TokenEndpoint) -> None:
    async with serving(hang) as server:
        task = asyncio.create_task(exchange(endpoint, url(server)))
        while not server.requests:  # noqa: ASYNC110 -- bounded by pytest's time limit
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.rule("ANS-6")
async def test_each_request_has_its_own_connection_and_they_are_bounded() -> None:
    both = asyncio.Barrier(2)

    async def in_pairs(writer: asyncio.StreamWriter) -> None:
        await both.wait()
        await sends(GRANTED)(writer)

    async with serving(in_pairs) as server, client(connections=2) as endpoint:
        await asyncio.gather(*(exchange(endpoint, url(server)) for _ in range(8)))
    assert (len(server.requests), server.busiest, server.connections) == (8, 2, 8)
    assert {request.headers["Connection"] for request in server.requests} == {"close"}


async def test_closing_ends_the_requests_that_are_under_way() -> None:
    async with serving(hang) as server:
        async with client() as endpoint:
            request = asyncio.create_task(failure_of(lambda: exchange(endpoint, url(server))))
            while not server.requests:  # noqa: ASYNC110 -- bounded by pytest's time limit
                await asyncio.sleep(0.01)
        assert (await request).reason is Reason.ENDPOINT_UNAVAILABLE
        failure = await refused(endpoint, url(server))
    assert failure.reason is Reason.ENDPOINT_UNAVAILABLE


@pytest.mark.rule("ANS-6")
async def test_an_answer_that_is_sent_twice_counts_for_one_request(endpoint: TokenEndpoint) -> None:
    """The copy arrives between two requests, on the connection of the first one."""
    again = asyncio.Event()
    sent = asyncio.Event()

    async def twice(writer: asyncio.StreamWriter) -> None:
        answer = http("200 OK", json.dumps({**GOOD, "access_token": f"canary-{len(server.requests)}"}).encode())
        await sends(answer)(writer)
        await again.wait()
        with suppress(ConnectionError):
            await sends(answer)(writer)
        sent.set()

    async with serving(twice) as server:
        first = await exchange(endpoint, url(server))
        again.set()
        await sent.wait()
        second = await exchange(endpoint, url(server))
    assert (first.access_token, second.access_token) == (Sensitive("canary-1"), Sensitive("canary-2"))


@dataclass
class Authority:
    """A certificate authority and the file that names it."""

    ca: trustme.CA
    file: Path

    def context(self, name: str = "localhost", *, expired: bool = False) -> ssl.SSLContext:
        """A TLS server's context with a certificate for this name."""
        yesterday = datetime.now(UTC) - timedelta(days=1)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ca.issue_cert(name, not_after=yesterday if expired else None).configure_cert(context)
        return context


def authority(file: Path) -> Authority:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(file)
    return Authority(ca, file)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours") / "ca.pem")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("theirs") / "ca.pem")


@pytest.mark.rule("SEC-3")
async def test_the_bundle_adds_to_the_roots(
    ours: Authority,
    theirs: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(theirs.file))
    async with client(ca_bundle=ours.file) as endpoint:
        for known in (ours, theirs):
            async with serving(sends(GRANTED), known.context()) as server:
                assert (await exchange(endpoint, url(server, "localhost", "https"))).lifetime == 3600


@pytest.mark.rule("ERR-3", "SEC-3")
@pytest.mark.parametrize(
    ("flaw", "sentence"),
    [
        ("untrusted", "a certificate that is not trusted; if its CA is your own, name it with --ca-bundle"),
        ("expired", "a certificate that has expired"),
        ("other-name", "a certificate for another host"),
        ("other-address", "a certificate for another host"),
    ],
)
async def test_no_secret_goes_to_an_unproven_server(
    ours: Authority,
    theirs: Authority,
    flaw: str,
    sentence: str,
) -> None:
    signer = theirs if flaw == "untrusted" else ours
    context = signer.context("other.example" if flaw == "other-name" else "localhost", expired=flaw == "expired")
    host = "127.0.0.1" if flaw == "other-address" else "localhost"
    async with serving(sends(GRANTED), context) as server, client(ca_bundle=ours.file) as endpoint:
        failure = await refused(endpoint, url(server, host, "https"))
    assert (failure.reason, failure.transport) == (Reason.ENDPOINT_UNAVAILABLE, True)
    assert f"the token endpoint https://{host}:{server.port} presents {sentence}" in failure.message
    assert server.requests == []


FLOOD = 32 * 1024 * 1024  # bytes; more than the system keeps between two processes


def flooding(start: bytes, unit: bytes) -> Reply:
    """Send a start, then one thing again and again, until the client hangs up."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        piece = unit * (0x10000 // len(unit) + 1)
        for _ in range(FLOOD // len(piece)):
            if writer.transport.is_closing():
                raise ConnectionError
            writer.write(piece)
            await writer.drain()
        await asyncio.Event().wait()  # without a hang-up

    return reply


FLOODS = {
    "more-answers": flooding(GRANTED, http("200 OK")),
    "a-body-that-is-not-read": flooding(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 99999999\r\n\r\n", b"x"),
    "interim-answers": flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk-extensions": flooding(CHUNKED + b"1;", b"x"),
    "empty-lines": flooding(b"", b"\r\n"),
    "long-heads": flooding(b"", b"HTTP/1.1 102 Processing\r\nX: " + b"x" * 8000 + b"\r\n\r\n"),
}


@pytest.mark.rule("ANS-6", "ANS-7")
@pytest.mark.parametrize("way", ["plain", "tls", "tunnel"])
@pytest.mark.parametrize("flood", FLOODS)
async def test_the_client_hangs_up_on_a_flood(
    ours: Authority, monkeypatch: pytest.MonkeyPatch, flood: str, way: str
) -> None:
    """Neither the time limit nor the end of the flood ends it."""
    context = None if way == "plain" else ours.context()
    async with serving(FLOODS[flood], context) as server, listening(tunnel) as proxy:
        if way == "tunnel":
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy}")
        async with client(ca_bundle=ours.file, request_timeout=600) as endpoint:
            with suppress(TokenRequestFailed):
                await exchange(endpoint, url(server, "localhost", "http" if way == "plain" else "https"))
            await server.hung_up.wait()


@pytest.mark.rule("ANS-7")
async def test_a_flood_is_reported_as_what_it_is(endpoint: TokenEndpoint) -> None:
    async with serving(FLOODS["interim-answers"]) as server:
        failure = await refused(endpoint, url(server))
    assert (failure.reason, failure.transport) == (Reason.ENDPOINT_UNAVAILABLE, True)
    assert "sent more than 256 KiB for one answer" in failure.message


@pytest.mark.rule("ANS-6")
async def test_the_client_sends_the_closure_alert_and_does_not_wait_for_the_servers(ours: Authority) -> None:
    def serve(listener: socket.socket) -> tuple[bytes, bytes]:
        """Answer, and never close. Return what TLS and what TCP say at their ends."""
        connection, _ = listener.accept()
        with ours.context().wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as tls:
            heard = b""
            while b"scope=a+b" not in heard:
                heard += tls.recv(4096)
            tls.sendall(GRANTED)
            alert = tls.recv(1)
            with socket.socket(fileno=tls.detach()) as bare:
                bare.settimeout(20)  # the client's TLS would wait for 30 s
                return alert, bare.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = asyncio.create_task(asyncio.to_thread(serve, listener))
        async with client(ca_bundle=ours.file) as endpoint:
            await exchange(endpoint, f"https://localhost:{listener.getsockname()[1]}/")
            assert await served == (b"", b"")


@pytest.mark.rule("ERR-2")
async def test_tls_to_a_plain_server(endpoint: TokenEndpoint) -> None:
    async def answer_in_plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(http("400 Bad Request", b"canary"))

    async with listening(answer_in_plain) as port:
        failure = await refused(endpoint, f"https://localhost:{port}/")
    assert "does not speak TLS" in failure.message


@pytest.mark.parametrize("content", ["", "canary"])
def test_a_bundle_of_no_use_is_refused_at_once(tmp_path: Path, content: str) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text(content)
    for file in (bundle, tmp_path / "missing.pem"):
        with pytest.raises(OSError, match=r"(?i)pem|no such file|certificate"):
            TokenEndpoint(SystemClock(), ca_bundle=file, request_timeout=1, connections=1)


@pytest.mark.rule("SEC-4")
async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(sends(GRANTED)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with client() as endpoint:
            await exchange(endpoint, "http://oauth.example/token")
    [request] = proxy.requests
    assert request.line == "POST http://oauth.example/token HTTP/1.1"
    assert request.form["client_id"] == "client-1"


@pytest.mark.rule("SEC-4")
async def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(sends(GRANTED)) as proxy, serving(sends(GRANTED)) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with client() as endpoint:
            await exchange(endpoint, url(server))
    assert (len(proxy.requests), len(server.requests)) == (0, 1)


async def test_no_cookie_is_kept_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(sends(http("200 OK", json.dumps(GOOD).encode(), "Set-Cookie: a=canary"))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with client() as endpoint:
            for _ in range(2):
                await exchange(endpoint, "http://oauth.example/token")
    assert [request.headers.get("Cookie") for request in proxy.requests] == [None, None]


async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a proxy: connect as CONNECT says, and pass on what cannot be read."""
    host, _, port = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().partition(":")
    far_reader, far_writer = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(4096):
            sink.write(data)
            await sink.drain()
        sink.close()

    try:
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
    finally:
        far_writer.transport.abort()


@pytest.mark.rule("SEC-3")
@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_is_verified_through_a_proxy(
    ours: Authority,
    theirs: Authority,
    monkeypatch: pytest.MonkeyPatch,
    *,
    trusted: bool,
) -> None:
    context = (ours if trusted else theirs).context()
    async with serving(sends(GRANTED), context) as server, listening(tunnel) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        async with client(ca_bundle=ours.file) as endpoint:
            at = url(server, "localhost", "https")
            if trusted:
                assert (await exchange(endpoint, at)).lifetime == 3600
            else:
                assert "--ca-bundle" in (await refused(endpoint, at)).message
    assert len(server.requests) == (1 if trusted else 0)


# httpx-aiohttp hands the proxy's password over in a way that aiohttp wants to end with its version 4.
@pytest.mark.filterwarnings(
    "ignore:The 'proxy_auth' parameter:DeprecationWarning", "ignore:BasicAuth:DeprecationWarning"
)
async def test_a_proxys_password_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(sends(GRANTED)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://canary:canary@127.0.0.1:{proxy.port}")
        async with client() as endpoint:
            await exchange(endpoint, "http://oauth.example/token")
    assert proxy.requests[0].headers["Proxy-Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        pytest.param(sends(http("407 canary", b"canary")), "a proxy that refused", id="refuses"),
        pytest.param(None, "a proxy that cannot be reached", id="is-away"),
    ],
)
async def test_a_proxy_that_fails(monkeypatch: pytest.MonkeyPatch, reply: Reply | None, sentence: str) -> None:
    async with serving(reply or hang) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port if reply else 1}")
        async with client() as endpoint:
            failure = await refused(endpoint, "https://oauth.example/token")
    assert (failure.reason, failure.transport) == (Reason.ENDPOINT_UNAVAILABLE, True)
    assert f"the token endpoint https://oauth.example is behind {sentence}" in failure.message


@pytest.mark.parametrize("proxy", ["http://host:canary", "socks5://canary@host:1", "ftp://canary@host", "::"])
def test_a_proxy_of_no_use_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ValueError, match="HTTPS_PROXY or ALL_PROXY is not the URL of an HTTP proxy") as caught:
        TokenEndpoint(SystemClock(), ca_bundle=None, request_timeout=1, connections=1)
    assert CANARY not in "".join(traceback.format_exception(caught.value)).replace(proxy, "")
