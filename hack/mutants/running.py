"""Runs the tests against mutants, each in a process of its own, and tells whether any test fails.

One process imports and collects everything once, notes which test comes by which line, and forks for each mutant: there
the function gets the mutant's code in place, and the tests that come by its lines run, the quickest first. What stands
outside of functions, or is called while modules are imported, is tried in a fork of a process that has imported nothing
yet.
"""

import functools
import gc
import importlib.machinery
import importlib.util
import json
import math
import os
import resource
import signal
import sys
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest
from _pytest.runner import runtestprotocol
from making import Mutant

JOBS = int(os.environ.get("JOBS", "0")) or os.cpu_count() or 1
MEMORY = 4 << 30  # bytes, for a mutant that grows without end
WAIT = 30  # seconds, for a mutant that waits without end

hypothesis.settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=30,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    report_multiple_bugs=False,
)
_ARGUMENTS = (
    *("-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", "-m", "not slow", "-o", "timeout=60"),
    *("--tb=native", "--assert=plain"),  # nobody reads why a test fails
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # hypothesis has just been imported
)


class End(IntEnum):
    """What became of a mutant; the exit status of its process."""

    LIVES = 0
    DIED = 1
    NO_PROGRAM = 3  # Python does not take it


@dataclass(frozen=True)
class Seen:
    """What the tests do without a mutant: the CPU seconds of each, and which come by a line of a file.

    `at_import` are lines of functions that are called while modules are imported.
    """

    seconds: dict[str, float]
    tests: dict[str, dict[str, list[str]]]
    at_import: dict[str, list[int]]

    def by(self, path: Path, lines: Iterable[int] | None = None) -> list[str]:
        """The tests that come by one of these lines, or by any of the file, the quickest first."""
        by_line = self.tests.get(str(path), {})
        found = by_line.values() if lines is None else [by_line.get(str(line), []) for line in lines]
        return sorted({test for tests in found for test in tests}, key=lambda test: (self.seconds[test], test))

    def run(self, tests: Iterable[str], items: Mapping[str, pytest.Item]) -> End:
        """Run tests until one fails. What takes much longer than without a mutant has no end, and ends here.

        It may also wait for what never comes, which takes no CPU time.
        """
        for test in tests:
            signal.alarm(math.ceil(WAIT + 20 * self.seconds[test]))
            used = resource.getrusage(resource.RUSAGE_SELF)
            most = math.ceil(used.ru_utime + used.ru_stime + 2 + 5 * self.seconds[test])
            resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))  # not the other, which cannot grow
            if _fails(items[test]):
                return End.DIED
        return End.LIVES


# --- In place ---------------------------------------------------------------------------------------------------------


def in_place(
    mutants: Sequence[Mutant], tests: Sequence[str], each: Callable[[Mutant, End], None]
) -> tuple[Seen, list[End]]:
    """Try mutants of functions; `each` is called with what became of each. Exits where tests fail without a mutant."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        pid = os.fork()
        if not pid:
            tracer = _Tracer({str(mutant.source.path) for mutant in mutants})
            sys.settrace(tracer)
            status = pytest.main([*_ARGUMENTS, *tests], plugins=[_InPlace(mutants, tracer, told, each)])
            sys.stdout.flush()
            os._exit(status)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise SystemExit("the tests must pass before mutants are tried")
        answer = json.loads(told.read_text())
    return Seen(**answer["seen"]), [End(end) for end in answer["ends"]]


class _InPlace:
    """Takes the place of pytest's loop over the collected tests."""

    def __init__(
        self, mutants: Sequence[Mutant], tracer: "_Tracer", told: Path, each: Callable[[Mutant, End], None]
    ) -> None:
        self._mutants = mutants
        self._tracer = tracer
        self._told = told
        self._each = each

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Look what the tests come by, then fork for each mutant."""
        sys.settrace(None)
        at_import = self._tracer.taken()
        seconds, tests = self._look(session.items)
        seen = Seen(seconds, tests, {path: [int(line) for line in lines] for path, lines in at_import.items()})
        items = {item.nodeid: item for item in session.items}
        functions = _functions({str(mutant.source.path) for mutant in self._mutants})
        caches = [thing for thing in gc.get_objects() if isinstance(thing, functools._lru_cache_wrapper)]  # noqa: SLF001 -- it has no other name
        gc.freeze()

        def attempt(mutant: Mutant) -> End:
            code = _code_of(compile(mutant.text, mutant.source.path, "exec"), mutant.function)
            for function in functions[str(mutant.source.path), mutant.function]:
                function.__code__ = code
            for cache in caches:
                cache.cache_clear()
            return seen.run(seen.by(mutant.source.path, mutant.lines), items)

        ends = _in_forks(self._mutants, attempt, self._each)
        self._told.write_text(json.dumps({"seen": vars(seen), "ends": ends}))
        return True

    def _look(self, items: Iterable[pytest.Item]) -> tuple[dict[str, float], dict[str, dict[str, list[str]]]]:
        """Run all tests in a fork, which leaves nothing behind, and tell what they take and come by."""
        pid = os.fork()
        if pid:
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
                pytest.exit("a test fails without a mutant", 1)
            return tuple(json.loads(self._told.read_text()))  # type: ignore[return-value]
        seconds = {}
        tests: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for item in items:
            begun = time.process_time()
            sys.settrace(self._tracer)
            failed = _fails(item)
            sys.settrace(None)
            seconds[item.nodeid] = time.process_time() - begun
            if failed:
                print(f"\nfails without a mutant: {item.nodeid}", flush=True)
                os._exit(1)
            for path, lines in self._tracer.taken().items():
                for line in lines:
                    tests[path][line].append(item.nodeid)
        self._told.write_text(json.dumps([seconds, tests]))
        os._exit(0)


class _Tracer:
    """Notes which lines of some files are come by; what it has seen all of, it looks at no more."""

    def __init__(self, paths: set[str]) -> None:
        self._paths = paths
        self._seen: dict[types.CodeType, set[int]] = {}
        self._unseen: dict[types.CodeType, set[int]] = {}

    def taken(self) -> dict[str, list[str]]:
        """The lines by file, as JSON's keys; it begins anew."""
        lines = defaultdict(list)
        for code, seen in self._seen.items():
            lines[code.co_filename] += map(str, seen)
        self._seen.clear()
        self._unseen.clear()
        return lines

    def __call__(self, frame: types.FrameType, _event: str, _argument: object) -> Callable[..., Any] | None:
        """See sys.settrace."""
        code = frame.f_code
        if code.co_filename not in self._paths:
            return None
        if code not in self._unseen:
            self._unseen[code] = {line for _, _, line in code.co_lines() if line is not None}
            self._seen[code] = set()
        seen, unseen = self._seen[code], self._unseen[code]

        def local(frame: types.FrameType, _event: str, _argument: object) -> Callable[..., Any] | None:
            seen.add(frame.f_lineno)
            unseen.discard(frame.f_lineno)
            return local if unseen else None

        return local(frame, "", None) if unseen else None


