"""Answers that are no good: each is told by its reason, changes nothing in the target, and is over when it is over.

A failure takes its time, so the credentials of all cases fail, and recover, at once; the tests look at what was seen.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from tests.support.auditor import Auditor
from tests.support.cluster import Cluster
from tests.support.objects import Json, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault, SandboxProcess
from tests.support.sandbox.answers import catalogue
from tests.support.tenant import Condition, Target, Tenant, condition_of
from tests.support.waiting import eventually

UNAVAILABLE = "EndpointUnavailable"

_NO_ANSWERS = ("truncated_transfer", "not_http", "huge_header")  # HTTP's own fault: the endpoint does not work
_REFUSALS = {
    "error_unlisted": "RequestRejected",
    "error_not_json": "RequestRejected",
    "echo_in_error": "RequestRejected",
    "echo_in_description": "RequestRejected",
    "echo_in_uri": "InvalidClient",
}
# A status of 200 counts more than an `error` beside a good token, and a refresh token of null is none.
_TAKEN = {"error_beside_token", "refresh_token_null"}
ODD = [name for name, answer in catalogue("token").items() if answer.usable or name in _TAKEN]
HOSTILE = [name for name in catalogue("token") if name not in ODD]


def error(status: int, code: str) -> Fault:
    return Fault(kind="answer", status=status, body=f'{{"error": "{code}", "error_description": "not-for-people"}}')


CASES: Mapping[str, tuple[Fault, str]] = {
    **{
        name: (
            Fault(kind="answer", answer=name),
            UNAVAILABLE if name in _NO_ANSWERS else _REFUSALS.get(name, "InvalidResponse"),
        )
        for name in HOSTILE
    },
    "400 invalid_client": (error(400, "invalid_client"), "InvalidClient"),
    "401 invalid_client": (error(401, "invalid_client"), "InvalidClient"),
    "400 unauthorized_client": (error(400, "unauthorized_client"), "InvalidClient"),
    "401": (Fault(kind="fail", status=401), "InvalidClient"),
    "400 invalid_scope": (error(400, "invalid_scope"), "InvalidScope"),
    "400 invalid_request": (error(400, "invalid_request"), "RequestRejected"),
    "400 unsupported_grant_type": (error(400, "unsupported_grant_type"), "RequestRejected"),
    "403": (Fault(kind="fail", status=403), "RequestRejected"),
    "404": (Fault(kind="fail", status=404, body="<html>not found</html>"), "RequestRejected"),
    "429": (Fault(kind="throttle"), "EndpointThrottled"),
    "500": (Fault(kind="fail"), UNAVAILABLE),
    "502": (Fault(kind="fail", status=502), UNAVAILABLE),
    "503": (Fault(kind="fail", status=503), UNAVAILABLE),
    "reset": (Fault(kind="reset"), UNAVAILABLE),
    "hang": (Fault(kind="hang"), UNAVAILABLE),
    "drip": (Fault(kind="drip", seconds=0.5), UNAVAILABLE),
}


@dataclass
class Seen:
    """What was seen of a case: the target before, while it failed and after it, and the credential while it failed."""

    tenant: Tenant
    before: Target
    failing: Json = field(default_factory=dict)
    during: Target | None = None
    after: Target | None = None

    @property
    def refreshed(self) -> Condition | None:
        return condition_of(self.failing, "Refreshed")


def name_of(case: str) -> str:
    return case.lower().replace("_", "-").replace(" ", "-")


def is_apart(case: str) -> bool:
    """Whether a case needs another origin: what the endpoint's own failures do to others is not looked at here."""
    return CASES[case][1] == UNAVAILABLE


def await_all(objects: Objects, status: str) -> None:
    """Wait until the condition Refreshed of all credentials has a status; whose has not is for the tests to tell."""

    def check() -> None:
        conditions = [condition_of(credential, "Refreshed") for credential in objects.all("TuinlyCredential")]
        assert {condition.status if condition is not None else "" for condition in conditions} == {status}

    with suppress(AssertionError):
        eventually(check)


