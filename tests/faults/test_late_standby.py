"""A standby that leads while what it knows of the credentials is old: real processes, a dead connection or a pause."""

import signal
from pathlib import Path

import pytest

from tests.api.conftest import StartOperator
from tests.faults.test_election import EXCHANGE, Stage
from tests.support.cluster import Cluster
from tests.support.objects import Json
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import eventually, wait_until

EACH = 12
"""How many credentials are made again, and how many get another target."""


@pytest.mark.rule("OWN-16", "REPL-13")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("paused", [True, False], ids=["paused", "connections dead"])
def test_a_late_standby_that_takes_over_spoils_no_target(
    cluster: Cluster, sandbox: SandboxProcess, make_operator: StartOperator, tmp_path: Path, *, paused: bool
) -> None:
    """It makes no token request either, and writes nothing."""
    with Stage(cluster, sandbox, make_operator, tmp_path) as stage:
        proxy = stage.proxy()
        leader = stage.start()
        stage.await_leader(leader)
        standby = stage.start(kubeconfig=proxy.kubeconfig(stage.login))
        made_again, renamed = ([stage.team(f"{what}-{n}") for n in range(EACH)] for what in ("again", "renamed"))
        wait_until(lambda: standby.metric("tuinly_credentials") == 2 * EACH, what="a standby that knows all")
        if paused:
            standby.send(signal.SIGSTOP)
        else:
            proxy.swallow()
            proxy.pass_on()  # new requests alone
        for team in made_again:
            make_again(team)
        for team in renamed:
            team.target_name = f"{team.name}-moved"
            team.apply({"target": {"name": team.target_name}})
        for team in (*made_again, *renamed):
            eventually(lambda: assert_served(team))  # noqa: B023 - called here
        before = look(stage)
        requests = [len(team.requests()) for team in stage.teams]
        assert leader.terminate() == 0
        if paused:
            standby.send(signal.SIGCONT)
        stage.await_leader(standby)
        assert look(stage) == before
        assert [len(team.requests()) for team in stage.teams] == requests
        assert {grant for team in stage.teams for grant in team.grants()} == {EXCHANGE}


def make_again(team: Tenant) -> None:
    """Delete a credential, and make it again under its name."""
    team.delete()
    team.apply()


def assert_served(team: Tenant) -> None:
    """Its target belongs to the present credential, the status tells of that, and no other target is left."""
    credential, target = team.credential(), team.target()
    assert target.notes["credential-uid"] == credential["metadata"]["uid"]
    ready = team.condition("Ready")
    assert ready is not None
    assert ready.verdict == ("True", "Issued")
    assert [name for name in targets(team) if name.startswith(f"{team.name}-")] == [team.target_name]


def targets(team: Tenant) -> list[str]:
    """Return the names of all targets in the namespace."""
    labelled = [raw["metadata"] for raw in team.objects.all("Secret")]
    return [meta["name"] for meta in labelled if "tuinly.com/credential" in (meta.get("labels") or {})]


def look(stage: Stage) -> list[tuple[Json, Json | None, list[str]]]:
    """Return the credentials and targets as they are."""
    return [(team.credential(), team.objects.find("Secret", team.target_name), targets(team)) for team in stage.teams]