def _functions(paths: set[str]) -> Mapping[tuple[str, str], list[types.FunctionType]]:
    """The functions of these files, by file and qualified name."""
    found = defaultdict(list)
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType) and thing.__code__.co_filename in paths:
            found[thing.__code__.co_filename, thing.__code__.co_qualname].append(thing)
    return found


def _code_of(code: types.CodeType, name: str) -> types.CodeType:
    """The code of a function within that of its module."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    for part in inner:
        if part.co_qualname == name:
            return part
    around = next(part for part in inner if name.startswith(f"{part.co_qualname}."))
    return _code_of(around, name)


# --- By import --------------------------------------------------------------------------------------------------------


def by_import(
    mutants: Sequence[Mutant], seen: Seen, tests: Sequence[str], each: Callable[[Mutant, End], None]
) -> list[End]:
    """Try mutants by importing them. The tests of these folders or files run that come by their module."""

    def attempt(mutant: Mutant) -> End:
        sys.meta_path.insert(0, _Finder(mutant))
        pytest.main([*_ARGUMENTS, *tests], plugins=[_InOrder(mutant, seen)])
        return End.DIED  # what imports it failed

    return _in_forks(mutants, attempt, each)


class _InOrder:
    """Takes the place of pytest's loop over the collected tests: those that come by the module, the quickest first."""

    def __init__(self, mutant: Mutant, seen: Seen) -> None:
        self._mutant = mutant
        self._seen = seen

    def pytest_runtestloop(self, session: pytest.Session) -> NoReturn:
        """See pytest."""
        items = {item.nodeid: item for item in session.items}
        if not items.keys() <= self._seen.seconds.keys():
            os._exit(End.DIED)  # tests that are made from it are others now
        tests = self._seen.by(self._mutant.source.path) or sorted(items)
        os._exit(self._seen.run([test for test in tests if test in items], items))


class _Finder:
    """Finds the mutant in its module's place; see Python's documentation of meta path finders."""

    def __init__(self, mutant: Mutant) -> None:
        self._source = mutant.source
        self._code = compile(mutant.text, mutant.source.path, "exec")

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name != self._source.name:
            return None
        loader = importlib.machinery.SourceFileLoader(name, str(self._source.path))
        loader.get_code = lambda _name: self._code  # type: ignore[method-assign]
        return importlib.util.spec_from_file_location(name, self._source.path, loader=loader)


# --- Processes --------------------------------------------------------------------------------------------------------


def _fails(item: pytest.Item) -> bool:
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def _in_forks(
    mutants: Sequence[Mutant], attempt: Callable[[Mutant], End], each: Callable[[Mutant, End], None]
) -> list[End]:
    """Try each in a process of its own, a few at a time."""
    ends = [End.DIED] * len(mutants)
    running: dict[int, int] = {}
    waiting: Iterator[int] = iter(range(len(mutants)))
    while True:
        while len(running) < JOBS and (number := next(waiting, None)) is not None:
            pid = os.fork()
            if not pid:
                _exit_with(attempt, mutants[number])
            running[pid] = number
        if not running:
            return ends
        pid, status = os.wait()
        number = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)  # negative where a limit has ended it
        ends[number] = End(code) if code in (End.LIVES, End.NO_PROGRAM) else End.DIED
        each(mutants[number], ends[number])


def _exit_with(attempt: Callable[[Mutant], End], mutant: Mutant) -> NoReturn:
    end = End.DIED
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        end = attempt(mutant)
    except SyntaxError:
        end = End.NO_PROGRAM
    finally:
        os._exit(end)
