"""What every write passes on its way to the storage: namespaces, validation, admission, versions."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, Literal
from uuid import UUID

from tests.simulation.apiserver.builtin import NAMESPACE, new_namespace
from tests.simulation.apiserver.kinds import Kind
from tests.simulation.apiserver.managed import Managers, entries_of
from tests.simulation.apiserver.messages import (
    Json,
    Refusal,
    bad_request,
    cause,
    conflict,
    exists,
    forbidden,
    invalid,
    not_found,
    own_failure,
)
from tests.simulation.apiserver.metadata import wrong_change, wrong_metadata
from tests.simulation.apiserver.shapes import rfc3339
from tests.simulation.apiserver.storage import Key, Storage

WIPED: Final = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation")
_KEPT: Final = ("generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about: an object, or, without a name, all of a namespace or of the cluster."""

    kind: Kind
    namespace: str
    name: str
    subresource: str = ""

    @property
    def key(self) -> Key:
        """Where it lies in the storage."""
        return Key(self.kind.resource, self.namespace, self.name)

    def conflict(self, why: str) -> Refusal:
        """A precondition does not hold."""
        return conflict(self.kind.group, self.kind.plural, self.name, why)

    def invalid(self, causes: list[dict[str, str]]) -> Refusal:
        """What it would become is not valid."""
        group = self.kind.group if self.kind.home is None else self.kind.home
        return invalid(group, self.kind.name, self.name, causes)

    def not_found(self) -> Refusal:
        """It is not there."""
        return not_found(self.kind.group, self.kind.plural, self.name)


@dataclass(frozen=True, slots=True)
class Review:
    """A write that admission may refuse: what is there, and what it would become (None: it is deleted)."""

    operation: Literal["CREATE", "UPDATE", "DELETE"]
    kind: Kind
    key: Key
    before: Json | None
    after: Json | None
    dry_run: bool


Admission = Callable[[Review], Refusal | None]


