"""What a decision carries: the facts that it was made on, with which it is carried out."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.unit.facts import (
    CLIENT,
    DUE,
    EXPIRED,
    FORCED,
    ISSUED,
    OTHER_CLIENT,
    OTHER_SCOPES,
    TEMPLATED,
    VERIFIES,
    Change,
    Json,
    Scene,
    TargetObject,
    absence_proven,
    attempted,
    brand_new,
    client_edited,
    client_known,
    client_relabelled,
    client_rotated,
    client_unread,
    deleting,
    graphql_down,
    label_removed,
    passed,
    pending,
    refreshable,
    renamed,
    restarted,
    served,
    spec,
    target_edited,
    target_gone,
    target_overtaken,
    unverifiable,
)
from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.acts import (
    AskWhoServes,
    Cause,
    Exchange,
    Need,
    Publish,
    Refresh,
    RemoveOldTargets,
    Verify,
)
from tuinly_operator.domain.credential import ClientSecretRef
from tuinly_operator.domain.decision import (
    counts_from,
    leftovers,
    look_alikes,
    present_end,
    to_push,
    written_by_another,
)
from tuinly_operator.domain.memory import Client
from tuinly_operator.domain.push import Content, Push

Changes = Sequence[Change]

NEW: Changes = [brand_new, client_known, absence_proven]


@pytest.mark.parametrize(
    ("changes", "why", "client", "version"),
    [
        ([DUE], Need.DUE, CLIENT, "client-uid/20"),
        (NEW, Need.FIRST, CLIENT, "client-uid/20"),
        ([client_rotated], Need.CLIENT_CHANGED, OTHER_CLIENT, "client-uid/21"),
        ([client_relabelled, FORCED], Need.FORCED, CLIENT, "client-uid/21"),
        ([OTHER_SCOPES, FORCED, EXPIRED], Need.EXPIRED, CLIENT, "client-uid/20"),  # the first reason counts
        ([OTHER_SCOPES, FORCED, DUE], Need.INPUTS_CHANGED, CLIENT, "client-uid/20"),
    ],
    ids=range(6),
)
def test_an_exchange_is_made_with_the_client_that_was_read_last(
    changes: Changes, why: Need, client: Client, version: str
) -> None:
    assert Scene(*changes).decide() == Exchange(why, client, version)


@pytest.mark.parametrize(
    ("changes", "version"),
    [
        ([], "client-uid/20"),
        ([client_unread], "client-uid/20"),  # as far as is known it is the one of the present token
        ([client_relabelled], "client-uid/21"),
    ],
    ids=["known", "unread", "relabelled"],
)
@pytest.mark.parametrize(("time", "why"), [(DUE, Need.DUE), (EXPIRED, Need.EXPIRED)], ids=["due", "expired"])
def test_a_refresh_is_made_by_the_present_refresh_token_for_the_version_of_the_present_client(
    changes: Changes, version: str, time: Change, why: Need
) -> None:
    scene = Scene(refreshable, *changes, time)
    held = scene.published
    assert held.refresh is not None
    assert scene.decide() == Refresh(why, held.refresh, held, version)


def verified(scene: Scene) -> None:
    scene.waiting(verified=True)


@pytest.mark.parametrize(
    ("changes", "cause", "untried"),
    [
        ([pending], Cause.NEW_TOKEN, False),
        ([VERIFIES, pending, verified], Cause.NEW_TOKEN, False),
        ([VERIFIES, passed(3500), pending, unverifiable], Cause.NEW_TOKEN, True),
        ([VERIFIES, *NEW, pending, graphql_down], Cause.NEW_TOKEN, True),
        ([target_edited], Cause.BROKEN, False),
        ([label_removed], Cause.BROKEN, False),
        ([unverifiable, target_edited], Cause.BROKEN, False),  # nothing is to be verified any more
        ([VERIFIES, unverifiable, target_edited], Cause.BROKEN, True),
        ([TEMPLATED], Cause.NEW_LAYOUT, False),
        ([TEMPLATED, target_edited], Cause.NEW_LAYOUT, False),
        ([renamed, absence_proven], Cause.NEW_LAYOUT, False),
        ([spec({"target": {"deletionPolicy": "Retain"}})], Cause.NEW_LAYOUT, False),
    ],
    ids=range(12),
)
def test_a_write_knows_its_cause_and_whether_the_token_was_tried(
    changes: Changes, cause: Cause, *, untried: bool
) -> None:
    decision = Scene(*changes).decide()
    assert isinstance(decision, Publish)
    assert (decision.cause, decision.untried) == (cause, untried)


@pytest.mark.parametrize("due", [None, Deadline.after(5, ISSUED)])
def test_a_write_of_a_new_token_knows_when_its_refresh_was_due(due: Deadline | None) -> None:
    scene = Scene(pending)
    scene.waiting(due=due)
    decision = scene.decide()
    assert isinstance(decision, Publish)
    assert decision.due == due
    assert decision.token == Sensitive("token-2")


def test_what_is_restored_is_the_token_that_was_written_last() -> None:
    scene = Scene(VERIFIES, passed(5), pending, unverifiable, target_edited)
    decision = scene.decide()
    assert isinstance(decision, Publish)
    assert (decision.held, decision.token, decision.due) == (scene.published, Sensitive("token-1"), None)


def test_a_verification_knows_what_came_of_the_last_one() -> None:
    scene = Scene(VERIFIES, pending)
    assert scene.memory.pending is not None
    held = scene.memory.pending.held
    assert held.token is not None
    assert scene.decide() == Verify(held, held.token, None)
    scene = Scene(VERIFIES, DUE, pending, unverifiable, passed(2530))
    assert scene.memory.pending is not None
    decision = scene.decide()
    assert isinstance(decision, Verify)
    assert decision.last is scene.memory.pending.unverified


def expires_before_ours(scene: Scene) -> None:
    """Another operator's token was issued before the present one."""
    target_overtaken(scene)
    scene.hold(state=replace(scene.published.state, issued_at=int(ISSUED.wall) + 2))


