"""From what the API server said to each credential's history: which token its target held, from when on. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.auditor.verdict import Change, Credential


class Key(NamedTuple):
    """Names an object; `resource` is the plural, the namespace is empty for a namespace itself."""

    resource: str
    namespace: str
    name: str


@dataclass(frozen=True)
class NamespaceSeen:
    """What matters of a namespace."""

    deleting: bool


@dataclass(frozen=True)
class CredentialSeen:
    """What matters of a credential: the names that its target may have, the most telling first."""

    uid: str
    targets: tuple[str, ...]
    deleting: bool


@dataclass(frozen=True)
class SecretSeen:
    """What matters of a Secret: the credential that its label names, and the token in it."""

    uid: str
    credential: str | None
    token: str | None = field(repr=False)


Seen = NamespaceSeen | CredentialSeen | SecretSeen


@dataclass(frozen=True)
class Event:
    """An object is seen like this, or no longer (None), at a moment and a revision of the API server's storage."""

    at: float
    revision: int
    key: Key
    seen: Seen | None


@dataclass
class Session:
    """A time of looking without a break: complete lists, and all events after that.

    Attributes:
        listed_at: When the lists were complete, in seconds of ``time.time``.
        ended_at: When the connection broke; None while it holds.
    """

    listed_at: float
    objects: Mapping[Key, Seen]
    events: list[Event] = field(default_factory=list)
    ended_at: float | None = None


def histories(sessions: Sequence[Session], until: float) -> dict[Credential, list[Change]]:
    """Return each credential's changes, in order of time.

    What is found by a list after a break may have happened at any time since the break. If the last session is over,
    the last state of each credential is in doubt from then to `until`.
    """
    world = _World()
    ended_at = None
    for session in sessions:
        gone = dict.fromkeys(world.known - session.objects.keys())
        world.learn({**gone, **session.objects}, session.listed_at, ended_at)
        for event in ordered(session.events):
            world.learn({event.key: event.seen}, event.at)
        ended_at = session.ended_at
    if ended_at is not None:
        for changes in world.histories.values():
            changes.append(Change(until, min(ended_at, until), changes[-1].exists, changes[-1].token))
    return world.histories


def ordered(events: Iterable[Event]) -> Iterator[Event]:
    """Yield events in the order in which they happened, each at the earliest time that this allows.

    Each resource has a watch of its own, and those do not wait for each other: the deletion of a target by the garbage
    collector may arrive before the deletion of its credential, which caused it. Revisions are of one storage and tell.
    """
    result: list[Event] = []
    known_by = float("inf")
    for event in sorted(events, key=lambda event: event.revision, reverse=True):
        known_by = min(known_by, event.at)
        result.append(Event(known_by, event.revision, event.key, event.seen))
    yield from reversed(result)


class _World:
    """All objects as last seen, and the histories that follow."""

    def __init__(self) -> None:
        self.histories: dict[Credential, list[Change]] = {}
        self._objects: dict[Key, Seen] = {}
        self._lives: dict[Key, Credential] = {}
        # Which credentials a Secret may be the target of, and which Secrets (by uid) were a credential's at any time:
        # whoever takes off the label of a target does not take away the target.
        self._credentials_of: dict[Key, set[Key]] = defaultdict(set)
        self._recognized: dict[Key, set[str]] = defaultdict(set)

    @property
    def known(self) -> set[Key]:
        """The objects that are there."""
        return set(self._objects)

    def learn(self, news: Mapping[Key, Seen | None], at: float, earliest: float | None = None) -> None:
        """Take in objects, all at the same time, and note what this changes for credentials."""
        touched: set[Key] = set()
        for key, seen in news.items():
            if seen is None:
                self._objects.pop(key, None)
            else:
                self._objects[key] = seen
            if isinstance(seen, CredentialSeen):
                for target in seen.targets:
                    self._credentials_of[Key("secrets", key.namespace, target)].add(key)
            touched |= self._touched(key)
        for key in touched:
            self._note(key, at, at if earliest is None else earliest)

    def _touched(self, key: Key) -> set[Key]:
        """Return the credentials to which an object matters."""
        match key.resource:
            case "tuinlycredentials":
                return {key}
            case "secrets":
                return self._credentials_of.get(key, set())
        return {other for other in self._lives if other.namespace == key.name}

    def _note(self, key: Key, at: float, earliest: float) -> None:
        """Add to a credential's history, if anything changed."""
        seen = self._objects.get(key)
        namespace = self._objects.get(Key("namespaces", "", key.namespace))
        life = self._lives.get(key)
        if life is not None and (not isinstance(seen, CredentialSeen) or seen.uid != life.uid):
            self._append(life, Change(at, earliest, exists=False, token=None))
            del self._lives[key]
        if isinstance(seen, CredentialSeen):
            life = self._lives.setdefault(key, Credential(key.namespace, key.name, seen.uid))
            leaving = seen.deleting or (isinstance(namespace, NamespaceSeen) and namespace.deleting)
            token = None if leaving else self._held(key, seen)
            self._append(life, Change(at, earliest, exists=not leaving, token=token))

    def _held(self, key: Key, credential: CredentialSeen) -> str | None:
        """Return the token in a credential's target."""
        recognized = self._recognized[key]
        for target in credential.targets:
            secret = self._objects.get(Key("secrets", key.namespace, target))
            if isinstance(secret, SecretSeen):
                if secret.credential == key.name:
                    recognized.add(secret.uid)
                if secret.token is not None and secret.uid in recognized:
                    return secret.token
        return None

    def _append(self, life: Credential, change: Change) -> None:
        history = self.histories.setdefault(life, [])
        if not history or (history[-1].exists, history[-1].token) != (change.exists, change.token):
            history.append(change)
