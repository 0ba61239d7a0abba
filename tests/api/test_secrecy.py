"""Client secrets and tokens are in the Secrets they belong to and nowhere else, whatever happens."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.api.conftest import StartOperator
from tests.support.cluster import Cluster
from tests.support.objects import Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault, SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import eventually

ECHOES = ("echo_in_error", "echo_in_description", "echo_in_uri", "echo_in_reason", "access_token_header_injection")
"""Answers that repeat what was sent, or would break out of a line."""

UNREADABLE = {"binary": (b"\xff", "Opaque"), "other-type": (b"", "helm.sh/release.v1")}
"""Client Secrets of no use: what follows the secret in them, and their type."""

PLACES = ("log", "Events", "credentials", "metadata of targets", "metrics", "command line")


@dataclass(frozen=True)
class Aftermath:
    """All that can be read after a life of troubles, by place, and what must not be there."""

    places: Mapping[str, str]
    secrets: frozenset[str]


@pytest.fixture(scope="module")
def aftermath(cluster: Cluster, sandbox: SandboxProcess, make_operator: StartOperator) -> Iterator[Aftermath]:
    """Return what an operator leaves behind that met good and bad Secrets and answers, and logged all it could."""
    with new_namespace(cluster) as namespace, make_operator("--log-level", "debug") as operator:
        operator.wait_ready()
        objects = Objects(cluster, namespace)
        names = ("good", "rotated", *UNREADABLE, *(name.replace("_", "-") for name in ECHOES))
        tenants = {name: Tenant(objects, sandbox.admin, name) for name in names}
        secrets = {tenant.client.secret for tenant in tenants.values()}
        make_trouble(tenants, sandbox)
        secrets |= {tenant.client.secret for tenant in tenants.values()}
        secrets |= {token.value for tenant in tenants.values() for token in tenant.tokens()}
        yield Aftermath(read_all(objects, operator), frozenset(secrets))


def make_trouble(tenants: Mapping[str, Tenant], sandbox: SandboxProcess) -> None:
    """Let each credential live through what its name says."""
    for name in ECHOES:
        tenant = tenants[name.replace("_", "-")]
        sandbox.admin.fault(Fault(kind="answer", answer=name, client=tenant.client.id))
        tenant.start()
    for name, (rest, kind) in UNREADABLE.items():
        secret = tenants[name].client.secret.encode()
        tenants[name].apply_client_secret({"client_id": secret, "client_secret": secret + rest}, kind=kind)
        tenants[name].apply()
    tenants["good"].start(lifetime=6)
    rotated = tenants["rotated"].start()
    before = rotated.await_ready()
    rotated.rotate_secret()
    rotated.apply_client_secret(labels={"touched": "yes"})
    rotated.await_token(other_than=before.token)
    rotated.apply_client_secret({"client_id": rotated.client.id, "client_secret": "canary-wrong"})
    rotated.await_condition("Refreshed", "False", "InvalidClient")
    tenants["good"].await_requests(3)
    for name, tenant in tenants.items():
        if name not in {"good", "rotated"}:
            eventually(partial(_assert_failed, tenant))


def _assert_failed(tenant: Tenant) -> None:
    condition = tenant.condition("Ready")
    assert condition is not None
    assert condition.status == "False"


def read_all(objects: Objects, operator: OperatorProcess) -> Mapping[str, str]:
    """Return all that people and programs without access to Secrets can read."""
    secrets = objects.all("Secret")
    targets = [secret["metadata"] for secret in secrets if secret["metadata"]["name"].endswith("-token")]
    return dict(
        zip(
            PLACES,
            (
                operator.log_file.read_text(),
                json.dumps(objects.all("Event")),
                json.dumps(objects.all("TuinlyCredential")),
                json.dumps(targets),
                operator.get("/metrics")[1],
                Path(f"/proc/{operator.pid}/cmdline").read_text(),
            ),
            strict=True,
        )
    )


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_there(aftermath: Aftermath, place: str) -> None:
    """Neither as it is, nor in base64, nor what all secrets of a kind begin with (refresh tokens too)."""
    text = aftermath.places[place]
    assert len(aftermath.secrets) > len(ECHOES)
    for secret in aftermath.secrets:
        assert secret not in text
        assert base64.b64encode(secret.encode()).decode().rstrip("=")[:-1] not in text
    for beginning in ("canary-", "sandbox-access-", "sandbox-refresh-", "client_secret="):
        assert beginning not in text


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("digest", ["md5", "sha1", "sha256", "sha512"])
def test_no_digest_of_a_secret_is_there(aftermath: Aftermath, place: str, digest: str) -> None:
    """With it a guess could be checked."""
    text = aftermath.places[place].lower()
    for secret in aftermath.secrets:
        hashed = hashlib.new(digest, secret.encode()).digest()
        assert hashed.hex()[:16] not in text
        assert base64.b64encode(hashed).decode()[:16].lower() not in text


def test_there_was_something_to_see(aftermath: Aftermath) -> None:
    """Else the others would show nothing."""
    levels = {json.loads(line)["level"] for line in aftermath.places["log"].splitlines()}
    assert levels >= {"debug", "info", "warning"}
    for reason in ("Issued", "RequestRejected", "InvalidClient", "InvalidResponse", "ClientSecretInvalid"):
        assert reason in aftermath.places["Events"]
        assert reason in aftermath.places["credentials"]


def test_each_log_line_is_one_line_of_json(aftermath: Aftermath) -> None:
    for line in aftermath.places["log"].splitlines():
        assert {"ts", "level", "logger", "msg"} <= json.loads(line).keys()
