"""All that has been seen: credentials with what is remembered of them, Secrets' metadata, and who cares for which.

The watches write here and enqueue; the reconciler reads. Nothing here does I/O.

There are three views of a target. The store's is the freshest: it has what the watch shows, and takes in at once what
is read or written live. What one reconcile has read live (`LiveTarget`) counts only where the store has nothing: the
watch may be late, or leave out Secrets of that type. `Facts` hold the fresher of the two as of the moment when they
were gathered; they are old after the next wait, which is why each write has preconditions.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tuinly_operator.base.clock import Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.versions import older
from tuinly_operator.domain.credential import Credential, Revision, Status
from tuinly_operator.domain.memory import Memory
from tuinly_operator.domain.status import digest
from tuinly_operator.domain.succession import Assessment, Ends, Told, assess
from tuinly_operator.domain.target import SecretMeta

_NOTHING: Final = Memory()  # of each of which there is nothing to remember
_LASTS: Final = 1.0  # seconds for which what was read live counts


@dataclass(slots=True)
class Record:
    """A credential and what this process remembers of it."""

    credential: Credential
    created: bool  # the watch told of its creation, or of a label that has it served here by now
    memory: Memory = _NOTHING
    status_written: float = float("-inf")  # boot seconds
    told: int | None = None  # the digest of what was written then
    writing: Status | None = None  # what is being written as the status


class Gone:
    """That a Secret has gone: another one each time, by which an answer is known to be older than that."""


@dataclass(slots=True)
class LiveTarget:
    """What one reconcile has read or written live of its target; it says more where the store has nothing."""

    since: SecretMeta | Gone = field(default_factory=Gone)  # what the store had when it was last looked at
    _target: tuple[NamespacedName, SecretMeta | None] | None = None
    _served_with: tuple[str, str] | None = None  # whose the target was when the credential was there and ours to serve
    _served_at: float = float("-inf")  # boot seconds

    @property
    def stored(self) -> SecretMeta | None:
        """The target in the store when that was last looked at; None where it had none."""
        return self.since if isinstance(self.since, SecretMeta) else None

    def take(self, key: NamespacedName, target: SecretMeta | None) -> None:
        """Note what the target is now, None for absent."""
        self._target = key, target

    def forget(self) -> None:
        """Drop that: something that may be later has come."""
        self._target = None

    def confirm(self, target: SecretMeta | None, now: Moment) -> None:
        """Note that a live read has shown that the credential is there and ours to serve, while its target is so."""
        self._served_with, self._served_at = _whose(target), now.boot

    def is_served(self, target: SecretMeta | None) -> bool:
        """Whether that was so, and the target has the same owner still: a deletion of the credential may take it off.

        Any other change proves nothing; or else who touches the target all the time would keep it from being written.
        """
        return self._served_with == _whose(target)

    def grow_old(self, now: Moment) -> None:
        """Forget what was found, once it is more than a second ago that the credential was there."""
        if self._served_with is not None and now.boot - self._served_at > _LASTS:
            self._target = self._served_with = None

    def looked_for(self, key: NamespacedName) -> bool:
        """Whether a target of this name was looked for."""
        return self._target is not None and self._target[0] == key

    def of(self, key: NamespacedName) -> SecretMeta | None:
        """What was found then; None also where nobody has looked."""
        return self._target[1] if self._target is not None and self.looked_for(key) else None

    def freshest(self, key: NamespacedName, stored: SecretMeta | None) -> SecretMeta | None:
        """What is known of the target now, given what the store has: that, or what was found live."""
        return stored or self.of(key)


def _whose(target: SecretMeta | None) -> tuple[str, str]:
    """Which Secret a target is, and the uid of its owner."""
    return (target.uid, target.target.owner_uid if target.target else "") if target else ("", "")


class Store:
    """The operator's view of the cluster."""

    def __init__(
        self,
        changed: Callable[[NamespacedName], None],
        gone: Callable[[NamespacedName], None],
        doubtful: Callable[[NamespacedName], None] = lambda _: None,
        client_secret_changed: Callable[[NamespacedName], None] | None = None,
    ) -> None:
        """`changed` is called with each credential that should be reconciled.

        `gone` is called with each that was dropped, also where only its memory was (`start_afresh`).
        `doubtful` is called with each name of which contradictory news came: `credential_read` is to settle it.
        `client_secret_changed` is called instead of `changed` with each of which only the client Secret changed.
        """
        self._changed = changed
        self._client_secret_changed = client_secret_changed or changed
        self._gone = gone
        self._doubtful = doubtful
        self._ends = Ends()
        self._records: dict[NamespacedName, Record] = {}
        # Names that the API server itself has not shown as they are known since another leader may have served them, or
        # that it has shown otherwise: False if only the status may differ. And whether it has listed all since.
        self._unconfirmed: dict[NamespacedName, bool] = {}
        self._all_shown = True
        self._secrets: dict[NamespacedName, SecretMeta] = {}
        self._ended: dict[NamespacedName, Gone] = {}  # Secrets that credentials care for, gone since the last list
        self._never_listed = Gone()  # of each other one
        self._overtaken: dict[str | None, set[NamespacedName]] = {}  # changed while a namespace (None: all) is listed
        self._interested = _Links()  # Secret -> credentials that read or write it
        self._targets = _Links()  # credential -> Secrets labelled with it

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(tuple(self._records.values()))

    def get(self, key: NamespacedName) -> Record | None:
        """The record of a credential, or None where it is gone or was never seen."""
        return self._records.get(key)

    def token_end(self, key: NamespacedName) -> float | None:
        """The end of the token that a credential's target holds, in seconds since the epoch; None where there is none.

        Before the first reconcile, only the target tells of a token.
        """
        record = self._records.get(key)
        target = self._secrets.get(record.credential.target) if record else None
        if record is None or target is None:
            return None
        if record.memory.met:
            held = record.memory.published
            return held.state.expires_at if held else None
        return target.state.expires_at if target.state else None

    def secret(self, key: NamespacedName) -> SecretMeta | None:
        """The metadata of a Secret, or None where there is none (or its type is kept out of the watch)."""
        return self._secrets.get(key)

    def since(self, key: NamespacedName) -> SecretMeta | Gone:
        """What is known of a Secret before a request begins, for `secret_read`."""
        return self._secrets.get(key) or self._ended.get(key) or self._never_listed

    def targets_of(self, credential: Credential) -> dict[NamespacedName, SecretMeta]:
        """The Secrets that were written for this very credential."""
        found = {key: self._secrets[key] for key in sorted(self._targets.of(credential.key))}
        return {key: s for key, s in found.items() if s.target and s.target.owner_uid == credential.uid}

    def naming(self, client_secret: NamespacedName) -> list[Record]:
        """The credentials that name this client Secret."""
        found = (self._records.get(key) for key in self._interested.of(client_secret))
        return [each for each in found if each is not None and each.credential.client_secret == client_secret]

    def known(self, key: NamespacedName) -> Told | None:
        """What is known of a name: who has it, or who had it last; None where neither is remembered."""
        record = self._records.get(key)
        if record is None:
            return self._ends.get(key)
        return Told(record.credential.uid, record.credential.version, there=True)

    def has_met(self, key: NamespacedName, uid: str) -> bool:
        """Whether a name has a credential, or the one with that uid was seen to go."""
        if key in self._records:
            return True
        end = self._ends.get(key)
        return end is not None and end.uid == uid

    def credential_seen(self, credential: Credential, *, listed: bool = False, created: bool = False) -> None:
        """Take in a credential as the watch, or a relist, shows it, if that is news (succession.py).

        `created` says that the watch tells of its creation.
        """
        key = credential.key
        assessment = assess(self.known(key), Told(credential.uid, credential.version, there=True), listed=listed)
        if assessment is Assessment.NEWS:
            self._take(credential, created=created)
        elif assessment is Assessment.DOUBTFUL:
            self._doubtful(key)

    def credential_ended(self, credential: Credential) -> None:
        """Drop a credential of which the watch says that it has gone, if that is news."""
        end = Told(credential.uid, credential.version, there=False)
        assessment = assess(self.known(credential.key), end)
        if assessment is Assessment.NEWS:
            self._end(credential.key, end)
        elif assessment is Assessment.DOUBTFUL:
            self._doubtful(credential.key)

    def credential_gone(self, key: NamespacedName, uid: str) -> None:
        """Drop a credential that a live read has not found, unless another one has taken its name already."""
        record = self._records.get(key)
        if record is not None and record.credential.uid == uid:
            self._end(key, Told(uid, "", there=False))

    def credential_read(
        self, key: NamespacedName, credential: Credential | None, version: str, since: Told | None
    ) -> bool:
        """Take in what a live read found, None for nothing, and return whether that was done.

        `version` is the resource version of that read, `since` what was known of the name before it began. If that is
        so still, the read counts whatever the versions say. Else it may be older than the change: if its version does
        not show that it is later, it is decided again.
        """
        known, told = self.known(key), Told(since.uid if since else "", version, there=False)
        if credential is not None:
            told = Told(credential.uid, credential.version, there=True)
        if known != since and assess(known, told) is not Assessment.NEWS:
            self._doubtful(key)
            return False
        if credential is not None:
            self._take(credential, created=False)
        else:
            self._end(key, told)
        self._unconfirmed.pop(key, None)
        return True

    def is_confirmed(self, key: NamespacedName) -> bool:
        """Whether a credential, but for its status, may be taken to be as it is known, though the watch may be late."""
        return not self._unconfirmed.get(key, False)

    def knows_status(self, key: NamespacedName) -> bool:
        """The same, its status included."""
        return key not in self._unconfirmed

    def credential_shown(self, key: NamespacedName, revision: Revision, version: str) -> None:
        """Take in what metadata from the API server itself shows of a credential: confirm it, or have it read live.

        If only the version is a later one, its status is another.
        """
        record = self._records.get(key)
        if record is None or record.credential.revision != revision:
            self._unconfirmed[key] = True
            self._doubtful(key)
        elif not older(record.credential.version, version):
            self._unconfirmed.pop(key, None)
        elif key in self._unconfirmed:
            self._unconfirmed[key] = False

    def credentials_shown(self, keys: Container[NamespacedName], namespaces: Container[str | None]) -> None:
        """After a complete list of some namespaces, None for all: have those looked for that it lacks."""
        self._all_shown = True
        for key in sorted(self._unconfirmed):
            if key not in keys and (None in namespaces or key.namespace in namespaces):
                self._doubtful(key)

    def census_taken(self) -> None:
        """Let what is remembered of the deleted grow old: after two censuses it is forgotten."""
        self._ends.grow_old()

    def start_afresh(self) -> None:
        """Forget what is remembered, and have each credential looked at: another leader may have served them.

        The records of which anything was remembered are new ones, and what is still under way with the old ones is
        given up. What the watch has told may be late, so each is to be confirmed before anything is done for it.
        """
        self._all_shown, self._unconfirmed = False, dict.fromkeys(self._records, True)
        for key, record in self._records.items():
            if record.memory is _NOTHING:
                record.created = False
            else:
                self._records[key] = Record(record.credential, created=False)
                self._gone(key)
        self.look_at_all()

    def look_at_all(self) -> None:
        """Have each credential looked at."""
        for key in self._records:
            self._changed(key)

    def status_written(self, record: Record, before: Credential, status: Status, version: str, boot: float) -> None:
        """Note a status that was just written, so that its echo is recognised.

        `before` is the record's credential as it was when the write began: what came since may be later.
        """
        record.status_written, record.told = boot, digest(status)
        if record.credential is before or not older(version, record.credential.version):
            record.credential = replace(record.credential, status=status, version=version)

    def secret_seen(self, key: NamespacedName, meta: SecretMeta) -> None:
        """Take in a Secret's metadata from the watch, if it is newer than what is known."""
        old = self._secrets.get(key)
        if old is None or meta.newer_than(old):
            self._put(key, meta)

    def secret_gone(self, key: NamespacedName, uid: str, version: str) -> None:
        """Drop a Secret of which the watch says that it has gone, unless a later one has its name by now."""
        old = self._secrets.get(key)
        if old is None or old.uid == uid or not older(version, old.version):
            self._put(key, None)

    def secret_read(
        self, key: NamespacedName, meta: SecretMeta | None, since: SecretMeta | Gone, by: NamespacedName
    ) -> bool:
        """Take in what a live read, or the answer to a write, shows; None for no Secret. Return whether that was done.

        `since` is what was known when the request began (`since`). If that has changed meanwhile, the answer may be
        older than the change, and is taken only if its version is newer than what is there. `by` is the credential that
        asked: it need not be told.
        """
        old = self._secrets.get(key)
        taken = self.since(key) is since or (old is not None and meta is not None and meta.newer_than(old))
        if taken:
            self._put(key, meta, by)
        return taken

    def list_begins(self, namespace: str | None) -> None:
        """Note from now on which Secrets change while all (of a namespace) are listed: of those the list may be old."""
        self._overtaken[namespace] = set()

    def secret_listed(self, namespace: str | None, key: NamespacedName, meta: SecretMeta) -> None:
        """Take in a Secret of such a list, whatever its version, unless it has changed since the list began."""
        if key in self._overtaken[namespace]:
            self.secret_seen(key, meta)
        else:
            self._put(key, meta)
            self._overtaken[namespace].discard(key)

    def secrets_listed(self, namespace: str | None, present: Iterable[NamespacedName], version: str) -> None:
        """After a complete list (of one namespace or all) as of a version: drop what is no longer there.

        What has changed meanwhile stays, unless that change is older than the list. The answers to requests that began
        before are not believed where the list has nothing.
        """
        changed = {key: self._secrets.get(key) for key in self._overtaken.pop(namespace, set())}
        listed = set(present) | {key for key, meta in changed.items() if meta and not older(meta.version, version)}
        for key in [k for k in self._secrets if namespace in (None, k.namespace) and k not in listed]:
            self._put(key, None)
        self._ended = {key: end for key, end in self._ended.items() if namespace not in (None, key.namespace)}
        self._never_listed = Gone()

    def _put(self, key: NamespacedName, meta: SecretMeta | None, by: NamespacedName | None = None) -> None:
        """Take in the news of a Secret, and have all credentials that it concerns looked at, except `by`."""
        old = self._secrets.get(key)
        if old == meta:
            return
        if meta is not None:
            self._secrets[key] = meta
            self._ended.pop(key, None)
        else:
            del self._secrets[key]
            if self._interested.of(key):
                self._ended[key] = Gone()
        for scope in (None, key.namespace):
            if scope in self._overtaken:
                self._overtaken[scope].add(key)
        self._label(key, old, meta)
        self._touch(key, by, old, meta)

    def _take(self, credential: Credential, *, created: bool) -> None:
        """Take in the news of a credential that exists."""
        record = self._records.get(credential.key)
        if record is None or record.credential.uid != credential.uid:
            self._drop(credential.key)
            self._ends.forget(credential.key)
            self._records[credential.key] = record = Record(credential, created=created)
            if not self._all_shown:
                self._unconfirmed[credential.key] = True
        else:
            old = record.credential
            if credential.spec == old.spec:  # keep what was computed from it
                credential = replace(credential, spec=old.spec)
            record.credential = credential
            same = replace(old, version=credential.version, status=credential.status) == credential
            if same and credential.status in (old.status, record.writing):
                return  # the echo of our own status write, which may come before its answer
            if (old.target, old.client_secret) != (credential.target, credential.client_secret):
                self._forget_interest(old, (credential.target, credential.client_secret))
        for secret in (credential.target, credential.client_secret):
            self._interested.add(secret, credential.key)
        self._changed(credential.key)

    def _end(self, key: NamespacedName, end: Told) -> None:
        """Take in the news that a name has no credential any more."""
        self._drop(key)
        self._ends.note(key, end)

    def _drop(self, key: NamespacedName) -> None:
        record = self._records.pop(key, None)
        if record is not None:
            self._forget_interest(record.credential)
            self._gone(key)

    def _touch(self, key: NamespacedName, by: NamespacedName | None, *metas: SecretMeta | None) -> None:
        labelled = {NamespacedName(key.namespace, m.target.credential) for m in metas if m and m.target}
        for name in sorted(labelled | self._interested.of(key)):  # a set's order differs by process
            record = self._records.get(name)
            if record is None or name == by:
                continue
            is_target = name in labelled or record.credential.target == key
            (self._changed if is_target else self._client_secret_changed)(name)

    def _label(self, key: NamespacedName, old: SecretMeta | None, new: SecretMeta | None) -> None:
        for meta, update in ((old, self._targets.discard), (new, self._targets.add)):
            if meta is not None and meta.target is not None and meta.target.credential:
                update(NamespacedName(key.namespace, meta.target.credential), key)

    def _forget_interest(self, credential: Credential, but_for: Sequence[NamespacedName] = ()) -> None:
        for secret in (credential.target, credential.client_secret):
            if secret in but_for:
                continue
            self._interested.discard(secret, credential.key)
            if not self._interested.of(secret):
                self._ended.pop(secret, None)


class _Links:
    """Which keys belong to which. Nearly all have a single one, which is stored without a set of 216 bytes."""

    def __init__(self) -> None:
        self._links: dict[NamespacedName, NamespacedName | set[NamespacedName]] = {}

    def __len__(self) -> int:
        return len(self._links)

    def of(self, key: NamespacedName) -> set[NamespacedName]:
        """All that belong to a key."""
        found = self._links.get(key, set())
        return found if isinstance(found, set) else {found}

    def add(self, key: NamespacedName, other: NamespacedName) -> None:
        found = self._links.setdefault(key, other)
        if isinstance(found, set):
            found.add(other)
        elif found != other:
            self._links[key] = {found, other}

    def discard(self, key: NamespacedName, other: NamespacedName) -> None:
        found = self._links.get(key)
        if isinstance(found, set):
            found.discard(other)
        if not found or found == other:
            self._links.pop(key, None)
