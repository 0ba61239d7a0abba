"""The sandbox as Tuinly: what both endpoints answer over real sockets, and what the ledger says about it."""

import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.message import Message
from itertools import count
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote_plus, urlencode
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import pytest

from tests.support.sandbox import Client, SandboxError, SandboxProcess
from tests.support.sandbox.clients import Refreshes

FORM = "application/x-www-form-urlencoded"
_numbers = count(1)


@dataclass(frozen=True)
class Reply:
    """What came back over the socket."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """Its JSON object."""
        document: dict[str, Any] = json.loads(self.body)
        return document


def send(
    url: str,
    body: bytes | None,
    headers: dict[str, str] | None = None,
    method: str | None = None,
    trust: ssl.SSLContext | None = None,
) -> Reply:
    """Send one request."""
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=trust))
    request = Request(url, data=body, headers=headers or {}, method=method)  # noqa: S310 -- the sandbox's own URL
    try:
        with opener.open(request, timeout=30) as answer:
            return Reply(answer.status, answer.headers, answer.read())
    except HTTPError as error:
        with error:
            return Reply(error.code, error.headers, error.read())


def ask(sandbox: SandboxProcess, **form: str) -> Reply:
    """Send one token request."""
    return send(sandbox.token_url, urlencode(form).encode(), {"Content-Type": FORM})


def exchange(sandbox: SandboxProcess, client: Client, **more: str) -> Reply:
    """Exchange client credentials."""
    form = {"grant_type": "client_credentials", "client_id": client.id, "client_secret": client.secret}
    return ask(sandbox, **{**form, **more})


def refresh(sandbox: SandboxProcess, refresh_token: str, **more: str) -> Reply:
    """Use a refresh token as Tuinly has it: without a client."""
    return ask(sandbox, grant_type="refresh_token", refresh_token=refresh_token, **more)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess() as running:
        yield running


@pytest.fixture
def client(sandbox: SandboxProcess) -> Client:
    """Return a client of the test's own, so that tests do not meet."""
    fresh = Client(id=f"client-{next(_numbers)}", secret="s3cr&t=+ %", scopes=("orders:read", "orders:write"))
    return sandbox.admin.add_client(fresh)


def test_an_exchange_yields_a_token_that_graphql_takes(sandbox: SandboxProcess, client: Client) -> None:
    before = time.time()
    reply = exchange(sandbox, client, scope="orders:read")

    assert reply.status == 200
    assert set(reply.json) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (reply.json["token_type"], reply.json["expires_in"]) == ("Bearer", 3600)
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers.get_content_type() == "application/json"
    assert sandbox.admin.graphql(reply.json["access_token"]) == 200
    (token,) = sandbox.admin.tokens(client.id)
    assert (token.value, token.scopes, token.grant) == (
        reply.json["access_token"],
        ("orders:read",),
        "client_credentials",
    )
    assert before <= token.issued_at <= time.time()
    assert token.expires_at == pytest.approx(token.issued_at + 3600)
    (request,) = sandbox.admin.requests(client.id)
    assert (request.outcome, request.status, request.token, request.sent_client) == (
        "issued",
        200,
        token.sequence,
        True,
    )


def test_a_refresh_needs_no_client_and_its_token_is_used_again_and_again(
    sandbox: SandboxProcess, client: Client
) -> None:
    first = exchange(sandbox, client).json
    replies = [refresh(sandbox, first["refresh_token"]) for _ in range(3)]

    assert [reply.status for reply in replies] == [200, 200, 200]
    assert all("refresh_token" not in reply.json for reply in replies)
    tokens = {first["access_token"], *(reply.json["access_token"] for reply in replies)}
    assert {token.value for token in sandbox.admin.tokens(client.id)} == tokens
    assert {sandbox.admin.graphql(token) for token in tokens} == {200}
    assert [request.sent_client for request in sandbox.admin.requests(client.id)] == [True, False, False, False]


