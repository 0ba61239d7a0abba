"""Where rules cross: what must be when two things happen to one credential at once, over the fake edge of world.py."""

import asyncio
import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.unit.shop import HOUR, TARGET, Shop
from tests.unit.world import (
    ACCEPTED,
    CLIENT_SECRET,
    CREDENTIAL,
    FORBIDDEN_URL,
    INCONCLUSIVE,
    NOT_FOUND,
    POLICY,
    REJECTED,
    THROTTLED,
    Json,
)
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.credential import Revision
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.target import SecretMeta
from tuinly_operator.domain.token_response import TokenResponse
from tuinly_operator.edges.kube import ApiFailure
from tuinly_operator.edges.oauth import origin_of
from tuinly_operator.engine.limiter import FIRST_LIMIT
from tuinly_operator.reconciler import obtain as attempt

DUE = HOUR * 2 // 3 + 20  # seconds after the issue, jitter and lead included
RENAMED = NamespacedName(CREDENTIAL.namespace, "renamed")


# --- What was dropped leaves nothing ----------------------------------------------------------------------------------


@pytest.fixture
async def scoped() -> Shop:
    """Its token may do two things; no refresh token came with it."""
    shop = Shop()
    shop.spec(scopes=["a", "b"])
    await shop.process.work()
    return shop


@pytest.mark.rule("ANS-15")
async def test_the_refresh_token_of_a_dropped_answer_is_not_used(scoped: Shop) -> None:
    """It would give more of the same, and where the answer names no scope that would pass for the full one."""
    scoped.endpoint.mood, scoped.endpoint.gives_refresh_tokens = "narrows", True
    await scoped.pass_time(DUE)
    assert len(scoped.endpoint.ledger) > 1
    assert scoped.token() == scoped.endpoint.ledger[0].value
    scoped.endpoint.mood = "good"
    await scoped.pass_time(HOUR - DUE - 1)
    assert {grant for grant, _ in scoped.endpoint.requests} == {"exchange"}
    published = scoped.endpoint.find(scoped.token())
    assert published is scoped.endpoint.ledger[-1]
    assert published.scopes == {"a", "b"}


@pytest.mark.rule("ANS-15")
async def test_no_refresh_token_of_another_client_is_used_after_a_rotation_that_was_taken_back(scoped: Shop) -> None:
    scoped.endpoint.mood, scoped.endpoint.gives_refresh_tokens = "narrows", True
    scoped.endpoint.clients["shop"] = "canary-other"
    scoped.client_secret("canary-other")
    await scoped.pass_time(10)
    assert scoped.refreshed() == "False WorseToken"
    scoped.endpoint.mood, scoped.endpoint.clients["shop"] = "good", "canary-secret"
    scoped.client_secret("canary-secret")
    await scoped.pass_time(HOUR - 60)
    assert {grant for grant, _ in scoped.endpoint.requests} == {"exchange"}
    published = scoped.endpoint.find(scoped.token())
    assert published is not None
    assert published.secret == "canary-secret"


@pytest.mark.rule("ANS-15")
async def test_a_refresh_whose_answer_is_dropped_is_made_up_for_by_an_exchange(scoped: Shop) -> None:
    """The server may have replaced the refresh token by the one that was dropped."""
    scoped.endpoint.gives_refresh_tokens = True
    await scoped.pass_time(DUE)
    scoped.endpoint.mood = "narrows"
    await scoped.pass_time(DUE)
    assert [grant for grant, _ in scoped.endpoint.requests][:3] == ["exchange", "exchange", "refresh"]
    assert {grant for grant, _ in scoped.endpoint.requests[3:]} == {"exchange"}


@pytest.mark.rule("ANS-15")
async def test_a_refresh_token_of_the_same_token_again_is_used(shop: Shop) -> None:
    """Nothing was dropped there: the token is the present one, and what came with it is the newest of its kind."""
    shop.endpoint.gives_refresh_tokens = True
    await shop.pass_time(DUE)
    shop.endpoint.mood = "repeats"
    await shop.pass_time(DUE)
    assert [grant for grant, _ in shop.endpoint.requests][2] == "refresh"


