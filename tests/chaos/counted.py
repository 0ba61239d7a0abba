"""Runs the operator, and tells how many tasks it has: `python -m tests.chaos.counted FILE run …` writes that to FILE.

Tasks are all that cannot be told from outside of a process.
"""

import asyncio
import gc
import runpy
import sys
import threading
from pathlib import Path
from typing import Final

EVERY: Final = 10.0
"""Seconds between two counts: each looks at all objects, which takes some milliseconds."""


def tasks() -> int:
    """Return how many tasks of any loop in this process are not done."""
    return sum(issubclass(type(each), asyncio.Task) and not each.done() for each in gc.get_objects())


def _tell(file: Path) -> None:
    never = threading.Event()
    while not never.wait(EVERY):  # not time.sleep, which libfaketime breaks
        file.write_text(str(tasks()))


def main() -> None:
    """Be the operator."""
    file = Path(sys.argv.pop(1))
    threading.Thread(target=_tell, args=(file,), daemon=True).start()
    runpy.run_module("tuinly_operator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
