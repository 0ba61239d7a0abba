"""What holds for all tests."""

from typing import Final

import pytest
from hypothesis import settings

# No example may fail for being slow: the machine may be busy with other things. A hanging test meets pytest-timeout.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

LONGEST: Final = ("test_install.py", "test_demo.py", "test_simulation.py", "test_limiter.py", "test_election.py")
"""Files of minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: of two workers, none is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
