"""The program from an admin's side: its logins, its namespaces, its health, its certificate authorities."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.api.conftest import ROOT, StartOperator
from tests.support import crd
from tests.support.cluster import Cluster, LocalCluster, running_cluster
from tests.support.objects import Json, Objects, new_namespace
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import eventually

NO_CONTEXT = """
clusters: [{name: a, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
users: [{name: a, user: {token: canary-token}}]
"""

BROKEN_LOGINS = {
    "empty": "",
    "no YAML": "{[canary-token",
    "a list": "[canary-token]",
    "a text": "canary-token",
    "binary": "\x00\x01canary-token",
    "no current context": NO_CONTEXT,
    "an unknown context": f"{NO_CONTEXT}current-context: b",
    "an unknown cluster": NO_CONTEXT.replace("cluster: a,", "cluster: b,") + "current-context: a",
    "an unknown user": NO_CONTEXT.replace("user: a}", "user: b}") + "current-context: a",
    "a missing certificate": NO_CONTEXT.replace('1:1"', '1:1", certificate-authority: /nowhere') + "current-context: a",
    "a broken certificate": NO_CONTEXT.replace('1:1"', '1:1", certificate-authority-data: "!!"') + "current-context: a",
}


def run(kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "tuinly_operator", "run", "--kubeconfig", str(kubeconfig), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.rule("SET-4")
@pytest.mark.parametrize("name", BROKEN_LOGINS)
def test_a_broken_kubeconfig_ends_the_program_with_one_line(tmp_path: Path, name: str) -> None:
    """It names the flag, its variable and the file, and tells nothing of what is in it."""
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(BROKEN_LOGINS[name])
    ended = run(kubeconfig)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"tuinly-operator: --kubeconfig (TUINLY_KUBECONFIG): the kubeconfig {kubeconfig} ")
    assert ended.stderr.count("\n") == 1
    assert "canary" not in ended.stderr


@pytest.mark.rule("SET-4")
def test_a_missing_kubeconfig_ends_the_program_with_one_line(tmp_path: Path) -> None:
    ended = run(tmp_path / "nowhere")
    line = f'"{tmp_path}/nowhere" cannot be read: No such file or directory'
    assert (ended.returncode, ended.stderr) == (
        2,
        f"tuinly-operator: --kubeconfig (TUINLY_KUBECONFIG): {line}\n",
    )


@pytest.mark.rule("ERR-3")
def test_an_untrusted_certificate_is_told_with_the_flag_that_trusts_it(
    tenant: Tenant, start_operator: StartOperator
) -> None:
    start_operator(trusting=False)
    tenant.start()
    ready = tenant.await_condition("Ready", "False", "EndpointUnavailable")
    assert "--ca-bundle" in ready.message
    assert tenant.requests() == []


# --- Health -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("OBS-20")
def test_what_is_served(start_operator: StartOperator) -> None:
    operator = start_operator().wait_ready()
    assert operator.get("/healthz") == (200, "ok\n")
    assert operator.get("/readyz") == (200, "ok\n")
    assert operator.metric("tuinly_queue_depth") == 0
    assert operator.metric("tuinly_credentials") is not None
    assert operator.get("/debug")[0] == 404


@pytest.fixture
def account(cluster: Cluster, namespace: str) -> tuple[str, Path]:
    """Return the user name and the kubeconfig of a new ServiceAccount without any rights."""
    cluster.kubectl("create", "serviceaccount", "operator", "-n", namespace)
    return f"{namespace}:operator", cluster.kubeconfig_for(namespace, "operator")


@pytest.mark.rule("OUT-5")
@pytest.mark.usefixtures("installed")
def test_without_rights_it_is_not_ready_until_it_has_them(
    cluster: Cluster, account: tuple[str, Path], start_operator: StartOperator
) -> None:
    """It lives on meanwhile, says what is missing, and needs no restart."""
    user, login = account
    operator = start_operator(kubeconfig=login)
    status, missing = operator.get("/readyz")
    assert status == 503
    assert "Secrets listed: no" in missing.splitlines()
    operator.wait_for_log(lambda line: line["level"] == "warning" and "403 Forbidden" in str(line.get("cause")))
    assert operator.get("/healthz") == (200, "ok\n")
    binding = f"test-{user.partition(':')[0]}"
    cluster.kubectl(
        "create", "clusterrolebinding", binding, "--clusterrole=tuinly-operator", f"--serviceaccount={user}"
    )
    try:
        operator.wait_ready()
    finally:
        cluster.kubectl("delete", "clusterrolebinding", binding)


# --- Some namespaces only ---------------------------------------------------------------------------------------------


@pytest.fixture
def role(cluster: Cluster, account: tuple[str, Path], namespace: str) -> None:
    """Give the account the rights of deploy/namespaced.yaml, in its own namespace instead of theirs."""
    namespaced = list(yaml.safe_load_all((ROOT / "deploy" / "namespaced.yaml").read_text()))
    rights: list[Json] = [copy.deepcopy(each) for each in namespaced if each["kind"] in {"Role", "RoleBinding"}]
    for each in rights:
        each["metadata"]["namespace"] = namespace
        for subject in each.get("subjects", []):
            subject["namespace"], subject["name"] = account[0].split(":")
        cluster.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(each))


@pytest.mark.rule("SEC-6")
@pytest.mark.usefixtures("role")
def test_with_rights_in_one_namespace_it_serves_that_one(
    tenant: Tenant, cluster: Cluster, account: tuple[str, Path], start_operator: StartOperator
) -> None:
    operator = start_operator("--namespace", tenant.objects.namespace, kubeconfig=account[1]).wait_ready()
    with new_namespace(cluster) as elsewhere:
        other = Tenant(Objects(cluster, elsewhere), tenant.sandbox).start()
        tenant.start(lifetime=6)
        tenant.await_token(other_than=tenant.await_ready().token)
        assert (other.requests(), other.status()) == ([], {})
    assert operator.metric("tuinly_credentials") == 1
    assert operator.complaints(tenant.objects.namespace) == []


# --- The definition of the resource -----------------------------------------------------------------------------------


@pytest.fixture
def bare_cluster() -> Iterator[LocalCluster]:
    """Return a cluster of our own that does not know TuinlyCredentials; the operator's account is there."""
    if os.environ.get("KUBECONFIG_UNDER_TEST"):
        pytest.skip("starts a cluster of its own: KUBECONFIG_UNDER_TEST is set")
    with running_cluster() as cluster:
        cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "deploy" / "install.yaml"))
        yield cluster


