"""Shortens a history that fails to the fewest faults by which it still does: delta debugging over the list of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tests.simulation.faults import Fault
from tests.simulation.history import Result, play

SECONDS: Final = 180.0  # for one history: what is shortest by then is told


def _silent(_: str) -> None:
    pass


def shortest(
    result: Result, *, seconds: float = SECONDS, tell: Callable[[str], None] = _silent
) -> tuple[list[Fault], str]:
    """The fewest faults found by which the history of this seed still breaks a rule, and how it then does.

    (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002: ddmin.) Everything else of the
    history is drawn apart from the faults, and so stays as it is. `tell` is told how far it is, try by try.
    """
    kept, broken = list(result.faults), result.broken
    parts, tries, end = 2, 0, time.monotonic() + seconds
    while kept:
        for fewer in _without_a_part(kept, parts):
            if time.monotonic() > end:
                tell(f"no shorter one within {seconds:.0f} s")
                return kept, broken
            tries += 1
            tell(f"try {tries}: {len(fewer)} of {len(kept)} faults")
            if told := play(result.seed, fewer).broken:
                kept, broken, parts = fewer, told, max(2, parts - 1)
                break
        else:
            if len(kept) < 2 * parts:
                break
            parts = min(len(kept), 2 * parts)
    return kept, broken


def _without_a_part(faults: Sequence[Fault], parts: int) -> Iterator[list[Fault]]:
    """The faults without one of so many parts of them, each in turn."""
    size = max(1, len(faults) // parts)
    for start in range(0, len(faults), size):
        yield [*faults[:start], *faults[start + size :]]
