"""Draws the demo for the README, by `make demo-picture`: docs/demo.svg, what a terminal showed of a run just made.

Of its scenes some are drawn, or the picture would be as long as the story. What belongs to the machine and the moment
is replaced or left out: ports, process ids, times of day, how long the parts of the story took.
"""

import io
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

ROOT: Final = Path(__file__).parents[1]
PICTURE: Final = ROOT / "docs" / "demo.svg"
COLUMNS: Final = 108
SCENES: Final = (
    "A credential is applied, and its token appears",
    "Somebody damages the Secret with the token",
    "The operator is killed and started again",
    "The auditor's verdict",
)
HEADING: Final = re.compile(r"^\d+\. (.*?) ─+ \d+ s$")
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
LEFT_OUT: Final = "    ⋮"
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)

# Rich's own would load its font from elsewhere; each text says how wide it is, so that any font will do.
TEMPLATE: Final = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px;
}}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> int:
    """Play the demo, and draw it if it went well; return its exit status."""
    status, shown = play()
    if status == 0:
        PICTURE.write_text(draw(neutral(chosen(shown))), encoding="utf-8")
    print(PICTURE if status == 0 else shown)
    return status


def play() -> tuple[int, str]:
    """Play the demo on a terminal; return its exit status and what stood there line by line, with colours."""
    ours, its = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "KEEP", "POD"}}
    environ |= {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "tests.support.demo"]
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=its, stderr=its) as demo:  # noqa: S603 -- words of our own
        os.close(its)
        with os.fdopen(ours, "rb") as terminal:
            said = b"".join(iter(lambda: some(terminal.fileno()), b""))
        status = demo.wait()
    # What was under way in a line is gone once the line is begun anew.
    lines = (line.rpartition("\r\x1b[K")[2] for line in said.decode().replace("\r\n", "\n").split("\n"))
    return status, "\n".join(lines)


def some(terminal: int) -> bytes:
    """Return what can be read of a terminal; nothing once its other side is closed, which Linux calls an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def chosen(shown: str) -> str:
    """The title, the scenes that are drawn, and the end; a mark stands for what is left out."""
    title, *rest = shown.split("\n")
    kept, within = [title], False
    for line in rest:
        plain = COLOUR.sub("", line)
        heading = HEADING.match(plain)
        if heading is not None:
            within = heading[1] in SCENES
        if plain.startswith("All "):
            return re.sub(r"\n{3,}", "\n\n", "\n".join([*kept, line]))
        if within:
            kept.append(line)
        elif LEFT_OUT not in kept[-2:]:
            kept += ["", LEFT_OUT, ""]
    raise ValueError("the story has no end")


def neutral(shown: str) -> str:
    """The same without what belongs to this machine and this day: the first time of day that is told becomes noon."""
    shown = re.sub(r"(─+) \d+ s(?=\D)", r"\1", shown)
    shown = re.sub(r"(facts held), in \d+ s", r"\1", shown)
    shown = re.sub(r" \([\d.]+ s\)", "", shown)
    shown = re.sub(r"(?<=127\.0\.0\.1:)\d+|(?<=localhost:)\d+", "8443", shown)
    shown = re.sub(r"(?<=kill -KILL )\d+", "4711", shown)
    first = TIME.search(shown)
    return TIME.sub(lambda found: moved(found[0], first[0]), shown) if first else shown


def moved(time: str, first: str) -> str:
    """A time of day as it would have been, had the first one been noon."""
    return f"{NOON + (datetime.fromisoformat(time) - datetime.fromisoformat(first)):%Y-%m-%dT%H:%M:%SZ}"


def draw(shown: str) -> str:
    """The picture."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    console.print(Text.from_ansi(shown))
    return console.export_svg(title="make demo", code_format=TEMPLATE, unique_id="demo", theme=SVG_EXPORT_THEME)


if __name__ == "__main__":
    sys.exit(main())
