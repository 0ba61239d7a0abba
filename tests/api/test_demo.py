"""The demo tells its whole story, fails where a fact does not hold, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif("KUBECONFIG_UNDER_TEST" in os.environ, reason="needs a control plane of its own"),
    pytest.mark.timeout(240),  # the story takes 45 s where nothing else goes on
]

SABOTAGE = """
import sys
from tests.support.demo import __main__ as demo
from tests.support.demo.checker import require

def scene(stage):
    stage.check("the moon is made of cheese", lambda: require(False, "it is made of stone"))

demo.scenes = lambda **_: [("The moon", scene)]
sys.exit(demo.main())
"""


class Demo:
    """A demo that runs, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""

    def await_line(self, part: str) -> None:
        """Read until a line has this part; the test's time limit bounds it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if part in line:
                return
        raise AssertionError(f"it ended before it said {part!r}:\n{self.said}")

    def await_end(self) -> int:
        """Read to the end and return the exit status."""
        assert self.process.stdout is not None
        self.said += self.process.stdout.read()
        return self.process.wait()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Return the folder in which the demo makes its own; whatever it starts works there or is told of it."""
    path = tmp_path / "scratch"
    path.mkdir()
    return path


@contextmanager
def demo(scratch: Path, *argv: str, **environ: str) -> Iterator[Demo]:
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, *(argv or ("-m", "tests.support.demo"))],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield Demo(process)
        finally:
            process.terminate()


def await_no_process(scratch: Path, seconds: float = 10) -> None:
    """Wait until all that came of a demo has ended; the kernel may take a moment."""
    mark = f"TMPDIR={scratch}".encode()  # in the environment of each

    def runs(entry: Path) -> bool:
        try:
            return mark in (entry / "environ").read_bytes()
        except OSError:
            return False  # it ended meanwhile

    def left() -> list[str]:
        return [entry.name for entry in Path("/proc").glob("[0-9]*") if runs(entry)]

    wait_until(lambda: not left(), what=f"no process of {scratch} is left", seconds=seconds)


def test_the_story_holds_and_its_stage_stays_until_ctrl_c(scratch: Path) -> None:
    with demo(scratch, KEEP="1") as told:
        told.await_line("Ctrl-C here ends everything.")
        [kubeconfig] = re.findall(r"export KUBECONFIG=(\S+)", told.said)
        cluster = Cluster(Path(kubeconfig), scratch)
        cluster.kubectl("wait", "--for=condition=Ready", "tc/storefront", "-n", "shop", "--timeout=30s")
        with pytest.raises(TimeoutError):
            await_no_process(scratch, seconds=0)
        told.process.send_signal(signal.SIGINT)
        assert told.await_end() == 0
    assert re.search(r"^All 3\d facts held, in \d+ s\.$", told.said, re.MULTILINE)
    assert "✗" not in told.said
    assert "\x1b" not in told.said
    assert not re.search("canary-|sandbox-access-|sandbox-refresh-", told.said)
    assert told.said.splitlines()[-1].strip() == "Everything that was started has ended."
    assert {path.name for path in scratch.iterdir()} <= {"ca.crt", "kubectl-cache"}
    await_no_process(scratch)


def test_a_fact_that_does_not_hold_fails_it_and_leaves_logs_alone(scratch: Path) -> None:
    with demo(scratch, "-c", SABOTAGE) as told:
        assert told.await_end() == 1
    assert "✗ the moon is made of cheese\n      it is made of stone\n" in told.said
    assert "facts held" not in told.said
    [folder] = re.findall(r"The logs of all programs are in\s+(\S+)\.", told.said)
    assert {path.name for path in Path(folder).iterdir()} == {
        "etcd.log",
        "kube-apiserver.log",
        "kube-controller-manager.log",
        "operator-1.log",
    }
    await_no_process(scratch)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_story_leaves_nothing(scratch: Path, number: signal.Signals) -> None:
    with demo(scratch) as told:
        told.await_line("✓ a Kubernetes API")
        told.process.send_signal(number)
        assert told.await_end() == 130
    assert told.said.splitlines()[-1].strip() == "Interrupted. Everything that was started has ended."
    assert list(scratch.iterdir()) == []
    await_no_process(scratch)


def test_a_story_that_nobody_listens_to_ends_and_leaves_nothing(scratch: Path) -> None:
    with demo(scratch) as told:
        told.await_line("✓ a Kubernetes API")
        assert told.process.stdout is not None
        told.process.stdout.close()
        assert told.process.wait() == 130
    assert list(scratch.iterdir()) == []
    await_no_process(scratch)
