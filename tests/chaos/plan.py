"""What happens when: bursts of faults, and the calm after each, all drawn from one number. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.chaos.kinds import KINDS

BURST: Final = (30.0, 60.0)
"""Seconds that a burst lasts."""
CALM: Final = (150.0, 170.0)
"""Seconds of calm after it."""
FAULTS: Final = (3, 6)
"""How many faults a burst has, of those that take something that there is once."""
OFTEN: Final = (1, 3)
"""How often each of the others strikes in it."""


@dataclass(frozen=True)
class Planned:
    """A fault to come.

    Attributes:
        at: When, in seconds from the start of the run.
        seconds: For how long.
        chance: From 0 to 1: what else there is to choose about it.
    """

    kind: str
    at: float
    seconds: float
    chance: float

    @property
    def end(self) -> float:
        """When it is over."""
        return self.at + self.seconds


@dataclass(frozen=True)
class Burst:
    """Faults from a moment on until another, in seconds from the start of the run. What is after it is calm."""

    at: float
    end: float
    faults: tuple[Planned, ...]


def draw(seed: int, first: float, seconds: float, kinds: Sequence[str] = tuple(KINDS)) -> tuple[Burst, ...]:
    """Draw the bursts of a run of so many seconds, the first of which begins at `first`; the last calm is whole."""
    chance = Random(seed)  # noqa: S311 -- the same each time: that is the point
    deck = _Deck(chance, [kind for kind in kinds if KINDS[kind].takes])
    others = [kind for kind in kinds if not KINDS[kind].takes]
    bursts: list[Burst] = []
    at = first
    while (room := seconds - CALM[0] - at) >= BURST[0]:
        end = at + min(chance.uniform(*BURST), room)
        names = deck.hand(chance.randint(*FAULTS)) + [kind for kind in others for _ in range(chance.randint(*OFTEN))]
        faults = sorted((_placed(chance, name, at, end) for name in names), key=lambda fault: fault.at)
        bursts.append(Burst(at, end, tuple(faults)))
        at = end + chance.uniform(*CALM)
    return tuple(bursts)


def _placed(chance: Random, name: str, at: float, end: float) -> Planned:
    """Draw when a fault strikes within a burst, and for how long."""
    kind = KINDS[name]
    seconds = min(chance.uniform(kind.least, kind.most), end - at)
    return Planned(name, chance.uniform(at, end - seconds), seconds, chance.random())


class _Deck:
    """Kinds like a pack of cards: none comes a second time before all others have come, as far as they fit."""

    def __init__(self, chance: Random, kinds: Sequence[str]) -> None:
        self._chance = chance
        self._kinds = kinds
        self._cards: list[str] = []

    def hand(self, count: int) -> list[str]:
        """Return so many kinds that take nothing that another of them takes; fewer, where there are no more."""
        hand: list[str] = []
        for _ in range(count):
            if (card := self._next(hand) or self._shuffled(hand)) is None:
                break
            hand.append(card)
        return hand

    def _next(self, hand: Sequence[str]) -> str | None:
        """Take the first card that goes with a hand off the pack."""
        taken = {each for card in hand for each in KINDS[card].takes}
        found = next((card for card in self._cards if taken.isdisjoint(KINDS[card].takes)), None)
        if found is not None:
            self._cards.remove(found)
        return found

    def _shuffled(self, hand: Sequence[str]) -> str | None:
        """The same, after another pack was put under it."""
        self._cards += self._chance.sample(self._kinds, len(self._kinds))
        return self._next(hand)
