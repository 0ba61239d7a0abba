"""Which Events are worth sending: no Warning twice within ten minutes, and no end of one that was withheld."""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from tuinly_operator.domain.credential import READY
from tuinly_operator.domain.errors import Reason

_REPEAT_WARNING: Final = 600.0  # seconds between two Events that warn of the same
_MOST_WARNED: Final = 32  # warnings that are remembered of a credential


class Notice(NamedTuple):
    """What an Event says. `about` is the condition that has changed, READY for all that is about the token."""

    warning: bool
    reason: Reason
    message: str
    about: str = READY


class Warned(NamedTuple):
    """A Warning that was sent; `message` is empty where its words do not count. `at` is in boot seconds."""

    reason: Reason
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Notices:
    """What users were told of a credential by Events.

    `warned` are the latest Warnings. `hushed` are the conditions whose last Warning was withheld; that they are well
    again is not told either.
    """

    warned: tuple[Warned, ...] = ()
    hushed: frozenset[str] = frozenset()

    def is_news(self, reason: Reason, message: str, now: float) -> bool:
        """Whether users were not warned of this lately; `now` is in boot seconds."""
        return all((told.reason, told.message) != (reason, message) for told in self._lately(now))

    def is_worth_telling(self, change: Notice, now: float) -> bool:
        """Whether a change of a condition is worth an Event. Two Warnings of one are the same if the reasons are."""
        return self.is_news(change.reason, "", now) if change.warning else change.about not in self.hushed

    def warned_of(self, reason: Reason, message: str, now: float) -> "Notices":
        """There was something to warn of: it is remembered, unless the same was told within the last ten minutes."""
        if not self.is_news(reason, message, now):
            return self
        return replace(self, warned=(*self._lately(now), Warned(reason, message, now))[-_MOST_WARNED:])

    def condition_changed(self, change: Notice, now: float) -> "Notices":
        """A condition changed, and users were told of it where that was worth an Event."""
        withheld = change.warning and not self.is_worth_telling(change, now)
        notices = self.warned_of(change.reason, "", now) if change.warning else self
        if withheld == (change.about in self.hushed):
            return notices
        return replace(notices, hushed=self.hushed ^ {change.about})

    def _lately(self, now: float) -> tuple[Warned, ...]:
        return tuple(told for told in self.warned if now - told.at < _REPEAT_WARNING)


NO_NOTICES: Final = Notices()
