"""Scenario: as many credentials on several operators, of which each serves one shard."""

import asyncio
import time

from bench.everyday import as_in_an_hour
from bench.extremes import ENDS, handed_over
from bench.measures import Process
from bench.report import Figure
from bench.run import MANY, Figures, Run, assert_scheduled, fresh, patience
from bench.stand import SHARDS

SHARD = 1
"""The one whose leader ends. It serves each credential whose number, divided by that of shards, leaves this rest."""
_ALL = f"{SHARDS} shards: "


async def shards(run: Run) -> Figures:
    """As many credentials on four operators, a quarter each: a start, refreshes of tokens of an hour, a failover."""
    if run.count <= MANY:
        return
    await fresh(run)
    stand, size = run.stand, run.count
    await asyncio.to_thread(stand.stop_operator)
    await asyncio.to_thread(stand.allow_leases_of_shards)
    before, begun = await stand.snapshot(), time.monotonic()
    leaders = await stand.start_shards()
    processes = [Process(leader.pid) for leader in leaders]
    rested = max(await asyncio.gather(*(stand.at_rest(process, patience(size)) for process in processes)))
    await asyncio.to_thread(assert_scheduled, leaders, stand.fleet.size)
    yield Figure(f"{_ALL}restart, all fresh: until all are scheduled", size, rested - begun, "s", most=60.0)
    yield Figure("… CPU of all", size, sum(process.cpu for process in processes), "s")
    yield Figure("… memory of each, idle, at most", size, max(process.rss for process in processes), "MB", most=800.0)
    yield Figure("… memory of all, idle", size, sum(process.rss for process in processes), "MB")
    window = await stand.since(before)
    yield Figure("… token requests and writes", size, window.token_requests + window.writes, "", most=0)
    async for figure in as_in_an_hour(run, _ALL):
        yield figure
    leader = leaders[SHARD]
    for number, (how, end, most) in enumerate(ENDS):
        seconds, leader = await handed_over(stand, leader, end, SHARD + SHARDS * number, SHARD)
        yield Figure(f"{_ALL}{how} of a leader → the other has mended a target", size, seconds, "s", most=most)
    await asyncio.to_thread(stand.stop_operator)
