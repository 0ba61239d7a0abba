"""The wall clock is set, or the process is suspended: tokens stay fresh, and nothing is asked for more often."""

import itertools
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.api.conftest import StartOperator
from tests.faults.workers import hired
from tests.support.auditor import Auditor
from tests.support.cluster import Cluster
from tests.support.objects import Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault, SandboxProcess
from tests.support.tenant import Condition, Tenant, seconds_of
from tests.support.waiting import wait_until
from tests.support.wall_clock import LIBRARY, WallClock

HOUR = 3600.0
LIFETIME = 8.0
"""Seconds: due after 45 to 50 % of it."""
EARLIEST = 0.45 * LIFETIME - 1.5
"""Seconds between two refreshes: times are whole ones, and a request may be on its way for half a second."""

sets_the_clock = pytest.mark.skipif(LIBRARY is None, reason="no libfaketime: apt-get install faketime")


@dataclass(frozen=True)
class Scene:
    """An operator with a wall clock of its own, and its two credentials."""

    clock: WallClock
    operator: OperatorProcess
    short: Tenant
    long: Tenant
    auditor: Auditor


@pytest.fixture
def scene(
    cluster: Cluster,
    sandbox: SandboxProcess,
    start_operator: StartOperator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Scene]:
    """Return an operator with one credential that is refreshed every few seconds, and one that is not."""
    clock = WallClock(tmp_path / "clock")
    with new_namespace(cluster) as namespace, Auditor(cluster.kubeconfig, sandbox.admin, [namespace]) as auditor:
        with monkeypatch.context() as environment:
            for name, value in clock.environment.items():
                environment.setenv(name, value)
            operator = start_operator()
        operator.wait_ready()
        objects = Objects(cluster, namespace)
        short = Tenant(objects, sandbox.admin, "short").start(lifetime=LIFETIME)
        long = Tenant(objects, sandbox.admin, "long").start(lifetime=HOUR / 2)
        for tenant in (short, long):
            tenant.await_ready()
        yield Scene(clock, operator, short, long, auditor)


@sets_the_clock
@pytest.mark.parametrize(("jump", "cost"), [(HOUR, 1), (-HOUR, 0)], ids=["forth-and-back", "back-and-forth"])
def test_a_clock_that_is_set_costs_one_refresh_at_most(scene: Scene, jump: float, cost: int) -> None:
    """Forth, all tokens seem to have expired; back, they would seem to live for long, but for the other clock.

    The credential that lives for long got no token by the wrong clock that was slow, so for it that one costs nothing.
    """
    scene.clock.set(jump)
    scene.short.await_requests(len(scene.short.requests()) + 2 + cost)
    assert len(scene.long.requests()) == 1 + cost
    scene.clock.set(0)
    requests = scene.short.await_requests(len(scene.short.requests()) + 3)
    assert len(scene.long.requests()) == 1 + cost
    times = [request.received_monotonic for request in requests]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len([pause for pause in pauses if pause < EARLIEST]) <= 1
    assert {request.status for request in requests} == {200}
    for tenant in (scene.short, scene.long):
        tenant.await_ready()
    ahead = [line["ahead_seconds"] for line in scene.operator.logs() if "ahead_seconds" in line]
    assert [round(seconds / HOUR) for seconds in ahead] == [round(jump / HOUR)]
    assert not scene.operator.ended
    assert (verdict := scene.auditor.verdict()).is_good, verdict


async def test_a_token_issued_after_the_clock_was_set_back_is_no_worse(
    cluster: Cluster, sandbox: SandboxProcess, tenant: Tenant
) -> None:
    """By the wall clock it ends before the present one; by the other clock it does not."""
    async with hired(cluster, sandbox) as workers:
        key = workers.see(tenant.start(lifetime=HOUR))
        await workers.reconcile(key)
        workers.clock.boot = 0.7 * HOUR
        workers.clock.wall = workers.clock.boot - HOUR
        await workers.reconcile(key)
    assert [token.value for token in tenant.tokens()[1:]] == [tenant.target().token]
    assert tenant.condition("Refreshed") == Condition("True", "Issued", "the last token request worked")


@pytest.fixture
def suspended(start_operator: StartOperator) -> Iterator[OperatorProcess]:
    """Return an operator that a test may suspend; it goes on in the end, so that it can end."""
    operator = start_operator("--request-timeout", "1m").wait_ready()
    yield operator
    operator.send(signal.SIGCONT)


def test_a_process_that_was_suspended_past_a_refresh_makes_it_once(suspended: OperatorProcess, tenant: Tenant) -> None:
    """Though the tokens have expired meanwhile."""
    tenants = [Tenant(tenant.objects, tenant.sandbox, f"storefront-{number}") for number in range(10)]
    for each in tenants:
        each.start(lifetime=LIFETIME)
    for each in tenants:
        each.await_ready()
    suspended.send(signal.SIGSTOP)
    before = {each.name: len(each.requests()) for each in tenants}
    end = max(token.expires_at for each in tenants for token in each.tokens())
    wait_until(lambda: time.time() > end, what="all tokens have expired")
    suspended.send(signal.SIGCONT)
    for each in tenants:
        first, *later = each.await_requests(before[each.name] + 2)[before[each.name] :]
        assert later[0].received_monotonic - first.received_monotonic > EARLIEST
        each.await_ready()
        assert_published_while_valid(each)
    assert not suspended.ended


def test_a_token_that_expired_while_the_process_was_suspended_is_not_published(
    suspended: OperatorProcess, tenant: Tenant
) -> None:
    """The answer was there before the process could read it."""
    tenant.sandbox.fault(Fault(kind="slow", client=tenant.client.id, seconds=1, count=1))
    tenant.start(lifetime=3)
    tenant.await_requests(1)
    suspended.send(signal.SIGSTOP)
    (late,) = tenant.tokens()
    wait_until(lambda: time.time() > late.expires_at, what="the token has expired")
    suspended.send(signal.SIGCONT)
    tenant.await_ready()
    assert late.value not in [target.token for target in tenant.targets()]
    assert_published_while_valid(tenant)
    assert not suspended.ended


def assert_published_while_valid(tenant: Tenant) -> None:
    """No version of the target was written with a token that had expired."""
    ends = {token.value: token.expires_at for token in tenant.tokens()}
    for target in tenant.targets():
        (written,) = (entry["time"] for entry in target.raw["metadata"]["managedFields"])
        assert seconds_of(written) < ends[target.token]
