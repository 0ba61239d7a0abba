"""What a node needs of the machine: rights, namespaces, cgroups, Debian's programs, and those that are built."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support import binaries
from tests.support.binaries import BinariesError

CNI = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins puts them."""
CGROUPS = Path("/sys/fs/cgroup")
_TOOLS = {
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
"""Programs, and the Debian packages that have them."""


class Unavailable(Exception):  # noqa: N818 -- no error where a node is optional: a reason to go on without
    """No node can run on this machine; the message says why in one line."""


@dataclass(frozen=True)
class Programs:
    """Where the node's programs are, by name."""

    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> str:
        """Return the path of one."""
        return str(self.paths[name])

    @property
    def search_path(self) -> str:
        """A PATH on which they find each other, such as containerd its shim."""
        folders = {str(path.parent) for path in self.paths.values()}
        return os.pathsep.join([*sorted(folders), os.environ.get("PATH", os.defpath)])


def find_programs() -> Programs:
    """Find what a node needs, without building any.

    Raises:
        Unavailable: something is missing that this machine cannot give, or that is yet to be installed or built.
    """
    check_machine()
    try:
        return Programs(binaries.find_node())
    except BinariesError as error:
        raise Unavailable(str(error)) from None


def check_machine() -> None:
    """Check all but the programs that are built.

    Raises:
        Unavailable: something is missing; the message says what.
    """
    if sys.platform != "linux":
        raise Unavailable("a node needs Linux")
    if os.geteuid() != 0:
        raise Unavailable("a node needs root")
    missing = sorted({package for name, package in _TOOLS.items() if shutil.which(name) is None})
    if not (CNI / "ptp").exists():
        missing.append("containernetworking-plugins")
    if missing:
        raise Unavailable(f"a node needs Debian's {', '.join(missing)}: run `make extras`")
    if not any(os.access(folder, os.W_OK) for folder in cgroup_roots()) or _read_only(CGROUPS):
        raise Unavailable(f"a node needs cgroups of its own, and {CGROUPS} is not writable")
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"],  # noqa: S607 -- found above
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        raise Unavailable(f"a node needs namespaces of its own: {tried.stderr.strip()}")


def policies_can_be_enforced() -> bool:
    """Whether kernel and Debian's programs can match packets against sets of addresses, as what enforces them does."""
    trial = "ipset create trial hash:ip && iptables -A FORWARD -m set --match-set trial src -j REJECT"
    command = ["unshare", "--net", "sh", "-c", trial]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 -- found above


def cgroup_roots() -> list[Path]:
    """Return the root of each cgroup hierarchy: one in version 2, one per controller in version 1."""
    if (CGROUPS / "cgroup.procs").exists():
        return [CGROUPS]
    return [folder for folder in sorted(CGROUPS.glob("*")) if (folder / "cgroup.procs").exists()]


def _read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
