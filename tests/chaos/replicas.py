"""The operator's replicas: two places, each with a wall clock of its own, and who is in them."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

from tests.support.operator import LEADS, OperatorProcess
from tests.support.waiting import wait_until
from tests.support.wall_clock import LIBRARY, WallClock

START_SECONDS: Final = 120.0
"""How long a replica may take to become ready: the API server may be away at first."""
_LEADS_NO_MORE: Final = "this replica leads no more"


class Replica:
    """A place of the operator's, with the process that is in it now.

    Attributes:
        lock: held by who ends, stops or replaces the process.
        clock: its wall clock; None for the machine's own, also where there is no libfaketime.
        package: the folder of the version that runs there; None for this one.
        processes: all that were ever in it; the last one is there now.
    """

    def __init__(self, name: str, directory: Path, kubeconfig: Path, flags: Sequence[str], *, clock: bool) -> None:
        """Nothing runs yet; `flags` are those of all of its processes, and `directory` is for their logs.

        Whether it has a `clock` of its own is told since libfaketime takes CPU and memory.
        """
        self.name = name
        self.lock = asyncio.Lock()
        self.package: Path | None = None
        self.processes: list[OperatorProcess] = []
        self._directory = directory
        self._kubeconfig = kubeconfig
        self._flags = flags
        self.clock = WallClock(directory / f"clock-{name}") if clock and LIBRARY is not None else None

    @property
    def process(self) -> OperatorProcess:
        """The process that is there now, or was last."""
        return self.processes[-1]

    @property
    def runs(self) -> bool:
        """Whether there is one."""
        return bool(self.processes) and not self.process.ended

    @property
    def tasks(self) -> int | None:
        """How many tasks the process had when it last counted them; None if it has not yet."""
        try:
            return int(_count(self.process.log_file).read_text())
        except (FileNotFoundError, ValueError):
            return None

    @property
    def led_since(self) -> str | None:
        """Since when the process believes to lead; None where it does not, or is gone."""
        if not self.runs:
            return None
        said = [line for line in self.process.logs() if line["msg"].startswith((LEADS, _LEADS_NO_MORE))]
        return str(said[-1]["ts"]) if said and said[-1]["msg"] == LEADS else None

    def start(self) -> OperatorProcess:
        """Start a process; one that is still there stays."""
        log = self._directory / f"operator-{self.name}-{len(self.processes) + 1}.log"
        clock = self.clock.environment if self.clock is not None else {}
        process = OperatorProcess(
            *self._flags,
            kubeconfig=self._kubeconfig,
            log_file=log,
            package=self.package,
            launcher=("env", *(f"{name}={value}" for name, value in clock.items())),
            program=(sys.executable, "-m", "tests.chaos.counted", str(_count(log))),
        )
        self.processes.append(process.__enter__())
        return process

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Have the process killed, and another one start afterwards, which nobody waits for."""
        await asyncio.to_thread(self.process.kill)
        try:
            yield
        finally:
            self.start()

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Have the process stand still."""
        self.process.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send(signal.SIGCONT)

    def end(self) -> None:
        """End all that still runs."""
        for process in self.processes:
            if process in OperatorProcess.running:
                process.__exit__(None, None, None)


@contextmanager
def placed(
    directory: Path, logins: Mapping[str, Path], flags: Sequence[str], *, clocks: bool
) -> Iterator[list[Replica]]:
    """Have a replica for each name, with its login, under the Lease of the installation; the last ones end with it."""
    lease = ("--lease", "tuinly-system/tuinly-operator")
    replicas = [Replica(name, directory, login, [*flags, *lease], clock=clocks) for name, login in logins.items()]
    try:
        yield replicas
    finally:
        for replica in replicas:
            replica.end()


async def start_all(replicas: Sequence[Replica]) -> None:
    """Start a process in each, and wait until all are ready."""
    for replica in replicas:
        replica.start()
    for replica in replicas:
        await asyncio.to_thread(ready, replica.process)


def ready(process: OperatorProcess) -> None:
    """Wait until a process is ready.

    Raises:
        TimeoutError: it is not.
        RuntimeError: it has ended.
    """
    wait_until(lambda: process.get("/readyz")[0] == HTTPStatus.OK, what="a replica is ready", seconds=START_SECONDS)


def leader(replicas: Sequence[Replica]) -> Replica | None:
    """Return the one that leads: of two that believe it, the one that does so since the later moment."""
    leading = {since: replica for replica in replicas if (since := replica.led_since) is not None}
    return leading[max(leading)] if leading else None


def _count(log: Path) -> Path:
    """Where the process with this log writes how many tasks it has."""
    return log.with_suffix(".tasks")
