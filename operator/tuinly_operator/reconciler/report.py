"""Writes what there is to tell: the status where it differs, and the Events that its transitions are worth."""

from dataclasses import replace
from http import HTTPStatus
from typing import Final

from tuinly_operator.base.clock import Clock, Deadline
from tuinly_operator.domain.acts import Rest
from tuinly_operator.domain.credential import to_json
from tuinly_operator.domain.errors import Reason
from tuinly_operator.domain.facts import Facts
from tuinly_operator.domain.memory import Reported
from tuinly_operator.domain.notices import Notice
from tuinly_operator.domain.status import digest, same_story, status, transitions
from tuinly_operator.edges.events import EventSender
from tuinly_operator.edges.kube import ApiFailure, Kube
from tuinly_operator.engine.store import Record, Store
from tuinly_operator.reconciler.live import is_served

# Seconds between two writes of a status that only repeats a failure, and of one that somebody else has written over,
# such as another operator with other flags, which does not give way either.
_REPEAT_STATUS: Final = 300.0
_REWRITE_STATUS: Final = 30.0


class Reporter:
    """Tells users by status and Events."""

    def __init__(self, store: Store, kube: Kube, events: EventSender, clock: Clock) -> None:
        """Nothing is written before `report`."""
        self._clock = clock
        self._store = store
        self._kube = kube
        self._events = events

    async def report(self, record: Record, facts: Facts, decision: Rest) -> Deadline | None:
        """Write the status if it differs, and send the Events that its transitions are worth.

        Returns when to write it again, where that has to wait: a difference that only repeats a failure, or what was
        written last, already.
        """
        before = facts.credential.status
        after = status(facts, decision)
        if after == before:
            record.memory = record.memory.has_reported(after)
            return None
        since, reported = facts.now.boot - record.status_written, facts.memory.reported
        ours = reported in (None, Reported.of(before))  # else somebody else has changed it
        if ours and since < _REPEAT_STATUS and same_story(before, after):
            return Deadline.after(_REPEAT_STATUS - since, facts.now)
        if since < _REWRITE_STATUS and record.told == digest(after):
            return Deadline.after(_REWRITE_STATUS - since, facts.now)
        if not (self._store.knows_status(facts.credential.key) or await self._is_up_to_date(record, facts)):
            return None
        key, seen = facts.credential.key, record.credential
        # Until the answer comes, and where none does, nobody knows what was written last.
        record.writing, record.told = after, None
        record.memory = record.memory.has_reported(after)
        try:
            version, revision = await self._kube.write_status(key, facts.credential.uid, to_json(after))
        except ApiFailure as failure:
            unknown = failure.not_found or failure.status in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)
            if unknown and not await is_served(self._kube, self._store, record):
                return None
            raise
        finally:
            record.writing = None
        self._store.status_written(record, seen, after, version, facts.now.boot)
        self._store.credential_shown(key, revision, version)
        now = self._clock.now()
        for change in transitions(before, after):
            worth_telling = record.memory.notices.is_worth_telling(change, now.boot)
            record.memory = record.memory.condition_changed(change, now)
            if worth_telling:
                self._events.tell(facts.credential, change)
        return None

    def warn(self, record: Record, reason: Reason, message: str) -> None:
        """Send an Event about something that is no change of a condition; the same again is no news for a while."""
        now = self._clock.now()
        news = record.memory.notices.is_news(reason, message, now.boot)
        record.memory = record.memory.warned_of(reason, message, now)
        if news:
            self._events.tell(record.credential, Notice(warning=True, reason=reason, message=message))

    def warn_once(self, record: Record, reason: Reason, message: str) -> None:
        """The same, but once in this process: it stays true until somebody changes the server."""
        if reason not in record.memory.told:
            record.memory = record.memory.told_once(reason)
            self.warn(record, reason, message)

    async def _is_up_to_date(self, record: Record, facts: Facts) -> bool:
        """Whether a live read shows the credential as it was decided on. If not, the store has it reconciled again."""
        served = await is_served(self._kube, self._store, record)
        return served and replace(record.credential, version=facts.credential.version) == facts.credential
