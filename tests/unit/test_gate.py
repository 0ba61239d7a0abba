"""The gate before a token endpoint: closed after failures in a row, opened by one probe, patient where asked to be."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.facts import ISSUED as NOW
from tuinly_operator.clock import Moment
from tuinly_operator.credential import Key
from tuinly_operator.errors import Reason, TokenRequestFailed
from tuinly_operator.gate import CLOSES_AFTER, PROBE_INTERVAL, Gate

ORIGIN, OTHER = "https://oauth.tuinly.com", "https://oauth.tuinly.com:8443"
CLIENT = "shop"
A, B, C = KEYS = tuple(Key("shop", name) for name in "abc")

DOWN = TokenRequestFailed(Reason.ENDPOINT_UNAVAILABLE, "", transport=True)
REFUSED = TokenRequestFailed(Reason.INVALID_CLIENT, "", 401)
GARBAGE = TokenRequestFailed(Reason.INVALID_RESPONSE, "", 200)


def throttled(seconds: float | None) -> TokenRequestFailed:
    return TokenRequestFailed(Reason.ENDPOINT_THROTTLED, "", 429, seconds)


def overloaded(seconds: float) -> TokenRequestFailed:
    return TokenRequestFailed(Reason.ENDPOINT_UNAVAILABLE, "", 503, seconds, transport=True)


class World:
    """A gate, the time, and the credentials that it let go."""

    def __init__(self) -> None:
        self.now = NOW
        self.released: list[Key] = []
        self.gate = Gate(self.released.append)

    def wait(self, seconds: float, *, wall: float | None = None) -> None:
        self.now = Moment(self.now.wall + (seconds if wall is None else wall), self.now.boot + seconds)

    def ask(self, *failures: TokenRequestFailed | None, origin: str = ORIGIN, client: str = CLIENT) -> None:
        """Send token requests, one after the other; None is one that succeeds."""
        for failure in failures:
            self.gate.begin(origin, self.now)
            if failure is None:
                self.gate.succeeded(origin)
            else:
                self.gate.failed(origin, client, failure, self.now)

    def close(self) -> None:
        self.ask(*[DOWN] * CLOSES_AFTER)

    def is_open(self, origin: str = ORIGIN, client: str = CLIENT, urgency: float = 0.0) -> bool:
        return self.gate.look(origin, client, urgency, self.now) is None

    def tick(self) -> list[Key]:
        """Let the gate see to its parked credentials; return those that it let go."""
        before = len(self.released)
        self.gate.tick(self.now)
        return self.released[before:]


@pytest.fixture
def world() -> World:
    return World()


# Closing and opening --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests", "is_open"),
    [
        ([], True),
        ([DOWN, DOWN], True),
        ([DOWN, DOWN, DOWN], False),
        ([DOWN, DOWN, overloaded(0)], False),
        ([DOWN, DOWN, None, DOWN, DOWN], True),  # not in a row
        # It answers, if not as one would wish: that is no reason to spare it.
        ([DOWN, DOWN, REFUSED, DOWN, DOWN], True),
        ([DOWN, DOWN, GARBAGE, DOWN, DOWN], True),
        ([REFUSED] * 10, True),
        ([GARBAGE] * 10, True),
        ([throttled(None)] * 10, True),
    ],
)
def test_three_failures_in_a_row_close_it(
    world: World, requests: list[TokenRequestFailed | None], *, is_open: bool
) -> None:
    world.ask(*requests)
    assert world.is_open() is is_open
    assert world.gate.is_closed(ORIGIN) is not is_open


def test_each_origin_has_a_gate_of_its_own(world: World) -> None:
    world.close()
    world.ask(DOWN, DOWN, origin=OTHER)
    assert world.is_open(OTHER)
    assert world.gate.closed() == {ORIGIN: True, OTHER: False}


def test_while_it_is_closed_it_says_so_and_not_until_when(world: World) -> None:
    """When it will be a credential's turn the gate cannot tell; it will let go of it."""
    world.close()
    block = world.gate.look(ORIGIN, CLIENT, 0.0, world.now)
    assert block is not None
    assert block.until is None
    assert block.failure.reason is Reason.ENDPOINT_UNAVAILABLE
    assert ORIGIN in block.failure.message


@pytest.mark.parametrize("answer", [None, REFUSED, GARBAGE, throttled(None)], ids=repr)
def test_the_first_answer_opens_it_and_lets_everybody_in_by_urgency(
    world: World, answer: TokenRequestFailed | None
) -> None:
    world.close()
    for key, urgency in ((A, 30.0), (B, 10.0), (C, 20.0)):
        world.gate.park(ORIGIN, key, urgency)
    world.wait(PROBE_INTERVAL)
    world.ask(answer)
    assert world.is_open()
    assert world.released == [B, C, A]
    world.close()
    world.ask(None)
    assert world.released == [B, C, A]