@pytest.mark.rule("OUT-4", "OUT-9")
def test_it_waits_for_the_definition_and_survives_its_end(
    bare_cluster: LocalCluster, sandbox: SandboxProcess, start_operator: StartOperator
) -> None:
    """Installed late, deleted with all credentials, installed again: without a restart of the operator."""
    operator = start_operator(kubeconfig=bare_cluster.kubeconfig_for("tuinly-system", "tuinly-operator"))
    eventually(lambda: _assert_says(operator.get("/readyz"), "is the CRD installed?"))
    assert operator.get("/healthz") == (200, "ok\n")
    for _ in range(2):
        crd.install(bare_cluster)
        operator.wait_ready()
        with new_namespace(bare_cluster) as namespace:
            tenant = Tenant(Objects(bare_cluster, namespace), sandbox.admin).start()
            tenant.await_ready()
            bare_cluster.kubectl("delete", "-f", str(crd.FILE), "--timeout=30s")
            eventually(lambda: _assert_forgotten(operator.metric("tuinly_credentials")))
    assert operator.terminate() == 0


def _assert_says(answer: tuple[int, str], words: str) -> None:
    assert answer[0] == 503
    assert words in answer[1]


def _assert_forgotten(credentials: float | None) -> None:
    assert credentials == 0
