"""The check of commit subjects, on a repository of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

CHECK = Path(__file__).parents[2] / "hack" / "check_commits.py"


def git(repository: Path, *words: str) -> None:
    command = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.com", *words]
    subprocess.run(command, check=True)  # noqa: S603 -- words of our own


def commit(repository: Path, subject: str) -> None:
    git(repository, "commit", "--quiet", "--allow-empty", "--message", subject)


def checked(repository: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "hack" / "check_commits.py")]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- the same


def checkout(folder: Path) -> Path:
    (folder / "hack").mkdir(parents=True)
    shutil.copy(CHECK, folder / "hack")
    return folder


def test_a_subject_of_more_than_72_characters_is_refused_after_the_check_was_added(tmp_path: Path) -> None:
    repository = checkout(tmp_path)
    git(repository, "init", "--quiet")
    commit(repository, "A subject from before the rule, " * 4)
    git(repository, "add", ".")
    commit(repository, "Add the check")
    commit(repository, "x" * 72)
    assert checked(repository).returncode == 0
    commit(repository, "y" * 73)
    refused = checked(repository)
    assert refused.returncode == 1
    assert "y" * 73 in refused.stdout
    assert "x" * 72 not in refused.stdout


def test_a_checkout_without_history_passes(tmp_path: Path) -> None:
    assert checked(checkout(tmp_path)).returncode == 0
