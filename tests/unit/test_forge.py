"""What the forge reads: workflows, the update bot's configuration, hooks, and how to report a flaw.

Their form is checked by `make check`; here is what no schema knows.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
TEXT = {path.name: path.read_text() for path in WORKFLOWS}

each_workflow = pytest.mark.parametrize("name", TEXT)


def workflow(name: str) -> Json:
    """Return a workflow; BaseLoader, since for others "on" is True."""
    loaded: Json = yaml.load(TEXT[name], yaml.BaseLoader)  # noqa: S506 -- makes nothing but texts
    return loaded


def commands(name: str, job: str) -> str:
    return "\n".join(step.get("run", "") for step in workflow(name)["jobs"][job]["steps"])


def test_there_is_one_for_changes_one_for_releases_and_one_for_the_locks() -> None:
    assert set(TEXT) == {"ci.yaml", "release.yaml", "lock.yaml"}


def test_a_change_runs_what_a_change_must_pass() -> None:
    """All of it, and nothing may be skipped."""
    assert {"push", "pull_request"} <= workflow("ci.yaml")["on"].keys()
    assert re.search(r"NOTHING_SKIPPED=1 \.ci/run$", commands("ci.yaml", "run"), re.MULTILINE)
    assert "continue-on-error" not in TEXT["ci.yaml"]


def test_nothing_is_released_that_has_not_passed() -> None:
    jobs = workflow("release.yaml")["jobs"]
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yaml"
    assert jobs["release"]["needs"] == "ci"
    assert workflow("release.yaml")["on"] == {"push": {"tags": ["v*"]}}


def test_a_release_is_signed_and_says_where_it_comes_from_and_what_is_in_it() -> None:
    steps = workflow("release.yaml")["jobs"]["release"]["steps"]
    used = [step["uses"].partition("@")[0] for step in steps if "uses" in step]
    assert used.count("actions/attest-build-provenance") == 2  # the image's, and the files'
    assert "actions/attest-sbom" in used
    told = commands("release.yaml", "release")
    for part in (
        "for architecture in amd64 arm64",
        "image-sbom",
        "cosign sign",
        "make release-files",
        "dist/release/*",
    ):
        assert part in told
    assert told.index("release.py tag") < told.index("make image") < told.index("gh release create")


@each_workflow
def test_rights_are_given_to_jobs_one_by_one(name: str) -> None:
    """By default a job may read the code."""
    assert workflow(name)["permissions"] == {"contents": "read"}
    assert "secrets." not in TEXT[name]


@each_workflow
def test_no_text_of_a_stranger_becomes_a_command(name: str) -> None:
    """What the forge puts in is a variable of the environment, and no part of a script."""
    for job in workflow(name)["jobs"].values():
        assert [step["run"] for step in job.get("steps", []) if "${{" in step.get("run", "")] == []


@each_workflow
def test_actions_have_versions_that_the_update_bot_keeps(name: str) -> None:
    used = re.findall(r"uses: (?!\./)(.*)", TEXT[name])
    assert [each for each in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+\.\d+)?", each)] == []
    bot = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    assert {each["package-ecosystem"] for each in bot["updates"]} == {"github-actions", "docker", "gomod"}


def test_the_update_bot_finds_the_base_of_the_image() -> None:
    """It reads FROM, and no arguments; the usual base is a stage that arguments name."""
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^FROM python:\d\.\d+-slim AS usual-base$", text, re.MULTILINE)
    assert re.findall(r"^ARG (?:BUILD|RUNTIME)_IMAGE=(.*)", text, re.MULTILINE) == ["usual-base", "usual-base"]


def test_the_locks_are_made_anew_by_what_people_use() -> None:
    assert "make lock ARGS=--upgrade" in commands("lock.yaml", "upgrade").splitlines()
    assert workflow("lock.yaml")["on"]["schedule"]


def test_the_hook_before_commits_is_make_check() -> None:
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    [hook] = repository["hooks"]
    assert repository["repo"] == "local"
    assert (hook["entry"], hook["always_run"], hook["pass_filenames"]) == ("make check", True, False)


def test_flaws_are_reported_in_private_and_to_nobody_by_name() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert "**Report a vulnerability**" in text
    assert "@" not in text


@pytest.mark.parametrize(
    ("reason", "strict", "status"),
    [("no promtool", "1", 1), ("no promtool", "", 0), ("root may look everywhere", "1", 0)],
)
def test_where_nothing_may_be_skipped_a_skipped_test_fails_the_run(
    tmp_path: Path, reason: str, strict: str, status: int
) -> None:
    """But for what root cannot test, which somebody else runs."""
    (tmp_path / "test_it.py").write_text(
        f"import pytest\ndef test_one():\n    pass\n@pytest.mark.skip(reason={reason!r})\ndef test_two():\n    pass\n"
    )
    environ = os.environ | {"PYTHONPATH": str(ROOT), "NOTHING_SKIPPED": strict}
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    command += ["-p", "no:asyncio", "-p", "tests.conftest"]
    answer = subprocess.run([*command, str(tmp_path)], env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    assert (answer.returncode, answer.stderr) == (status, "")
    assert ("may be skipped here" in answer.stdout) == bool(status)
