"""Attacks on logins, on views that are late, and on takeovers: a plugin that hangs, a replica that stands still."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Final

from tests.hostile.stage import LEASE, Stage
from tests.hostile.verdict import Attack
from tests.support.acts import leave_lease
from tests.support.objects import Json
from tests.support.operator import LEADS, OperatorProcess
from tests.support.tenant import Tenant
from tests.support.waiting import eventually

_LEADS_SECONDS: Final = 60.0
_READY_SECONDS: Final = 120.0
_LEASE_SECONDS: Final = 15.0
_NAMESPACE, _, _NAME = LEASE.partition("/")


CREDENTIALS: Final = "tuinlycredentials.*watch=true"
"""What is silenced: the watch of credentials. The operator cannot notice that for 75 s."""


# Takeovers by a replica that is behind --------------------------------------------------------------------------------


@contextmanager
def paused(standby: OperatorProcess) -> Iterator[None]:
    """The standby stands still, and goes on as the leader ends."""
    standby.send(signal.SIGSTOP)
    try:
        yield
    finally:
        standby.send(signal.SIGCONT)


def made_again(tenant: Tenant) -> None:
    """Delete a credential, and create it again."""
    tenant.delete()
    tenant.apply()


def renamed(tenant: Tenant) -> None:
    """Give the target of a credential another name."""
    tenant.target_name = f"{tenant.name}-renamed"
    tenant.apply({"target": {"name": tenant.target_name}})


def takeover(stage: Stage, change: Callable[[Tenant], None], *, pause: bool = False) -> None:
    """Change credentials while the standby does not see it, end the leader, and see what becomes of good targets."""
    leave_lease(stage.world.cluster, _NAMESPACE, _NAME)
    leader, proxy = stage.operator("--lease", LEASE), stage.proxy()
    await_lead(leader)
    tenants = stage.tenants(stage.many(150), lifetime=3600.0)
    for tenant in tenants:
        tenant.await_ready(_READY_SECONDS)
    with stage.served("--lease", LEASE, kubeconfig=proxy.kubeconfig(stage.world.login)) as standby:
        if not pause:
            proxy.silence(CREDENTIALS)
        with paused(standby) if pause else nullcontext():
            stage.all_of(tenants, change)
            good = {tenant.target_name: await_owner(tenant) for tenant in tenants}
            since = stage.evil.version("Secret")
            leader.terminate()
        await_lead(standby)
        for _ in stage.beats(0.2):
            pass
    lost = [name for name, uid in good.items() if was_touched(stage, name, uid, since)]
    stage.finding(f"{len(lost)} of {len(good)} good targets were overwritten or deleted", unless=not lost)


def made_again_late(stage: Stage) -> None:
    """The watch of credentials is silent while they are made again."""
    takeover(stage, made_again)


def renamed_late(stage: Stage) -> None:
    """The same while their targets get other names."""
    takeover(stage, renamed)


def made_again_paused(stage: Stage) -> None:
    """The standby stands still while they are made again."""
    takeover(stage, made_again, pause=True)


def renamed_paused(stage: Stage) -> None:
    """The same while their targets get other names."""
    takeover(stage, renamed, pause=True)


def await_owner(tenant: Tenant) -> str:
    """Return the uid of the credential as soon as its target is that one's."""

    def check() -> str:
        uid: str = tenant.credential()["metadata"]["uid"]
        assert owners(tenant.target().raw) == [uid]  # noqa: S101 -- is awaited
        return uid

    return eventually(check, seconds=_READY_SECONDS)


def owners(secret: Json) -> list[str]:
    """Return the uids of those who own a Secret."""
    return [each["uid"] for each in secret["metadata"].get("ownerReferences", ())]


def was_touched(stage: Stage, target: str, uid: str, since: str) -> bool:
    """Whether a target was deleted since a version, or had another owner."""
    if stage.evil.find("Secret", target) is None:
        return True
    return any(owners(version) != [uid] for version in stage.evil.versions("Secret", target, since=since))