@pytest.fixture(scope="module")
def seen(
    cluster: Cluster,
    sandbox: SandboxProcess,
    other_token_urls: tuple[str, ...],
    operator: OperatorProcess,  # noqa: ARG001 - it does the work
) -> Iterator[Mapping[str, Seen]]:
    """Return what was seen of each case; in the end no target was ever bad."""
    with new_namespace(cluster) as namespace, Auditor(cluster.kubeconfig, sandbox.admin, [namespace]) as auditor:
        objects = Objects(cluster, namespace)
        tenants = {case: Tenant(objects, sandbox.admin, name_of(case)) for case in CASES}
        sandbox.admin.add_clients(tenant.client for tenant in tenants.values())
        for case, tenant in tenants.items():
            tenant.apply_client_secret()
            tenant.apply({"tokenURL": other_token_urls[0]} if is_apart(case) else {})
        await_all(objects, "True")
        found = {case: Seen(tenant, tenant.target()) for case, tenant in tenants.items()}
        for case, tenant in tenants.items():
            sandbox.admin.fault(replace(CASES[case][0], client=tenant.client.id))
            tenant.client = replace(tenant.client, secret=f"{tenant.client.secret}-2")
        sandbox.admin.add_clients(tenant.client for tenant in tenants.values())
        for tenant in tenants.values():
            tenant.apply_client_secret()
        await_all(objects, "False")
        for each in found.values():
            each.failing, each.during = each.tenant.credential(), each.tenant.target()
        sandbox.admin.clear_faults()
        for tenant in tenants.values():
            tenant.apply_client_secret(labels={"touched": "yes"})  # which ends the wait
        await_all(objects, "True")
        for each in found.values():
            each.after = each.tenant.target()
        yield found
        verdict = auditor.verdict()
    assert verdict.is_good, verdict


@pytest.mark.rule("STATUS-3", "ERR-1")
@pytest.mark.parametrize("case", CASES)
def test_an_answer_that_is_no_good_is_told_by_its_reason(seen: Mapping[str, Seen], case: str) -> None:
    refreshed = seen[case].refreshed
    assert refreshed is not None
    assert refreshed.verdict == ("False", CASES[case][1])


@pytest.mark.rule("KEEP-1", "STATUS-4", "ANS-18")
@pytest.mark.parametrize("case", CASES)
def test_an_answer_that_is_no_good_changes_nothing_in_the_target(seen: Mapping[str, Seen], case: str) -> None:
    """And Ready stays True: the token that is there is good."""
    during = seen[case].during
    assert during is not None
    assert during.raw == seen[case].before.raw
    ready = condition_of(seen[case].failing, "Ready")
    assert ready is not None
    assert ready.verdict == ("True", "Issued")


@pytest.mark.rule("ERR-4")
@pytest.mark.parametrize("case", CASES)
def test_an_answer_that_is_no_good_is_told_in_our_own_words(seen: Mapping[str, Seen], case: str) -> None:
    """Nothing of it is repeated but an error code that RFC 6749 lists; nor is the request, which it may echo."""
    tenant, refreshed = seen[case].tenant, seen[case].refreshed
    assert refreshed is not None
    told = [refreshed.message, *(event["note"] for event in tenant.events())]
    for text in told:
        for hidden in (tenant.client.secret, tenant.client.id, "canary", "sandbox-access", "no_luck", "not-for-people"):
            assert hidden not in text


@pytest.mark.rule("ANS-18")
@pytest.mark.parametrize("case", CASES)
def test_all_is_well_again_once_the_answer_is_good(seen: Mapping[str, Seen], case: str) -> None:
    after = seen[case].after
    assert after is not None
    assert after.token != seen[case].before.token
    assert after.token in [token.value for token in seen[case].tenant.tokens()]


@pytest.mark.rule("OBS-3")
@pytest.mark.parametrize("case", CASES)
def test_events_tell_of_failure_and_recovery_once_each(seen: Mapping[str, Seen], case: str) -> None:
    tenant = seen[case].tenant
    tenant.await_condition("Refreshed", "True", "Issued")
    expected = {"Issued": "Normal", CASES[case][1]: "Warning"}

    def check() -> None:
        # Where the machine stood still for a request's time limit, an answer is missing first, which is told too.
        told = [event for event in tenant.events() if event["reason"] in expected or event["reason"] != UNAVAILABLE]
        assert [(event["reason"], event["type"]) for event in told] == [*expected.items(), ("Issued", "Normal")]

    eventually(check)


FIRST = ("not_json", "400 invalid_client", "400 invalid_scope", "403", "429", "500", "reset", "hang")


