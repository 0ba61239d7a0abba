"""Shards: operators that share a cluster by label or by namespace, deployed as docs/scaling.md says."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from tests.api.conftest import StartOperator
from tests.support.acts import force, leave_lease
from tests.support.auditor import Auditor
from tests.support.cluster import Cluster
from tests.support.deployment import variables
from tests.support.manifests import IMAGE
from tests.support.objects import Json, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import wait_until
from tuinly_operator.base.settings import parse_settings

ROOT = Path(__file__).parents[2]
KUSTOMIZATION = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), flags=re.DOTALL)
EXCHANGE = "client_credentials"
REFRESH = "refresh_token"


def objects_of(cluster: Cluster, directory: Path, name: str) -> list[Json]:
    """Make a shard's objects from the documented kustomization."""
    [text] = KUSTOMIZATION
    (directory / "install.yaml").write_text((ROOT / "deploy" / "install.yaml").read_text())
    (directory / "kustomization.yaml").write_text(re.sub(r"(?<=[-= ])a\b", name, text))
    return list(yaml.safe_load_all(cluster.kubectl("kustomize", str(directory))))


@pytest.fixture(scope="module")
def shards(
    cluster: Cluster,
    installed: None,  # noqa: ARG001 - what is installed is the namespace
    make_operator: StartOperator,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, OperatorProcess]]:
    """Return two operators by the names of their shards: each with an account, a Lease and a selector of its own."""
    with ExitStack() as parts:
        running = {}
        for name in ("a", "b"):
            objects = objects_of(cluster, tmp_path_factory.mktemp(name), name)
            parts.enter_context(applied_rights(cluster, objects))
            [deployment] = [each for each in objects if each["kind"] == "Deployment"]
            pod = deployment["spec"]["template"]["spec"]
            assert pod["containers"][0]["image"] == IMAGE
            settings = parse_settings(["run"], variables(deployment))
            assert settings.lease is not None
            leave_lease(cluster, *settings.lease)
            flags = ("--selector", settings.selector, "--lease", "/".join(settings.lease))
            login = cluster.kubeconfig_for("tuinly-system", pod["serviceAccountName"])
            running[name] = parts.enter_context(make_operator(*flags, kubeconfig=login))
        for operator in running.values():
            operator.wait_ready()
        # The Lease of an earlier run on this cluster may have to end first.
        wait_until(lambda: all(each.metric("tuinly_leader") == 1 for each in running.values()), what="both lead")
        yield running


@contextmanager
def applied_rights(cluster: Cluster, objects: Sequence[Json]) -> Iterator[None]:
    """Apply the account and its rights; the rest, which would start Pods where there are nodes, on trial only."""
    apply = ("apply", "--server-side", "--warnings-as-errors", "-f", "-")
    cluster.kubectl(*apply, "--dry-run=server", input=yaml.safe_dump_all(objects))
    rights = yaml.safe_dump_all([each for each in objects if re.search("Role|Account", each["kind"])])
    cluster.kubectl(*apply, input=rights)
    yield
    cluster.kubectl("delete", "-f", "-", input=rights)


def label(tenant: Tenant, shard: str | None) -> None:
    tenant.objects.merge("TuinlyCredential", tenant.name, {"metadata": {"labels": {"shard": shard}}})


def knows(operator: OperatorProcess, tenant: Tenant) -> bool:
    of = {"namespace": tenant.objects.namespace, "credential": tenant.name}
    return operator.metric("tuinly_credential_ready", **of) is not None


def refreshes(operator: OperatorProcess, tenant: Tenant) -> int:
    """Return how many tokens an operator has published for a credential."""
    return sum(line["msg"] == "refreshed" and line["credential"] == tenant.key for line in operator.logs())


