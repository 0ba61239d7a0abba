"""Runs the tests against mutants, each in a process of its own, and tells whether any test fails.

One process imports and collects everything once, notes which test comes by which line, and forks for each mutant: there
the function gets the mutant's code in place, and the tests that come by its lines run, its module's own first, then the
quickest. What they do not notice in a few seconds lives: that is what unit tests are for. What stands outside of
functions, or is called while modules are imported, is tried in a fork of a process that has imported nothing of it yet.
"""

import functools
import gc
import importlib.machinery
import importlib.util
import math
import os
import pickle
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
from itertools import accumulate
from pathlib import Path
from typing import NoReturn, Self

import hypothesis
import pytest
from _pytest.runner import runtestprotocol
from coverage import Coverage
from making import Mutant

JOBS = int(os.environ.get("JOBS", "0")) or os.cpu_count() or 1
MEMORY = 4 << 30  # bytes, for a mutant that grows without end
WAIT = 10  # seconds, for a mutant that waits without end
ENOUGH = 15.0  # CPU seconds of tests for one mutant, as they take while it is noted which lines they come by

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
    "--ignore=tests/unit/engine/test_limiter_rows.py",  # minutes of what clients do to each other, whoever limits them
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
    tests: dict[str, dict[int, list[str]]]
    at_import: dict[str, set[int]]

    def by(self, path: Path, lines: Iterable[int]) -> set[str]:
        """The tests that come by one of these lines."""
        by_line = self.tests.get(str(path), {})
        return {test for line in lines for test in by_line.get(line, ())}

    def in_order(self, tests: Iterable[str], path: Path) -> list[str]:
        """The module's own tests, then the quickest of the others, as many as run in the time that is enough."""
        order = sorted(tests, key=lambda test: (f"/test_{path.stem}" not in test, self.seconds[test], test))
        until = accumulate(self.seconds[test] for test in order)
        return [test for test, seconds in zip(order, until, strict=True) if seconds <= ENOUGH]

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
    paths = {str(mutant.source.path) for mutant in mutants}
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        pid = os.fork()
        if not pid:
            with _Traced(paths) as at_import:
                status = pytest.main([*_ARGUMENTS, *tests], plugins=[_InPlace(mutants, at_import, told, each)])
            sys.stdout.flush()
            os._exit(status)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise SystemExit("the tests must pass before mutants are tried")
        seen, ends = pickle.loads(told.read_bytes())  # noqa: S301 -- our own process has written it
    return seen, ends


class _InPlace:
    """Takes the place of pytest's loop over the collected tests."""

    def __init__(
        self, mutants: Sequence[Mutant], at_import: "_Traced", told: Path, each: Callable[[Mutant, End], None]
    ) -> None:
        self._mutants = mutants
        self._at_import = at_import
        self._told = told
        self._each = each

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Look what the tests come by, then fork for each mutant."""
        paths = {str(mutant.source.path) for mutant in self._mutants}
        at_import = {path: set(lines) for path, lines in self._at_import.taken().items()}
        seen = Seen(*self._look(session.items, paths), at_import)
        items = {item.nodeid: item for item in session.items}
        functions = _functions(paths)
        gc.freeze()

        def attempt(mutant: Mutant) -> End:
            code = _code_of(compile(mutant.text, mutant.source.path, "exec"), mutant.function)
            for function in functions[str(mutant.source.path), mutant.function]:
                function.__code__ = code
            _forget_what_is_cached()
            path = mutant.source.path
            return seen.run(seen.in_order(seen.by(path, mutant.lines), path), items)

        ends = _in_forks(self._mutants, attempt, self._each)
        self._told.write_bytes(pickle.dumps((seen, ends)))
        return True

    def _look(
        self, items: Iterable[pytest.Item], paths: set[str]
    ) -> tuple[dict[str, float], dict[str, dict[int, list[str]]]]:
        """Run all tests in a fork, which leaves nothing behind, and tell what they take and come by."""
        pid = os.fork()
        if pid:
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
                pytest.exit("a test fails without a mutant", 1)
            return pickle.loads(self._told.read_bytes())  # noqa: S301 -- as above
        seconds = {}
        with _Traced(paths) as traced:
            for item in items:
                traced.switch(item.nodeid)
                _forget_what_is_cached()
                begun = time.process_time()
                if _fails(item):
                    print(f"\nfails without a mutant: {item.nodeid}", flush=True)
                    os._exit(1)
                seconds[item.nodeid] = time.process_time() - begun
            self._told.write_bytes(pickle.dumps((seconds, traced.taken())))
        os._exit(0)


class _Traced:
    """Notes which lines of some files are come by, and by whom; coverage's tracer is in C, and slows down little."""

    def __init__(self, paths: set[str]) -> None:
        self._paths = paths
        self._coverage = Coverage(data_file=None, config_file=False, include=sorted(paths))

    def __enter__(self) -> Self:
        self._coverage.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._coverage.stop()

    def switch(self, who: str) -> None:
        """What comes from now on comes by somebody else."""
        self._coverage.switch_context(who)

    def taken(self) -> dict[str, dict[int, list[str]]]:
        """By file and line who came by; it ends."""
        self._coverage.stop()
        data = self._coverage.get_data()
        return {path: data.contexts_by_lineno(path) for path in self._paths}


def _functions(paths: set[str]) -> Mapping[tuple[str, str], list[types.FunctionType]]:
    """The functions of these files, by file and qualified name."""
    found = defaultdict(list)
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType) and thing.__code__.co_filename in paths:
            found[thing.__code__.co_filename, thing.__code__.co_qualname].append(thing)
    return found


def _forget_what_is_cached() -> None:
    """Have cached functions of the package called again: other tests may have called them before."""
    for module in [module for name, module in sys.modules.items() if name.startswith("tuinly_operator.")]:
        for thing in vars(module).values():
            if isinstance(thing, functools._lru_cache_wrapper):  # noqa: SLF001 -- it has no other name
                thing.cache_clear()


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
    """Try mutants by importing them; the tests of these folders or files run."""

    def attempt(mutant: Mutant) -> End:
        sys.meta_path.insert(0, _Finder(mutant))
        pytest.main([*_ARGUMENTS, *tests], plugins=[_InOrder(mutant, seen)])
        return End.DIED  # what imports it failed

    return _in_forks(mutants, attempt, each)


class _InOrder:
    """Takes the place of pytest's loop over the collected tests."""

    def __init__(self, mutant: Mutant, seen: Seen) -> None:
        self._mutant = mutant
        self._seen = seen

    def pytest_runtestloop(self, session: pytest.Session) -> NoReturn:
        """See pytest."""
        items = {item.nodeid: item for item in session.items}
        if session.testsfailed or not items.keys() <= self._seen.seconds.keys():
            os._exit(End.DIED)  # tests cannot be imported, or those that are made from it are others now
        os._exit(self._seen.run(self._seen.in_order(items, self._mutant.source.path), items))


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
