"""A row of `status`: what conditions come to, what is sorted first, how times are written."""

import pytest

from kubectl_tuinly.rules.view import PENDING, actor_of, moment, row_of, rows_of, span
from tests.support.objects import Json
from tests.unit.facts import credential_object
from tests.unit.plugin.objects import GOOD, NOW, told
from tuinly_operator.domain.errors import Actor


@pytest.mark.rule("PLUGIN-6")
@pytest.mark.parametrize(
    ("reason", "actor"),
    [(PENDING, Actor.ADMIN), ("InvalidClient", Actor.YOU), ("Issued", Actor.NOBODY), ("OfTomorrow", Actor.NOBODY)],
)
def test_who_can_do_something_about_a_reason(reason: str, actor: Actor) -> None:
    assert actor_of(reason) is actor


@pytest.mark.rule("PLUGIN-6")
@pytest.mark.parametrize(
    ("raw", "ready", "reason", "whose"),
    [
        (told(GOOD, GOOD), True, "Issued", Actor.NOBODY),
        (told(GOOD, "False:InvalidClient"), True, "InvalidClient", "you"),
        (told("False:TargetRejected", "False:TargetRejected"), False, "TargetRejected", "cluster admin"),
        (told("False:TokenExpired", "False:EndpointUnavailable", left=-5), False, "TokenExpired", "Tuinly"),
        (told(GOOD, GOOD, left=-5), False, "TokenExpired", "cluster admin"),
        (told(GOOD, GOOD, observedGeneration=0), False, "Issued", Actor.NOBODY),
        (credential_object(), False, "Pending", "cluster admin"),
        (credential_object({"status": {"conditions": "odd"}}), False, "Pending", "cluster admin"),
    ],
    ids=["fine", "failing", "refused", "expired", "untold", "outdated", "new", "odd"],
)
def test_a_row_says_what_is_the_matter_and_whose_it_is(raw: Json, ready: bool, reason: str, whose: str) -> None:  # noqa: FBT001 - an expectation
    row = row_of(raw, NOW)
    assert (row.is_ready, row.reason, row.whose) == (ready, reason, whose)


@pytest.mark.rule("PLUGIN-6")
def test_what_needs_attention_comes_first_and_then_what_ends_first() -> None:
    rows = rows_of(
        [
            told(GOOD, GOOD, name="long", left=3000),
            told(GOOD, GOOD, name="short", left=100),
            told("False:Suspended", "Unknown:Suspended", name="suspended"),
            told(GOOD, "False:InvalidScope", name="failing", left=2000),
            told("False:InvalidClient", "False:InvalidClient", name="broken"),
        ],
        NOW,
    )
    assert [row.key.name for row in rows] == ["broken", "failing", "suspended", "short", "long"]


def test_the_life_that_is_left_is_a_part_of_the_whole() -> None:
    assert row_of(told(GOOD, GOOD, left=3000), NOW).life == pytest.approx(3000 / 3600)
    assert row_of(told(GOOD, GOOD, left=-10), NOW).life == 0
    assert row_of(told(GOOD, GOOD, lastRefreshTime=None), NOW).life is None
    assert row_of(told(GOOD, GOOD, tokenExpirationTime="soon"), NOW).life is None


def test_an_end_that_no_calendar_has_hides_no_credential() -> None:
    """The schema takes it, and in UTC it is of the year 10000."""
    row = row_of(told(GOOD, GOOD, tokenExpirationTime="9999-12-31T23:59:59-23:59"), NOW)
    assert row.as_data()["tokenExpirationTime"] is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h00m"), (172_800, "2d")]
)
def test_spans_are_written_as_kubectl_does(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_moments_are_seen_from_now() -> None:
    assert moment(NOW + 240, NOW) == "in 4m"
    assert moment(NOW - 30, NOW) == "30s ago"
    assert moment(NOW - 30, NOW, past="now") == "now"
    assert moment(None, NOW) == "-"
