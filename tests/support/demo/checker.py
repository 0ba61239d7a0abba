"""The checker: holds what the story says against what is, and tells the narrator."""

import time
from collections.abc import Callable
from typing import Final

from tests.support.demo.narrator import Narrator
from tests.support.progress import Progress

Look = Callable[[], str | None]

_PAUSE: Final = 0.02
"""Seconds between two looks at what is to become true."""


class FactError(Exception):
    """A fact of the story does not hold.

    Attributes:
        claim: the fact.
        seen: what was seen instead; never a secret.
    """

    def __init__(self, claim: str, seen: str) -> None:
        """Describe both."""
        super().__init__(f"{claim}: {seen}")
        self.claim = claim
        self.seen = seen


def require(held: object, seen: str) -> None:
    """Let a look at the world fail with what it `seen`, unless the fact `held`.

    Raises:
        AssertionError: it did not.
    """
    if not held:
        raise AssertionError(seen)


class Checker:
    """Checks facts, one per call.

    Attributes:
        held: how many held.
    """

    def __init__(self, narrator: Narrator) -> None:
        """Facts that hold are told to `narrator`."""
        self._narrator = narrator
        self.held = 0

    def __call__(self, claim: str, look: Look, *, within: float = 0.0, expected: float | None = None) -> None:
        """Check a fact now, or wait until it holds.

        Args:
            claim: the fact, as a person would say it.
            look: raises AssertionError with what it sees as long as the fact does not hold; then it returns what more
                there is to tell, if anything.
            within: the seconds that it may take to come true.
            expected: the seconds that it usually takes, for a reader who waits.

        Raises:
            FactError: it does not hold in time.
        """
        more = self._await(claim, look, within, expected)
        self.held += 1
        self._narrator.holds(f"{claim}: {more}" if more else claim)

    def _await(self, claim: str, look: Look, within: float, expected: float | None) -> str | None:
        deadline = time.monotonic() + within
        progress = Progress(f"  … until {claim}", expected, stream=self._narrator.stream)
        while True:
            try:
                return look()
            except AssertionError as error:
                if time.monotonic() >= deadline:
                    raise FactError(claim, str(error)) from None
            progress.tick()
            time.sleep(_PAUSE)
