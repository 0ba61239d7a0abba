"""The Lease on the real API server: which writes it takes, since the election stands on that."""

from collections.abc import AsyncIterator
from dataclasses import replace
from http import HTTPStatus

import pytest

from tests.support.cluster import Cluster
from tuinly_operator.credential import Key
from tuinly_operator.kube import ApiFailure, Kube, Lease, connect

HELD = Lease("one", 15)


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    """Return the operator's way to the API server."""
    connection = await connect(cluster.kubeconfig, "", lambda _: None)
    yield connection
    await connection.close()


@pytest.fixture
def key(namespace: str) -> Key:
    return Key(namespace, "tuinly-operator")


def delete(cluster: Cluster, key: Key) -> None:
    cluster.kubectl("delete", "lease", key.name, "-n", key.namespace)


async def assert_conflict(kube: Kube, key: Key, lease: Lease) -> None:
    """It is not taken, and what was there is there still."""
    before = await kube.read_lease(key)
    with pytest.raises(ApiFailure) as refusal:
        await kube.write_lease(key, lease)
    assert refusal.value.status == HTTPStatus.CONFLICT
    assert await kube.read_lease(key) == before


async def test_a_lease_is_made_once_and_replaced_by_who_knows_its_version(kube: Kube, key: Key) -> None:
    assert await kube.read_lease(key) is None
    made = await kube.write_lease(key, HELD)
    await assert_conflict(kube, key, HELD)
    renewed = await kube.write_lease(key, made)
    assert renewed == replace(made, version=renewed.version) != made
    await assert_conflict(kube, key, made)
    assert await kube.read_lease(key) == renewed


async def test_a_lease_without_a_holder_is_made_and_taken(kube: Kube, key: Key) -> None:
    made = await kube.write_lease(key, Lease("", 15))
    assert made == Lease("", 15, 0, made.version, made.uid)
    taken = await kube.write_lease(key, replace(made, holder="one"))
    assert (taken.holder, taken.uid) == ("one", made.uid)


async def test_a_deleted_lease_does_not_come_back_by_a_late_write(cluster: Cluster, kube: Kube, key: Key) -> None:
    """Nor is one that was made in its place overwritten."""
    made = await kube.write_lease(key, HELD)
    delete(cluster, key)
    await assert_conflict(kube, key, made)
    await kube.write_lease(key, HELD)
    await assert_conflict(kube, key, made)


async def test_without_its_uid_a_deleted_lease_would_come_back(cluster: Cluster, kube: Kube, key: Key) -> None:
    """What the operator's model of the API server takes for granted: of Leases, a PUT creates what is not there."""
    made = await kube.write_lease(key, HELD)
    delete(cluster, key)
    made_again = await kube.write_lease(key, replace(made, uid=""))
    assert made_again.uid not in ("", made.uid)
