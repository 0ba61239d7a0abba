"""A token endpoint that is down or asks for patience is spared, and afterwards everybody is served in order."""

import itertools
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus

import pytest

from tests.api.conftest import StartOperator
from tests.faults.workers import CONCURRENCY
from tests.support.objects import Json
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault, SandboxAdmin
from tests.support.tenant import Target, Tenant, condition_of
from tests.support.waiting import eventually, wait_until

PROBE_SECONDS = 5.0
EARLY_SECONDS = 6.0
"""After so long there are probes alone, and no more than one per PROBE_SECONDS."""
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


def assert_tokens_came_before_reports(tenant: Tenant, since: int) -> None:
    """Wait until all is told, and compare when the API server got what; it has told all that is no later than `since`.

    A status waits behind the tokens for a second, and then takes turns with them.

    Who was told of no outage, as on a busy machine, has nothing new to be told of.
    """

    def check() -> list[Json]:
        credentials = tenant.objects.all("TuinlyCredential")
        told = [condition_of(each, "Refreshed") for each in credentials]
        assert {condition.status for condition in told if condition} == {"True"}
        return credentials

    reports = [version for version in versions(eventually(check, seconds=60)) if version > since]
    tokens = versions([each for each in tenant.objects.all("Secret") if each["metadata"].get("ownerReferences")])
    assert not reports or reports[0] > tokens[3 * CONCURRENCY]


def versions(objects: list[Json]) -> list[int]:
    """Return the versions of objects in order: each is a moment of the one history that the API server has."""
    return sorted(int(each["metadata"]["resourceVersion"]) for each in objects)


def is_down(operator: OperatorProcess) -> bool:
    return any(name == "tuinly_endpoint_down" and value for (name, _), value in operator.metrics().items())


@pytest.mark.rule("FRESH-1", "LIM-27")
@pytest.mark.timeout(420)
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
    wait_until(lambda: is_down(operator), what="the endpoint is down")

    def probes() -> list[float]:
        times = [request.received_monotonic for request in admin.requests(since=before)]
        return [time for time in times if time - times[0] > EARLY_SECONDS]

    for count in (1, 2, 3):
        # An edit makes all of them look again: each would be glad to be the probe.
        tenant.apply_client_secret(labels={"edited": str(count)})
        wait_until(lambda: len(probes()) >= count, what="another probe")  # noqa: B023 - used at once
    assert all(later - earlier >= PROBE_SECONDS - SLACK for earlier, later in itertools.pairwise(probes()))

    admin.reset_concurrency()
    token, last = admin.tokens()[-1].sequence, admin.requests()[-1].sequence
    during = int(tenant.objects.version("TuinlyCredential"))
    admin.clear_faults(outage)
    back = time.monotonic()
    await_fresh(tenant, FLEET, since=token)
    _log.info("%d credentials fresh %.1f s after the end of the outage", FLEET, time.monotonic() - back)
    assert_tokens_came_before_reports(tenant, during)
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


@pytest.mark.rule("LIM-11")
def test_after_an_outage_the_least_life_left_comes_first(tenant: Tenant, start_operator: StartOperator) -> None:
    """After whoever is the probe; who never had a token comes last."""
    start_operator("--concurrency", "1", "--request-timeout", "1s", "--min-refresh-interval", "100ms").wait_ready()
    admin = tenant.sandbox
    lifetimes = [1800, 600, 3600, 1200, 2400]
    tenants = [Tenant(tenant.objects, admin, f"lives-{lifetime}").start(lifetime=lifetime) for lifetime in lifetimes]
    for each in tenants:
        each.await_ready()
    with outage(admin, Fault(kind="hang")):
        for each in tenants:
            each.rotate_secret()
            each.apply_client_secret()
        new = tenant.start()
        for each in [*tenants, new]:
            each.await_condition("Refreshed", "False", "EndpointUnavailable")
        before = admin.requests()[-1].sequence
    for each in [*tenants, new]:
        each.await_ready()
    in_order = [each.client.id for each in [*sorted(tenants, key=lambda each: each.client.lifetime), new]]
    answered = [request.client for request in admin.requests(since=before) if request.status == HTTPStatus.OK]
    served = [client for client in answered if client in in_order]
    assert served[1:] == [client for client in in_order if client != served[0]]


@pytest.mark.rule("LIM-9")
def test_retry_after_is_a_matter_of_one_credential_alone(tenant: Tenant, start_operator: StartOperator) -> None:
    """Whoever else names its client, or asks for more of it, does not wait for it."""
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
    throttled.await_ready()
    wait_until(lambda: len(other.requests()) == 2 and len(throttled.requests()) == 5, what="all have asked once more")
    of_sibling, of_throttled = throttled.requests()[3:]
    assert of_throttled.received_monotonic - refused.received_monotonic >= RETRY_AFTER
    assert other.requests()[1].sequence < of_throttled.sequence
    assert of_sibling.sequence < of_throttled.sequence


@pytest.mark.rule("LIM-9")
def test_what_an_overloaded_endpoint_asks_for_ends_with_the_first_token(
    tenant: Tenant, start_operator: StartOperator
) -> None:
    """It asked for five minutes, and answers others by then: tokens would expire by the wait alone."""
    start_operator().wait_ready()
    overloaded = tenant.start()
    neighbour = Tenant(tenant.objects, tenant.sandbox, "neighbour").start()
    for each in (overloaded, neighbour):
        each.await_ready()
    overload = Fault(kind="throttle", status=503, retry_after=300, count=1, client=overloaded.client.id)
    tenant.sandbox.fault(overload)
    move(overloaded)
    assert overloaded.await_requests(2)[1].status == HTTPStatus.SERVICE_UNAVAILABLE
    overloaded.await_condition("Refreshed", "False", "EndpointUnavailable")
    force(neighbour)
    overloaded.await_ready()
    assert len(overloaded.requests()) == 3
