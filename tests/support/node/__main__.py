"""`python -m tests.support.node up|down|status|run`: a node that stays until it is taken down, and commands in it."""

import argparse
import os
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

from tests.support.cluster.any_cluster import ClusterError
from tests.support.cluster.standing_cluster import Kind, StandingCluster, keep
from tests.support.node import Node, NodeError, Unavailable, find_programs
from tests.support.node.files import CONTAINERD
from tests.support.node.node import remove_cgroups
from tests.support.node.programs import check_machine

FOLDER = Path(__file__).parents[3] / ".node"


def _usage(folder: Path) -> str:  # noqa: ARG001 -- it is used in this folder alone
    return """Use it like this, as root; its network is its own:
  .venv/bin/python -m tests.support.node run kubectl get pods --all-namespaces
  .venv/bin/python -m tests.support.node run bash
make node-down ends it."""


NODE = Kind("node", "tests.support.node", _usage, remove_cgroups)


def run(pid: int, folder: Path, command: list[str]) -> NoReturn:
    """Become a command in the node's namespaces, which finds kubectl and the node's programs, logged in as admin."""
    programs = os.pathsep.join([sysconfig.get_path("scripts"), find_programs().search_path])
    environ = {
        **os.environ,
        "PATH": programs,
        "KUBECONFIG": str(folder / "admin.kubeconfig"),
        "KUBECACHEDIR": str(folder / "kubectl-cache"),
        "CONTAINERD_ADDRESS": CONTAINERD,
    }
    argv = ["nsenter", f"--target={pid}", "--net", "--mount", "--pid", "--wd=.", *command]
    os.execvpe(argv[0], argv, environ)  # noqa: S606 -- no shell: that is the point


def main() -> int:
    """Run one command; the exit status says whether it worked, for `status` whether the node runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.node", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where its files go (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="say whether this machine can run one")
    commands.add_parser("up", help="start the node, if it does not run")
    commands.add_parser("down", help="end the node and remove its data")
    commands.add_parser("status", help="say whether it runs")
    commands.add_parser("keep", help="(used by `up`) hold the node")
    inside = commands.add_parser("run", help="run a command in it, by default a shell")
    inside.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    arguments = parser.parse_args()
    command, folder = arguments.command, arguments.folder.absolute()
    node = StandingCluster(folder, NODE)
    try:
        if command == "keep":
            keep(folder, lambda folder: Node(folder, find_programs()))
            return 0
        if command == "check":
            check_machine()
            return 0
        if command == "run" and (pid := node.pid("init")) is not None:
            run(pid, folder, arguments.argv or ["bash"])
        if command == "run":
            return node.status()
        return {"up": node.up, "down": node.down, "status": node.status}[command]()
    except (ClusterError, NodeError, Unavailable) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
