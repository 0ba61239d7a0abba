"""Verification: a new token that does not work is never published, and an outage of GraphQL ends no good token.

Trials that fail are repeated after seconds, so the credentials of those tests are started at once and live side by
side.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from tests.api.conftest import StartOperator
from tests.support.acts import force
from tests.support.auditor import Auditor
from tests.support.cluster import Cluster
from tests.support.objects import Json, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault, SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.usefixtures("operator")

ENABLED: Json = {"verification": {"mode": "Enabled"}}
REFUSED_URL = "https://graphql.example.com/graphql"
EXCHANGE = "client_credentials"

REJECTIONS: Mapping[str, tuple[Fault, int]] = {
    "401": (Fault(kind="fail", endpoint="graphql", status=401), 401),
    "403": (Fault(kind="fail", endpoint="graphql", status=403), 403),
    "errors-without-data": (Fault(kind="answer", endpoint="graphql", body='{"errors": [{"message": "who?"}]}'), 200),
    "errors-and-null-data": (Fault(kind="answer", endpoint="graphql", body='{"data": null, "errors": [{}]}'), 200),
}
"""Answers that say that the token does not work, and their statuses."""

INCONCLUSIVE: Mapping[str, tuple[Fault, int | None]] = {
    "503": (Fault(kind="fail", endpoint="graphql", status=503), 503),
    "429": (Fault(kind="throttle", endpoint="graphql", retry_after=1), 429),
    "hangs": (Fault(kind="hang", endpoint="graphql"), None),
    "resets": (Fault(kind="reset", endpoint="graphql"), None),
    "redirects": (Fault(kind="answer", endpoint="graphql", answer="redirect_307"), 307),
    "no-json": (Fault(kind="answer", endpoint="graphql", answer="not_json"), 200),
    "neither-data-nor-errors": (Fault(kind="answer", endpoint="graphql", body="{}"), 200),
}
"""Answers that say nothing of the token, and their statuses."""

DOWN = INCONCLUSIVE["503"][0]


@pytest.fixture(scope="module")
def operator(make_operator: StartOperator, sandbox: SandboxProcess) -> Iterator[OperatorProcess]:
    """Return a ready operator that verifies at the sandbox; credentials may name its endpoint over HTTP instead."""
    flags = ("--graphql-url", sandbox.https_graphql_url, "--allowed-graphql-url", sandbox.graphql_url)
    with make_operator(*flags, "--request-timeout", "1s") as process:
        yield process.wait_ready()


@pytest.fixture(scope="module")
def tenants(
    cluster: Cluster,
    sandbox: SandboxProcess,
    operator: OperatorProcess,  # noqa: ARG001 - it does the work
) -> Iterator[Mapping[str, Tenant]]:
    """Return tenants by what their second token's trial was answered, once; in the end no target was ever bad."""
    with new_namespace(cluster) as namespace, Auditor(cluster.kubeconfig, sandbox.admin, [namespace]) as auditor:
        objects = Objects(cluster, namespace)
        faults = {name: fault for name, (fault, _) in {**REJECTIONS, **INCONCLUSIVE}.items()}
        tenants = {name: Tenant(objects, sandbox.admin, name) for name in faults}
        for tenant in tenants.values():
            tenant.start(ENABLED)
        for name, tenant in tenants.items():
            tenant.await_ready()
            break_graphql(tenant, replace(faults[name], count=1))
            rotate(tenant)
        yield tenants
        verdict = auditor.verdict()
    assert verdict.is_good, verdict


def verified(tenant: Tenant) -> list[int | None]:
    """Return the statuses of the tenant's GraphQL requests."""
    return [request.status for request in tenant.sandbox.graphql_requests(tenant.client.id)]


def break_graphql(tenant: Tenant, fault: Fault) -> int:
    """Put a fault in force for the tenant's tokens."""
    return tenant.sandbox.fault(replace(fault, client=tenant.client.id))


def rotate(tenant: Tenant) -> None:
    """Have the operator ask for another token, without the patience that it has with forced exchanges."""
    tenant.rotate_secret()
    tenant.apply_client_secret()


def await_published(tenant: Tenant, count: int) -> list[str]:
    """Return the tokens that the target held as soon as there were so many; in the end all is well."""
    wait_until(lambda: len(tenant.targets()) >= count, what=f"{count} published tokens")
    tenant.await_ready()
    return [target.token for target in tenant.targets()]


