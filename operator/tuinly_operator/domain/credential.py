"""The TuinlyCredential as types: its spec, its status, and how an untrusted object becomes one.

The API server validates what users apply (crds/tuinlycredentials.yaml); this module checks again, since a CRD can be
older or edited. A parity test holds the two against each other: every property of the schema is a field here, with
the same default.
"""

import hashlib
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache, partial
from typing import Any, Final, NamedTuple, Self, get_args, get_origin, get_type_hints

from tuinly_operator.base.clock import parse_duration
from tuinly_operator.base.names import NamespacedName, is_name
from tuinly_operator.base.shared import share
from tuinly_operator.base.text import NQCHARS
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.template import Template

GROUP: Final = "tuinly.com"
VERSION: Final = "v1alpha1"
PLURAL: Final = "tuinlycredentials"
KIND: Final = "TuinlyCredential"
API_VERSION: Final = f"{GROUP}/{VERSION}"

# A value that is present when the credential is created counts as handled; each new value forces one exchange.
REFRESH_REQUESTED: Final = f"{GROUP}/refresh-requested"

_MOST_KEPT: Final = 128  # characters of a user's text that are kept as they are

# Characters of a status: the scopes of an answer of 64 KiB, and some messages.
_MOST_IN_STATUS: Final = 64 * 1024
_MOST_CONDITIONS: Final = 8
_FREE_TEXTS: Final = (
    "secret_name",
    "token_url",
    "last_failure_time",
    "token_expiration_time",
    "next_refresh_time",
    "last_refresh_time",
    "last_handled_refresh",
)

_IDENTITY: Final = ("namespace", "name", "uid", "resourceVersion")


class DeletionPolicy(StrEnum):
    """What happens to the target when the credential goes."""

    DELETE = "Delete"
    RETAIN = "Retain"


class GrantType(StrEnum):
    """How a token is asked for: by refresh token (RFC 6749 section 6) or by client credentials (section 4.4)."""

    REFRESH_TOKEN = "RefreshToken"  # noqa: S105 -- the grant's name, not a token
    CLIENT_CREDENTIALS = "ClientCredentials"


class VerificationMode(StrEnum):
    """Whether a new token must work before it is published."""

    DISABLED = "Disabled"
    ENABLED = "Enabled"


class PodDelivery(StrEnum):
    """Whether the Pods that mount the target are touched, so that they see a new token at once."""

    NONE = "None"
    PUSH = "Push"


def _json(name: str, default: Any) -> Any:  # noqa: ANN401 -- the type is the field's own
    """Declare a field whose JSON name is not its camelCase."""
    return field(default=default, metadata={"json": name})


@dataclass(frozen=True, slots=True)
class ClientSecretRef:
    """The Secret of the same namespace that holds the client id and secret."""

    name: str
    client_id_key: str = _json("clientIDKey", "client_id")
    client_secret_key: str = "client_secret"  # noqa: S105 -- a key's name, not a password


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """The Secret that the operator writes."""

    name: str | None = None
    deletion_policy: DeletionPolicy = DeletionPolicy.DELETE
    template: Template | None = None


@dataclass(frozen=True, slots=True)
class RefreshSpec:
    """When and how the token is refreshed."""

    before: str | None = None
    before_percentage: int | None = None
    grant: GrantType = GrantType.REFRESH_TOKEN


@dataclass(frozen=True, slots=True)
class VerificationSpec:
    """Whether and where a new token is tried before it is published."""

    mode: VerificationMode = VerificationMode.DISABLED
    graphql_url: str | None = _json("graphqlURL", None)

    @property
    def enabled(self) -> bool:
        """Whether a new token must work before it is published."""
        return self.mode is VerificationMode.ENABLED


@dataclass(frozen=True, slots=True)
class DeliverySpec:
    """How Pods learn of a new token."""

    pods: PodDelivery = PodDelivery.NONE


@dataclass(frozen=True, slots=True)
class Spec:
    """What a team asks for."""

    client_secret_ref: ClientSecretRef
    scopes: frozenset[str] = frozenset()
    token_url: str | None = _json("tokenURL", None)
    target: TargetSpec = TargetSpec()
    refresh: RefreshSpec = RefreshSpec()
    verification: VerificationSpec = VerificationSpec()
    delivery: DeliverySpec = DeliverySpec()
    suspend: bool = False


_NO_SPEC: Final = Spec(ClientSecretRef(""))


