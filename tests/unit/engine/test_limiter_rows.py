"""What bad clients may cost good ones: the whole matrix, in a simulation of many credentials around the limiter.

tests/faults/test_rows.py holds each row once against the real process.
"""

import itertools
from collections.abc import Callable

import pytest

from tests.unit.endpoints import BAD, TIMEOUT, Answer, Behaviour, Credential, Fleet
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.facts import (
    Purpose,
)

ORIGIN, OTHER = "https://oauth.tuinly.com", "https://oauth.example.org"
GOOD = 200
LIFETIME = 90.0
MINUTES = 180.0
"""Seconds that a row lasts."""
KINDS = [*BAD, "mixed"]
COUNTS = [1, 20, 200]


def good(
    fleet: Fleet, count: int = GOOD, *, origin: str = ORIGIN, name: str = "good", **more: object
) -> list[Credential]:
    """Add credentials in good standing, due evenly over the time between two refreshes."""
    credentials = []
    for number in range(count):
        credential = Credential(NamespacedName("shop", f"{name}-{number}"), origin, LIFETIME, **more)  # type: ignore[arg-type]
        age = fleet.drawn.uniform(0, 0.45 * LIFETIME)
        credential.end = LIFETIME - age
        credential.due = max(0.0, LIFETIME / 2 * (1 - 0.1 * fleet.drawn.random()) - age)
        fleet.add(credential)
        credentials.append(credential)
    return credentials


def bad(fleet: Fleet, count: int, kind: str) -> list[Credential]:
    """Add credentials that never get a token."""
    kinds = list(BAD) if kind == "mixed" else [kind]
    credentials = [
        Credential(NamespacedName("evil", f"bad-{number}"), ORIGIN, LIFETIME, kinds[number % len(kinds)])
        for number in range(count)
    ]
    for credential in credentials:
        fleet.add(credential)
    return credentials


def worst(fleet: Fleet, credentials: list[Credential]) -> float:
    """Seconds by which the latest refresh was late."""
    return max(fleet.lateness(credentials))


def p99(fleet: Fleet, credentials: list[Credential]) -> float:
    """The same, for the 99th percentile."""
    late = sorted(fleet.lateness(credentials))
    return late[int(len(late) * 0.99)]


@pytest.fixture(params=range(2))
def fleet(request: pytest.FixtureRequest) -> Fleet:
    return Fleet(request.param)


@pytest.mark.rule("LIM-17")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", COUNTS)
def test_beside_bad_ones_good_ones_are_refreshed_in_time(fleet: Fleet, kind: str, count: int) -> None:
    them = good(fleet)
    bad(fleet, count, kind)
    fleet.run(MINUTES)
    assert worst(fleet, them) <= 5
    assert fleet.expired(them) == 0


@pytest.mark.rule("LIM-18")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", COUNTS)
def test_nor_do_restarts_edits_and_bad_ones_made_again_hold_them_up(fleet: Fleet, kind: str, count: int) -> None:
    them = good(fleet)
    bad(fleet, count, kind)

    def each(act: Callable[[Credential], None], share: float) -> None:
        for credential in list(fleet.credentials.values()):
            if credential.key.namespace == "evil" and fleet.drawn.random() < share:
                act(credential)

    for second in range(10, int(MINUTES), 10):
        fleet.at(second, lambda: each(fleet.edit, 1.0))
        fleet.at(second + 5, lambda: each(fleet.replace, 0.3))
    for second in (60, 120):
        fleet.at(second, fleet.start)
    fleet.run(MINUTES)
    assert worst(fleet, them) <= 5
    assert fleet.expired(them) == 0


@pytest.mark.rule("LIM-19")
@pytest.mark.parametrize("kind", KINDS)
def test_new_ones_get_their_first_token_although_as_many_bad_ones_were_made_with_them(fleet: Fleet, kind: str) -> None:
    bad(fleet, GOOD, kind)
    them = [Credential(NamespacedName("shop", f"good-{number}"), ORIGIN, LIFETIME) for number in range(GOOD)]
    for credential in them:
        fleet.add(credential)
    fleet.run(240 if kind == "hang" else 60)
    assert sum(credential.first is not None for credential in them) == GOOD


