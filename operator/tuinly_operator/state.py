"""What the operator knows from a Secret's metadata: whose it is, what was written, and whether anybody else touched it.

The target's annotations are the operator's only lasting state. They are written in the same request as the token and
read once, when a process first meets the target; from then on memory is ahead of them.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from sys import intern
from typing import Any, Final

from tuinly_operator.clock import parse_rfc3339, rfc3339
from tuinly_operator.credential import API_VERSION, GROUP, KIND, Credential, Key, Spec

MANAGER: Final = "tuinly-operator"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
CREDENTIAL_LABEL: Final = f"{GROUP}/credential"
STATE_VERSION: Final = "1"
MAX_LIFETIME: Final = 2_592_000  # seconds; thirty days
_CLOCK_TOLERANCE: Final = 60.0  # seconds that issued-at may lie ahead of this machine's clock

DEFAULT_KEYS: Final = frozenset({"access_token", "expires_at", "token_type"})


@dataclass(frozen=True, slots=True)
class TokenState:
    """All that is worth knowing of a published token but the token itself. Times are whole seconds since the epoch."""

    credential_uid: str
    issued_at: int
    expires_at: int
    next_refresh: int
    granted_scopes: str
    exchange_inputs: str
    template: str
    client_secret_version: str
    handled_refresh: str

    @property
    def lifetime(self) -> int:
        """Seconds from issue to expiry."""
        return self.expires_at - self.issued_at

    def annotations(self) -> dict[str, str]:
        """Write the state as the target's annotations."""
        return {
            _STATE_VERSION_KEY: STATE_VERSION,
            **{name: rfc3339(getattr(self, field)) for field, name in _TIMES.items()},
            **{name: getattr(self, field) for field, name in _TEXTS.items()},
        }

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, str]) -> "TokenState | None":
        """Read the state back; None, which costs an attempt, where it is incomplete, odd or of another version."""
        if annotations.get(_STATE_VERSION_KEY) != STATE_VERSION:
            return None
        try:
            times = {field: int(parse_rfc3339(annotations[name])) for field, name in _TIMES.items()}
            texts = {field: intern(annotations[name]) for field, name in _TEXTS.items()}
        except (KeyError, ValueError, TypeError, OverflowError):
            return None
        values: dict[str, Any] = {**times, **texts}
        state = cls(**values)
        return state if 1 <= state.lifetime <= MAX_LIFETIME else None


_STATE_VERSION_KEY: Final = f"{GROUP}/state-version"
_TIMES: Final = {field: f"{GROUP}/{field.replace('_', '-')}" for field in ("issued_at", "expires_at", "next_refresh")}
_TEXTS: Final = {
    field: f"{GROUP}/{field.replace('_', '-')}"
    for field in (
        "credential_uid",
        "granted_scopes",
        "exchange_inputs",
        "template",
        "client_secret_version",
        "handled_refresh",
    )
}
OUR_ANNOTATIONS: Final = frozenset({_STATE_VERSION_KEY, *_TIMES.values(), *_TEXTS.values()})


@dataclass(frozen=True, slots=True)
class TargetMeta:
    """What the metadata of a Secret says when it bears our label or our field manager."""

    credential: str
    owner_uid: str
    state: TokenState | None
    keys: frozenset[str]
    marked: bool


@dataclass(frozen=True, slots=True)
class SecretMeta:
    """The few words that are kept of a Secret. `target` is None for the many that the operator never wrote."""

    uid: str
    version: str
    deleting: bool = False
    target: TargetMeta | None = None

    @property
    def identity(self) -> str:
        """Which content this is: changes whenever the Secret does, and says nothing of what it holds."""
        return f"{self.uid}/{self.version}"

    def newer_than(self, other: "SecretMeta") -> bool:
        """Whether this was read later. Resource versions of one resource can be compared as numbers (KEP-5504)."""
        try:
            return int(self.version) > int(other.version)
        except ValueError:  # not a number after all: believe what came last
            return self.version != other.version

    @classmethod
    def from_object(cls, raw: Mapping[str, Any]) -> "SecretMeta":
        """Read a (partial) object of the API."""
        meta = raw["metadata"]
        labels = meta.get("labels") or {}
        fields = _our_fields(meta.get("managedFields") or ())
        ours = CREDENTIAL_LABEL in labels or fields is not None
        return cls(
            uid=meta["uid"],
            version=meta["resourceVersion"],
            deleting=meta.get("deletionTimestamp") is not None,
            target=_target_meta(meta, labels, fields or {}) if ours else None,
        )


class Ownership(Enum):
    """Whose a Secret of the target's name is."""

    OURS = auto()
    ADOPTABLE = auto()
    FOREIGN = auto()


