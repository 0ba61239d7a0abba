"""Accepts connections so that no address can keep others out, or hold the event loop with what it opens.

asyncio's servers make a transport of each connection before anybody is asked, which costs ten times what it costs to
accept and close one. Here the address decides first, right after accept().
"""

import asyncio
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tuinly_operator.base.logs import fields

MOST_CONNECTIONS: Final = 100
"""At a time. Each takes a descriptor and memory, which token requests need as well."""
MOST_OF_AN_ADDRESS: Final = 10
"""At a time. The kubelet and a Prometheus need one or two."""

LEAST_SECONDS: Final = 0.2
"""A connection counts for so long at least, so an address gets 50 per second: a transport costs a part of a ms."""
_BACKLOG: Final = 1024  # the kernel keeps so many between two batches, if net.core.somaxconn allows it
_BATCH: Final = 200  # accepted in one iteration of the loop at most: 3 ms where all of them are refused
_BREATH: Final = 0.01  # seconds between batches while connections are refused: one wake-up for many of them
PAUSE: Final = 1.0  # seconds after accept() has failed, mostly for lack of descriptors
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close() drops what is unsent, and leaves no TIME_WAIT behind

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    address: str
    since: float
    connection: socket.socket


class Places:
    """Who holds how many connections. Of their sockets it asks whether they are open, and shuts some."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` returns seconds."""
        self._now = now
        self._held: list[_Held] = []  # the oldest first

    def take(self, address: str, connection: socket.socket) -> bool:
        """Take a place for a new connection, from another one if necessary. Return whether there was one.

        A connection keeps its place until it is closed at this end, which its transport does once it is lost.
        """
        now = self._now()
        settled = now - LEAST_SECONDS
        self._held = [each for each in self._held if each.since > settled or each.connection.fileno() != -1]
        holders = Counter(each.address for each in self._held)
        own = holders[address]
        if own >= MOST_OF_AN_ADDRESS:
            return False
        if len(self._held) >= MOST_CONNECTIONS:
            most = max(holders.values())
            if most <= own:
                return False
            oldest = next(each for each in self._held if holders[each.address] == most)
            self._held.remove(oldest)
            _shut(oldest.connection)
        self._held.append(_Held(address, now, connection))
        return True


class Listener:
    """Accepts connections on a socket, and hands those that find a place to protocols that `serve` makes."""

    def __init__(self, listening: socket.socket, serve: Callable[[], asyncio.Protocol]) -> None:
        """To be made on the loop that it runs on. It takes over the socket."""
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._serve = serve
        self._places = Places(self._loop.time)
        self._connecting: set[asyncio.Task[object]] = set()
        self._pausing: asyncio.TimerHandle | None = None
        self._failing = False  # whether accept() failed last
        listening.settimeout(0)
        listening.listen(_BACKLOG)
        self._go_on()

    def close(self) -> None:
        """Accept no more. Connections that were accepted stay."""
        self._stop()
        self._listening.close()

    def _go_on(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _stop(self) -> None:
        self._loop.remove_reader(self._listening)
        if self._pausing is not None:
            self._pausing.cancel()

    def _pause(self, seconds: float) -> None:
        self._stop()
        self._pausing = self._loop.call_later(seconds, self._go_on)

    def _accept(self) -> None:
        """Accept what waits, up to a batch: the loop has other work."""
        refused = False
        for _ in range(_BATCH):
            try:
                connection, peer = self._listening.accept()
            except BlockingIOError:
                break
            except ConnectionAbortedError:  # it was reset while it waited
                continue
            except OSError as error:
                self._note_failure(error)
                return
            self._failing = False
            if self._places.take(address_of(peer[0]), connection):
                self._connect(connection)
            else:
                refused = True
                _reset(connection)
                connection.close()
        if refused:
            self._pause(_BREATH)

    def _note_failure(self, error: OSError) -> None:
        """Try again later: the connection that waits would wake the loop again at once."""
        if not self._failing:
            _log.warning("cannot accept connections for health and metrics", extra=fields(error=str(error)))
        self._failing = True
        self._pause(PAUSE)

    def _connect(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._serve, connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)


def address_of(host: str) -> str:
    """The address that counts: IPv4 is one address in either notation.

    Addresses of IPv6 count one by one, not by their /64: in many clusters a node's Pods share it with their kubelet.
    """
    return host.removeprefix("::ffff:")


def _shut(connection: socket.socket) -> None:
    """End a connection at both ends, whoever serves it: reads end, writes fail, and what is unsent is dropped."""
    with suppress(OSError):  # it is closed already
        _reset(connection)
        connection.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
