"""Keeps the store's view of Secrets: a list and watch of their metadata that knows when it is complete.

Of each Secret only a few words of metadata are kept, and its content is never received. kopf's watch of Secrets would
receive all of it, and does not say when its first list is complete (docs/decisions).
"""

import asyncio
import logging
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple

from tuinly_operator.base.chance import Chance, backoff
from tuinly_operator.base.logs import fields
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.versions import older
from tuinly_operator.domain.target import SecretMeta, secret_key
from tuinly_operator.edges.kube import ApiFailure, Kube
from tuinly_operator.edges.refusals import SECRETS, Refusal, Refusals
from tuinly_operator.engine.store import Store

_MAX_BACKOFF = 5.0  # seconds
_PAUSE = 0.1  # seconds between two watches: one that ends at once must not become a storm
_BEHIND = 900.0  # seconds that a watch may be behind: etcd itself tells a quiet API server of its version every 600

_log = logging.getLogger(__name__)


class _Mark(NamedTuple):
    """A version that the API server had, and when (seconds of the loop's time)."""

    version: str
    at: float


class SecretWatch:
    """Watches the Secrets of one namespace, or of all."""

    def __init__(self, kube: Kube, store: Store, namespace: str | None, refusals: Refusals, chance: Chance) -> None:
        """Nothing is asked before `run`. Where it is refused, `refusals` is told."""
        self._kube = kube
        self._store = store
        self._namespace = namespace
        self._refusals = refusals
        self._chance = chance
        self._failures = 0
        self._version = ""  # resource version up to which all has been seen; empty: a list is needed
        self._again = False  # whether `list_again` was called since the last list began
        self._mark: _Mark | None = None  # what it is to have shown 15 minutes later
        self._limit: asyncio.Timeout | None = None  # ends the watch that is under way
        self.what = Refusal(SECRETS, namespace)
        self.listed = False  # whether the first list is complete
        self.settled = asyncio.Event()  # set once the first list is complete, or was refused
        self.alive = False  # whether the last list or watch worked

    def has_shown(self, version: str) -> bool:
        """Whether it has shown all up to a version."""
        return self._version == version or older(version, self._version)

    async def compare(self) -> bool:
        """Compare it with the API server, and list again if it has been behind for long, as its bookmarks may be.

        Returns whether it has seen what the API server knows nothing of any more: then it waits in vain.

        Raises:
            ApiFailure: the API server does not answer.
        """
        seen = self._version  # before the server is asked, whose answer is no older than that
        if not seen:
            return False
        now = asyncio.get_running_loop().time()
        version = await self._kube.version_of_secrets(self._namespace)
        if self._mark is None or self._mark.at + _BEHIND <= now:
            if self._mark is not None and older(self._version, self._mark.version):
                _log.info("the watch of Secrets is behind, listing again", extra=fields(namespace=self._namespace))
                self.list_again()
            self._mark = _Mark(version, now)
        return older(version, seen)

    async def run(self) -> None:
        """List, watch, and list again whenever the watch lost its place. Runs until cancelled."""
        while True:
            try:
                if self._again or not self._version:
                    self._again, self._version = False, ""
                    await self._list()
                if not self._again:
                    await self._watch_until_told()
                await asyncio.sleep(_PAUSE)
            except ApiFailure as failure:
                if failure.status == HTTPStatus.GONE:
                    self._version = ""  # too old to go on from: list again and compare
                await self._back_off(failure)

    async def _list(self) -> None:
        """Take in a complete list, and drop from the store what is not in it."""
        present: set[NamespacedName] = set()
        version = ""
        self._store.list_begins(self._namespace)
        async for page, version in self._kube.list_secrets(self._namespace):  # noqa: B007 -- the last page's counts
            for raw in page:
                key = secret_key(raw)
                present.add(key)
                self._store.secret_listed(self._namespace, key, SecretMeta.from_object(raw))
            await asyncio.sleep(0)  # a long list must not hold up the refreshes
        self._store.secrets_listed(self._namespace, present, version)
        self._version = version
        self._worked()
        self.listed = True
        self.settled.set()

    def list_again(self) -> None:
        """List anew; a watch that is under way ends, as it may wait for versions that never come."""
        self._again = True
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def _watch_until_told(self) -> None:
        """Watch until the server ends that, or `list_again` does."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as self._limit:
                    await self._watch()
        finally:
            self._limit = None

    async def _watch(self) -> None:
        """Follow the changes until the server ends the watch."""
        async for kind, raw in self._kube.watch_secrets(self._namespace, self._version, self._worked):
            self._version = version = raw["metadata"]["resourceVersion"]
            self._failures = 0  # only now: a watch that begins and breaks is to be tried less and less often
            if kind == "BOOKMARK":
                continue
            key = secret_key(raw)
            if kind == "DELETED":
                self._store.secret_gone(key, raw["metadata"]["uid"], version)
            elif not self._is_known(key, version):
                self._store.secret_seen(key, SecretMeta.from_object(raw))

    def _is_known(self, key: NamespacedName, version: str) -> bool:
        """Whether this version is what the store has, such as by the answer to our own write."""
        known = self._store.secret(key)
        return known is not None and known.version == version

    def _worked(self) -> None:
        self.alive = True
        self._refusals.end(self.what)

    async def _back_off(self, failure: ApiFailure) -> None:
        self.alive = False
        if self._refusals.note(self.what, failure):
            self.settled.set()
            await asyncio.sleep(self._refusals.pause(self.what))
            return
        self._failures += 1
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        _log.log(
            level, "the watch of Secrets broke, trying again", extra=fields(namespace=self._namespace, cause=failure)
        )
        await asyncio.sleep(backoff(self._chance, self._failures, first=0.1, most=_MAX_BACKOFF))
