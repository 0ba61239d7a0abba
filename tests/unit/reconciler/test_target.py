"""The target among other hands, over the fake edge of world.py: what is deleted, replaced, waited for and put back."""

import base64
import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.unit.shop import HOUR, TARGET, Shop
from tests.unit.world import CREDENTIAL, Json
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.errors import Reason
from tuinly_operator.domain.target import SecretMeta
from tuinly_operator.edges.kube import ApiFailure

Admission = Callable[[str, Json], ApiFailure | None]
RENAMED = NamespacedName(CREDENTIAL.namespace, "renamed")


@pytest.fixture
async def shop() -> Shop:
    shop = Shop()
    await shop.process.work()
    return shop


async def rename(shop: Shop) -> None:
    shop.spec(target={"name": RENAMED.name})
    await shop.process.work()
    assert shop.token(RENAMED) == shop.endpoint.ledger[-1].value


# --- What is deleted under another name -------------------------------------------------------------------------------


@pytest.mark.rule("OWN-8")
async def test_an_untouched_target_goes_after_a_rename(shop: Shop) -> None:
    await rename(shop)
    assert TARGET not in shop.api.secrets
    assert shop.events_of(Reason.LOOK_ALIKE) == []


@pytest.mark.rule("OWN-10")
async def test_a_copy_of_the_target_is_left_alone_and_told_of_once(shop: Shop) -> None:
    """By `kubectl get -o yaml`, another name, and `kubectl create`: label, annotations and owner reference and all."""
    backup = shop.api.copy_secret(TARGET, "storefront-backup")
    kept = shop.api.secrets[backup]
    await shop.pass_time(HOUR)
    await rename(shop)
    assert shop.api.secrets[backup] == kept
    [message] = shop.events_of(Reason.LOOK_ALIKE)
    assert backup.name in message
    assert shop.refreshed() == "True Issued"


@pytest.mark.rule("OWN-10")
async def test_many_copies_are_told_of_together_and_a_later_one_by_itself(shop: Shop) -> None:
    for number in range(3):
        shop.api.copy_secret(TARGET, f"copy-{number}")
    await shop.process.work()
    shop.api.copy_secret(TARGET, "copy-later")
    await shop.process.work()
    told = shop.events_of(Reason.LOOK_ALIKE)
    assert len(told) <= 4
    assert sum("copy-later" in message for message in told) == 1


Touch = Callable[[Shop], None]


def touch(part: str, name: str) -> Touch:
    """Somebody else owns a field of the target from now on."""

    def change(shop: Shop) -> None:
        names: Json = {f"f:{part}": {f"f:{name}": {}}}
        fields: Json = names if part == "data" else {"f:metadata": names}
        raw = shop.api.secrets[TARGET]
        raw["metadata"]["managedFields"].append({"manager": "somebody", "operation": "Update", "fieldsV1": fields})
        shop.api.label_secret(TARGET)

    return change


@pytest.mark.rule("OWN-9")
@pytest.mark.parametrize(
    ("part", "name", "goes"),
    [
        ("data", "theirs", False),  # a key of their own would be lost
        ("data", "token_type", False),  # the same value, applied by another manager
        ("labels", "tuinly.com/credential", False),
        ("annotations", "tuinly.com/issued-at", False),
        ("labels", "velero.io/restore-name", True),
        ("annotations", "example.com/note", True),
        ("ownerReferences", "k", True),
        ("finalizers", "v", True),
    ],
)
async def test_a_leftover_that_somebody_had_a_hand_in_stays(shop: Shop, part: str, name: str, *, goes: bool) -> None:
    touch(part, name)(shop)
    await rename(shop)
    assert (TARGET not in shop.api.secrets) is goes
    assert len(shop.events_of(Reason.LOOK_ALIKE)) == (not goes)


