"""The node's first process, in namespaces of its own: prepares them, starts the programs, and keeps them running.

    python -m tests.support.node.init FOLDER     run by unshare; node.py does it

What systemd does on other nodes: a program that ends is started again, and orphans are reaped. When this process ends,
the kernel ends all others of the namespace.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from tests.support.node.files import ADDRESS, SERVICES
from tests.support.node.programs import cgroup_roots

RESTART_SECONDS = 0.5
"""Until a program that ended is started again: it may wait for another, such as the kubelet for containerd."""
PIDS = "pids.json"
"""The file with each program's number, as it is inside."""


def prepare(cgroup: str) -> None:
    """Give the namespaces what a node finds on a machine of its own."""
    # Paths that are fixed in these programs, such as /run/containerd and /var/lib/kubelet: here they are in memory.
    for folder in ("/run", "/var/log", "/var/lib"):
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    for root in cgroup_roots():
        own = root / cgroup
        own.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # in version 1 a new one has none, and takes no process
            if (own / name).exists():
                (own / name).write_text((root / name).read_text())
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
    # So that the node's own packets to a Service get as far as kube-proxy's rules, which send them elsewhere.
    _run("ip", "route", "add", SERVICES, "dev", "lo", "src", ADDRESS)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


class Programs:
    """The node's programs, each of which runs, or is about to be started again."""

    def __init__(self, commands: dict[str, list[str]]) -> None:
        """Start them all; each writes a log by its name."""
        self._commands = commands
        self._pids: dict[int, str] = {}
        self._due: dict[str, float] = {}
        for name in commands:
            self._start(name)

    def keep(self) -> NoReturn:
        """Start again what ends, for ever."""
        while True:
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                name = self._pids.pop(pid, None)
                if name is not None:
                    self._due[name] = time.monotonic() + RESTART_SECONDS
                    self._tell()
            for name in [name for name, due in self._due.items() if due <= time.monotonic()]:
                del self._due[name]
                self._start(name)
            time.sleep(0.05)

    def _start(self, name: str) -> None:
        command = self._commands[name]
        with Path("logs", f"{name}.log").open("ab") as log:
            output = log.fileno()
            actions = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
            self._pids[os.posix_spawn(command[0], command, os.environ, file_actions=actions, setsid=True)] = name
        self._tell()

    def _tell(self) -> None:
        scratch = Path(f"{PIDS}.new")
        scratch.write_text(json.dumps({name: pid for pid, name in self._pids.items()}))
        scratch.replace(PIDS)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)  # noqa: S603 -- mount and ip


def main() -> NoReturn:
    """Be the first process."""
    os.chdir(sys.argv[1])
    plan = json.loads(Path("plan.json").read_text())
    prepare(plan["cgroup"])
    Programs(plan["commands"]).keep()


if __name__ == "__main__":
    main()
