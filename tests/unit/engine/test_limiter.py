"""The limiter, rule by rule, and what must hold whatever happens. test_limiter_rows.py shows what that is good for."""

import itertools
import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.unit.endpoints import failure
from tests.unit.facts import ISSUED as NOW
from tuinly_operator.base.clock import Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.facts import (
    Block,
    Purpose,
    Turn,
)
from tuinly_operator.engine.limiter import (
    DOWN_AFTER,
    EARLY_PROBE_SECONDS,
    FIRST_LIMIT,
    HANGS_FOR,
    PROBE_SECONDS,
    QUIET_SECONDS,
    RESERVED_SECONDS,
    SAID_AFTER,
    Ask,
    Limiter,
    Seen,
    Ticket,
)

ORIGIN, OTHER = "https://oauth.tuinly.com", "https://oauth.tuinly.com:8443"
PLACES = 8
DOWN, REFUSED, THROTTLED, EDGE = failure(500), failure(401), failure(429), failure(404)


def good(name: str, end: float = 60.0, **more: object) -> Ask:
    """Who has a token that ends in so many seconds."""
    return Ask(NamespacedName("shop", name), end=NOW.wall + end, **{"origin": ORIGIN, **more})  # type: ignore[arg-type]


def new(name: str, **more: object) -> Ask:
    """Who has none."""
    return Ask(NamespacedName("shop", name), **{"origin": ORIGIN, **more})  # type: ignore[arg-type]


class World:
    """A limiter, the time, and the credentials that it released."""

    def __init__(self, places: int = PLACES) -> None:
        self.now = NOW
        self.released: list[NamespacedName] = []
        self.limiter = Limiter(places, self.released.append)

    def wait(self, seconds: float, *, wall: float | None = None) -> list[str]:
        """Let time pass; return the names of those that were released by the end of it."""
        before = len(self.released)
        self.now = Moment(self.now.wall + (seconds if wall is None else wall), self.now.boot + seconds)
        self.limiter.tick(self.now)
        return [key.name for key in self.released[before:]]

    def turn(self, ask: Ask) -> Turn:
        return self.limiter.look(ask, self.now)

    def block(self, ask: Ask) -> Block:
        block = self.turn(ask).block
        assert block is not None
        return block

    def may_go(self, ask: Ask) -> bool:
        return self.turn(ask).block is None

    def park(self, *asks: Ask) -> None:
        for ask in asks:
            assert not self.may_go(ask)
            self.limiter.park(ask, self.now)

    def begin(self, *asks: Ask) -> list[Ticket]:
        return [self.limiter.begin(ask, self.now) for ask in asks]

    def end(self, ticket: Ticket, answer: TokenRequestFailed | None = None) -> list[str]:
        """A request is answered, None with a token; return the names of those that were released by it."""
        before = len(self.released)
        if answer is None:
            self.limiter.succeeded(ticket, self.now)
        else:
            self.limiter.failed(ticket, answer, self.now)
        return [key.name for key in self.released[before:]]

    def ask(self, ask: Ask, answer: TokenRequestFailed | None = None) -> None:
        """Make a request that is answered at once."""
        self.end(self.limiter.begin(ask, self.now), answer)

    def fill(self, origin: str = ORIGIN) -> list[Ticket]:
        """Take all that may be in flight to an origin, by those in good standing."""
        names = (f"filling-{number}" for number in itertools.count())
        tickets = []
        while self.may_go(ask := good(next(names), origin=origin)):
            tickets += self.begin(ask)
        return tickets

    def bring_down(self) -> None:
        for number in range(DOWN_AFTER):
            self.wait(0.3)
            self.ask(good(f"met-it-{number}"), DOWN)
        assert self.seen().down

    def seen(self, origin: str = ORIGIN) -> Seen:
        return self.limiter.seen(self.now)[origin]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def small() -> World:
    """All places can be taken from the start."""
    return World(places=FIRST_LIMIT)


# How much is in flight ------------------------------------------------------------------------------------------------


