"""The node, the image and the stage of the end-to-end tests, and the figures at their end."""

import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.stage import Figures, Stage, standing
from tests.support import image as images
from tests.support.binaries import BinariesError
from tests.support.helm import Helm
from tests.support.manifests import IMAGE
from tests.support.node import AnyNode, KindNode, Node, Unavailable, check_kind, find_programs

FOLDER = Path(__file__).parents[2] / ".e2e"
"""Always the same, so that what a killed run left behind is found and removed by the next."""
FIGURES = Figures()


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return the stage, which all tests share, in the order of the file."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that everything is taken down
    try:
        start = node_maker()
        helm = Helm(tmp_path_factory.mktemp("helm"), FOLDER / "admin.kubeconfig")
        begun = time.time()
        image = images.build(tmp_path_factory.mktemp("image") / "image.tar", name=IMAGE)
    except (Unavailable, BinariesError, images.Unavailable) as reason:
        pytest.skip(f"not here: {reason}")
    FIGURES.add("the image, and its base where none was there, built in", f"{time.time() - begun:.0f} s")
    own = sum(file.size for file in image.own_files())
    FIGURES.add("the image, beyond its base", f"{own / 1e6:.1f} MB")
    shutil.rmtree(FOLDER, ignore_errors=True)
    with start(FOLDER) as node, standing(node, image, helm, FIGURES) as ready:
        yield ready


def node_maker() -> Callable[[Path], AnyNode]:
    """Return what makes a node: one of our own, or by kind where that cannot run and Docker is.

    Raises:
        Unavailable: neither can run here; the message says why.
    """
    try:
        programs = find_programs()
    except Unavailable as reason:
        try:
            check_kind()
        except Unavailable as other:
            raise Unavailable(f"{reason}; {other}") from None
        return KindNode
    return lambda folder: Node(folder, programs)


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    """Print the figures."""
    yield
    if FIGURES.lines:
        terminalreporter.section("figures")
        for line in FIGURES.lines:
            terminalreporter.line(line)
