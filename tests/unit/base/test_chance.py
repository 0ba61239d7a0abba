"""Waits are drawn from a generator that is handed in, below a bound that doubles and ends."""

import pytest

from tuinly_operator.base.chance import Chance, backoff


@pytest.mark.parametrize(("failures", "bound"), [(0, 0.1), (1, 0.2), (5, 3.2), (6, 5.0), (1_000_000, 5.0)])
def test_the_bound_doubles_with_each_failure_and_is_drawn_below_however_many_there_are(
    failures: int, bound: float
) -> None:
    chance = Chance(1)
    waits = [backoff(chance, failures, first=0.1, most=5.0) for _ in range(1000)]
    assert 0 <= min(waits) < bound / 10
    assert bound * 0.9 < max(waits) <= bound


def test_the_same_generator_draws_the_same() -> None:
    one, other = ([backoff(Chance(7), failures, first=1, most=60) for failures in range(9)] for _ in range(2))
    assert one == other
