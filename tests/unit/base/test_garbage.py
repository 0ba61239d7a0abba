"""What a long collection has left is looked at no more, until a day has passed; a short one changes nothing."""

import gc
from collections.abc import Iterator

import pytest

from tuinly_operator.base.garbage import AGAIN, LONG, Garbage

FULL = {"generation": 2}


class Times:
    def __init__(self) -> None:
        self.cpu = self.now = 0.0
        self.garbage = Garbage(lambda: self.cpu, lambda: self.now)

    def collects(self, seconds: float, generation: int = 2) -> int:
        """A collection takes so long; return how many containers are set aside then."""
        details = {"generation": generation}
        self.garbage._heard("start", details)  # noqa: SLF001 -- what Python calls
        self.cpu += seconds
        self.garbage._heard("stop", details)  # noqa: SLF001 -- the same
        return gc.get_freeze_count()


@pytest.fixture
def times() -> Iterator[Times]:
    gc.unfreeze()
    yield Times()
    gc.unfreeze()


@pytest.mark.parametrize(
    ("seconds", "generation", "set_aside"),
    [(LONG, 2, True), (LONG * 0.99, 2, False), (LONG, 1, False), (LONG, 0, False)],
)
def test_what_a_long_full_collection_has_left_is_set_aside(
    times: Times, seconds: float, generation: int, *, set_aside: bool
) -> None:
    assert (times.collects(seconds, generation) > 0) is set_aside


def test_each_collection_is_timed_for_itself(times: Times) -> None:
    for _ in range(10):
        assert times.collects(LONG / 2) == 0


def test_what_others_have_set_aside_stays(times: Times) -> None:
    """The modules, such as they are at the start: where no collection is long, nothing would set them aside again."""
    gc.freeze()
    before = gc.get_freeze_count()
    times.now = AGAIN
    assert times.collects(LONG / 2) == before


def test_once_a_day_all_is_looked_at_again(times: Times) -> None:
    assert times.collects(2 * LONG) > 0
    times.now = AGAIN - 1
    assert times.collects(0) > 0
    times.now = AGAIN
    assert times.collects(2 * LONG) == 0
    assert times.collects(2 * LONG) > 0
    times.now = 2 * AGAIN - 1
    assert times.collects(0) > 0
    times.now = 2 * AGAIN
    assert times.collects(0) == 0


def test_what_is_set_aside_is_freed_once_nobody_refers_to_it(times: Times) -> None:
    kept = [[number] for number in range(10_000)]
    before = times.collects(2 * LONG)
    kept.clear()
    assert gc.get_freeze_count() <= before - 10_000


def test_it_watches_the_collections_of_its_process(times: Times) -> None:
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    times.garbage.watch()
    try:
        assert times.collects(2 * LONG) > 0
        times.now = AGAIN
        gc.collect()
        assert gc.get_freeze_count() == 0
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks[:] = callbacks
