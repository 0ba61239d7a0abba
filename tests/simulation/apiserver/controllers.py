"""What kube-controller-manager does: garbage is collected, and namespaces that end are emptied.

Both happen some time after what calls for them; when is for the caller to choose. They send requests as others do, so
that admission may refuse them. Owners that wait for what they own (foreground deletion) are not known here.
"""

import json
from typing import Any, Final

from tests.simulation.apiserver.builtin import NAMESPACE
from tests.simulation.apiserver.kinds import Kind
from tests.simulation.apiserver.messages import Json, Refusal, Request, forbidden
from tests.simulation.apiserver.registry import Admission, Review
from tests.simulation.apiserver.server import Server
from tests.simulation.apiserver.storage import Key

_HEADERS: Final = {"User-Agent": "kube-controller-manager/v1"}
_MERGE: Final = {**_HEADERS, "Content-Type": "application/merge-patch+json"}


def collect_garbage(server: Server, now: float) -> None:
    """Delete what has owners, none of which is there any more; of what has others, drop the owners that are not.

    An owner is looked for by its name, and counts by its uid. One of a kind that is not served keeps what it owns.
    """
    for key, raw in list(server.storage.objects.items()):
        owners = raw["metadata"].get("ownerReferences") or []
        kinds = [_kind(server, owner) for owner in owners]
        if not owners or None in kinds or "deletionTimestamp" in raw["metadata"]:
            continue
        solid = [
            owner for owner, kind in zip(owners, kinds, strict=True) if kind and _is_there(server, key, owner, kind)
        ]
        if not solid:
            delete(server, key, now)
        elif solid != owners:
            meta = {**_same(raw), "ownerReferences": solid}
            body = json.dumps({"metadata": meta}).encode()
            server.handle(Request("PATCH", path_of(server, key), {}, _MERGE, body), now)


def empty_namespaces(server: Server, now: float) -> None:
    """Delete what is in namespaces that end, and those of them that are empty."""
    for key, raw in list(server.storage.objects.items()):
        if key.resource == NAMESPACE.resource and raw["status"]["phase"] == "Terminating":
            for each in [each for each in server.storage.objects if each.namespace == key.name]:
                delete(server, each, now)
            if not any(each.namespace == key.name for each in server.storage.objects):
                server.storage.delete(key)


def quota(server: Server, namespace: str, resource: str, most: int) -> Admission:
    """A ResourceQuota, for `server.admissions`: of a resource, there may be so many in a namespace."""

    def admit(review: Review) -> Refusal | None:
        key = review.key
        if review.operation != "CREATE" or (key.namespace, key.resource) != (namespace, resource):
            return None
        if len(server.storage.of(resource, namespace)) < most:
            return None
        why = f"exceeded quota: quota, requested: count/{resource}=1, used: count/{resource}={most}"
        return forbidden(review.kind.group, review.kind.plural, key.name, why)

    return admit


def delete(server: Server, key: Key, now: float) -> None:
    """Delete an object as it is now, as a controller does."""
    body = json.dumps({"preconditions": _same(server.storage.objects[key])}).encode()
    server.handle(Request("DELETE", path_of(server, key), {}, _HEADERS, body), now)


def path_of(server: Server, key: Key) -> str:
    """The path of an object of a kind that is served."""
    kind = next(kind for kind in server.kinds.values() if kind.resource == key.resource)
    namespace = f"/namespaces/{key.namespace}" if key.namespace else ""
    return f"{kind.root}{namespace}/{kind.plural}/{key.name}"


def _same(raw: Json) -> dict[str, Any]:
    return {name: raw["metadata"][name] for name in ("uid", "resourceVersion")}


def _kind(server: Server, owner: Json) -> Kind | None:
    said = (owner["apiVersion"], owner["kind"])
    return next((kind for kind in server.kinds.values() if (kind.api_version, kind.name) == said), None)


def _is_there(server: Server, key: Key, owner: Json, kind: Kind) -> bool:
    found = server.storage.objects.get(Key(kind.resource, key.namespace if kind.namespaced else "", owner["name"]))
    return found is not None and found["metadata"]["uid"] == owner["uid"]