@pytest.mark.rule("LIM-19")
@pytest.mark.parametrize("kind", KINDS)
def test_nor_do_bad_ones_that_came_before_them_keep_new_ones_waiting(fleet: Fleet, kind: str) -> None:
    """Namespaces take turns, so that a new tenant needs not wait for all of another one to be tried."""
    bad(fleet, GOOD, kind)
    them = [Credential(NamespacedName("shop", f"good-{number}"), ORIGIN, LIFETIME) for number in range(GOOD)]
    for credential in them:
        fleet.at(1, lambda each=credential: fleet.add(each))  # type: ignore[misc]
    fleet.run(240 if kind == "hang" else 60)
    assert sum(credential.first is not None for credential in them) == GOOD


@pytest.mark.rule("LIM-20")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [20, 50])
def test_good_ones_that_turn_bad_hold_up_the_others_for_seconds_at_most(fleet: Fleet, kind: str, count: int) -> None:
    them = good(fleet)

    def turn() -> None:
        for credential in them[:count]:
            credential.kind = fleet.drawn.choice(list(BAD)) if kind == "mixed" else kind

    fleet.at(60, turn)
    fleet.run(MINUTES)
    assert worst(fleet, them[count:]) <= 10
    assert fleet.expired(them[count:]) == 0


def broken(fleet: Fleet, answer: Answer, start: float, end: float) -> Behaviour:
    """An endpoint that is down for a while."""

    def behave(_: Credential, now: float) -> tuple[float, Answer]:
        if start <= now < end:
            return TIMEOUT if answer is BAD["hang"] else fleet.latency(), answer
        return fleet.latency(), None

    return behave


@pytest.mark.rule("LIM-21")
@pytest.mark.parametrize("kind", ["500", "503", "hang"])
@pytest.mark.parametrize("edge", ["302", "404"])
def test_an_endpoint_that_is_down_is_probed_and_all_are_fresh_soon_after(fleet: Fleet, kind: str, edge: str) -> None:
    """An edge before it answers ten bad ones all the while, which says nothing of the endpoint."""
    start, end = 60.0, 120.0
    fleet.behaviour = broken(fleet, BAD[kind], start, end)
    them = good(fleet)
    bad(fleet, 10, edge)
    fleet.run(end)
    dead = [time for time, _ in fleet.sent if time >= start + 10]
    assert len(dead) >= 9
    assert all(later - earlier >= 4.99 for earlier, later in itertools.pairwise(dead))
    tokens = sum(credential.tokens for credential in them)
    while sum(credential.tokens for credential in them) == tokens:
        fleet.run(fleet.now + 0.1)
    assert fleet.now <= end + 6
    fleet.run(fleet.now + 10)
    assert all(credential.end is not None and credential.end > fleet.now for credential in them)
    assert max(fleet.now - credential.due for credential in them) <= 1


@pytest.mark.rule("LIM-22")
def test_every_fifth_request_may_fail(fleet: Fleet) -> None:
    numbers = itertools.count(1)
    fleet.behaviour = lambda _, __: (fleet.latency(), None if next(numbers) % 5 else BAD["500"])
    them = good(fleet)
    fleet.run(MINUTES)
    assert fleet.expired(them) == 0
    assert len(fleet.sent) <= 1.4 * sum(credential.tokens for credential in them)


