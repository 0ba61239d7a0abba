"""The operator as in a Pod: by the ServiceAccount's files, as a user that nobody knows, with nothing to write to.

No HOME, no USER, no temporary directory: whatever asks for one of these, in whatever library, fails here.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.cluster import Cluster
from tests.support.confined import UID, NotPossible, confinement
from tests.support.operator import OperatorProcess
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant

ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
"""Where a Pod has its login; /var/run is a link to /run."""
CA_BUNDLE = "/run/tuinly/ca.pem"
KUBECONFIG = "/run/tuinly/kubeconfig"
PROBE = """
import os, pwd, tempfile
for what in (lambda: pwd.getpwuid(os.getuid()), tempfile.mkstemp):
    try:
        print("there is", what())
    except (KeyError, OSError):
        pass
print(os.getuid(), sorted(os.environ.keys() - {"LC_CTYPE"}))
"""

Launcher = Sequence[str]


@pytest.fixture
def pod(cluster: Cluster, sandbox: SandboxProcess, operator_login: Path, tmp_path: Path) -> Launcher:
    """Return what runs a program as in a Pod of the operator's ServiceAccount."""
    token = tmp_path / "token"
    token.write_text(json.loads(operator_login.read_text())["users"][0]["user"]["token"])
    files = {f"{ACCOUNT}/token": token, f"{ACCOUNT}/ca.crt": cluster.ca_file, CA_BUNDLE: sandbox.ca_file}
    files[KUBECONFIG] = operator_login
    server = urlsplit(cluster.server)
    environ = {"KUBERNETES_SERVICE_HOST": str(server.hostname), "KUBERNETES_SERVICE_PORT": str(server.port or 443)}
    try:
        return confinement(files, environ)
    except NotPossible as reason:
        pytest.skip(f"cannot make a place like a Pod: {reason}")


@pytest.mark.rule("SEC-11")
def test_a_kubeconfig_with_certificates_in_it_needs_a_temporary_directory(pod: Launcher, operator_login: Path) -> None:
    """Python's TLS takes them from files alone. The Pod's own login, and a kubeconfig that names files, need none."""
    assert "certificate-authority-data" in operator_login.read_text()
    argv = [*pod, sys.executable, "-m", "tuinly_operator", "run", "--kubeconfig", KUBECONFIG]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603 -- our own
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "No usable temporary directory found" in ended.stderr


@pytest.fixture
def start(pod: Launcher, sandbox: SandboxProcess, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Return how to start an operator there."""
    with ExitStack() as running:
        flags = ("--token-url", sandbox.https_token_url, "--ca-bundle", CA_BUNDLE)
        yield lambda: running.enter_context(
            OperatorProcess(*flags, kubeconfig=None, log_file=tmp_path / "log", launcher=pod)
        )


@pytest.mark.rule("SEC-11")
def test_the_place_is_as_bare_as_it_should_be(pod: Launcher) -> None:
    """Else the tests below would prove nothing."""
    argv = [*pod, sys.executable, "-c", PROBE]
    probe = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603 -- our own
    assert (probe.stdout, probe.stderr) == (f"{UID} ['KUBERNETES_SERVICE_HOST', 'KUBERNETES_SERVICE_PORT']\n", "")


@pytest.mark.rule("SEC-11")
def test_a_user_that_nobody_knows_needs_no_home_and_nothing_to_write_to(
    tenant: Tenant, start: Callable[..., OperatorProcess]
) -> None:
    operator = start().wait_ready()
    tenant.start(lifetime=8)
    tenant.await_token(other_than=tenant.await_ready().token)
    assert operator.terminate() == 0
    assert operator.complaints(tenant.objects.namespace) == []


@pytest.mark.rule("SEC-11")
def test_with_credentials_there_from_the_start_it_is_ready(
    tenant: Tenant, start: Callable[..., OperatorProcess]
) -> None:
    """A watch that never brings anything is ready only as long as there is nothing to bring."""
    tenant.start()
    start().wait_ready()
    tenant.await_ready()
