"""Makes the mutants of a module: every small change that mutmut's operators know, and a few more.

mutmut itself leaves out what is decorated and what stands outside of functions; here it is changed, too: properties,
the defaults of dataclasses, tables of rules. Messages are left out, and so are types.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators


@dataclass(eq=False, frozen=True)
class Source:
    """A module that is changed, and its name, as it is imported."""

    path: Path
    name: str
    tree: cst.Module


@dataclass(eq=False)
class Mutant:
    """One small change: `instead` in the place of `node`, in one of the module's statements.

    `function` is the qualified name of the function around, empty where there is none. Only a test that comes by one of
    the `lines` can notice it.
    """

    source: Source
    statement: int
    function: str
    lines: range
    node: cst.CSTNode
    instead: cst.CSTNode

    @cached_property
    def text(self) -> str:
        """The module with the change."""
        body = list(self.source.tree.body)
        body[self.statement] = body[self.statement].deep_replace(self.node, self.instead)
        return self.source.tree.with_changes(body=body).code

    @property
    def where(self) -> str:
        """Module and function, for people."""
        folder, module = self.source.name.split(".")[-2:]
        return f"{folder}/{module} {self.function}".rstrip()

    @property
    def change(self) -> tuple[str, str]:
        """The lines that differ, each in one, before and after."""
        before, after = self.source.tree.code.splitlines(), self.text.splitlines()
        while before and after and before[0] == after[0]:
            del before[0], after[0]
        while before and after and before[-1] == after[-1]:
            del before[-1], after[-1]
        return " ".join(map(str.strip, before)), " ".join(map(str.strip, after))


def mutants_of(path: Path, name: str) -> list[Mutant]:
    """Make all mutants of the module of that name."""
    wrapper = MetadataWrapper(cst.parse_module(path.read_text()))
    visitor = _Visitor(Source(path, name, wrapper.module))
    wrapper.visit(visitor)
    return visitor.mutants


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.mutants: list[Mutant] = []
        self._source = source
        self._numbers = {statement: number for number, statement in enumerate(source.tree.body)}
        self._statement = 0
        self._names: list[str] = []  # of the classes and functions around
        self._function = ""  # the outermost, while in its body: its default values belong to what is around
        self._lines: list[range] = [range(0)]  # of the statements around, without what is in their blocks

    def on_visit(self, node: cst.CSTNode) -> bool:
        self._statement = self._numbers.get(node, self._statement)
        if _left_out(node, outside=not self._function):
            return False
        if isinstance(node, cst.ClassDef | cst.FunctionDef):
            self._names.append(node.name.value)
        if isinstance(node, cst.BaseCompoundStatement | cst.SimpleStatementLine):
            self._lines.append(self._lines_of(node))
        for kind, operator in _OPERATORS:
            if isinstance(node, kind):
                for instead in operator(node):
                    self._add(node, instead)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.ClassDef | cst.FunctionDef):
            self._names.pop()
        if isinstance(original_node, cst.BaseCompoundStatement | cst.SimpleStatementLine):
            self._lines.pop()

    def on_visit_attribute(self, node: cst.CSTNode, attribute: str) -> None:
        if isinstance(node, cst.FunctionDef) and attribute == "body":
            self._function = self._function or ".".join(self._names)

    def on_leave_attribute(self, original_node: cst.CSTNode, attribute: str) -> None:
        if isinstance(original_node, cst.FunctionDef) and attribute == "body":
            self._function = "" if self._function == ".".join(self._names) else self._function

    def _lines_of(self, node: cst.CSTNode) -> range:
        place = self.get_metadata(PositionProvider, node)
        block = getattr(node, "body", None)  # a match has none: its cases are part of it
        end = self.get_metadata(PositionProvider, block).start if isinstance(block, cst.BaseSuite) else place.end
        return range(place.start.line, end.line + 1)

    def _add(self, node: cst.CSTNode, instead: cst.CSTNode) -> None:
        if not _changes_message(node, instead) and not _is_infinity(node):
            lines = self._lines[-1]
            self.mutants.append(Mutant(self._source, self._statement, self._function, lines, node, instead))


def _left_out(node: cst.CSTNode, *, outside: bool) -> bool:
    """Docstrings, types, decorators, the values that an enumeration chooses, and what would break in any case."""
    match node:
        case cst.Annotation() | cst.Decorator() | cst.Import() | cst.ImportFrom():
            return True
        case cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString()):
            return True
        case cst.Call(func=cst.Name(value="len" | "isinstance")):
            return True
        case cst.Assign(value=cst.Call(func=cst.Name(value="auto"))):
            return True
        case cst.Assign(value=cst.Subscript() | cst.BinaryOperation(operator=cst.BitOr())):
            return outside  # a name for a type
    return False


def _is_message(node: cst.CSTNode) -> bool:
    """Whether it is for people to read: no other text has a blank within."""
    match node:
        case cst.SimpleString():
            return " " in node.raw_value.strip()
        case cst.FormattedString():
            return any(isinstance(part, cst.FormattedStringText) and " " in part.value.strip() for part in node.parts)
        case cst.ConcatenatedString():
            return _is_message(node.left) or _is_message(node.right)
    return isinstance(node, cst.Name) and node.value == "message"


def _is_infinity(node: cst.CSTNode) -> bool:
    """Whether it is the text of an infinite number, in which case does not count and all else would break."""
    return isinstance(node, cst.SimpleString) and node.raw_value in ("inf", "-inf")


def _changes_message(node: cst.CSTNode, instead: cst.CSTNode) -> bool:
    """Whether a message is changed, also where it is an argument or gets a name."""
    match node, instead:
        case cst.Call(), cst.Call():
            return any(_is_message(argument.value) and argument not in instead.args for argument in node.args)
        case ((cst.Assign() | cst.AnnAssign()), _):
            return node.value is not None and _is_message(node.value)
    return _is_message(node)


def _without_one(node: cst.Tuple | cst.List | cst.Set | cst.Dict) -> Iterator[cst.CSTNode]:
    """Leave out one of several elements: a rule of a table, a part of a key."""
    if len(node.elements) > 1:
        for number in range(len(node.elements)):
            yield node.with_changes(elements=[*node.elements[:number], *node.elements[number + 1 :]])


def _without_result(node: cst.Return) -> Iterator[cst.CSTNode]:
    """Return nothing. In the place of `False` that would mean the same to all who ask, and mypy refuses it."""
    if node.value is not None and not (isinstance(node.value, cst.Name) and node.value.value in ("None", "False")):
        yield node.with_changes(value=cst.Name("None"))


def _one_way(node: cst.If) -> Iterator[cst.CSTNode]:
    """Go the same way whatever the condition is."""
    yield node.with_changes(test=cst.Name("True"))
    yield node.with_changes(test=cst.Name("False"))


def _without_act(node: cst.SimpleStatementLine) -> Iterator[cst.CSTNode]:
    """Leave out a call that is made for what it does, or a change of what an object or a table holds."""
    match node.body[0]:
        case cst.Expr(value=cst.Call() | cst.Await()):
            yield node.with_changes(body=[cst.Pass()])
        case (
            cst.Assign(targets=[cst.AssignTarget(target=cst.Attribute() | cst.Subscript())])
            | cst.AugAssign(target=cst.Attribute() | cst.Subscript())
        ):
            yield node.with_changes(body=[cst.Pass()])


_OPERATORS: list[tuple[Any, Callable[[Any], Iterable[cst.CSTNode]]]] = [
    *mutation_operators,
    (cst.Tuple | cst.List | cst.Set | cst.Dict, _without_one),
    (cst.Return, _without_result),
    (cst.If, _one_way),
    (cst.SimpleStatementLine, _without_act),
]
