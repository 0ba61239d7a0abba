"""No process outlives the one that started it, however that one ends."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.guarded import Guarded
from tests.support.process_identity import identity
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]

# Starts a shell which starts a sleep, prints the numbers of both, and waits for a line.
STARTER = """
import sys
from tests.support.guarded import Guarded
process = Guarded(["sh", "-c", "sleep 1000 & echo $! $$; wait"])
sys.stdin.readline()
{then}
"""


def wait_until_gone(*pids: int) -> None:
    wait_until(lambda: not any(identity(pid) for pid in pids), what="the processes' end")


def sends(number: signal.Signals) -> Callable[[subprocess.Popen[str]], None]:
    return lambda starter: starter.send_signal(number)


def goes_on(starter: subprocess.Popen[str]) -> None:
    assert starter.stdin is not None
    starter.stdin.write("\n")
    starter.stdin.flush()


@pytest.mark.parametrize(
    ("then", "ending"),
    [
        pytest.param("", sends(signal.SIGKILL), id="killed"),
        pytest.param("", sends(signal.SIGTERM), id="terminated"),
        pytest.param("", sends(signal.SIGINT), id="interrupted"),
        pytest.param("", goes_on, id="returns"),
        pytest.param("raise RuntimeError", goes_on, id="raises"),
        pytest.param("import os; os.abort()", goes_on, id="crashes"),
        pytest.param("process.end()", goes_on, id="ends it"),
    ],
)
def test_a_program_ends_with_its_starter(then: str, ending: Callable[[subprocess.Popen[str]], None]) -> None:
    with subprocess.Popen(  # noqa: S603 - the program above
        [sys.executable, "-c", STARTER.format(then=then)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        sleep, shell = map(int, starter.stdout.readline().split())
        assert identity(sleep)
        assert identity(shell)
        ending(starter)
        wait_until_gone(sleep, shell)


def test_what_a_program_leaves_behind_ends_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = Guarded(["sh", "-c", "sleep 1000 & echo $!"], output=output)
        assert process.wait(10) == 0
    sleep = int(log.read_text())
    assert identity(sleep)
    process.end()
    wait_until_gone(sleep)


@pytest.mark.parametrize(
    ("script", "grace", "status"),
    [
        pytest.param("sleep 1000", 0.0, -signal.SIGKILL, id="at once"),
        pytest.param("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done", 10.0, 7, id="in its own way"),
        pytest.param("trap '' TERM; echo ready; while :; do sleep 0.01; done", 0.1, -signal.SIGKILL, id="stubborn"),
    ],
)
def test_end(script: str, grace: float, status: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = Guarded(["sh", "-c", script], output=output)
        if "trap" in script:
            wait_until(log.read_text, what="the program's word that it is ready")
        process.end(grace=grace)
    assert process.returncode == status


def test_a_program_has_an_empty_standard_input_and_the_given_folder_and_environment(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as output:
        process = Guarded(["sh", "-c", "cat; pwd; echo $A"], output=output, cwd=tmp_path, env={"A": "b"})
        assert process.wait(10) == 0
        process.end()
    assert (tmp_path / "log").read_text() == f"{tmp_path.resolve()}\nb\n"


def test_a_program_that_does_not_exist(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as output:
        process = Guarded([tmp_path / "no-such-program"], output=output)
        assert process.wait(10) == 1
        process.end()
    assert (tmp_path / "log").read_text() == f"cannot start {tmp_path}/no-such-program: No such file or directory\n"


def test_a_signal_to_the_whole_group_does_not_end_the_guard(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = Guarded(["sh", "-c", "trap '' TERM; kill -TERM 0; echo ready; exec sleep 1000"], output=output)
        wait_until(log.read_text, what="the program's word that it is ready")
        process.end()
    assert process.returncode == -signal.SIGKILL
