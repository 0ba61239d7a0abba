"""What the operator knows from a Secret's metadata: whose it is, what was written, and whether anybody else touched it.

The target's annotations are the operator's only lasting state. They are written in the same request as the token and
read when a process first meets the target; from then on memory is ahead of them, unless they tell of a later token.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum, auto
from functools import lru_cache
from typing import Any, Final

from tuinly_operator.base.clock import noted_time, parse_rfc3339, rfc3339
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.shared import share, share_all
from tuinly_operator.base.versions import older
from tuinly_operator.domain.credential import (
    API_VERSION,
    GROUP,
    KIND,
    ClientSecretRef,
    Credential,
    DeletionPolicy,
    Spec,
    as_kept,
)
from tuinly_operator.domain.template import Layout
from tuinly_operator.domain.token_response import MAX_BODY, MAX_LIFETIME

MANAGER: Final = "tuinly-operator"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
CREDENTIAL_LABEL: Final = f"{GROUP}/credential"
STATE_VERSION: Final = "1"
NOT_THERE: Final = "1"  # an apply with this resourceVersion creates, or fails with 409 where there is one already
_MOST_AHEAD: Final = 60.0  # seconds that issued-at may lie ahead of this machine's clock


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

    def same_token(self, other: "TokenState") -> bool:
        """Whether both tell of the same token, by whatever template it was written."""
        return self == other or all(getattr(self, f) == getattr(other, f) for f in _ALL_BUT_TEMPLATE)

    @property
    def lifetime(self) -> int:
        """Seconds from issue to expiry."""
        return self.expires_at - self.issued_at

    @property
    def scopes(self) -> frozenset[str]:
        """What was granted."""
        return frozenset(self.granted_scopes.split())

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
            texts = {field: share(_bounded(field, annotations[name])) for field, name in _TEXTS.items()}
        except (KeyError, ValueError, TypeError):
            return None
        values: dict[str, Any] = {**times, **texts}
        state = cls(**values)
        return state if 1 <= state.lifetime <= MAX_LIFETIME else None


_ALL_BUT_TEMPLATE: Final = tuple(f.name for f in fields(TokenState) if f.name != "template")
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


def _bounded(field: str, text: str) -> str:
    """A text as it is kept in memory: anybody can put 256 KiB into an annotation.

    Scopes are kept whole, since they are compared one by one. Raises ValueError where they cannot be an answer's.
    """
    if field != "granted_scopes":
        return as_kept(text)
    if len(text) > MAX_BODY:
        raise ValueError
    return text


@dataclass(frozen=True, slots=True)
class TargetMeta:
    """What the metadata of a Secret says when it bears our label or our field manager."""

    credential: str
    owner_uid: str  # of the controller; empty where there is none
    written_for: str  # uid of the credential by our annotation, also where `state` is None; empty where there is none
    state: TokenState | None
    owned: frozenset[str]  # what our manager owns: "data/<key>", "labels/<key>", "annotations/<key>"; or _FORGED
    proven: bool  # by its managed fields this operator wrote it, and nobody else
    written: float  # when our manager last changed it, by the API server's clock; seconds since the epoch, 0 for never


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

    @property
    def state(self) -> TokenState | None:
        """What our annotations tell of a token; None for nothing that could be."""
        return self.target.state if self.target else None

    def newer_than(self, other: "SecretMeta") -> bool:
        """Whether this was read later; of two versions that cannot be compared, what came last is believed."""
        return self.version != other.version and not older(self.version, other.version)

    @classmethod
    def from_object(cls, raw: Mapping[str, Any]) -> "SecretMeta":
        """Read a (partial) object of the API."""
        meta = raw["metadata"]
        labels = meta.get("labels") or {}
        applied = _our_entry(meta.get("managedFields") or ())
        ours = CREDENTIAL_LABEL in labels or applied is not None
        return cls(
            uid=meta["uid"],
            version=meta["resourceVersion"],
            deleting=meta.get("deletionTimestamp") is not None,
            target=_target_meta(meta, labels, applied or {}) if ours else None,
        )


class Ownership(Enum):
    """What a Secret is to a credential.

    Under the target's name all but a foreign one may be written to. Only a proven one may ever be deleted: whatever
    else looks like ours may be somebody's copy of it, or hold something of theirs.
    """

    PROVEN = auto()
    OURS = auto()
    ADOPTABLE = auto()
    FOREIGN = auto()


def ownership(secret: SecretMeta, credential: Credential) -> Ownership:
    """Tell what the Secret is: this credential's, that of a deleted one of the same name, or somebody else's.

    Ours has this credential as its controller, or no controller and our annotation naming it: retained, or the owner
    reference was edited away. Adoptable is what was so for an earlier credential of this name. Proven is what is one of
    both, and by its managed fields was written by this operator and by nobody else: those cannot come with a copy,
    since the API server gives all fields of a new object to whoever creates it.
    """
    target = secret.target
    if target is None:
        return Ownership.FOREIGN
    owner = _owner(target)
    ours = owner == credential.uid
    adoptable = bool(owner) and owner == target.written_for and target.credential == credential.key.name
    if not (ours or adoptable):
        return Ownership.FOREIGN
    if target.proven:
        return Ownership.PROVEN
    return Ownership.OURS if ours else Ownership.ADOPTABLE


def is_for_another(secret: SecretMeta | None, credential: Credential) -> bool:
    """Whether a target says that it belongs to another credential: an earlier one of that name, or a later one."""
    target = secret.target if secret else None
    return target is not None and _owner(target) not in ("", credential.uid)


def is_let_go(secret: SecretMeta | None, credential: Credential) -> bool:
    """Whether a target lacks the owner that it should have: so it looks while a deletion leaves it to itself.

    To give it one then would have it collected (`kubectl delete --cascade=orphan`).
    """
    target = secret.target if secret else None
    return target is not None and not target.owner_uid and bool(_controller_uid(credential))


def holds_state(secret: SecretMeta, credential: Credential, state: TokenState, layout: Layout) -> bool:
    """Whether the target still holds the very token that `state` tells of: nobody changed its data or our annotations.

    As long as nobody interferes, our manager owns exactly the keys and annotations that we applied; an edit, a
    removal or a foreign apply of one takes it away (Kubernetes, "Server-Side Apply", field management). So drift
    shows without reading content, also drift that happened while no operator ran. Which keys were written is known
    only for the present template.
    """
    target = secret.target
    if target is None or _owner(target) != credential.uid:
        return False
    if target.state is None or not target.state.same_token(state):
        return False
    data = frozenset(name for name in target.owned if name.startswith("data/"))
    known = target.state.template == layout.digest
    return target.owned >= _OUR_ANNOTATIONS and (not known or data == _names("data", layout.data))


def looks_as_asked(secret: SecretMeta, credential: Credential, layout: Layout) -> bool:
    """Whether a write would change nothing of the target but the token."""
    target = secret.target
    return (
        target is not None
        and target.state is not None
        and target.state.template == layout.digest
        and target.credential == credential.key.name
        and target.owner_uid == _controller_uid(credential)
        and _as_written(target.owned, layout)
    )


def believe(secret: SecretMeta, credential: Credential, layout: Layout, wall: float) -> TokenState | None:
    """The state to start from at the first meeting with a target, or None where it is not to be trusted.

    `wall` is the present time in seconds since the epoch.
    """
    state = secret.state
    if state is None or state.credential_uid != credential.uid or state.issued_at > wall + _MOST_AHEAD:
        return None
    return state if holds_state(secret, credential, state, layout) else None


def exchange_inputs(url: str, spec: Spec) -> str:
    """A digest of what a token is issued for: effective URL, scopes, where the client is (never what)."""
    return _inputs_digest(url, spec.scopes, spec.client_secret_ref)


@lru_cache(maxsize=1024)  # asked for more than a dozen times in a refresh
def _inputs_digest(url: str, scopes: frozenset[str], ref: ClientSecretRef) -> str:
    text = json.dumps([url, sorted(scopes), ref.name, ref.client_id_key, ref.client_secret_key])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def template_values(state: TokenState, token: str, client_id: str) -> dict[str, str]:
    """What a template's variables stand for."""
    return {
        "access_token": token,
        "token_type": "Bearer",
        "expires_at": rfc3339(state.expires_at),
        "expires_in": str(state.lifetime),
        "scope": state.granted_scopes,
        "client_id": client_id,
    }


