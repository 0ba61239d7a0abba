"""A status is true of what is there: after any two things that happen it is what a fresh process would write.

But for what only time or the process before can know: the last grant, counts and times, a failure whose retry is still
awaited, a token that is held for its verification, and a wait at the limiter.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.shop import HOUR, TARGET, Shop
from tests.unit.world import ACCEPTED, CLIENT_SECRET, CREDENTIAL, FORBIDDEN_URL, INCONCLUSIVE, OTHER_URL, REJECTED, Json
from tuinly_operator.base.names import NamespacedName

DUE = HOUR * 2 // 3 + 20  # seconds after the issue, jitter and lead included
SETTLED = 320  # seconds after which whatever is looked at from time to time has been looked at


class Life:
    """A shop, and how long things have gone on there."""

    def __init__(self) -> None:
        self.shop = Shop()
        self.shop.endpoint.clients["shop"] = "canary-secret"
        self.more: Json = {}

    async def pass_time(self, seconds: float) -> None:
        """Let it pass by as many steps as there is something to do."""
        world, end = self.shop.world, self.shop.world.boot + seconds
        await self.shop.process.work()
        while world.boot < end:
            world.pass_time(min(max(self.shop.process.idle(), 0.5), end - world.boot))
            await self.shop.process.work()

    def wish(self, more: Json) -> None:
        """Change the spec by this; None takes a field out."""
        self.more = {name: value for name, value in (self.more | more).items() if value is not None}
        self.shop.spec(**self.more)

    def target(self) -> NamespacedName:
        name = self.more.get("target", {}).get("name", TARGET.name)
        return NamespacedName(TARGET.namespace, name)

    async def settle(self) -> None:
        await self.pass_time(SETTLED)

    def waits(self) -> bool:
        """Whether what is told depends on more than what is there."""
        memory = self.shop.record().memory
        awaited = (memory.attempt, memory.write, memory.refusal, memory.pending)
        return any(one is not None for one in awaited) or self.shop.process.is_down()

    def told(self) -> Json:
        """The status, but for counts, times and the last grant."""
        status = dict(self.shop.status())
        for name in ("lastGrant", "failedAttempts", "lastFailureTime", "lastRefreshTime", "nextRefreshTime"):
            status.pop(name, None)
        conditions = [{**one, "lastTransitionTime": ""} for one in status["conditions"]]
        return {**status, "conditions": conditions, "tokenExpirationTime": "tokenExpirationTime" in status}


Happening = Callable[[Life], Any]


def wish(**more: object) -> Happening:
    return lambda life: life.wish(more)


def endpoint(**changes: object) -> Happening:
    return lambda life: vars(life.shop.endpoint).update(changes)


def time(seconds: int) -> Happening:
    return lambda life: life.pass_time(seconds)


def rotate(life: Life) -> None:
    life.shop.endpoint.clients["shop"] = "canary-rotated"
    life.shop.client_secret("canary-rotated")


def take_back(life: Life) -> None:
    life.shop.endpoint.clients["shop"] = "canary-secret"
    life.shop.client_secret("canary-secret")


def client(value: str, kind: str = "Opaque") -> Happening:
    def happen(life: Life) -> None:
        life.shop.api.remove_secret(CLIENT_SECRET)
        if value:
            life.shop.client_secret(value, kind)

    return happen


def touch_the_client_secret(life: Life) -> None:
    if CLIENT_SECRET in life.shop.api.secrets:
        life.shop.api.label_secret(CLIENT_SECRET)


def target(change: Callable[[Life, NamespacedName], None]) -> Happening:
    """Something is done to the target, if there is one."""

    def happen(life: Life) -> None:
        if life.target() in life.shop.api.secrets:
            change(life, life.target())

    return happen


def foreign(life: Life, key: NamespacedName) -> None:
    life.shop.api.remove_secret(key)
    if key not in life.shop.api.secrets:
        life.shop.api.put_secret(key, {"foreign": "untouchable"})


def held(life: Life, key: NamespacedName) -> None:
    life.shop.api.hold_secret(key, "example.com/held")
    life.shop.api.remove_secret(key)


def copy(life: Life, key: NamespacedName) -> None:
    if "labels" in life.shop.api.secrets[key]["metadata"]:
        life.shop.api.copy_secret(key, f"copy-{life.shop.world.boot}")


def edit(life: Life, key: NamespacedName) -> None:
    life.shop.api.edit_secret(key, next(iter(life.shop.api.secrets[key]["data"])), "tampered")


def remove_a_key(life: Life, key: NamespacedName) -> None:
    life.shop.api.edit_secret(key, next(iter(life.shop.api.secrets[key]["data"])), None)


def during(happening: Happening) -> Happening:
    """It happens while the next token request is under way."""

    def happen(life: Life) -> None:
        def now() -> None:
            happening(life)
            life.shop.process.credentials_changed()

        life.shop.endpoint.meanwhile = now

    return happen


def restart(life: Life) -> None:
    life.shop.process = life.shop.start()


def lose_the_next_answer(life: Life) -> None:
    life.shop.api.deaf = True


HAPPENINGS: dict[str, Happening] = {
    "suspended": wish(suspend=True),
    "resumed": wish(suspend=None),
    "scopes": wish(scopes=["a", "b"]),
    "fewer scopes": wish(scopes=["a"]),
    "as at first": wish(scopes=None, tokenURL=None, target=None, verification=None, delivery=None, refresh=None),
    "another URL": wish(tokenURL=OTHER_URL),
    "a forbidden URL": wish(tokenURL=FORBIDDEN_URL),
    "Push": wish(delivery={"pods": "Push"}),
    "renamed": wish(target={"name": "renamed"}),
    "Retain": wish(target={"deletionPolicy": "Retain"}),
    "template": wish(target={"template": {"data": {"header": "Bearer ${access_token}"}}}),
    "template's label": wish(target={"template": {"metadata": {"labels": {"team": "shop"}}}}),
    "invalid template": wish(target={"template": {"data": {"header": "$"}}}),
    "verified": wish(verification={"mode": "Enabled"}),
    "not verified": wish(verification=None),
    "client credentials": wish(refresh={"grant": "ClientCredentials"}),
    "another lead": wish(refresh={"before": "25m"}),
    "forced": lambda life: life.shop.force(str(life.shop.world.boot)),
    "rotated": rotate,
    "rotated back": take_back,
    "rotated before the endpoint knows": client("canary-unknown"),
    "client Secret gone": client(""),
    "client Secret of another type": client("canary-secret", "kubernetes.io/tls"),
    "client Secret of no use": client("with\nline"),
    "client Secret touched": touch_the_client_secret,
    "target gone": target(lambda life, key: life.shop.api.remove_secret(key)),
    "target foreign": target(foreign),
    "target edited": target(edit),
    "target lacks a key": target(remove_a_key),
    "target immutable": target(lambda life, key: life.shop.api.freeze_secret(key)),
    "target held": target(held),
    "target copied": target(copy),
    "due": time(DUE),
    "expired": time(HOUR + 10),
    "down": endpoint(mood="down"),
    "garbage": endpoint(mood="garbage"),
    "narrows": endpoint(mood="narrows"),
    "repeats": endpoint(mood="repeats"),
    "renews": endpoint(mood="renews"),
    "refuses refreshes": endpoint(mood="refuses refreshes", gives_refresh_tokens=True),
    "good": endpoint(mood="good", graphql=ACCEPTED),
    "gives refresh tokens": endpoint(gives_refresh_tokens=True),
    "short lives": endpoint(lifetime=300),
    "GraphQL tells nothing": endpoint(graphql=INCONCLUSIVE),
    "GraphQL rejects": endpoint(graphql=REJECTED),
    "the answer to the next write is lost": lose_the_next_answer,
    "restart": restart,
    "suspended during the next request": during(wish(suspend=True)),
    "renamed during the next request": during(wish(target={"name": "renamed"})),
    "other scopes during the next request": during(wish(scopes=["c"])),
}


async def compare(names: list[str], pause: int, *, forget: bool) -> None:
    """Let it happen; then the status is to be what another process makes of it."""
    life = Life()
    await life.pass_time(pause)
    for name in names:
        waits = HAPPENINGS[name](life)
        if asyncio.iscoroutine(waits):
            await waits
        life.shop.process.credentials_changed()
        await life.pass_time(pause)
    await life.settle()
    if life.waits():
        return
    told, life.shop.endpoint.meanwhile = life.told(), None
    if forget and "VerificationInconclusive" not in str(told):
        life.shop.api.credentials[CREDENTIAL]["status"] = {}
    restart(life)
    await life.pass_time(1)
    if not life.waits():
        again = life.told()
        if forget:  # what is known from the status alone is lost with it
            again |= {name: told[name] for name in ("secretName", "lastHandledRefresh") if name in told}
        assert again == told, names


@pytest.mark.rule("STATUS-22")
@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(list(HAPPENINGS)), min_size=2, max_size=2),
    st.sampled_from([1, 7, 30]),
    st.booleans(),
)
def test_after_any_two_things_the_status_is_what_a_fresh_process_would_write(
    names: list[str],
    pause: int,
    forget: bool,  # noqa: FBT001 -- drawn
) -> None:
    asyncio.run(compare(names, pause, forget=forget))
