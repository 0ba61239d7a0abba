"""The store: who is told of what, and that nothing old, echoed or gone is taken for news."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.merge import merged
from tests.unit.facts import ISSUED, OTHER_UID, UID, Json, TargetObject, credential, token_state
from tuinly_operator.base.clock import Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import Credential, Status
from tuinly_operator.domain.memory import IssuedToken
from tuinly_operator.domain.succession import Told
from tuinly_operator.domain.target import SecretMeta
from tuinly_operator.engine.store import LiveTarget, Record, Store

ME, NEIGHBOUR = NamespacedName("shop", "storefront"), NamespacedName("shop", "neighbour")
CLIENT, TARGET = NamespacedName("shop", "storefront-client"), NamespacedName("shop", "storefront-token")


class Watched(Store):
    """A store whose calls are kept."""

    def __init__(self) -> None:
        self.changed: list[NamespacedName] = []
        self.gone: list[NamespacedName] = []
        self.doubts: list[NamespacedName] = []
        super().__init__(self.changed.append, self.gone.append, self.doubts.append)

    def news(self) -> list[NamespacedName]:
        """What has been told since the last time."""
        told = self.changed.copy()
        self.changed.clear()
        return told


@pytest.fixture
def store() -> Watched:
    """A store that has seen the credential."""
    store = Watched()
    store.credential_seen(at("10"))
    store.news()
    return store


def at(version: str, patch: Json | None = None) -> Credential:
    return credential(merged(patch or {}, {"metadata": {"resourceVersion": version}}))


def neighbour(patch: Json | None = None) -> Credential:
    """A credential in the same namespace, with a client Secret and target of its own."""
    own: Json = {
        "metadata": {"name": "neighbour", "uid": OTHER_UID},
        "spec": {"clientSecretRef": {"name": "neighbour-client"}},
    }
    return credential(merged(own, patch or {}))


def mine(store: Store) -> Record:
    record = store.get(ME)
    assert record is not None
    return record


def listed(store: Store, key: NamespacedName, seen: SecretMeta) -> None:
    store.list_begins(None)
    store.secret_listed(None, key, seen)
    store.secrets_listed(None, [key], "")


def read(store: Store, key: NamespacedName, seen: SecretMeta) -> None:
    store.secret_read(key, seen, store.since(key), ME)


END = ("u", "99")  # the uid and the version that the watch tells with the end of a Secret


def later(seconds: float) -> Moment:
    return Moment(ISSUED.wall + seconds, ISSUED.boot + seconds)


def meta(version: str, uid: str = "u") -> SecretMeta:
    return SecretMeta(uid, version)


# --- Credentials ------------------------------------------------------------------------------------------------------


def test_a_new_credential_is_news() -> None:
    store = Watched()
    assert store.get(ME) is None
    store.credential_seen(at("10"))
    assert store.news() == [ME]
    record = store.get(ME)
    assert record is not None
    assert record.credential == at("10")
    assert (len(store), list(store)) == (1, [record])


def test_what_is_remembered_stays_through_changes(store: Watched) -> None:
    record = store.get(ME)
    store.credential_seen(at("11", {"spec": {"suspend": True}}))
    assert store.get(ME) is record
    assert record is not None
    assert record.credential.spec.suspend


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"suspend": True}},
        {"metadata": {"annotations": {"tuinly.com/refresh-requested": "1"}}},
        {"metadata": {"deletionTimestamp": "2026-11-24T07:00:00Z"}},
        {"status": {"secretName": "somebody else wrote this"}},
    ],
    ids=["spec", "annotation", "deletion", "foreign status"],
)
def test_a_change_is_news_once(store: Watched, patch: Json) -> None:
    for _ in range(2):
        store.credential_seen(at("11", patch))
    assert store.news() == [ME]


@pytest.mark.parametrize("version", ["9", "10"])
def test_a_stale_or_repeated_event_is_no_news(store: Watched, version: str) -> None:
    """Versions are numbers: "9" is older than "10"."""
    store.credential_seen(at("10", {"spec": {"scopes": ["new"]}}))
    store.news()
    store.credential_seen(at(version, {} if version == "9" else {"spec": {"scopes": ["new"]}}))
    assert store.news() == []
    record = store.get(ME)
    assert record is not None
    assert record.credential.spec.scopes == {"new"}


def test_a_change_of_what_does_not_concern_the_operator_is_no_news(store: Watched) -> None:
    store.credential_seen(at("11", {"metadata": {"labels": {"team": "shop"}}}))
    assert store.news() == []


def test_the_echo_of_our_own_status_is_no_news(store: Watched) -> None:
    status = Status(secret_name="storefront-token", failed_attempts=0)
    store.status_written(mine(store), mine(store).credential, status, "11", boot=77.0)
    record = store.get(ME)
    assert record is not None
    assert (record.credential.status, record.credential.version, record.status_written) == (status, "11", 77.0)
    store.credential_seen(at("11", {"status": {"secretName": "storefront-token", "failedAttempts": 0}}))
    assert store.news() == []


@pytest.mark.rule("DRIFT-2")
def test_the_echo_of_our_own_status_may_come_before_its_answer(store: Watched) -> None:
    record, status = mine(store), Status(secret_name="t", failed_attempts=0)
    before, record.writing = record.credential, status
    store.credential_seen(at("11", {"status": {"secretName": "t", "failedAttempts": 0}}))
    assert store.news() == []
    store.status_written(record, before, status, "11", boot=0)
    assert (mine(store).credential.status, mine(store).credential.version) == (status, "11")


def test_an_event_with_the_status_before_ours_is_no_news(store: Watched) -> None:
    mine(store).writing = Status(secret_name="t")
    store.credential_seen(at("11", {"metadata": {"labels": {"team": "shop"}}}))
    assert store.news() == []


@pytest.mark.parametrize(
    "patch",
    [{"status": {"secretName": "other"}}, {"spec": {"suspend": True}, "status": {"secretName": "t"}}],
    ids=["another status", "a change that came with it"],
)
def test_what_is_more_than_that_echo_is_news(store: Watched, patch: Json) -> None:
    mine(store).writing = Status(secret_name="t")
    store.credential_seen(at("11", patch))
    assert store.news() == [ME]


def test_a_change_between_our_status_and_its_echo_is_news(store: Watched) -> None:
    store.status_written(mine(store), mine(store).credential, Status(secret_name="t"), "11", boot=0)
    store.credential_seen(at("12", {"spec": {"suspend": True}, "status": {"secretName": "t"}}))
    assert store.news() == [ME]


def test_a_status_answer_that_comes_late_does_not_undo_what_was_seen_since(store: Watched) -> None:
    before = mine(store).credential
    store.credential_seen(at("12", {"status": {"secretName": "newer"}}))
    store.status_written(mine(store), before, Status(secret_name="older"), "11", boot=0)
    record = store.get(ME)
    assert record is not None
    assert (record.credential.status.secret_name, record.credential.version) == ("newer", "12")


def test_a_status_answer_that_is_later_than_what_was_seen_since_counts(store: Watched) -> None:
    before = mine(store).credential
    store.credential_seen(at("11", {"spec": {"suspend": True}}))
    store.status_written(mine(store), before, Status(secret_name="t"), "12", boot=0)
    assert (mine(store).credential.status.secret_name, mine(store).credential.version) == ("t", "12")
    assert mine(store).credential.spec.suspend


def test_a_status_answer_counts_whatever_its_version_where_nothing_came_meanwhile(store: Watched) -> None:
    """Versions go back where etcd was restored; to go by the old ones would write the status again and again."""
    store.status_written(mine(store), mine(store).credential, Status(secret_name="t"), "5", boot=0)
    assert (mine(store).credential.status.secret_name, mine(store).credential.version) == ("t", "5")


def test_a_status_of_a_predecessor_is_not_its_successors(store: Watched) -> None:
    old = mine(store)
    store.credential_seen(at("11", {"metadata": {"uid": OTHER_UID}}))
    store.status_written(old, old.credential, Status(secret_name="t"), "12", boot=0)
    assert mine(store).credential.status == Status()


@pytest.mark.rule("ABS-11")
def test_another_uid_under_the_same_name_is_another_credential(store: Watched) -> None:
    """Nothing that was remembered of the old one may count for the new one."""
    old = store.get(ME)
    assert old is not None
    old.memory = old.memory.met_target(None)
    store.credential_seen(at("11", {"metadata": {"uid": OTHER_UID}, "spec": {"clientSecretRef": {"name": "other"}}}))
    assert store.news() == [ME]
    new = store.get(ME)
    assert new is not None
    assert new is not old
    assert not new.memory.met
    store.secret_seen(CLIENT, meta("1"))
    assert store.news() == []
    store.secret_seen(NamespacedName("shop", "other"), meta("1"))
    assert store.news() == [ME]


def test_a_new_leader_remembers_nothing_and_looks_at_all(store: Watched) -> None:
    """Whoever still works with an old record finds that it is not the credential's any more."""
    store.credential_seen(neighbour())
    store.secret_seen(TARGET, meta("7"))
    store.news()
    old = store.get(ME)
    assert old is not None
    old.memory = old.memory.met_target(None)
    store.start_afresh()
    assert (store.news(), store.gone) == ([ME, NEIGHBOUR], [ME])
    new = store.get(ME)
    assert new is not old
    assert new == Record(old.credential, created=False)
    assert store.secret(TARGET) == meta("7")


