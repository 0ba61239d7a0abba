"""Which replica is at work: the one that holds a Lease, for as long as it can be sure of that.

The leader renews every three seconds; where that fails, it tries again after one. Ten seconds after the start of its
last good renewal it stops believing in its lead. The others look every two seconds, and take over fifteen seconds after
the last change that they saw. So for five seconds between two leaders nobody leads, whatever people do to the Lease. No
clock is compared with another machine's: the leader times itself, and the others time what they observe, both by a
clock that counts the time a machine was suspended. Of a Lease, only its holder is read, whether it has changed, and
whether its holder gave it up, which people cannot do in its stead. Its times are not read, and all replicas take its
duration to be the same.

A token request that is under way may outlast the lead. The lead that must be left when it begins, together with those
five seconds, is as long as the default --request-timeout; with a longer one, a request may end when another replica
leads already.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Final

from tuinly_operator.base.chance import Chance
from tuinly_operator.base.clock import Clock
from tuinly_operator.base.logs import fields
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.edges.kube import ApiFailure, Kube, Lease
from tuinly_operator.engine.leadership import Leadership

LEASE_SECONDS: Final = 15  # after the last change that they saw, others may take over
RENEW_SECONDS: Final = 3.0  # from the start of one good renewal to the next
RETRY_SECONDS: Final = 1.0  # the least pause after a renewal: one that failed, or that was answered late
LOOK_SECONDS: Final = 2.0  # between two looks of one that does not lead
GIVE_UP_SECONDS: Final = 10.0  # after the start of the last good renewal, the leader stops
RELEASE_SECONDS: Final = 4.0  # for giving up the lead when the process ends
_REQUEST_SECONDS: Final = 8.0  # the default of --request-timeout
# How much of the leadership must be left when a token request begins.
ASKING_SECONDS: Final = _REQUEST_SECONDS - (LEASE_SECONDS - GIVE_UP_SECONDS)
_MOST_TRANSITIONS: Final = 2**31 - 1  # the most that the API server takes; after that they are counted anew
_POLL_SECONDS: Final = 0.1
_LONGEST_NAME: Final = 253  # characters of a holder in a log line
_RELEASED_SECONDS: Final = 1  # and no holder: the last one gave it up, as with client-go; 0 is not allowed

_log = logging.getLogger(__name__)


class Election:
    """Takes part in the election; tells when this replica is promoted and demoted."""

    def __init__(  # noqa: PLR0913 -- what it needs to know and whom to tell
        self,
        kube: Kube,
        key: NamespacedName,
        identity: str,
        clock: Clock,
        leadership: Leadership,
        *,
        chance: Chance,
        unfit: Callable[[], str],
        promoted: Callable[[bool], None],
        demoted: Callable[[], None],
    ) -> None:
        """`identity` must be unique to this process: a restarted one must not believe in its predecessor's lead.

        `unfit` tells why this replica must not lead, empty if it may; it is asked often, and answers at once.
        `promoted` is told whether this replica leads again, and nobody else has since it last did.
        """
        self._kube = kube
        self._key = key
        self._identity = identity
        self._clock = clock
        self._leadership = leadership
        self._chance = chance
        self._unfit = unfit
        self._promoted = promoted
        self._demoted = demoted
        self._lease: Lease | None = None
        self._open_at = float("inf")  # boot seconds from which on the Lease may be taken, unless it changes again
        self._own: Lease | None = None  # as our last renewal left it; while it is the same, nobody else has led
        self._trouble = ""  # the last failure: logged once
        self.obstacle = ""  # why the Lease cannot be read or written, as the API server answers; empty if it can
        self._holder = ""  # the last leader that the log told of
        self._end: asyncio.TimerHandle | None = None  # of the lead

    async def run(self) -> None:
        """Take part until cancelled."""
        while True:
            await self.look()
            await self._rest(self.pause())

    async def look(self) -> None:
        """Look at the Lease once; renew it, or take it, if this replica may."""
        self._notice_gap()
        if self._leadership.until is not None and (why := self._unfit()):
            # Not released, so that nobody else leads while what is under way here may still go on.
            self._step_down(why)
        try:
            async with asyncio.timeout(LEASE_SECONDS):  # each request has a limit of its own; this is for what has none
                await (self._try_to_lead() if self._leadership.until is None else self._renew())
            self._trouble = self.obstacle = ""
        except TimeoutError:
            self._tell_trouble(ApiFailure(None, "TimeoutError"))
        except ApiFailure as failure:
            self._tell_trouble(failure)

    async def release(self) -> None:
        """Give up the lead, so that another replica takes over at once.

        To be called when nothing is under way any more, and `run` has been cancelled.
        """
        self._leadership.end()
        with suppress(ApiFailure, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                # Read it anew, also as a standby: a write of ours that was cancelled may have arrived all the same, or
                # arrive now, and then this one is refused once.
                try:
                    await self._release()
                except ApiFailure as failure:
                    if failure.status != HTTPStatus.CONFLICT:
                        raise
                    await self._release()

    async def _release(self) -> None:
        lease = await self._kube.read_lease(self._key)
        if lease is not None and lease.holder == self._identity:
            await self._write(replace(lease, holder="", seconds=_RELEASED_SECONDS))

    async def _rest(self, seconds: float) -> None:
        """Wait until the next look; it comes at once when this replica becomes fit to lead."""
        if not self._unfit():
            await asyncio.sleep(seconds)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._unfit():  # noqa: ASYNC110 -- nothing tells of it
                    await asyncio.sleep(_POLL_SECONDS)

    def pause(self) -> float:
        """Seconds until the next look: at the latest when the lead ends, or a Lease that nobody renews may be taken."""
        now, jitter = self._clock.now().boot, self._chance.uniform(0.9, 1.0)
        if (end := self._leadership.until) is not None:
            due = end - GIVE_UP_SECONDS + RENEW_SECONDS
            return max(0.0, min(max(due - now, RETRY_SECONDS) * jitter, end - now))
        pause = LOOK_SECONDS * jitter
        return min(pause, self._open_at - now) if self._open_at > now else pause

    async def _renew(self) -> None:
        try:
            await self._take()
        except ApiFailure as failure:
            if failure.status != HTTPStatus.CONFLICT:
                raise
            # Somebody edited or deleted it, or our own write arrived without an answer: see what is there.
            self._see(lease := await self._kube.read_lease(self._key))
            if lease is not None and self._passed_on(lease):
                self._step_down(f"{lease.holder[:_LONGEST_NAME] or 'nobody'} holds the Lease")
            elif self._leadership.holds():  # nobody else does, so hurry to renew
                await self._take()

    async def _try_to_lead(self) -> None:
        self._see(await self._kube.read_lease(self._key))
        if self._lease is None:
            # It begins without a holder, and must age: the last one may have been deleted while its holder led.
            self._see(await self._write(Lease("", LEASE_SECONDS)))
        if self._unfit():
            return
        if self._lease == self._own or self._open_at <= self._clock.now().boot:
            await self._take()

    async def _take(self) -> None:
        """Write this replica into the Lease, if that has not changed since it was last seen; then lead for a while.

        The time counts from the beginning of the write. After any gap the lead counts as a new one, even if nobody else
        led meanwhile: reconciles were turned away in the gap.
        """
        start = self._clock.now().boot
        lease = self._lease or Lease("", LEASE_SECONDS)
        again = lease == self._own
        transitions = lease.transitions + self._passed_on(lease)
        if transitions > _MOST_TRANSITIONS:
            transitions = 0
        ours = replace(lease, holder=self._identity, seconds=LEASE_SECONDS, transitions=transitions)
        self._see(await self._write(ours))
        self._notice_gap()
        if self._clock.now().boot >= start + GIVE_UP_SECONDS:
            return  # the answer came too late to lead by it
        new = self._leadership.until is None
        self._leadership.prolong(start + GIVE_UP_SECONDS)
        self._guard()
        self._own = self._lease
        if new:
            self._holder = ""
            _log.info("this replica leads now", extra=fields(lease=self._key, identity=self._identity))
            self._promoted(again)

    async def _write(self, lease: Lease) -> Lease:
        return await self._kube.write_lease(self._key, lease, at=self._clock.now().wall)

    def _passed_on(self, lease: Lease) -> bool:
        """Whether another replica holds the Lease, or it was released, so that another may hold it at any time."""
        return _released(lease) or lease.holder not in ("", self._identity)

    def _guard(self) -> None:
        """Step down when the lead ends, whatever is awaited then: a request that hangs must not hide the end."""
        if self._end is not None:
            self._end.cancel()
        self._notice_gap()
        if (until := self._leadership.until) is not None:
            left = until - self._clock.now().boot
            self._end = asyncio.get_running_loop().call_later(left, self._guard)

    def _notice_gap(self) -> None:
        """Step down if the lead was not renewed in time, even if it could be renewed now."""
        if self._leadership.until is not None and not self._leadership.holds():
            self._step_down("it was not renewed in time")

    def _see(self, lease: Lease | None) -> None:
        """Note the Lease, and when it was seen to change."""
        if lease is not None and lease != self._lease:
            self._open_at = self._clock.now().boot + _patience(lease)
        self._lease = lease
        if (
            lease is not None
            and self._leadership.until is None
            and lease.holder not in ("", self._identity, self._holder)
        ):
            self._holder = lease.holder
            name = lease.holder[:_LONGEST_NAME]
            _log.info("another replica leads", extra=fields(lease=self._key, holder=name))

    def _step_down(self, why: str) -> None:
        self._leadership.end()
        _log.warning("this replica leads no more: %s", why, extra=fields(lease=self._key, identity=self._identity))
        self._demoted()

    def _tell_trouble(self, failure: ApiFailure) -> None:
        """Say why this replica cannot take part, once; that the API server is out of reach is told elsewhere."""
        if failure.status == HTTPStatus.CONFLICT:
            return  # another one was quicker
        self.obstacle = "" if failure.out_of_reach else str(failure)
        if str(failure) != self._trouble and not failure.out_of_reach:
            _log.warning("the Lease cannot be read or written", extra=fields(lease=self._key, cause=failure))
        self._trouble = str(failure)


def _released(lease: Lease) -> bool:
    """Whether its holder gave it up. One that somebody else made look so may have a holder who knows nothing of it."""
    return not lease.holder and lease.seconds == _RELEASED_SECONDS and lease.ours


def _patience(lease: Lease) -> float:
    """Seconds after the last change for which nobody may take over: whoever led until then has given up by their end.

    That also holds for a Lease that is new, or of which somebody has changed the holder or the duration: the replica
    that held it before may go on leading for as long.
    """
    return 0 if _released(lease) else LEASE_SECONDS
