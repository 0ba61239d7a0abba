"""What people ask of a credential while it lives: an exchange now, a pause, or a token for something else."""

from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.support.acts import FORCE, edit, force
from tests.support.cluster import Cluster
from tests.support.objects import Json, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Client, Fault, SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.usefixtures("operator")

EXCHANGE = "client_credentials"
READ: Json = {"scopes": ["orders:read"]}
BOTH = ("orders:read", "orders:write")
SUSPENDED: Json = {"suspend": True}
FORCED_INTERVAL = 10.0
"""Seconds between two forced exchanges."""
SLACK = 1.0
"""Seconds that a request may be on its way: the operator counts from when it sends one."""


def await_seen(tenant: Tenant, applied: Json) -> None:
    """Wait until the operator has reported on this generation of the credential."""

    def check() -> None:
        assert tenant.status().get("observedGeneration") == applied["metadata"]["generation"]

    eventually(check)


def create_with_annotation(tenant: Tenant, value: str) -> None:
    """Create the credential with the annotation that asks for an exchange."""
    tenant.objects.apply(
        {
            "apiVersion": "tuinly.com/v1alpha1",
            "kind": "TuinlyCredential",
            "metadata": {"name": tenant.name, "annotations": {FORCE: value}},
            "spec": {"clientSecretRef": {"name": tenant.client_secret_name}},
        }
    )


# Force ----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("RES-13")
def test_a_forced_exchange_is_by_client_credentials_and_at_once(tenant: Tenant) -> None:
    """Though there is a refresh token, and nothing is due."""
    before = tenant.start().await_ready()
    force(tenant, "now")
    after = tenant.await_token(other_than=before.token)
    tenant.await_ready()
    assert tenant.grants() == [EXCHANGE] * 2
    assert (before.notes["handled-refresh"], after.notes["handled-refresh"]) == ("", "now")
    assert tenant.verdicts("Ready") == tenant.verdicts("Refreshed") == [("True", "Issued")]
    tenant.await_events("Issued")


@pytest.mark.rule("RES-15")
def test_the_first_token_does_what_was_asked_for_at_creation(tenant: Tenant) -> None:
    tenant.register()
    tenant.apply_client_secret()
    create_with_annotation(tenant, "then")
    first = tenant.await_ready()
    assert first.notes["handled-refresh"] == "then"
    force(tenant, "now")
    tenant.await_token(other_than=first.token)
    assert tenant.grants() == [EXCHANGE] * 2


FORCED: Mapping[str, list[str | None]] = {
    "removed": [None],
    "emptied": [""],
    "same": ["first"],
    "again": ["second"],
    "often": [f"value {number}" for number in range(20)],
    "failing": [],
}
"""What else was asked for right after an exchange was forced."""


@pytest.fixture(scope="module")
def forced(
    cluster: Cluster,
    sandbox: SandboxProcess,
    operator: OperatorProcess,  # noqa: ARG001 - it does the work
) -> Iterator[Mapping[str, Tenant]]:
    """Return tenants that forced an exchange, which failed or not. The next comes after 10 s, for all at once."""
    with new_namespace(cluster) as namespace:
        objects = Objects(cluster, namespace)
        tenants = {name: Tenant(objects, sandbox.admin, name).start() for name in FORCED}
        for name, tenant in tenants.items():
            first = tenant.await_ready()
            if name == "failing":
                sandbox.admin.fault(Fault(kind="fail", client=tenant.client.id, count=1))
            force(tenant, "first")
            if name == "failing":
                tenant.await_condition("Refreshed", "False", "EndpointUnavailable")
            else:
                tenant.await_token(other_than=first.token)
            for value in FORCED[name]:
                force(tenant, value)
        yield tenants


