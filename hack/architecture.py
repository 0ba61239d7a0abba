"""Draws docs/architecture.svg from the operator's import graph, by `make architecture`.

A box for each folder, from above in the order in which one may import another. In it stand the modules, each above all
that it imports there; an arrow says that it does, unless that follows from other arrows. Under a module's name stand
the libraries to which it is a door. From which of the others a folder imports stands under its name.

With a file as argument the picture is written there instead of the checkout, for the test that compares them.
"""

import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Final

import grimp

PACKAGE: Final = "tuinly_operator"
PICTURE: Final = Path(__file__).parents[1] / "docs" / "architecture.svg"
# From above: each imports only from those below it. The import contracts in pyproject.toml hold them to that.
FOLDERS: Final = {
    "": "the program, and what wires its parts",
    "reconciler": "gather, decide, act, tell",
    "edges": "the doors to the world, one library each",
    "engine": "what waits, and in which order; in memory only",
    "domain": "what things are, and what to do; pure",
    "base": "what every layer may use",
}
DOORS: Final = frozenset({"aiohttp", "httpx", "kopf", "kubernetes", "prometheus_client"})

# Pixels. All letters have one width, so that the picture is the same wherever it is drawn.
LETTER, LINE, PAD = 7.2, 16, 12
GAP, ROW_GAP, MARGIN, TITLE = 12, 20, 16, 52
STYLE: Final = """
  text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2933 }
  .title { font-weight: bold }
  .about { fill: #52606d }
  .imports { fill: #2b6cb0 }
  .library { fill: #8d2b0b }
  .folder { fill: #f5f7fa; stroke: #9aa5b1 }
  .module { fill: #ffffff; stroke: #3e4c59 }
  .door { fill: #ffffff; stroke: #c4320a; stroke-width: 1.5 }
  .arrow { fill: none; stroke: #7b8794; marker-end: url(#head) }
"""

Imports = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels from the left and the top."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Its middle, from the left."""
        return self.x + self.width / 2


@dataclass
class Folder:
    """The modules of a folder in rows from above, and the ways of the arrows among them."""

    imports: Imports  # of its modules from each other
    doors: Mapping[str, str]  # what stands under a module's name
    rows: list[list[str]] = field(default_factory=list)
    ways: list[list[str]] = field(default_factory=list)  # from a module to another, through a gap in each row between

    def __post_init__(self) -> None:
        """Put each module as low as it can be, and keep gaps for arrows that pass a row."""
        heights: dict[str, int] = {}
        for module in self.imports:
            self._measure(module, heights)
        rows: dict[int, list[str]] = defaultdict(list)
        for module in sorted(heights):
            rows[heights[module]].append(module)
        for one, other in needed(self.imports):
            gaps = [f"{one} > {other}, row {height}" for height in range(heights[one] - 1, heights[other], -1)]
            self.ways.append([one, *gaps, other])
            for height, gap in zip(range(heights[one] - 1, heights[other], -1), gaps, strict=True):
                rows[height].append(gap)
        self.rows = [rows[height] for height in sorted(rows, reverse=True)]

    def _measure(self, module: str, heights: dict[str, int]) -> int:
        if module not in heights:
            heights[module] = 1 + max((self._measure(name, heights) for name in self.imports[module]), default=-1)
        return heights[module]

    @property
    def width(self) -> float:
        """How wide its widest row is."""
        return max(map(self._row_width, self.rows))

    @property
    def height(self) -> float:
        """How high all rows are."""
        return sum(map(self._row_height, self.rows)) + ROW_GAP * (len(self.rows) - 1)

    def places(self, x: float, y: float, width: float) -> dict[str, Box]:
        """Where everything stands, each below those that lead to it, so that few arrows cross."""
        places: dict[str, Box] = {}
        steps = [step for way in self.ways for step in pairwise(way)]
        for row in self.rows:
            leads = {node: [places[one].middle for one, other in steps if other == node] for node in row}
            order = sorted(row, key=lambda node: (sum(leads[node]) / len(leads[node]) if leads[node] else width, node))
            left, height = x + (width - self._row_width(row)) / 2, self._row_height(row)
            for node in order:
                places[node] = Box(left, y, self._node_width(node), height)
                left += places[node].width + GAP
            y += height + ROW_GAP
        return places

    def _row_width(self, row: list[str]) -> float:
        return sum(self._node_width(node) + GAP for node in row) - GAP

    def _row_height(self, row: list[str]) -> float:
        return LINE * (2 if any(self.doors.get(node) for node in row) else 1) + 10

    def _node_width(self, node: str) -> float:
        if node not in self.imports:
            return 1.0
        return max(len(label(node)), len(self.doors[node])) * LETTER + 2 * PAD


def main() -> None:
    """Write the picture."""
    picture = Path(sys.argv[1]) if sys.argv[1:] else PICTURE
    picture.write_text(draw(), encoding="utf-8")


