"""Keeps equal texts in memory only once, if they are short: a bounded number of them, the latest that came by.

Python can do that itself (`sys.intern`), but since 3.12 it never frees what was interned. New names, versions and
times never cease to come, and anybody may invent more of them.
"""

from functools import lru_cache
from typing import Final

_MOST: Final = 8192
_LONGEST: Final = 128  # characters
_MOST_SETS: Final = 256
_LARGEST_SET: Final = 32


def share(text: str) -> str:
    """An equal text: the one in memory already, if it is short and came by lately, else this one."""
    return _text(text) if len(text) <= _LONGEST else text


def share_all(texts: frozenset[str]) -> frozenset[str]:
    """An equal set of texts: the one in memory already, if it is small and came by lately, else this one."""
    if len(texts) > _LARGEST_SET or any(len(text) > _LONGEST for text in texts):
        return texts
    return _texts(texts)


@lru_cache(maxsize=_MOST)
def _text(text: str) -> str:
    return text


@lru_cache(maxsize=_MOST_SETS)
def _texts(texts: frozenset[str]) -> frozenset[str]:
    return texts
