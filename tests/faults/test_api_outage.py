"""The API server goes away, forgets, refuses or falls silent: the operator stays, waits, and makes nothing worse."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.api.conftest import ROOT, StartOperator
from tests.support.acts import FORCE
from tests.support.auditor import Auditor
from tests.support.cluster import Cluster, LocalCluster
from tests.support.objects import ApiError
from tests.support.operator import OperatorProcess
from tests.support.proxy import ApiProxy, Fault
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant, seconds_of
from tests.support.waiting import eventually, wait_until
from tuinly_operator import census as census_module
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.settings import parse_settings
from tuinly_operator.base.surroundings import Surroundings
from tuinly_operator.operator import Operator

EXCHANGE = "client_credentials"
REFRESH = "refresh_token"

AWAY = "the API server is out of reach; no token is asked for until it is back"
BACK = "the API server is within reach again"

CRD = "tuinlycredentials.tuinly.com"

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


BY_LEASE = ("--lease", "tuinly-system/tuinly-operator")


@pytest.mark.rule("FRESH-1", "REQ-11", "OUT-1", "REPL-12")
@pytest.mark.parametrize(
    ("seconds", "flags"),
    [
        pytest.param(20, (), id="20s"),
        pytest.param(20, BY_LEASE, id="20s-by-a-lease"),
        pytest.param(120, (), marks=[pytest.mark.slow, pytest.mark.timeout(300)], id="120s"),
    ],
)
def test_what_becomes_due_while_the_api_server_is_down_is_refreshed_once_it_is_back(  # noqa: PLR0913, PLR0917 - what it needs
    local_cluster: LocalCluster,
    tenant: Tenant,
    start_operator: StartOperator,
    auditor: Auditor,
    seconds: int,
    flags: Sequence[str],
) -> None:
    """Not before: the result could not be published. By refresh token, as if nothing had been.

    Also where the lead is lost meanwhile: nobody else has had it.
    """
    operator = start_operator(*flags).wait_ready()
    wait_until(lambda: operator.metric("tuinly_leader") == 1, what="it leads")
    # Due after 45 to 50 % of their lives: within the outage, and with as much left after it.
    tenants = team(tenant, *(f"storefront-{number}" for number in range(10)), lifetime=2 * seconds)
    due = max(seconds_of(each.target().notes["next-refresh"]) for each in tenants)
    local_cluster.stop_apiserver()
    try:
        away = operator.wait_for_log(lambda line: line["msg"] == AWAY)
        assert operator.get("/readyz")[0] == 503
        wait_until(lambda: time.time() > due + 1, what="all tokens are due", seconds=seconds)
        assert operator.metric("tuinly_leader") == (0 if flags else 1)
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


TOO_OLD = (
    Fault(path="secrets.*watch=true", status=410, times=1),
    Fault(path="tuinlycredentials.*watch=true", status=410, times=1),
)
TOLD_SO = tuple(replace(fault, in_stream=True) for fault in TOO_OLD)
each_way_on = pytest.mark.parametrize("faults", [(), TOO_OLD, TOLD_SO], ids=["resumed", "410", "410-in-the-stream"])


@pytest.mark.rule("ABS-4", "ABS-10", "OUT-1")
@each_way_on
def test_what_happens_while_the_operator_is_cut_off_is_made_up_for(
    tenant: Tenant, start_operator: StartOperator, operator_login: Path, proxy: ApiProxy, faults: tuple[Fault, ...]
) -> None:
    """Also where the watches cannot go on from where they were, and nobody tells of what was deleted."""
    operator = start_operator(kubeconfig=proxy.kubeconfig(operator_login)).wait_ready()
    kept, emptied, changed, deleted, recreated = team(tenant, "kept", "emptied", "changed", "deleted", "recreated")
    before = {each.name: len(each.requests()) for each in (kept, emptied, changed, deleted, recreated)}
    token = emptied.target().token
    proxy.cut()
    operator.wait_for_log(lambda line: line["msg"] == AWAY)
    emptied.objects.delete("Secret", emptied.target_name)
    changed.register(scopes=("orders:read",))
    changed.apply({"scopes": ["orders:read"]})
    recreated.delete()
    recreated.apply()
    deleted.delete()
    with suppress(ApiError):  # the garbage collector may be quicker, or much slower
        deleted.objects.delete("Secret", deleted.target_name)
    for fault in faults:
        proxy.fault(replace(fault))
    proxy.pass_on()
    await_restored(emptied, token)
    changed.await_ready()
    await_issued(recreated, since=1)
    recreated.await_ready()
    tenant.start().await_ready()
    await_dropped(operator, deleted)
    assert deleted.find_target() is None
    made = {each.name: len(each.requests()) - before[each.name] for each in (kept, emptied, changed, recreated)}
    assert made == {"kept": 0, "emptied": 0, "changed": 1, "recreated": 1}
    assert len(deleted.requests()) - before["deleted"] <= 1
    operator.wait_ready()
    assert_logs_are_readable(operator)


MOST_WRITES = 20
"""Writes of a target that the test below may cost: one for each token, a restore, and what was overtaken."""


@pytest.mark.rule("ABS-8")
@pytest.mark.timeout(300)
def test_etcd_is_restored_from_a_backup(
    tenant: Tenant, local_cluster: LocalCluster, start_operator: StartOperator, operator_login: Path, proxy: ApiProxy
) -> None:
    """Resource versions go back, so that no watch tells of anything; what was deleted since the backup is there again.

    Then people go on.
    """
    operator = start_operator(kubeconfig=proxy.kubeconfig(operator_login)).wait_ready()
    kept, deleted = team(tenant, "kept", "deleted")
    local_cluster.back_up()
    operator.wait_ready()
    for number in range(3):
        before = kept.target().token
        kept.objects.merge("TuinlyCredential", kept.name, {"metadata": {"annotations": {FORCE: str(number)}}})
        kept.await_token(other_than=before, seconds=60)
        kept.await_ready(60)
    deleted.delete()
    await_dropped(operator, deleted)
    outages = said(operator, AWAY)
    proxy.cut()
    wait_until(lambda: said(operator, AWAY) > outages, what="the outage is noticed")
    local_cluster.restore()
    proxy.pass_on()
    operator.wait_for_log(lambda line: "history went back" in line["msg"], seconds=60)
    for each in (kept, deleted):
        each.await_ready(60)
    kept.objects.merge("TuinlyCredential", kept.name, {"spec": {"target": {"deletionPolicy": "Retain"}}})
    wait_until(lambda: not kept.target().raw["metadata"].get("ownerReferences"), what="a changed spec is followed")
    token = kept.target().token
    kept.objects.merge("Secret", kept.target_name, {"data": {"access_token": "ZGFtYWdlZA=="}})
    await_restored(kept, token)
    tenant.start().await_ready()
    assert proxy.count(f"secrets/{kept.target_name}", "PATCH") < MOST_WRITES


def said(operator: OperatorProcess, what: str) -> int:
    """Return how often the log says this."""
    return sum(line["msg"] == what for line in operator.logs())


def await_dropped(operator: OperatorProcess, tenant: Tenant) -> None:
    """Wait until the operator knows of a credential no more."""
    labels = {"namespace": tenant.objects.namespace, "credential": tenant.name}
    wait_until(lambda: operator.metric("tuinly_credential_ready", **labels) is None, what=f"{tenant.name} is dropped")


@each_way_on
def test_a_credential_deleted_unseen_makes_one_token_request_at_most(
    tenant: Tenant, start_operator: StartOperator, operator_login: Path, proxy: ApiProxy, faults: tuple[Fault, ...]
) -> None:
    """Its retained target is still there, and so is its client Secret, which changes."""
    operator = start_operator(kubeconfig=proxy.kubeconfig(operator_login)).wait_ready()
    tenant.start({"target": {"deletionPolicy": "Retain"}}).await_ready()
    proxy.cut()
    operator.wait_for_log(lambda line: line["msg"] == AWAY)
    tenant.delete()
    tenant.rotate_secret()
    tenant.apply_client_secret()
    for fault in faults:
        proxy.fault(replace(fault))
    proxy.pass_on()
    await_dropped(operator, tenant)
    tenant.rotate_secret()
    tenant.apply_client_secret()
    Tenant(tenant.objects, tenant.sandbox, "other").start().await_ready()
    assert len(tenant.requests()) <= 2
    assert tenant.find_target() is not None


@pytest.mark.rule("ABS-4")
@pytest.mark.parametrize("away", [False, True], ids=["in time", "after an outage"])
async def test_the_census_finds_who_was_deleted_unseen(  # noqa: PLR0913 - fixtures
    tenant: Tenant,
    sandbox: SandboxProcess,
    operator_login: Path,
    proxy: ApiProxy,
    monkeypatch: pytest.MonkeyPatch,
    *,
    away: bool,
) -> None:
    """Even if nothing ever happens that would make the operator look."""
    monkeypatch.setattr(census_module, "_RETRY" if away else "_SECONDS", 0.5)
    login = proxy.kubeconfig(operator_login)
    argv = ["run", "--kubeconfig", str(login), "--listen", "127.0.0.1:0", "--token-url", sandbox.token_url]
    operator, stop = Operator(parse_settings(argv, {}), Surroundings.of_this_process()), asyncio.Event()
    key = NamespacedName(tenant.objects.namespace, tenant.name)
    await operator.start()
    work = asyncio.create_task(operator.work_until(stop))
    try:
        tenant.start({"target": {"deletionPolicy": "Retain"}})
        await asyncio.to_thread(tenant.await_ready)
        proxy.cut()
        tenant.delete()
        if away:
            kube = operator._kube  # noqa: SLF001 - as directly
            await asyncio.to_thread(wait_until, lambda: not kube.reachable, what="it sees the outage")
        for fault in TOLD_SO:
            proxy.fault(replace(fault))
        proxy.pass_on()
        known = operator._store.get  # noqa: SLF001 - nothing shows it to the outside as directly
        await asyncio.to_thread(wait_until, lambda: known(key) is None, what="it is dropped")
    finally:
        stop.set()
        proxy.cut()
        await work
        await operator.close()
    assert len(tenant.requests()) == 1


def test_the_definition_may_be_deleted_and_applied_again(
    local_cluster: LocalCluster, tenant: Tenant, start_operator: StartOperator
) -> None:
    """All credentials go with it and are forgotten; the operator stays, says that it sees none, takes up new ones."""
    operator = start_operator().wait_ready()
    (old,) = team(tenant, "old")
    local_cluster.kubectl("delete", "crd", CRD)
    try:
        wait_until(lambda: operator.get("/readyz")[0] == 503, what="it says that it sees no credentials")
        assert "TuinlyCredentials" in operator.get("/readyz")[1]
        wait_until(lambda: operator.metric("tuinly_credentials") == 0, what="the credential is dropped")
    finally:
        local_cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds" / "tuinlycredentials.yaml"))
        local_cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")
    operator.wait_ready()
    tenant.start().await_ready()
    assert len(old.requests()) == 1
    assert_logs_are_readable(operator)
