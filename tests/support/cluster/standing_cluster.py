"""A cluster or node that outlives the command which starts it, until another command takes it down.

A keeper, a process of its own, starts the programs, and by the rule of guarded.py none outlives its starter: the
keeper's end, wanted or not, is the end of all. Until the starting command says "stay", it also ends with that command.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from tests.support.cluster.any_cluster import ClusterError, write_private
from tests.support.lock import locked
from tests.support.process_identity import identity

ROOT = Path(__file__).parents[3]
LOCK = "lock"
RECORD = "processes.json"
READY = b"ready\n"
STAY = b"stay\n"
DOWN_SECONDS = 10.0
"""How long the keeper may take to end the cluster, before everything is killed."""


@dataclass(frozen=True)
class Process:
    """A recorded process: its name, its number, and what tells it from a later process of that number."""

    name: str
    pid: int
    identity: str | None

    def runs(self) -> bool:
        """Return whether that very process still runs."""
        return self.identity is not None and identity(self.pid) == self.identity

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to that very process, if it still runs."""
        if self.runs():
            os.kill(self.pid, number)


class Running(Protocol):
    """What a keeper holds: a local cluster, or a node."""

    @property
    def pids(self) -> Mapping[str, int]:
        """Its processes, by name."""

    def stop(self) -> None:
        """End all of it."""


@dataclass(frozen=True)
class Kind:
    """What stands.

    Attributes:
        noun: what people are told that it is: "cluster" or "node", which is in the names of the commands, too.
        module: the module that is run to keep one: its command `keep` calls `keep`.
        usage: says how to use the one in a folder.
        tidy: removes what one that was killed left outside its folder.
    """

    noun: str
    module: str
    usage: Callable[[Path], str]
    tidy: Callable[[Path], None] = lambda _: None


class StandingCluster:
    """The cluster or node of one folder, as commands see it. Each command returns an exit status."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        """Use `folder`, which is made when it is needed."""
        self._folder = folder
        self._kind = kind

    def up(self) -> int:
        """Start the cluster unless it runs, and say how to use it.

        Raises:
            ClusterError: it does not start; nothing of it is left running.
        """
        with self._locked():
            if any(process.runs() for process in self._recorded()):
                _say(f"A {self._kind.noun} runs already, and is kept. {self._kind.usage(self._folder)}")
                return 0
            self._clear()
            self._start()
            _say(f"The {self._kind.noun} is ready. {self._kind.usage(self._folder)}")
            return 0

    def down(self) -> int:
        """End the recorded processes, and no others, and remove the cluster's data.

        Raises:
            ClusterError: a process did not end.
        """
        with self._locked():
            processes = self._recorded()
            running = any(process.runs() for process in processes)
            # The keeper comes first in the record, and ends the others.
            for number, targets in ((signal.SIGTERM, processes[:1]), (signal.SIGKILL, processes)):
                for process in targets:
                    process.kill(number)
                _wait_until_gone(processes)
            if left := [f"{process.name} ({process.pid})" for process in processes if process.runs()]:
                raise ClusterError(f"did not end: {', '.join(left)}")
            self._clear()
            noun = self._kind.noun
            _say(f"The {noun} is down, and its data are removed." if running else f"No {noun} runs.")
            return 0

    def status(self) -> int:
        """Say which programs run; 0 if all do, else 1."""
        processes = self._recorded()
        for process in processes:
            _say(f"{process.name}: {'runs' if process.runs() else 'has ended'} (pid {process.pid})")
        if processes and all(process.runs() for process in processes):
            _say(self._kind.usage(self._folder))
            return 0
        noun = self._kind.noun
        _say(f"No {noun} runs: make {noun}-up starts one." if not processes else f"Logs: {self._folder / 'logs'}")
        return 1

    def _start(self) -> None:
        """Start the keeper and let it stay once the cluster is ready; whatever happens before that ends it too."""
        keeper = subprocess.Popen(  # noqa: S603 - this program
            [sys.executable, "-m", self._kind.module, "--folder", str(self._folder), "keep"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is for this command, now, and for others in the same terminal later
        )
        try:
            _hand_over(keeper)
        except BaseException:
            keeper.terminate()
            keeper.wait()
            raise

    def _locked(self) -> AbstractContextManager[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return locked(self._folder / LOCK, f"another {self._kind.noun}-up or {self._kind.noun}-down")

    def pid(self, name: str) -> int | None:
        """Return the number of one of its processes, if that runs."""
        return next((process.pid for process in self._recorded() if process.name == name and process.runs()), None)

    def _recorded(self) -> list[Process]:
        try:
            return [Process(**fields) for fields in json.loads((self._folder / RECORD).read_text())]
        except FileNotFoundError:
            return []

    def _clear(self) -> None:
        self._kind.tidy(self._folder)
        for path in self._folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()


def _hand_over(keeper: subprocess.Popen[bytes]) -> None:
    """Tell the keeper to stay, once it says that the cluster is ready."""
    assert keeper.stdin is not None  # noqa: S101 - for the type checker: both are pipes
    assert keeper.stdout is not None  # noqa: S101 - the same
    answer = keeper.stdout.readline()
    if answer != READY:
        raise ClusterError((answer + keeper.stdout.read()).decode().strip().removeprefix("error: "))
    keeper.stdin.write(STAY)
    keeper.stdin.flush()


def keep(folder: Path, start: Callable[[Path], Running]) -> None:
    """Be the keeper: hold what `start` starts until SIGTERM, or, before `up` says to stay, until `up` ends.

    Raises:
        Exception: what `start` raises.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an exception: `finally` runs
    running = start(folder)
    try:
        _record(folder, running)
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        if sys.stdin.buffer.readline() == STAY:
            _leave_the_terminal()
            while True:
                signal.pause()
    finally:
        running.stop()


def _record(folder: Path, running: Running) -> None:
    pids = {"keeper": os.getpid(), **running.pids}
    processes = [Process(name, pid, identity(pid)) for name, pid in pids.items()]
    write_private(folder / RECORD, json.dumps([asdict(process) for process in processes]))


def _leave_the_terminal() -> None:
    with Path(os.devnull).open("r+b") as nowhere:
        for descriptor in (0, 1, 2):
            os.dup2(nowhere.fileno(), descriptor)


def _wait_until_gone(processes: list[Process]) -> None:
    deadline = time.monotonic() + DOWN_SECONDS
    while any(process.runs() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
