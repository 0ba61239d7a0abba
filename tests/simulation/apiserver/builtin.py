"""The built-in kinds that the operator uses: Secrets, Leases, Events, Namespaces."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from tests.simulation.apiserver.fields import TEXT, WHOLE, Type, items_of, map_of, struct_of
from tests.simulation.apiserver.kinds import Causes, Kind, typed
from tests.simulation.apiserver.messages import Json, cause
from tests.simulation.apiserver.metadata import is_qualified

_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_MOST_OF_A_SECRET: Final = 1024 * 1024
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


# --- Secrets ---


def _default_secret(raw: Json) -> None:
    raw["type"] = raw.get("type") or "Opaque"
    data = {name: value or "" for name, value in (raw.get("data") or {}).items()}
    for name, text in (raw.pop("stringData", None) or {}).items():
        data[name] = base64.b64encode(text.encode()).decode()
    if data or raw.get("data") is not None:
        raw["data"] = data
    else:
        raw.pop("data", None)
    if raw.get("immutable") is None:
        raw.pop("immutable", None)


def _stored_secret(raw: Json) -> Json:
    return raw if raw.get("data") != {} else {name: value for name, value in raw.items() if name != "data"}


def _wrong_secret(raw: Json, old: Json | None) -> Causes:
    found: Causes = []
    if old is not None:
        if raw["type"] != old["type"]:
            found.append(cause("FieldValueInvalid", "type", "field is immutable"))
        if old.get("immutable"):
            found += [
                cause("FieldValueForbidden", name, "field is immutable when `immutable` is set")
                for name, changed in (
                    ("immutable", not raw.get("immutable")),
                    ("data", raw.get("data") != old.get("data")),
                )
                if changed
            ]
    data = raw.get("data") or {}
    for name in data:
        if not _KEY.fullmatch(name) or name == "." or name.startswith(".."):
            found.append(cause("FieldValueInvalid", f"data[{name}]", "a valid config key must consist of characters"))
    if sum(_size(value) for value in data.values()) > _MOST_OF_A_SECRET:
        found.append(cause("FieldValueTooLong", "data", "may not be more than 1048576 bytes"))
    missing = [name for name in _NEEDED.get(raw["type"], ()) if name not in data]
    found += [cause("FieldValueRequired", f"data[{name}]", "Required value") for name in missing]
    if raw["type"] == "kubernetes.io/basic-auth" and not {"username", "password"} & set(data):
        found += [cause("FieldValueRequired", f"data[{name}]", "Required value") for name in ("username", "password")]
    if raw["type"] == "kubernetes.io/service-account-token":
        annotation = "kubernetes.io/service-account.name"
        if not (raw["metadata"].get("annotations") or {}).get(annotation):
            found.append(cause("FieldValueRequired", f"metadata.annotations[{annotation}]", "Required value"))
    return found


def _size(value: str) -> int:
    return len(value) * 3 // 4 - value[-2:].count("=")


def _is_secret(raw: Json) -> bool:
    try:
        for value in (raw.get("data") or {}).values():
            base64.b64decode(value or "", validate=True)
    except (TypeError, ValueError, binascii.Error):
        return False
    return True


SECRET: Final = Kind(
    group="",
    version="v1",
    plural="secrets",
    name="Secret",
    type=typed(data=map_of(TEXT), stringData=map_of(TEXT), immutable=Type((bool,)), type=TEXT),
    readable=_is_secret,
    default=_default_secret,
    encode=_stored_secret,
    validate=_wrong_secret,
    selectable=lambda raw: {"type": raw.get("type", "")},
)


# --- Leases ---

_LEASE_FIELDS: Final = (
    "holderIdentity",
    "leaseDurationSeconds",
    "acquireTime",
    "renewTime",
    "leaseTransitions",
    "strategy",
    "preferredHolder",
)


def _default_lease(raw: Json) -> None:
    raw["spec"] = {name: value for name, value in (raw.get("spec") or {}).items() if value is not None}


def _wrong_lease(raw: Json, _old: Json | None) -> Causes:
    spec = raw["spec"]
    found: Causes = []
    if spec.get("leaseDurationSeconds", 1) <= 0:
        found.append(cause("FieldValueInvalid", "spec.leaseDurationSeconds", "must be greater than 0"))
    if spec.get("leaseTransitions", 0) < 0:
        found.append(cause("FieldValueInvalid", "spec.leaseTransitions", "must be greater than or equal to 0"))
    return found


LEASE: Final = Kind(
    group="coordination.k8s.io",
    version="v1",
    plural="leases",
    name="Lease",
    type=typed(spec=struct_of(**dict.fromkeys(_LEASE_FIELDS, WHOLE))),
    creates=True,
    unconditional=False,
    default=_default_lease,
    validate=_wrong_lease,
    empty={"spec": {}},
)


# --- Events ---

_LONGEST: Final = {"reportingInstance": 128, "action": 128, "reason": 128}
_MOST_OF_A_NOTE: Final = 1024
_EVENT_FIELDS: Final = (
    *("eventTime", "reportingController", "reportingInstance", "action", "reason", "note", "type"),
    *("deprecatedFirstTimestamp", "deprecatedLastTimestamp", "deprecatedCount"),
)


def _default_event(raw: Json) -> None:
    raw.setdefault("regarding", {})
    raw.setdefault("deprecatedSource", {})
    raw.setdefault("deprecatedFirstTimestamp", None)
    raw.setdefault("deprecatedLastTimestamp", None)


def _wrong_event(raw: Json, _old: Json | None) -> Causes:
    found: Causes = []
    if raw.get("type") not in {"Normal", "Warning"}:
        found.append(cause("FieldValueInvalid", "type", "has invalid value"))
    if (raw["regarding"].get("namespace") or "default") != raw["metadata"]["namespace"]:
        found.append(cause("FieldValueInvalid", "involvedObject.namespace", "does not match event.namespace"))
    if not raw.get("eventTime"):
        return [*found, cause("FieldValueRequired", "eventTime", "Required value")]
    for name in ("reportingController", *_LONGEST):
        value = raw.get(name) or ""
        if not value:
            found.append(cause("FieldValueRequired", name, "Required value"))
        if name == "reportingController" and not is_qualified(value):
            found.append(cause("FieldValueInvalid", name, "must be a qualified name"))
        if len(value.encode()) > _LONGEST.get(name, len(value.encode())):
            found.append(cause("FieldValueInvalid", name, "can have at most 128 characters"))
    if len((raw.get("note") or "").encode()) > _MOST_OF_A_NOTE:
        found.append(cause("FieldValueInvalid", "message", "can have at most 1024 characters"))
    return found


EVENT: Final = Kind(
    group="events.k8s.io",
    home="",
    version="v1",
    plural="events",
    name="Event",
    type=typed(
        **dict.fromkeys(_EVENT_FIELDS, WHOLE),
        regarding=WHOLE,
        related=WHOLE,
        deprecatedSource=struct_of(component=WHOLE, host=WHOLE),
        series=struct_of(count=WHOLE, lastObservedTime=WHOLE),
    ),
    creates=True,
    default=_default_event,
    validate=_wrong_event,
    empty={
        "regarding": {},
        "deprecatedSource": {},
        "deprecatedFirstTimestamp": None,
        "deprecatedLastTimestamp": None,
        "eventTime": None,
    },
)


# --- Namespaces ---


def _default_namespace(raw: Json) -> None:
    name = raw["metadata"].get("name", "")
    raw["metadata"]["labels"] = {**(raw["metadata"].get("labels") or {}), "kubernetes.io/metadata.name": name}
    raw["spec"] = raw.get("spec") or {}


def _prepare_namespace(new: Json, old: Json) -> None:
    new["spec"], new["status"] = old["spec"], old["status"]


def new_namespace(raw: Json) -> Json:
    """A namespace as it is made."""
    return {**raw, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}


def _phase(raw: Mapping[str, Any]) -> Mapping[str, str]:
    return {"status.phase": (raw.get("status") or {}).get("phase", "")}


NAMESPACE: Final = Kind(
    group="",
    version="v1",
    plural="namespaces",
    name="Namespace",
    type=typed(
        spec=struct_of(finalizers=WHOLE),
        status=struct_of(phase=WHOLE, conditions=items_of(WHOLE, "type")),
    ),
    namespaced=False,
    default=_default_namespace,
    prepare=_prepare_namespace,
    selectable=_phase,
    empty={"spec": {}, "status": {}},
)

BUILTIN: Final = (SECRET, LEASE, EVENT, NAMESPACE)
