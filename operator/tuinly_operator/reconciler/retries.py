"""What a failure means for the next try: counted, its delay drawn, and told in the log where it is a new one."""

import logging
from collections.abc import Hashable

from tuinly_operator.base.chance import Chance
from tuinly_operator.base.clock import Clock, Deadline
from tuinly_operator.base.logs import fields
from tuinly_operator.domain.errors import Failure, TokenRequestFailed
from tuinly_operator.domain.memory import Setback
from tuinly_operator.domain.schedule import retry_delay
from tuinly_operator.engine.store import Record

_log = logging.getLogger(__name__)


class Setbacks:
    """Makes a setback of each failure."""

    def __init__(self, clock: Clock, chance: Chance, min_interval: float) -> None:
        """`min_interval` is in seconds."""
        self._clock = clock
        self._chance = chance
        self._min_interval = min_interval

    def of(
        self, record: Record, last: Setback | None, failure: Failure, inputs: Hashable, *, least: float | None = None
    ) -> Setback:
        """The setback that follows on `last`, for what was tried with `inputs`.

        `least` is the least wait in seconds, without it that between two attempts; `Retry-After` raises it.
        """
        now, published = self._clock.now(), record.memory.published
        attempts = last.attempts + 1 if last and last.inputs == inputs else 1
        life_left = published.expiry.remaining(now) if published else 0.0
        drawn = self._chance.random()
        least = self._min_interval if least is None else least
        if isinstance(failure, TokenRequestFailed) and failure.retry_after is not None:
            least = max(least, failure.retry_after)
        delay = retry_delay(failure, attempts, life_left, least, drawn)
        repeated = last is not None and last.failure.reason is failure.reason
        extra = fields(
            credential=record.credential.key,
            reason=failure.reason,
            attempt=attempts,
            retry_in=round(delay, 1),
            cause=failure.message,
        )
        _log.log(logging.DEBUG if repeated else logging.WARNING, "failed, trying again", extra=extra)
        return Setback(failure.to_keep(), attempts, now.wall, Deadline.after(delay, now), inputs)
