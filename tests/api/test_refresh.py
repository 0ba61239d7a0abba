"""Refreshes in time: by refresh token, by client credentials where that fails, and one token request for each.

Refreshes take seconds, so the credentials of all tests are started at once and live side by side.
"""

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from tests.support.auditor import Auditor
from tests.support.cluster import Cluster
from tests.support.objects import Json, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault, SandboxProcess, TokenRequest
from tests.support.tenant import Tenant, seconds_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("operator")

EXCHANGE: Final = "client_credentials"
REFRESH: Final = "refresh_token"

RETRY_AFTER = 3.0
"""Seconds; the least time that a throttled client waits by itself is much shorter."""

REFUSALS = ("invalid_client", "invalid_request", "invalid_grant")

AMBIGUOUS: Mapping[str, tuple[Fault, str]] = {
    "500": (Fault(kind="fail"), "EndpointUnavailable"),
    "503": (Fault(kind="fail", status=503), "EndpointUnavailable"),
    "reset": (Fault(kind="reset"), "EndpointUnavailable"),
    "lost-answer": (Fault(kind="reset", processed=True), "EndpointUnavailable"),
    "no-answer": (Fault(kind="hang"), "EndpointUnavailable"),
    "garbage": (Fault(kind="answer", answer="not_json"), "InvalidResponse"),
    "redirect": (Fault(kind="answer", answer="redirect_307"), "InvalidResponse"),
}
"""What an answer to a refresh-token grant may be that tells nothing of the refresh token; and the reason for it."""


@dataclass(frozen=True)
class Scene:
    """How a tenant is started, and at which of the other token URLs.

    A token of 8 s is refreshed after about 3 to 4 s: the lead is at most half of it.
    """

    spec: Json = field(default_factory=dict)
    ways: Mapping[str, Any] = field(default_factory=dict)
    lifetime: float = 8
    fault: Fault | None = None
    origin: int | None = None


SCENES: Mapping[str, Scene] = {
    "plain": Scene(),
    "counted": Scene(),
    "rotating": Scene(ways={"rotates_refresh_tokens": True}),
    "without-refresh-tokens": Scene(ways={"issues_refresh_tokens": False}),
    "by-client-credentials": Scene(spec={"refresh": {"grant": "ClientCredentials"}}),
    "changing-its-mind": Scene(),
    "ended": Scene(),
    "throttled": Scene(lifetime=15, fault=Fault(kind="throttle", retry_after=RETRY_AFTER)),
    **{f"refused-{word.replace('_', '-')}": Scene(ways={"refreshes": word}) for word in REFUSALS},
    # Long enough for a request of 2 s in vain and a wait of up to 4 s. No origin fails three times in a row.
    **{
        f"ambiguous-{name}": Scene(lifetime=15, fault=fault, origin=number % 3)
        for number, (name, (fault, _)) in enumerate(AMBIGUOUS.items())
    },
}


@pytest.fixture(scope="module")
def tenants(
    cluster: Cluster,
    sandbox: SandboxProcess,
    other_token_urls: tuple[str, ...],
    operator: OperatorProcess,  # noqa: ARG001 - it does the work
) -> Iterator[Mapping[str, Tenant]]:
    """Return a tenant per scene, all of them started; in the end no target was ever bad."""
    with new_namespace(cluster) as namespace, Auditor(cluster.kubeconfig, sandbox.admin, [namespace]) as auditor:
        objects = Objects(cluster, namespace)
        started = {}
        for name, scene in SCENES.items():
            tenant = started[name] = Tenant(objects, sandbox.admin, name)
            if scene.fault is not None:
                sandbox.admin.fault(replace(scene.fault, client=tenant.client.id, grant=REFRESH, count=1))
            elsewhere = {} if scene.origin is None else {"tokenURL": other_token_urls[scene.origin]}
            tenant.start({**elsewhere, **scene.spec}, lifetime=scene.lifetime, **scene.ways)
        yield started
        verdict = auditor.verdict()
    assert verdict.is_good, verdict


def published(tenant: Tenant) -> list[str]:
    """Return the tokens that the target held, one after the other."""
    return [target.token for target in tenant.targets()]


def await_status_of(tenant: Tenant, issued_at: str) -> Json:
    """Return the status as soon as it is about the token of that time."""

    def check() -> Json:
        status = tenant.status()
        assert status["lastRefreshTime"] == issued_at
        return status

    return eventually(check)


@pytest.mark.rule("REQ-2")
def test_a_refresh_is_by_refresh_token_alone(tenants: Mapping[str, Tenant]) -> None:
    """Without client id and secret; the one of the exchange serves again and again."""
    tenant = tenants["plain"]
    requests = tenant.await_requests(4)
    assert [request.grant for request in requests[:4]] == [EXCHANGE, REFRESH, REFRESH, REFRESH]
    assert [request.sent_client for request in requests[:4]] == [True, False, False, False]
    assert {request.status for request in requests} == {200}