@pytest.mark.rule("VERIFY-2")
@pytest.mark.parametrize("by_refresh", [False, True])
async def test_the_refresh_token_of_a_token_that_does_not_work_is_not_used(shop: Shop, *, by_refresh: bool) -> None:
    """Nor the one that it was got by: either would give more of the same. The next attempt is an exchange."""
    shop.spec(verification={"mode": "Enabled"})
    shop.endpoint.gives_refresh_tokens = True
    await shop.pass_time(DUE)
    assert len(shop.endpoint.ledger) == 2
    shop.endpoint.graphql = REJECTED
    shop.force("" if by_refresh else "now")
    await shop.pass_time(DUE if by_refresh else 12)
    rejected = next(token for token in shop.endpoint.ledger if token.value in shop.endpoint.rejected)
    tried = [grant for grant, at in shop.endpoint.requests if at >= rejected.issued]
    assert tried[:2] == ["refresh" if by_refresh else "exchange", "exchange"]
    assert shop.refreshed() == "False VerificationFailed"
    assert shop.token() == shop.endpoint.ledger[1].value


# --- A token that is held for its verification ------------------------------------------------------------------------


@pytest.fixture
async def holding() -> Shop:
    """Its token was verified; the next one is held, since GraphQL tells nothing."""
    shop = Shop()
    shop.spec(verification={"mode": "Enabled"})
    await shop.process.work()
    shop.endpoint.graphql = INCONCLUSIVE
    await shop.pass_time(DUE)
    assert len(shop.endpoint.ledger) == 2
    assert shop.token() == shop.endpoint.ledger[0].value
    assert shop.refreshed() == "False VerificationInconclusive"
    return shop


@pytest.mark.rule("VERIFY-5")
async def test_retry_after_of_the_graphql_endpoint_is_heeded(holding: Shop) -> None:
    holding.endpoint.graphql = THROTTLED
    await holding.pass_time(61)
    told = len(holding.endpoint.verifications)
    await holding.pass_time(int(THROTTLED.retry_after or 0) - 61)
    assert len(holding.endpoint.verifications) == told
    holding.endpoint.graphql = ACCEPTED
    await holding.pass_time(122)
    assert len(holding.endpoint.verifications) == told + 1
    assert holding.refreshed() == "True Issued"


@pytest.mark.rule("VERIFY-5")
async def test_retry_after_does_not_hold_a_token_back_beyond_the_last_call(holding: Shop) -> None:
    await holding.pass_time(HOUR - DUE - 230)
    holding.endpoint.graphql = THROTTLED
    await holding.pass_time(100)
    assert holding.token() == holding.endpoint.ledger[0].value
    told = len(holding.endpoint.verifications)
    await holding.pass_time(40)
    assert holding.token() == holding.endpoint.ledger[1].value
    assert holding.refreshed() == "False VerificationInconclusive"
    assert len(holding.endpoint.verifications) == told


@pytest.mark.rule("VERIFY-4")
@pytest.mark.parametrize("answer", [NOT_FOUND, INCONCLUSIVE])
async def test_a_4xx_to_a_verification_says_nothing_of_the_endpoint(shop: Shop, answer: TokenRequestFailed) -> None:
    shop.spec(verification={"mode": "Enabled"})
    shop.endpoint.graphql = answer
    await shop.pass_time(DUE + 300)
    assert len(shop.endpoint.verifications) > 1
    seen = shop.process.limiter.seen(shop.world.now())[origin_of(POLICY.graphql_url)]
    assert (seen.limit < FIRST_LIMIT, seen.down) == (answer.transport, answer.transport)


def edit(shop: Shop) -> None:
    shop.api.edit_secret(TARGET, "access_token", "tampered")


def take_a_key(shop: Shop) -> None:
    shop.api.edit_secret(TARGET, "token_type", None)


def delete(shop: Shop) -> None:
    shop.api.remove_secret(TARGET)


def rename(shop: Shop) -> None:
    shop.spec(verification={"mode": "Enabled"}, target={"name": RENAMED.name})


@pytest.mark.rule("VERIFY-8")
@pytest.mark.parametrize("damage", [edit, take_a_key, delete, rename])
async def test_what_is_restored_is_the_verified_token_and_not_the_one_that_is_held(
    holding: Shop, damage: Callable[[Shop], None]
) -> None:
    damage(holding)
    await holding.pass_time(1)
    key = RENAMED if damage is rename else TARGET
    assert holding.token(key) == holding.endpoint.ledger[0].value
    assert len(holding.endpoint.requests) == 2
    holding.endpoint.graphql = ACCEPTED
    await holding.pass_time(61)
    assert holding.token(key) == holding.endpoint.ledger[1].value
    assert holding.refreshed() == "True Issued"


