"""What etcd holds: objects, one counter of versions for all of them, and the history until it is compacted."""

import bisect
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tests.simulation.apiserver.messages import Json


class Key(NamedTuple):
    """Where an object lies; `resource` is group and plural, `namespace` empty for what is in none."""

    resource: str
    namespace: str
    name: str

    @property
    def place(self) -> str:
        """The key within the resource, by which lists are in order."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Change:
    """An object was created, changed, or deleted: what it was before and after, None where there was none."""

    version: int
    key: Key
    before: Json | None
    after: Json | None


@dataclass
class Storage:
    """Objects by key. They are never changed in place, so that whoever holds one may keep it.

    Attributes:
        version: that of the last change.
        objects: what there is.
        history: the changes after `compacted`, oldest first.
        compacted: what is told of versions up to this one is lost.
    """

    version: int = 1
    objects: dict[Key, Json] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    compacted: int = 0

    def put(self, key: Key, raw: Json) -> Json:
        """Store an object under a new version, which it bears; return it."""
        self.version += 1
        stored = {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(self.version)}}
        self.history.append(Change(self.version, key, self.objects.get(key), stored))
        self.objects[key] = stored
        return stored

    def delete(self, key: Key) -> Json:
        """Drop an object; return its last state, which bears the version of its deletion."""
        before = self.objects.pop(key)
        self.version += 1
        self.history.append(Change(self.version, key, before, None))
        return {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.version)}}

    def of(self, resource: str, namespace: str, version: int | None = None) -> list[tuple[Key, Json]]:
        """The objects of a resource (in a namespace, if not empty), by key, now or as of a version."""
        objects = self.objects
        if version is not None and version < self.version:
            objects = dict(objects)
            for change in reversed(self.since(version)):
                if change.before is None:
                    objects.pop(change.key, None)
                else:
                    objects[change.key] = change.before
        found = [(key, raw) for key, raw in objects.items() if _is_in(key, resource, namespace)]
        return sorted(found, key=lambda each: each[0].place)

    def since(self, version: int) -> list[Change]:
        """The changes after a version, which has not been compacted."""
        return self.history[bisect.bisect_right(self.history, version, key=lambda change: change.version) :]

    def compact(self, version: int) -> None:
        """Forget the history up to a version."""
        self.history = self.since(version)
        self.compacted = max(self.compacted, version)

    def copy(self) -> "Storage":
        """All of it as it is now."""
        return replace(self, objects=dict(self.objects), history=list(self.history))


def _is_in(key: Key, resource: str, namespace: str) -> bool:
    return key.resource == resource and namespace in {"", key.namespace}
