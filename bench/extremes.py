"""Scenarios at the edge: many tokens due in one second, a leader that ends, a cluster full of Secrets of others."""

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from bench.api import SECRETS, Json, all_of, until
from bench.measures import Process, quantile
from bench.report import Figure
from bench.run import MANY, Figures, Run, fresh, restarted
from bench.stand import Stand, applied_at, moment
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault
from tuinly_operator.domain.credential import RefreshSpec
from tuinly_operator.domain.schedule import JITTER, lead

HERD = 2000
HERD_LIFETIME = 160.0
End = Callable[[OperatorProcess], object]
ENDS: Sequence[tuple[str, End, float]] = (
    ("SIGTERM", OperatorProcess.terminate, 3.0),
    ("SIGKILL", OperatorProcess.kill, 20.0),
)
"""How a leader ends, and the seconds after which the other has mended a target at the latest."""
HANDOVERS, HANDOVERS_OF_MANY = 5, 2
"""Times that a leader ends in each way; fewer where a standby needs a minute to become warm."""
UNRELATED = 50_000
LARGE = 300
LARGE_BYTES = 1_000_000
NOISE = 3.0
"""Megabytes by which two equal starts may differ."""


async def herd(run: Run) -> Figures:
    """Many tokens are due in the same second, as after an operator that was away; the endpoint takes 20 ms.

    Late is one whose Secret was written after its old token's end, by the API server's clock and in whole seconds.
    """
    await fresh(run)
    stand, fleet = run.stand, run.stand.herd
    stand.tell(f"{HERD:,} more credentials, whose tokens live {HERD_LIFETIME:.0f} s")
    fleet.lifetime = HERD_LIFETIME
    await fleet.start(HERD)
    await asyncio.to_thread(stand.stop_operator)
    before = {target["name"]: target for target in await fleet.targets()}
    due = max(moment(target, "next-refresh") for target in before.values()) + 1
    stand.tell(f"no operator for {due - time.time():.0f} s, until all are due")
    await asyncio.sleep(due - time.time())
    slow = stand.sandbox.admin.fault(Fault(kind="slow", seconds=0.02))
    begun = time.monotonic()
    await stand.start_operator()
    after: list[Json] = []

    async def all_newer() -> bool:
        after[:] = await fleet.targets()
        return len(after) == HERD and all(_newer(target, before) for target in after)

    await until(all_newer, 1.0)
    wall = time.monotonic() - begun
    stand.sandbox.admin.clear_faults(slow)
    # In whole seconds: what was published within the last one may have been too late.
    left = [moment(before[target["name"]], "expires-at") - applied_at(target) for target in after]
    seconds = Counter(int(moment(target, "next-refresh")) for target in after)
    yield Figure("due in the same second: late past their lead", HERD, sum(each <= 0 for each in left), "", most=0)
    yield Figure("… until all were fresh, with the start", HERD, wall, "s")
    yield Figure("… least time left before the end", HERD, min(left), "s")
    yield Figure("… due in the same second the next time", HERD, max(seconds.values()), "at most", most=_spread())
    await fleet.delete()


def _spread() -> float:
    """Refreshes in the fullest second at most: the jitter spreads them evenly, of which chance makes a third more."""
    return HERD / (JITTER * (HERD_LIFETIME - lead(RefreshSpec(), HERD_LIFETIME))) * 4 / 3


def _newer(target: Json, before: dict[str, Json]) -> bool:
    return moment(target, "issued-at") > moment(before[target["name"]], "issued-at")


async def handover(run: Run) -> Figures:
    """The leader ends: until the other replica leads and has mended a target that was deleted after that end.

    The time counts from the signal, so that it has the leader's own end in it.
    """
    await fresh(run)
    stand = run.stand
    leader, number = await stand.start_operator(), 0
    times_each = HANDOVERS if run.count <= MANY else HANDOVERS_OF_MANY
    for how, end, most in ENDS:
        stand.tell(f"{times_each} times: {how}")
        times = []
        for _ in range(times_each):
            number += 1
            seconds, leader = await handed_over(stand, leader, end, number)
            times.append(seconds)
        what = f"{how} of the leader → the other has mended a target"
        yield Figure(f"{what}, p50", run.count, quantile(times, 0.5), "s")
        yield Figure(f"{what}, slowest of {times_each}", run.count, max(times), "s", most=most)


async def handed_over(
    stand: Stand, leader: OperatorProcess, end: End, number: int, shard: int | None = None
) -> tuple[float, OperatorProcess]:
    """End a leader, beside which a standby is started; return the seconds that took, and who leads then.

    `number` is that of the credential whose target is deleted; it must be one that this leader serves.
    """
    standby = await stand.start_replica(shard)
    await stand.at_rest(Process(standby.pid))
    seconds = await stand.fleet.seconds_to_mend(stand.fleet.name(number), first=partial(end, leader))
    await stand.at_rest(Process(standby.pid))
    stand.end_replica(leader)
    return seconds, standby


async def unrelated(run: Run) -> Figures:
    """Secrets that are none of ours: watched but for the types that no client Secret has."""
    await fresh(run)
    stand = run.stand
    first = await restarted(stand)
    stand.tell(f"{UNRELATED:,} Secrets, {LARGE} of them of a megabyte")
    await _strangers(stand, "unrelated", UNRELATED, large=LARGE)
    second = await restarted(stand)
    stand.tell(f"{UNRELATED // 5:,} Secrets of a type that is left out")
    await _strangers(stand, "left-out", UNRELATED // 5, kind="helm.sh/release.v1")
    third = await restarted(stand)
    size, many = stand.fleet.size, f"{UNRELATED:,} unrelated Secrets"
    yield Figure(f"{many}: more memory, idle", size, second.rss - first.rss, "MB", most=40.0)
    yield Figure(f"{many}: more memory, peak", size, second.peak - first.peak, "MB")
    yield Figure(f"{many}: more time until ready", size, second.seconds - first.seconds, "s", most=5.0)
    yield Figure(f"{many}: more CPU of a restart", size, second.cpu - first.cpu, "s")
    yield Figure(f"{UNRELATED // 5:,} of a type left out: more memory", size, third.rss - second.rss, "MB", most=NOISE)


async def _strangers(stand: Stand, namespace: str, count: int, *, large: int = 0, kind: str = "Opaque") -> None:
    """Create Secrets that have nothing to do with the operator."""
    await stand.api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    small, big = ({"value": base64.b64encode(bytes(size)).decode()} for size in (100, LARGE_BYTES))
    path = SECRETS.format(namespace)
    await all_of(
        stand.api.create(
            path, {"metadata": {"name": f"secret-{n:05}"}, "type": kind, "data": big if n < large else small}
        )
        for n in range(count)
    )
