"""What holds for all tests."""

import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

# No example may fail for being slow: the machine may be busy with other things. A hanging test meets pytest-timeout.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

LONGEST: Final = ("test_install.py", "test_demo.py", "test_simulation.py", "test_limiter.py", "test_election.py")
"""Files of minutes."""
UNIT: Final = Path(__file__).parent / "unit"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer `--rule`, for all tests of one rule."""
    parser.addoption("--rule", help="run only the tests of this rule of docs/contract.md or docs/internals, as LIM-7")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: of several workers, none is left alone with one of them at the end.

    Then those that compute, the unit tests, are spread among those that mostly wait for a cluster.
    """
    rule = config.getoption("rule")
    if rule is not None:
        items[:] = [item for item in items if any(rule in mark.args for mark in item.iter_markers("rule"))]
    files = list(dict.fromkeys(item.path for item in items))
    unit = [file for file in files if UNIT in file.parents]
    other = [file for file in files if UNIT not in file.parents]
    place = {file: number / len(kind) for kind in (unit, other) for number, file in enumerate(kind)}
    items.sort(key=lambda item: (item.path.name not in LONGEST, place[item.path]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which a test was skipped where NOTHING_SKIPPED is set, but for those that root cannot do."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("NOTHING_SKIPPED"):
        return
    skipped = [each for each in reporter.stats.get("skipped", []) if "Skipped: root may " not in each.longrepr[2]]
    if skipped:
        reporter.write_line("\nNothing may be skipped here: " + ", ".join(each.nodeid for each in skipped), red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
