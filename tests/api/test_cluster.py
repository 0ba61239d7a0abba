"""The clusters that tests run on are what they are taken for, and leave nothing behind."""

import json
import os
import signal
import ssl
import stat
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.binaries import find
from tests.support.cluster import Cluster, ClusterError, KubectlError, LocalCluster
from tests.support.process_identity import identity
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]

starts_clusters = pytest.mark.skipif(
    bool(os.environ.get("KUBECONFIG_UNDER_TEST")), reason="starts clusters of its own: KUBECONFIG_UNDER_TEST is set"
)

NO_AUTHORITY = """
current-context: a
contexts: [{name: a, context: {cluster: a}}]
clusters: [{name: a, cluster: {server: "https://127.0.0.1"}}]
"""
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}


def processes_of(folder: Path) -> set[int]:
    """Return the processes that work in `folder` or were told of it."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "cmdline").read_bytes().split(b"\0")
            if (entry / "cwd").readlink() == folder or str(folder).encode() in told:
                found.add(int(entry.name))
        except OSError:
            pass  # it ended meanwhile
    return found


def command(folder: Path, word: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "tests.support.cluster", "--folder", str(folder), word],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, word: str) -> tuple[int, str]:
    """Run one command and return its exit status and what it said."""
    process = command(folder, word)
    output, errors = process.communicate(timeout=100)
    return process.returncode, output + errors


class TestAnyCluster:
    """What every cluster offers."""

    def test_the_admin(self, cluster: Cluster) -> None:
        assert cluster.kubectl("auth", "can-i", "*", "*", "--all-namespaces") == "yes\n"

    def test_an_error_says_what_kubectl_said(self, cluster: Cluster) -> None:
        with pytest.raises(KubectlError, match=r"^kubectl get nonsense: exit status 1: error: .*nonsense") as caught:
            cluster.kubectl("get", "nonsense")
        assert "nonsense" in caught.value.stderr
        assert cluster.kubectl("get", "nonsense", check=False) == ""

    def test_standard_input(self, cluster: Cluster, namespace: str) -> None:
        assert (
            cluster.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(OWNER))
            == "configmap/owner created\n"
        )

    def test_a_service_account_logs_in_with_its_own_rights(self, cluster: Cluster, namespace: str) -> None:
        cluster.kubectl("create", "serviceaccount", "operator", "-n", namespace)
        login = cluster.kubeconfig_for(namespace, "operator")
        assert stat.S_IMODE(login.stat().st_mode) == 0o600
        me = json.loads(cluster.kubectl("auth", "whoami", "-o", "json", kubeconfig=login))
        assert me["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:operator"
        with pytest.raises(KubectlError, match="Forbidden"):
            cluster.kubectl("get", "secrets", kubeconfig=login)

    def test_the_certificates_are_those_of_the_server(self, cluster: Cluster) -> None:
        trusted = ssl.create_default_context(cafile=cluster.ca_file)
        with urllib.request.urlopen(f"{cluster.server}/readyz", context=trusted) as answer:  # noqa: S310 - the cluster's own
            assert answer.read() == b"ok"

    def test_controllers_work(self, cluster: Cluster, namespace: str) -> None:
        """Accounts are made, and what an owner leaves behind is collected."""
        wait_until(
            lambda: cluster.kubectl("get", "serviceaccount", "default", "-n", namespace, "--ignore-not-found"),
            what="the default ServiceAccount",
        )
        owner = json.loads(cluster.kubectl("create", "-n", namespace, "-o", "json", "-f", "-", input=json.dumps(OWNER)))
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
        owned = {**OWNER, "metadata": {"name": "owned", "ownerReferences": [reference]}}
        cluster.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(owned))
        cluster.kubectl("delete", "configmap", "owner", "-n", namespace)
        wait_until(
            lambda: not cluster.kubectl("get", "configmap", "owned", "-n", namespace, "--ignore-not-found"),
            what="the owned object collected",
        )

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            (None, "is no use as a kubeconfig: error: current-context must exist"),
            ("", "is no use as a kubeconfig: error: current-context must exist"),
            ("not: [a kubeconfig", "is no use as a kubeconfig: error: error loading config file"),
            (NO_AUTHORITY, ": its current context has no server with certificate authority"),
        ],
    )
    def test_a_bad_kubeconfig(self, text: str | None, error: str, tmp_path: Path) -> None:
        if text is not None:
            (tmp_path / "config").write_text(text)
        with pytest.raises(ClusterError, match=f"^{tmp_path}/config ?{error}"):
            Cluster(tmp_path / "config", tmp_path)


@starts_clusters
class TestLocalCluster:
    """What our own control plane offers besides."""

    def test_the_api_server_goes_and_comes_back(self, local_cluster: LocalCluster, namespace: str) -> None:
        local_cluster.kubectl("create", "configmap", "kept", "-n", namespace)
        local_cluster.stop_apiserver()
        with pytest.raises(KubectlError, match="refused"):
            local_cluster.kubectl("get", "configmap", "kept", "-n", namespace)
        local_cluster.start_apiserver()
        local_cluster.kubectl("get", "configmap", "kept", "-n", namespace)
        # The controllers have found it again.
        local_cluster.kubectl("create", "namespace", f"{namespace}-2")
        wait_until(
            lambda: local_cluster.kubectl("get", "sa", "default", "-n", f"{namespace}-2", "--ignore-not-found"),
            what="the default ServiceAccount",
        )
        local_cluster.kubectl("delete", "namespace", f"{namespace}-2", "--wait=false")

    def test_its_storage_goes_and_comes_back(self, local_cluster: LocalCluster, namespace: str) -> None:
        local_cluster.stop_etcd()
        with pytest.raises(KubectlError):
            local_cluster.kubectl("create", "configmap", "kept", "-n", namespace, "--request-timeout=3s")
        local_cluster.start_etcd()
        local_cluster.kubectl("create", "configmap", "kept-later", "-n", namespace)

    def test_nobody_else_gets_in(self, local_cluster: LocalCluster) -> None:
        folder = local_cluster.directory
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        user = json.loads(local_cluster.kubeconfig.read_text())["users"][0]["user"]
        holders = {path for path in folder.iterdir() if path.is_file() and user["token"] in path.read_text()}
        assert {path.name for path in holders} == {"kubeconfig", "tokens.csv"}
        for path in holders | {folder / "apiserver.pem", folder / "service-accounts.key"}:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for pid in processes_of(folder):
            for place in ("cmdline", "environ"):
                assert user["token"].encode() not in Path(f"/proc/{pid}/{place}").read_bytes()
        for log in local_cluster.logs.iterdir():
            assert user["token"] not in log.read_text()

    @pytest.mark.parametrize("name", ["etcd", "apiserver", "controller_manager"])
    def test_a_program_that_ends_early_is_quoted(self, name: str, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        broken.write_text("#!/bin/sh\necho this machine has no more room\nexit 3\n")
        broken.chmod(0o755)
        with pytest.raises(ClusterError, match="ended with exit status 3:\nthis machine has no more room"):
            LocalCluster(tmp_path / "cluster", replace(find(), **{name: broken}))
        wait_until(lambda: not processes_of(tmp_path / "cluster"), what="no process left")

    def test_a_killed_test_run_leaves_no_process(self, tmp_path: Path) -> None:
        program = "import sys, pathlib; from tests.support.binaries import find; from tests.support.cluster import *"
        program += "; cluster = LocalCluster(pathlib.Path(sys.argv[1]), find()); print(flush=True); sys.stdin.read()"
        arguments = [sys.executable, "-c", program, str(tmp_path)]
        with subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as runner:  # noqa: S603 - our own
            assert runner.stdout is not None
            assert runner.stdout.readline() == b"\n"
            assert len(processes_of(tmp_path)) == 7  # the three programs and their guardians, and the runner
            runner.kill()
        wait_until(lambda: not processes_of(tmp_path), what="no process left")


@starts_clusters
class TestStandingCluster:
    """The commands behind `make cluster-up` and `make cluster-down`."""

    def test_up_up_status_down(self, tmp_path: Path) -> None:
        folder = tmp_path / "standing"
        status, said = run(folder, "up")
        assert (status, f"export KUBECONFIG={folder}/kubeconfig" in said) == (0, True)
        processes = processes_of(folder)
        login = folder / "kubeconfig"
        assert stat.S_IMODE(login.stat().st_mode) == 0o600
        Cluster(login, tmp_path).kubectl("create", "configmap", "kept", "-n", "default")

        status, said = run(folder, "up")
        assert (status, said.startswith("A cluster runs already, and is kept.")) == (0, True)
        assert processes_of(folder) == processes
        Cluster(login, tmp_path).kubectl("get", "configmap", "kept", "-n", "default")

        status, said = run(folder, "status")
        assert (status, said.count(": runs (pid ")) == (0, 4)

        assert run(folder, "down") == (0, "The cluster is down, and its data are removed.\n")
        assert not processes_of(folder)
        assert [path.name for path in folder.iterdir()] == ["lock"]
        assert run(folder, "status") == (1, "No cluster runs: make cluster-up starts one.\n")
        assert run(folder, "down") == (0, "No cluster runs.\n")

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
    def test_an_up_that_is_cut_short_leaves_no_process(self, number: signal.Signals, tmp_path: Path) -> None:
        folder = tmp_path / "standing"
        process = command(folder, "up")
        wait_until((folder / "logs" / "etcd.log").exists, what="the first program started")
        process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode != 0
        wait_until(lambda: not processes_of(folder), what="no process left")
        assert run(folder, "status")[0] == 1

    def test_a_keeper_that_is_not_told_to_stay_ends(self, tmp_path: Path) -> None:
        folder = tmp_path / "standing"
        keep = [sys.executable, "-m", "tests.support.cluster", "--folder", str(folder), "keep"]
        pipe = subprocess.PIPE
        with subprocess.Popen(keep, cwd=ROOT, stdin=pipe, stdout=pipe) as keeper:  # noqa: S603 - our own program
            assert keeper.stdin is not None
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == b"ready\n"
            keeper.stdin.close()
        wait_until(lambda: not processes_of(folder), what="no process left")

    def test_a_killed_keeper_takes_the_programs_with_it(self, tmp_path: Path) -> None:
        folder = tmp_path / "standing"
        assert run(folder, "up")[0] == 0
        keeper = json.loads((folder / "processes.json").read_text())[0]
        assert keeper["name"] == "keeper"
        os.kill(keeper["pid"], signal.SIGKILL)
        wait_until(lambda: not processes_of(folder), what="no process left")
        assert run(folder, "status")[1].count(": has ended (pid ") == 4
        assert run(folder, "down") == (0, "No cluster runs.\n")

    def test_down_ends_no_later_process_of_the_same_number(self, tmp_path: Path) -> None:
        with subprocess.Popen(["/bin/sleep", "1000"]) as bystander:
            record = {"name": "keeper", "pid": bystander.pid, "identity": f"not {identity(bystander.pid)}"}
            (tmp_path / "processes.json").write_text(json.dumps([record]))
            assert run(tmp_path, "down") == (0, "No cluster runs.\n")
            assert bystander.poll() is None
            bystander.kill()

    def test_an_up_that_fails_says_why(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
        status, said = run(tmp_path / "standing", "up")
        assert (status, said.startswith(f"error: KUBEBUILDER_ASSETS={tmp_path} has no etcd")) == (1, True)