def test_nothing_of_a_credential_is_given_up_that_nobody_has_looked_at(store: Watched) -> None:
    """Such as 100,000 of them when a standby begins to lead. It did not see for itself that they were created."""
    store.credential_seen(at("10", {"metadata": {"name": "created", "uid": "new"}}), created=True)
    store.news()
    created = NamespacedName("shop", "created")
    before = store.get(created)
    assert before is not None
    assert before.created
    store.start_afresh()
    assert (store.news(), store.gone) == ([ME, created], [])
    assert store.get(created) is before
    assert not before.created


def test_who_leads_again_looks_at_all_and_forgets_nothing(store: Watched) -> None:
    store.credential_seen(neighbour())
    store.news()
    old = store.get(ME)
    store.look_at_all()
    assert store.news() == [ME, NEIGHBOUR]
    assert store.get(ME) is old


def test_a_credential_that_went_is_dropped_and_told(store: Watched) -> None:
    store.credential_gone(ME, UID)
    store.credential_gone(ME, UID)
    assert store.gone == [ME]
    assert store.get(ME) is None
    store.secret_seen(CLIENT, meta("1"))
    assert store.news() == []


def test_what_the_watch_says_of_an_end_counts_once_and_needs_no_live_read(store: Watched) -> None:
    for _ in range(2):
        store.credential_ended(at("11"))
    assert (store.gone, store.doubts) == ([ME], [])
    assert store.known(ME) == Told(UID, "11", there=False)