def test_a_late_answer_of_a_request_from_before_opens_it_too(world: World) -> None:
    world.gate.begin(ORIGIN, world.now)
    world.close()
    world.gate.succeeded(ORIGIN)
    assert world.is_open()


def test_late_failures_of_requests_from_before_do_not_put_off_the_probe(world: World) -> None:
    for _ in range(CLOSES_AFTER + 1):
        world.gate.begin(ORIGIN, world.now)
    world.close()
    world.wait(PROBE_INTERVAL - 1)
    world.gate.failed(ORIGIN, CLIENT, DOWN, world.now)
    world.wait(1)
    assert world.is_open()


def test_each_opening_is_an_epoch_since_failures_from_before_say_nothing_of_after(world: World) -> None:
    epochs = [world.gate.epoch(ORIGIN)]
    for _ in range(2):
        world.close()
        epochs.append(world.gate.epoch(ORIGIN))
        world.ask(None, None)
        epochs.append(world.gate.epoch(ORIGIN))
    assert epochs == [0, 0, 1, 1, 2]


# Probes ---------------------------------------------------------------------------------------------------------------


def test_one_probe_at_most_every_five_seconds(world: World) -> None:
    world.close()
    for _ in range(3):
        world.wait(PROBE_INTERVAL - 0.1)
        assert not world.is_open()
        world.wait(0.1)
        assert world.is_open()
        world.gate.begin(ORIGIN, world.now)
        assert not world.is_open()
        world.gate.failed(ORIGIN, CLIENT, DOWN, world.now)
        assert not world.is_open()
    assert PROBE_INTERVAL == 5


def test_while_a_probe_takes_its_time_there_is_no_other(world: World) -> None:
    world.close()
    world.gate.park(ORIGIN, A, 0.0)
    world.wait(PROBE_INTERVAL)
    world.gate.begin(ORIGIN, world.now)
    world.wait(3 * PROBE_INTERVAL)
    assert not world.is_open()
    assert world.tick() == []


@pytest.mark.parametrize("wall", [-3600.0, 0.0, 3600.0])
def test_a_clock_that_is_set_holds_up_no_probe(world: World, wall: float) -> None:
    world.close()
    world.wait(PROBE_INTERVAL, wall=wall)
    assert world.is_open()


def test_a_probe_that_is_given_up_is_no_probe_any_more(world: World) -> None:
    world.close()
    world.wait(PROBE_INTERVAL)
    world.gate.begin(ORIGIN, world.now)
    world.gate.abandoned(ORIGIN)
    assert not world.is_open()
    world.wait(PROBE_INTERVAL)
    assert world.is_open()


def test_the_most_urgent_is_sent_as_the_probe_when_one_is_due(world: World) -> None:
    world.close()
    for key, urgency in ((A, 30.0), (B, 10.0), (C, 20.0)):
        world.gate.park(ORIGIN, key, urgency)
    assert world.tick() == []
    world.wait(PROBE_INTERVAL)
    assert world.tick() == [B]
    world.ask(DOWN)
    world.gate.park(ORIGIN, B, 10.0)
    assert world.tick() == []
    world.wait(PROBE_INTERVAL)
    assert world.tick() == [B]


def test_who_comes_when_a_probe_is_due_leaves_it_to_the_more_urgent(world: World) -> None:
    """A retry of its own, say, in the moment before the most urgent of the parked is sent."""
    world.close()
    world.gate.park(ORIGIN, B, 10.0)
    world.wait(PROBE_INTERVAL)
    assert not world.is_open(urgency=30.0)
    assert world.is_open(urgency=10.0)
    assert world.is_open(urgency=5.0)
    assert world.tick() == [B]
    assert world.is_open(urgency=10.0)


def test_one_that_was_sent_as_a_probe_and_asked_nothing_is_followed_by_the_next(world: World) -> None:
    """Its credential may be gone, or suspended meanwhile."""
    world.close()
    for key, urgency in ((A, 30.0), (B, 10.0)):
        world.gate.park(ORIGIN, key, urgency)
    world.wait(PROBE_INTERVAL)
    assert [world.tick(), world.tick(), world.tick()] == [[B], [A], []]


def test_parking_twice_is_parking_once_by_the_latest_urgency(world: World) -> None:
    world.close()
    world.gate.park(ORIGIN, A, 10.0)
    world.gate.park(ORIGIN, B, 20.0)
    world.gate.park(ORIGIN, A, 30.0)
    world.wait(PROBE_INTERVAL)
    world.ask(None)
    assert world.released == [B, A]


def test_a_credential_that_is_gone_is_let_go_by_nobody(world: World) -> None:
    world.close()
    world.gate.park(ORIGIN, A, 0.0)
    world.gate.park(OTHER, A, 0.0)
    world.gate.forget(A)
    world.gate.forget(B)
    world.wait(PROBE_INTERVAL)
    assert world.tick() == []
    world.ask(None)
    assert world.released == []


