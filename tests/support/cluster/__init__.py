"""A Kubernetes API for tests, the demo and people's own trials: any cluster there is, or one of our own on loopback."""

from tests.support.cluster.any_cluster import Cluster, ClusterError, KubectlError
from tests.support.cluster.local_cluster import LocalCluster, running_cluster

__all__ = ["Cluster", "ClusterError", "KubectlError", "LocalCluster", "running_cluster"]
