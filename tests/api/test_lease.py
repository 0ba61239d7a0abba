"""The Lease on the real API server: which writes it takes, and that the election gets along with whatever it holds."""

import asyncio
import itertools
from dataclasses import replace
from http import HTTPStatus
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.support.cluster import Cluster
from tuinly_operator.base.chance import Chance
from tuinly_operator.base.clock import Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.edges.election import Election
from tuinly_operator.edges.kube import ApiFailure, Kube, Lease, connect
from tuinly_operator.engine.leadership import Leadership

HELD = Lease("one", 15)
NOW = count(1_800_000_000)  # each write is another moment: one that changes nothing is no write to the API server


@pytest.fixture
def key(namespace: str) -> NamespacedName:
    return NamespacedName(namespace, "tuinly-operator")


def delete(cluster: Cluster, key: NamespacedName) -> None:
    cluster.kubectl("delete", "lease", key.name, "-n", key.namespace)


async def assert_conflict(kube: Kube, key: NamespacedName, lease: Lease) -> None:
    """It is not taken, and what was there is there still."""
    before = await kube.read_lease(key)
    with pytest.raises(ApiFailure) as refusal:
        await kube.write_lease(key, lease, at=next(NOW))
    assert refusal.value.status == HTTPStatus.CONFLICT
    assert await kube.read_lease(key) == before


async def test_a_lease_is_made_once_and_replaced_by_who_knows_its_version(kube: Kube, key: NamespacedName) -> None:
    assert await kube.read_lease(key) is None
    made = await kube.write_lease(key, HELD, at=next(NOW))
    await assert_conflict(kube, key, HELD)
    renewed = await kube.write_lease(key, made, at=next(NOW))
    assert renewed == replace(made, version=renewed.version) != made
    await assert_conflict(kube, key, made)
    assert await kube.read_lease(key) == renewed


async def test_a_lease_without_a_holder_is_made_and_taken(kube: Kube, key: NamespacedName) -> None:
    made = await kube.write_lease(key, Lease("", 15), at=next(NOW))
    assert made == Lease("", 15, 0, made.version, made.uid)
    taken = await kube.write_lease(key, replace(made, holder="one"), at=next(NOW))
    assert (taken.holder, taken.uid) == ("one", made.uid)


@pytest.mark.rule("REPL-8")
async def test_a_deleted_lease_does_not_come_back_by_a_late_write(
    cluster: Cluster, kube: Kube, key: NamespacedName
) -> None:
    """Nor is one that was made in its place overwritten."""
    made = await kube.write_lease(key, HELD, at=next(NOW))
    delete(cluster, key)
    await assert_conflict(kube, key, made)
    await kube.write_lease(key, HELD, at=next(NOW))
    await assert_conflict(kube, key, made)


async def test_without_its_uid_a_deleted_lease_would_come_back(
    cluster: Cluster, kube: Kube, key: NamespacedName
) -> None:
    """What the operator's model of the API server takes for granted: of Leases, a PUT creates what is not there."""
    made = await kube.write_lease(key, HELD, at=next(NOW))
    delete(cluster, key)
    made_again = await kube.write_lease(key, replace(made, uid=""), at=next(NOW))
    assert made_again.uid not in ("", made.uid)


@pytest.mark.rule("REPL-10")
async def test_whether_an_operator_gave_it_up_or_somebody_made_it_look_so_is_known(
    cluster: Cluster, kube: Kube, key: NamespacedName
) -> None:
    made = await kube.write_lease(key, HELD, at=next(NOW))
    given_up = await kube.write_lease(key, replace(made, holder="", seconds=1), at=next(NOW))
    held = await kube.write_lease(key, replace(given_up, holder="one", seconds=15), at=next(NOW))
    patch = '{"spec": {"holderIdentity": null, "leaseDurationSeconds": 1}}'
    cluster.kubectl("patch", "lease", key.name, "-n", key.namespace, "--type=merge", "-p", patch)
    edited = await kube.read_lease(key)
    assert [each.ours for each in (made, given_up, held)] == [True, True, True]
    assert edited == replace(given_up, version=edited.version if edited else "", ours=False)


