"""Makes what a release consists of, apart from what only the forge can do: make release-files, make release-check.

The same commit gives the same bytes, where the Python and its libraries are the same: times are the commit's, modes and
order are fixed, and lists of contents have neither a time nor a number of their own.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from manifests import HOW_TO_APPLY
from wheels import build_wheel

ROOT: Final = Path(__file__).parents[1]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION: Final[str] = PROJECT["version"]
PLACEHOLDER: Final = f"registry.invalid/tuinly-operator:{VERSION}"
SUMS: Final = "SHA256SUMS"
PYTHON_SBOM: Final = "sbom-python.cdx.json"

RELEASED: Final = """\
# The definition comes first. Verify what you downloaded: docs/verifying.md.
#
#   kubectl apply -f tuinlycredentials.yaml
#   kubectl apply -f {file}"""


class ReleaseError(Exception):
    """Something is not fit for a release; the message says what."""


def main() -> int:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(prog="hack/release.py")
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("tag", help="whether a tag of git fits version and changelog").add_argument("tag")
    files = steps.add_parser("files", help="all files but lists of images' contents")
    files.add_argument("image", help="what is to be pulled: NAME:TAG@sha256:…")
    files.add_argument("folder", type=Path)
    files.add_argument("--offline", action="store_true", help="leave out the list of Python packages")
    steps.add_parser("wheel", help="the operator's wheel alone").add_argument("folder", type=Path)
    image = steps.add_parser("image-sbom", help="what an image's archive is made of")
    image.add_argument("archive", type=Path)
    image.add_argument("file", type=Path)
    steps.add_parser("notes", help="what the changelog says of the version")
    steps.add_parser("check", help="what a comparison of two runs finds").add_argument("folders", type=Path, nargs=2)
    wanted = parser.parse_args()
    os.umask(0o022)  # a wheel has the modes of its files, those that are made on the way as well
    try:
        if wanted.step == "tag":
            check_tag(wanted.tag)
        elif wanted.step == "files":
            make_files(wanted.folder, wanted.image, with_sbom=not wanted.offline)
        elif wanted.step == "wheel":
            wheel(wanted.folder, os.environ)
        elif wanted.step == "image-sbom":
            image_sbom(wanted.archive, wanted.file)
        elif wanted.step == "check":
            compare(*wanted.folders)
        else:
            print(notes())
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


# --- What the version is called


def check_tag(tag: str) -> None:
    """Refuse a tag that is not the version's, and a version whose date the changelog does not tell."""
    if tag != f"v{VERSION}":
        raise ReleaseError(f"the tag {tag} is not v{VERSION}, the version of pyproject.toml: make version VERSION=…")
    if not re.search(rf"^## \[{re.escape(VERSION)}\] - \d{{4}}-\d\d-\d\d$", changelog(), re.MULTILINE):
        raise ReleaseError(f"CHANGELOG.md has no heading of {VERSION} with a date")


def notes() -> str:
    """Return what changed, as the changelog tells it."""
    _, found, rest = changelog().partition(f"\n## [{VERSION}]")
    if not found:
        raise ReleaseError(f"CHANGELOG.md says nothing of {VERSION}")
    return re.split(r"^## ", rest.partition("\n")[2], flags=re.MULTILINE)[0].strip()


def changelog() -> str:
    """Return the changelog."""
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# --- The files


def make_files(folder: Path, image: str, *, with_sbom: bool) -> None:
    """Write everything into `folder`, with sums of all that is in it by then."""
    folder.mkdir(parents=True, exist_ok=True)
    environ = os.environ | {"SOURCE_DATE_EPOCH": str(commit_time()), "TZ": "UTC"}  # a zip file has local times
    for name in ("install.yaml", "namespaced.yaml"):
        (folder / name).write_text(manifest(name, image), encoding="utf-8")
    shutil.copyfile(ROOT / "crds" / "tuinlycredentials.yaml", folder / "tuinlycredentials.yaml")
    (folder / f"tuinly-operator-chart-{VERSION}.tgz").write_bytes(chart(image))
    wheel(folder, environ)
    run([sys.executable, str(ROOT / "hack" / "plugin.py"), str(folder)], environ)
    if with_sbom:
        python_sbom(folder)
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (folder / SUMS).write_text(sums, encoding="utf-8")


