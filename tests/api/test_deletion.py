"""Deletion: what goes, what does not come back, and that nobody is told of it."""

import signal

import pytest

from tests.support.cluster import Cluster, LocalCluster
from tests.support.crd import GOOD, Credentials
from tests.support.objects import ApiError, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault
from tests.support.tenant import Tenant
from tests.support.waiting import eventually, wait_until
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import Credential
from tuinly_operator.edges.credential_watch import NO_FINALIZER
from tuinly_operator.edges.kube import ApiFailure, Kube, event
from tuinly_operator.engine.store import Store
from tuinly_operator.reconciler.live import is_served

pytestmark = pytest.mark.usefixtures("operator")


def await_forgotten(operator: OperatorProcess, tenant: Tenant) -> None:
    """Wait until no metric is about the credential."""

    def check() -> None:
        mine = {("namespace", tenant.objects.namespace), ("credential", tenant.name)}
        assert [name for name, labels in operator.metrics() if mine <= labels] == []

    eventually(check)


@pytest.mark.rule("OWN-2")
def test_the_target_goes_with_the_credential_and_nothing_comes_back(tenant: Tenant, operator: OperatorProcess) -> None:
    """The operator has nothing to say about it, and no metric is left."""
    tenant.start(lifetime=6)
    tenant.await_ready()
    lines = len(operator.logs())
    tenant.delete()
    # In a new cluster the garbage collector learns only after half a minute that there are TuinlyCredentials.
    wait_until(lambda: tenant.find_target() is None, what="the target collected", seconds=90)
    await_forgotten(operator, tenant)
    requests, version = tenant.requests(), tenant.objects.version("Secret")
    # Another credential lives through a refresh: this one's would have been due too.
    other = Tenant(tenant.objects, tenant.sandbox, "other").start(lifetime=6)
    other.await_token(other_than=other.await_ready().token)
    assert tenant.requests() == requests
    assert tenant.objects.versions("Secret", tenant.target_name, since=version) == []
    assert [line for line in operator.logs()[lines:] if line.get("credential") == tenant.key] == []


@pytest.mark.rule("REMOVE-1")
def test_no_credential_can_bear_what_kopf_takes_for_its_finalizer(tenant: Tenant) -> None:
    """It would try for ever to remove it, which the operator may not."""
    tenant.apply()
    with pytest.raises(ApiError, match=r"metadata\.finalizers: Invalid value"):
        tenant.objects.merge("TuinlyCredential", tenant.name, {"metadata": {"finalizers": [NO_FINALIZER]}})


@pytest.mark.rule("WRITE-8")
def test_a_token_that_arrives_after_the_deletion_is_not_written(tenant: Tenant, operator: OperatorProcess) -> None:
    tenant.sandbox.fault(Fault(kind="slow", seconds=1.5, client=tenant.client.id))
    tenant.start()
    tenant.await_requests(1)
    tenant.delete()
    await_forgotten(operator, tenant)
    wait_until(lambda: tenant.sandbox.concurrency()["token"].now == 0, what="the answer is sent")
    other = Tenant(tenant.objects, tenant.sandbox, "other").start()
    other.await_ready()
    assert len(tenant.requests()) == 1
    assert tenant.targets() == []  # nor was there ever one, for the garbage collector to take away


@pytest.mark.rule("OWN-4")
def test_a_credential_that_is_made_again_gets_a_target_of_its_own(tenant: Tenant) -> None:
    """The one of its predecessor may still be there, waiting for the garbage collector."""
    tenant.start()
    first = tenant.await_ready()
    tenant.delete()
    credential = tenant.apply()

    def check() -> str:
        target = tenant.find_target()
        assert target is not None
        assert target.raw["metadata"]["ownerReferences"][0]["uid"] == credential["metadata"]["uid"]
        return target.token

    assert eventually(check) != first.token
    tenant.await_ready()


@pytest.mark.rule("OWN-18")
def test_a_namespace_goes_in_silence(tenant: Tenant, operator: OperatorProcess, cluster: Cluster) -> None:
    """Though its Secrets may go before its credentials: nothing is asked for, restored or complained of."""
    tenants = [Tenant(tenant.objects, tenant.sandbox, f"storefront-{number}").start() for number in range(5)]
    for each in tenants:
        each.await_ready()
    requests, lines = [each.requests() for each in tenants], len(operator.logs())
    cluster.kubectl("delete", "namespace", tenant.objects.namespace, "--timeout=60s")
    for each in tenants:
        await_forgotten(operator, each)
    assert [each.requests() for each in tenants] == requests
    told = [line for line in operator.logs()[lines:] if tenant.objects.namespace in str(line.get("credential"))]
    assert told == []


@pytest.mark.rule("OWN-18")
async def test_a_namespace_that_is_gone_counts_as_one_that_ends(kube: Kube) -> None:
    """What is sent about a credential may come late, after the namespace."""
    body = event("never-made", "storefront.1", {"kind": "TuinlyCredential", "name": "storefront"})
    with pytest.raises(ApiFailure) as refused:
        await kube.post_event("never-made", body)
    assert refused.value.not_found
    assert refused.value.namespace_ends


@pytest.mark.rule("OWN-18")
def test_in_a_namespace_that_ends_nothing_is_restored(
    tenant: Tenant, operator: OperatorProcess, local_cluster: LocalCluster
) -> None:
    """Whoever empties it may take the target before the credential: as here, where he is held up in between."""
    tenant.start()
    tenant.await_ready()
    tenant.await_events("Issued")
    lines, events = len(operator.logs()), len(tenant.objects.all("Event"))
    controllers = local_cluster.processes["kube-controller-manager"]
    controllers.send_signal(signal.SIGSTOP)
    try:
        local_cluster.kubectl("delete", "namespace", tenant.objects.namespace, "--wait=false")
        tenant.objects.delete("Secret", tenant.target_name)
        # By the time that another credential is served, this one would have been, too.
        with new_namespace(local_cluster) as elsewhere:
            Tenant(Objects(local_cluster, elsewhere), tenant.sandbox).start().await_ready()
        assert tenant.find_target() is None
        assert len(tenant.requests()) == 1
        assert [line for line in operator.logs()[lines:] if line.get("credential") == tenant.key] == []
        assert len(tenant.objects.all("Event")) == events
    finally:
        controllers.send_signal(signal.SIGCONT)


@pytest.mark.rule("REMOVE-1")
def test_nothing_holds_a_credential_while_the_operator_is_gone(tenant: Tenant) -> None:
    tenant.start()
    tenant.await_ready()
    for version in tenant.objects.versions("TuinlyCredential", tenant.name, since=tenant.begin):
        assert "finalizers" not in version["metadata"]
    for target in tenant.targets():
        assert "finalizers" not in target.raw["metadata"]


@pytest.mark.rule("ABS-3")
async def test_one_that_is_held_by_a_finalizer_is_as_good_as_gone(kube: Kube, namespace: str, cluster: Cluster) -> None:
    """So nothing is written for it after the read that decides, however late the watch tells of the deletion."""
    objects, key = Objects(cluster, namespace), NamespacedName(namespace, "storefront")
    store = Store(lambda _: None, lambda _: None)
    store.credential_seen(Credential.from_object(Credentials(cluster, namespace).create(GOOD)))
    record = store.get(key)
    assert record is not None
    objects.merge("TuinlyCredential", key.name, {"metadata": {"finalizers": ["example.com/hold"]}})
    assert await is_served(kube, store, record)
    objects.delete("TuinlyCredential", key.name)
    assert not await is_served(kube, store, record)
    objects.merge("TuinlyCredential", key.name, {"metadata": {"finalizers": None}})