def obtained_that_second(scene: Scene) -> None:
    """The present token was issued in the second of another operator's."""
    target_overtaken(scene)
    scene.hold(state=replace(scene.published.state, issued_at=int(ISSUED.wall) + 1))


@pytest.mark.parametrize(
    ("changes", "another"),
    [
        ([], False),
        ([target_overtaken], True),
        ([obtained_that_second], True),
        ([target_overtaken, target_edited], False),  # it is not intact
        ([expires_before_ours], False),
        ([brand_new], False),
        ([target_overtaken, target_gone], False),
    ],
    ids=["ours", "another's", "of the same second", "edited", "earlier", "new", "gone"],
)
def test_a_token_of_another_operator_is_known_by_what_the_target_tells(changes: Changes, *, another: bool) -> None:
    scene = Scene(*changes)
    found = written_by_another(scene.facts())
    assert (found is not None) is another
    if found is not None:
        assert scene.target is not None
        told = scene.target.seen().target
        assert told is not None
        assert found.state == told.state
        assert found.issued == Moment(ISSUED.wall + 1, ISSUED.boot + 1)
        assert scene.decide() == AskWhoServes(found)


# --- Targets under other names ----------------------------------------------------------------------------------------


def others(scene: Scene) -> None:
    """Three Secrets say that they were this credential's target: one proves it, one goes already, one is a copy."""
    old, going, copy = (TargetObject(scene.facts().credential) for _ in range(3))
    going.meta["deletionTimestamp"] = "2026-11-24T07:00:00Z"
    copy.taken("data", "access_token")
    scene.old_targets = tuple(
        (NamespacedName("shop", name), target.seen())
        for name, target in (("old", old), ("going", going), ("copy", copy))
    )


