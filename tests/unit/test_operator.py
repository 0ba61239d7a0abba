"""The operator as a whole, as far as it can be looked at without a cluster."""

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from tests.unit.facts import credential
from tuinly_operator import operator as operator_module
from tuinly_operator.base.chance import Chance
from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.base.iterations import Iterations
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.settings import Settings, SettingsError, parse_settings
from tuinly_operator.base.surroundings import Surroundings
from tuinly_operator.edges import credential_watch as watch_module
from tuinly_operator.edges.election import RELEASE_SECONDS
from tuinly_operator.edges.kube import ApiFailure, KubeconfigError
from tuinly_operator.edges.refusals import SECRETS, Refusal
from tuinly_operator.engine.limiter import Ask
from tuinly_operator.engine.parts import PATIENCE, Parts
from tuinly_operator.engine.workqueue import Order
from tuinly_operator.operator import Doors, Operator, run

BROKEN, SOUND = NamespacedName("shop", "broken"), NamespacedName("shop", "sound")


def made() -> Operator:
    """An operator with nothing but defaults, that has not started."""
    return Operator(parse_settings(["run"], {}), Surroundings.of_this_process())


async def test_a_turn_of_the_loop_for_which_others_waited_is_told_to_prometheus() -> None:
    surroundings = Surroundings.of_this_process()
    operator = Operator(parse_settings(["run"], {}), surroundings)
    surroundings.iterations.seen(0.2)
    told = b"".join(operator._metrics.render()).decode()  # noqa: SLF001 -- what is scraped
    assert 'tuinly_loop_held_seconds_bucket{le="0.1"} 0.0' in told
    assert 'tuinly_loop_held_seconds_bucket{le="0.25"} 1.0' in told


class Defective:
    """A reconciler with a defect that one credential brings to light."""

    def __init__(self) -> None:
        self.seen: list[NamespacedName] = []
        self.both = asyncio.Event()

    async def reconcile(self, key: NamespacedName) -> None:
        self.seen.append(key)
        if key == BROKEN:
            raise ZeroDivisionError
        self.both.set()


@pytest.mark.rule("OUT-12")
async def test_a_defect_is_logged_and_tried_again_in_a_minute_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    operator, reconciler = made(), Defective()
    monkeypatch.setattr(operator, "_reconciler", reconciler, raising=False)
    for why in operator._queue.holds:  # noqa: SLF001 -- nothing else opens it without an API server
        operator._queue.release(why)  # noqa: SLF001 -- the same
    operator._queue.add(BROKEN)  # noqa: SLF001 -- the same
    operator._queue.add(SOUND)  # noqa: SLF001 -- the same
    worker = asyncio.create_task(operator._work())  # noqa: SLF001 -- the part under test
    async with asyncio.timeout(10):
        await reconciler.both.wait()
    worker.cancel()
    assert reconciler.seen == [BROKEN, SOUND]
    again = operator._timers.get(BROKEN)  # noqa: SLF001 -- what it leaves behind
    assert again is not None
    assert 50 < again.remaining(operator._clock.now()) <= 60  # noqa: SLF001 -- the same
    due = Deadline.after(5.0, operator._clock.now())  # noqa: SLF001 -- the same
    operator._timers.set(BROKEN, due)  # noqa: SLF001 -- a refresh that is due before
    await operator._reconcile(BROKEN)  # noqa: SLF001 -- the same
    assert operator._timers.get(BROKEN) == due  # noqa: SLF001 -- the same
    assert operator._timers.get(SOUND) is None  # noqa: SLF001 -- the same
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.rule("WHEN-11")
@pytest.mark.parametrize(
    ("waiting", "closed", "gives_way"),
    [(True, False, True), (False, False, False), (True, True, False)],
    ids=["others wait", "nobody waits", "others wait, but the queue is closed"],
)
async def test_a_report_gives_way_to_tokens_only_where_its_turn_will_come(
    waiting: bool,  # noqa: FBT001 -- a column of the table
    closed: bool,  # noqa: FBT001 -- the same
    gives_way: bool,  # noqa: FBT001 -- the same
) -> None:
    """Behind a queue that SIGTERM, an outage or a lost lead has closed, it would not be told at all."""
    operator = made()
    queue = operator._queue  # noqa: SLF001 -- nothing else opens it without an API server
    for why in queue.holds:
        queue.release(why)
    if waiting:
        queue.add(SOUND)
    if closed:
        queue.hold("the operator is stopping")
    before = len(queue)
    assert operator._give_way(BROKEN) is gives_way  # noqa: SLF001 -- the part under test
    assert len(queue) == before + gives_way


