"""What API tests stand on: a real Kubernetes API, the sandbox, the operator with its own login, and tenants.

The Kubernetes API is our own control plane, or the cluster that KUBECONFIG_UNDER_TEST names.
"""

import itertools
import os
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.support import crd
from tests.support.auditor import Auditor
from tests.support.cluster import Cluster, LocalCluster, running_cluster
from tests.support.objects import Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant
from tuinly_operator.edges.kube import Kube, connect

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster that knows TuinlyCredentials."""
    under_test = os.environ.get("KUBECONFIG_UNDER_TEST")
    if under_test:
        other = Cluster(Path(under_test).absolute(), tmp_path_factory.mktemp("cluster"))
        crd.install(other)
        yield other
        return
    with running_cluster() as local:
        crd.install(local)
        yield local


@pytest.fixture
def local_cluster(cluster: Cluster) -> LocalCluster:
    """Return the cluster for a test that stops its API server; skip the test where the cluster is not ours to stop."""
    if not isinstance(cluster, LocalCluster):
        pytest.skip("stops the API server, which is not ours: KUBECONFIG_UNDER_TEST is set")
    return cluster


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    """Return the operator's way to the API server."""
    connection = await connect(cluster.kubeconfig)
    yield connection
    await connection.close()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Return the name of a new, empty namespace, which is deleted afterwards."""
    with new_namespace(cluster) as name:
        yield name


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> None:
    """Install the operator's namespace, ServiceAccount, RBAC and Deployment as users do."""
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "deploy" / "install.yaml"))


@pytest.fixture(scope="session")
def sandbox() -> Iterator[SandboxProcess]:
    """Return the sandbox; each test has clients of its own there, and faults that meet these only."""
    with SandboxProcess() as process:
        yield process


@pytest.fixture(scope="session")
def operator_login(cluster: Cluster, installed: None) -> Path:  # noqa: ARG001 - what is installed is the account
    """Return a kubeconfig of the operator's ServiceAccount, whose rights are those of deploy/install.yaml."""
    return cluster.kubeconfig_for("tuinly-system", "tuinly-operator")


class StartOperator(Protocol):
    """Starts an operator for all namespaces; so there is one at a time. Of a flag given twice the last counts.

    It logs in as its ServiceAccount or by another kubeconfig, trusts the sandbox's certificate or not, allows the other
    token URLs or not, and is of this version or of another, in a folder of its own.
    """

    def __call__(
        self,
        *flags: str,
        kubeconfig: Path | None = None,
        trusting: bool = True,
        allowing: bool = True,
        package: Path | None = None,
    ) -> OperatorProcess: ...


@pytest.fixture(scope="session")
def other_token_urls(sandbox: SandboxProcess) -> tuple[str, ...]:
    """Return more URLs of the sandbox's token endpoint, which the operators allow.

    Each is an origin of its own: an operator that keeps away from one, as it fails, goes on with the others.
    """
    urls = (sandbox.token_url, sandbox.https_token_url)
    return (sandbox.token_url, *(url.replace("127.0.0.1", "localhost") for url in urls))


@pytest.fixture(scope="session")
def make_operator(
    sandbox: SandboxProcess,
    other_token_urls: tuple[str, ...],
    operator_login: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> StartOperator:
    """Return how to start an operator that asks the sandbox for tokens, over HTTPS. The caller ends it."""
    directory, number = tmp_path_factory.mktemp("operators"), itertools.count(1)

    def start(
        *flags: str,
        kubeconfig: Path | None = None,
        trusting: bool = True,
        allowing: bool = True,
        package: Path | None = None,
    ) -> OperatorProcess:
        usual = ["--token-url", sandbox.https_token_url, "--min-refresh-interval", "200ms"]
        usual += [part for url in other_token_urls if allowing for part in ("--allowed-token-url", url)]
        usual += ["--ca-bundle", str(sandbox.ca_file)] if trusting else []
        log_file = directory / f"{next(number)}.log"
        login = kubeconfig or operator_login
        return OperatorProcess(*usual, *flags, kubeconfig=login, log_file=log_file, package=package)

    return start


@pytest.fixture(scope="module")
def operator(make_operator: StartOperator) -> Iterator[OperatorProcess]:
    """Return a ready operator that the tests of a module share; they leave it running."""
    with make_operator("--request-timeout", "2s") as process:
        yield process.wait_ready()


@pytest.fixture
def start_operator(make_operator: StartOperator) -> Iterator[StartOperator]:
    """Return how a test starts operators of its own, in a module without the shared one; they end with the test."""
    with ExitStack() as running:
        yield lambda *flags, **options: running.enter_context(make_operator(*flags, **options))


@pytest.fixture
def tenant(cluster: Cluster, sandbox: SandboxProcess, namespace: str) -> Tenant:
    """Return a tenant with a namespace and a client of its own; nothing is applied yet."""
    return Tenant(Objects(cluster, namespace), sandbox.admin)


@pytest.fixture
def auditor(cluster: Cluster, sandbox: SandboxProcess, namespace: str) -> Iterator[Auditor]:
    """Return an auditor of the test's namespace; what it finds is for the test to judge."""
    with Auditor(cluster.kubeconfig, sandbox.admin, [namespace]) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what the operators under test logged last; no secret is ever in a log."""
    report = yield
    if report.failed:
        for process in OperatorProcess.running:
            report.sections.append((f"log of the operator {process.pid}", process.last_lines()))
    return report
