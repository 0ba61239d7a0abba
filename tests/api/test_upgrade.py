"""Upgrades: what an earlier version left in the cluster costs no token request and no write."""

import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tests.api.conftest import StartOperator
from tests.api.test_restart import await_known, resource_versions
from tests.support.objects import Json
from tests.support.tenant import Tenant
from tuinly_operator.base.clock import rfc3339

TOKEN_URL = "https://tokens.invalid/token"  # of the digests below; no request reaches it


@dataclass(frozen=True)
class Earlier:
    """A spec, and what an earlier version wrote for it, as literals: code of today would change with the digests."""

    exchange_inputs: str
    template: str
    data: Mapping[str, str]
    spec: Json = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


EARLIER: Mapping[str, Earlier] = {
    "least-spec": Earlier(
        exchange_inputs="de9d22237808c963a3c0416bdfe9127d",
        template="cdbbd57403b034944b401361c360e4b0",
        data={"access_token": "token", "token_type": "Bearer", "expires_at": "2026-12-03T00:05:33Z"},
    ),
    "scopes-and-template": Earlier(
        spec={
            "scopes": ["orders:write", "orders:read"],
            "target": {
                "template": {
                    "metadata": {"labels": {"team": "shop"}, "annotations": {"note": "für $ äöü"}},
                    "data": {".netrc": "password ${access_token} $$", "scope": "${scope}"},
                }
            },
        },
        exchange_inputs="5f91ed5e3dff3b88cfcbbb47bce668c4",
        template="f269070c4ec764e78d29f95d78923131",
        data={".netrc": "password token $", "scope": "orders:read orders:write"},
        labels={"team": "shop"},
        annotations={"note": "für $ äöü"},
    ),
}
STATUS: Json = {
    "observedGeneration": 1,
    "secretName": "storefront-token",
    "tokenURL": TOKEN_URL,
    "lastGrant": "ClientCredentials",
    "scopes": ["orders:read", "orders:write"],
    "failedAttempts": 0,
}
MESSAGES = {"Ready": "Secret storefront-token holds a valid access token", "Refreshed": "the last token request worked"}


def offset(uid: str, issued: int) -> int:
    """When the earlier version refreshes a token that is valid for an hour, in seconds after its issue."""
    drawn = int.from_bytes(hashlib.sha256(f"{uid} {issued}".encode()).digest()[:8]) / 2**64
    return int(0.67 * 3600 * (1 - 0.1 * drawn))


def leave(tenant: Tenant, earlier: Earlier) -> None:
    """Make what the earlier version left: target and status with a token that was issued ten minutes ago."""
    client, made = tenant.apply_client_secret()["metadata"], tenant.apply(earlier.spec)
    uid, credential_kind = made["metadata"]["uid"], {"apiVersion": made["apiVersion"], "kind": made["kind"]}
    at = int(time.time()) - 600
    issued, due, end = rfc3339(at), rfc3339(at + offset(uid, at)), rfc3339(at + 3600)
    state = {
        "state-version": "1",
        "credential-uid": uid,
        "issued-at": issued,
        "expires-at": end,
        "next-refresh": due,
        "granted-scopes": "orders:read orders:write",
        "exchange-inputs": earlier.exchange_inputs,
        "template": earlier.template,
        "client-secret-version": f"{client['uid']}/{client['resourceVersion']}",
        "handled-refresh": "",
    }
    target: Json = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "storefront-token",
            "labels": {
                **earlier.labels,
                "app.kubernetes.io/managed-by": "tuinly-operator",
                "tuinly.com/credential": "storefront",
            },
            "annotations": {**earlier.annotations, **{f"tuinly.com/{name}": value for name, value in state.items()}},
            "ownerReferences": [{**credential_kind, "name": "storefront", "uid": uid, "controller": True}],
        },
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in earlier.data.items()},
    }
    path = f"/api/v1/namespaces/{tenant.objects.namespace}/secrets/storefront-token"
    tenant.objects.ask("PATCH", path, target, "apply-patch+yaml", {"fieldManager": "tuinly-operator", "force": "true"})
    common = {"status": "True", "reason": "Issued", "observedGeneration": 1, "lastTransitionTime": issued}
    conditions = [{"type": kind, "message": message, **common} for kind, message in MESSAGES.items()]
    times = {"lastRefreshTime": issued, "nextRefreshTime": due, "tokenExpirationTime": end}
    status = {**STATUS, **times, "conditions": conditions}
    tenant.objects.merge("TuinlyCredential", "storefront", {"status": status}, subresource="status")


@pytest.mark.rule("STATE-4")
@pytest.mark.parametrize("name", EARLIER)
def test_an_upgrade_costs_no_token_request_and_no_write(
    tenant: Tenant, start_operator: StartOperator, name: str
) -> None:
    leave(tenant, EARLIER[name])
    before = resource_versions(tenant)
    operator = start_operator("--token-url", TOKEN_URL).wait_ready()
    await_known(operator, tenant)
    assert "tuinly_token_requests_total{" not in operator.get("/metrics")[1]
    assert operator.terminate() == 0  # it has finished what it had begun
    tenant.await_ready()
    assert resource_versions(tenant) == before
    assert [line["msg"] for line in operator.logs() if tenant.objects.namespace in str(line)] == []
