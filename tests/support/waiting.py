"""Waiting for what happens elsewhere: polled, with a deadline, never slept for."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")


def wait_until(condition: Callable[[], Seen], *, what: str, seconds: float = 30.0) -> Seen:
    """Return what `condition` returns as soon as that is true in Python's sense.

    Raises:
        TimeoutError: it was not within `seconds`; the message says `what` was expected.
    """
    deadline = time.monotonic() + seconds
    while not (seen := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return seen


def eventually(check: Callable[[], Seen], *, seconds: float = 30.0) -> Seen:
    """Return what `check` returns as soon as its assertions hold; until then it is called ten times a second.

    Raises:
        AssertionError: the last one, where they did not hold within `seconds`. It tells more than a time-out could.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
