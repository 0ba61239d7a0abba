"""A program as the strictest Pod runs it: a user that nobody knows, an empty environment, and nothing to write to.

As root it is in a mount namespace in which all is read-only; as anybody else in a user namespace of its own as well.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

UID = 65532
"""The user of the image; no passwd has it."""
_ROOT = Path(__file__).parents[2]

# In a user namespace what is not the user's own cannot be made read-only; the user cannot write there either.
_READ_ONLY = """
while read -r _ where _; do
  [ "$where" = /proc ] || mount -o remount,bind,ro "$where" 2>&- || true
done < /proc/self/mounts
"""
_AS_ROOT = ["unshare", "--mount", "--propagation", "private"]
_AS_ANYBODY = ["unshare", "--map-root-user", "--mount", "--propagation", "private"]
_BY_ROOT = f"setpriv --reuid={UID} --regid={UID} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all"
_BY_ANYBODY = f"unshare --map-user={UID} --map-group={UID}"


class NotPossible(Exception):  # noqa: N818 -- no error: a reason to skip a test
    """Neither way is open on this machine."""


def confinement(files: Mapping[str, Path], environ: Mapping[str, str]) -> Sequence[str]:
    """Return what to put before a program's arguments to have it run like this.

    Args:
        files: copies that it finds below /run, by their absolute path.
        environ: its whole environment.

    Raises:
        NotPossible: this machine has no way to do so.
    """
    root = os.geteuid() == 0 and shutil.which("setpriv") is not None and _works(_AS_ROOT)
    if not root and not _works(_AS_ANYBODY):
        raise NotPossible("neither root with a mount namespace nor a user namespace is to be had")
    lines = ["set -eu", "mount -t tmpfs tmpfs /run"]
    for path, source in files.items():
        parts = shlex.quote(str(source)), shlex.quote(path)
        lines.append(f"mkdir -p {shlex.quote(str(Path(path).parent))}; cp {' '.join(parts)}; chmod 444 {parts[1]}")
    if root:
        lines += _opened({Path(sys.base_prefix), Path(sys.prefix), _ROOT})
    lines += [_READ_ONLY, f'exec {_BY_ROOT if root else _BY_ANYBODY} env --ignore-environment "$@"']
    variables = [f"{name}={value}" for name, value in environ.items()]
    return [*(_AS_ROOT if root else _AS_ANYBODY), "sh", "-c", "\n".join(lines), "sh", *variables]


def _works(argv: Sequence[str]) -> bool:
    if shutil.which(argv[0]) is None:
        return False
    return subprocess.run([*argv, "true"], capture_output=True, check=False).returncode == 0  # noqa: S603 -- ours


def _opened(folders: set[Path]) -> Iterator[str]:
    """Lines that let another user come to folders below some that are closed to others, such as /root."""
    closed = {each: top for each in sorted(folders) if (top := _closed_parent(each)) is not None}
    kept = {each: f"/run/kept/{number}" for number, each in enumerate(closed)}
    for each, place in kept.items():
        yield f"mkdir -p {place}; mount --rbind {shlex.quote(str(each))} {place}"
    for top in sorted(set(closed.values())):
        yield f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(top))}"
    for each, place in kept.items():
        folder = shlex.quote(str(each))
        yield f"mkdir -p {folder}; mount --rbind {place} {folder}"


def _closed_parent(folder: Path) -> Path | None:
    return next((each for each in reversed(folder.parents) if not each.stat().st_mode & 0o001), None)
