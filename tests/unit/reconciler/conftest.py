"""The world in which most tests of the reconciler begin."""

import pytest

from tests.unit.shop import Shop


@pytest.fixture
async def shop() -> Shop:
    """A credential with its first token."""
    shop = Shop()
    await shop.process.work()
    return shop