# The types of conditions.
READY: Final = "Ready"
REFRESHED: Final = "Refreshed"
STALLED: Final = "Stalled"
RECONCILING: Final = "Reconciling"
DELIVERED: Final = "Delivered"  # only where Push is asked for


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of the status (Kubernetes API conventions, "Typical status properties")."""

    type: str
    status: str
    reason: str
    message: str
    observed_generation: int
    last_transition_time: str

    @property
    def verdict(self) -> tuple[str, str]:
        """Status and reason: what a transition is a change of."""
        return self.status, self.reason


@dataclass(frozen=True, slots=True)
class Status:
    """What the operator reports. Never read back to decide anything."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    secret_name: str | None = None
    token_url: str | None = _json("tokenURL", None)
    token_expiration_time: str | None = None
    next_refresh_time: str | None = None
    last_refresh_time: str | None = None
    last_grant: GrantType | None = None
    scopes: tuple[str, ...] | None = None
    failed_attempts: int | None = None
    last_failure_time: str | None = None
    last_handled_refresh: str | None = None

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, or None."""
        return next((c for c in self.conditions if c.type == kind), None)


class Revision(NamedTuple):
    """What metadata tells of a credential but its status: another one means that it must be read again.

    Its labels count only by the selector: a list shows no credential that is not selected.
    """

    uid: str
    generation: int
    deleting: bool
    refresh_requested: str

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Self:
        """Read the metadata of an object of the API."""
        annotations, generation = meta.get("annotations"), meta.get("generation")
        requested = annotations.get(REFRESH_REQUESTED) if isinstance(annotations, Mapping) else None
        return cls(
            uid=meta["uid"],
            generation=generation if isinstance(generation, int) else 0,
            deleting=meta.get("deletionTimestamp") is not None,
            refresh_requested=as_kept(requested) if isinstance(requested, str) else "",
        )


@dataclass(frozen=True, slots=True)
class Credential:
    """A TuinlyCredential as last seen."""

    key: NamespacedName
    uid: str
    version: str
    generation: int
    deleting: bool
    spec: Spec
    problem: Failure | None  # why the spec cannot be understood; `spec` is a placeholder then
    refresh_requested: str
    status: Status

    @property
    def revision(self) -> Revision:
        """What metadata tells of it but its status."""
        return Revision(self.uid, self.generation, self.deleting, self.refresh_requested)

    @property
    def target(self) -> NamespacedName:
        """The Secret to write: `spec.target.name`, or the credential's name with `-token`."""
        return NamespacedName(self.key.namespace, self.spec.target.name or f"{self.key.name}-token")

    @property
    def client_secret(self) -> NamespacedName:
        """The Secret to read."""
        return NamespacedName(self.key.namespace, self.spec.client_secret_ref.name)

    @classmethod
    def from_object(cls, raw: Mapping[str, Any]) -> "Credential":
        """Read an object of the API. A spec that cannot be understood becomes its `problem`, so that it is reported.

        Raises:
            Failure: what every object of the API has (name, namespace, uid, resourceVersion) is missing.
        """
        meta = raw.get("metadata")
        if not isinstance(meta, Mapping) or not all(
            isinstance(meta.get(name), str) and meta[name] for name in _IDENTITY
        ):
            raise Failure(Reason.INVALID_SPEC, "an object without " + ", ".join(_IDENTITY))
        spec, problem = _NO_SPEC, None
        try:
            spec = parse_spec(raw.get("spec"))
        except Failure as failure:
            problem = failure.to_keep()
        return cls(
            key=NamespacedName(meta["namespace"], meta["name"]),
            version=meta["resourceVersion"],
            **Revision.of(meta)._asdict(),
            spec=spec,
            problem=problem,
            status=parse_status(raw.get("status")),
        )


def as_kept(text: str) -> str:
    """What is kept of a text that is only ever compared with others: the text itself, or its digest if it is long."""
    if len(text) <= _MOST_KEPT:
        return text
    return "sha256:" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def parse_spec(raw: object) -> Spec:
    """Read a spec that nobody vouches for.

    Raises:
        Failure: `InvalidSpec`, with the field's path and what it must be.
    """
    spec: Spec = _reader(Spec)(raw, "spec")
    for path, name in (("clientSecretRef", spec.client_secret_ref.name), ("target", spec.target.name)):
        if name is not None and not is_name(name):
            raise _invalid(f"spec.{path}.name", "the name of a Secret")
    if spec.client_secret_ref.client_id_key == spec.client_secret_ref.client_secret_key:
        # An id may be logged and published; a client secret that is taken for one would be, too.
        raise _invalid("spec.clientSecretRef", "two different keys")
    odd = next((s for s in sorted(spec.scopes) if not NQCHARS.fullmatch(s)), None)
    if odd is not None:
        raise _invalid("spec.scopes", "scopes of printable ASCII without space, quote or backslash")
    refresh = spec.refresh
    if refresh.before is not None and refresh.before_percentage is not None:
        raise _invalid("spec.refresh", "either before or beforePercentage, not both")
    if refresh.before is not None:
        try:
            parse_duration(refresh.before)
        except ValueError:
            raise _invalid("spec.refresh.before", "a duration such as 20m") from None
    return spec


