"""What chaos has for a stage: control plane, sandbox and two replicas, proxies between them, and credentials."""

import asyncio
import base64
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from bench.api import Json
from bench.stand import Fleet, Narrator, Stand, standing
from tests.chaos.replicas import Replica, leader, placed
from tests.support.acts import FORCE
from tests.support.other_version import other_version
from tests.support.proxy import ApiProxy
from tests.support.sandbox import Client

NAMES: Final = ("a", "b")
"""Of the replicas."""
NAMESPACE: Final = "chaos"
_REQUEST_SECONDS: Final = 10.0  # for one request of a person
_PAUSE: Final = 0.5  # between two tries of the same
_PATIENCE: Final = 180.0  # until one has worked

WAYS: Final[tuple[Json, ...]] = (
    {},
    {"rotates_refresh_tokens": True},
    {"rotates_refresh_tokens": True, "revokes_previous_on": ("client_credentials", "refresh_token")},
    {"refreshes": "invalid_grant"},
)
"""How the server treats its clients, in turn: as Tuinly does, with rotation, with revocation besides, refusing."""


@dataclass
class Shop(Fleet):
    """Credentials whose tokens live differently long, each as its number tells."""

    lifetimes: tuple[float, float] = (240.0, 600.0)

    def client(self, number: int) -> Client:
        """The client of this number: how long its tokens live, and the server's ways with it, are its own."""
        lifetime = Random(number).uniform(*self.lifetimes)  # noqa: S311 -- the same each time
        return replace(super().client(number), lifetime=float(round(lifetime)), **WAYS[number // 2 % len(WAYS)])

    async def grow(self, count: int, seconds: float) -> None:
        """Create credentials until there are as many, over so many seconds, some at a time."""
        loop = asyncio.get_running_loop()
        begun, steps = loop.time(), 10
        for step in range(1, steps + 1):
            await self.start(count * step // steps)
            await asyncio.sleep(begun + seconds * step / steps - loop.time())


@dataclass
class Stage:
    """All of it, and what people and accidents do to it.

    Attributes:
        ways: each replica's way to the API server, by its name.
        endpoint: the way to the token endpoint, for both replicas.
        other: a folder with another version of the operator.
        rotating: held by who rotates the secret of a client.
    """

    stand: Stand
    shop: Shop
    ways: Mapping[str, ApiProxy]
    endpoint: ApiProxy
    replicas: Sequence[Replica]
    other: Path
    rotating: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def leader(self) -> Replica:
        """Return the replica that leads, or, where none does, the one of which that was said last."""
        return await asyncio.to_thread(leader, self.replicas) or self.replicas[0]

    async def standby(self) -> Replica:
        """Return the other one."""
        leads = await self.leader()
        return next(replica for replica in self.replicas if replica is not leads)

    # What people do: each does it until it has worked, since the API server may be away. ------------------------------

    async def spoil(self, name: str) -> None:
        """Put something else in the place of a token."""
        data = {"access_token": base64.b64encode(b"spoilt").decode()}
        await patiently(lambda: self.stand.api.merge(f"{self.shop.secrets}/{name}-token", {"data": data}))

    async def delete(self, name: str) -> None:
        """Delete a target."""
        await patiently(lambda: self.stand.api.send("DELETE", f"{self.shop.secrets}/{name}-token"))

    async def force(self, name: str) -> None:
        """Ask for an exchange."""
        patch = {"metadata": {"annotations": {FORCE: secrets.token_hex(4)}}}
        await patiently(lambda: self.stand.api.merge(f"{self.shop.credentials}/{name}", patch))

    async def rotate_in_cluster(self, name: str, secret: str) -> None:
        """Give a client Secret another content."""
        await patiently(lambda: self.shop.rotate_in_cluster(name, secret))


async def patiently(act: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Do something until the API server has taken it.

    Raises:
        TimeoutError: it does not within a time in which it surely should have come back.
    """
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    await act()
                    return
            except (aiohttp.ClientError, TimeoutError, RuntimeError, ValueError):
                await asyncio.sleep(_PAUSE)


@asynccontextmanager
async def staged(tell: Narrator, lifetimes: tuple[float, float]) -> AsyncIterator[Stage]:
    """Set the stage for as long as the context lasts, for tokens that live so long; nothing runs yet that uses them."""
    async with standing(tell) as stand:
        with ExitStack() as parts:
            cluster, sandbox = stand.cluster, stand.sandbox
            ways = {
                name: parts.enter_context(ApiProxy(cluster.server, cluster.ca_file, cluster.directory / f"way-{name}"))
                for name in NAMES
            }
            token_url = urlsplit(sandbox.https_token_url)
            upstream = f"{token_url.scheme}://{token_url.netloc}"
            endpoint = parts.enter_context(ApiProxy(upstream, sandbox.ca_file, cluster.directory / "way-endpoint"))
            flags = ["--token-url", endpoint.url + token_url.path, "--ca-bundle", str(endpoint.ca_file)]
            logins = {name: way.kubeconfig(stand.login) for name, way in ways.items()}
            replicas = parts.enter_context(placed(cluster.directory, logins, flags, clocks=True))
            other = other_version(cluster.directory / "other")
            yield Stage(stand, Shop(stand, NAMESPACE, lifetimes=lifetimes), ways, endpoint, replicas, other)
