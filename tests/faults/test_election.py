"""Several replicas, real processes: whoever dies, stops, hangs or is cut off, one is at work, and never two.

Each story has a namespace, a Lease and replicas of its own, with the rights of deploy/namespaced.yaml. Most of each is
waiting, since a Lease takes 15 s to end. So they are told at once, and each test looks at one.
"""

import json
import logging
import re
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml

from tests.api.conftest import StartOperator
from tests.support.acts import force, leave_lease
from tests.support.auditor import Auditor
from tests.support.cluster import Cluster
from tests.support.objects import Json, Objects, new_namespace
from tests.support.operator import LEADS, OperatorProcess
from tests.support.other_version import OTHER_AGENT, OTHER_NOTE, OTHER_VERSION, other_version
from tests.support.proxy import ApiProxy
from tests.support.proxy import Fault as ApiFault
from tests.support.sandbox import Fault, SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import eventually, wait_until

ROOT = Path(__file__).parents[2]
NAME = "tuinly-operator"
EXCHANGE = "client_credentials"
REFRESH = "refresh_token"

TAKEOVER = 60.0
"""Seconds to wait for another to lead; it takes 17 at most, and the machine may be busy."""
LEADS_NO_MORE, REFRESHED = "this replica leads no more", "refreshed"
GAP = 3.0
"""Seconds for which a target may hold a token that its successor's issue has revoked: one write, on a busy machine."""
FAILOVER_GAP = 20.0 + 2 * GAP
"""The same, if whoever was to write that successor leads no more: a takeover, an exchange and a write."""
DUE_SOON = 40
"""Lifetime in seconds of a token that is due after 18 to 20: while nobody leads, or soon after."""
STRICT: Mapping[str, Any] = {"rotates_refresh_tokens": True, "revokes_previous_on": (EXCHANGE, REFRESH)}
"""A server at which two that refresh at once would not go unnoticed."""
FORCED_INTERVAL = 10.0
"""Seconds from one forced exchange of a credential to the next."""

_log = logging.getLogger(__name__)