# Accepted -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("VERIFY-1")
def test_a_token_that_works_is_tried_once_and_published(tenant: Tenant) -> None:
    token = tenant.start(ENABLED).await_ready().token
    assert verified(tenant) == [200]
    force(tenant, "now")
    tenant.await_token(other_than=token)
    assert verified(tenant) == [200, 200]
    assert len(tenant.requests()) == 2


def test_without_verification_no_token_is_sent_anywhere(tenant: Tenant) -> None:
    tenant.start({"verification": {"mode": "Disabled"}}).await_ready()
    assert verified(tenant) == []


# Rejected -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("VERIFY-2")
@pytest.mark.parametrize("name", REJECTIONS)
def test_a_token_that_does_not_work_is_never_published(tenants: Mapping[str, Tenant], name: str) -> None:
    """The old one stays; another is asked for, by client credentials, under the ordinary retry."""
    tenant = tenants[name]
    published = await_published(tenant, 2)
    first, rejected, second = [token.value for token in tenant.tokens()]
    assert published == [first, second]
    assert rejected not in published
    assert tenant.grants() == [EXCHANGE] * 3
    assert verified(tenant) == [200, REJECTIONS[name][1], 200]
    assert tenant.await_event("VerificationFailed")["type"] == "Warning"
    assert tenant.verdicts("Ready") == [("True", "Issued")]
    assert tenant.verdicts("Refreshed") == [("True", "Issued"), ("False", "VerificationFailed"), ("True", "Issued")]


@pytest.mark.rule("VERIFY-2")
def test_a_first_token_that_does_not_work_is_never_published(tenant: Tenant) -> None:
    tenant.register()
    number = break_graphql(tenant, REJECTIONS["401"][0])
    tenant.start(ENABLED)
    condition = tenant.await_condition("Ready", "False", "VerificationFailed")
    assert tenant.condition("Refreshed") == condition
    assert tenant.find_target() is None
    tenant.sandbox.clear_faults(number)
    assert tenant.await_ready().token == tenant.tokens()[-1].value
    assert len(tenant.targets()) == 1


@pytest.mark.rule("VERIFY-2")
def test_a_token_that_is_revoked_while_it_is_held_never_reaches_the_target(tenant: Tenant, auditor: Auditor) -> None:
    tenant.start(ENABLED)
    before = tenant.await_ready()
    number = break_graphql(tenant, DOWN)
    rotate(tenant)
    tenant.await_condition("Refreshed", "False", "VerificationInconclusive")
    revoked = tenant.tokens()[-1]
    assert revoked.value != before.token
    tenant.sandbox.revoke(revoked)
    tenant.sandbox.clear_faults(number)
    published = await_published(tenant, 2)
    assert published == [before.token, tenant.tokens()[-1].value]
    assert revoked.value not in published
    assert (verdict := auditor.verdict()).is_good, verdict


# Inconclusive ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("VERIFY-3")
@pytest.mark.parametrize("name", INCONCLUSIVE)
def test_a_token_that_nobody_can_tell_of_is_held_and_tried_again(tenants: Mapping[str, Tenant], name: str) -> None:
    """It is not exchanged again: the token endpoint has done its work."""
    tenant = tenants[name]
    published = await_published(tenant, 2)
    assert published == [token.value for token in tenant.tokens()]
    assert tenant.grants() == [EXCHANGE] * 2
    assert verified(tenant) == [200, INCONCLUSIVE[name][1], 200]
    assert tenant.await_event("VerificationInconclusive")["type"] == "Warning"
    told = [("True", "Issued"), ("False", "VerificationInconclusive"), ("True", "Issued")]
    assert tenant.verdicts("Refreshed") == told
    assert tenant.verdicts("Ready") == [("True", "Issued")]


@pytest.mark.rule("VERIFY-5")
def test_retry_after_of_the_graphql_endpoint_is_heeded(
    cluster: Cluster, sandbox: SandboxProcess, namespace: str
) -> None:
    """One that was given no time tries again and again meanwhile."""
    told, not_told = tenants = [Tenant(Objects(cluster, namespace), sandbox.admin, name) for name in ("told", "not")]
    for tenant, retry_after in zip(tenants, (120, None), strict=True):
        tenant.start(ENABLED).await_ready()
        break_graphql(tenant, Fault(kind="throttle", endpoint="graphql", retry_after=retry_after))
    for tenant in tenants:
        rotate(tenant)
        tenant.await_condition("Refreshed", "False", "VerificationInconclusive")
    wait_until(lambda: verified(not_told).count(429) >= 3, what="three verifications without a time")
    assert verified(told).count(429) == 1


