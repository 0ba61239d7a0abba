"""Processes that never outlive the one that started them, however that one ends.

Both sides are here: `Guarded` starts a process; run as a program, this file is the first thing in that process.

Why so: an `atexit` or `finally` never runs after a SIGKILL, and Linux's PR_SET_PDEATHSIG is bound to the *thread* that
started the child, so it kills too early in a program with threads. A pipe belongs to the process as a whole, and the
kernel closes it in every case. So the new process forks a guardian into its own process group before it becomes the
wanted program; the guardian waits for the end of the pipe, then kills that group, itself included. As the guardian is
there first, no program ever runs unguarded; as it is in the group, no other group can get that number.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

_GROUP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Guarded(subprocess.Popen[bytes]):
    """A program with a process group of its own, whose standard input is empty.

    `pid`, `poll`, `wait` and `send_signal` are those of the program itself. Call `end` in any case: after the program's
    own end it still removes what is left of its group.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        output: IO[bytes] | int | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start `argv`; its standard output and error go to `output` (default: where this process writes)."""
        super().__init__(
            # -I -S: the guardian needs neither site-packages nor the current folder, and starts in half the time.
            [sys.executable, "-I", "-S", __file__, *argv],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            cwd=cwd,
            env=env,
            # A terminal's Ctrl-C is for the process that started this one, which decides what ends when.
            start_new_session=True,
        )

    def end(self, *, grace: float = 0.0) -> None:
        """End the program and all it started: by SIGTERM if it obeys within `grace` seconds, else by SIGKILL."""
        if grace > 0 and self.poll() is None:
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):  # the guardian's SIGKILL follows
                self.wait(grace)
        if self.stdin is not None:
            self.stdin.close()
        self.wait()


def _guard() -> NoReturn:
    """Be the guardian: wait until nobody holds the other end of standard input, then kill the process group."""
    # Holding the log or pipe of the program's output would hide the program's end from whoever reads it.
    with Path(os.devnull).open("r+b") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("unreachable: SIGKILL ends this process too")


def main(argv: list[str]) -> NoReturn:
    """Leave a guardian behind and become the program `argv`."""
    # Signals to the group are meant for the program: the guardian never gets one, from its first moment on.
    signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    if os.fork() == 0:
        _guard()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - no shell: that is the point
    except OSError as error:
        sys.exit(f"cannot start {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
