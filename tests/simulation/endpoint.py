"""The token endpoint's model: Tuinly's ways and its relatives', a ledger of all that it gave, a clock of its own."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final
from urllib.parse import parse_qs

CANARY: Final = "canary"  # in all that is secret, so that a leak is seen wherever it goes

# How a tenant's client fails, whatever is asked; None for one that does not.
FAILURES: Final = ("500", "503", "429", "302", "404", "401", "garbage", "hang")


@dataclass(slots=True)
class Client:
    """A client, and how the endpoint treats it.

    Attributes:
        secrets: those that are taken now; after a rotation for a while the old one, too.
        lifetime: of its tokens, in seconds.
        scopes: what it may ask for.
        rotates: whether each refresh-token grant gives another refresh token.
        revokes: whether a new token ends the one before.
        refreshes: whether refresh tokens are given, and taken.
        repeats: seconds of life that a token must have left for it to be given again.
        fails: one of FAILURES, or None.
    """

    id: str
    secrets: list[str]
    lifetime: int
    scopes: frozenset[str]
    rotates: bool = True
    revokes: bool = False
    refreshes: str = "yes"  # "no": none are given; "refused": they are given, and not taken
    repeats: float = 0.0
    fails: str | None = None
    narrows: bool = False
    token: "Token | None" = None  # its present one


@dataclass(slots=True)
class Token:
    """A token that was given, at true times in seconds since the epoch: by which URL, for which client secret."""

    value: str
    client: str
    url: str
    secret: str
    scopes: frozenset[str]
    asked: frozenset[str]
    issued: float
    expires: float
    refresh: str | None
    revoked_at: float = 0.0  # not at all, if zero


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; `hangs` says that none comes."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    token: Token | None = None


class Endpoint:
    """Gives tokens, and remembers which."""

    def __init__(self, now: Callable[[], float], ahead: float) -> None:
        """`now` is the true time in seconds since the epoch, by which this one's clock is `ahead`."""
        self._now = now
        self._ahead = ahead
        self._numbers = 0
        self.clients: dict[str, Client] = {}
        self.tokens: dict[str, Token] = {}
        self.by_refresh_token: dict[str, Token] = {}
        self.distrusts = 0  # how many faults have the GraphQL endpoint refuse all tokens
        self.moods: list[str] = []  # of the whole endpoint: one of FAILURES each; the last counts

    @property
    def mood(self) -> str | None:
        """How it fails now, whoever asks."""
        return self.moods[-1] if self.moods else None

    def token_request(self, body: bytes, url: str) -> Reply:
        """Answer a token request that was sent to `url`."""
        form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        if self.mood is not None:
            return self._fail(self.mood)
        if form.get("grant_type") == "refresh_token":
            return self._refresh(form.get("refresh_token", ""), url)
        client = self.clients.get(form.get("client_id", ""))
        if client is not None and client.fails:
            return self._fail(client.fails)
        if client is None or form.get("client_secret") not in client.secrets:
            return self._error(401, "invalid_client")
        asked = frozenset(form.get("scope", "").split())
        if not asked <= client.scopes:
            return self._error(400, "invalid_scope")
        return self._give(client, asked, asked, url=url, secret=form["client_secret"])

    def verify(self, authorization: str) -> Reply:
        """Answer a verification, as the GraphQL endpoint does."""
        if self.mood is not None:
            return self._fail(self.mood)
        token = self.tokens.get(authorization.removeprefix("Bearer "))
        if token is None or self.distrusts or not self.lives(token):
            return self._answer(401, {"errors": [{"message": "unauthorized"}]})
        return self._answer(200, {"data": {"__typename": "Query"}})

    def client_of(self, body: bytes) -> str:
        """The client that a token request is for, empty where that cannot be told."""
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        token = self.by_refresh_token.get(form.get("refresh_token", ""))
        return token.client if token else form.get("client_id", "")

    def lives(self, token: Token) -> bool:
        """Whether a token works."""
        return not token.revoked_at and self._now() < token.expires

    def rotate(self, client: Client, *, keeps: bool) -> str:
        """Give a client another secret; return it. The old one is taken on, if it `keeps`."""
        self._numbers += 1
        secret = f"{CANARY}-secret-{client.id}-{self._numbers}"
        client.secrets = [secret, *client.secrets[:1]] if keeps else [secret]
        return secret

    def _refresh(self, value: str, url: str) -> Reply:
        token = self.by_refresh_token.get(value)
        client = self.clients.get(token.client) if token else None
        if client is not None and client.fails:
            return self._fail(client.fails)
        if token is None or client is None or client.refreshes != "yes":
            return self._error(400, "invalid_grant")
        if client.rotates:
            del self.by_refresh_token[value]
        refresh = None if client.rotates else value
        return self._give(client, token.asked, token.scopes, url=url, secret=token.secret, refresh=refresh)

    def _give(
        self,
        client: Client,
        asked: frozenset[str],
        scopes: frozenset[str],
        *,
        url: str,
        secret: str,
        refresh: str | None = None,
    ) -> Reply:
        now, present = self._now(), client.token
        if present and self.lives(present) and present.asked == asked and present.expires - now > client.repeats > 0:
            token = present
            token.secret = secret
        else:
            self._numbers += 1
            granted = frozenset(sorted(scopes)[1:]) if client.narrows else scopes
            if refresh is None and client.refreshes != "no":
                refresh = f"{CANARY}-refresh-{client.id}-{self._numbers}"
            value = f"{CANARY}-token-{client.id}-{self._numbers}"
            token = Token(value, client.id, url, secret, granted, asked, now, now + client.lifetime, refresh)
            if present is not None and client.revokes:
                present.revoked_at = now
            client.token = self.tokens[value] = token
            if refresh is not None:
                self.by_refresh_token[refresh] = token
        members: dict[str, object] = {
            "access_token": token.value,
            "token_type": "bearer",
            "expires_in": int(token.expires - now),
            "scope": " ".join(sorted(token.scopes)),
        }
        if token.refresh is not None:
            members["refresh_token"] = token.refresh
        return self._answer(200, members, token)

    def _fail(self, how: str) -> Reply:
        if how == "hang":
            return Reply(0, hangs=True)
        if how == "garbage":
            return Reply(200, b"<html>maintenance</html>", self._headers())
        if how == "401":
            return self._error(401, "invalid_client")
        wait = {"Retry-After": "120"} if how == "503" else {"Retry-After": "30"} if how == "429" else {}
        return Reply(int(how), b"<html></html>", {**self._headers(), **wait})

    def _error(self, status: int, code: str) -> Reply:
        return self._answer(status, {"error": code})

    def _answer(self, status: int, members: Mapping[str, object], token: Token | None = None) -> Reply:
        headers = {**self._headers(), "Content-Type": "application/json"}
        return Reply(status, json.dumps(members).encode(), headers, token=token)

    def _headers(self) -> dict[str, str]:
        return {"Date": formatdate(self._now() + self._ahead, usegmt=True)}
