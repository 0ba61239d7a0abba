"""Two replicas, real processes: who cannot become ready never takes the lead, says why, and the other one leads."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from tests.api.conftest import ROOT, StartOperator
from tests.support.acts import leave_lease
from tests.support.operator import LEADS, OperatorProcess
from tests.support.tenant import Tenant
from tests.support.waiting import wait_until

LEASE = "tuinly-operator"
BREAKS = {
    # kopf fails on its thread at each start, as it did for a user without a name.
    "edges/credential_watch.py": ("identity=MANAGER,", "identity=nowhere,"),
    # It is missed after less than half a minute.
    "engine/parts.py": ("PATIENCE: Final = 30.0", "PATIENCE: Final = 1.0"),
}
"""By file, what is broken in a version of the operator."""

Start = Callable[..., OperatorProcess]


@pytest.fixture
def start(tenant: Tenant, make_operator: StartOperator) -> Iterator[Start]:
    """Return how to start replicas of one operator for the tenant's namespace; whoever is first may lead at once."""
    cluster, namespace = tenant.objects.cluster, tenant.objects.namespace
    text = (ROOT / "deploy" / "namespaced.yaml").read_text()
    objects = yaml.safe_load_all(re.sub(r"\b(tuinly-system|shop)\b", namespace, text))
    rights = [each for each in objects if each["kind"] in {"ServiceAccount", "Role", "RoleBinding"}]
    cluster.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(rights))
    login = cluster.kubeconfig_for(namespace, "tuinly-operator")
    leave_lease(cluster, namespace, LEASE)
    with ExitStack() as running:
        flags = ("--namespace", namespace, "--lease", f"{namespace}/{LEASE}")
        yield lambda **options: running.enter_context(make_operator(*flags, **{"kubeconfig": login, **options}))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Return a folder with the broken version."""
    package = tmp_path / "tuinly_operator"
    shutil.copytree(ROOT / "operator" / "tuinly_operator", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (ours, theirs) in BREAKS.items():
        text = (package / name).read_text()
        assert text.count(ours) == 1, f"{name} has changed"
        (package / name).write_text(text.replace(ours, theirs))
    return tmp_path


def leads(operator: OperatorProcess) -> bool:
    return any(line["msg"] == LEADS for line in operator.logs())


@pytest.mark.rule("REPL-5", "REPL-6", "OBS-4")
def test_of_two_replicas_the_one_that_can_become_ready_leads(tenant: Tenant, start: Start, broken: Path) -> None:
    """The other came first, and says in one line what it could not start; then the kubelet is to restart it."""
    bad = start(package=broken)
    told = bad.wait_for_log(lambda line: line["level"] == "error")
    assert (told["msg"], told["cause"]) == ("the watch of TuinlyCredentials ended, starting it again", "NameError")
    wait_until(lambda: bad.get("/healthz")[0] == 503, what="it is missed")
    assert bad.get("/healthz")[1] == "the watch of TuinlyCredentials ended and did not come back\n"
    assert bad.get("/readyz")[0] == 503
    good = start()
    tenant.start().await_ready()
    good.wait_ready()
    assert (leads(bad), leads(good)) == (False, True)
    bad.wait_for_log(lambda line: line["msg"] == "another replica leads" and bool(line["holder"]))
    assert len([line for line in bad.logs() if line["level"] == "error"]) == 1
    assert good.get("/healthz") == (200, "ok\n")


@pytest.mark.rule("REPL-5")
def test_a_replica_that_may_list_nothing_does_not_lead(tenant: Tenant, start: Start) -> None:
    """It has the right to the Lease alone. A restart would not help, so that it is not asked for."""
    cluster, namespace = tenant.objects.cluster, tenant.objects.namespace
    cluster.kubectl("create", "serviceaccount", "poor", "-n", namespace)
    verbs = ("--verb=get,create,update", "--resource=leases.coordination.k8s.io")
    cluster.kubectl("create", "role", "poor", "-n", namespace, *verbs)
    binding = ("--role=poor", f"--serviceaccount={namespace}:poor")
    cluster.kubectl("create", "rolebinding", "poor", "-n", namespace, *binding)
    bad = start(kubeconfig=cluster.kubeconfig_for(namespace, "poor"))
    bad.wait_for_log(lambda line: "may not list and watch" in line["msg"])
    good = start()
    tenant.start().await_ready()
    bad.wait_for_log(lambda line: line["msg"] == "another replica leads")
    assert (leads(bad), leads(good)) == (False, True)
    assert (bad.get("/readyz")[0], bad.get("/healthz")[0]) == (503, 200)