def test_a_live_read_may_find_that_a_name_has_nobody_and_had_nobody(store: Watched) -> None:
    unknown = NamespacedName("shop", "unknown")
    store.credential_read(unknown, None, "12", store.known(unknown))
    assert store.known(unknown) == Told("", "12", there=False)


def test_the_end_of_an_earlier_credential_does_not_end_its_successor(store: Watched) -> None:
    store.credential_gone(ME, OTHER_UID)
    assert (store.gone, len(store)) == ([], 1)
    store.credential_gone(ME, UID)
    assert store.gone == [ME]


def test_records_may_come_and_go_while_all_are_looked_through(store: Watched) -> None:
    store.credential_seen(neighbour())
    for record in store:
        store.credential_gone(record.credential.key, record.credential.uid)
    assert len(store) == 0


def test_what_is_known_of_a_name_is_who_has_it_or_had_it_last(store: Watched) -> None:
    unknown = NamespacedName("shop", "unknown")
    assert (store.known(unknown), store.has_met(unknown, UID)) == (None, False)
    assert (store.known(ME), store.has_met(ME, OTHER_UID)) == (Told(UID, "10", there=True), True)
    store.credential_gone(ME, UID)
    assert store.known(ME) == Told(UID, "", there=False)
    assert [store.has_met(ME, uid) for uid in (UID, OTHER_UID)] == [True, False]


def test_a_live_read_that_finds_nothing_ends_what_was_known_as_of_its_version(store: Watched) -> None:
    store.credential_read(ME, None, "12", store.known(ME))
    assert (store.known(ME), store.gone) == (Told(UID, "12", there=False), [ME])


def test_a_live_read_is_made_again_if_there_was_news_meanwhile(store: Watched) -> None:
    since = store.known(ME)
    store.credential_seen(at("12"))
    assert not store.credential_read(ME, None, "11", since)
    assert (store.doubts, len(store)) == ([ME], 1)


def test_a_live_read_that_is_later_than_the_news_meanwhile_counts(store: Watched) -> None:
    """Such as the echo of our own status."""
    since = store.known(ME)
    store.credential_seen(at("11"))
    assert store.credential_read(ME, at("12", {"spec": {"suspend": True}}), "12", since)
    assert store.doubts == []
    assert mine(store).credential.spec.suspend


# --- What the API server itself has shown since another leader --------------------------------------------------------


def confirmed(store: Watched) -> list[NamespacedName]:
    return [record.credential.key for record in store if store.is_confirmed(record.credential.key)]


@pytest.mark.rule("REPL-14")
def test_after_a_takeover_each_credential_is_confirmed_by_what_the_api_server_shows(store: Watched) -> None:
    store.credential_seen(neighbour())
    assert confirmed(store) == [ME, NEIGHBOUR]
    store.start_afresh()
    assert confirmed(store) == []
    store.credential_shown(ME, mine(store).credential.revision, "10")
    assert (confirmed(store), store.doubts) == ([ME], [])


@pytest.mark.rule("REPL-14")
@pytest.mark.parametrize(
    "changes", [{"uid": OTHER_UID}, {"generation": 7}, {"deleting": True}, {"refresh_requested": "now"}], ids=str
)
def test_one_that_the_api_server_shows_otherwise_is_read_live(store: Watched, changes: dict[str, Any]) -> None:
    store.start_afresh()
    store.credential_shown(ME, mine(store).credential.revision._replace(**changes), "12")
    assert (confirmed(store), store.doubts) == ([], [ME])
    store.credential_read(ME, at("12"), "12", store.known(ME))
    assert confirmed(store) == [ME]


@pytest.mark.rule("REPL-14")
def test_one_whose_version_alone_is_another_has_another_status(store: Watched) -> None:
    store.start_afresh()
    assert not store.knows_status(ME)
    store.credential_shown(ME, mine(store).credential.revision, "11")
    assert (confirmed(store), store.knows_status(ME), store.doubts) == ([ME], False, [])
    store.credential_read(ME, at("11"), "11", store.known(ME))
    assert store.knows_status(ME)


