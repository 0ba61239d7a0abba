"""The limiter, rule by rule, and what must hold whatever happens. test_limiter_rows.py shows what that is good for."""

import itertools
import random
import sys
import tracemalloc
from collections.abc import Callable

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
    Permit,
    Purpose,
)
from tuinly_operator.engine.limiter import (
    DOWN_AFTER,
    EARLY_PROBE_SECONDS,
    FIRST_LIMIT,
    HANGS_FOR,
    PROBE_SECONDS,
    QUICK_TRIES,
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

    def permit(self, ask: Ask) -> Permit:
        self.limiter.picked_up(ask)
        return self.limiter.look(ask, self.now)

    def block(self, ask: Ask) -> Block:
        block = self.permit(ask).block
        assert block is not None
        return block

    def may_go(self, ask: Ask) -> bool:
        return self.permit(ask).block is None

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

    def fill(self, origin: str = ORIGIN, name: str = "filling") -> list[Ticket]:
        """Take all that may be in flight to an origin, by those in good standing."""
        names = (f"{name}-{number}" for number in itertools.count())
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


@pytest.mark.rule("LIM-3")
def test_it_begins_with_a_few_and_each_token_allows_one_more_up_to_all_places(world: World) -> None:
    assert len(world.fill()) == FIRST_LIMIT
    world = World()
    for count in range(PLACES):
        tickets = world.fill()
        assert len(tickets) == min(FIRST_LIMIT + count, PLACES)
        for ticket in tickets[1:]:
            world.limiter.abandoned(ticket, world.now)
        world.end(tickets[0])


@pytest.mark.rule("LIM-3")
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


@pytest.mark.rule("LIM-2")
@pytest.mark.parametrize("answer", [REFUSED, THROTTLED, EDGE, failure(302), failure(200)], ids=repr)
def test_what_is_no_failure_of_the_endpoint_leaves_it_as_it_is(world: World, answer: TokenRequestFailed) -> None:
    for _ in range(10):
        world.wait(1)
        world.ask(good("a"), answer)
    assert world.seen().limit == FIRST_LIMIT
    assert not world.seen().down


@pytest.mark.rule("LIM-2")
def test_who_fails_while_others_get_tokens_speaks_of_itself_alone(world: World) -> None:
    for _ in range(10):
        world.wait(1)
        world.ask(good("fine"))
        world.ask(good("turned"), DOWN)
        world.ask(new("never was"), DOWN)
    assert world.seen().limit == PLACES
    assert not world.seen().down


@pytest.mark.rule("LIM-2")
@pytest.mark.parametrize(("seconds", "limit"), [(QUIET_SECONDS - 0.1, FIRST_LIMIT + 1), (QUIET_SECONDS, 2)])
def test_who_never_had_a_token_speaks_of_the_endpoint_once_nobody_has_got_any_for_a_while(
    world: World, seconds: float, limit: int
) -> None:
    world.ask(good("a"))
    ticket = world.begin(new("b"))[0]
    world.wait(seconds)
    world.end(ticket, DOWN)
    assert world.seen().limit == limit


@pytest.mark.rule("LIM-12")
def test_all_endpoints_share_the_places(world: World) -> None:
    for origin in (ORIGIN, OTHER):
        for _ in range(PLACES):
            world.ask(good("a", origin=origin))
    assert len(world.fill()) == PLACES - PLACES // 4
    assert len(world.fill(OTHER)) == PLACES // 4
    assert not world.may_go(good("one more"))


@pytest.mark.parametrize(
    ("places", "tokens", "half"), [(1, 0, 1), (2, 0, 1), (3, 0, 1), (20, 0, 2), (20, 1, 2), (20, 4, 4), (20, 16, 10)]
)
def test_of_the_limit_of_an_origin_those_not_in_good_standing_have_half(places: int, tokens: int, half: int) -> None:
    world = World(places)
    for _ in range(tokens):
        world.ask(good("a"))
    taken = [ask for number in range(20) if world.may_go(ask := new(f"new-{number}")) and world.begin(ask)]
    assert len(taken) == half
    assert world.seen().limit == min(FIRST_LIMIT + tokens, places)


def test_of_the_least_limit_it_is_one() -> None:
    world = World(places=20)
    world.ask(good("a"), DOWN)
    world.begin(new("b"))
    assert not world.may_go(new("c"))
    assert world.may_go(good("d"))


@pytest.mark.parametrize(("places", "half"), [(2, 1), (3, 1), (4, 2), (8, 4)])
def test_of_all_places_too_however_many_origins_there_are(places: int, half: int) -> None:
    world = World(places)
    asks = [new(f"new-{number}", origin=f"https://{number}.example") for number in range(10)]
    assert len([ask for ask in asks if world.may_go(ask) and world.begin(ask)]) == half


def test_what_hangs_of_those_in_good_standing_keeps_new_ones_from_half_of_the_places_only_with_others(
    world: World,
) -> None:
    """Where it is all theirs, new ones may have any place but those of the last quarter."""
    world.begin(*[good(f"hangs-{number}", origin=OTHER) for number in range(3)])
    world.begin(good("another", origin="https://another.example"))
    world.wait(1.1)
    assert world.may_go(new("a"))
    world.begin(new("a"))
    assert not world.may_go(new("b", origin="https://one.more.example"))


def test_probes_are_not_counted_with_those_not_in_good_standing(world: World) -> None:
    for origin in ("https://0.example", "https://1.example"):
        for number in range(DOWN_AFTER):
            world.wait(0.3)
            world.ask(good(f"met-it-{number}", origin=origin), DOWN)
        world.park(new("probe", origin=origin))
    world.wait(EARLY_PROBE_SECONDS)
    probes = world.begin(*[new("probe", origin=f"https://{number}.example") for number in range(2)])
    assert all(ticket.probe for ticket in probes)
    asks = [new(f"new-{number}", origin=f"https://{number}.example.org") for number in range(10)]
    assert len([ask for ask in asks if world.may_go(ask) and world.begin(ask)]) == PLACES // 2


@pytest.mark.parametrize(("places", "probes"), [(1, 1), (3, 1), (4, 1), (7, 1), (8, 2), (20, 5)])
def test_all_endpoints_that_are_down_share_a_quarter_of_the_places_and_at_least_one(places: int, probes: int) -> None:
    world = World(places)
    origins = [f"https://{number}.example" for number in range(10)]
    for origin in origins:
        for number in range(DOWN_AFTER):
            world.wait(0.3)
            world.ask(good(f"met-it-{number}", origin=origin), DOWN)
    world.wait(PROBE_SECONDS)
    world.park(*[good("probe", origin=origin) for origin in origins])
    for origin in origins:
        if world.permit(good("probe", origin=origin)).block is None:
            world.begin(good("probe", origin=origin))
    assert sum(world.seen(origin).in_flight for origin in origins) == probes


@pytest.mark.parametrize("hang", [False, True])
def test_nor_do_probes_get_the_last_place_or_one_of_the_last_quarter_beside_what_hangs(
    world: World, *, hang: bool
) -> None:
    for origin in (OTHER, "https://another.example"):
        for _ in range(PLACES):
            world.ask(good("a", origin=origin))
    world.bring_down()
    world.wait(EARLY_PROBE_SECONDS)
    tickets = world.fill(OTHER)
    if hang:
        world.wait(1.1)
    else:
        tickets += world.fill("https://another.example")
    assert len(tickets) == (PLACES - PLACES // 4 if hang else PLACES)
    world.park(good("probe"))
    assert world.released == []
    assert world.end(tickets.pop(), REFUSED) == ["probe"]


def test_with_a_single_place_the_limit_is_one_whatever_happens() -> None:
    world = World(places=1)
    for _ in range(3):
        [ticket] = world.fill()
        assert world.seen().limit == 1
        world.end(ticket, DOWN)
        assert world.seen().limit == 1
        world.ask(good("fine"))


@pytest.mark.rule("LIM-12")
def test_those_not_in_good_standing_hold_half_at_most(world: World) -> None:
    for _ in range(PLACES):
        world.ask(good("a"))
    taken = 0
    while world.may_go(ask := new(f"new-{taken}")):
        world.begin(ask)
        taken += 1
    assert taken == PLACES // 2
    assert len(world.fill()) == PLACES // 2


def test_those_in_good_standing_are_released_however_many_others_there_are(small: World) -> None:
    small.begin(new("a"), new("b"))
    [ticket, _] = small.begin(good("c"), good("d"))
    small.park(good("waits"))
    assert small.end(ticket, REFUSED) == ["waits"]


@pytest.mark.rule("LIM-12")
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


@pytest.mark.rule("LIM-12")
@pytest.mark.parametrize(
    ("took", "answer", "seconds", "left"),
    [
        (1.1, failure(None), 0.0, PLACES // 4),
        (1.1, failure(None), HANGS_FOR - 0.1, PLACES // 4),
        (1.1, failure(None), HANGS_FOR, 0),
        (1.0, failure(None), 0.0, 0),
        (1.1, REFUSED, 0.0, 0),
    ],
)
def test_after_a_time_out_an_origin_is_taken_to_hang_for_a_while(
    world: World, took: float, answer: TokenRequestFailed, seconds: float, left: int
) -> None:
    origins = (ORIGIN, OTHER, "https://another.example.org")
    for origin in origins:
        for _ in range(PLACES):
            world.ask(good("a", origin=origin))
    tickets = world.begin(*[good("timed out", origin=origin) for origin in origins[:2]])
    world.wait(took)
    for ticket in tickets:
        world.end(ticket, answer)
    world.wait(seconds)
    first = len(world.fill())
    assert first == min(world.seen().limit, PLACES - PLACES // 4)
    assert len(world.fill(origins[1])) == min(world.seen().limit, PLACES - first - left)
    assert len(world.fill(origins[2])) == max(left, PLACES - 2 * first)


@pytest.mark.rule("LIM-13")
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


@pytest.mark.rule("LIM-13")
def test_a_place_is_not_kept_for_long(small: World) -> None:
    first, *_ = small.fill()
    small.park(good("waits"), good("next", 70))
    assert small.end(first, REFUSED) == ["waits"]
    assert small.wait(RESERVED_SECONDS) == []
    assert small.wait(0.1) == ["next"]
    small.begin(good("next", 70))
    assert not small.may_go(good("waits"))


def test_nor_for_a_credential_that_needs_another_request_by_now(small: World) -> None:
    first, *_ = small.fill()
    small.park(good("waits"), good("next", 70))
    assert small.end(first, REFUSED) == ["waits"]
    small.limiter.picked_up(good("waits", origin=OTHER))
    small.limiter.picked_up(good("waits", purpose=Purpose.VERIFICATION))
    assert small.wait(RESERVED_SECONDS + 0.1) == ["next"]


@pytest.mark.rule("LIM-13")
def test_but_as_long_as_its_credential_is_looked_at(small: World) -> None:
    first, *_ = small.fill()
    small.park(good("waits"), good("next", 70))
    small.end(first, REFUSED)
    assert small.may_go(good("waits"))
    assert small.wait(10 * RESERVED_SECONDS) == []
    small.limiter.keep_only(NamespacedName("shop", "waits"), (), small.now)
    assert [key.name for key in small.released] == ["waits", "next"]


def test_who_waits_again_gives_back_the_place_that_was_kept_for_it(world: World) -> None:
    """Its ask has changed meanwhile, say: it goes by the new one."""
    tickets = world.fill()
    world.park(good("a", 10), good("b", 20), good("c", 30))
    assert world.end(tickets.pop(), REFUSED) == ["a"]
    world.limiter.park(good("a", 25), world.now)
    assert [key.name for key in world.released] == ["a", "b"]
    assert world.end(tickets.pop(), REFUSED) == ["a"]
    assert world.end(tickets.pop(), REFUSED) == ["c"]
    world.limiter.park(good("c", 30), world.now)
    assert world.released[-1].name == "c"  # at once, as there is still a place for it
    tickets += world.begin(good("a", 25), good("b", 20), good("c", 30))
    for ticket in tickets:
        world.limiter.abandoned(ticket, world.now)
    assert len(world.fill(name="another")) == FIRST_LIMIT


def test_a_request_hangs_by_its_own_time_whenever_its_place_was_kept(world: World) -> None:
    tickets = world.fill()
    world.park(good("waits"))
    for ticket in tickets:
        world.end(ticket, REFUSED)
    assert world.may_go(good("waits"))
    world.wait(1.5)
    world.begin(good("waits"))
    assert len(world.fill(name="another")) == FIRST_LIMIT - 1


def test_who_has_not_begun_is_not_in_flight(small: World) -> None:
    first, *_ = small.fill()
    small.park(good("waits"))
    small.end(first, REFUSED)
    assert small.seen().in_flight == FIRST_LIMIT - 1


@pytest.mark.parametrize("purpose", Purpose)
def test_whatever_it_waits_for_its_wait_can_end(small: World, purpose: Purpose) -> None:
    first, *_ = small.fill()
    ask = good("a", purpose=purpose)
    small.park(ask)
    small.end(first, REFUSED)
    assert small.limiter.holds_place(ask.key)
    small.limiter.keep_only(ask.key, (), small.now)
    assert not small.limiter.holds_place(ask.key)
    assert small.seen().waiting == 0


def test_a_request_that_has_ended_already_cannot_be_given_up(world: World) -> None:
    [ticket] = world.begin(good("a"))
    world.end(ticket)
    world.limiter.abandoned(ticket, world.now)
    assert world.seen().in_flight == 0
    assert len(world.fill()) == FIRST_LIMIT + 1


@pytest.mark.rule("LIM-13")
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


@pytest.mark.rule("LIM-13")
def test_a_new_leader_knows_nothing_and_keeps_nobody_waiting(world: World) -> None:
    first, *rest = world.fill()
    world.park(good("a"), good("b"))
    world.ask(new("bad"), REFUSED)
    world.end(first, REFUSED)
    world.limiter.start_afresh()
    assert world.seen().waiting == 0
    assert world.seen().in_flight == len(rest)
    assert world.may_go(good("a"))
    for ticket in rest:
        world.end(ticket)


def gone(world: World, ask: Ask) -> None:
    world.limiter.forget(ask.key, world.now)


def led_by_another(world: World, _: Ask) -> None:
    world.limiter.start_afresh()


@pytest.mark.parametrize("act", [gone, led_by_another])
def test_what_was_known_of_one_is_forgotten(world: World, act: Callable[[World, Ask], None]) -> None:
    """When it is gone, or another replica led: neither is it bound by Retry-After, nor helped by others' tokens."""
    ask = good("a")
    world.ask(ask, failure(503, 300.0))
    assert not world.may_go(ask)
    act(world, ask)
    assert world.may_go(ask)
    world.ask(ask, REFUSED)
    world.ask(good("b"))
    assert not world.permit(ask).at_once


def test_nothing_is_kept_of_a_namespace_that_is_gone(small: World) -> None:
    namespace = "gone soon".replace(" ", "-")  # of its own, not the constant
    before = sys.getrefcount(namespace)
    small.fill()
    small.park(Ask(NamespacedName(namespace, "a"), ORIGIN))
    assert sys.getrefcount(namespace) > before
    small.limiter.forget(NamespacedName(namespace, "a"), small.now)
    assert sys.getrefcount(namespace) == before


def test_where_too_many_namespaces_have_had_turns_all_turns_are_forgotten(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuinly_operator.engine.limiter._MOST_TURNS", 2)
    filling = small.fill()
    small.park(*[Ask(NamespacedName(namespace, "a"), ORIGIN) for namespace in ("one", "two", "three")])
    for namespace in ("one", "two", "three"):
        small.limiter.abandoned(filling.pop(), small.now)
        filling += small.begin(Ask(NamespacedName(namespace, "a"), ORIGIN))
    small.park(Ask(NamespacedName("one", "b"), ORIGIN))
    small.wait(0.1)
    small.park(Ask(NamespacedName("four", "c"), ORIGIN))
    small.limiter.abandoned(filling.pop(), small.now)
    assert small.released[-1].name == "b"


def test_a_new_leader_goes_by_no_turns_of_before(small: World) -> None:
    filling = small.fill()
    small.park(new("a"))
    small.end(filling.pop())
    small.limiter.start_afresh()
    filling += small.fill()
    small.park(new("b"))
    small.wait(0.1)
    small.park(Ask(NamespacedName("others", "x"), ORIGIN))
    assert [small.end(filling.pop())[0] for _ in range(2)] == ["b", "x"]


def growth(round_of_many: Callable[[], None]) -> int:
    """By how many bytes more is held after the second of two equal rounds than after the first."""
    tracemalloc.start()
    try:
        round_of_many()
        before, _ = tracemalloc.get_traced_memory()
        round_of_many()
        after, _ = tracemalloc.get_traced_memory()
        return after - before
    finally:
        tracemalloc.stop()


@pytest.mark.rule("LIM-15")
def test_nothing_is_kept_of_those_who_are_gone_or_come_again_and_again() -> None:
    """They are made and deleted without end at an endpoint that gives no token, or edited while they wait."""
    world = World()
    world.bring_down()
    world.park(good("first", 1))
    names = (f"bad-{number}" for number in itertools.count())

    def round_of_many() -> None:
        for name in itertools.islice(names, 2000):
            ask = new(name)
            world.ask(ask, DOWN)
            world.limiter.park(ask, world.now)
            world.limiter.park(good("edited"), world.now)
            world.limiter.forget(ask.key, world.now)

    assert growth(round_of_many) < 50_000


def test_memory_does_not_grow_with_the_tokens_that_came(world: World) -> None:
    """Also where nobody is ever throttled, and so nobody asks how many came lately."""

    def round_of_many() -> None:
        for _ in range(5000):
            world.wait(1)
            world.ask(good("a"))

    assert growth(round_of_many) < 20_000


# In which order -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIM-11")
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


@pytest.mark.rule("LIM-11")
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


@pytest.mark.rule("LIM-11")
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


def test_who_comes_again_is_a_turn_later_also_after_others_had_that_turn(small: World) -> None:
    filling = small.fill()
    asks = {name: Ask(NamespacedName(namespace, name), ORIGIN) for namespace, name in ("aa", "bb", "xx", "xy")}
    small.park(*asks.values())
    assert small.end(filling.pop()) == ["a"]
    for number, released in enumerate("bxya"):
        [ticket] = small.begin(asks[small.released[-1].name])
        if number == 1:
            small.wait(0.1)
            small.park(asks["a"])
        before = len(small.released)
        small.limiter.abandoned(ticket, small.now)
        assert [key.name for key in small.released[before:]] == [released]


def test_those_at_fault_themselves_go_by_turns_however_soon_their_tokens_end(world: World) -> None:
    asks = [good("first", 70), good("second", 10)]
    for ask in asks:
        world.ask(ask, REFUSED)
        world.ask(good("fine"))
        world.ask(ask, REFUSED)
    filling = world.fill()
    world.park(asks[0])
    world.wait(0.1)
    world.park(asks[1])
    assert world.end(filling.pop(), REFUSED) == ["first"]


def test_of_those_whose_tokens_end_at_once_who_has_waited_longest_goes_first_however_often_it_is_edited(
    small: World,
) -> None:
    filling = small.fill()
    small.park(good("first"))
    small.wait(0.1)
    small.park(good("second"))
    small.park(good("first"))
    assert small.end(filling.pop(), REFUSED) == ["first"]


@pytest.mark.rule("LIM-11")
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
        small.limiter.start_afresh()
    others = [Ask(NamespacedName("others", name), ORIGIN) for name in "xyz"]
    small.park(*others)
    small.park(new("a"))
    order = [name for ticket in filling for name in small.end(ticket)]
    assert order[:2] == ["x", "a"]


@pytest.mark.rule("LIM-11")
def test_who_comes_by_does_not_go_before_who_waits(world: World) -> None:
    world.ask(good("a"), THROTTLED)
    world.wait(0.1)
    world.park(good("waits", 50))
    world.now = Moment(world.now.wall + 2, world.now.boot + 2)
    assert not world.may_go(good("comes by"))
    assert not world.may_go(good("ends as soon", 50))
    assert not world.may_go(new("comes by, too"))
    assert world.may_go(good("ends sooner", 40))


def test_those_who_had_tokens_and_failed_go_by_their_end_too(world: World) -> None:
    world.ask(good("a", 20), DOWN)
    world.ask(good("b", 10), DOWN)
    filling = world.fill()
    world.park(good("a", 20))
    world.wait(0.1)
    world.park(good("b", 10))
    assert world.end(filling.pop(), REFUSED) == ["b"]


def test_their_order_is_the_same_however_often_one_is_edited(small: World) -> None:
    filling = small.fill()
    asks = [good(f"{end:02}", end) for end in (7, 3, 9, 1, 8, 2, 6, 4, 5)]
    small.park(*asks)
    for number in range(100):
        small.park(good("edited", 20 - number / 100))  # its old entries stay behind those of the others
    small.park(good("edited", 200))
    released: list[str] = []
    while len(released) < len(asks):
        released += small.end(filling.pop(), REFUSED)
        filling += small.begin(asks[[ask.key.name for ask in asks].index(released[-1])])
    assert released == sorted(released)


def test_it_is_that_of_the_ends_of_their_tokens_however_often_these_change(small: World) -> None:
    chance = random.Random(1)  # noqa: S311 -- the same each time
    filling, ends = small.fill(), dict[str, float]()
    for number in range(300):
        name = f"{number % 30}"
        ends[name] = chance.uniform(10, 20)
        small.park(good(name, ends[name]))
    released: list[str] = []
    while len(released) < len(ends):
        released += small.end(filling.pop(), REFUSED)
        filling += small.begin(good(released[-1], ends[released[-1]]))
    assert released == sorted(ends, key=lambda name: ends[name])


@pytest.mark.parametrize("ask", [good("a"), new("a")], ids=["with a token", "without"])
def test_who_waits_is_not_kept_back_by_itself(world: World, ask: Ask) -> None:
    world.ask(good("b"), THROTTLED)
    world.wait(0.1)
    world.park(ask)
    world.now = Moment(world.now.wall + 2, world.now.boot + 2)
    assert world.may_go(ask)


def test_a_single_failure_while_others_get_tokens_is_put_down_to_nobody(world: World) -> None:
    [ticket] = world.begin(good("a"))
    world.ask(good("fine"))
    world.end(ticket, DOWN)
    filling = world.fill()
    world.park(new("new"), good("a"))
    assert world.end(filling.pop(), REFUSED) == ["a"]


def test_of_several_origins_the_most_urgent_has_the_place_that_is_left(small: World) -> None:
    """Probes come after all but those at fault themselves."""
    failing, probe = good("failing", origin="https://f.example"), good("probe", 1, origin=OTHER)
    small.ask(good("fine", origin="https://f.example"))
    small.ask(failing, DOWN)
    small.ask(good("fine", origin="https://f.example"))
    small.ask(failing, DOWN)
    for number in range(DOWN_AFTER):
        small.wait(0.3)
        small.ask(good(f"met-it-{number}", origin=OTHER), DOWN)
    small.wait(EARLY_PROBE_SECONDS)
    filling = small.fill() + small.fill("https://filling.example")
    for ask in (
        failing,
        probe,
        new("newer", origin="https://n.example"),
        good("late", 70, origin="https://g.example"),
        good("soon", 50, origin="https://h.example"),
    ):
        small.wait(0.01)
        small.park(ask)
    order = [small.end(filling.pop(), REFUSED)[0] for _ in range(4)]
    assert order == ["soon", "late", "newer", "probe"]
    small.limiter.keep_only(probe.key, (), small.now)
    assert small.released[-1] == failing.key


def test_of_several_newcomers_the_one_that_has_waited_longest_has_it(small: World) -> None:
    for origin in (OTHER, ORIGIN):
        small.ask(good("fine", origin=origin))
    filling = small.fill() + small.fill("https://filling.example")
    small.park(new("first"))
    small.wait(0.1)
    small.park(new("second", origin=OTHER))
    assert small.end(filling.pop(), REFUSED) == ["first"]


def test_of_several_probes_the_one_that_is_due_longest_goes_first(small: World) -> None:
    origins = ["https://b.example", "https://a.example"]
    for origin in origins:
        small.ask(good("fine", origin=origin))
    for origin in reversed(origins):
        for number in range(DOWN_AFTER):
            small.wait(0.3)
            small.ask(good(f"met-it-{number}", origin=origin), DOWN)
    small.wait(EARLY_PROBE_SECONDS)
    filling = small.fill() + small.fill("https://filling.example")
    small.park(*[good(origin, origin=origin) for origin in origins])
    assert small.end(filling.pop(), REFUSED) == [origins[1]]


def test_a_token_restores_good_standing(small: World) -> None:
    small.ask(good("a", 1), DOWN)
    small.ask(good("a", 1))
    filling = small.fill()
    small.park(good("a", 1), good("b", 2))
    assert small.end(filling.pop(), REFUSED) == ["a"]


@pytest.mark.rule("LIM-11")
def test_failing_once_in_an_outage_puts_nobody_behind_the_bad(world: World) -> None:
    world.ask(good("fine"))
    world.ask(new("bad"), DOWN)
    world.bring_down()
    world.park(new("bad"), good("met-it-0"))
    assert world.wait(EARLY_PROBE_SECONDS) == ["met-it-0"]


# Down -----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIM-4")
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


@pytest.mark.rule("LIM-4")
def test_what_breaks_at_one_moment_does_not(world: World) -> None:
    for ticket in world.fill():
        world.end(ticket, failure(None))
    assert not world.seen().down


def test_nor_what_breaks_at_one_moment_but_began_at_several(world: World) -> None:
    tickets = []
    for number in range(DOWN_AFTER):
        world.wait(0.3)
        tickets += world.begin(good(f"credential-{number}"))
    for ticket in tickets:
        world.end(ticket, failure(None))
    assert not world.seen().down


@pytest.mark.parametrize(("apart", "down"), [(0.25, False), (0.26, True)])
def test_so_far_apart_failures_must_be(world: World, apart: float, *, down: bool) -> None:
    for number in range(DOWN_AFTER):
        world.ask(good(f"credential-{number}"), DOWN)
        world.wait(apart)
    assert world.seen().down is down


@pytest.mark.rule("LIM-4")
def test_nor_do_requests_that_hang_while_later_ones_are_answered(world: World) -> None:
    tickets = world.fill()
    world.wait(1)
    world.ask(good("fine"))
    for ticket in tickets:
        world.wait(1)
        world.end(ticket, failure(None))
    assert not world.seen().down


@pytest.mark.rule("LIM-5")
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


def test_where_requests_have_hung_for_long_it_is_no_chance_from_the_first(world: World) -> None:
    tickets = []
    for number in range(DOWN_AFTER):
        tickets += world.begin(good(f"credential-{number}"))
        world.wait(0.3)
    world.wait(PROBE_SECONDS)
    for ticket in tickets:
        world.wait(0.3)
        world.end(ticket, failure(None))
    world.park(good("a"))
    assert world.wait(PROBE_SECONDS - 0.1) == []
    assert world.wait(0.1) == ["a"]


def test_other_failures_do_not_put_off_the_next_probe(world: World) -> None:
    before = world.begin(good("before"))
    world.bring_down()
    world.park(good("a"))
    world.wait(0.5)
    for ticket in before:
        world.end(ticket, DOWN)
    assert world.wait(EARLY_PROBE_SECONDS - 0.5) == ["a"]


def test_a_probe_that_hangs_does_not_put_off_the_next_one(world: World) -> None:
    world.bring_down()
    world.park(good("a", 1), good("b", 2))
    assert world.wait(EARLY_PROBE_SECONDS) == ["a"]
    world.begin(good("a", 1))
    assert world.wait(EARLY_PROBE_SECONDS) == ["b"]


def test_who_had_its_turn_before_that_is_no_probe_and_holds_up_none(world: World) -> None:
    tickets = world.fill()
    world.park(good("a", 1))
    assert world.end(tickets.pop(), REFUSED) == ["a"]
    assert world.may_go(good("a", 1))
    for ticket in tickets:
        world.wait(0.3)
        world.end(ticket, DOWN)
    world.park(good("b", 2))
    assert world.wait(EARLY_PROBE_SECONDS) == ["b"]


def test_a_single_one_that_waits_is_sent_again_and_again_and_another_once_it_has_come(world: World) -> None:
    world.bring_down()
    world.park(good("a"))
    for _ in range(4):
        assert world.wait(PROBE_SECONDS) == ["a"]
        world.ask(good("a"), DOWN)
        world.park(good("a"))
    world.park(new("new"))
    assert world.wait(PROBE_SECONDS) == ["new"]


def test_one_whose_probe_was_given_up_is_not_the_next_one(world: World) -> None:
    world.bring_down()
    world.park(good("a", 1), good("b", 2))
    assert world.wait(PROBE_SECONDS) == ["a"]
    [ticket] = world.begin(good("a", 1))
    world.limiter.abandoned(ticket, world.now)
    world.park(good("a", 1))
    assert world.wait(PROBE_SECONDS) == ["b"]


def test_newcomers_are_probes_by_turns_of_their_namespaces(world: World) -> None:
    world.bring_down()
    asks = {name: Ask(NamespacedName(namespace, name), ORIGIN) for namespace, name in ("ma", "mb", "mc", "fx")}
    world.park(*asks.values())
    probes = []
    for _ in range(6):
        for name in world.wait(PROBE_SECONDS):
            probes.append(name)
            world.ask(asks[name], DOWN)
            world.park(asks[name])
    assert "".join(probes) == "axbxcx"


def test_a_try_before_it_went_down_counts_for_nothing(world: World) -> None:
    world.ask(good("first", 50), DOWN)
    world.wait(1)
    world.ask(good("second", 1), DOWN)
    world.ask(good("fine"))
    world.wait(1)
    world.bring_down()
    world.park(good("first", 50), good("second", 1))
    assert world.wait(PROBE_SECONDS) == ["second"]


@pytest.mark.rule("LIM-5")
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


@pytest.mark.rule("LIM-5")
def test_who_fails_by_itself_is_no_probe_while_there_are_others(world: World) -> None:
    world.ask(good("fine"))
    world.ask(new("bad"), DOWN)
    world.bring_down()
    world.park(new("bad"), new("new"))
    assert world.wait(EARLY_PROBE_SECONDS) == ["new"]
    world.ask(new("new"), DOWN)
    assert world.wait(PROBE_SECONDS) == ["bad"]


@pytest.mark.rule("LIM-5")
def test_a_probe_that_is_not_sent_is_the_next_ones_at_once(world: World) -> None:
    world.bring_down()
    world.park(good("a", 1), good("b", 2))
    assert world.wait(EARLY_PROBE_SECONDS) == ["a"]
    assert world.permit(good("a")).at_once
    world.limiter.keep_only(NamespacedName("shop", "a"), (), world.now)
    assert world.released[-1].name == "b"


@pytest.mark.rule("LIM-5")
@pytest.mark.parametrize("wall", [-3600.0, 0.0, 3600.0])
def test_a_clock_that_is_set_holds_up_no_probe(world: World, wall: float) -> None:
    world.bring_down()
    world.park(good("a"))
    assert world.wait(EARLY_PROBE_SECONDS, wall=wall) == ["a"]


@pytest.mark.rule("LIM-6")
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


@pytest.mark.rule("LIM-7")
def test_the_first_token_ends_everybodys_waits(world: World) -> None:
    world.ask(good("patient"), failure(503, 300.0))
    world.bring_down()
    began_before = world.begin(good("slow"), good("met an edge"))
    world.park(good("waits"))
    assert not world.may_go(good("patient"))
    world.wait(EARLY_PROBE_SECONDS)
    assert {"patient", "met-it-0"} <= set(world.end(world.begin(good("waits"))[0]))
    assert world.seen().down is False
    for ask in (good("patient"), good("met-it-0")):
        assert world.permit(ask) == Permit(at_once=True)
    for ticket, answer in zip(began_before, (failure(503, 300.0), EDGE), strict=True):
        world.end(ticket, answer)
        assert world.permit(ticket.ask) == Permit(at_once=True)  # repeated at once
    assert world.end(world.begin(good("next"))[0]) == []


def test_it_ends_also_the_waits_of_those_at_fault_themselves(world: World) -> None:
    """As nobody knows whose fault it was while the endpoint was down."""
    world.ask(good("fine"))
    world.ask(new("bad"), failure(503, 300.0))
    world.ask(good("fine"))
    assert not world.may_go(new("bad"))
    world.bring_down()
    world.park(good("waits"))
    world.wait(EARLY_PROBE_SECONDS)
    assert "bad" in world.end(world.begin(good("waits"))[0])
    assert world.permit(new("bad")) == Permit(at_once=True)


def test_each_recovery_is_one_whatever_came_before(world: World) -> None:
    """Who failed before an endpoint came back may try again at once, the second time as well."""
    for _ in range(2):
        for number in range(DOWN_AFTER):
            world.ask(good(f"met-it-{number}"))
        began_before = world.begin(good("slow"))
        world.bring_down()
        world.park(good("waits"))
        world.wait(EARLY_PROBE_SECONDS)
        world.end(world.begin(good("waits"))[0])
        world.end(began_before[0], EDGE)
        assert world.permit(good("slow")) == Permit(at_once=True)
        world.ask(good("slow"))


def test_who_fails_after_that_waits_as_ever(world: World) -> None:
    world.bring_down()
    world.park(good("waits"))
    world.wait(EARLY_PROBE_SECONDS)
    world.end(world.begin(good("waits"))[0])
    world.ask(good("late"), failure(503, 300.0))
    assert not world.may_go(good("late"))


@pytest.mark.parametrize(("tries", "end"), [(QUICK_TRIES, 60.0), (0, None)])
def test_who_fails_while_others_get_tokens_tries_a_few_times_at_once_if_it_has_one(
    world: World, tries: int, end: float | None
) -> None:
    ask = new("a") if end is None else good("a", end)
    at_once = []
    for _ in range(QUICK_TRIES + 2):
        [ticket] = world.begin(ask)
        world.ask(good("fine"))
        world.end(ticket, DOWN)
        at_once.append(world.permit(ask).at_once)
    assert at_once == [number < tries for number in range(QUICK_TRIES + 2)]


def test_a_relief_is_for_a_single_request(world: World) -> None:
    world.ask(good("a"), DOWN)
    world.ask(good("b"))
    assert world.permit(good("a")).at_once
    [ticket] = world.begin(good("a"))
    world.limiter.abandoned(ticket, world.now)
    assert not world.permit(good("a")).at_once


def test_it_holds_while_there_is_no_room_and_once_there_is(small: World) -> None:
    small.ask(good("a"), DOWN)
    small.ask(good("b"))
    filling = small.fill()
    assert small.permit(good("a")).at_once
    small.park(good("a"))
    assert small.end(filling.pop()) == ["a"]
    assert small.permit(good("a")) == Permit(at_once=True)


@pytest.mark.rule("LIM-2")
@pytest.mark.parametrize("answer", [EDGE, REFUSED, THROTTLED, failure(302)], ids=repr)
def test_no_other_answer_does(world: World, answer: TokenRequestFailed) -> None:
    world.bring_down()
    world.park(good("a"), good("b"))
    world.wait(EARLY_PROBE_SECONDS)
    world.ask(good("a"), answer)
    assert world.seen().down
    assert not world.permit(good("met-it-0")).at_once


@pytest.mark.rule("LIM-7")
def test_the_wait_after_a_failure_of_the_endpoint_ends_with_anybodys_token(world: World) -> None:
    """It need not have been down: patience that outlives the trouble would end tokens by itself."""
    world.ask(good("a"), failure(503, 300.0))
    world.ask(good("refused"), REFUSED)
    assert not world.may_go(good("a"))
    world.ask(good("b"))
    assert world.permit(good("a")) == Permit(at_once=True)
    assert world.permit(good("refused")) == Permit()
    world.ask(good("a"), failure(503, 300.0))
    world.ask(good("b"))
    assert not world.may_go(good("a"))  # others got tokens: it is its own affair


# Too many requests ----------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIM-8")
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


@pytest.mark.rule("LIM-8")
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


def test_a_rate_is_cut_once_a_second(world: World) -> None:
    for number in range(20):
        world.ask(good(f"a-{number}"))
    world.ask(good("b"), THROTTLED)
    world.wait(1.0)
    world.ask(good("c"), THROTTLED)
    assert world.seen().rate == pytest.approx(18)


def test_it_goes_by_the_best_of_the_last_ten_seconds(world: World) -> None:
    for number, tokens in enumerate((20, 5, 8)):
        for _ in range(tokens):
            world.ask(good("a"))
        world.wait(10.5 if number == 0 else 1.0)
    world.ask(good("b"), THROTTLED)
    assert world.seen().rate == pytest.approx(7.2)


@pytest.mark.parametrize(("seconds", "rate"), [(10.0, 9.0), (10.001, 1.8)])
def test_a_second_is_the_last_of_ten_until_it_is_ten_seconds_ago(world: World, seconds: float, rate: float) -> None:
    for tokens, pause in ((10, seconds - 5), (2, 5.0)):
        for _ in range(tokens):
            world.ask(good("a"))
        world.wait(pause)
    world.ask(good("b"), THROTTLED)
    assert world.seen().rate == pytest.approx(rate)


def test_after_a_cut_the_next_request_begins_as_late_as_the_rate_says(world: World) -> None:
    for _ in range(10):
        world.ask(good("a"))
    world.ask(good("b"), THROTTLED)
    assert not world.may_go(good("c"))
    world.wait(1 / 9 + 0.001)
    assert world.may_go(good("c"))


@pytest.mark.parametrize(("seconds", "rate"), [(19.0, 20.0), (19.5, None)])
def test_a_rate_that_so_few_places_cannot_use_is_no_bound(seconds: float, rate: float | None) -> None:
    world = World(places=1)
    world.ask(good("a"), THROTTLED)
    world.wait(seconds)
    world.ask(good("b"))
    assert world.seen().rate == rate


def test_two_429s_while_others_get_tokens_cost_the_standing(world: World) -> None:
    for _ in range(2):
        world.ask(good("a"), THROTTLED)
        world.wait(2)
        world.ask(good("fine"))
        world.wait(2)
    world.ask(good("b"), THROTTLED)
    world.park(good("a"), new("new"))
    assert [name for _ in range(3) for name in world.wait(1.5)] == ["new", "a"]


@pytest.mark.rule("LIM-8")
def test_other_429s_set_none(world: World) -> None:
    world.ask(good("fine"))
    for ask in (new("new"), good("turned"), good("turned")):
        world.wait(1.1)
        before = world.seen().rate
        world.ask(ask, THROTTLED)
        assert (world.seen().rate is None) is (ask.end is None)
        if before is not None:
            assert (world.seen().rate or 0) >= before


@pytest.mark.rule("LIM-8")
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


@pytest.mark.rule("LIM-9")
def test_retry_after_binds_its_credential_and_nobody_else(world: World) -> None:
    world.ask(good("a", client="shop"), failure(429, 60.0))
    block = world.block(good("a", client="shop"))
    assert block.until is not None
    assert block.until.remaining(world.now) == 60
    assert block.failure is not None
    assert block.failure.reason is Reason.ENDPOINT_THROTTLED
    assert ORIGIN in block.failure.message
    assert not block.parks
    assert block.long
    world.wait(2)
    for other in (good("b", client="shop"), new("c", client="shop"), good("a", client="shop", origin=OTHER)):
        assert world.may_go(other)


@pytest.mark.rule("LIM-9")
def test_it_binds_the_client_that_it_was_told_to(world: World) -> None:
    world.ask(good("a", client="shop"), failure(429, 60.0))
    world.wait(2)
    assert not world.may_go(good("a", client="shop"))
    assert world.may_go(good("a", client="another"))


def test_where_the_client_was_not_known_it_binds_any(world: World) -> None:
    world.ask(good("a"), failure(429, 60.0))
    world.wait(2)
    assert not world.may_go(good("a", client="shop"))


@pytest.mark.rule("LIM-9")
@pytest.mark.parametrize("asked", [1, 299, 300])
def test_retry_after_is_heeded_for_as_long_as_it_asks(world: World, asked: float) -> None:
    world.ask(good("a"), failure(429, asked))
    world.wait(asked - 0.1)
    assert not world.may_go(good("a"))
    world.wait(0.1)
    assert world.may_go(good("a"))


# What is told ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIM-14")
def test_a_short_wait_is_nothing_to_tell_of(small: World) -> None:
    small.fill()
    small.park(good("a"))
    block = small.block(good("a"))
    assert block.failure is None
    assert block.until is not None
    assert block.until.remaining(small.now) == SAID_AFTER
    assert not block.long
    small.wait(SAID_AFTER)
    block = small.block(good("a"))
    assert block.until is None
    assert block.failure is not None
    assert block.failure.reason is Reason.ISSUING
    assert ORIGIN in block.failure.message


def test_who_waits_for_places_that_others_hold_is_told_which_endpoint_it_waits_for(small: World) -> None:
    small.fill(ORIGIN)
    small.park(good("a", origin=OTHER))
    small.wait(SAID_AFTER)
    failure_ = small.block(good("a", origin=OTHER)).failure
    assert failure_ is not None
    assert OTHER in failure_.message


@pytest.mark.rule("LIM-14")
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
    assert world.block(good("b")).long


# When to look again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waits", "prepare", "seconds"),
    [
        (False, lambda world: world.fill(), None),
        (True, lambda world: world.fill(), 0.5),
        (True, lambda world: (world.bring_down(), world.wait(0.75)), 0.25),
        (False, lambda world: (world.bring_down(), world.wait(0.75)), None),
        (True, lambda world: (world.bring_down(), world.wait(0.999)), 0.005),
        (True, lambda world: (world.ask(good("a"), THROTTLED), world.wait(0.75)), 0.25),
        (False, lambda world: (world.ask(good("a"), THROTTLED), world.wait(0.75)), None),
        (True, lambda world: (world.ask(good("a"), THROTTLED), world.park(good("b", 1)), world.wait(1)), 0.005),
        (True, lambda world: (world.bring_down(), world.park(good("b", 1)), world.wait(2)), 0.5),
    ],
    ids=[
        "full, but nobody waits",
        "full",
        "down",
        "down, but nobody waits",
        "down until now",
        "too many",
        "too many, but nobody waits",
        "one is about to begin",
        "a probe is",
    ],
)
def test_it_is_looked_at_again_when_time_alone_lets_somebody_go_and_within_half_a_second(
    world: World, prepare: Callable[[World], object], seconds: float | None, *, waits: bool
) -> None:
    prepare(world)
    if waits:
        world.park(good("waits"))
    assert world.limiter.tick(world.now) == pytest.approx(seconds)


def test_it_tells_whenever_somebody_is_parked() -> None:
    """Who had no reason to call `tick` has one now."""
    told: list[str] = []
    limiter = Limiter(PLACES, lambda _: None, parked=lambda: told.append("parked"))
    limiter.look(good("a"), NOW)
    assert told == []
    for _ in range(2):
        limiter.park(good("a"), NOW)
    assert told == ["parked", "parked"]


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
        limiter.picked_up(ask)
        permit = limiter.look(ask, world.now)
        kept: Ask | None = None
        if permit.block is None:
            ticket = limiter.begin(ask, world.now)
            self.tickets.append(ticket)
            if ticket.probe:
                self.probes[ask.origin].append(world.now.boot)
        elif permit.block.parks:
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
        self.world.limiter.start_afresh()
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


@pytest.mark.rule("LIM-16")
def test_in_any_order_nobody_waits_for_ever_and_no_place_is_lost() -> None:
    run_state_machine_as_test(AnyOrder, settings=settings(max_examples=200, stateful_step_count=40, deadline=None))
