"""The limiter: says how many requests may be in flight, and learns from the answers how many each origin can take.

Before each request, the reconciler asks whether it may be sent now. If not, it parks the credential, which waits here
and meanwhile holds neither a connection nor a place. When its turn comes, the limiter reserves a place for it and
releases it, that is, has it queued to be reconciled. What a failure means depends on the credential: one that fails
while others get tokens is taken to be at fault itself, and says nothing of the endpoint. Only a token proves that an
endpoint works. (docs/decisions/0020-a-limiter-per-origin.md)
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus
from itertools import count
from typing import Final

from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.errors import Failure, Reason, TokenRequestFailed
from tuinly_operator.domain.facts import Block, Permit, Purpose

FIRST_LIMIT: Final = 4  # requests in flight to an origin that has given no token yet
DOWN_AFTER: Final = 3  # failures in a row, with no token between them, after which an endpoint is taken to be down
DOWN_SECONDS: Final = 0.5  # the least time from the first of them to the last: what breaks at one moment is one failure
PROBE_SECONDS: Final = 5.0  # between two probes of an endpoint that is down
EARLY_PROBE_SECONDS: Final = 1.0  # the same, in the first PROBE_SECONDS: a few failures may be mere chance
SLOW_SECONDS: Final = 1.0  # a request that has taken longer is taken to hang
HANGS_FOR: Final = 8.0  # after a request has timed out, all those to its origin are taken to hang for so long
QUIET_SECONDS: Final = 10.0  # after so long without any token, nobody can be said to fail while others get tokens
QUICK_TRIES: Final = 3  # retries without the random wait, for one who has a token and failed while others got theirs
RATE_CUT: Final = 0.9  # after a 429, requests per second are this share of the tokens in the best second
RATE_SECONDS: Final = 10  # the last seconds, among which the best one is looked for
RATE_GROWTH: Final = 1.0  # by so many requests per second the rate grows each second
LEAST_RATE: Final = 1.0  # requests per second
SAID_AFTER: Final = 5.0  # seconds of waiting after which the status tells of it
RESERVED_SECONDS: Final = 2.0  # for which a place is kept for a released credential whose reconcile has not begun
_LONGEST_PAUSE: Final = 0.5  # seconds until the next `tick`, at most, while anybody waits
_SHORTEST_PAUSE: Final = 0.005
_SHORT_LINE: Final = 16  # so many old entries may stay in a line
_MOST_TURNS: Final = 4096  # namespaces whose next turn is remembered, for each origin


class Standing(IntEnum):
    """How far a credential is trusted. They are served in this order."""

    GOOD = 0  # the last answer was a token
    SHAKEN = 1  # it had a token, and has failed since then
    NEW = 2  # it has had no token yet, and has not failed while others got theirs
    FAILING = 3  # it failed while others got tokens, so the fault is its own and not the endpoint's


_Who = tuple[NamespacedName, Purpose]
_Rank = tuple[int, float, float]
_Lot = tuple[Standing, str]  # all of one namespace and standing: each of them gets a turn of its own


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that a credential needs.

    `end` is when its newest token ends, in seconds since the epoch, None where it has none; `client` is the client id,
    empty where it is not known.
    """

    key: NamespacedName
    origin: str
    purpose: Purpose = Purpose.TOKEN
    end: float | None = None
    client: str = ""

    @property
    def who(self) -> _Who:
        """The key of its standing, which each purpose has for itself, even if both go to the same origin."""
        return self.key, self.purpose


@dataclass(slots=True, eq=False)
class Ticket:
    """A place among those in flight: first reserved for a released credential, then taken by its request.

    `since` is when it was reserved or, later, when the request began, in boot seconds.
    """

    ask: Ask
    standing: Standing
    since: float
    probe: bool
    began: bool = False
    picked: bool = False  # the reconcile of its credential has begun
    tokens: int = 0  # how many the origin had given when the request began
    times_up: int = 0  # how often the origin had recovered by then

    def slow(self, now: float) -> bool:
        """Whether its request has been under way for long."""
        return self.began and now - self.since > SLOW_SECONDS


