"""JSON to dataclasses, strictly: what the admin API and the clients file say is checked before it is believed."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")


class InvalidError(ValueError):
    """What came in is not what was asked for; the message is one sentence that names the field, never its value."""


def read(kind: type[T], document: object) -> T:
    """Build a dataclass from a decoded JSON object.

    Raises:
        InvalidError: If a field is unknown, missing or of another type, or if the dataclass refuses its value.
    """
    if not isinstance(document, Mapping):
        raise InvalidError(f"{kind.__name__} is given as a JSON object")
    hints = typing.get_type_hints(kind)
    for name in document:
        if name not in hints:
            raise InvalidError(f"{kind.__name__} has no field {str(name)!r}; it has {', '.join(sorted(hints))}")
    for name in _required(kind):
        if name not in document:
            raise InvalidError(f"{kind.__name__} needs the field {name!r}")
    return kind(**{name: _value(name, hints[name], value) for name, value in document.items()})


def _value(name: str, hint: Any, value: object) -> object:  # noqa: ANN401 -- a type hint has no type of its own
    """Return the value as the hint wants it (lists become tuples)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {Union, types.UnionType}:
        if value is None and type(None) in arguments:
            return None
        return _value(name, next(argument for argument in arguments if argument is not type(None)), value)
    if origin is Literal:
        if value in arguments:
            return value
        raise InvalidError(f"{name} is one of {', '.join(map(str, arguments))}")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(name, arguments[0], item) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {_value(name, arguments[0], key): _value(name, arguments[1], item) for key, item in value.items()}
    if origin is None and _SIMPLE[hint](value):
        return value
    raise InvalidError(f"{name} is of type {getattr(hint, '__name__', hint)}")


# bool is an int to Python and a number to nobody else.
_SIMPLE: dict[type, Callable[[object], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, int) and not isinstance(value, bool),
    float: lambda value: isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
}


def _required(kind: Any) -> list[str]:  # noqa: ANN401 -- dataclasses.fields wants a private protocol
    missing = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is missing and field.default_factory is missing
    ]
