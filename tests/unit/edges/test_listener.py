"""The listener over real sockets: what one address can open, and that others get their places."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tuinly_operator.edges.listener import (
    LEAST_SECONDS,
    MOST_CONNECTIONS,
    MOST_OF_AN_ADDRESS,
    Listener,
    Places,
    address_of,
)

FLOOD, OTHER = "127.0.0.1", "127.0.0.2"
DEADLINE = 30.0  # seconds, for hanging


class Echo(asyncio.Protocol):
    """Answers each byte with itself."""

    made = 0
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        Echo.made += 1

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Broken(socket.socket):
    """A listening socket whose first `failures` calls of accept() fail."""

    failures = 3

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def started(listening: socket.socket) -> tuple[Listener, int]:
    listening.bind((FLOOD, 0))
    Echo.made = 0
    return Listener(listening, Echo), listening.getsockname()[1]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    listener, port = await started(socket.socket())
    yield port
    listener.close()


async def connect(port: int, source: str) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(0)
    connection.bind((source, 0))
    async with asyncio.timeout(DEADLINE):
        with suppress(ConnectionResetError):  # it was refused already
            await asyncio.get_running_loop().sock_connect(connection, (FLOOD, port))
    return connection


async def is_served(connection: socket.socket) -> bool:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(DEADLINE):
            await loop.sock_sendall(connection, b"?")
            return await loop.sock_recv(connection, 1) == b"?"
    except ConnectionError:
        return False


@pytest.mark.rule("OBS-21")
async def test_an_address_holds_ten_connections_and_others_still_get_theirs(port: int) -> None:
    held = [await connect(port, FLOOD) for _ in range(3 * MOST_OF_AN_ADDRESS)]
    served = [await is_served(each) for each in held]
    assert served == [True] * MOST_OF_AN_ADDRESS + [False] * 2 * MOST_OF_AN_ADDRESS
    other = await connect(port, OTHER)
    assert await is_served(other)
    for each in (*held, other):
        each.close()


@pytest.mark.rule("OBS-21")
async def test_under_a_flood_few_transports_are_made_and_others_are_answered(port: int) -> None:
    """As many as an address can hold at a time; a closed connection keeps its place for a moment."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number in range(1000):
        (await connect(port, FLOOD)).close()
        if number % 100 == 0:
            other = await connect(port, OTHER)
            assert await is_served(other)
            other.close()
    turns = (loop.time() - begun) / LEAST_SECONDS + 1
    assert Echo.made - 10 <= MOST_OF_AN_ADDRESS * turns


@pytest.mark.rule("OBS-21")
async def test_if_all_places_are_taken_the_address_that_holds_most_loses_its_oldest(port: int) -> None:
    held = [
        await connect(port, f"127.0.1.{address}")
        for address in range(1, MOST_CONNECTIONS // MOST_OF_AN_ADDRESS + 1)
        for _ in range(MOST_OF_AN_ADDRESS)
    ]
    assert all([await is_served(each) for each in held])
    newcomer = await connect(port, OTHER)
    assert await is_served(newcomer)
    assert [await is_served(each) for each in held] == [False] + [True] * (MOST_CONNECTIONS - 1)
    for each in (*held, newcomer):
        each.close()


@pytest.mark.rule("OBS-21")
async def test_accept_that_fails_is_logged_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without descriptors the waiting connection would wake the loop without end."""
    monkeypatch.setattr("tuinly_operator.edges.listener.PAUSE", 0.01)
    listener, port = await started(Broken())
    with caplog.at_level(logging.WARNING):
        connection = await connect(port, FLOOD)
        assert await is_served(connection)
    connection.close()
    listener.close()
    assert [record.message for record in caplog.records] == ["cannot accept connections for health and metrics"]


# Places ---------------------------------------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def fill(places: Places, address: str, number: int) -> list[socket.socket]:
    sockets = [socket.socket() for _ in range(number)]
    assert all(places.take(address, each) for each in sockets)
    return sockets


def test_a_closed_connection_leaves_its_place_after_a_moment() -> None:
    clock = Clock()
    places = Places(clock)
    held = fill(places, FLOOD, MOST_OF_AN_ADDRESS)
    for each in held:
        each.close()
    with socket.socket() as newcomer:
        assert not places.take(FLOOD, newcomer)
        clock.now += LEAST_SECONDS
        assert places.take(FLOOD, newcomer)


def test_an_open_connection_keeps_its_place() -> None:
    clock = Clock()
    places = Places(clock)
    held = fill(places, FLOOD, MOST_OF_AN_ADDRESS)
    clock.now += 3600
    with socket.socket() as newcomer:
        assert not places.take(FLOOD, newcomer)
    for each in held:
        each.close()


def test_an_address_that_holds_most_takes_no_place_of_others() -> None:
    places = Places(Clock())
    held = [each for number in range(20) for each in fill(places, f"10.0.0.{number}", 5)]
    with socket.socket() as newcomer:
        assert not places.take("10.0.0.0", newcomer)
        assert places.take("10.0.1.0", newcomer)
    for each in held:
        each.close()


@pytest.mark.parametrize(
    ("host", "address"),
    [("10.1.2.3", "10.1.2.3"), ("::ffff:10.1.2.3", "10.1.2.3"), ("fd00::1", "fd00::1"), ("fd00::2", "fd00::2")],
)
def test_ipv4_is_one_address_in_both_notations(host: str, address: str) -> None:
    assert address_of(host) == address
