"""How what kopf's threads see comes to the operator's loop, and for which namespaces kopf runs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import pytest
from kopf._cogs.structs import bodies

from tests.unit.facts import UID, credential_object
from tuinly_operator.base.chance import Chance
from tuinly_operator.domain.credential import PLURAL, Credential
from tuinly_operator.edges import credential_watch as watch_module
from tuinly_operator.edges.credential_watch import CredentialWatch, WatchEnded
from tuinly_operator.edges.kube import ApiFailure, Kube, credentials_path
from tuinly_operator.edges.refusals import SECRETS, Refusal, Refusals

MANY = 2000
UNDEFINED = "the API server does not know TuinlyCredentials; is the CRD installed?"


class Heard:
    """What the operator's loop was told, by whom."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def by(self, name: str) -> Callable[[Credential], None]:
        return lambda credential: self.calls.append((name, credential.uid))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def watch(heard: Heard) -> CredentialWatch:
    kube = cast("Kube", None)  # nobody is asked
    return CredentialWatch(
        kube,
        Refusals(Chance(1)),
        Chance(1),
        watch_loop=asyncio.new_event_loop,
        namespaces=(None,),
        selector="",
        begun=lambda: None,
        created=heard.by("created"),
        seen=heard.by("seen"),
        listed=heard.by("listed"),
        gone=heard.by("gone"),
    )


def tell(watch: CredentialWatch, what: Callable[..., None], *all_args: object) -> Coroutine[Any, Any, None]:
    """Tell from another thread, one after the other."""

    def work() -> None:
        for args in all_args:
            watch._tell(what, args)  # noqa: SLF001 -- what the handlers call

    return asyncio.to_thread(work)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until it holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0)


async def test_all_comes_in_order_from_several_threads_at_once(watch: CredentialWatch) -> None:
    seen: list[tuple[str, int]] = []
    threads = "ab"
    await asyncio.gather(*(tell(watch, seen.append, *((name, n) for n in range(MANY))) for name in threads))
    await until(lambda: len(seen) >= MANY * len(threads))
    assert all([n for who, n in seen if who == name] == list(range(MANY)) for name in threads)


async def test_a_burst_lets_others_have_a_turn(watch: CredentialWatch) -> None:
    """What is told while calls are made waits for the next turn of the loop."""
    turns: list[str] = []

    def first(_: object) -> None:
        asyncio.get_running_loop().call_soon(turns.append, "another")
        watch._tell(turns.append, "told meanwhile")  # noqa: SLF001 -- as a thread may at this very moment

    await tell(watch, first, None)
    await until(lambda: len(turns) >= 2)
    assert turns == ["another", "told meanwhile"]


async def test_a_call_that_fails_keeps_no_other_from_being_made(watch: CredentialWatch) -> None:
    seen: list[object] = []
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def odd(number: object) -> None:
        if number == 0:
            raise ValueError
        seen.append(number)

    await tell(watch, odd, 0, 1, 0, 2, 3)
    await until(lambda: len(seen) >= 3)
    assert seen == [1, 2, 3]
    assert [type(each) for each in failures] == [ValueError, ValueError]


class Pages:
    """An API server with a list of so many pages."""

    def __init__(self, *pages: list[Mapping[str, Any]]) -> None:
        self.pages = pages

    async def list_whole_credentials(self, _: str | None) -> AsyncIterator[tuple[list[Mapping[str, Any]], str]]:
        for number, page in enumerate(self.pages, start=1):
            yield page, str(number)


@pytest.mark.rule("SEC-25")
async def test_a_list_is_told_from_an_event_and_an_end_from_both(watch: CredentialWatch, heard: Heard) -> None:
    """They do not prove the same. What is no credential is left out."""
    vars(watch)["_kube"] = Pages([{}, credential_object()], [])
    assert await watch._list("shop") == "2"  # noqa: SLF001 -- what is asked for in kopf's stead
    for kind in ("ADDED", "MODIFIED", "DELETED"):
        watch._hear(kind, credential_object())  # noqa: SLF001 -- what kopf's handler calls
        watch._hear(kind, {})  # noqa: SLF001 -- the same
    await until(lambda: len(heard.calls) >= 4)
    assert heard.calls == [("listed", UID), ("created", UID), ("seen", UID), ("gone", UID)]


