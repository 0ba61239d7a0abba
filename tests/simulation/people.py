"""What people do to the cluster and to their clients: each act is a request, as kubectl would send it, or a sign-up."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.simulation.apiserver import Answer, Key, Request, Server
from tests.simulation.apiserver.messages import Json
from tests.simulation.endpoint import Client, Endpoint
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import GROUP, PLURAL, REFRESH_REQUESTED, VERSION

CREDENTIALS: Final = f"/apis/{GROUP}/{VERSION}"
LEASES: Final = "/apis/coordination.k8s.io/v1"
MERGE: Final = "application/merge-patch+json"
_AGENT: Final = "kubectl/v1.37"


class People:
    """All who work with the cluster, but for the operator."""

    def __init__(
        self, server: Callable[[], Server], endpoint: Endpoint, now: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        """`changed` is called after each act."""
        self._server = server
        self._endpoint = endpoint
        self._now = now
        self._changed = changed

    def ask(self, method: str, path: str, body: Json | None = None, content: str = "application/json") -> Answer:
        """Send a request to the API server."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"User-Agent": _AGENT, "Content-Type": content, "Accept": "application/json"}
        answer = self._server().handle(Request(method, path, {"fieldManager": "kubectl"}, headers, data), self._now())
        self._changed()
        return answer

    def read(self, path: str) -> Json | None:
        """Read an object, None where there is none."""
        answer = self.ask("GET", path)
        found: Json = json.loads(answer.body)
        return found if answer.status == 200 else None

    def make_namespace(self, name: str) -> None:
        """Make a namespace."""
        self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def sign_up(self, key: NamespacedName, client: Client) -> None:
        """Have a client at the endpoint, and its id and secret in a Secret."""
        self._endpoint.clients[client.id] = client
        self.store_client(key, client.id, client.secrets[0])

    def store_client(self, key: NamespacedName, client_id: str, secret: str) -> None:
        """Put a client id and secret into a Secret, made where it is not there."""
        data = {"client_id": _coded(client_id), "client_secret": _coded(secret)}
        if self.ask("PATCH", secret_path(key), {"data": data}, MERGE).status == 404:
            meta = {"name": key.name}
            self.ask("POST", f"/api/v1/namespaces/{key.namespace}/secrets", {"metadata": meta, "data": data})

    def make_credential(self, key: NamespacedName, spec: Json, labels: Mapping[str, str]) -> Answer:
        """Apply a TuinlyCredential."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "TuinlyCredential",
            "metadata": {"name": key.name, "labels": dict(labels)},
            "spec": spec,
        }
        return self.ask("POST", f"{CREDENTIALS}/namespaces/{key.namespace}/{PLURAL}", body)

    def make_again(self, key: NamespacedName, raw: Json) -> None:
        """Apply a TuinlyCredential as it was; where its spec is refused by now, the least of it."""
        labels = raw["metadata"].get("labels") or {}
        if self.make_credential(key, raw["spec"], labels).status == 422:
            self.make_credential(key, {"clientSecretRef": {"name": f"{key.name}-client"}}, labels)

    def change_spec(self, key: NamespacedName, change: Json) -> None:
        """Change a spec, as a merge patch says."""
        self.ask("PATCH", credential_path(key), {"spec": change}, MERGE)

    def set_spec(self, key: NamespacedName, fields: Json) -> None:
        """Set fields of a spec to just that, None for the default: a merge patch merges, so they are emptied first."""
        self.change_spec(key, dict.fromkeys(fields))
        self.change_spec(key, {name: value for name, value in fields.items() if value is not None})

    def label(self, key: NamespacedName, labels: Mapping[str, str | None]) -> None:
        """Change a credential's labels."""
        self.ask("PATCH", credential_path(key), {"metadata": {"labels": dict(labels)}}, MERGE)

    def force(self, key: NamespacedName, value: str) -> None:
        """Ask for an exchange by annotation."""
        self.ask("PATCH", credential_path(key), {"metadata": {"annotations": {REFRESH_REQUESTED: value}}}, MERGE)

    def delete(self, path: str, propagation: str = "") -> None:
        """Delete an object, and have done with what it owns as the propagation policy says; empty for the default."""
        self.ask("DELETE", path, {"propagationPolicy": propagation} if propagation else None)

    def patch(self, path: str, change: Json) -> None:
        """Change an object."""
        self.ask("PATCH", path, change, MERGE)

    def copy(self, key: NamespacedName, name: str) -> None:
        """Make a Secret by what another one looks like."""
        found = self.read(secret_path(key))
        if found is None:
            return
        meta = {
            part: found["metadata"][part]
            for part in ("labels", "annotations", "ownerReferences")
            if part in found["metadata"]
        }
        body = {"metadata": {"name": name, **meta}, "type": found.get("type"), "data": found.get("data") or {}}
        self.ask("POST", f"/api/v1/namespaces/{key.namespace}/secrets", body)


def secret_path(key: NamespacedName) -> str:
    """Where a Secret is."""
    return f"/api/v1/namespaces/{key.namespace}/secrets/{key.name}"


def credential_path(key: NamespacedName) -> str:
    """Where a credential is."""
    return f"{CREDENTIALS}/namespaces/{key.namespace}/{PLURAL}/{key.name}"


def lease_path(key: NamespacedName) -> str:
    """Where a Lease is."""
    return f"{LEASES}/namespaces/{key.namespace}/leases/{key.name}"


def objects(server: Server, resource: str) -> dict[NamespacedName, Json]:
    """All objects of a resource (group and plural, as the storage names it)."""
    found = server.storage.objects.items()
    return {NamespacedName(key.namespace, key.name): raw for key, raw in found if key.resource == resource}


def at(server: Server, resource: str, key: NamespacedName) -> Json | None:
    """One of them."""
    return server.storage.objects.get(Key(resource, key.namespace, key.name))


def decoded(raw: Mapping[str, Any], name: str) -> str:
    """A value in a Secret."""
    return base64.b64decode((raw.get("data") or {}).get(name) or "").decode(errors="replace")


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
