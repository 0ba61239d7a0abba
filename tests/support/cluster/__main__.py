"""`python -m tests.support.cluster up|down|status`: a local cluster that stays until it is taken down."""

import argparse
import sys
from pathlib import Path

from tests.support.binaries import BinariesError
from tests.support.cluster import ClusterError
from tests.support.cluster.standing_cluster import StandingCluster, keep

FOLDER = Path(__file__).parents[3] / ".cluster"


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
            keep(folder)
            return 0
        cluster = StandingCluster(folder)
        return {"up": cluster.up, "down": cluster.down, "status": cluster.status}[command]()
    except (BinariesError, ClusterError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