def test_nobody_is_let_go_by_an_open_gate(world: World) -> None:
    world.ask(None)
    world.gate.park(ORIGIN, A, 0.0)
    assert world.tick() == []


# Retry-After ----------------------------------------------------------------------------------------------------------


def test_retry_after_with_429_binds_this_client_at_this_origin(world: World) -> None:
    world.ask(throttled(60))
    assert not world.is_open()
    assert world.is_open(client="another")
    assert world.is_open(OTHER)
    block = world.gate.look(ORIGIN, CLIENT, 0.0, world.now)
    assert block is not None
    assert block.until is not None
    assert block.until.remaining(world.now) == 60
    assert block.failure.reason is Reason.ENDPOINT_THROTTLED
    assert ORIGIN in block.failure.message


def test_retry_after_with_503_binds_all_clients_of_this_origin(world: World) -> None:
    world.ask(overloaded(60))
    assert not world.is_open()
    assert not world.is_open(client="another")
    assert not world.is_open(client="")
    assert world.is_open(OTHER)


@pytest.mark.parametrize("failure", [throttled(60), overloaded(60)], ids=repr)
def test_retry_after_ends_by_itself_whatever_else_works_meanwhile(world: World, failure: TokenRequestFailed) -> None:
    world.ask(failure)
    world.ask(None, client="another")
    world.wait(59)
    world.tick()
    assert not world.is_open()
    world.wait(1)
    assert world.is_open()
    world.tick()
    assert world.is_open()


@pytest.mark.parametrize(("asked", "waited"), [(0, 0), (299, 299), (300, 300), (301, 300), (1e9, 300)])
def test_retry_after_is_heeded_for_five_minutes_at_most(world: World, asked: float, waited: float) -> None:
    world.ask(throttled(asked))
    if waited:
        world.wait(waited - 0.1)
        assert not world.is_open()
        world.wait(0.1)
    assert world.is_open()


def test_the_latest_retry_after_counts(world: World) -> None:
    world.ask(throttled(60))
    world.ask(throttled(10))
    world.wait(10)
    assert world.is_open()


def test_patience_goes_before_a_probe(world: World) -> None:
    world.ask(*[overloaded(60)] * CLOSES_AFTER)
    world.wait(PROBE_INTERVAL)
    block = world.gate.look(ORIGIN, CLIENT, 0.0, world.now)
    assert block is not None
    assert block.until is not None
    world.wait(60 - PROBE_INTERVAL)
    assert world.is_open()


# Whatever happens -----------------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Credentials that ask when they may, over an endpoint that is up or down."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.is_up = True
        self.in_flight = 0
        self.probes: list[float] = []
        self.parked: set[Key] = set()

    @rule(key=st.sampled_from(KEYS), urgency=st.floats(0, 100))
    def come(self, key: Key, urgency: float) -> None:
        """A credential asks, or is parked."""
        gate, now = self.world.gate, self.world.now
        if gate.look(ORIGIN, CLIENT, urgency, now) is not None:
            gate.park(ORIGIN, key, urgency)
            self.parked.add(key)
            return
        if gate.is_closed(ORIGIN):
            self.probes.append(now.boot)
        gate.begin(ORIGIN, now)
        self.in_flight += 1

    @precondition(lambda self: self.in_flight)
    @rule()
    def answer(self) -> None:
        """A request that is under way ends."""
        self.in_flight -= 1
        if self.is_up:
            self.world.gate.succeeded(ORIGIN)
        else:
            self.world.gate.failed(ORIGIN, CLIENT, DOWN, self.world.now)

    @precondition(lambda self: self.in_flight)
    @rule()
    def give_up(self) -> None:
        """A request that is under way is cancelled."""
        self.in_flight -= 1
        self.world.gate.abandoned(ORIGIN)

    @rule()
    def turn(self) -> None:
        """The endpoint fails, or is back."""
        self.is_up = not self.is_up

    @rule(seconds=st.sampled_from([0.1, 1.0, PROBE_INTERVAL, 60.0]))
    def wait(self, seconds: float) -> None:
        """Time passes, and the gate is tended."""
        self.world.wait(seconds)
        self.world.tick()

    @invariant()
    def probes_are_rare(self) -> None:
        """Two of them lie five seconds apart, however often the gate has opened and closed between."""
        for one, other in zip(self.probes, self.probes[1:], strict=False):
            assert other - one >= PROBE_INTERVAL

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """Who waits is let go at the latest when the gate opens."""
        self.parked -= set(self.world.released)
        self.world.released.clear()
        if not self.world.gate.is_closed(ORIGIN):
            assert not self.parked


AnyOrder.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