class Resting:
    """A reconciler that finds nothing to do, and so waits for nothing."""

    async def reconcile(self, key: NamespacedName) -> None:
        pass


@pytest.mark.rule("OUT-13")
async def test_a_full_queue_lets_others_have_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the renewal of the Lease, when a new leader looks at all credentials."""
    operator = made()
    monkeypatch.setattr(operator, "_reconciler", Resting(), raising=False)
    queue = operator._queue  # noqa: SLF001 -- nothing else opens it without an API server
    for why in queue.holds:
        queue.release(why)
    for number in range(100):
        queue.add(NamespacedName("shop", str(number)))
    worker = asyncio.create_task(operator._work())  # noqa: SLF001 -- the part under test
    await asyncio.sleep(0)
    assert 0 < len(queue) < 100
    worker.cancel()


class Standing:
    """A clock that stands."""

    def now(self) -> Moment:
        return Moment(1_800_000_000.0, 1_000.0)


async def begun(
    monkeypatch: pytest.MonkeyPatch, ends: Mapping[NamespacedName, float], first: NamespacedName
) -> list[str]:
    """In which order credentials are looked at whose tokens end after so many seconds; `first` has waited longest."""
    surroundings = Surroundings(Standing(), Chance(1), "pod", Iterations(lambda: 0.0, lambda: 0.0))
    operator = Operator(parse_settings(["run"], {}), surroundings)
    now = surroundings.clock.now().wall
    monkeypatch.setattr(operator._store, "token_end", lambda key: now + ends[key] if key in ends else None)  # noqa: SLF001
    queue = operator._queue  # noqa: SLF001 -- nothing else opens it without an API server
    for why in queue.holds:
        queue.release(why)
    for key in (first, *ends):
        queue.add(key)
    return [(await queue.get()).name for _ in range(1 + len(ends))]


@pytest.mark.rule("WHEN-10")
async def test_refreshes_without_end_do_not_keep_a_credential_from_its_first_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = {NamespacedName("shop", f"{seconds} s"): float(seconds) for seconds in (3600, 61, 30)}
    order = await begun(monkeypatch, ends, SOUND)
    assert [name for name in order if name != SOUND.name] == ["30 s", "61 s", "3600 s"]
    assert SOUND.name in order[:2]


@pytest.mark.rule("WHEN-10")
async def test_ended_tokens_take_turns_with_living_ones_and_by_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant whose tokens have all ended delays neither the refreshes nor the first tokens of others."""
    ended = {NamespacedName("evil", f"ended {number}"): -100.0 for number in range(5)}
    ends = {**ended, NamespacedName("good", "ended"): -1.0, NamespacedName("good", "due"): 300.0}
    order = await begun(monkeypatch, ends, NamespacedName("evil", "none"))
    assert {"due", "ended"} < set(order[:5])


@pytest.mark.rule("WHEN-11")
async def test_a_suspended_credential_waits_behind_the_others() -> None:
    operator, suspended = made(), credential({"spec": {"suspend": True}})
    operator._store.credential_seen(suspended)  # noqa: SLF001 -- as the watch does
    assert operator._urgency(suspended.key).order is Order.STATUS  # noqa: SLF001 -- the part under test
    assert operator._urgency(SOUND).order is Order.ENDED  # noqa: SLF001 -- the same


class Watch:
    """A watch of Secrets or credentials, as far as readiness looks at it; or a census."""

    def __init__(self) -> None:
        self.what = Refusal(SECRETS, None)
        self.settled = asyncio.Event()
        self.listed = self.alive = self.taken = False
        self.defined: bool | None = None
        self.behind = 1

    def succeed(self) -> None:
        self.settled.set()
        self.listed = self.alive = self.taken = self.defined = True
        self.behind = 0


@dataclass
class Starting:
    """An operator that has just started, and what it waits for."""

    operator: Operator
    secrets: Watch
    credentials: Watch
    census: Watch

    @property
    def unfit(self) -> str:
        self.operator._note_lists()  # noqa: SLF001 -- as one of its parts does again and again
        return self.operator._unfit()  # noqa: SLF001 -- what the election asks

    def lose(self, seconds: float = PATIENCE) -> None:
        """Have the timers end, and not come back."""
        clock = [0.0]
        parts = self.operator._parts = Parts(lambda: clock[0], Chance(1))  # noqa: SLF001 -- nothing else has such a clock
        part = parts.add("the timers", self.operator._timers.run)  # noqa: SLF001 -- it is never run
        part._ended = 0.0  # noqa: SLF001 -- as its `keep` does
        clock[0] = seconds


