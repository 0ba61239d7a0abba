"""Failures as values: what is told of each, who can mend it, and which of them say that a refresh token is dead."""

import pytest

from tuinly_operator.domain.errors import Failure, Reason, TokenRequestFailed

SLOW = {
    Reason.INVALID_CLIENT,
    Reason.INVALID_SCOPE,
    Reason.REQUEST_REJECTED,
    Reason.TARGET_CONFLICT,
    Reason.WORSE_TOKEN,
}
NAMED_OTHERWISE = {Reason.URL_NOT_ALLOWED: "URLNotAllowed", Reason.LOOK_ALIKE: "TargetLookAlike"}


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_one_word_in_camel_case(reason: Reason) -> None:
    """It stands in conditions, Events and metrics, and in what others make of them."""
    assert reason.value == NAMED_OTHERWISE.get(reason, "".join(map(str.capitalize, reason.name.split("_"))))


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("kind", [Failure, TokenRequestFailed])
def test_there_is_no_hurry_where_retrying_soon_is_of_no_use(kind: type[Failure], reason: Reason) -> None:
    assert kind(reason, "what to do").patient is (reason in SLOW)


def test_a_failure_is_shown_by_reason_and_message_on_one_line_and_not_a_long_one() -> None:
    failure = Failure(Reason.TARGET_REJECTED, "one\ntwo" + "x" * 600)
    assert failure.message.startswith("one\\ntwox")
    assert len(failure.message) == 500
    assert str(failure) == f"TargetRejected: {failure.message}"


@pytest.mark.parametrize(
    ("status", "rejected"),
    [(None, False), (200, False), (399, False), (400, True), (401, True), (429, False), (499, True), (500, False)],
)
def test_only_a_server_that_understood_and_refused_has_rejected(status: int | None, *, rejected: bool) -> None:
    assert TokenRequestFailed(Reason.REQUEST_REJECTED, "what to do", status).rejected is rejected


def test_what_is_not_known_of_a_token_request_is_nothing() -> None:
    failed = TokenRequestFailed(Reason.ENDPOINT_UNAVAILABLE, "what to do")
    assert (failed.status, failed.retry_after, failed.transport) == (None, None, False)
