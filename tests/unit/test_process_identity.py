"""What tells a process from a later one of the same number."""

import os
import subprocess

from tests.support.process_identity import identity
from tests.support.waiting import wait_until


def test_a_process_keeps_its_identity() -> None:
    mine = identity(os.getpid())
    assert mine
    more_memory = bytearray(10_000_000)
    assert identity(os.getpid()) == mine
    del more_memory


def test_processes_started_at_different_times_differ() -> None:
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        assert identity(process.pid)
        assert identity(process.pid) != identity(os.getpid())
        process.kill()


def test_a_zombie_and_then_nothing_have_none() -> None:
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        process.kill()
        wait_until(lambda: identity(process.pid) is None, what="the process a zombie")
    assert identity(process.pid) is None
