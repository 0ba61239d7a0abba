"""What an admin sees of an operator at work: metrics that come and go with what they tell of, Events, logs."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.operator import OperatorProcess
from tests.support.proxy import ApiProxy
from tests.support.sandbox import Fault, SandboxProcess
from tests.support.tenant import Tenant, seconds_of
from tests.support.waiting import eventually, wait_until
from tuinly_operator.edges.oauth import origin_of

from .conftest import StartOperator


@pytest.fixture(scope="module")
def proxy(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProxy]:
    """Return a proxy before the API server, which can take it away from the operator."""
    with ApiProxy(cluster.server, cluster.ca_file, tmp_path_factory.mktemp("proxy")) as running:
        yield running


@pytest.fixture(scope="module")
def operator(make_operator: StartOperator, proxy: ApiProxy, operator_login: Path) -> Iterator[OperatorProcess]:
    """Return a ready operator behind the proxy, which the tests share."""
    with make_operator("--request-timeout", "2s", kubeconfig=proxy.kubeconfig(operator_login)) as process:
        yield process.wait_ready()


def await_metric(operator: OperatorProcess, value: float | None, name: str, **labels: str) -> None:
    """Wait until a sample has this value; None for no such sample."""

    def check() -> None:
        found = operator.metric(name, **labels)
        assert found == value, f"{name} {labels} is {found}, not {value}"

    eventually(check)


def labels_of(tenant: Tenant) -> dict[str, str]:
    return {"namespace": tenant.objects.namespace, "credential": tenant.name}


def told_of(operator: OperatorProcess, value: str) -> set[str]:
    """Return the names of all samples that have a label of this value."""
    return {name for name, labels in operator.metrics() if value in dict(labels).values()}


# Metrics --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("OBS-10")
def test_readiness_expiry_and_next_refresh_are_those_that_kubectl_shows(
    tenant: Tenant, operator: OperatorProcess
) -> None:
    tenant.start()
    tenant.await_ready()
    status, labels = tenant.status(), labels_of(tenant)
    await_metric(operator, 1, "tuinly_credential_ready", **labels)
    expiry, due = (seconds_of(status[name]) for name in ("tokenExpirationTime", "nextRefreshTime"))
    await_metric(operator, expiry, "tuinly_credential_expiration_timestamp_seconds", **labels)
    await_metric(operator, due, "tuinly_credential_next_refresh_timestamp_seconds", **labels)


def test_a_failure_is_told_with_its_reason_as_long_as_it_lasts(tenant: Tenant, operator: OperatorProcess) -> None:
    tenant.start()
    tenant.await_ready()
    labels = labels_of(tenant)
    good = tenant.client
    tenant.rotate_secret()
    tenant.apply_client_secret({"client_id": good.id, "client_secret": "not-the-right-one"})
    await_metric(operator, 1, "tuinly_credential_failing", **labels, reason="InvalidClient")
    await_metric(operator, 1, "tuinly_credential_ready", **labels)
    tenant.apply_client_secret()
    await_metric(operator, None, "tuinly_credential_failing", **labels, reason="InvalidClient")


def test_what_is_suspended_is_told_to_be(tenant: Tenant, operator: OperatorProcess) -> None:
    tenant.start({"suspend": True})
    await_metric(operator, 1, "tuinly_credential_suspended", **labels_of(tenant))
    tenant.apply()
    await_metric(operator, None, "tuinly_credential_suspended", **labels_of(tenant))


@pytest.mark.rule("OBS-10")
def test_token_requests_are_told_by_grant_and_outcome_with_durations_and_lateness(
    tenant: Tenant, operator: OperatorProcess
) -> None:
    names = ("tuinly_token_requests_total", "tuinly_refreshes_total", "tuinly_token_request_duration_seconds_count")
    issued = {"grant": "RefreshToken", "outcome": "Issued"}
    before = {name: operator.metric(name, grant="RefreshToken") or 0 for name in names[1:]}
    before[names[0]] = operator.metric(names[0], **issued) or 0
    late = operator.metric("tuinly_refresh_lateness_seconds_count") or 0
    tenant.start(lifetime=4)
    tenant.await_token(other_than=tenant.await_ready().token)

    def check() -> None:
        assert (operator.metric(names[0], **issued) or 0) > before[names[0]]
        for name in names[1:]:
            assert (operator.metric(name, grant="RefreshToken") or 0) > before[name], name
        assert (operator.metric("tuinly_refresh_lateness_seconds_count") or 0) > late

    eventually(check)


@pytest.mark.rule("CLOCK-4")
def test_what_is_known_of_an_endpoint_is_told(
    tenant: Tenant, operator: OperatorProcess, sandbox: SandboxProcess, other_token_urls: tuple[str, ...]
) -> None:
    """Three fail, and again: that is the endpoint."""
    origin = origin_of(other_token_urls[0])
    tenants = [Tenant(tenant.objects, sandbox.admin, f"storefront-{number}") for number in range(3)]
    for each in tenants:
        sandbox.admin.fault(Fault(kind="answer", answer="date_wrong", seconds=-120, client=each.client.id, count=1))
        each.start({"tokenURL": other_token_urls[0]})
    for each in tenants:
        each.await_ready()
    await_metric(operator, 0, "tuinly_endpoint_down", origin=origin)
    difference = operator.metric("tuinly_clock_difference_seconds", origin=origin)
    assert difference is not None
    assert 110 < difference < 130
    down = [sandbox.admin.fault(Fault(kind="fail", client=each.client.id)) for each in tenants]
    for each in tenants:
        each.rotate_secret()
        each.apply_client_secret()
    await_metric(operator, 1, "tuinly_endpoint_down", origin=origin)
    for fault in down:
        sandbox.admin.clear_faults(fault)
    await_metric(operator, 0, "tuinly_endpoint_down", origin=origin)


@pytest.mark.rule("OBS-10")
def test_all_series_of_a_credential_and_of_its_endpoint_go_with_it(
    tenant: Tenant, operator: OperatorProcess, sandbox: SandboxProcess, other_token_urls: tuple[str, ...]
) -> None:
    """Of the endpoint, since no other credential uses that one."""
    url = other_token_urls[1]
    tenant.start({"tokenURL": url})
    tenant.await_ready()
    sandbox.admin.fault(Fault(kind="answer", answer="not_json", client=tenant.client.id))
    tenant.rotate_secret()
    tenant.apply_client_secret()
    await_metric(operator, 1, "tuinly_credential_failing", **labels_of(tenant), reason="InvalidResponse")
    namespace = tenant.objects.namespace
    assert told_of(operator, namespace) == {
        "tuinly_credential_ready",
        "tuinly_credential_failing",
        "tuinly_credential_expiration_timestamp_seconds",
        "tuinly_credential_next_refresh_timestamp_seconds",
    }
    assert told_of(operator, origin_of(url)) == {
        "tuinly_clock_difference_seconds",
        "tuinly_endpoint_down",
        "tuinly_endpoint_in_flight",
        "tuinly_endpoint_limit",
        "tuinly_endpoint_waiting",
    }
    tenant.delete()
    wait_until(lambda: not told_of(operator, namespace), what="no series of the credential is left")
    assert told_of(operator, origin_of(url)) == set()


def test_the_operator_tells_of_itself(operator: OperatorProcess) -> None:
    [version] = [dict(labels)["version"] for name, labels in operator.metrics() if name == "tuinly_build_info"]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", version)
    assert operator.metric("tuinly_leader") == 1
    for name in ("tuinly_credentials", "tuinly_queue_depth", "tuinly_queue_age_seconds"):
        assert operator.metric(name) is not None, name


@pytest.mark.rule("OUT-1")
def test_the_reach_of_the_api_server_is_told(operator: OperatorProcess, proxy: ApiProxy) -> None:
    await_metric(operator, 1, "tuinly_api_reachable")
    proxy.cut()
    try:
        await_metric(operator, 0, "tuinly_api_reachable")
    finally:
        proxy.pass_on()
    await_metric(operator, 1, "tuinly_api_reachable")


# Describe, Events, logs -----------------------------------------------------------------------------------------------


@pytest.fixture
def storied(tenant: Tenant, sandbox: SandboxProcess) -> Tenant:
    """Return a tenant who began without a client Secret, was refused, got a token, and is refused again."""
    tenant.register()
    tenant.apply()
    tenant.await_condition("Ready", "False", "ClientSecretNotFound")
    tenant.apply_client_secret({"client_id": tenant.client.id, "client_secret": "mistyped"})
    tenant.await_condition("Ready", "False", "InvalidClient")
    tenant.apply_client_secret()
    tenant.await_ready()
    sandbox.admin.fault(Fault(kind="fail", status=403, client=tenant.client.id))
    tenant.rotate_secret()
    tenant.apply_client_secret()
    tenant.await_condition("Refreshed", "False", "RequestRejected")
    wait_until(lambda: len(tenant.events()) == 4, what="four Events")
    return tenant


@pytest.mark.rule("OBS-25")
def test_describe_tells_the_story(storied: Tenant, cluster: Cluster) -> None:
    """What is, why, what to do next, and how it came to that, in this order."""
    text = cluster.kubectl("describe", "tc", storied.name, "--namespace", storied.objects.namespace)
    status, events = text.split("\nEvents:\n")
    assert re.search(r"Reason: +Issued\n.*Status: +True\n.*Type: +Ready", status, re.DOTALL)
    assert re.search(r"Reason: +RequestRejected\n.*Status: +False\n.*Type: +Refreshed", status, re.DOTALL)
    told = [
        ("Warning", "ClientSecretNotFound", "create it in this namespace"),
        ("Warning", "InvalidClient", "check the client Secret"),
        ("Normal", "Issued", "holds a valid access token"),
        ("Warning", "RequestRejected", "check the token URL and what this client is allowed there"),
    ]
    rows = [line for line in events.splitlines() if line.strip().startswith(("Normal", "Warning"))]
    assert len(rows) == len(told)
    for row, (kind, reason, next_step) in zip(rows, told, strict=True):
        assert row.split()[:2] == [kind, reason]
        assert "tuinly.com/tuinly-operator" in row
        assert next_step in row


@pytest.mark.rule("OBS-25")
def test_an_event_is_about_the_very_credential(storied: Tenant) -> None:
    uid = storied.credential()["metadata"]["uid"]
    for event in storied.events():
        assert event["regarding"] | {"uid": uid, "kind": "TuinlyCredential"} == event["regarding"]
        assert (event["reportingController"], event["action"]) == ("tuinly.com/tuinly-operator", "Refresh")


@pytest.mark.rule("OBS-5")
def test_a_log_line_says_of_which_credential_why_and_which_attempt(storied: Tenant, operator: OperatorProcess) -> None:
    """A missing Secret is no attempt: the Event and the condition tell of that."""
    lines = [line for line in operator.logs() if line.get("credential") == storied.key]
    assert [(line["level"], line["reason"], line.get("attempt")) for line in lines] == [
        ("warning", "InvalidClient", 1),
        ("info", "Issued", None),
        ("warning", "RequestRejected", 1),
    ]
    for line in lines:
        assert ("retry_in" in line, "cause" in line) == (line["level"] == "warning", line["level"] == "warning")
