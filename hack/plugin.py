"""Builds the plugin `kubectl tuinly`, by `make plugin`: dist/kubectl-tuinly, one file for any Python, and the wheel.

Both have the plugin, and of the operator the pure parts that it uses. The file has its two libraries as well, from this
environment, which is made from a lock with hashes. With an argument, both go into that folder.
"""

import os
import shutil
import sys
import sysconfig
import tempfile
import zipapp
from pathlib import Path
from typing import Final

from wheels import build_wheel

ROOT: Final = Path(__file__).parents[1]
SHARED: Final = ("base", "domain")
"""Folders of the operator's package."""
LIBRARIES: Final = ("rich", "yaml")
"""What the plugin imports. What rich needs for Markdown and highlighted source alone is left out."""
SKIPPED: Final = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "*.so")  # compiled parts fit one machine


def main() -> int:
    """Build both, and say where they are."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "dist"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = gather(Path(scratch, "source"))
        build_wheel(source, folder)
        print(max(folder.glob("kubectl_tuinly-*.whl"), key=lambda wheel: wheel.stat().st_mtime))
        print(build_file(source, Path(scratch, "file"), folder / "kubectl-tuinly"))
    return 0


def gather(source: Path) -> Path:
    """Put together what both are made of."""
    shutil.copytree(ROOT / "plugin", source, ignore=SKIPPED)
    for name in SHARED:
        shutil.copytree(ROOT / "operator" / "tuinly_operator" / name, source / "tuinly_operator" / name, ignore=SKIPPED)
    shutil.copy(ROOT / "operator" / "tuinly_operator" / "__init__.py", source / "tuinly_operator")
    shutil.copy(ROOT / "LICENSE", source)
    settle(source)
    return source


def settle(folder: Path) -> None:
    """Give all files one time and one mode, so that the same commit gives the same bytes."""
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", "315532800"))  # 1980, the first that a zip file can tell
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (moment, moment))


def build_file(source: Path, place: Path, file: Path) -> Path:
    """Build the one file, of the plugin, the operator's parts and the dependencies."""
    environment = Path(sysconfig.get_path("purelib"))
    for name in LIBRARIES:
        shutil.copytree(environment / name, place / name, ignore=SKIPPED)
    for name in ("kubectl_tuinly", "tuinly_operator"):
        shutil.copytree(source / name, place / name)
    start = "import sys\nfrom kubectl_tuinly.__main__ import main\nsys.exit(main())\n"
    (place / "__main__.py").write_text(start, encoding="utf-8")
    settle(place)
    zipapp.create_archive(place, file, interpreter="/usr/bin/env python3", compressed=True)
    file.chmod(0o755)
    return file


if __name__ == "__main__":
    sys.exit(main())
