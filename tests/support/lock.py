"""A lock between processes that ends with its holder, however that one ends."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.progress import Progress


@contextmanager
def locked(path: Path, waiting_for: str) -> Iterator[None]:
    """Hold the lock file `path`, which stays there; show what this process is `waiting_for` while another holds it."""
    with path.open("w") as file:
        progress = Progress(f"waiting for {waiting_for}", None)
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress.tick()
                time.sleep(0.2)
        progress.done()
        yield