def test_what_is_proven_and_not_going_is_deleted_and_what_is_not_proven_is_told_of_once() -> None:
    scene = Scene(others, served)
    old = scene.old_targets[:1]
    assert (leftovers(scene.facts()), look_alikes(scene.facts())) == (old, frozenset({"copy"}))
    assert scene.decide() == RemoveOldTargets(old, frozenset({"copy"}))
    scene.old_targets = scene.old_targets[1:]
    assert scene.decide() == RemoveOldTargets((), frozenset({"copy"}))
    scene.memory = scene.memory.told_of_look_alikes(frozenset({"copy"}))
    assert not isinstance(scene.decide(), RemoveOldTargets)
    scene.old_targets = scene.old_targets[:1]
    assert scene.decide() == RemoveOldTargets((), frozenset())  # it is gone, and would be told of again


# --- What Pods are told of --------------------------------------------------------------------------------------------


CONTENT = Content("31", ISSUED, ours=True)


def pushes(scene: Scene) -> None:
    """Push is asked for and installed, and new content was written a moment ago."""
    spec({"delivery": {"pods": "Push"}})(scene)
    scene.policy = replace(scene.policy, push=True)
    scene.memory = scene.memory.to_be_pushed(CONTENT)


@pytest.mark.parametrize(
    ("changes", "pushed"),
    [
        ([], True),
        ([passed(59)], True),
        ([passed(60)], False),
        ([label_removed], True),
        ([target_edited], False),  # the content is not that any more
        ([lambda scene: scene.remember(unpushed=None)], False),
        ([lambda scene: setattr(scene, "policy", replace(scene.policy, push=False))], False),
        ([spec({"delivery": {"pods": "None"}})], False),
        ([spec({"suspend": True})], False),
        ([spec({"scopes": 5})], False),
        ([deleting], False),
        ([lambda scene: scene.remember(namespace_ends=True)], False),
    ],
    ids=range(12),
)
def test_new_content_is_pushed_for_a_minute_while_it_is_there_and_that_is_asked_for(
    changes: Changes, *, pushed: bool
) -> None:
    scene = Scene(pushes, *changes)
    credential, push = scene.facts().credential, to_push(scene.facts())
    assert push == (Push(credential.key, credential.uid, credential.target, CONTENT) if pushed else None)


# --- What the limiter and the least interval go by --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ([], ISSUED.wall + 3600),
        ([brand_new], None),
        ([passed(10), pending], ISSUED.wall + 3610),  # the newest counts
        ([OTHER_SCOPES], ISSUED.wall + 3600),
        ([restarted], ISSUED.wall + 3600),
        ([restarted, OTHER_SCOPES], None),
    ],
    ids=range(6),
)
def test_the_limiter_goes_by_the_end_of_the_newest_token(changes: Changes, end: float | None) -> None:
    assert present_end(Scene(*changes).facts()) == end


def test_an_attempt_counts_from_now_or_from_the_end_of_the_interval_that_it_does_not_wait_for() -> None:
    scene = Scene()
    assert counts_from(scene.facts()) == scene.now
    attempted(scene)  # a second ago; the interval is five
    assert counts_from(scene.facts()) == Moment(scene.now.wall + 4, scene.now.boot + 4)
    scene.now = Moment(scene.now.wall + 4, scene.now.boot + 4)
    assert counts_from(scene.facts()) == scene.now


@pytest.mark.parametrize(
    "patch",
    [
        {"clientSecretRef": {"name": "other"}},
        {"clientSecretRef": {"clientIdKey": "other"}},
        {"clientSecretRef": {"clientSecretKey": "other"}},
    ],
    ids=["name", "id", "secret"],
)
def test_a_client_that_was_read_elsewhere_is_not_used(patch: Json) -> None:
    scene = Scene(spec(patch))
    assert scene.memory.client is not None
    assert scene.memory.client.ref == ClientSecretRef("storefront-client")
    assert not isinstance(scene.decide(), Exchange)
    assert not isinstance(Scene(client_edited, DUE).decide(), Exchange)