def commit_time() -> int:
    """Return the time of the commit; 1980, the first that a zip file can tell, where there is no git."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- words of our own
    return int(os.environ.get("SOURCE_DATE_EPOCH") or answer.stdout or "315532800")


def manifest(name: str, image: str) -> str:
    """Return a file to apply, with an image that a cluster can pull."""
    text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
    text = exchanged(text, HOW_TO_APPLY.format(file=name), RELEASED.format(file=name))
    return exchanged(text, f"image: {PLACEHOLDER}  # to be set", f"image: {image}")


def chart(image: str) -> bytes:
    """Return the chart as Helm packs it, but with the commit's time, and with an image that a cluster can pull."""
    name, _, digest = image.partition("@")
    repository, _, tag = name.rpartition(":")
    values = (ROOT / "deploy" / "chart" / "values.yaml").read_text(encoding="utf-8")
    values = exchanged(
        values, "The image. No cluster can pull the one that is named here: it is to be set.", "The image."
    )
    values = exchanged(values, PLACEHOLDER.rpartition(":")[0], repository)
    if digest:
        values = exchanged(
            values, 'digest: ""   # sha256:…; wins over the tag', f"digest: {digest}  # wins over the tag"
        )
    if tag != VERSION:
        values = exchanged(values, 'tag: ""  ', f"tag: {tag}  ")
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=commit_time()) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path in sorted((ROOT / "deploy" / "chart").rglob("*")):
            if path.is_file():
                entry = tarfile.TarInfo(f"tuinly-operator/{path.relative_to(ROOT / 'deploy' / 'chart')}")
                content = values.encode() if path.name == "values.yaml" else path.read_bytes()
                entry.size, entry.mtime, entry.mode = len(content), commit_time(), 0o644
                archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def exchanged(text: str, old: str, new: str) -> str:
    """Replace what must be there once."""
    if text.count(old) != 1:
        raise ReleaseError(f"{old!r} is there {text.count(old)} times, not once")
    return text.replace(old, new)


def wheel(folder: Path, environ: Mapping[str, str]) -> None:
    """Build the operator's wheel."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("pyproject.toml", "README.md", "LICENSE", "operator"):
            copy(ROOT / name, Path(scratch, name))
        build_wheel(Path(scratch), folder, environ)


def copy(source: Path, place: Path) -> None:
    """Copy sources, with the mode that new files have, in place of the checkout's."""
    if source.is_dir():
        for each in source.iterdir():
            if each.name != "__pycache__" and each.suffix != ".egg-info":
                copy(each, place / each.name)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, place)


# --- Lists of contents


def python_sbom(folder: Path) -> None:
    """List the packages that the operator runs on, as they are installed from the lock."""
    with tempfile.TemporaryDirectory() as scratch:
        venv.create(scratch, with_pip=False)
        python = str(Path(scratch, "bin", "python"))
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
        lock = str(ROOT / "requirements" / "operator.lock")
        run([*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", lock])
        # By its name, as pip would note the folder that a file comes from.
        run([*pip, "--no-deps", "--no-index", "--find-links", str(folder), f"{PROJECT['name']}=={VERSION}"])
        command = [str(Path(sys.executable).parent / "cyclonedx-py"), "environment", "--output-reproducible"]
        command += ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application", "--output-format", "JSON"]
        run([*command, "--output-file", str(folder / PYTHON_SBOM), python])


def image_sbom(archive: Path, file: Path) -> None:
    """List what is in an image, Python's packages and the base's."""
    finder = [sys.executable, "-m", "tests.support.binaries", "--only", "syft"]
    syft = subprocess.run(finder, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()  # noqa: S603
    command = [syft, "scan", "--quiet", "--output", "cyclonedx-json", f"oci-archive:{archive}"]
    command += ["--source-name", PROJECT["name"], "--source-version", VERSION]
    environ = os.environ | {"SYFT_CHECK_FOR_APP_UPDATE": "false"}
    listed = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603 -- our own syft
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(timeless(json.loads(listed)), indent=1) + "\n", encoding="utf-8")


def timeless(document: dict[str, Any]) -> dict[str, Any]:
    """Return a list of contents without what differs from run to run."""
    metadata = {name: value for name, value in document["metadata"].items() if name != "timestamp"}
    return {name: value for name, value in document.items() if name != "serialNumber"} | {"metadata": metadata}


def compare(first: Path, second: Path) -> None:
    """Refuse two runs whose files differ, and print what was made."""
    one, other = ((folder / SUMS).read_text(encoding="utf-8").splitlines() for folder in (first, second))
    if differing := sorted({line.split()[1] for line in {*one} ^ {*other}}):
        raise ReleaseError(f"made twice, these differ: {', '.join(differing)}")
    print("\n".join(one))


def run(command: list[str], environ: Mapping[str, str] | None = None) -> None:
    """Run a program, which must succeed."""
    subprocess.run(command, env=environ, check=True)  # noqa: S603 -- words of our own


if __name__ == "__main__":
    sys.exit(main())