def parse_status(raw: object) -> Status:
    """Read a status. One that cannot be understood counts as empty, since it is about to be replaced.

    So does one that is larger than any that the operator writes: it would be kept in memory.
    """
    try:
        status: Status = _reader(Status)(raw or {}, "status")
    except Failure:
        return Status()
    known = all(len(str(getattr(status, name))) <= _MOST_IN_STATUS for name in _FREE_TEXTS)
    scopes, conditions = status.scopes or (), status.conditions
    told = sum(len(c.type + c.status + c.reason + c.message + c.last_transition_time) for c in conditions)
    few = len(conditions) <= _MOST_CONDITIONS and len(scopes) <= _MOST_IN_STATUS
    return status if known and few and told + sum(map(len, scopes)) <= _MOST_IN_STATUS * 2 else Status()


def json_name(f: Field[Any]) -> str:
    """The name of a dataclass field in JSON: camelCase, or what the field declares."""
    head, *tail = f.name.split("_")
    return f.metadata.get("json") or head + "".join(part.capitalize() for part in tail)


def to_json(value: object) -> Any:  # noqa: ANN401 -- JSON
    """Write a status as JSON, with null for what is not set."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(getattr(value, attribute)) for attribute, name, *_ in _members(type(value))}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


@cache
def _members(cls: type) -> tuple[tuple[str, str, bool, Any, Any], ...]:
    """What a dataclass is made of: attribute, JSON name, whether it is required, default or MISSING, type."""
    hints = get_type_hints(cls)
    return tuple(
        (f.name, json_name(f), f.default is MISSING and f.default_factory is MISSING, f.default, hints[f.name])
        for f in fields(cls)
    )


_Read = Callable[[object, str], Any]  # a JSON value and its path


@cache
def _reader(kind: Any) -> _Read:  # noqa: ANN401 -- a type
    """Make what reads a value of this type from JSON.

    It is made once per type: looking at types takes longer than reading, and every event of the watch is read.
    """
    if is_dataclass(kind) and isinstance(kind, type):
        return partial(_read_object, kind, [(*how, _reader(hint)) for *how, hint in _members(kind)])
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return _reader(next(a for a in arguments if a is not types.NoneType))
    if origin in (frozenset, tuple):
        return partial(_read_list, origin, _reader(arguments[0]))
    if origin is Mapping:
        return _read_map
    return partial(_read_word if issubclass(kind, StrEnum) else _read_plain, kind)


def _read_object(
    kind: Callable[..., object], properties: list[tuple[str, str, bool, Any, _Read]], raw: object, path: str
) -> object:
    """Read the properties that are known; others are left out.

    What equals its default is that very object: thousands of credentials share it.
    """
    if not isinstance(raw, Mapping):
        raise _invalid(path, "an object")
    values = {}
    for attribute, name, required, default, read in properties:
        if raw.get(name) is not None:
            value = read(raw[name], f"{path}.{name}")
            values[attribute] = default if value == default else value
        elif required:
            raise _invalid(f"{path}.{name}", "present")
    return kind(**values)


def _read_list(kind: Callable[..., object], read: _Read, raw: object, path: str) -> object:
    if not isinstance(raw, list):
        raise _invalid(path, "a list")
    return kind(read(item, f"{path}[{i}]") for i, item in enumerate(raw))


def _read_map(raw: object, path: str) -> dict[str, str]:
    if not isinstance(raw, Mapping):
        raise _invalid(path, "an object")
    return {str(k): _read_plain(str, v, f"{path}.{k}") for k, v in raw.items()}


def _read_word(kind: type[StrEnum], raw: object, path: str) -> StrEnum:
    if isinstance(raw, str):
        with suppress(ValueError):
            return kind(raw)
    raise _invalid(path, "one of " + ", ".join(kind))


def _read_plain(kind: type, raw: object, path: str) -> Any:  # noqa: ANN401 -- of that type
    if type(raw) is not kind:
        raise _invalid(path, {str: "a string", int: "an integer", bool: "true or false"}[kind])
    return share(raw) if isinstance(raw, str) else raw


def _invalid(path: str, wanted: str) -> Failure:
    return Failure(
        Reason.INVALID_SPEC, f"{path} must be {wanted}; apply the CRD of this operator's version and mend the spec"
    )
