"""Which Events are worth sending."""

import pytest

from tuinly_operator.domain.credential import DELIVERED, READY
from tuinly_operator.domain.errors import Reason
from tuinly_operator.domain.notices import Notice, Notices, Warned

NOW = 5000.0
BAD, OTHER = Reason.INVALID_CLIENT, Reason.INVALID_SCOPE
FAILED, WELL = (
    Notice(warning=True, reason=BAD, message="bad"),
    Notice(warning=False, reason=Reason.ISSUED, message="well"),
)
NOT_DELIVERED, DELIVERED_NOW = FAILED._replace(about=DELIVERED), WELL._replace(about=DELIVERED)


def test_what_an_event_says_is_about_the_token_unless_it_is_said_otherwise() -> None:
    assert (WELL.about, NOT_DELIVERED.about) == (READY, DELIVERED)


@pytest.mark.parametrize(
    ("reason", "message", "later", "news"),
    [
        (BAD, "a", 0, False),
        (BAD, "a", 599.9, False),
        (BAD, "a", 600, True),
        (BAD, "b", 0, True),
        (OTHER, "a", 0, True),
    ],
)
def test_the_same_warning_is_no_news_for_ten_minutes(reason: Reason, message: str, later: float, news: bool) -> None:  # noqa: FBT001 -- a parameter of the table
    assert Notices().is_news(BAD, "a", NOW)
    assert Notices().warned_of(BAD, "a", NOW).is_news(reason, message, NOW + later) is news


def test_a_warning_that_is_no_news_does_not_lengthen_the_ten_minutes() -> None:
    notices = Notices().warned_of(BAD, "a", NOW).warned_of(BAD, "a", NOW + 599)
    assert notices.warned == (Warned(BAD, "a", NOW),)
    assert notices.is_news(BAD, "a", NOW + 600)


def test_what_is_older_than_ten_minutes_is_forgotten_and_so_is_the_oldest_of_too_many() -> None:
    notices = Notices().warned_of(BAD, "old", NOW - 600)
    for number in range(33):
        notices = notices.warned_of(BAD, f"{number}", NOW)
    assert [told.message for told in notices.warned] == [f"{number}" for number in range(1, 33)]
    assert notices.warned_of(BAD, "new", NOW + 600).warned == (Warned(BAD, "new", NOW + 600),)


def test_of_a_condition_the_reason_counts_and_not_the_words() -> None:
    notices = Notices().condition_changed(FAILED, NOW)
    assert notices.warned == (Warned(BAD, "", NOW),)
    assert not notices.is_worth_telling(FAILED._replace(message="worse"), NOW + 1)
    assert notices.is_worth_telling(FAILED._replace(reason=OTHER), NOW + 1)
    assert notices.is_worth_telling(FAILED, NOW + 600)


def test_the_end_of_what_nobody_was_warned_of_is_not_told() -> None:
    told = Notices().condition_changed(FAILED, NOW)
    assert told.is_worth_telling(WELL, NOW)
    assert told.hushed == frozenset()
    again = told.condition_changed(WELL, NOW).condition_changed(FAILED, NOW + 1)
    assert again.hushed == {READY}
    assert not again.is_worth_telling(WELL, NOW + 2)
    assert again.is_worth_telling(DELIVERED_NOW, NOW + 2)  # another condition
    ended = again.condition_changed(WELL, NOW + 2)
    assert ended.hushed == frozenset()
    assert ended.warned == told.warned  # what is well, was no warning


def test_a_warning_that_is_news_again_has_an_end_that_is_told() -> None:
    hushed = Notices().condition_changed(FAILED, NOW).condition_changed(FAILED, NOW + 1)
    assert hushed.hushed == {READY}
    news = hushed.condition_changed(FAILED, NOW + 600)
    assert news.is_worth_telling(WELL, NOW + 601)


def test_each_condition_is_hushed_for_itself() -> None:
    notices = Notices().condition_changed(NOT_DELIVERED, NOW).condition_changed(FAILED, NOW)
    assert notices.hushed == {READY}  # the same reason, by whichever condition, was told of
    both = notices.condition_changed(NOT_DELIVERED, NOW)
    assert both.hushed == {READY, DELIVERED}
    assert both.condition_changed(WELL, NOW).hushed == {DELIVERED}


def test_what_changes_nothing_makes_nothing_anew() -> None:
    told = Notices().condition_changed(FAILED, NOW)
    assert told.condition_changed(WELL, NOW) is told
    assert told.warned_of(BAD, "", NOW + 599) is told