@pytest.mark.rule("STATUS-3")
@pytest.mark.parametrize("case", FIRST)
def test_without_a_token_ready_tells_the_reason_too(
    tenant: Tenant, sandbox: SandboxProcess, other_token_urls: tuple[str, ...], case: str
) -> None:
    fault, reason = CASES[case]
    number = sandbox.admin.fault(replace(fault, client=tenant.client.id))
    tenant.start({"tokenURL": other_token_urls[1]} if is_apart(case) else {})
    ready = tenant.await_condition("Ready", "False", reason)
    assert tenant.await_condition("Refreshed", "False", reason) == ready
    assert tenant.find_target() is None
    assert tenant.status()["failedAttempts"] >= 1
    assert "lastFailureTime" in tenant.status()
    sandbox.admin.clear_faults(number)
    tenant.apply_client_secret(labels={"touched": "yes"})
    tenant.await_ready()
    assert tenant.status()["failedAttempts"] == 0


@pytest.fixture(scope="module")
def odd(cluster: Cluster, sandbox: SandboxProcess, operator: OperatorProcess) -> Iterator[Mapping[str, Tenant]]:  # noqa: ARG001 - it does the work
    """Return a tenant per odd answer, all of which get only that one."""
    with new_namespace(cluster) as namespace:
        objects = Objects(cluster, namespace)
        tenants = {name: Tenant(objects, sandbox.admin, name_of(name)) for name in ODD}
        for name, tenant in tenants.items():
            sandbox.admin.fault(Fault(kind="answer", answer=name, client=tenant.client.id))
            tenant.start()
        yield tenants


@pytest.mark.parametrize("name", ODD)
def test_an_answer_that_is_only_odd_is_taken(odd: Mapping[str, Tenant], name: str) -> None:
    target = odd[name].await_ready()
    [token] = odd[name].tokens()
    assert target.data == {
        "access_token": token.value,
        "token_type": "Bearer",
        "expires_at": target.notes["expires-at"],
    }


@pytest.mark.rule("ANS-4")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(seen: Mapping[str, Seen], sandbox: SandboxProcess, status: int) -> None:
    """Each names the endpoint itself, with a query: such a request would be in the ledger, of whatever client."""
    assert {request.fault for request in seen[f"redirect_{status}"].tenant.requests()} > {f"answer:redirect_{status}"}
    assert [request for request in sandbox.admin.requests() if request.client is None] == []


@pytest.mark.rule("ANS-4")
def test_a_cookie_that_is_set_is_not_sent(odd: Mapping[str, Tenant], sandbox: SandboxProcess) -> None:
    tenant = odd["set_cookie"]
    before = tenant.await_ready()
    tenant.rotate_secret()
    tenant.apply_client_secret()
    tenant.await_token(other_than=before.token)
    assert not any("cookie" in request.headers for request in sandbox.admin.requests())


@pytest.mark.rule("STATUS-19", "RETRY-6")
def test_failures_that_go_on_are_told_once(tenant: Tenant, sandbox: SandboxProcess, operator: OperatorProcess) -> None:
    """One Event, one warning, a status write for each transition; the retries go on."""
    number = sandbox.admin.fault(Fault(kind="answer", answer="not_json", client=tenant.client.id))
    tenant.start()
    tenant.await_requests(3, seconds=60)
    tenant.await_events("InvalidResponse")
    assert len([line for line in operator.logs() if line.get("credential") == tenant.key]) == 1
    assert len(tenant.verdicts("Refreshed")) <= 2
    assert len(tenant.objects.versions("TuinlyCredential", tenant.name, since=tenant.begin)) <= 3
    sandbox.admin.clear_faults(number)
    tenant.await_ready(seconds=60)  # by itself
    tenant.await_events("InvalidResponse", "Issued")
    lines = [line for line in operator.logs() if line.get("credential") == tenant.key]
    assert [(line["level"], line["reason"]) for line in lines] == [("warning", "InvalidResponse"), ("info", "Issued")]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_heeded(tenant: Tenant, sandbox: SandboxProcess, form: Literal["seconds", "date"]) -> None:
    """Also when the client Secret changes meanwhile, which ends a wait of our own."""
    throttle = Fault(kind="throttle", retry_after=4, retry_after_as=form, count=1, client=tenant.client.id)
    sandbox.admin.fault(throttle)
    tenant.start()
    tenant.await_condition("Ready", "False", "EndpointThrottled")
    tenant.apply_client_secret(labels={"touched": "yes"})
    tenant.await_ready()
    throttled, good = tenant.requests()
    least = 4 if form == "seconds" else 3  # a date is cut to whole seconds
    assert (throttled.status, good.status) == (429, 200)
    assert good.received_monotonic - throttled.received_monotonic >= least