@pytest.mark.rule("VERIFY-7")
async def test_once_the_verified_token_is_nearly_over_the_held_one_takes_its_place_restored_or_not(
    holding: Shop,
) -> None:
    delete(holding)
    await holding.pass_time(HOUR - DUE - 90)
    assert holding.token() == holding.endpoint.ledger[1].value
    assert holding.refreshed() == "False VerificationInconclusive"
    edit(holding)
    await holding.pass_time(1)
    assert holding.token() == holding.endpoint.ledger[1].value
    assert holding.refreshed() == "False VerificationInconclusive"


@pytest.mark.rule("VERIFY-8")
async def test_a_rotated_client_secret_is_followed_while_a_token_is_held(holding: Shop) -> None:
    holding.endpoint.clients["shop"] = "canary-rotated"
    holding.client_secret("canary-rotated")
    await holding.pass_time(1)
    assert holding.endpoint.ledger[-1].secret == "canary-rotated"
    holding.endpoint.graphql = ACCEPTED
    await holding.pass_time(61)
    assert holding.token() == holding.endpoint.ledger[2].value
    assert holding.refreshed() == "True Issued"


@pytest.mark.rule("VERIFY-8")
async def test_an_exchange_is_forced_while_a_token_is_held(holding: Shop) -> None:
    holding.force("now")
    await holding.pass_time(20)
    assert len(holding.endpoint.ledger) == 3
    assert holding.token() == holding.endpoint.ledger[0].value
    holding.endpoint.graphql = ACCEPTED
    await holding.pass_time(61)
    assert holding.token() == holding.endpoint.ledger[2].value
    assert holding.annotation("handled-refresh") == "now"


@pytest.mark.rule("VERIFY-8")
async def test_a_changed_template_is_followed_while_a_token_is_held(holding: Shop) -> None:
    holding.spec(verification={"mode": "Enabled"}, target={"template": {"metadata": {"labels": {"team": "shop"}}}})
    await holding.pass_time(1)
    assert holding.api.secrets[TARGET]["metadata"]["labels"]["team"] == "shop"
    assert holding.token() == holding.endpoint.ledger[0].value


@pytest.mark.rule("VERIFY-8")
async def test_a_removed_label_is_put_back_while_a_token_is_held(holding: Shop) -> None:
    raw = holding.api.secrets[TARGET]
    del raw["metadata"]["labels"]["tuinly.com/credential"]
    for entry in raw["metadata"]["managedFields"]:
        entry["fieldsV1"]["f:metadata"]["f:labels"].pop("f:tuinly.com/credential", None)
    holding.api.label_secret(TARGET)
    await holding.pass_time(1)
    assert "tuinly.com/credential" in holding.api.secrets[TARGET]["metadata"]["labels"]
    assert holding.token() == holding.endpoint.ledger[0].value


async def test_other_inputs_drop_the_token_that_is_held(holding: Shop) -> None:
    holding.spec(verification={"mode": "Enabled"}, scopes=["a"])
    await holding.pass_time(1)
    assert holding.endpoint.ledger[-1].asked == {"a"}
    assert holding.told("Ready") in ("False Issuing", "True Issued")


@pytest.mark.rule("VERIFY-8")
async def test_a_missing_client_secret_is_told_while_a_token_is_held(holding: Shop) -> None:
    holding.api.remove_secret(CLIENT_SECRET)
    await holding.pass_time(1)
    assert holding.refreshed() == "False ClientSecretNotFound"
    assert holding.told("Ready") == "True Issued"


@pytest.mark.rule("VERIFY-9")
async def test_verification_switched_off_publishes_the_held_token_and_has_nothing_to_tell(holding: Shop) -> None:
    holding.spec()
    await holding.pass_time(1)
    assert holding.token() == holding.endpoint.ledger[1].value
    assert holding.refreshed() == "True Issued"


@pytest.mark.rule("VERIFY-9")
async def test_verification_switched_off_after_a_token_was_published_untried_has_nothing_to_tell(
    holding: Shop,
) -> None:
    await holding.pass_time(HOUR - DUE - 60)
    assert holding.token() == holding.endpoint.ledger[1].value
    assert holding.refreshed() == "False VerificationInconclusive"
    holding.spec()
    await holding.pass_time(1)
    assert holding.refreshed() == "True Issued"