async def test_kopf_keeps_nothing_of_an_object_between_two_events() -> None:
    memories = watch_module._NoMemories()  # noqa: SLF001 -- what kopf is given
    raw = cast("bodies.RawBody", credential_object())
    one = await memories.recall(raw, noticed_by_listing=True)
    other = await memories.recall(raw, memobase=one.memo)
    assert one is not other
    assert one.noticed_by_listing
    assert list(memories.iter_all_memories()) == []


# --- When kopf runs, and for whom -------------------------------------------------------------------------------------


class Cluster:
    """An API server that may not know the resource, or refuse some namespaces, and kopf's thread without kopf."""

    silence = 1.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.defined = True
        self.refused: set[str | None] = set()
        self.failure: Exception | None = None
        self.started: list[list[str | None]] = []
        self.refusals = Refusals(Chance(1))
        self.begun = 0
        self.deaf: set[str | None] = set()  # namespaces whose watch is not answered
        self.silence, self.reachable = 0.15, True
        monkeypatch.setattr(watch_module, "_DISCOVERY_SECONDS", 0.0)
        monkeypatch.setattr(self.refusals, "pause", lambda _: 0.0)

    def watch(self, *namespaces: str | None) -> CredentialWatch:
        nothing: Callable[[Credential], None] = lambda _: None  # noqa: E731 -- typed
        watch = CredentialWatch(
            cast("Kube", self),
            self.refusals,
            Chance(1),
            watch_loop=asyncio.new_event_loop,
            namespaces=namespaces,
            selector="",
            begun=self._begin,
            created=nothing,
            seen=nothing,
            listed=nothing,
            gone=nothing,
        )
        vars(watch)["_run_kopf"] = partial(self._run_kopf, watch)
        return watch

    async def serves_credentials(self) -> bool:
        return self.defined

    async def try_to_watch_credentials(self, namespace: str | None) -> None:
        if namespace in self.refused:
            raise ApiFailure(HTTPStatus.FORBIDDEN, "Forbidden")

    def _begin(self) -> None:
        self.begun += 1

    def _run_kopf(
        self,
        watch: CredentialWatch,
        loop: asyncio.AbstractEventLoop,
        stop: asyncio.Event,
        namespaces: list[str | None],
        ended: Callable[[Exception | None], None],
    ) -> None:
        self.started.append(namespaces)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            for namespace in set(namespaces) - self.deaf:
                watch._sign(watch._heard, credentials_path(namespace))  # noqa: SLF001 -- as kopf's session does
            if self.failure is None:
                runner.run(_wait(stop))
        watch._tell(ended, self.failure)  # noqa: SLF001 -- as its thread does


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