@pytest.fixture
async def starting(monkeypatch: pytest.MonkeyPatch) -> Starting:
    starting = Starting(made(), Watch(), Watch(), Watch())
    monkeypatch.setattr(starting.operator, "_secret_watches", [starting.secrets], raising=False)
    monkeypatch.setattr(starting.operator, "_credential_watch", starting.credentials, raising=False)
    monkeypatch.setattr(starting.operator, "_census", starting.census, raising=False)
    monkeypatch.setattr(starting.operator, "_kube", SimpleNamespace(login_trouble=""), raising=False)
    return starting


@pytest.mark.rule("REPL-5")
def test_a_replica_may_lead_once_everything_has_been_listed_and_from_then_on(starting: Starting) -> None:
    """An outage, a census that lags, or a definition that goes are no reasons to give up the lead."""
    for part in (starting.secrets, starting.credentials, starting.census):
        assert starting.unfit == "not everything has been listed yet"
        part.succeed()
    assert starting.unfit == ""
    for part in (starting.secrets, starting.credentials, starting.census):
        vars(part).update(vars(Watch()))
    assert starting.operator.ready()
    assert (starting.unfit, starting.operator.alive()) == ("", [])


@pytest.mark.rule("REPL-13")
@pytest.mark.parametrize("again", [False, True], ids=["after another", "again"])
async def test_a_promotion_after_another_leader_has_all_credentials_listed(
    monkeypatch: pytest.MonkeyPatch,
    again: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    operator, asked = made(), list[str]()
    census = SimpleNamespace(taken_over=lambda: asked.append("list"))
    monkeypatch.setattr(operator, "_census", census, raising=False)
    operator._promoted(again)  # noqa: SLF001 -- what the election calls
    assert asked == ([] if again else ["list"])


@pytest.mark.rule("REPL-5")
def test_asking_whether_it_is_ready_or_may_lead_changes_nothing(starting: Starting) -> None:
    for part in (starting.secrets, starting.credentials, starting.census):
        part.succeed()
    before = dict(vars(starting.operator))
    for _ in range(2):
        assert starting.operator.ready() == []
        assert starting.operator._unfit() == "not everything has been listed yet"  # noqa: SLF001 -- what the election asks
        assert starting.operator.alive() == starting.operator.notes() == []
    assert vars(starting.operator) == before
    assert starting.unfit == ""


def test_it_is_ready_once_kopf_has_brought_all(starting: Starting) -> None:
    for part in (starting.secrets, starting.credentials, starting.census):
        part.succeed()
    starting.census.behind = 7
    assert starting.unfit == "not everything has been listed yet"
    assert starting.operator.ready() == ["TuinlyCredentials seen: all but 7"]
    starting.census.behind = 0
    assert starting.unfit == ""


@pytest.mark.rule("REPL-5")
def test_where_there_is_no_definition_there_is_nothing_to_wait_for(starting: Starting) -> None:
    """The 15 s of a first lead are over when it comes. The Secrets must be listed all the same."""
    starting.credentials.defined = False
    assert starting.unfit == "not everything has been listed yet"
    starting.secrets.succeed()
    assert starting.unfit == ""
    assert starting.operator.ready()


@pytest.mark.rule("REPL-5")
def test_what_is_refused_is_waited_for_by_nobody_but_it_is_not_all(starting: Starting) -> None:
    refused, operator = Watch(), starting.operator
    operator._secret_watches.append(refused)  # type: ignore[arg-type]  # noqa: SLF001 -- a second namespace
    refused.what = Refusal(SECRETS, "gone")
    for part in (starting.secrets, starting.credentials, starting.census):
        part.succeed()
    assert starting.unfit == "not everything has been listed yet"
    refused.settled.set()
    operator._refusals.note(refused.what, ApiFailure(403, "Forbidden"))  # noqa: SLF001 -- as its watch does
    assert starting.unfit == ""
    assert operator.notes() == ["may list and watch secrets in namespace gone: no"]


@pytest.mark.rule("OBS-20")
def test_an_api_server_that_does_not_answer_is_a_line_of_readyz(starting: Starting) -> None:
    """As in the log and the metric; that alone does not make the replica unready."""
    for part in (starting.secrets, starting.credentials, starting.census):
        part.succeed()
    starting.operator._api_within_reach(reachable=False)  # noqa: SLF001 -- as a request that failed does
    assert starting.operator.notes() == ["API server answers: no"]
    assert starting.operator.ready() == []


@pytest.mark.rule("OBS-20")
def test_a_lease_that_it_may_not_use_is_told_where_people_look(
    starting: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a replica that never leads would look well."""
    for part in (starting.secrets, starting.credentials, starting.census):
        part.succeed()
    assert starting.operator.notes() == []
    election = SimpleNamespace(obstacle="the API server answered 403 Forbidden")
    monkeypatch.setattr(starting.operator, "_election", election)
    [note] = starting.operator.notes()
    assert re.fullmatch(r"reads and writes the Lease \S+: no \(the API server answered 403 Forbidden\)", note)
    assert starting.operator.ready() == []


@pytest.mark.rule("LOGIN-4")
def test_a_login_that_cannot_be_renewed_is_a_line_of_readyz(
    starting: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ready all the same: requests use the last login."""
    for part in (starting.secrets, starting.credentials, starting.census):
        part.succeed()
    monkeypatch.setattr(starting.operator, "_kube", SimpleNamespace(login_trouble="the kubeconfig a is gone"))
    assert starting.operator.notes() == ["renews its login: no (the kubeconfig a is gone)"]
    assert starting.operator.ready() == []


def test_where_all_is_refused_nobody_is_ready(starting: Starting) -> None:
    starting.operator._refusals.note(starting.secrets.what, ApiFailure(403, "Forbidden"))  # noqa: SLF001 -- as its watch
    for part in (starting.secrets, starting.credentials, starting.census):
        part.succeed()
    assert starting.operator.ready() == ["Secrets listed: no"]
    assert starting.unfit == "not everything has been listed yet"


@pytest.mark.rule("REPL-6")
@pytest.mark.parametrize(("seconds", "lost"), [(PATIENCE - 1, False), (PATIENCE, True)])
def test_who_has_lost_a_part_gives_up_the_lead_and_is_to_be_restarted(
    starting: Starting,
    seconds: float,
    lost: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    for part in (starting.secrets, starting.credentials, starting.census):
        part.succeed()
    assert starting.unfit == ""
    starting.lose(seconds)
    said = "the timers ended and did not come back"
    assert (starting.unfit, starting.operator.alive()) == ((said, [said]) if lost else ("", []))


class Part:
    """A part of the operator that notes its end, and what else is asked of it."""

    def __init__(self, name: str, order: list[str]) -> None:
        self._name = name
        self._order = order
        self.listed = asyncio.Event()

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self._order.append(self._name)

    async def settle(self) -> None:
        await asyncio.Event().wait()

    renew_login = run
    confirm = settle

    async def release(self) -> None:
        self._order.append("released")


@pytest.mark.rule("REPL-19")
async def test_the_lead_is_given_up_once_nobody_works_and_before_the_rest_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest takes its time, in which another replica works already."""
    operator, stop, order = (
        made(),
        asyncio.Event(),
        list[str](),
    )
    for name in ("_election", "_events", "_census", "_pusher", "_kube"):
        monkeypatch.setattr(operator, name, Part(name, order), raising=False)
    for name in ("_watch_credentials", "_probe_api"):
        monkeypatch.setattr(operator, name, Part(name, order).run)
    monkeypatch.setattr(operator, "_secret_watches", [Part("_secret_watches", order)], raising=False)
    monkeypatch.setattr(operator, "_work", Part("_work", order).run)
    work = asyncio.create_task(operator.work_until(stop))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(10):
        await work
    before, after = order[: order.index("released")], order[order.index("released") + 1 :]
    assert set(before) == {"_election", "_work"}
    assert set(after) == {
        "_secret_watches",
        "_events",
        "_watch_credentials",
        "_census",
        "_pusher",
        "_kube",
        "_probe_api",
    }


@pytest.mark.rule("OUT-11")
async def test_a_part_that_does_not_end_keeps_no_other_replica_from_the_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_module, "_END_SECONDS", 0.1)
    ended = asyncio.Event()

    async def stubborn() -> None:
        while not ended.is_set():
            with suppress(asyncio.CancelledError):
                await ended.wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(10):
            await operator_module._end(task)  # noqa: SLF001 -- the step before the lead is given up
        assert not task.done()
    finally:
        ended.set()
        await task


async def test_the_limiter_is_tended_only_while_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, ticks = made(), 0
    tick = operator._limiter.tick  # noqa: SLF001 -- what is tended

    def counted(now: Moment) -> float | None:
        nonlocal ticks
        ticks += 1
        return tick(now)

    monkeypatch.setattr(operator._limiter, "tick", counted)  # noqa: SLF001 -- the same
    tending = asyncio.create_task(operator._tend_limiter())  # noqa: SLF001 -- the part under test
    await asyncio.sleep(0.6)  # longer than between two ticks
    assert ticks == 1
    ask = Ask(BROKEN, "https://oauth.tuinly.com")
    operator._limiter.park(ask, operator._clock.now())  # noqa: SLF001 -- the same
    async with asyncio.timeout(10):
        while ticks < 3:  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0.01)
    tending.cancel()


async def test_the_api_server_is_probed_only_while_it_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, probes, back = made(), 0, asyncio.Event()

    class Away:
        async def check_ready(self) -> None:
            nonlocal probes
            probes += 1
            if probes == 1:
                raise ApiFailure(None, "ConnectionRefusedError")
            operator._api_within_reach(reachable=True)  # noqa: SLF001 -- as the first answer does
            back.set()

    monkeypatch.setattr(operator_module, "_PROBE_SECONDS", 0.0)
    monkeypatch.setattr(operator, "_kube", Away(), raising=False)
    monkeypatch.setattr(operator, "_census", SimpleNamespace(take_again=lambda: None), raising=False)
    probing = asyncio.create_task(operator._probe_api())  # noqa: SLF001 -- the part under test
    for _ in range(5):
        await asyncio.sleep(0)
    assert probes == 0
    operator._api_within_reach(reachable=False)  # noqa: SLF001 -- as a request that failed does
    async with asyncio.timeout(10):
        await back.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert probes == 2
    probing.cancel()


class Opened:
    """Something that a start opens, and that is to be closed."""

    def __init__(self) -> None:
        self.closed = 0
        self.start: Callable[[], Awaitable[tuple[str, int]]]

    async def close(self) -> None:
        self.closed += 1

    aclose = stop = close


@pytest.mark.rule("OUT-11")
@pytest.mark.parametrize("fails", ["api", "listening", "neither"])
async def test_what_a_start_has_opened_is_closed_however_it_ends(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an error, or by SIGTERM while the login or the listening takes its time."""
    endpoint, api, health = Opened(), Opened(), Opened()
    reached = asyncio.Event()

    async def connect(*_: object, **__: object) -> Opened:
        if fails == "api":
            raise KubeconfigError("the kubeconfig cannot be used")
        return api

    async def listen() -> tuple[str, int]:
        reached.set()
        if fails == "listening":
            raise SettingsError("--listen cannot be used")
        await asyncio.Event().wait()
        raise AssertionError

    def made(settings: Settings, surroundings: Surroundings) -> Operator:
        given: dict[str, Any] = {"endpoint": lambda *_, **__: endpoint, "health": lambda *_, **__: health}
        return Operator(settings, surroundings, Doors(api=cast("Any", connect), **given))

    health.start = listen
    monkeypatch.setattr(operator_module, "Operator", made)
    monkeypatch.setattr(Operator, "_expose_state", lambda _: None)
    running = asyncio.create_task(run(parse_settings(["run"], {}), Surroundings.of_this_process()))
    if fails == "neither":
        await reached.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await running
    else:
        with pytest.raises(SettingsError):
            await running
    assert [endpoint.closed, api.closed, health.closed] == [1, int(fails != "api"), int(fails != "api")]


@pytest.mark.rule("OUT-11")
@pytest.mark.parametrize("manifest", ["install.yaml", "namespaced.yaml"])
def test_the_longest_stop_is_shorter_than_kubernetes_waits(manifest: str) -> None:
    """What is in flight, the parts (twice, around the Lease; kopf's thread is in one of them), and the connections."""
    text = (Path(__file__).parents[2] / "deploy" / manifest).read_text()
    [deployment] = [each for each in yaml.safe_load_all(text) if each["kind"] == "Deployment"]
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    end, close = operator_module._END_SECONDS, operator_module._CLOSE_SECONDS  # noqa: SLF001 -- of the stop
    assert end > watch_module._STOP_TIMEOUT  # noqa: SLF001 -- the longest that a part takes
    assert operator_module._GRACE + 2 * end + RELEASE_SECONDS + close < grace  # noqa: SLF001 -- the same
