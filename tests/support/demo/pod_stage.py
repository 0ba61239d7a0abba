"""The stage on a node: operator and sandbox are Pods there, and so is the program that uses the token."""

import os
import signal
import sys
import time
import urllib.request
from pathlib import Path

import trustme

from tests.support import image, manifests
from tests.support.crd import wait_until_served
from tests.support.demo.stage import NAMESPACE, Stage
from tests.support.installed import Installed
from tests.support.manifests import IMAGE, SANDBOX, SYSTEM
from tests.support.node import Node, find_programs
from tests.support.operator import read_metrics
from tests.support.sandbox import SandboxAdmin

_SETTINGS = {"TUINLY_MIN_REFRESH_INTERVAL": "500ms", "TUINLY_REQUEST_TIMEOUT": "2s"}
"""As for the operator that is a process: the story's tokens are short-lived."""


class LeadingPod:
    """The operator that leads, in a Pod."""

    def __init__(self, installed: Installed, *, other_than: str = "") -> None:
        """Wait until one leads, other than the one that held the Lease so."""
        self._installed = installed
        self._pod, self.holder = installed.leader(other_than=other_than)

    @property
    def pid(self) -> int:
        """Its process id, as it is outside of the Pod."""
        return self._installed.process(self._pod)

    @property
    def health_url(self) -> str:
        """Where it serves its metrics, in the node's network."""
        return f"http://{self._installed.get('pod', self._pod)['status']['podIP']}:8080"

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of the one sample with exactly these labels, or None where there is none."""
        with urllib.request.urlopen(f"{self.health_url}/metrics", timeout=10) as answer:  # noqa: S310 -- its own URL
            return read_metrics(answer.read().decode()).get((name, frozenset(labels.items())))

    def kill(self) -> None:
        """End its process as a crash would. The kubelet starts another in its place, which does not lead."""
        os.kill(self.pid, signal.SIGKILL)


class PodStage(Stage):
    """Where the scenes play: a node on this machine."""

    in_pods = True
    successor = "and the other replica has to take over, as soon as 15 s without a sign of life have passed"
    operator: LeadingPod

    def _set(self) -> None:
        """Build the image, start node and sandbox, and install the operator.

        Raises:
            Unavailable: of the node or the image: this machine lacks what they need; the message says what.
            NodeError: the node does not start.
        """
        programs = find_programs()
        self.narrator.say("The operator's image is built first, which takes about half a minute.")
        with self.timed("the operator's image, built from this checkout"):
            built = image.build(self._folder / "image.tar", name=IMAGE)
        with self.timed("a Kubernetes node: control plane, scheduler, kubelet, containerd, kube-proxy, CoreDNS"):
            node = Node(self._folder / "cluster", programs)
            self._running.callback(node.stop)
        self.cluster = self._node = node
        self._installed = Installed(node)
        node.load(built.archive)
        self._certificates = trustme.CA()
        with self.timed("a Tuinly sandbox in a Pod, with a ledger of all that it issues, behind TLS"):
            self._installed.apply(*manifests.sandbox(self._certificates))
            self._installed.await_deployment(SANDBOX, "tuinly")
        address = self._installed.get("service", "tuinly", SANDBOX)["spec"]["clusterIP"]
        self.admin = SandboxAdmin(f"http://{address}:8081")
        self.kubectl("apply", "-f", "crds/")
        wait_until_served(node)
        self.narrator.say("And deploy/install.yaml, with the image's name, and with the sandbox in Tuinly's place.")
        self._installed.apply(*manifests.installation(_SETTINGS))
        self._installed.apply(*manifests.authority(self._certificates, (SYSTEM,)))

    def start_operator(self) -> None:
        """Wait until a replica leads: at first any, later another one than that which was killed."""
        if hasattr(self, "operator"):
            with self.timed("another replica leads"):
                self.operator = LeadingPod(self._installed, other_than=self.operator.holder)
            return
        with self.timed("the operator, two replicas, of which one leads (the first one ever waits 15 s for others)"):
            self._installed.await_two_ready()
            self.operator = LeadingPod(self._installed)

    def pod_log(self) -> str:
        """Return what the shop's program has said in its Pod."""
        time.sleep(0.3)  # whoever waits for a line asks again and again, and it has its own time
        return self._node.kubectl("logs", self.shop.name, "-n", NAMESPACE, check=False)

    def save_logs(self) -> None:
        """Write the replicas' logs to the stage's folder."""
        for number, pod in enumerate(self._installed.pods(), start=1):
            text = self._node.kubectl("logs", pod, "-n", SYSTEM, check=False)
            (self._folder / f"operator-{number}.log").write_text(text)

    def tour(self) -> str:
        """Return commands with which somebody in another terminal looks around."""
        environ = f"KUBECONFIG={self._node.kubeconfig} PATH={Path(sys.executable).parent}:$PATH"
        return f"""
nsenter --target={self._node.pid} --net --mount --pid --wd=. env {environ} bash   # the node's network is its own
{self._looks()}
# The operator: its metrics and its log; and the program in its Pod.
curl -s {self.operator.health_url}/metrics | grep tuinly_
kubectl logs --follow --all-pods --prefix -n {SYSTEM} deployment/tuinly-operator
kubectl logs --follow -n {NAMESPACE} {self.shop.name}
"""
