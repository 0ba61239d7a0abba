"""What bad clients may cost good ones, each situation once with the real process: `make rows`, which tells the figures.

All situations run at once, each with an operator, namespaces and clients of its own, since they mostly wait. What the
machine makes late, not the bad clients, shows in a control: an operator at the same time with good ones alone. Times
are compared with those of the control, so that a busy machine makes the test prove less, and does not make it fail.
tests/unit/engine/test_limiter_rows.py holds the whole matrix, in a simulation.
"""

import itertools
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self

import pytest

from tests.api.conftest import StartOperator
from tests.faults.crowds import BAD, LIFETIME, Crowd, Watched, watched
from tests.support.cluster import Cluster
from tests.support.objects import Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import Fault, SandboxProcess
from tests.support.waiting import wait_until

GOOD = 200
SECONDS = 180.0
"""Seconds that a row lasts."""
START_SECONDS = 180.0
"""Seconds that a crowd may need until all have their first token, on a busy machine."""
OF_CONTROL = 2.0
"""By how much more than the control the machine may hold up another operator."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Measured:
    """What a row came to."""

    seen: Watched | None = None
    requests: int = 0
    tokens: int = 0
    first: float = 0.0  # seconds until all had their first token
    probes: int = 0  # of an endpoint that was down
    down: float = 0.0  # seconds for which they were counted
    gaps: list[float] = field(default_factory=list)  # seconds between two probes
    fresh: float = 0.0  # seconds after the first token until all were
    refused: float = 0.0  # share of the requests
    punctual: float = 0.0  # share of the refreshes that were at most 1 s late, by the operator's own histogram

    def line(self, name: str) -> str:
        """Tell it."""
        told = [f"{name:<12}"]
        if self.seen is not None:
            told.append(
                f"worst {self.seen.worst:5.1f} s, p99 {self.seen.p99:5.1f} s late, expired {self.seen.expired:5.1f} s"
            )
        if self.tokens:
            told.append(f"{self.requests / self.tokens:.2f} requests per token")
        told += [f"first tokens within {self.first:.1f} s"] if self.first else []
        if self.gaps:
            told.append(f"{self.probes} probes in {self.down:.0f} s, at least {min(self.gaps):.1f} s apart")
        told += [f"fresh {self.fresh:.1f} s after the first token"] if self.fresh else []
        told += [f"{self.refused:.1%} refused"] if self.refused else []
        told += [f"{self.punctual:.1%} at most 1 s late"] if self.punctual else []
        return ", ".join(told)


class Stage:
    """What a row stands on: an operator of its own, and crowds in two namespaces of its own."""

    def __init__(
        self, cluster: Cluster, sandbox: SandboxProcess, make_operator: StartOperator, urls: tuple[str, ...]
    ) -> None:
        self._make, self._urls, self._sandbox = make_operator, urls, sandbox
        self._running = ExitStack()
        self._names = [self._running.enter_context(new_namespace(cluster)) for _ in range(2)]
        self.shop, self.evil = (Objects(cluster, name) for name in self._names)
        self.began = time.monotonic()

    def __enter__(self) -> Self:
        """Start the operator."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start(self) -> OperatorProcess:
        """Start the operator."""
        flags = ["--token-url", self._urls[0], "--min-refresh-interval", "5s"]
        flags += ["--graphql-url", self._sandbox.https_graphql_url]
        for name in self._names:
            flags += ["--namespace", name]
        self.operator = self._running.enter_context(self._make(*flags)).wait_ready()
        return self.operator

    def restart(self) -> None:
        """End the operator as a crash does, and start it again: it remembers nothing."""
        self.operator.kill()
        self.start()

    def refreshes(self, le: str = "+Inf") -> float:
        """How many refreshes were published, as late as a bound of the histogram at most."""
        return self.operator.metric("tuinly_refresh_lateness_seconds_bucket", le=le) or 0.0

    def punctual(self) -> float:
        """Which share of all refreshes was at most 1 s late."""
        return self.refreshes("1.0") / max(1.0, self.refreshes())

    def crowd(self, name: str, count: int, *, evil: bool = False, lifetime: float = LIFETIME) -> Crowd:
        return Crowd(self.evil if evil else self.shop, self._sandbox.admin, name, count, lifetime)

    def good(self, count: int = GOOD, name: str = "good", lifetime: float = LIFETIME) -> Crowd:
        """Make credentials, and wait until they are in good standing; those of 90 s are due evenly over the time."""
        crowd = self.crowd(name, count, lifetime=lifetime).start(spread=40.0 if lifetime == LIFETIME else 0.0)
        wait_until(lambda: crowd.tokens() >= count, what="the first tokens", seconds=START_SECONDS)
        return crowd

    def bad(self, count: int) -> list[Crowd]:
        """Make so many credentials of all bad kinds, or of as many kinds as there are credentials."""
        return [
            self.crowd(f"bad-{kind}", each, evil=True).start(fault=BAD[kind])
            for kind, each in shares(count).items()
            if each
        ]

    def until(self, seconds: float) -> None:
        """Wait for the time since the last call of `begin`: what happens by then is the row."""
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))

    def begin(self) -> None:
        self.began = time.monotonic()


