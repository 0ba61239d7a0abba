"""The garbage collector: how often it runs, and that it does not hold up everything for long.

It finds what is garbage in cycles alone, and for that it looks at all containers that live, while nothing else happens.
All other garbage is freed without it.
"""

import gc
from collections.abc import Callable
from typing import Final

# After so many new containers it runs, on the young ones; at the fifth such run on those that outlived one, too; and at
# the second of these on all, if they have become a quarter more. With Python's usual 700 it would run all the time
# while thousands of objects are listed: a third of a start's CPU with 10,000 credentials. Most garbage in cycles, which
# kopf and httpx make, is as short-lived as an event. All are looked at so often that what is new by then takes some
# 25 ms, and is set aside; after 60 runs in place of 2, a start with 10,000 credentials was held up for 0.4 s.
_THRESHOLDS: Final = (4_000, 4, 1)
_FULL: Final = 2  # the generation of a collection that looks at all
LONG: Final = 0.02
"""Seconds of CPU that a full collection takes, after which what it has left is set aside."""
AGAIN: Final = 24 * 3600.0
"""Seconds after which all of that is to be looked at by the next full collection."""


class Garbage:
    """Lets no collection look at what a long one has found to live: with 100,000 credentials each would take a second.

    What is set aside is freed as ever, once nobody refers to it. Only a cycle that was in use at that very moment is
    not found later, and so all is looked at again once a day.
    """

    def __init__(self, cpu: Callable[[], float], now: Callable[[], float]) -> None:
        """`cpu` tells the CPU time of the thread that calls it, `now` the time, both in seconds."""
        self._cpu = cpu
        self._now = now
        self._began = 0.0
        self._looked = now()  # when all was looked at
        self._aside = False  # whether anything was set aside here

    def watch(self) -> None:
        """From now on, watch the collections."""
        gc.set_threshold(*_THRESHOLDS)
        gc.callbacks.append(self._heard)

    def _heard(self, phase: str, details: dict[str, int]) -> None:
        """A collection begins or ends, on whatever thread it came upon."""
        if details["generation"] != _FULL:
            return
        if phase == "start":
            self._began = self._cpu()
        elif self._aside and self._now() - self._looked >= AGAIN:
            self._looked, self._aside = self._now(), False
            gc.unfreeze()
        elif self._cpu() - self._began >= LONG:
            self._aside = True
            gc.freeze()
