"""The client Secret: missing, appearing, changed, and whatever it may hold."""

import time
from collections.abc import Mapping

import pytest

from tests.support.auditor import Auditor
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import wait_until

MIN_REFRESH_INTERVAL = 0.2
"""Seconds, as the operator is told."""

pytestmark = pytest.mark.usefixtures("operator")


def assert_ready_stayed_true(tenant: Tenant) -> None:
    verdicts = tenant.verdicts("Ready")
    assert verdicts[verdicts.index(("True", "Issued")) :] == [("True", "Issued")]


@pytest.mark.rule("WHEN-8")
def test_a_rotated_secret_is_followed_at_once(tenant: Tenant, sandbox: SandboxProcess, auditor: Auditor) -> None:
    """At the endpoint first, then in the Secret; Ready stays True, the new token works and the old one lived on."""
    tenant.start()
    before = tenant.await_ready()
    tenant.rotate_secret()
    tenant.apply_client_secret()
    after = tenant.await_token(other_than=before.token)
    assert sandbox.admin.graphql(after.token) == 200
    assert [(request.grant, request.status) for request in tenant.requests()] == [("client_credentials", 200)] * 2
    assert_ready_stayed_true(tenant)
    assert_version_is_noted(tenant)
    assert (verdict := auditor.verdict()).is_good, verdict


@pytest.mark.rule("CLIENT-10")
def test_a_secret_changed_before_the_endpoint_knows_it_is_tried_until_it_does(tenant: Tenant) -> None:
    """The other order: the good token stays, and the wait for the next try is a person's."""
    tenant.start()
    before = tenant.await_ready()
    old = tenant.client.secret
    tenant.apply_client_secret({"client_id": tenant.client.id, "client_secret": "the-next-one"})
    condition = tenant.await_condition("Refreshed", "False", "InvalidClient")
    assert "the-next-one" not in condition.message
    assert tenant.target().raw == before.raw
    tenant.register(secret="the-next-one")
    assert old != tenant.client.secret
    tenant.apply_client_secret(labels={"touched": "yes"})
    tenant.await_token(other_than=before.token)
    tenant.await_ready()
    assert_ready_stayed_true(tenant)


@pytest.mark.rule("WHEN-8")
def test_another_client_id_is_followed_too(tenant: Tenant) -> None:
    tenant.start()
    before = tenant.await_ready()
    other = Tenant(tenant.objects, tenant.sandbox, "other")
    other.register()
    tenant.apply_client_secret({"client_id": other.client.id, "client_secret": other.client.secret})
    after = tenant.await_token(other_than=before.token)
    assert [token.value for token in other.tokens()] == [after.token]
    assert_ready_stayed_true(tenant)


@pytest.mark.rule("WHEN-9")
def test_another_reference_is_followed_too(tenant: Tenant) -> None:
    """It is another input of the exchange, so Ready is False until there is a token for it."""
    tenant.start()
    before = tenant.await_ready()
    tenant.apply_client_secret(name="elsewhere")
    tenant.apply({"clientSecretRef": {"name": "elsewhere"}})
    after = tenant.await_ready()
    assert after.token != before.token
    assert len(tenant.requests()) == 2


@pytest.mark.rule("CLIENT-9")
@pytest.mark.parametrize("same_content", ["label", "rewritten"])
def test_an_edit_that_leaves_id_and_secret_costs_no_exchange(tenant: Tenant, same_content: str) -> None:
    tenant.start()
    before = tenant.await_ready()
    [request] = tenant.requests()
    wait_until(lambda: time.time() > request.received_at + MIN_REFRESH_INTERVAL, what="another attempt may be made")
    if same_content == "label":
        tenant.apply_client_secret(labels={"team": "shop"})
    else:
        tenant.objects.delete("Secret", tenant.client_secret_name)
        tenant.await_condition("Refreshed", "False", "ClientSecretNotFound")
        tenant.apply_client_secret()
    await_served(tenant)
    tenant.await_condition("Refreshed", "True", "Issued")
    assert len(tenant.requests()) == 1
    assert tenant.target().data == before.data
    assert_ready_stayed_true(tenant)


def await_served(tenant: Tenant) -> None:
    """Wait until the operator has served another credential whose Secret came later than what it should have seen."""
    Tenant(tenant.objects, tenant.sandbox, "marker").start().await_ready()


def assert_version_is_noted(tenant: Tenant) -> None:
    meta = tenant.objects.get("Secret", tenant.client_secret_name)["metadata"]
    assert tenant.target().notes["client-secret-version"] == f"{meta['uid']}/{meta['resourceVersion']}"


