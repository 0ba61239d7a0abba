"""How a seed draws the faults of its history."""

from random import Random
from typing import cast

from tests.simulation.faults import KINDS, PHASES, Fault, draw
from tests.simulation.history import History


class Seeded:
    """A history, as far as the faults' draw knows it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def chance(self, what: str) -> Random:
        return Random(f"{self.seed} {what}")  # noqa: S311 -- the same each time


def drawn(seed: int) -> list[Fault]:
    return draw(cast("History", Seeded(seed)))


def test_a_seed_draws_the_same_each_time_and_another_seed_something_else() -> None:
    assert drawn(4) == drawn(4) != drawn(5)


def test_a_few_hundred_histories_in_a_row_have_each_kind_at_each_phase_and_most_have_few_kinds() -> None:
    histories = [drawn(seed) for seed in range(1, 301)]
    met = {(fault.kind, fault.phase) for faults in histories[2::3] for fault in faults}
    assert met == {(kind, phase) for kind in KINDS for phase in PHASES}
    assert sum(len({fault.kind for fault in faults}) <= 8 for faults in histories) >= 200