def test_https_serves_the_same_under_the_test_ca(sandbox: SandboxProcess, client: Client) -> None:
    trust = ssl.create_default_context(cafile=sandbox.ca_file)
    form = {"grant_type": "client_credentials", "client_id": client.id, "client_secret": client.secret}
    for url in (sandbox.https_token_url, sandbox.https_token_url.replace("127.0.0.1", "localhost")):
        reply = send(url, urlencode(form).encode(), {"Content-Type": FORM}, trust=trust)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {reply.json['access_token']}"}
        answer = send(sandbox.https_graphql_url, b'{"query": "{__typename}"}', headers, trust=trust)
        assert answer.json == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize(
    ("refreshes", "status"),
    [("invalid_client", 401), ("invalid_request", 400), ("invalid_grant", 400)],
)
def test_a_refresh_without_a_client_may_be_refused(
    sandbox: SandboxProcess, client: Client, refreshes: Refreshes, status: int
) -> None:
    sandbox.admin.add_client(replace(client, refreshes=refreshes))
    refresh_token = exchange(sandbox, client).json["refresh_token"]

    reply = refresh(sandbox, refresh_token)

    assert (reply.status, reply.json["error"]) == (status, refreshes)
    with_client = refresh(sandbox, refresh_token, client_id=client.id, client_secret=client.secret)
    assert with_client.status == 200


def test_refresh_tokens_may_be_rotated_or_not_given(sandbox: SandboxProcess, client: Client) -> None:
    sandbox.admin.add_client(replace(client, rotates_refresh_tokens=True))
    first = exchange(sandbox, client).json["refresh_token"]
    second = refresh(sandbox, first).json["refresh_token"]
    assert refresh(sandbox, first).json["error"] == "invalid_grant"
    assert refresh(sandbox, second).status == 200

    sandbox.admin.add_client(replace(client, issues_refresh_tokens=False))
    assert "refresh_token" not in exchange(sandbox, client).json


def test_a_new_token_revokes_its_predecessors_where_told(sandbox: SandboxProcess, client: Client) -> None:
    sandbox.admin.add_client(replace(client, revokes_previous_on=("refresh_token",)))
    first = exchange(sandbox, client).json
    second = exchange(sandbox, client).json
    assert sandbox.admin.graphql(first["access_token"]) == 200

    third = refresh(sandbox, second["refresh_token"]).json

    statuses = [sandbox.admin.graphql(reply["access_token"]) for reply in (first, second, third)]
    assert statuses == [401, 401, 200]
    tokens = sandbox.admin.tokens(client.id)
    assert [token.revoked_by for token in tokens] == ["successor", "successor", None]
    assert tokens[0].revoked_at == tokens[1].revoked_at == pytest.approx(tokens[2].issued_at)


def test_scopes_may_be_narrowed_and_the_answer_says_so(sandbox: SandboxProcess, client: Client) -> None:
    assert exchange(sandbox, client).json["scope"] == "orders:read orders:write"  # nothing was asked for
    assert "scope" not in exchange(sandbox, client, scope="orders:write orders:read").json

    sandbox.admin.add_client(replace(client, grants_only=("orders:read",)))

    assert exchange(sandbox, client, scope="orders:read orders:write").json["scope"] == "orders:read"
    assert sandbox.admin.tokens(client.id)[-1].scopes == ("orders:read",)


def test_a_caching_server_repeats_its_token(sandbox: SandboxProcess, client: Client) -> None:
    sandbox.admin.add_client(replace(client, repeats_token=True))
    first, second = exchange(sandbox, client).json, exchange(sandbox, client).json
    assert first["access_token"] == second["access_token"]
    assert second["expires_in"] < first["expires_in"]
    assert [request.token for request in sandbox.admin.requests(client.id)] == [
        sandbox.admin.tokens(client.id)[0].sequence
    ] * 2


@pytest.mark.parametrize(("lifetime", "expires_in"), [(0.2, 1), (1, 1), (2.9, 2), (3600, 3600)])
def test_expires_in_is_whole_seconds_and_never_promises_too_much(
    sandbox: SandboxProcess, client: Client, lifetime: float, expires_in: int
) -> None:
    sandbox.admin.add_client(replace(client, lifetime=lifetime))
    assert exchange(sandbox, client).json["expires_in"] == expires_in
    (token,) = sandbox.admin.tokens(client.id)
    assert token.expires_at >= token.issued_at + expires_in


def test_an_expired_token_is_refused(sandbox: SandboxProcess, client: Client) -> None:
    sandbox.admin.add_client(replace(client, lifetime=1))
    value = exchange(sandbox, client).json["access_token"]
    (token,) = sandbox.admin.tokens(client.id)
    while (status := sandbox.admin.graphql(value)) == 200 and time.time() < token.expires_at + 10:
        time.sleep(0.05)
    assert status == 401
    assert time.time() >= token.expires_at