@dataclass(slots=True)
class _Known:
    """What is known of one who has failed, until its next token."""

    standing: Standing
    tokens: int  # how many the origin had given by the last failure
    tried: float  # boot seconds of the last failure
    failures: int  # in a row
    relieved: bool = False  # the endpoint has given tokens since: it may try again without waiting for its retry
    patience: Deadline | None = None  # until when it may send nothing, by Retry-After
    client: str = ""  # the client id with which it was told Retry-After


@dataclass(slots=True)
class _Wait:
    """One who waits.

    `number` is that of its valid entry in the line, where older ones may still stand; negative once it was released.
    """

    ask: Ask
    since: Moment
    turn: int  # when its namespace's turn comes; counted for each standing
    lot: _Lot
    number: int = -1
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the metrics show of an origin. `rate` is in requests per second, None where it has no bound."""

    limit: int
    in_flight: int
    waiting: int
    down: bool
    rate: float | None


@dataclass(slots=True)
class _Origin:
    """One scheme, host and port. Times are in boot seconds."""

    name: str
    most: int
    limit: int
    tickets: dict[Ticket, None] = field(default_factory=dict)
    untrusted: int = 0  # how many of the tickets are of credentials that are not in good standing
    waiting: dict[_Who, _Wait] = field(default_factory=dict)
    line: list[tuple[_Rank, int, _Who]] = field(default_factory=list)  # a heap; old entries are left in it and skipped
    lots: Counter[_Lot] = field(default_factory=Counter)  # how many wait in each
    next_turns: dict[_Lot, int] = field(default_factory=dict)  # the earliest turn that the next one of a lot may get
    served: Counter[Standing] = field(default_factory=Counter)  # the latest turn that has come
    known: dict[_Who, _Known] = field(default_factory=dict)
    hopeful: set[_Who] = field(default_factory=set)  # the endpoint failed them: anybody's next token ends their waits
    tokens: int = 0
    last_token: float = float("-inf")
    recent: deque[float] = field(default_factory=deque)  # when tokens came, lately
    halved: float = float("-inf")  # when the limit last was
    failures: int = 0  # in a row that speak against the endpoint
    first_failure: float = 0.0
    ill_since: float = 0.0  # when the request of the first of them began
    trusted_failed: bool = False  # whether one of them met a credential in good standing
    down: bool = False
    times_up: int = 0  # how often it has recovered
    next_probe: float = 0.0
    last_probe: _Who | None = None
    newcomers_turn: bool = False
    hung: float = float("-inf")  # when a request last timed out
    rate_then: float | None = None  # requests per second right after the last cut; None: there is no bound
    cut: float = float("-inf")  # when the rate was last cut
    next_start: float = float("-inf")  # before that no request may begin

    # --- Who ----------------------------------------------------------------------------------------------------------

    def standing(self, ask: Ask) -> Standing:
        """How far the one that asks is trusted. If it has not failed, this depends on whether it has a token."""
        known = self.known.get(ask.who)
        if known is not None:
            return known.standing
        return Standing.NEW if ask.end is None else Standing.GOOD

    def by_end(self, ask: Ask) -> float | None:
        """When its token ends, if its place in the line goes by that: it had a token, and is not itself at fault."""
        return ask.end if self.standing(ask) <= Standing.SHAKEN else None

    def rank(self, ask: Ask, since: float, turn: int) -> _Rank:
        """Its place in the line: by standing, then by the end of its token or by its turn."""
        end = self.by_end(ask)
        return self.standing(ask), turn if end is None else end, since

    def turn_of(self, ask: Ask) -> int:
        """The turn of one who comes now. Namespaces take turns, so it only comes after those of its own namespace."""
        standing = self.standing(ask)
        lot = standing, ask.key.namespace
        return max(self.served[standing], self.next_turns.get(lot, 0)) + self.lots[lot]

    def turn_came(self, wait: _Wait) -> None:
        """Note that one is released. Whoever comes from now on gets none of the turns that are over."""
        standing = wait.lot[0]
        self.served[standing] = max(self.served[standing], wait.turn)
        if len(self.next_turns) >= _MOST_TURNS:  # then some come one turn too early, once
            self.next_turns.clear()
        self.next_turns[wait.lot] = wait.turn + 1

    def joins(self, ask: Ask, now: Moment) -> _Wait:
        """Let one begin to wait."""
        wait = self.waiting[ask.who] = _Wait(ask, now, self.turn_of(ask), (self.standing(ask), ask.key.namespace))
        self.lots[wait.lot] += 1
        return wait

    def leaves(self, who: _Who) -> _Wait | None:
        """Let one wait no more; return its wait, None if it did not wait."""
        wait = self.waiting.pop(who, None)
        if wait is not None:
            self.lots[wait.lot] -= 1
            if not self.lots[wait.lot]:
                del self.lots[wait.lot]
        return wait

    def head(self) -> _Wait | None:
        """The first in the line."""
        while self.line:
            _, number, who = self.line[0]
            wait = self.waiting.get(who)
            if wait is not None and wait.number == number:
                return wait
            heapq.heappop(self.line)
        return None

    def only_probes(self, ask: Ask) -> bool:
        """Whether this one may send nothing but a probe, because the origin is down.

        One in good standing may still try an origin that only others have found to be down.
        """
        return self.down and (self.trusted_failed or self.standing(ask) is not Standing.GOOD)

    def candidate(self) -> _Wait:
        """Who is to be the next probe: not the last one again if there are others, and first those not tried yet.

        Those who had tokens take turns with newcomers, so that neither group keeps the other from finding out that the
        endpoint works again. One whose failures are its own fault would find out nothing, and comes last.
        """
        groups: list[list[_Wait]] = [[], [], []]
        for wait in self.waiting.values():
            if wait.number >= 0:
                groups[max(0, self.standing(wait.ask) - 1)].append(wait)
        had, new, failing = groups
        first, second = (new, had) if self.newcomers_turn else (had, new)
        group = first or second or failing
        if len(had) + len(new) > 1:
            group = [wait for wait in group if wait.ask.who != self.last_probe] or second
        return min(group, key=self._untried_first)

    def _untried_first(self, wait: _Wait) -> tuple[float, _Rank]:
        known = self.known.get(wait.ask.who)
        by_turn = self.by_end(wait.ask) is None  # then it gets a later turn after each try
        tried = float("-inf") if by_turn or known is None or known.tried < self.ill_since else known.tried
        return tried, self.rank(wait.ask, wait.since.boot, wait.turn)

    def queue(self, wait: _Wait, number: int) -> None:
        """Put one who waits into the line, and remove the old entries from the line once they are most of it."""
        wait.number = number
        heapq.heappush(self.line, (self.rank(wait.ask, wait.since.boot, wait.turn), number, wait.ask.who))
        if len(self.line) > 2 * len(self.waiting) + _SHORT_LINE:
            self.line = [entry for entry in self.line if (w := self.waiting.get(entry[2])) and w.number == entry[1]]
            heapq.heapify(self.line)

    def forget(self, who: _Who) -> None:
        """Know nothing of one any more."""
        self.known.pop(who, None)
        self.hopeful.discard(who)

    # --- How much -----------------------------------------------------------------------------------------------------

    def hangs(self, now: float) -> bool:
        """Whether requests to this origin hang, so that each of them may hold its place for long."""
        return now - self.hung < HANGS_FOR or any(ticket.slow(now) for ticket in self.tickets)

    def rate(self, now: float) -> float | None:
        """How many requests may begin per second; None where there is no bound."""
        return None if self.rate_then is None else self.rate_then + RATE_GROWTH * (now - self.cut)

    def has_room(self, standing: Standing, now: float) -> bool:
        """Whether this origin can take one more request now. Those not in good standing hold half of its limit at most.

        Requests that hang do not count: else they would keep out those that could show that the others are answered.
        """
        quick = sum(not ticket.slow(now) for ticket in self.tickets)
        if quick >= self.limit or now < self.next_start:
            return False
        return not self.is_pacing() and (standing is Standing.GOOD or self.untrusted < max(1, self.limit // 2))

    def is_pacing(self) -> bool:
        """Whether the next one must wait for a request that is about to begin, as the rate has a bound."""
        return self.rate_then is not None and any(not ticket.began for ticket in self.tickets)

    def pace(self, now: float) -> None:
        """Note that a request begins."""
        rate = self.rate(now)
        if rate is not None:
            self.next_start = now + 1 / rate
            if rate > 20 * self.most:  # a bound that so few places could never reach
                self.rate_then = None

    # --- What answers say ---------------------------------------------------------------------------------------------

    def took(self, now: float) -> None:
        """Note that somebody got a token: the endpoint works."""
        self.tokens += 1
        self.last_token = now
        self.recent.append(now)
        while self.recent[0] < now - RATE_SECONDS:
            self.recent.popleft()
        self.limit = min(self.most, self.limit + 1)
        self.failures, self.trusted_failed = 0, False
        if self.down:
            self.down = False
            self.times_up += 1

    def tokens_in_a_second(self, now: float) -> int:
        """How many tokens came in the best of the last seconds: in the others, perhaps fewer were asked for."""
        seconds = Counter(int(now - time) for time in self.recent if time >= now - RATE_SECONDS)
        return max(seconds.values(), default=0)

    def is_own_affair(self, ticket: Ticket, now: float) -> bool:
        """Whether a failure is the credential's own fault, as others get tokens meanwhile."""
        known, standing = self.known.get(ticket.ask.who), self.standing(ticket.ask)
        if standing is Standing.NEW and now - self.last_token < QUIET_SECONDS:
            return True
        if standing is Standing.FAILING or (standing is Standing.GOOD and known is None):
            return standing is Standing.FAILING
        return self.tokens > (known.tokens if known is not None else ticket.tokens)

    def speaks_against(self, ticket: Ticket, now: float, *, trusted: bool) -> None:
        """Hold a failure against the endpoint: halve its limit, and take it to be down after a few such failures.

        Of requests that were in flight together, only the first one to fail halves the limit.
        """
        if ticket.since >= self.halved:
            self.limit, self.halved = max(min(2, self.most), self.limit // 2), now
        if ticket.tokens < self.tokens:
            return  # others have got tokens since it began: the endpoint is not down
        if not self.failures:
            self.first_failure, self.ill_since = now, ticket.since
        self.failures += 1
        self.trusted_failed |= trusted
        if self.failures >= DOWN_AFTER and now - self.first_failure > DOWN_SECONDS and not self.down:
            self.down, self.next_probe = True, now + self._probe_pause(now)

    def throttled(self, now: float) -> None:
        """Lower the rate, as one in good standing was told that there are too many requests."""
        if now - self.cut >= 1:
            self.rate_then = max(LEAST_RATE, RATE_CUT * self.tokens_in_a_second(now))
            self.cut, self.next_start = now, now + 1 / self.rate_then

    def probed(self, who: _Who, now: float) -> None:
        """Note that a probe begins."""
        self.last_probe, self.next_probe = who, now + self._probe_pause(now)
        self.newcomers_turn = not self.newcomers_turn

    def _probe_pause(self, now: float) -> float:
        return EARLY_PROBE_SECONDS if now - self.ill_since < PROBE_SECONDS else PROBE_SECONDS


class Limiter:
    """One for all endpoints. The reconciler asks before each request, parks those that must wait, tells how it went."""

    def __init__(
        self, places: int, release: Callable[[NamespacedName], None], parked: Callable[[], None] = lambda: None
    ) -> None:
        """`places` bounds what is in flight in all; `release` is called with each credential whose turn has come.

        `parked` is called whenever one is parked: if the last `tick` returned None, it is time to call that again.
        """
        self._places = places
        self._release = release
        self._parked = parked
        self._origins: dict[str, _Origin] = {}
        self._numbers = count()

    def seen(self, now: Moment) -> dict[str, Seen]:
        """What the metrics show, by origin."""
        return {name: _seen(origin, now.boot) for name, origin in self._origins.items()}

    def holds_place(self, key: NamespacedName) -> bool:
        """Whether a place is reserved for a credential, which should not be kept empty for long."""
        return any(wait.ticket is not None for _, wait in self._waits_of(key))

    # --- Asking -------------------------------------------------------------------------------------------------------

    def look(self, ask: Ask, now: Moment) -> Permit:
        """Say whether a request may begin now, or what keeps it back, and whether it need not wait for its retry."""
        origin = self._origins.get(ask.origin) or self._new(ask.origin)
        known, wait = origin.known.get(ask.who), origin.waiting.get(ask.who)
        relieved = known is not None and known.relieved
        patience = known.patience if known is not None and known.client in ("", ask.client) else None
        if patience is not None and not patience.due(now):
            message = f"the endpoint {ask.origin} has asked to be left alone for a while (Retry-After)"
            return Permit(Block(Failure(Reason.ENDPOINT_THROTTLED, message), patience, long=True))
        if wait is not None and wait.ticket is not None:
            return Permit(at_once=relieved or wait.ticket.probe)
        since = wait.since if wait is not None else now
        if self._may_go(origin, ask, now.boot):
            return Permit(at_once=relieved)
        said = Deadline.after(SAID_AFTER, since)
        failure = _why(origin) if said.due(now) else None
        return Permit(Block(failure, None if failure else said, parks=True, long=origin.down), at_once=relieved)

    def picked_up(self, ask: Ask) -> None:
        """Note that a reconcile that needs this request is under way: a place reserved for it is kept meanwhile."""
        origin = self._origins.get(ask.origin)
        wait = origin.waiting.get(ask.who) if origin is not None else None
        if wait is not None and wait.ticket is not None:
            wait.ticket.picked = True

    def park(self, ask: Ask, now: Moment) -> None:
        """Keep one who must wait until it is its turn."""
        origin = self._origins.setdefault(ask.origin, self._new(ask.origin))
        wait = origin.waiting.get(ask.who) or origin.joins(ask, now)
        if wait.ticket is not None:
            self._leave(origin, wait.ticket)
        wait.ask, wait.ticket = ask, None
        origin.queue(wait, next(self._numbers))
        self._dispatch(now.boot)
        self._parked()

    def keep_only(self, key: NamespacedName, asks: Collection[Ask], now: Moment) -> None:
        """End all waits of a credential but those for `asks`, and give back the places that were kept for them."""
        gone, kept = False, {(ask.origin, ask.purpose) for ask in asks}
        for origin, wait in self._waits_of(key):
            if (wait.ask.origin, wait.ask.purpose) not in kept:
                origin.leaves(wait.ask.who)
                gone = True
                if wait.ticket is not None:
                    self._leave(origin, wait.ticket)
        if gone:
            self._dispatch(now.boot)

    def forget(self, key: NamespacedName, now: Moment) -> None:
        """A credential is gone."""
        for origin in self._origins.values():
            for purpose in Purpose:
                origin.forget((key, purpose))
        self.keep_only(key, (), now)

    def start_afresh(self) -> None:
        """Forget who waits and what is known of whom, since another replica may lead; what endpoints can take stays."""
        for origin in self._origins.values():
            origin.known.clear()
            origin.hopeful.clear()
            for wait in origin.waiting.values():
                if wait.ticket is not None:
                    self._leave(origin, wait.ticket)
            origin.waiting.clear()
            origin.lots.clear()
            origin.next_turns.clear()

    # --- Requests -----------------------------------------------------------------------------------------------------

    def begin(self, ask: Ask, now: Moment) -> Ticket:
        """Note that a request is sent, which `look` has just allowed. Its end is told by one of the next three."""
        origin = self._origins.setdefault(ask.origin, self._new(ask.origin))
        wait = origin.leaves(ask.who)
        ticket = (wait.ticket if wait is not None else None) or self._take(origin, ask, now.boot, probe=False)
        ticket.began, ticket.since = True, now.boot
        origin.pace(now.boot)
        ticket.tokens, ticket.times_up = origin.tokens, origin.times_up
        if ticket.probe:
            origin.probed(ask.who, now.boot)
        known = origin.known.get(ask.who)
        if known is not None:
            known.relieved = False
        return ticket

    def succeeded(self, ticket: Ticket, now: Moment) -> None:
        """Note that a request gave a token, or a verification said that the token works: the endpoint works."""
        origin = self._origins[ticket.ask.origin]
        self._leave(origin, ticket)
        origin.known.pop(ticket.ask.who, None)
        waited = tuple(origin.known) if origin.down else tuple(origin.hopeful)
        origin.hopeful.clear()
        origin.took(now.boot)
        for who in waited:
            if known := origin.known.get(who):
                known.relieved, known.patience = True, None
                self._release(who[0])
        self._dispatch(now.boot)

    def failed(self, ticket: Ticket, failure: TokenRequestFailed, now: Moment) -> None:
        """Note that a request gave none, and decide what that says of the endpoint and of the credential."""
        origin, who = self._origins[ticket.ask.origin], ticket.ask.who
        self._leave(origin, ticket)
        before = origin.known.get(who)
        standing, own = origin.standing(ticket.ask), origin.is_own_affair(ticket, now.boot)
        trusted = standing is Standing.GOOD and before is None
        if failure.transport and now.boot - ticket.since > SLOW_SECONDS:
            origin.hung = now.boot
        if failure.transport and not own:
            origin.speaks_against(ticket, now.boot, trusted=trusted)
        throttled = trusted and failure.status == HTTPStatus.TOO_MANY_REQUESTS
        if throttled:  # it may merely have been unlucky: it goes to the back, but keeps its standing
            origin.throttled(now.boot)
        known = _Known(
            standing=standing if throttled else Standing.FAILING if own else max(standing, Standing.SHAKEN),
            tokens=origin.tokens,
            tried=now.boot,
            failures=before.failures + 1 if before is not None else 1,
        )
        origin.known[who] = known
        # An endpoint that fails now and then fails some credentials twice in a row. Those with a token try again soon.
        quick = ticket.ask.end is not None and known.failures <= QUICK_TRIES and failure.retry_after is None
        hopeful = failure.transport and (quick or not own)
        known.relieved = ticket.times_up < origin.times_up or (hopeful and ticket.tokens < origin.tokens)
        if not known.relieved and hopeful:
            origin.hopeful.add(who)
        if not known.relieved and failure.retry_after is not None:
            known.patience = Deadline.after(failure.retry_after, now)
            known.client = ticket.ask.client
        self._dispatch(now.boot)

    def abandoned(self, ticket: Ticket, now: Moment) -> None:
        """Note that a request was given up without an outcome. Does nothing if it has ended already."""
        origin = self._origins[ticket.ask.origin]
        if ticket in origin.tickets:
            self._leave(origin, ticket)
            self._dispatch(now.boot)

    def tick(self, now: Moment) -> float | None:
        """Do what is due because time has passed.

        Returns in how many seconds to call this again; None if nobody waits, and so not before one does.
        """
        for origin in self._origins.values():
            kept = (ticket for ticket in origin.tickets if not (ticket.began or ticket.picked))
            for ticket in [ticket for ticket in kept if now.boot - ticket.since > RESERVED_SECONDS]:
                # Its credential was released, and so is queued: it asks again when it is reconciled.
                self._leave(origin, ticket)
                origin.waiting[ticket.ask.who].ticket = None
        self._dispatch(now.boot)
        if not any(origin.waiting for origin in self._origins.values()):
            return None
        soon = [
            self._next(origin, now.boot) - now.boot for origin in self._origins.values() if origin.head() is not None
        ]
        return max(_SHORTEST_PAUSE, min([_LONGEST_PAUSE, *(wait for wait in soon if wait > 0)]))

    # --- Places -------------------------------------------------------------------------------------------------------

    def _may_go(self, origin: _Origin, ask: Ask, now: float) -> bool:
        """Whether one who was not released may begin: not as a probe, nor if another one that waits comes first."""
        if origin.only_probes(ask):
            return False
        standing, head, wait = origin.standing(ask), origin.head(), origin.waiting.get(ask.who)
        since, turn = (wait.since.boot, wait.turn) if wait is not None else (now, origin.turn_of(ask))
        before = head is not None and origin.rank(head.ask, head.since.boot, head.turn) < origin.rank(ask, since, turn)
        return not before and self._has_place(origin, standing, now) and origin.has_room(standing, now)

    def _has_place(self, origin: _Origin, standing: Standing, now: float) -> bool:
        """Whether a place is free for it. Half of all places are for everybody, the last quarter only for the quick.

        What may hold its place for long counts against these shares: whatever hangs, and all requests of credentials
        that are not in good standing.
        """
        if self._held() >= self._places:
            return False
        risky = self._risky(now)
        if standing is not Standing.GOOD:
            others = [ticket for ticket in risky if not ticket.probe]  # probes have a share of their own
            trusted = all(ticket.standing is Standing.GOOD for ticket in others)
            return len(others) < self._places // 2 or (trusted and len(risky) < self._most())
        if origin.hangs(now):
            return len(risky) < self._most()
        return len(origin.tickets) < self._most()

    def _may_probe(self, now: float) -> bool:
        """Whether a place is free for a probe. All endpoints that are down share a quarter of the places.

        Probes may hang as well, so the last quarter, which is for the quick, is not theirs.
        """
        probes = sum(ticket.probe for each in self._origins.values() for ticket in each.tickets)
        free = self._held() < self._places and len(self._risky(now)) < self._most()
        return free and probes < max(1, self._places // 4)

    def _held(self) -> int:
        return sum(len(each.tickets) for each in self._origins.values())

    def _risky(self, now: float) -> list[Ticket]:
        """What may hold a place for long: whatever hangs, and all requests of those not in good standing."""
        risky = []
        for origin in self._origins.values():
            hangs = origin.hangs(now)
            risky += [ticket for ticket in origin.tickets if hangs or ticket.standing is not Standing.GOOD]
        return risky

    def _most(self) -> int:
        """How many places others than the quick may hold: not the last quarter, where there are several origins."""
        return self._places - (self._places // 4 if len(self._origins) > 1 else 0)

    def _dispatch(self, now: float) -> None:
        """Release all whose turn has come, each with a place of its own."""
        while True:
            ready = [(origin, wait) for origin in self._origins.values() if (wait := self._ready(origin, now))]
            if not ready:
                return
            origin, wait = min(ready, key=lambda each: self._precedence(*each))
            wait.number = -1
            origin.turn_came(wait)
            wait.ticket = self._take(origin, wait.ask, now, probe=origin.only_probes(wait.ask))
            self._release(wait.ask.key)

    def _ready(self, origin: _Origin, now: float) -> _Wait | None:
        """The one whose turn it is at an origin; None where nobody waits or there is no room."""
        head = origin.head()
        if head is None:
            return None
        if not origin.only_probes(head.ask):
            standing = origin.standing(head.ask)
            return head if origin.has_room(standing, now) and self._has_place(origin, standing, now) else None
        if now < origin.next_probe or any(ticket.probe and not ticket.began for ticket in origin.tickets):
            return None
        return origin.candidate() if self._may_probe(now) else None

    @staticmethod
    def _precedence(origin: _Origin, wait: _Wait) -> tuple[int, float, float]:
        """By what the next ones of several origins are sorted, the smallest first.

        Probes come after all others but those who are at fault themselves, and first the one that is due for longest.
        """
        if origin.only_probes(wait.ask):
            return Standing.NEW, float("inf"), origin.next_probe
        end = origin.by_end(wait.ask)
        return origin.standing(wait.ask), wait.since.boot if end is None else end, 0.0

    def _take(self, origin: _Origin, ask: Ask, now: float, *, probe: bool) -> Ticket:
        ticket = Ticket(ask, origin.standing(ask), now, probe)
        origin.tickets[ticket] = None
        origin.untrusted += ticket.standing is not Standing.GOOD
        return ticket

    def _leave(self, origin: _Origin, ticket: Ticket) -> None:
        del origin.tickets[ticket]
        origin.untrusted -= ticket.standing is not Standing.GOOD

    def _waits_of(self, key: NamespacedName) -> Iterator[tuple[_Origin, _Wait]]:
        for origin in self._origins.values():
            for purpose in Purpose:
                wait = origin.waiting.get((key, purpose))
                if wait is not None:
                    yield origin, wait

    def _new(self, name: str) -> _Origin:
        return _Origin(name, self._places, min(FIRST_LIMIT, self._places))

    def _next(self, origin: _Origin, now: float) -> float:
        """When somebody may next be released merely because time has passed, in boot seconds."""
        if origin.down:
            return origin.next_probe
        return now + _SHORTEST_PAUSE if origin.is_pacing() else origin.next_start


def _seen(origin: _Origin, now: float) -> Seen:
    in_flight = sum(ticket.began for ticket in origin.tickets)
    return Seen(origin.limit, in_flight, len(origin.waiting), origin.down, origin.rate(now))


def _why(origin: _Origin) -> Failure:
    """What to tell one who has waited for long."""
    if origin.down:
        message = f"the endpoint {origin.name} failed several times in a row; it is tried every few seconds"
        return Failure(Reason.ENDPOINT_UNAVAILABLE, message)
    return Failure(Reason.ISSUING, f"waits for its turn at the endpoint {origin.name}, which takes no more at once")
