"""Tokens in Pods, through all that happens to an operator on a node: no call is ever refused.

The tests are one story, told in this order, while the programs call: each begins with two replicas that are ready, and
leaves them so.
"""

import json
import os
import signal
import statistics
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import kinds
from tests.e2e.stage import LIFETIME, Stage
from tests.support.acts import force
from tests.support.canary import Canary, sightings
from tests.support.cluster import KubectlError
from tests.support.manifests import SHOP, SYSTEM
from tests.support.plugin import Plugin
from tests.support.tenant import Tenant, seconds_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(900)  # seconds, for hanging; the first test builds the image and starts the node

HOG = "import os; file = os.memfd_create('hog')\nwhile True: os.write(file, bytes(2**20))"
"""Fills the container's memory with pages of no process, so that the kernel ends the largest one: the operator."""
MEGABYTE = 1e6


@pytest.fixture(autouse=True)
def one_fault_per_lead(stage: Stage) -> Iterator[None]:
    """Let each test end only when all that was due is done, so that no token's lead sees the faults of two tests."""
    yield
    done = "nothing is due, and all is pushed"
    wait_until(lambda: stage.nothing_is_due() and stage.all_is_pushed(), what=done, seconds=120)


@pytest.fixture(scope="module")
def kind_tenants(stage: Stage) -> dict[str, Tenant]:
    """Return the credentials of the Pod with each usual way to get a Secret, which runs from now on."""
    return stage.start_kinds()


def ways(stage: Stage) -> dict[str, list[kinds.Seen]]:
    """Return what each way has shown so far."""
    seen = kinds.seen(stage.node)
    return {way: [each for each in seen if each.way == way] for way in {each.way for each in seen}}


@pytest.mark.rule("SEC-15")
def test_each_way_shows_the_first_token(stage: Stage, kind_tenants: dict[str, Tenant]) -> None:
    """In the init container, too; the optional one is empty while there is no Secret, and a Pod without it waits."""
    expires_at = expiry(kind_tenants[kinds.NAME])
    shown = wait_until(lambda: len(found := ways(stage)) > len(kinds.WAYS) + 1 and found, what="the Pod", seconds=60)
    assert shown
    first = {way: seen[0].expires_at for way, seen in shown.items() if way != "CronJob"}
    assert first == {
        **dict.fromkeys(("secret", "projected", "subPath", "env", "init container"), expires_at),
        "optional": None,
    }
    for tenant in kind_tenants.values():  # from here on there is a second token, and a late first one
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


@pytest.mark.rule("SEC-14", "SEC-17")
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


@pytest.mark.rule("SEC-14")
def test_a_leader_that_is_killed_is_followed(stage: Stage) -> None:
    leader, holder = stage.leader()
    begun = time.time()
    os.kill(stage.process(leader), signal.SIGKILL)
    stage.figures.add("a leader killed by SIGKILL: without one", f"{stage.leases.await_other(holder, begun):.1f} s")
    stage.await_two_ready()


@pytest.mark.rule("SEC-14")
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


@pytest.mark.rule("SEC-14")
def test_a_rolling_update_hands_over(stage: Stage) -> None:
    before = stage.pods().keys()
    begun = time.time()
    stage.node.kubectl("rollout", "restart", "deployment/tuinly-operator", "-n", SYSTEM)
    wait_until(lambda: not before & stage.pods().keys(), what="new Pods only", seconds=120)
    stage.await_two_ready()
    seconds = time.time() - begun
    stage.leader()
    stage.figures.add("a rollout", f"{seconds:.1f} s, of which {stage.leases.gap(begun):.2f} s without a leader")
    cpu = [usage_of(stage.process(pod)).cpu for pod in stage.pods()]
    stage.figures.add("a start", f"{min(cpu):.2f} to {max(cpu):.2f} s of CPU")


@pytest.mark.rule("SEC-14")
def test_the_chart_goes_and_plain_files_come(stage: Stage) -> None:
    """What the chart leaves, credentials and targets, is what the other installation goes on with."""
    before = {tenant.name: tenant.target().token for tenant in stage.tenants}
    for tenant in stage.tenants:  # so that none is due meanwhile: a removal is no fault that a lead has to bear
        force(tenant, "before the removal")
    for tenant in stage.tenants:
        tenant.await_token(other_than=before[tenant.name], seconds=60)
    begun = time.time()
    stage.uninstall_chart()
    stage.install_files()
    stage.leader()
    stage.figures.add(
        "the chart removed, and plain files applied: a leader again", f"{time.time() - begun:.1f} s later"
    )


@pytest.mark.rule("SEC-14")
def test_the_chart_takes_the_installation_over(stage: Stage) -> None:
    """As an upgrade: one rollout. Its own test passes."""
    before = stage.pods().keys()
    begun = time.time()
    stage.install_chart("--take-ownership", "--force-conflicts")
    wait_until(lambda: not before & stage.pods().keys(), what="new Pods only", seconds=120)
    stage.await_two_ready()
    stage.leader()
    seconds = time.time() - begun
    gap = stage.leases.gap(begun)
    stage.figures.add("the chart in place of the files", f"{seconds:.1f} s, of which {gap:.2f} s without a leader")
    stage.test_chart()


