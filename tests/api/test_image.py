"""The image: the same bytes each time, small, nothing in it that it does not need, and at work as its Pod runs it.

It is built here, twice, which takes a minute; on a machine that cannot, the tests are skipped.
"""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.cluster import Cluster
from tests.support.image import ROOT, UID, Image, Unavailable, build, contained
from tests.support.operator import OperatorProcess
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant

ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
"""Where a Pod has its login; /var/run is a link to /run."""
CA_BUNDLE = "/run/tuinly/ca.pem"
MEGABYTE = 1_000_000
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


pytestmark = pytest.mark.timeout(600)  # seconds: a build on a busy machine


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Return the image of this checkout."""
    try:
        return build(tmp_path_factory.mktemp("image") / "image.tar")
    except Unavailable as reason:
        pytest.skip(f"no image can be built here: {reason}")


@pytest.fixture(scope="module")
def root(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the unpacked image."""
    folder = tmp_path_factory.mktemp("root")
    image.unpack(folder)
    yield folder
    shutil.rmtree(folder)


def other_checkout(folder: Path) -> Path:
    """Copy what is built from, as a checkout of somebody else's: other times, other modes, other leftovers."""
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],  # noqa: S607 -- as the scripts do
        cwd=ROOT,
        text=True,
    )
    for name in filter(None, listed.split("\0")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, path)
        path.chmod(0o700 if os.access(ROOT / name, os.X_OK) else 0o600)
    git = ROOT / ".git"
    shutil.copytree(git, folder / ".git") if git.is_dir() else shutil.copyfile(git, folder / ".git")
    (folder / "operator" / "tuinly_operator" / "__pycache__").mkdir()
    (folder / "operator" / "tuinly_operator" / "__pycache__" / "leftover.pyc").write_text("of another Python")
    return folder


@pytest.mark.rule("SEC-19")
def test_the_same_source_gives_the_same_bytes(image: Image, tmp_path: Path) -> None:
    """By the digest that stands for them all."""
    source = other_checkout(tmp_path / "source")
    assert build(tmp_path / "image.tar", source=source).digest() == image.digest()


@pytest.mark.rule("SEC-13")
def test_it_is_small(image: Image) -> None:
    files = image.own_files()
    assert {file.name.split("/")[0] for file in files} == {"opt"}
    assert sum(file.size for file in files) < 60 * MEGABYTE


@pytest.mark.rule("SEC-13")
def test_nothing_is_in_it_that_it_does_not_need(root: Path) -> None:
    """No package manager, no shell or compiler, no tests, and none of what only a build needs."""
    programs = {path.name for folder in ("usr/bin", "usr/sbin", "opt/tuinly/bin") for path in (root / folder).iterdir()}
    assert "tuinly-operator" in programs
    assert programs.isdisjoint(
        {"sh", "bash", "dash", "busybox", "pip", "pip3", "apt", "dpkg", "gcc", "cc", "ld", "perl"}
    )
    [packages] = (root / "opt" / "tuinly" / "lib").glob("python3.*/site-packages")
    names = {path.name.partition("-")[0] for path in packages.iterdir()}
    assert {"tuinly_operator", "kopf"} <= names
    assert names.isdisjoint({"pip", "setuptools", "wheel", "pytest", "tests", "bench", "hypothesis"})
    assert not (root / "source").exists()
    assert [
        path for path in root.rglob("*") if not path.is_symlink() and path.is_file() and path.stat().st_mode & 0o6000
    ] == []


@pytest.mark.rule("SEC-13")
def test_anybody_may_read_it_and_nobody_but_root_may_write_to_it(root: Path) -> None:
    """Whatever the modes in the checkout were, since no two clusters run it as the same user."""
    modes = {path.stat().st_mode & 0o077 for path in (root / "opt" / "tuinly").rglob("*") if not path.is_symlink()}
    assert modes == {0o044, 0o055}


