"""Facts: what is true of the shop now, each a look that a checker takes; they compare the cluster with the ledger.

Each raises AssertionError with what it sees where the fact does not hold, else it returns what more there is to tell.
Tokens and secrets are never told, only their number in the ledger and their length.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Final

from tests.support.auditor import Finding, Verdict, Wrong
from tests.support.demo.checker import require
from tests.support.demo.stage import Operator
from tests.support.sandbox import IssuedToken, TokenRequest
from tests.support.tenant import Target, Tenant, condition_of, seconds_of

EXCHANGE: Final = "client_credentials"
REFRESH: Final = "refresh_token"

WATCH_LAG: Final = 2.0
"""Seconds that the auditor may see a change later than we do, who look ourselves."""


class Mark:
    """A moment of the story, to tell what came after it.

    Attributes:
        at: the moment, in seconds of `time.time`.
    """

    def __init__(self, shop: Tenant) -> None:
        """Mark this moment."""
        self._shop = shop
        self._count = len(shop.requests())
        self.at = time.time()

    def requests(self, *, grant: str | None = None, processed: bool = False) -> list[TokenRequest]:
        """Return the token requests after it: all, those of one grant, or those that no fault kept from the server."""
        return [
            request
            for request in self._shop.requests()[self._count :]
            if grant in (None, request.grant) and not (processed and request.fault)
        ]


def target(shop: Tenant) -> Target:
    """Return the target, which must be there."""
    found = shop.find_target()
    if found is None:
        raise AssertionError(f"there is no Secret {shop.target_name}")
    return found


def published(shop: Tenant) -> IssuedToken:
    """Return the newest token of the ledger, which the target must hold."""
    held, tokens = target(shop).data.get("access_token"), shop.tokens()
    numbers = [token.sequence for token in tokens if token.value == held]
    what = f"the token number {numbers[0]}" if numbers else "none of the ledger's tokens"
    require(tokens and tokens[-1].value == held, f"{shop.target_name} holds {what}, of {len(tokens)}")
    return tokens[-1]


def told(token: IssuedToken) -> str:
    """Tell a person which token it is."""
    return f"a token of {len(token.value)} characters, number {token.sequence} in the ledger"


def one_exchange(requests: Sequence[TokenRequest]) -> None:
    """There is one token request among these, an exchange with id and secret that was granted."""
    seen = ", ".join(f"{request.grant} {request.outcome}" for request in requests)
    good = [(request.grant, request.outcome, request.sent_client) for request in requests] == [
        (EXCHANGE, "issued", True)
    ]
    require(good, f"the ledger has {len(requests)} token requests: {seen or 'none'}")


def no_request(mark: Mark) -> None:
    """There was no token request since."""
    requests = mark.requests()
    require(not requests, f"the ledger has {[request.grant for request in requests]}")


def conditions(shop: Tenant, **wanted: str) -> str:
    """The credential's conditions, about its present spec, have this status; tell their reasons."""
    credential = shop.credential()
    found = {kind: condition_of(credential, kind, credential["metadata"]["generation"]) for kind in wanted}
    words = ", ".join(f"{kind} {c.status} {c.reason}" if c else f"no {kind}" for kind, c in found.items())
    require(all(c is not None and c.status == wanted[kind] for kind, c in found.items()), words)
    return words


def ready_all_along(shop: Tenant) -> None:
    """Ready was never anything but True after it was so for the first time."""
    verdicts = shop.verdicts("Ready")
    first = verdicts.index(("True", "Issued")) if ("True", "Issued") in verdicts else 0
    seen = ", then ".join(" ".join(verdict) for verdict in verdicts)
    require(verdicts and {status for status, _ in verdicts[first:]} == {"True"}, f"Ready was {seen or 'never there'}")


def refreshed(shop: Tenant, times: int) -> str:
    """The token in the target is the newest, and it was refreshed so many times by refresh token."""
    grants = shop.grants()
    require(grants.count(REFRESH) >= times, f"the ledger has {', '.join(grants)}")
    return told(published(shop))


def cost(shop: Tenant, *, exchanges: int) -> str:
    """So many exchanges were granted, and no other request but refreshes; tell what there was, failures too."""
    requests = shop.requests()
    grants = [request.grant for request in requests if request.outcome == "issued"]
    failed = len(requests) - len(grants)
    words = f"{grants.count(EXCHANGE)} exchanges, {grants.count(REFRESH)} refreshes, {failed} failed in the outage"
    require(grants.count(EXCHANGE) == exchanges, words)
    require(all(request.fault for request in requests if request.outcome != "issued"), f"{words} or without a reason")
    return words