@pytest.mark.rule("VERIFY-7")
async def test_that_a_token_was_published_untried_is_told_after_a_restart_too(holding: Shop) -> None:
    await holding.pass_time(HOUR - DUE - 60)
    holding.process = holding.start()
    await holding.pass_time(1)
    assert holding.refreshed() == "False VerificationInconclusive"


# --- The same token again ---------------------------------------------------------------------------------------------


@pytest.mark.rule("ANS-13")
@pytest.mark.parametrize("forced", [False, True])
async def test_the_same_token_with_a_later_end_is_told_in_the_target(shop: Shop, *, forced: bool) -> None:
    shop.endpoint.mood = "renews"
    for _ in range(18):
        await shop.pass_time(600)
        if forced:
            shop.force(str(shop.world.boot))
        await shop.pass_time(1)
    assert len(shop.endpoint.ledger) == 1
    assert len(shop.endpoint.requests) < (25 if forced else 8)
    assert shop.events_of(Reason.TOKEN_EXPIRED) == []
    assert shop.told("Ready") == "True Issued"
    assert shop.refreshed() == "True Issued"


@pytest.mark.rule("ANS-12")
async def test_an_end_that_is_later_by_seconds_alone_is_the_same(shop: Shop) -> None:
    """What is counted from before the request differs by how long that took."""
    writes = len(shop.api.writes)
    shop.endpoint.mood, shop.endpoint.slack = "repeats", 5
    await shop.pass_time(HOUR - 300)
    assert len(shop.endpoint.requests) > 1
    assert [write for write in shop.api.writes[writes:] if write.kind == "target"] == []


# --- A spec that changes while a token request is under way -----------------------------------------------------------