class Registry:
    """Creates and updates objects in the storage, if they may be.

    Attributes:
        storage: what etcd holds.
        admissions: what may refuse a write, in this order: quotas, policies, webhooks.
    """

    def __init__(self, random: Random) -> None:
        """An empty storage; `random` is what uids are drawn from."""
        self.storage = Storage()
        self.admissions: list[Admission] = []
        self._random = random

    def new_uid(self) -> str:
        """A uid that nothing has had yet."""
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def created(  # noqa: PLR0913 - what is made, by whom, when and how
        self, target: Target, raw: Json, managers: Managers, now: float, *, dry_run: bool, posted: bool = False
    ) -> Json:
        """Store a new object, `posted` or made by an update; return what it became. Raises Refusal."""
        kind = target.kind
        own = {"uid": self.new_uid(), "creationTimestamp": rfc3339(now)}
        meta = {**{name: value for name, value in raw["metadata"].items() if name not in WIPED}, **own}
        if kind.custom:
            meta["generation"] = 1
        if managers:
            meta["managedFields"] = entries_of(managers, kind)
        raw = {**raw, "metadata": meta}
        if kind.status:
            raw.pop("status", None)
        if kind is NAMESPACE:
            raw = new_namespace(raw)
        self._check_namespace(target)
        if causes := [*wrong_metadata(raw["metadata"]), *kind.validate(raw, None)]:
            raise target.invalid(causes)
        self.admit(Review("CREATE", kind, target.key, None, raw, dry_run))
        if posted and not dry_run and raw["metadata"].get("resourceVersion"):
            raise own_failure("resourceVersion should not be set on objects to be created")
        if target.key in self.storage.objects:
            raise exists(kind.group, kind.plural, target.name)
        return self.stored(target, kind.encode(raw), dry_run=dry_run)

    def updated(self, target: Target, live: Json, raw: Json, managers: Managers, *, dry_run: bool) -> Json:
        """Store what an object became, if it is as it was seen to be; return it. Raises Refusal."""
        kind = target.kind
        self._check_version(target, live, raw)
        new = self._prepared(target, live, raw, managers)
        meta, old = new["metadata"], live["metadata"]
        if causes := [*wrong_metadata(meta), *wrong_change(meta, old), *kind.validate(new, live)]:
            raise target.invalid(causes)
        self.admit(Review("UPDATE", kind, target.key, live, new, dry_run))
        new = kind.encode(new)
        if _timeless(new) == _timeless(self.storage.objects[target.key]):
            return live
        if "deletionTimestamp" in old and not meta.get("finalizers") and kind is not NAMESPACE:
            if not dry_run:
                self.storage.delete(target.key)
            return new
        return self.stored(target, new, dry_run=dry_run)

    def found(self, target: Target) -> Json | None:
        """An object as it is read, None where there is none."""
        raw = self.storage.objects.get(target.key)
        return None if raw is None else target.kind.decode(raw)

    def stored(self, target: Target, raw: Json, *, dry_run: bool) -> Json:
        """Store an object, unless nothing is to be stored; return it as it is read."""
        return target.kind.decode(raw if dry_run else self.storage.put(target.key, raw))

    def admit(self, review: Review) -> None:
        """Ask admission about a write. Raises Refusal."""
        for admission in self.admissions:
            if (refusal := admission(review)) is not None:
                raise refusal

    @staticmethod
    def _check_version(target: Target, live: Json, raw: Json) -> None:
        kind, version = target.kind, raw["metadata"].get("resourceVersion")
        if not version and not kind.unconditional:
            causes = [cause("FieldValueInvalid", "metadata.resourceVersion", "must be specified for an update")]
            raise invalid(kind.group, kind.plural, target.name, causes)
        if version and version != live["metadata"]["resourceVersion"]:
            raise target.conflict("the object has been modified; please apply your changes to the latest version")

    @staticmethod
    def _prepared(target: Target, live: Json, raw: Json, managers: Managers) -> Json:
        """An update with what it must not change as it was: by the subresource all but the status."""
        kind, old = target.kind, live["metadata"]
        if target.subresource:
            new = {**live, "metadata": dict(old), "status": raw.get("status")}
            if new["status"] is None:
                del new["status"]
        else:
            meta = {"uid": old["uid"], **raw["metadata"], "resourceVersion": old["resourceVersion"]}
            for name in _KEPT:
                if name in old:
                    meta[name] = old[name]
            new = {**raw, "metadata": meta}
            kind.prepare(new, live)
        if entries := entries_of(managers, kind):
            new["metadata"]["managedFields"] = entries
        else:
            new["metadata"].pop("managedFields", None)
        return new

    def _check_namespace(self, target: Target) -> None:
        """Refuse what is to be made in a namespace that is not there, or ends. Raises Refusal."""
        if not target.kind.namespaced:
            return
        found = self.storage.objects.get(Key(NAMESPACE.resource, "", target.namespace))
        if found is None:
            raise not_found("", "namespaces", target.namespace)
        if found["status"]["phase"] == "Terminating":
            causes = [cause("NamespaceTerminating", "metadata.namespace", "it is being terminated")]
            why = f"unable to create new content in namespace {target.namespace} because it is being terminated"
            raise forbidden(target.kind.group, target.kind.plural, target.name, why, causes)


def in_namespace(target: Target, meta: Json) -> Json:
    """Metadata with the namespace of the request. Raises Refusal where it names another."""
    if not target.kind.namespaced:
        return meta
    if meta.get("namespace") not in {None, "", target.namespace}:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    return {**meta, "namespace": target.namespace}


def _timeless(raw: Json) -> Json:
    """An object without the times of its managed fields: a write that changes only those is none."""
    meta = raw["metadata"]
    entries = [{**entry, "time": ""} for entry in meta.get("managedFields") or ()]
    return {**raw, "metadata": {**meta, "managedFields": entries}}
