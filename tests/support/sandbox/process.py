"""The sandbox as a process of its own, for tests: it lives no longer than whoever started it."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.sandbox.remote import SandboxAdmin

REPOSITORY = Path(__file__).parents[3]
START_TIMEOUT = 30.0  # seconds; it takes half of one, but the machine may be busy
STOP_TIMEOUT = 10.0


class SandboxProcess:
    """A running sandbox, as a context manager.

    The process holds the reading end of a pipe and ends when the writing end closes, which the kernel sees to however
    this process ends.

    Args:
        *arguments: More arguments of the program, such as ``--clients FILE``.
    """

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._addresses: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start it and wait until it listens.

        Raises:
            RuntimeError: If it does not; the message has what it wrote to its standard error.
        """
        # Files of its own it removes by itself; this one has no name. So a killed test leaves nothing behind.
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(  # noqa: S603 -- the interpreter that runs this, and a module beside it
                [sys.executable, "-m", "tests.support.sandbox", "--json", "--lifeline", *self._arguments],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            line = _first_line(self._process)
            if not line:
                self.stop()
                log.seek(0)
                raise RuntimeError(f"the sandbox does not start: {log.read().decode(errors='replace').strip()}")
        self._addresses = json.loads(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def stop(self) -> None:
        """End the process, by force if it does not end by itself. Twice does no harm."""
        if self._process is not None:
            process, self._process = self._process, None
            with process:
                if process.stdin is not None:
                    process.stdin.close()
                try:
                    process.wait(STOP_TIMEOUT)
                except subprocess.TimeoutExpired:
                    process.kill()

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            RuntimeError: If it does not run.
        """
        if self._process is None:
            raise RuntimeError("the sandbox does not run")
        return self._process.pid

    @property
    def token_url(self) -> str:
        """The token endpoint over HTTP."""
        return f"{self._addresses['http']}/token"

    @property
    def graphql_url(self) -> str:
        """The GraphQL endpoint over HTTP."""
        return f"{self._addresses['http']}/graphql"

    @property
    def https_token_url(self) -> str:
        """The token endpoint over HTTPS."""
        return f"{self._addresses['https']}/token"

    @property
    def https_graphql_url(self) -> str:
        """The GraphQL endpoint over HTTPS."""
        return f"{self._addresses['https']}/graphql"

    @property
    def ca_file(self) -> Path:
        """The PEM file of the CA that vouches for HTTPS."""
        return Path(self._addresses["ca"])

    @property
    def admin(self) -> SandboxAdmin:
        """Its admin API."""
        return SandboxAdmin(self._addresses["admin"])


def _first_line(process: "subprocess.Popen[bytes]") -> bytes:
    """Return the first line a process writes; nothing if it ends, or the time is over, before that."""
    if process.stdout is None:
        return b""
    descriptor = process.stdout.fileno()
    deadline = time.monotonic() + START_TIMEOUT
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not readable or not (part := os.read(descriptor, 4096)):
            return b""
        line += part
    return line