def test_it_begins_with_a_few_and_each_token_allows_one_more_up_to_all_places(world: World) -> None:
    assert len(world.fill()) == FIRST_LIMIT
    world = World()
    for count in range(PLACES):
        tickets = world.fill()
        assert len(tickets) == min(FIRST_LIMIT + count, PLACES)
        for ticket in tickets[1:]:
            world.limiter.abandoned(ticket, world.now)
        world.end(tickets[0])


def test_a_failure_that_speaks_of_the_endpoint_halves_it_once_for_all_that_began_before(world: World) -> None:
    for _ in range(PLACES):
        world.ask(good("a"))
    tickets = world.fill()
    world.wait(0.1)
    for ticket in tickets:
        world.end(ticket, DOWN)
    assert world.seen().limit == PLACES // 2
    for name in "bcd":
        world.ask(good(name), DOWN)
        assert world.seen().limit == PLACES // 4 == 2  # and never less


@pytest.mark.parametrize("answer", [REFUSED, THROTTLED, EDGE, failure(302), failure(200)], ids=repr)
def test_what_is_no_failure_of_the_endpoint_leaves_it_as_it_is(world: World, answer: TokenRequestFailed) -> None:
    for _ in range(10):
        world.wait(1)
        world.ask(good("a"), answer)
    assert world.seen().limit == FIRST_LIMIT
    assert not world.seen().down


def test_who_fails_while_others_get_tokens_speaks_of_itself_alone(world: World) -> None:
    for _ in range(10):
        world.wait(1)
        world.ask(good("fine"))
        world.ask(good("turned"), DOWN)
        world.ask(new("never was"), DOWN)
    assert world.seen().limit == PLACES
    assert not world.seen().down


@pytest.mark.parametrize(("seconds", "limit"), [(QUIET_SECONDS - 0.1, FIRST_LIMIT + 1), (QUIET_SECONDS, 2)])
def test_who_never_had_a_token_speaks_of_the_endpoint_once_nobody_has_got_any_for_a_while(
    world: World, seconds: float, limit: int
) -> None:
    world.ask(good("a"))
    ticket = world.begin(new("b"))[0]
    world.wait(seconds)
    world.end(ticket, DOWN)
    assert world.seen().limit == limit


def test_all_endpoints_share_the_places(world: World) -> None:
    for origin in (ORIGIN, OTHER):
        for _ in range(PLACES):
            world.ask(good("a", origin=origin))
    assert len(world.fill()) == PLACES - PLACES // 4
    assert len(world.fill(OTHER)) == PLACES // 4
    assert not world.may_go(good("one more"))


def test_those_not_in_good_standing_hold_half_at_most(world: World) -> None:
    for _ in range(PLACES):
        world.ask(good("a"))
    taken = 0
    while world.may_go(ask := new(f"new-{taken}")):
        world.begin(ask)
        taken += 1
    assert taken == PLACES // 2
    assert len(world.fill()) == PLACES // 2


def test_where_requests_hang_a_quarter_is_left_for_those_that_do_not(world: World) -> None:
    for origin in (ORIGIN, OTHER, "https://another.example.org"):
        for _ in range(PLACES):
            world.ask(good("a", origin=origin))
    world.begin(*[good(f"hangs-{number}") for number in range(3)])
    world.begin(*[good(f"hangs-{number}", origin=OTHER) for number in range(2)])
    world.wait(1.1)
    assert len(world.fill()) == 1
    assert not world.may_go(good("b", origin=OTHER))
    assert not world.may_go(new("c", origin="https://another.example.org"))
    assert len(world.fill("https://another.example.org")) == PLACES // 4


