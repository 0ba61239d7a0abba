"""The watch of Secrets: when it lists again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import pytest

from tests.unit.virtual import live
from tuinly_operator.base.chance import Chance
from tuinly_operator.domain.target import SecretMeta
from tuinly_operator.edges import secret_watch as secret_watch_module
from tuinly_operator.edges.kube import ApiFailure, Kube
from tuinly_operator.edges.refusals import Refusals
from tuinly_operator.edges.secret_watch import SecretWatch
from tuinly_operator.engine.store import Store


class Quiet:
    """An API server with one Secret, of which nothing is told after the list."""

    def __init__(self) -> None:
        self.version = 100
        self.watched: list[str] = []

    async def list_secrets(self, _: str | None) -> AsyncIterator[tuple[list[Mapping[str, Any]], str]]:
        meta = {"namespace": "shop", "name": "secret", "uid": "u", "resourceVersion": str(self.version)}
        yield [{"metadata": meta}], str(self.version)

    async def version_of_secrets(self, _: str | None) -> str:
        return str(self.version)

    async def watch_secrets(
        self, _: str | None, version: str, begun: Callable[[], None]
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        begun()
        self.watched.append(version)
        await asyncio.Event().wait()
        yield "BOOKMARK", {}


class Behind(Quiet):
    """One whose watch stays behind: its bookmarks tell of old versions."""

    async def watch_secrets(
        self, _: str | None, version: str, begun: Callable[[], None]
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        begun()
        self.watched.append(version)
        for _minute in range(90):
            await asyncio.sleep(60)
            yield "BOOKMARK", {"metadata": {"resourceVersion": version}}


class Away(Quiet):
    """One that is out of reach for long, and then back."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def list_secrets(self, namespace: str | None) -> AsyncIterator[tuple[list[Mapping[str, Any]], str]]:
        if self.failures:
            self.failures -= 1
            raise ApiFailure(None, "TimeoutError")
        async for page in super().list_secrets(namespace):
            yield page


@pytest.mark.rule("OUT-6")
async def test_it_tries_on_however_long_the_api_server_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_watch_module, "_MAX_BACKOFF", 0)
    kube, store = Away(1100), Store(lambda _: None, lambda _: None)
    watch = SecretWatch(cast("Kube", kube), store, None, Refusals(Chance(1)), Chance(1))
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(30):
        while not (watch.alive or running.done()):  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0)
    assert watch.listed
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.rule("ABS-8")
async def test_told_to_it_lists_again_and_watches_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_watch_module, "_PAUSE", 0)
    kube, store = Quiet(), Store(lambda _: None, lambda _: None)
    watch = SecretWatch(cast("Kube", kube), store, None, Refusals(Chance(1)), Chance(1))
    watch.list_again()  # nothing is under way
    running = asyncio.create_task(watch.run())
    for version in (100, 5, 7):
        async with asyncio.timeout(30):
            while len(kube.watched) < (100, 5, 7).index(version) + 1:  # noqa: ASYNC110 -- nothing tells of it
                await asyncio.sleep(0)
        kube.version = {100: 5, 5: 7}.get(version, 0)
        watch.list_again()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert kube.watched == ["100", "5", "7"]


