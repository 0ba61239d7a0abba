"""Clocks: deadlines that are due by whichever clock gets there first, and times as Kubernetes writes them."""

import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuinly_operator.base.clock import Deadline, Moment, SystemClock, parse_rfc3339, rfc3339

NOW = Moment(wall=1_795_503_600.0, boot=1000.0)
SECONDS = st.integers(-(10**6), 10**6)


@pytest.mark.rule("CLOCK-1")
@pytest.mark.parametrize(
    ("wall", "boot", "due"),
    [
        (59, 59, False),
        (60, 60, True),
        (61, 61, True),
        (-3600, 60, True),  # the wall clock was set back
        (60, 0, True),  # the wall clock was set forward, or boot time is another boot's
        (-3600, 59, False),
    ],
)
def test_a_deadline_is_due_once_either_clock_has_reached_it(wall: float, boot: float, *, due: bool) -> None:
    deadline = Deadline.after(60, NOW)
    later = Moment(NOW.wall + wall, NOW.boot + boot)
    assert deadline.due(later) is due
    assert (deadline.remaining(later) <= 0) is due


@given(SECONDS)
def test_a_deadline_at_a_time_is_one_after_the_seconds_until_then(seconds: int) -> None:
    deadline = Deadline.at(NOW.wall + seconds, NOW)
    assert deadline == Deadline.after(seconds, NOW)
    assert deadline.remaining(NOW) == seconds
    assert deadline.due(NOW) is (seconds <= 0)


@given(SECONDS, SECONDS, SECONDS, SECONDS)
def test_of_two_deadlines_the_earlier_is_due_exactly_when_one_of_them_is(a: int, b: int, wall: int, boot: int) -> None:
    one, other = Deadline.after(a, NOW), Deadline.after(b, NOW)
    later = Moment(NOW.wall + wall, NOW.boot + boot)
    assert one.earlier(other).due(later) is (one.due(later) or other.due(later))
    assert one.earlier(other) == other.earlier(one)


def test_a_deadline_is_earlier_than_none() -> None:
    assert Deadline.after(60, NOW).earlier(None) == Deadline.after(60, NOW)


def test_the_system_clock_reads_the_wall_clock_and_time_since_boot() -> None:
    before_wall, before_boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    now = SystemClock().now()
    assert before_wall <= now.wall <= time.time()
    assert before_boot <= now.boot <= time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_795_503_600, "2026-11-24T07:00:00Z"),
        (1_795_503_600.999, "2026-11-24T07:00:00Z"),  # cut: a token never expires later than its answer said
    ],
)
def test_times_are_written_as_kubernetes_does(wall: float, text: str) -> None:
    assert rfc3339(wall) == text


@given(st.integers(0, 253_402_300_799))  # until the year 9999
def test_a_time_round_trips(wall: int) -> None:
    assert parse_rfc3339(rfc3339(wall)) == wall


@pytest.mark.parametrize(
    "text",
    ["2026-11-24T07:00:00Z", "2026-11-24T07:00:00.000000Z", "2026-11-24T08:30:00+01:30", "2026-11-24T07:00:00+00:00"],
)
def test_times_with_any_zone_are_read(text: str) -> None:
    assert parse_rfc3339(text) == datetime.fromisoformat("2026-11-24T07:00:00+00:00").timestamp()


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-11-24T07:00:00", "2026-11-24", "2026-13-24T07:00:00Z", "1795503600"]
)
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_rfc3339(text)
