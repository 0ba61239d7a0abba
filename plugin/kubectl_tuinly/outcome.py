"""How a command ends: its exit status, and the one sentence of an end before its time."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit statuses, as docs/plugin.md tells them."""

    READY = 0
    NOT_READY = 1
    WRONG_USE = 2
    UNCHECKED = 3


class StopError(Exception):
    """The command cannot go on. Its text says what to do next, and never holds a secret."""

    def __init__(self, exit_status: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_status = exit_status
