"""The one door to the terminal: tables, findings, progress and questions; colours only where a person sees them.

Whatever is shown of a cluster is somebody else's text: what does not print is escaped, and nothing in it is markup.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

from kubectl_tuinly.edges.around import has_person, shows_output
from kubectl_tuinly.rules.steps import Step, Verdict, next_thing
from kubectl_tuinly.rules.view import Row, moment
from tuinly_operator.base.text import cut, printable

if TYPE_CHECKING:
    from rich.table import Table

_MARKS: Final = {
    Verdict.FINE: ("✓", "ok", "green"),
    Verdict.WARNING: ("!", "!!", "yellow"),
    Verdict.WAITING: ("…", "..", "cyan"),
    Verdict.WRONG: ("✗", "XX", "bold red"),
    Verdict.UNCHECKED: ("?", "??", "dim"),
}
_MOST: Final = 2000  # letters of a finding; what others write may be of any length
_MESSAGE: Final = 30  # columns that a message needs at least
_BAR: Final = 10
_SHORT_LIFE: Final = 0.15
_HALF_LIFE: Final = 0.4


def say(text: str) -> None:
    """Print to standard output."""
    sys.stdout.write(_still(text if text.endswith("\n") else f"{text}\n"))
    sys.stdout.flush()


def tell(text: str) -> None:
    """Print to standard error, for people."""
    sys.stderr.write(_still(f"{text}\n"))
    sys.stderr.flush()


def _still(text: str) -> str:
    """A text of several lines in which nothing moves a cursor."""
    return "\n".join(map(printable, text.split("\n")))


def say_json(value: object) -> None:
    """Print JSON."""
    say(json.dumps(value, indent=2))


def agrees(question: str) -> bool:
    """Whether a person says yes; False where nobody can be asked."""
    if not has_person():
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


# Rows -----------------------------------------------------------------------------------------------------------------


def show_rows(rows: Sequence[Row], *, namespaces: bool, wide: bool) -> None:
    """Print the table of credentials."""
    header = _header(namespaces=namespaces, wide=wide)
    cells = [_cells(row, namespaces=namespaces, wide=wide) for row in rows]
    if shows_output():
        from rich.console import Console  # noqa: PLC0415 -- --help and pipes need not wait for it

        console = Console(highlight=False)
        if _columns(header, cells) <= console.width:
            console.print(_table(rows, namespaces=namespaces, wide=wide))
            return
    say(plain_table(header, cells))


def _columns(header: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """How many columns a terminal needs for a table in which no more than messages are folded."""
    needed = [
        min(width, _MESSAGE) if name == "MESSAGE" else width
        for name, width in zip(header, _widths(header, cells), strict=True)
    ]
    return sum(needed) + 2 * len(needed)


@contextmanager
def live_rows(*, namespaces: bool, wide: bool) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Show the table again and again: in place on a terminal, elsewhere each row that has changed."""
    if not shows_output():
        yield _ChangedRows(namespaces=namespaces, wide=wide)
        return
    from rich.live import Live  # noqa: PLC0415 -- as above

    with Live(auto_refresh=False, vertical_overflow="ellipsis") as live:
        yield lambda rows: live.update(_table(rows, namespaces=namespaces, wide=wide), refresh=True)


class _ChangedRows:
    """Prints a row when what it says has changed, but for the time that passes."""

    def __init__(self, *, namespaces: bool, wide: bool) -> None:
        self._namespaces, self._wide = namespaces, wide
        self._known: dict[str, tuple[object, ...]] = {}

    def __call__(self, rows: Sequence[Row]) -> None:
        there = {str(row.key) for row in rows}
        for key in [key for key in self._known if key not in there]:
            del self._known[key]
            say("   ".join([*(key.split("/") if self._namespaces else [key.partition("/")[2]]), "deleted"]))
        for row in rows:
            told = (row.is_ready, row.reason, row.message, row.expires, row.suspended)
            if self._known.get(str(row.key)) != told:
                self._known[str(row.key)] = told
                say("   ".join(_cells(row, namespaces=self._namespaces, wide=self._wide)))


def _header(*, namespaces: bool, wide: bool) -> list[str]:
    first = ["NAMESPACE", "NAME"] if namespaces else ["NAME"]
    more = ["SECRET", "ISSUED", "FAILURES", "MESSAGE"] if wide else []
    return [*first, "READY", "LIFE LEFT", "REFRESH", "REASON", "UP TO", *more]


def _cells(row: Row, *, namespaces: bool, wide: bool) -> list[str]:
    refresh = "suspended" if row.suspended else moment(row.refresh, row.now, past="now")
    first = [row.key.namespace, row.key.name] if namespaces else [row.key.name]
    more = [row.secret or "-", moment(row.issued, row.now), str(row.failures), row.message] if wide else []
    ready = "yes" if row.is_ready else "no"
    return [printable(text) for text in (*first, ready, _life(row), refresh, row.reason, row.whose or "-", *more)]