@pytest.mark.rule("RES-17")
@pytest.mark.parametrize(("name", "handled"), [("again", "second"), ("often", "value 19"), ("failing", "first")])
def test_exchanges_are_forced_once_in_ten_seconds_at_most(
    forced: Mapping[str, Tenant], name: str, handled: str
) -> None:
    """However often it was asked for; what is asked for meanwhile is not lost, nor what failed."""
    tenant = forced[name]
    wait_until(lambda: tenant.target().notes["handled-refresh"] == handled, what="the exchange")
    tenant.await_ready()
    first, second, third = tenant.requests()
    assert (first.status, second.status, third.status) == (200, 500 if name == "failing" else 200, 200)
    assert third.received_monotonic - second.received_monotonic >= FORCED_INTERVAL - SLACK
    assert tenant.grants() == [EXCHANGE] * 3


@pytest.mark.rule("RES-13")
@pytest.mark.parametrize("name", ["removed", "emptied", "same"])
def test_what_is_no_new_value_asks_for_nothing(forced: Mapping[str, Tenant], name: str) -> None:
    """Not even when the next exchange could be forced, as that of another has been."""
    forced["again"].await_requests(3)
    assert len(forced[name].requests()) == 2
    assert forced[name].target().notes["handled-refresh"] == "first"


@pytest.mark.rule("RES-16")
def test_a_forced_exchange_that_fails_harms_no_good_token(forced: Mapping[str, Tenant]) -> None:
    tenant = forced["failing"]
    tenant.await_ready()
    tokens = [token.value for token in tenant.tokens()]
    assert [target.token for target in tenant.targets()] == tokens
    assert tenant.verdicts("Ready") == [("True", "Issued")]
    assert ("False", "EndpointUnavailable") in tenant.verdicts("Refreshed")


@pytest.mark.rule("RES-17")
def test_force_does_not_bypass_retry_after(tenant: Tenant) -> None:
    first = tenant.start().await_ready()
    tenant.sandbox.fault(Fault(kind="throttle", retry_after=3, client=tenant.client.id, count=1))
    tenant.rotate_secret()
    tenant.apply_client_secret()
    tenant.await_condition("Refreshed", "False", "EndpointThrottled")
    force(tenant, "now")
    tenant.await_token(other_than=first.token)
    _, throttled, after = tenant.requests()
    assert after.received_monotonic - throttled.received_monotonic >= 2.9


# Suspend --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("STATUS-10")
def test_suspended_before_its_first_token(tenant: Tenant) -> None:
    tenant.start(SUSPENDED)
    ready = tenant.await_condition("Ready", "False", "Suspended")
    assert "spec.suspend" in ready.message
    tenant.await_condition("Refreshed", "Unknown", "Suspended")
    assert tenant.find_target() is None
    assert tenant.requests() == []
    tenant.apply()
    tenant.await_ready()
    assert "Warning" not in {event["type"] for event in tenant.events()}


@pytest.mark.rule("STATUS-10")
def test_suspended_with_a_fresh_token(tenant: Tenant) -> None:
    before = tenant.start().await_ready()
    tenant.apply(SUSPENDED)
    tenant.await_condition("Refreshed", "Unknown", "Suspended")
    tenant.await_condition("Ready", "True", "Issued")
    tenant.apply()
    assert tenant.await_ready().version == before.version
    assert len(tenant.requests()) == 1
    assert "Warning" not in {event["type"] for event in tenant.events()}


@pytest.mark.rule("STATUS-10")
def test_suspended_until_the_token_expires(tenant: Tenant) -> None:
    """It is not refreshed, and that is said when it ends."""
    tenant.start(lifetime=4)
    tenant.await_condition("Ready", "True", "Issued")
    tenant.apply(SUSPENDED)
    tenant.await_condition("Refreshed", "Unknown", "Suspended")
    requests, before = len(tenant.requests()), tenant.target()
    tenant.await_condition("Ready", "False", "TokenExpired")
    tenant.await_condition("Refreshed", "Unknown", "Suspended")
    assert (tenant.target().version, len(tenant.requests())) == (before.version, requests)
    tenant.register(lifetime=3600)
    tenant.apply()
    assert tenant.await_ready().token == tenant.tokens()[-1].value
    assert len(tenant.requests()) == requests + 1


def rotate(tenant: Tenant) -> None:
    tenant.rotate_secret()
    tenant.apply_client_secret()


