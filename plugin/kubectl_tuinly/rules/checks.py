"""Whether an installation is healthy: what `check` says of each part."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from kubectl_tuinly.rules.installation import LEAST_KUBERNETES, Installation, Right, leader_of, version_of
from kubectl_tuinly.rules.steps import Step, Unseen, Verdict, unchecked
from tuinly_operator.domain.credential import VERSION, Spec, Status, json_name

KUBERNETES: Final = "Kubernetes"
DEFINITION: Final = "Definition"
DEPLOYMENT: Final = "Deployment"
LEASE: Final = "Lease"
RIGHTS: Final = "Rights"
PUSH: Final = "Push"
_APPLY: Final = "Apply crds/ of the operator's version: kubectl apply -f crds/"


def kubernetes_step(version: Mapping[str, Any] | Unseen) -> Step:
    """Whether Kubernetes is recent enough."""
    if isinstance(version, Unseen):
        return unchecked(KUBERNETES, version)
    parts = [re.match("[0-9]*", str(version.get(name, ""))) for name in ("major", "minor")]
    found = tuple(int(part[0] or 0) for part in parts if part)
    least = ".".join(map(str, LEAST_KUBERNETES))
    if found < LEAST_KUBERNETES:
        return Step(
            KUBERNETES,
            Verdict.WRONG,
            f"{version.get('gitVersion')}, which is too old",
            f"Upgrade Kubernetes to {least}.",
        )
    return Step(KUBERNETES, Verdict.FINE, f"{version.get('gitVersion')}; {least} or later is needed")


def definition_step(definition: Mapping[str, Any] | Unseen | None, *, served: bool) -> Step:
    """Whether the definition is there, served and stored in one version, and knows all fields."""
    if definition is None or (isinstance(definition, Unseen) and not served):
        return Step(DEFINITION, Verdict.WRONG, "the API server does not know TuinlyCredentials", _APPLY)
    if isinstance(definition, Unseen):
        return Step(DEFINITION, Verdict.UNCHECKED, f"{VERSION} is served; not checked further: {definition.why}")
    versions = {version["name"]: version for version in definition["spec"]["versions"] if version.get("served")}
    stored = (definition.get("status") or {}).get("storedVersions") or []
    text = f"{version_of(definition)}, served: {', '.join(versions)}; stored: {', '.join(stored)}"
    if VERSION not in versions:
        return Step(DEFINITION, Verdict.WRONG, text, _APPLY)
    if missing := missing_fields(versions[VERSION]):
        return Step(DEFINITION, Verdict.WRONG, f"{text}; it is older than this plugin: no {', '.join(missing)}", _APPLY)
    if strangers := [name for name in stored if name not in versions]:
        todo = f"Migrate stored objects from {', '.join(strangers)}, which is served no more."
        return Step(DEFINITION, Verdict.WARNING, text, todo)
    return Step(DEFINITION, Verdict.FINE, text)


def missing_fields(version: Mapping[str, Any]) -> list[str]:
    """Fields of spec and status that this version of the definition does not know."""
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    missing = []
    for part, kind in (("spec", Spec), ("status", Status)):
        known = ((schema.get("properties") or {}).get(part) or {}).get("properties") or {}
        missing += [f"{part}.{json_name(field)}" for field in fields(kind) if json_name(field) not in known]
    return missing


def no_operator(where: str, unseen: Unseen | None) -> Step:
    """That no Deployment was found, or could be looked for."""
    if unseen is not None:
        return Step(DEPLOYMENT, Verdict.UNCHECKED, f"not checked: {unseen.why}; name where it is: --operator-namespace")
    text = f"there is no Deployment of the operator in {where}"
    return Step(DEPLOYMENT, Verdict.WRONG, text, "Install the operator, or name where it is: --operator-namespace")


def deployment_step(one: Installation) -> Step:
    """Whether all replicas are ready."""
    serves = f"serves {', '.join(one.namespaces) or 'all namespaces'}"
    text = f"{one.key}, {one.version}, {one.ready} of {one.wanted} replicas ready, {serves}"
    if one.ready >= max(one.wanted, 1):
        return Step(DEPLOYMENT, Verdict.FINE, text)
    selector = ",".join(f"{name}={value}" for name, value in one.replicas.items())
    todo = f"Look why: kubectl -n {one.key.namespace} describe pods -l {selector}"
    return Step(DEPLOYMENT, Verdict.WRONG, f"{text}, image {one.image}", todo)


def lease_step(one: Installation, lease: Mapping[str, Any] | Unseen | None, now: float) -> Step:
    """Whether a replica leads."""
    if one.lease is None:
        if one.wanted > 1:
            todo = "Give the replicas a Lease (--lease): without it each of them asks for tokens."
            return Step(LEASE, Verdict.WRONG, "no election, and more than one replica", todo)
        return Step(LEASE, Verdict.FINE, "no election, since there is but one replica")
    if isinstance(lease, Unseen):
        return unchecked(LEASE, lease)
    leader = leader_of(lease, now)
    if leader:
        return Step(LEASE, Verdict.FINE, f"{one.lease}: {leader} leads")
    todo = f"Look at the log: kubectl -n {one.key.namespace} logs deployment/{one.key.name} --all-pods=true --prefix"
    return Step(LEASE, Verdict.WRONG, f"{one.lease}: no replica leads", todo)


def rights_step(one: Installation, missing: Sequence[tuple[Right, str]] | Unseen) -> Step:
    """Whether the ServiceAccount may do what the operator does; `missing` with the namespace, empty for all."""
    if isinstance(missing, Unseen):
        return unchecked(RIGHTS, missing)
    if not missing:
        return Step(RIGHTS, Verdict.FINE, f"{one.user} may do all that is needed")
    told = [
        f"{right.verb} {resource(right)}{f' in {where}' if where else ''} ({right.why})" for right, where in missing
    ]
    todo = "Apply the installation's files again: its ClusterRole or Role lacks rights."
    return Step(RIGHTS, Verdict.WRONG, f"{one.user} may not: {'; '.join(told)}", todo)


def resource(right: Right) -> str:
    """Resource and subresource, as RBAC writes them."""
    return right.resource + (f"/{right.subresource}" if right.subresource else "")


def push_step(*, bound: bool | Unseen) -> Step:
    """Whether the policy that limits Push is bound to the operator's account."""
    if isinstance(bound, Unseen):
        return unchecked(PUSH, bound)
    if bound:
        return Step(PUSH, Verdict.FINE, "its policy is bound to the operator's account")
    todo = "A cluster admin applies deploy/components/push/policy.yaml, with this installation's names."
    return Step(PUSH, Verdict.WRONG, "no policy is bound to the operator's account, so no Pod is told of a token", todo)
