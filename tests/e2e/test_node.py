"""Tokens in Pods, through all that happens to an operator on a node: no call is ever refused.

The tests are one story, told in this order, while the programs call: each begins with two replicas that are ready, and
leaves them so.
"""

import json
import os
import signal
import statistics
import time
from pathlib import Path

import pytest

from tests.e2e import kinds
from tests.e2e.stage import LIFETIME, Stage
from tests.support import manifests
from tests.support.binaries import BinariesError
from tests.support.cluster import KubectlError
from tests.support.helm import CHART, Helm
from tests.support.manifests import SYSTEM
from tests.support.tenant import Tenant, seconds_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(900)  # seconds, for hanging; the first test builds the image and starts the node

HOG = "import os; file = os.memfd_create('hog')\nwhile True: os.write(file, bytes(2**20))"
"""Fills the container's memory with pages of no process, so that the kernel ends the largest one: the operator."""
MEGABYTE = 1e6


@pytest.fixture(scope="module")
def kind_tenants(stage: Stage) -> dict[str, Tenant]:
    """Return the credentials of the Pod with each usual way to get a Secret, which runs from now on."""
    return stage.start_kinds()


def ways(stage: Stage) -> dict[str, list[kinds.Seen]]:
    """Return what each way has shown so far."""
    seen = kinds.seen(stage.node)
    return {way: [each for each in seen if each.way == way] for way in {each.way for each in seen}}


def test_each_way_shows_the_first_token(stage: Stage, kind_tenants: dict[str, Tenant]) -> None:
    """In the init container, too; the optional one is empty while there is no Secret, and a Pod without it waits."""
    expires_at = expiry(kind_tenants[kinds.NAME])
    frozen = expiry(kind_tenants[f"{kinds.NAME}-frozen"])
    shown = wait_until(lambda: len(found := ways(stage)) > len(kinds.WAYS) + 1 and found, what="the Pod", seconds=60)
    assert shown
    first = {way: seen[0].expires_at for way, seen in shown.items() if way != "CronJob"}
    assert first == {
        **dict.fromkeys(("secret", "projected", "subPath", "env", "init container"), expires_at),
        "optional": None,
        "frozen": frozen,
    }
    for tenant in kind_tenants.values():  # from here on there is a second token for the first two, and a late first one
        if tenant.find_target() is None:
            tenant.start(lifetime=kinds.LIFETIME)
        else:
            before = tenant.target().token
            tenant.rotate_secret()
            tenant.apply_client_secret()
            tenant.await_token(other_than=before)


def expiry(tenant: Tenant) -> float:
    """Return when the token in a credential's target expires."""
    return seconds_of(tenant.target().data["expires_at"])


def test_a_leader_that_is_deleted_hands_over(stage: Stage) -> None:
    """It ends long before it would be killed."""
    leader, holder = stage.leader()
    grace = stage.pods()[leader]["spec"]["terminationGracePeriodSeconds"]
    begun = time.time()
    stage.node.kubectl("delete", "pod", leader, "-n", SYSTEM, "--wait=false")
    stage.figures.add("a leader Pod deleted: the other leads", f"{stage.leases.await_other(holder, begun):.1f} s later")
    wait_until(lambda: not stage.exists(leader), what="the end of the Pod", seconds=60)
    seconds = time.time() - begun
    stage.figures.add("it is gone", f"{seconds:.1f} s after its deletion, of {grace} s that it may take")
    assert seconds < grace
    stage.await_two_ready()


def test_a_leader_that_is_killed_is_followed(stage: Stage) -> None:
    leader, holder = stage.leader()
    begun = time.time()
    os.kill(stage.process(leader), signal.SIGKILL)
    stage.figures.add("a leader killed by SIGKILL: without one", f"{stage.leases.await_other(holder, begun):.1f} s")
    stage.await_two_ready()


