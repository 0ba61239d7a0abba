"""Where client secrets may be sent is the cluster admin's choice, and nobody is trusted without a certificate."""

from collections.abc import Iterator

import pytest

from tests.api.conftest import StartOperator
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant


@pytest.fixture(scope="module", autouse=True)
def _operator(sandbox: SandboxProcess, make_operator: StartOperator) -> Iterator[None]:
    """Run an operator that allows its own HTTPS URL, the same of another host, and one of plain HTTP."""
    named = ("--allowed-token-url", on_localhost(sandbox.https_token_url), "--allowed-token-url", sandbox.token_url)
    with make_operator(*named, allowing=False) as operator:
        operator.wait_ready()
        yield


def on_localhost(url: str) -> str:
    return url.replace("127.0.0.1", "localhost")


def not_allowed(sandbox: SandboxProcess, how: str) -> str:
    return {
        "plain http": on_localhost(sandbox.token_url),
        "another path": f"{sandbox.https_token_url}/",
        "a query": f"{sandbox.https_token_url}?tenant=1",
        "upper case": sandbox.https_token_url.replace("https", "HTTPS"),
        "another port": sandbox.token_url.replace("http", "https"),
    }[how]


@pytest.mark.rule("SEC-1")
@pytest.mark.parametrize("how", ["plain http", "another path", "a query", "another port"])
def test_a_url_that_is_not_named_letter_by_letter_is_refused_before_any_secret_is_read(
    tenant: Tenant, sandbox: SandboxProcess, how: str
) -> None:
    """There is no client Secret, which is not even noticed; nobody gets a request."""
    since, ours = sandbox.admin.counts()["requests"], tenant.objects.namespace
    tenant.apply({"tokenURL": not_allowed(sandbox, how)})
    ready = tenant.await_condition("Ready", "False", "URLNotAllowed")
    assert tenant.condition("Refreshed") == ready
    assert "spec.tokenURL" in ready.message
    assert "--allowed-token-url" in ready.message
    # Credentials of namespaces that are still being deleted may ask for tokens.
    requests = sandbox.admin.requests(since=since)
    assert [request for request in requests if (request.client or ours).startswith(ours)] == []
    assert tenant.await_event("URLNotAllowed")["type"] == "Warning"


@pytest.mark.rule("SEC-2")
@pytest.mark.parametrize("url", ["https", "http"])
def test_a_url_that_is_named_is_used_plain_http_too(tenant: Tenant, sandbox: SandboxProcess, url: str) -> None:
    wanted = on_localhost(sandbox.https_token_url) if url == "https" else sandbox.token_url
    tenant.start({"tokenURL": wanted})
    tenant.await_ready()
    assert tenant.status()["tokenURL"] == wanted


@pytest.mark.rule("SEC-1")
def test_without_a_url_it_is_the_operators(tenant: Tenant, sandbox: SandboxProcess) -> None:
    tenant.start()
    tenant.await_ready()
    assert tenant.status()["tokenURL"] == sandbox.https_token_url


@pytest.mark.rule("STATUS-7")
def test_a_url_that_is_changed_to_one_that_is_not_allowed_harms_no_good_token(
    tenant: Tenant, sandbox: SandboxProcess
) -> None:
    """It is not Ready, as it is not what the spec asks for; with the old spec all is well at once."""
    tenant.start()
    before = tenant.await_ready()
    tenant.apply({"tokenURL": not_allowed(sandbox, "plain http")})
    tenant.await_condition("Ready", "False", "URLNotAllowed")
    assert tenant.target().raw == before.raw
    tenant.apply()
    assert tenant.await_ready().raw == before.raw
    assert len(tenant.requests()) == 1


@pytest.mark.rule("STATUS-6")
def test_another_allowed_url_costs_an_exchange_there(tenant: Tenant, sandbox: SandboxProcess) -> None:
    tenant.start()
    before = tenant.await_ready()
    tenant.apply({"tokenURL": sandbox.token_url})
    after = tenant.await_ready()
    assert after.token != before.token
    assert tenant.grants() == ["client_credentials"] * 2
