"""Runs the operator, and tells how many tasks it has: `python -m tests.chaos.counted FILE run …` writes that to FILE.

Tasks are all that cannot be told from outside of a process.
"""

import asyncio
import runpy
import sys
import threading
from pathlib import Path
from typing import Final
from weakref import WeakSet

EVERY: Final = 10.0
"""Seconds between two counts."""
_loops: Final = WeakSet[asyncio.BaseEventLoop]()
_run_forever: Final = asyncio.BaseEventLoop.run_forever


def _noted(loop: asyncio.BaseEventLoop) -> None:
    _loops.add(loop)
    _run_forever(loop)


def tasks() -> int:
    """Return how many tasks of any loop in this process are not done.

    They are not looked for among all objects: what another thread is just making, as kopf's does, breaks by that.
    """
    return sum(len(asyncio.all_tasks(loop)) for loop in tuple(_loops))


def _tell(file: Path) -> None:
    never = threading.Event()
    while not never.wait(EVERY):  # not time.sleep, which libfaketime breaks
        file.write_text(str(tasks()))


def main() -> None:
    """Be the operator."""
    file = Path(sys.argv.pop(1))
    asyncio.BaseEventLoop.run_forever = _noted  # type: ignore[method-assign, assignment]
    threading.Thread(target=_tell, args=(file,), daemon=True).start()
    runpy.run_module("tuinly_operator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
