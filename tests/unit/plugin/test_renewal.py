"""What came of a forced exchange or a suspension, and why it must wait."""

import pytest

from kubectl_tuinly.rules.renewal import after_refusal, outcome_of, suspension_of, why_it_waits
from tests.unit.facts import credential
from tests.unit.plugin.objects import GOOD, NOW, seen
from tuinly_operator.base.clock import rfc3339
from tuinly_operator.domain.credential import Credential


@pytest.mark.parametrize(
    ("of", "good", "text"),
    [
        (seen(GOOD, GOOD), None, "Issued"),
        (credential(), None, "nobody has told yet"),
        (seen(GOOD, GOOD, lastHandledRefresh="now"), True, "there is a new token, until 2026-"),
        (seen(GOOD, "False:InvalidClient", lastHandledRefresh="now"), False, "the present token stays"),
        (seen("False:InvalidClient", "False:InvalidClient", lastHandledRefresh="now"), False, "InvalidClient"),
        (seen(GOOD, "Unknown:Issuing", lastHandledRefresh="now"), None, "Issuing"),
    ],
    ids=["untried", "new", "worked", "failed", "failed without a token", "tried again"],
)
def test_what_came_of_a_forced_exchange(of: Credential, good: bool | None, text: str) -> None:  # noqa: FBT001 - an expectation
    came = outcome_of(of, "now")
    assert came.good is good
    assert text in came.text


@pytest.mark.rule("PLUGIN-10")
def test_a_suspension_is_confirmed_by_a_status_of_its_generation() -> None:
    assert suspension_of(credential({"spec": {"suspend": True}}), wanted=True).good is None
    assert suspension_of(seen(observedGeneration=0), wanted=False).good is None
    assert suspension_of(seen(), wanted=False).good is True
    assert suspension_of(seen(), wanted=True).good is False


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (credential({"spec": {"suspend": True}}), "suspended"),
        (credential({"status": {"observedGeneration": -1}}), "no operator has ever looked"),
        (seen(GOOD, "False:EndpointThrottled"), "Retry-After"),
        (seen(lastRefreshTime=rfc3339(NOW - 5)), "exchanges are up to 10 s apart"),
        (seen(lastRefreshTime="odd"), ""),
        (seen(), ""),
    ],
)
def test_why_it_must_wait(of: Credential, text: str) -> None:
    why = why_it_waits(of, NOW)
    assert text in why
    assert bool(text) == bool(why)


def test_what_hinders_it_is_what_refreshed_says() -> None:
    assert after_refusal(seen(GOOD, "False:InvalidScope")) == "InvalidScope: about InvalidScope"
    assert after_refusal(credential()) == "nobody has told yet"