CHANGES: Mapping[str, tuple[Json, Callable[[Tenant], None]]] = {
    "damaged": ({}, lambda tenant: edit(tenant, {"data": None})),
    "rotated": ({}, rotate),
    "forced": ({}, lambda tenant: force(tenant, "now")),
    "scopes": (READ, lambda _: None),
    "template": ({"target": {"template": {"data": {"access_token": "<${access_token}>"}}}}, lambda _: None),
    "policy": ({"target": {"deletionPolicy": "Retain"}}, lambda _: None),
}
"""What else the spec asks for, and what else happens."""


@pytest.mark.rule("RES-12")
@pytest.mark.parametrize("name", CHANGES)
def test_nothing_is_done_while_suspended_and_all_of_it_after(tenant: Tenant, name: str) -> None:
    spec, change = CHANGES[name]
    tenant.start(scopes=BOTH).await_ready()
    await_seen(tenant, tenant.apply(SUSPENDED))
    change(tenant)
    before = tenant.target()
    await_seen(tenant, tenant.apply(spec | SUSPENDED))
    tenant.await_condition("Refreshed", "Unknown", "Suspended")
    assert (tenant.target().version, len(tenant.requests())) == (before.version, 1)
    tenant.apply(spec)
    wait_until(lambda: tenant.target().version != before.version, what="the change made")
    tenant.await_ready()


@pytest.mark.rule("RES-12")
def test_nothing_is_restored_nor_renamed_while_suspended(tenant: Tenant) -> None:
    first = tenant.start().await_ready()
    old_name = tenant.target_name
    await_seen(tenant, tenant.apply(SUSPENDED))
    await_seen(tenant, tenant.apply({"target": {"name": "moved"}} | SUSPENDED))
    tenant.await_condition("Ready", "False", "Suspended")
    assert tenant.objects.find("Secret", "moved") is None
    assert tenant.target().version == first.version
    tenant.objects.delete("Secret", old_name)
    tenant.apply({"target": {"name": "moved"}})
    tenant.target_name = "moved"
    tenant.await_condition("Ready", "True", "Issued")
    assert tenant.target().token == first.token
    assert tenant.objects.find("Secret", old_name) is None
    assert len(tenant.requests()) == 1


@pytest.mark.rule("RES-12")
def test_a_deleted_target_stays_away_while_suspended(tenant: Tenant) -> None:
    first = tenant.start().await_ready()
    await_seen(tenant, tenant.apply(SUSPENDED))
    tenant.objects.delete("Secret", tenant.target_name)
    tenant.await_condition("Ready", "False", "Suspended")
    await_seen(tenant, tenant.apply({"refresh": {"beforePercentage": 40}} | SUSPENDED))
    assert tenant.find_target() is None
    tenant.apply()
    tenant.await_condition("Ready", "True", "Issued")
    assert tenant.target().token == first.token
    assert len(tenant.requests()) == 1


# Spec changes ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("STATUS-16")
def test_kubectl_waits_for_the_token_of_the_changed_spec(tenant: Tenant, cluster: Cluster) -> None:
    """Until it is there, the target holds the old one, and Ready says that it is being asked for."""
    tenant.start(scopes=BOTH).await_ready()
    tenant.sandbox.fault(Fault(kind="slow", seconds=1.4, client=tenant.client.id, count=1))
    tenant.apply(READ)
    wait = ("wait", "--for=condition=Ready", "--timeout=30s", f"tuinlycredential/{tenant.name}")
    cluster.kubectl(*wait, "--namespace", tenant.objects.namespace)
    first, second = tenant.tokens()
    assert set(second.scopes) == set(READ["scopes"])
    assert tenant.target().token == second.value
    assert [target.token for target in tenant.targets()] == [first.value, second.value]
    assert tenant.await_ready().notes["granted-scopes"] == "orders:read"
    assert tenant.verdicts("Ready") == [("True", "Issued"), ("False", "Issuing"), ("True", "Issued")]
    assert tenant.verdicts("Refreshed") == [("True", "Issued"), ("Unknown", "Issuing"), ("True", "Issued")]
    assert tenant.grants() == [EXCHANGE] * 2
    tenant.await_events("Issued", "Issued")


