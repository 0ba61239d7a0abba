"""The main job: a TuinlyCredential becomes a valid token in a Secret, and the credential says so."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.support.auditor import Auditor
from tests.support.cluster import Cluster
from tests.support.objects import Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant, seconds_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture(scope="module")
def started(cluster: Cluster, sandbox: SandboxProcess, operator: OperatorProcess) -> Iterator[Tenant]:  # noqa: ARG001
    """Return a tenant whose credential is ready, for tests that only look; in the end its target was never bad."""
    with new_namespace(cluster) as namespace, Auditor(cluster.kubeconfig, sandbox.admin, [namespace]) as auditor:
        tenant = Tenant(Objects(cluster, namespace), sandbox.admin)
        tenant.start({"scopes": ["orders:write", "orders:read"]}, scopes=("orders:read", "orders:write"))
        tenant.await_ready()
        yield tenant
        verdict = auditor.verdict()
    assert verdict.is_good, verdict


@pytest.mark.rule("TARGET-1")
def test_the_target_holds_the_token_under_the_default_keys(started: Tenant, sandbox: SandboxProcess) -> None:
    target = started.target()
    [token] = started.tokens()
    assert target.data == {
        "access_token": token.value,
        "token_type": "Bearer",
        "expires_at": target.notes["expires-at"],
    }
    assert target.raw["type"] == "Opaque"
    assert sandbox.admin.graphql(target.token) == 200


@pytest.mark.rule("WHEN-1")
def test_the_expiry_is_counted_from_before_the_request(started: Tenant) -> None:
    """So the token lives at least as long as the target says."""
    [token] = started.tokens()
    expires_at = seconds_of(started.target().data["expires_at"])
    assert expires_at <= token.expires_at
    assert expires_at == seconds_of(started.target().notes["issued-at"]) + token.expires_in


@pytest.mark.rule("REMOVE-1", "STATE-1", "OWN-2")
def test_the_target_belongs_to_the_credential(started: Tenant) -> None:
    credential, meta = started.credential(), started.target().raw["metadata"]
    assert meta["labels"] == {
        "app.kubernetes.io/managed-by": "tuinly-operator",
        "tuinly.com/credential": started.name,
    }
    owner = {
        "apiVersion": "tuinly.com/v1alpha1",
        "kind": "TuinlyCredential",
        "name": started.name,
        "uid": credential["metadata"]["uid"],
        "controller": True,
    }
    assert meta["ownerReferences"] == [owner]
    assert "finalizers" not in meta
    assert "finalizers" not in credential["metadata"]


@pytest.mark.rule("WRITE-1")
def test_the_target_is_written_by_server_side_apply_alone(started: Tenant) -> None:
    """Drift is seen by who owns a key: an entry of another kind would keep keys that a later apply drops."""
    managed = started.target().raw["metadata"]["managedFields"]
    assert [(entry["manager"], entry["operation"]) for entry in managed] == [("tuinly-operator", "Apply")]


@pytest.mark.rule("STATE-2")
def test_the_targets_annotations_are_the_operators_state(started: Tenant) -> None:
    client_secret = started.objects.get("Secret", started.client_secret_name)["metadata"]
    notes = started.target().notes
    assert set(notes) == {
        "client-secret-version",
        "credential-uid",
        "exchange-inputs",
        "expires-at",
        "granted-scopes",
        "handled-refresh",
        "issued-at",
        "next-refresh",
        "state-version",
        "template",
    }
    assert notes["state-version"] == "1"
    assert notes["credential-uid"] == started.credential()["metadata"]["uid"]
    assert notes["client-secret-version"] == f"{client_secret['uid']}/{client_secret['resourceVersion']}"
    assert notes["granted-scopes"] == "orders:read orders:write"
    assert re.fullmatch("[0-9a-f]{16,64}", notes["exchange-inputs"])
    assert seconds_of(notes["issued-at"]) < seconds_of(notes["next-refresh"]) < seconds_of(notes["expires-at"])


@pytest.mark.rule("STATUS-1")
def test_the_status_reports_it(started: Tenant, sandbox: SandboxProcess) -> None:
    credential, notes = started.credential(), started.target().notes
    status = credential["status"]
    conditions = {each.pop("type"): each for each in status.pop("conditions")}
    for condition in conditions.values():
        assert condition.pop("message")
        assert seconds_of(condition.pop("lastTransitionTime")) >= seconds_of(notes["issued-at"])
    generation = credential["metadata"]["generation"]
    issued = {"status": "True", "reason": "Issued", "observedGeneration": generation}
    assert conditions == {"Ready": issued, "Refreshed": issued}
    assert status == {
        "observedGeneration": generation,
        "secretName": started.target_name,
        "tokenURL": sandbox.https_token_url,
        "tokenExpirationTime": notes["expires-at"],
        "nextRefreshTime": notes["next-refresh"],
        "lastRefreshTime": notes["issued-at"],
        "lastGrant": "ClientCredentials",
        "scopes": ["orders:read", "orders:write"],
        "failedAttempts": 0,
    }


def test_the_first_token_costs_one_exchange_and_one_write_of_the_target(started: Tenant) -> None:
    [request] = started.requests()
    assert (request.grant, request.sent_client, request.status) == ("client_credentials", True, 200)
    assert set(request.scopes) == {"orders:read", "orders:write"}
    assert len(started.objects.versions("Secret", started.target_name, since=started.begin)) == 1


@pytest.mark.rule("OBS-3")
def test_one_event_tells_of_the_first_token(started: Tenant) -> None:
    event = started.await_event("Issued")
    assert event["type"] == "Normal"
    assert event["note"]
    assert event["regarding"]["kind"] == "TuinlyCredential"
    assert event["regarding"]["uid"] == started.credential()["metadata"]["uid"]
    assert started.event_reasons().count("Issued") == 1


@pytest.mark.rule("OBS-5")
def test_one_line_is_logged_for_it(started: Tenant, operator: OperatorProcess) -> None:
    key = f"{started.objects.namespace}/{started.name}"
    lines = [line for line in operator.logs() if line.get("credential") == key]
    assert [(line["level"], line["msg"], line["grant"]) for line in lines] == [
        ("info", "refreshed", "ClientCredentials")
    ]


@pytest.mark.rule("RES-7")
def test_kubectl_get_shows_what_matters(started: Tenant, cluster: Cluster) -> None:
    table = cluster.kubectl("get", "tc", "--namespace", started.objects.namespace)
    header, row = (re.split(r" {2,}", line.strip()) for line in table.splitlines())
    assert header == ["NAME", "READY", "REASON", "SECRET", "EXPIRES", "NEXT REFRESH", "AGE"]
    status = started.status()
    assert row[:-1] == [
        started.name,
        "True",
        "Issued",
        started.target_name,
        status["tokenExpirationTime"],
        status["nextRefreshTime"],
    ]


@pytest.mark.rule("STATUS-16")
def test_kubectl_can_wait_for_it(started: Tenant, cluster: Cluster) -> None:
    wait = ("wait", "--for=condition=Ready", "--timeout=30s", f"tuinlycredential/{started.name}")
    assert "condition met" in cluster.kubectl(*wait, "--namespace", started.objects.namespace)


@pytest.mark.rule("OBS-10")
def test_metrics_count_it_and_tell_its_times(started: Tenant, operator: OperatorProcess) -> None:
    labels = {"namespace": started.objects.namespace, "credential": started.name}
    status = started.status()
    expiry = operator.metric("tuinly_credential_expiration_timestamp_seconds", **labels)
    next_refresh = operator.metric("tuinly_credential_next_refresh_timestamp_seconds", **labels)
    assert operator.metric("tuinly_credential_ready", **labels) == 1
    assert expiry == seconds_of(status["tokenExpirationTime"])
    assert next_refresh is not None
    assert abs(next_refresh - seconds_of(status["nextRefreshTime"])) <= 1
    requests = {"grant": "ClientCredentials", "outcome": "Issued"}
    assert (operator.metric("tuinly_token_requests_total", **requests) or 0) >= 1
    assert (operator.metric("tuinly_refreshes_total", grant="ClientCredentials") or 0) >= 1


@pytest.mark.rule("TARGET-2")
def test_the_target_and_the_keys_of_the_client_secret_can_be_named(tenant: Tenant) -> None:
    tenant.register()
    tenant.apply_client_secret({"id": tenant.client.id, "password": tenant.client.secret})
    reference = {"name": tenant.client_secret_name, "clientIDKey": "id", "clientSecretKey": "password"}
    tenant.apply({"clientSecretRef": reference, "target": {"name": "elsewhere"}})
    tenant.await_condition("Ready", "True", "Issued")
    assert tenant.status()["secretName"] == "elsewhere"
    assert tenant.objects.find("Secret", tenant.target_name) is None
    assert tenant.objects.get("Secret", "elsewhere")["metadata"]["labels"]["tuinly.com/credential"] == tenant.name


def test_where_push_is_not_installed_the_token_comes_all_the_same_and_it_is_said(tenant: Tenant) -> None:
    tenant.start({"delivery": {"pods": "Push"}})
    condition = tenant.await_condition("Delivered", "False", "PushNotEnabled")
    assert "spec.delivery.pods" in condition.message
    tenant.await_ready()
    tenant.apply()
    wait_until(lambda: tenant.condition("Ready") and not tenant.condition("Delivered"), what="it is said no more")


@pytest.mark.rule("OWN-6")
def test_the_target_of_somebody_else_is_left_alone(tenant: Tenant) -> None:
    tenant.apply_client_secret({"precious": "data"}, name=tenant.target_name)
    before = tenant.target().version
    tenant.start()
    condition = tenant.await_condition("Ready", "False", "TargetConflict")
    assert tenant.target_name in condition.message
    assert (tenant.target().version, tenant.requests()) == (before, [])
    tenant.objects.delete("Secret", tenant.target_name)
    tenant.await_ready()


@pytest.mark.rule("OBS-9")
def test_json_is_all_that_is_logged(operator: OperatorProcess) -> None:
    for line in operator.logs():
        assert {"ts", "level", "logger", "msg"} <= line.keys(), json.dumps(line)
