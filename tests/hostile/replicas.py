"""Attacks on logins, on views that are late, and on takeovers: a plugin that hangs, a replica that stands still."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final

from tests.hostile.stage import LEASE, Stage
from tests.hostile.verdict import Attack
from tests.support.acts import leave_lease
from tests.support.operator import LEADS, OperatorProcess
from tests.support.proxy import ApiProxy
from tests.support.tenant import Tenant
from tests.support.waiting import eventually

_LEADS_SECONDS: Final = 60.0
_READY_SECONDS: Final = 120.0
_LEASE_SECONDS: Final = 15.0
_NAMESPACE, _, _NAME = LEASE.partition("/")


def silence(proxy: ApiProxy) -> None:
    """Keep every connection open, and let nothing through on it any more; new requests pass."""
    proxy.swallow()
    proxy.pass_on()


# Takeovers by a replica that is behind --------------------------------------------------------------------------------


@contextmanager
def late(proxy: ApiProxy, standby: OperatorProcess) -> Iterator[None]:
    """The standby's watches die in silence, which it cannot notice for 75 s."""
    del standby
    silence(proxy)
    yield


@contextmanager
def paused(proxy: ApiProxy, standby: OperatorProcess) -> Iterator[None]:
    """The standby stands still, and goes on as the leader ends."""
    del proxy
    standby.send(signal.SIGSTOP)
    try:
        yield
    finally:
        standby.send(signal.SIGCONT)


Behind = Callable[[ApiProxy, OperatorProcess], AbstractContextManager[None]]


def made_again(tenant: Tenant) -> None:
    """Delete a credential, and create it again."""
    tenant.delete()
    tenant.apply()


def renamed(tenant: Tenant) -> None:
    """Give the target of a credential another name."""
    tenant.target_name = f"{tenant.name}-renamed"
    tenant.apply({"target": {"name": tenant.target_name}})


def takeover(stage: Stage, change: Callable[[Tenant], None], behind: Behind) -> None:
    """Change credentials while the standby is behind, end the leader, and see what becomes of the good targets."""
    leave_lease(stage.world.cluster, _NAMESPACE, _NAME)
    leader, proxy = stage.operator("--lease", LEASE), stage.proxy()
    await_lead(leader)
    tenants = stage.tenants(stage.many(150), lifetime=3600.0)
    for tenant in tenants:
        tenant.await_ready(_READY_SECONDS)
    with stage.served("--lease", LEASE, kubeconfig=proxy.kubeconfig(stage.world.login)) as standby:
        with behind(proxy, standby):
            stage.all_of(tenants, change)
            good = {
                tenant.target_name: eventually(partial(owner, tenant), seconds=_READY_SECONDS) for tenant in tenants
            }
            since = stage.evil.version("Secret")
            leader.terminate()
        await_lead(standby)
        for _ in stage.beats(0.2):
            pass
    lost = [name for name, uid in good.items() if was_touched(stage, name, uid, since)]
    stage.finding(f"{len(lost)} of {len(good)} good targets were overwritten or deleted", unless=not lost)


def owner(tenant: Tenant) -> str:
    """Return the uid of the credential, once its target is that one's."""
    uid, target = tenant.credential()["metadata"]["uid"], tenant.target()
    assert [each["uid"] for each in target.raw["metadata"]["ownerReferences"]] == [uid]  # noqa: S101 -- awaited
    return str(uid)


def was_touched(stage: Stage, target: str, uid: str, since: str) -> bool:
    """Whether a target was deleted since a version, or had another owner."""
    if stage.evil.find("Secret", target) is None:
        return True
    versions = stage.evil.versions("Secret", target, since=since)
    return any([each["uid"] for each in version["metadata"]["ownerReferences"]] != [uid] for version in versions)


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
        silence(proxy)
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
    Attack(
        "late-made-again",
        "150 credentials are made again, unseen by the next leader",
        lambda stage: takeover(stage, made_again, late),
        growth=40.0,
        lifetime=60.0,
    ),
    Attack(
        "late-renamed",
        "150 targets are renamed, unseen by the next leader",
        lambda stage: takeover(stage, renamed, late),
        growth=40.0,
        lifetime=60.0,
    ),
    Attack(
        "paused-made-again",
        "150 credentials are made again while the next leader is stopped",
        lambda stage: takeover(stage, made_again, paused),
        growth=40.0,
        lifetime=60.0,
        brief=False,
    ),
    Attack(
        "paused-renamed",
        "150 targets are renamed while the next leader is stopped",
        lambda stage: takeover(stage, renamed, paused),
        growth=40.0,
        lifetime=60.0,
        brief=False,
    ),
    Attack("late-retained", "10 credentials with Retain are deleted, unseen", retained, seconds=20.0),
    Attack(
        "silent-api", "the API server answers nothing for 35 s", silent_api, lifetime=300.0, seconds=35.0, brief=False
    ),
    Attack(
        "hung-plugin",
        "an exec plugin of a kubeconfig hangs",
        hung_plugin,
        lifetime=180.0,
        seconds=110.0,
        brief=False,
    ),
)
