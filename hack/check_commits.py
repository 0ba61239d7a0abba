"""Refuses commit subjects of more than 72 characters, by `make check`, in commits after the one that brought this file.

Without history, as in an archive, there is nothing to check. In a shallow clone the check begins at its first commit.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LONGEST: Final = 72  # characters: more is cut off where commits are listed


def main() -> int:
    """Print every subject that is too long, and return 1 if there is one."""
    added = git("log", "--diff-filter=A", "--format=%H", "--", "hack/check_commits.py").split()
    if not added:
        return 0
    log = git("log", "--no-merges", "--format=%h %s", f"{added[-1]}..HEAD").splitlines()
    long = [line for line in log if len(line.partition(" ")[2]) > LONGEST]
    for line in long:
        print(f"{line}\n  is longer than {LONGEST} characters: shorten the subject, and say why in the body")
    return 1 if long else 0


def git(*words: str) -> str:
    """What git prints, or nothing if it fails, as outside of a repository."""
    command = ["git", "-C", ROOT, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 -- words of our own


if __name__ == "__main__":
    sys.exit(main())
