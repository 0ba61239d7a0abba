"""Objects that somebody nested as deeply as the API server lets him stop nobody, and get their own tokens."""

import json
from typing import Any

import pytest

from tests.api.conftest import StartOperator
from tests.support.plugin import Plugin
from tests.support.tenant import Tenant

LEVELS = 9_900
"""It takes 10,000. With more, Kubernetes' own controllers cannot list them any more, and end no namespace."""
NESTED = '{"f:deep":' * LEVELS + "{}" + "}" * LEVELS
COLLECTIONS = {
    "Secret": "/api/v1/namespaces/{}/secrets",
    "TuinlyCredential": "/apis/tuinly.com/v1alpha1/namespaces/{}/tuinlycredentials",
}


@pytest.fixture
def deep(tenant: Tenant) -> Tenant:
    """A tenant of the same namespace whose objects are made by `make`."""
    return Tenant(tenant.objects, tenant.sandbox, "deep")


def make(deep: Tenant) -> None:
    """Create its credential and client Secret, with managed fields that are nested and of nobody's use."""
    cluster, namespace = deep.objects.cluster, deep.objects.namespace
    deep.register()
    spec: dict[str, Any] = {"clientSecretRef": {"name": deep.client_secret_name}}
    data = {"client_id": deep.client.id, "client_secret": deep.client.secret}
    for kind, version, name, rest in (
        ("TuinlyCredential", "tuinly.com/v1alpha1", deep.name, {"spec": spec}),
        ("Secret", "v1", deep.client_secret_name, {"stringData": data}),
    ):
        managed = {"manager": "deep", "operation": "Update", "apiVersion": version, "fieldsType": "FieldsV1"}
        manifest = {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": name, "managedFields": [{**managed, "fieldsV1": 0}]},
            **rest,
        }
        text = json.dumps(manifest).replace('"fieldsV1": 0', f'"fieldsV1": {NESTED}')
        cluster.kubectl("create", "--raw", COLLECTIONS[kind].format(namespace), "-f", "-", input=text)


@pytest.mark.parametrize("when", ["listed", "watched"])
def test_nested_objects_stop_nobody(start_operator: StartOperator, tenant: Tenant, deep: Tenant, when: str) -> None:
    """Neither where they are there at the start, nor where they come later."""
    if when == "listed":
        make(deep)
    operator = start_operator().wait_ready()
    if when == "watched":
        make(deep)
    first = deep.await_token(other_than="").token
    tenant.start()
    tenant.await_ready()
    deep.rotate_secret()
    deep.apply_client_secret()
    deep.await_token(other_than=first)
    deep.await_condition("Refreshed", "True", "Issued")
    plugin = Plugin(tenant.objects.cluster).run("status", "-n", tenant.objects.namespace)
    assert (plugin.status, len(plugin.out.splitlines()), plugin.err) == (0, 3, "")
    assert [line for line in operator.logs() if line["level"] == "error"] == []
    assert operator.complaints(tenant.objects.namespace) == []