def test_a_rotated_secret_replaces_the_old_one_and_leaves_tokens_good(sandbox: SandboxProcess, client: Client) -> None:
    issued = exchange(sandbox, client).json
    secret = sandbox.admin.rotate_secret(client.id)

    assert secret != client.secret
    assert exchange(sandbox, client).status == 401
    assert exchange(sandbox, replace(client, secret=secret)).status == 200
    assert refresh(sandbox, issued["refresh_token"]).status == 200
    assert sandbox.admin.graphql(issued["access_token"]) == 200


def test_a_removed_client_gets_nothing_more(sandbox: SandboxProcess, client: Client) -> None:
    issued = exchange(sandbox, client).json
    sandbox.admin.remove_client(client.id)
    assert exchange(sandbox, client).json["error"] == "invalid_client"
    assert refresh(sandbox, issued["refresh_token"]).json["error"] == "invalid_grant"
    with pytest.raises(SandboxError, match="there is no client"):
        sandbox.admin.rotate_secret(client.id)


def test_tokens_are_revoked_one_by_one_or_all(sandbox: SandboxProcess, client: Client) -> None:
    replies = [exchange(sandbox, client).json for _ in range(3)]
    tokens = sandbox.admin.tokens(client.id)

    sandbox.admin.revoke(tokens[1])
    assert [sandbox.admin.graphql(token.value) for token in tokens] == [200, 401, 200]
    assert refresh(sandbox, replies[0]["refresh_token"]).status == 200

    assert sandbox.admin.revoke_all(client.id, refresh_tokens=True) == 3
    tokens = sandbox.admin.tokens(client.id)
    assert {sandbox.admin.graphql(token.value) for token in tokens} == {401}
    assert {token.revoked_by for token in tokens} == {"admin"}
    assert refresh(sandbox, replies[0]["refresh_token"]).json["error"] == "invalid_grant"


GOOD = "grant_type=client_credentials&client_id={id}&client_secret={secret}"
BAD_FORMS = {
    "empty": ("", 400, "invalid_request"),
    "another grant": ("grant_type=password", 400, "unsupported_grant_type"),
    "no client": ("grant_type=client_credentials", 401, "invalid_client"),
    "no secret": ("grant_type=client_credentials&client_id={id}", 401, "invalid_client"),
    "an empty secret": ("grant_type=client_credentials&client_id={id}&client_secret=", 401, "invalid_client"),
    "a wrong secret": ("grant_type=client_credentials&client_id={id}&client_secret=wrong", 401, "invalid_client"),
    "an unknown client": ("grant_type=client_credentials&client_id=x&client_secret={secret}", 401, "invalid_client"),
    "a repeated id": (f"{GOOD}&client_id={{id}}", 400, "invalid_request"),
    "a repeated grant": (f"{GOOD}&grant_type=client_credentials", 400, "invalid_request"),
    "an unknown scope": (f"{GOOD}&scope=orders:delete", 400, "invalid_scope"),
    "two spaces": (f"{GOOD}&scope=orders:read++orders:write", 400, "invalid_scope"),
    "a quote in a scope": (f"{GOOD}&scope=%22", 400, "invalid_scope"),
    "escaped bytes that are no UTF-8": (f"{GOOD}&note=%ff", 400, "invalid_request"),
    "unescaped characters": (f"{GOOD}&note=ö", 400, "invalid_request"),
    "a huge body": (f"{GOOD}&note={'x' * 70_000}", 400, "invalid_request"),
    "no refresh token": ("grant_type=refresh_token", 400, "invalid_request"),
    "an unknown refresh token": ("grant_type=refresh_token&refresh_token=x", 400, "invalid_grant"),
}


@pytest.mark.parametrize("what", BAD_FORMS)
def test_bad_token_requests_are_refused_as_rfc_6749_has_it(sandbox: SandboxProcess, client: Client, what: str) -> None:
    body, status, error = BAD_FORMS[what]
    seen = sandbox.admin.counts()["requests"]
    filled = body.format(id=client.id, secret=quote_plus(client.secret))

    reply = send(sandbox.token_url, filled.encode(), {"Content-Type": FORM})

    assert (reply.status, reply.json["error"]) == (status, error)
    assert reply.headers["Cache-Control"] == "no-store"
    assert client.secret not in reply.body.decode()
    (request,) = sandbox.admin.requests(since=seen)
    assert (request.status, request.outcome, request.token) == (status, error, None)


