"""A discrete simulation around the real limiter: many credentials, endpoints that answer as they like, drawn delays.

What stands between a credential and the limiter (decision, reconciler, queue) is modelled in `Fleet._look`, by the
rules of `decision._attempt`; schedule and retries are the operator's own.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Final

from tuinly_operator.base.clock import Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.facts import (
    Purpose,
)
from tuinly_operator.domain.schedule import retry_delay
from tuinly_operator.engine.limiter import Ask, Limiter, Ticket

PLACES: Final = 20
MIN_INTERVAL: Final = 5.0
TIMEOUT: Final = 8.0
BOOTED: Final = 1_799_999_000.0  # seconds since the epoch

Answer = TokenRequestFailed | None
Behaviour = Callable[["Credential", float], tuple[float, Answer]]
"""How an endpoint answers a credential at a time: after how many seconds, and with what; None is a token."""


def failure(status: int | None, retry_after: float | None = None) -> TokenRequestFailed:
    """What `answers` and `oauth` make of an answer."""
    reason = {429: Reason.ENDPOINT_THROTTLED, 401: Reason.INVALID_CLIENT, 404: Reason.REQUEST_REJECTED}.get(
        status or 500, Reason.ENDPOINT_UNAVAILABLE if status is None or status >= 500 else Reason.INVALID_RESPONSE
    )
    return TokenRequestFailed(reason, "", status, retry_after, transport=status is None or status >= 500)


BAD: Final[dict[str, Answer]] = {
    "500": failure(500),
    "503": failure(503, 300.0),
    "429": failure(429),
    "302": failure(302),
    "404": failure(404),
    "401": failure(401),
    "garbage": failure(200),
    "hang": failure(None),
}


@dataclass(eq=False)
class Credential:
    """One credential. Times are in seconds of the simulation; `due` is when its next token is."""

    key: NamespacedName
    origin: str
    lifetime: float
    kind: str = "good"
    purpose: Purpose = Purpose.TOKEN
    end: float | None = None
    due: float = 0.0
    attempts: int = 0
    retry: float = float("-inf")
    last: float = float("-inf")
    alive: bool = True
    busy: int = 0  # the run of the process in which its request is under way
    late: list[float] = field(default_factory=list)
    expired: float = 0.0
    first: float | None = None
    requests: int = 0
    tokens: int = 0


class Fleet:
    """Credentials around one limiter."""

    def __init__(self, seed: int, behaviour: Behaviour | None = None, places: int = PLACES) -> None:
        """`behaviour` says how good credentials are answered; `places` is what may be in flight in all."""
        self.drawn = random.Random(seed)  # noqa: S311 -- a simulation
        self.now, self.places = 0.0, places
        self.behaviour: Behaviour = behaviour or (lambda _, __: (self.latency(), None))
        self.credentials: dict[NamespacedName, Credential] = {}
        self.sent: list[tuple[float, Credential]] = []
        self.in_flight = self.peak = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._timers: dict[NamespacedName, float] = {}
        self.run_number = 0
        self.start()

    def start(self) -> None:
        """Start the process, or start it anew: it remembers nothing."""
        self.run_number += 1
        self.in_flight = 0
        self.limiter = Limiter(self.places, self._released, parked=self._tend)
        self._tended = False
        for credential in self.credentials.values():
            credential.attempts, credential.retry, credential.last = 0, float("-inf"), float("-inf")
            self.at(self.now + self.drawn.uniform(0, 0.5), partial(self._look, credential))

    def latency(self) -> float:
        """Seconds that an answer takes."""
        return self.drawn.uniform(0.02, 0.3)

    def moment(self) -> Moment:
        return Moment(BOOTED + self.now, self.now)

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), action))

    def add(self, credential: Credential) -> None:
        self.credentials[credential.key] = credential
        self.at(self.now + self.drawn.uniform(0, 0.5), lambda: self._look(credential))

    def replace(self, credential: Credential) -> None:
        """Delete it and make it again."""
        credential.alive = False
        self.limiter.forget(credential.key, self.moment())
        new = Credential(credential.key, credential.origin, credential.lifetime, credential.kind, credential.purpose)
        new.due = self.now
        self.add(new)

    def edit(self, credential: Credential) -> None:
        """Edit its client Secret: what it was tried with has changed."""
        credential.attempts, credential.retry = 0, float("-inf")
        self._look(credential)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = until

    # --- What the reconciler does -------------------------------------------------------------------------------------

    def _released(self, key: NamespacedName) -> None:
        credential = self.credentials.get(key)
        if credential is not None:
            self.at(self.now + self.drawn.uniform(0.001, 0.02), lambda: self._look(credential))

    def _tend(self) -> None:
        """Tick the limiter for as long as anybody waits, as the operator does."""
        if not self._tended:
            self._tended = True
            self.at(self.now, partial(self._tick, self.run_number))

    def _tick(self, run: int) -> None:
        if run == self.run_number:
            pause = self.limiter.tick(self.moment())
            self._tended = pause is not None
            if pause is not None:
                self.at(self.now + pause, partial(self._tick, run))

    def _timer(self, credential: Credential, time: float) -> None:
        self._timers[credential.key] = time

        def fire() -> None:
            if self._timers.get(credential.key) == time:
                self._look(credential)

        self.at(time, fire)

    def _ask(self, credential: Credential) -> Ask:
        end = None if credential.end is None else BOOTED + credential.end
        return Ask(credential.key, credential.origin, credential.purpose, end, credential.key.name)

    def _look(self, credential: Credential) -> None:
        """By the rules of `decision._attempt`."""
        if not credential.alive or credential.busy == self.run_number:
            return
        ask, now = self._ask(credential), self.moment()
        parked: Ask | None = None
        self.limiter.picked_up(ask)
        permit = self.limiter.look(ask, now)
        wait = max(credential.last + MIN_INTERVAL, credential.retry if not permit.at_once else 0.0)
        if credential.due > self.now:
            self._timer(credential, credential.due)
        elif permit.block is not None and not permit.block.parks:
            assert permit.block.until is not None
            self._timer(credential, permit.block.until.boot)
        elif wait > self.now and not (permit.block and permit.block.long):
            self._timer(credential, wait)
        elif permit.block is not None:
            parked = ask
            self.limiter.park(ask, now)
        else:
            self._send(credential, ask)
        self.limiter.keep_only(credential.key, [parked] if parked else [], now)

    def _send(self, credential: Credential, ask: Ask) -> None:
        ticket = self.limiter.begin(ask, self.moment())
        self.sent.append((self.now, credential))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        credential.requests += 1
        credential.last = began = self.now
        credential.busy = run = self.run_number
        delay, answer = self._answer(credential)
        self.at(self.now + delay, lambda: self._answered(credential, ticket, answer, began, run))

    def _answer(self, credential: Credential) -> tuple[float, Answer]:
        if credential.kind == "good":
            return self.behaviour(credential, self.now)
        return TIMEOUT if credential.kind == "hang" else self.latency(), BAD[credential.kind]

    def _answered(self, credential: Credential, ticket: Ticket, answer: Answer, began: float, run: int) -> None:
        if run != self.run_number:
            return  # of a process that has ended
        self.in_flight -= 1
        credential.busy = 0
        if answer is None:
            self._take(credential, began)
            self.limiter.succeeded(ticket, self.moment())
        else:
            self.limiter.failed(ticket, answer, self.moment())
            credential.attempts += 1
            left = 0.0 if credential.end is None else credential.end - self.now
            delay = retry_delay(answer, credential.attempts, left, MIN_INTERVAL, self.drawn.random())
            credential.retry = self.now + max(delay, answer.retry_after or 0.0)
        self._look(credential)

    def _take(self, credential: Credential, began: float) -> None:
        if credential.end is None:
            credential.first = self.now
        else:
            credential.late.append(self.now - credential.due)
            credential.expired += max(0.0, self.now - credential.end)
        credential.tokens += 1
        credential.attempts, credential.retry = 0, float("-inf")
        credential.end = began + credential.lifetime
        credential.due = began + credential.lifetime / 2 * (1 - 0.1 * self.drawn.random())

    # --- What is measured ---------------------------------------------------------------------------------------------

    def lateness(self, credentials: list[Credential], *, since: float = 0.0) -> list[float]:
        """Seconds by which each refresh was late, those that are late now included."""
        late = [each for c in credentials for each in c.late]
        return late + [max(0.0, self.now - max(c.due, since)) for c in credentials]

    def expired(self, credentials: list[Credential]) -> float:
        """Seconds for which tokens stood expired, those that do so now included."""
        return sum(c.expired + max(0.0, self.now - c.end) for c in credentials if c.end is not None)
