"""`python -m tests.support.demo`: tells the story once; the exit status is 0 only if every fact of it held.

With KEEP=1 in the environment everything stays at the end, to be looked at, until Ctrl-C. With POD=1 it plays in Pods,
on a node: as root on Linux.
"""

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from tests.support import image, node
from tests.support.binaries import BinariesError
from tests.support.cluster import ClusterError, KubectlError
from tests.support.demo.checker import FactError
from tests.support.demo.narrator import Narrator, NobodyListensError
from tests.support.demo.pod_stage import PodStage
from tests.support.demo.stage import Stage
from tests.support.demo.story import scenes, stay
from tests.support.node import NodeError
from tests.support.objects import ApiError

TITLE: Final = "tuinly-operator: an always fresh Tuinly access token in a Kubernetes Secret"
PREFACE: Final = (
    "A story in {scenes} scenes and about {minutes}. It plays on this machine, with a real Kubernetes {what}, the "
    "real operator and a sandbox in Tuinly's place. Each ✓ is a fact that was checked: in the cluster, and in the "
    "sandbox's ledger of all that it was asked and all that it issued."
)
END_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TROUBLE: Final = (
    *(ApiError, BinariesError, ClusterError, KubectlError, NodeError),
    *(node.Unavailable, image.Unavailable),
    *(AssertionError, OSError, RuntimeError, subprocess.SubprocessError),
)
"""What may come between two facts; the message says what happened."""
LAST_LINES: Final = 10
"""So many lines of the operator's log are shown with a failure: where CI keeps no files, they are all there is."""


def check() -> int:
    """Say whether this machine can play it in Pods, before anything is built; return the exit status."""
    try:
        node.check_machine()
        image.check_machine()
    except (node.Unavailable, image.Unavailable) as error:
        sys.stderr.write(f"error: the demo in Pods cannot play here: {error}\n")
        return 1
    return 0


def main() -> int:
    """Tell the story; return the exit status: 0 if all held, 1 if not, 130 if it was interrupted before its end."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no ✓ is no reason to stop
    for number in END_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="tuinly-demo-"))
    os.environ["TMPDIR"] = str(folder)  # a process that is killed leaves its temporary files, as the operator does here
    narrator, status = Narrator(sys.stdout), 1
    try:
        try:
            status, last_word = play(narrator, folder, keep=_wanted("KEEP"), in_pods=_wanted("POD")), ""
        except KeyboardInterrupt:
            status, last_word = 130, "Interrupted. "
        narrator.say(f"{last_word}Everything that was started has ended.")
    except NobodyListensError:
        status = 130  # `| head` has had enough, the terminal is closed, or Ctrl-C has ended `| tee` too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of unwritten lines
    finally:
        clear(folder, keep_logs=status == 1)
    return status


def _wanted(variable: str) -> bool:
    return os.environ.get(variable, "") not in {"", "0"}


def play(narrator: Narrator, folder: Path, *, keep: bool, in_pods: bool) -> int:
    """Set the stage, tell the story, and end all that was started; return the exit status.

    Args:
        narrator: Who tells it.
        folder: Where files go; private.
        keep: Whether to leave everything running until Ctrl-C.
        in_pods: Whether to play it on a node.
    """
    with ExitStack() as running:
        try:
            return tell(narrator, folder, running, keep=keep, in_pods=in_pods)
        finally:
            for number in END_SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # only the end comes now, and takes a second


def tell(narrator: Narrator, folder: Path, running: ExitStack, *, keep: bool, in_pods: bool) -> int:
    """Tell the story; what it starts ends with `running`. Return the exit status."""
    stage, status = None, 1
    narrator.title(TITLE)
    story = scenes(in_pods=in_pods)
    minutes, what = ("three minutes", "node") if in_pods else ("a minute", "API")
    narrator.say(PREFACE.format(scenes=len(story), minutes=minutes, what=what))
    try:
        stage = (PodStage if in_pods else Stage)(narrator, folder, running)
        for title, scene in story:
            narrator.scene(title)
            scene(stage)
        narrator.ends(f"All {stage.check.held} facts held, in {narrator.seconds:.0f} s.")
        status = 0
    except FactError as error:
        narrator.fails(error.claim, error.seen)
    except TROUBLE as error:
        narrator.fails("the story goes on", f"{type(error).__name__}: {error}")
    if status != 0:
        with suppress(*TROUBLE):
            if stage is not None:
                stage.save_logs()
        tell_logs(narrator, folder)
    if keep and stage is not None:
        with suppress(KeyboardInterrupt):
            stay(stage, again=status == 0)
    return status


def tell_logs(narrator: Narrator, folder: Path) -> None:
    """Show the end of the newest operator's log, and say where all logs are."""
    for log in sorted(folder.glob("operator-*.log"))[-1:]:
        narrator.say(f"The last lines of {log.name}:")
        narrator.show("\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:]))
    if any(folder.rglob("*.log")):
        narrator.say(f"The logs of all programs are in {folder}.")


def clear(folder: Path, *, keep_logs: bool) -> None:
    """Remove the story's files, keys and data among them, but for the logs where they are wanted."""
    cluster = folder / "cluster"
    if keep_logs:
        for log in cluster.glob("logs/*.log"):
            log.rename(folder / log.name)
    shutil.rmtree(cluster, ignore_errors=True)
    if not any(folder.glob("*.log")) or not keep_logs:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(check() if sys.argv[1:] == ["--check"] else main())
