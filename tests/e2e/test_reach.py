"""What the operator reaches and what reaches it by the chart's NetworkPolicy, where the node enforces policies.

The policy is there for as long as the chart is, so for all the faults of test_node.py as well, which come first.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.stage import Stage
from tests.support.acts import force
from tests.support.guarded import Guarded
from tests.support.installed import WAIT
from tests.support.manifests import IMAGE, SANDBOX, SHOP, SYSTEM
from tests.support.waiting import wait_until

Json = dict[str, Any]

pytestmark = pytest.mark.timeout(900)  # seconds, for hanging; the first test builds the image and starts the node

METRICS, OTHER = 8080, 9999
"""The port that lets metrics in, and one that a process in the operator's Pod listens on for a while."""
ENFORCED_SECONDS = 60.0
"""How long a node may take to enforce a change; ours takes less than one."""
VISITOR = "visitor"
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()
    print("yes")
except OSError:
    print("no")
"""
LISTEN = "import socket, time; listening = socket.create_server(('', {port})); time.sleep(600)"


def visitor() -> Json:
    """Return a Pod that does nothing by itself, from which connections are tried."""
    container = {
        "name": VISITOR,
        "image": IMAGE,
        "command": ["python3", "-c", "import time; time.sleep(3600)"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    labels = {"app.kubernetes.io/name": VISITOR}
    metadata = {"name": VISITOR, "namespace": SHOP, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def policy_that_allows_nothing() -> Json:
    """Return the NetworkPolicy that cuts the visitor off."""
    selector = {"matchLabels": visitor()["metadata"]["labels"]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": VISITOR, "namespace": SHOP},
        "spec": {"podSelector": selector, "policyTypes": ["Ingress", "Egress"]},
    }


Reaches = Callable[[str, int], bool]


def reaching(stage: Stage, pod: str, namespace: str) -> Reaches:
    """Return what tells whether a connection from a Pod to an address and port comes about."""

    def reaches(address: str, port: int) -> bool:
        ask = ("exec", pod, "-n", namespace, "--", "python3", "-c", CONNECT, address, str(port))
        return stage.node.kubectl(*ask).strip() == "yes"

    return reaches


def await_reach(reaches: Reaches, address: str, port: int, *, wanted: bool) -> None:
    """Wait until a connection comes about, or until none does any more."""
    what = f"{'a' if wanted else 'no'} connection to port {port}"
    wait_until(lambda: reaches(address, port) is wanted, what=what, seconds=ENFORCED_SECONDS)


@pytest.fixture(scope="module")
def from_visitor(stage: Stage) -> Reaches:
    """Return what tells whether the visitor reaches something, on a node that is seen to enforce policies."""
    stage.apply(visitor())
    ready = ("wait", "--for=condition=Ready", f"pod/{VISITOR}", "-n", SHOP, f"--timeout={WAIT:.0f}s")
    stage.node.kubectl(*ready, timeout=WAIT + 30)
    reaches, address = reaching(stage, VISITOR, SHOP), sandbox(stage)
    await_reach(reaches, address, 443, wanted=True)
    stage.apply(policy_that_allows_nothing())
    try:
        await_reach(reaches, address, 443, wanted=False)
    except TimeoutError:
        assert not stage.node.enforces_policies, "no policy is enforced on a node that does"
        pytest.skip("this node enforces no network policies")
    finally:
        stage.node.kubectl("delete", "networkpolicy", VISITOR, "-n", SHOP)
    await_reach(reaches, address, 443, wanted=True)
    return reaches


def sandbox(stage: Stage) -> str:
    """Return the address of the sandbox's Service."""
    address: str = stage.get("service", "tuinly", SANDBOX)["spec"]["clusterIP"]
    return address


@contextmanager
def listening(stage: Stage, pod: str, port: int) -> Iterator[None]:
    """Have a process listen in the operator's Pod for as long as the context lasts."""
    network = ["nsenter", f"--target={stage.process(pod)}", "--net"]
    process = Guarded([*network, sys.executable, "-c", LISTEN.format(port=port)])
    try:
        yield
    finally:
        process.end()


@pytest.mark.rule("SEC-9")
@pytest.mark.usefixtures("from_visitor")
def test_behind_its_policy_the_operator_leads_and_gets_tokens(stage: Stage) -> None:
    """It reaches the API server, DNS, and the token endpoint by its name."""
    [policy] = json.loads(stage.node.kubectl("get", "networkpolicies", "-n", SYSTEM, "-o", "json"))["items"]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    stage.leader()
    tenant = stage.tenants[0]
    before = tenant.target().token
    force(tenant, "behind a policy")
    tenant.await_token(other_than=before, seconds=60)


@pytest.mark.rule("SEC-9")
def test_it_reaches_no_other_port(stage: Stage, from_visitor: Reaches) -> None:
    """Of the same Pod that it gets tokens from; others do."""
    address = sandbox(stage)
    for pod in stage.pods():
        from_operator = reaching(stage, pod, SYSTEM)
        await_reach(from_operator, address, 443, wanted=True)
        for port in (8080, 8081):
            await_reach(from_visitor, address, port, wanted=True)
            await_reach(from_operator, address, port, wanted=False)


@pytest.mark.rule("SEC-9")
def test_its_metrics_are_reached_and_no_other_port_of_it(stage: Stage, from_visitor: Reaches) -> None:
    for name, pod in stage.pods().items():
        address = pod["status"]["podIP"]
        await_reach(from_visitor, address, METRICS, wanted=True)
        with listening(stage, name, OTHER):
            await_reach(reaching(stage, name, SYSTEM), address, OTHER, wanted=True)
            await_reach(from_visitor, address, OTHER, wanted=False)
