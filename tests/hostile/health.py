"""Attacks on the port for health and metrics, by peers that have no rights at all."""

import contextlib
import socket
import struct
from typing import Final
from urllib.parse import urlsplit

from tests.hostile.stage import Stage
from tests.hostile.verdict import Attack
from tests.support.operator import OperatorProcess

_AT_ONCE: Final = 20
_RESET: Final = struct.pack("ii", 1, 0)  # closing leaves no port behind, so that they do not run out


def connect(operator_port: int, source: str) -> socket.socket:
    """Open a connection from an address of loopback. The kubelet's, from which the probes come, is 127.0.0.1."""
    connection = socket.create_connection(("127.0.0.1", operator_port), 5.0, (source, 0))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return connection


def touch(operator_port: int, source: str) -> None:
    """Open a connection and close it at once, without waiting for anything."""
    with contextlib.suppress(OSError), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.settimeout(0.0)
        connection.bind((source, 0))
        connection.connect_ex(("127.0.0.1", operator_port))


def port_of(operator: OperatorProcess) -> int:
    """Where it serves health and metrics."""
    port = urlsplit(operator.health_url).port
    assert port is not None  # noqa: S101 -- for the type checker
    return port


def connection_flood(stage: Stage, addresses: int = 1) -> None:
    """Open and close 3,000 connections per second, and send nothing."""
    with stage.served() as operator:
        port = port_of(operator)
        for number in stage.beats(3000 / _AT_ONCE):
            for _ in range(_AT_ONCE):
                touch(port, f"127.0.1.{number % addresses + 1}")
            stage.measured.requests += _AT_ONCE - 1


def connection_flood_20(stage: Stage) -> None:
    """The same from 20 addresses."""
    connection_flood(stage, 20)


def slow_readers(stage: Stage) -> None:
    """Hold 200 connections that ask for metrics and never read, or never end their headers."""
    held: list[socket.socket] = []
    with stage.served() as operator:
        port = port_of(operator)
        for number in stage.beats(100.0):
            with contextlib.suppress(OSError):
                connection = connect(port, f"127.0.1.{number % 4 + 1}")
                held.append(connection)
                begun = b"GET /metrics HTTP/1.1\r\n" + (b"\r\n" if number % 2 else b"X: " + b"x" * 8000)
                connection.sendall(begun * (1 + 49 * (number % 2)))
                stage.measured.sent += len(begun)
            for connection in held[:-200]:
                connection.close()
            held = held[-200:]
    for connection in held:
        connection.close()


ATTACKS: Final = (
    Attack("health-flood", "a Pod opens and closes 3,000 connections per second", connection_flood, cpu=0.25),
    Attack("health-flood-20", "20 Pods do so together", connection_flood_20, brief=False),
    Attack("health-slow", "200 connections never read their answer, or never end their request", slow_readers),
)
