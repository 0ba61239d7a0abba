"""Dates and `Retry-After` in the fields of an HTTP answer."""

import pytest

from tuinly_operator.base.http_times import MAX_RETRY_AFTER, parse_http_date, parse_retry_after

DATE, AT = "Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0


@pytest.mark.parametrize("text", [DATE, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"])
def test_each_form_of_a_date_is_understood(text: str) -> None:
    assert parse_http_date(text) == AT


@pytest.mark.parametrize("text", ["", "now", "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 CET", "12"])
def test_anything_else_is_no_date(text: str) -> None:
    assert parse_http_date(text) is None


@pytest.mark.rule("LIM-9")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("17", 17.0),
        ("300", MAX_RETRY_AFTER),
        ("301", MAX_RETRY_AFTER),
        ("9" * 400, MAX_RETRY_AFTER),
        (DATE, 20.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
    ],
)
def test_retry_after_is_heeded_in_seconds_or_by_a_date_and_up_to_a_bound(text: str, seconds: float | None) -> None:
    assert parse_retry_after(text, AT - 20) == seconds


def test_a_date_of_the_past_asks_for_no_wait_and_one_of_the_far_future_for_the_longest() -> None:
    assert parse_retry_after(DATE, AT + 1) == 0
    assert parse_retry_after(DATE, AT - 1e6) == MAX_RETRY_AFTER


def test_without_a_clock_a_date_tells_nothing() -> None:
    assert parse_retry_after(DATE) is None
    assert parse_retry_after("17") == 17
