"""What is applied to the node: the installation as in the README, the sandbox as a Pod, and programs that call it."""

import copy
import json
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trustme
import yaml

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"registry.example.com/tuinly-operator:{VERSION}"
PLACEHOLDER = f"registry.invalid/tuinly-operator:{VERSION}"
SYSTEM = "tuinly-system"
SHOP = "shop"
SANDBOX = "sandbox"
HOST = "tuinly.sandbox.svc"
"""The sandbox's name in the cluster, for which its certificate is."""
TOKEN_URL = f"https://{HOST}/token"
GRAPHQL_URL = f"https://{HOST}/graphql"
CA_BUNDLE = "/etc/tuinly/ca.crt"
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
_LOCKED_DOWN = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def namespace(name: str) -> Json:
    """Return a namespace that enforces the restricted profile."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": _RESTRICTED}}


def authority(certificates: trustme.CA, namespaces: Iterable[str]) -> list[Json]:
    """Return the ConfigMap with a private certificate authority, for each namespace."""
    data = {"ca.crt": certificates.cert_pem.bytes().decode()}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "private-ca", "namespace": name}, "data": data}
        for name in namespaces
    ]


def with_push() -> list[Json]:
    """Return deploy/install.yaml with Push, which is a component of what it is rendered from."""
    kubectl = Path(sysconfig.get_path("scripts")) / "kubectl"
    folder = Path(__file__).parent / "push"
    rendered = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True)  # noqa: S603
    return list(yaml.safe_load_all(rendered.stdout))


def installation(settings: Mapping[str, str] = MappingProxyType({})) -> list[Json]:
    """Return deploy/install.yaml with Push, the image's name, the endpoints, and the authority from a ConfigMap.

    `settings` are more variables of the operator.
    """
    objects: list[Json] = json.loads(json.dumps(with_push()).replace(PLACEHOLDER, IMAGE))
    [deployment] = [each for each in objects if each["kind"] == "Deployment"]
    endpoints = {"TUINLY_TOKEN_URL": TOKEN_URL, "TUINLY_GRAPHQL_URL": GRAPHQL_URL, "TUINLY_CA_BUNDLE": CA_BUNDLE}
    _with_authority(deployment, {**endpoints, **settings})
    return objects


def chart_values() -> Json:
    """Return values with which the chart makes the same of it, with Push, behind a NetworkPolicy.

    8443 is the port that the sandbox's Pod listens on.
    """
    repository, _, tag = IMAGE.rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag},
        "settings": {"TUINLY_TOKEN_URL": TOKEN_URL, "TUINLY_GRAPHQL_URL": GRAPHQL_URL},
        "caBundle": {"configMap": "private-ca", "key": "ca.crt"},
        "push": {"enabled": True},
        "networkPolicy": {
            "enabled": True,
            "metricsFrom": [
                {"podSelector": {}},  # for `helm test`
                {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "visitor"}}},
            ],
            "endpointPorts": [443, 6443, 8443],
        },
    }


def sandbox(certificates: trustme.CA) -> list[Json]:
    """Return the sandbox: this checkout's code on the operator's image, behind TLS, with its admin API for the test."""
    sources = ["tests/__init__.py", "tests/support/__init__.py", "tests/support/pki.py"]
    sources += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "support" / "sandbox").glob("*.py"))
    keys = {name.replace("/", "__"): name for name in sources}
    certificate = certificates.issue_cert(HOST)
    tls = {
        "tls.crt": b"".join(blob.bytes() for blob in certificate.cert_chain_pems).decode(),
        "tls.key": certificate.private_key_pem.bytes().decode(),
    }
    labels = {"app.kubernetes.io/name": "tuinly"}
    ports = {"https": (443, 8443), "http": (8080, 8080), "admin": (8081, 8081)}
    container = {
        "name": "sandbox",
        "image": IMAGE,
        "workingDir": "/code",
        "command": ["python3", "-m", "tests.support.sandbox", "--host=0.0.0.0", "--https-port=8443"],
        "args": ["--http-port=8080", "--admin-host=0.0.0.0", "--admin-port=8081", "--certificate=/certificate"],
        "ports": [{"name": name, "containerPort": port} for name, (_, port) in ports.items()],
        "readinessProbe": {"tcpSocket": {"port": "admin"}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "code", "mountPath": "/code"},
            {"name": "certificate", "mountPath": "/certificate"},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 -- the Pod's own
        ],
        "securityContext": _LOCKED_DOWN,
    }
    items = [{"key": key, "path": path} for key, path in keys.items()]
    volumes = [
        {"name": "code", "configMap": {"name": "code", "items": items}},
        {"name": "certificate", "secret": {"secretName": "certificate", "defaultMode": 0o440}},
        {"name": "scratch", "emptyDir": {}},
    ]
    return [
        namespace(SANDBOX),
        _object(
            "v1", "ConfigMap", "code", SANDBOX, data={key: (ROOT / path).read_text() for key, path in keys.items()}
        ),
        _object("v1", "Secret", "certificate", SANDBOX, type="kubernetes.io/tls", stringData=tls),
        _object(
            "v1",
            "Service",
            "tuinly",
            SANDBOX,
            spec={
                "selector": labels,
                "ports": [{"name": name, "port": port, "targetPort": name} for name, (port, _) in ports.items()],
            },
        ),
        _object("apps/v1", "Deployment", "tuinly", SANDBOX, spec=_deployment(labels, container, volumes)),
    ]


def caller(name: str) -> Json:
    """Return the Deployment of deploy/samples/caller.yaml by another name, with the sandbox in Tuinly's place."""
    text = (ROOT / "deploy" / "samples" / "caller.yaml").read_text().replace(PLACEHOLDER, IMAGE)
    [deployment] = [each for each in yaml.safe_load_all(text) if each["kind"] == "Deployment"]
    renamed: Json = json.loads(json.dumps(deployment).replace('"caller', f'"{name}'))
    renamed["metadata"]["namespace"] = SHOP
    renamed["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] = "caller"
    _with_authority(renamed, {"GRAPHQL_URL": GRAPHQL_URL, "CA_BUNDLE": CA_BUNDLE})
    return renamed


def _with_authority(deployment: Json, settings: Mapping[str, str]) -> None:
    """Give a Deployment variables, which replace those of the same name, and the authority's ConfigMap."""
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    kept = [variable for variable in container.get("env", []) if variable["name"] not in settings]
    container["env"] = [*kept, *({"name": name, "value": value} for name, value in settings.items())]
    container.setdefault("volumeMounts", []).append({"name": "private-ca", "mountPath": str(Path(CA_BUNDLE).parent)})
    pod.setdefault("volumes", []).append({"name": "private-ca", "configMap": {"name": "private-ca"}})


def _deployment(labels: Json, container: Json, volumes: list[Json]) -> Json:
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    return {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}


def _object(version: str, kind: str, name: str, namespace: str, **fields: object) -> Json:
    metadata = {"name": name, "namespace": namespace}
    return copy.deepcopy({"apiVersion": version, "kind": kind, "metadata": metadata, **fields})