@pytest.mark.rule("LIM-23")
def test_an_endpoint_that_allows_so_many_requests_per_second_is_asked_no_quicker(fleet: Fleet) -> None:
    """Without bursts: each request within 50 ms of the last one that was taken is refused."""
    taken, refused = [0.0], [0]

    def behave(_: Credential, now: float) -> tuple[float, Answer]:
        arrival = now + fleet.drawn.uniform(0.001, 0.005)
        if arrival - taken[0] < 1 / 20:
            refused[0] += 1
            return fleet.latency(), BAD["429"]
        taken[0] = arrival
        return fleet.latency(), None

    fleet.behaviour = behave
    them = good(fleet, 1000)
    for credential in them:
        credential.lifetime = credential.end = 180.0
        credential.due = 90 - 9 * fleet.drawn.random()
    fleet.run(250)
    assert fleet.expired(them) == 0
    assert refused[0] <= 0.1 * len(fleet.sent)


@pytest.mark.rule("LIM-24")
@pytest.mark.parametrize("when", ["from the start", "later", "new ones"])
def test_an_origin_that_hangs_is_nothing_to_those_of_another(fleet: Fleet, when: str) -> None:
    them = good(fleet)
    others = good(fleet, 500, origin=OTHER, name="other", kind="good" if when == "later" else "hang")
    for credential in others:
        if when == "new ones":
            credential.end, credential.due = None, 0.0
        fleet.at(30, lambda each=credential: setattr(each, "kind", "hang"))  # type: ignore[misc]
    fleet.run(MINUTES)
    assert p99(fleet, them) <= 1
    assert fleet.expired(them) == 0


@pytest.mark.rule("LIM-25")
@pytest.mark.parametrize("had_tokens", [True, False])
@pytest.mark.parametrize(("places", "origins"), [(1, 1), (2, 1), (3, 1), (20, 12), (20, 40)])
def test_however_many_origins_hang_new_ones_of_another_get_a_token(
    places: int, origins: int, *, had_tokens: bool
) -> None:
    """Each of them is probed for as long as it is down, and each probe hangs, too."""
    fleet = Fleet(0, places=places)
    for number in range(origins):
        for name in range(3):
            credential = Credential(
                NamespacedName(f"dark{number}", str(name)), f"https://{number}.example", LIFETIME, "hang"
            )
            credential.end = LIFETIME if had_tokens else None
            fleet.add(credential)
    them = good(fleet, 40)
    new = [Credential(NamespacedName("shop", f"new-{number}"), ORIGIN, LIFETIME) for number in range(30)]
    for number, credential in enumerate(new):
        fleet.at(30 + 3 * number, lambda each=credential: fleet.add(each))  # type: ignore[misc]
    fleet.run(MINUTES)
    assert sum(credential.first is not None for credential in new) == len(new)
    assert fleet.expired(them) == 0


@pytest.mark.rule("LIM-24")
def test_nor_are_verifications_that_hang(fleet: Fleet) -> None:
    them = good(fleet)
    good(fleet, 20, origin=OTHER, name="verified", kind="hang", purpose=Purpose.VERIFICATION)
    fleet.run(MINUTES)
    assert p99(fleet, them) <= 1


@pytest.mark.rule("LIM-26")
def test_connections_that_are_reset_all_at_once_make_nobody_else_wait(fleet: Fleet) -> None:
    """It is one thing that happened, however many it met."""
    them = good(fleet)
    unlucky = good(fleet, 20, name="unlucky")
    for credential in unlucky:
        credential.due = 69.5
    reset: set[NamespacedName] = set()

    def behave(credential: Credential, now: float) -> tuple[float, Answer]:
        if credential in unlucky and credential.key not in reset:
            reset.add(credential.key)
            return 69.9 - now, BAD["500"]
        return fleet.latency(), None

    fleet.behaviour = behave
    fleet.run(MINUTES)
    assert len(reset) == 20
    assert worst(fleet, them) <= 1
    assert worst(fleet, unlucky) <= 10


@pytest.mark.rule("LIM-12")
def test_never_are_more_in_flight_than_there_are_places(fleet: Fleet) -> None:
    good(fleet, 1000)
    bad(fleet, 200, "mixed")
    fleet.run(60)
    assert fleet.peak <= 20