@pytest.mark.parametrize(("seconds", "left"), [(0.0, PLACES // 4), (HANGS_FOR, 0)])
def test_after_a_time_out_an_origin_is_taken_to_hang_for_a_while(world: World, seconds: float, left: int) -> None:
    origins = (ORIGIN, OTHER, "https://another.example.org")
    for origin in origins:
        for _ in range(PLACES):
            world.ask(good("a", origin=origin))
    for ticket in world.begin(*[good("timed out", origin=origin) for origin in origins[:2]]):
        world.wait(1.1)
        world.end(ticket, failure(None))
    world.wait(seconds)
    assert [len(world.fill(origin)) for origin in origins] == [PLACES // 2, PLACES // 2 - left, left]


def test_a_place_that_one_leaves_goes_to_who_waits_and_is_kept_for_it(world: World) -> None:
    first, *_ = world.fill()
    world.park(good("waits"))
    assert world.released == []
    assert world.end(first, REFUSED) == ["waits"]
    assert not world.may_go(good("comes by", end=1))
    assert world.may_go(good("waits"))
    world.begin(good("waits"))
    assert world.seen().waiting == 0
    assert world.seen().in_flight == FIRST_LIMIT


def test_who_has_been_released_holds_a_place_until_it_has_begun(small: World) -> None:
    """Its credential is looked at before all others."""
    first, *_ = small.fill()
    waits = good("waits")
    small.park(waits)
    assert not small.limiter.holds_place(waits.key)
    small.end(first)
    assert small.limiter.holds_place(waits.key)
    small.begin(waits)
    assert not small.limiter.holds_place(waits.key)


def test_a_place_is_not_kept_for_long(small: World) -> None:
    first, *_ = small.fill()
    small.park(good("waits"), good("next", 70))
    assert small.end(first, REFUSED) == ["waits"]
    assert small.wait(RESERVED_SECONDS - 0.1) == []
    assert small.wait(0.2) == ["next"]
    small.begin(good("next", 70))
    assert not small.may_go(good("waits"))


def test_but_as_long_as_its_credential_is_looked_at(small: World) -> None:
    first, *_ = small.fill()
    small.park(good("waits"), good("next", 70))
    small.end(first, REFUSED)
    assert small.may_go(good("waits"))
    assert small.wait(10 * RESERVED_SECONDS) == []
    small.limiter.keep_only(NamespacedName("shop", "waits"), (), small.now)
    assert [key.name for key in small.released] == ["waits", "next"]


def test_who_does_not_wait_any_more_is_not_released_and_gives_its_place_to_the_next(world: World) -> None:
    """It is suspended, say, or has moved to another URL."""
    first, second, *_ = world.fill()
    world.park(good("a", 1), good("b", 2), good("c", 3))
    world.limiter.keep_only(NamespacedName("shop", "a"), (), world.now)
    assert world.end(first, REFUSED) == ["b"]
    world.limiter.keep_only(NamespacedName("shop", "b"), [good("b", origin=OTHER)], world.now)
    assert [key.name for key in world.released] == ["b", "c"]
    assert world.seen().waiting == 1
    world.limiter.forget(NamespacedName("shop", "c"), world.now)
    assert world.end(second, REFUSED) == []
    assert world.seen() == Seen(FIRST_LIMIT, FIRST_LIMIT - 2, 0, down=False, rate=None)


def test_its_wait_for_what_it_still_waits_for_goes_on(world: World) -> None:
    first, *_ = world.fill()
    world.park(good("a"))
    world.limiter.keep_only(NamespacedName("shop", "a"), [good("a")], world.now)
    assert world.end(first, REFUSED) == ["a"]


def test_a_new_leader_knows_nothing_and_keeps_nobody_waiting(world: World) -> None:
    first, *rest = world.fill()
    world.park(good("a"), good("b"))
    world.ask(new("bad"), REFUSED)
    world.end(first, REFUSED)
    world.limiter.start_afresh(world.now)
    assert world.seen().waiting == 0
    assert world.seen().in_flight == len(rest)
    assert world.may_go(good("a"))
    for ticket in rest:
        world.end(ticket)


def test_nothing_is_kept_of_those_who_are_gone_or_come_again_and_again() -> None:
    """They are made and deleted without end at an endpoint that gives no token, or edited while they wait."""
    world = World()
    world.bring_down()
    world.park(good("first", 1))
    names = (f"bad-{number}" for number in itertools.count())

    def round_of_many() -> int:
        for name in itertools.islice(names, 2000):
            ask = new(name)
            world.ask(ask, DOWN)
            world.limiter.park(ask, world.now)
            world.limiter.park(good("edited"), world.now)
            world.limiter.forget(ask.key, world.now)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = round_of_many()
        assert round_of_many() - before < 50_000
    finally:
        tracemalloc.stop()


# In which order -------------------------------------------------------------------------------------------------------


def test_those_in_good_standing_come_first_by_the_end_of_their_token(world: World) -> None:
    for ask in (good("failing"), good("shaken", 5)):
        world.ask(ask, DOWN)
    world.ask(good("fine"))
    world.ask(good("failing"), DOWN)
    tickets = world.fill()
    world.wait(1)
    world.park(good("failing"), new("new"), good("shaken", 5))
    world.park(good("late", 70), good("soon", 50), new("newer"))
    known = [good("late", 70), good("soon", 50), good("shaken"), new("new"), new("newer"), good("failing")]
    released = []
    for _ in known:
        released += world.end(tickets.pop(), REFUSED)
        tickets += world.begin(*[ask for ask in known if ask.key == world.released[-1]])
    assert released == ["soon", "late", "shaken", "new", "newer", "failing"]


@pytest.mark.parametrize("standing", ["new", "failing"])
def test_the_others_go_by_turns_of_their_namespaces(small: World, standing: str) -> None:
    """However many wait in one, and however long they have: each turn there is followed by one of the others."""

    def theirs(namespace: str, name: str) -> Ask:
        return Ask(NamespacedName(namespace, name), ORIGIN)

    many = [theirs("many", name) for name in "abcdef"]
    few = [theirs("few", name) for name in "xy"]
    late = [theirs("late", name) for name in "uvw"]
    if standing == "failing":
        small.ask(good("fine"))
        for ask in [*many, *few, *late]:
            small.ask(ask, REFUSED)
            small.ask(good("fine"))
    filling = small.fill()
    order: list[str] = []
    small.park(*many)
    small.wait(1)
    small.park(*few)
    while len(order) < len(many) + len(few) + len(late):
        order += small.end(filling.pop())
        if len(order) == 5:
            small.wait(1)
            small.park(*late)
        for ask in [*many, *few, *late]:
            if small.released and small.released[-1] == ask.key and order[-1] == ask.key.name:
                filling += small.begin(ask)
    assert "".join(order) == "axbycudvewf"


def test_who_comes_again_at_once_keeps_nobody_waiting(small: World) -> None:
    """Also where each namespace but one has a single credential that waits."""
    filling = small.fill()
    asks = [Ask(NamespacedName(namespace, name), ORIGIN) for namespace, name in ("aa", "bb", "xx", "xy", "xz")]
    small.park(*asks)
    order = small.end(filling.pop())
    for _ in range(11):
        ask = next(ask for ask in asks if ask.key.name == order[-1])
        [ticket] = small.begin(ask)
        small.wait(0.1)
        if ask.key.namespace != "x":
            small.park(ask)
        before = len(small.released)
        small.limiter.abandoned(ticket, small.now)
        order += [key.name for key in small.released[before:]]
    assert "".join(order) == "abxyabzababa"


@pytest.mark.parametrize("how", ["they are gone", "another replica led"])
def test_turns_that_nobody_took_count_for_nothing(small: World, how: str) -> None:
    """A namespace whose credentials are all made again is no further back than it was."""
    filling = small.fill()
    gone = [new(name) for name in "abcdef"]
    small.park(*gone)
    if how == "they are gone":
        for ask in gone:
            small.limiter.forget(ask.key, small.now)
    else:
        small.limiter.start_afresh(small.now)
    others = [Ask(NamespacedName("others", name), ORIGIN) for name in "xyz"]
    small.park(*others)
    small.park(new("a"))
    order = [name for ticket in filling for name in small.end(ticket)]
    assert order[:2] == ["x", "a"]


def test_who_comes_by_does_not_go_before_who_waits(world: World) -> None:
    world.ask(good("a"), THROTTLED)
    world.wait(0.1)
    world.park(good("waits", 50))
    world.now = Moment(world.now.wall + 2, world.now.boot + 2)
    assert not world.may_go(good("comes by"))
    assert not world.may_go(new("comes by, too"))
    assert world.may_go(good("ends sooner", 40))


def test_failing_once_in_an_outage_puts_nobody_behind_the_bad(world: World) -> None:
    world.ask(good("fine"))
    world.ask(new("bad"), DOWN)
    world.bring_down()
    world.park(new("bad"), good("met-it-0"))
    assert world.wait(EARLY_PROBE_SECONDS) == ["met-it-0"]


# Down -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "down"),
    [
        ([DOWN, DOWN], False),
        ([DOWN, DOWN, DOWN], True),
        ([DOWN, DOWN, None, DOWN, DOWN], False),
        ([DOWN, DOWN, EDGE, DOWN], True),  # any other answer proves nothing
        ([DOWN, EDGE, EDGE, DOWN], False),
    ],
)
def test_three_failures_in_a_row_that_speak_of_it_and_no_token_between_make_it_down(
    world: World, answers: list[TokenRequestFailed | None], *, down: bool
) -> None:
    for number, answer in enumerate(answers):
        world.wait(0.3)
        world.ask(good(f"credential-{number}"), answer)
    assert world.seen().down is down


def test_what_breaks_at_one_moment_does_not(world: World) -> None:
    for ticket in world.fill():
        world.end(ticket, failure(None))
    assert not world.seen().down


def test_nor_do_requests_that_hang_while_later_ones_are_answered(world: World) -> None:
    tickets = world.fill()
    world.wait(1)
    world.ask(good("fine"))
    for ticket in tickets:
        world.wait(1)
        world.end(ticket, failure(None))
    assert not world.seen().down


def test_a_probe_goes_each_five_seconds_and_each_second_at_first(world: World) -> None:
    """In the first seconds it may be mere chance that nobody got a token."""
    world.bring_down()
    start, times = world.now.boot, []
    asks = [good(f"waits-{number}") for number in range(30)]
    world.park(*asks)
    for _ in range(300):
        for name in world.wait(0.1):
            world.ask(next(ask for ask in asks if ask.key.name == name), DOWN)
            times.append(world.now.boot)
    early = [time for time in times if time - start < PROBE_SECONDS]
    assert len(early) == pytest.approx(PROBE_SECONDS / EARLY_PROBE_SECONDS, abs=1)
    late = times[len(early) :]
    assert len(late) >= 4
    assert all(b - a >= PROBE_SECONDS - 0.01 for a, b in itertools.pairwise(late[1:]))


def test_it_is_another_each_time_and_had_tokens_every_other_time(world: World) -> None:
    world.bring_down()
    asks = {ask.key.name: ask for ask in (good("a", 1), good("b", 2), new("x"), new("y"), good("met-it-0"))}
    world.park(*asks.values())
    probes = []
    for _ in range(40):
        for name in world.wait(1):
            probes.append(name)
            world.ask(asks[name], DOWN)
            world.park(asks[name])
    assert probes[:5] == ["a", "x", "b", "y", "met-it-0"]
    assert set(probes[5:11]) == set(asks)


def test_who_fails_by_itself_is_no_probe_while_there_are_others(world: World) -> None:
    world.ask(good("fine"))
    world.ask(new("bad"), DOWN)
    world.bring_down()
    world.park(new("bad"), new("new"))
    assert world.wait(EARLY_PROBE_SECONDS) == ["new"]
    world.ask(new("new"), DOWN)
    assert world.wait(PROBE_SECONDS) == ["bad"]


def test_a_probe_that_is_not_sent_is_the_next_ones_at_once(world: World) -> None:
    world.bring_down()
    world.park(good("a", 1), good("b", 2))
    assert world.wait(EARLY_PROBE_SECONDS) == ["a"]
    assert world.turn(good("a")).at_once
    world.limiter.keep_only(NamespacedName("shop", "a"), (), world.now)
    assert world.released[-1].name == "b"


@pytest.mark.parametrize("wall", [-3600.0, 0.0, 3600.0])
def test_a_clock_that_is_set_holds_up_no_probe(world: World, wall: float) -> None:
    world.bring_down()
    world.park(good("a"))
    assert world.wait(EARLY_PROBE_SECONDS, wall=wall) == ["a"]


@pytest.mark.parametrize("failed_before", [False, True])
def test_those_who_never_had_a_token_keep_nobody_in_good_standing_from_trying(
    world: World, *, failed_before: bool
) -> None:
    """After a restart nobody has got any, and who is asked for first may be bad. What was before a token is over."""
    if failed_before:
        world.ask(good("b"), DOWN)
        world.ask(good("b"))
        world.wait(QUIET_SECONDS)
    for number in range(DOWN_AFTER):
        world.wait(0.3)
        world.ask(new(f"bad-{number}"), DOWN)
    assert world.seen().down
    assert not world.may_go(new("another"))
    assert world.may_go(good("a"))
    world.ask(good("a"), DOWN)
    assert not world.may_go(good("b"))


def test_the_first_token_ends_everybodys_waits(world: World) -> None:
    world.ask(good("patient"), failure(503, 300.0))
    world.bring_down()
    began_before = world.begin(good("slow"), good("met an edge"))
    world.park(good("waits"))
    assert not world.may_go(good("patient"))
    world.wait(EARLY_PROBE_SECONDS)
    assert {"patient", "met-it-0"} <= set(world.end(world.begin(good("waits"))[0]))
    assert not world.seen().down
    for ask in (good("patient"), good("met-it-0")):
        assert world.turn(ask) == Turn(at_once=True)
    for ticket, answer in zip(began_before, (failure(503, 300.0), EDGE), strict=True):
        world.end(ticket, answer)
        assert world.turn(ticket.ask) == Turn(at_once=True)  # repeated at once


@pytest.mark.parametrize("answer", [EDGE, REFUSED, THROTTLED, failure(302)], ids=repr)
def test_no_other_answer_does(world: World, answer: TokenRequestFailed) -> None:
    world.bring_down()
    world.park(good("a"), good("b"))
    world.wait(EARLY_PROBE_SECONDS)
    world.ask(good("a"), answer)
    assert world.seen().down
    assert not world.turn(good("met-it-0")).at_once


def test_the_wait_after_a_failure_of_the_endpoint_ends_with_anybodys_token(world: World) -> None:
    """It need not have been down: patience that outlives the trouble would end tokens by itself."""
    world.ask(good("a"), failure(503, 300.0))
    world.ask(good("refused"), REFUSED)
    assert not world.may_go(good("a"))
    world.ask(good("b"))
    assert world.turn(good("a")) == Turn(at_once=True)
    assert world.turn(good("refused")) == Turn()
    world.ask(good("a"), failure(503, 300.0))
    world.ask(good("b"))
    assert not world.may_go(good("a"))  # others got tokens: it is its own affair


# Too many requests ----------------------------------------------------------------------------------------------------


def test_429_to_one_in_good_standing_sets_the_rate_to_less_than_the_tokens_that_came(world: World) -> None:
    for number in range(20):
        world.wait(0.05)
        world.ask(good(f"a-{number}"))
    world.ask(good("b"), THROTTLED)
    assert world.seen().rate == pytest.approx(18, abs=1)
    world.wait(0.9)
    grown = world.seen().rate
    assert grown == pytest.approx(18.9)
    world.ask(good("c"), THROTTLED)
    assert world.seen().rate == grown  # at most one cut per second
    world.wait(0.2)
    world.ask(good("d"), THROTTLED)
    assert 10 < (world.seen().rate or 0) < 18


def test_a_single_429_costs_no_standing_and_the_next_one_does(world: World) -> None:
    """Where there are too many requests somebody is refused, whoever that is."""
    tickets = world.fill()
    world.wait(0.1)
    world.end(tickets.pop(), THROTTLED)
    refused = good(f"filling-{len(tickets)}", 5)
    world.park(refused, good("waits", 50), new("new"))
    world.wait(1.2)
    assert world.released[-1] == refused.key
    world.ask(good("fine"))
    world.end(world.begin(refused)[0], THROTTLED)
    rate = world.seen().rate
    world.limiter.keep_only(good("waits").key, [], world.now)
    world.park(refused, good("waits", 50))
    world.wait(1.2)
    assert world.released[-1].name == "waits"
    assert (world.seen().rate or 0) > (rate or 0)  # nor did it say anything of the endpoint


def test_other_429s_set_none(world: World) -> None:
    world.ask(good("fine"))
    for ask in (new("new"), good("turned"), good("turned")):
        world.wait(1.1)
        before = world.seen().rate
        world.ask(ask, THROTTLED)
        assert (world.seen().rate is None) is (ask.end is None)
        if before is not None:
            assert (world.seen().rate or 0) >= before


def test_requests_begin_one_after_the_other(world: World) -> None:
    world.ask(good("a"), THROTTLED)
    asks = {f"waits-{number}": good(f"waits-{number}", 10 + number) for number in range(10)}
    world.park(*asks.values())
    times = []
    for _ in range(100):
        for name in world.wait(0.05):
            times.append(world.now.boot - NOW.boot)
            world.ask(asks[name])
    assert len(times) == 10
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps == sorted(gaps, reverse=True) or max(gaps) <= 1.05
    assert min(gaps) >= 0.2


def test_retry_after_binds_its_credential_and_nobody_else(world: World) -> None:
    world.ask(good("a", client="shop"), failure(429, 60.0))
    block = world.block(good("a", client="shop"))
    assert block.until is not None
    assert block.until.remaining(world.now) == 60
    assert block.failure is not None
    assert block.failure.reason is Reason.ENDPOINT_THROTTLED
    assert ORIGIN in block.failure.message
    assert not block.parks
    world.wait(2)
    for other in (good("b", client="shop"), new("c", client="shop"), good("a", client="shop", origin=OTHER)):
        assert world.may_go(other)


def test_it_binds_the_client_that_it_was_told_to(world: World) -> None:
    world.ask(good("a", client="shop"), failure(429, 60.0))
    world.wait(2)
    assert not world.may_go(good("a", client="shop"))
    assert world.may_go(good("a", client="another"))


@pytest.mark.parametrize("asked", [1, 299, 300])
def test_retry_after_is_heeded_for_as_long_as_it_asks(world: World, asked: float) -> None:
    world.ask(good("a"), failure(429, asked))
    world.wait(asked - 0.1)
    assert not world.may_go(good("a"))
    world.wait(0.1)
    assert world.may_go(good("a"))


# What is told ---------------------------------------------------------------------------------------------------------


def test_a_short_wait_is_nothing_to_tell_of(small: World) -> None:
    small.fill()
    small.park(good("a"))
    block = small.block(good("a"))
    assert block.failure is None
    assert block.until is not None
    assert block.until.remaining(small.now) == SAID_AFTER
    small.wait(SAID_AFTER)
    block = small.block(good("a"))
    assert block.until is None
    assert block.failure is not None
    assert block.failure.reason is Reason.ISSUING
    assert ORIGIN in block.failure.message


def test_a_wait_for_an_endpoint_that_is_down_is_told_as_such(world: World) -> None:
    world.bring_down()
    world.park(good("a"))
    world.wait(0.5)
    world.now = Moment(world.now.wall + SAID_AFTER, world.now.boot + SAID_AFTER)
    failure_ = world.block(good("b")).failure
    assert failure_ is None  # it has just come
    world.park(good("b"))
    world.now = Moment(world.now.wall + SAID_AFTER, world.now.boot + SAID_AFTER)
    failure_ = world.block(good("b")).failure
    assert failure_ is not None
    assert failure_.reason is Reason.ENDPOINT_UNAVAILABLE


# Whatever happens -----------------------------------------------------------------------------------------------------

NAMES = [f"credential-{number}" for number in range(8)]
ASKS = [
    Ask(NamespacedName("shop", name), origin, purpose)
    for name in NAMES
    for origin, purpose in ((ORIGIN, Purpose.TOKEN), (OTHER, Purpose.VERIFICATION))
]
ANSWERS = [None, DOWN, EDGE, THROTTLED, failure(None), failure(503, 30.0), failure(429, 10.0)]


class AnyOrder(RuleBasedStateMachine):
    """Credentials that ask when they may, of endpoints that answer as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(places=5)
        self.tickets: list[Ticket] = []
        self.probes: dict[str, list[float]] = {ORIGIN: [], OTHER: []}
        self.parked: dict[tuple[NamespacedName, Purpose], Ask] = {}

    @rule(ask=st.sampled_from(ASKS), end=st.none() | st.floats(-10, 100))
    def come(self, ask: Ask, end: float | None) -> None:
        """A credential is reconciled: it asks if it may, and is parked if it must wait."""
        world, limiter = self.world, self.world.limiter
        if any(ticket.ask.key == ask.key for ticket in self.tickets):
            return  # its reconcile is under way
        ask = Ask(ask.key, ask.origin, ask.purpose, None if end is None else world.now.wall + end)
        turn = limiter.look(ask, world.now)
        kept: Ask | None = None
        if turn.block is None:
            ticket = limiter.begin(ask, world.now)
            self.tickets.append(ticket)
            if ticket.probe:
                self.probes[ask.origin].append(world.now.boot)
        elif turn.block.parks:
            kept = ask
            limiter.park(ask, world.now)
        limiter.keep_only(ask.key, [kept] if kept else [], world.now)
        self.parked = {who: each for who, each in self.parked.items() if who[0] != ask.key}
        if kept is not None:
            self.parked[kept.who] = kept

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), answer=st.sampled_from(ANSWERS))
    def answer(self, data: st.DataObject, answer: TokenRequestFailed | None) -> None:
        """A request that is under way ends."""
        ticket = data.draw(st.sampled_from(self.tickets))
        self.tickets.remove(ticket)
        self.world.end(ticket, answer)

    @precondition(lambda self: self.tickets)
    @rule()
    def give_up(self) -> None:
        """A request that is under way is cancelled."""
        self.world.limiter.abandoned(self.tickets.pop(), self.world.now)

    @rule(name=st.sampled_from(NAMES))
    def go(self, name: str) -> None:
        """A credential is deleted."""
        key = NamespacedName("shop", name)
        self.world.limiter.forget(key, self.world.now)
        self.parked = {who: each for who, each in self.parked.items() if who[0] != key}

    @rule()
    def demote(self) -> None:
        """Another replica leads for a while."""
        self.world.limiter.start_afresh(self.world.now)
        self.parked.clear()

    @rule(seconds=st.sampled_from([0.1, 1.0, PROBE_SECONDS, 60.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.wait(seconds)

    @invariant()
    def no_more_is_in_flight_than_there_are_places(self) -> None:
        """Those that are reserved included."""
        seen = self.world.limiter.seen(self.world.now).values()
        assert sum(each.in_flight for each in seen) == len(self.tickets)
        assert len(self.tickets) <= 5

    @invariant()
    def probes_are_rare(self) -> None:
        """Also where nobody has been told of the one before."""
        for times in self.probes.values():
            assert all(b - a >= EARLY_PROBE_SECONDS - 1e-6 for a, b in itertools.pairwise(times))

    @invariant()
    def who_waits_is_known(self) -> None:
        """And nobody else: what is not parked holds no place."""
        waiting = sum(each.waiting for each in self.world.limiter.seen(self.world.now).values())
        assert waiting == len(self.parked)

    def teardown(self) -> None:
        """In the end all endpoints work: nobody waits for ever."""
        for ticket in self.tickets:
            self.world.end(ticket)
        self.tickets.clear()
        for _ in range(2000):
            if not self.parked:
                break
            self.world.wait(0.25)
            released = list(self.world.released)
            self.world.released.clear()
            for key in released:
                for ask in [each for each in self.parked.values() if each.key == key]:
                    self.come(ask, None if ask.end is None else ask.end - self.world.now.wall)
            for ticket in self.tickets:
                self.world.end(ticket)
            self.tickets.clear()
        assert not self.parked


def test_in_any_order_nobody_waits_for_ever_and_no_place_is_lost() -> None:
    run_state_machine_as_test(AnyOrder, settings=settings(max_examples=200, stateful_step_count=40, deadline=None))
