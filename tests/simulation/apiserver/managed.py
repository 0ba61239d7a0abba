"""Who owns which fields: what updates and applies make of an object's managedFields."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tests.simulation.apiserver.fields import (
    NONE,
    Fields,
    Path,
    compare,
    fields_of,
    merge,
    read,
    with_named,
    without,
    written,
)
from tests.simulation.apiserver.kinds import Kind
from tests.simulation.apiserver.messages import Json

_MOST_UPDATERS: Final = 10
_ANCIENT: Final = "ancient-changes"
_FIRST: Final = "before-first-apply"
_NOBODYS: Final = frozenset[Path](
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    }
)


class Manager(NamedTuple):
    """Who made a change, and how; what it owns is kept by this."""

    name: str
    operation: str
    subresource: str = ""

    @property
    def applied(self) -> bool:
        """Whether it owns by apply."""
        return self.operation == "Apply"


@dataclass(frozen=True, slots=True)
class Owned:
    """What a manager owns, and since when (RFC 3339; empty: not known)."""

    fields: Fields
    time: str


Managers = dict[Manager, Owned]


class Conflicts(Exception):  # noqa: N818 - named like what it is
    """Fields that an apply without force would take from others: their paths by manager."""

    def __init__(self, fields: Mapping[Manager, Fields]) -> None:
        """Tell whose fields they are."""
        super().__init__("fields are somebody else's")
        self.fields = fields


def managers_of(raw: Mapping[str, Any]) -> Managers:
    """Read an object's managedFields."""
    return {
        Manager(entry.get("manager", ""), entry.get("operation", ""), entry.get("subresource", "")): Owned(
            read(entry.get("fieldsV1") or {}), entry.get("time") or ""
        )
        for entry in (raw.get("metadata") or {}).get("managedFields") or ()
    }


def entries_of(managers: Managers, kind: Kind) -> list[Json]:
    """Managers as managedFields, in their order."""

    def rank(each: Manager) -> tuple[str, ...]:
        return (each.operation, managers[each].time, each.name, each.subresource)

    return [
        {
            "manager": each.name,
            "operation": each.operation,
            "apiVersion": kind.api_version,
            **({"time": managers[each].time} if managers[each].time else {}),
            "fieldsType": "FieldsV1",
            "fieldsV1": written(managers[each].fields),
            **({"subresource": each.subresource} if each.subresource else {}),
        }
        for each in sorted(managers, key=rank)
    ]


def update(  # noqa: PLR0913, PLR0917 - what there was and is, and who made it so
    live: Json, new: Json, kind: Kind, managers: Managers, manager: Manager, time: str
) -> Managers:
    """Who owns what after an update: whoever changes a field owns it, and nobody else."""
    if not managers and live.get("metadata", {}).get("uid"):
        return {}  # nobody was asked to keep book, and an update does not begin to
    taken, removed = _changed(live, new, kind, manager)
    kept = _less(managers, taken | removed)
    mine = taken - _NOBODYS
    if mine:
        before = kept[manager].fields if manager in kept else NONE
        kept[manager] = Owned(before | mine, time)
    return _capped(kept)


def apply(  # noqa: PLR0913, PLR0917 - what there is, what is given, by whom and how
    live: Json, given: Json, kind: Kind, managers: Managers, manager: Manager, time: str, *, force: bool
) -> tuple[Json | None, Managers]:
    """What an apply makes of an object, None where it changes nothing, and who owns what then. Raises Conflicts."""
    if not managers:
        managers = update(kind_only(kind), live, kind, managers, Manager(_FIRST, "Update"), time)
    last = managers[manager].fields if manager in managers else NONE
    given_fields = frozenset(path for path in fields_of(given, kind.type) if _is_kept(path, kind, manager))
    managers = {**managers, manager: Owned(given_fields, managers[manager].time if manager in managers else "")}
    new = _pruned(merge(live, given, kind.type), kind, last, managers)
    taken, removed = _changed(live, new, kind, manager)
    others = {each: owned.fields & taken for each, owned in managers.items() if each != manager}
    if not force and any(others.values()):
        raise Conflicts({each: fields for each, fields in others.items() if fields})
    mine = managers.pop(manager)
    managers = _less(managers, taken | removed)
    changed = live != new
    fields = mine.fields - _NOBODYS
    if fields:
        managers[manager] = Owned(fields, time if changed else mine.time)
    return (new if changed else None), managers


def kind_only(kind: Kind) -> Json:
    """An object of a kind before anything is known of it."""
    return {**kind.empty, "apiVersion": kind.api_version, "kind": kind.name, "metadata": {}}


def _changed(live: Json, new: Json, kind: Kind, manager: Manager) -> tuple[Fields, Fields]:
    """The fields that a request gives a value and those that it removes, as far as it is to set them."""
    difference = compare(live, new, kind.type)
    taken = frozenset(path for path in difference.added | difference.modified if _is_kept(path, kind, manager))
    return taken, frozenset(path for path in difference.removed if _is_kept(path, kind, manager))


def _is_kept(path: Path, kind: Kind, manager: Manager) -> bool:
    """Whether a field is not one that this kind of request is not to set, where status is a subresource."""
    if not kind.status:
        return True
    return path[0] not in {"f:metadata", "f:spec"} if manager.subresource else path[0] != "f:status"


def _less(managers: Managers, gone: Fields) -> Managers:
    kept = {each: Owned(owned.fields - gone, owned.time) for each, owned in managers.items()}
    return {each: owned for each, owned in kept.items() if owned.fields}


def _pruned(merged: Json, kind: Kind, last: Fields, managers: Managers) -> Json:
    """What is merged, less what its manager gave the last time, does not give any more, and nobody else owns."""
    if not last:
        return merged
    named = with_named(last, kind.type)
    pruned = without(merged, named, kind.type) or {}
    all_fields = with_named(fields_of(merged, kind.type), kind.type)
    owned = with_named(NONE.union(*(each.fields for each in managers.values())), kind.type)
    left = with_named(fields_of(pruned, kind.type), kind.type)
    pruned = without(merged, all_fields - left - owned, kind.type) or {}
    left = with_named(fields_of(pruned, kind.type), kind.type)
    found: Json = without(merged, (all_fields - left) & named, kind.type)
    return found


def _capped(managers: Managers) -> Managers:
    """Of many who updated, the oldest are put together."""
    updaters = sorted((each for each in managers if not each.applied), key=lambda each: (managers[each].time, each))
    surplus = len(updaters) - _MOST_UPDATERS
    if surplus <= 0:
        return managers
    ancient = updaters[: surplus + 1]
    together = Owned(NONE.union(*(managers[each].fields for each in ancient)), managers[ancient[-1]].time)
    kept = {each: owned for each, owned in managers.items() if each not in ancient}
    return {**kept, Manager(_ANCIENT, "Update"): together}
