"""A token endpoint that is down or asks for patience is spared, and afterwards everybody is served by urgency."""

import itertools
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus

import pytest

from tests.api.conftest import StartOperator
from tests.faults.workers import CONCURRENCY, hired
from tests.support.cluster import Cluster
from tests.support.objects import Json
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault, SandboxAdmin, SandboxProcess
from tests.support.tenant import Target, Tenant, condition_of
from tests.support.waiting import eventually, wait_until

CLOSES_AFTER = 3
PROBE_SECONDS = 5.0
SLACK = 1.0
"""Seconds that a request may be on its way: the sandbox notes when one arrives."""

FLEET = 1000

RETRY_AFTER = 3.0
"""Seconds."""
LEAST_URGENT = 86_400
"""Seconds to live: whoever waits with others is served last."""

_log = logging.getLogger(__name__)


def start_fleet(tenant: Tenant, count: int) -> list[str]:
    """Start credentials with one client and client Secret; return their names."""
    tenant.register(lifetime=3600)
    tenant.apply_client_secret()
    names = [f"storefront-{number}" for number in range(count)]
    manifests: list[Json] = [
        {
            "apiVersion": "tuinly.com/v1alpha1",
            "kind": "TuinlyCredential",
            "metadata": {"name": name},
            "spec": {"clientSecretRef": {"name": tenant.client_secret_name}},
        }
        for name in names
    ]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(tenant.objects.apply, manifests))
    return names


def await_fresh(tenant: Tenant, count: int, since: int) -> None:
    """Wait until so many targets hold a token that the client got with a later sequence number."""
    admin, client = tenant.sandbox, tenant.client.id
    issued = admin.counts(client)["tokens"] - len(admin.tokens(client, since=since))

    def check() -> None:
        # The cheap question first: who polls takes time from those who work.
        assert admin.counts(client)["tokens"] - issued >= count
        new = {token.value for token in admin.tokens(client, since=since)}
        targets = [Target(raw) for raw in tenant.objects.all("Secret")]
        assert sum(target.data.get("access_token") in new for target in targets) == count

    eventually(check, seconds=90)


