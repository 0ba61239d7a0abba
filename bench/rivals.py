"""What the operator is compared with: a bare loop that decides nothing, and what one would write in an hour."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.api import all_of, until
from bench.measures import Process
from bench.report import Figure
from bench.run import (
    CPU_CREATE,
    CPU_REFRESH,
    CPU_RESTART,
    ROOT,
    RSS,
    STEADY_SECONDS,
    WALL_CREATE,
    Figures,
    Run,
    measured,
    pace_of,
    servers_cpu,
)
from bench.stand import Fleet, Snapshot, Stand, lifetime_for
from tests.support.guarded import Guarded

MOST = 1000
"""Credentials: what a rival does with these, it does with more at no less a price."""


async def bare_loop(run: Run) -> Figures:
    """The least program that makes the same requests: what all CPU figures are a multiple of."""
    stand, count = run.stand, min(run.count, MOST)
    if stand.bare.size < count:
        await stand.bare.prepare(count)
        await all_of(stand.api.create(stand.bare.credentials, stand.bare.credential(n)) for n in range(count))
        stand.bare.size = count
        run.bare_create, _ = await _bare(stand, count)
        yield Figure("bare loop: CPU per first token", count, run.bare_create, "ms")
        run.bar(CPU_CREATE, "bare loop", count, run.bare_create)
    run.bare_refresh_flat, _ = await _bare(stand, count)
    yield Figure("bare loop: CPU per refresh, flat out", count, run.bare_refresh_flat, "ms")
    rate = pace_of(run.count)
    run.bare_refresh, servers = await _bare(stand, count, rate=rate)
    yield Figure(f"bare loop: CPU per refresh, {rate:g} per second", count, run.bare_refresh, "ms")
    run.bar(CPU_REFRESH, "bare loop", count, run.bare_refresh)
    if stand.operator is not None:  # which watches, as it does for its own refreshes
        run.bare_servers = servers
        yield Figure(f"… CPU of API server and etcd for it, {rate:g} per second", count, servers, "ms")


async def _bare(stand: Stand, count: int, *, rate: float | None = None) -> tuple[float, float]:
    """Run the bare loop, at most so many turns per second.

    Returns its CPU per turn, and that of API server and etcd, in milliseconds.
    """
    program = _program("bench.bare", stand.bare, "--credentials", str(count), *(["--rate", str(rate)] if rate else []))
    pipe = asyncio.subprocess.PIPE
    before = await stand.snapshot(last=True)
    process = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdin=pipe, stdout=pipe)
    output, _ = await process.communicate(f"{stand.client_secret}\n".encode())
    if process.returncode:
        raise RuntimeError(f"the bare loop ended with exit status {process.returncode}")
    servers = servers_cpu(await stand.since(before))
    return float(json.loads(output)["cpu_seconds"]) * 1000 / count, servers * 1000 / count


async def naive(run: Run) -> Figures:
    """The same job by a daemon for each credential, as kopf's documentation leads to it."""
    stand, fleet, count = run.stand, run.stand.naive, min(run.count, MOST)
    await asyncio.to_thread(stand.stop_operator)
    await fleet.prepare(count)
    with _naive(stand) as running:
        process = Process(running.pid)
        await stand.at_rest(process)
        before, used = await stand.snapshot(), process.cpu
        wall = await fleet.start(count)
        await stand.at_rest(process)
        cpu, rss = (process.cpu - used) * 1000 / count, process.rss
        created = await stand.since(before)
    yield Figure("naive: create → ready, all at once", count, wall, "s", details={"api_requests": dict(created.api)})
    yield Figure("naive: CPU per credential, create → ready", count, cpu, "ms")
    yield Figure("naive: memory, idle, after first tokens", count, rss, "MB")
    run.bar(CPU_CREATE, "naive", count, cpu)
    run.bar(WALL_CREATE, "naive", count, wall)
    run.bar(RSS, "naive", count, rss)
    async for figure in _naive_restart(run, count):
        yield figure
    async for figure in _naive_steady(run, count):
        yield figure


async def _naive_restart(run: Run, count: int) -> Figures:
    """The naive operator starts where all tokens live long."""
    stand = run.stand
    before = await stand.snapshot()
    with _naive(stand) as running:
        process = Process(running.pid)
        await until(lambda: _asked(stand, before, count), 1.0)
        await stand.at_rest(process)  # the last writes follow the last token request
        cpu, restarted = process.cpu, await stand.since(before)
    details = {"api_requests": dict(restarted.api)}
    yield Figure("naive: restart: token requests", count, restarted.token_requests, "")
    yield Figure("naive: restart: writes", count, restarted.writes, "", details=details)
    yield Figure("naive: restart: CPU", count, cpu, "s")
    run.bar(CPU_RESTART, "naive", count, cpu)


async def _naive_steady(run: Run, count: int) -> Figures:
    """Two rounds of the naive operator's refreshes, which come in bunches: at its start it asks for all at once."""
    stand = run.stand
    await stand.naive.live(lifetime_for(count / pace_of(count)))
    before = await stand.snapshot()
    with _naive(stand) as running:
        process = Process(running.pid)
        await until(lambda: _asked(stand, before, count), 1.0)
        await asyncio.sleep(count / pace_of(count))
        used = process.cpu
        window = await measured(stand, STEADY_SECONDS)
        cpu = (process.cpu - used) * 1000 / window.token_requests
    details = {"api_requests": dict(window.api)}
    yield Figure("naive: CPU per steady refresh, in bunches", count, cpu, "ms", details=details)
    yield Figure("naive: writes per steady refresh", count, window.writes / window.token_requests, "")
    run.bar(CPU_REFRESH, "naive, in bunches", count, cpu)


async def _asked(stand: Stand, before: Snapshot, count: int) -> bool:
    return (await stand.since(before)).token_requests >= count


@contextmanager
def _naive(stand: Stand) -> Iterator[Guarded]:
    with (stand.cluster.directory / "naive.log").open("wb") as log:
        process = Guarded(_program("bench.naive", stand.naive), output=log, cwd=ROOT)
    try:
        yield process
    finally:
        process.end(grace=10.0)


def _program(module: str, fleet: Fleet, *more: str) -> list[str]:
    """The command that runs a rival on a fleet."""
    stand = fleet.stand
    where = ["--kubeconfig", str(stand.cluster.kubeconfig), "--namespace", fleet.namespace]
    whom = ["--token-url", stand.sandbox.https_token_url, "--ca-bundle", str(stand.sandbox.ca_file)]
    return [sys.executable, "-m", module, *where, *whom, *more]
