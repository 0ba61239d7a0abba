"""The stage: a control plane, the sandbox, an auditor and the operator, and a shop that will use them."""

import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.support.auditor import Auditor
from tests.support.binaries import find
from tests.support.cluster import LocalCluster
from tests.support.crd import wait_until_served
from tests.support.demo.checker import Checker
from tests.support.demo.narrator import Narrator
from tests.support.objects import Objects
from tests.support.operator import OperatorProcess
from tests.support.sandbox import SandboxProcess
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


class Stage:
    """Where the scenes play.

    Attributes:
        narrator, check: who tells the story, and who checks it.
        cluster, sandbox, auditor: what they are called.
        shop: the team whose story it is. What it does is done by kubectl, what became of it is looked up here.
        damage: when the target was damaged on purpose: begin and end, in seconds of `time.time`.
    """

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
        self._folder = folder
        self._running = running
        self._operators: list[OperatorProcess] = []
        self._came_back = 0.0
        with self.timed("a Kubernetes API: etcd, kube-apiserver, kube-controller-manager"):
            self.cluster = LocalCluster(folder / "cluster", find())
            running.callback(self.cluster.stop)
        self.kubectl("apply", "-f", "crds/", "-f", "deploy/install.yaml")
        wait_until_served(self.cluster)
        self._login = self.cluster.kubeconfig_for("tuinly-system", "tuinly-operator")
        with self.timed("a Tuinly sandbox, with a ledger of all that it issues"):
            self.sandbox = running.enter_context(SandboxProcess())
        self.shop = Tenant(Objects(self.cluster, NAMESPACE), self.sandbox.admin)
        self.auditor = running.enter_context(Auditor(self.cluster.kubeconfig, self.sandbox.admin, [NAMESPACE]))
        self.start_operator()

    @property
    def operator(self) -> OperatorProcess:
        """The operator that was started last."""
        return self._operators[-1]

    def start_operator(self) -> None:
        """Start an operator, logged in as its ServiceAccount, and wait until it is ready.

        Raises:
            RuntimeError: it ended; the message has its last log lines.
            TimeoutError: it is not ready in time.
        """
        with self.timed("the operator is ready, logged in as ServiceAccount tuinly-system/tuinly-operator"):
            operator = OperatorProcess(
                *("--token-url", self.sandbox.https_token_url, "--graphql-url", self.sandbox.https_graphql_url),
                *("--ca-bundle", str(self.sandbox.ca_file), *_FLAGS),
                kubeconfig=self._login,
                log_file=self._folder / f"operator-{len(self._operators) + 1}.log",
            )
            self._operators.append(self._running.enter_context(operator))
            operator.wait_ready()

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
