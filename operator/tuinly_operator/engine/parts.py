"""Keeps the operator's parts running: each is a task that is started again whenever it ends.

A part that ends again and again is lost in the end, and then missed. One that waits for something else, such as the API
server, the CRD or a right, has not ended.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from tuinly_operator.base.chance import Chance, backoff
from tuinly_operator.base.logs import fields

STEADY: Final = 10.0  # seconds; a part that was started again and has run for so long has recovered
PATIENCE: Final = 30.0  # seconds without recovering, while the API server answered, after which a part is lost
_MAX_BACKOFF: Final = 5.0  # seconds

_log = logging.getLogger(__name__)


class Part:
    """One part: it ends by cancellation only, whatever it runs."""

    def __init__(self, name: str, run: Callable[[], Awaitable[None]], now: Callable[[], float], chance: Chance) -> None:
        """`name` is for people. `now` is a clock in seconds."""
        self.name = name
        self._run = run
        self._now = now
        self._chance = chance
        self._began = now()
        self._ended: float | None = None  # when it first ended since it was last steady
        self._running = False
        self._told = ""

    @property
    def down_since(self) -> float | None:
        """Since when it has not been running steadily; None if it is."""
        steady = self._running and self._now() - self._began >= STEADY
        return None if steady else self._ended

    async def keep(self) -> None:
        """Run it, and again whenever it ends."""
        failures = 0
        while True:
            self._began, self._running = self._now(), True
            error: BaseException | None = None
            try:
                await self._run()
            except asyncio.CancelledError as cancelled:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                error = cancelled  # by nobody who wanted an end
            except Exception as exception:  # noqa: BLE001 -- whatever it is, the part is started again
                error = exception
            if self.down_since is None:
                self._ended, self._told, failures = self._now(), "", 0
            self._running = False
            self._tell(error)
            failures += 1
            await asyncio.sleep(backoff(self._chance, failures, first=0.1, most=_MAX_BACKOFF))

    def _tell(self, error: BaseException | None) -> None:
        """Say why it ended, in one line; the same cause again is logged for debugging only."""
        status = getattr(error, "status", None)  # what a server answered needs no traceback
        cause = f"{type(error).__name__}{f' {status}' if status else ''}" if error else "it returned"
        level = logging.DEBUG if cause == self._told else logging.ERROR
        trace = error if error is not None and status is None else None
        _log.log(level, "%s ended, starting it again", self.name, extra=fields(cause=cause), exc_info=trace)
        self._told = cause


class Parts:
    """All parts, and whether one of them has ended and does not come back."""

    def __init__(self, now: Callable[[], float], chance: Chance) -> None:
        """`now` is a clock in seconds."""
        self._now = now
        self._chance = chance
        self._parts: list[Part] = []
        self._answers_since: float | None = now()

    def add(self, name: str, run: Callable[[], Awaitable[None]]) -> Part:
        """Add a part. The caller runs its `keep`."""
        part = Part(name, run, self._now, self._chance)
        self._parts.append(part)
        return part

    def note_api(self, *, answers: bool) -> None:
        """Note whether the API server is within reach: while it is not, nobody is missed."""
        self._answers_since = self._now() if answers else None

    def down(self, name: str) -> bool:
        """Whether a part has ended, and has not run for long since."""
        return any(part.name == name and part.down_since is not None for part in self._parts)

    def lost(self) -> list[str]:
        """The names of the parts that have ended and do not come back."""
        if self._answers_since is None:
            return []
        since = self._now() - PATIENCE
        missed = (part for part in self._parts if part.down_since is not None and part.down_since <= since)
        return sorted({part.name for part in missed}) if self._answers_since <= since else []
