"""Writes the version of pyproject.toml to all other places that name it: make version; VERSION=1.2.3 sets it there.

A place is known by what stands before the version, so that no other number is taken for it. With --root these are the
files of another folder, for the test that says that none is forgotten.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FILES: Final = (
    "Dockerfile",
    "README.md",
    "crds/*.yaml",
    "deploy/**/*.yaml",
    "docs/**/*.md",
    "hack/*.py",
    "plugin/*/__init__.py",
    "tests/support/demo/*.yaml",
)
NUMBER: Final = r"[0-9]+\.[0-9]+\.[0-9]+(?:-[0-9a-z.]+)?"
"""Semantic Versioning that Python's versions, Helm's and an image's tags have in common."""
BEFORE: Final = (
    "tuinly-operator:",
    "app.kubernetes.io/version: ",
    "newTag: ",
    "--set image.tag=",
    "\nversion: ",
    "\nappVersion: ",
    "\nARG VERSION=",
    '\nVERSION = "',
    'version="',
)
PLACE: Final = re.compile("(" + "|".join(re.escape(each) for each in BEFORE) + ")" + NUMBER)


def main() -> int:
    """Write the version wherever it differs, and name the files that it changed."""
    parser = argparse.ArgumentParser(prog="make version")
    parser.add_argument("version", nargs="?", help="the new version; without it, the one of pyproject.toml")
    parser.add_argument("--root", type=Path, default=ROOT)
    wanted = parser.parse_args()
    project = wanted.root / "pyproject.toml"
    if wanted.version:
        if not re.fullmatch(NUMBER, wanted.version):
            parser.error(f"{wanted.version} is no version such as 1.2.3 or 1.2.3-rc.1")
        rewrite(project, re.compile(rf'(\nversion = "){NUMBER}'), wanted.version)
    version = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
    for pattern in FILES:
        for file in sorted(wanted.root.glob(pattern)):
            rewrite(file, PLACE, version)
    return 0


def rewrite(file: Path, place: re.Pattern[str], version: str) -> None:
    """Put `version` behind every match's first group."""
    old = file.read_text(encoding="utf-8")
    new = place.sub(rf"\g<1>{version}", old)
    if new != old:
        file.write_text(new, encoding="utf-8")
        print(file)


if __name__ == "__main__":
    sys.exit(main())
