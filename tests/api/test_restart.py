"""Restarts: what is fresh costs nothing, what is due costs one exchange, and what changed meanwhile is noticed."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.api.conftest import StartOperator
from tests.support.auditor import Auditor
from tests.support.cluster import Cluster
from tests.support.objects import Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault, SandboxProcess
from tests.support.tenant import Target, Tenant, seconds_of
from tests.support.waiting import eventually, wait_until

EXCHANGE = "client_credentials"


def end(operator: OperatorProcess, how: str) -> None:
    if how == "terminated":
        assert operator.terminate() == 0
    else:
        operator.kill()


def await_known(operator: OperatorProcess, tenant: Tenant) -> None:
    """Wait until the operator knows the credential, and has begun whatever there is to do for those it knows."""
    labels = {"namespace": tenant.objects.namespace, "credential": tenant.name}

    def check() -> None:
        assert operator.metric("tuinly_credential_ready", **labels) is not None
        assert operator.metric("tuinly_queue_depth") == 0

    eventually(check)


def resource_versions(tenant: Tenant) -> tuple[str, str]:
    version: str = tenant.credential()["metadata"]["resourceVersion"]
    return tenant.target().version, version


@pytest.mark.rule("QUIET-1", "OUT-10")
@pytest.mark.parametrize("how", ["terminated", "killed"])
def test_a_fresh_token_costs_no_token_request_and_no_write(
    tenant: Tenant, start_operator: StartOperator, auditor: Auditor, how: str
) -> None:
    operator = start_operator().wait_ready()
    tenants = [Tenant(tenant.objects, tenant.sandbox, f"storefront-{number}").start() for number in range(3)]
    for each in tenants:
        each.await_ready()
        each.await_events("Issued")
    before, events = [resource_versions(each) for each in tenants], len(tenant.objects.all("Event"))
    end(operator, how)
    operator = start_operator().wait_ready()
    for each in tenants:
        await_known(operator, each)
    assert operator.terminate() == 0  # it has finished what it had begun
    assert [resource_versions(each) for each in tenants] == before
    assert [each.grants() for each in tenants] == [[EXCHANGE]] * len(tenants)
    assert len(tenant.objects.all("Event")) == events
    assert [line["msg"] for line in operator.logs() if tenant.objects.namespace in str(line)] == []
    assert (verdict := auditor.verdict()).is_good, verdict


@pytest.mark.rule("REQ-10")
def test_a_due_token_costs_one_exchange(tenant: Tenant, start_operator: StartOperator, auditor: Auditor) -> None:
    """Refresh tokens are not kept, so it is by client credentials; the status did not have to be true before."""
    operator = start_operator().wait_ready()
    tenant.start(lifetime=12)
    before = tenant.await_ready()
    operator.kill()
    tenant.register(lifetime=3600)
    due = seconds_of(before.notes["next-refresh"])
    wait_until(lambda: time.time() > due, what="the refresh is due")
    operator = start_operator()
    after = tenant.await_token(other_than=before.token)
    tenant.await_ready()
    assert seconds_of(after.notes["issued-at"]) >= due
    assert tenant.grants() == [EXCHANGE] * 2
    assert (verdict := auditor.verdict()).is_good, verdict


def test_an_expired_token_costs_one_exchange(tenant: Tenant, start_operator: StartOperator) -> None:
    operator = start_operator().wait_ready()
    tenant.start(lifetime=4)
    tenant.await_ready()
    operator.kill()
    expiry = seconds_of(tenant.target().notes["expires-at"])
    before = len(tenant.requests())
    tenant.register(lifetime=3600)
    wait_until(lambda: time.time() > expiry, what="the token has expired")
    operator = start_operator()
    wait_until(lambda: seconds_of(tenant.target().notes["expires-at"]) > expiry, what="a new token")
    tenant.await_ready()
    assert tenant.grants()[before:] == [EXCHANGE]


@pytest.mark.rule("STATUS-7")
def test_an_url_that_is_no_longer_allowed_ends_ready_and_nothing_else(
    tenant: Tenant, start_operator: StartOperator, other_token_urls: tuple[str, ...]
) -> None:
    """The good token stays, and counts again once the URL is allowed again."""
    operator = start_operator().wait_ready()
    tenant.start({"tokenURL": other_token_urls[0]})
    before = tenant.await_ready()
    operator.terminate()
    operator = start_operator(allowing=False)
    ready = tenant.await_condition("Ready", "False", "URLNotAllowed")
    assert tenant.condition("Refreshed") == ready
    operator.terminate()
    operator = start_operator()
    assert tenant.await_ready().raw == before.raw
    assert tenant.grants() == [EXCHANGE]


def test_an_answer_that_nobody_waits_for_any_more_costs_another_exchange(
    tenant: Tenant, start_operator: StartOperator
) -> None:
    operator = start_operator().wait_ready()
    tenant.sandbox.fault(Fault(kind="slow", seconds=2, client=tenant.client.id, count=1))
    tenant.start()
    tenant.await_requests(1)
    operator.kill()
    operator = start_operator()
    tenant.await_ready()
    assert tenant.grants() == [EXCHANGE] * 2


# --- What happens while no operator runs ------------------------------------------------------------------------------


def delete_target(tenant: Tenant) -> None:
    tenant.objects.delete("Secret", tenant.target_name)


def lose_status(tenant: Tenant) -> None:
    """As if the operator had crashed between the two writes."""
    tenant.objects.merge("TuinlyCredential", tenant.name, {"status": None}, subresource="status")


def overwrite_token(tenant: Tenant) -> None:
    tenant.objects.merge("Secret", tenant.target_name, {"stringData": {"access_token": "somebody's"}})


def remove_token(tenant: Tenant) -> None:
    tenant.objects.merge("Secret", tenant.target_name, {"data": {"access_token": None}})


def edit_annotation(tenant: Tenant, name: str, value: str) -> None:
    annotations = {f"tuinly.com/{name}": value}
    tenant.objects.merge("Secret", tenant.target_name, {"metadata": {"annotations": annotations}})


def rotate(tenant: Tenant) -> None:
    tenant.rotate_secret()
    tenant.apply_client_secret()


def make_again(tenant: Tenant) -> None:
    tenant.delete()
    wait_until(lambda: tenant.objects.find("TuinlyCredential", tenant.name) is None, what="the credential is gone")
    tenant.apply()


@dataclass(frozen=True)
class Change:
    """What is done while no operator runs, and what it costs."""

    do: Callable[[Tenant], object]
    exchanges: int


CHANGES: Mapping[str, Change] = {
    "nothing": Change(lambda _: None, 0),
    "lost-status": Change(lose_status, 0),
    "schedule": Change(lambda tenant: tenant.apply({"refresh": {"before": "10m"}}), 0),
    "key-of-somebody": Change(
        lambda tenant: tenant.objects.merge("Secret", tenant.target_name, {"stringData": {"theirs": "kept"}}), 0
    ),
    "scopes": Change(lambda tenant: tenant.apply({"scopes": ["orders:read"]}), 1),
    "rotated-client": Change(rotate, 1),
    "deleted-target": Change(delete_target, 1),
    "overwritten-token": Change(overwrite_token, 1),
    "removed-token": Change(remove_token, 1),
    "garbage-in-state": Change(lambda tenant: edit_annotation(tenant, "expires-at", "soon"), 1),
    "prolonged-by-hand": Change(lambda tenant: edit_annotation(tenant, "expires-at", "2036-01-01T00:00:00Z"), 1),
    "unknown-state-version": Change(lambda tenant: edit_annotation(tenant, "state-version", "2"), 1),
    "made-again": Change(make_again, 1),
}


@pytest.fixture(scope="module")
def restarted(
    cluster: Cluster, sandbox: SandboxProcess, make_operator: StartOperator
) -> Iterator[Mapping[str, tuple[Tenant, Target]]]:
    """Return per change a tenant, as the next operator left it, and its target before."""
    with new_namespace(cluster) as namespace:
        objects = Objects(cluster, namespace)
        tenants = {name: Tenant(objects, sandbox.admin, name) for name in CHANGES}
        with make_operator():
            for tenant in tenants.values():
                tenant.start(scopes=("orders:read", "orders:write"))
            before = {name: tenant.await_ready() for name, tenant in tenants.items()}
        for name, tenant in tenants.items():
            CHANGES[name].do(tenant)
        with make_operator() as operator:
            for name, tenant in tenants.items():
                await_known(operator, tenant)
                await_made_up_for(tenant, 1 + CHANGES[name].exchanges)
            assert operator.terminate() == 0
        yield {name: (tenant, before[name]) for name, tenant in tenants.items()}


def await_made_up_for(tenant: Tenant, tokens: int) -> None:
    """Wait until so many tokens were issued, the target holds the last, and the credential says so.

    The conditions alone may be those from before the restart.
    """

    def check() -> None:
        issued, target = tenant.tokens(), tenant.find_target()
        assert target is not None
        assert (len(issued), target.data.get("access_token")) == (tokens, issued[-1].value)
        assert tenant.status().get("lastRefreshTime") == target.notes["issued-at"]

    eventually(check)
    tenant.await_ready()


@pytest.mark.rule("DRIFT-4")
@pytest.mark.parametrize("name", CHANGES)
def test_what_happened_meanwhile_is_made_up_for(restarted: Mapping[str, tuple[Tenant, Target]], name: str) -> None:
    """In the end both conditions are True, the target holds what was issued last, and nothing was asked in vain."""
    tenant, before = restarted[name]
    after = tenant.await_ready()
    assert tenant.grants() == [EXCHANGE] * (1 + CHANGES[name].exchanges)
    tokens = [token.value for token in tenant.tokens()]
    assert [before.token, after.token] == [tokens[0], tokens[-1]]
    assert after.raw["metadata"]["ownerReferences"][0]["uid"] == tenant.credential()["metadata"]["uid"]
    if CHANGES[name].exchanges == 0:
        assert after.notes == before.notes


def test_a_key_of_somebody_else_stays(restarted: Mapping[str, tuple[Tenant, Target]]) -> None:
    tenant, _ = restarted["key-of-somebody"]
    assert tenant.target().data["theirs"] == "kept"


@pytest.mark.rule("STATUS-21", "STATE-8")
def test_a_lost_status_is_written_again(restarted: Mapping[str, tuple[Tenant, Target]]) -> None:
    tenant, before = restarted["lost-status"]
    status = tenant.status()
    assert status["tokenExpirationTime"] == before.notes["expires-at"]
    assert status["nextRefreshTime"] == before.notes["next-refresh"]
    assert status["lastRefreshTime"] == before.notes["issued-at"]