REFUSED: Mapping[str, tuple[Json, str]] = {
    "scopes": ({"scopes": ["orders:admin"]}, "InvalidScope"),
    "client": ({"clientSecretRef": {"name": "nowhere"}}, "ClientSecretNotFound"),
    "keys": ({"clientSecretRef": {"name": "storefront-client", "clientIDKey": "id"}}, "ClientSecretInvalid"),
    "url": ({"tokenURL": "https://elsewhere.example.com/token"}, "URLNotAllowed"),
}


@pytest.mark.rule("STATUS-6")
@pytest.mark.parametrize("name", REFUSED)
def test_a_change_that_leads_nowhere_leaves_the_old_token_and_can_be_taken_back(tenant: Tenant, name: str) -> None:
    """As it was issued for what is asked for again, it counts again; no other was issued, however often tried."""
    spec, reason = REFUSED[name]
    before = tenant.start(scopes=BOTH).await_ready()
    tenant.apply(spec)
    condition = tenant.await_condition("Ready", "False", reason)
    assert tenant.condition("Refreshed") == condition
    assert tenant.target().version == before.version
    tenant.apply()
    assert tenant.await_ready().version == before.version
    assert [token.value for token in tenant.tokens()] == [before.token]


@pytest.mark.rule("WHEN-9")
def test_other_keys_of_the_client_secret_are_read_before_they_are_used(tenant: Tenant) -> None:
    """Another client, of which the same Secret holds id and secret."""
    other = tenant.sandbox.add_client(Client(id=f"{tenant.client.id}.other", secret="canary-of-the-other"))
    tenant.register()
    ours = {"client_id": tenant.client.id, "client_secret": tenant.client.secret}
    tenant.apply_client_secret({**ours, "id": other.id, "secret": other.secret})
    tenant.apply()
    before = tenant.await_ready()
    reference = {"name": tenant.client_secret_name, "clientIDKey": "id", "clientSecretKey": "secret"}
    tenant.apply({"clientSecretRef": reference})
    after = tenant.await_token(other_than=before.token)
    tenant.await_ready()
    assert [token.value for token in tenant.sandbox.tokens(other.id)] == [after.token]
    assert len(tenant.requests()) == 1


def test_a_missing_client_secret_is_named_by_its_present_name(tenant: Tenant) -> None:
    tenant.start({"clientSecretRef": {"name": "nowhere"}})
    assert "nowhere" in tenant.await_condition("Ready", "False", "ClientSecretNotFound").message
    tenant.apply({"clientSecretRef": {"name": "elsewhere"}})
    assert "elsewhere" in tenant.await_condition("Ready", "False", "ClientSecretNotFound").message


@pytest.mark.rule("WHEN-9")
def test_another_token_url_is_asked_for_another_token(tenant: Tenant, other_token_urls: tuple[str, ...]) -> None:
    before = tenant.start().await_ready()
    tenant.apply({"tokenURL": other_token_urls[0]})
    after = tenant.await_token(other_than=before.token)
    tenant.await_ready()
    assert tenant.status()["tokenURL"] == other_token_urls[0]
    assert after.notes["exchange-inputs"] != before.notes["exchange-inputs"]
    assert tenant.grants() == [EXCHANGE] * 2


def test_the_default_token_url_by_name_is_no_change(tenant: Tenant, sandbox: SandboxProcess) -> None:
    before = tenant.start().await_ready()
    await_seen(tenant, tenant.apply({"tokenURL": sandbox.https_token_url}))
    assert tenant.await_ready().version == before.version
    assert len(tenant.requests()) == 1


def test_the_order_of_scopes_is_no_change(tenant: Tenant) -> None:
    before = tenant.start({"scopes": ["orders:read", "orders:write"]}, scopes=BOTH).await_ready()
    await_seen(tenant, tenant.apply({"scopes": ["orders:write", "orders:read"]}))
    assert tenant.await_ready().version == before.version
    assert len(tenant.requests()) == 1
