"""Push: what is pushed when, and what is told of it, in the world of world.py."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.shop import TARGET, Shop
from tests.unit.world import CREDENTIAL, Json
from tuinly_operator.base.clock import Deadline
from tuinly_operator.domain.errors import Reason
from tuinly_operator.domain.push import Delivery, Push

PUSH: Json = {"delivery": {"pods": "Push"}}
CAME = Delivery(told=3)


@pytest.fixture
async def shop() -> Shop:
    """Its first token was written for Push, and pushed."""
    shop = Shop()
    shop.spec(**PUSH)
    await shop.process.work()
    return shop


def ordered(shop: Shop) -> list[Push]:
    return shop.process.pusher.ordered


def statuses(shop: Shop) -> int:
    """How often the status was written."""
    return sum(write.kind == "status" for write in shop.api.writes)


async def came(shop: Shop, delivery: Delivery) -> None:
    shop.process.pushed(delivery)
    await shop.process.work()


async def refresh(shop: Shop) -> None:
    shop.force(f"{shop.world.boot}")
    await shop.pass_time(11)


# --- What is pushed ---------------------------------------------------------------------------------------------------


@pytest.mark.rule("PUSH-1")
async def test_each_write_of_the_target_is_pushed_once(shop: Shop) -> None:
    await refresh(shop)
    shop.api.edit_secret(TARGET, "access_token", "broken")
    await shop.process.work()
    shop.spec(**PUSH, target={"template": {"data": {"header": "Bearer ${access_token}"}}})
    await shop.pass_time(60)
    shop.api.label_secret(TARGET)  # no new content
    await shop.pass_time(60)
    written = [write for write in shop.api.writes if write.kind == "target" and write.after]
    versions = [write.after["metadata"]["resourceVersion"] for write in written if write.after]
    assert [push.content.version for push in ordered(shop)] == versions
    assert len(versions) == 4
    assert all(push.content.ours and push.target == TARGET and push.key == CREDENTIAL for push in ordered(shop))
    assert shop.told("Ready") == "True Issued"


async def test_without_push_nothing_is_pushed(shop: Shop) -> None:
    shop.spec()
    await refresh(shop)
    assert len(ordered(shop)) == 1


@pytest.mark.rule("PUSH-1")
async def test_a_push_comes_before_others_have_their_turn(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.force("now")
    shop.world.pass_time(11)
    monkeypatch.setattr(shop.process.reconciler, "_give_way", lambda _: True)
    written = statuses(shop)
    await shop.process.reconcile(CREDENTIAL)
    assert (len(ordered(shop)), statuses(shop)) == (2, written)


async def test_another_target_is_pushed_in_place_of_the_first(shop: Shop) -> None:
    shop.spec(**PUSH, target={"name": "elsewhere"})
    await shop.process.work()
    assert [push.target.name for push in ordered(shop)] == [TARGET.name, "elsewhere"]


@pytest.mark.rule("PUSH-9")
async def test_after_a_restart_what_was_just_written_is_pushed_to_those_who_may_not_know(shop: Shop) -> None:
    await shop.pass_time(80)
    version = shop.api.secrets[TARGET]["metadata"]["resourceVersion"]
    shop.process = shop.start()
    await shop.process.work()
    (push,) = ordered(shop)
    assert (push.content.version, push.content.ours) == (version, False)
    assert int(push.content.at.wall) == int(shop.world.wall - 80)
    await shop.pass_time(60)
    assert len(ordered(shop)) == 1


@pytest.mark.rule("PUSH-9")
async def test_after_a_restart_an_older_token_is_let_be(shop: Shop) -> None:
    await shop.pass_time(95)
    written, requests = len(shop.api.writes), shop.api.requests
    shop.process = shop.start()
    await shop.pass_time(60)
    assert ordered(shop) == []
    assert (len(shop.api.writes), shop.api.requests) == (written, requests)


@pytest.mark.rule("PUSH-9")
async def test_what_was_just_written_is_of_no_interest_two_minutes_later(shop: Shop) -> None:
    shop.spec(**PUSH, suspend=True)
    await shop.process.work()
    shop.process = shop.start()
    await shop.process.work()
    await shop.pass_time(120)
    shop.spec(**PUSH)
    await shop.process.work()
    assert ordered(shop) == []


async def test_where_the_answer_to_the_write_was_lost_those_are_told_who_may_not_know(shop: Shop) -> None:
    shop.api.deaf = True
    await refresh(shop)
    *_, push = ordered(shop)
    assert len(ordered(shop)) == 2
    assert push.content.version == shop.api.secrets[TARGET]["metadata"]["resourceVersion"]


async def test_who_asks_for_push_only_now_is_pushed_the_next_token() -> None:
    shop = Shop()
    await shop.process.work()
    shop.spec(**PUSH)
    await shop.process.work()
    assert ordered(shop) == []
    assert shop.told("Delivered") == "Unknown Pushing"
    await refresh(shop)
    assert len(ordered(shop)) == 1


def suspend(shop: Shop) -> None:
    shop.spec(**PUSH, suspend=True)


def ask_no_more(shop: Shop) -> None:
    shop.spec()


def misspell(shop: Shop) -> None:
    shop.spec(**PUSH, scopes=["not a scope"])


def delete(shop: Shop) -> None:
    del shop.api.credentials[CREDENTIAL]
    shop.process.credentials_changed()


def make_again(shop: Shop) -> None:
    delete(shop)
    shop.spec(**PUSH)


@pytest.mark.rule("PUSH-10")
@pytest.mark.parametrize("change", [suspend, ask_no_more, misspell, delete, make_again])
async def test_who_no_longer_wants_it_is_dropped(shop: Shop, change: Callable[[Shop], None]) -> None:
    shop.process.pusher.dropped.clear()
    change(shop)
    await shop.process.work()
    assert CREDENTIAL in shop.process.pusher.dropped


@pytest.mark.rule("PUSH-11")
async def test_a_token_that_was_written_without_a_push_counts_as_told_to_nobody(shop: Shop) -> None:
    await came(shop, CAME)
    assert shop.told("Delivered") == "True Pushed"
    shop.spec()
    await shop.pass_time(100)
    await refresh(shop)
    shop.spec(**PUSH)
    await shop.process.work()
    assert shop.told("Delivered") == "Unknown Pushing"


# --- What is told -----------------------------------------------------------------------------------------------------


async def test_what_came_of_it_is_told(shop: Shop) -> None:
    assert shop.told("Delivered") == "Unknown Pushing"
    await came(shop, CAME)
    assert shop.told("Delivered") == "True Pushed"
    await refresh(shop)
    await came(shop, Delivery(told=2, beyond=1, names=("web-1",)))
    assert shop.told("Delivered") == "False PushIncomplete"
    assert "web-1" in shop.message("Delivered")
    assert shop.told("Ready") == "True Issued"


@pytest.mark.rule("PUSH-12")
async def test_a_push_like_the_one_before_writes_nothing(shop: Shop) -> None:
    await came(shop, CAME)
    await refresh(shop)
    written = statuses(shop)
    await came(shop, CAME)
    await shop.pass_time(310)
    assert statuses(shop) == written


@pytest.mark.rule("PUSH-12")
async def test_a_mere_number_is_written_after_five_minutes(shop: Shop) -> None:
    await came(shop, CAME)
    await refresh(shop)
    written = statuses(shop)
    await came(shop, Delivery(told=4))
    await shop.pass_time(250)
    assert (statuses(shop), shop.message("Delivered")[-1]) == (written, "3")
    await shop.pass_time(60)
    assert (statuses(shop), shop.message("Delivered")[-1]) == (written + 1, "4")


async def test_who_cannot_be_told_is_written_at_once(shop: Shop) -> None:
    await came(shop, Delivery(told=3, beyond=1, names=("web-1",)))
    written = statuses(shop)
    await came(shop, Delivery(told=3, beyond=2, names=("web-1", "web-2")))
    assert statuses(shop) == written + 1


@pytest.mark.rule("PUSH-12")
async def test_events_tell_of_true_and_false(shop: Shop) -> None:
    def told() -> list[Reason]:
        return [event.reason for event in shop.events.sent if event.reason is not Reason.ISSUED]

    incomplete, refused = Delivery(beyond=1, names=("web-1",)), Delivery(refused="no")
    for delivery in (incomplete, refused, CAME):  # False from the beginning, for another reason, and True
        await came(shop, delivery)
    assert told() == [Reason.PUSHED]
    await came(shop, incomplete)
    assert told() == [Reason.PUSHED, Reason.PUSH_INCOMPLETE]
    for delivery in (CAME, incomplete, CAME, incomplete):
        await came(shop, delivery)
    assert told() == [Reason.PUSHED, Reason.PUSH_INCOMPLETE, Reason.PUSHED]  # within ten minutes it is no news
    before = len(shop.events_of(Reason.ISSUED))
    shop.endpoint.mood = "garbage"
    await refresh(shop)
    shop.endpoint.mood = "good"
    await refresh(shop)
    assert told()[-1] == Reason.INVALID_RESPONSE
    assert len(shop.events_of(Reason.ISSUED)) == before + 1  # what is hushed of Delivered hushes nothing else


@pytest.mark.rule("PUSH-11")
async def test_a_restart_knows_what_was_told(shop: Shop) -> None:
    await came(shop, CAME)
    await shop.pass_time(100)
    written = statuses(shop)
    shop.process = shop.start()
    await shop.process.work()
    assert (shop.told("Delivered"), statuses(shop)) == ("True Pushed", written)
    await refresh(shop)
    written = statuses(shop)
    await came(shop, CAME)
    assert statuses(shop) == written


async def test_what_comes_of_it_in_the_step_in_which_the_report_ends_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reconcile sets the timer anew after that, which must not take the place of what was asked for meanwhile."""
    reporter = shop.process.reconciler._reporter  # noqa: SLF001 -- whose end is met
    report = reporter.report

    async def reported(*of: Any) -> Deadline | None:  # noqa: ANN401 -- whatever it takes
        again = await report(*of)
        shop.process.pushed(CAME)
        return again

    monkeypatch.setattr(reporter, "report", reported)
    await shop.process.reconcile(CREDENTIAL)
    monkeypatch.undo()
    await shop.process.work()
    assert shop.told("Delivered") == "True Pushed"


async def test_what_came_of_it_for_one_that_was_made_again_is_nobodys(shop: Shop) -> None:
    make_again(shop)
    shop.process.pushed(CAME)
    await shop.process.work()
    assert shop.told("Delivered") == "Unknown Pushing"
