"""The CRD's schema and the operator's types say the same: each property is a field, with the same type and default."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import yaml

from tuinly_operator.domain.credential import GROUP, KIND, PLURAL, VERSION, Spec, Status, json_name, parse_spec, to_json

Json = dict[str, Any]

CRD: Json = yaml.safe_load((Path(__file__).parents[3] / "crds" / "tuinlycredentials.yaml").read_text())
(SERVED,) = CRD["spec"]["versions"]
SCHEMA: Json = SERVED["schema"]["openAPIV3Schema"]["properties"]
# Whatever the operator reports there comes from its own two functions; a type for it would serve nobody.
OPEN_ENUMS = {"status.conditions[].status"}
JSON_TYPES = {str: "string", int: "integer", bool: "boolean"}


@dataclass(frozen=True)
class Property:
    """What both sides say of one path; `default` is without what is null or empty, which means the same as absent."""

    kind: str
    default: object = None
    enum: tuple[str, ...] | None = None
    required: bool = False


def plain(value: object) -> object:
    """JSON without what is null, empty or an empty object."""
    if isinstance(value, Mapping):
        kept = {key: plain(below) for key, below in value.items()}
        return {key: below for key, below in kept.items() if below is not None} or None
    if isinstance(value, list | tuple | frozenset):
        return [plain(item) for item in value] or None
    return value


def filled(schema: Json, value: object) -> object:
    """What the API server makes of a value by the schema's defaults."""
    if not isinstance(value, dict):
        return value
    given = {name: below["default"] for name, below in schema.get("properties", {}).items() if "default" in below}
    return {name: filled(schema["properties"].get(name, {}), below) for name, below in (given | value).items()}


def described(schema: Json, path: str, *, required: bool = False) -> Iterator[tuple[str, Property]]:
    """What the schema says of a path and of all below it."""
    kind = "map" if "additionalProperties" in schema else schema["type"]
    enum = tuple(schema["enum"]) if "enum" in schema and path not in OPEN_ENUMS else None
    yield path, Property(kind, plain(filled(schema, schema.get("default"))), enum, required)
    for name, below in schema.get("properties", {}).items():
        yield from described(below, f"{path}.{name}", required=name in schema.get("required", []))
    for each in ("items", "additionalProperties"):
        if each in schema:
            yield from described(schema[each], f"{path}[]")


def declared(hint: Any, path: str, default: object = None, *, required: bool = False) -> Iterator[tuple[str, Property]]:  # noqa: ANN401 -- a type hint
    """What a type says of a path and of all below it."""
    if isinstance(hint, types.UnionType):
        (hint,) = [one for one in get_args(hint) if one is not types.NoneType]
    given = plain(to_json(default))
    if is_dataclass(hint):
        yield path, Property("object", given, required=required)
        hints = get_type_hints(hint)
        for f in fields(hint):
            missing = f.default is MISSING and f.default_factory is MISSING
            yield from declared(hints[f.name], f"{path}.{json_name(f)}", default_of(f), required=missing)
    elif get_origin(hint) is Mapping:
        yield path, Property("map", given, required=required)
        yield from declared(get_args(hint)[1], f"{path}[]")
    elif get_origin(hint) in (tuple, frozenset):
        yield path, Property("array", given, required=required)
        yield from declared(get_args(hint)[0], f"{path}[]")
    elif issubclass(hint, StrEnum):
        yield path, Property("string", given, tuple(hint), required)
    else:
        yield path, Property(JSON_TYPES[hint], given, required=required)


def default_of(f: Field[Any]) -> object:
    if f.default_factory is not MISSING:
        return f.default_factory()
    return None if f.default is MISSING else f.default


@pytest.mark.rule("RES-5")
def test_each_property_of_the_spec_is_a_field_of_the_same_type_and_default() -> None:
    assert dict(described(SCHEMA["spec"], "spec")) == dict(declared(Spec, "spec"))


@pytest.mark.rule("RES-5")
def test_each_property_of_the_status_is_a_field_of_the_same_type() -> None:
    # What a status must have is the API server's to check; a report that lacks it is read as none.
    schema = {path: (p.kind, p.enum) for path, p in described(SCHEMA["status"], "status")}
    assert schema == {path: (p.kind, p.enum) for path, p in declared(Status, "status")}


def test_the_least_spec_means_the_same_to_the_api_server_and_to_an_operator_whose_crd_lacks_defaults() -> None:
    least = {"clientSecretRef": {"name": "storefront-client"}}
    assert parse_spec(least) == parse_spec(filled(SCHEMA["spec"], least))


def test_a_status_is_written_with_every_property_of_the_schema() -> None:
    """What is not set is null, since the merge patch would keep it otherwise."""
    assert to_json(Status()).keys() == SCHEMA["status"]["properties"].keys()


@pytest.mark.parametrize(
    ("code", "schema"),
    [
        (GROUP, CRD["spec"]["group"]),
        (VERSION, SERVED["name"]),
        (PLURAL, CRD["spec"]["names"]["plural"]),
        (KIND, CRD["spec"]["names"]["kind"]),
    ],
    ids=["group", "version", "plural", "kind"],
)
def test_the_resource_has_one_name(code: str, schema: str) -> None:
    assert code == schema