@pytest.mark.rule("QUIET-2")
def test_a_refresh_costs_one_request_one_write_of_the_target_and_one_of_the_status(
    tenants: Mapping[str, Tenant],
) -> None:
    """Seen at a moment between two refreshes: what is written once too often stays in the history for ever."""
    tenant = tenants["counted"]

    def check() -> None:
        issued = [target.notes["issued-at"] for target in tenant.targets()]
        statuses = tenant.objects.versions("TuinlyCredential", tenant.name, since=tenant.begin)
        told = [time for each in statuses if (time := each.get("status", {}).get("lastRefreshTime"))]
        assert told == issued
        assert len(tenant.requests()) == len(issued) >= 3

    eventually(check)


def test_a_refresh_is_in_time_and_makes_the_token_last_longer(tenants: Mapping[str, Tenant]) -> None:
    tenant = tenants["plain"]
    tenant.await_requests(3)
    targets = tenant.targets()
    assert len({target.raw["metadata"]["uid"] for target in targets}) == 1
    for old, new in itertools.pairwise(targets):
        assert seconds_of(new.notes["issued-at"]) < seconds_of(old.notes["expires-at"])
        assert seconds_of(new.notes["expires-at"]) > seconds_of(old.notes["expires-at"])


def test_each_token_that_was_issued_is_published(tenants: Mapping[str, Tenant]) -> None:
    tenant = tenants["plain"]
    tenant.await_requests(3)

    def check() -> None:
        assert published(tenant) == [token.value for token in tenant.tokens()]

    eventually(check)


def test_the_status_follows(tenants: Mapping[str, Tenant]) -> None:
    tenant = tenants["plain"]
    target = tenant.await_token(other_than=tenant.await_ready().token)
    status = await_status_of(tenant, target.notes["issued-at"])
    assert status["lastGrant"] == "RefreshToken"
    assert status["tokenExpirationTime"] == target.notes["expires-at"]
    assert status["nextRefreshTime"] == target.notes["next-refresh"]
    assert status["failedAttempts"] == 0


@pytest.mark.rule("OBS-3", "OBS-5")
def test_a_refresh_is_told_by_one_log_line_alone(tenants: Mapping[str, Tenant], operator: OperatorProcess) -> None:
    """Ready and Refreshed stay True, and there is no Event."""
    tenant = tenants["plain"]
    tenant.await_requests(3)
    for kind in ("Ready", "Refreshed"):
        verdicts = tenant.verdicts(kind)
        assert verdicts[verdicts.index(("True", "Issued")) :] == [("True", "Issued")]
    assert tenant.event_reasons() == ["LifetimeTooShort", "Issued"]
    lines = [line for line in operator.logs() if line.get("credential") == tenant.key]
    assert [(line["level"], line["msg"], line["grant"]) for line in lines[:3]] == [
        ("info", "refreshed", "ClientCredentials"),
        ("info", "refreshed", "RefreshToken"),
        ("info", "refreshed", "RefreshToken"),
    ]


@pytest.mark.rule("REQ-9")
def test_a_rotated_refresh_token_replaces_the_old_one(tenants: Mapping[str, Tenant]) -> None:
    """The server ends the old one, so that using it again would be refused."""
    requests = tenants["rotating"].await_requests(4)
    assert [(request.grant, request.status) for request in requests[:4]] == [
        (EXCHANGE, 200),
        (REFRESH, 200),
        (REFRESH, 200),
        (REFRESH, 200),
    ]


@pytest.mark.rule("REQ-3")
@pytest.mark.parametrize("name", ["without-refresh-tokens", "by-client-credentials"])
def test_without_a_refresh_token_or_the_wish_for_one_each_refresh_is_an_exchange(
    tenants: Mapping[str, Tenant], name: str
) -> None:
    tenant = tenants[name]
    requests = tenant.await_requests(3)
    assert {(request.grant, request.status) for request in requests} == {(EXCHANGE, 200)}
    assert tenant.status()["lastGrant"] == "ClientCredentials"


@pytest.mark.rule("REQ-3")
def test_a_change_of_the_grant_counts_from_the_next_refresh_on(tenants: Mapping[str, Tenant]) -> None:
    tenant = tenants["changing-its-mind"]
    # One has just been made, so that the change is seen before the next.
    before = len(tenant.await_requests(len(tenant.requests()) + 1))
    tenant.apply({"refresh": {"grant": "ClientCredentials"}})
    assert tenant.await_requests(before + 1)[before].grant == EXCHANGE
    tenant.apply()
    requests = tenant.await_requests(before + 3)
    assert [request.grant for request in requests[before + 1 :]] == [EXCHANGE, REFRESH]


