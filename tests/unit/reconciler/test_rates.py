"""What lasting trouble costs: the table of the contract, row by row, over 30 simulated minutes."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.unit.shop import HOUR, TARGET, Shop
from tests.unit.world import CLIENT_SECRET, FORBIDDEN_URL, INCONCLUSIVE, REJECTED, FakeApi, World
from tuinly_operator.base.chance import Chance
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.edges.kube import ApiFailure

CONTRACT = Path(__file__).parents[3] / "docs" / "contract.md"
ASKED = (
    *("read_secret", "read_secret_meta", "apply_secret", "delete_secret", "write_status"),
    *("find_credential"),
)
MINUTES = 30
AT_FIRST = 5
"""Minutes in which it may be tried more often."""


@dataclass
class Count:
    """When the token endpoint and the API server were asked, in boot seconds."""

    shop: Shop
    attempts: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count what is asked from now on."""
        for name in ("exchange", "refresh"):
            monkeypatch.setattr(
                self.shop.endpoint, name, self._counted(getattr(self.shop.endpoint, name), self.attempts)
            )
        for name in ASKED:
            if hasattr(FakeApi, name):
                monkeypatch.setattr(self.shop.api, name, self._counted(getattr(self.shop.api, name), self.requests))

    def per_minute(self, times: list[float]) -> float:
        """How many there were per minute after the first five."""
        begin = self.shop.world.boot - (MINUTES - AT_FIRST) * 60
        return sum(at > begin for at in times) / (MINUTES - AT_FIRST)

    def _counted(self, ask: Callable[..., Awaitable[Any]], times: list[float]) -> Callable[..., Awaitable[Any]]:
        async def counted(*args: Any, **more: Any) -> Any:  # noqa: ANN401 -- whatever it is
            times.append(self.shop.world.boot)
            return await ask(*args, **more)

        return counted


Trouble = Callable[[Shop, pytest.MonkeyPatch], None]


def answers(reason: Reason, status: int | None, **more: Any) -> Trouble:  # noqa: ANN401 -- of the failure
    """The token endpoint always answers so."""

    def trouble(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*_: object) -> NoReturn:
            raise TokenRequestFailed(reason, "it failed", status=status, **more)

        monkeypatch.setattr(shop.endpoint, "exchange", fail)
        monkeypatch.setattr(shop.endpoint, "refresh", fail)

    return trouble


def fails(method: str, status: int | None, word: str = "Word") -> Trouble:
    """The API server always answers so to one kind of request."""

    def trouble(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*_: object) -> NoReturn:
            raise ApiFailure(status, word)

        monkeypatch.setattr(shop.api, method, fail)

    return trouble


def verifies(verdict: TokenRequestFailed | None) -> Trouble:
    """GraphQL always answers so to a new token."""

    def trouble(shop: Shop, _: pytest.MonkeyPatch) -> None:
        shop.endpoint.graphql = verdict
        shop.spec(verification={"mode": "Enabled"})

    return trouble


def asks(**spec: Any) -> Trouble:  # noqa: ANN401 -- JSON
    """The spec asks for something that is not done."""
    return lambda shop, _: shop.spec(**spec)


def foreign_target(shop: Shop, _: pytest.MonkeyPatch) -> None:
    """Somebody else's Secret is in the target's place."""
    shop.api.put_secret(TARGET, {"theirs": "x"})


def stuck_target(shop: Shop, _: pytest.MonkeyPatch) -> None:
    """The target takes no write."""
    shop.api.freeze_secret(TARGET)


@dataclass(frozen=True)
class Row:
    """What lasts, and the most that it may cost per minute: attempts, and requests to the API server."""

    trouble: Trouble
    attempts: float
    requests: float
    with_token: bool = False


