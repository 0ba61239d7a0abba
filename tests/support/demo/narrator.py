"""The narrator: writes the story for a person, in a terminal and in a log."""

import os
import shutil
import textwrap
import time
from collections.abc import Callable, Mapping
from typing import Final, TextIO

_WIDTH: Final = 100
"""Characters of a line of prose at most: longer ones are hard to read."""
_NO_END: Final = 10**6
"""Columns of what is no terminal."""
_INDENT: Final = "    "
_CLEAR: Final = "\r\x1b[K"
"""Empties a terminal's line (ECMA-48): what was under way in it is over."""
_RESET: Final = "\x1b[0m"
_STYLES: Final[Mapping[str, str]] = {
    "heading": "\x1b[1m",
    "command": "\x1b[36m",
    "output": "\x1b[2m",
    "good": "\x1b[32m",
    "bad": "\x1b[1;31m",
}


class NobodyListensError(Exception):
    """The stream takes nothing any more: the terminal is closed, or the program behind the pipe has ended."""


class Narrator:
    """Writes scenes, sentences, commands with their output, and facts.

    Colours are for terminals only, and not there if NO_COLOR is set (no-color.org) or the terminal has none.

    Whatever it is told may raise NobodyListensError.

    Attributes:
        stream: where it writes.
    """

    def __init__(
        self,
        stream: TextIO,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin the story's time; `clock` counts seconds."""
        self.stream = stream
        self._terminal = stream.isatty()
        self._coloured = self._terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self._columns = shutil.get_terminal_size((_WIDTH, 24)).columns if self._terminal else _NO_END
        self._width = min(_WIDTH, self._columns)
        self._clock = clock
        self._begun = clock()
        self._scenes = 0

    @property
    def seconds(self) -> float:
        """How long the story has lasted, in seconds."""
        return self._clock() - self._begun

    def title(self, text: str) -> None:
        """Write the story's title."""
        self._write(text, "heading")

    def scene(self, title: str) -> None:
        """Begin the next scene: its number and title, and the story's time so far."""
        self._scenes += 1
        heading, time = f"{self._scenes}. {title} ", f" {self.seconds:.0f} s"
        line = "─" * (self._width - len(heading) - len(time))
        self._write("")
        self._write(f"{heading}{line}{time}", "heading")

    def say(self, text: str) -> None:
        """Write sentences, filled to the width."""
        for line in self._filled(text, _INDENT):
            self._write(line)

    def show(self, text: str) -> None:
        """Write lines as they are, a file's or a program's; what is too long for the terminal is cut, not wrapped."""
        for line in text.splitlines():
            shown = f"{_INDENT}  {line}".rstrip()
            self._write(shown if len(shown) <= self._columns else f"{shown[: self._columns - 1]}…", "output")

    def command(self, line: str, document: str = "") -> None:
        """Write a command before it is run, and the document that it is given, as a shell's user would give it."""
        self._write(f"{_INDENT}$ {line}{' <<END' if document else ''}", "command")
        for part in [*document.splitlines(), "END"] if document else []:
            self._write(f"{_INDENT}  {part}", "command")

    def holds(self, fact: str) -> None:
        """Write a fact that was checked."""
        mark = self._styled("✓", "good")
        first, *rest = self._filled(fact, f"{_INDENT}  ")
        self._write(f"{_INDENT}{mark} {first.lstrip()}")
        for line in rest:
            self._write(line)

    def fails(self, fact: str, seen: str) -> None:
        """Write a fact that does not hold, and what was seen instead."""
        self._write(f"{_INDENT}✗ {fact}", "bad")
        for line in seen.splitlines():
            self._write(f"{_INDENT}  {line}")

    def ends(self, text: str) -> None:
        """End the story well."""
        self._write("")
        self._write(text, "good")

    def _filled(self, text: str, indent: str) -> list[str]:
        return textwrap.wrap(
            text,
            self._width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def _write(self, line: str, style: str | None = None) -> None:
        """Write a line, at once: the reader of a log follows the story too."""
        try:
            self.stream.write((_CLEAR if self._terminal else "") + self._styled(line, style) + "\n")
            self.stream.flush()
        except OSError as error:
            raise NobodyListensError from error

    def _styled(self, text: str, style: str | None) -> str:
        return f"{_STYLES[style]}{text}{_RESET}" if style and text and self._coloured else text
