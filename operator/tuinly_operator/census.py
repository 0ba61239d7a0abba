"""Lists the credentials now and then, and finds what kopf did not tell: deletions, and credentials it never showed.

kopf does not tell what was deleted while it was not watching, nor when its first list is complete, nor when its watch
has failed for good. If the census or the watch contradicts the store, a live read of that name decides.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any, Final

from tuinly_operator.base.logs import fields
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.versions import older
from tuinly_operator.domain.credential import Revision
from tuinly_operator.domain.target import secret_key
from tuinly_operator.edges.kube import ApiFailure, Kube
from tuinly_operator.engine.store import Store
from tuinly_operator.reconciler.live import read_credential

_SECONDS: Final = 600.0
_RETRY: Final = 5.0
_PIECE: Final = 1000  # so many are compared at a time

_Seen = tuple[Revision, str]  # what was seen of a credential, and its resource version

_log = logging.getLogger(__name__)


class Census:
    """Lists the credentials at start, after an outage, and every ten minutes, and compares them with the store."""

    def __init__(  # noqa: PLR0913 -- whom it asks and whom it tells
        self,
        kube: Kube,
        store: Store,
        namespaces: Callable[[], Sequence[str | None]],
        *,
        lost: Callable[[], None],
        is_ahead: Callable[[], Awaitable[bool]],
        went_back: Callable[[], None],
    ) -> None:
        """`namespaces` gives those that kopf watches, None for all; before it has begun there are none.

        `lost` is called when kopf should be started anew: it shows none of those that are missing, or it should find
        out which namespaces it may watch. `is_ahead` tells whether another watch has seen later versions than there are
        now. `went_back` is called when the API server's resource versions have gone back, as after a restore from a
        backup: then no watch tells of anything.
        """
        self._kube = kube
        self._store = store
        self._namespaces = namespaces
        self._lost = lost
        self._is_ahead = is_ahead
        self._went_back = went_back
        # How many were listed, for as long as kopf may still have to bring some, then 0; None before the first list.
        self._awaited: int | None = None
        self._unseen: Mapping[NamespacedName, str] = {}  # the uids of those that it had not brought at the last look
        self._trouble = ""  # why they could not be listed the last time
        self._again = asyncio.Event()
        # Of each credential whose version went back, the one that the store had, until kopf has brought it anew.
        self._undone: Mapping[NamespacedName, str] = {}
        self._doubtful: dict[NamespacedName, None] = {}  # names of which contradictory things were told, in their order
        self._doubt = asyncio.Event()
        self._takeover = asyncio.Event()

    @property
    def taken(self) -> bool:
        """Whether the credentials have been listed since the start."""
        return self._awaited is not None

    @property
    def behind(self) -> int:
        """How many credentials kopf has not brought yet.

        As long as very many are missing that is told by their number alone, for it is asked often; then those that went
        meanwhile count as missing, too.
        """
        missing = (self._awaited or 0) - len(self._store)
        return missing if missing > _PIECE else len(self.unseen())

    def unseen(self) -> set[NamespacedName]:
        """The credentials of the last list that kopf has not brought yet. What it has brought is looked for no more."""
        self._unseen = {key: uid for key, uid in self._unseen.items() if not self._store.has_met(key, uid)}
        return set(self._unseen)

    def take_again(self) -> None:
        """Take a census soon: after an outage or a restart of kopf, nobody tells what was deleted meanwhile."""
        self._again.set()

    def ask_about(self, key: NamespacedName) -> None:
        """Have a live read find out which credential has that name, if any."""
        self._doubtful[key] = None
        self._doubt.set()

    async def settle(self) -> None:
        """Ask about one name after the other until cancelled."""
        while True:
            await self._doubt.wait()
            key = next(iter(self._doubtful))
            del self._doubtful[key]
            if not self._doubtful:
                self._doubt.clear()
            try:
                await read_credential(self._kube, self._store, key)
            except ApiFailure as failure:
                _log.debug("could not look for a credential, trying again", extra=fields(credential=key, cause=failure))
                asyncio.get_running_loop().call_later(_RETRY, self.ask_about, key)

    def taken_over(self) -> None:
        """Have all credentials compared with what the API server has: another replica may have led until now."""
        self._takeover.set()

    async def confirm(self) -> None:
        """After each takeover, list the credentials' metadata for the store to go by, until cancelled.

        Nothing waits for that: what is urgent is read by itself, and so is what the list shows otherwise.
        """
        while True:
            await self._takeover.wait()
            self._takeover.clear()
            shown: set[NamespacedName] = set()
            done: set[str | None] = set()
            while not self._takeover.is_set():
                namespaces = self._namespaces()
                for namespace in namespaces:
                    if namespace not in done and await self._show(namespace, shown):
                        done.add(namespace)
                if namespaces and done.issuperset(namespaces):  # there are none until kopf has begun
                    self._store.credentials_shown(shown, namespaces)
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY):
                        await self._takeover.wait()

    async def _show(self, namespace: str | None, shown: set[NamespacedName]) -> bool:
        """List one namespace for the store, and return whether that list was complete before the next takeover."""
        try:
            async with aclosing(self._kube.list_credentials(namespace)) as listed:
                async for raw in listed:
                    if self._takeover.is_set():
                        return False  # another replica may have led since this list began
                    key, (revision, version) = _seen(raw)
                    shown.add(key)
                    self._store.credential_shown(key, revision, version)
        except ApiFailure as failure:
            _log.debug("could not list the credentials after a takeover, trying again", extra=fields(cause=failure))
            if failure.status == HTTPStatus.FORBIDDEN:
                self._lost()  # as in `_take`
            return False
        return not self._takeover.is_set()

    async def run(self) -> None:
        """Take one census after the other until cancelled."""
        missed: set[NamespacedName] = set()
        while True:
            self._again.clear()
            namespaces = self._namespaces()
            if not namespaces:
                await self._again.wait()
                continue
            if not await self._take(namespaces):
                await asyncio.sleep(_RETRY)
                continue
            if missed and self.unseen() == missed:
                self._lost()
            missed = await self._not_brought()

    async def _take(self, namespaces: Sequence[str | None]) -> bool:
        """List the credentials, and compare them with the store; return whether they could be listed."""
        known = {
            record.credential.key: (record.credential.revision, record.credential.version)
            for record in self._store
            if None in namespaces or record.credential.key.namespace in namespaces
        }
        try:
            listed = dict([_seen(raw) for each in namespaces async for raw in self._kube.list_credentials(each)])
        except ApiFailure as failure:
            if failure.status == HTTPStatus.FORBIDDEN:
                self._lost()  # a new start of kopf finds out which namespace it is; kopf itself would try for ever
            elif str(failure) != self._trouble:  # told once
                self._trouble = str(failure)
                missing = "; is the CRD installed?" if failure.not_found else ""
                _log.warning("could not list TuinlyCredentials" + missing, extra=fields(cause=failure))
            await self._forget_without_definition(known)
            return False
        await self._compare(known, listed, back=await self._is_ahead())
        self._store.census_taken()
        self._awaited, self._trouble = len(listed), ""
        self._unseen = {key: revision.uid for key, (revision, _) in listed.items()}
        return True

    async def _compare(
        self,
        known: Mapping[NamespacedName, _Seen],
        listed: Mapping[NamespacedName, _Seen],
        *,
        back: bool,
    ) -> None:
        """Have those checked that the list shows otherwise, or not at all; notice resource versions that went back.

        What only the list shows, of the same uid, is a change that the watch has not brought: it may be one of a
        server that is behind, and yet sends bookmarks.
        """
        undone: dict[NamespacedName, str] = {}
        for number, (key, (revision, version)) in enumerate(known.items()):
            if number and number % _PIECE == 0:
                await asyncio.sleep(0)  # very many must not hold up the refreshes
            there, now = listed.get(key, (None, ""))
            if there is None or there.uid != revision.uid:
                self.ask_about(key)
            elif older(now, version):
                undone[key] = version
            elif there != revision:
                self.ask_about(key)
        # What went back a second time, before kopf has brought all, must not make it begin again: it would never end.
        back |= any(self._undone.get(key) != version for key, version in undone.items())
        self._undone = undone
        if back:
            _log.warning("the API server's history went back, as if from a backup: all is listed again")
            self._went_back()

    async def _not_brought(self) -> set[NamespacedName]:
        """Wait until kopf shows what was listed; return what it leaves out, or nothing once another census is due."""
        while unseen := self.unseen():
            await asyncio.sleep(_RETRY)
            if self.unseen() == unseen:
                return unseen
        self._awaited = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS):
                await self._again.wait()
                await asyncio.sleep(_RETRY)  # what calls for it may come several times in a row: one census does
        return set()

    async def _forget_without_definition(self, known: Mapping[NamespacedName, _Seen]) -> None:
        """Drop all credentials if the CRD has been deleted, which the API server's discovery must confirm."""
        with suppress(ApiFailure):
            if not await self._kube.serves_credentials():
                for key, (revision, _) in known.items():
                    self._store.credential_gone(key, revision.uid)


def _seen(raw: Mapping[str, Any]) -> tuple[NamespacedName, _Seen]:
    return secret_key(raw), (Revision.of(raw["metadata"]), raw["metadata"]["resourceVersion"])
