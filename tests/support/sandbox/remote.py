"""The sandbox from a test's side: a typed, synchronous client of its admin API."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from tests.support.sandbox.clients import Client
from tests.support.sandbox.faults import Fault
from tests.support.sandbox.ledger import GraphqlRequest, IssuedToken, Load, TokenRequest
from tests.support.sandbox.wire import read

T = TypeVar("T")

REQUEST_TIMEOUT = 30.0  # seconds; the machine may be busy


class SandboxError(RuntimeError):
    """The sandbox refused what it was told; the message is its own sentence."""


class SandboxAdmin:
    """Tells a running sandbox what to do and asks what it saw.

    Args:
        url: Where its admin API is, without a trailing slash.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # Loopback is never reached through a proxy, whatever the environment says.
        self._opener = build_opener(ProxyHandler({}))

    def addresses(self) -> dict[str, str]:
        """Return where the sandbox listens: ``http``, ``https``, ``admin``, and its ``ca`` file."""
        addresses: dict[str, str] = self._call("GET", "/")
        return addresses

    # Clients ---------------------------------------------------------------------------------------------------------

    def clients(self) -> list[Client]:
        """Return the clients."""
        return [read(Client, document) for document in self._call("GET", "/clients")]

    def add_client(self, client: Client) -> Client:
        """Register a client, or replace the one of its id; return it."""
        return self.add_clients([client])[0]

    def add_clients(self, clients: Iterable[Client]) -> list[Client]:
        """Register or replace many clients in one request; return them."""
        registered = list(clients)
        self._call("POST", "/clients", [vars(client) for client in registered])
        return registered

    def remove_client(self, client: str) -> None:
        """Remove a client; its access tokens live on."""
        self._call("DELETE", f"/clients/{quote(client, safe='')}")

    def rotate_secret(self, client: str, secret: str | None = None) -> str:
        """Give a client another secret, made up if left out, and return it; the old one is refused from now on."""
        answer = self._call("POST", f"/clients/{quote(client, safe='')}/secret", {"secret": secret})
        return str(answer["secret"])

    def revoke_all(self, client: str, *, refresh_tokens: bool = False) -> int:
        """Revoke a client's access tokens, and its refresh tokens if told; return how many access tokens it were."""
        path = f"/clients/{quote(client, safe='')}/revoke"
        return int(self._call("POST", path, {"refresh_tokens": refresh_tokens})["revoked"])

    def revoke(self, token: IssuedToken) -> None:
        """Revoke one access token."""
        self._call("POST", "/tokens/revoke", {"sequence": token.sequence})

    # Faults ----------------------------------------------------------------------------------------------------------

    def fault(self, fault: Fault) -> int:
        """Put a fault in force; return the number under which `clear_faults` ends it."""
        return int(self._call("POST", "/faults", asdict(fault))["number"])

    def clear_faults(self, number: int | None = None) -> None:
        """End one fault, or all."""
        self._call("DELETE", "/faults" if number is None else f"/faults/{number}")

    # Ledger ----------------------------------------------------------------------------------------------------------

    def requests(self, client: str | None = None, *, since: int = 0) -> list[TokenRequest]:
        """Return the token requests, of a client or all, with a sequence number greater than `since`."""
        return self._records(TokenRequest, "requests", client, since)

    def tokens(self, client: str | None = None, *, since: int = 0) -> list[IssuedToken]:
        """Return the issued access tokens, likewise."""
        return self._records(IssuedToken, "tokens", client, since)

    def graphql_requests(self, client: str | None = None, *, since: int = 0) -> list[GraphqlRequest]:
        """Return the GraphQL requests, likewise."""
        return self._records(GraphqlRequest, "graphql", client, since)

    def counts(self, client: str | None = None) -> dict[str, int]:
        """Return how many ``requests``, ``tokens`` and ``graphql`` requests there are, of a client or in all."""
        counts: dict[str, int] = self._call("GET", f"/ledger/counts{_query(client)}")
        return counts

    def concurrency(self) -> dict[str, Load]:
        """Return the requests in hand, now and at the peak, of the endpoints ``token`` and ``graphql``."""
        return {endpoint: read(Load, load) for endpoint, load in self._call("GET", "/concurrency").items()}

    def reset_concurrency(self) -> None:
        """Start the peaks anew."""
        self._call("DELETE", "/concurrency")

    # The endpoints themselves ----------------------------------------------------------------------------------------

    def graphql(self, token: str) -> int:
        """Query ``{__typename}`` over HTTP with a token, as an application would; return the status."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        body = json.dumps({"query": "{__typename}"}).encode()
        http = self.addresses()["http"]
        if urlsplit(http).hostname == "127.0.0.1":  # the sandbox's own: it is reached where its admin API is
            http = f"http://{urlsplit(self.url).hostname}:{urlsplit(http).port}"
        return self._send(Request(f"{http}/graphql", data=body, headers=headers))[0]  # noqa: S310

    def _records(self, kind: type[T], book: str, client: str | None, since: int) -> list[T]:
        documents = self._call("GET", f"/ledger/{book}{_query(client, since)}")
        return [read(kind, document) for document in documents]

    def _call(self, method: str, path: str, document: object = None) -> Any:  # noqa: ANN401 -- JSON has no better type
        """Call the admin API and return the decoded answer.

        Raises:
            SandboxError: If it refuses.
        """
        body = None if document is None else json.dumps(document).encode()
        headers = {"Content-Type": "application/json"}
        status, answer = self._send(Request(f"{self.url}{path}", data=body, headers=headers, method=method))  # noqa: S310
        result = json.loads(answer)
        if status != HTTPStatus.OK:
            raise SandboxError(result["error"])
        return result

    def _send(self, request: Request) -> tuple[int, bytes]:
        """Send a request; return status and body of whatever comes back."""
        try:
            with self._opener.open(request, timeout=REQUEST_TIMEOUT) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()


def _query(client: str | None, since: int = 0) -> str:
    return "?" + urlencode({"since": since} if client is None else {"since": since, "client": client})
