"""Changes domain, engine and reconciler in every small way, one at a time, and tells which mutants the tests let live.

What lives must stand in living.toml, with the reason why it means the same as the code; what lives and does not stand
there is an error, and so is what stands there and died. In the environment, ONLY=domain/memory,engine takes some of the
modules, and JOBS=1 tries one at a time.
"""

import os
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from making import Mutant, mutants_of
from running import End, Seen, by_import, in_place

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator" / "tuinly_operator"
TESTS = ("tests/unit/domain", "tests/unit/engine", "tests/unit/reconciler")
LIVING = Path(__file__).with_name("living.toml")
LEAST = 90.0  # per cent that must die
SECONDS = 15.0  # between two lines that tell how far it is

Entry = tuple[str, str, str]  # where a mutant is, the lines as they are, and what they become


def main() -> int:
    """Try all mutants, and return the exit status."""
    chosen = os.environ.get("ONLY", "")
    modules = sorted({path for name in (chosen or "domain,engine,reconciler").split(",") for path in _modules(name)})
    mutants = [mutant for path in modules for mutant in mutants_of(path, _import_name(path))]
    os.chdir(ROOT)
    listed = {(entry["where"], entry["was"], entry["becomes"]) for entry in tomllib.loads(LIVING.read_text())["mutant"]}
    ends = _try_all(mutants, Shown(listed))
    programs = [mutant for mutant in mutants if ends[mutant] is not End.NO_PROGRAM]
    living = [mutant for mutant in programs if ends[mutant] is End.LIVES]
    return _report(programs, living, listed)


def _modules(name: str) -> Iterable[Path]:
    return [PACKAGE / f"{name}.py"] if "/" in name else PACKAGE.glob(f"{name}/*.py")


def _import_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def _try_all(mutants: list[Mutant], shown: "Shown") -> dict[Mutant, End]:
    """Try each in the quickest way that can notice it."""
    inside = [mutant for mutant in mutants if mutant.function]
    shown.begin("in functions", inside)
    seen, found = in_place(inside, TESTS, shown.tried)
    ends = dict(zip(inside, found, strict=True))
    outside = [mutant for mutant in mutants if not mutant.function]
    outside += [mutant for mutant in inside if ends[mutant] is End.LIVES and _at_import(mutant, seen)]
    ends |= dict.fromkeys(outside, End.LIVES)
    for source in {mutant.source for mutant in outside}:
        mine = [mutant for mutant in outside if mutant.source is source]
        near = [str(path) for folder in TESTS for path in Path(folder).glob(f"test_{source.path.stem}*.py")]
        for tests in (near, TESTS) if near else (TESTS,):
            mine = [mutant for mutant in mine if ends[mutant] is End.LIVES]
            shown.begin(f"in {source.name}, by import", mine)
            ends |= dict(zip(mine, by_import(mine, seen, tests, shown.tried), strict=True))
    return ends


def _at_import(mutant: Mutant, seen: Seen) -> bool:
    return not set(mutant.lines).isdisjoint(seen.at_import.get(str(mutant.source.path), ()))


def _report(programs: list[Mutant], living: list[Mutant], listed: set[Entry]) -> int:
    """Print what is known, and return 1 where something is to be done."""
    found = {(mutant.where, *mutant.change) for mutant in living}
    where = {mutant.where.split()[0] for mutant in programs}
    new = sorted(found - listed)
    gone = sorted(entry for entry in listed - found if entry[0].split()[0] in where)
    for title, entries in (("lives and is not listed", new), ("is listed and does not live", gone)):
        for entry in entries:
            print(f"\n# {title}\n[[mutant]]")
            for key, value in zip(("where", "was", "becomes"), entry, strict=True):
                print(f"{key} = {_toml(value)}")
    print(f"\n{'module':<28}{'mutants':>10}{'living':>10}")
    alive = Counter(mutant.source.name for mutant in living)
    for name, number in sorted(Counter(mutant.source.name for mutant in programs).items()):
        print(f"{name.removeprefix('tuinly_operator.'):<28}{number:>10}{alive[name]:>10}")
    died = 100 * (1 - len(living) / len(programs))
    print(f"\nOf {len(programs)} mutants {len(programs) - len(living)} died: {died:.1f} %.", end=" ")
    print(f"Of {len(living)} that live, {len(found & listed)} are listed.")
    return int(bool(new or gone) or died < LEAST)


def _toml(text: str) -> str:
    return f"'{text}'" if "'" not in text else f"'''{text}'''"


class Shown:
    """Tells now and then how far it is, and at once what lives and is not listed."""

    def __init__(self, listed: set[Entry]) -> None:
        self._listed = listed
        self._descriptor = os.dup(2)  # pytest has the other one
        self._begun = time.monotonic()
        self._last = self._begun
        self._what, self._all, self._done, self._live = "", 0, 0, 0

    def begin(self, what: str, mutants: list[Mutant]) -> None:
        """Say what comes next."""
        self._what, self._all, self._done, self._live = what, len(mutants), 0, 0
        self._say("begins")

    def tried(self, mutant: Mutant, end: End) -> None:
        """Note what became of one."""
        self._done += 1
        self._live += end is End.LIVES
        if end is End.LIVES and (mutant.where, *mutant.change) not in self._listed:
            was, becomes = mutant.change
            self._say(f"lives: {mutant.where}, line {mutant.lines.start}\n  - {was}\n  + {becomes}")
        now = time.monotonic()
        if now - self._last >= SECONDS or self._done == self._all:
            self._last = now
            self._say(f"{self._done} tried, {self._live} live; {mutant.where}")

    def _say(self, what: str) -> None:
        minutes = (time.monotonic() - self._begun) / 60
        os.write(self._descriptor, f"{minutes:5.1f} min  {self._all} mutants {self._what}: {what}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
