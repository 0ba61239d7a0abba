"""What holds for all tests."""

import os
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


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which a test was skipped where NOTHING_SKIPPED is set, but for those that root cannot do."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("NOTHING_SKIPPED"):
        return
    skipped = [each for each in reporter.stats.get("skipped", []) if "Skipped: root may " not in each.longrepr[2]]
    if skipped:
        reporter.write_line("\nNothing may be skipped here: " + ", ".join(each.nodeid for each in skipped), red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
