"""The API server goes away, forgets, refuses or falls silent: the operator stays, waits, and makes nothing worse."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.api.conftest import StartOperator
from tests.support.auditor import Auditor
from tests.support.cluster import Cluster, LocalCluster
from tests.support.operator import OperatorProcess
from tests.support.proxy import ApiProxy, Fault
from tests.support.tenant import Tenant, seconds_of
from tests.support.waiting import eventually, wait_until

EXCHANGE = "client_credentials"
REFRESH = "refresh_token"

AWAY = "the API server is out of reach; no token is asked for until it is back"
BACK = "the API server is within reach again"

MOST_COMPLAINTS = 12
"""The most often that a test lets the operator complain of the same thing: about once per credential."""


@pytest.fixture
def proxy(cluster: Cluster, tmp_path: Path) -> Iterator[ApiProxy]:
    """Return a proxy before the API server."""
    with ApiProxy(cluster.server, cluster.ca_file, tmp_path / "proxy") as running:
        yield running


def team(tenant: Tenant, *names: str, lifetime: float = 3600) -> list[Tenant]:
    """Start a credential per name and wait until all are ready."""
    tenants = [Tenant(tenant.objects, tenant.sandbox, name).start(lifetime=lifetime) for name in names]
    for each in tenants:
        each.await_ready()
    return tenants


def assert_logs_are_readable(operator: OperatorProcess) -> None:
    """Each line says something in one line, without a traceback, and not over and over; the process is the same."""
    assert not operator.ended
    lines = operator.logs()
    for line in lines:
        assert line["msg"], line
        assert "\n" not in line["msg"], line
        assert "exc" not in line, line
    complaints = Counter((line["logger"], line["msg"]) for line in lines if line["level"] in {"warning", "error"})
    assert max(complaints.values(), default=0) <= MOST_COMPLAINTS, complaints
    assert not [line for line in lines if "attempt #2" in line["msg"]]


@pytest.mark.parametrize(
    "seconds", [25, pytest.param(120, marks=[pytest.mark.slow, pytest.mark.timeout(300)])], ids=lambda s: f"{s}s"
)
def test_what_becomes_due_while_the_api_server_is_down_is_refreshed_once_it_is_back(
    local_cluster: LocalCluster, tenant: Tenant, start_operator: StartOperator, auditor: Auditor, seconds: int
) -> None:
    """Not before: the result could not be published. By refresh token, as if nothing had been."""
    operator = start_operator().wait_ready()
    # Due after 45 to 50 % of their lives: within the outage, and with as much left after it.
    tenants = team(tenant, *(f"storefront-{number}" for number in range(10)), lifetime=2 * seconds)
    due = max(seconds_of(each.target().notes["next-refresh"]) for each in tenants)
    local_cluster.stop_apiserver()
    try:
        away = operator.wait_for_log(lambda line: line["msg"] == AWAY)
        assert operator.get("/readyz")[0] == 503
        wait_until(lambda: time.time() > due + 1, what="all tokens are due", seconds=seconds)
        assert operator.get("/healthz")[0] == 200
    finally:
        local_cluster.start_apiserver()
    back = operator.wait_for_log(lambda line: line["msg"] == BACK)
    for each in tenants:
        each.await_requests(2)
        each.await_ready()
        assert each.grants() == [EXCHANGE, REFRESH]
    times = [request.received_at for each in tenants for request in each.requests()]
    assert not [at for at in times if seconds_of(away["ts"]) <= at < seconds_of(back["ts"])]
    operator.wait_ready()
    assert (verdict := auditor.verdict()).is_good, verdict
    # An API server that has just started refuses everybody, as it does not know their rights yet.
    assert not [line for line in operator.logs() if line.get("reason") == "TargetRejected"]
    assert_all_is_seen(tenant, tenants[0])
    assert_logs_are_readable(operator)


def assert_all_is_seen(new: Tenant, old: Tenant) -> None:
    """What happens to credentials and to Secrets is followed."""
    new.start().await_ready()
    token = old.target().token
    old.objects.delete("Secret", old.target_name)
    await_restored(old, token)


def await_restored(tenant: Tenant, token: str) -> None:
    """Wait until the target is there again, with the same token."""

    def check() -> None:
        target = tenant.find_target()
        assert target is not None
        assert target.token == token

    eventually(check)


def await_issued(tenant: Tenant, since: int) -> None:
    """Wait until the target is there, with the one token that was issued since so many were."""

    def check() -> None:
        target = tenant.find_target()
        assert target is not None
        assert [token.value for token in tenant.tokens()[since:]] == [target.token]

    eventually(check)


@pytest.mark.parametrize(
    "gone",
    [None, Fault(path="watch=true", status=410), Fault(path="watch=true", status=410, in_stream=True)],
    ids=["resumed", "410", "410-in-the-stream"],
)
def test_what_happens_while_the_operator_is_cut_off_is_made_up_for(
    tenant: Tenant, start_operator: StartOperator, operator_login: Path, proxy: ApiProxy, gone: Fault | None
) -> None:
    """Also where the watches cannot go on from where they were, and nobody tells of what was deleted."""
    operator = start_operator(kubeconfig=proxy.kubeconfig(operator_login)).wait_ready()
    kept, emptied, changed, deleted, recreated = team(tenant, "kept", "emptied", "changed", "deleted", "recreated")
    before = {each.name: len(each.requests()) for each in (kept, emptied, changed, deleted, recreated)}
    token, version = emptied.target().token, deleted.target().version
    proxy.cut()
    operator.wait_for_log(lambda line: line["msg"] == AWAY)
    emptied.objects.delete("Secret", emptied.target_name)
    changed.register(scopes=("orders:read",))
    changed.apply({"scopes": ["orders:read"]})
    deleted.delete()
    recreated.delete()
    recreated.apply()
    if gone is not None:
        proxy.fault(replace(gone, path="secrets.*watch=true", times=1))
        proxy.fault(replace(gone, path="tuinlycredentials.*watch=true", times=1))
    proxy.pass_on()
    await_restored(emptied, token)
    changed.await_ready()
    await_issued(recreated, since=1)
    recreated.await_ready()
    tenant.start().await_ready()
    wait_until(lambda: operator.metric("tuinly_credentials") == 5, what="the deleted one is dropped")
    left = deleted.find_target()
    assert left is None or left.version == version  # it is the garbage collector's
    made = {each.name: len(each.requests()) - before[each.name] for each in (kept, emptied, changed, recreated)}
    assert made == {"kept": 0, "emptied": 0, "changed": 1, "recreated": 1}
    assert len(deleted.requests()) - before["deleted"] <= 1
    operator.wait_ready()
    assert_logs_are_readable(operator)
