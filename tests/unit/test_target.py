"""The target among other hands, over the fake edge of world.py: what is deleted, replaced, waited for and put back."""

from collections.abc import Callable

import pytest

from tests.unit.shop import HOUR, TARGET, Shop
from tests.unit.world import CREDENTIAL, Json
from tuinly_operator.credential import Key
from tuinly_operator.errors import Reason

RENAMED = Key(CREDENTIAL.namespace, "renamed")


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


async def test_an_untouched_target_goes_after_a_rename(shop: Shop) -> None:
    await rename(shop)
    assert TARGET not in shop.api.secrets
    assert shop.events_of(Reason.LOOK_ALIKE) == []


async def test_a_copy_of_the_target_is_left_alone_and_told_of_once(shop: Shop) -> None:
    """By `kubectl get -o yaml`, another name, and `kubectl create`: label, annotations and owner reference and all."""
    copy = shop.api.copy_secret(TARGET, "storefront-backup")
    kept = shop.api.secrets[copy]
    await shop.pass_time(HOUR)
    await rename(shop)
    assert shop.api.secrets[copy] == kept
    [message] = shop.events_of(Reason.LOOK_ALIKE)
    assert copy.name in message
    assert shop.refreshed() == "True Issued"


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
