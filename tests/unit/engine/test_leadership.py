"""The right to act: until when it holds, by the boot clock alone."""

from dataclasses import dataclass

import pytest

from tuinly_operator.base.clock import Moment
from tuinly_operator.engine.leadership import Leadership


@dataclass
class HandClock:
    boot: float = 100.0
    wall: float = 0.0

    def now(self) -> Moment:
        return Moment(self.wall, self.boot)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_a_standby_may_not_act(clock: HandClock) -> None:
    leadership = Leadership(clock)
    assert not leadership.holds()
    assert leadership.until is None


@pytest.mark.parametrize(
    ("boot", "seconds", "holds"), [(100, 0, True), (109.9, 0, True), (110, 0, False), (104, 6, False), (104, 5.9, True)]
)
def test_a_lead_holds_until_it_ends(clock: HandClock, boot: float, seconds: float, *, holds: bool) -> None:
    leadership = Leadership(clock)
    leadership.prolong(110)
    clock.boot = boot
    assert leadership.holds(seconds) is holds
    assert leadership.until == 110


def test_the_wall_clock_says_nothing_of_it(clock: HandClock) -> None:
    leadership = Leadership(clock)
    leadership.prolong(110)
    clock.wall, clock.boot = 1e9, 109.9
    assert leadership.holds()


def test_a_lead_that_was_given_up_holds_no_more(clock: HandClock) -> None:
    leadership = Leadership(clock)
    leadership.prolong(110)
    leadership.end()
    assert not leadership.holds()


def test_the_only_replica_may_always_act(clock: HandClock) -> None:
    leadership = Leadership.alone(clock)
    clock.boot = 1e12
    assert leadership.holds(1e6)
