"""Finds what goes wrong in Markdown when text is wrapped anew, by `make check`: no tool complains, but readers do.

A code block that was flowed into one line, a list or a heading in the middle of a sentence, a table row that lost a
cell, a command outside a code block. Files may be given as arguments; without any, all that git knows are read.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

import yaml

ROOT: Final = Path(__file__).parents[1]
LONGEST: Final = 120  # characters of a line of prose

FENCE: Final = re.compile(r"( *)(```+)([a-z]*)")
CELL: Final = re.compile(r"(?<!\\)\|")
CODE: Final = re.compile(r"`[^`]*`")
LIST_INSIDE: Final = re.compile(r"\S[.:;,] (?:[-*] |[0-9]{1,2}\. (?=[A-Z`*]))")
HEADING_INSIDE: Final = re.compile(r"\S #{2,6} \S")
COMMAND: Final = re.compile(
    r"(?:^|[.:;] )(?:\$ |kubectl (?:-n|[a-z]+ -|apply|get|delete)|make [a-z-]+ [A-Z]+=|export [A-Z_]+=)"
)
# In a shell block: a second command where the first one's words are.
SECOND_COMMAND: Final = re.compile(
    r"\S (?:kubectl (?:-n|apply|get|delete)|make [a-z-]+|helm (?:install|upgrade)|export [A-Z])"
)
JOINED: Final = re.compile(r"&&|[|;#]|\$\(|\bdo |\bthen |\bxargs |\bexec |\brun ")


class Slip(NamedTuple):
    """What is wrong where; `line` counts from 1."""

    line: int
    what: str


def main() -> int:
    """Print every slip, and return 1 where there is any."""
    files = [Path(name) for name in sys.argv[1:]] or tracked()
    slips = [f"{file}:{slip.line}: {slip.what}" for file in files for slip in check(file.read_text(encoding="utf-8"))]
    print("\n".join(slips) if slips else f"{len(files)} Markdown files are as they should be")
    return 1 if slips else 0


def tracked() -> list[Path]:
    """The Markdown files of the checkout."""
    command = ["git", "-C", ROOT, "ls-files", "*.md"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 -- words of our own
    return [ROOT / name for name in listed.stdout.splitlines()]


def check(text: str) -> Iterator[Slip]:
    """Everything that is wrong with a file."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        fence = FENCE.fullmatch(lines[number])
        if fence is None:
            yield from (Slip(number + 1, what) for what in prose(lines, number))
            number += 1
            continue
        indent, mark, language = fence.groups()
        block = list(takewhile(partial(_is_not, mark), lines[number + 1 :]))
        if number + len(block) + 2 > len(lines):
            yield Slip(number + 1, "a code block without an end")
        inner = [line.removeprefix(indent) for line in block]
        yield from (Slip(number + 2 + at, what) for at, what in BLOCKS.get(language, any_block)(inner))
        number += len(block) + 2


def _is_not(mark: str, line: str) -> bool:
    return line.strip() != mark


def prose(lines: list[str], number: int) -> Iterator[str]:
    """What is wrong with a line outside code blocks."""
    line = lines[number]
    plain = CODE.sub("`code`", line)
    if "```" in line:
        yield "the mark of a code block within a line"
    if line.startswith("#") and (lines[number - 1 : number] not in ([], [""]) or lines[number + 1 :][:1] != [""]):
        yield "a heading without an empty line before and after it"
    if line.lstrip().startswith("|"):
        yield from row(lines, number)
        return
    if LIST_INSIDE.search(plain):
        yield "a list item within a sentence"
    if HEADING_INSIDE.search(plain):
        yield "a heading within a sentence"
    if COMMAND.search(plain):
        yield "a command outside a code block"
    if len(line) > LONGEST and not line.strip().startswith(("[", "![", "<")):
        yield f"longer than {LONGEST} characters"


def row(lines: list[str], number: int) -> Iterator[str]:
    """What is wrong with a row of a table: the first row of a table says how many cells there are."""
    first = number
    while first and lines[first - 1].lstrip().startswith("|"):
        first -= 1
    if len(CELL.findall(lines[number])) != len(CELL.findall(lines[first])):
        yield "another number of cells than the table's head has"
    if number == first + 1 and not re.fullmatch(r"[ |:-]+", lines[number]):
        yield "a table without a line under its head"


def any_block(_: list[str]) -> Iterator[tuple[int, str]]:
    """Of other languages nothing is known."""
    return iter(())


def shell_block(block: list[str]) -> Iterator[tuple[int, str]]:
    """Two commands on one line, unless something joins them."""
    for at, line in enumerate(block):
        second = SECOND_COMMAND.search(line)
        if second and not JOINED.search(line[: second.end()]):
            yield at, "a second command on the same line"


def yaml_block(block: list[str]) -> Iterator[tuple[int, str]]:
    """YAML that cannot be read; in an excerpt, … stands for what is left out."""
    try:
        list(yaml.safe_load_all("\n".join(block).replace("…", "0")))
    except yaml.YAMLError as error:
        yield 0, f"YAML that cannot be read ({str(error).splitlines()[0]})"


def json_block(block: list[str]) -> Iterator[tuple[int, str]]:
    """JSON that cannot be read, line by line or as a whole."""
    for text in ("\n".join(block), *block):
        try:
            json.loads(text)
        except ValueError:
            continue
        return
    yield 0, "JSON that cannot be read"


BLOCKS: Final[dict[str, Callable[[list[str]], Iterator[tuple[int, str]]]]] = {
    "sh": shell_block,
    "shell": shell_block,
    "bash": shell_block,
    "yaml": yaml_block,
    "json": json_block,
}

if __name__ == "__main__":
    sys.exit(main())