def await_lead(replica: OperatorProcess) -> None:
    """Wait until a replica leads."""
    replica.wait_for_log(lambda line: bool(line["msg"] == LEADS), _LEADS_SECONDS)


# One replica ----------------------------------------------------------------------------------------------------------


def retained(stage: Stage) -> None:
    """Delete credentials that keep their targets while the operator's watches are silent."""
    proxy = stage.proxy()
    with stage.served(kubeconfig=proxy.kubeconfig(stage.world.login)):
        tenants = stage.tenants(10, {"target": {"deletionPolicy": "Retain"}}, lifetime=16.0)
        for tenant in tenants:
            tenant.await_ready(_READY_SECONDS)
        proxy.silence(CREDENTIALS)
        stage.all_of(tenants, Tenant.delete)
        before = sum(len(tenant.requests()) for tenant in tenants)
        for _ in stage.beats(0.2):
            pass
        asked = sum(len(tenant.requests()) for tenant in tenants) - before
    stage.finding(f"{asked} token requests for credentials that were deleted", unless=not asked)


def silent_api(stage: Stage) -> None:
    """The API server takes requests, and answers none."""
    proxy = stage.proxy()
    with stage.served(kubeconfig=proxy.kubeconfig(stage.world.login)) as operator:
        proxy.swallow()
        for _ in stage.beats(0.2):
            pass
        said = operator.get("/readyz")[1]
        proxy.pass_on()
    stage.finding(f"/readyz says {said!r}", unless=said.strip() != "ok")


def hung_plugin(stage: Stage) -> None:
    """An exec plugin of a kubeconfig gives one login, and then hangs."""
    config = json.loads(stage.world.login.read_text())
    answer, hangs, login = (stage.folder / name for name in ("answer.json", "hangs", "plugin.kubeconfig"))
    version = "client.authentication.k8s.io/v1"
    status = {"token": config["users"][0]["user"]["token"]}
    answer.write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))
    script = f"while [ -e {hangs} ]; do sleep 0.2; done; cat {answer}"
    plugin = {"apiVersion": version, "command": "sh", "args": ["-c", script], "interactiveMode": "Never"}
    config["users"][0]["user"] = {"exec": plugin}
    login.write_text(json.dumps(config))
    leave_lease(stage.world.cluster, _NAMESPACE, _NAME)
    with stage.served("--lease", LEASE, kubeconfig=login):
        hangs.touch()
        for _ in stage.beats(0.2):
            pass
        age = time.time() - renewed(stage)
        hangs.unlink()
    stage.finding(f"the Lease was last renewed {age:.0f} s ago", unless=age <= _LEASE_SECONDS)


def renewed(stage: Stage) -> float:
    """When the Lease was renewed, in seconds since the epoch."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{_NAMESPACE}/leases/{_NAME}"
    text = stage.shop.read(path)["spec"]["renewTime"]
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()


ATTACKS: Final[tuple[Attack, ...]] = (
    Attack("late-made-again", "the next leader does not see that credentials are made again", made_again_late, 40.0),
    Attack("late-renamed", "the next leader does not see that targets are renamed", renamed_late, 40.0),
    Attack("paused-made-again", "the next leader is stopped meanwhile", made_again_paused, 40.0, brief=False),
    Attack("paused-renamed", "the next leader is stopped while targets are renamed", renamed_paused, 40.0, brief=False),
    Attack(
        "late-retained", "the operator does not see that credentials with Retain are deleted", retained, seconds=20.0
    ),
    Attack("silent-api", "the API server answers nothing", silent_api, lifetime=300.0, seconds=35.0, brief=False),
    Attack("hung-plugin", "a kubeconfig's plugin hangs", hung_plugin, lifetime=180.0, seconds=110.0, brief=False),
)
