"""Chance that is handed in, and the waits that are drawn from it."""

from random import Random
from typing import Final

Chance = Random  # a generator that somebody made and hands down; nothing draws from Python's own, which all share

_MOST_DOUBLINGS: Final = 30  # far above any bound; a power of two that no float can hold would raise OverflowError


def backoff(chance: Chance, failures: int, *, first: float, most: float) -> float:
    """Seconds to wait before another try: drawn from 0 up to a bound that doubles with each of `failures` in a row.

    The bound is `first` seconds before any failure, and `most` in the end. The whole of it is drawn ("full jitter"), so
    that those who failed together do not come back together.
    """
    return chance.uniform(0, min(most, first * 2.0 ** min(failures, _MOST_DOUBLINGS)))
