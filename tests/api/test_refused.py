"""Two namespaces to serve, one of them refused: deleted with its Role, or without one yet. The other goes on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import StartOperator
from tests.api.test_rights import ALL, rules
from tests.support.cluster import Cluster
from tests.support.objects import Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.proxy import ApiProxy
from tests.support.tenant import Tenant
from tests.support.waiting import eventually, wait_until

RESOURCES = ("secrets", "tuinlycredentials")


def grant(cluster: Cluster, namespace: str, account: str) -> None:
    """Give an account of some namespace the operator's rights in this one."""
    kinds = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "operator"}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": account}
    items = [
        {"kind": "Role", **kinds, "rules": rules(ALL)},
        {"kind": "RoleBinding", **kinds, "roleRef": reference, "subjects": [subject]},
    ]
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    cluster.kubectl("apply", "--namespace", namespace, "-f", "-", input=objects)


@pytest.fixture
def login(cluster: Cluster, namespace: str) -> Path:
    """Return a kubeconfig of an account with the operator's rights in the tenant's namespace."""
    cluster.kubectl("create", "serviceaccount", "operator", "-n", namespace)
    grant(cluster, namespace, namespace)
    return cluster.kubeconfig_for(namespace, "operator")


@pytest.fixture
def other(cluster: Cluster, tenant: Tenant) -> Iterator[Tenant]:
    """Return a tenant of the second namespace, in which the account has no rights yet."""
    with new_namespace(cluster) as name:
        yield Tenant(Objects(cluster, name), tenant.sandbox)


@pytest.fixture
def proxy(cluster: Cluster, tmp_path: Path) -> Iterator[ApiProxy]:
    """Return a proxy before the API server: a right is looked at when a watch begins, so watches must be ended."""
    with ApiProxy(cluster.server, cluster.ca_file, tmp_path) as running:
        yield running


def refused(operator: OperatorProcess, tenant: Tenant) -> list[float | None]:
    """Return what the metrics tell of the tenant's namespace."""
    name = "tuinly_namespace_refused"
    return [operator.metric(name, resource=each, namespace=tenant.objects.namespace) for each in RESOURCES]


def told(operator: OperatorProcess, tenant: Tenant) -> list[str]:
    """Return the warnings about the tenant's namespace."""
    lines = [line["msg"] for line in operator.logs() if line["level"] in {"warning", "error"}]
    return [line for line in lines if tenant.objects.namespace in line]


def starts(operator: OperatorProcess) -> list[str]:
    """Return when kopf was started anew."""
    return [line["ts"] for line in operator.logs() if line["msg"] == "watching the TuinlyCredentials anew"]


@pytest.mark.rule("OUT-5")
def test_a_namespace_that_is_refused_holds_up_no_other(
    tenant: Tenant, other: Tenant, login: Path, start_operator: StartOperator, proxy: ApiProxy
) -> None:
    """At a start, while it runs, and at the next start; and it is served once it may be, without one."""
    both = ("--namespace", tenant.objects.namespace, "--namespace", other.objects.namespace)
    operator = start_operator(*both, kubeconfig=proxy.kubeconfig(login)).wait_ready()
    other.start()
    before = tenant.start().await_ready()
    assert refused(operator, other) == [1.0, None]
    assert f"may list and watch secrets in namespace {other.objects.namespace}: no" in operator.get("/readyz")[1]
    assert len(told(operator, other)) == 1
    assert (other.requests(), other.status()) == ([], {})

    grant(other.objects.cluster, other.objects.namespace, tenant.objects.namespace)
    other.await_ready()
    assert refused(operator, other) == [None, None]
    assert operator.get("/readyz") == (200, "ok\n")

    other.objects.cluster.kubectl("delete", "rolebinding", "operator", "-n", other.objects.namespace)
    proxy.cut()
    proxy.pass_on()
    eventually(lambda: _assert_equal(refused(operator, other), [1.0, None]))
    wait_until(lambda: len(starts(operator)) > 1, what="kopf is started without that namespace")
    tenant.rotate_secret()
    tenant.apply_client_secret()
    tenant.await_token(other_than=before.token)
    operator.wait_ready()
    assert operator.get("/healthz") == (200, "ok\n")
    assert operator.metric("tuinly_credentials") == 2  # who was deleted would have been told of
    assert operator.terminate() == 0

    operator = start_operator(*both, kubeconfig=login).wait_ready()
    token = tenant.await_ready().token
    tenant.rotate_secret()
    tenant.apply_client_secret()
    tenant.await_token(other_than=token)
    assert refused(operator, other) == [1.0, None]
    assert len(other.requests()) == 1


def _assert_equal(found: object, wanted: object) -> None:
    assert found == wanted
