"""Selectors: which objects a list or a watch is about, by labels and by fields."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.simulation.apiserver.kinds import Kind
from tests.simulation.apiserver.messages import Json, bad_request

Selector = Callable[[Json], bool]

_SET: Final = re.compile(r"^(?P<key>\S+)\s+(?P<how>in|notin)\s*\((?P<values>[^)]*)\)$")
_PARTS: Final = re.compile(r",(?![^(]*\))")


def selector(query: Mapping[str, str], kind: Kind) -> Selector:
    """What a request selects. Raises Refusal where a field cannot be selected by."""
    labels = [_label_rule(part.strip()) for part in _split(query.get("labelSelector", ""))]
    fields = [_field_rule(part, kind) for part in _split(query.get("fieldSelector", ""))]

    def matches(raw: Json) -> bool:
        own = raw["metadata"].get("labels") or {}
        if not all(rule(own) for rule in labels):
            return False
        return not fields or _all_hold(fields, selectable(raw, kind))

    return matches


def only_name(query: Mapping[str, str]) -> str:
    """The one name that is selected, empty where there is none."""
    parts = (re.split(r"(!=|==|=)", part, maxsplit=1) for part in _split(query.get("fieldSelector", "")))
    return next((value for name, how, value in parts if name == "metadata.name" and how != "!="), "")


def _all_hold(rules: list[Callable[[Mapping[str, str]], bool]], values: Mapping[str, str]) -> bool:
    return all(rule(values) for rule in rules)


def selectable(raw: Json, kind: Kind) -> Mapping[str, str]:
    """The values by which an object can be selected."""
    meta = raw["metadata"]
    own = {"metadata.name": meta["name"], **({"metadata.namespace": meta["namespace"]} if kind.namespaced else {})}
    return {**own, **kind.selectable(raw)}


def _split(text: str) -> list[str]:
    return [part for part in _PARTS.split(text) if part]


def _field_rule(text: str, kind: Kind) -> Callable[[Mapping[str, str]], bool]:
    name, how, value = re.split(r"(!=|==|=)", text, maxsplit=1)
    known = {"metadata.name", *(["metadata.namespace"] if kind.namespaced else []), *kind.selectable({})}
    if name not in known:
        raise bad_request(f"field label not supported: {name}")
    return lambda values: (values.get(name, "") == value) is (how != "!=")


def _label_rule(text: str) -> Callable[[Mapping[str, Any]], bool]:
    if found := _SET.match(text):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["how"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if "=" in text:
        key, how, value = (part.strip() for part in re.split(r"(!=|==|=)", text, maxsplit=1))
        return lambda labels: (labels.get(key) == value) is (how != "!=")
    if text.startswith("!"):
        return lambda labels: text[1:].strip() not in labels
    return lambda labels: text in labels