def test_a_drained_node_takes_one_replica_at_a_time(stage: Stage) -> None:
    """Each in turn; the second is refused by the disruption budget until the first one's successor is ready."""
    first, second = stage.pods()
    evict(stage, first)
    with pytest.raises(KubectlError, match="violate the pod's disruption budget"):
        evict(stage, second)
    stage.await_two_ready()
    evict(stage, second)
    stage.await_two_ready()


def evict(stage: Stage, pod: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": SYSTEM}}
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod}/eviction"
    stage.node.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body))


def test_a_rolling_update_hands_over(stage: Stage) -> None:
    before = stage.pods().keys()
    begun = time.time()
    stage.node.kubectl("rollout", "restart", "deployment/tuinly-operator", "-n", SYSTEM)
    wait_until(lambda: not before & stage.pods().keys(), what="new Pods only", seconds=120)
    stage.await_two_ready()
    seconds = time.time() - begun
    stage.leader()
    stage.figures.add("a rollout", f"{seconds:.1f} s, of which {stage.leases.gap(begun):.2f} s without a leader")
    cpu = [processor_seconds(stage.process(pod)) for pod in stage.pods()]
    stage.figures.add("a start", f"{min(cpu):.2f} to {max(cpu):.2f} s of CPU")


def processor_seconds(pid: int) -> float:
    """Return what a process has used, of user's and system's time (proc(5))."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 -- one line
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_chart_takes_the_installation_over(stage: Stage, tmp_path: Path) -> None:
    """As an upgrade: one rollout. Its own test, a Pod that asks the operator how it is, passes."""
    try:
        helm = Helm(tmp_path, stage.node.kubeconfig)
    except BinariesError as reason:
        pytest.skip(f"not here: {reason}")
    before = stage.pods().keys()
    begun = time.time()
    install = ("install", "tuinly-operator", str(CHART), "--namespace", SYSTEM, "--take-ownership", "--force-conflicts")
    helm.run(*install, values=manifests.chart_values())
    wait_until(lambda: not before & stage.pods().keys(), what="new Pods only", seconds=120)
    stage.await_two_ready()
    stage.leader()
    seconds = time.time() - begun
    gap = stage.leases.gap(begun)
    stage.figures.add("the chart in place of the files", f"{seconds:.1f} s, of which {gap:.2f} s without a leader")
    helm.run("test", "tuinly-operator", "--namespace", SYSTEM)


def test_a_rotated_client_secret_is_followed(stage: Stage) -> None:
    """By a token in each target at once."""
    before = {tenant.name: tenant.target().token for tenant in stage.tenants}
    for tenant in stage.tenants:
        tenant.rotate_secret()
        tenant.apply_client_secret()
    for tenant in stage.tenants:
        tenant.await_token(other_than=before[tenant.name], seconds=60)


def test_the_api_server_may_restart(stage: Stage) -> None:
    begun = time.time()
    stage.node.restart("kube-apiserver")
    wait_until(lambda: stage.node.kubectl("get", "--raw=/readyz", check=False) == "ok", what="it", seconds=60)
    stage.figures.add("the API server restarted", f"{time.time() - begun:.1f} s without it")
    stage.await_two_ready()
    stage.leader()


def test_a_leader_that_runs_out_of_memory_is_followed(stage: Stage) -> None:
    leader, holder = stage.leader()
    begun = time.time()
    stage.node.kubectl("exec", leader, "-n", SYSTEM, "--", "python3", "-c", HOG, check=False)
    stage.figures.add("a leader killed for its memory: without one", f"{stage.leases.await_other(holder, begun):.1f} s")
    stage.await_two_ready()
    terminated = stage.get("pod", leader)["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert terminated["reason"] == "OOMKilled"


def test_each_way_shows_the_next_token_or_the_first_for_ever(stage: Stage, kind_tenants: dict[str, Tenant]) -> None:
    """A directory shows it, be the Secret mounted by itself, projected, or optional and late; nothing else does."""
    new = expiry(kind_tenants[kinds.NAME])
    late = expiry(kind_tenants[f"{kinds.NAME}-late"])
    wanted = {"secret": new, "projected": new, "optional": late, "waiting": late, "CronJob": new}

    def arrived() -> dict[str, list[kinds.Seen]] | None:
        shown = ways(stage)
        last = {way: seen[-1].expires_at for way, seen in shown.items()}
        return shown if wanted.items() <= last.items() else None

    shown = wait_until(arrived, what=f"{wanted}", seconds=120)
    assert shown
    delays = {way: seen[-1].at - (seen[-1].expires_at or 0) + kinds.LIFETIME for way, seen in shown.items()}
    told = ", ".join(f"{way} {delays[way]:.0f} s" for way in ("secret", "projected", "optional", "waiting"))
    stage.figures.add("a token issued: what shows it", told)
    assert [way for way in ("subPath", "env", "frozen", "init container") if len(shown[way]) > 1] == []


def test_the_kubelet_may_restart(stage: Stage) -> None:
    pods = {name: pod["status"]["containerStatuses"][0]["restartCount"] for name, pod in stage.pods().items()}
    stage.node.restart("kubelet")
    wait_until(lambda: stage.node.healthy("http://127.0.0.1:10248/healthz"), what="the kubelet", seconds=60)
    stage.await_two_ready()
    after = {name: pod["status"]["containerStatuses"][0]["restartCount"] for name, pod in stage.pods().items()}
    assert after == pods


def test_tokens_of_after_all_that_reach_the_pods(stage: Stage) -> None:
    """By the kubelet's own means: the file changes while the program runs."""
    begun = time.time()
    wait_until(
        lambda: all(told.tokens and told.tokens[-1][1] - LIFETIME > begun for told in stage.told().values()),
        what="a token in each Pod that was issued after all faults",
        seconds=LIFETIME,
    )
    delays = [at - (expires_at - LIFETIME) for told in stage.told().values() for at, expires_at in told.tokens[1:]]
    median = statistics.median(delays)
    stage.figures.add(
        "a token issued: its file has changed",
        f"{median:.0f} s later at the median, {max(delays):.0f} s at the most, of {len(delays)}",
    )