@asynccontextmanager
async def running(watch: CredentialWatch) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(watch.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_kopf_waits_for_the_definition_and_its_absence_is_told_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.defined = False
    watch = cluster.watch(None)
    async with running(watch):
        await until(lambda: watch.defined is False)
        for _ in range(100):
            await asyncio.sleep(0)
        assert (cluster.started, watch.alive) == ([], False)
        assert [record.getMessage() for record in caplog.records].count(UNDEFINED) == 1
        cluster.defined = True
        await until(lambda: watch.alive)
    assert (cluster.started, cluster.begun, watch.alive) == ([[None]], 1, False)


async def test_kopf_runs_for_those_that_may_be_watched_and_anew_once_another_may(cluster: Cluster) -> None:
    cluster.refused = {"gone", "later"}
    watch = cluster.watch("gone", "shop", "later")
    async with running(watch):
        await until(lambda: cluster.started == [["shop"]])
        assert list(watch.watched) == ["shop"]
        await until(lambda: watch.alive)
        cluster.refused = {"gone"}
        await until(lambda: cluster.started == [["shop"], ["shop", "later"]])
        assert watch.alive  # an orderly start makes nobody unready
        assert list(cluster.refusals) == [Refusal(PLURAL, "gone")]


async def test_where_all_are_refused_kopf_waits(cluster: Cluster) -> None:
    cluster.refused = {None}
    watch = cluster.watch(None)
    async with running(watch):
        await until(lambda: Refusal(PLURAL, None) in cluster.refusals)
        assert cluster.started == []
        cluster.refused = set()
        await until(lambda: watch.alive)
    assert list(cluster.refusals) == []


@pytest.mark.rule("OUT-5")
async def test_where_all_are_refused_later_kopf_does_not_run_and_it_says_so(cluster: Cluster) -> None:
    """The census, whose list was refused, has it started anew. What nobody watches it must not list."""
    watch = cluster.watch(None)
    async with running(watch):
        await until(lambda: watch.alive)
        cluster.refused = {None}
        watch.restart()
        await until(lambda: not watch.alive)
        assert list(watch.watched) == []
        cluster.refused = set()
        await until(lambda: watch.alive)
        assert list(watch.watched) == [None]
    assert cluster.started == [[None], [None]]


async def test_a_namespace_whose_secrets_are_refused_is_not_watched_either(cluster: Cluster) -> None:
    """Its credentials would be decided on without them."""
    secrets = Refusal(SECRETS, "gone")
    cluster.refusals.note(secrets, ApiFailure(HTTPStatus.FORBIDDEN, "Forbidden"))
    async with running(cluster.watch("gone", "shop")):
        await until(lambda: cluster.started == [["shop"]])
        cluster.refusals.end(secrets)
        await until(lambda: cluster.started == [["shop"], ["gone", "shop"]])


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_LOOK", 0.05)
    monkeypatch.setattr(watch_module, "_LATE", 0.1)


@pytest.mark.rule("OUT-4")
@pytest.mark.usefixtures("short_looks")
async def test_kopf_that_is_not_answered_in_one_namespace_is_started_anew(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """As where it found no such resource, or where the watch is refused, which it tries for ever."""
    cluster.deaf = {"shop"}
    watch = cluster.watch("garden", "shop")
    async with running(watch):
        await until(lambda: len(cluster.started) > 2)
        assert not watch.alive
        cluster.deaf = set()
        await until(lambda: watch.alive)
    told = [record for record in caplog.records if record.getMessage().startswith("kopf hears nothing")]
    assert {record.__dict__["fields"]["path"] for record in told} == {credentials_path("shop")}


@pytest.mark.rule("OUT-4")
@pytest.mark.usefixtures("short_looks")
async def test_kopf_whose_watch_falls_silent_for_good_is_started_anew(cluster: Cluster) -> None:
    watch = cluster.watch(None)
    async with running(watch):
        await until(lambda: watch.alive)
        await until(lambda: len(cluster.started) > 1)


@pytest.mark.rule("OUT-4")
@pytest.mark.usefixtures("short_looks")
@pytest.mark.parametrize("why", ["it lists", "an outage", "it hears"])
async def test_kopf_is_given_time(cluster: Cluster, why: str) -> None:
    watch = cluster.watch(None)
    if why != "it hears":
        cluster.deaf = {None}
    cluster.reachable = why != "an outage"
    async with running(watch):
        await until(lambda: bool(cluster.started))
        for _ in range(40):
            await asyncio.sleep(0.02)  # three looks in a row would be too many
            watch._pages[credentials_path(None)] += why == "it lists"  # noqa: SLF001 -- as a list does
            if why == "it hears":
                watch._sign(watch._heard, credentials_path(None))  # noqa: SLF001 -- as a watch does
        assert len(cluster.started) == 1


@pytest.mark.parametrize("failure", [NameError("of kopf"), None], ids=["it fails", "it just ends"])
async def test_kopf_that_ends_by_itself_is_a_part_that_ended(cluster: Cluster, failure: Exception | None) -> None:
    watch = cluster.watch(None)
    cluster.failure = failure
    async with running(watch) as task:
        if failure is None:
            await until(lambda: watch.alive)
            watch._stop()  # noqa: SLF001 -- by nobody who asked for another start
        with pytest.raises(NameError if failure else WatchEnded):
            await task
    assert not watch.alive