@pytest.mark.rule("CLIENT-7")
def test_a_missing_secret_is_waited_for(tenant: Tenant) -> None:
    tenant.register()
    tenant.apply()
    condition = tenant.await_condition("Ready", "False", "ClientSecretNotFound")
    assert condition.message == f"the Secret {tenant.client_secret_name} does not exist; create it in this namespace"
    assert tenant.condition("Refreshed") == tenant.condition("Ready")
    assert tenant.requests() == []
    tenant.await_event("ClientSecretNotFound")
    tenant.apply_client_secret()
    tenant.await_ready()


@pytest.mark.rule("CLIENT-8")
def test_a_secret_deleted_later_harms_no_good_token(tenant: Tenant) -> None:
    tenant.start()
    before = tenant.await_ready()
    tenant.objects.delete("Secret", tenant.client_secret_name)
    tenant.await_condition("Refreshed", "False", "ClientSecretNotFound")
    assert tenant.target().raw == before.raw
    assert_ready_stayed_true(tenant)


NO_USE: Mapping[str, tuple[Mapping[str, str | bytes], str]] = {
    "no client_id": ({"client_secret": "hidden"}, "has no key client_id;"),
    "no client_secret": ({"client_id": "hidden"}, "has no key client_secret;"),
    "empty": ({"client_id": "hidden", "client_secret": ""}, "has an empty key client_secret"),
    "nothing but a line end": ({"client_id": "\n", "client_secret": "hidden"}, "has an empty key client_id"),
    "binary": ({"client_id": "hidden", "client_secret": b"hidden\xff\x00"}, "in key client_secret; it must be"),
    "umlaut": ({"client_id": "hidden", "client_secret": "hidden-ä"}, "in key client_secret; it must be"),
    "two lines": ({"client_id": "hidden", "client_secret": "hidden\nhidden"}, "in key client_secret; it must be"),
    "two line ends": ({"client_id": "hidden\n\n", "client_secret": "hidden"}, "in key client_id; it must be"),
}


@pytest.mark.rule("CLIENT-3")
@pytest.mark.parametrize("name", NO_USE)
def test_a_secret_of_no_use_is_explained_and_asks_for_nothing(tenant: Tenant, name: str) -> None:
    """The message names the key, never the value; the good Secret ends the wait."""
    data, complaint = NO_USE[name]
    tenant.register()
    tenant.apply_client_secret(data)
    tenant.apply()
    condition = tenant.await_condition("Ready", "False", "ClientSecretInvalid")
    assert f"the Secret {tenant.client_secret_name} " in condition.message
    assert complaint in condition.message
    assert "hidden" not in condition.message
    assert tenant.requests() == []
    tenant.apply_client_secret()
    tenant.await_ready()


@pytest.mark.rule("CLIENT-8")
def test_a_secret_that_becomes_of_no_use_harms_no_good_token(tenant: Tenant) -> None:
    tenant.start()
    before = tenant.await_ready()
    tenant.apply_client_secret({"client_id": tenant.client.id, "client_secret": b"\xff"})
    tenant.await_condition("Refreshed", "False", "ClientSecretInvalid")
    assert tenant.target().raw == before.raw
    assert len(tenant.requests()) == 1
    assert_ready_stayed_true(tenant)
    tenant.apply_client_secret()
    tenant.await_condition("Refreshed", "True", "Issued")


@pytest.mark.rule("CLIENT-1")
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_one_line_end_is_taken_off(tenant: Tenant, line_end: str) -> None:
    """The usual slip of `kubectl create secret --from-file`."""
    tenant.register()
    data = {"client_id": tenant.client.id, "client_secret": tenant.client.secret}
    tenant.apply_client_secret({key: value + line_end for key, value in data.items()})
    tenant.apply()
    tenant.await_ready()


TYPES = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "helm.sh/release.v1": (),
    "bootstrap.kubernetes.io/token": (),
}
"""Types that hold keys of other systems, and what the API server wants in them."""


@pytest.mark.rule("CLIENT-4")
@pytest.mark.parametrize("kind", TYPES)
def test_a_secret_of_another_systems_type_is_refused_whatever_it_holds(tenant: Tenant, kind: str) -> None:
    tenant.register()
    data = {"client_id": tenant.client.id, "client_secret": tenant.client.secret}
    tenant.apply_client_secret({**data, **dict.fromkeys(TYPES[kind], "{}")}, kind=kind)
    tenant.apply()
    condition = tenant.await_condition("Ready", "False", "ClientSecretInvalid")
    assert kind in condition.message
    assert tenant.requests() == []


@pytest.mark.rule("CLIENT-4")
def test_such_a_secret_is_followed_when_it_is_made_again_with_the_right_type(tenant: Tenant) -> None:
    tenant.register()
    tenant.apply_client_secret(kind="helm.sh/release.v1")
    tenant.apply()
    tenant.await_condition("Ready", "False", "ClientSecretInvalid")
    tenant.objects.delete("Secret", tenant.client_secret_name)
    tenant.apply_client_secret()
    tenant.await_ready()
