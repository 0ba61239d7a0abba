"""The stage: a control plane, the sandbox, an auditor and the operator, and a shop that will use them."""

import shlex
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol

from tests.support.auditor import Auditor
from tests.support.binaries import find
from tests.support.cluster import Cluster, LocalCluster
from tests.support.crd import wait_until_served
from tests.support.demo.checker import Checker
from tests.support.demo.narrator import Narrator
from tests.support.objects import Objects
from tests.support.operator import OperatorProcess
from tests.support.sandbox import SandboxAdmin, SandboxProcess
from tests.support.tenant import Tenant

NAMESPACE: Final = "shop"
HERE: Final = Path(__file__).parent
ROOT: Final = Path(__file__).parents[3]

_CLIENT_SECRET: Final = f"""\
apiVersion: v1
kind: Secret
metadata:
  name: {{name}}
  namespace: {NAMESPACE}
stringData:
  client_id: {{id}}
  client_secret: {{secret}}
"""
_FLAGS: Final = ("--min-refresh-interval", "500ms", "--request-timeout", "2s")
"""Shorter than the defaults, as the story's tokens are: 5 s between two attempts is more than half of their life."""


class Operator(Protocol):
    """An operator that runs."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def health_url(self) -> str:
        """Where it serves its metrics, without a trailing slash."""

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of the one sample with exactly these labels, or None where there is none."""

    def kill(self) -> None:
        """End it as a crash of its machine would."""


class Stage:
    """Where the scenes play: processes on this machine.

    Attributes:
        narrator, check: who tells the story, and who checks it.
        cluster, auditor: what they are called.
        admin: tells the sandbox what to do.
        operator: the one that is at work.
        shop: the team whose story it is. What it does is done by kubectl, what became of it is looked up here.
        damage: when the target was damaged on purpose: begin and end, in seconds of `time.time`.
        exchanges: how many the story has taken so far.
        in_pods: whether all of it is in Pods, and scenes can show one.
        successor: what becomes of an operator that is killed.
    """

    cluster: Cluster
    admin: SandboxAdmin
    operator: Operator
    in_pods = False
    successor = "and started again"

    def __init__(self, narrator: Narrator, folder: Path, running: ExitStack) -> None:
        """Start all of it; it ends with `running`. Its files go to `folder`, which is private.

        Raises:
            BinariesError: the control plane's programs are not there.
            ClusterError: the control plane does not start.
            KubectlError: the operator's manifests are refused.
            RuntimeError: the sandbox or the operator does not start.
            TimeoutError: the auditor or the operator is not ready in time.
        """
        self.narrator = narrator
        self.check = Checker(narrator)
        self.damage: list[tuple[float, float]] = []
        self.exchanges = 0
        self._folder = folder
        self._running = running
        self._came_back = 0.0
        self._set()
        self.shop = Tenant(Objects(self.cluster, NAMESPACE), self.admin)
        self.auditor = running.enter_context(Auditor(self.cluster.kubeconfig, self.admin, [NAMESPACE]))
        self.start_operator()

    def _set(self) -> None:
        """Start the cluster and the sandbox, and install all that the operator needs."""
        with self.timed("a Kubernetes API: etcd, kube-apiserver, kube-controller-manager"):
            cluster = LocalCluster(self._folder / "cluster", find())
            self._running.callback(cluster.stop)
        self.cluster = cluster
        self.kubectl("apply", "-f", "crds/", "-f", "deploy/install.yaml")
        wait_until_served(self.cluster)
        self._login = self.cluster.kubeconfig_for("tuinly-system", "tuinly-operator")
        with self.timed("a Tuinly sandbox, with a ledger of all that it issues"):
            self._sandbox = self._running.enter_context(SandboxProcess())
        self.admin = self._sandbox.admin

    def start_operator(self) -> None:
        """Start an operator, logged in as its ServiceAccount, and wait until it is ready.

        Raises:
            RuntimeError: it ended; the message has its last log lines.
            TimeoutError: it is not ready in time.
        """
        with self.timed("the operator is ready, logged in as ServiceAccount tuinly-system/tuinly-operator"):
            operator = OperatorProcess(
                *("--token-url", self._sandbox.https_token_url, "--graphql-url", self._sandbox.https_graphql_url),
                *("--ca-bundle", str(self._sandbox.ca_file), *_FLAGS),
                kubeconfig=self._login,
                log_file=self._folder / f"operator-{len(list(self._folder.glob('operator-*.log'))) + 1}.log",
            )
            self.operator = self._running.enter_context(operator).wait_ready()

    def kubectl(self, *args: str) -> None:
        """Show a kubectl command, run it, and show what it says.

        Raises:
            KubectlError: it failed.
        """
        self.narrator.command(shlex.join(("kubectl", *args)))
        self._run(*args)

    def apply_client_secret(self) -> None:
        """Apply the Secret with the client's id and secret, as the endpoint knows them now."""
        client, name = self.shop.client, self.shop.client_secret_name
        manifest = _CLIENT_SECRET.format(name=name, id=client.id, secret="…  # not shown")
        # Server-side, as the other kind of apply keeps a copy of what it is given, the secret too, in an annotation.
        args = ("apply", "--server-side", "-f", "-")
        self.narrator.command(shlex.join(("kubectl", *args)), manifest)
        self._run(*args, input=_CLIENT_SECRET.format(name=name, id=client.id, secret=client.secret))

    def apply_credential(self, file: str) -> None:
        """Show one of the manifests beside this module, but for its comment, and apply it."""
        path = HERE / file
        name = str(path.relative_to(ROOT))
        self.narrator.command(f"cat {name}")
        self.narrator.show("".join(path.read_text().splitlines(keepends=True)[1:]))
        self.kubectl("apply", "-f", name)

    def pod_log(self) -> str:
        """Return what the shop's program has said in its Pod."""
        raise NotImplementedError("there are no Pods")

    def save_logs(self) -> None:
        """Write the operators' logs to the stage's folder, where they are not there already."""

    def tour(self) -> str:
        """Return commands with which somebody in another terminal looks around."""
        return f"""
export KUBECONFIG={self.cluster.kubeconfig} PATH={Path(sysconfig.get_path("scripts"))}:$PATH
{self._looks()}
# The operator: its metrics and its log.
curl -s {self.operator.health_url}/metrics | grep tuinly_
tail -f {max(self._folder.glob("operator-*.log"))}
"""

    def _looks(self) -> str:
        return f"""\
kubectl get tc -A -o wide --watch
kubectl describe tc {self.shop.name} -n {NAMESPACE}
kubectl describe secret {self.shop.target_name} -n {NAMESPACE}

# The sandbox: what it was asked, and how it is told to fail three times; its --help has more.
curl -s {self.admin.url}/ledger/requests
curl -s {self.admin.url}/faults -d '{{"kind": "fail", "status": 503, "count": 3}}'
cd {ROOT} && .venv/bin/python -m tests.support.sandbox --help
"""

    def since_command(self) -> str:
        """Tell how long ago the last kubectl command came back."""
        seconds = time.monotonic() - self._came_back
        return (f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s") + " after kubectl was done"

    def _run(self, *args: str, input: str | None = None) -> None:  # noqa: A002 -- the name that kubectl's caller gives it
        self.narrator.show(self.cluster.kubectl(*args, input=input))
        self._came_back = time.monotonic()

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Tell how long something took, when it is there."""
        begun = time.monotonic()
        yield
        self.narrator.holds(f"{what} ({time.monotonic() - begun:.1f} s)")
