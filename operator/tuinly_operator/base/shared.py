"""Texts that stand in many places are kept once: a bounded number of short ones, the latest that were met.

Python can do that itself (`sys.intern`), but Python 3.12 never frees what was interned, and there is no end of times,
names and versions; and anybody may invent more of all of them.
"""

from functools import lru_cache
from typing import Final

_MOST: Final = 8192
_LONGEST: Final = 128  # characters
_MOST_SETS: Final = 256
_LARGEST_SET: Final = 32


def share(text: str) -> str:
    """An equal text: the one that is kept already, if it is short, and has been met lately."""
    return _text(text) if len(text) <= _LONGEST else text


def share_all(texts: frozenset[str]) -> frozenset[str]:
    """An equal set of texts: the one that is kept already, if it is small, and has been met lately."""
    if len(texts) > _LARGEST_SET or any(len(text) > _LONGEST for text in texts):
        return texts
    return _texts(texts)


@lru_cache(maxsize=_MOST)
def _text(text: str) -> str:
    return text


@lru_cache(maxsize=_MOST_SETS)
def _texts(texts: frozenset[str]) -> frozenset[str]:
    return texts
