"""Shortens a history that fails to the fewest faults by which it still does: delta debugging over the list of them."""

from collections.abc import Sequence

from tests.simulation.faults import Fault
from tests.simulation.history import Result, play

_MOST_TRIES = 200


def shortest(result: Result) -> tuple[list[Fault], str]:
    """The fewest faults found by which the history of this seed still breaks a rule, and how it then does.

    (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002: ddmin.) Everything else of the
    history is drawn apart from the faults, and so stays as it is.
    """
    kept, broken = list(result.faults), result.broken
    parts, tries = 2, 0
    while len(kept) > 0 and tries < _MOST_TRIES:
        size = max(1, len(kept) // parts)
        for start in range(0, len(kept), size):
            tries += 1
            fewer = [*kept[:start], *kept[start + size :]]
            if told := _fails(result.seed, fewer):
                kept, broken, parts = fewer, told, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(kept), 2 * parts)
    return kept, broken


def _fails(seed: int, faults: Sequence[Fault]) -> str:
    return play(seed, faults).broken