BAD_REQUESTS = {
    "GET": ("GET", "", {"Content-Type": FORM}, 405),
    "PUT": ("PUT", "", {"Content-Type": FORM}, 405),
    "parameters in the URL": ("POST", "?scope=orders:read", {"Content-Type": FORM}, 400),
    "JSON": ("POST", "", {"Content-Type": "application/json"}, 400),
    "basic authentication": ("POST", "", {"Content-Type": FORM, "Authorization": "Basic ZGVtbzpkZW1v"}, 401),
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
def test_token_requests_have_one_form(sandbox: SandboxProcess, client: Client, what: str) -> None:
    method, query, headers, status = BAD_REQUESTS[what]
    seen = sandbox.admin.counts()["requests"]
    form = {"grant_type": "client_credentials", "client_id": client.id, "client_secret": client.secret}
    reply = send(sandbox.token_url + query, urlencode(form).encode(), headers, method)
    assert reply.status == status
    assert [request.status for request in sandbox.admin.requests(since=seen)] == [status]
    if status == 401:
        assert reply.headers["WWW-Authenticate"].startswith("Basic ")


QUERY = '{"query": "{__typename}"}'
GRAPHQL = {
    "good": ("Bearer {token}", "application/json", QUERY, 200),
    "good in other words": (
        "bearer {token}",
        "application/json; charset=utf-8",
        '{"query": "query Q { __typename }"}',
        200,
    ),
    "an unknown token": ("Bearer {token}x", "application/json", QUERY, 401),
    "another scheme": ("Basic {token}", "application/json", QUERY, 401),
    "no token": ("", "application/json", QUERY, 401),
    "text": ("Bearer {token}", "text/plain", QUERY, 415),
    "no JSON": ("Bearer {token}", "application/json", "{", 400),
    "no object": ("Bearer {token}", "application/json", "[]", 400),
    "no query": ("Bearer {token}", "application/json", '{"query": 1}', 200),
    "another query": ("Bearer {token}", "application/json", '{"query": "{orders}"}', 200),
}


@pytest.mark.parametrize("what", GRAPHQL)
def test_graphql(sandbox: SandboxProcess, client: Client, what: str) -> None:
    authorization, content_type, body, status = GRAPHQL[what]
    token = exchange(sandbox, client).json["access_token"]
    headers = {"Content-Type": content_type, "Authorization": authorization.format(token=token)}
    reply = send(sandbox.graphql_url, body.encode(), headers)
    assert reply.status == status
    assert ("data" in reply.json) == what.startswith("good")
    assert ("errors" in reply.json) != what.startswith("good")
    assert ("WWW-Authenticate" in reply.headers) == (status == 401)


def test_the_ledger_tells_clients_and_times_apart(sandbox: SandboxProcess, client: Client) -> None:
    other = sandbox.admin.add_client(replace(client, id=f"{client.id}-other"))
    exchange(sandbox, other)
    seen = sandbox.admin.counts()["requests"]
    for _ in range(3):
        exchange(sandbox, client)
    assert sandbox.admin.counts(client.id) == {"requests": 3, "tokens": 3, "graphql": 0}
    assert len(sandbox.admin.requests(other.id)) == 1
    since = sandbox.admin.requests(since=seen)
    assert since == sandbox.admin.requests(client.id)
    assert [request.sequence for request in since] == [seen + 1, seen + 2, seen + 3]
    assert since[0].received_monotonic <= since[1].received_monotonic


def test_requests_show_the_headers_that_tests_ask_about(sandbox: SandboxProcess, client: Client) -> None:
    headers = {"Content-Type": FORM, "Cookie": "tenant=1", "Accept-Encoding": "identity", "X-Other": "1"}
    form = {"grant_type": "client_credentials", "client_id": client.id, "client_secret": client.secret}
    send(sandbox.token_url, urlencode(form).encode(), headers)
    (request,) = sandbox.admin.requests(client.id)
    assert request.headers["cookie"] == "tenant=1"
    assert request.headers["accept-encoding"] == "identity"
    assert set(request.headers) <= {"cookie", "accept-encoding", "accept", "user-agent"}


def test_many_clients_at_once(sandbox: SandboxProcess) -> None:
    clients = [Client(id=f"many-{number}", secret=f"secret-{number}") for number in range(2000)]
    sandbox.admin.add_clients(clients)
    assert exchange(sandbox, clients[1999]).status == 200


def test_records_do_not_print_secrets(sandbox: SandboxProcess, client: Client) -> None:
    value = exchange(sandbox, client).json["access_token"]
    shown = repr([sandbox.admin.tokens(client.id), sandbox.admin.requests(client.id), client])
    assert value not in shown
    assert client.secret not in shown
