"""An operator that lacks a right: it says so, keeps what it has, and goes on as soon as the right is there."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.api.conftest import StartOperator
from tests.support.acts import force
from tests.support.objects import Json
from tests.support.tenant import Tenant
from tests.support.waiting import eventually

ALL = ("get", "list", "watch", "create", "patch", "delete")


def rules(secret_verbs: Sequence[str]) -> list[Json]:
    """Return the rules of a Role that is as in deploy/namespaced.yaml, but for what it may do with Secrets."""
    return [
        {"apiGroups": ["tuinly.com"], "resources": ["tuinlycredentials"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["tuinly.com"], "resources": ["tuinlycredentials/status"], "verbs": ["patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": list(secret_verbs)},
    ]


def grant(tenant: Tenant, secret_verbs: Sequence[str]) -> None:
    """Give the namespace's own account these rights, and no others."""
    kinds = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "operator"}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": tenant.objects.namespace}
    items = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}},
        {"kind": "Role", **kinds, "rules": rules(secret_verbs)},
        {"kind": "RoleBinding", **kinds, "roleRef": reference, "subjects": [subject]},
    ]
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    tenant.objects.cluster.kubectl("apply", "--namespace", tenant.objects.namespace, "-f", "-", input=objects)


def login(tenant: Tenant) -> Path:
    """Return a kubeconfig of the namespace's own account."""
    return tenant.objects.cluster.kubeconfig_for(tenant.objects.namespace, "operator")


@pytest.mark.rule("WRITE-5")
@pytest.mark.parametrize("missing", ["create", "patch"])
def test_a_first_token_that_may_not_be_written_waits_in_memory(
    tenant: Tenant, start_operator: StartOperator, missing: str
) -> None:
    grant(tenant, [verb for verb in ALL if verb != missing])
    start_operator("--namespace", tenant.objects.namespace, kubeconfig=login(tenant))
    tenant.start()
    condition = tenant.await_condition("Ready", "False", "TargetRejected")
    assert "RBAC" in condition.message
    assert tenant.find_target() is None
    grant(tenant, ALL)
    [token] = tenant.tokens()
    assert tenant.await_ready().token == token.value
    assert len(tenant.requests()) == 1


@pytest.mark.rule("WRITE-5")
def test_a_later_token_that_may_not_be_written_waits_in_memory(tenant: Tenant, start_operator: StartOperator) -> None:
    grant(tenant, ALL)
    start_operator("--namespace", tenant.objects.namespace, kubeconfig=login(tenant))
    before = tenant.start().await_ready()
    grant(tenant, ["get", "list", "watch"])
    force(tenant, "now")
    tenant.await_condition("Refreshed", "False", "TargetRejected")
    tenant.await_condition("Ready", "True", "Issued")
    assert tenant.target().version == before.version
    grant(tenant, ALL)
    tenant.await_token(other_than=before.token)
    assert tenant.await_ready().token == tenant.tokens()[-1].value
    assert len(tenant.requests()) == 2


def test_an_old_target_that_may_not_be_deleted_is_deleted_once_it_may_be(
    tenant: Tenant, start_operator: StartOperator
) -> None:
    """A rename is published all the same."""
    grant(tenant, [verb for verb in ALL if verb != "delete"])
    operator = start_operator("--namespace", tenant.objects.namespace, kubeconfig=login(tenant))
    before, old_name = tenant.start().await_ready(), tenant.target_name
    tenant.apply({"target": {"name": "moved"}})
    operator.wait_for_log(lambda line: "403" in str(line.get("cause")))
    assert tenant.objects.find("Secret", "moved") is not None
    assert tenant.target().version == before.version
    grant(tenant, ALL)

    def is_gone() -> None:
        assert tenant.objects.find("Secret", old_name) is None

    eventually(is_gone)
    tenant.target_name = "moved"
    assert tenant.await_ready().token == before.token
    assert len(tenant.requests()) == 1
