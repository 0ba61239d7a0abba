"""Reads client Secrets: once for all credentials that name the same one, however many of them look for it."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from tuinly_operator.base.clock import Clock
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.client_secret import is_watched, not_found, not_readable, parse_client_secret
from tuinly_operator.domain.credential import ClientSecretRef
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.facts import Facts
from tuinly_operator.domain.memory import Client, ClientSecretRead
from tuinly_operator.domain.target import SecretMeta
from tuinly_operator.edges.kube import ApiFailure, Kube
from tuinly_operator.engine.store import Store


class ClientSecrets:
    """Reads client ids and secrets into the memory of the credentials that name them."""

    def __init__(self, store: Store, kube: Kube, clock: Clock) -> None:
        """Nothing is read before `read`."""
        self._store = store
        self._kube = kube
        self._clock = clock
        self._under_way: dict[NamespacedName, asyncio.Future[None]] = {}

    async def read(self, facts: Facts) -> None:
        """Read the client Secret that a credential names, or wait for the read of it that is under way.

        Raises ApiFailure, or Failure if it may not be read. After a read that was cancelled nothing is known.
        """
        key = facts.credential.client_secret
        under_way = self._under_way.get(key)
        if under_way is not None:
            await asyncio.wait({under_way})
            if not under_way.cancelled():
                under_way.result()
            return
        done = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            await self._read(key, facts.credential.key)
            done.set_result(None)
        except (ApiFailure, Failure) as failure:
            done.set_exception(failure)
            done.exception()  # asyncio logs one that nobody has looked at
            raise
        finally:
            done.cancel()  # unless it has ended
            del self._under_way[key]

    async def _read(self, key: NamespacedName, by: NamespacedName) -> None:
        since, raw = self._store.since(key), None
        try:
            raw = await self._kube.read_secret(key)
        except ApiFailure as failure:
            if failure.status == HTTPStatus.FORBIDDEN:
                raise not_readable(key.name) from None
            if not failure.not_found:
                failure.reason = Reason.CLIENT_SECRET_UNREADABLE
                raise
        # The store takes only what the watch shows: of no other it learns when it goes.
        seen = SecretMeta.from_object(raw) if raw is not None and is_watched(raw) else None
        self._store.secret_read(key, seen, since, by)
        identity, now = seen.identity if seen else "", self._clock.now()
        for record in self._store.naming(key):
            ref = record.credential.spec.client_secret_ref
            read = ClientSecretRead(ref, identity, _client(raw, ref), now)
            record.memory = record.memory.client_secret_read(read)


def _client(raw: Mapping[str, Any] | None, ref: ClientSecretRef) -> Client | Failure:
    if raw is None:
        return not_found(ref)
    try:
        return parse_client_secret(raw, ref)
    except Failure as failure:
        return failure.to_keep()
