"""What is done for each kind of fault. Each act takes aim, and then is a context in which the fault is in force."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Final

from tests.chaos.kinds import BOUNDARIES, COMMON, OFF, RETRY_AFTER
from tests.chaos.plan import Planned
from tests.chaos.replicas import Replica, ready
from tests.chaos.stage import Stage
from tests.chaos.verdict import Struck
from tests.support.proxy import ApiProxy
from tests.support.proxy import Fault as WayFault
from tests.support.sandbox import Fault

Aimed = tuple[str, AbstractAsyncContextManager[object]]
"""Whom it hits, and the context in which it is in force."""

_AIM_SECONDS: Final = 15.0  # in which a refresh comes to its boundary, if it can
_API_DELAY: Final = 1.5
_ENDPOINT_DELAY: Final = 4.0  # less than the operator waits for an answer

_REQUESTS: Final[Mapping[str, tuple[str, str]]] = {
    "asks": ("POST", "/token"),
    "given": ("POST", "/token"),
    "writes": ("PATCH", "/secrets/"),
    "written": ("PATCH", "/secrets/"),
    "tells": ("PATCH", "/tuinlycredentials/.*/status"),
    "told": ("PATCH", "/tuinlycredentials/.*/status"),
}
"""By which request a boundary of a refresh is known: those before it swallow it, those after it its answer."""
_BEFORE: Final = frozenset({"asks", "writes", "tells"})


async def strike(stage: Stage, planned: Planned) -> Struck:
    """Let a fault strike, now, and end when it is to."""
    hit, broken = await ACTS[planned.kind](stage, planned)
    at = time.time()
    async with broken:
        await asyncio.sleep(max(0.0, at + planned.seconds - time.time()))
    return Struck(planned.kind, at, time.time(), hit)


# --- Replicas ---------------------------------------------------------------------------------------------------------


async def _kill_leader(boundary: str, stage: Stage, planned: Planned) -> Aimed:
    """Kill the leader as a refresh, which is asked for, comes to a boundary."""
    replica = await stage.leader()
    await replica.lock.acquire()
    way = stage.endpoint if boundary in {"asks", "given"} else stage.ways[replica.name]
    method, path = _REQUESTS[boundary]
    before = boundary in _BEFORE
    fault = way.fault(WayFault(path=path, method=method, times=1, swallowed=before, unanswered=not before))
    with suppress(TimeoutError):  # the API server or the endpoint is away: it is killed all the same
        async with asyncio.timeout(_AIM_SECONDS):
            await stage.force(_name(stage, planned))
            while not fault.met:  # noqa: ASYNC110 -- what it waits for happens in another thread
                await asyncio.sleep(0.01)
    way.end(fault)
    return replica.name, _locked(replica, replica.away())


async def _kill_standby(stage: Stage, _: Planned) -> Aimed:
    replica = await stage.standby()
    await replica.lock.acquire()
    return replica.name, _locked(replica, replica.away())


async def _stop(which: Callable[[Stage], Awaitable[Replica]], stage: Stage, _: Planned) -> Aimed:
    replica = await which(stage)
    await replica.lock.acquire()
    return replica.name, _locked(replica, replica.stopped())


@asynccontextmanager
async def _locked(replica: Replica, inner: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
    """Hold a replica's lock, which is held already, until what is done to it is over."""
    try:
        async with inner:
            yield
    finally:
        replica.lock.release()


async def _roll_out(stage: Stage, _: Planned) -> Aimed:
    """Replace both replicas, one after the other, by those of the version that does not run now."""

    @asynccontextmanager
    async def rolling() -> AsyncIterator[None]:
        for replica in stage.replicas:
            async with replica.lock:
                old, replica.package = replica.process, None if replica.package else stage.other
                await asyncio.to_thread(ready, replica.start())
                await asyncio.to_thread(old.terminate)
        yield

    return COMMON, rolling()


async def _set_clock(seconds: float, stage: Stage, planned: Planned) -> Aimed:
    replica = stage.replicas[int(planned.chance * len(stage.replicas))]

    @asynccontextmanager
    async def wrong() -> AsyncIterator[None]:
        if replica.clock is None:
            raise RuntimeError("there is no libfaketime")
        replica.clock.set(seconds)
        try:
            yield
        finally:
            replica.clock.set(0)

    return replica.name, wrong()


# --- Servers, and the ways to them ------------------------------------------------------------------------------------


async def _kill_apiserver(stage: Stage, _: Planned) -> Aimed:
    cluster = stage.stand.cluster
    return COMMON, _between(cluster.stop_apiserver, cluster.start_apiserver)


async def _kill_etcd(stage: Stage, _: Planned) -> Aimed:
    cluster = stage.stand.cluster
    return COMMON, _between(cluster.stop_etcd, cluster.start_etcd)