@pytest.mark.rule("REPL-14")
def test_one_that_only_the_api_server_shows_is_read_live(store: Watched) -> None:
    store.credential_shown(NEIGHBOUR, neighbour().revision, "10")
    assert store.doubts == [NEIGHBOUR]


@pytest.mark.rule("REPL-14")
def test_one_that_a_complete_list_lacks_is_read_live(store: Watched) -> None:
    store.credential_seen(neighbour())
    store.start_afresh()
    store.credentials_shown({NEIGHBOUR}, ["elsewhere"])
    assert store.doubts == []
    store.credentials_shown({NEIGHBOUR}, [None])
    assert store.doubts == [ME]


@pytest.mark.rule("REPL-14")
def test_what_the_watch_brings_before_all_were_listed_is_not_confirmed(store: Watched) -> None:
    """A connection that was silent for a while tells first what was."""
    store.start_afresh()
    store.credential_seen(neighbour())
    store.credential_seen(at("11", {"metadata": {"uid": OTHER_UID}}))
    assert confirmed(store) == []
    store.credentials_shown({ME, NEIGHBOUR}, [None])
    store.credential_seen(neighbour({"metadata": {"name": "new", "uid": "new"}}))
    assert confirmed(store) == [NamespacedName("shop", "new")]


@pytest.mark.rule("REPL-14")
def test_a_change_that_an_answer_shows_while_this_replica_leads_makes_the_name_unconfirmed(store: Watched) -> None:
    store.credential_shown(ME, mine(store).credential.revision._replace(generation=7), "12")
    assert (confirmed(store), store.doubts) == ([], [ME])


@pytest.mark.rule("REPL-14")
def test_what_the_watch_brings_before_the_live_read_that_is_due_is_not_confirmed(store: Watched) -> None:
    """It may be the first of many news of that name."""
    store.start_afresh()
    store.credential_shown(ME, at("14", {"metadata": {"uid": OTHER_UID, "generation": 2}}).revision, "14")
    store.credentials_shown({ME}, [None])
    store.credential_ended(at("11"))
    store.credential_seen(at("12", {"metadata": {"uid": OTHER_UID}}), created=True)
    assert (confirmed(store), store.doubts) == ([], [ME])


def test_contradictory_news_are_left_to_a_live_read(store: Watched) -> None:
    """Of another uid that is older, or the end of the known one as of an older version."""
    store.credential_seen(at("9", {"metadata": {"uid": OTHER_UID}}))
    assert store.doubts == [ME]
    store.credential_ended(at("9"))
    assert (store.doubts, len(store)) == ([ME, ME], 1)


def test_a_relist_counts_whatever_its_version(store: Watched) -> None:
    store.credential_seen(at("9", {"spec": {"suspend": True}}))
    assert not mine(store).credential.spec.suspend
    store.credential_seen(at("9", {"spec": {"suspend": True}}), listed=True)
    assert mine(store).credential.spec.suspend


# --- Secrets and who cares --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [CLIENT, TARGET])
def test_a_secret_that_is_read_or_written_is_news(store: Watched, secret: NamespacedName) -> None:
    store.secret_seen(secret, meta("1"))
    assert store.news() == [ME]
    assert store.secret(secret) == meta("1")
    store.secret_seen(secret, meta("2"))
    assert store.news() == [ME]
    store.secret_gone(secret, *END)
    assert store.news() == [ME]
    assert store.secret(secret) is None


@pytest.mark.parametrize(
    "secret", [NamespacedName("shop", "unrelated"), NamespacedName("elsewhere", "storefront-client")], ids=str
)
def test_any_other_secret_is_no_news(store: Watched, secret: NamespacedName) -> None:
    store.secret_seen(secret, meta("1"))
    store.secret_gone(secret, *END)
    assert store.news() == []


def test_a_secret_may_concern_many(store: Watched) -> None:
    store.credential_seen(neighbour({"spec": {"clientSecretRef": {"name": "storefront-client"}}}))
    store.news()
    store.secret_seen(CLIENT, meta("1"))
    assert sorted(store.news()) == [NEIGHBOUR, ME]
    store.credential_gone(NEIGHBOUR, OTHER_UID)
    store.secret_seen(CLIENT, meta("2"))
    assert store.news() == [ME]


@pytest.mark.parametrize("version", ["9", "10"])
def test_a_stale_or_repeated_secret_is_no_news(store: Watched, version: str) -> None:
    """The answer to a write comes ahead of the watch, which still has older ones to tell."""
    store.secret_seen(TARGET, meta("10"))
    store.news()
    store.secret_seen(TARGET, meta(version))
    assert store.news() == []
    assert store.secret(TARGET) == meta("10")


def test_of_a_client_secret_others_are_told_apart_unless_it_is_a_target_too() -> None:
    changed, client_changed = list[NamespacedName](), list[NamespacedName]()
    store = Store(changed.append, lambda _: None, client_secret_changed=client_changed.append)
    store.credential_seen(at("10"))
    store.credential_seen(neighbour({"spec": {"clientSecretRef": {"name": TARGET.name}}}))
    changed.clear()
    store.secret_seen(CLIENT, meta("1"))
    assert (changed, client_changed) == ([], [ME])
    store.secret_seen(TARGET, meta("1"))
    assert (changed, client_changed) == ([ME], [ME, NEIGHBOUR])