def draw() -> str:
    """The picture."""
    imports = read_imports()
    used = {(folder_of(one), folder_of(other)) for one in imports for other in imports[one] & imports.keys()}
    folders = {name: read_folder(imports, name) for name in FOLDERS}
    width = max(folder.width for folder in folders.values()) + 2 * MARGIN
    drawn: list[str] = []
    y = float(MARGIN)
    for name, folder in folders.items():
        box = Box(MARGIN, y, width, folder.height + TITLE + MARGIN)
        drawn += [rectangle("folder", box), *title(name, box, used)]
        drawn += draw_modules(folder, folder.places(box.x, box.y + TITLE, width))
        y += box.height + ROW_GAP
    return page(width + 2 * MARGIN, y - ROW_GAP + MARGIN, drawn)


def read_imports() -> dict[str, frozenset[str]]:
    """What each module imports of its own package (`edges.oauth`) and of others (`httpx`)."""
    graph = grimp.build_graph(PACKAGE, include_external_packages=True, cache_dir=None)
    ours = {module for module in graph.modules if module.startswith(f"{PACKAGE}.")}
    folders = {f"{PACKAGE}.{name}" for name in FOLDERS}
    return {
        short(module): frozenset(map(short, graph.find_modules_directly_imported_by(module)))
        for module in sorted(ours - folders)
    }


def short(module: str) -> str:
    """A module's name within the package."""
    return module.removeprefix(f"{PACKAGE}.")


def folder_of(module: str) -> str:
    """The folder of a module, empty for one that is in none."""
    first, dot, _ = module.partition(".")
    return first if dot else ""


def label(module: str) -> str:
    """A module's path in its folder."""
    return module.removeprefix(f"{folder_of(module)}.").replace(".", "/")


def read_folder(imports: Imports, name: str) -> Folder:
    """Lay a folder out."""
    modules = [module for module in imports if folder_of(module) == name]
    return Folder(
        {module: imports[module].intersection(modules) for module in modules},
        {module: ", ".join(sorted(imports[module] & DOORS)) for module in modules},
    )


def needed(imports: Imports) -> Iterator[tuple[str, str]]:
    """The imports that do not follow from others: what a module's imports import in turn is not drawn once more."""
    for module in sorted(imports):
        for name in sorted(imports[module]):
            if not any(name in reached(imports, other) for other in imports[module]):
                yield module, name


def reached(imports: Imports, module: str) -> set[str]:
    """All that a module imports, and what that imports in turn."""
    return set(imports[module]).union(*(reached(imports, name) for name in imports[module]))


def title(name: str, box: Box, used: Collection[tuple[str, str]]) -> Iterator[str]:
    """A folder's name, what it is for, and which of those below it imports from."""
    y, words = box.y + 21, f"{name or PACKAGE}/"
    yield text("title", box.x + PAD, y, words)
    yield text("about", box.x + PAD + (len(words) + 2) * LETTER, y, FOLDERS[name])
    below = [other for other in FOLDERS if other != name and (name, other) in used]
    if below:
        yield text("imports", box.x + PAD, y + LINE, "imports from " + ", ".join(below))


def draw_modules(folder: Folder, places: Mapping[str, Box]) -> Iterator[str]:
    """The modules of a folder, and the arrows among them."""
    for way in folder.ways:
        yield arrow([places[node] for node in way])
    for module in folder.imports:
        place, door = places[module], folder.doors[module]
        yield rectangle("door" if door else "module", place)
        yield text("", place.middle, place.y + place.height / 2 + (-4 if door else 4), label(module), anchor="middle")
        if door:
            yield text("library", place.middle, place.y + place.height / 2 + 12, door, anchor="middle")


def rectangle(kind: str, box: Box) -> str:
    """A box with round corners."""
    size = f'width="{box.width:.0f}" height="{box.height:.0f}"'
    return f'<rect class="{kind}" x="{box.x:.0f}" y="{box.y:.0f}" {size} rx="4"/>'


def text(kind: str, x: float, y: float, words: str, anchor: str = "start") -> str:
    """A line of words."""
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(words)}</text>'


def arrow(way: list[Box]) -> str:
    """A line from the foot of the first to the head of the last, straight through those between."""
    path = f"M{way[0].middle:.0f},{way[0].y + way[0].height:.0f}"
    for one, other in pairwise(way):
        start, end = one.y + one.height, other.y - (2 if other is way[-1] else 0)
        half = (start + end) / 2
        path += f" C{one.middle:.0f},{half:.0f} {other.middle:.0f},{half:.0f} {other.middle:.0f},{end:.0f}"
        if other is not way[-1]:
            path += f" V{other.y + other.height:.0f}"
    return f'<path class="arrow" d="{path}"/>'


def page(width: float, height: float, drawn: Iterable[str]) -> str:
    """The whole file."""
    head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">',
        "<title>The modules of the operator by folder, and what they import</title>",
        f"<style>{STYLE}</style>",
        f'<defs>{head}<path d="M0,0 L8,4 L0,8 z" fill="#7b8794"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *drawn,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
