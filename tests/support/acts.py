"""What people do to a credential and its target besides applying it, and how to see what the operator made of that."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tests.support.cluster import Cluster, KubectlError
from tests.support.objects import Json
from tests.support.tenant import Target, Tenant
from tests.support.waiting import eventually, wait_until

FORCE = "tuinly.com/refresh-requested"


def force(tenant: Tenant, value: str | None) -> None:
    """Ask for an exchange now by any new value; None takes the annotation away."""
    tenant.objects.merge("TuinlyCredential", tenant.name, {"metadata": {"annotations": {FORCE: value}}})


def edit(tenant: Tenant, patch: Json) -> None:
    """Change the target by a merge patch, as somebody with the right to do so may."""
    tenant.objects.merge("Secret", tenant.target_name, patch)


def leave_lease(cluster: Cluster, namespace: str, name: str) -> None:
    """Make a Lease, if there is none, as a leader leaves it: without one, the first of all replicas waits for 15 s."""
    meta = {"name": name, "namespace": namespace}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
    lease["spec"] = {"leaseDurationSeconds": 1, "leaseTransitions": 0}
    try:
        cluster.kubectl("create", "-f", "-", input=json.dumps(lease))
    except KubectlError as error:
        if "AlreadyExists" not in error.stderr:
            raise


def appearance(target: Target) -> Mapping[str, Any]:
    """Return all of a target that the operator sees to, and that it is the operator's."""
    meta = target.raw["metadata"]
    return {
        "type": target.raw["type"],
        "immutable": target.raw.get("immutable"),
        "data": target.data,
        "labels": meta.get("labels"),
        "annotations": meta.get("annotations"),
        "ownerReferences": meta.get("ownerReferences"),
        "ours": [entry["fieldsV1"] for entry in meta["managedFields"] if entry["manager"] == "tuinly-operator"],
    }


def await_restored(tenant: Tenant, before: Target) -> Target:
    """Return the target as soon as it is again what it was before."""

    def check() -> Target:
        target = tenant.find_target()
        if target is None or appearance(target) != appearance(before):
            raise AssertionError(f"{tenant.target_name} is not what it was, but {target and appearance(target)}")
        return target

    return eventually(check)


@contextmanager
def refused_tokens(cluster: Cluster, namespace: str) -> Iterator[None]:
    """Have the API server refuse, by an admission policy, each write of an access token to a Secret of a namespace."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "trial"}, "data": {"access_token": "eA=="}}
    writes = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"]}
    validation = {
        "expression": "!has(object.data) || !('access_token' in object.data)",
        # As careless policies do, it quotes what it refuses.
        "messageExpression": "'refused: ' + string(object.data['access_token'])",
    }
    with _policy(cluster, namespace, writes, validation, ("create", "-f", "-"), json.dumps(secret)):
        yield


@contextmanager
def kept_credentials(cluster: Cluster, namespace: str, name: str) -> Iterator[None]:
    """Have the API server refuse the deletion of all credentials of a namespace; there is one of this name."""
    deletes = {
        "apiGroups": ["tuinly.com"],
        "apiVersions": ["v1alpha1"],
        "operations": ["DELETE"],
        "resources": ["tuinlycredentials"],
    }
    trial = ("delete", "tuinlycredential", name, "--ignore-not-found")
    with _policy(cluster, namespace, deletes, {"expression": "false"}, trial):
        yield


@contextmanager
def _policy(  # noqa: PLR0913, PLR0917 - what is refused, where, and how to see it
    cluster: Cluster, namespace: str, rule: Json, validation: Json, trial: Sequence[str], given: str | None = None
) -> Iterator[None]:
    """Have requests refused by an admission policy; `trial` is a kubectl command, with its input, that is then refused.

    A policy is at work some time after it was made.
    """

    def is_at_work() -> bool:
        try:
            cluster.kubectl(*trial, "--dry-run=server", "--namespace", namespace, input=given)
        except KubectlError:
            return True
        return False

    name = f"trial-{trial[0]}-{namespace}"
    kinds = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    policy = {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]}, "validations": [validation]}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector}}
    items = [
        {"kind": "ValidatingAdmissionPolicy", **kinds, "spec": policy},
        {"kind": "ValidatingAdmissionPolicyBinding", **kinds, "spec": binding},
    ]
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    cluster.kubectl("apply", "-f", "-", input=objects)
    try:
        wait_until(is_at_work, what="the policy at work")
        yield
    finally:
        cluster.kubectl("delete", "-f", "-", input=objects)
    wait_until(lambda: not is_at_work(), what="the end of the policy")
