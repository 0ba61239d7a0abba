"""The ledger: every token request and every issued token, and which tokens are valid now.

Records are appended and indexed by client, so that reading one client's is cheap with ten thousand others beside it.
"""

import secrets
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from tests.support.sandbox.clients import Client, Grant

RevokedBy = Literal["admin", "successor"]


@dataclass(kw_only=True)
class TokenRequest:
    """One request to the token endpoint, whatever became of it.

    Attributes:
        received_at, received_monotonic: When it had arrived as a whole, in seconds of ``time.time`` and of
            ``time.monotonic``.
        grant, client, scopes: What it asked for, as far as that can be told. For a refresh-token grant without a
            client id, the client that the refresh token was issued to.
        outcome: ``issued``, the error code, or ``unprocessed`` where a fault kept it from being looked at.
        status: The status that was sent; None while or where nothing was.
        fault: What was done to it: a fault's kind, with the answer's name where it is one of the catalogue.
        token: The sequence number of the token in the answer.
        sent_client: Whether it carried a client id or secret of its own.
        headers: The request headers that tests ask about, by lower-case name.
    """

    sequence: int
    received_at: float
    received_monotonic: float
    grant: str | None = None
    client: str | None = None
    scopes: tuple[str, ...] = ()
    outcome: str = "unprocessed"
    status: int | None = None
    fault: str | None = None
    token: int | None = None
    sent_client: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class GraphqlRequest:
    """One request to the GraphQL endpoint; `token` is the presented one's sequence number, None if never issued."""

    sequence: int
    received_at: float
    client: str | None = None
    token: int | None = None
    status: int | None = None
    fault: str | None = None


@dataclass(kw_only=True)
class IssuedToken:
    """An access token.

    Attributes:
        value: What a client gets. People are told the sequence number in its place.
        issued_at, expires_at, revoked_at: Seconds of ``time.time``. It lives no shorter than announced.
        expires_in: The seconds that were announced when it was issued.
        revoked_by: Whether a person or the issue of a new token ended it.
    """

    sequence: int
    value: str = field(repr=False)
    client: str
    scopes: tuple[str, ...]
    grant: Grant
    issued_at: float
    expires_in: int
    expires_at: float
    revoked_at: float | None = None
    revoked_by: RevokedBy | None = None

    def is_valid(self, now: float) -> bool:
        """Tell whether the GraphQL endpoint accepts it at this time."""
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True)
class RefreshToken:
    """A refresh token; it stands for a client and the scopes of the exchange that it came from."""

    value: str = field(repr=False)
    client: str
    scopes: tuple[str, ...]


@dataclass
class Load:
    """How many requests an endpoint has in hand, and the most it ever had.

    The sandbox is quick: only a fault of kind ``slow`` or ``hang`` shows how many a client would send at once.
    """

    now: int = 0
    peak: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one request while it is in hand."""
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            yield
        finally:
            self.now -= 1


class _Record(Protocol):
    @property
    def sequence(self) -> int: ...

    @property
    def client(self) -> str | None: ...


R = TypeVar("R", bound=_Record)


class Book(Generic[R]):
    """Records in order of their sequence numbers (1, 2, …), and the same by client."""

    def __init__(self) -> None:
        self._all: list[R] = []
        self._by_client: dict[str, list[R]] = defaultdict(list)

    @property
    def next_sequence(self) -> int:
        """The sequence number of the record to come."""
        return len(self._all) + 1

    def append(self, record: R) -> R:
        """Add a record that carries the next sequence number."""
        self._all.append(record)
        if record.client is not None:
            self._by_client[record.client].append(record)
        return record

    def select(self, client: str | None = None, since: int = 0) -> list[R]:
        """Return the records of a client, or all, whose sequence number is greater than `since`."""
        if client is None:
            return self._all[since:]
        return [record for record in self._by_client.get(client, []) if record.sequence > since]

    def count(self, client: str | None = None) -> int:
        """Return how many records there are, of a client or in all."""
        return len(self._all if client is None else self._by_client.get(client, []))


class Ledger:
    """What was asked, what was issued, what is valid."""

    def __init__(self) -> None:
        self.requests: Book[TokenRequest] = Book()
        self.graphql: Book[GraphqlRequest] = Book()
        self.tokens: Book[IssuedToken] = Book()
        self.load = {"token": Load(), "graphql": Load()}
        self._by_value: dict[str, IssuedToken] = {}
        self._refresh_tokens: dict[str, RefreshToken] = {}

    def issue(self, client: Client, scopes: tuple[str, ...], grant: Grant) -> IssuedToken:
        """Issue an access token, and revoke its predecessors where the client's ways say so."""
        now = time.time()
        if grant in client.revokes_previous_on:
            self.revoke_all(client.id, by="successor", now=now)
        token = IssuedToken(
            sequence=self.tokens.next_sequence,
            value=f"sandbox-access-{secrets.token_urlsafe(32)}",
            client=client.id,
            scopes=scopes,
            grant=grant,
            issued_at=now,
            expires_in=max(1, int(client.lifetime)),
            expires_at=now + max(client.lifetime, 1),
        )
        self._by_value[token.value] = token
        return self.tokens.append(token)

    def issue_refresh_token(self, client: Client, scopes: tuple[str, ...]) -> RefreshToken:
        """Issue a refresh token."""
        token = RefreshToken(f"sandbox-refresh-{secrets.token_urlsafe(32)}", client.id, scopes)
        self._refresh_tokens[token.value] = token
        return token

    def access_token(self, value: str) -> IssuedToken | None:
        """Return the token of this value, valid or not; None if it was never issued."""
        return self._by_value.get(value)

    def latest_valid(self, client: str, scopes: tuple[str, ...]) -> IssuedToken | None:
        """Return the newest token of a client with exactly these scopes that has a third or more of its life left.

        A server that caches leaves its clients time to use what it answers, and announces whole seconds.
        """
        now = time.time()
        tokens = reversed(self.tokens.select(client))
        fit = (token for token in tokens if token.scopes == scopes)
        return next((token for token in fit if token.is_valid(now + token.expires_in / 3)), None)

    def refresh_token(self, value: str) -> RefreshToken | None:
        """Return the refresh token of this value, if it is one that may be used."""
        return self._refresh_tokens.get(value)

    def end_refresh_token(self, value: str) -> None:
        """Make a refresh token unusable."""
        self._refresh_tokens.pop(value, None)

    def revoke(self, token: IssuedToken, by: RevokedBy, now: float) -> bool:
        """Revoke an access token; False if it was no longer valid anyway."""
        if not token.is_valid(now):
            return False
        token.revoked_at, token.revoked_by = now, by
        return True

    def revoke_all(self, client: str, by: RevokedBy, now: float) -> int:
        """Revoke the valid access tokens of a client; return how many there were."""
        return sum(self.revoke(token, by, now) for token in self.tokens.select(client))

    def end_refresh_tokens(self, client: str) -> int:
        """Make all refresh tokens of a client unusable; return how many there were."""
        ended = [token.value for token in self._refresh_tokens.values() if token.client == client]
        for value in ended:
            self.end_refresh_token(value)
        return len(ended)