async def test_told_to_between_two_watches_it_lists_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it backs off, as where an API server has just been restored from a backup."""
    monkeypatch.setattr(secret_watch_module, "_MAX_BACKOFF", 0)
    kube, store = Quiet(), Store(lambda _: None, lambda _: None)
    watch = SecretWatch(cast("Kube", kube), store, None, Refusals(Chance(1)), Chance(1))

    async def broken(*_: object) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        kube.version = 5
        if kube.version:
            raise ApiFailure(None, "ServerDisconnectedError")
        yield "BOOKMARK", {}

    async def told(failure: ApiFailure) -> None:
        monkeypatch.undo()
        watch.list_again()
        await back_off(failure)

    back_off = watch._back_off  # noqa: SLF001 -- where it is told
    monkeypatch.setattr(watch, "_back_off", told)
    monkeypatch.setattr(kube, "watch_secrets", broken)
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(30):
        while not kube.watched:  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0)
    assert kube.watched == ["5"]
    running.cancel()


class Breaking(Quiet):
    """One whose watches begin, tell of nothing, and break; but one that tells of a version."""

    def __init__(self, telling: int) -> None:
        super().__init__()
        self.telling = telling

    async def watch_secrets(
        self, _: str | None, version: str, begun: Callable[[], None]
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        begun()
        self.watched.append(version)
        if len(self.watched) == self.telling:
            yield "BOOKMARK", {"metadata": {"resourceVersion": "101"}}
        raise ApiFailure(None, "ServerDisconnectedError")


@pytest.mark.rule("ABS-9")
async def test_a_watch_that_begins_and_breaks_is_tried_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[int] = []

    def backoff(_: object, failed: int, **_options: float) -> float:
        failures.append(failed)
        return 0.0

    monkeypatch.setattr(secret_watch_module, "backoff", backoff)
    kube, store = Breaking(telling=4), Store(lambda _: None, lambda _: None)
    watch = SecretWatch(cast("Kube", kube), store, None, Refusals(Chance(1)), Chance(1))
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(30):
        while len(failures) < 6:  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0)
    running.cancel()
    assert failures[:6] == [1, 2, 3, 1, 2, 3]


@pytest.mark.rule("PUSH-4")
async def test_it_tells_how_far_it_has_come() -> None:
    """Push waits for that."""
    kube, store = Quiet(), Store(lambda _: None, lambda _: None)
    watch = SecretWatch(cast("Kube", kube), store, None, Refusals(Chance(1)), Chance(1))
    assert not watch.has_shown("1")
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(30):
        await watch.settled.wait()
    assert [watch.has_shown(version) for version in ("99", "100", "101", "1000", "no number")] == [
        *(True, True),
        *(False, False, False),
    ]
    running.cancel()


@pytest.mark.rule("ABS-8")
async def test_it_knows_where_it_waits_for_versions_that_are_gone() -> None:
    """As after a restore of etcd, whatever else has changed since."""
    kube, store = Quiet(), Store(lambda _: None, lambda _: None)
    watch = SecretWatch(cast("Kube", kube), store, None, Refusals(Chance(1)), Chance(1))
    assert not await watch.compare()  # it has seen nothing yet
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(30):
        await watch.settled.wait()
    ahead = []
    for kube.version in (100, 101, 99):
        ahead.append(await watch.compare())
    assert ahead == [False, False, True]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.rule("DRIFT-2")
async def test_what_the_store_has_already_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the echo of our own write, whose answer has come before."""
    read: list[str] = []

    class Counted(SecretMeta):
        @classmethod
        def from_object(cls, raw: Mapping[str, Any]) -> SecretMeta:
            read.append(raw["metadata"]["resourceVersion"])
            return SecretMeta.from_object(raw)

    class Telling(Quiet):
        async def watch_secrets(
            self, _: str | None, version: str, begun: Callable[[], None]
        ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
            begun()
            self.watched.append(version)
            meta = {"namespace": "shop", "name": "secret", "uid": "u"}
            for told in ("100", "101", "101", "102"):
                yield "MODIFIED", {"metadata": {**meta, "resourceVersion": told}}
            self.watched.append("all")
            await asyncio.Event().wait()

    monkeypatch.setattr(secret_watch_module, "SecretMeta", Counted)
    kube, store = Telling(), Store(lambda _: None, lambda _: None)
    watch = SecretWatch(cast("Kube", kube), store, None, Refusals(Chance(1)), Chance(1))
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(30):
        while "all" not in kube.watched:  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert read == ["100", "101", "102"]


@pytest.mark.rule("OUT-14")
@pytest.mark.parametrize(("kind", "lists"), [(Behind, 2), (Quiet, 1)], ids=["behind", "nothing changes"])
def test_a_watch_that_stays_behind_the_api_server_though_it_sends_bookmarks_lists_again(
    kind: type[Quiet], lists: int
) -> None:
    async def story() -> None:
        kube, store = kind(), Store(lambda _: None, lambda _: None)
        watch = SecretWatch(cast("Kube", kube), store, None, Refusals(Chance(1)), Chance(1))
        running = asyncio.create_task(watch.run())
        for _ in range(3):  # a census every ten minutes
            await asyncio.sleep(600)
            if kind is Behind:
                kube.version = 200
            assert not await watch.compare()
        await asyncio.sleep(1)
        assert kube.watched == ["100", "200"][:lists]
        running.cancel()

    live(story())
