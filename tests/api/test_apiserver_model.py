"""The tests' model of the API server, held against the real one: the same requests get the same answers."""

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from random import Random

import pytest

from tests.simulation.comparison.players import Model, Real
from tests.simulation.comparison.random_steps import Sequence as RandomSequence
from tests.simulation.comparison.sameness import Names
from tests.simulation.comparison.steps import Step, play, request
from tests.support.cluster import Cluster

SEEDS = range(25)


@pytest.fixture(scope="module")
def real(cluster: Cluster) -> Iterator[Real]:
    """Return the real API server."""
    player = Real(cluster)
    yield player
    player.close()


def assert_same(real: Real, steps: Sequence[Step]) -> None:
    """The model and the real one give the same answers to a sequence of requests, in a new namespace."""
    namespace = f"test-{secrets.token_hex(4)}"
    told = []
    for player in (Model(), real):
        player.send(request(Step("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}}), (), namespace))
        names = Names(namespace)
        told.append([(each.status, names.comparable(each.body)) for each in play(player, steps, namespace)])
        player.send(request(Step("DELETE", "/api/v1/namespaces/NS"), (), namespace))
    for step, ours, theirs in zip(steps, *told, strict=True):
        assert ours == theirs, json.dumps(asdict(step))


@pytest.mark.parametrize("seed", SEEDS)
def test_random_requests_get_the_same_answers(real: Real, seed: int) -> None:
    random = Random(seed)  # noqa: S311 - no secret
    assert_same(real, RandomSequence(random).draw(30))
