"""Attacks by users with rights in one namespace: objects that are many, large, or edited all the time."""

import base64
import json
import secrets
from typing import Final

import yaml

from tests.hostile.stage import Stage
from tests.hostile.verdict import Attack
from tests.support.acts import force
from tests.support.kustomization import write_push_kustomization
from tests.support.objects import Json, Kind
from tests.support.sandbox import Fault
from tests.support.tenant import Tenant
from tests.support.waiting import wait_until

_RESTORED: Final = 40.0  # at most one write per 30 s, and some time for it
_MANY_READY: Final = 120.0  # seconds until the attacker's own credentials are ready
EXPENSIVE: Final[Json] = {"target": {"template": {"data": {f"key-{number}": "$$" * 4096 for number in range(63)}}}}
"""The most expensive template that the schema allows."""
EXPENSIVE_MB: Final = 150.0
"""Megabytes that 60 of them can take: 31 as text, the rest for a moment. 50 to 87 were measured."""


# Rows of what a second attack found -----------------------------------------------------------------------------------


def ended(stage: Stage, *, suspended: bool) -> list[Tenant]:
    """Make 60 credentials of one client Secret, with that template and tokens that end soon."""
    client = Tenant(stage.evil, stage.admin, "evil")
    client.register(lifetime=4.0)
    client.apply_client_secret()
    tenants = [Tenant(stage.evil, stage.admin, f"evil-{number}") for number in range(60)]
    spec = {"clientSecretRef": {"name": client.client_secret_name}, **EXPENSIVE}
    stage.all_of(tenants, lambda tenant: tenant.apply(spec))
    wait_until(lambda: stage.admin.counts(client.client.id)["tokens"] >= len(tenants), what="their first tokens")
    stage.admin.fault(Fault(kind="fail", status=401, client=client.client.id))
    if suspended:
        stage.all_of(tenants, lambda tenant: tenant.apply({**spec, "suspend": True}))
    return [client, *tenants]


def label_edits(stage: Stage, per_second: float = 1.0, *, suspended: bool = True) -> None:
    """Edit a label of that client Secret again and again."""
    with stage.served():
        client = ended(stage, suspended=suspended)[0]
        for number in stage.beats(per_second):
            label(stage, client.client_secret_name, number)


def label_edits_10(stage: Stage) -> None:
    """The same ten times per second."""
    label_edits(stage, 10.0)


def label_edits_not_suspended(stage: Stage) -> None:
    """The same with credentials that ask for tokens, and get none."""
    label_edits(stage, 10.0, suspended=False)


def label(stage: Stage, secret: str, number: int) -> None:
    """Change one label of a Secret."""
    patch = {"metadata": {"labels": {"edited": str(number)}}}
    stage.evil.merge("Secret", secret, patch)
    stage.measured.sent += len(json.dumps(patch))


def forged_pushes(stage: Stage) -> None:
    """1,000 Pods forge the annotation of a push: 256 KiB, and four bytes per letter in Python."""
    home = f"push-{secrets.token_hex(3)}"
    write_push_kustomization(stage.folder, home, prefix=f"{home}-")
    rights = stage.world.cluster.kubectl("kustomize", str(stage.folder))
    stage.world.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(without_policies(rights)))
    login = stage.world.cluster.kubeconfig_for(home, f"{home}-tuinly-operator")
    value = "\U0001f600" + "x" * (262_144 - 1000)
    tenants = [f"evil-{number}-token" for number in range(20)]
    volumes = [{"name": name, "secret": {"secretName": name}} for name in tenants]

    def make(number: int) -> None:
        meta = {"name": f"pod-{number}", "annotations": {"tuinly.com/pushed": value}}
        containers = [{"name": "a", "image": "i"}]
        spec = {"nodeName": "nowhere", "volumes": volumes, "containers": containers}
        stage.evil.ask("POST", f"/api/v1/namespaces/{stage.evil.namespace}/pods", {"metadata": meta, "spec": spec})
        stage.measured.sent += len(value)

    with stage.served("--push", kubeconfig=login):
        stage.all_of(range(stage.many(1000)), make)
        stage.tenants(len(tenants), {"delivery": {"pods": "Push"}}, lifetime=12.0)


