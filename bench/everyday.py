"""Scenarios of every day: first tokens, a restart, rest, steady refreshes, and what people do to a credential."""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from bench.measures import Process, quantile
from bench.report import Figure
from bench.run import (
    CPU_CREATE,
    CPU_REFRESH,
    CPU_RESTART,
    MANY,
    PACE,
    RSS,
    STEADY_SECONDS,
    WALL_CREATE,
    Figures,
    Run,
    bound,
    fresh,
    measured,
    most_memory,
    pace_of,
    paced,
    pages,
    patience,
    restarted,
    servers_cpu,
    started,
)
from bench.stand import RESTS, Fleet, Stand, Window, mean_interval, moment
from tests.support.operator import OperatorProcess
from tuinly_operator.edges.kube import CREDENTIALS_PAGE, PAGE

FEW = 1000
"""Credentials with which many are compared."""
IDLE_SECONDS = 60.0
SCRAPES = 10
SCRAPE_INTERVAL = 30.0
"""Seconds between two scrapes, by deploy/monitoring/servicemonitor.yaml."""
STANDBY_SECONDS = 20.0
SLOW = 1000
"""Credentials that are refreshed seldom."""
SLOW_RATES: Mapping[float, float | None] = {23.0: 2.6, 5.0: None}
"""Refreshes per second at which few come together, and the multiple of the bare loop that each may cost."""
HOUR = 3600.0  # seconds that a token lives which a real endpoint gives
HOUR_INTERVAL = 200.0
"""Seconds between two refreshes of a credential that stands for many with tokens of an hour."""
HOUR_SECONDS = 600.0
RATES = (100, 125, 150, 175, 200, 250, 300, 400)
"""Refreshes per second that are tried, until one is not kept up with."""
RATE_SECONDS = 20.0
RATE_CREDENTIALS = 3000
"""Enough for each rate: no credential is refreshed oftener than every 7 s. Few enough for a round to take seconds."""
KEPT = 0.95
"""Share of the refreshes asked for that must come, to count as kept up with: else more and more wait."""
ON_TIME = 2.5
"""Seconds after its due time at which a refresh is published at the latest, to count as kept up with. The shortest lead
in these runs is over 4 s; where tokens live for an hour, it is 20 minutes."""
REPAIRS = 100
"""Samples of each kind."""
_SETTLED = 6.0  # seconds after an exchange: the least interval until the next is over
_WARM = 5.0  # seconds after which a replica that is ready has digested what it listed
_EDGES = 0.05  # requests per refresh beyond what is allowed: of those under way at the window's ends a part is counted


async def first_tokens(run: Run) -> Figures:
    """Credentials applied all at once, with client Secrets that are there: until all are ready."""
    stand, fleet = run.stand, run.stand.fleet
    if fleet.size:
        return  # a scenario that was run before this one has started them
    await asyncio.to_thread(stand.stop_operator)
    operator = Process((await stand.start_operator()).pid)
    await stand.at_rest(operator)
    run.empty_rss = operator.rss
    yield Figure("start, nothing there: CPU", 0, operator.cpu, "s", most=0.45)
    yield Figure("memory, idle", 0, run.empty_rss, "MB", most=75.0)
    limits, costs = {1000: 8.0, 5000: 36.0}, []
    for size in batches(run.count):
        await fleet.prepare(fleet.size + size)
        await stand.at_rest(operator)
        before = await stand.snapshot()
        wall = await fleet.start(fleet.size + size)
        await stand.at_rest(operator, patience(size))
        window = await stand.since(before)
        cpu = window.cpu["operator"] * 1000 / size
        details = {"api_requests": dict(window.api), "cpu": dict(window.cpu), "seconds": window.seconds}
        yield Figure("create → ready, all at once", size, wall, "s", most=limits.get(size), details=details)
        yield Figure("operator CPU per credential, create → ready", size, cpu, "ms", most=3.0, details=details)
        asked = sum(window.api.values()) / size
        yield Figure("… API requests, with the Event", size, asked, "", most=4 + _EDGES, details=details)
        if run.bare_create is not None:
            multiple = cpu / run.bare_create
            yield Figure("… as a multiple of the bare loop", size, multiple, "×", most=2.5)
        costs.append(cpu)
        run.bar(CPU_CREATE, "operator", size, cpu)
        run.bar(WALL_CREATE, "operator", size, wall)
    if len(costs) > 1:
        first = batches(run.count)[0]
        yield Figure(f"growth of it, from the first {first:,} on", fleet.size, costs[-1] / costs[0], "×", most=1.15)
    rss = operator.rss
    yield Figure("memory, idle, after first tokens", run.count, rss, "MB", most=most_memory(run.count))
    run.bar(RSS, "operator", run.count, rss)


