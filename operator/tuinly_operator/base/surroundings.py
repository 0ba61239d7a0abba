"""What a process finds around it: the time, chance, and its own name. Read here alone, once, and handed down.

So a whole operator can be run on another time, another chance and under another name.
"""

import asyncio
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tuinly_operator.base.chance import Chance
from tuinly_operator.base.clock import Clock, SystemClock
from tuinly_operator.base.garbage import Garbage
from tuinly_operator.base.iterations import Iterations

# Seconds. A refresh has half a dozen waits on the operator's loop, and people wait for what they apply. The loop of a
# watch has one for each event, or page of a list.
_COALESCE: Final = 0.003
_COALESCE_WATCHED: Final = 0.01


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What one process goes by.

    `host` is the Pod's name, or the machine's where it is in none. `iterations` is what its event loop waits by, and
    `watch_loop` makes the loop of a thread that watches.
    """

    clock: Clock
    chance: Chance
    host: str
    iterations: Iterations
    watch_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop

    @classmethod
    def of_this_process(cls) -> "Surroundings":
        """The machine's clocks, a generator that nobody can foresee, and the host's name as the system tells it."""
        host = os.environ.get("HOSTNAME") or socket.gethostname()
        return cls(SystemClock(), Chance(), host, _iterations(_COALESCE), lambda: _iterations(_COALESCE_WATCHED).loop())

    def unique_name(self) -> str:
        """A name that no other process has, nor this one's successor in the same Pod; another one each time."""
        return f"{self.host}_{self.chance.getrandbits(32):08x}"


def _iterations(coalesce: float) -> Iterations:
    return Iterations(time.thread_time, time.monotonic, _pause, coalesce)


def _pause(seconds: float) -> None:
    """Let a time pass. Not by Python's sleep: it waits until a moment, which libfaketime, used by tests, would move."""
    select.select((), (), (), seconds)


def garbage_of_this_process() -> Garbage:
    """What sees to this process's garbage collector, of which there is one."""
    return Garbage(time.thread_time, time.monotonic)
