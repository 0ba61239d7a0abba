"""Kinds that a CustomResourceDefinition makes: their types, defaults, and validation by the schema."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from tests.simulation.apiserver.fields import Items, Struct, Type, items_of
from tests.simulation.apiserver.kinds import Causes, Kind, typed
from tests.simulation.apiserver.messages import Json, cause
from tests.simulation.apiserver.rules import PREDICATES, broken, rules_of

Schema = Mapping[str, Any]

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_BLOCKING: Final = frozenset(
    f"FieldValue{what}" for what in ("NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid")
)
_DATE_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def kind_of(definition: Mapping[str, Any]) -> Kind:
    """The kind that a definition of one version makes."""
    spec = definition["spec"]
    [version] = spec["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    if unknown := set(rules_of(schema)) - set(PREDICATES):
        raise AssertionError(f"rules that nobody can judge here: {sorted(unknown)}")
    status_default = (schema.get("properties") or {}).get("status", {}).get("default")
    paths = [each["jsonPath"] for each in version.get("selectableFields") or ()]

    def default(raw: Json) -> None:
        kept = _pruned({name: value for name, value in raw.items() if name not in _OUTSIDE}, schema)
        kept = _defaulted(kept, schema)
        outside: Json = {name: raw[name] for name in _OUTSIDE if name in raw}
        raw.clear()
        raw.update({**outside, **kept})

    def decode(raw: Json) -> Json:
        return raw if "status" in raw or status_default is None else {**raw, "status": status_default}

    def prepare(new: Json, old: Json) -> None:
        if "status" in old:
            new["status"] = old["status"]
        else:
            new.pop("status", None)
        if _but_metadata(new) != _but_metadata(old):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1

    def validate(raw: Json, old: Json | None) -> Causes:
        found = list(_wrong(_but_metadata(raw), old, schema, ""))
        if any(each["reason"] in _BLOCKING for each in found):
            found.append(cause("FieldValueInvalid", "<nil>", "some validation rules were not checked"))
            return found
        return [*found, *broken(raw, old, schema)]

    return Kind(
        group=spec["group"],
        version=version["name"],
        plural=spec["names"]["plural"],
        name=spec["names"]["kind"],
        type=_root_type(schema),
        unconditional=False,
        status="status" in (version.get("subresources") or {}),
        custom=True,
        default=default,
        decode=decode,
        prepare=prepare,
        validate=validate,
        selectable=lambda raw: {path[1:]: _text(_at(raw, path)) for path in paths},
    )


_OUTSIDE: Final = ("apiVersion", "kind", "metadata")


def _but_metadata(raw: Json) -> Json:
    return {name: value for name, value in raw.items() if name != "metadata"}


def _root_type(schema: Schema) -> Struct:
    fields = {name: _type_of(part) for name, part in (schema.get("properties") or {}).items()}
    return typed(**{name: kind for name, kind in fields.items() if name not in _OUTSIDE})


def _type_of(schema: Schema) -> Type:
    if schema.get("type") == "object":
        fields = {name: _type_of(part) for name, part in (schema.get("properties") or {}).items()}
        more = schema.get("additionalProperties")
        return Struct(fields=fields, element=_type_of(more) if more else None)
    if schema.get("type") == "array" and schema.get("x-kubernetes-list-type") in {"set", "map"}:
        return items_of(_type_of(schema["items"]), *(schema.get("x-kubernetes-list-map-keys") or ()))
    return Type(_TYPES.get(schema.get("type", ""), (object,)))


def _at(raw: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - JSON
    value: Any = raw
    for name in path.strip(".").split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _pruned(value: Any, schema: Schema) -> Any:  # noqa: ANN401 - JSON
    """A value less the fields that the schema does not know."""
    if isinstance(value, dict):
        known, more = schema.get("properties") or {}, schema.get("additionalProperties")
        return {
            name: _pruned(part, known.get(name) or more or {}) for name, part in value.items() if name in known or more
        }
    if isinstance(value, list) and "items" in schema:
        return [_pruned(item, schema["items"]) for item in value]
    return value


def _defaulted(value: Any, schema: Schema) -> Any:  # noqa: ANN401 - JSON
    """A value with the defaults of what was left out, or is null where it must not be."""
    if isinstance(value, dict):
        known, more = schema.get("properties") or {}, schema.get("additionalProperties")
        filled = dict(value)
        for name, part in known.items():
            if filled.get(name, part) is None and not part.get("nullable"):
                del filled[name]
            if "default" in part and name not in filled:
                filled[name] = part["default"]
        return {name: _defaulted(part, known.get(name) or more or {}) for name, part in filled.items()}
    if isinstance(value, list) and "items" in schema:
        return [_defaulted(item, schema["items"]) for item in value]
    return value


def _wrong(value: Any, old: Any, schema: Schema, path: str) -> Iterator[dict[str, str]]:  # noqa: ANN401 - JSON
    """What is wrong with a value by the schema: types, bounds, formats, what is missing; fields stay as they were."""
    if value is None and schema.get("nullable"):
        return
    expected = _TYPES.get(schema.get("type", ""), (object,))
    if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected and object not in expected):
        yield cause("FieldValueTypeInvalid", path or "<nil>", f"must be of type {schema['type']}")
        return
    yield from _out_of_bounds(value, schema, path)
    if isinstance(value, dict):
        known, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for name in schema.get("required") or ():
            if name not in value:
                yield cause("FieldValueRequired", _join(path, name), "Required value")
        before = old if isinstance(old, dict) else {}
        for name, part in value.items():
            if name not in before or part != before[name]:
                yield from _wrong(part, before.get(name), known.get(name) or more or {}, _join(path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _wrong(item, None, schema.get("items") or {}, f"{path}[{number}]")
        yield from _duplicates(value, schema, path)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _out_of_bounds(value: Any, schema: Schema, path: str) -> Iterator[dict[str, str]]:  # noqa: ANN401 - JSON
    if "enum" in schema and value not in schema["enum"]:
        yield cause("FieldValueNotSupported", path, "unsupported value")
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)):
            yield cause("FieldValueTooLong", path, "may not be longer")
        if len(value) < schema.get("minLength", 0):
            yield cause("FieldValueInvalid", path, "should be longer")
        if schema.get("format") == "date-time" and not _is_date_time(value):
            yield cause("FieldValueTypeInvalid", path, "must be of type date-time")
    if isinstance(value, list) and len(value) > schema.get("maxItems", len(value)):
        yield cause("FieldValueTooMany", path, "must have fewer items")
    if isinstance(value, dict) and len(value) > schema.get("maxProperties", len(value)):
        yield cause("FieldValueTooMany", path, "must have fewer items")
    if "minimum" in schema and value < schema["minimum"]:
        yield cause("FieldValueInvalid", path, "should be greater than or equal to")


def _is_date_time(text: str) -> bool:
    if not _DATE_TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _duplicates(items: list[Any], schema: Schema, path: str) -> Iterator[dict[str, str]]:
    kind = _type_of(schema)
    if not isinstance(kind, Items):
        return
    seen: set[str] = set()
    for number, item in enumerate(items):
        if kind.keys and not isinstance(item, dict):
            continue
        name = kind.name(item)
        if name in seen:
            yield cause("FieldValueDuplicate", f"{path}[{number}]", "Duplicate value")
        seen.add(name)
