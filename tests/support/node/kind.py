"""A node in Docker, made by kind (kind.sigs.k8s.io), for machines where our own cannot run and Docker is.

It is entered like our own node, by its namespaces, so that the tests do in it what they do there: as root on Linux.
**This was not tried**: it was written where no Docker is, by kind's documentation.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.cluster.any_cluster import write_private
from tests.support.node.any_node import AnyNode, NodeError
from tests.support.node.programs import Unavailable

CLUSTER = "tuinly-e2e"
"""Always the same, so that what a killed run left behind is found and removed by the next."""
_CREATE_SECONDS = 600.0  # the first time, kind fetches an image of a gigabyte
_SECONDS = 120.0


def check_kind() -> None:
    """Check that this machine can run one.

    Raises:
        Unavailable: it cannot; the message says why.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unavailable("a node in Docker is entered by root on Linux")
    missing = [name for name in ("docker", "kind", "nsenter") if shutil.which(name) is None]
    if missing:
        raise Unavailable(f"a node in Docker needs {', '.join(missing)}")
    if _run("docker", "info", check=False) is None:
        raise Unavailable("docker cannot reach its engine: see docker info")


class KindNode(AnyNode):
    """A kind cluster of one node."""

    def __init__(self, folder: Path) -> None:
        """Make a cluster whose kubeconfig goes to `folder`, and wait until it takes Pods.

        Raises:
            NodeError: kind cannot make it, or it is not ready in time.
        """
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.name = f"{CLUSTER}-control-plane"
        config = folder / "admin.kubeconfig"
        _run("kind", "delete", "cluster", "--name", CLUSTER, check=False)
        made = folder / "kind.kubeconfig"
        try:
            _run("kind", "create", "cluster", "--name", CLUSTER, "--kubeconfig", str(made), seconds=_CREATE_SECONDS)
            self.pid = int(str(_run("docker", "inspect", "--format", "{{.State.Pid}}", self.name)))
            self.enter_network()
            # kind's own names a port of the machine; from here on we are inside, where the API server listens itself.
            write_private(config, _with_server(made, "https://127.0.0.1:6443"))
            super().__init__(config, folder)
            self.await_(self.takes_pods, "a node that takes Pods")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Delete the cluster."""
        _run("kind", "delete", "cluster", "--name", CLUSTER, check=False)

    def load(self, archive: Path) -> None:
        """Give the node an image from an archive, by the name in it.

        Raises:
            NodeError: it does not take it.
        """
        _run("kind", "load", "image-archive", str(archive), "--name", CLUSTER)

    def program_pid(self, program: str) -> int | None:
        """Return the number that a program has inside; None while it is about to be started again.

        The kubelet is started again by systemd, the control plane's Pods by the kubelet.
        """
        try:
            return int(self.run("pgrep", "--exact", "--oldest", program[:15]))  # all that the kernel keeps of a name
        except (subprocess.CalledProcessError, ValueError):
            return None


def _with_server(kubeconfig: Path, server: str) -> str:
    view = ("kubectl", "config", "view", "--kubeconfig", str(kubeconfig), "--raw", "--output", "json")
    config = json.loads(str(_run(*view)))
    config["clusters"][0]["cluster"]["server"] = server
    return json.dumps(config)


def _run(*argv: str, check: bool = True, seconds: float = _SECONDS) -> str | None:
    """Run a program and return what it says; None where it failed and `check` is not set.

    Raises:
        NodeError: it failed, and `check` is set.
    """
    environ = {
        **os.environ,
        "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)]),
    }
    answer = subprocess.run(  # noqa: S603 -- Docker's, kind's and kubectl's
        argv, capture_output=True, text=True, check=False, timeout=seconds, env=environ
    )
    if answer.returncode == 0:
        return answer.stdout
    if check:
        raise NodeError(f"{' '.join(argv[:3])}: {answer.stderr.strip()}")
    return None
