"""A real Kubernetes API for tests: our own control plane, or the cluster that KUBECONFIG_UNDER_TEST names."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, LocalCluster, running_cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster that knows TuinlyCredentials."""
    under_test = os.environ.get("KUBECONFIG_UNDER_TEST")
    if under_test:
        other = Cluster(Path(under_test).absolute(), tmp_path_factory.mktemp("cluster"))
        _install_crd(other)
        yield other
        return
    with running_cluster() as local:
        _install_crd(local)
        yield local


@pytest.fixture
def local_cluster(cluster: Cluster) -> LocalCluster:
    """Return the cluster for a test that stops its API server; skip the test where the cluster is not ours to stop."""
    if not isinstance(cluster, LocalCluster):
        pytest.skip("stops the API server, which is not ours: KUBECONFIG_UNDER_TEST is set")
    return cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Return the name of a new, empty namespace, which is deleted afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> None:
    """Install the operator's namespace, ServiceAccount, RBAC and Deployment as users do."""
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "deploy" / "install.yaml"))


def _install_crd(cluster: Cluster) -> None:
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds" / "tuinlycredentials.yaml"))
    cluster.kubectl("wait", "--for=condition=Established", "crd/tuinlycredentials.tuinly.com", "--timeout=30s")
