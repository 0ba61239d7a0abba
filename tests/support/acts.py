"""What people do to a credential and its target besides applying it, and how to see what the operator made of that."""

import json
from collections.abc import Iterator, Mapping
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
    name = f"refuse-tokens-{namespace}"
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["secrets"],
                    }
                ]
            },
            "validations": [
                {
                    "expression": "!has(object.data) || !('access_token' in object.data)",
                    # As careless policies do, it quotes what it refuses.
                    "messageExpression": "'refused: ' + string(object.data['access_token'])",
                }
            ],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
        },
    }
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy, binding]})
    cluster.kubectl("apply", "-f", "-", input=objects)
    try:
        wait_until(lambda: not _takes_tokens(cluster, namespace), what="the policy at work")
        yield
    finally:
        cluster.kubectl("delete", "-f", "-", input=objects)
    wait_until(lambda: _takes_tokens(cluster, namespace), what="the end of the policy")


def _takes_tokens(cluster: Cluster, namespace: str) -> bool:
    """Tell whether the API server would take a Secret with an access token."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "trial"}, "data": {"access_token": "eA=="}}
    trial = ("create", "--dry-run=server", "--namespace", namespace, "-f", "-")
    try:
        cluster.kubectl(*trial, input=json.dumps(secret))
    except KubectlError:
        return False
    return True
