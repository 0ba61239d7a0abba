"""How the bench tells what it found: a JSON object per line for machines, a table and a picture for people."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isinf
from typing import TextIO

_WIDTH = 40  # of the longest bar, in characters
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class Figure:
    """One figure: what it is, for how many credentials, its value, and what it must be.

    `most` and `least` bound the value; without either it is only told. `details` are for who reads the JSON lines.
    """

    name: str
    credentials: int
    value: float
    unit: str
    most: float | None = None
    least: float | None = None
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether it is what it must be; None where nothing is asked of it."""
        if self.most is None and self.least is None:
            return None
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)


@dataclass(frozen=True)
class Bars:
    """A part of the picture: values of one unit, which the title ends with, beside each other."""

    title: str
    values: Mapping[str, float]


class Lines:
    """JSON lines, written as they come: what was measured stays, however the run ends."""

    def __init__(self, file: TextIO) -> None:
        """Write to `file`."""
        self._file = file

    def write(self, kind: str, record: Mapping[str, object]) -> None:
        """Write one line."""
        self._file.write(json.dumps({"kind": kind, **record}) + "\n")
        self._file.flush()

    def figure(self, figure: Figure) -> None:
        """Write a figure."""
        self.write("figure", {**asdict(figure), "met": figure.met})


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as a table in Markdown, which people can read as it is."""
    rows = [("figure", "credentials", "measured", "must be", "")]
    rows += [
        (f.name, f"{f.credentials:,}", f"{number(f.value)} {f.unit}".strip(), _asked(f), _MARKS[f.met]) for f in figures
    ]
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first of which is the head, as a table in Markdown."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_row(row, widths) for row in rows]
    lines.insert(1, _row(["-" * width for width in widths], widths))
    return "\n".join(lines)


def picture(parts: Iterable[Bars]) -> str:
    """Return bars for each part, the longest of each part as long as any."""
    lines: list[str] = []
    for part in parts:
        lines += ["", part.title]
        longest = max(part.values.values(), default=0.0) or 1.0
        width = max(map(len, part.values), default=0)
        for name, value in part.values.items():
            lines.append(f"  {name:<{width}}  {_bar(value / longest)} {number(value)}")
    return "\n".join(lines)


_MARKS: Mapping[bool | None, str] = {True: "met", False: "MISSED", None: ""}


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)) + " |"


def _asked(f: Figure) -> str:
    if f.most is not None and f.most == f.least:
        return f"{number(f.most)}"
    parts = ([f"≤ {number(f.most)}"] if f.most is not None else []) + (
        [f"≥ {number(f.least)}"] if f.least is not None else []
    )
    return " and ".join(parts)


def number(value: float) -> str:
    """Write a number with three digits that count; one that is beyond all bounds of a histogram has none."""
    if isinf(value):
        return "∞"
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 -- three digits


def _bar(share: float) -> str:
    eighths = round(share * _WIDTH * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
