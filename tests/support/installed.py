"""The operator as it is installed on a node: its Pods and their processes, and which of them leads."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.manifests import SYSTEM
from tests.support.node import AnyNode
from tests.support.waiting import wait_until

Json = dict[str, Any]

NAME = "tuinly-operator"
"""Of its Deployment and its Lease."""
REPLICAS = 2
LEASE_SECONDS = 15
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/{NAME}"
WAIT = 240.0  # seconds, for hanging: on a machine with much else to do, twenty Pods take two minutes to start


def lease_holder(lease: Json) -> tuple[str, float]:
    """Return who holds a Lease, "" for nobody, and when it was renewed, in seconds of `time.time`; 0 for never."""
    spec = lease.get("spec", {})
    renewed_at = datetime.fromisoformat(spec["renewTime"]).timestamp() if spec.get("renewTime") else 0.0
    return str(spec.get("holderIdentity") or ""), renewed_at


class Installed:
    """What an admin does on the node, and sees of the operator.

    Attributes:
        node: where it is.
    """

    def __init__(self, node: AnyNode) -> None:
        """Nothing is installed by this."""
        self.node = node

    def apply(self, *objects: Json) -> None:
        """Apply objects as `kubectl apply` does."""
        documents = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.node.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=documents)

    def get(self, kind: str, name: str, namespace: str = SYSTEM) -> Json:
        """Return an object."""
        found: Json = json.loads(self.node.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def pods(self) -> dict[str, Json]:
        """Return the operator's Pods that are not being deleted, by name."""
        text = self.node.kubectl("get", "pods", "-n", SYSTEM, "-l", f"app.kubernetes.io/name={NAME}", "-o", "json")
        items = json.loads(text)["items"]
        return {each["metadata"]["name"]: each for each in items if "deletionTimestamp" not in each["metadata"]}

    def exists(self, pod: str) -> bool:
        """Whether one of its Pods is there, be it on its way out."""
        return self.node.kubectl("get", "pod", pod, "-n", SYSTEM, "--ignore-not-found", "-o", "name") != ""

    def process(self, pod: str) -> int:
        """Return the number, outside, of the operator's process in one of its Pods."""
        uid = self.get("pod", pod)["metadata"]["uid"]
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                cgroup = (folder / "cgroup").read_text().replace("_", "-")  # as systemd would have it
                if uid in cgroup and b"tuinly-operator" in (folder / "cmdline").read_bytes():
                    return int(folder.name)
            except OSError:  # it has ended meanwhile
                continue
        raise AssertionError(f"no process of {pod}")

    def holder(self) -> tuple[str, float]:
        """Return who holds the Lease, "" for nobody, and when it was renewed, in seconds of `time.time`."""
        return lease_holder(json.loads(self.node.kubectl("get", "--raw", LEASE)))

    def leader(self, *, other_than: str = "") -> tuple[str, str]:
        """Return the name of the Pod that leads, and its identity in the Lease, once one is surely at work."""

        def at_work() -> tuple[str, str] | None:
            holder, renewed_at = self.holder()
            pod = holder.partition("_")[0]
            fresh = time.time() - renewed_at < LEASE_SECONDS / 2
            return (pod, holder) if fresh and holder != other_than and pod in self.pods() else None

        found = wait_until(at_work, what="a leader", seconds=WAIT)
        assert found is not None  # noqa: S101 -- wait_until returns what is true
        return found

    def await_deployment(self, namespace: str, name: str, replicas: int = 1) -> None:
        """Wait until a rollout is complete: all Pods are new and ready, and no old one is left."""

        def complete() -> bool:
            deployment = self.get("deployment", name, namespace)
            status = deployment["status"]
            counts = (status.get(field, 0) for field in ("replicas", "updatedReplicas", "readyReplicas"))
            seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
            return seen and all(count == replicas for count in counts)

        wait_until(complete, what=f"the rollout of {namespace}/{name}", seconds=WAIT)

    def await_two_ready(self) -> None:
        """Wait until the operator has both replicas, and no third."""
        self.await_deployment(SYSTEM, NAME, replicas=REPLICAS)
        wait_until(lambda: len(self.pods()) == REPLICAS, what="two Pods", seconds=WAIT)
