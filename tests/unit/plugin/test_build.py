"""What `make plugin` builds: one file that kubectl finds by its name, and a wheel with the same in it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support.plugin import ROOT
from tests.unit.plugin.program import run


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    subprocess.run([sys.executable, ROOT / "hack" / "plugin.py", folder], check=True, capture_output=True)  # noqa: S603
    (folder / "kubectl_complete-tuinly").symlink_to("kubectl-tuinly")
    return folder


def modules(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as opened:
        return {
            name
            for name in opened.namelist()
            if name.startswith(("kubectl_tuinly/", "tuinly_operator/")) and name.endswith(".py")
        }


@pytest.mark.rule("PLUGIN-16")
def test_both_have_all_of_the_plugin_and_of_the_operator_the_pure_parts(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    ours = {str(file.relative_to(ROOT / "plugin")) for file in (ROOT / "plugin" / "kubectl_tuinly").rglob("*.py")}
    package = ROOT / "operator"
    shared = [file for name in ("base", "domain") for file in (package / "tuinly_operator" / name).rglob("*.py")]
    theirs = {"tuinly_operator/__init__.py", *(str(file.relative_to(package)) for file in shared)}
    assert modules(wheel) == modules(built / "kubectl-tuinly") == ours | theirs


@pytest.mark.rule("PLUGIN-16")
def test_the_file_needs_nothing_but_python(built: Path) -> None:
    """Run by an interpreter that sees no site-packages: rendering takes the operator's rules and both libraries."""
    program = [sys.executable, "-I", "-S", str(built / "kubectl-tuinly")]
    ran = run("render", "-f", str(ROOT / "deploy" / "samples" / "storefront.yaml"), program=program)
    assert ran.status == 0, ran.err
    assert "MADE-UP-ACCESS-TOKEN" in ran.out
    code = "import sys; sys.path.insert(0, sys.argv[1]); from kubectl_tuinly.edges import screen; "
    code += "screen.shows_output = lambda: True; screen.show_steps([])"
    drawn = run(program=[sys.executable, "-I", "-S", "-c", code, str(built / "kubectl-tuinly")])
    assert drawn.status == 0, drawn.err


@pytest.mark.rule("PLUGIN-16")
def test_kubectl_finds_it_and_asks_it_for_completions(built: Path) -> None:
    environ = {**os.environ, "PATH": f"{built}{os.pathsep}{os.environ['PATH']}", "KUBECONFIG": "/nonexistent"}
    kubectl = Path(sysconfig.get_path("scripts")) / "kubectl"

    def ask(*words: str) -> str:
        answer = subprocess.run([kubectl, *words], capture_output=True, text=True, timeout=60, check=True, env=environ)  # noqa: S603
        return answer.stdout

    assert "kubectl tuinly COMMAND --help" in ask("tuinly", "--help")
    assert "--watch" in ask("__complete", "tuinly", "status", "--w")
    assert (
        ask("__complete", "tuinly", "ren").splitlines()[0]
        == "renew\tforce a new token now, for example as the present one has leaked"
    )