def batches(count: int) -> list[int]:
    """1,000 and 5,000 at once where there are as many, the latter alone where not both fit; then the rest."""
    found: list[int] = []
    for size in (1000, 5000) if count >= 1000 + 5000 else (5000, 1000):
        if sum(found) + size <= count:
            found.append(size)
    rest = count - sum(found)
    return [*found, rest] if rest else found


async def restart(run: Run) -> Figures:
    """The operator starts where all tokens are fresh."""
    await fresh(run)
    start = await restarted(run.stand)
    size = run.count
    yield Figure("restart, all fresh: until all are scheduled", size, start.seconds, "s", most=bound(size, 4.0, 60.0))
    yield Figure("restart: CPU", size, start.cpu, "s", most=bound(size, 4.0))
    asked = start.window
    details = {"api_requests": dict(asked.api)}
    yield Figure("restart: token requests", size, asked.token_requests, "", most=0)
    yield Figure("restart: writes", size, asked.writes, "", most=0, details=details)
    yield Figure("restart: reads beyond the lists", size, asked.reads, "", most=0, details=details)
    yield Figure(
        f"restart: lists (pages of {PAGE}; of {CREDENTIALS_PAGE} for credentials)",
        size,
        asked.lists,
        "",
        most=start.lists,
        details=details,
    )
    yield Figure("restart: peak memory", size, start.peak, "MB", most=bound(size, 230.0, 800.0))
    yield Figure("memory, idle, after a restart", size, start.rss, "MB", most=most_memory(size))
    if run.empty_rss is not None:
        yield Figure("memory per credential", size, (start.rss - run.empty_rss) * 1000 / size, "kB")
    run.bar(CPU_RESTART, "operator", size, start.cpu)


async def idle(run: Run) -> Figures:
    """Nothing is due, and then /metrics is scraped.

    Idle has the watches, the timers and the Lease in it. The list of the credentials every ten minutes falls out of
    the window, and is not measured: it is one of the three that a restart's CPU has in it.
    """
    await fresh(run)
    replica = await run.stand.start_operator()
    operator = Process(replica.pid)
    await run.stand.at_rest(operator)
    before, begun = operator.cpu, time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    share = (operator.cpu - before) / (time.monotonic() - begun) * 100
    yield Figure("idle CPU, nothing due", run.count, share, "% of a core", most=bound(run.count, 0.1))
    scrape = await _scrape(replica)
    yield Figure("a scrape of /metrics: CPU", run.count, scrape * 1000, "ms", most=bound(run.count, 100.0))
    yield Figure(f"… at one every {SCRAPE_INTERVAL:.0f} s", run.count, scrape / SCRAPE_INTERVAL * 100, "% of a core")


