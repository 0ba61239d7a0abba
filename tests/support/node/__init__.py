"""A Kubernetes node on this machine, without Docker: Pods really run, in namespaces and cgroups of its own.

The programs are the real ones: control plane, scheduler, controller manager, kubelet, kube-proxy, containerd, runc,
CoreDNS, and of kube-router what enforces network policies. They run as root in a network, mount and process namespace,
so they see and change nothing of the machine's; what they write is in memory and gone with them. One kill ends all of
it.
"""

from tests.support.node.any_node import AnyNode, NodeError
from tests.support.node.kind import KindNode, check_kind
from tests.support.node.node import Node
from tests.support.node.programs import Programs, Unavailable, check_machine, find_programs

__all__ = [
    "AnyNode",
    "KindNode",
    "Node",
    "NodeError",
    "Programs",
    "Unavailable",
    "check_kind",
    "check_machine",
    "find_programs",
]
