"""What is valid in the metadata that all objects have (k8s.io/apimachinery, pkg/api/validation)."""

import re
from typing import Final

from tests.simulation.apiserver.messages import Json, cause

Causes = list[dict[str, str]]

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_PART: Final = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_MOST_OF_A_NAME: Final = 253
_MOST_OF_A_PART: Final = 63
_MOST_OF_ANNOTATIONS: Final = 256 * 1024
_NEVER_CHANGED: Final = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_OF_OWNERS: Final = ("apiVersion", "kind", "name", "uid")


def is_subdomain(text: str) -> bool:
    """Whether it can be the name of an object (RFC 1123)."""
    return len(text) <= _MOST_OF_A_NAME and bool(_SUBDOMAIN.fullmatch(text))


def is_qualified(text: str) -> bool:
    """Whether it can be the key of a label, or a finalizer's name."""
    prefix, slash, name = text.rpartition("/")
    if slash and not is_subdomain(prefix):
        return False
    return len(name) <= _MOST_OF_A_PART and bool(_LABEL_PART.fullmatch(name))


def is_label_value(text: str) -> bool:
    """Whether it can be the value of a label."""
    return not text or (len(text) <= _MOST_OF_A_PART and bool(_LABEL_PART.fullmatch(text)))


def wrong_metadata(meta: Json) -> Causes:
    """What is wrong with an object's metadata as it is."""
    found: Causes = []
    if not meta.get("name"):
        found.append(cause("FieldValueRequired", "metadata.name", "name or generateName is required"))
    elif not is_subdomain(meta["name"]):
        found.append(cause("FieldValueInvalid", "metadata.name", "must be a lowercase RFC 1123 subdomain"))
    for key, value in (meta.get("labels") or {}).items():
        if not is_qualified(key) or not is_label_value(value):
            found.append(cause("FieldValueInvalid", "metadata.labels", "must be a label"))
    annotations = meta.get("annotations") or {}
    found += [
        cause("FieldValueInvalid", "metadata.annotations", "must be a qualified name")
        for key in annotations
        if not is_qualified(key.lower())
    ]
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _MOST_OF_ANNOTATIONS:
        found.append(cause("FieldValueTooLong", "metadata.annotations", "may not be more than 262144 bytes"))
    return found + _wrong_owners(meta.get("ownerReferences") or []) + _wrong_finalizers(meta.get("finalizers") or [])


def _wrong_owners(owners: list[Json]) -> Causes:
    found = [
        cause("FieldValueRequired", f"metadata.ownerReferences[{number}].{name}", "must not be empty")
        for number, owner in enumerate(owners)
        for name in _OF_OWNERS
        if not owner.get(name)
    ]
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        found.append(cause("FieldValueInvalid", "metadata.ownerReferences", "only one can be the controller"))
    return found


def _wrong_finalizers(names: list[str]) -> Causes:
    return [
        cause("FieldValueInvalid", "metadata.finalizers", "must be a qualified name")
        for name in names
        if not is_qualified(name)
    ]


def wrong_change(meta: Json, old: Json) -> Causes:
    """What must not change in an object's metadata, and does."""
    found = [
        cause("FieldValueInvalid", f"metadata.{name}", "field is immutable")
        for name in _NEVER_CHANGED
        if meta.get(name) != old.get(name)
    ]
    new = set(meta.get("finalizers") or ()) - set(old.get("finalizers") or ())
    if new and old.get("deletionTimestamp"):
        found.append(cause("FieldValueForbidden", "metadata.finalizers", "no new finalizers while it is being deleted"))
    return found