def test_what_it_uses_is_what_it_asks_for(stage: Stage) -> None:
    """Memory below the request, so that it is no victim of others' needs."""
    used = wait_until(lambda: len(found := stage.working_sets()) == 2 and found, what="its memory", seconds=60)
    assert used
    [pod, *_] = stage.pods().values()
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["requests"]["memory"] == "128Mi"
    assert max(used) < 128 * 2**20 / MEGABYTE
    told = " and ".join(f"{each:.0f} MB" for each in used)
    limit = resources["limits"]["memory"]
    stage.figures.add("working set", f"{told}, of {resources['requests']['memory']} requested and {limit} at most")


def test_no_log_tells_a_token_or_a_failure_of_its_own(stage: Stage) -> None:
    tokens = [token.value for tenant in stage.tenants for token in tenant.tokens()]
    assert len(tokens) > len(stage.tenants)
    for pod in stage.pods():
        text = stage.node.kubectl("logs", pod, "-n", SYSTEM)
        errors = [line for line in map(json.loads, text.splitlines()) if line["level"] == "error"]
        # kopf's client calls each connection that the restarted API server refuses an error.
        assert [line for line in errors if not line["logger"].startswith("kopf.")] == []
        assert [token for token in tokens if token in text] == []


def test_no_call_was_refused(stage: Stage) -> None:
    """For its token, seen from inside the Pods, over all of the above; a call that a busy machine let wait is none."""
    told = stage.told()
    assert [each.refusals for each in told.values() if each.refusals] == []
    assert {name: each.refused for name, each in told.items() if each.refused} == {}
    assert min(len(each.tokens) for each in told.values()) > 2
    calls, failed = (sum(counts) for counts in zip(*((each.calls, each.failed) for each in told.values()), strict=True))
    stage.figures.add("calls from Pods", f"{calls}, none refused, {failed} without an answer within 10 s")
