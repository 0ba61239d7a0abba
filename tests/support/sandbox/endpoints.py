"""The two Tuinly endpoints: POST /token (RFC 6749) and POST /graphql (RFC 6750)."""

import hmac
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from tests.support.sandbox.answers import Answer, json_answer
from tests.support.sandbox.clients import SCOPE_TOKEN, Client, Clients
from tests.support.sandbox.delivery import faulty, send
from tests.support.sandbox.faults import Fault, Faults
from tests.support.sandbox.ledger import GraphqlRequest, IssuedToken, Ledger, RefreshToken, TokenRequest

FORM_TYPE = "application/x-www-form-urlencoded"
RECORDED_HEADERS = ("accept", "accept-encoding", "cookie", "user-agent")
UNPROCESSED = Answer(503)  # never sent: a fault that keeps a request from being processed has an answer of its own
TYPENAME_QUERY = re.compile(r"\s*(query\s*\w*\s*)?\{\s*__typename\s*\}\s*")


class RefusedError(Exception):
    """A token request that gets an error (RFC 6749, section 5.2). The description never repeats what was sent."""

    def __init__(
        self, error: str, description: str, status: int = 400, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(description)
        self.error = error
        self.answer = json_answer(status, {"error": error, "error_description": description}, headers)


@dataclass
class State:
    """All that the sandbox knows."""

    clients: Clients = field(default_factory=Clients)
    faults: Faults = field(default_factory=Faults)
    ledger: Ledger = field(default_factory=Ledger)


@dataclass(frozen=True)
class Issue:
    """What a granted request gets."""

    token: IssuedToken
    refresh_token: RefreshToken | None
    expires_in: int

    def answer(self, asked: tuple[str, ...]) -> Answer:
        """Return the good answer (section 5.1); it has a `scope` only where that differs from what was asked for."""
        document: dict[str, Any] = {
            "access_token": self.token.value,
            "token_type": "Bearer",
            "expires_in": self.expires_in,
        }
        if self.refresh_token is not None:
            document["refresh_token"] = self.refresh_token.value
        if set(self.token.scopes) != set(asked):
            document["scope"] = " ".join(self.token.scopes)
        return json_answer(200, document)


class TokenEndpoint:
    """POST /token: exchange (section 4.4) and refresh-token grant (section 6)."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, and enter it into the ledger whatever it is."""
        ledger = self._state.ledger
        with ledger.load["token"].counted():
            refused: RefusedError | None = None
            form: dict[str, str] = {}
            try:
                form = await _form(request)
            except RefusedError as error:
                refused = error
            entry = ledger.requests.append(self._entry(request, form))
            fault = self._state.faults.take("token", entry.client, entry.grant)
            processed = fault is None or fault.is_processed
            good = self._process(form, refused, entry) if processed else UNPROCESSED
            return await _finish(request, good, fault, form, entry)

    def _entry(self, request: web.Request, form: Mapping[str, str]) -> TokenRequest:
        """Make the ledger's entry of a request."""
        refresh_token = self._state.ledger.refresh_token(form.get("refresh_token", ""))
        return TokenRequest(
            sequence=self._state.ledger.requests.next_sequence,
            received_at=time.time(),
            received_monotonic=time.monotonic(),
            grant=form.get("grant_type"),
            client=form.get("client_id") or (refresh_token.client if refresh_token is not None else None),
            scopes=tuple(form.get("scope", "").split()),
            sent_client=bool({"client_id", "client_secret"} & form.keys()) or "Authorization" in request.headers,
            headers={name: request.headers[name] for name in RECORDED_HEADERS if name in request.headers},
        )

    def _process(self, form: Mapping[str, str], refused: RefusedError | None, entry: TokenRequest) -> Answer:
        """Do the server's work; the outcome goes into the entry."""
        try:
            if refused is not None:
                raise refused
            issue = self._issue(form)
        except RefusedError as error:
            entry.outcome = error.error
            return error.answer
        entry.outcome, entry.token = "issued", issue.token.sequence
        return issue.answer(entry.scopes)

    def _issue(self, form: Mapping[str, str]) -> Issue:
        match form.get("grant_type"):
            case "client_credentials":
                return self._exchange(form)
            case "refresh_token":
                return self._refresh(form)
            case None:
                raise RefusedError("invalid_request", "grant_type is missing")
        raise RefusedError("unsupported_grant_type", "grant_type is client_credentials or refresh_token")

    def _exchange(self, form: Mapping[str, str]) -> Issue:
        ledger = self._state.ledger
        client = self._authenticated(form)
        scopes = _granted(client, client.scopes, form)
        refresh_token = ledger.issue_refresh_token(client, scopes) if client.issues_refresh_tokens else None
        if client.repeats_token and (token := ledger.latest_valid(client.id, scopes)) is not None:
            return Issue(token, refresh_token, expires_in=int(token.expires_at - time.time()))
        token = ledger.issue(client, scopes, "client_credentials")
        return Issue(token, refresh_token, token.expires_in)

    def _refresh(self, form: Mapping[str, str]) -> Issue:
        ledger = self._state.ledger
        if "refresh_token" not in form:
            raise RefusedError("invalid_request", "refresh_token is missing")
        refresh_token = ledger.refresh_token(form["refresh_token"])
        client = self._state.clients.get(refresh_token.client) if refresh_token is not None else None
        if "client_id" in form or "client_secret" in form:
            if self._authenticated(form) is not client:
                raise RefusedError("invalid_grant", "the refresh token is not this client's")
        elif client is not None and client.refreshes != "accepted":
            status = 401 if client.refreshes == "invalid_client" else 400
            raise RefusedError(client.refreshes, "this server takes no refresh without a client", status)
        if refresh_token is None or client is None:
            raise RefusedError("invalid_grant", "the refresh token is unknown, ended or was replaced")
        token = ledger.issue(client, _granted(client, refresh_token.scopes, form), "refresh_token")
        if not client.rotates_refresh_tokens:
            return Issue(token, None, token.expires_in)
        ledger.end_refresh_token(refresh_token.value)
        return Issue(token, ledger.issue_refresh_token(client, refresh_token.scopes), token.expires_in)

    def _authenticated(self, form: Mapping[str, str]) -> Client:
        """Return the client that the form proves to come from."""
        if "client_id" not in form or "client_secret" not in form:
            raise RefusedError("invalid_client", "client_id and client_secret belong into the form", 401)
        client = self._state.clients.get(form["client_id"])
        if client is None or not hmac.compare_digest(client.secret.encode(), form["client_secret"].encode()):
            raise RefusedError("invalid_client", "the client is unknown or its secret is wrong", 401)
        return client


async def _form(request: web.Request) -> dict[str, str]:
    """Read the parameters, as strictly as RFC 6749 has it (sections 2.3.1, 3.2, 4.4.2)."""
    if request.method != "POST":
        raise RefusedError("invalid_request", "the method is POST", 405, {"Allow": "POST"})
    if request.content_type != FORM_TYPE:
        raise RefusedError("invalid_request", f"the content type is {FORM_TYPE}")
    if request.query_string:
        raise RefusedError("invalid_request", "parameters belong into the body, not into the URL")
    if "Authorization" in request.headers:
        challenge = {"WWW-Authenticate": 'Basic realm="sandbox"'}
        raise RefusedError("invalid_client", "client_id and client_secret belong into the form", 401, challenge)
    try:
        pairs = parse_qsl((await request.read()).decode("ascii"), errors="strict", max_num_fields=32)
    except web.HTTPRequestEntityTooLarge:
        raise RefusedError("invalid_request", "the body is too large") from None
    except ValueError:
        raise RefusedError("invalid_request", "the body is no form in UTF-8") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise RefusedError("invalid_request", "a parameter is repeated")
    return form


def _granted(client: Client, allowed: tuple[str, ...], form: Mapping[str, str]) -> tuple[str, ...]:
    """Return the scopes that a request gets (RFC 6749, section 3.3)."""
    asked = tuple(dict.fromkeys(form["scope"].split(" "))) if "scope" in form else allowed
    if not all(map(SCOPE_TOKEN.fullmatch, asked)):
        raise RefusedError("invalid_scope", "scope is a list of scopes with one space between them")
    if not set(asked) <= set(allowed):
        raise RefusedError("invalid_scope", "a scope is unknown or not allowed to this client")
    return asked if client.grants_only is None else tuple(scope for scope in asked if scope in client.grants_only)


class GraphqlEndpoint:
    """POST /graphql: takes exactly the tokens that are valid now, and knows one query, ``{__typename}``."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, and enter it into the ledger whatever it is."""
        ledger = self._state.ledger
        with ledger.load["graphql"].counted():
            body = await request.read()
            token = ledger.access_token(_bearer(request))
            entry = ledger.graphql.append(
                GraphqlRequest(
                    sequence=ledger.graphql.next_sequence,
                    received_at=time.time(),
                    client=token.client if token is not None else None,
                    token=token.sequence if token is not None else None,
                )
            )
            fault = self._state.faults.take("graphql", entry.client)
            return await _finish(request, _graphql(request, body, token), fault, {}, entry)


def _bearer(request: web.Request) -> str:
    """Return the token of the Authorization header (RFC 6750, section 2.1), empty if there is none."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value if scheme.lower() == "bearer" else ""


def _graphql(request: web.Request, body: bytes, token: IssuedToken | None) -> Answer:
    if request.method != "POST":
        return _graphql_error(405, "the method is POST", {"Allow": "POST"})
    if token is None or not token.is_valid(time.time()):
        challenge = {"WWW-Authenticate": 'Bearer realm="sandbox", error="invalid_token"'}
        return _graphql_error(401, "the access token is missing, unknown, expired or revoked", challenge)
    if request.content_type != "application/json":
        return _graphql_error(415, "the content type is application/json")
    try:
        query = json.loads(body)["query"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return _graphql_error(400, 'the body is {"query": "…"}')
    if not isinstance(query, str) or not TYPENAME_QUERY.fullmatch(query):
        return _graphql_error(200, "the sandbox knows one query: {__typename}")
    return json_answer(200, {"data": {"__typename": "Query"}})


def _graphql_error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    return json_answer(status, {"errors": [{"message": message}]}, headers)


async def _finish(
    request: web.Request,
    good: Answer,
    fault: Fault | None,
    form: Mapping[str, str],
    entry: TokenRequest | GraphqlRequest,
) -> web.StreamResponse:
    """Send an answer, or what a fault makes of it, and enter which."""
    answer: Answer | None = good
    if fault is not None:
        entry.fault = fault.label
        answer = faulty(good, fault, form)
    entry.status = answer.status if answer is not None else None
    return await send(request, answer, fault)