class Slow:
    """A token endpoint that takes until it is let go on."""

    def __init__(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(attempt, "_SLOW_REQUEST", 0.01)
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.exchange = shop.endpoint.exchange
        self.shop = shop
        monkeypatch.setattr(shop.endpoint, "exchange", self)

    async def __call__(self, url: str, client_id: str, secret: Sensitive, scopes: frozenset[str]) -> TokenResponse:
        self.asked.set()
        await self.go_on.wait()
        return await self.exchange(url, client_id, secret, scopes)

    async def meanwhile(self, change: Callable[[], None]) -> None:
        """Do something while the next request is under way, and wait for the status that follows on it."""
        work = asyncio.create_task(self.shop.process.work())
        await self.asked.wait()
        change()
        self.shop.process.credentials_changed()
        generation = self.shop.api.credentials[CREDENTIAL]["metadata"]["generation"]
        for _ in range(2000):
            await asyncio.sleep(0.001)
            if self.shop.api.credentials[CREDENTIAL]["status"].get("observedGeneration") == generation:
                break
        self.told = {kind: self.shop.told(kind) for kind in ("Ready", "Refreshed")}
        self.go_on.set()
        await work


# --- A spec that changes while a token request is under way -----------------------------------------------------------


UNDER_WAY = "False Issuing", "Unknown Issuing"
CHANGES: dict[str, tuple[Json, str, str]] = {
    "renamed": ({"target": {"name": RENAMED.name}}, *UNDER_WAY),
    "other scopes": ({"scopes": ["a"]}, *UNDER_WAY),
    "another client Secret": ({"clientSecretRef": {"name": "absent"}}, *UNDER_WAY),
    "suspended": ({"suspend": True}, "True Issued", "Unknown Suspended"),
    "invalid template": ({"target": {"template": {"data": {"a": "$"}}}}, "False InvalidSpec", "False InvalidSpec"),
    "Push": ({"delivery": {"pods": "Push"}}, "True Issued", "True Issued"),
    "URL not allowed": ({"tokenURL": FORBIDDEN_URL}, "False URLNotAllowed", "False URLNotAllowed"),
    "another lead": ({"refresh": {"before": "10m"}}, "True Issued", "True Issued"),
    "another template": ({"target": {"template": {"data": {"a": "b"}}}}, "True Issued", "True Issued"),
}


@pytest.mark.rule("STATUS-17")
@pytest.mark.parametrize(("more", "ready", "refreshed"), CHANGES.values(), ids=CHANGES.keys())
async def test_a_spec_that_changes_during_a_slow_request_is_decided_on_before_it_is_told_of(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, more: Json, ready: str, refreshed: str
) -> None:
    """`kubectl wait` waits for this generation."""
    monkeypatch.setattr(attempt, "_SLOW_REQUEST", 0.01)
    asked, go_on, exchange = asyncio.Event(), asyncio.Event(), shop.endpoint.exchange

    async def slow(url: str, client_id: str, secret: Sensitive, scopes: frozenset[str]) -> TokenResponse:
        asked.set()
        await go_on.wait()
        return await exchange(url, client_id, secret, scopes)

    shop.world.pass_time(DUE)
    monkeypatch.setattr(shop.endpoint, "exchange", slow)
    work = asyncio.create_task(shop.process.work())
    await asked.wait()
    shop.spec(**more)
    generation = shop.api.credentials[CREDENTIAL]["metadata"]["generation"]
    while shop.status()["observedGeneration"] != generation and not work.done():  # noqa: ASYNC110 -- nobody tells of it
        await asyncio.sleep(0.001)
    assert (shop.told("Ready"), shop.refreshed()) == (ready, refreshed)
    go_on.set()
    await work


@pytest.mark.rule("STATUS-17")
async def test_a_target_that_was_seen_under_another_name_says_nothing_of_the_present_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename comes right after a write: no status may say Ready of a Secret that is not there."""
    apply, write_status, lies = shop.api.apply_secret, shop.api.write_status, []

    async def rename_after(key: NamespacedName, manifest: Mapping[str, Any]) -> SecretMeta:
        meta = await apply(key, manifest)
        if key == TARGET:
            shop.spec(target={"name": RENAMED.name})
        return meta

    async def look(key: NamespacedName, uid: str, status: Mapping[str, Any]) -> tuple[str, Revision]:
        ready = next(one for one in status["conditions"] if one["type"] == "Ready")
        if ready["status"] == "True" and RENAMED not in shop.api.secrets:
            lies.append(ready)
        return await write_status(key, uid, status)

    monkeypatch.setattr(shop.api, "apply_secret", rename_after)
    monkeypatch.setattr(shop.api, "write_status", look)
    await shop.pass_time(DUE)
    assert shop.token(RENAMED) == shop.endpoint.ledger[1].value
    assert lies == []


# --- Statuses that are true -------------------------------------------------------------------------------------------


@pytest.mark.rule("CLIENT-5")
async def test_a_client_secret_that_comes_late_with_a_type_of_another_system_is_told(shop: Shop) -> None:
    """The watch leaves its type out."""
    shop.api.remove_secret(CLIENT_SECRET)
    await shop.pass_time(10)
    assert shop.refreshed() == "False ClientSecretNotFound"
    shop.client_secret("canary-secret", kind="kubernetes.io/tls")
    await shop.pass_time(301)
    assert shop.refreshed() == "False ClientSecretInvalid"
    shop.api.remove_secret(CLIENT_SECRET)
    shop.client_secret("canary-secret")
    await shop.pass_time(1)
    assert shop.refreshed() == "True Issued"


@pytest.mark.rule("CLIENT-5")
async def test_a_client_secret_of_a_type_of_another_system_that_goes_is_told(shop: Shop) -> None:
    shop.api.remove_secret(CLIENT_SECRET)
    shop.client_secret("canary-secret", kind="kubernetes.io/tls")
    await shop.pass_time(1)
    assert shop.refreshed() == "False ClientSecretInvalid"
    shop.api.remove_secret(CLIENT_SECRET)
    await shop.pass_time(301)
    assert shop.refreshed() == "False ClientSecretNotFound"


@pytest.mark.rule("CLIENT-5")
async def test_a_client_secret_that_stays_away_costs_one_read_in_five_minutes(shop: Shop) -> None:
    shop.api.remove_secret(CLIENT_SECRET)
    await shop.pass_time(10)
    requests = shop.api.requests
    await shop.pass_time(1800)
    assert shop.api.requests - requests <= 6


@pytest.mark.rule("STATUS-9")
async def test_a_foreign_target_is_told_also_once_the_token_that_was_in_its_place_has_expired(shop: Shop) -> None:
    shop.api.remove_secret(TARGET)
    shop.api.put_secret(TARGET, {"foreign": "theirs"})
    await shop.pass_time(HOUR + 60)
    assert (shop.told("Ready"), shop.refreshed()) == ("False TargetConflict", "False TargetConflict")
    assert shop.events_of(Reason.TOKEN_EXPIRED) == []
    assert "tokenExpirationTime" not in shop.status()


@pytest.mark.rule("STATUS-9")
@pytest.mark.parametrize("goes", [delete, edit])
async def test_a_target_that_went_while_suspended_holds_no_token_that_could_expire(
    shop: Shop, goes: Callable[[Shop], None]
) -> None:
    shop.spec(suspend=True)
    await shop.pass_time(10)
    goes(shop)
    await shop.pass_time(HOUR + 60)
    assert (shop.told("Ready"), shop.refreshed()) == ("False Suspended", "Unknown Suspended")
    assert shop.events_of(Reason.TOKEN_EXPIRED) == []
    assert "tokenExpirationTime" not in shop.status()


@pytest.mark.rule("STATUS-9")
async def test_a_token_that_expires_in_a_suspended_target_is_told(shop: Shop) -> None:
    shop.spec(suspend=True)
    await shop.pass_time(HOUR + 60)
    assert (shop.told("Ready"), shop.refreshed()) == ("False TokenExpired", "Unknown Suspended")
    assert "tokenExpirationTime" in shop.status()


# --- What is there outranks what is remembered ------------------------------------------------------------------------


@pytest.fixture
async def unheard(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Its second token was written, but the answer to that write was lost, and the API server is out of reach since."""
    apply = shop.api.apply_secret

    async def lose_the_answer(key: NamespacedName, manifest: Mapping[str, Any]) -> SecretMeta:
        await apply(key, manifest)
        monkeypatch.undo()
        shop.api.reachable = False
        raise ApiFailure(None, "ServerDisconnectedError")

    monkeypatch.setattr(shop.api, "apply_secret", lose_the_answer)
    shop.world.pass_time(DUE)
    await shop.process.work()
    assert shop.token() == shop.endpoint.ledger[1].value
    return shop


@pytest.mark.rule("WRITE-6")
async def test_a_write_whose_answer_was_lost_is_not_made_again(unheard: Shop) -> None:
    writes = len(unheard.api.writes)
    unheard.api.reachable = True
    await unheard.pass_time(10)
    assert [write.kind for write in unheard.api.writes[writes:]] == ["status"]
    assert unheard.refreshed() == "True Issued"
    assert unheard.status()["lastGrant"] == "ClientCredentials"
    edit(unheard)
    await unheard.pass_time(1)
    assert unheard.token() == unheard.endpoint.ledger[1].value
    assert len(unheard.endpoint.requests) == 2


@pytest.mark.rule("WRITE-6")
async def test_a_token_that_was_written_unheard_is_told_of_while_suspended(unheard: Shop) -> None:
    unheard.spec(suspend=True)
    unheard.api.reachable = True
    await unheard.pass_time(10)
    assert (unheard.told("Ready"), unheard.refreshed()) == ("True Issued", "Unknown Suspended")


@pytest.mark.rule("WRITE-6")
async def test_a_token_that_was_written_unheard_does_not_give_way_to_the_one_before(unheard: Shop) -> None:
    """Whatever becomes of the spec meanwhile."""
    unheard.endpoint.mood, unheard.api.reachable = "down", True
    unheard.spec(scopes=["a"])
    await unheard.pass_time(3)
    unheard.spec()
    await unheard.pass_time(60)
    assert unheard.token() == unheard.endpoint.ledger[1].value
    assert unheard.told("Ready") == "True Issued"


@pytest.mark.rule("WRITE-6")
async def test_a_later_token_of_another_leader_is_taken_up_and_not_written_over(shop: Shop) -> None:
    """Its own is older, whatever it remembers."""
    await shop.pass_time(60)
    mine, shop.process = shop.process, shop.start()
    shop.force("now")
    await shop.pass_time(1)
    assert shop.token() == shop.endpoint.ledger[1].value
    shop.process, writes = mine, len(shop.api.writes)
    shop.api.changed = mine.secret_changed
    mine.secret_changed(TARGET)
    mine.credentials_changed()
    await shop.pass_time(60)
    assert shop.token() == shop.endpoint.ledger[1].value
    assert [write for write in shop.api.writes[writes:] if write.kind == "target"] == []
    assert len(shop.endpoint.requests) == 2


@pytest.mark.rule("WRITE-6")
async def test_an_earlier_token_from_a_backup_gives_way_to_the_one_in_memory(shop: Shop) -> None:
    kept = copy.deepcopy(shop.api.secrets[TARGET])
    await shop.pass_time(DUE)
    shop.api.secrets[TARGET] = kept
    shop.api.label_secret(TARGET)
    await shop.pass_time(1)
    assert shop.token() == shop.endpoint.ledger[1].value
    assert len(shop.endpoint.requests) == 2