def target_manifest(
    credential: Credential, state: TokenState, layout: Layout, data: Mapping[str, bytes], present: SecretMeta | None
) -> dict[str, Any]:
    """The target as it is applied.

    With a present Secret, its uid and resourceVersion are preconditions of the write. Without one, it is created, or
    the apply fails with 409 where one has come meanwhile.
    """
    manifest: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": credential.target.name,
            "namespace": credential.target.namespace,
            "resourceVersion": present.version if present else NOT_THERE,
            "labels": {**layout.labels, MANAGED_BY: MANAGER, CREDENTIAL_LABEL: credential.key.name},
            "annotations": {**layout.annotations, **state.annotations()},
        },
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }
    if present is not None:
        manifest["metadata"]["uid"] = present.uid
    if owners := [
        {"apiVersion": API_VERSION, "kind": KIND, "name": credential.key.name, "uid": uid, "controller": controls}
        for uid, controls in ((_controller_uid(credential), True), (_foreign_owner(credential, present), False))
        if uid
    ]:
        manifest["metadata"]["ownerReferences"] = owners
    return manifest


def _foreign_owner(credential: Credential, present: SecretMeta | None) -> str:
    """The controller that a target has from elsewhere, such as a backup, and must not keep; empty for none.

    There can be no second controller, and an apply removes only what it has applied itself. So this write takes the
    reference over as one that controls nothing, and the next write removes it, unless the garbage collector was first:
    its credential is gone.
    """
    target = present.target if present else None
    stays = target is None or target.proven or target.owner_uid == _controller_uid(credential)
    return "" if target is None or stays else target.owner_uid


