"""Checks that every rule of the contract has a test, by `make check`, and makes the table of rules and their tests.

Rules are rows of docs/contract.md and docs/internals/*.md that begin with an id; tests name them by
`@pytest.mark.rule("LIM-7")`. With a file's name as argument, the table is written there instead.
"""

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
RULE: Final = re.compile(r"^\| ([A-Z]+-[0-9]+) \|", re.MULTILINE)


def main() -> int:
    """Print what is wrong, and return 1 if anything is; or write the table."""
    rules, tests = documented(), marked()
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(table(rules, tests), encoding="utf-8")
        return 0
    slips = list(check(rules, tests))
    print("\n".join(slips) if slips else f"each of the {len(rules)} rules has a test")
    return 1 if slips else 0


def documented() -> list[tuple[str, Path]]:
    """Every rule's id and page, in the order of the pages."""
    pages = [ROOT / "docs" / "contract.md", *sorted((ROOT / "docs" / "internals").glob("*.md"))]
    return [(rule, page) for page in pages for rule in RULE.findall(page.read_text(encoding="utf-8"))]


def marked() -> dict[str, list[str]]:
    """The tests of each rule that any test names, as pytest takes them: file::name."""
    found = defaultdict(list)
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for path, mark in marks(ast.parse(file.read_text(encoding="utf-8")), (file.relative_to(ROOT).as_posix(),)):
            found[mark].append("::".join(path))
    return dict(found)


def marks(tree: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each rule that a decorator names, with the path to the function or class that bears it."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        within = (*path, node.name)
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.rule":
                yield from ((within, ast.literal_eval(rule)) for rule in call.args)
        yield from marks(node, within)


def check(rules: Sequence[tuple[str, Path]], tests: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What is wrong: an id that two rules have, a rule without a test, a test of no rule."""
    known = Counter(rule for rule, _ in rules)
    yield from (f"{rule} is the id of more than one rule" for rule, number in known.items() if number > 1)
    yield from (f"{page.relative_to(ROOT)}: {rule} has no test" for rule, page in rules if rule not in tests)
    yield from (f"{names[0]}: there is no rule {rule}" for rule, names in tests.items() if rule not in known)


def table(rules: Sequence[tuple[str, Path]], tests: Mapping[str, Sequence[str]]) -> str:
    """The page with the tests of each rule, in Markdown."""
    docs = ROOT / "docs"
    rows = (
        f"| [{rule}](../{page.relative_to(docs).as_posix()}) | {', '.join(f'`{name}`' for name in tests[rule])} |"
        for rule, page in rules
    )
    return "\n".join(["# Rules and their tests", "", "| Rule | Tests |", "|---|---|", *rows, ""])


if __name__ == "__main__":
    sys.exit(main())
