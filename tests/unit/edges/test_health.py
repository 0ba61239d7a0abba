"""The health server over a real socket: its answers, what it tells of failing checks, and what it keeps to itself."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
import prometheus_client.exposition
import pytest

from tuinly_operator.base.settings import SettingsError
from tuinly_operator.edges.health import METRICS_CONTENT_TYPE, HealthServer
from tuinly_operator.edges.listener import MOST_CONNECTIONS, MOST_OF_AN_ADDRESS


@dataclass
class Operator:
    """What the server asks; tests say what it answers."""

    alive: Callable[[], Sequence[str]] = list
    ready: Callable[[], Sequence[str]] = list
    notes: Callable[[], Sequence[str]] = list
    metrics: Callable[[], Iterable[bytes]] = tuple
    listen: tuple[str, int] = ("127.0.0.1", 0)
    base: str = field(default="", init=False)

    def server(self) -> HealthServer:
        return HealthServer(
            self.listen,
            alive=lambda: [*self.alive()],
            ready=lambda: [*self.ready()],
            notes=lambda: [*self.notes()],
            metrics=lambda: self.metrics(),  # noqa: PLW0108 -- as it is then
        )


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: dict[str, str]


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    operator = Operator()
    server = operator.server()
    host, port = await server.start()
    operator.base = f"http://{host}:{port}"
    yield operator
    await server.stop()


async def ask(operator: Operator, path: str, method: str = "GET") -> Answer:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
        session.request(method, operator.base + path) as response,
    ):
        return Answer(response.status, await response.text(), dict(response.headers))


def fail() -> Sequence[str]:
    raise RuntimeError("the check is broken")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_all_is_well(operator: Operator, path: str) -> None:
    answer = await ask(operator, path)
    assert (answer.status, answer.text) == (200, "ok\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.rule("OBS-20")
async def test_healthz_tells_what_hangs(operator: Operator) -> None:
    operator.alive = lambda: ["the queue has not moved for 61 s"]
    assert (await ask(operator, "/healthz")).text == "the queue has not moved for 61 s\n"
    assert (await ask(operator, "/healthz")).status == 503
    assert (await ask(operator, "/readyz")).status == 200


@pytest.mark.rule("OUT-5")
async def test_readyz_says_what_should_be_known_and_is_ready_all_the_same(operator: Operator) -> None:
    operator.notes = lambda: ["may list and watch secrets in namespace gone: no"]
    answer = await ask(operator, "/readyz")
    assert (answer.status, answer.text) == (200, "ok\nmay list and watch secrets in namespace gone: no\n")
    operator.ready = lambda: ["secrets listed: no"]
    answer = await ask(operator, "/readyz")
    assert (answer.status, answer.text) == (
        503,
        "secrets listed: no\nmay list and watch secrets in namespace gone: no\n",
    )
    assert (await ask(operator, "/healthz")).text == "ok\n"


@pytest.mark.rule("OBS-20")
async def test_readyz_lists_line_by_line_what_it_waits_for(operator: Operator) -> None:
    operator.ready = lambda: ["secrets listed: no", "credentials seen: 3 of 5"]
    answer = await ask(operator, "/readyz")
    assert (answer.status, answer.text) == (503, "secrets listed: no\ncredentials seen: 3 of 5\n")
    operator.ready = list
    assert (await ask(operator, "/readyz")).status == 200


@pytest.mark.parametrize(("path", "check"), [("/healthz", "alive"), ("/readyz", "ready")])
async def test_a_check_that_fails_has_not_passed_and_is_logged(
    operator: Operator, path: str, check: str, caplog: pytest.LogCaptureFixture
) -> None:
    setattr(operator, check, fail)
    answer = await ask(operator, path)
    assert (answer.status, answer.text) == (503, f"the check {check} failed\n")
    assert [record.message for record in caplog.records] == [f"the check {check} failed"]


async def test_metrics_in_prometheus_text_format(operator: Operator) -> None:
    operator.metrics = lambda: (b"tuinly_refreshes", b"_total 3\n")
    answer = await ask(operator, "/metrics")
    assert (answer.status, answer.text) == (200, "tuinly_refreshes_total 3\n")
    assert answer.headers["Content-Type"] == METRICS_CONTENT_TYPE


def test_the_content_type_is_the_one_of_the_prometheus_client() -> None:
    assert prometheus_client.exposition.CONTENT_TYPE_PLAIN_0_0_4 == METRICS_CONTENT_TYPE


@pytest.mark.rule("OBS-26")
async def test_between_pieces_of_the_metrics_others_have_the_loop(operator: Operator) -> None:
    turns: list[str] = []

    def pieces() -> Iterator[bytes]:
        for number in range(3):
            asyncio.get_running_loop().call_soon(turns.append, "others")
            turns.append("a piece")
            yield str(number).encode()

    operator.metrics = pieces
    assert (await ask(operator, "/metrics")).text == "012"
    assert turns == ["a piece", "others"] * 3


async def test_metrics_that_fail_are_a_500_and_logged(operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Iterable[bytes]:
        raise RuntimeError("broken")

    operator.metrics = broken
    answer = await ask(operator, "/metrics")
    assert (answer.status, answer.text) == (500, "the metrics failed\n")
    assert [record.message for record in caplog.records] == ["the metrics failed"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_only_get_and_head(operator: Operator, path: str) -> None:
    operator.metrics = lambda: [b"x 1\n"]
    got, head = await ask(operator, path), await ask(operator, path, "HEAD")
    assert (head.status, head.text) == (200, "")
    assert head.headers["Content-Length"] == got.headers["Content-Length"]
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert (await ask(operator, path, method)).status == 405


@pytest.mark.parametrize("path", ["/", "/healthz/", "/metrics/x", "/debug", "/..%2fhealthz"])
async def test_there_is_nothing_else(operator: Operator, path: str) -> None:
    assert (await ask(operator, path)).status == 404


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/nowhere"])
async def test_no_answer_names_the_versions_behind_it(operator: Operator, path: str) -> None:
    answer = await ask(operator, path)
    assert "Server" not in answer.headers
    assert "aiohttp" not in f"{answer.headers}{answer.text}"


async def test_requests_are_not_logged(operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await ask(operator, "/healthz")
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []


async def test_a_port_in_use_is_a_wrong_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError) as caught:
            await Operator(listen=("127.0.0.1", port)).server().start()
    line = f"--listen (TUINLY_LISTEN): cannot listen on 127.0.0.1 port {port}: Address already in use"
    assert str(caught.value) == line


async def test_an_address_of_another_machine_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match=r"cannot listen on 192.0.2.1 port 1: Cannot assign requested address"):
        await Operator(listen=("192.0.2.1", 1)).server().start()


async def test_all_ipv6_addresses_include_ipv4s() -> None:
    operator = Operator(listen=("::", 0))
    server = operator.server()
    host, port = await server.start()
    try:
        assert host == "::"
        for address in ("127.0.0.1", "[::1]"):
            operator.base = f"http://{address}:{port}"
            assert (await ask(operator, "/healthz")).status == 200
    finally:
        await server.stop()


async def open_from(operator: Operator, number: int, limit: int = 65536) -> list[Connection]:
    """Open connections from as many addresses as they need."""
    host, port = operator.base.removeprefix("http://").split(":")
    return [
        await asyncio.open_connection(
            host, int(port), limit=limit, local_addr=(f"127.0.1.{each // MOST_OF_AN_ADDRESS + 1}", 0)
        )
        for each in range(number)
    ]


@pytest.mark.rule("OBS-21")
async def test_idle_connections_from_many_addresses_keep_no_probe_out(operator: Operator) -> None:
    idle = await open_from(operator, MOST_CONNECTIONS)
    assert (await ask(operator, "/healthz")).status == 200
    async with asyncio.timeout(30):
        with suppress(ConnectionResetError):
            assert await idle[0][0].read() == b""  # closed
    assert not idle[-1][0].at_eof()
    for _, writer in idle:
        writer.close()


@pytest.mark.rule("OBS-21")
async def test_clients_that_do_not_read_keep_no_probe_out(operator: Operator) -> None:
    """The answer that they requested is too much for the system's buffers."""
    operator.metrics = lambda: [b"x" * 4_000_000]
    asked = await open_from(operator, MOST_CONNECTIONS, limit=1000)
    for _, writer in asked:
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await ask(operator, "/healthz")).status == 200
    reader, writer = asked[0]
    async with asyncio.timeout(60):
        with suppress(ConnectionResetError):
            while await reader.read(1_000_000):
                pass
    for _, writer in asked:
        writer.transport.abort()


