"""The built wheel has every module of the package, and each can be imported from there."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "operator"
# Run in a process that finds the wheel before the checkout.
IMPORT_ALL = """
import importlib, sys
wheel, *modules = sys.argv[1:]
sys.path.insert(0, wheel)
for name in modules:
    module = importlib.import_module(name)
    assert module.__file__.startswith(wheel), module.__file__
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, REPOSITORY / "hack" / "release.py", "wheel", folder], check=True)  # noqa: S603 -- our own
    [built] = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def sources() -> list[Path]:
    return sorted(file.relative_to(SOURCE) for file in SOURCE.rglob("*.py"))


def module(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.rule("PLUGIN-16")
def test_every_module_is_in_it_and_can_be_imported(wheel: Path) -> None:
    """Packages are found, not listed, so that no new folder is left out."""
    assert sorted(file.relative_to(wheel) for file in wheel.rglob("*.py")) == sources()
    names = [module(file) for file in sources()]
    subprocess.run([sys.executable, "-I", "-c", IMPORT_ALL, wheel, *names], check=True)  # noqa: S603 -- our own