def shares(count: int) -> dict[str, int]:
    """How many of each bad kind make so many in all; a single one gets no answer."""
    kinds = list(reversed(BAD))
    return {kind: (count + len(kinds) - 1 - number) // len(kinds) for number, kind in enumerate(kinds)}


def counted(measured: Measured, *crowds: Crowd) -> Measured:
    """Add what the endpoint has seen of crowds."""
    measured.requests = sum(crowd.requests() for crowd in crowds)
    measured.tokens = sum(crowd.tokens() for crowd in crowds)
    return measured


def beside(stage: Stage, count: int = 200) -> Measured:
    """So many bad ones of all kinds."""
    good = stage.good()
    stage.begin()
    with watched(good) as seen:
        stage.bad(count)
        stage.until(SECONDS)
    return counted(Measured(seen, punctual=stage.punctual()), good)


def beside_20(stage: Stage) -> Measured:
    return beside(stage, 20)


def beside_1(stage: Stage) -> Measured:
    return beside(stage, 1)


def control(stage: Stage) -> Measured:
    """None: what the machine alone does to good ones."""
    return beside(stage, 0)


def restarted(stage: Stage) -> Measured:
    """The same with restarts, edits of the bad ones' Secrets, and bad ones that are deleted and made again."""
    good, bad = stage.good(), stage.bad(200)
    stage.begin()
    with watched(good) as seen:
        for second in range(10, int(SECONDS), 10):
            stage.until(second)
            if second % 60 == 0:
                stage.restart()
            for crowd in bad:
                crowd.edit_secret()
            again = bad[second // 10 % len(bad)]
            again.make_again(again.names[:10])
        stage.until(SECONDS)
    return counted(Measured(seen), good)


def made_at_once(stage: Stage) -> Measured:
    """200 new ones, and 200 bad ones of all kinds."""
    good = stage.crowd("good", GOOD)
    start = time.monotonic()
    with ThreadPoolExecutor(2) as both:
        both.submit(stage.bad, 200)
        both.submit(good.start)
        wait_until(lambda: good.admin.clients() and good.tokens() >= GOOD, what="the first tokens", seconds=300)
    return Measured(first=time.monotonic() - start)


def turned(stage: Stage) -> Measured:
    """50 of them turn bad at once."""
    good = stage.good(GOOD - 50)
    with ThreadPoolExecutor(len(BAD)) as threads:
        turning = list(threads.map(lambda kind: stage.good(kind[1], f"turns-{kind[0]}"), shares(50).items()))
    stage.begin()
    with watched(good) as seen:
        for crowd, kind in zip(turning, shares(50), strict=True):
            crowd.answer(BAD[kind])
        stage.until(SECONDS)
    return counted(Measured(seen), good)


def outage(stage: Stage) -> Measured:
    """The endpoint resets, hangs, and asks for patience, for 60 s; an edge answers ten bad ones all the while."""
    good = stage.good()
    edge = [stage.crowd(f"edge-{kind}", 5, evil=True).start(fault=BAD[kind]) for kind in ("302", "404")]
    last = good.admin.requests()[-1].sequence
    stage.begin()
    with watched(good) as seen:
        start = time.monotonic()
        for seconds, fault in ((20, Fault(kind="reset")), (40, BAD["hang"]), (60, BAD["503"])):
            number = good.answer(fault)
            stage.until(seconds)
            good.admin.clear_faults(number)
        end, before = time.monotonic(), good.tokens()
        wait_until(lambda: good.tokens() > before, what="a token")
        back = time.monotonic()

        def all_fresh() -> bool:
            late = seen.look()
            return len(late) == GOOD and max(late) < 1

        wait_until(all_fresh, what="all are fresh", seconds=60)
        fresh = time.monotonic() - back
        seen.start()
        stage.until(SECONDS)
    of_good = [each.received_monotonic for each in good.admin.requests(good.client, since=last)]
    of_edge = [each.received_monotonic for crowd in edge for each in good.admin.requests(crowd.client, since=last)]
    trouble = min(time for time in of_good if time >= start)
    probes = sorted(time for time in [*of_good, *of_edge] if trouble + 10 <= time <= end)
    gaps = [later - earlier for earlier, later in itertools.pairwise(probes)]
    return Measured(seen, probes=len(probes), down=end - trouble - 10, gaps=gaps, fresh=fresh)


def every_fifth(stage: Stage) -> Measured:
    """Every fifth request, as the endpoint counts, is answered 500."""
    good = stage.good()
    stage.begin()
    requests, tokens = good.requests(), good.tokens()
    good.answer(Fault(kind="fail", every=5))
    with watched(good) as seen:
        stage.until(SECONDS)
    return Measured(seen, good.requests() - requests, good.tokens() - tokens)


def bounded(stage: Stage) -> Measured:
    """The endpoint allows 20 requests per second without bursts; 1,000 are due about the same time.

    It is down while they are made, so that they get their first tokens together: within seconds, to which come the 9 s
    of jitter. That all are due within 9 s is for the simulation.
    """
    good = stage.crowd("good", 1000, lifetime=180.0).start(fault=Fault(kind="fail"))
    good.admin.clear_faults(good.fault)
    wait_until(lambda: good.tokens() >= len(good.names), what="the first tokens", seconds=START_SECONDS)
    stage.begin()
    requests, tokens = good.requests(), good.tokens()
    good.answer(Fault(kind="throttle", rate=20))
    with watched(good) as seen:
        stage.until(SECONDS)
    asked, given = good.requests() - requests, good.tokens() - tokens
    return Measured(seen, asked, given, refused=(asked - given) / asked)


def another_hangs(stage: Stage) -> Measured:
    """500 credentials of another origin that hangs, and 20 whose verification does, at a third."""
    good = stage.good()
    others = stage.crowd("other", 500, evil=True).start({"tokenURL": stage._urls[1]}, BAD["hang"])  # noqa: SLF001
    # No refresh of theirs counts, which would be late by itself: a token is held until the one before nearly ends.
    verified = stage.crowd("verified", 20, evil=True, lifetime=3600.0).start({"verification": {"mode": "Enabled"}})
    wait_until(lambda: verified.tokens() >= len(verified.names), what="their first tokens", seconds=START_SECONDS)
    good.admin.fault(Fault(kind="hang", endpoint="graphql", seconds=30, client=verified.client))
    stage.begin()
    with watched(good) as seen:
        for second in range(0, int(SECONDS), 30):
            stage.until(second)
            verified.force(verified.names)
        stage.until(SECONDS)
    assert others.tokens() == 0
    return counted(Measured(seen, punctual=stage.punctual()), good)


def reset_at_once(stage: Stage) -> Measured:
    """A burst of 20 connections that are reset, each minute."""
    good, unlucky = stage.good(), stage.good(20, "unlucky", lifetime=3600.0)
    stage.begin()
    with watched(good) as seen:
        for second in (20, 80, 140):
            stage.until(second)
            unlucky.answer(Fault(kind="reset", count=20))
            unlucky.force(unlucky.names)
        stage.until(SECONDS)
    return counted(Measured(seen, punctual=stage.punctual()), good)


ROWS: list[Callable[[Stage], Measured]] = [
    beside_1,
    beside_20,
    beside,
    restarted,
    made_at_once,
    turned,
    outage,
    every_fifth,
    bounded,
    another_hangs,
    reset_at_once,
]


def is_about(test: str, row: str) -> bool:
    """Whether a test, by its name, looks at a row: as its parameter, or where it has none, as part of its name."""
    function, _, parameters = test.partition("[")
    return re.split(r"[-\]]", parameters)[0] == row if parameters else row in function


@pytest.fixture(scope="module")
def rows(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    sandbox: SandboxProcess,
    make_operator: StartOperator,
    other_token_urls: tuple[str, ...],
) -> Iterator[dict[str, Future[Measured]]]:
    """Run those rows of which a test was chosen, all at once."""
    chosen = {item.name for item in request.session.items}
    wanted = [row for row in ROWS if any(is_about(name, row.__name__) for name in chosen)]

    terminal = request.config.pluginmanager.getplugin("capturemanager")

    def play(row: Callable[[Stage], Measured]) -> Measured:
        with Stage(cluster, sandbox, make_operator, other_token_urls) as stage:
            measured = row(stage)
        with terminal.global_and_fixture_disabled():
            sys.stdout.write(f"\n{measured.line(row.__name__)}\n")
        return measured

    with ThreadPoolExecutor(len(wanted) + 1) as threads:
        yield {row.__name__: threads.submit(play, row) for row in [control, *wanted]}


Rows = dict[str, "Future[Measured]"]


def late(rows: Rows, name: str) -> Watched:
    seen = rows[name].result().seen
    assert seen is not None
    return seen


def of_machine(rows: Rows) -> float:
    """How many seconds late the machine may make good ones."""
    return OF_CONTROL * late(rows, "control").worst


def assert_none_expired(rows: Rows, name: str) -> None:
    """But for those whom the machine let expire."""
    assert late(rows, name).expired <= OF_CONTROL * late(rows, "control").expired


LATEST = [("beside_1", 5), ("beside_20", 5), ("beside", 5), ("restarted", 5), ("turned", 10)]


@pytest.mark.rule("LIM-17", "LIM-18", "LIM-20")
@pytest.mark.parametrize(("name", "seconds"), LATEST)
def test_good_ones_are_refreshed_in_time(rows: Rows, name: str, seconds: float) -> None:
    assert late(rows, name).worst <= seconds + of_machine(rows)
    assert_none_expired(rows, name)


@pytest.mark.rule("LIM-19")
def test_new_ones_get_their_first_token_made_at_once(rows: Rows) -> None:
    assert rows["made_at_once"].result().first <= 240 + of_machine(rows)


@pytest.mark.rule("LIM-21")
def test_an_endpoint_is_spared_and_all_are_fresh_soon_after_an_outage(rows: Rows) -> None:
    measured = rows["outage"].result()
    assert 1 < measured.probes <= measured.down / 5 + 1
    assert measured.fresh <= 10 + of_machine(rows)
    assert_none_expired(rows, "outage")


@pytest.mark.rule("LIM-22")
def test_every_fifth_request_may_fail(rows: Rows) -> None:
    measured = rows["every_fifth"].result()
    assert_none_expired(rows, "every_fifth")
    assert measured.requests <= 1.4 * measured.tokens


@pytest.mark.rule("LIM-23")
def test_an_endpoint_is_not_asked_quicker_than_bounded(rows: Rows) -> None:
    assert_none_expired(rows, "bounded")
    assert rows["bounded"].result().refused <= 0.1


@pytest.mark.rule("LIM-24", "LIM-26")
@pytest.mark.parametrize("name", ["another_hangs", "reset_at_once"])
def test_it_is_nothing_to_the_others(rows: Rows, name: str) -> None:
    late_by_the_machine = 1 - rows["control"].result().punctual
    assert rows[name].result().punctual >= 0.99 - OF_CONTROL * late_by_the_machine
    assert_none_expired(rows, name)
