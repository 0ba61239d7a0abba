"""All that has been seen: credentials with what is remembered of them, Secrets' metadata, and who cares for which.

The watches write here and enqueue; the reconciler reads. Nothing here does I/O.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from tuinly_operator.credential import Credential, Key, Status
from tuinly_operator.memory import Memory
from tuinly_operator.state import SecretMeta


@dataclass(slots=True)
class Record:
    """A credential and what this process remembers of it."""

    credential: Credential
    memory: Memory = field(default_factory=Memory)
    status_written: float = float("-inf")  # boot seconds


@dataclass(slots=True)
class Sight:
    """What one reconcile has read or written live: it says more than the store until the watch has caught up."""

    looked: bool = False
    target: SecretMeta | None = None

    def take(self, target: SecretMeta | None) -> None:
        """Note what the target is now, None for absent."""
        self.looked, self.target = True, target


class Store:
    """The operator's view of the cluster."""

    def __init__(self, changed: Callable[[Key], None], gone: Callable[[Key], None]) -> None:
        """`changed` is called with each credential that should be looked at, `gone` with each that has been dropped."""
        self._changed = changed
        self._gone = gone
        self._records: dict[Key, Record] = {}
        self._secrets: dict[Key, SecretMeta] = {}
        self._interested = _Links()  # Secret -> credentials that read or write it
        self._targets = _Links()  # credential -> Secrets labelled with it

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(tuple(self._records.values()))

    def get(self, key: Key) -> Record | None:
        """The record of a credential, or None where it is gone or was never seen."""
        return self._records.get(key)

    def urgency(self, key: Key) -> float:
        """The end of a credential's token, in seconds since the epoch: the least life comes first, and none before it.

        Before the first reconcile, only the target tells of a token.
        """
        record = self._records.get(key)
        if record is None:
            return 0.0
        if record.memory.met:
            held = record.memory.published
            return held.state.expires_at if held else 0.0
        target = self._secrets.get(record.credential.target)
        state = target.target.state if target and target.target else None
        return state.expires_at if state else 0.0

    def secret(self, key: Key) -> SecretMeta | None:
        """The metadata of a Secret, or None where there is none (or its type is kept out of the watch)."""
        return self._secrets.get(key)

    def targets_of(self, credential: Credential) -> dict[Key, SecretMeta]:
        """The Secrets that were written for this very credential."""
        found = {key: self._secrets[key] for key in self._targets.of(credential.key)}
        return {key: s for key, s in found.items() if s.target and s.target.owner_uid == credential.uid}

    def credential_seen(self, credential: Credential) -> None:
        """Take in a credential as the API server shows it. Another uid under the same name is another credential."""
        record = self._records.get(credential.key)
        if record is None or record.credential.uid != credential.uid:
            self._forget_interest(record)
            self._records[credential.key] = record = Record(credential)
        elif _older(credential.version, record.credential.version):
            return
        else:
            old, record.credential = record.credential, credential
            if replace(old, version=credential.version) == credential:
                return  # the echo of our own status write
            if (old.target, old.client_secret) != (credential.target, credential.client_secret):
                self._forget_interest(replace(record, credential=old))
        for secret in (credential.target, credential.client_secret):
            self._interested.add(secret, credential.key)
        self._changed(credential.key)

    def credential_gone(self, key: Key, uid: str | None = None) -> None:
        """Drop a credential, unless another one has taken its name already."""
        record = self._records.get(key)
        if record is None or (uid is not None and record.credential.uid != uid):
            return
        del self._records[key]
        self._forget_interest(record)
        self._gone(key)

    def start_afresh(self) -> None:
        """Forget all that is remembered, and have each credential looked at.

        The records are new ones: a reconcile that is still under way with an old one ends with its present act.
        """
        self._records = {key: Record(record.credential) for key, record in self._records.items()}
        self.look_at_all()

    def look_at_all(self) -> None:
        """Have each credential looked at."""
        for key in self._records:
            self._changed(key)

    def status_written(self, key: Key, status: Status, version: str, boot: float) -> None:
        """Note a status that was just written, so that its echo is recognised."""
        record = self._records.get(key)
        if record is None:
            return
        record.status_written = boot
        if not _older(version, record.credential.version):
            record.credential = replace(record.credential, status=status, version=version)

    def secret_seen(self, key: Key, meta: SecretMeta, by: Key | None = None) -> None:
        """Take in a Secret's metadata, from the watch or from the answer to a read or write.

        `by` is the credential whose reconcile saw it: that one knows already.
        """
        old = self._secrets.get(key)
        if old == meta or (old is not None and not meta.newer_than(old)):
            return
        self._secrets[key] = meta
        self._label(key, old, meta)
        self._touch(key, by, old, meta)

    def secret_gone(self, key: Key, by: Key | None = None) -> None:
        """Drop a Secret."""
        old = self._secrets.pop(key, None)
        if old is not None:
            self._label(key, old, None)
            self._touch(key, by, old, None)

    def secrets_listed(self, namespace: str | None, present: Iterable[Key]) -> None:
        """After a complete list (of one namespace or all): drop what is no longer there."""
        listed = set(present)
        for key in [k for k in self._secrets if namespace in (None, k.namespace) and k not in listed]:
            self.secret_gone(key)

    def _touch(self, key: Key, by: Key | None, *metas: SecretMeta | None) -> None:
        labelled = {Key(key.namespace, m.target.credential) for m in metas if m and m.target}
        for credential in labelled | self._interested.of(key):
            if credential in self._records and credential != by:
                self._changed(credential)

    def _label(self, key: Key, old: SecretMeta | None, new: SecretMeta | None) -> None:
        for meta, update in ((old, self._targets.discard), (new, self._targets.add)):
            if meta is not None and meta.target is not None and meta.target.credential:
                update(Key(key.namespace, meta.target.credential), key)

    def _forget_interest(self, record: Record | None) -> None:
        if record is None:
            return
        for secret in (record.credential.target, record.credential.client_secret):
            self._interested.discard(secret, record.credential.key)


class _Links:
    """Which keys belong to which. Nearly all have a single one, which is kept without a set of 216 bytes."""

    def __init__(self) -> None:
        self._links: dict[Key, Key | set[Key]] = {}

    def __len__(self) -> int:
        return len(self._links)

    def of(self, key: Key) -> set[Key]:
        """All that belong to a key."""
        found = self._links.get(key, set())
        return found if isinstance(found, set) else {found}

    def add(self, key: Key, other: Key) -> None:
        found = self._links.setdefault(key, other)
        if isinstance(found, set):
            found.add(other)
        elif found != other:
            self._links[key] = {found, other}

    def discard(self, key: Key, other: Key) -> None:
        found = self._links.get(key)
        if isinstance(found, set):
            found.discard(other)
        if not found or found == other:
            self._links.pop(key, None)


def _older(one: str, other: str) -> bool:
    """Whether a resource version is older (KEP-5504: comparable as numbers)."""
    try:
        return int(one) < int(other)
    except ValueError:
        return False