async def _scrape(replica: OperatorProcess) -> float:
    """Scrape all metrics some times; return the operator's CPU seconds for each."""
    operator = Process(replica.pid)
    before = operator.cpu
    for _ in range(SCRAPES):
        await asyncio.to_thread(replica.get, "/metrics")
    return (operator.cpu - before) / SCRAPES


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
    """Refreshes spread evenly, as in every-day life but more of them; half of them by refresh token."""
    stand = run.stand
    await started(run)
    await paced(stand, stand.fleet, pace_of(run.count))
    window = await measured(stand, STEADY_SECONDS)
    size, refreshes = stand.fleet.size, window.published
    asked = window.token_requests / refreshes
    details = {"api_requests": dict(window.api), "refreshes": refreshes, "grants": dict(window.grants)}
    yield Figure("writes per steady refresh", size, window.writes / refreshes, "", most=2 + _EDGES, details=details)
    yield Figure("reads per steady refresh", size, window.reads / refreshes, "", most=0, details=details)
    census = pages(size, CREDENTIALS_PAGE) / refreshes  # every ten minutes, which may fall into the window
    yield Figure("lists per steady refresh", size, window.lists / refreshes, "", most=census, details=details)
    yield Figure("token requests per steady refresh", size, asked, "", most=1 + _EDGES, details=details)
    for figure in _cpu_of_refresh(run, window):
        yield figure
    for share, name in ((0.5, "p50"), (0.99, "p99"), (1.0, "max")):
        yield Figure(f"due → published, {name}, at most", size, window.lateness.bound(share), "s")
    async for figure in _standby(stand):
        yield figure


def _cpu_of_refresh(run: Run, window: Window) -> Iterator[Figure]:
    """What a refresh costs the operator: as such, by the bare loop at its pace and flat out, and by few credentials."""
    size, cpu = run.stand.fleet.size, window.cpu["operator"] * 1000 / window.published
    yield Figure("operator CPU per steady refresh", size, cpu, "ms", details={"cpu": dict(window.cpu)})
    for how, bare, most in (("at the same pace", run.bare_refresh, None), ("flat out", run.bare_refresh_flat, 2.6)):
        if bare is not None:
            yield Figure(f"… as a multiple of the bare loop {how}", size, cpu / bare, "×", most=most)
    if run.few_refresh is not None:
        yield Figure(f"growth of it, against {FEW:,}", size, cpu / run.few_refresh, "×", most=1.10)
    servers = servers_cpu(window) * 1000 / window.published
    yield Figure("CPU of API server and etcd per steady refresh", size, servers, "ms")
    if run.bare_servers is not None:
        what = "… as a multiple of the same two writes by the bare loop at the same pace"
        yield Figure(what, size, servers / run.bare_servers, "×", most=0.75)
    yield Figure("refreshes per second that one core could do", size, 1000 / cpu, "/s")
    run.bar(CPU_REFRESH, "operator", size, cpu)


async def slowly(run: Run) -> Figures:
    """Refreshes that seldom come together: fewer per second, of a thousand credentials while the others rest."""
    await fresh(run)
    stand, fleet = run.stand, run.stand.slow
    await fleet.start(SLOW)
    for rate in SLOW_RATES:
        await paced(stand, fleet, rate)
        window = await measured(stand, STEADY_SECONDS)
        cpu = window.cpu["operator"] * 1000 / window.published
        yield Figure(f"operator CPU per steady refresh, {rate:g} per second", fleet.size, cpu, "ms")
        if run.bare_refresh_flat is not None:
            what, most = f"… as a multiple of the bare loop flat out, {rate:g} per second", SLOW_RATES[rate]
            yield Figure(what, fleet.size, cpu / run.bare_refresh_flat, "×", most=most)
    await fleet.delete()


async def hour(run: Run) -> Figures:
    """Refreshes as tokens of an hour need them, of so many credentials; nearly all rest, and few are refreshed often.

    What a refresh costs depends on how many come in a second and how many credentials there are, not on whose it is.
    Of few credentials `steady` tells more.
    """
    if run.count <= MANY:
        return
    await fresh(run)
    async for figure in as_in_an_hour(run, ""):
        yield figure


async def as_in_an_hour(run: Run, who: str) -> Figures:
    """Do that with the operators that run: one for all, or as many as there are shards."""
    stand, fleet = run.stand, run.stand.hour
    rate = run.count / mean_interval(HOUR)
    await fleet.start(round(rate * HOUR_INTERVAL))
    await paced(stand, fleet, rate)
    window = await measured(stand, HOUR_SECONDS)
    size, details = run.count, {"lateness": dict(window.lateness.buckets), "cpu": dict(window.cpu)}
    what = f"{who}tokens of an hour, for {HOUR_SECONDS / 60:g} minutes"
    yield Figure(f"{what}: refreshes", size, _achieved(window), "/s", least=KEPT * rate, details=details)
    yield Figure("… due → published, p99, at most", size, window.lateness.bound(0.99), "s", most=1.0)
    for process, share in _shares(window).items():
        yield Figure(f"… share of {process}", size, share, "% of a core")
    await fleet.delete()


