"""The node, the image and the stage of the end-to-end tests, and the figures at their end."""

import shutil
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.stage import Figures, Stage, standing
from tests.support import image as images
from tests.support.manifests import IMAGE
from tests.support.node import Node, Unavailable, find_programs

FOLDER = Path(__file__).parents[2] / ".e2e"
"""Always the same, so that what a killed run left behind is found and removed by the next."""
FIGURES = Figures()


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return the stage, which all tests share, in the order of the file."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that everything is taken down
    try:
        programs = find_programs()
        image = images.build(tmp_path_factory.mktemp("image") / "image.tar", name=IMAGE)
    except (Unavailable, images.Unavailable) as reason:
        pytest.skip(f"not here: {reason}")
    own = sum(file.size for file in image.own_files())
    FIGURES.add("the image, beyond its base", f"{own / 1e6:.1f} MB")
    shutil.rmtree(FOLDER, ignore_errors=True)
    with Node(FOLDER, programs) as node, standing(node, image, FIGURES) as ready:
        yield ready


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    """Print the figures."""
    yield
    if FIGURES.lines:
        terminalreporter.section("figures")
        for line in FIGURES.lines:
            terminalreporter.line(line)
