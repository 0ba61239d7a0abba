"""Which replica is at work: the one that holds a Lease, for as long as it can be sure of that.

The leader renews every two seconds and stops believing in its lead ten seconds after the start of its last good
renewal; the others take over fifteen seconds after the last change that they saw. So between two leaders lie five
seconds in which nobody leads, whatever people do to the Lease meanwhile. No clock is compared with another machine's:
the leader times itself, and the others time what they observe, both by a clock that counts the time a machine was
suspended.
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

LEASE_SECONDS: Final = 15  # after the last seen change, others may take over
RENEW_SECONDS: Final = 2.0
GIVE_UP_SECONDS: Final = 10.0  # after the start of the last good renewal, the leader stops
_LONGEST_LEASE: Final = 60  # seconds; a Lease edited by hand cannot keep everybody out for longer
_RELEASED_SECONDS: Final = 1  # with no holder: its last one gave it up (client-go's convention); 0 is not allowed

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
        self._seen_at = float("-inf")  # boot seconds of the last change of the Lease that was seen
        self._valid_until: float | None = None  # boot seconds; None for a standby
        self._trouble = ""  # the last failure, told once

    @property
    def leading(self) -> bool:
        """Whether this replica may act at this very moment; also right after the process was suspended."""
        return self._valid_until is not None and self._clock.now().boot < self._valid_until

    async def run(self) -> None:
        """Take part until cancelled."""
        while True:
            try:
                await self._renew() if self._valid_until is not None else await self._try_to_lead()
                self._trouble = ""
            except ApiFailure as failure:
                self._tell_trouble(failure)
            self._notice_gap()
            await asyncio.sleep(self._pause())

    async def release(self) -> None:
        """Give up the lead, so that another replica takes over at once.

        To be called when nothing is under way any more, and `run` has been cancelled.
        """
        if not self.leading:
            return
        self._valid_until = None
        with suppress(ApiFailure):
            # Read anew: a renewal that was cancelled on its way may have arrived.
            lease = await self._kube.read_lease(self._key)
            if lease is not None and lease.holder == self._identity:
                released = Lease("", _RELEASED_SECONDS, lease.transitions, lease.version)
                await self._kube.write_lease(self._key, released)

    def _pause(self) -> float:
        """Seconds until the next look: at the latest when a Lease that nobody renews may be taken over."""
        pause = RENEW_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311 -- jitter
        open_in = self._seen_at + _patience(self._lease) - self._clock.now().boot
        return min(pause, open_in) if self._valid_until is None and open_in > 0 else pause

    async def _renew(self) -> None:
        start = self._clock.now().boot
        lease = self._lease
        try:
            self._see(await self._kube.write_lease(self._key, self._ours(lease.transitions if lease else 0)))
        except ApiFailure as failure:
            if failure.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise
            # Somebody edited or deleted it: what stands there now counts.
            self._see(await self._kube.read_lease(self._key))
            holder = self._lease.holder if self._lease else ""
            if holder not in ("", self._identity):
                self._step_down(f"{holder} holds the Lease")
            if holder != self._identity:
                return
            # It was our own renewal, whose answer was lost: no time to lose.
            self._see(
                await self._kube.write_lease(self._key, self._ours(self._lease.transitions if self._lease else 0))
            )
        self._lead(start)

    async def _try_to_lead(self) -> None:
        self._see(await self._kube.read_lease(self._key))
        start = self._clock.now().boot
        if start < self._seen_at + _patience(self._lease):
            return
        lease = self._lease
        try:
            self._see(await self._kube.write_lease(self._key, self._ours(lease.transitions + 1 if lease else 0)))
        except ApiFailure as failure:
            if failure.status != HTTPStatus.CONFLICT:
                raise
            self._seen_at = self._clock.now().boot  # another one was quicker
            return
        self._lead(start)

    def _lead(self, start: float) -> None:
        """Believe in the lead for a while from the start of a good write on.

        After the least gap it is a new one, even if nobody else led: reconciles were turned away meanwhile.
        """
        self._notice_gap()
        new = self._valid_until is None
        self._valid_until = start + GIVE_UP_SECONDS
        if new:
            _log.info("this replica leads now", extra=fields(lease=self._key, identity=self._identity))
            self._promoted()

    def _notice_gap(self) -> None:
        """Step down where the lead was not renewed in time, even if it could be by now."""
        if self._valid_until is not None and not self.leading:
            self._step_down("it was not renewed in time")

    def _see(self, lease: Lease | None) -> None:
        """Note the Lease, and when it was last seen to change; that there is none at the first look is no change."""
        if (lease and lease.version) != (self._lease and self._lease.version):
            self._seen_at = self._clock.now().boot
        self._lease = lease

    def _step_down(self, why: str) -> None:
        self._valid_until = None
        _log.warning("this replica leads no more: %s", why, extra=fields(lease=self._key, identity=self._identity))
        self._demoted()

    def _ours(self, transitions: int) -> Lease:
        """The Lease with this replica as its holder, on the condition that it is as it was last seen."""
        return Lease(self._identity, LEASE_SECONDS, transitions, self._lease.version if self._lease else "")

    def _tell_trouble(self, failure: ApiFailure) -> None:
        """Say why this replica cannot take part, once; that the API server is out of reach is told elsewhere."""
        if str(failure) != self._trouble and not failure.out_of_reach:
            _log.warning("the Lease cannot be read or written", extra=fields(lease=self._key, cause=failure))
        self._trouble = str(failure)


def _patience(lease: Lease | None) -> float:
    """Seconds after the last change for which nobody may take over: whoever led until then has given up by their end.

    Only its holder releases a Lease; one that is gone, or has been emptied or shortened, may still be believed in.
    """
    if lease is None:
        return LEASE_SECONDS
    if not lease.holder and lease.seconds == _RELEASED_SECONDS:
        return 0
    return min(max(lease.seconds, LEASE_SECONDS), _LONGEST_LEASE)