def test_who_saw_or_wrote_a_secret_is_not_told_of_it_and_all_others_are(store: Watched) -> None:
    store.credential_seen(neighbour({"spec": {"clientSecretRef": {"name": "storefront-client"}}}))
    store.news()
    store.secret_read(CLIENT, meta("1"), store.since(CLIENT), by=ME)
    assert store.news() == [NEIGHBOUR]
    assert store.secret(CLIENT) == meta("1")
    store.secret_read(CLIENT, None, store.since(CLIENT), by=NEIGHBOUR)
    assert store.news() == [ME]


def test_what_a_live_read_gave_is_kept_for_one_reconcile_and_a_proof_of_absence_for_a_second() -> None:
    live = LiveTarget()
    assert (live.looked_for(TARGET), live.of(TARGET)) == (False, None)
    live.take(TARGET, None)
    assert (live.looked_for(TARGET), live.of(TARGET)) == (True, None)
    live.take(TARGET, meta("1"))
    assert (live.looked_for(TARGET), live.of(TARGET)) == (True, meta("1"))
    assert (live.looked_for(CLIENT), live.of(CLIENT)) == (False, None)
    live.grow_old(later(60.0))
    assert live.looked_for(TARGET)
    live.confirm(None, ISSUED)
    live.grow_old(later(1.1))
    assert (live.looked_for(TARGET), live.of(TARGET)) == (False, None)


@pytest.mark.parametrize("looked", [None, meta("1")], ids=["not looked for", "found"])
@pytest.mark.parametrize("stored", [None, meta("2")], ids=["not in the store", "in the store"])
def test_the_store_is_fresher_than_what_was_read_live_and_that_counts_where_it_has_nothing(
    stored: SecretMeta | None, looked: SecretMeta | None
) -> None:
    live = LiveTarget()
    if looked is not None:
        live.take(TARGET, looked)
    assert live.freshest(TARGET, stored) == (stored or looked)
    assert live.stored is None  # that is for the caller to note


@pytest.mark.rule("WRITE-8")
@pytest.mark.parametrize("target", [None, TargetObject().seen()], ids=["absent", "there"])
def test_that_a_credential_is_served_counts_for_a_second_and_for_the_target_with_that_owner(
    target: SecretMeta | None,
) -> None:
    live = LiveTarget()
    assert not live.is_served(target)
    live.confirm(target, ISSUED)
    assert live.is_served(target)
    assert not live.is_served(meta("2"))
    live.grow_old(later(1.0))
    assert live.is_served(target)
    live.grow_old(later(1.1))
    assert not live.is_served(target)


def test_who_touches_a_target_does_not_have_it_asked_again_who_serves_it_but_who_takes_its_owner_off_does() -> None:
    live, target = LiveTarget(), TargetObject()
    live.confirm(target.seen(), ISSUED)
    target.touched()
    assert live.is_served(target.seen())
    del target.meta["ownerReferences"]
    assert not live.is_served(target.seen())


def test_neither_does_one_from_before_a_list_that_lacks_it(store: Watched) -> None:
    """What the watch lost: it came and went, and no end was told."""
    before = store.since(TARGET)
    store.list_begins(None)
    store.secrets_listed(None, [], "")
    store.secret_read(TARGET, meta("1"), before, ME)
    assert store.secret(TARGET) is None
    read(store, TARGET, meta("2"))
    assert store.secret(TARGET) == meta("2")


@pytest.mark.rule("ABS-7")
def test_an_answer_from_before_the_end_of_a_secret_brings_nothing_back(store: Watched) -> None:
    """Though it was not known before that either: it came and went while the request was under way."""
    before = store.since(CLIENT)
    store.secret_seen(CLIENT, meta("1"))
    store.secret_gone(CLIENT, *END)
    store.secret_read(CLIENT, meta("1"), before, ME)
    assert store.secret(CLIENT) is None


@pytest.mark.rule("ABS-7")
def test_a_secret_that_has_gone_is_believed_to_be_back_by_a_read_that_began_after_that(store: Watched) -> None:
    """As from a backup of etcd, with its uid, and no watch tells of it."""
    store.secret_seen(CLIENT, meta("1"))
    store.secret_gone(CLIENT, *END)
    read(store, CLIENT, meta("1"))
    assert store.secret(CLIENT) == meta("1")


@pytest.mark.rule("ABS-7")
def test_an_end_that_the_watch_tells_late_is_not_that_of_a_later_secret(store: Watched) -> None:
    store.secret_seen(CLIENT, meta("8", "one"))
    read(store, CLIENT, meta("10", "another"))
    store.secret_gone(CLIENT, "one", "9")
    assert store.secret(CLIENT) == meta("10", "another")
    store.secret_gone(CLIENT, "another", "11")
    assert store.secret(CLIENT) is None


