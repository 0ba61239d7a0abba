"""The operator's image: built as users build it, looked into, and run without a container engine as its Pod runs it."""

import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
UID = 1000650000
"""Such as OpenShift gives to a namespace; no passwd has it."""

_CONTAINED = """
set -eu
mount --bind {root} {root}
mount -t proc proc {root}/proc
mount --rbind /dev {root}/dev
mount -t tmpfs tmpfs {root}/run
{copies}
mount -o remount,bind,ro {root}/run
mount -o remount,bind,ro {root}
exec env --ignore-environment {environ} {setpriv} --no-new-privs {chroot} --userspec={uid}:0 --groups= {root} "$@"
"""


class Unavailable(Exception):  # noqa: N818 -- no error: a reason to skip a test
    """No image can be built or run on this machine; the message says what is missing."""


@dataclass(frozen=True)
class Image:
    """An archive of an image, of the layout that OCI describes (image-spec, image-layout.md)."""

    archive: Path

    def digest(self) -> str:
        """Return the digest of its manifest, which stands for all that it is."""
        digest: str = self._index()["manifests"][0]["digest"]
        return digest

    def config(self) -> Json:
        """Return its configuration: user, environment, entrypoint, labels."""
        with tarfile.open(self.archive) as archive:
            config: Json = json.loads(_blob(archive, self._manifest()["config"]["digest"]))["config"]
        return config

    def own_files(self) -> list[tarfile.TarInfo]:
        """Return what is in its last layer, which is the operator's own; those below it are the base's."""
        *_, digest = self._layers()
        with self._layer(digest) as layer:
            return layer.getmembers()

    def unpack(self, folder: Path) -> None:
        """Write what a container of it finds at its root to `folder`, as root, so that owners and modes are right."""
        folder.chmod(0o755)
        for digest in self._layers():
            with self._layer(digest) as layer:
                layer.extractall(folder, filter="fully_trusted")  # noqa: S202 -- it was built here

    def _layers(self) -> list[str]:
        return [layer["digest"] for layer in self._manifest()["layers"]]

    def _layer(self, digest: str) -> tarfile.TarFile:
        with tarfile.open(self.archive) as archive:
            return tarfile.open(fileobj=io.BytesIO(_blob(archive, digest)))

    def _index(self) -> Json:
        with tarfile.open(self.archive) as archive:
            index: Json = json.loads(_read(archive, "index.json"))
        return index

    def _manifest(self) -> Json:
        with tarfile.open(self.archive) as archive:
            manifest: Json = json.loads(_blob(archive, self.digest()))
        return manifest


def check_machine() -> None:
    """Check that an image can be built here; nothing is built.

    Raises:
        Unavailable: it cannot; the message tells what is missing.
    """
    _base_images("--check")


def build(archive: Path, *, source: Path = ROOT, name: str = "localhost/tuinly-operator:test") -> Image:
    """Build the image from `source`, on a base from Debian's packages, with none of an engine's caches.

    Raises:
        Unavailable: there is neither an engine nor a way to make the base; the message tells.
        RuntimeError: the build failed; the message has what it said.
    """
    bases = dict(each.split("=", 1) for each in _base_images("--missing").split())
    environ = {**os.environ, **bases, "IMAGE": name, "ARCHIVE": str(archive)}
    built = subprocess.run(  # noqa: S603 -- our own script
        [source / "hack" / "image.sh", "--no-cache"], env=environ, capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        raise RuntimeError(f"no image was built:\n{built.stderr}")
    return Image(archive)


def contained(root: Path, files: Mapping[str, Path], environ: Mapping[str, str]) -> Sequence[str]:
    """Return what to put before a program's arguments to have it run in the unpacked image `root`.

    So as the Pod runs it: as a user that nobody knows, without capabilities or a way to get any, and with nothing that
    can be written to. The network is the machine's.

    Args:
        root: where the image was unpacked to.
        files: copies that the program finds below /run, by their absolute path.
        environ: its whole environment.

    Raises:
        Unavailable: that takes root, and the programs of util-linux.
    """
    programs = {name: shutil.which(name) for name in ("unshare", "setpriv", "chroot")}
    if os.geteuid() != 0 or None in programs.values():
        raise Unavailable("an image is run by root, with unshare, setpriv and chroot")
    copies = [
        f"mkdir -p {root}{Path(path).parent}; cp {shlex.quote(str(source))} {root}{path}; chmod 444 {root}{path}"
        for path, source in files.items()
    ]
    script = _CONTAINED.format(
        root=shlex.quote(str(root)),
        copies="\n".join(copies),
        environ=" ".join(shlex.quote(f"{name}={value}") for name, value in environ.items()),
        setpriv=programs["setpriv"],
        chroot=programs["chroot"],
        uid=UID,
    )
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


def _base_images(option: str) -> str:
    told = subprocess.run(  # noqa: S603 -- our own script
        [ROOT / "hack" / "base-image.sh", option], capture_output=True, text=True, check=False
    )
    if told.returncode != 0:
        raise Unavailable(told.stderr.strip().removeprefix("error: "))
    return told.stdout


def _blob(archive: tarfile.TarFile, digest: str) -> bytes:
    blob = _read(archive, f"blobs/{digest.replace(':', '/')}")
    if f"sha256:{hashlib.sha256(blob).hexdigest()}" != digest:
        raise ValueError(f"{digest} is damaged")
    return blob


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file.read()
