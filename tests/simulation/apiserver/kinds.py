"""The kinds of object that the model knows, and what the API server does with each on its way to the storage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.simulation.apiserver.fields import TEXT, WHOLE, Struct, Type, items_of, map_of, struct_of
from tests.simulation.apiserver.messages import Json

Causes = list[dict[str, str]]

_PLAIN: Final = (
    *("name", "generateName", "namespace", "uid", "resourceVersion", "generation", "managedFields", "selfLink"),
    *("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
)
METADATA: Final = struct_of(
    **dict.fromkeys(_PLAIN, WHOLE),
    labels=map_of(TEXT),
    annotations=map_of(TEXT),
    finalizers=items_of(TEXT),
    ownerReferences=items_of(WHOLE, "uid"),
)


def _as_stored(raw: Json) -> Json:
    return raw


def _no_change(_new: Json, _old: Json) -> None:
    """Leave the object as it was sent."""


def _no_default(_raw: Json) -> None:
    """Leave the object as it was sent."""


def _always(_raw: Json) -> bool:
    return True


def _all_valid(_new: Json, _old: Json | None) -> Causes:
    return []


def _no_fields(_raw: Json) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Kind:
    """A kind of object, and its ways.

    Attributes:
        type: what its fields are, by which applies are merged and fields are owned.
        home: the group of the API that it is at home in, which refusals name, where it is served by another one.
        creates: whether a PUT creates what is not there.
        unconditional: whether an update may come without a resource version.
        status: whether its status is a subresource, which other writes leave alone.
        custom: whether a definition makes it, with a schema: then it has a generation, and only known fields.
        readable: whether something can be read as such an object at all.
        default: fills in what was left out, in place.
        encode: leaves out what is not stored where it is empty.
        decode: fills in what is left out of what is stored, which no request has to do with.
        prepare: sets what an update must not change, in place: the new object, the old one.
        validate: says what is wrong with a new object (and the old one, at an update).
        selectable: the values of its fields by which it can be selected.
    """

    group: str
    version: str
    plural: str
    name: str
    type: Struct
    namespaced: bool = True
    home: str | None = None
    creates: bool = False
    unconditional: bool = True
    status: bool = False
    custom: bool = False
    readable: Callable[[Json], bool] = _always
    default: Callable[[Json], None] = _no_default
    encode: Callable[[Json], Json] = _as_stored
    decode: Callable[[Json], Json] = _as_stored
    prepare: Callable[[Json, Json], None] = _no_change
    validate: Callable[[Json, Json | None], Causes] = _all_valid
    selectable: Callable[[Json], Mapping[str, str]] = _no_fields
    empty: Mapping[str, Any] = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        """Group and version as objects name them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """Group and plural, as keys name them."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def root(self) -> str:
        """The path below which its API is."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


def typed(**fields: Type) -> Struct:
    """The type of a kind with these fields besides those that all have."""
    return struct_of(apiVersion=WHOLE, kind=WHOLE, metadata=METADATA, **fields)
