"""The version is said in pyproject.toml; wherever else it stands, `make version` has written it."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.manifests import VERSION

ROOT = Path(__file__).parents[2]
NAMED = re.compile(rf"(?<![0-9.]){re.escape(VERSION)}(?![0-9.])")
OF_THE_PAST = ("CHANGELOG.md", "docs/upgrading.md")


def tracked() -> list[str]:
    """Return the files of the checkout, but for those that name the versions of others."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 -- words of our own
    return [
        name
        for name in listed.stdout.split("\0")
        if not name.startswith(("requirements/", "tests/api/earlier/"))
        and not name.endswith(("go.mod", "go.sum", ".svg"))
        if (ROOT / name).is_file()
    ]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of all text of the checkout that may name the version."""
    for name in tracked():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def write_version(folder: Path, *version: str) -> list[str]:
    """Run what `make version` runs, and return which files it says it has changed."""
    command = [sys.executable, str(ROOT / "hack" / "version.py"), "--root", str(folder), *version]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own script
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def test_every_place_has_the_version_of_pyproject(copy: Path) -> None:
    assert write_version(copy) == [], "run `make version`"


def test_no_place_is_forgotten(copy: Path) -> None:
    """A new version is everywhere but in what tells of the past, and all of it can be taken back."""
    write_version(copy, "9.8.7-rc.1")
    assert tomllib.loads((copy / "pyproject.toml").read_text())["project"]["version"] == "9.8.7-rc.1"
    assert [name for name in tracked() if name not in OF_THE_PAST and NAMED.search((copy / name).read_text())] == []
    write_version(copy, VERSION)
    assert [name for name in tracked() if (copy / name).read_bytes() != (ROOT / name).read_bytes()] == []


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.2.3+build", "latest"])
def test_what_is_no_version_is_refused(tmp_path: Path, version: str) -> None:
    """A tag of an image cannot have a plus sign, and a tag of git gets its v elsewhere."""
    with pytest.raises(AssertionError, match="is no version"):
        write_version(tmp_path, version)
