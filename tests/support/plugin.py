"""The plugin `kubectl tuinly` as people run it: a process of its own, as somebody with some rights."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
SECONDS = 90.0
"""After which it hangs; the machine may be busy."""


class Ran(NamedTuple):
    """What a command gave."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Plugin:
    """The plugin for one user; `login` are kubectl's flags."""

    cluster: Cluster
    login: tuple[str, ...] = ()

    def run(self, *words: str, given: str | None = None, kubeconfig: str = "") -> Ran:
        """Run a command to its end, by the admin's kubeconfig or by others."""
        answer = subprocess.run(  # noqa: S603 - our own
            [*command(), *words, *self.login],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            env=environment(self.cluster) | ({"KUBECONFIG": kubeconfig} if kubeconfig else {}),
        )
        return Ran(answer.returncode, answer.stdout, answer.stderr)

    @contextmanager
    def started(self, *words: str) -> Iterator[Iterator[str]]:
        """Run a command that goes on; yield the lines that it prints, as they come."""
        process = subprocess.Popen(  # noqa: S603 - our own
            [*command(), *words, *self.login],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(self.cluster),
        )
        with process:
            try:
                yield iter(process.stdout or ())
            finally:
                process.terminate()

    def bound(self, role: str, user: str, namespace: str) -> "Plugin":
        """The plugin for a user who has one of the built-in roles in a namespace, and nothing else."""
        words = ("create", "rolebinding", f"{user}-{role}", f"--clusterrole={role}", f"--user={user}")
        self.cluster.kubectl(*words, "--namespace", namespace)
        # What an installation adds to the built-in roles takes a moment to get there.
        asked = ("auth", "can-i", "get", "tuinlycredentials.tuinly.com", "--as", user, "--namespace", namespace)
        wait_until(lambda: "yes" in self.cluster.kubectl(*asked, check=False), what=f"{user} may {role}")
        return self.by(user)

    def by(self, user: str) -> "Plugin":
        """The plugin for another user."""
        return Plugin(self.cluster, ("--as", user))


def command() -> list[str]:
    """The plugin's command line, measured by coverage."""
    return [sys.executable, "-m", "kubectl_tuinly"]


def environment(cluster: Cluster) -> dict[str, str]:
    """What the plugin finds around it: kubectl on PATH, and the admin's kubeconfig."""
    scripts = sysconfig.get_path("scripts")
    return {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "plugin"),
        "KUBECONFIG": str(cluster.kubeconfig),
        "KUBECACHEDIR": str(cluster.directory / "kubectl-cache"),
        "PYTHONIOENCODING": "utf-8",
    }
