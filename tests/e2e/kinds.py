"""Each usual way for a Pod to get a Secret, in Pods and a CronJob that say what they see, and when."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.manifests import IMAGE, SHOP
from tests.support.node import AnyNode

Json = dict[str, Any]

NAME = "kinds"
"""Of the Pod's credential. That of the other one is NAME-late, which does not exist at first."""
LIFETIME = 3600
"""Seconds that their tokens live: none is replaced by itself during the story."""
WAYS = {
    "secret": "/secret",
    "projected": "/projected",
    "subPath": "/subpath",
    "optional": "/optional",
}
"""Where the Pod finds each of them; the environment variable is read from there."""

_LOOK = """
import json, os, time
paths = {paths}
seen = {{}}
def say(way, value):
    if seen.get(way, "nothing yet") != value:
        seen[way] = value
        print(json.dumps({{"at": round(time.time(), 3), "way": way, "expires_at": value}}), flush=True)
while True:
    if "secret" in paths:
        say("env", os.environ["EXPIRES_AT"])
    for way, folder in paths.items():
        try:
            with open(folder + "/expires_at") as file:
                say(way, file.read())
        except FileNotFoundError:
            say(way, None)
    if {once}:
        break
    time.sleep(0.05)
"""
_LOCKED_DOWN = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@dataclass(frozen=True)
class Seen:
    """That a way showed a token first at this time, and when that token expires; None where there was none."""

    at: float
    way: str
    expires_at: float | None


def waiting_pod() -> Json:
    """Return a Pod that mounts the Secret that does not exist at first, and not as an optional one."""
    mounts = [{"name": "waiting", "mountPath": WAYS["secret"]}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{NAME}-waiting", "namespace": SHOP},
        "spec": {
            **_pod_settings(),
            "containers": [_container("main", mounts, {"waiting": WAYS["secret"]}, secret=f"{NAME}-late-token")],
            "volumes": [{"name": "waiting", "secret": {"secretName": f"{NAME}-late-token"}}],
        },
    }


def pod() -> Json:
    """Return the Pod: its container sees each way for as long as it runs, its init container what was there before."""
    volumes = [
        {"name": "secret", "secret": {"secretName": f"{NAME}-token"}},
        {"name": "projected", "projected": {"sources": [{"secret": {"name": f"{NAME}-token"}}]}},
        {"name": "optional", "secret": {"secretName": f"{NAME}-late-token", "optional": True}},
    ]
    mounts = [{"name": name, "mountPath": WAYS[name]} for name in ("secret", "projected", "optional")]
    mounts.append({"name": "secret", "mountPath": f"{WAYS['subPath']}/expires_at", "subPath": "expires_at"})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": SHOP},
        "spec": {
            **_pod_settings(),
            "initContainers": [_container("init", mounts, {"init container": WAYS["secret"]}, once="True")],
            "containers": [_container("main", mounts, WAYS)],
            "volumes": volumes,
        },
    }


def cron_job() -> Json:
    """Return a CronJob whose Pods, one a minute, say what they see."""
    mounts = [{"name": "secret", "mountPath": WAYS["secret"]}]
    template = {
        **_pod_settings(),
        "restartPolicy": "Never",
        "containers": [_container("main", mounts, {"CronJob": WAYS["secret"]}, once="True")],
        "volumes": [{"name": "secret", "secret": {"secretName": f"{NAME}-token"}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": NAME, "namespace": SHOP},
        "spec": {
            "schedule": "* * * * *",
            "successfulJobsHistoryLimit": 10,
            "jobTemplate": {"spec": {"template": {"metadata": {"labels": {"job": NAME}}, "spec": template}}},
        },
    }


def seen(node: AnyNode) -> list[Seen]:
    """Return what each way has shown so far, in the order of time."""
    pods = [(NAME, "init"), (NAME, "main"), (f"{NAME}-waiting", "main")]
    names = node.kubectl("get", "pods", "-n", SHOP, "-l", f"job={NAME}", "-o", "name").split()
    pods += [(name, "main") for name in names]
    lines: list[Json] = []
    for name, container in pods:
        text = node.kubectl("logs", name, "-n", SHOP, "-c", container, check=False)
        lines += [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return sorted((_seen(line) for line in lines), key=lambda each: each.at)


def _seen(line: Json) -> Seen:
    text = line["expires_at"]
    expires_at = datetime.fromisoformat(text).astimezone(UTC).timestamp() if text else None
    return Seen(line["at"], line["way"], expires_at)


def _pod_settings() -> Json:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _container(
    name: str, mounts: list[Json], paths: dict[str, str], once: str = "False", secret: str = f"{NAME}-token"
) -> Json:
    return {
        "name": name,
        "image": IMAGE,
        "command": ["python3", "-c", _LOOK.format(paths=paths, once=once)],
        "env": [{"name": "EXPIRES_AT", "valueFrom": {"secretKeyRef": {"name": secret, "key": "expires_at"}}}],
        "volumeMounts": mounts,
        "securityContext": _LOCKED_DOWN,
    }
