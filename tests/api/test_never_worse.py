"""A good token is only replaced by one that is at least as good."""

import pytest

from tests.support.auditor import Auditor
from tests.support.tenant import Tenant, seconds_of

pytestmark = pytest.mark.usefixtures("operator")


@pytest.mark.rule("ANS-12")
def test_the_same_token_again_is_not_written_again(tenant: Tenant) -> None:
    """A caching server: it is asked again after half of the life that is left, until it gives another one."""
    tenant.start(lifetime=9, issues_refresh_tokens=False, repeats_token=True)
    first = tenant.await_ready()
    second = tenant.await_token(other_than=first.token)
    tokens = [request.token for request in tenant.requests()]
    assert tokens.count(tokens[0]) >= 2  # it was given again, and asked for no more often than halving takes
    assert len(tokens) <= 8
    assert [target.token for target in tenant.targets()][:2] == [first.token, second.token]
    assert [verdict for verdict in tenant.verdicts("Refreshed") if verdict[0] == "False"] == []


@pytest.mark.rule("ANS-14")
def test_narrower_scopes_are_refused_while_the_token_is_good(tenant: Tenant, auditor: Auditor) -> None:
    scopes = ("orders:read", "orders:write")
    tenant.start({"scopes": list(scopes)}, scopes=scopes)
    before = tenant.await_ready()
    tenant.register(grants_only=("orders:read",))
    tenant.rotate_secret()
    tenant.apply_client_secret()
    condition = tenant.await_condition("Refreshed", "False", "WorseToken")
    assert "narrower" in condition.message
    assert tenant.target().raw == before.raw
    tenant.await_condition("Ready", "True", "Issued")
    tenant.register(grants_only=None)
    tenant.apply_client_secret(labels={"touched": "yes"})
    assert tenant.await_token(other_than=before.token).notes["granted-scopes"] == "orders:read orders:write"
    assert (verdict := auditor.verdict()).is_good, verdict


@pytest.mark.rule("ANS-16")
def test_narrower_scopes_are_taken_when_the_spec_asks_for_fewer(tenant: Tenant) -> None:
    scopes = ("orders:read", "orders:write")
    tenant.start({"scopes": list(scopes)}, scopes=scopes)
    tenant.await_ready()
    tenant.apply({"scopes": ["orders:read"]})
    tenant.await_ready()
    assert tenant.status()["scopes"] == ["orders:read"]


@pytest.mark.rule("ANS-17")
def test_narrower_scopes_at_first_are_published_and_told(tenant: Tenant) -> None:
    scopes = ("orders:read", "orders:write")
    tenant.start({"scopes": list(scopes)}, scopes=scopes, grants_only=("orders:read",))
    target = tenant.await_ready()
    assert target.notes["granted-scopes"] == "orders:read"
    assert tenant.status()["scopes"] == ["orders:read"]
    assert tenant.await_event("ScopeNarrowed")["type"] == "Warning"


@pytest.mark.rule("ANS-16")
def test_an_earlier_expiry_is_taken_after_a_change_of_the_client(tenant: Tenant) -> None:
    tenant.start(lifetime=3600)
    before = tenant.await_ready()
    tenant.register(lifetime=600)
    tenant.rotate_secret()
    tenant.apply_client_secret()
    after = tenant.await_token(other_than=before.token)
    assert seconds_of(after.notes["expires-at"]) < seconds_of(before.notes["expires-at"])
