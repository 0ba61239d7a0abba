"""Which fields an object has, which differ, and what an apply makes of two: structured merge and diff, by a type.

A field is a path of elements, written as in managedFields (FieldsV1): "f:data" is a name, 'k:{"uid":"1"}' an item of a
list by its key, 'v:"x"' an item of a set. (sigs.k8s.io/structured-merge-diff)
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str, ...]
Fields: TypeAlias = frozenset[Path]

NONE: Fields = frozenset()
_ABSENT: Any = object()


@dataclass(frozen=True, eq=False)
class Type:
    """A value that is one whole: a scalar, or an atomic list or map; `accepts` says what it may be, if not anything."""

    accepts: tuple[type, ...] = (object,)


@dataclass(frozen=True, eq=False)
class Struct(Type):
    """An object with named fields, and, where `element` is set, any other ones: a map has only those."""

    accepts: tuple[type, ...] = (dict,)
    fields: Mapping[str, Type] = field(default_factory=dict)
    element: Type | None = None

    def of(self, name: str) -> Type:
        """The type of a field."""
        return self.fields.get(name) or self.element or WHOLE


@dataclass(frozen=True, eq=False)
class Items(Type):
    """A list whose items are told apart by their keys, or, without keys, by themselves."""

    accepts: tuple[type, ...] = (list,)
    element: Type = field(default_factory=Type)
    keys: tuple[str, ...] = ()

    def name(self, item: Any) -> str:  # noqa: ANN401 - JSON
        """The path element of an item."""
        if not self.keys:
            return "v:" + _compact(item)
        return "k:" + _compact({key: item[key] for key in self.keys if key in item})

    def index(self, items: Iterable[Any] | None) -> dict[str, Any]:
        """The items by their names; of two with the same one the first."""
        found: dict[str, Any] = {}
        for item in items or ():
            found.setdefault(self.name(item), item)
        return found


WHOLE = Type()
TEXT = Type((str,))


def map_of(element: Type = WHOLE) -> Struct:
    """A map from names to values of one type."""
    return Struct(element=element)


def items_of(element: Type, *keys: str) -> Items:
    """A list whose items are told apart by keys, or by themselves."""
    return Items(element=element, keys=keys)


def struct_of(**fields: Type) -> Struct:
    """An object with these fields."""
    return Struct(fields=fields)


def fits(value: Any, kind: Type) -> bool:  # noqa: ANN401 - JSON
    """Whether a value can be of a type: no unknown fields, and no item twice. Null can be anything."""
    if value is None:
        return True
    if not _is_one_of(value, kind.accepts):
        return False
    if isinstance(kind, Struct):
        known = kind.element is not None or set(value) <= set(kind.fields)
        return known and all(fits(part, kind.of(name)) for name, part in value.items())
    if isinstance(kind, Items):
        named = all(isinstance(item, dict) and set(item) >= set(kind.keys) for item in value) if kind.keys else True
        return named and len(kind.index(value)) == len(value) and all(fits(item, kind.element) for item in value)
    return True


def _is_one_of(value: Any, accepted: tuple[type, ...]) -> bool:  # noqa: ANN401 - JSON
    """Whether a value is of one of these classes; for JSON, true and false are no numbers."""
    return object in accepted or type(value) in accepted


def _compact(value: Any) -> str:  # noqa: ANN401 - JSON
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


# --- Which fields ---


def fields_of(value: Any, kind: Type) -> Fields:  # noqa: ANN401 - JSON
    """All fields that a value has: leaves, items, and the names in maps."""
    found: set[Path] = set()
    _gather(value, kind, (), found)
    return frozenset(found)


def _gather(value: Any, kind: Type, path: Path, found: set[Path]) -> None:  # noqa: ANN401 - JSON
    if isinstance(kind, Struct):
        for name, part in (value or {}).items():
            below = (*path, f"f:{name}")
            _gather(part, kind.of(name), below, found)
            if part is None or part == {} or name not in kind.fields:
                found.add(below)
    elif isinstance(kind, Items):
        for name, item in kind.index(value).items():
            _gather(item, kind.element, (*path, name), found)
            found.add((*path, name))
    else:
        found.add(path)


# --- What differs ---


@dataclass(slots=True)
class Difference:
    """The fields that are in the second value alone, in the first alone, and in both with other values."""

    added: set[Path] = field(default_factory=set)
    removed: set[Path] = field(default_factory=set)
    modified: set[Path] = field(default_factory=set)


def compare(old: Any, new: Any, kind: Type) -> Difference:  # noqa: ANN401 - JSON
    """Tell how a value differs from an earlier one."""
    found = Difference()
    _compare(old, new, kind, (), found)
    return found


def _compare(old: Any, new: Any, kind: Type, path: Path, found: Difference) -> None:  # noqa: ANN401 - JSON
    if old is new or old == new:
        return
    leaf = type(kind) is Type or not (_some(old) or _some(new))
    if not leaf:
        olds, news = _parts(old, kind), _parts(new, kind)
        for name in {**olds, **news}:
            was, part = olds.get(name, _ABSENT), news.get(name, _ABSENT)
            _compare(was, part, _below(kind, name), (*path, name), found)
    if old is _ABSENT:
        found.added.add(path)
    elif new is _ABSENT:
        found.removed.add(path)
    elif leaf and old != new:
        found.modified.add(path)


def _some(value: Any) -> bool:  # noqa: ANN401 - JSON
    return value is not _ABSENT and bool(value)


def _parts(value: Any, kind: Type) -> dict[str, Any]:  # noqa: ANN401 - JSON
    if not _some(value):
        return {}
    return kind.index(value) if isinstance(kind, Items) else {f"f:{name}": part for name, part in value.items()}


def _below(kind: Type, name: str) -> Type:
    if isinstance(kind, Struct):
        return kind.of(name[2:])
    return kind.element if isinstance(kind, Items) else WHOLE


# --- What an apply makes of it ---


def merge(old: Any, new: Any, kind: Type) -> Any:  # noqa: ANN401 - JSON
    """What is there, with what is given put over it."""
    if type(kind) is Type or not old:
        return new
    if not new:
        return old
    if isinstance(kind, Struct):
        merged = dict(old)
        for name, part in new.items():
            merged[name] = merge(old[name], part, kind.of(name)) if name in old else part
        return merged
    assert isinstance(kind, Items)  # noqa: S101 - there are no other types
    return _merge_items(old, new, kind)


def _merge_items(old: list[Any], new: list[Any], kind: Items) -> list[Any]:
    """The items in the order of those given; those that are not given keep their place among the others."""
    olds, news = kind.index(old), kind.index(new)
    merged: list[Any] = []
    waiting = list(news)
    for name, item in olds.items():
        if name not in news:
            merged.append(item)
            continue
        if name not in waiting:
            continue
        while (first := waiting.pop(0)) != name:
            merged.append(merge(olds[first], news[first], kind.element) if first in olds else news[first])
        merged.append(merge(item, news[name], kind.element))
    merged += [merge(olds[name], news[name], kind.element) if name in olds else news[name] for name in waiting]
    return merged


def without(value: Any, gone: Fields, kind: Type) -> Any:  # noqa: ANN401 - JSON
    """A value less the fields that are gone; None where nothing is left of it."""
    if not gone or not value or type(kind) is Type:
        return value
    below: dict[str, set[Path]] = {}
    for path in gone:
        below.setdefault(path[0], set()).add(path[1:])
    if isinstance(kind, Struct):
        kept: dict[str, Any] = {}
        for name, part in value.items():
            rest = below.get(f"f:{name}", set())
            if () not in rest:
                kept[name] = _without(part, rest, kind.of(name))
        return kept or None
    assert isinstance(kind, Items)  # noqa: S101 - there are no other types
    items = [(item, below.get(kind.name(item), set())) for item in value]
    return [_without(item, rest, kind.element) for item, rest in items if () not in rest] or None


def _without(value: Any, gone: set[Path], kind: Type) -> Any:  # noqa: ANN401 - JSON
    if not gone:
        return value
    return None if type(kind) is Type and not _is_scalar(value) else without(value, frozenset(gone), kind)


def _is_scalar(value: Any) -> bool:  # noqa: ANN401 - JSON
    return not isinstance(value, dict | list)


def with_named(fields: Fields, kind: Type) -> Fields:
    """The fields, and the named ones (not those of maps) that they lie in."""
    found = set(fields)
    for path in fields:
        at: Type = kind
        for length, name in enumerate(path[:-1], 1):
            if isinstance(at, Struct) and name[2:] in at.fields and name.startswith("f:"):
                found.add(path[:length])
            at = _below(at, name)
    return frozenset(found)


# --- As it is written ---


def path_text(path: Path) -> str:
    """A field as messages write it."""
    return "".join(_element_text(name) for name in path)


def _element_text(name: str) -> str:
    kind, value = name[:2], name[2:]
    if kind == "f:":
        return f".{value}"
    if kind == "v:":
        return f"[={value}]"
    return "[" + ",".join(f"{key}={_compact(part)}" for key, part in json.loads(value).items()) + "]"


@lru_cache(maxsize=4096)
def written(fields: Fields) -> dict[str, Any]:
    """The fields as FieldsV1: what has fields of its own and counts itself has a "." among them.

    Nobody changes what is stored, so that whoever asks for the same fields gets the same tree.
    """
    tree: dict[str, Any] = {}
    for path in sorted(fields):
        node = tree
        for name in path:
            node = node.setdefault(name, {})
    inner = {path[:length] for path in fields for length in range(1, len(path))}
    for path in inner & fields:
        node = tree
        for name in path:
            node = node[name]
        node["."] = {}
    return tree


def read(tree: Mapping[str, Any]) -> Fields:
    """The fields of FieldsV1."""
    return _read(json.dumps(tree))


@lru_cache(maxsize=4096)
def _read(text: str) -> Fields:
    return frozenset(_walk(json.loads(text), ()))


def _walk(tree: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for name, below in tree.items():
        if name == ".":
            yield path
        elif below:
            yield from _walk(below, (*path, name))
        else:
            yield (*path, name)