@pytest.mark.rule("REQ-6")
@pytest.mark.parametrize("word", REFUSALS)
def test_a_refresh_token_that_is_refused_at_its_first_use_is_the_last_one_tried(
    tenants: Mapping[str, Tenant], word: str
) -> None:
    """The exchange that follows at once belongs to the same attempt, which has not failed."""
    tenant = tenants[f"refused-{word.replace('_', '-')}"]
    requests = tenant.await_requests(5)
    assert [request.grant for request in requests[:5]] == [EXCHANGE, REFRESH, EXCHANGE, EXCHANGE, EXCHANGE]
    tenant.await_event("RefreshRefused")
    assert tenant.event_reasons().count("RefreshRefused") == 1
    assert "False" not in {status for status, _ in tenant.verdicts("Refreshed")}
    assert "lastFailureTime" not in tenant.status()


@pytest.mark.rule("REQ-4", "REQ-5")
def test_a_refresh_token_that_was_good_and_ends_is_made_up_for_at_once(
    tenants: Mapping[str, Tenant], sandbox: SandboxProcess
) -> None:
    """By an exchange in the same attempt; the new refresh token is used again."""
    tenant = tenants["ended"]
    tenant.await_requests(2)
    ended = Fault(kind="answer", status=400, body='{"error": "invalid_grant"}', grant=REFRESH, count=1)
    sandbox.admin.fault(replace(ended, client=tenant.client.id))

    def check() -> list[TokenRequest]:
        requests = tenant.requests()
        at = next((index for index, request in enumerate(requests) if request.fault is not None), len(requests))
        assert len(requests) > at + 2
        return requests[at : at + 3]

    found = eventually(check)
    assert [(request.grant, request.status) for request in found] == [(REFRESH, 400), (EXCHANGE, 200), (REFRESH, 200)]
    assert "RefreshRefused" not in tenant.event_reasons()
    assert "False" not in {status for status, _ in tenant.verdicts("Refreshed")}


@pytest.mark.rule("REQ-7")
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_after_an_ambiguous_answer_the_next_attempt_is_an_exchange(tenants: Mapping[str, Tenant], name: str) -> None:
    """Nobody knows whether the server took the refresh token; the attempt has failed, Ready stays True."""
    tenant = tenants[f"ambiguous-{name}"]
    tenant.await_requests(3)
    reason = AMBIGUOUS[name][1]
    # A failure of the endpoint is repeated at once where others got tokens since it began: then nothing tells of it.
    if reason != "EndpointUnavailable":
        tenant.await_event(reason)
        assert ("False", reason) in tenant.verdicts("Refreshed")
    tenant.await_condition("Refreshed", "True", "Issued")
    assert tenant.grants()[:3] == [EXCHANGE, REFRESH, EXCHANGE]
    verdicts = tenant.verdicts("Ready")
    assert verdicts[verdicts.index(("True", "Issued")) :] == [("True", "Issued")]
    assert tenant.status()["failedAttempts"] == 0


@pytest.mark.rule("REQ-8")
def test_a_throttled_refresh_is_tried_again_when_the_server_says_so(tenants: Mapping[str, Tenant]) -> None:
    """With the same refresh token: the server said that it did not look at it."""
    tenant = tenants["throttled"]
    _, throttled, again = tenant.await_requests(3)[:3]
    assert [(request.grant, request.status) for request in (throttled, again)] == [(REFRESH, 429), (REFRESH, 200)]
    assert again.received_monotonic - throttled.received_monotonic >= RETRY_AFTER
    tenant.await_event("EndpointThrottled")


def test_a_token_that_expires_is_told_and_stays_until_there_is_another(
    tenant: Tenant, sandbox: SandboxProcess, other_token_urls: tuple[str, ...]
) -> None:
    """Nobody could refresh it in time: Ready says so, and the target is not touched."""
    tenant.start({"tokenURL": other_token_urls[2]}, lifetime=4)
    tenant.await_ready()
    number = sandbox.admin.fault(Fault(kind="fail", client=tenant.client.id))
    ready = tenant.await_condition("Ready", "False", "TokenExpired")
    assert "Refreshed" in ready.message
    tenant.await_condition("Refreshed", "False", "EndpointUnavailable")
    expired = tenant.target()
    assert seconds_of(expired.notes["expires-at"]) <= time.time()
    assert tenant.await_event("TokenExpired")["type"] == "Warning"
    sandbox.admin.clear_faults(number)
    tenant.await_token(other_than=expired.token)
    tenant.await_condition("Ready", "True", "Issued")
    assert tenant.event_reasons().count("TokenExpired") == 1