def without_policies(rights: str) -> list[Json]:
    """The installation without its admission policy, under a name that an earlier one had."""
    return [each for each in yaml.safe_load_all(rights) if not each["kind"].startswith("ValidatingAdmission")]


def forged_status(stage: Stage) -> None:
    """Forge `lastHandledRefresh` and `lastFailureTime` of 10 statuses, ten times per second in all."""
    with stage.served():
        tenants = stage.tenants(10, lifetime=3600.0)
        for tenant in tenants:
            tenant.await_ready(_MANY_READY)
            force(tenant, "asked")
        wait_until(lambda: all(each.status().get("lastHandledRefresh") for each in tenants), what="exchanges")
        begin, forged = stage.evil.version("TuinlyCredential"), 0
        for number in stage.beats(10.0):
            status = {"lastHandledRefresh": f"forged-{number}", "lastFailureTime": "2026-01-01T00:00:00Z"}
            name = tenants[number % len(tenants)].name
            stage.evil.merge("TuinlyCredential", name, {"status": status}, subresource="status")
            forged += name == tenants[0].name
    versions = len(stage.evil.versions("TuinlyCredential", tenants[0].name, since=begin))
    most = 2 + stage.measured.seconds / 30
    stage.finding(f"{versions - forged} writes to restore one status", unless=versions - forged <= most)

    def restored() -> bool:
        found = [each.status() for each in tenants]
        return all(each["lastHandledRefresh"] == "asked" and "lastFailureTime" not in each for each in found)

    wait_until(restored, what="the forged values are gone", seconds=_RESTORED)


# What held before -----------------------------------------------------------------------------------------------------


def large_secrets(stage: Stage) -> None:
    """Start beside 500 Secrets of 1 MiB."""
    data = base64.b64encode(b"x" * 1_000_000).decode()

    def make(number: int) -> None:
        stage.evil.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"large-{number}"}, "data": {"x": data}}
        )
        stage.measured.sent += len(data)

    stage.all_of(range(stage.many(500)), make)
    with stage.served():
        for number in stage.beats(5.0):
            label(stage, f"large-{number % stage.many(500)}", number)


def labels(stage: Stage) -> None:
    """20 credentials and their client Secrets have 5,000 labels each, which change all the time."""
    with stage.served():
        tenants = stage.tenants(20)
        for number in stage.beats(5.0):
            tenant = tenants[number % len(tenants)]
            many = {f"label-{key}": f"{number:060}" for key in range(5000)}
            kinds: dict[str, Kind] = {tenant.name: "TuinlyCredential", tenant.client_secret_name: "Secret"}
            for name, kind in kinds.items():
                stage.evil.merge(kind, name, {"metadata": {"labels": many}})
                stage.measured.sent += len(json.dumps(many))


ATTACKS: Final[tuple[Attack, ...]] = (
    Attack(
        "label-edits", "60 suspended credentials share a Secret whose label changes", label_edits, EXPENSIVE_MB, 0.3
    ),
    Attack("label-edits-10", "the same with 10 edits per second", label_edits_10, EXPENSIVE_MB, 0.3),
    Attack("label-edits-active", "the same, not suspended", label_edits_not_suspended, EXPENSIVE_MB, 0.3),
    Attack("forged-pushes", "1,000 Pods forge the annotation of a push", forged_pushes),
    Attack("forged-status", "a user forges fields of statuses, 10 times per second", forged_status),
    Attack("large-secrets", "500 Secrets of 1 MiB, and edits of their labels", large_secrets),
    Attack("labels", "objects with 5,000 labels that change 5 times per second", labels),
)