@pytest.mark.rule("REPL-18")
def test_each_shard_serves_its_own(tenant: Tenant, shards: Mapping[str, OperatorProcess]) -> None:
    teams = {name: Tenant(tenant.objects, tenant.sandbox, f"of-{name}") for name in (*shards, "nobody")}
    for name, team in teams.items():
        team.start()
        if name in shards:
            label(team, name)
    for name in shards:
        teams[name].await_ready()
    for name, operator in shards.items():
        assert {each: refreshes(operator, team) for each, team in teams.items()} == {
            each: int(each == name) for each in teams
        }
        assert {each: knows(operator, team) for each, team in teams.items()} == {each: each == name for each in teams}
    assert [team.grants() for team in teams.values()] == [[EXCHANGE], [EXCHANGE], []]
    assert teams["nobody"].status() == {}


@pytest.mark.rule("REPL-18")
def test_a_credential_with_a_fresh_token_moves_for_nothing(
    tenant: Tenant, shards: Mapping[str, OperatorProcess], auditor: Auditor
) -> None:
    """Its target stays as it is; what is asked for afterwards is done by the one that has it now."""
    tenant.start()
    label(tenant, "a")
    before, status = tenant.await_ready(), tenant.status()
    label(tenant, "b")
    wait_until(lambda: knows(shards["b"], tenant) and not knows(shards["a"], tenant), what="it has moved")
    wait_until(lambda: shards["b"].metric("tuinly_queue_depth") == 0, what="b has looked at it")
    assert (tenant.target().raw, tenant.status()) == (before.raw, status)
    force(tenant, "now")
    tenant.await_token(other_than=before.token)
    tenant.await_ready()
    assert tenant.grants() == [EXCHANGE] * 2
    wait_until(lambda: [refreshes(each, tenant) for each in shards.values()] == [1, 1], what="one token of each")
    assert (verdict := auditor.verdict()).is_good, verdict


def test_a_credential_that_moves_is_refreshed_by_one_at_a_time(
    tenant: Tenant, shards: Mapping[str, OperatorProcess], auditor: Auditor
) -> None:
    """There and back, while tokens live for seconds; the refresh token stays behind each time."""
    tenant.start(lifetime=8)
    label(tenant, "a")
    done = dict.fromkeys(shards, 0)
    for name in ("a", "b", "a"):
        label(tenant, name)
        start = done[name]
        wait_until(lambda: refreshes(shards[name], tenant) >= start + 2, what="two refreshes")  # noqa: B023 - called here
        done = {each: refreshes(operator, tenant) for each, operator in shards.items()}
    label(tenant, None)
    wait_until(lambda: not any(knows(operator, tenant) for operator in shards.values()), what="it is nobody's")
    assert {request.outcome for request in tenant.requests()} == {"issued"}
    assert len(tenant.requests()) == sum(refreshes(operator, tenant) for operator in shards.values())
    assert tenant.grants().count(EXCHANGE) == 3
    assert (verdict := auditor.verdict()).is_good, verdict


def test_a_namespace_is_a_shard_too(
    cluster: Cluster, sandbox: SandboxProcess, tenant: Tenant, make_operator: StartOperator
) -> None:
    """With the rights of deploy/namespaced.yaml, which end at the namespace, and its Lease."""
    with new_namespace(cluster) as home, new_namespace(cluster) as elsewhere:
        text = (ROOT / "deploy" / "namespaced.yaml").read_text()
        text = text.replace("shop", tenant.objects.namespace).replace("tuinly-system", home)
        rights = [
            each for each in yaml.safe_load_all(text) if each["kind"] in {"ServiceAccount", "Role", "RoleBinding"}
        ]
        cluster.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(rights))
        login = cluster.kubeconfig_for(home, "tuinly-operator")
        leave_lease(cluster, home, "tuinly-operator")
        flags = ("--namespace", tenant.objects.namespace, "--lease", f"{home}/tuinly-operator")
        with make_operator(*flags, kubeconfig=login) as operator:
            stranger = Tenant(Objects(cluster, elsewhere), sandbox.admin).start()
            tenant.start().await_ready()
            assert knows(operator, tenant)
            assert not knows(operator, stranger)
    assert stranger.requests() == []
