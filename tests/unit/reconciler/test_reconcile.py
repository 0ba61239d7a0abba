"""The reconciler over the fake edge of world.py: what only shows where decisions, acts and limiter come together."""

import asyncio
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest

from tests.unit.shop import HOUR, TARGET, Shop
from tests.unit.world import BOOTED, CLIENT_SECRET, CREDENTIAL, Process
from tuinly_operator.base.clock import Deadline, Moment, parse_rfc3339, rfc3339
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.client_secret import REFUSED_TYPES
from tuinly_operator.domain.credential import Credential, Revision
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.target import SecretMeta
from tuinly_operator.domain.token_response import TokenResponse
from tuinly_operator.edges.election import ASKING_SECONDS
from tuinly_operator.edges.kube import ApiFailure
from tuinly_operator.engine.limiter import Ask, Ticket

OTHER = NamespacedName(CREDENTIAL.namespace, "other")


@pytest.fixture
async def shop() -> Shop:
    shop = Shop()
    await shop.process.work()
    assert len(shop.endpoint.requests) == 1
    return shop


async def test_a_target_that_the_watch_has_not_brought_yet_is_believed_once_it_is_found(shop: Shop) -> None:
    """Another leader may have written it a moment ago."""
    writes = len(shop.api.writes)
    shop.process = shop.start()
    shop.process.lose_sight_of(TARGET)
    await shop.process.work()
    assert len(shop.endpoint.requests) == 1
    assert len(shop.api.writes) == writes


