"""`python -m tests.support.cluster up|down|status`: a local cluster that stays until it is taken down."""

import argparse
import sys
import sysconfig
from pathlib import Path

from tests.support.binaries import BinariesError, find
from tests.support.cluster import ClusterError, LocalCluster
from tests.support.cluster.standing_cluster import Kind, StandingCluster, keep

FOLDER = Path(__file__).parents[3] / ".cluster"


def _usage(folder: Path) -> str:
    return f"""Use it like this:
  export KUBECONFIG={folder / "kubeconfig"}
  {Path(sysconfig.get_path("scripts")) / "kubectl"} get namespaces
It has an API server, its storage and its controllers, but no node: no Pod runs. make cluster-down ends it."""


CLUSTER = Kind("cluster", "tests.support.cluster", _usage)


def main() -> int:
    """Run one command; the exit status says whether it worked, for `status` whether the cluster runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.cluster", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where the cluster's files go (default: %(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the cluster, if it does not run, and write its kubeconfig")
    commands.add_parser("down", help="end the cluster and remove its data")
    commands.add_parser("status", help="say which of its programs run")
    commands.add_parser("keep", help="(used by `up`) hold the cluster")
    arguments = parser.parse_args()
    command, folder = arguments.command, arguments.folder.absolute()
    try:
        if command == "keep":
            keep(folder, lambda folder: LocalCluster(folder, find()))
            return 0
        cluster = StandingCluster(folder, CLUSTER)
        return {"up": cluster.up, "down": cluster.down, "status": cluster.status}[command]()
    except (BinariesError, ClusterError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
