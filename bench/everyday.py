"""Scenarios of every day: first tokens, a restart, rest, steady refreshes, and what people do to a credential."""

import asyncio
import base64
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any

from bench.measures import Process, quantile
from bench.report import Figure
from bench.run import (
    CPU_CREATE,
    CPU_REFRESH,
    CPU_RESTART,
    PACE,
    RSS,
    WALL_CREATE,
    Figures,
    Run,
    fresh,
    measured,
    pace_of,
    paced,
    restarted,
    started,
)
from bench.stand import Fleet, moment

FEW = 1000
"""Credentials with which many are compared."""
STEADY_SECONDS = 40.0
IDLE_SECONDS = 60.0
RATES = (75, 100, 125, 150, 175, 200, 250, 300, 400)
"""Refreshes per second that are tried, until one is not kept up with."""
RATE_SECONDS = 20.0
ON_TIME = 2.5
"""Seconds after its due time at which a refresh is published at the latest, to count as kept up with. The shortest lead
in these runs is over 4 s; where tokens live for an hour, it is 20 minutes."""
REPAIRS = 100
"""Samples of each kind."""
_SETTLED = 6.0  # seconds after an exchange: the least interval until the next is over


async def first_tokens(run: Run) -> Figures:
    """Credentials applied all at once, with client Secrets that are there: until all are ready."""
    stand, fleet = run.stand, run.stand.fleet
    if fleet.size:
        return  # a scenario that was run before this one has started them
    await asyncio.to_thread(stand.stop_operator)
    operator = Process((await stand.start_operator()).pid)
    await stand.at_rest(operator)
    run.empty_rss = operator.rss
    yield Figure("memory, idle", 0, run.empty_rss, "MB")
    limits, costs = {1000: 10.0, 5000: 50.0}, []
    for size in _batches(run.count):
        await fleet.prepare(fleet.size + size)
        await stand.at_rest(operator)
        before = await stand.snapshot()
        wall = await fleet.start(fleet.size + size)
        await stand.at_rest(operator)
        window = await stand.since(before)
        cpu = window.cpu["operator"] * 1000 / size
        details = {"api_requests": dict(window.api), "cpu": dict(window.cpu), "seconds": window.seconds}
        yield Figure("create → ready, all at once", size, wall, "s", most=limits.get(size), details=details)
        yield Figure("operator CPU per credential, create → ready", size, cpu, "ms", details=details)
        if run.bare_create is not None:
            multiple = cpu / run.bare_create
            yield Figure("… as a multiple of the bare loop", size, multiple, "×", most=4.0, details={"aim": 2.5})
        costs.append(cpu)
        run.bar(CPU_CREATE, "operator", size, cpu)
        run.bar(WALL_CREATE, "operator", size, wall)
    if len(costs) > 1:
        yield Figure(f"growth of it, from the first {FEW:,} on", fleet.size, costs[-1] / costs[0], "×", most=1.15)


def _batches(count: int) -> list[int]:
    """1,000 and 5,000 at once where there are as many, then the rest."""
    batches: list[int] = []
    for size in (1000, 5000):
        if sum(batches) + size <= count:
            batches.append(size)
    rest = count - sum(batches)
    return [*batches, rest] if rest else batches


async def restart(run: Run) -> Figures:
    """The operator starts where all tokens are fresh."""
    await fresh(run)
    start = await restarted(run.stand)
    size = run.count
    yield Figure("restart, all fresh: until all are scheduled", size, start.seconds, "s", most=8.0)
    yield Figure("restart: CPU", size, start.cpu, "s", most=6.0)
    asked = start.window
    details = {"api_requests": dict(asked.api)}
    yield Figure("restart: token requests", size, asked.token_requests, "", most=0)
    yield Figure("restart: writes", size, asked.writes, "", most=0, details=details)
    yield Figure("restart: reads beyond the lists", size, asked.reads, "", most=0, details=details)
    yield Figure("restart: peak memory", size, start.peak, "MB", most=230.0)
    yield Figure("memory, idle", size, start.rss, "MB", most=180.0)
    if run.empty_rss is not None:
        yield Figure("memory per credential", size, (start.rss - run.empty_rss) * 1000 / size, "kB")
    run.bar(CPU_RESTART, "operator", size, start.cpu)
    run.bar(RSS, "operator", size, start.rss)


async def idle(run: Run) -> Figures:
    """Nothing is due."""
    await fresh(run)
    operator = Process((await run.stand.start_operator()).pid)
    await run.stand.at_rest(operator)
    before, begun = operator.cpu, time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    share = (operator.cpu - before) / (time.monotonic() - begun) * 100
    yield Figure("idle CPU, nothing due", run.count, share, "% of a core", most=0.5)


async def few(run: Run) -> Figures:
    """Steady refreshes of few credentials, for comparison, where there are to be many."""
    stand, fleet = run.stand, run.stand.few
    if run.count <= FEW or stand.fleet.size:
        return
    await stand.start_operator()
    await fleet.start(FEW)
    await paced(stand, fleet, PACE)
    window = await measured(stand, STEADY_SECONDS)
    run.few_refresh = window.cpu["operator"] * 1000 / window.published
    yield Figure("operator CPU per steady refresh", FEW, run.few_refresh, "ms", details={"cpu": dict(window.cpu)})
    run.bar(CPU_REFRESH, "operator", FEW, run.few_refresh)
    await fleet.delete()