def secret_key(raw: Mapping[str, Any]) -> NamespacedName:
    """Namespace and name of an object."""
    meta = raw["metadata"]
    return NamespacedName(share(meta["namespace"]), share(meta["name"]))


def _owner(target: TargetMeta) -> str:
    """The uid of the credential that a Secret says it belongs to; empty for none."""
    return target.owner_uid or target.written_for


def _our_entry(managed: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """What the managed fields say of our server-side apply, or None where it owns nothing."""
    return next((entry for entry in managed if _is_ours(entry)), None)


def _is_ours(entry: Mapping[str, Any]) -> bool:
    return entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource")


def _touched(managed: Iterable[Mapping[str, Any]]) -> bool:
    """Whether anybody else owns data, or a label or annotation that is the operator's.

    What others may add without claiming the whole Secret does not count: labels and annotations of their own,
    finalizers, owner references, `immutable`. Kubernetes' own controllers add such things, too.
    """
    theirs = (_owned(entry.get("fieldsV1") or {}) for entry in managed if not _is_ours(entry))
    return any(name.startswith(_OUR_DOMAIN) or name in _OUR_LABELS for names in theirs for name in names)


# Of each of three kinds a template has 64 at most, and we add a dozen. More was never written by us.
_MOST_OWNED: Final = 256
_LONGEST_OWNED: Final = 400  # a name has 63 letters at most, or 253 as a key of data, and its prefix 253
_FORGED: Final = frozenset({"more than any template"})


def _target_meta(meta: Mapping[str, Any], labels: Mapping[str, str], applied: Mapping[str, Any]) -> TargetMeta:
    owned = frozenset(_owned(applied.get("fieldsV1") or {}))
    if len(owned) > _MOST_OWNED or any(len(name) > _LONGEST_OWNED for name in owned):
        owned = _FORGED
    owner: Mapping[str, Any] = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), {})
    annotations = meta.get("annotations") or {}
    return TargetMeta(
        credential=share(labels.get(CREDENTIAL_LABEL) or ""),
        owner_uid=share(as_kept(owner.get("uid") or "")),
        written_for=share(as_kept(annotations.get(_TEXTS["credential_uid"]) or "")),
        state=TokenState.from_annotations(annotations),
        owned=share_all(owned),  # nearly all targets have the same
        proven=owned >= _PROOF and not _touched(meta.get("managedFields") or ()),
        written=noted_time(applied.get("time")),
    )


def _owned(fields: Mapping[str, Any]) -> Iterator[str]:
    """What a managedFields entry owns of data, labels and annotations (FieldsV1: "f:" stands before each name)."""
    meta = fields.get("f:metadata") or {}
    parts = {"data": fields.get("f:data"), "labels": meta.get("f:labels"), "annotations": meta.get("f:annotations")}
    return (f"{part}/{name[2:]}" for part, names in parts.items() for name in names or {} if name.startswith("f:"))


def _names(part: str, names: Iterable[str]) -> frozenset[str]:
    return frozenset(f"{part}/{name}" for name in names)


_OUR_ANNOTATIONS: Final = _names("annotations", (_STATE_VERSION_KEY, *_TIMES.values(), *_TEXTS.values()))
_OUR_LABELS: Final = _names("labels", (MANAGED_BY, CREDENTIAL_LABEL))
_OUR_DOMAIN: Final = ("data/", f"annotations/{GROUP}/")
_PROOF: Final = _names("labels", (CREDENTIAL_LABEL,)) | _names("annotations", (_TEXTS["credential_uid"],))


def _as_written(owned: frozenset[str], layout: Layout) -> bool:
    """Whether our manager owns what a write would give it now.

    An annotation under our domain that is not among that was written by another version of the operator. It stays until
    the next token is written: to remove it at once would cost each credential a token request at every upgrade.
    """
    labels, annotations = _names("labels", layout.labels), _names("annotations", layout.annotations)
    wanted = _OUR_LABELS | labels | _OUR_ANNOTATIONS | annotations | _names("data", layout.data)
    return owned >= wanted and all(name.startswith(f"annotations/{GROUP}/") for name in owned - wanted)


def _controller_uid(credential: Credential) -> str:
    """The uid that the target's owner reference has: none for a target that outlives its credential."""
    return credential.uid if credential.spec.target.deletion_policy is DeletionPolicy.DELETE else ""
