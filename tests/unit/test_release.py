"""What a release consists of, apart from what only the forge can do."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.binaries import BinariesError
from tests.support.helm import Helm
from tests.support.manifests import VERSION

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
REPOSITORY = "ghcr.io/example/tuinly-operator"
DIGEST = f"sha256:{'5' * 64}"
IMAGE = f"{REPOSITORY}:{VERSION}@{DIGEST}"
FILES = {
    "SHA256SUMS",
    "install.yaml",
    "kubectl-tuinly",
    f"kubectl_tuinly-{VERSION}-py3-none-any.whl",
    "namespaced.yaml",
    f"tuinly-operator-chart-{VERSION}.tgz",
    f"tuinly_operator-{VERSION}-py3-none-any.whl",
    "tuinlycredentials.yaml",
}


def release(
    *arguments: str | Path, checkout: Path = ROOT, umask: int = -1, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- our own script
        [sys.executable, checkout / "hack" / "release.py", *arguments],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=100,
        umask=umask,
        check=False,
    )


def make_files(folder: Path, *, checkout: Path = ROOT, umask: int = -1, **environ: str) -> Path:
    answer = release("files", IMAGE, folder, "--offline", checkout=checkout, umask=umask, **environ)
    assert answer.returncode == 0, answer.stderr
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("release"), SOURCE_DATE_EPOCH="1700000000")


def other_checkout(folder: Path) -> Path:
    """Copy what is built from, as a checkout of somebody else's: other times, other modes."""
    folders = ("crds", "deploy", "hack", "operator", "plugin")
    for name in ("CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", *folders):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copyfile(ROOT / name, folder / name)
    for path in folder.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return folder


def test_a_release_has_these_files(files: Path) -> None:
    assert {path.name for path in files.iterdir()} == FILES


def test_another_checkout_makes_the_same_bytes(files: Path, tmp_path: Path) -> None:
    """Times, modes and folders of whoever makes them are in none."""
    (tmp_path / "checkout").mkdir()
    checkout = other_checkout(tmp_path / "checkout")
    environ = {"SOURCE_DATE_EPOCH": "1700000000", "TZ": "Asia/Tokyo"}
    again = make_files(tmp_path / "again", checkout=checkout, umask=0o077, **environ)
    answer = release("check", files, again)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == (files / "SHA256SUMS").read_text()


def test_what_differs_is_named(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files, tmp_path / "again")
    sums = (files / "SHA256SUMS").read_text()
    (tmp_path / "again" / "SHA256SUMS").write_text(re.sub(".(?=  install.yaml)", "x", sums))
    answer = release("check", files, tmp_path / "again")
    assert (answer.returncode, answer.stderr) == (1, "error: made twice, these differ: install.yaml\n")


def test_the_sums_are_those_of_the_files(files: Path) -> None:
    """By the documented command."""
    page = (ROOT / "docs" / "verifying.md").read_text()
    assert "\nsha256sum --check --strict --ignore-missing SHA256SUMS\n" in page
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    answer = subprocess.run(command, cwd=files, capture_output=True, text=True, check=False)  # noqa: S603
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == len(FILES) - 1


@pytest.mark.parametrize("name", ["install.yaml", "namespaced.yaml"])
def test_the_files_to_apply_name_the_image_by_its_digest(files: Path, name: str) -> None:
    """Nothing else in them is changed, but how to apply them."""
    text, source = (files / name).read_text(), (ROOT / "deploy" / name).read_text()
    assert ".invalid" not in text
    assert f"#   kubectl apply -f {name}\n" in text
    assert "kubectl apply -f tuinlycredentials.yaml" in text
    made, meant = list(yaml.safe_load_all(text)), list(yaml.safe_load_all(source))
    [deployment] = [each for each in meant if each["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE
    assert made == meant


def test_the_chart_is_one_that_helm_takes(files: Path, tmp_path: Path) -> None:
    chart = files / f"tuinly-operator-chart-{VERSION}.tgz"
    try:
        helm = Helm(tmp_path)
    except BinariesError as reason:
        pytest.skip(str(reason))
    objects = [each for each in yaml.safe_load_all(helm.run("template", "tuinly-operator", str(chart))) if each]
    [deployment] = [each for each in objects if each["kind"] == "Deployment"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == f"{REPOSITORY}@{DIGEST}"
    with tarfile.open(chart) as archive:
        packed = {name.removeprefix("tuinly-operator/") for name in archive.getnames()}
        values = archive.extractfile("tuinly-operator/values.yaml")
        assert values is not None
        assert b".invalid" not in values.read()
    folder = ROOT / "deploy" / "chart"
    assert packed == {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_tag_is_the_version_and_has_its_date(tmp_path: Path) -> None:
    checkout = other_checkout(tmp_path)
    changelog = checkout / "CHANGELOG.md"
    changelog.write_text(re.sub(rf"(## \[{re.escape(VERSION)}\] - ).*", r"\1Unreleased", changelog.read_text()))
    answer = release("tag", f"v{VERSION}", checkout=checkout)
    assert answer.returncode == 1
    assert "no heading" in answer.stderr
    changelog.write_text(changelog.read_text().replace("Unreleased", "2026-11-26"))
    assert release("tag", f"v{VERSION}", checkout=checkout).returncode == 0
    answer = release("tag", "v9.8.7", checkout=checkout)
    assert answer.returncode == 1
    assert f"is not v{VERSION}" in answer.stderr


def test_the_notes_are_the_changelogs() -> None:
    """Those of this version, and of no other."""
    told = release("notes").stdout
    assert told.startswith("### Added\n")
    assert "\n## " not in told
    assert told.strip() in (ROOT / "CHANGELOG.md").read_text()


def test_each_version_of_the_changelog_says_what_an_upgrade_to_it_takes() -> None:
    versions = re.findall(r"^## \[(.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    page = (ROOT / "docs" / "upgrading.md").read_text()
    assert re.findall(r"^### (.*)", page.partition("\n## What each version changes\n")[2], re.MULTILINE) == versions