# --- Whatever it holds ------------------------------------------------------------------------------------------------

LONGEST = 65.0
"""Seconds within which somebody must lead once the holder is gone, whatever the Lease says."""
MOST = 2**31 - 1

times = st.none() | st.builds(
    "{:04}-{:02}-{:02}T23:59:59.999999Z".format, st.integers(1, 9999), st.integers(1, 12), st.integers(1, 28)
)
names = st.none() | st.just("x" * 253) | st.text(max_size=300)
numbers = st.sampled_from([0, 1, 15, 3600, MOST - 1, MOST]) | st.integers(0, MOST)
labels = st.dictionaries(st.sampled_from(["a", "tuinly.com/b"]), st.sampled_from(["", "c"]), max_size=2)
specs = st.fixed_dictionaries(
    {},
    optional={
        "holderIdentity": names,
        "leaseDurationSeconds": st.none() | numbers,
        "leaseTransitions": st.none() | numbers,
        "acquireTime": times,
        "renewTime": times,
        "strategy": st.none() | st.sampled_from(["OldestEmulationVersion", "example.com/other"]),
        "preferredHolder": names,
    },
)


class HastyClock:
    """A clock whose time passes as it is told to."""

    def __init__(self) -> None:
        self.boot = 1000.0

    def now(self) -> Moment:
        return Moment(0.0, self.boot)


async def spoil(kube: Kube, key: NamespacedName, spec: Any, meta: Any) -> bool:  # noqa: ANN401 - JSON
    """Write this into the Lease as somebody else; return whether the API server takes it."""
    before = await kube.read_lease(key) or await kube.write_lease(key, HELD, at=next(NOW))
    meta = meta | {"name": key.name, "namespace": key.namespace, "resourceVersion": before.version}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
    path = f"/apis/coordination.k8s.io/v1/namespaces/{key.namespace}/leases/{key.name}"
    try:
        await kube.ask("PUT", path, body=body)  # raw, as nothing of ours writes it
    except ApiFailure as failure:
        if failure.status not in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
            raise
        return False
    return True


async def until_led(kube: Kube, key: NamespacedName) -> float:
    """Have a new replica take part; return how many seconds by its clock passed until it led."""
    clock = HastyClock()
    begin, leadership = clock.boot, Leadership(clock)
    election = Election(
        kube,
        key,
        "new",
        clock,
        leadership,
        chance=Chance(),
        unfit=lambda: "",
        promoted=lambda _: None,
        demoted=lambda: None,
    )
    while True:
        await election.look()
        if leadership.holds() or clock.boot - begin > LONGEST:
            return clock.boot - begin
        clock.boot += election.pause() + 0.01


@pytest.mark.rule("REPL-7")
@pytest.mark.parametrize("field", ["leaseTransitions", "leaseDurationSeconds"])
async def test_the_largest_numbers_keep_nobody_out(kube: Kube, key: NamespacedName, field: str) -> None:
    """Counted up, the first would be refused for ever; the second is 68 years."""
    assert await spoil(kube, key, {"holderIdentity": "gone", field: MOST}, {})
    assert await until_led(kube, key) <= LONGEST
    lease = await kube.read_lease(key)
    assert lease is not None
    assert lease.holder == "new"


@pytest.mark.rule("REPL-7")
def test_whatever_a_lease_holds_somebody_leads(cluster: Cluster, key: NamespacedName) -> None:
    """Generated: whatever the API server takes in any field."""
    tried = itertools.count()

    async def tell(spec: Any, meta: Any) -> bool:  # noqa: ANN401 - JSON
        kube = await connect(cluster.kubeconfig)
        try:
            taken = await spoil(kube, key, spec, meta)
            assert not taken or await until_led(kube, key) <= LONGEST
            return taken
        finally:
            await kube.close()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(spec=specs, meta=st.fixed_dictionaries({}, optional={"labels": labels, "annotations": labels}))
    def story(spec: Any, meta: Any) -> None:  # noqa: ANN401 - JSON
        assume(asyncio.run(tell(spec, meta)))
        next(tried)

    story()
    assert next(tried) >= 10