def test_an_end_counts_for_one_of_which_it_is_not_known_that_it_came_later(store: Watched) -> None:
    """What it was the end of was never seen."""
    store.secret_seen(CLIENT, meta("8", "one"))
    store.secret_gone(CLIENT, "another", "11")
    assert store.secret(CLIENT) is None


def test_a_renamed_target_lets_nothing_be_forgotten_of_the_client_secret(store: Watched) -> None:
    store.secret_seen(CLIENT, meta("8"))
    store.secret_gone(CLIENT, *END)
    gone = store.since(CLIENT)
    store.credential_seen(at("11", {"spec": {"target": {"name": "other"}}}))
    assert gone is not None
    assert store.since(CLIENT) is gone


def test_a_secret_made_again_is_news(store: Watched) -> None:
    store.secret_seen(TARGET, meta("10", "one"))
    store.news()
    store.secret_seen(TARGET, meta("11", "another"))
    assert store.news() == [ME]
    assert store.secret(TARGET) == meta("11", "another")


def test_the_end_of_an_unknown_secret_is_no_news(store: Watched) -> None:
    store.secret_gone(TARGET, *END)
    assert store.news() == []


@pytest.mark.parametrize(
    ("patch", "secrets"),
    [
        ({"clientSecretRef": {"name": "chosen"}}, {NamespacedName("shop", "chosen"), TARGET}),
        ({"target": {"name": "chosen"}}, {NamespacedName("shop", "chosen"), CLIENT}),
    ],
    ids=["client Secret", "target"],
)
def test_interest_follows_a_changed_spec(store: Watched, patch: Json, secrets: set[NamespacedName]) -> None:
    store.credential_seen(at("11", {"spec": patch}))
    store.news()
    for secret in (CLIENT, TARGET, NamespacedName("shop", "chosen")):
        store.secret_seen(secret, meta("1"))
        assert store.news() == ([ME] if secret in secrets else []), secret


def test_those_who_share_a_secret_are_told_in_the_same_order_in_every_process(store: Watched) -> None:
    """A set's order would differ with what Python hashes texts to, and a simulated history could not be repeated."""
    names = [f"shop-{number}" for number in range(20)]
    for name in reversed(names):
        shared: Json = {"metadata": {"name": name, "uid": name}, "spec": {"clientSecretRef": {"name": CLIENT.name}}}
        store.credential_seen(credential(shared))
    store.news()
    store.secret_seen(CLIENT, meta("5"))
    assert store.news() == sorted([ME, *(NamespacedName("shop", name) for name in names)])


def test_interest_that_others_share_stays_when_one_turns_away(store: Watched) -> None:
    shared: Json = {"spec": {"clientSecretRef": {"name": "storefront-client"}}}
    store.credential_seen(neighbour(shared))
    store.credential_seen(at("11", {"spec": {"clientSecretRef": {"name": "chosen"}}}))
    store.news()
    store.secret_seen(CLIENT, meta("1"))
    assert store.news() == [NEIGHBOUR]


@pytest.mark.parametrize(("told", "created"), [({}, False), ({"listed": True}, False), ({"created": True}, True)])
def test_created_is_what_the_watch_told_of_the_creation_of(told: dict[str, bool], *, created: bool) -> None:
    store = Watched()
    store.credential_seen(at("10"), **told)
    record = store.get(ME)
    assert record is not None
    assert record.created is created


def test_who_is_found_by_a_live_read_was_not_seen_to_be_created() -> None:
    """It may have been there for long, and have a target."""
    store = Watched()
    credential = at("10")
    store.credential_read(ME, credential, "12", store.known(ME))
    record = store.get(ME)
    assert record is not None
    assert record.created is False


def test_nobody_has_shown_that_a_credential_is_served_before_anybody_looked() -> None:
    assert not LiveTarget().is_served(None)


# --- When a token ends, by which the queue orders ---------------------------------------------------------------------


def test_without_a_token_none_ends(store: Watched) -> None:
    assert store.token_end(credential().key) is store.token_end(NamespacedName("shop", "unknown")) is None


@pytest.mark.rule("WHEN-10")
def test_before_the_first_reconcile_the_target_tells_when_the_token_ends(store: Watched) -> None:
    """So that the first round after a restart or a promotion begins with the least life."""
    store.secret_seen(TARGET, TargetObject().seen())
    assert store.token_end(credential().key) == token_state().expires_at


def test_a_target_that_is_none_of_ours_tells_of_no_token(store: Watched) -> None:
    store.secret_seen(TARGET, meta("1"))
    assert store.token_end(ME) is None


def test_then_memory_tells(store: Watched) -> None:
    store.secret_seen(TARGET, TargetObject().seen())
    record = store.get(credential().key)
    assert record is not None
    record.memory = record.memory.met_target(None)
    assert store.token_end(credential().key) is None  # what is there was not believed
    record.memory = record.memory.met_target(IssuedToken(token_state(lifetime=600), ISSUED))
    assert store.token_end(credential().key) == token_state(lifetime=600).expires_at


