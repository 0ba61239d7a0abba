"""The TuinlyCredential's schema as data, objects that fit it, and the API server's judgement of them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

Json = dict[str, Any]

FILE = Path(__file__).parents[2] / "crds" / "tuinlycredentials.yaml"
CASES = Path(__file__).parents[1] / "api" / "crd_cases"
CRD: Json = yaml.safe_load(FILE.read_text())
VERSION: Json = CRD["spec"]["versions"][0]
SCHEMA: Json = VERSION["schema"]["openAPIV3Schema"]

GOOD: Json = {
    "apiVersion": "tuinly.com/v1alpha1",
    "kind": "TuinlyCredential",
    "metadata": {"name": "storefront"},
    "spec": {"clientSecretRef": {"name": "storefront-client"}},
}
"""The least that one can write; tests change it by merge patches."""


@dataclass(frozen=True)
class Case:
    """One row of the case files: a change to the good object, and what the API server says to it.

    Attributes:
        name: what is tried.
        patch: a JSON merge patch (RFC 7396) to `GOOD`.
        refused: part of the sentence that refuses it; None where it is accepted.
        field: where the error points.
    """

    name: str
    patch: Json
    refused: str | None
    field: str | None


def cases() -> Iterator[Case]:
    """Read the case files; a row with `url` becomes one case for each field that holds a URL."""
    for file in sorted(CASES.glob("*.yaml")):
        for row in yaml.safe_load(file.read_text()):
            name, refused = f"{file.stem}: {row['name']}", row.get("refused")
            if "url" not in row:
                yield Case(name, row["patch"], refused, row.get("field"))
                continue
            url = row["url"]
            yield Case(f"{name} (token)", {"spec": {"tokenURL": url}}, refused, "spec.tokenURL")
            patch = {"spec": {"verification": {"graphqlURL": url}}}
            yield Case(f"{name} (GraphQL)", patch, refused, "spec.verification.graphqlURL")


def install(cluster: Cluster) -> None:
    """Apply the CRD, and wait until the API server serves the resource."""
    cluster.kubectl("apply", "--server-side", "-f", str(FILE))
    wait_until_served(cluster)


def wait_until_served(cluster: Cluster) -> None:
    """Wait until the API server serves TuinlyCredentials.

    Not by `kubectl wait --for=condition=Established`: that fails as long as the CRD has no conditions at all.
    """
    path = "/apis/tuinly.com/v1alpha1/tuinlycredentials"
    wait_until(lambda: cluster.kubectl("get", "--raw", path, check=False), what="the resource is served")


def walk(schema: Json, path: str) -> Iterator[tuple[str, Json]]:
    """Yield the schema and all below it, with the path as the API server writes it; an item or value is `[]`."""
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from walk(below, f"{path}.{name}")
    for each in ("items", "additionalProperties"):
        if each in schema:
            yield from walk(schema[each], f"{path}[]")


class Credentials:
    """TuinlyCredentials of one namespace, over the API server's own interface, whose errors are data."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        """Log in as the cluster's admin."""
        # Any: the client's parameters are typed one by one, its answers as objects; here both are JSON.
        login: Any = config.new_client_from_config
        self._api: Any = client.CustomObjectsApi(login(str(cluster.kubeconfig)))
        self._where = {
            "group": "tuinly.com",
            "version": "v1alpha1",
            "plural": "tuinlycredentials",
            "namespace": namespace,
        }

    def create(self, body: Json, *, dry: bool = False) -> Json:
        """Create the object, or only let the API server judge it; unknown fields are errors.

        Raises:
            ApiException: it is refused.
        """
        options = {"field_validation": "Strict", **({"dry_run": "All"} if dry else {})}
        created: Json = self._api.create_namespaced_custom_object(**self._where, body=body, **options)
        return created

    def refusal(self, body: Json) -> list[Json]:
        """Return why the API server refuses the object, as the causes of its answer; empty if it accepts it."""
        try:
            self.create(body, dry=True)
        except ApiException as refused:
            causes = json.loads(str(refused.body))["details"]["causes"]
            # Where a value has the wrong type, the API server adds that it could not go on to the CEL rules.
            return [cause for cause in causes if cause["field"] != "<nil>"]
        return []

    def patch_status(self, name: str, status: Json) -> Json:
        """Merge `status` into the object's status subresource and return the object.

        Raises:
            ApiException: it is refused.
        """
        patch = {"status": status}
        patched: Json = self._api.patch_namespaced_custom_object_status(**self._where, name=name, body=patch)
        return patched
