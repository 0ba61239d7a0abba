"""Spares a token endpoint that is down or asks for patience: closed after failures, reopened by one probe at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tuinly_operator.clock import Deadline, Moment
from tuinly_operator.credential import Key
from tuinly_operator.decision import Block
from tuinly_operator.errors import Failure, Reason, TokenRequestFailed

CLOSES_AFTER: Final = 3  # failures in a row
PROBE_INTERVAL: Final = 5.0  # seconds
MOST_PATIENCE: Final = 300.0  # seconds; what Retry-After may ask for at most


@dataclass(slots=True)
class _Origin:
    """What is known of one scheme, host and port."""

    failures: int = 0
    closed: bool = False
    epoch: int = 0
    probing: bool = False
    next_probe: Deadline | None = None
    patience: dict[str, Deadline] = field(default_factory=dict)  # by client id; "" is every client's
    parked: dict[Key, float] = field(default_factory=dict)  # with their urgency

    def keeps_more_urgent(self, urgency: float) -> bool:
        """Whether somebody who is parked comes before this urgency."""
        return any(other < urgency for other in self.parked.values())


class Gate:
    """One gate per origin. The reconciler asks before each attempt and tells how each token request went."""

    def __init__(self, release: Callable[[Key], None]) -> None:
        """`release` is called with each parked credential whose turn has come."""
        self._release = release
        self._origins: dict[str, _Origin] = {}

    def closed(self) -> dict[str, bool]:
        """Whether each known origin's gate is closed, for the metrics."""
        return {name: origin.closed for name, origin in self._origins.items()}

    def is_closed(self, origin: str) -> bool:
        """Whether an attempt that is let through now is a probe."""
        return origin in self._origins and self._origins[origin].closed

    def epoch(self, origin: str) -> int:
        """How often the gate has opened: a failure from before says nothing about after."""
        return self._origins[origin].epoch if origin in self._origins else 0

    def look(self, origin: str, client_id: str, urgency: float, now: Moment) -> Block | None:
        """What keeps an attempt of this urgency (the smallest comes first) from being made now, or None.

        A probe that is due is the most urgent one's: who comes by chance before that was sent waits with the others.
        """
        state = self._origins.get(origin)
        if state is None:
            return None
        for who in ("", client_id):
            until = state.patience.get(who)
            if until is not None and not until.due(now):
                message = f"the token endpoint {origin} has asked to be left alone for a while (Retry-After)"
                return Block(Failure(Reason.ENDPOINT_THROTTLED, message), until)
        if state.closed and (state.probing or not _due(state.next_probe, now) or state.keeps_more_urgent(urgency)):
            message = f"the token endpoint {origin} failed several times in a row; it is tried every few seconds"
            return Block(Failure(Reason.ENDPOINT_UNAVAILABLE, message))
        return None

    def park(self, origin: str, key: Key, urgency: float) -> None:
        """Keep a credential until the gate opens or its probe is due. The smallest `urgency` comes first."""
        self._state(origin).parked[key] = urgency

    def forget(self, key: Key) -> None:
        """A credential is gone."""
        for state in self._origins.values():
            state.parked.pop(key, None)

    def begin(self, origin: str, now: Moment) -> None:
        """A token request is about to be sent."""
        state = self._state(origin)
        if state.closed:
            state.probing, state.next_probe = True, Deadline.after(PROBE_INTERVAL, now)

    def succeeded(self, origin: str) -> None:
        """The endpoint answered as it should, or at least understood: open, and let everybody in."""
        state = self._state(origin)
        state.failures, state.probing = 0, False
        if state.closed:
            state.closed = False
            state.epoch += 1
            parked, state.parked = state.parked, {}
            for key in sorted(parked, key=parked.__getitem__):
                self._release(key)

    def failed(self, origin: str, client_id: str, failure: TokenRequestFailed, now: Moment) -> None:
        """A token request failed: count what is the endpoint's fault, and heed what it asks for."""
        state = self._state(origin)
        if failure.retry_after is not None:
            who = client_id if failure.reason is Reason.ENDPOINT_THROTTLED else ""
            state.patience[who] = Deadline.after(min(failure.retry_after, MOST_PATIENCE), now)
        if not failure.transport:
            self.succeeded(origin)
            return
        state.failures += 1
        state.probing = False
        if state.failures >= CLOSES_AFTER and not state.closed:
            state.closed, state.next_probe = True, Deadline.after(PROBE_INTERVAL, now)

    def abandoned(self, origin: str) -> None:
        """A token request was given up without an answer or a failure."""
        self._state(origin).probing = False

    def tick(self, now: Moment) -> None:
        """Send the most urgent parked credential as a probe where one is due, and forget patience that has ended."""
        for state in self._origins.values():
            state.patience = {who: until for who, until in state.patience.items() if not until.due(now)}
            if state.closed and state.parked and not state.probing and _due(state.next_probe, now):
                key = min(state.parked, key=state.parked.__getitem__)
                del state.parked[key]
                self._release(key)

    def _state(self, origin: str) -> _Origin:
        return self._origins.setdefault(origin, _Origin())


def _due(deadline: Deadline | None, now: Moment) -> bool:
    return deadline is None or deadline.due(now)