@pytest.mark.rule("OBS-22")
async def test_a_client_that_does_not_read_the_metrics_is_cut_off(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuinly_operator.edges.health.SEND_SECONDS", 0.1)
    operator.metrics = lambda: [b"x" * 1_000_000] * 40
    [(_, writer)] = await open_from(operator, 1, limit=1000)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(30):
        while not writer.transport.is_closing():  # a write tells of the reset; reading would be what it does not do
            writer.write(b"x")
            await asyncio.sleep(0.01)


@pytest.mark.rule("OBS-21")
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/nowhere"])
async def test_each_answer_ends_its_connection(operator: Operator, path: str) -> None:
    """Connections are bounded for each address, and requests only with them."""
    [(reader, writer)] = await open_from(operator, 1)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 2)
    async with asyncio.timeout(30):
        answer = await reader.read()
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answer
    writer.close()


@pytest.mark.rule("OBS-21")
async def test_a_body_without_end_is_not_read(operator: Operator) -> None:
    [(reader, writer)] = await open_from(operator, 1)
    writer.write(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nx")
    async with asyncio.timeout(5):  # aiohttp would read on for ten seconds
        assert (await reader.read()).startswith(b"HTTP/1.1 405")
    writer.close()


@pytest.mark.rule("OBS-22")
async def test_clients_that_ask_at_the_same_time_share_one_rendering(operator: Operator) -> None:
    rendered = []

    def pieces() -> Iterator[bytes]:
        rendered.append(1)
        yield b"a"
        yield b"b"

    operator.metrics = pieces
    answers = await asyncio.gather(*(ask(operator, "/metrics") for _ in range(6)))
    assert {each.text for each in answers} == {"ab"}
    assert len(rendered) < len(answers)
    assert (await ask(operator, "/metrics")).text == "ab"


@pytest.mark.rule("OBS-22")
async def test_a_rendering_that_a_client_still_reads_is_given_to_others(operator: Operator) -> None:
    """Otherwise each client that reads slowly would keep another one in memory."""
    rendered = []

    def pieces() -> Iterator[bytes]:
        rendered.append(1)
        yield from [b"x" * 1_000_000] * 40

    operator.metrics = pieces
    [(reader, writer)] = await open_from(operator, 1, limit=1000)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(30):
        await reader.readexactly(10)
    assert len((await ask(operator, "/metrics")).text) == 40_000_000
    assert rendered == [1]
    writer.transport.abort()
    async with asyncio.timeout(60):
        while len(rendered) == 1:
            await ask(operator, "/metrics")


async def test_stopped_it_no_longer_listens(operator: Operator) -> None:
    server = Operator().server()
    host, port = await server.start()
    # An idle connection, as the kubelet may keep one, does not hold it up.
    _, writer = await asyncio.open_connection(host, port)
    await server.stop()
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)
    assert (await ask(operator, "/healthz")).status == 200
