"""What is rendered from deploy/'s kustomizations is what is committed, with its comments."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = yaml.safe_load((DEPLOY / "base" / "kustomization.yaml").read_text())
RENDERED = (
    "deploy/install.yaml",
    "deploy/namespaced.yaml",
    "deploy/chart/templates/definition.yaml",
    "deploy/chart/files/alerts.yaml",
    "deploy/chart/files/push-policy.yaml",
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what `make manifests` would write."""
    folder = tmp_path_factory.mktemp("rendered")
    subprocess.run([sys.executable, ROOT / "hack" / "manifests.py", folder], check=True, timeout=60)  # noqa: S603
    return folder


@pytest.mark.rule("OBS-12")
@pytest.mark.parametrize("file", RENDERED)
def test_the_files_are_current(rendered: Path, file: str) -> None:
    assert (ROOT / file).read_text() == (rendered / file).read_text(), "run `make manifests`"


def test_nothing_else_is_rendered(rendered: Path) -> None:
    assert {str(path.relative_to(rendered)) for path in rendered.rglob("*") if path.is_file()} == set(RENDERED)


@pytest.mark.rule("OBS-12")
@pytest.mark.parametrize("file", ["deploy/install.yaml", "deploy/namespaced.yaml"])
def test_each_comment_of_the_base_stays_with_what_it_is_about(file: str) -> None:
    """A reader of the rendered file misses nothing: each comment is before or behind the same words as in the base."""
    text = (ROOT / file).read_text()
    for name in BASE["resources"]:
        source = (DEPLOY / "base" / name).read_text()
        for behind in re.findall(r"^ *(- )?(\S.*?) +(# .*)$", source, re.MULTILINE):
            assert re.search(rf"{re.escape(behind[1])} +{re.escape(behind[2])}$", text, re.MULTILINE), behind
        for block, after in re.findall(r"((?:^ *#.*\n)+) *([^\s:]+)", source, re.MULTILINE):
            lines = [re.escape(line.strip()) for line in block.splitlines()]
            assert re.search("\n *".join([*lines, re.escape(after)]), text), block


def test_a_base_for_others_names_nothing_outside_of_itself() -> None:
    """Else kustomize refuses it where it is taken from a repository; and crds/ can be applied as a folder."""
    files = {path.name for path in (DEPLOY / "base").iterdir()} - {"kustomization.yaml"}
    assert {*BASE["resources"], *BASE["configurations"]} == files
    assert not (ROOT / "crds" / "kustomization.yaml").exists()
