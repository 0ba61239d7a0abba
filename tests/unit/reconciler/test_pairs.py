"""A table: what must be where two things meet at one credential, each pair in a sentence, over the world of world.py.

The credential verifies its tokens and has its first one. What concerns token requests takes effect with the refresh
that is due; what people and other processes do happens in that moment where there is one (a slow request, a lost
answer), or else soon after. Then all is mended, and the newest token must be in place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import pytest

from tests.unit.shop import HOUR, TARGET, Shop
from tests.unit.world import ACCEPTED, CREDENTIAL, INCONCLUSIVE
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.errors import Reason
from tuinly_operator.domain.target import SecretMeta
from tuinly_operator.domain.token_response import TokenResponse
from tuinly_operator.edges.kube import ApiFailure

DUE = HOUR * 2 // 3 + 20  # seconds after the issue, jitter and lead included
RENAMED = NamespacedName(CREDENTIAL.namespace, "renamed")
THINGS = (
    "held token",
    "slow request",
    "worse answer",
    "lost answer",
    "suspended",
    "renamed",
    "being deleted",
    "immutable",
    "restart",
    "other leader",
)
MOMENTS = ("slow request", "lost answer")  # in which other things happen


class Cell(NamedTuple):
    """What must be a little later: conditions, the number of the token in the target, and how many were asked for."""

    sentence: str
    ready: str
    refreshed: str
    token: int | None
    asked: int | None


class Died(BaseException):
    """The process ends here and now."""


@dataclass
class Crossing:
    """A pair of things at one shop."""

    shop: Shop
    pair: tuple[str, str]

    async def run(self) -> None:
        """Let both happen."""
        moments = [one for one in self.pair if one in MOMENTS]
        asked = {"held token", "worse answer"} & set(self.pair)
        if "held token" in self.pair:
            self.shop.endpoint.graphql = INCONCLUSIVE
        elif asked:
            self.shop.endpoint.mood = "narrows"
        others = [one for one in self.pair if one not in (*moments, *asked)]
        if "slow request" in moments:
            self.be_slow(others)
        elif moments and not asked:
            self.lose_the_answer(others)
        elif not asked:
            await self.pass_time(60)
            # What is done to the target is done before the rename leaves it behind.
            for one in sorted(others, key=lambda one: one == "renamed"):
                await self.happen(one)
                await self.pass_time(1)
        await self.pass_time(DUE)
        if len(asked) == 2:
            self.shop.endpoint.mood = "narrows"
            self.shop.force("now")
        elif asked and "lost answer" in moments:
            self.lose_the_answer([])
            self.shop.api.edit_secret(TARGET, "token_type", "tampered")
        elif asked and not moments:
            await self.happen(others[0])
        await self.pass_time(20)

    async def pass_time(self, seconds: int) -> None:
        """A process that died is started again."""
        for _ in range(seconds):
            try:
                await self.shop.pass_time(1)
            except Died:
                self.shop.process = self.shop.start()

    async def happen(self, what: str) -> None:
        """Something that people or other processes do."""
        shop = self.shop
        match what:
            case "suspended":
                self.spec(suspend=True)
            case "renamed":
                self.spec(target={"name": RENAMED.name})
            case "being deleted":
                shop.api.hold_secret(TARGET, "example.com/held")
                shop.api.remove_secret(TARGET)
            case "immutable":
                shop.api.freeze_secret(TARGET)
            case "restart":
                shop.process = shop.start()
            case "other leader":
                await self.lose_the_lead()

    async def lose_the_lead(self) -> None:
        """Another replica leads for a minute, then this one again, which starts afresh."""
        shop, mine = self.shop, self.shop.process
        shop.process = shop.start()
        await shop.pass_time(60)
        shop.process, shop.api.changed = mine, mine.secret_changed
        for key in shop.api.secrets:
            mine.secret_changed(key)
        mine.credentials_changed()
        mine.store.start_afresh()

    def spec(self, **more: Any) -> None:  # noqa: ANN401 -- JSON
        old = self.shop.api.credentials[CREDENTIAL]["spec"]
        self.shop.spec(**{**old, **more})

    def be_slow(self, others: list[str]) -> None:
        """The next request takes five seconds, in which something else happens."""
        exchange, shop = self.shop.endpoint.exchange, self.shop

        async def slow(url: str, client_id: str, secret: Sensitive, scopes: frozenset[str]) -> TokenResponse:
            vars(shop.endpoint).pop("exchange")
            if "lost answer" in others:
                self.lose_the_answer([])
            for one in others:
                await self.happen(one)
            shop.world.pass_time(5)
            if "restart" in others:
                raise Died
            return await exchange(url, client_id, secret, scopes)

        vars(shop.endpoint)["exchange"] = slow

    def lose_the_answer(self, others: list[str]) -> None:
        """The answer to the next write is lost, and something else happens right then."""
        apply, shop = self.shop.api.apply_secret, self.shop

        async def lose(key: NamespacedName, manifest: Mapping[str, Any]) -> SecretMeta:
            vars(shop.api).pop("apply_secret")
            await apply(key, manifest)
            for one in others:
                await self.happen(one)
            if "restart" in others:
                raise Died
            raise ApiFailure(None, "ServerDisconnectedError")

        vars(shop.api)["apply_secret"] = lose

    def found(self) -> tuple[str, str, int | None, int]:
        """The conditions, the number of the token in the target, and how many token requests there were."""
        key = RENAMED if "renamed" in self.pair else TARGET
        token = int(self.shop.token(key).rpartition("-")[2]) if key in self.shop.api.secrets else None
        return self.shop.told("Ready"), self.shop.refreshed(), token, len(self.shop.endpoint.requests)

    async def mend(self) -> None:
        """Whatever is in the way goes."""
        shop = self.shop
        shop.endpoint.mood, shop.endpoint.graphql = "good", ACCEPTED
        self.spec(suspend=False)
        for key in (TARGET, RENAMED):
            if key in shop.api.secrets and shop.api.secrets[key]["metadata"].get("finalizers"):
                shop.api.hold_secret(key)
            if shop.api.secrets.get(key, {}).get("immutable"):
                shop.api.remove_secret(key)
        await self.pass_time(600)


OK, UNVERIFIED, SUSPENDED = "True Issued", "False VerificationInconclusive", "Unknown Suspended"
WORSE, CONFLICT = "False WorseToken", "False TargetConflict"
PAIRS: dict[tuple[str, str], Cell] = {
    ("held token", "slow request"): Cell("A token that took its time is held like any other.", OK, UNVERIFIED, 1, 2),
    ("held token", "worse answer"): Cell(
        "The one that is held stays, and what is told is the last that went wrong.", OK, WORSE, 1, None
    ),
    ("held token", "lost answer"): Cell(
        "What is restored meanwhile is the verified one, and that nobody heard of it changes nothing.",
        OK,
        UNVERIFIED,
        1,
        2,
    ),
    ("held token", "suspended"): Cell(
        "It is neither verified nor written until the team goes on.", OK, SUSPENDED, 1, 2
    ),
    ("held token", "renamed"): Cell(
        "The verified one moves, and the held one waits for its verification.", OK, UNVERIFIED, 1, 2
    ),
    ("held token", "being deleted"): Cell(
        "The verified one stays in the target for as long as there is one.", OK, UNVERIFIED, 1, 2
    ),
    ("held token", "immutable"): Cell("Nothing is deleted before there is something to write.", OK, UNVERIFIED, 1, 2),
    ("held token", "restart"): Cell("It is lost, and the next one is held in its place.", OK, UNVERIFIED, 1, 3),
    ("held token", "other leader"): Cell(
        "Each leader that starts afresh asks for one and holds it.", OK, UNVERIFIED, 1, 4
    ),
    ("slow request", "worse answer"): Cell("What comes late and is worse is dropped.", OK, WORSE, 1, None),
    ("slow request", "lost answer"): Cell("One request, one token, once in the target.", OK, OK, 2, 2),
    ("slow request", "suspended"): Cell("The answer waits in memory until the team goes on.", OK, SUSPENDED, 1, 2),
    ("slow request", "renamed"): Cell(
        "The answer is written under the name that is asked for by then, and the old target goes.", OK, OK, 2, 2
    ),
    ("slow request", "being deleted"): Cell(
        "The token before is put right meanwhile, and the new one is written as long as the target is there.",
        OK,
        OK,
        2,
        2,
    ),
    ("slow request", "immutable"): Cell("The new token waits until the target is deleted.", OK, CONFLICT, 1, 2),
    ("slow request", "restart"): Cell(
        "The answer is lost with the process, before anything is counted; the next process asks.", OK, OK, 2, 2
    ),
    ("slow request", "other leader"): Cell(
        "The answer comes after the other leader's token, and gives way to it.", OK, OK, 2, 3
    ),
    ("worse answer", "lost answer"): Cell("The token before is restored, heard of or not.", OK, WORSE, 1, None),
    ("worse answer", "suspended"): Cell("Nothing more is asked for.", OK, SUSPENDED, 1, None),
    ("worse answer", "renamed"): Cell("The token before moves.", OK, WORSE, 1, None),
    ("worse answer", "being deleted"): Cell("The token before stays.", OK, WORSE, 1, None),
    ("worse answer", "immutable"): Cell("Nothing is deleted, since nothing is to be written.", OK, WORSE, 1, None),
    ("worse answer", "restart"): Cell(
        "The process that comes asks at once, and judges by what the target tells.", OK, WORSE, 1, None
    ),
    ("worse answer", "other leader"): Cell("So does each leader that starts afresh.", OK, WORSE, 1, None),
    ("lost answer", "suspended"): Cell("What was written unheard is told of.", OK, SUSPENDED, 2, 2),
    ("lost answer", "renamed"): Cell("What was written unheard is what moves.", OK, OK, 2, 2),
    ("lost answer", "being deleted"): Cell("It is in the target that goes, and is not written again.", OK, OK, 2, 2),
    ("lost answer", "immutable"): Cell("It is in place, and nothing is to be written.", OK, OK, 2, 2),
    ("lost answer", "restart"): Cell("The annotations tell the next process of it.", OK, OK, 2, 2),
    ("lost answer", "other leader"): Cell("They tell the other leader of it.", OK, OK, 2, 2),
    ("suspended", "renamed"): Cell(
        "Nothing moves; under the name that is asked for there is no token.", "False Suspended", SUSPENDED, None, 1
    ),
    ("suspended", "being deleted"): Cell("It is left to go.", OK, SUSPENDED, 1, 1),
    ("suspended", "immutable"): Cell("Nothing is to be written.", OK, SUSPENDED, 1, 1),
    ("suspended", "restart"): Cell("It stays as it is, and is told the same.", OK, SUSPENDED, 1, 1),
    ("suspended", "other leader"): Cell("It stays as it is, whoever leads.", OK, SUSPENDED, 1, 1),
    ("renamed", "being deleted"): Cell(
        "The new target is made; the old one is left to whoever holds it.", OK, OK, 2, 2
    ),
    ("renamed", "immutable"): Cell(
        "The new target is made; the old one, which somebody wrote to, stays.", OK, OK, 2, 2
    ),
    ("renamed", "restart"): Cell("The token of the old target is not known any more: one exchange.", OK, OK, 3, 3),
    ("renamed", "other leader"): Cell("Nor does another leader know it.", OK, OK, 3, 3),
    ("being deleted", "immutable"): Cell(
        "It can neither be written nor deleted: that is told, and the token in it used up.", OK, CONFLICT, 1, 2
    ),
    ("being deleted", "restart"): Cell("The token in it is believed, and kept up to date.", OK, OK, 2, 2),
    ("being deleted", "other leader"): Cell("So it is by another leader.", OK, OK, 2, 2),
    ("immutable", "restart"): Cell(
        "A token in it is believed; the next one waits until the target is deleted.", OK, CONFLICT, 1, 2
    ),
    ("immutable", "other leader"): Cell("So it is by another leader.", OK, CONFLICT, 1, 2),
    ("restart", "other leader"): Cell("Nothing is asked for before it is due.", OK, OK, 2, 2),
}


def test_every_pair_has_its_sentence() -> None:
    assert list(PAIRS) == list(combinations(THINGS, 2))
    assert all(cell.sentence.endswith(".") for cell in PAIRS.values())


@pytest.mark.parametrize(("pair", "cell"), PAIRS.items(), ids=[" and ".join(pair) for pair in PAIRS])
async def test_where_two_things_meet(pair: tuple[str, str], cell: Cell) -> None:
    shop = Shop()
    shop.spec(scopes=["a", "b"], verification={"mode": "Enabled"})
    await shop.process.work()
    crossing = Crossing(shop, pair)
    await crossing.run()
    ready, refreshed, token, asked = crossing.found()
    assert (ready, refreshed, token) == (cell.ready, cell.refreshed, cell.token)
    assert asked == cell.asked or cell.asked is None
    await crossing.mend()
    ready, refreshed, token, asked = crossing.found()
    assert (ready, refreshed) == (OK, OK)
    # Nothing was ever written over by what is older, and a token that could be kept was not asked for again.
    assert token == len(shop.endpoint.ledger) or pair in KEPT
    assert asked == (cell.asked or asked) or "suspended" in pair
    assert shop.events_of(Reason.TOKEN_EXPIRED) == []
    assert shop.events_of(Reason.TARGET_CONFLICT) == [] or "immutable" in pair


# Where the newest in the ledger was dropped, or came after another leader's.
KEPT = {("held token", "worse answer"), ("slow request", "other leader")}
