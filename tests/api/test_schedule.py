"""When a refresh is due: the lead before the expiry, and a jitter that only makes it earlier."""

import pytest

from tests.support.objects import Json
from tests.support.tenant import Tenant, seconds_of

pytestmark = pytest.mark.usefixtures("operator")

JITTER = 0.1
"""Of the lifetime less the lead."""
ROUNDING = 1.0
"""Seconds: times are written as whole ones."""


@pytest.mark.rule("WHEN-2")
@pytest.mark.parametrize(
    ("lifetime", "refresh", "lead"),
    [
        (3600, {}, 0.33 * 3600),
        (3600, {"before": "20m"}, 1200),
        (3600, {"beforePercentage": 50}, 1800),
        (3600, {"beforePercentage": 5}, 180),
        pytest.param(1000, {"beforePercentage": 5}, 120, id="raised to two minutes"),
        pytest.param(200, {}, 100, id="cut to half the lifetime"),
        pytest.param(3600, {"before": "24h"}, 1800, id="longer than the lifetime"),
        pytest.param(2_592_000, {"before": "24h"}, 86_400, id="thirty days"),
    ],
)
def test_a_refresh_is_due_the_lead_before_the_expiry_or_a_little_earlier(
    tenant: Tenant, lifetime: int, refresh: Json, lead: float
) -> None:
    tenant.start({"refresh": refresh}, lifetime=lifetime)
    notes = tenant.await_ready().notes
    assert tenant.status()["nextRefreshTime"] == notes["next-refresh"]
    latest = seconds_of(notes["expires-at"]) - lead
    earliest = latest - JITTER * (lifetime - lead)
    assert earliest - ROUNDING <= seconds_of(notes["next-refresh"]) <= latest


@pytest.mark.rule("WHEN-4")
def test_the_jitter_differs_from_credential_to_credential(tenant: Tenant) -> None:
    """So that what started together is not refreshed together."""
    tenants = [Tenant(tenant.objects, tenant.sandbox, f"storefront-{number}") for number in range(4)]
    for each in tenants:
        each.start()
    notes = [each.await_ready().notes for each in tenants]
    ages = [seconds_of(note["next-refresh"]) - seconds_of(note["issued-at"]) for note in notes]
    assert len(set(ages)) > 1


@pytest.mark.rule("WHEN-6")
@pytest.mark.parametrize(
    ("refresh", "earlier"),
    [
        ({"before": "30m"}, True),
        ({"beforePercentage": 40}, True),
        ({"beforePercentage": 5}, False),
        ({"beforePercentage": 10, "grant": "ClientCredentials"}, False),
    ],
)
def test_a_change_of_the_schedule_only_reschedules(tenant: Tenant, refresh: Json, earlier: bool) -> None:  # noqa: FBT001 - a parameter
    """Ready stays True, and there is no token request."""
    tenant.start({"refresh": {"beforePercentage": 10}}, lifetime=3600)
    before, since = tenant.await_ready(), tenant.status()["nextRefreshTime"]
    tenant.apply({"refresh": refresh})
    after = tenant.await_ready()
    assert after.data == before.data
    assert len(tenant.requests()) == 1
    assert (seconds_of(tenant.status()["nextRefreshTime"]) < seconds_of(since)) is earlier
    assert tenant.verdicts("Ready")[-1:] == [("True", "Issued")]


@pytest.mark.rule("WHEN-3")
def test_a_short_lifetime_is_told_once(tenant: Tenant) -> None:
    """It is too short for a Pod's file, not for the Secret."""
    tenant.start(lifetime=6)
    first = tenant.await_ready()
    event = tenant.await_event("LifetimeTooShort")
    assert event["type"] == "Warning"
    tenant.await_token(other_than=tenant.await_token(other_than=first.token).token)
    assert tenant.event_reasons().count("LifetimeTooShort") == 1