@pytest.mark.rule("DRIFT-2")
async def test_echoes_that_come_before_the_answers_to_the_writes_cost_no_other_reconcile(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciled, write, work = [], shop.api.write_status, shop.process.reconciler.reconcile

    async def write_status(*args: Any) -> tuple[str, Revision]:  # noqa: ANN401 -- as it is called
        answer = await write(*args)
        shop.process.credentials_changed()
        return answer

    async def reconcile(key: NamespacedName) -> None:
        reconciled.append(key)
        await work(key)

    monkeypatch.setattr(shop.api, "write_status", write_status)
    monkeypatch.setattr(shop.process.reconciler, "reconcile", reconcile)
    await shop.pass_time(10)
    shop.force("now")
    await shop.pass_time(10)
    assert len(shop.endpoint.requests) == 2
    assert reconciled == [CREDENTIAL]


@pytest.mark.rule("DRIFT-1")
@pytest.mark.parametrize("act", ["first", "refresh", "rename"])
async def test_a_target_that_is_deleted_before_the_answer_to_its_write_comes_is_made_again(
    act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch shows that before the answer, or, for a rename, while the old target is being deleted."""
    shop, target = Shop(), NamespacedName(TARGET.namespace, "renamed") if act == "rename" else TARGET
    if act != "first":
        await shop.process.work()
    write = "delete_secret" if act == "rename" else "apply_secret"
    real, deleted = getattr(shop.api, write), list[NamespacedName]()

    async def wrote(key: NamespacedName, what: object) -> SecretMeta | None:
        answer: SecretMeta | None = await real(key, what)
        if not deleted:
            deleted.append(key)
            shop.api.remove_secret(target)
        return answer

    monkeypatch.setattr(shop.api, write, wrote)
    if act == "rename":
        shop.spec(target={"name": target.name})
    elif act == "refresh":
        shop.force("now")
    await shop.pass_time(10)
    assert deleted
    assert target in shop.api.secrets
    assert shop.told("Ready") == "True Issued"


class Gap:
    """The watch of Secrets is cut off, in all namespaces or in one, and then lists anew."""

    def __init__(self, shop: Shop, namespace: str | None = None) -> None:
        self.shop, self.namespace = shop, namespace
        self.watch, shop.api.changed = shop.api.changed, lambda _: None

    def list(self) -> None:
        """What is there now."""
        self.shop.process.store.list_begins(self.namespace)
        self.listed = dict(self.shop.api.secrets)
        _, self.version = self.shop.api.find(CREDENTIAL)

    def take_in(self) -> None:
        """Have the store take that in, and the watch go on from there."""
        store = self.shop.process.store
        for key, raw in self.listed.items():
            store.secret_listed(self.namespace, key, SecretMeta.from_object(raw))
        store.secrets_listed(self.namespace, self.listed, self.version)
        self.shop.api.changed = self.watch
        for key in self.shop.api.secrets.keys() - self.listed.keys():
            self.watch(key)


@pytest.mark.rule("DRIFT-1")
@pytest.mark.parametrize("deleted", [True, False])
@pytest.mark.parametrize("meanwhile", [True, False])
@pytest.mark.parametrize("namespace", [None, TARGET.namespace])
@pytest.mark.parametrize("restored", [True, False])
async def test_the_answer_to_a_write_and_a_list_that_lacks_the_target_may_come_in_any_order(
    monkeypatch: pytest.MonkeyPatch, namespace: str | None, *, restored: bool, meanwhile: bool, deleted: bool
) -> None:
    """The list is later than the write, and the target has been deleted between; or it is earlier.

    The answer comes after the list was taken in, or `meanwhile`. `restored`: another target of that name went before.
    """
    shop = Shop()
    if restored:
        await shop.process.work()
        await shop.pass_time(10)
        shop.api.remove_secret(TARGET)
    apply, gaps = shop.api.apply_secret, list[Gap]()

    async def answered_late(key: NamespacedName, manifest: Mapping[str, Any]) -> SecretMeta:
        monkeypatch.setattr(shop.api, "apply_secret", apply)
        gap = Gap(shop, namespace)
        gaps.append(gap)
        if not deleted:
            gap.list()
        answer = await apply(key, manifest)
        if deleted:
            shop.api.remove_secret(TARGET)
            gap.list()
        if not meanwhile:
            gap.take_in()
        return answer

    monkeypatch.setattr(shop.api, "apply_secret", answered_late)
    await shop.process.work()
    if meanwhile:
        gaps[0].take_in()
    await shop.pass_time(60)
    assert TARGET in shop.api.secrets
    assert shop.told("Ready") == "True Issued"
    assert len(shop.endpoint.requests) == 1
    assert len(shop.events_of(Reason.RESTORED)) == int(restored or deleted)  # one in ten minutes


@pytest.mark.rule("DRIFT-1")
async def test_a_target_that_was_found_live_and_goes_in_a_gap_of_the_watch_is_made_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.process = shop.start()
    shop.process.lose_sight_of(TARGET)
    read = shop.api.read_secret_meta

    async def found(key: NamespacedName) -> SecretMeta | None:
        monkeypatch.setattr(shop.api, "read_secret_meta", read)
        answer = await read(key)
        gap = Gap(shop)
        shop.api.remove_secret(TARGET)
        gap.list()
        gap.take_in()
        return answer

    monkeypatch.setattr(shop.api, "read_secret_meta", found)
    await shop.pass_time(60)
    assert TARGET in shop.api.secrets
    assert shop.told("Ready") == "True Issued"


@pytest.mark.rule("WHEN-7", "WHEN-8", "WHEN-9")
async def test_a_corrected_client_secret_or_spec_is_followed_at_once_right_after_an_attempt(shop: Shop) -> None:
    """Who has just mended it does not wait for the least interval between two attempts; once for each change."""
    await shop.pass_time(10)
    shop.endpoint.clients["shop"] = "canary-next"
    shop.client_secret("canary-misspelt")
    await shop.pass_time(1)
    assert shop.refreshed() == "False InvalidClient"
    shop.client_secret("canary-next")
    await shop.pass_time(1)
    assert shop.refreshed() == "True Issued"
    # The interval that was passed is made up for, then that is over.
    shop.spec(scopes=["orders:read"])
    await shop.pass_time(3)
    assert shop.refreshed() == "Unknown Issuing"
    await shop.pass_time(1)
    assert shop.refreshed() == "True Issued"
    await shop.pass_time(9)
    shop.spec(scopes=["orders:write"])
    await shop.pass_time(1)
    assert shop.refreshed() == "True Issued"
    assert [round(at - shop.started) for _, at in shop.endpoint.requests] == [0, 11, 12, 16, 26]


@pytest.mark.rule("WHEN-7")
@pytest.mark.parametrize("edited", ["client Secret", "spec"])
async def test_editing_in_a_loop_gets_one_attempt_per_interval_and_no_more(shop: Shop, edited: str) -> None:
    """Whether the attempts succeed or fail."""
    minutes = 10
    for second in range(60 * minutes):
        if edited == "client Secret":
            shop.client_secret(f"canary-{second % 7}")
        else:
            shop.spec(scopes=[f"orders:{second}"])
        await shop.pass_time(1)
    assert 60 * minutes / 5 - 1 <= len(shop.endpoint.requests) <= 60 * minutes / 5 + 2


async def test_what_the_probe_was_told_by_the_endpoint_is_waited_for_and_told(shop: Shop) -> None:
    """A 4xx does not say that the endpoint is back: an edge before it may have answered."""
    shop.endpoint.mood = "down"
    await shop.pass_time(HOUR * 2 // 3 + 60)
    assert shop.process.is_down()
    shop.endpoint.mood, shop.endpoint.clients = "good", {}
    requests = len(shop.endpoint.requests)
    while len(shop.endpoint.requests) == requests:
        await shop.pass_time(1)
    assert shop.process.is_down()
    assert shop.refreshed() == "False InvalidClient"
    shop.endpoint.clients = {"shop": "canary-secret"}
    await shop.pass_time(60)
    assert not shop.process.is_down()
    assert shop.refreshed() == "True Issued"


async def test_how_late_a_refresh_is_counts_from_when_it_was_due_and_not_from_an_earlier_one(shop: Shop) -> None:
    shop.endpoint.mood = "repeats"
    await shop.pass_time(HOUR * 2 // 3)
    assert len(shop.endpoint.requests) > 1
    shop.endpoint.mood = "good"
    while len(shop.endpoint.ledger) == 1:
        await shop.pass_time(1)
    shown = b"".join(shop.process.metrics.render()).decode()
    late = [line.split()[1] for line in shown.splitlines() if line.startswith("tuinly_refresh_lateness_seconds_sum")]
    assert 0 <= float(late[0]) <= 1  # the world's tick


@pytest.mark.rule("WHEN-5")
async def test_a_refresh_that_is_almost_due_shares_the_wake_up_of_another(shop: Shop) -> None:
    """A retry that is almost due does not: it would find that it has to wait."""
    due = shop.process.timers.get(CREDENTIAL)
    assert due is not None
    for seconds, requests in ((-4.0, 1), (-2.0, 2)):
        shop.process.timers.set(OTHER, Deadline(due.wall + seconds, due.boot + seconds))
        await shop.pass_time(int(due.remaining(shop.world.now()) + seconds) + 1)
        assert len(shop.endpoint.requests) == requests
    shop.endpoint.mood = "down"
    shop.force("now")
    await shop.pass_time(10)
    retry = shop.process.timers.get(CREDENTIAL)
    assert retry is not None
    shop.process.timers.set(OTHER, Deadline.after(0.0, shop.world.now()))
    shop.process.timers.fire(shop.world.now())
    assert shop.process.timers.get(CREDENTIAL) == retry


async def refuse(*_: object) -> NoReturn:
    """Stand for what RBAC does not grant."""
    raise ApiFailure(403, "Forbidden")


async def test_a_client_secret_that_may_not_be_read_is_told_and_read_once_it_may(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.api, "read_secret", refuse)
    shop.endpoint.clients["shop"] = "canary-rotated"
    shop.api.put_secret(CLIENT_SECRET, {"client_id": "shop", "client_secret": "canary-rotated"})
    await shop.pass_time(2)
    assert shop.refreshed() == "False ClientSecretNotFound"
    assert CLIENT_SECRET.name in shop.message("Refreshed")
    assert shop.told("Ready") == "True Issued"
    monkeypatch.undo()
    await shop.pass_time(300)
    assert shop.refreshed() == "True Issued"
    assert len(shop.endpoint.requests) == 2


async def test_anything_else_that_the_api_server_refuses_is_told_and_tried_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a delete, where the operator's rights are too few: the old target of a rename stays."""
    monkeypatch.setattr(shop.api, "delete_secret", refuse)
    shop.spec(target={"name": "renamed"})
    await shop.process.work()
    assert shop.refreshed() == "False TargetRejected"
    monkeypatch.undo()
    await shop.pass_time(60)
    assert shop.refreshed() == "True Issued"
    assert TARGET not in shop.api.secrets


async def test_a_spec_that_returns_while_its_change_is_followed_keeps_its_token(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer for what nobody asks for any more is not written, and its refresh token gives no more of the same."""
    exchange, held = shop.endpoint.exchange, shop.api.secrets[TARGET]["data"]

    async def change_back(url: str, client_id: str, secret: Sensitive, scopes: frozenset[str]) -> TokenResponse:
        shop.spec()
        return await exchange(url, client_id, secret, scopes)

    await shop.pass_time(10)
    monkeypatch.setattr(shop.endpoint, "exchange", change_back)
    shop.endpoint.gives_refresh_tokens = True
    shop.spec(scopes=["orders:read"])
    await shop.process.work()
    assert len(shop.endpoint.requests) == 2
    assert shop.api.secrets[TARGET]["data"] == held
    assert shop.record().memory.pending is None
    published = shop.record().memory.published
    assert published is not None
    assert published.refresh is None
    assert shop.told("Ready") == "True Issued"


@pytest.mark.rule("ABS-5")
async def test_a_status_that_finds_no_credential_drops_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch may have missed its end."""

    async def gone(*_: object) -> NoReturn:
        raise ApiFailure(404, "NotFound")

    async def absent(*_: object) -> tuple[None, str]:
        return None, "1000"

    monkeypatch.setattr(shop.api, "write_status", gone)
    monkeypatch.setattr(shop.api, "find_credential", absent)
    monkeypatch.setattr(shop.process, "credentials_changed", lambda: None)
    shop.world.pass_time(2 * HOUR)
    await shop.process.work()
    assert shop.process.store.get(CREDENTIAL) is None


@pytest.mark.rule("WHEN-11")
@pytest.mark.parametrize("others_wait", [False, True])
async def test_telling_of_a_token_that_was_just_published_gives_way_to_those_who_wait(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, *, others_wait: bool
) -> None:
    monkeypatch.setattr(shop.process.reconciler, "_give_way", lambda _: others_wait)
    shop.world.pass_time(11)
    shop.force("now")
    await shop.process.reconcile(CREDENTIAL)
    assert shop.token() == shop.endpoint.ledger[1].value
    assert shop.api.writes[-1].kind == ("target" if others_wait else "status")
    await shop.process.reconcile(CREDENTIAL)  # once it is its turn again
    assert shop.api.writes[-1].kind == "status"


@pytest.mark.rule("REPL-11")
async def test_a_lead_that_is_too_short_for_a_token_request_is_waited_for(shop: Shop) -> None:
    """Nobody else would look at the credential again: this replica leads, and may go on to."""
    shop.api.lead = ASKING_SECONDS
    shop.spec(scopes=["orders:read"])
    await shop.pass_time(30)
    assert len(shop.endpoint.ledger) == 1
    shop.api.lead = float("inf")
    await shop.pass_time(6)
    assert len(shop.endpoint.ledger) == 2


@pytest.mark.rule("REPL-11")
async def test_a_lead_that_ends_right_before_the_step_that_asks_for_a_token_is_noticed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica may be stopped between any two steps, and another one leads by the time it goes on."""
    begin = shop.process.limiter.begin

    def begin_and_end_the_lead(ask: Ask, now: Moment) -> Ticket:
        asyncio.get_running_loop().call_soon(setattr, shop.api, "lead", 0.0)  # before the request's own task begins
        return begin(ask, now)

    monkeypatch.setattr(shop.process.limiter, "begin", begin_and_end_the_lead)
    shop.spec(scopes=["orders:read"])
    await shop.process.work()
    assert len(shop.endpoint.requests) == 1
    shop.api.lead = float("inf")
    monkeypatch.undo()
    await shop.pass_time(10)
    assert len(shop.endpoint.requests) == 2


@pytest.mark.rule("WRITE-8")
async def test_nothing_is_created_on_a_look_from_before_a_slow_request(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The credential was deleted, which the watch has not brought yet: a retained target would stay for good."""
    exchange = shop.endpoint.exchange

    async def slow(url: str, client_id: str, secret: Sensitive, scopes: frozenset[str]) -> TokenResponse:
        shop.world.pass_time(5)
        del shop.api.credentials[CREDENTIAL]
        return await exchange(url, client_id, secret, scopes)

    shop.spec(target={"name": "another", "deletionPolicy": "Retain"}, scopes=["orders:read"])
    monkeypatch.setattr(shop.endpoint, "exchange", slow)
    monkeypatch.setattr(shop.process, "credentials_changed", lambda: None)
    shop.world.pass_time(10)
    await shop.process.work()
    assert len(shop.endpoint.requests) == 2
    assert NamespacedName(CREDENTIAL.namespace, "another") not in shop.api.secrets


# --- Given up ---------------------------------------------------------------------------------------------------------


@dataclass
class Hanging:
    """A token request that is never answered, and its reconcile."""

    shop: Shop
    monkeypatch: pytest.MonkeyPatch
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    given_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def exchange(self, *_: object) -> NoReturn:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up.set()
        raise AssertionError

    async def begin(self) -> asyncio.Task[None]:
        """Return the work that hangs in the token request."""
        with self.monkeypatch.context() as patch:
            patch.setattr(self.shop.endpoint, "exchange", self.exchange)
            self.shop.world.pass_time(10)
            self.shop.spec(scopes=["orders:read"])
            work = asyncio.create_task(self.shop.process.work())
            async with asyncio.timeout(30):
                await self.begun.wait()
        return work


@pytest.fixture
def hanging(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Hanging:
    return Hanging(shop, monkeypatch)


@pytest.mark.rule("ABS-14")
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
async def test_who_is_made_again_does_not_wait_for_its_predecessors_request(
    shop: Shop, hanging: Hanging, policy: str
) -> None:
    work = await hanging.begin()
    written = len(shop.api.writes)
    old = shop.api.credentials.pop(CREDENTIAL)["metadata"]["uid"]
    shop.spec(target={"deletionPolicy": policy})
    new = shop.api.credentials[CREDENTIAL]["metadata"]["uid"]
    async with asyncio.timeout(30):
        await work
    assert hanging.given_up.is_set()
    assert shop.told("Ready") == "True Issued"
    assert shop.api.secrets[TARGET]["metadata"]["annotations"]["tuinly.com/credential-uid"] == new != old
    statuses = [write.after for write in shop.api.writes[written:] if write.kind == "status"]
    assert {status["metadata"]["uid"] for status in statuses if status} == {new}


@pytest.mark.rule("ABS-14")
async def test_for_who_is_deleted_nothing_goes_on(shop: Shop, hanging: Hanging) -> None:
    work = await hanging.begin()
    written = len(shop.api.writes)
    del shop.api.credentials[CREDENTIAL]
    shop.process.credentials_changed()
    async with asyncio.timeout(30):
        await work
    assert hanging.given_up.is_set()
    assert len(shop.api.writes) == written
    assert shop.process.timers.get(CREDENTIAL) is None


async def test_who_leads_anew_does_not_wait_for_a_request_of_its_earlier_lead(shop: Shop, hanging: Hanging) -> None:
    work = await hanging.begin()
    shop.process.store.start_afresh()
    async with asyncio.timeout(30):
        await work
    assert hanging.given_up.is_set()
    assert shop.told("Ready") == "True Issued"


async def test_nothing_is_under_way_any_more_once_a_worker_has_ended(hanging: Hanging) -> None:
    """The lead is given up after that."""
    work = await hanging.begin()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert work.cancelled()
    assert hanging.given_up.is_set()


# --- etcd is restored from a backup, and resource versions go back ----------------------------------------------------

FEW = 20
"""Requests to the API server that take a handful of tries."""


@pytest.mark.rule("ABS-7")
@pytest.mark.parametrize("hours", [1, 5], ids=["the last token was not restored", "nor were many before it"])
async def test_after_the_versions_went_back_tokens_are_refreshed_as_before(shop: Shop, hours: int) -> None:
    """The watches tell of nothing, as those versions are long past for them; a live read counts all the same."""
    backup = shop.api.back_up()
    await shop.pass_time(hours * HOUR)
    shop.api.restore(backup)
    before, tokens = shop.api.requests, len(shop.endpoint.ledger)
    await shop.pass_time(HOUR)
    assert shop.api.requests - before < FEW
    assert len(shop.endpoint.ledger) - tokens <= 2
    assert shop.token() == shop.endpoint.ledger[-1].value
    assert shop.told("Ready") == "True Issued"
    assert shop.api.credentials[CREDENTIAL]["status"]["conditions"][0]["status"] == "True"


@pytest.mark.rule("ABS-7")
async def test_after_the_versions_went_back_another_client_secret_is_read_once(shop: Shop) -> None:
    backup = shop.api.back_up()
    for number in range(20):
        shop.client_secret(f"canary-{number}")
    await shop.pass_time(30)
    shop.api.restore(backup)
    before = shop.api.requests
    shop.spec(scopes=["orders:read"])
    shop.process.lose_sight_of(TARGET)
    await shop.pass_time(60)
    assert shop.api.requests - before < FEW
    assert shop.told("Ready") == "True Issued"


@pytest.mark.rule("ABS-7")
async def test_a_client_secret_that_a_backup_brings_back_is_read_once(shop: Shop) -> None:
    """With the uid that was seen to go, and no watch tells of it."""
    backup = shop.api.back_up()
    shop.api.remove_secret(CLIENT_SECRET)
    await shop.pass_time(2)
    assert shop.refreshed() == f"False {Reason.CLIENT_SECRET_NOT_FOUND}"
    shop.api.restore(backup)
    before = shop.api.requests
    await shop.pass_time(400)
    assert shop.refreshed() == f"True {Reason.ISSUED}"
    assert shop.api.requests - before < FEW


async def test_a_client_secret_that_was_made_again_is_read_once_though_the_watch_tells_of_the_end_late(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.api, "changed", lambda _: None)
    before, uid = shop.api.requests, shop.api.secrets.pop(CLIENT_SECRET)["metadata"]["uid"]
    shop.client_secret("canary-secret")
    await shop.process.work()
    shop.process.store.secret_gone(CLIENT_SECRET, uid, "1")
    await shop.pass_time(40)
    assert shop.refreshed() == f"True {Reason.ISSUED}"
    assert shop.api.requests - before < FEW


async def test_after_the_versions_went_back_a_renamed_target_is_cleaned_up(shop: Shop) -> None:
    backup = shop.api.back_up()
    for _ in range(20):
        shop.api.label_secret(TARGET)
    shop.api.restore(backup)
    before = shop.api.requests
    shop.api.put_credential(
        CREDENTIAL, {"clientSecretRef": {"name": CLIENT_SECRET.name}, "target": {"name": "renamed"}}
    )
    shop.process.store.credential_seen(Credential.from_object(shop.api.credentials[CREDENTIAL]), listed=True)
    await shop.pass_time(30)
    assert TARGET not in shop.api.secrets
    assert NamespacedName(CREDENTIAL.namespace, "renamed") in shop.api.secrets
    assert shop.api.requests - before < FEW


# --- Whose a credential is --------------------------------------------------------------------------------------------


class Moved:
    """Another operator, which serves the credential, too, or since its label was changed; the first was not told."""

    def __init__(self, shop: Shop, monkeypatch: pytest.MonkeyPatch, *, ours: bool) -> None:
        self.shop, self.first = shop, shop.process
        self.monkeypatch, self.ours = monkeypatch, ours
        self.changed = shop.api.changed
        self.second = Process(shop.world, shop.api, shop.endpoint, shop.events)
        shop.api.changed = self.tell_both

    def tell_both(self, key: NamespacedName) -> None:
        self.changed(key)
        self.second.secret_changed(key)

    async def work(self, seconds: int) -> None:
        """Both work, the first by its own selector."""
        find = self.shop.api.find_credential

        async def selected(key: NamespacedName) -> tuple[Mapping[str, Any] | None, str]:
            return await find(key) if self.ours else (None, "")

        for _ in range(seconds):
            self.shop.world.pass_time(1)
            await self.second.work()
            with self.monkeypatch.context() as patch:
                patch.setattr(self.shop.api, "find_credential", selected)
                if not self.ours:
                    patch.setattr(self.first, "credentials_changed", lambda: None)
                await self.first.work()


@pytest.mark.rule("DRIFT-7")
@pytest.mark.parametrize("ours", [False, True], ids=["moved", "served by both"])
async def test_two_operators_do_not_fight_over_a_target(
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ours: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    """The second asks for a token of its own, and the first finds its hand on the target."""
    moved, written = Moved(shop, monkeypatch, ours=ours), len(shop.api.writes)
    shop.world.pass_time(2)
    shop.api.credentials[CREDENTIAL]["metadata"]["annotations"] = {"tuinly.com/refresh-requested": "1"}
    shop.api.credentials[CREDENTIAL]["metadata"]["resourceVersion"] = "1000"
    moved.second.credentials_changed()
    await moved.work(300)
    assert shop.token() == shop.endpoint.ledger[-1].value
    assert (moved.first.store.get(CREDENTIAL) is not None) is ours
    assert moved.second.store.get(CREDENTIAL) is not None
    assert (
        len([write for write in shop.api.writes[written:] if write.kind == "target"]) == len(shop.endpoint.ledger) - 1
    )
    assert len(shop.api.writes) - written < FEW
    assert caplog.text.count("another operator serves this credential") == 1
    assert len(shop.events_of(Reason.ANOTHER_OPERATOR)) == ours
    assert shop.events_of(Reason.RESTORED) == []


def write_over(shop: Shop) -> None:
    """Another operator, with other flags, tells something else in the status."""
    raw = shop.api.credentials[CREDENTIAL]
    [ready] = [each for each in raw["status"]["conditions"] if each["type"] == "Ready"]
    theirs = {"status": "False", "reason": "URLNotAllowed", "lastTransitionTime": rfc3339(shop.world.wall)}
    raw["status"]["conditions"] = [{**ready, **theirs}]
    raw["metadata"]["resourceVersion"] = str(int(raw["metadata"]["resourceVersion"]) + 1)
    shop.process.credentials_changed()


@pytest.mark.rule("STATUS-19")
async def test_a_status_that_was_written_over_is_written_again_at_once(shop: Shop) -> None:
    await shop.pass_time(30)
    write_over(shop)
    await shop.process.work()
    assert shop.status()["conditions"][0]["reason"] == Reason.ISSUED


@pytest.mark.rule("STATUS-19")
async def test_a_status_whose_answer_was_lost_does_not_stay(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows that it was written: what is true again is no repetition of what was written last."""

    def story() -> str:
        return str(shop.status()["conditions"][0]["message"])

    def hold(*finalizers: str) -> None:
        meta = shop.api.secrets[TARGET]["metadata"]
        meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
        meta["finalizers"] = list(finalizers)
        meta["deletionTimestamp"] = rfc3339(shop.world.wall)
        if not finalizers:
            del meta["deletionTimestamp"]
        shop.api.changed(TARGET)

    async def lost(*args: Any) -> str:  # noqa: ANN401 -- as it is called
        await write(*args)
        raise ApiFailure(None, "ServerDisconnectedError")

    await shop.pass_time(5)
    before, write = story(), shop.api.write_status
    with monkeypatch.context() as patch:
        patch.setattr(shop.api, "write_status", lost)
        hold("example.com/held")
        await shop.process.work()
    assert "finalizer" in story()
    hold()
    await shop.pass_time(6)
    assert story() == before


@pytest.mark.rule("STATUS-19")
async def test_two_operators_do_not_fight_over_a_status(shop: Shop) -> None:
    """Neither gives way, but neither writes twice in half a minute what the other writes over."""
    await shop.pass_time(60)
    written = len(shop.api.writes)
    for _ in range(300):
        write_over(shop)
        await shop.pass_time(1)
    assert len(shop.api.writes) - written == 10
    await shop.pass_time(30)
    assert shop.status()["conditions"][0]["reason"] == Reason.ISSUED


FORGED = {"lastHandledRefresh": "forged", "lastFailureTime": "2026-01-01T00:00:00Z", "lastGrant": "RefreshToken"}


def forge(shop: Shop, number: int = 0, *fields: str) -> None:
    """Change what only the status says of the past: these fields of it, or all."""
    raw = shop.api.credentials[CREDENTIAL]
    forged = FORGED | {"lastHandledRefresh": f"forged {number}"}
    raw["status"] |= {field: forged[field] for field in fields or forged}
    raw["metadata"]["resourceVersion"] = shop.api._next_version()  # noqa: SLF001 -- as for any write
    shop.process.credentials_changed()


@pytest.mark.rule("STATUS-20")
async def test_forged_fields_of_a_status_are_restored_at_most_every_30_seconds(shop: Shop) -> None:
    shop.force("asked")
    await shop.pass_time(60)
    written, before = len(shop.api.writes), dict(shop.status())
    for number in range(300):
        forge(shop, number)
        await shop.pass_time(1)
    assert 5 <= len(shop.api.writes) - written <= 11
    await shop.pass_time(30)
    assert shop.status() == before
    assert shop.status()["lastHandledRefresh"] == "asked"


@pytest.mark.rule("STATUS-20")
async def test_a_forged_time_of_failure_alone_is_restored(shop: Shop) -> None:
    """The status was written within the last five minutes, for which a new time of failure would have to wait."""
    await shop.pass_time(60)
    before = dict(shop.status())
    forge(shop, 0, "lastFailureTime")
    assert shop.status() != before
    await shop.pass_time(31)
    assert shop.status() == before


@pytest.mark.rule("STATUS-20")
async def test_other_changes_of_a_status_do_not_wait_for_a_forged_one(shop: Shop) -> None:
    await shop.pass_time(60)
    for number in range(3):
        forge(shop, number)
        await shop.pass_time(1)
    shop.spec(suspend=True)
    await shop.process.work()
    assert shop.refreshed() == "Unknown Suspended"
    assert "lastHandledRefresh" not in shop.status()


@pytest.mark.rule("STATUS-20")
async def test_after_a_restart_the_status_is_believed_about_a_forced_exchange_that_failed(shop: Shop) -> None:
    await shop.pass_time(60)
    shop.endpoint.mood = "down"
    shop.force("asked")
    await shop.process.work()
    shop.unforce()
    shop.endpoint.mood = "good"
    shop.process = shop.start()
    await shop.pass_time(60)
    assert shop.status()["lastHandledRefresh"] == "asked"
    forge(shop)
    await shop.pass_time(60)
    assert shop.status()["lastHandledRefresh"] == "asked"


@pytest.mark.rule("DRIFT-7")
async def test_an_earlier_state_from_a_backup_is_restored_as_any_other_damage(shop: Shop) -> None:
    backup = shop.api.back_up()["secrets"][TARGET]
    await shop.pass_time(HOUR)
    token = shop.token()
    backup["metadata"]["resourceVersion"] = "1000"
    shop.api.secrets[TARGET] = backup
    shop.api._version = 1000  # noqa: SLF001 -- later than all
    shop.api.changed(TARGET)
    await shop.process.work()
    assert shop.token() == token
    assert len(shop.events_of(Reason.RESTORED)) == 1
    assert shop.events_of(Reason.ANOTHER_OPERATOR) == []


@pytest.mark.rule("WRITE-8")
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
@pytest.mark.parametrize(("seconds", "written"), [(3, True), (7, False)], ids=["within 5 s", "later"])
async def test_for_who_was_deleted_meanwhile_nothing_is_written_though_the_watch_is_late(
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    seconds: int,
    written: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    """In the first seconds of an attempt nobody asks: a routine refresh costs no read."""
    shop.spec(target={"deletionPolicy": policy})
    await shop.pass_time(10)

    def meanwhile() -> None:
        shop.world.pass_time(seconds)
        del shop.api.credentials[CREDENTIAL]

    before = shop.token()
    monkeypatch.setattr(shop.process, "credentials_changed", lambda: None)
    shop.endpoint.meanwhile = meanwhile
    shop.world.pass_time(HOUR * 2 // 3)
    await shop.process.work()
    assert len(shop.endpoint.requests) == 2
    assert (shop.token() != before) is written


@pytest.mark.rule("ABS-3")
async def test_a_target_that_a_deletion_leaves_to_itself_gets_no_owner_though_the_watch_is_late(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one, it would be collected. So it is in the first seconds of a token, too."""
    monkeypatch.setattr(shop.process, "credentials_changed", lambda: None)
    shop.api.delete_and_orphan(CREDENTIAL, TARGET)
    left = copy.deepcopy(shop.api.secrets[TARGET])
    await shop.process.work()
    assert shop.api.secrets[TARGET] == left
    assert shop.record().credential.deleting


@pytest.mark.rule("ABS-3")
async def test_neither_does_one_that_is_left_during_a_write_that_was_decided_before(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That its credential was there counts for the target as it was then."""
    await shop.pass_time(60)
    monkeypatch.setattr(shop.process, "credentials_changed", lambda: None)
    shop.api.edit_secret(TARGET, "access_token", "spoilt")
    apply = shop.api.apply_secret
    left: list[Any] = []

    async def meanwhile(key: NamespacedName, manifest: Mapping[str, Any]) -> SecretMeta:
        if not left:
            shop.api.delete_and_orphan(CREDENTIAL, TARGET)
            left.append(copy.deepcopy(shop.api.secrets[TARGET]))
        return await apply(key, manifest)

    monkeypatch.setattr(shop.api, "apply_secret", meanwhile)
    await shop.process.work()
    assert [shop.api.secrets[TARGET]] == left


@pytest.mark.rule("WRITE-8")
async def test_for_who_was_deleted_during_a_verification_no_retained_target_is_made(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read live before it is old by then."""
    verify = shop.endpoint.verify

    async def slow(url: str, token: Sensitive) -> None:
        shop.world.pass_time(7.9)
        del shop.api.credentials[CREDENTIAL]
        return await verify(url, token)

    renamed = NamespacedName(CREDENTIAL.namespace, "another")
    target = {"name": renamed.name, "deletionPolicy": "Retain"}
    shop.spec(target=target, verification={"mode": "Enabled"}, scopes=["orders:read"])
    monkeypatch.setattr(shop.endpoint, "verify", slow)
    monkeypatch.setattr(shop.process, "credentials_changed", lambda: None)
    await shop.pass_time(10)
    assert len(shop.endpoint.requests) == 2
    assert renamed not in shop.api.secrets


async def test_for_who_was_deleted_with_its_target_during_a_write_no_new_one_is_made(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the target is absent says nothing of the credential."""
    shop.spec(target={"deletionPolicy": "Retain"})
    await shop.pass_time(10)
    monkeypatch.setattr(shop.process, "credentials_changed", lambda: None)
    apply = shop.api.apply_secret

    async def meanwhile(key: NamespacedName, manifest: Mapping[str, Any]) -> SecretMeta:
        if shop.api.credentials.pop(CREDENTIAL, None) is not None:
            shop.world.pass_time(7)
            shop.api.remove_secret(TARGET)
        return await apply(key, manifest)

    monkeypatch.setattr(shop.api, "apply_secret", meanwhile)
    await shop.pass_time(HOUR)
    assert len(shop.endpoint.requests) == 2
    assert TARGET not in shop.api.secrets


async def test_who_touches_a_target_all_the_time_does_not_keep_it_from_being_restored(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.pass_time(60)
    token, find = shop.token(), shop.api.find_credential
    asked: list[NamespacedName] = []

    async def touched_meanwhile(key: NamespacedName) -> tuple[Mapping[str, Any] | None, str]:
        asked.append(key)
        shop.api.label_secret(TARGET)
        return await find(key)

    monkeypatch.setattr(shop.api, "find_credential", touched_meanwhile)
    shop.api.edit_secret(TARGET, "access_token", "spoilt")
    await shop.process.work()
    assert shop.token() == token
    assert len(asked) == 1


@pytest.mark.rule("WRITE-8")
async def test_a_routine_refresh_looks_for_nobody(shop: Shop) -> None:
    finds = shop.api.finds
    await shop.pass_time(HOUR)
    assert len(shop.endpoint.requests) == 2
    assert shop.api.finds == finds
    shop.api.edit_secret(TARGET, "access_token", "damaged")
    await shop.process.work()
    assert shop.api.finds == finds + 1  # and a restore, at any time, looks once


# --- The first token of a credential that this leader saw created -----------------------------------------------------


OTHERS_TARGET = NamespacedName(CREDENTIAL.namespace, f"{OTHER.name}-token")


@pytest.fixture
def looked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read live of credentials and targets."""
    names: list[str] = []

    def listen(name: str) -> None:
        read = getattr(shop.api, name)

        async def heard(*args: object) -> object:
            names.append(name)
            return await read(*args)

        monkeypatch.setattr(shop.api, name, heard)

    listen("read_secret_meta")
    listen("find_credential")
    return names


async def create(shop: Shop, policy: str = "Delete") -> None:
    """A team creates another credential."""
    target = {"deletionPolicy": policy}
    shop.api.put_credential(OTHER, {"clientSecretRef": {"name": CLIENT_SECRET.name}, "target": target})
    shop.process.credentials_changed()
    await shop.process.work()


@pytest.mark.rule("ABS-2")
async def test_that_its_target_is_absent_is_proven_by_the_write(shop: Shop, looked: list[str]) -> None:
    await create(shop)
    assert OTHERS_TARGET in shop.api.secrets
    assert looked == []
    shop.api.remove_secret(OTHERS_TARGET)
    await shop.process.work()
    assert OTHERS_TARGET in shop.api.secrets
    assert looked == ["read_secret_meta", "find_credential"]  # one that is lost is another matter


@pytest.mark.rule("ABS-2")
async def test_one_that_is_to_be_retained_is_proven_by_reads(shop: Shop, looked: list[str]) -> None:
    """Nothing collects it if its credential has gone."""
    await create(shop, "Retain")
    assert OTHERS_TARGET in shop.api.secrets
    assert looked == ["read_secret_meta", "find_credential"]


@pytest.mark.rule("ABS-2")
async def test_who_was_created_before_this_lead_is_proven_by_reads(shop: Shop, looked: list[str]) -> None:
    shop.api.reachable = False
    await create(shop)
    shop.process.store.start_afresh()
    shop.api.reachable = True
    await shop.process.work()
    assert OTHERS_TARGET in shop.api.secrets
    assert looked == ["read_secret_meta", "find_credential"]


@pytest.mark.rule("ABS-2")
async def test_what_is_in_its_way_unseen_stays_and_costs_one_token_request(shop: Shop, looked: list[str]) -> None:
    shop.api.put_secret(OTHERS_TARGET, {"theirs": "1"}, min(REFUSED_TYPES))
    await create(shop)
    assert looked == ["read_secret_meta"]
    await shop.pass_time(HOUR // 2)
    assert "theirs" in shop.api.secrets[OTHERS_TARGET]["data"]
    [ready] = [each for each in shop.api.credentials[OTHER]["status"]["conditions"] if each["type"] == "Ready"]
    assert ready["reason"] == Reason.TARGET_CONFLICT
    assert len(shop.endpoint.requests) == 2


@pytest.mark.rule("OWN-6")
@pytest.mark.parametrize("labels", [{}, {"tuinly.com/credential": OTHER.name}])
async def test_what_was_in_its_way_unseen_is_missed_within_minutes(shop: Shop, labels: dict[str, str]) -> None:
    """Nobody tells when it goes, whatever it is labelled with."""
    shop.api.put_secret(OTHERS_TARGET, {"theirs": "1"}, min(REFUSED_TYPES))
    shop.api.secrets[OTHERS_TARGET]["metadata"]["labels"] = labels
    await create(shop)
    shop.api.remove_secret(OTHERS_TARGET)
    await shop.pass_time(10 * 60)
    assert "access_token" in shop.api.secrets[OTHERS_TARGET]["data"]


@pytest.mark.rule("ABS-2")
async def test_what_another_shard_wrote_unseen_costs_one_token_request(shop: Shop, looked: list[str]) -> None:
    """A label has the credential served here by now, and the watch of Secrets is late."""
    await create(shop)
    written, moved = shop.token(OTHERS_TARGET), shop.api.credentials.pop(OTHER)
    shop.world.pass_time(60)
    shop.process, looked[:] = shop.start(), []
    shop.process.lose_sight_of(OTHERS_TARGET)
    shop.api.credentials[OTHER] = moved
    shop.process.credentials_changed()
    await shop.process.work()
    await shop.pass_time(60)
    assert looked == ["read_secret_meta"]
    assert shop.token(OTHERS_TARGET) != written
    assert [each["reason"] for each in shop.api.credentials[OTHER]["status"]["conditions"]] == [Reason.ISSUED] * 2
    assert len(shop.endpoint.requests) == 3


# --- At the limiter ---------------------------------------------------------------------------------------------------


def keep_waiting(shop: Shop) -> None:
    """Have the refresh of its token wait behind others, who hold all places."""
    limiter, now = shop.process.limiter, shop.world.now()
    for number in range(20):
        ask = Ask(NamespacedName("elsewhere", str(number)), "https://oauth.example.com", end=now.wall)
        limiter.failed(limiter.begin(ask, now), TokenRequestFailed(Reason.REQUEST_REJECTED, "", 404), now)
        limiter.succeeded(limiter.begin(ask, now), now)
    for number in range(20):
        limiter.begin(Ask(NamespacedName("elsewhere", str(number)), "https://oauth.example.com", end=now.wall), now)


@pytest.mark.rule("LIM-13")
@pytest.mark.parametrize("why", ["suspended", "moved", "deleted", "not needed", "served by another replica"])
async def test_who_needs_no_token_any_more_takes_nobodys_turn(shop: Shop, why: str) -> None:
    keep_waiting(shop)
    await shop.pass_time(HOUR * 2 // 3)
    seen = shop.process.limiter.seen(shop.world.now())["https://oauth.example.com"]
    assert (seen.waiting, len(shop.endpoint.requests)) == (1, 1)
    match why:
        case "suspended":
            shop.spec(suspend=True)
        case "moved":
            shop.spec(tokenURL="https://oauth.example.org/token")
        case "deleted":
            del shop.api.credentials[CREDENTIAL]
            shop.process.credentials_changed()
        case "not needed":
            shop.spec(refresh={"before": "1m"})
        case _:
            shop.process.limiter.start_afresh()
    await shop.process.work()
    assert shop.process.limiter.seen(shop.world.now())["https://oauth.example.com"].waiting == 0


async def test_a_short_wait_for_its_turn_writes_nothing_and_a_longer_one_is_told(shop: Shop) -> None:
    keep_waiting(shop)
    writes = len(shop.api.writes)
    while not shop.process.limiter.seen(shop.world.now())["https://oauth.example.com"].waiting:
        await shop.pass_time(1)
    await shop.pass_time(3)
    assert len(shop.api.writes) == writes
    await shop.pass_time(3)
    assert [write.kind for write in shop.api.writes[writes:]] == ["status"]
    assert (shop.told("Ready"), shop.refreshed()) == ("True Issued", "Unknown Issuing")
    assert shop.events.sent[1:] == []


# --- A wall clock is wrong for a while --------------------------------------------------------------------------------


@pytest.mark.rule("CLOCK-2")
@pytest.mark.parametrize("wrong", [-73, 2 * HOUR], ids=["behind", "ahead"])
async def test_the_times_of_a_token_are_those_of_the_clock_by_which_it_was_asked_for(shop: Shop, wrong: int) -> None:
    """As wrong as that was, until the next one, which comes in time."""
    shop.world.wall += wrong
    shop.force("now")
    await shop.pass_time(10)
    shop.world.set_right()
    await shop.pass_time(60)
    token = shop.endpoint.ledger[-1]
    assert shop.token() == token.value
    assert parse_rfc3339(shop.status()["tokenExpirationTime"]) == BOOTED + token.expires + wrong
    while shop.token() == token.value:
        await shop.pass_time(10)
        assert shop.world.boot < token.expires
    assert parse_rfc3339(shop.status()["tokenExpirationTime"]) == BOOTED + shop.endpoint.ledger[-1].expires


async def test_after_the_versions_went_back_a_target_is_looked_at_once(shop: Shop) -> None:
    backup = shop.api.back_up()
    for _ in range(20):
        shop.api.label_secret(TARGET)
    await shop.pass_time(10)
    shop.api.restore(backup)
    before = shop.api.requests
    shop.force("now")
    await shop.pass_time(10)
    assert shop.token() == shop.endpoint.ledger[-1].value
    assert shop.api.requests - before == len(["a write in vain", "a look", "a write", "the status"])