@pytest.mark.rule("WHEN-10")
def test_a_target_that_was_deleted_holds_no_token_whatever_is_remembered(store: Watched) -> None:
    """Nobody can use what is remembered until it is written again: not as late as a token that ends in an hour."""
    store.secret_seen(TARGET, TargetObject().seen())
    record = store.get(credential().key)
    assert record is not None
    record.memory = record.memory.met_target(IssuedToken(token_state(lifetime=600), ISSUED))
    store.secret_gone(TARGET, *END)
    assert store.token_end(credential().key) is None


# --- Targets, found by label ------------------------------------------------------------------------------------------


def test_targets_are_found_whatever_their_names(store: Watched) -> None:
    """So a rename that an earlier process began is finished, without believing the status."""
    found = {NamespacedName("shop", name): TargetObject().seen() for name in ("one", "two")}
    for key, seen in found.items():
        store.secret_seen(key, seen)
    store.secret_seen(NamespacedName("elsewhere", "three"), TargetObject().seen())
    assert store.targets_of(credential()) == found


def test_they_are_found_in_the_same_order_in_every_process(store: Watched) -> None:
    names = [NamespacedName("shop", f"target-{number:02}") for number in range(20)]
    for key in reversed(names):
        store.secret_seen(key, TargetObject().seen())
    assert list(store.targets_of(credential())) == names


def test_only_what_was_written_for_this_very_credential_is_its_target(store: Watched) -> None:
    predecessor = credential({"metadata": {"uid": OTHER_UID}})
    store.secret_seen(TARGET, TargetObject(predecessor).seen())
    store.secret_seen(NamespacedName("shop", "neighbour-token"), TargetObject(neighbour()).seen())
    assert store.targets_of(credential()) == {}


def test_a_labelled_secret_is_news_even_under_a_name_that_nobody_reads(store: Watched) -> None:
    store.secret_seen(NamespacedName("shop", "old name"), TargetObject().seen())
    assert store.news() == [ME]


def test_a_target_that_loses_its_label_is_news_and_found_no_more(store: Watched) -> None:
    old = NamespacedName("shop", "old name")
    target = TargetObject()
    store.secret_seen(old, target.seen())
    store.news()
    target.touched()
    target.meta["labels"] = {}
    store.secret_seen(old, target.seen())
    assert store.news() == [ME]
    assert store.targets_of(credential()) == {}


def test_a_target_that_went_is_found_no_more(store: Watched) -> None:
    store.secret_seen(TARGET, TargetObject().seen())
    store.secret_gone(TARGET, *END)
    assert store.targets_of(credential()) == {}


def test_a_target_of_an_unknown_credential_is_no_news() -> None:
    store = Watched()
    store.secret_seen(TARGET, TargetObject().seen())
    assert store.news() == []


# --- A relist ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ABS-10")
def test_what_a_relist_lacks_is_dropped_and_told(store: Watched) -> None:
    store.secret_seen(CLIENT, meta("1"))
    store.secret_seen(TARGET, meta("2"))
    store.news()
    store.secrets_listed(None, iter([CLIENT]), "")
    assert store.news() == [ME]
    assert store.secret(TARGET) is None
    assert store.secret(CLIENT) == meta("1")


@pytest.mark.rule("ABS-7")
def test_what_a_list_or_a_live_read_shows_counts_whatever_its_version(store: Watched) -> None:
    """Versions go back where etcd was restored from a backup; of what is watched only the later counts."""
    store.secret_seen(CLIENT, meta("1000"))
    store.secret_seen(CLIENT, meta("5"))
    assert store.secret(CLIENT) == meta("1000")
    for told in (listed, read):
        store.secret_seen(CLIENT, meta("1000"))
        told(store, CLIENT, meta("5"))
        store.secret_seen(CLIENT, meta("6"))
        assert store.secret(CLIENT) == meta("6")


@pytest.mark.rule("ABS-7")
@pytest.mark.parametrize("scope", [None, "shop"])
def test_what_came_while_a_list_was_made_is_later_than_the_list(store: Watched, scope: str | None) -> None:
    """Such as our own writes, which are answered ahead of a long list's end."""
    added = NamespacedName("shop", "added")
    store.secret_seen(CLIENT, meta("7"))
    store.secret_seen(TARGET, meta("8"))
    store.list_begins(scope)
    store.secret_seen(CLIENT, meta("12"))
    store.secret_gone(TARGET, *END)
    read(store, added, meta("13"))
    store.secret_listed(scope, CLIENT, meta("7"))
    store.secrets_listed(scope, [CLIENT], "")
    assert [store.secret(key) for key in (CLIENT, TARGET, added)] == [meta("12"), None, meta("13")]
    store.list_begins(scope)
    store.secret_listed(scope, CLIENT, meta("3"))
    store.secrets_listed(scope, [CLIENT], "")
    assert [store.secret(key) for key in (CLIENT, TARGET, added)] == [meta("3"), None, None]


