"""A replica of the real operator, with what it meets replaced: the credential watch, and what is below both clients."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import lru_cache, partial
from random import Random
from typing import Any, Final

import aiohttp
from kubernetes.aio import client

from tests.simulation.loop import PROCESS, Process, SimulatedLoop
from tests.simulation.wire import API, Machine, Network, Rest, Transport
from tuinly_operator.base.clock import Moment
from tuinly_operator.base.iterations import Iterations
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.settings import Settings, parse_settings
from tuinly_operator.base.surroundings import Surroundings
from tuinly_operator.domain.credential import GROUP, PLURAL, VERSION
from tuinly_operator.edges.credential_watch import CredentialWatch
from tuinly_operator.edges.kube import ApiFailure, Kube
from tuinly_operator.edges.kube.requests import collection, lines
from tuinly_operator.edges.oauth import TokenEndpoint
from tuinly_operator.engine.leadership import Leadership
from tuinly_operator.operator import Doors, Operator

TOKEN_URL: Final = "https://oauth.example.com/token"
OTHER_URL: Final = "https://oauth.example.org/token"
GRAPHQL_URL: Final = "https://graphql.example.com/graphql"
SYSTEM: Final = "tuinly-system"  # where the Leases are
SHARD: Final = "example.com/shard"  # the label by which credentials are shared out
_WATCH_SECONDS: Final = 290  # as kopf asks for
_LONGEST_BACKOFF: Final = 5.0
_SLOW_WORKERS: Final = 0.1  # the part of events that a worker of kopf takes its time for


@dataclass(frozen=True, slots=True)
class Shard:
    """Which credentials a group of replicas serves, and the Lease by which they agree."""

    name: str
    selector: str
    namespaces: tuple[str, ...] = ()

    @property
    def lease(self) -> NamespacedName:
        """Its Lease."""
        return NamespacedName(SYSTEM, f"tuinly-operator-{self.name}")

    def settings(self) -> Settings:
        """The settings of its replicas."""
        return _settings(self)


@lru_cache
def _settings(shard: Shard) -> Settings:
    named = {
        "TUINLY_TOKEN_URL": TOKEN_URL,
        "TUINLY_GRAPHQL_URL": GRAPHQL_URL,
        "TUINLY_ALLOWED_TOKEN_URLS": OTHER_URL,
        "TUINLY_LEASE": str(shard.lease),
        "TUINLY_SELECTOR": shard.selector,
        "TUINLY_NAMESPACES": ",".join(shard.namespaces),
    }
    return parse_settings(["run"], {name: value for name, value in named.items() if value})


@dataclass
class SimulatedClock:
    """The two clocks of a machine: each drifts, and the wall clock can be set."""

    loop: SimulatedLoop
    epoch: float
    booted: float  # seconds on the boot clock when the history begins
    ahead: float = 0.0  # of the true time
    drift: float = 0.0  # of the boot clock, a part of the time that passes
    wall_drift: float = 0.0
    _since: float = field(default=0.0)

    def now(self) -> Moment:
        """Read both clocks."""
        t = self.loop.time()
        wall = self.epoch + t + self.ahead + (t - self._since) * self.wall_drift
        return Moment(wall, self.booted + t * (1 + self.drift))

    def set_wall(self, ahead: float, drift: float = 0.0) -> None:
        """Set the wall clock to so many seconds ahead of the true time; from now on it drifts."""
        self._since, self.ahead, self.wall_drift = self.loop.time(), ahead, drift


class Replica(Process):
    """One run of the operator on a machine."""

    def __init__(
        self, name: str, machine: Machine, clock: SimulatedClock, network: Network, shard: Shard, chance: Random
    ) -> None:
        """Nothing runs before `begin`."""
        super().__init__(name)
        self.machine = machine
        self.clock = clock
        self.shard = shard
        self.ended = False
        self.begun_at = network.loop.time()
        self.operator: Operator
        self._network = network
        self._chance = chance
        self._end: asyncio.Event

    @property
    def runs(self) -> bool:
        """Whether it takes steps."""
        return not (self.stopped or self.crashed or self.ended)

    @property
    def leadership(self) -> Leadership:
        """Its lead."""
        return self.operator._leadership  # noqa: SLF001 -- what it goes by

    @property
    def leads(self) -> bool:
        """Whether it believes to lead, and by its own clock may."""
        return not self.crashed and not self.ended and hasattr(self, "operator") and self.leadership.holds()

    def begin(self) -> None:
        """Start the program."""
        context = Context()
        context.run(PROCESS.set, self)
        self._task = self._network.loop.create_task(self._run(), context=context)

    def terminate(self) -> None:
        """SIGTERM."""
        context = Context()
        context.run(PROCESS.set, self)
        self._network.loop.call_soon(self._end.set, context=context)

    async def _run(self) -> None:
        self._end = asyncio.Event()
        surroundings = Surroundings(self.clock, self._chance, self.machine.name, Iterations(lambda: 0.0, lambda: 0.0))
        doors = Doors(
            api=self._connect,
            endpoint=partial(TokenEndpoint, transport=Transport(self._network, self)),
            credentials=partial(DirectWatch, api=self._api_of_kopf),
            health=_NoHealth,  # type: ignore[arg-type]  # as far as it is asked
        )
        self.operator = Operator(self.shard.settings(), surroundings, doors)
        await self.operator.start()
        try:
            await self.operator.work_until(self._end)
        finally:
            await self.operator.close()
        self.ended = True

    async def _connect(self, _kubeconfig: object, selector: str, leadership: Leadership, **told: Any) -> Kube:  # noqa: ANN401 -- as the real one is told
        del told["clock"]  # for logins, of which there are none here
        return Kube(_configuration(), selector, leadership, rest=partial(Rest, self._network, self), **told)

    def _api_of_kopf(self, selector: str) -> Kube:
        """The connection that kopf has for itself."""
        return Kube(
            _configuration(),
            selector,
            self.leadership,
            reachable=lambda _: None,
            pace=lambda _, __: None,
            rest=partial(Rest, self._network, self),
        )


@lru_cache(maxsize=1)
def _configuration() -> client.Configuration:
    configuration = client.Configuration()
    configuration.host = API
    return configuration


class _NoHealth:
    """No health server."""

    def __init__(self, listen: tuple[str, int], **_asked: object) -> None:
        self._listen = listen

    async def start(self) -> tuple[str, int]:
        return self._listen

    async def stop(self) -> None:
        pass


class DirectWatch(CredentialWatch):
    """The credential watch without kopf: it watches as kopf does, on the operator's own loop.

    Like kopf it does not say what went while it was not looking, and has a worker for each uid: what is told of one
    comes in order, what is told of two in any.
    """

    def __init__(self, *args: Any, api: Callable[[str], Kube], selector: str, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*args, selector=selector, **options)
        self._api = api(selector)
        self._told: dict[str, deque[tuple[str, Mapping[str, Any]]]] = {}  # by uid
        self._workers: set[asyncio.Task[None]] = set()

    async def _watch(self, namespaces: Sequence[str | None]) -> None:
        """List and watch until it is to start anew."""
        again = asyncio.Event()
        self._restarting, self._stop = False, again.set
        self.watched = namespaces
        self._begun()
        others = asyncio.create_task(self._await_others(set(self._namespaces) - set(namespaces)))
        tasks = [asyncio.create_task(each) for each in (again.wait(), *map(self._follow, namespaces))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (others, *tasks, *self._workers):
                task.cancel()
            self._told.clear()

    def _hand_on(self, kind: str, raw: Mapping[str, Any]) -> None:
        """Have the worker for an object's uid tell of it."""
        uid = raw["metadata"]["uid"]
        if uid in self._told:
            self._told[uid].append((kind, raw))
            return
        self._told[uid] = deque([(kind, raw)])
        worker = asyncio.create_task(self._work_off(uid))
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _work_off(self, uid: str) -> None:
        told = self._told[uid]
        while told:
            if self._chance.uniform(0.0, 1.0) < _SLOW_WORKERS:
                await asyncio.sleep(self._chance.uniform(0.0, 0.5))
            self._hear(*told.popleft())
        if self._told.get(uid) is told:
            del self._told[uid]

    async def _follow(self, namespace: str | None) -> None:
        backoff = 0.25
        while True:
            try:
                version = await self._list(namespace)
                self.alive = True
                backoff = 0.25
                while version:
                    version = await self._listen(namespace, version)
            except ApiFailure as failure:
                if failure.not_found:
                    raise  # the one failure that kopf does not try again
                await asyncio.sleep(self._chance.uniform(0.1, backoff))
                backoff = min(_LONGEST_BACKOFF, backoff * 2)

    async def _listen(self, namespace: str | None, version: str) -> str:
        """Watch from a version on; return where to go on, empty for a new list. Raises ApiFailure."""
        query = {
            "watch": "true",
            "labelSelector": self._selector,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        path = collection(f"/apis/{GROUP}/{VERSION}", namespace, PLURAL)
        try:
            async for event in self._events(path, query):
                if event["type"] == "ERROR":
                    return ""
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._hand_on(event["type"], event["object"])
        except ApiFailure as failure:
            if failure.status is not None:
                raise
            await asyncio.sleep(self._chance.uniform(0.1, 0.5))
        await asyncio.sleep(0.1)
        return version

    async def _events(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        limit = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=self._kube.silence)
        async with self._api.send("GET", path, query, limit=limit) as response:
            async for line in lines(response):
                yield json.loads(line)
