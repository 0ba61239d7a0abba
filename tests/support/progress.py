"""Lines that tell how a long step goes: one that moves in a terminal, a new one now and then in a log."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

LOG_INTERVAL = 15.0
"""Seconds between two lines where there is no terminal."""


class Progress:
    """What is under way, the time so far, and the time to expect.

    Nothing is shown for a step of under a second: it needs no explanation.
    """

    def __init__(
        self,
        what: str,
        expected: float | None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin `what`, which takes about `expected` seconds (None: nobody knows).

        It is shown on `stream`, standard error by default; `clock` counts seconds.
        """
        self._what = what
        self._expected = expected
        self._stream = stream or sys.stderr
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + 1.0
        self._shown = False

    def tick(self) -> None:
        """Show the present state if it is time to; call it often."""
        now = self._clock()
        if now < self._next:
            return
        so_far = now - self._begun
        about = ""
        if self._expected is not None:
            # More than was expected is no reason to worry, and the line says so.
            idle = " on an idle machine" if so_far > self._expected else ""
            about = f" of about {_minutes(self._expected)}{idle}"
        self._show(f"{self._what}: {_minutes(so_far)}{about}", last=False)
        self._next = now + (1.0 if self._stream.isatty() else LOG_INTERVAL)

    def done(self) -> None:
        """Say that the step is done, if it was ever shown."""
        if self._shown:
            self._show(f"{self._what}: done in {_minutes(self._clock() - self._begun)}", last=True)

    def failed(self) -> None:
        """Say that the step failed."""
        self._show(f"{self._what}: failed after {_minutes(self._clock() - self._begun)}", last=True)

    def _show(self, line: str, *, last: bool) -> None:
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K  {line}" + ("\n" if last else ""))
        else:
            self._stream.write(f"  {line}\n")
        self._stream.flush()
        self._shown = True


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