def ownership(secret: SecretMeta, credential: Credential) -> Ownership:
    """Tell whose the Secret is: this credential's, that of a deleted one of the same name, or somebody else's."""
    target = secret.target
    if target is None:
        return Ownership.FOREIGN
    if target.owner_uid == credential.uid:
        return Ownership.OURS
    # Without a controller, or with that of the credential it was written for: the owner reference was edited away, or
    # the credential was deleted and made again. In both cases the Secret is what we wrote for a credential of this
    # name.
    written_for = target.state.credential_uid if target.state else None
    named = target.credential == credential.key.name and written_for is not None
    return Ownership.ADOPTABLE if named and target.owner_uid in ("", written_for) else Ownership.FOREIGN


def intact(secret: SecretMeta, credential: Credential) -> bool:
    """Whether the Secret still is as we wrote it for this credential.

    As long as nobody interferes, our manager owns exactly the keys and annotations that we applied; an edit, a
    removal or a foreign apply of one takes it away (Kubernetes, "Server-Side Apply", field management). So drift
    shows without reading content, also drift that happened while no operator ran.
    """
    target = secret.target
    return (
        target is not None
        and not secret.deleting
        and target.owner_uid == credential.uid
        and target.marked
        and target.keys == DEFAULT_KEYS
    )


def believe(secret: SecretMeta, credential: Credential, wall: float) -> TokenState | None:
    """The state to start from at the first meeting with a target, or None where it is not to be trusted.

    `wall` is the present time in seconds since the epoch.
    """
    state = secret.target.state if secret.target is not None and intact(secret, credential) else None
    if state is None or state.credential_uid != credential.uid or state.issued_at > wall + _CLOCK_TOLERANCE:
        return None
    return state


def exchange_inputs(url: str, spec: Spec) -> str:
    """A digest of what a token is issued for: effective URL, scopes, where the client is (never what)."""
    ref = spec.client_secret_ref
    text = json.dumps([url, sorted(spec.scopes), ref.name, ref.client_id_key, ref.client_secret_key])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def target_manifest(
    credential: Credential, state: TokenState, data: Mapping[str, str], present: SecretMeta | None
) -> dict[str, Any]:
    """The target as it is applied. `data` is base64.

    With a present Secret, its uid and resourceVersion are preconditions of the write. Without one, resourceVersion
    "1" makes the apply create it, or fail with 409 where one has come meanwhile.
    """
    precondition = (
        {"resourceVersion": "1"} if present is None else {"uid": present.uid, "resourceVersion": present.version}
    )
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": credential.target.name,
            "namespace": credential.target.namespace,
            "labels": {MANAGED_BY: MANAGER, CREDENTIAL_LABEL: credential.key.name},
            "annotations": state.annotations(),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": credential.key.name,
                    "uid": credential.uid,
                    "controller": True,
                }
            ],
            **precondition,
        },
        "type": "Opaque",
        "data": dict(data),
    }


def secret_key(raw: Mapping[str, Any]) -> Key:
    """Namespace and name of an object, interned: the same few strings stand in thousands of places."""
    meta = raw["metadata"]
    return Key(intern(meta["namespace"]), intern(meta["name"]))


def _our_fields(managed: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The fields that our server-side apply owns, or None where it owns nothing."""
    for entry in managed:
        if entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return entry.get("fieldsV1") or {}
    return None


# Nearly all targets hold the same keys: one set serves them all. Bounded, since anybody may invent keys.
_MOST_SHARED: Final = 1024
_shared_keys: dict[frozenset[str], frozenset[str]] = {}


def _target_meta(meta: Mapping[str, Any], labels: Mapping[str, str], owned: Mapping[str, Any]) -> TargetMeta:
    keys = frozenset(intern(k[2:]) for k in owned.get("f:data") or {} if k.startswith("f:"))
    if len(_shared_keys) < _MOST_SHARED:
        keys = _shared_keys.setdefault(keys, keys)
    owner: Mapping[str, Any] = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), {})
    return TargetMeta(
        credential=intern(labels.get(CREDENTIAL_LABEL) or ""),
        owner_uid=intern(owner.get("uid") or ""),
        state=TokenState.from_annotations(meta.get("annotations") or {}),
        keys=keys,
        marked=_owns_marks(owned.get("f:metadata") or {}),
    )


def _owns_marks(owned: Mapping[str, Any]) -> bool:
    """Whether our annotations and labels are still all ours."""
    annotations = owned.get("f:annotations") or {}
    labels = owned.get("f:labels") or {}
    return all(f"f:{name}" in annotations for name in OUR_ANNOTATIONS) and all(
        f"f:{name}" in labels for name in (MANAGED_BY, CREDENTIAL_LABEL)
    )