@pytest.mark.rule("VERIFY-7")
def test_a_first_token_that_nobody_can_tell_of_is_published_untried(tenant: Tenant) -> None:
    """It is better than none."""
    tenant.register()
    break_graphql(tenant, DOWN)
    tenant.start(ENABLED)
    tenant.await_condition("Ready", "True", "Issued")
    tenant.await_condition("Refreshed", "False", "VerificationInconclusive")
    [token] = tenant.tokens()
    assert tenant.target().token == token.value
    assert verified(tenant) == [503]


@pytest.mark.rule("VERIFY-7")
def test_a_token_for_changed_inputs_that_nobody_can_tell_of_is_published_untried(tenant: Tenant) -> None:
    tenant.start(ENABLED, scopes=("orders:read",))
    before = tenant.await_ready()
    break_graphql(tenant, DOWN)
    tenant.apply({**ENABLED, "scopes": ["orders:read"]})
    tenant.await_condition("Ready", "True", "Issued")
    assert [token.value for token in tenant.tokens()] == [before.token, tenant.target().token]


@pytest.mark.rule("FRESH-1")
def test_an_outage_of_graphql_ends_no_good_token(tenant: Tenant, auditor: Auditor) -> None:
    """A token of 10 s is refreshed after 5 s at the latest; it is held until 2.5 s are left of the one before."""
    tenant.start(ENABLED, lifetime=10)
    tenant.await_ready()
    break_graphql(tenant, DOWN)
    wait_until(lambda: len(tenant.targets()) >= 3, what="two tokens that were published untried")
    tokens = {token.value: token for token in tenant.tokens()}
    published = [tokens[target.token] for target in tenant.targets()]
    assert published == tenant.tokens()[: len(published)]
    assert len(verified(tenant)) >= len(published)
    assert {status for status, _ in tenant.verdicts("Ready")} == {"True"}
    assert (verdict := auditor.verdict()).is_good, verdict


def test_turning_verification_off_publishes_what_is_held(tenant: Tenant) -> None:
    tenant.start(ENABLED)
    before = tenant.await_ready()
    break_graphql(tenant, DOWN)
    force(tenant, "now")
    tenant.await_condition("Refreshed", "False", "VerificationInconclusive")
    assert tenant.target().version == before.version
    tenant.apply()
    assert tenant.await_token(other_than=before.token).token == tenant.tokens()[-1].value
    assert len(tenant.requests()) == 2


# Where ----------------------------------------------------------------------------------------------------------------


def test_another_endpoint_can_be_named_if_it_is_allowed(tenant: Tenant, sandbox: SandboxProcess) -> None:
    tenant.start({"verification": {"mode": "Enabled", "graphqlURL": sandbox.graphql_url}}).await_ready()
    assert verified(tenant) == [200]


@pytest.mark.rule("VERIFY-10")
def test_an_endpoint_that_is_not_allowed_is_refused_before_any_token_request(tenant: Tenant) -> None:
    tenant.start({"verification": {"mode": "Enabled", "graphqlURL": REFUSED_URL}})
    condition = tenant.await_condition("Ready", "False", "URLNotAllowed")
    assert tenant.condition("Refreshed") == condition
    assert "spec.verification.graphqlURL" in condition.message
    assert "--allowed-graphql-url" in condition.message
    assert tenant.requests() == []
    tenant.apply(ENABLED)
    tenant.await_ready()


@pytest.mark.rule("VERIFY-10")
def test_an_endpoint_that_is_not_allowed_counts_only_where_it_is_asked(tenant: Tenant) -> None:
    """A good token stays, whether Ready or not."""
    elsewhere = {"graphqlURL": REFUSED_URL}
    before = tenant.start({"verification": {"mode": "Disabled", **elsewhere}}).await_ready()
    tenant.apply({"verification": {"mode": "Enabled", **elsewhere}})
    tenant.await_condition("Ready", "False", "URLNotAllowed")
    assert tenant.target().version == before.version
    tenant.apply({"verification": {"mode": "Disabled", **elsewhere}})
    tenant.await_ready()
    assert len(tenant.requests()) == 1
    assert verified(tenant) == []


def test_enabling_verification_costs_nothing(tenant: Tenant) -> None:
    """The present token works as far as anybody knows; the next one will be tried."""

    def is_seen() -> None:
        assert tenant.status()["observedGeneration"] == generation

    before = tenant.start().await_ready()
    generation = tenant.apply(ENABLED)["metadata"]["generation"]
    eventually(is_seen)
    assert tenant.await_ready().version == before.version
    assert (verified(tenant), len(tenant.requests())) == ([], 1)