ROWS: Mapping[str, Row] = {
    "`EndpointUnavailable`, the only credential of its origin": Row(
        answers(Reason.ENDPOINT_UNAVAILABLE, 503, transport=True), 12, 25
    ),
    "`EndpointThrottled`": Row(answers(Reason.ENDPOINT_THROTTLED, 429), 2, 4.5),
    "`EndpointThrottled` with `Retry-After: 300`": Row(
        answers(Reason.ENDPOINT_THROTTLED, 429, retry_after=300.0), 0.2, 0.8
    ),
    "`InvalidResponse`": Row(answers(Reason.INVALID_RESPONSE, 200), 2, 4.5),
    "`VerificationFailed`": Row(verifies(REJECTED), 2, 4.5),
    "`InvalidClient`": Row(answers(Reason.INVALID_CLIENT, 401), 0.5, 1.3),
    "`InvalidScope`": Row(answers(Reason.INVALID_SCOPE, 400), 0.5, 1.3),
    "`RequestRejected`": Row(answers(Reason.REQUEST_REJECTED, 404), 0.5, 1.3),
    "`EndpointThrottled`, while a token lives": Row(answers(Reason.ENDPOINT_THROTTLED, 429), 2, 0.5, with_token=True),
    "`InvalidClient`, while a token lives": Row(answers(Reason.INVALID_CLIENT, 401), 0.5, 0.5, with_token=True),
    "`VerificationInconclusive`": Row(verifies(INCONCLUSIVE), 0, 0.5),
    "`ClientSecretNotFound`": Row(lambda shop, _: shop.api.remove_secret(CLIENT_SECRET), 0, 0.3),
    "`ClientSecretInvalid`": Row(lambda shop, _: shop.api.put_secret(CLIENT_SECRET, {"client_id": ""}), 0, 0.3),
    "`URLNotAllowed`": Row(asks(tokenURL=FORBIDDEN_URL), 0, 0.1),
    "`InvalidSpec`": Row(asks(scopes=["not a scope"]), 0, 0.1),
    "`Suspended`": Row(asks(suspend=True), 0, 0.1),
    "`TargetConflict`": Row(foreign_target, 0, 0.5),
    "`TargetRejected`, the first write is refused (403)": Row(fails("apply_secret", 403, "Forbidden"), 0, 8),
    "`TargetRejected`, the first write is not answered in time": Row(fails("apply_secret", None, "TimeoutError"), 0, 8),
    "`TargetConflict`, the target is immutable": Row(stuck_target, 0, 1.5, with_token=True),
    "the client Secret cannot be read (500)": Row(fails("read_secret", 500), 0, 2.5),
    "the status cannot be written (500)": Row(fails("write_status", 500), 0, 2.5),
}


class Even(Chance):
    """Draws waits so that their average is not a matter of luck."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = count(1)

    def random(self) -> float:
        return next(self._numbers) * 0.618034 % 1


@pytest.mark.parametrize("name", ROWS)
async def test_lasting_trouble_costs_no_more_than_the_contract_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROWS[name]
    shop = Shop(World(Even()))
    if row.with_token:
        shop.endpoint.lifetime = 4 * HOUR
        await shop.process.work()
    row.trouble(shop, monkeypatch)
    asked = Count(shop)
    asked.watch(monkeypatch)
    if row.with_token:
        shop.force("now")
    await shop.process.work()
    await shop.pass_time(MINUTES * 60)
    assert asked.per_minute(asked.attempts) <= row.attempts
    assert asked.per_minute(asked.requests) <= row.requests


@pytest.mark.rule("RETRY-1")
async def test_a_draw_is_above_what_the_endpoint_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that those who were asked for the same do not come back together."""
    shop = Shop(World(Even()))
    answers(Reason.ENDPOINT_THROTTLED, 429, retry_after=100.0)(shop, monkeypatch)
    await shop.process.work()
    failed = shop.record().memory.attempt
    assert failed is not None
    assert 100 < failed.retry.boot - shop.world.boot < 110


def test_the_contract_has_each_row_and_no_other() -> None:
    text = CONTRACT.read_text().split("## What lasting trouble costs")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| ([0-9.]+) \| ([0-9.]+) \|$", text, flags=re.MULTILINE)
    assert [(name, float(attempts), float(requests)) for name, attempts, requests in rows] == [
        (name, row.attempts, row.requests) for name, row in ROWS.items()
    ]