def without_client(shop: Tenant) -> None:
    """Refreshes carried neither the client's id nor its secret."""
    carried = [request.sequence for request in shop.requests() if request.grant == REFRESH and request.sent_client]
    require(not carried, f"the token requests {carried} of the ledger did")


def graphql_accepts(shop: Tenant) -> str:
    """GraphQL accepts what the target holds; tell which of the ledger's tokens that is."""
    status = shop.sandbox.graphql(target(shop).data.get("access_token", ""))
    number = shop.sandbox.graphql_requests()[-1].token
    require(status == HTTPStatus.OK and number is not None, f"HTTP {status} for token number {number}")
    return f"HTTP {status} for token number {number}"


def shows(log: Callable[[], str], shop: Tenant) -> str:
    """The file in the shop's Pod is that of the newest token, as its program said last; tell how late it was."""
    token, lines = published(shop), log().splitlines()
    at, _, expires_at = lines[-1].partition(" ") if lines else ("0", "", "nothing yet")
    wanted = target(shop).data.get("expires_at")
    require(expires_at == wanted, f"its program has seen {expires_at}, and the Secret says {wanted}")
    return f"{float(at) - token.issued_at:.1f} s after token number {token.sequence} was issued"


def versions(shop: Tenant) -> tuple[str, str]:
    """Return the versions of target and credential, which each write changes."""
    return target(shop).version, shop.credential()["metadata"]["resourceVersion"]


def unwritten(shop: Tenant, before: tuple[str, str]) -> None:
    """Nobody has written target nor credential since they had these versions."""
    found = versions(shop)
    require(found == before, f"their versions were {' and '.join(before)}, and are {' and '.join(found)}")


def planned(shop: Tenant, operator: Operator) -> str:
    """The operator has looked at the credential, and means to refresh it when the target says so."""
    labels = {"namespace": shop.objects.namespace, "credential": shop.name}
    at = operator.metric("tuinly_credential_next_refresh_timestamp_seconds", **labels)
    noted = target(shop).notes["next-refresh"]
    if at is None:
        raise AssertionError("its metrics have no next refresh of the credential")
    require(abs(at - seconds_of(noted)) <= 1, f"the target says {noted}, it plans for {at - seconds_of(noted):+.0f} s")
    return noted


def no_target(shop: Tenant) -> None:
    """There is no target."""
    require(shop.find_target() is None, f"the Secret {shop.target_name} is there")


def client_secret_is_there(shop: Tenant) -> None:
    """The client Secret is there."""
    name = shop.client_secret_name
    require(shop.objects.find("Secret", name) is not None, f"there is no Secret {name}")


def is_good(verdict: Verdict) -> None:
    """The auditor's verdict is good, about one credential, and nothing of it in doubt."""
    require(verdict.is_good and verdict.credentials == 1, str(verdict))


def damage_was_seen(damage: Sequence[Finding]) -> str:
    """The auditor saw both kinds of damage, so it would have seen others; tell how long they lasted."""
    found = {finding.wrong for finding in damage}
    require(found == {Wrong.NEVER_ISSUED, Wrong.ABSENT}, f"it saw {[str(finding) for finding in damage]}")
    return " and ".join(f"{max(1.0, finding.seconds * 1000):.0f} ms {finding.wrong.value}" for finding in damage)


def damage_apart(verdict: Verdict, damage: Sequence[tuple[float, float]]) -> tuple[Verdict, list[Finding]]:
    """Part a verdict from what was found because the target was damaged on purpose.

    Args:
        verdict: Of all the time.
        damage: Begin, and when it was mended, in seconds of `time.time`.
    """

    def is_damage(finding: Finding) -> bool:
        by_hand = finding.wrong in {Wrong.NEVER_ISSUED, Wrong.ABSENT}
        end = finding.since + finding.seconds
        return by_hand and any(begin <= finding.since and end <= mended + WATCH_LAG for begin, mended in damage)

    apart = [finding for finding in verdict.findings if is_damage(finding)]
    return replace(verdict, findings=tuple(each for each in verdict.findings if each not in apart)), apart