def assert_tokens_came_before_reports(tenant: Tenant) -> None:
    """Wait until all is told, and compare when the API server got what."""

    def check() -> list[Json]:
        credentials = tenant.objects.all("TuinlyCredential")
        told = [condition_of(each, "Refreshed") for each in credentials]
        assert {condition.status for condition in told if condition} == {"True"}
        return credentials

    reports = versions(eventually(check, seconds=60))
    tokens = versions([each for each in tenant.objects.all("Secret") if each["metadata"].get("ownerReferences")])
    assert reports[len(reports) // 2] > tokens[len(tokens) * 9 // 10]


def versions(objects: list[Json]) -> list[int]:
    """Return the versions of objects in order: each is a moment of the one history that the API server has."""
    return sorted(int(each["metadata"]["resourceVersion"]) for each in objects)


def gate_is_closed(operator: OperatorProcess) -> bool:
    return any(name == "tuinly_gate_closed" and value for (name, _), value in operator.metrics().items())


@pytest.mark.timeout(180)
def test_an_outage_costs_a_probe_every_five_seconds_and_a_thousand_credentials_are_fresh_soon_after(
    tenant: Tenant, start_operator: StartOperator
) -> None:
    """Nobody asks twice, and never more at once than are allowed; tokens come first, and then the telling of them."""
    admin = tenant.sandbox
    operator = start_operator("--concurrency", str(CONCURRENCY), "--min-refresh-interval", "5s").wait_ready()
    admin.fault(Fault(kind="slow", seconds=0.02, client=tenant.client.id))
    start_fleet(tenant, FLEET)
    await_fresh(tenant, FLEET, since=0)

    before = admin.requests()[-1].sequence
    outage = admin.fault(Fault(kind="fail", status=503, client=tenant.client.id))
    tenant.rotate_secret()
    tenant.apply_client_secret()
    wait_until(lambda: gate_is_closed(operator), what="the gate has closed")
    wait_until(lambda: not admin.concurrency()["token"].now, what="what was in flight has ended")
    closed = admin.requests()[-1].sequence
    assert len(admin.requests(tenant.client.id, since=before)) <= CLOSES_AFTER - 1 + CONCURRENCY

    for count in (1, 2, 3):
        # An edit makes all of them look again: each would be glad to be the probe.
        tenant.apply_client_secret(labels={"edited": str(count)})
        wait_until(lambda: len(admin.requests(since=closed)) >= count, what="another probe")  # noqa: B023 - used at once
    times = [request.received_monotonic for request in admin.requests(since=closed)]
    assert all(later - earlier >= PROBE_SECONDS - SLACK for earlier, later in itertools.pairwise(times)), times

    admin.reset_concurrency()
    token, last = admin.tokens()[-1].sequence, admin.requests()[-1].sequence
    admin.clear_faults(outage)
    back = time.monotonic()
    await_fresh(tenant, FLEET, since=token)
    _log.info("%d credentials fresh %.1f s after the end of the outage", FLEET, time.monotonic() - back)
    assert_tokens_came_before_reports(tenant)
    served = [request for request in admin.requests(tenant.client.id, since=last) if request.fault != "fail"]
    assert len(served) == FLEET
    assert admin.concurrency()["token"].peak <= CONCURRENCY


@contextmanager
def outage(admin: SandboxAdmin, fault: Fault) -> Iterator[None]:
    """Break the token endpoint for as long as the context lasts."""
    number = admin.fault(fault)
    try:
        yield
    finally:
        admin.clear_faults(number)


def force(tenant: Tenant) -> None:
    """Ask for an exchange, as users do."""
    patch = {"metadata": {"annotations": {"tuinly.com/refresh-requested": str(time.time())}}}
    tenant.objects.merge("TuinlyCredential", tenant.name, patch)


def move(tenant: Tenant) -> None:
    """Make a token request due: by another client Secret, with the same content."""
    tenant.apply_client_secret(name="elsewhere")
    tenant.apply({"clientSecretRef": {"name": "elsewhere"}})


def test_after_an_outage_the_least_life_left_comes_first(tenant: Tenant, start_operator: StartOperator) -> None:
    """Also during it: the probe is the most urgent one. Without a token there is no life left at all."""
    start_operator("--concurrency", "1", "--request-timeout", "1s").wait_ready()
    admin = tenant.sandbox
    lifetimes = [1800, 600, 3600, 1200, 2400]
    tenants = [Tenant(tenant.objects, admin, f"lives-{lifetime}").start(lifetime=lifetime) for lifetime in lifetimes]
    for each in tenants:
        each.await_ready()
    before = admin.requests()[-1].sequence
    with outage(admin, Fault(kind="hang")):
        for each in tenants:
            each.rotate_secret()
            each.apply_client_secret()
        new = tenant.start()
        for each in [*tenants, new]:
            each.await_condition("Refreshed", "False", "EndpointUnavailable")
        # Those that failed before the gate closed try once more by themselves, and then wait like the others.
        seen = len(admin.requests(since=before))
        wait_until(lambda: len(admin.requests(since=before)) >= seen + 2, what="two more probes")
        assert {request.client for request in admin.requests(since=before)[seen:]} == {new.client.id}
        before = admin.requests()[-1].sequence
    for each in [*tenants, new]:
        each.await_ready()
    served = [request.client for request in admin.requests(since=before) if request.status == HTTPStatus.OK]
    assert served == [each.client.id for each in [new, *sorted(tenants, key=lambda each: each.client.lifetime)]]


def test_retry_after_with_429_is_a_matter_of_the_client_alone(tenant: Tenant, start_operator: StartOperator) -> None:
    """All credentials of that client wait, whoever asks for more; others do not."""
    start_operator().wait_ready()
    throttled = tenant.start()
    sibling = Tenant(tenant.objects, tenant.sandbox, "sibling")
    sibling.apply({"clientSecretRef": {"name": throttled.client_secret_name}})
    other = Tenant(tenant.objects, tenant.sandbox, "other").start(lifetime=LEAST_URGENT)
    for each in (throttled, sibling, other):
        each.await_ready()
    tenant.sandbox.fault(Fault(kind="throttle", client=throttled.client.id, retry_after=RETRY_AFTER, count=1))
    move(throttled)
    refused = throttled.await_requests(3)[2]
    assert refused.status == HTTPStatus.TOO_MANY_REQUESTS
    for each in (throttled, sibling, other):
        force(each)
    requests = throttled.await_requests(5)[3:]
    assert all(request.received_monotonic - refused.received_monotonic >= RETRY_AFTER for request in requests)
    assert other.requests()[1].sequence == refused.sequence + 1
    throttled.await_ready()
    sibling.await_ready()
    assert len(throttled.requests()) == 5


def test_retry_after_with_503_is_a_matter_of_the_whole_origin(
    tenant: Tenant, start_operator: StartOperator, other_token_urls: tuple[str, ...]
) -> None:
    """All clients wait; at another origin nobody does."""
    start_operator().wait_ready()
    overloaded = tenant.start()
    neighbour = Tenant(tenant.objects, tenant.sandbox, "neighbour").start()
    elsewhere = Tenant(tenant.objects, tenant.sandbox, "elsewhere")
    elsewhere.start({"tokenURL": other_token_urls[0]}, lifetime=LEAST_URGENT)
    for each in (overloaded, neighbour, elsewhere):
        each.await_ready()
    overload = Fault(kind="throttle", status=503, retry_after=RETRY_AFTER, count=1)
    tenant.sandbox.fault(replace(overload, client=overloaded.client.id))
    move(overloaded)
    refused = overloaded.await_requests(2)[1]
    assert refused.status == HTTPStatus.SERVICE_UNAVAILABLE
    for each in (overloaded, neighbour, elsewhere):
        force(each)
    for each, count in ((overloaded, 3), (neighbour, 2)):
        assert each.await_requests(count)[-1].received_monotonic - refused.received_monotonic >= RETRY_AFTER
        each.await_ready()
        assert len(each.requests()) == count
    assert elsewhere.requests()[1].sequence == refused.sequence + 1


async def test_there_is_one_probe_even_if_many_come_in_the_same_moment(
    tenant: Tenant, sandbox: SandboxProcess, cluster: Cluster
) -> None:
    tenants = [Tenant(tenant.objects, sandbox.admin, f"storefront-{number}") for number in range(5)]
    async with hired(cluster, sandbox) as workers:
        keys = [workers.see(each.start()) for each in tenants]
        await workers.reconcile(*keys)
        for each in tenants:
            sandbox.admin.fault(Fault(kind="fail", client=each.client.id))
            each.rotate_secret()
            each.apply_client_secret()
            workers.see(each)
        # Three fail and close the gate, the others are under way already. Later all know the new secret, and wait.
        await workers.reconcile(*keys)
        assert workers.gate.is_closed(workers.origin)
        before = sum(len(each.requests()) for each in tenants)
        workers.clock.wall = workers.clock.boot = 2 * PROBE_SECONDS
        await workers.reconcile(*keys)
    assert sum(len(each.requests()) for each in tenants) - before == 1