def _life(row: Row) -> str:
    """The bar of remaining life, and what is left in words."""
    if row.expires is None or row.life is None:
        return "-"
    full, empty = ("█", "░") if _draws() else ("#", ".")
    lit = min(_BAR, int(row.life * _BAR + 0.999))
    left = moment(row.expires, row.now, past="expired").removeprefix("in ")
    return f"{full * lit}{empty * (_BAR - lit)} {left}"


def _draws(stream: TextIO | None = None) -> bool:
    """Whether a stream's letters, by default the output's, include those of bars and marks."""
    return ((stream or sys.stdout).encoding or "").lower().replace("-", "").startswith("utf")


def _table(rows: Sequence[Row], *, namespaces: bool, wide: bool) -> "Table":
    from rich.table import Table  # noqa: PLC0415 -- as above
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in _header(namespaces=namespaces, wide=wide):
        words = name == "MESSAGE"
        table.add_column(
            name, no_wrap=not words, overflow="fold" if words else "ellipsis", min_width=_MESSAGE if words else 4
        )
    at = _header(namespaces=namespaces, wide=wide).index("READY")
    for row in rows:
        cells = [Text(cell) for cell in _cells(row, namespaces=namespaces, wide=wide)]
        colour = "green" if row.is_fine else "yellow" if row.is_ready else "bold red"
        cells[at].stylize(colour)
        cells[at + 1].stylize(_life_colour(row))
        cells[at + 3].stylize(colour)
        table.add_row(*cells)
    return table


def _life_colour(row: Row) -> str:
    life = row.life or 0.0
    return "red" if life < _SHORT_LIFE else "yellow" if life < _HALF_LIFE and not row.is_fine else "green"


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as kubectl prints it, for pipes and files: nothing is cut off."""
    widths = _widths(header, rows)
    lines = (
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )
    return "\n".join(lines)


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(header, *rows, strict=True)]


# Findings -------------------------------------------------------------------------------------------------------------


def show_steps(steps: Sequence[Step]) -> None:
    """Print findings, and the one next thing to do."""
    if not shows_output():
        say(steps_text(steps))
        return
    from rich.console import Console  # noqa: PLC0415 -- as above
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    for step in steps:
        mark, ascii_mark, colour = _MARKS[step.verdict]
        dim = "dim" if step.verdict is Verdict.UNCHECKED else ""
        table.add_row(
            Text(mark if _draws() else ascii_mark, colour), Text(step.title, "bold"), Text(_shown(step.text), dim)
        )
    console = Console(highlight=False)
    console.print(table)
    # The terminal breaks this line, so that a command in it can be copied.
    console.print(Text.assemble(("\nNext: ", "bold"), _shown(next_thing(steps))), soft_wrap=True)


def steps_text(steps: Sequence[Step]) -> str:
    """Findings as plain text."""
    width = max((len(step.title) for step in steps), default=0)
    verdict = max(map(len, Verdict))
    lines = [f"{step.verdict:{verdict}}   {step.title:{width}}   {_shown(step.text)}" for step in steps]
    return "\n".join([*lines, "", f"Next: {_shown(next_thing(steps))}"])


def _shown(text: str) -> str:
    """A finding as it is shown: on one line, and not without end."""
    return cut(printable(text), _MOST)


# Progress -------------------------------------------------------------------------------------------------------------


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Tell on standard error how something goes: in one moving line on a terminal, elsewhere each news on its own."""
    if not sys.stderr.isatty():
        yield _News()
        return
    from rich.console import Console  # noqa: PLC0415 -- as above
    from rich.live import Live  # noqa: PLC0415
    from rich.spinner import Spinner  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    spinner = Spinner("dots" if _draws(sys.stderr) else "line")
    console = Console(stderr=True, highlight=False)
    # What is said meanwhile goes above the moving line, but into a file where standard output is one.
    with Live(spinner, console=console, transient=True, redirect_stdout=shows_output(), refresh_per_second=10):
        yield lambda text: spinner.update(text=Text(_shown(text)))


class _News:
    """Tells what was not told just before."""

    def __init__(self) -> None:
        self._told: Any = None

    def __call__(self, text: str) -> None:
        if text != self._told:
            self._told = text
            tell(printable(text))


def say_secret(value: bytes) -> None:
    """Print a secret to standard output as it is; on a terminal a line end follows."""
    sys.stdout.buffer.write(value + (b"\n" if shows_output() else b""))
    sys.stdout.flush()