async def _break_way(
    which: Callable[[Stage], Awaitable[Replica]], act: Callable[[ApiProxy], None], stage: Stage, _: Planned
) -> Aimed:
    replica = await which(stage)
    way = stage.ways[replica.name]
    return replica.name, _between(partial(act, way), way.pass_on)


async def _fail_writes(stage: Stage, planned: Planned) -> Aimed:
    replica = await stage.leader()
    way = stage.ways[replica.name]
    status = (429, 500, 503)[int(planned.chance * 3)]
    fault = WayFault(path="/namespaces/", method="PATCH", status=status, headers={"Retry-After": "2"})
    return replica.name, _between(lambda: way.fault(fault), lambda: way.end(fault))


async def _break_endpoint(act: Callable[[ApiProxy], None], stage: Stage, _: Planned) -> Aimed:
    return COMMON, _between(partial(act, stage.endpoint), stage.endpoint.pass_on)


async def _answer(fault: Fault, stage: Stage, _: Planned) -> Aimed:
    admin = stage.stand.sandbox.admin
    return COMMON, _between(partial(admin.fault, fault), admin.clear_faults)


@asynccontextmanager
async def _between(begin: Callable[[], object], end: Callable[[], object]) -> AsyncIterator[None]:
    """Do one thing before, and another one afterwards, in threads: both may take a while."""
    await asyncio.to_thread(begin)
    try:
        yield
    finally:
        await asyncio.to_thread(end)


# --- People -----------------------------------------------------------------------------------------------------------


def _name(stage: Stage, planned: Planned) -> str:
    """The credential that a fault is about."""
    return stage.shop.name(int(planned.chance * stage.shop.size))


def _person(act: Callable[[Stage, str], Awaitable[None]]) -> "Act":
    """What a person does at once to one credential."""

    async def aim(stage: Stage, planned: Planned) -> Aimed:
        name = _name(stage, planned)

        @asynccontextmanager
        async def acting() -> AsyncIterator[None]:
            await act(stage, name)
            yield

        return name, acting()

    return aim


async def _rotate(stage: Stage, planned: Planned) -> Aimed:
    """Rotate a client's secret: at the endpoint first, or in the cluster first; one rotation at a time."""
    name, secret = _name(stage, planned), secrets.token_urlsafe(24)
    first, second = stage.shop.rotate_at_endpoint, stage.rotate_in_cluster
    if int(planned.chance * 1000) % 2:
        first, second = second, first

    @asynccontextmanager
    async def rotating() -> AsyncIterator[None]:
        try:
            await first(name, secret)
            yield
            await second(name, secret)
        finally:
            stage.rotating[name].release()

    await stage.rotating[name].acquire()
    return name, rotating()


Act = Callable[[Stage, Planned], Awaitable[Aimed]]
_FAIL: Final = {
    "endpoint answers 500": Fault(kind="fail"),
    "endpoint answers 503": Fault(kind="fail", status=503),
    "endpoint answers 429": Fault(kind="throttle", retry_after=RETRY_AFTER),
    "endpoint answers garbage": Fault(kind="answer", answer="not_json"),
    "endpoint hangs": Fault(kind="hang"),
    "endpoint resets": Fault(kind="reset", processed=True),
    "endpoint slow": Fault(kind="slow", seconds=_ENDPOINT_DELAY),
}

ACTS: Final[Mapping[str, Act]] = {
    **{f"leader killed: {boundary}": partial(_kill_leader, boundary) for boundary in BOUNDARIES},
    "leader stopped": partial(_stop, Stage.leader),
    "standby killed": _kill_standby,
    "standby stopped": partial(_stop, Stage.standby),
    "rollout": _roll_out,
    "clock ahead": partial(_set_clock, OFF),
    "clock behind": partial(_set_clock, -OFF),
    "API server killed": _kill_apiserver,
    "etcd killed": _kill_etcd,
    "API server cut, for the leader": partial(_break_way, Stage.leader, ApiProxy.cut),
    "API server swallows, for the leader": partial(_break_way, Stage.leader, ApiProxy.swallow),
    "API server slow, for the leader": partial(_break_way, Stage.leader, partial(ApiProxy.delay, seconds=_API_DELAY)),
    "API server fails writes, for the leader": _fail_writes,
    "API server cut, for the standby": partial(_break_way, Stage.standby, ApiProxy.cut),
    "API server swallows, for the standby": partial(_break_way, Stage.standby, ApiProxy.swallow),
    **{kind: partial(_answer, fault) for kind, fault in _FAIL.items()},
    "endpoint cut": partial(_break_endpoint, ApiProxy.cut),
    "endpoint swallows": partial(_break_endpoint, ApiProxy.swallow),
    "target spoilt": _person(Stage.spoil),
    "target deleted": _person(Stage.delete),
    "client secret rotated": _rotate,
    "exchange asked for": _person(Stage.force),
}
"""What is done for each kind."""