@dataclass
class Stage:
    """A namespace with replicas of one operator, and the teams that they serve.

    Attributes:
        lost: How many tokens were issued to one that led no more when it was to write them.
        gap_bound: For how many seconds a target may hold a token that its successor's issue has revoked.
    """

    cluster: Cluster
    sandbox: SandboxProcess
    make_operator: StartOperator
    directory: Path
    namespace: str = ""
    replicas: list[OperatorProcess] = field(default_factory=list)
    teams: list[Tenant] = field(default_factory=list)
    lost: int = 0
    gap_bound: float = GAP
    _parts: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        """Make the namespace, the rights, the login, and the Lease as it is after a leader's end."""
        self.namespace = self._parts.enter_context(new_namespace(self.cluster))
        text = (ROOT / "deploy" / "namespaced.yaml").read_text()
        objects = yaml.safe_load_all(re.sub(r"\b(tuinly-system|shop)\b", self.namespace, text))
        rights = [each for each in objects if each["kind"] in {"ServiceAccount", "Role", "RoleBinding"}]
        self.cluster.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(rights))
        leave_lease(self.cluster, self.namespace, NAME)
        self.login = self.cluster.kubeconfig_for(self.namespace, NAME)
        self.auditor = self._parts.enter_context(Auditor(self.cluster.kubeconfig, self.sandbox.admin, [self.namespace]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End all, and show what the replicas logged if something went wrong."""
        if error is not None:
            for number, replica in enumerate(self.replicas):
                error.add_note(f"replica {number} ({replica.pid}):\n{replica.last_lines()}")
        self._parts.close()

    def start(self, *flags: str, kubeconfig: Path | None = None, package: Path | None = None) -> OperatorProcess:
        """Start one more replica, of this version or of another, and wait until it is ready."""
        scope = ("--namespace", self.namespace, "--lease", f"{self.namespace}/{NAME}")
        operator = self.make_operator(*scope, *flags, kubeconfig=kubeconfig or self.login, package=package)
        self.replicas.append(self._parts.enter_context(operator))
        return operator.wait_ready()

    def two(self, *flags: str, kubeconfig: Path | None = None) -> tuple[OperatorProcess, OperatorProcess]:
        """Start the leader, which may have flags and a way to log in of its own, and a standby."""
        leader = self.start(*flags, kubeconfig=kubeconfig)
        self.await_leader(leader)
        return leader, self.start()

    def proxy(self) -> ApiProxy:
        """Return a running proxy before the API server."""
        proxy = ApiProxy(self.cluster.server, self.cluster.ca_file, self.directory)
        return self._parts.enter_context(proxy)

    def team(self, name: str, **ways: Any) -> Tenant:  # noqa: ANN401 - those of Client
        """Start a credential and wait until it is ready, and that is told."""
        team = Tenant(Objects(self.cluster, self.namespace), self.sandbox.admin, name).start(**ways)
        team.await_ready()
        team.await_event("Issued")
        self.teams.append(team)
        return team

    def await_leader(self, *among: OperatorProcess) -> OperatorProcess:
        """Wait until one of these leads, has done all there is to do, and the Lease says so; return it."""

        def check() -> OperatorProcess:
            leaders = [replica for replica in among if replica.metric("tuinly_leader") == 1]
            assert len(leaders) == 1
            [leader] = leaders
            assert self.lease()["spec"].get("holderIdentity") == identity(leader)
            assert leader.metric("tuinly_queue_depth") == 0
            return leader

        return eventually(check, seconds=TAKEOVER)

    def lease(self) -> Json:
        """Return the Lease."""
        lease: Json = json.loads(self.cluster.kubectl("get", "lease", NAME, "-n", self.namespace, "-o", "json"))
        return lease

    def edit_lease(self, **spec: object) -> None:
        """Change the Lease by hand."""
        patch = json.dumps({"spec": spec})
        self.cluster.kubectl("patch", "lease", NAME, "-n", self.namespace, "--type=merge", f"--patch={patch}")

    def delete_lease(self) -> None:
        """Delete the Lease by hand."""
        self.cluster.kubectl("delete", "lease", NAME, "-n", self.namespace)

    def world(self) -> object:
        """Return all that a leader changes: the objects with versions and managers, and the ledger."""
        return [
            (team.credential(), team.find_target() and team.target().raw, team.requests(), team.events())
            for team in self.teams
        ]

    def assert_good(self) -> None:
        """Nothing was ever expired or absent, nor bad for longer than the bound, which is no looser than it must be."""
        verdict = self.auditor.verdict(self.gap_bound)
        assert verdict.is_good, verdict
        assert (verdict.longest_gap > GAP) == (self.gap_bound > GAP), verdict
        for team in self.teams:
            assert {request.outcome for request in team.requests()} == {"issued"}

    def assert_one_at_a_time(self) -> None:
        """Only the last one that was promoted ever refreshed, and no token request was in vain but for the lost."""
        told = [
            (line["ts"], number, line["msg"])
            for number, replica in enumerate(self.replicas)
            for line in replica.logs()
            if line["msg"] in {LEADS, REFRESHED}
        ]
        leader = None
        for _, number, message in sorted(told, key=lambda each: each[0]):
            leader = number if message == LEADS else leader
            assert number == leader
        refreshed = sum(message == REFRESHED for _, _, message in told)
        assert sum(len(team.requests()) for team in self.teams) == refreshed + self.lost


def identity(replica: OperatorProcess) -> str:
    """Return the name by which a replica that has led holds the Lease."""
    return str(replica.wait_for_log(lambda line: line["msg"] == LEADS)["identity"])


def times_promoted(replica: OperatorProcess) -> int:
    return sum(line["msg"] == LEADS for line in replica.logs())


# --- The stories ------------------------------------------------------------------------------------------------------


def killed(stage: Stage) -> None:
    """One of the others takes over, which costs nothing; what is asked for meanwhile is done then, once."""
    leader, *others = stage.start(), stage.start(), stage.start()
    leader = stage.await_leader(leader, *others)
    others = [replica for replica in stage.replicas if replica is not leader]
    fresh, asking = stage.team("fresh", **STRICT), stage.team("asking", **STRICT)
    assert [replica.metric("tuinly_leader") for replica in others] == [0, 0]
    for replica in others:
        wait_until(lambda: replica.metric("tuinly_credentials") == 2, what="a standby that knows both")  # noqa: B023 - called here
    before = stage.lease()["spec"]["leaseTransitions"], fresh.credential(), fresh.target().raw, fresh.events()
    leader.kill()
    at = time.monotonic()
    force(asking, "now")
    stage.await_leader(*others)
    _log.info("killed: another leads and is done %.1f s later", time.monotonic() - at)
    asking.await_requests(2)
    assert stage.lease()["spec"]["leaseTransitions"] == before[0] + 1
    assert sorted(replica.metric("tuinly_leader") or 0 for replica in others) == [0, 1]
    assert asking.grants() == [EXCHANGE] * 2
    assert fresh.grants() == [EXCHANGE]
    assert (fresh.credential(), fresh.target().raw, fresh.events()) == before[1:]


def killed_at_work(stage: Stage) -> None:
    """Killed after the server has revoked the old token, before the answer is there or the new one is written."""
    proxy = stage.proxy()
    leader, standby = stage.two(kubeconfig=proxy.kubeconfig(stage.login))
    fresh, answered, unanswered = (stage.team(name, **STRICT) for name in ("fresh", "answered", "unanswered"))
    before = fresh.credential(), fresh.target().raw
    path = f"/secrets/{answered.target_name}"
    proxy.fault(ApiFault(path=path, method="PATCH", swallowed=True))
    force(answered, "now")
    wait_until(lambda: proxy.count(path, "PATCH") > 1, what="a write on its way")
    stage.sandbox.admin.fault(Fault(kind="slow", client=unanswered.client.id, count=1))
    force(unanswered, "now")
    unanswered.await_requests(2)
    leader.kill()
    stage.lost, stage.gap_bound = 2, FAILOVER_GAP
    at = time.monotonic()
    stage.await_leader(standby)
    _log.info("killed at work: another leads and is done %.1f s later", time.monotonic() - at)
    for team in (answered, unanswered):
        await_published(team, 3)
        assert team.grants() == [EXCHANGE] * 3
    assert (fresh.credential(), fresh.target().raw) == before


def rolled_out(stage: Stage) -> None:
    """New replicas come before those of another version go, while tokens are refreshed all the time."""
    package = other_version(stage.directory / "package")
    old, new = [stage.start(package=package), stage.start(package=package)], []
    assert stage.await_leader(*old).metric("tuinly_build_info", version=OTHER_VERSION) == 1
    busy, fresh = stage.team("busy", lifetime=20, **STRICT), stage.team("fresh", **STRICT)
    transitions = stage.lease()["spec"]["leaseTransitions"]
    before, said = fresh.target(), fresh.condition("Ready")
    assert OTHER_NOTE in before.notes
    for replica in old:
        new.append(stage.start())
        count = len(busy.requests())
        at = time.monotonic()
        assert replica.terminate() == 0
        stage.await_leader(*(each for each in stage.replicas if not each.ended))
        _log.info("SIGTERM: another leads and is done %.1f s later", time.monotonic() - at)
        busy.await_requests(count + 1)
    assert stage.await_leader(*new) in new
    # Of the first two the leader was the first to go; its successor may be the other, or already a new one.
    transitions = stage.lease()["spec"]["leaseTransitions"] - transitions
    assert transitions == sum(map(times_promoted, stage.replicas)) - 1 <= 2
    wait_until(lambda: OTHER_NOTE not in busy.target().notes, what="a target as the new version writes it")
    wait_until(lambda: fresh.condition("Ready") != said, what="a status in the new version's words")
    assert fresh.target().raw == before.raw
    assert fresh.grants() == [EXCHANGE]
    agents = [request.headers["user-agent"] for request in busy.requests()]
    assert [agent for agent, _ in groupby(agents)] == [OTHER_AGENT, "tuinly-operator"]
    busy.register(lifetime=3600)
    assert new[0].terminate() == new[1].terminate() == 0
    assert stage.lease()["spec"].get("holderIdentity") is None


def stopped(stage: Stage) -> None:
    """A leader that sleeps past its Lease wakes with a refresh due and an answer to take: it does neither."""
    leader, standby = stage.two("--request-timeout", "1m")  # so that it still waits for the answer when it wakes
    stage.team("fresh", **STRICT)
    due = stage.team("due", lifetime=DUE_SOON, **STRICT)
    asking = Tenant(Objects(stage.cluster, stage.namespace), stage.sandbox.admin, "asking")
    stage.sandbox.admin.fault(Fault(kind="slow", seconds=2, client=asking.client.id, count=1))
    asking.start()
    asking.await_requests(1)
    leader.send(signal.SIGSTOP)
    stage.lost = 1
    at = time.monotonic()
    due.register(lifetime=3600)
    stage.await_leader(standby)
    _log.info("SIGSTOP: another leads and is done %.1f s later", time.monotonic() - at)
    stage.teams.append(asking)
    for team in (due, asking):
        team.await_requests(2)
        team.await_ready()
    asking.await_event("Issued")  # which follows the status
    before = stage.world()
    leader.send(signal.SIGCONT)
    leader.wait_for_log(lambda line: line["msg"].startswith(LEADS_NO_MORE))
    await_seen(stage, leader)
    assert stage.world() == before
    assert [team.grants() for team in (due, asking)] == [[EXCHANGE] * 2] * 2
    hand_back(stage, standby, leader, before)


def cut_off(stage: Stage) -> None:
    """A leader that reaches the endpoint, but not the API server, asks for nothing: it could not publish it."""
    proxy = stage.proxy()
    leader, standby = stage.two(kubeconfig=proxy.kubeconfig(stage.login))
    stage.team("fresh", **STRICT)
    due = stage.team("due", lifetime=DUE_SOON, **STRICT)
    proxy.swallow()
    at = time.monotonic()
    due.register(lifetime=3600)
    stage.await_leader(standby)
    _log.info("cut off: another leads and is done %.1f s later", time.monotonic() - at)
    await_published(due, 2)
    let_back(stage, proxy, leader, standby)
    assert due.grants() == [EXCHANGE] * 2


def cut_off_at_work(stage: Stage) -> None:
    """An exchange is due right after the leader was cut off, while it leads: it gets a token that it cannot write."""
    proxy = stage.proxy()
    leader, standby = stage.two(kubeconfig=proxy.kubeconfig(stage.login))
    stage.team("fresh", **STRICT)
    due = stage.team("due", **STRICT)
    force(due, "now")
    again_at = due.await_requests(2)[-1].received_monotonic + FORCED_INTERVAL
    await_published(due, 2)
    force(due, "again")
    # Early enough for that exchange to come after it, too late for the leader to find out before.
    wait_until(lambda: time.monotonic() > again_at - 3, what="nearly the time of the next exchange")
    proxy.swallow()
    at = time.monotonic()
    due.await_requests(3)
    stage.lost, stage.gap_bound = 1, FAILOVER_GAP
    stage.await_leader(standby)
    _log.info("cut off at work: another leads and is done %.1f s later", time.monotonic() - at)
    await_published(due, 4)
    let_back(stage, proxy, leader, standby)
    assert due.grants() == [EXCHANGE] * 4


def let_back(stage: Stage, proxy: ApiProxy, former: OperatorProcess, leader: OperatorProcess) -> None:
    """Let one that was cut off see again: it has nothing to do, neither then nor when it leads again."""
    assert former.metric("tuinly_leader") == 0
    before = stage.world()
    proxy.cut()
    proxy.pass_on()
    await_seen(stage, former)
    assert stage.world() == before
    hand_back(stage, leader, former, before)


def await_published(team: Tenant, number: int) -> None:
    """Wait until the target holds the token of this request, which is the last one, and the status tells of it."""
    team.await_requests(number)

    def check() -> bool:
        target = team.target()
        held = target.token == team.tokens()[-1].value
        return held and team.status()["tokenExpirationTime"] == target.notes["expires-at"]

    wait_until(check, what=f"the last token of {team.name} published and told of")


def await_seen(stage: Stage, replica: OperatorProcess) -> None:
    """Wait until a replica's watch is up to date: it knows a credential that has just been made."""
    known = replica.metric("tuinly_credentials") or 0
    witness = Tenant(Objects(stage.cluster, stage.namespace), stage.sandbox.admin, f"witness-{replica.pid}")
    witness.apply()
    wait_until(lambda: (replica.metric("tuinly_credentials") or 0) > known, what="it sees what is new")


def hand_back(stage: Stage, leader: OperatorProcess, former: OperatorProcess, before: object) -> None:
    """Who led before leads again: it takes up what the other has left, and that is all there is to do."""
    assert (leader.metric("tuinly_leader"), former.metric("tuinly_leader")) == (1, 0)
    assert leader.terminate() == 0
    stage.await_leader(former)
    assert stage.world() == before


def taken_away(stage: Stage) -> None:
    """Somebody deletes the Lease, empties it, then names another holder: for a while nobody leads, but never two do."""
    leader, standby = stage.two()
    fresh, asking = stage.team("fresh", **STRICT), stage.team("asking", **STRICT)
    lease = stage.lease()["metadata"]["uid"]
    stage.delete_lease()
    eventually(lambda: assert_other(stage, lease), seconds=TAKEOVER)
    assert stage.await_leader(leader, standby) is leader
    stage.edit_lease(holderIdentity=None)
    assert stage.await_leader(leader, standby) is leader
    assert times_promoted(leader) == 1
    before = fresh.credential(), fresh.target().raw
    stage.edit_lease(holderIdentity="somebody")
    at = time.monotonic()
    leader.wait_for_log(lambda line: line["msg"].startswith(LEADS_NO_MORE))
    force(asking, "now")
    assert (leader.metric("tuinly_leader"), standby.metric("tuinly_leader")) == (0, 0)
    assert len(asking.requests()) == 1
    stage.await_leader(leader, standby)
    _log.info("taken away: one leads and is done %.1f s later", time.monotonic() - at)
    asking.await_requests(2)
    assert (fresh.credential(), fresh.target().raw) == before


def newcomer(stage: Stage) -> None:
    """Somebody deletes the Lease of one that cannot renew it: a replica that starts then cannot know that one leads."""
    proxy = stage.proxy()
    leader, _ = stage.two(kubeconfig=proxy.kubeconfig(stage.login))
    fresh, asking = stage.team("fresh", **STRICT), stage.team("asking", **STRICT)
    before = fresh.credential(), fresh.target().raw
    proxy.fault(ApiFault(path="/leases", swallowed=True))
    stage.delete_lease()
    at = time.monotonic()
    others = stage.replicas[1], stage.start()
    ended = leader.wait_for_log(lambda line: line["msg"].startswith(LEADS_NO_MORE))
    force(asking, "now")
    successor = stage.await_leader(*others)
    _log.info("deleted: another leads and is done %.1f s later", time.monotonic() - at)
    assert successor.wait_for_log(lambda line: line["msg"] == LEADS)["ts"] > ended["ts"]
    asking.await_requests(2)
    assert (fresh.credential(), fresh.target().raw) == before


def assert_other(stage: Stage, uid: str) -> None:
    lease = stage.cluster.kubectl("get", "lease", NAME, "-n", stage.namespace, "-o", "json", check=False)
    assert lease, "there is no Lease"
    assert json.loads(lease)["metadata"]["uid"] != uid


STORIES: Mapping[str, Callable[[Stage], None]] = {
    each.__name__: each
    for each in (killed, killed_at_work, rolled_out, stopped, cut_off, cut_off_at_work, taken_away, newcomer)
}


@pytest.fixture(scope="module")
def told(
    cluster: Cluster, sandbox: SandboxProcess, make_operator: StartOperator, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, "Future[None]"]:
    """Tell all stories at once, and return how each went."""

    def tell(name: str) -> None:
        with Stage(cluster, sandbox, make_operator, tmp_path_factory.mktemp(name)) as stage:
            STORIES[name](stage)
            stage.assert_one_at_a_time()
            stage.assert_good()

    with ThreadPoolExecutor(len(STORIES)) as threads:
        futures = {name: threads.submit(tell, name) for name in STORIES}
        wait(futures.values())
    return futures


@pytest.mark.rule("REPL-1", "REPL-4", "REPL-10", "REPL-15", "REPL-16", "REPL-17", "REPL-19")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", STORIES)
def test_one_is_at_work_and_never_two(told: Mapping[str, "Future[None]"], name: str) -> None:
    told[name].result()


@pytest.mark.rule("REPL-1")
def test_replicas_with_the_rights_of_the_installation(
    tenant: Tenant, make_operator: StartOperator, auditor: Auditor
) -> None:
    """For all namespaces, with the one Lease to which deploy/install.yaml gives them a right."""
    leave_lease(tenant.objects.cluster, "tuinly-system", NAME)
    flags = ("--lease", f"tuinly-system/{NAME}")
    with make_operator(*flags) as first, make_operator(*flags) as second:
        both = (first.wait_ready(), second.wait_ready())
        wait_until(lambda: sum(each.metric("tuinly_leader") or 0 for each in both) == 1, what="one leads")
        before = tenant.start().await_ready()
        leader, standby = both if first.metric("tuinly_leader") else reversed(both)
        assert leader.terminate() == 0
        wait_until(lambda: standby.metric("tuinly_leader") == 1, what="the other leads")
        wait_until(lambda: standby.metric("tuinly_queue_depth") == 0, what="it has looked at all")
        assert tenant.target().raw == before.raw
        assert tenant.grants() == [EXCHANGE]
    assert (verdict := auditor.verdict()).is_good, verdict
