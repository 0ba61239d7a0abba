"""Writes of a credential's status on the real API server: for which credential they are, and what they replace."""

import pytest

from tests.support.cluster import Cluster
from tests.support.objects import Json, Objects
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import Revision, Status, to_json
from tuinly_operator.edges.kube import ApiFailure, Kube

STATUS: Json = to_json(Status(observed_generation=1, secret_name="storefront-token"))
OTHER: Json = to_json(Status(observed_generation=2, token_url="https://oauth.example.com/token"))


@pytest.fixture
def objects(cluster: Cluster, namespace: str) -> Objects:
    return Objects(cluster, namespace)


def make(objects: Objects) -> str:
    """Make the credential; return its uid."""
    spec = {"clientSecretRef": {"name": "storefront-client"}}
    meta = {"name": "storefront"}
    made = objects.apply(
        {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "metadata": meta, "spec": spec}
    )
    return str(made["metadata"]["uid"])


@pytest.mark.rule("ABS-6")
async def test_a_status_replaces_the_one_before(kube: Kube, objects: Objects) -> None:
    """What it does not say is gone."""
    uid = make(objects)
    key = NamespacedName(objects.namespace, "storefront")
    await kube.write_status(key, uid, STATUS)
    version, revision = await kube.write_status(key, uid, OTHER)
    after = objects.get("TuinlyCredential", "storefront")
    assert after["metadata"]["resourceVersion"] == version
    assert Revision.of(after["metadata"]) == revision
    assert after["status"] == {name: value for name, value in OTHER.items() if value is not None}


@pytest.mark.rule("ABS-6")
async def test_a_late_status_does_not_come_to_a_credential_that_was_made_again(kube: Kube, objects: Objects) -> None:
    """By its uid, which no merge patch of the status would look at."""
    old = make(objects)
    objects.delete("TuinlyCredential", "storefront")
    new = make(objects)
    before = objects.get("TuinlyCredential", "storefront")
    with pytest.raises(ApiFailure) as refused:
        await kube.write_status(NamespacedName(objects.namespace, "storefront"), old, STATUS)
    assert refused.value.status == 422
    assert objects.get("TuinlyCredential", "storefront") == before
    assert new != old
