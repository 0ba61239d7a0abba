"""What teams and others do to credentials and targets while no operator runs, and what it costs afterwards.

What happens to the token itself is in test_restart.py. All credentials live through one and the same restart.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from tests.api.conftest import StartOperator
from tests.support.acts import FORCE, edit, force, kept_credentials
from tests.support.cluster import Cluster
from tests.support.objects import Json, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Target, Tenant
from tests.support.waiting import eventually, wait_until

RETAIN: Json = {"target": {"deletionPolicy": "Retain"}}


def nothing(_: Tenant) -> None:
    pass


def delete(tenant: Tenant) -> None:
    """Delete the credential, and wait for that."""
    tenant.delete()
    wait_until(lambda: tenant.objects.find("TuinlyCredential", tenant.name) is None, what="the credential gone")


@dataclass(frozen=True)
class Change:
    """What the spec is before and after, what else is done, and how many exchanges follow from it."""

    exchanges: int
    after: Json | None = None
    before: Json = field(default_factory=dict)
    do: Callable[[Tenant], object] = nothing

    @property
    def spec(self) -> Json:
        """What the spec is in the end."""
        return self.before if self.after is None else self.after


def moved(name: str, **target: str) -> Json:
    return {"target": {"name": f"{name}-moved", **target}}


CHANGES: Mapping[str, Change] = {
    "nothing": Change(0),
    "retained": Change(0, before=RETAIN),
    "label": Change(1, do=lambda tenant: edit(tenant, {"metadata": {"labels": {"tuinly.com/credential": "x"}}})),
    "owner": Change(1, do=lambda tenant: edit(tenant, {"metadata": {"ownerReferences": None}})),
    "annotations": Change(1, do=lambda tenant: edit(tenant, {"metadata": {"annotations": None}})),
    "label-of-others": Change(0, do=lambda tenant: edit(tenant, {"metadata": {"labels": {"team": "shop"}}})),
    "template": Change(1, {"target": {"template": {"data": {"access_token": "<${access_token}>"}}}}),
    "template-metadata": Change(1, {"target": {"template": {"metadata": {"labels": {"a": "b"}}}}}),
    "retained-now": Change(1, RETAIN),
    "retained-no-more": Change(1, {}, before=RETAIN),
    "renamed": Change(1, moved("renamed")),
    "renamed-retained": Change(1, moved("renamed-retained", deletionPolicy="Retain"), before=RETAIN),
    "retained-and-made-again": Change(1, before=RETAIN, do=delete),
    "forced": Change(1, do=lambda tenant: force(tenant, "now")),
    "forced-before": Change(0, do=lambda tenant: force(tenant, None)),
    "suspended-and-damaged": Change(0, {"suspend": True}, do=lambda tenant: edit(tenant, {"data": None})),
}


@dataclass(frozen=True)
class Lives:
    """Tenants as the second operator left them, by name, and their targets before the change.

    `doomed` is a tenant in a namespace of its own, which nothing happened to.
    """

    tenants: Mapping[str, Tenant]
    before: Mapping[str, Target]
    doomed: Tenant
    operator: OperatorProcess

    def __getitem__(self, name: str) -> tuple[Tenant, Target]:
        return self.tenants[name], self.before[name]


@pytest.fixture(scope="module")
def lives(cluster: Cluster, sandbox: SandboxProcess, make_operator: StartOperator) -> Iterator[Lives]:
    """Return what became of credentials that lived through a restart."""
    with new_namespace(cluster) as namespace, new_namespace(cluster) as doomed_namespace:
        objects = Objects(cluster, namespace)
        tenants = {name: Tenant(objects, sandbox.admin, name) for name in CHANGES}
        orphan = Tenant(objects, sandbox.admin, "orphan")
        doomed = Tenant(Objects(cluster, doomed_namespace), sandbox.admin)
        with make_operator():
            for name, tenant in tenants.items():
                tenant.start(CHANGES[name].before)
            orphan.start(RETAIN)
            doomed.start().await_ready()
            before = {name: tenant.await_ready() for name, tenant in {**tenants, "orphan": orphan}.items()}
            force(tenants["forced-before"], "then")
            tenants["forced-before"].await_token(other_than=before["forced-before"].token)
            before["forced-before"] = tenants["forced-before"].await_ready()
        for name, tenant in tenants.items():
            CHANGES[name].do(tenant)
            tenant.apply(CHANGES[name].spec)
        delete(orphan)
        with make_operator() as operator:
            for name, tenant in tenants.items():
                tenant.target_name = CHANGES[name].spec.get("target", {}).get("name", tenant.target_name)
                if not CHANGES[name].spec.get("suspend"):
                    await_at_rest(operator, tenant)
                    await_all_done(tenant, CHANGES[name])
            await_at_rest(operator, doomed)
            yield Lives({**tenants, "orphan": orphan}, before, doomed, operator)


def await_at_rest(operator: OperatorProcess, tenant: Tenant) -> None:
    """Wait until the operator has looked at the credential and has set its timer."""
    name = "tuinly_credential_next_refresh_timestamp_seconds"
    labels = {"namespace": tenant.objects.namespace, "credential": tenant.name}
    wait_until(lambda: operator.metric(name, **labels) is not None, what=f"{tenant.name} at rest")


def await_all_done(tenant: Tenant, change: Change) -> None:
    """Wait until the target is what the spec asks for, and the credential says so."""

    def check() -> None:
        target, credential = tenant.find_target(), tenant.credential()
        assert target is not None
        meta = target.raw["metadata"]
        assert target.notes["credential-uid"] == credential["metadata"]["uid"]
        assert meta["labels"]["tuinly.com/credential"] == tenant.name
        owners = [owner["uid"] for owner in meta.get("ownerReferences", [])]
        policy = change.spec.get("target", {}).get("deletionPolicy", "Delete")
        assert owners == ([credential["metadata"]["uid"]] if policy == "Delete" else [])
        asked = credential["metadata"].get("annotations", {}).get(FORCE)
        assert asked in (None, target.notes["handled-refresh"])

    eventually(check)
    tenant.await_ready()


@pytest.mark.rule("TARGET-8", "DRIFT-4")
@pytest.mark.parametrize("name", [name for name, change in CHANGES.items() if not change.spec.get("suspend")])
def test_a_change_that_was_missed_is_made_up_for(lives: Lives, name: str) -> None:
    """By one exchange at most: the token is unknown to this process, so what has to be written has to be asked for."""
    tenant, before = lives[name]
    change, after = CHANGES[name], tenant.target()
    already = 2 if name == "forced-before" else 1
    assert tenant.grants() == ["client_credentials"] * (already + change.exchanges)
    if change.exchanges == 0:
        assert after.notes == before.notes
    token = tenant.tokens()[-1].value
    assert after.token == (f"<{token}>" if name == "template" else token)


@pytest.mark.rule("OWN-8")
def test_a_missed_rename_is_made(lives: Lives) -> None:
    """The old target is found by its label: the process never saw its name in a spec."""
    tenant, before = lives["renamed"]
    assert tenant.target().raw["metadata"]["name"] == "renamed-moved"
    old_name = before.raw["metadata"]["name"]
    wait_until(lambda: tenant.objects.find("Secret", old_name) is None, what="the old target gone")


def test_a_retained_target_stays_at_a_missed_rename(lives: Lives) -> None:
    tenant, before = lives["renamed-retained"]
    assert Target(tenant.objects.get("Secret", before.raw["metadata"]["name"])).raw == before.raw


def test_a_retained_target_is_adopted_as_the_object_that_it_is(lives: Lives) -> None:
    tenant, before = lives["retained-and-made-again"]
    after = tenant.target()
    assert after.raw["metadata"]["uid"] == before.raw["metadata"]["uid"]
    assert after.notes["credential-uid"] != before.notes["credential-uid"]


@pytest.mark.rule("OWN-19")
def test_an_orphan_is_left_alone(lives: Lives) -> None:
    orphan, before = lives["orphan"]
    assert orphan.target().raw == before.raw


def test_nothing_is_restored_while_suspended(lives: Lives) -> None:
    tenant, _ = lives["suspended-and-damaged"]
    tenant.await_condition("Ready", "False", "Suspended")
    assert tenant.target().data == {}
    assert len(tenant.requests()) == 1
    tenant.apply()
    tenant.await_ready()
    assert tenant.target().token == tenant.tokens()[-1].value
    assert len(tenant.requests()) == 2


def test_a_namespace_ends_quietly_though_its_tokens_are_not_in_memory(lives: Lives, cluster: Cluster) -> None:
    """Its Secrets go before its credentials. What is asked for in vain is asked for once."""
    doomed, lines = lives.doomed, len(lives.operator.logs())
    with kept_credentials(cluster, doomed.objects.namespace, doomed.name):
        cluster.kubectl("delete", "namespace", doomed.objects.namespace, "--wait=false")
        wait_until(lambda: doomed.objects.all("Secret") == [], what="the Secrets gone")
        other = lives.tenants["nothing"]
        force(other, "now")
        other.await_requests(2)
        other.await_ready()
        assert len(doomed.requests()) <= 2
        assert [line for line in lives.operator.logs()[lines:] if line.get("credential") == doomed.key] == []
