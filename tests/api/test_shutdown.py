"""SIGTERM: what is under way finishes or is given up, nothing is half-written, and the exit status is 0."""

import signal
import time

import pytest

from tests.api.conftest import StartOperator
from tests.support.sandbox import Fault
from tests.support.tenant import Tenant

GRACE = 10.0  # seconds


@pytest.mark.rule("OUT-11")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_operator_ends_at_once(tenant: Tenant, start_operator: StartOperator, number: signal.Signals) -> None:
    operator = start_operator().wait_ready()
    tenant.start()
    tenant.await_ready()
    tenant.await_event("Issued")  # sent after the reconcile, and the last thing that there is to do
    operator.send(number)
    assert operator.wait() == 0
    *_, last = operator.logs()
    assert (last["msg"], last["in_flight"]) == ("stopping", 0)


def test_a_signal_before_it_is_ready_ends_it_too(start_operator: StartOperator) -> None:
    operator = start_operator()
    assert operator.health_url
    assert operator.terminate() == 0


@pytest.mark.rule("OUT-11")
def test_a_refresh_under_way_is_finished_and_published(tenant: Tenant, start_operator: StartOperator) -> None:
    """Its token, its state and its status."""
    operator = start_operator().wait_ready()
    tenant.start()
    before = tenant.await_ready()
    tenant.rotate_secret()
    tenant.sandbox.fault(Fault(kind="slow", seconds=2, client=tenant.client.id))
    tenant.apply_client_secret()
    tenant.await_requests(2)
    assert operator.terminate() == 0
    after = tenant.target()
    assert [before.token, after.token] == [token.value for token in tenant.tokens()]
    assert after.notes["expires-at"] == after.data["expires_at"]
    assert tenant.status()["lastRefreshTime"] == after.notes["issued-at"]


@pytest.mark.rule("OUT-11")
def test_nothing_new_is_begun(tenant: Tenant, start_operator: StartOperator) -> None:
    """While one request is waited for, another credential appears: it has to wait for the next operator."""
    operator = start_operator().wait_ready()
    tenant.sandbox.fault(Fault(kind="slow", seconds=3, client=tenant.client.id))
    tenant.start()
    tenant.await_requests(1)
    operator.send(signal.SIGTERM)
    operator.wait_for_log(lambda line: line["msg"] == "stopping")
    other = Tenant(tenant.objects, tenant.sandbox, "other").start()
    assert operator.wait() == 0
    assert other.requests() == []
    assert tenant.find_target() is not None


@pytest.mark.rule("OUT-11")
def test_a_request_that_stays_open_is_given_up(tenant: Tenant, start_operator: StartOperator) -> None:
    """After 10 s; there is no target, no half of one, and the next operator begins anew."""
    operator = start_operator("--request-timeout", "1m").wait_ready()
    number = tenant.sandbox.fault(Fault(kind="hang", client=tenant.client.id))
    tenant.start()
    tenant.await_requests(1)
    begin = time.monotonic()
    assert operator.terminate() == 0
    assert time.monotonic() - begin >= GRACE
    assert tenant.find_target() is None
    assert [line["level"] for line in operator.logs() if line["msg"] == "abandoned what was still in flight"]
    tenant.sandbox.clear_faults(number)
    start_operator()
    tenant.await_ready()
