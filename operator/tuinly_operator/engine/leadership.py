"""Whether this replica may act: what an election prolongs and ends, and what is asked right before anything is sent."""

from typing import Self

from tuinly_operator.base.clock import Clock


class Leadership:
    """The right to act until a moment of the boot clock, which goes on while a machine is suspended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: float | None = None

    @classmethod
    def alone(cls, clock: Clock) -> Self:
        """The lead of a replica that has no others beside it: without an end."""
        leadership = cls(clock)
        leadership.prolong(float("inf"))
        return leadership

    @property
    def until(self) -> float | None:
        """Boot seconds at which it ends, or has ended unnoticed; None for a standby."""
        return self._until

    def holds(self, seconds: float = 0.0) -> bool:
        """Whether this replica may act now and for so many seconds more; also right after it was suspended."""
        return self._until is not None and self._clock.now().boot + seconds < self._until

    def prolong(self, until: float) -> None:
        """Lead until then, in boot seconds."""
        self._until = until

    def end(self) -> None:
        """Lead no more."""
        self._until = None