async def _standby(stand: Stand) -> Figures:
    """What a second replica costs, which only watches what the leader does."""
    standby = await stand.start_replica()
    await asyncio.sleep(_WARM)
    window = await measured(stand, STANDBY_SECONDS)
    rss = Process(standby.pid).rss
    await asyncio.to_thread(stand.end_replica, standby)
    cpu, details = window.cpu["standby"] * 1000 / window.published, {"cpu": dict(window.cpu)}
    yield Figure("standby: CPU per refresh of the leader", stand.fleet.size, cpu, "ms", details=details)
    yield Figure("standby: memory", stand.fleet.size, rss, "MB")


async def memory(run: Run) -> Figures:
    """All tokens have been refreshed by the operator that runs, and it is at rest."""
    stand, fleet = run.stand, run.stand.fleet
    await started(run)
    stand.tell("until all tokens live long")
    await fleet.pace(RESTS, over=run.count / pace_of(run.count) if fleet.lifetime == RESTS else None)
    operator = Process((await stand.start_operator()).pid)
    await stand.at_rest(operator)
    yield Figure("memory, idle, after refreshes", run.count, operator.rss, "MB", most=most_memory(run.count))


async def highest_rate(run: Run) -> Figures:
    """The rate is raised until refreshes come late; of credentials of their own, while those of the run rest."""
    await fresh(run)
    stand, fleet = run.stand, run.stand.rate
    await fleet.start(RATE_CREDENTIALS)
    kept: Window | None = None
    for rate in RATES:
        await paced(stand, fleet, rate)
        window = await measured(stand, RATE_SECONDS)
        late = window.lateness.bound(1.0)
        stand.tell(f"asked for {rate}/s: {_achieved(window):.0f}/s, the latest within {late:g} s; {_shares(window)}")
        if late > ON_TIME or _achieved(window) < KEPT * rate:
            break
        kept = window
    await fleet.delete()
    for figure in _at_highest_rate(kept):
        yield figure
    for name, share in (_shares(kept) if kept else {}).items():
        run.bar("CPU at the highest rate that was kept up with (% of a core)", name, RATE_CREDENTIALS, share)


def _at_highest_rate(kept: Window | None) -> Iterator[Figure]:
    """The highest rate that was kept up with, and what limits it."""
    size, name = RATE_CREDENTIALS, "highest sustained refresh rate, none late"
    if kept is None:
        yield Figure(name, size, 0.0, "/s", least=100.0)
        return
    details = {"lateness": dict(kept.lateness.buckets), "api_requests": dict(kept.api)}
    yield Figure(name, size, _achieved(kept), "/s", least=100.0, details=details)
    yield Figure("… due → published, max, at most", size, kept.lateness.bound(1.0), "s")
    for process, share in _shares(kept).items():
        yield Figure(f"… share of {process}", size, share, "% of a core")


def _achieved(window: Window) -> float:
    return window.published / window.seconds


def _shares(window: Window) -> dict[str, int]:
    """Each process's use of a core, in percent."""
    return {name: round(used / window.seconds * 100) for name, used in window.cpu.items()}


async def repairs(run: Run) -> Figures:
    """What people do to a credential, one at a time, while the others are refreshed."""
    stand = run.stand
    await started(run)
    await paced(stand, stand.fleet, pace_of(run.count))
    for what, repair in (
        ("changed client Secret", _change_client),
        ("deleted target", Fleet.seconds_to_mend),
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
    new = secrets.token_urlsafe(24)
    await fleet.rotate_at_endpoint(name, new)
    return await _seconds_until(fleet, name, lambda: fleet.rotate_in_cluster(name, new), "client-secret-version")


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
