"""Objects with managed fields that Python's parser does not take stop nobody, and get their own tokens."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import StartOperator
from tests.support.plugin import Plugin
from tests.support.tenant import Tenant

LEVELS = 9_900
"""The API server takes 10,000. With more, Kubernetes' own controllers cannot list them, and end no namespace."""
FIELDS = {
    "nested": b'{"f:odd":' * LEVELS + b"{}" + b"}" * LEVELS,
    "not UTF-8": b'{"f:\xff":{}}',
}
COLLECTIONS = {
    "Secret": "/api/v1/namespaces/{}/secrets",
    "TuinlyCredential": "/apis/tuinly.com/v1alpha1/namespaces/{}/tuinlycredentials",
}


@pytest.fixture
def odd(tenant: Tenant) -> Tenant:
    """A tenant of the same namespace whose objects are made by `make`."""
    return Tenant(tenant.objects, tenant.sandbox, "odd")


def make(odd: Tenant, fields: bytes, file: Path) -> None:
    """Create its credential and client Secret, with such managed fields, of nobody's use."""
    cluster, namespace = odd.objects.cluster, odd.objects.namespace
    odd.register()
    spec: dict[str, Any] = {"clientSecretRef": {"name": odd.client_secret_name}}
    data = {"client_id": odd.client.id, "client_secret": odd.client.secret}
    for kind, version, name, rest in (
        ("TuinlyCredential", "tuinly.com/v1alpha1", odd.name, {"spec": spec}),
        ("Secret", "v1", odd.client_secret_name, {"stringData": data}),
    ):
        managed = {"manager": "odd", "operation": "Update", "apiVersion": version, "fieldsType": "FieldsV1"}
        manifest = {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": name, "managedFields": [{**managed, "fieldsV1": 0}]},
            **rest,
        }
        file.write_bytes(json.dumps(manifest).encode().replace(b'"fieldsV1": 0', b'"fieldsV1": ' + fields))
        cluster.kubectl("create", "--raw", COLLECTIONS[kind].format(namespace), "-f", str(file))


@pytest.mark.rule("SEC-26")
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("when", ["listed", "watched"])
def test_odd_managed_fields_stop_nobody(  # noqa: PLR0913, PLR0917 -- fixtures
    start_operator: StartOperator, tenant: Tenant, odd: Tenant, tmp_path: Path, when: str, fields: bytes
) -> None:
    """Neither where they are there at the start, nor where they come later."""
    if when == "listed":
        make(odd, fields, tmp_path / "odd.json")
    operator = start_operator().wait_ready()
    if when == "watched":
        make(odd, fields, tmp_path / "odd.json")
    first = odd.await_token(other_than="").token
    tenant.start()
    tenant.await_ready()
    odd.rotate_secret()
    odd.apply_client_secret()
    odd.await_token(other_than=first)
    odd.await_condition("Refreshed", "True", "Issued")
    plugin = Plugin(tenant.objects.cluster).run("status", "-n", tenant.objects.namespace)
    assert (plugin.status, len(plugin.out.splitlines()), plugin.err) == (0, 3, "")
    assert [line for line in operator.logs() if line["level"] == "error"] == []
    assert operator.complaints(tenant.objects.namespace) == []
