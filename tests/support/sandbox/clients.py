"""The OAuth clients the sandbox knows: their secrets, scopes and lifetimes, and how the server treats each of them."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import yaml

from tests.support.sandbox.wire import InvalidError, read

Grant = Literal["client_credentials", "refresh_token"]
Refreshes = Literal["accepted", "invalid_client", "invalid_request", "invalid_grant"]

SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, section 3.3
VSCHAR = re.compile(r"[\x20-\x7e]+")  # RFC 6749, appendix A: what client ids and secrets are made of


@dataclass(frozen=True, kw_only=True)
class Client:
    """An OAuth client and the server's ways with it.

    Attributes:
        id, secret: What an exchange has to present.
        scopes: What it may ask for; an exchange that asks for nothing gets all of it.
        lifetime: Seconds that a token lives. ``expires_in`` is the whole seconds of it, at least 1, and the token is
            accepted for no less than what was announced.
        issues_refresh_tokens: Whether an exchange yields a refresh token.
        refreshes: What happens to a refresh-token grant without client id and secret: ``accepted`` as at Tuinly, or
            refused as other servers do, with 401 ``invalid_client``, 400 ``invalid_request`` or 400
            ``invalid_grant``.
        rotates_refresh_tokens: Whether a refresh-token grant yields a new refresh token and ends the old one.
        revokes_previous_on: The grants that revoke the client's earlier access tokens.
        grants_only: Scopes to which every grant is narrowed; None grants what was asked for.
        repeats_token: Whether an exchange answers the token it issued before, until a third of its life is left (a
            caching server).
    """

    id: str
    secret: str = field(repr=False)
    scopes: tuple[str, ...] = ()
    lifetime: float = 3600.0
    issues_refresh_tokens: bool = True
    refreshes: Refreshes = "accepted"
    rotates_refresh_tokens: bool = False
    revokes_previous_on: tuple[Grant, ...] = ()
    grants_only: tuple[str, ...] | None = None
    repeats_token: bool = False

    def __post_init__(self) -> None:
        """Refuse what no server could serve.

        Raises:
            InvalidError: With a sentence that names the field.
        """
        for name, value in (("id", self.id), ("secret", self.secret)):
            if not VSCHAR.fullmatch(value):
                raise InvalidError(f"a client's {name} is one or more printable ASCII characters")
        if not all(map(SCOPE_TOKEN.fullmatch, self.scopes + (self.grants_only or ()))):
            raise InvalidError("a scope is printable ASCII without space, quote and backslash")
        if self.lifetime <= 0:
            raise InvalidError("lifetime is a positive number of seconds")


DEMO_CLIENT = Client(
    id="demo", secret="demo-secret-of-the-sandbox", scopes=("orders:read", "orders:write"), lifetime=300.0
)


class Clients:
    """The clients by id."""

    def __init__(self, clients: Iterable[Client] = ()) -> None:
        self._clients = {client.id: client for client in clients}

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients.values())

    def get(self, client_id: str) -> Client | None:
        """Return the client of this id, if there is one."""
        return self._clients.get(client_id)

    def put(self, client: Client) -> None:
        """Register a client, or replace the one of its id; tokens it holds stay what they are."""
        self._clients[client.id] = client

    def remove(self, client_id: str) -> None:
        """Forget a client: its secret and its refresh tokens are refused from now on. Unknown ids are ignored."""
        self._clients.pop(client_id, None)

    def rotate_secret(self, client_id: str, secret: str) -> None:
        """Give a client another secret; the old one is refused from now on, tokens and refresh tokens stay good.

        Raises:
            LookupError: If there is no such client.
        """
        client = self._clients.get(client_id)
        if client is None:
            raise LookupError(f"there is no client {client_id!r}")
        self._clients[client_id] = replace(client, secret=secret)


def load_clients(file: Path) -> list[Client]:
    """Read clients from a YAML or JSON file: a list of clients, or an object whose ``clients`` is one.

    Raises:
        InvalidError: If the file cannot be read or does not hold that.
    """
    try:
        text = file.read_text(encoding="utf-8")
        document = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        # Not the error's own text: a parser quotes the line it stumbled over, and that may be a secret's.
        raise InvalidError(f"{file} cannot be read as YAML or JSON ({type(error).__name__})") from None
    if isinstance(document, Mapping):
        document = document.get("clients")
    if not isinstance(document, list):
        raise InvalidError(f"{file} holds a list of clients, or an object whose `clients` is one")
    return [read(Client, item) for item in document]
