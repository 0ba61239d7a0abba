"""The target among other hands, over the fake edge of world.py: what is deleted, replaced, waited for and put back."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.unit.shop import HOUR, TARGET, Shop
from tests.unit.world import CREDENTIAL, Json
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.errors import Reason
from tuinly_operator.edges.kube import ApiFailure

Admission = Callable[[str, Json], ApiFailure | None]
RENAMED = NamespacedName(CREDENTIAL.namespace, "renamed")


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


def other_type(shop: Shop) -> None:
    """Somebody makes it again with another type, by what it looks like."""
    shop.api.copy_secret(TARGET, TARGET.name, type="kubernetes.io/basic-auth")


def frozen_copy(shop: Shop) -> None:
    shop.api.copy_secret(TARGET, TARGET.name, immutable=True)


def frozen_and_edited(shop: Shop) -> None:
    shop.api.edit_secret(TARGET, "theirs", "precious")
    shop.api.freeze_secret(TARGET)


def frozen(shop: Shop) -> None:
    shop.api.freeze_secret(TARGET)


def frozen_and_held(shop: Shop) -> None:
    shop.api.hold_secret(TARGET, "example.com/hold")
    shop.api.freeze_secret(TARGET)
    shop.api.remove_secret(TARGET)


@pytest.mark.rule("OWN-12", "OWN-13")
@pytest.mark.parametrize("meddle", [frozen, frozen_and_held, frozen_and_edited, frozen_copy, other_type])
async def test_a_target_that_takes_no_write_is_a_conflict_until_it_is_deleted(shop: Shop, meddle: Touch) -> None:
    """The new token waits in memory, and costs no other token request."""
    meddle(shop)
    await ask(shop)
    kept, told = shop.api.secrets[TARGET], "of type" if meddle is other_type else "immutable"
    await shop.pass_time(300)
    requests = shop.api.requests
    await shop.pass_time(600)
    assert shop.api.secrets[TARGET] == kept
    assert shop.refreshed() == "False TargetConflict"
    assert all(word in shop.message("Refreshed") for word in (TARGET.name, told))
    assert (shop.told("Ready") == "True Issued") is (meddle is not other_type)
    assert shop.api.requests - requests <= 30
    shop.api.hold_secret(TARGET)
    shop.api.remove_secret(TARGET)
    await shop.process.work()
    assert shop.token() == shop.endpoint.ledger[-1].value
    assert (shop.told("Ready"), shop.refreshed()) == ("True Issued", "True Issued")
    assert len(shop.endpoint.requests) <= 2


@pytest.mark.rule("OWN-12")
async def test_the_token_of_an_immutable_target_ends_in_its_time(shop: Shop) -> None:
    frozen(shop)
    await renew(shop)
    await shop.pass_time(HOUR)
    assert (shop.told("Ready"), shop.refreshed()) == ("False TokenExpired", "False TargetConflict")
    assert shop.token() == "canary-access-1"
    await shop.pass_time(3 * HOUR)
    assert len(shop.endpoint.requests) <= 6  # one per life of a token
    shop.api.remove_secret(TARGET)
    await shop.process.work()
    assert shop.told("Ready") == "True Issued"
    assert shop.token() == shop.endpoint.ledger[-1].value


@pytest.mark.rule("OWN-12")
async def test_a_restart_before_an_immutable_target_is_deleted_costs_one_request(shop: Shop) -> None:
    frozen(shop)
    await renew(shop)
    shop.process = shop.start()
    await shop.pass_time(600)
    assert shop.refreshed() == "False TargetConflict"
    assert len(shop.endpoint.requests) == 3


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