async def steady(run: Run) -> Figures:
    """Refreshes spread evenly, as in every-day life but more of them."""
    stand = run.stand
    await started(run)
    await paced(stand, stand.fleet, pace_of(run.count))
    window = await measured(stand, STEADY_SECONDS)
    size, refreshes = stand.fleet.size, window.published
    cpu = window.cpu["operator"] * 1000 / refreshes
    details = {"api_requests": dict(window.api), "refreshes": refreshes, "cpu": dict(window.cpu)}
    yield Figure("writes per steady refresh", size, window.writes / refreshes, "", most=2.05, details=details)
    yield Figure("reads per steady refresh", size, window.reads / refreshes, "", most=0, details=details)
    yield Figure("token requests per steady refresh", size, window.token_requests / refreshes, "", most=1.05)
    yield Figure("operator CPU per steady refresh", size, cpu, "ms", details=details)
    if run.bare_refresh is not None:
        multiple = cpu / run.bare_refresh
        yield Figure("… as a multiple of the bare loop", size, multiple, "×", most=3.0, details={"aim": 2.0})
    if run.few_refresh is not None:
        yield Figure(f"growth of it, against {FEW:,}", size, cpu / run.few_refresh, "×", most=1.15)
    yield Figure("refreshes per second that one core could do", size, 1000 / cpu, "/s")
    for share, name in ((0.5, "p50"), (0.99, "p99"), (1.0, "max")):
        yield Figure(f"due → published, {name}, at most", size, window.lateness.bound(share), "s")
    run.bar(CPU_REFRESH, "operator", size, cpu)


async def highest_rate(run: Run) -> Figures:
    """The rate is raised until refreshes come late."""
    stand, best, limit = run.stand, 0.0, None
    await started(run)
    for rate in (rate for rate in RATES if rate <= run.count / _SETTLED):
        await paced(stand, stand.fleet, rate)
        window = await measured(stand, RATE_SECONDS)
        achieved = window.published / window.seconds
        late = window.lateness.bound(1.0)
        stand.tell(f"asked for {rate}/s: {achieved:.0f}/s, the latest within {late:g} s")
        limit = window
        if late > ON_TIME:
            break
        best = achieved
    if limit is None:
        return  # too few credentials for even the lowest
    shares = {name: round(used / limit.seconds * 100) for name, used in limit.cpu.items()}
    details = {"cpu_percent_at_the_last_rate": shares, "lateness": dict(limit.lateness.buckets)}
    yield Figure(
        "highest sustained refresh rate, none late", stand.fleet.size, best, "/s", least=100.0, details=details
    )
    for name, share in shares.items():
        run.bar("CPU at the last rate that was tried (% of a core)", name, run.count, share)


async def repairs(run: Run) -> Figures:
    """What people do to a credential, one at a time, while the others are refreshed."""
    stand = run.stand
    await started(run)
    await paced(stand, stand.fleet, pace_of(run.count))
    for what, repair in (
        ("changed client Secret", _change_client),
        ("deleted target", _delete_target),
        ("changed spec", _change_spec),
    ):
        stand.tell(f"{REPAIRS} times: {what}")
        times = [await repair(stand.fleet, await _settled(stand.fleet)) for _ in range(REPAIRS)]
        for share, name, most in ((0.5, "p50", None), (0.99, "p99", 1.0)):
            yield Figure(f"{what} → repaired target, {name}", run.count, quantile(times, share), "s", most=most)


async def _settled(fleet: Fleet) -> str:
    """Choose a credential that has not just been refreshed, which it may not be again so soon, and is not just due."""
    while True:
        name = fleet.name(secrets.randbelow(fleet.size))
        found = await fleet.stand.api.send("GET", f"{fleet.secrets}/{name}-token")
        age, due = time.time() - moment(found["metadata"], "issued-at"), moment(found["metadata"], "next-refresh")
        if age > _SETTLED and due - time.time() > 2 * ON_TIME:
            return name


async def _change_client(fleet: Fleet, name: str) -> float:
    """Rotate the client's secret at the endpoint, and tell its Secret."""
    stand = fleet.stand
    new = await asyncio.to_thread(stand.sandbox.admin.rotate_secret, name, secrets.token_urlsafe(24))
    fleet.rotated[name] = new
    patch = {"data": {"client_secret": base64.b64encode(new.encode()).decode()}}
    return await _seconds_until(
        fleet, name, lambda: stand.api.merge(f"{fleet.secrets}/{name}-client", patch), "client-secret-version"
    )


async def _delete_target(fleet: Fleet, name: str) -> float:
    api, path = fleet.stand.api, f"{fleet.secrets}/{name}-token"
    old = (await api.send("GET", path))["metadata"]["uid"]
    return await api.seconds_until(
        fleet.secrets, f"{name}-token", lambda: api.send("DELETE", path), lambda meta: bool(meta["uid"] != old)
    )


async def _change_spec(fleet: Fleet, name: str) -> float:
    """Ask for other scopes: all, or one by name."""
    api, path = fleet.stand.api, f"{fleet.credentials}/{name}"
    asked = (await api.send("GET", path))["spec"].get("scopes")
    patch = {"spec": {"scopes": None if asked else ["orders:read"]}}
    return await _seconds_until(fleet, name, lambda: api.merge(path, patch), "exchange-inputs")


async def _seconds_until(
    fleet: Fleet, name: str, change: Callable[[], Coroutine[Any, Any, object]], annotation: str
) -> float:
    """Make a change; return the seconds until the target's annotation differs."""
    api, note = fleet.stand.api, f"tuinly.com/{annotation}"
    old = (await api.send("GET", f"{fleet.secrets}/{name}-token"))["metadata"]["annotations"][note]
    return await api.seconds_until(
        fleet.secrets, f"{name}-token", change, lambda meta: bool(meta["annotations"].get(note) != old)
    )
