"""What tools that wait for health are told: pending before anybody looked, stalled where waiting is of no use."""

import copy
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.api.conftest import StartOperator
from tests.support.acts import force
from tests.support.cluster import LocalCluster, running_cluster
from tests.support.crd import CRD, FILE, GOOD, Credentials, Json, wait_until_served
from tests.support.helm import Helm, HelmError
from tests.support.tenant import Tenant
from tests.support.waiting import eventually, wait_until


@pytest.fixture
def helm(local_cluster: LocalCluster, tmp_path: Path) -> Helm:
    return Helm(tmp_path / "helm", local_cluster.kubeconfig)


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """An application's chart that brings its credential."""
    folder = tmp_path / "storefront"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: storefront\nversion: 1.0.0\n")
    credential = copy.deepcopy(GOOD)
    credential["spec"]["scopes"] = "{{ .Values.scopes }}"
    text = yaml.safe_dump(credential).replace("'{{ .Values.scopes }}'", "{{ toJson .Values.scopes }}")
    (folder / "templates" / "credential.yaml").write_text(text)
    return folder


@pytest.mark.rule("STATUS-11")
def test_before_anybody_looked_it_is_pending(local_cluster: LocalCluster, installed: None, namespace: str) -> None:
    del installed
    made = Credentials(local_cluster, namespace).create(GOOD)
    status = json.loads(local_cluster.kubectl("get", "tc", "storefront", "-n", namespace, "-o", "json"))["status"]
    assert status["observedGeneration"] == -1 < made["metadata"]["generation"]
    [ready] = status["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "Unknown", "Pending")
    row = local_cluster.kubectl("get", "tc", "-n", namespace).splitlines()[1]
    assert row.split()[:3] == ["storefront", "Unknown", "Pending"]


@pytest.fixture
def earlier_cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """A cluster of its own with the CRD as it was before it had a default status.

    A definition that changes takes the history of its objects along, which tests in the shared cluster read.
    """
    earlier = copy.deepcopy(CRD)
    for version in earlier["spec"]["versions"]:
        status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
        del status["default"]
    file = tmp_path / "earlier.yaml"
    file.write_text(yaml.safe_dump(earlier))
    with running_cluster() as cluster:
        cluster.kubectl("apply", "--server-side", "-f", str(file))
        wait_until_served(cluster)
        yield cluster


@pytest.mark.rule("STATUS-11")
def test_objects_from_before_the_default_are_pending_without_a_write(earlier_cluster: LocalCluster) -> None:
    def read() -> Json:
        raw: Json = json.loads(earlier_cluster.kubectl("get", "tc", "storefront", "-o", "json"))
        return raw

    assert "status" not in Credentials(earlier_cluster, "default").create(GOOD)
    before = read()
    earlier_cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(FILE))
    wait_until(lambda: "status" in read(), what="the default is served")
    after = read()
    assert after["status"]["observedGeneration"] == -1
    for name in ("generation", "resourceVersion"):
        assert after["metadata"][name] == before["metadata"][name]


@pytest.mark.rule("STATUS-12")
def test_helm_waits_for_a_token_and_ends_at_once_where_it_would_wait_in_vain(
    start_operator: StartOperator, helm: Helm, chart: Path, tenant: Tenant
) -> None:
    """`helm upgrade --install --wait` of an application: good, then refused, then mended."""
    start_operator("--namespace", tenant.objects.namespace).wait_ready()
    tenant.register(scopes=("orders:read", "orders:write"))
    tenant.apply_client_secret()
    upgrade = ("upgrade", "--install", "storefront", str(chart), "-n", tenant.objects.namespace, "--wait")

    def deploy(*scopes: str) -> None:
        helm.run(*upgrade, "--timeout", "60s", values={"scopes": list(scopes)})
        assert tenant.status()["observedGeneration"] == tenant.credential()["metadata"]["generation"]

    deploy()
    first = tenant.await_ready().token
    with pytest.raises(HelmError, match=r"(?s)InvalidScope|Failed|failed") as failed:
        deploy("orders:own-everything")
    assert "context deadline exceeded" not in str(failed.value)
    tenant.await_condition("Stalled", "True", "InvalidScope")
    deploy("orders:read")
    assert tenant.condition("Stalled") is None
    assert tenant.await_ready().token != first


@pytest.mark.rule("STATUS-15")
def test_a_person_can_wait_for_the_refresh_that_was_asked_for(start_operator: StartOperator, tenant: Tenant) -> None:
    """As the README tells: set the annotation, and wait for the status to repeat it."""
    start_operator("--namespace", tenant.objects.namespace).wait_ready()
    before = tenant.start().await_ready().token
    force(tenant, "2026-11-25")
    wait = ("wait", "tc", tenant.name, "--for=jsonpath={.status.lastHandledRefresh}=2026-11-25", "--timeout=30s")
    tenant.objects.cluster.kubectl("-n", tenant.objects.namespace, *wait)
    assert tenant.target().token != before


def test_a_suspended_credential_is_current_and_its_template_waits(
    start_operator: StartOperator, tenant: Tenant
) -> None:
    start_operator("--namespace", tenant.objects.namespace).wait_ready()
    tenant.start().await_ready()
    template = {"target": {"template": {"data": {"token": "${access_token}"}}}}
    tenant.apply({"suspend": True, **template})
    tenant.await_condition("Refreshed", "Unknown", "Suspended")
    assert tenant.condition("Reconciling") is None
    assert set(tenant.target().data) != {"token"}
    tenant.apply(template)
    eventually(lambda: holds_only(tenant, "token"))
    tenant.await_ready()
    assert tenant.condition("Reconciling") is None


def holds_only(tenant: Tenant, key: str) -> None:
    assert set(tenant.target().data) == {key}


def test_the_examples_of_the_page_on_gitops_are_accepted(
    local_cluster: LocalCluster, installed: None, namespace: str
) -> None:
    """The credentials; what others define is only read: their definitions are not here."""
    del installed
    page = (FILE.parents[1] / "docs" / "gitops.md").read_text()
    examples = [
        each
        for block in re.findall(r"```yaml\n(.*?)```", textwrap.dedent(page), re.DOTALL)
        for each in yaml.safe_load_all(textwrap.dedent(block))
    ]
    assert sorted(each["kind"] for each in examples) == ["Application", "ExternalSecret"] + ["TuinlyCredential"] * 2
    for each in examples:
        if each["kind"] == "TuinlyCredential":
            local_cluster.kubectl("apply", "-n", namespace, "--validate=strict", "-f", "-", input=json.dumps(each))