@pytest.mark.rule("SEC-14")
def test_the_api_server_may_restart(stage: Stage) -> None:
    begun = time.time()
    stage.node.restart("kube-apiserver")
    wait_until(lambda: stage.node.kubectl("get", "--raw=/readyz", check=False) == "ok", what="it", seconds=60)
    stage.figures.add("the API server restarted", f"{time.time() - begun:.1f} s without it")
    stage.await_two_ready()
    stage.leader()


@pytest.mark.rule("SEC-14")
def test_a_leader_that_runs_out_of_memory_is_followed(stage: Stage) -> None:
    leader, holder = stage.leader()
    begun = time.time()
    stage.node.kubectl("exec", leader, "-n", SYSTEM, "--", "python3", "-c", HOG, check=False)
    stage.figures.add("a leader killed for its memory: without one", f"{stage.leases.await_other(holder, begun):.1f} s")
    stage.await_two_ready()
    terminated = stage.get("pod", leader)["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert terminated["reason"] == "OOMKilled"


@pytest.mark.rule("SEC-15")
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
    assert [way for way in ("subPath", "env", "init container") if len(shown[way]) > 1] == []


@pytest.mark.rule("SEC-14", "SEC-15")
def test_the_kubelet_may_restart(stage: Stage) -> None:
    """No container is started again."""
    pods = {name: pod["status"]["containerStatuses"][0]["restartCount"] for name, pod in stage.pods().items()}
    stage.node.restart("kubelet")
    wait_until(lambda: stage.node.healthy("http://127.0.0.1:10248/healthz"), what="the kubelet", seconds=60)
    stage.await_two_ready()
    after = {name: pod["status"]["containerStatuses"][0]["restartCount"] for name, pod in stage.pods().items()}
    assert after == pods


@pytest.mark.rule("SEC-14")
def test_a_rotated_client_secret_is_followed(stage: Stage) -> None:
    """By a token in each target at once."""
    before = {tenant.name: tenant.target().token for tenant in stage.tenants}
    for tenant in stage.tenants:
        tenant.rotate_secret()
        tenant.apply_client_secret()
    for tenant in stage.tenants:
        tenant.await_token(other_than=before[tenant.name], seconds=60)


@pytest.mark.rule("SEC-14", "SEC-17")
def test_a_leader_that_hangs_is_followed_and_started_again(stage: Stage) -> None:
    """By the other one when its Lease has run out, and by the kubelet when its probe has failed for long enough."""
    leader, holder = stage.leader()
    begun = time.time()
    os.kill(stage.process(leader), signal.SIGSTOP)
    stage.figures.add("a leader that hangs: without one", f"{stage.leases.await_other(holder, begun):.1f} s")

    def ended() -> dict[str, str] | None:
        [container] = stage.get("pod", leader)["status"]["containerStatuses"]
        found: dict[str, str] | None = container["lastState"].get("terminated")
        return found if found and seconds_of(found["finishedAt"]) > begun else None

    assert wait_until(ended, what="its end by the kubelet", seconds=180) is not None
    stage.figures.add("it is started again by its probe", f"{time.time() - begun:.0f} s later")
    stage.await_two_ready()


@pytest.mark.rule("SEC-14")
def test_the_tokens_of_the_rotated_clients_reach_the_pods(stage: Stage) -> None:
    """By the kubelet's own means: the file changes while the program runs."""
    wanted = {tenant.name: expiry(tenant) for tenant in stage.plain}

    def arrived() -> bool:
        told = stage.told()
        return all(told[name].tokens[-1][1] >= expires_at for name, expires_at in wanted.items())

    wait_until(arrived, what="the token of its target in each Pod", seconds=LIFETIME)
    late = delays(stage, stage.plain)
    median = statistics.median(late)
    stage.figures.add(
        "a token issued: its file has changed",
        f"{median:.0f} s later at the median, {max(late):.0f} s at the most, of {len(late)}",
    )


def delays(stage: Stage, tenants: list[Tenant]) -> list[float]:
    """Return how many seconds after its issue each token but the first was seen in its file, by the program there."""
    told = stage.told()
    return [
        at - min(tenant.tokens(), key=lambda token: abs(token.expires_at - expires_at)).issued_at
        for tenant in tenants
        for at, expires_at in told[tenant.name].tokens[1:]
    ]


@pytest.mark.rule("SEC-16")
def test_pushed_tokens_did_not_wait_for_the_kubelet(stage: Stage) -> None:
    """Half of the tokens that it finds by itself are more than half a minute late."""
    late = delays(stage, stage.pushed)
    stage.figures.add(
        "a token issued and pushed: its file has changed",
        f"{statistics.median(late):.1f} s later at the median, {max(late):.1f} s at the most, of {len(late)}",
    )
    assert statistics.median(late) < 5
    for tenant in stage.pushed:
        delivered = tenant.condition("Delivered")
        assert delivered is not None
        assert delivered.verdict == ("True", "Pushed")


@pytest.mark.rule("SEC-17")
def test_what_it_uses_is_what_it_asks_for(stage: Stage) -> None:
    """Memory below the request, so that it is no victim of others' needs; CPU too, over all that its life brought."""
    used = wait_until(lambda: len(found := stage.working_sets()) == 2 and found, what="its memory", seconds=60)
    assert used
    pods = stage.pods()
    resources = next(iter(pods.values()))["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "100m", "memory": "128Mi"}
    assert max(used) < 128 * 2**20 / MEGABYTE
    told = " and ".join(f"{each:.0f} MB" for each in used)
    limit = resources["limits"]["memory"]
    stage.figures.add("working set", f"{told}, of {resources['requests']['memory']} requested and {limit} at most")
    shares = [usage.cpu / usage.age for usage in map(usage_of, map(stage.process, pods))]
    assert max(shares) < 0.1
    told = " and ".join(f"{1000 * share:.0f}m" for share in shares)
    stage.figures.add("CPU, the start included", f"{told}, of {resources['requests']['cpu']} requested")


@dataclass(frozen=True)
class Usage:
    """What a process has used of the CPU, and for how long it has run, in seconds."""

    cpu: float
    age: float


def usage_of(pid: int) -> Usage:
    """Return it, of user's and system's time (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, start = (int(fields[place]) / os.sysconf("SC_CLK_TCK") for place in (11, 12, 19))
    return Usage(user + system, time.clock_gettime(time.CLOCK_BOOTTIME) - start)


@pytest.mark.rule("SEC-17")
def test_events_tell_an_admin_what_happened_and_nothing_else(stage: Stage) -> None:
    """Kubernetes tells the faults, the operator that tokens were issued, and that a busy endpoint let it wait."""
    warnings = {event["reason"] for event in stage.events(SYSTEM, "Warning")}
    stage.figures.add("Warnings about the operator's Pods", ", ".join(sorted(warnings)))
    # A Pod that starts while the API server is away gets its volumes later.
    assert warnings <= {"Unhealthy", "BackOff", "FailedMount"}
    names = {tenant.name for tenant in stage.plain}  # the others have tokens that live too short for the kubelet
    told = {
        (event["type"], event["reason"])
        for event in stage.events(SHOP)
        if event["involvedObject"]["kind"] == "TuinlyCredential" and event["involvedObject"]["name"] in names
    }
    assert ("Normal", "Issued") in told
    assert told <= {("Normal", "Issued"), ("Warning", "EndpointUnavailable")}


@pytest.mark.rule("SEC-17")
def test_no_log_tells_a_token_or_a_failure_of_its_own(stage: Stage) -> None:
    tokens = [token.value for tenant in stage.tenants for token in tenant.tokens()]
    assert len(tokens) > len(stage.tenants)
    for pod in stage.pods():
        text = stage.node.kubectl("logs", pod, "-n", SYSTEM)
        errors = [line for line in map(json.loads, text.splitlines()) if line["level"] == "error"]
        # kopf's client calls each connection that the restarted API server refuses an error.
        assert [line for line in errors if not line["logger"].startswith("kopf.")] == []
        assert [token for token in tokens if token in text] == []


def test_the_plugin_finds_it_healthy_and_its_report_has_logs_without_a_secret(stage: Stage, tmp_path: Path) -> None:
    plugin, file = Plugin(stage.node), tmp_path / "report.zip"
    checked = plugin.run("check", "--wait")
    assert checked.status == 0, checked.out
    reported = plugin.run("report", "-f", str(file), "-n", SHOP, "--logs")
    assert reported.status == 0, reported.err
    with zipfile.ZipFile(file) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    logs = [text for name, text in texts.items() if name.endswith(".log")]
    assert len(logs) == len(stage.pods())
    assert any(tenant.key in text for tenant in stage.tenants for text in logs)
    secrets = [Canary("token", token.value) for tenant in stage.tenants for token in tenant.tokens()]
    secrets += [Canary("client secret", tenant.client.secret) for tenant in stage.tenants]
    assert sightings("\n".join([*texts.values(), reported.out, reported.err]), secrets) == []


@pytest.mark.rule("SEC-14", "SEC-16")
def test_no_call_was_refused(stage: Stage) -> None:
    """For its token, seen from inside the Pods, over all of the above; a call that a busy machine let wait is none."""
    told = stage.told()
    assert [each.refusals for each in told.values() if each.refusals] == []
    assert {name: each.refused for name, each in told.items() if each.refused} == {}
    assert min(len(each.tokens) for each in told.values()) > 2
    calls, failed = (sum(counts) for counts in zip(*((each.calls, each.failed) for each in told.values()), strict=True))
    stage.figures.add("calls from Pods", f"{calls}, none refused, {failed} without an answer within 10 s")
