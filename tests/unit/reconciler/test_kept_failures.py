"""What is remembered of a failure is the failure alone: nothing of what was at hand where it was raised."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass

import pytest

from tests.unit.shop import HOUR, Shop
from tests.unit.world import CREDENTIAL
from tuinly_operator.domain.credential import Credential
from tuinly_operator.domain.errors import Failure


def _failures(value: object) -> Iterator[Failure]:
    """All failures in a value and its fields."""
    if isinstance(value, Failure):
        yield value
    elif is_dataclass(value):
        for each in fields(value):
            yield from _failures(getattr(value, each.name))


def _mood(mood: str) -> Callable[[Shop], None]:
    def strike(shop: Shop) -> None:
        shop.endpoint.mood = mood

    return strike


TROUBLE: dict[str, Callable[[Shop], None]] = {
    "the endpoint is down": _mood("down"),
    "it answers garbage": _mood("garbage"),
    "its tokens are worse": _mood("narrows"),
    "it refuses the client": lambda shop: shop.client_secret("canary-wrong"),
    "the client secret is of no use": lambda shop: shop.client_secret("canary\nwrong"),
    "the spec cannot be understood": lambda shop: shop.spec(scopes=["orders read"]),
}


@pytest.mark.rule("SEC-23")
@pytest.mark.parametrize("trouble", TROUBLE)
async def test_a_failure_that_is_remembered_holds_nothing_but_itself(trouble: str) -> None:
    """Else each would hold the one before, and memory would grow for as long as something fails."""
    shop = Shop()
    shop.spec(scopes=["a", "b"])
    await shop.process.work()
    TROUBLE[trouble](shop)
    found: list[Failure] = []
    while not found and shop.world.boot < shop.started + HOUR:
        await shop.pass_time(60)
        found = list(_failures(shop.record()))
    assert found
    assert not [each for each in found if each.__traceback__ or each.__context__ or each.__cause__]


@pytest.mark.rule("SEC-23")
def test_nor_does_one_of_an_object_that_cannot_be_understood() -> None:
    meta = {"namespace": "shop", "name": CREDENTIAL.name, "uid": "u", "resourceVersion": "1"}
    problem = Credential.from_object({"metadata": meta, "spec": {}}).problem
    assert problem is not None
    assert problem.__traceback__ is None
