"""Leases on the API server, by which replicas agree on who leads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from tuinly_operator.base.clock import rfc3339
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.target import MANAGER
from tuinly_operator.edges.kube.failures import ApiFailure
from tuinly_operator.edges.kube.requests import Requests, collection

_LEASES: Final = "/apis/coordination.k8s.io/v1"
_LEASE_LIMIT: Final = aiohttp.ClientTimeout(total=4.0)  # a renewal that hangs must leave time for another


@dataclass(frozen=True, slots=True)
class Lease:
    """A Lease (coordination.k8s.io/v1): its holder (empty for nobody), its duration in seconds, how often it changed.

    `version` is its resourceVersion; that and its uid are empty for one that does not exist yet. `ours` says whether
    an operator set the duration that it has, and not somebody else, by its managed fields.
    """

    holder: str
    seconds: int
    transitions: int = 0
    version: str = ""
    uid: str = ""
    ours: bool = True


class Leases(Requests):
    """What the operator asks about Leases."""

    async def read_lease(self, key: NamespacedName) -> Lease | None:
        """Read a Lease, None where there is none. Raises ApiFailure."""
        try:
            return _lease(await self.ask("GET", _lease_path(key), limit=_LEASE_LIMIT))
        except ApiFailure as failure:
            if failure.not_found:
                return None
            raise

    async def write_lease(self, key: NamespacedName, lease: Lease, *, at: float) -> Lease:
        """Create a Lease, or replace the one of that uid and version; return what it became.

        `at` is what it tells people as the time of its renewal, in seconds since the epoch.

        Raises ApiFailure, 409 if it is another by now. Without the uid, one that is gone would be created anew.
        """
        metadata = {"name": key.name, "namespace": key.namespace}
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": lease.holder or None,
                "leaseDurationSeconds": lease.seconds,
                "leaseTransitions": lease.transitions,
                "renewTime": rfc3339(at, "microseconds"),
            },
        }
        if not lease.version:
            path = collection(_LEASES, key.namespace, "leases")
            return _lease(await self.ask("POST", path, body=body, limit=_LEASE_LIMIT, fenced=False))
        metadata |= {"resourceVersion": lease.version, "uid": lease.uid}
        return _lease(await self.ask("PUT", _lease_path(key), body=body, limit=_LEASE_LIMIT, fenced=False))


def _lease_path(key: NamespacedName) -> str:
    return f"{_LEASES}/namespaces/{key.namespace}/leases/{key.name}"


def _lease(raw: Mapping[str, Any]) -> Lease:
    """Read a Lease that anybody may have edited."""
    spec = raw.get("spec") or {}
    seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    return Lease(
        holder=spec.get("holderIdentity") or "",
        seconds=seconds if isinstance(seconds, int) else 0,
        transitions=transitions if isinstance(transitions, int) else 0,
        version=raw["metadata"]["resourceVersion"],
        uid=raw["metadata"]["uid"],
        ours=any(map(_set_the_duration, raw["metadata"].get("managedFields") or ())),
    )


def _set_the_duration(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of managed fields is an operator's, and has the duration."""
    spec = (entry.get("fieldsV1") or {}).get("f:spec") or {}
    return entry.get("manager") == MANAGER and "f:leaseDurationSeconds" in spec