@pytest.mark.rule("SEC-13")
def test_it_tells_what_it_is(image: Image) -> None:
    """By the labels that OCI describes, and a user that Kubernetes can tell from root."""
    config = image.config()
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["title"] == PROJECT["name"]
    assert labels["version"] == PROJECT["version"]
    assert labels["description"] == PROJECT["description"]
    assert labels["licenses"] == "Apache-2.0"
    revision = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()  # noqa: S607 -- as the scripts do
    assert labels["revision"].removesuffix("-modified") == revision
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels["created"])
    assert labels["base.name"].startswith("localhost/tuinly-base-runtime:")
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["tuinly-operator"]


@pytest.fixture
def files(cluster: Cluster, sandbox: SandboxProcess, operator_login: Path, tmp_path: Path) -> dict[str, Path]:
    """Return the files that the operator's Pod finds: those of its ServiceAccount, and the sandbox's authority."""
    token = tmp_path / "token"
    token.write_text(json.loads(operator_login.read_text())["users"][0]["user"]["token"])
    return {f"{ACCOUNT}/token": token, f"{ACCOUNT}/ca.crt": cluster.ca_file, CA_BUNDLE: sandbox.ca_file}


@pytest.fixture
def in_a_pod(cluster: Cluster, image: Image, root: Path, files: dict[str, Path]) -> Sequence[str]:
    """Return what runs a program of the image as in the operator's Pod."""
    server = urlsplit(cluster.server)
    environ = dict(variable.split("=", 1) for variable in image.config()["Env"])
    environ |= {"KUBERNETES_SERVICE_HOST": str(server.hostname), "KUBERNETES_SERVICE_PORT": str(server.port or 443)}
    try:
        return contained(root, files, environ)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.rule("SEC-18")
def test_it_does_its_work_as_any_user_with_nothing_to_write_to(
    sandbox: SandboxProcess, tenant: Tenant, image: Image, in_a_pod: Sequence[str], tmp_path: Path
) -> None:
    """Logged in as a Pod is, for a token and its refresh: what was left out of the image is not missed."""
    flags = ("--token-url", sandbox.https_token_url, "--graphql-url", sandbox.https_graphql_url)
    with OperatorProcess(
        *flags,
        *("--ca-bundle", CA_BUNDLE),
        kubeconfig=None,
        log_file=tmp_path / "log",
        launcher=in_a_pod,
        program=image.config()["Entrypoint"],
    ) as operator:
        operator.wait_ready()
        assert status_of(operator.pid) == {"Uid": UID, "CapEff": 0, "CapPrm": 0, "NoNewPrivs": 1}
        tenant.start({"verification": {"mode": "Enabled"}}, lifetime=8)
        tenant.await_token(other_than=tenant.await_ready().token)
        assert operator.terminate() == 0
        assert operator.complaints(tenant.objects.namespace) == []


def status_of(pid: int) -> dict[str, int]:
    """Return who a process is, and what it may do, as the kernel says."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    read = {"Uid": 10, "CapEff": 16, "CapPrm": 16, "NoNewPrivs": 10}
    return {name: int(lines[name].split()[0], base) for name, base in read.items()}


# --- The script that builds it ----------------------------------------------------------------------------------------


def make_image(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- our own script
        [ROOT / "hack" / "image.sh"], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


@pytest.mark.rule("SEC-20")
def test_without_anything_to_build_with_it_says_how_to_get_it(tmp_path: Path) -> None:
    for name in ("bash", "dirname", "sed", "uname", "git", "date"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    ended = make_image(PATH=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "no docker, podman or buildah that answers" in ended.stderr
    assert "apt-get install --no-install-recommends buildah" in ended.stderr


@pytest.mark.rule("SEC-20")
def test_a_foreign_platform_needs_an_interpreter_in_the_kernel() -> None:
    if Path("/proc/sys/fs/binfmt_misc/qemu-s390x").exists():
        pytest.skip("this machine runs programs for s390x")
    ended = make_image(PLATFORM="linux/s390x")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "its kernel has no binfmt entry qemu-s390x" in ended.stderr
    assert "apt-get install qemu-user-static" in ended.stderr
