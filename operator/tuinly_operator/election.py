"""Which replica is at work: the one that holds a Lease, for as long as it can be sure of that.

The leader renews every two seconds and stops believing in its lead ten seconds after the start of its last good
renewal; the others take over fifteen seconds after the last change that they saw. So between two leaders lie five
seconds in which nobody leads. No clock is compared with another machine's: the leader times itself, and the others
time what they observe, both by a clock that counts the time a machine was suspended.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from tuinly_operator.clock import Clock
from tuinly_operator.credential import Key
from tuinly_operator.kube import ApiFailure, Kube, Lease
from tuinly_operator.logs import fields

LEASE_SECONDS: Final = 15  # after the last seen renewal, others may take over
RENEW_SECONDS: Final = 2.0
GIVE_UP_SECONDS: Final = 10.0  # after the start of the last good renewal, the leader stops
_LONGEST_LEASE: Final = 60  # seconds; a Lease edited by hand cannot keep everybody out for longer

_log = logging.getLogger(__name__)


class Election:
    """Takes part in the election; tells when this replica is promoted and demoted."""

    def __init__(  # noqa: PLR0913 -- what it needs to know and whom to tell
        self,
        kube: Kube,
        key: Key,
        identity: str,
        clock: Clock,
        *,
        promoted: Callable[[], None],
        demoted: Callable[[], None],
    ) -> None:
        """`identity` must be unique to this process: a restarted one must not believe in its predecessor's lead."""
        self._kube = kube
        self._key = key
        self._identity = identity
        self._clock = clock
        self._promoted = promoted
        self._demoted = demoted
        self._lease: Lease | None = None
        self._seen_at = 0.0  # boot seconds of the last change of the Lease
        self._valid_until: float | None = None  # boot seconds; None while another leads

    @property
    def leading(self) -> bool:
        """Whether this replica may act at this very moment; also right after the process was suspended."""
        return self._valid_until is not None and self._clock.now().boot < self._valid_until

    async def run(self) -> None:
        """Take part until cancelled."""
        while True:
            try:
                await self._renew() if self._valid_until is not None else await self._try_to_lead()
            except ApiFailure as failure:
                _log.debug("the Lease could not be read or written", extra=fields(lease=self._key, cause=failure))
            if self._valid_until is not None and not self.leading:
                self._step_down("it could not be renewed in time")
            await asyncio.sleep(RENEW_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311 -- jitter

    async def release(self) -> None:
        """Give up the lead, so that another replica takes over at once.

        To be called when nothing is under way any more.
        """
        if self.leading and self._lease is not None:
            self._valid_until = None
            with suppress(ApiFailure):
                await self._kube.write_lease(self._key, Lease("", 1, self._lease.transitions, self._lease.version))

    async def _renew(self) -> None:
        start = self._clock.now().boot
        lease = self._lease
        try:
            self._see(await self._kube.write_lease(self._key, self._ours(lease.transitions if lease else 0, lease)))
        except ApiFailure as failure:
            if failure.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise
            # Somebody edited or deleted it: what stands there now counts.
            self._see(await self._kube.read_lease(self._key))
            if self._lease is not None and self._lease.holder not in ("", self._identity):
                self._step_down(f"{self._lease.holder} holds the Lease")
            return
        self._valid_until = start + GIVE_UP_SECONDS

    async def _try_to_lead(self) -> None:
        start = self._clock.now().boot
        self._see(await self._kube.read_lease(self._key))
        lease = self._lease
        if lease is not None and lease.holder and start - self._seen_at < min(lease.seconds, _LONGEST_LEASE):
            return
        start = self._clock.now().boot
        try:
            self._see(await self._kube.write_lease(self._key, self._ours(lease.transitions + 1 if lease else 0, lease)))
        except ApiFailure as failure:
            if failure.status != HTTPStatus.CONFLICT:
                raise
            return  # another one was quicker
        self._valid_until = start + GIVE_UP_SECONDS
        _log.info("this replica leads now", extra=fields(lease=self._key, identity=self._identity))
        self._promoted()

    def _see(self, lease: Lease | None) -> None:
        """Note a Lease, and when it was last seen to change."""
        if lease is None or self._lease is None or lease.version != self._lease.version:
            self._seen_at = self._clock.now().boot
        self._lease = lease

    def _step_down(self, why: str) -> None:
        self._valid_until = None
        _log.warning("this replica leads no more: %s", why, extra=fields(lease=self._key, identity=self._identity))
        self._demoted()

    def _ours(self, transitions: int, present: Lease | None) -> Lease:
        return Lease(self._identity, LEASE_SECONDS, transitions, present.version if present else "")