def test_of_what_changed_while_a_list_was_made_it_counts_if_it_is_later(store: Watched) -> None:
    store.secret_seen(CLIENT, meta("7"))
    store.list_begins(None)
    store.secret_seen(CLIENT, meta("8"))
    store.secret_listed(None, CLIENT, meta("9"))
    assert store.secret(CLIENT) == meta("9")


def test_a_list_that_begins_again_may_only_be_old_of_what_changes_from_then_on(store: Watched) -> None:
    store.list_begins(None)
    store.secret_seen(CLIENT, meta("8"))
    store.list_begins(None)
    store.secret_listed(None, CLIENT, meta("5"))
    assert store.secret(CLIENT) == meta("5")


def test_a_later_page_of_a_list_counts_as_the_first_one_does(store: Watched) -> None:
    """What the list itself has shown is no change that came meanwhile."""
    store.list_begins(None)
    store.secret_listed(None, CLIENT, meta("8"))
    store.secret_listed(None, CLIENT, meta("5"))
    assert store.secret(CLIENT) == meta("5")
    store.secrets_listed(None, [], "")
    assert store.secret(CLIENT) is None


def test_a_secret_that_went_while_it_was_read_stays_gone(store: Watched) -> None:
    store.secret_seen(CLIENT, meta("7"))
    since = store.since(CLIENT)
    store.secret_gone(CLIENT, *END)
    store.secret_read(CLIENT, meta("9"), since, ME)
    assert store.secret(CLIENT) is None


@pytest.mark.rule("ABS-7")
def test_what_came_while_a_live_read_was_made_may_be_later_than_the_read(store: Watched) -> None:
    store.secret_seen(CLIENT, meta("7"))
    since = store.since(CLIENT)
    store.secret_seen(CLIENT, meta("9"))
    store.secret_read(CLIENT, meta("8"), since, ME)
    assert store.secret(CLIENT) == meta("9")
    store.secret_read(CLIENT, None, since, ME)
    assert store.secret(CLIENT) == meta("9")
    store.secret_read(CLIENT, meta("10"), since, ME)
    assert store.secret(CLIENT) == meta("10")


def test_a_relist_of_one_namespace_says_nothing_of_the_others(store: Watched) -> None:
    elsewhere = NamespacedName("elsewhere", "s")
    store.secret_seen(elsewhere, meta("1"))
    store.secret_seen(TARGET, meta("1"))
    store.secrets_listed("shop", [], "")
    assert store.secret(elsewhere) == meta("1")
    assert store.secret(TARGET) is None


# --- Nothing is left behind -------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(NAMES, NAMES, NAMES, st.booleans()), max_size=20))
def test_after_any_changes_exactly_those_are_told_who_name_the_secret(
    changes: list[tuple[str, str, str, bool]],
) -> None:
    store, present = Watched(), dict[NamespacedName, Credential]()
    for version, (name, client, target, gone) in enumerate(changes, 1):
        key = NamespacedName("shop", name)
        if gone:
            if key in present:
                store.credential_gone(key, present.pop(key).uid)
                store.census_taken()
                store.census_taken()
            continue
        seen = credential(
            {
                "metadata": {"name": name, "uid": name, "resourceVersion": str(version)},
                "spec": {"clientSecretRef": {"name": client}, "target": {"name": target}},
            }
        )
        store.credential_seen(seen)
        present[key] = seen
    for secret in (NamespacedName("shop", name) for name in "abc"):
        store.news()
        store.secret_seen(secret, meta("1"))
        interested = {key for key, seen in present.items() if secret in (seen.client_secret, seen.target)}
        assert sorted(store.news()) == sorted(interested)


def test_no_index_grows_with_what_is_gone(store: Watched) -> None:
    for version in range(11, 40):
        store.credential_seen(at(str(version), {"spec": {"target": {"name": f"target-{version}"}}}))
        store.secret_seen(NamespacedName("shop", f"target-{version}"), TargetObject().seen())
        store.secret_gone(NamespacedName("shop", f"target-{version}"), *END)
    shared: Json = {"spec": {"clientSecretRef": {"name": "storefront-client"}}}
    store.credential_seen(neighbour(shared))
    store.credential_gone(NEIGHBOUR, OTHER_UID)
    store.credential_gone(ME, UID)
    store.list_begins(None)
    store.secrets_listed(None, [], "")
    for _ in range(2):
        store.census_taken()
    kept = (store._interested, store._targets, store._secrets, store._records, store._ends, store._overtaken)  # noqa: SLF001 -- a leak is seen nowhere else
    assert [len(index) for index in kept] == [0, 0, 0, 0, 0, 0]


def test_versions_that_are_no_numbers_are_taken_as_they_come(store: Watched) -> None:
    store.credential_seen(replace(at("10"), version="x", refresh_requested="1"))
    assert store.news() == [ME]
    store.secret_seen(TARGET, TargetObject(state=token_state(), version="10").seen())
    store.secret_seen(TARGET, meta("x"))
    assert store.secret(TARGET) == meta("x")