@pytest.mark.rule("OWN-11")
async def test_a_leftover_that_a_finalizer_holds_is_deleted_once(shop: Shop) -> None:
    shop.api.hold_secret(TARGET, "example.com/hold")
    await rename(shop)
    requests = shop.api.requests
    await shop.pass_time(600)
    assert shop.api.requests == requests
    assert "deletionTimestamp" in shop.api.secrets[TARGET]["metadata"]
    shop.api.hold_secret(TARGET)
    await shop.process.work()
    assert TARGET not in shop.api.secrets


# --- A target that is being deleted, and held by somebody's finalizer -------------------------------------------------


@pytest.mark.rule("DRIFT-9")
async def test_a_target_on_its_way_out_is_kept_up_to_date_until_it_is_gone(shop: Shop) -> None:
    """It takes writes like any other; a restart meanwhile asks for nothing."""
    shop.api.hold_secret(TARGET, "example.com/hold")
    shop.api.remove_secret(TARGET)
    await shop.process.work()
    requests = shop.api.requests
    await shop.pass_time(600)
    assert shop.api.requests == requests
    assert shop.told("Ready") == "True Issued"
    assert "is being deleted" in shop.message("Ready")
    await shop.pass_time(HOUR * 2 // 3)
    assert len(shop.endpoint.requests) == 2
    assert shop.token() == shop.endpoint.ledger[-1].value
    shop.process = shop.start()
    await shop.pass_time(60)
    assert len(shop.endpoint.requests) == 2
    assert shop.events_of(Reason.RESTORED) == []


@pytest.mark.rule("DRIFT-9")
async def test_a_target_is_restored_once_it_is_gone(shop: Shop) -> None:
    shop.api.hold_secret(TARGET, "example.com/hold")
    shop.api.remove_secret(TARGET)
    await shop.pass_time(60)
    uid = shop.api.secrets[TARGET]["metadata"]["uid"]
    shop.api.hold_secret(TARGET)
    await shop.process.work()
    assert shop.token() == "canary-access-1"
    assert shop.api.secrets[TARGET]["metadata"]["uid"] != uid
    assert len(shop.events_of(Reason.RESTORED)) == len(shop.endpoint.requests) == 1
    assert "is being deleted" not in shop.message("Ready")


@pytest.mark.rule("DRIFT-9")
async def test_what_somebody_edits_in_a_target_on_its_way_out_is_put_right(shop: Shop) -> None:
    shop.api.hold_secret(TARGET, "example.com/hold")
    shop.api.remove_secret(TARGET)
    shop.api.edit_secret(TARGET, "access_token", "stolen")
    await shop.process.work()
    assert shop.token() == "canary-access-1"
    assert shop.told("Ready") == "True Issued"
    requests = shop.api.requests
    await shop.pass_time(60)
    assert shop.api.requests == requests


# --- A target that takes no write -------------------------------------------------------------------------------------


REFUSALS = [ApiFailure(403, "Forbidden"), ApiFailure(422, "Invalid"), ApiFailure(500, "InternalError")]


def refuse(failure: ApiFailure, *, operation: str = "CREATE", after: int = 0, old: bool = True) -> Admission:
    """Refuse writes after so many; without `old` only those of a later token than the first."""
    first, seen = base64.b64encode(b"canary-access-1").decode(), [0]

    def admit(what: str, raw: Json) -> ApiFailure | None:
        if what != operation or (not old and raw["data"]["access_token"] == first):
            return None
        seen[0] += 1
        return failure if seen[0] > after else None

    return admit


async def ask(shop: Shop) -> None:
    """The team asks for the next token."""
    await shop.pass_time(10)
    spec = shop.api.credentials[CREDENTIAL]["spec"]
    shop.api.put_credential(CREDENTIAL, spec, {"tuinly.com/refresh-requested": "now"})
    shop.process.credentials_changed()
    await shop.process.work()


async def renew(shop: Shop) -> None:
    """It asks for the next token, which comes."""
    await ask(shop)
    assert len(shop.endpoint.requests) == 2


def uid(shop: Shop) -> str:
    return str(shop.api.secrets[TARGET]["metadata"]["uid"])


@pytest.mark.rule("OWN-12")
async def test_an_immutable_target_is_made_again_where_the_new_one_is_known_to_be_acceptable(shop: Shop) -> None:
    before = uid(shop)
    shop.api.freeze_secret(TARGET)
    await renew(shop)
    assert shop.token() == "canary-access-2"
    assert uid(shop) != before
    assert shop.refreshed() == "True Issued"


@pytest.mark.rule("OWN-13")
@pytest.mark.parametrize("failure", REFUSALS, ids=lambda failure: failure.word)
async def test_a_good_token_stays_where_the_new_one_would_be_refused(shop: Shop, failure: ApiFailure) -> None:
    """By a policy, a quota, for its size, or by something that breaks: whatever is not proven."""
    shop.api.freeze_secret(TARGET)
    shop.api.refuses = refuse(failure)
    before = uid(shop)
    await renew(shop)
    await shop.pass_time(HOUR // 3)
    assert (uid(shop), shop.token()) == (before, "canary-access-1")
    assert (shop.told("Ready"), shop.refreshed()) == ("True Issued", "False TargetRejected")
    assert failure.word in shop.message("Refreshed")
    shop.api.refuses = Shop().api.refuses
    await shop.pass_time(120)
    assert shop.token() == "canary-access-2"
    assert shop.refreshed() == "True Issued"
    assert len(shop.endpoint.requests) == 2


@pytest.mark.rule("OWN-13")
@pytest.mark.parametrize("failure", REFUSALS, ids=lambda failure: failure.word)
async def test_a_token_that_has_expired_gives_way_to_what_is_not_known_to_be_invalid(
    shop: Shop, failure: ApiFailure
) -> None:
    """There is nothing left to save: a full quota, say, has room once the old one has gone."""
    shop.api.freeze_secret(TARGET)
    shop.api.refuses = lambda what, _: failure if what == "CREATE" and TARGET in shop.api.secrets else None
    await renew(shop)
    await shop.pass_time(HOUR + 120)
    assert (shop.told("Ready") == "True Issued") is (failure.status != 422)


@pytest.mark.rule("OWN-14")
@pytest.mark.parametrize("failure", REFUSALS, ids=lambda failure: failure.word)
async def test_what_was_deleted_and_cannot_be_made_again_is_put_back(shop: Shop, failure: ApiFailure) -> None:
    """The trial went well, and the create is refused all the same."""
    shop.api.freeze_secret(TARGET)
    shop.api.refuses = refuse(failure, after=1, old=False)
    before = shop.api.secrets[TARGET]
    await renew(shop)
    after = shop.api.secrets[TARGET]
    assert shop.token() == "canary-access-2"  # what was put back takes the new token by an ordinary write
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    writes = [write.after for write in shop.api.writes if write.kind == "target"][-3:]
    assert [raw and raw["data"]["access_token"] == before["data"]["access_token"] for raw in writes] == [
        None,
        True,
        False,
    ]
    assert shop.refreshed() == "True Issued"


def any_write(failure: ApiFailure, after: int) -> Admission:
    """Refuse each write of the next token, after so many creates of it."""
    create, update = refuse(failure, after=after, old=False), refuse(failure, operation="UPDATE", old=False)
    return lambda what, raw: create(what, raw) or update(what, raw)


@pytest.mark.rule("OWN-14")
@pytest.mark.parametrize("failure", REFUSALS, ids=lambda failure: failure.word)
async def test_what_was_put_back_stays_for_as_long_as_the_next_token_is_refused(
    shop: Shop, failure: ApiFailure
) -> None:
    shop.api.freeze_secret(TARGET)
    shop.api.refuses = any_write(failure, after=1)
    await renew(shop)
    back = uid(shop)
    await shop.pass_time(600)
    assert (uid(shop), shop.token()) == (back, "canary-access-1")
    assert (shop.told("Ready"), shop.refreshed()) == ("True Issued", "False TargetRejected")
    assert shop.events_of(Reason.RESTORED) == []
    shop.api.refuses = Shop().api.refuses
    await shop.pass_time(120)
    assert shop.token() == "canary-access-2"
    assert len(shop.endpoint.requests) == 2


@pytest.mark.rule("OWN-14")
@pytest.mark.parametrize("suspend", [False, True])
async def test_it_is_put_back_as_soon_as_it_may_be(shop: Shop, *, suspend: bool) -> None:
    """Whatever else there is to do, or not."""
    shop.api.freeze_secret(TARGET)
    shop.api.refuses = refuse(ApiFailure(403, "Forbidden"), after=1)
    await renew(shop)
    assert TARGET not in shop.api.secrets
    assert shop.refreshed() == "False TargetRejected"
    assert "canary" not in repr(shop.record())
    shop.spec(suspend=suspend)
    await shop.pass_time(300)
    assert TARGET not in shop.api.secrets
    shop.api.refuses = Shop().api.refuses
    await shop.pass_time(90)
    assert shop.token() == ("canary-access-1" if suspend else "canary-access-2")
    assert len(shop.endpoint.requests) == 2
    shop.api.remove_secret(TARGET)
    await shop.pass_time(90)
    assert (TARGET in shop.api.secrets) is not suspend  # somebody else's doing


@pytest.mark.rule("OWN-14")
async def test_what_is_not_put_back_as_its_credential_goes_wakes_nobody(shop: Shop) -> None:
    """A credential that somebody's finalizer holds may go for long; each look at it would be followed by the next."""
    shop.api.freeze_secret(TARGET)
    shop.api.refuses = refuse(ApiFailure(403, "Forbidden"), after=1)
    await renew(shop)
    shop.api.credentials[CREDENTIAL]["metadata"]["deletionTimestamp"] = "2026-11-24T07:00:00Z"
    shop.process.credentials_changed()
    for _ in range(300):
        await shop.pass_time(1)
        wakes = shop.process.timers.get(CREDENTIAL)
        assert wakes is None or not wakes.due(shop.world.now())


@pytest.mark.rule("OWN-14")
@pytest.mark.parametrize("what", ["credential", "suspended credential", "Secret"])
async def test_nothing_is_put_back_for_a_credential_that_is_gone_nor_over_what_somebody_made(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The watch may be late to tell."""
    shop.api.freeze_secret(TARGET)
    shop.api.refuses = refuse(ApiFailure(403, "Forbidden"), after=1)
    await renew(shop)
    shop.api.refuses = Shop().api.refuses
    if what == "suspended credential":  # nothing but putting back is done for it
        shop.spec(suspend=True)
    monkeypatch.setattr(shop.process, "credentials_changed", lambda: None)
    shop.api.changed = lambda _: None
    if what != "Secret":
        del shop.api.credentials[CREDENTIAL]
    else:
        shop.api.put_secret(TARGET, {"precious": "data"})
    await shop.pass_time(90)
    assert TARGET not in shop.api.secrets or set(shop.api.secrets[TARGET]["data"]) == {"precious"}
    assert what != "Secret" or shop.refreshed() == "False TargetConflict"


@pytest.mark.rule("OWN-14")
async def test_what_the_api_server_refused_to_delete_is_not_put_back_once_somebody_deletes_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_key: NamespacedName, _meta: SecretMeta) -> SecretMeta | None:
        raise ApiFailure(403, "Forbidden")

    shop.api.freeze_secret(TARGET)
    monkeypatch.setattr(shop.api, "delete_secret", refused)
    await renew(shop)
    assert TARGET in shop.api.secrets
    shop.spec(suspend=True)
    await shop.pass_time(1)
    shop.api.remove_secret(TARGET)
    await shop.pass_time(90)
    assert TARGET not in shop.api.secrets


@pytest.mark.rule("OWN-14")
@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_no_answer_on_the_way_loses_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    """Of the trial, of the delete, or of the create; it may have been done."""
    delete, apply, calls = shop.api.delete_secret, shop.api.apply_secret, [0]

    def count() -> None:
        calls[0] += 1
        if calls[0] == lost:
            raise ApiFailure(None, "TimeoutError")

    async def counted_delete(key: NamespacedName, meta: SecretMeta) -> SecretMeta | None:
        left = await delete(key, meta)
        count()
        return left

    async def counted_apply(key: NamespacedName, manifest: Json) -> SecretMeta:
        count()
        return await apply(key, manifest)

    await shop.pass_time(10)
    shop.api.freeze_secret(TARGET)
    monkeypatch.setattr(shop.api, "delete_secret", counted_delete)
    monkeypatch.setattr(shop.api, "apply_secret", counted_apply)
    await renew(shop)
    await shop.pass_time(30)
    assert shop.token() == "canary-access-2"
    assert shop.refreshed() == "True Issued"
    assert len(shop.endpoint.requests) == 2


@pytest.mark.rule("OWN-14")
async def test_a_process_that_ends_between_delete_and_create_costs_an_exchange(shop: Shop) -> None:
    shop.api.freeze_secret(TARGET)
    shop.api.refuses = refuse(ApiFailure(403, "Forbidden"), after=1)
    await renew(shop)
    shop.api.refuses = Shop().api.refuses
    shop.process = shop.start()
    await shop.process.work()
    assert shop.token() == "canary-access-3"
    assert shop.refreshed() == "True Issued"


def other_type(shop: Shop) -> None:
    """Somebody makes it again with another type, by what it looks like."""
    shop.api.copy_secret(TARGET, TARGET.name, type="kubernetes.io/basic-auth")


def frozen_copy(shop: Shop) -> None:
    shop.api.copy_secret(TARGET, TARGET.name, immutable=True)


def frozen_and_edited(shop: Shop) -> None:
    shop.api.edit_secret(TARGET, "theirs", "precious")
    shop.api.freeze_secret(TARGET)


@pytest.mark.rule("OWN-12")
@pytest.mark.parametrize("meddle", [other_type, frozen_copy, frozen_and_edited])
async def test_what_takes_no_write_and_is_not_ours_alone_is_a_conflict(shop: Shop, meddle: Touch) -> None:
    """An owner reference comes with any copy."""
    meddle(shop)
    await ask(shop)
    kept = shop.api.secrets[TARGET]
    await shop.pass_time(300)
    requests = shop.api.requests
    await shop.pass_time(600)
    assert shop.api.secrets[TARGET] == kept
    assert shop.refreshed() == "False TargetConflict"
    assert shop.api.requests - requests <= 60
    shop.api.remove_secret(TARGET)
    await shop.process.work()
    assert shop.token() == shop.endpoint.ledger[-1].value
    assert shop.refreshed() == "True Issued"
    assert len(shop.endpoint.requests) <= 2


@pytest.mark.rule("OWN-15")
async def test_what_can_neither_be_changed_nor_deleted_is_waited_for(shop: Shop) -> None:
    """Immutable, and held by somebody's finalizer: few requests, a status that says so, and an event ends the wait."""
    shop.api.hold_secret(TARGET, "example.com/hold")
    shop.api.freeze_secret(TARGET)
    await renew(shop)
    assert (shop.told("Ready"), shop.refreshed()) == ("True Issued", "False TargetRejected")
    assert "finalizer" in shop.message("Refreshed")
    requests = shop.api.requests
    await shop.pass_time(600)
    assert shop.api.requests - requests <= 60
    assert shop.token() == "canary-access-1"
    shop.api.hold_secret(TARGET)
    await shop.process.work()
    assert shop.token() == "canary-access-2"
    assert shop.refreshed() == "True Issued"
    assert len(shop.endpoint.requests) == 2


# --- A backup is restored: everything has a new uid -------------------------------------------------------------------


@dataclass
class Backup:
    """What a backup tool kept of a namespace."""

    spec: Json
    target: Json

    @classmethod
    def of(cls, shop: Shop) -> "Backup":
        return cls(shop.api.credentials[CREDENTIAL]["spec"], copy.deepcopy(shop.api.secrets[TARGET]))

    def restore_target(self, shop: Shop, *parts: str) -> None:
        """Make it again with these parts of its metadata, or write it over the one that is there."""
        meta = {part: self.target["metadata"][part] for part in parts}
        there = shop.api.secrets.setdefault(TARGET, self.target)
        shop.api.secrets[TARGET] = {**self.target, "metadata": {**there["metadata"], "ownerReferences": [], **meta}}
        shop.api.copy_secret(TARGET, TARGET.name)

    def restore_credential(self, shop: Shop) -> None:
        shop.api.put_credential(CREDENTIAL, self.spec)
        shop.process.credentials_changed()


async def lose_all(shop: Shop) -> Backup:
    """The namespace, or all that is in it, is deleted a while after its backup was made."""
    backup = Backup.of(shop)
    await shop.pass_time(HOUR)
    del shop.api.credentials[CREDENTIAL]
    shop.api.remove_secret(TARGET)
    shop.process.credentials_changed()
    await shop.process.work()
    return backup


KEPT = [("labels", "annotations"), ("labels", "annotations", "ownerReferences")]


def assert_fresh(shop: Shop) -> None:
    assert shop.token() == shop.endpoint.ledger[-1].value
    assert (shop.told("Ready"), shop.refreshed()) == ("True Issued", "True Issued")
    uid = shop.api.credentials[CREDENTIAL]["metadata"]["uid"]
    owners = shop.api.secrets[TARGET]["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners if owner["controller"]] == [uid]
    assert shop.annotation("credential-uid") == uid


@pytest.mark.rule("OWN-5")
@pytest.mark.parametrize("kept", KEPT, ids=" ".join)
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_target_that_is_restored_before_its_credential_is_taken_up(
    shop: Shop, kept: tuple[str, ...], *, restarted: bool
) -> None:
    """If the garbage collector has not taken it by then: its owner is gone."""
    backup = await lose_all(shop)
    backup.restore_target(shop, *kept)
    if restarted:
        shop.process = shop.start()
    await shop.process.work()
    backup.restore_credential(shop)
    await shop.process.work()
    assert_fresh(shop)
    requests = shop.api.requests
    await shop.pass_time(60)
    assert shop.api.requests == requests
    await renew_in_time(shop)
    assert len(shop.api.secrets[TARGET]["metadata"]["ownerReferences"]) == 1
    assert shop.events_of(Reason.RESTORED) == []


@pytest.mark.rule("OWN-5")
@pytest.mark.parametrize("kept", KEPT, ids=" ".join)
async def test_a_target_that_is_restored_over_that_of_its_restored_credential_is_put_right(
    shop: Shop, kept: tuple[str, ...]
) -> None:
    """Some tools leave alone what is there, some write over it."""
    backup = await lose_all(shop)
    backup.restore_credential(shop)
    await shop.process.work()
    assert_fresh(shop)
    backup.restore_target(shop, *kept)
    await shop.process.work()
    assert_fresh(shop)
    requests = shop.api.requests
    await shop.pass_time(60)
    assert shop.api.requests == requests


async def renew_in_time(shop: Shop) -> None:
    requests = len(shop.endpoint.requests)
    await shop.pass_time(HOUR * 2 // 3)
    assert len(shop.endpoint.requests) == requests + 1
    assert_fresh(shop)


@pytest.mark.rule("OWN-5")
async def test_an_owner_that_came_with_a_copy_does_not_outlive_retain(shop: Shop) -> None:
    """Nor is the target written for ever because of it."""
    shop.api.copy_secret(TARGET, TARGET.name)
    shop.spec(target={"deletionPolicy": "Retain"})
    await shop.process.work()
    requests = shop.api.requests
    await shop.pass_time(60)
    assert shop.api.requests == requests
    await shop.pass_time(HOUR * 2 // 3)
    assert shop.api.secrets[TARGET]["metadata"]["ownerReferences"] == []
