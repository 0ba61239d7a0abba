"""The census, and the live reads that decide where it, or the watch, tells something else than the store knows."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from tests.unit.facts import OTHER_UID, UID, Json, credential, credential_object
from tuinly_operator import census as census_module
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.census import Census
from tuinly_operator.domain.credential import REFRESH_REQUESTED
from tuinly_operator.edges.kube import ApiFailure, Kube
from tuinly_operator.engine.store import Store
from tuinly_operator.reconciler.live import read_credential

ME, OTHER = NamespacedName("shop", "storefront"), NamespacedName("shop", "other")


class Cluster:
    """The credentials that there are, and the store, which may know others."""

    def __init__(self) -> None:
        self.there: dict[NamespacedName, Json] = {}
        self.failures: dict[NamespacedName, list[ApiFailure]] = {}
        self.list_failures: list[ApiFailure] = []
        self.reads: list[NamespacedName] = []
        self.store = Store(lambda _: None, lambda _: None, lambda key: self.census.ask_about(key))  # noqa: PLW0108 -- made below
        self.lost = 0
        self.namespaces: list[str | None] = [None]
        self.ahead = False
        self.went_back = 0
        self.lists = 0
        self.lets_list = asyncio.Event()
        self.lets_list.set()
        told: dict[str, Any] = {"lost": self.lose, "is_ahead": self.is_ahead, "went_back": self.list_all_again}
        self.census = Census(cast("Kube", self), self.store, lambda: self.namespaces, **told)

    def lose(self) -> None:
        self.lost += 1

    async def is_ahead(self) -> bool:
        return self.ahead

    def list_all_again(self) -> None:
        self.went_back += 1

    def put(self, key: NamespacedName, uid: str, version: str, **more: Any) -> None:  # noqa: ANN401 -- JSON
        self.there[key] = credential_object(
            {"metadata": {"namespace": key.namespace, "name": key.name, "uid": uid, "resourceVersion": version, **more}}
        )

    def know(self, key: NamespacedName, uid: str, version: str) -> None:
        meta = {"namespace": key.namespace, "name": key.name, "uid": uid, "resourceVersion": version}
        self.store.credential_seen(credential({"metadata": meta}))

    def bring(self, key: NamespacedName) -> None:
        """Have kopf list it as it is now."""
        self.store.credential_seen(credential(self.there[key]), listed=True)

    def known(self, key: NamespacedName) -> str | None:
        record = self.store.get(key)
        return record.credential.uid if record else None

    def confirmed(self) -> list[bool]:
        return [self.store.is_confirmed(record.credential.key) for record in self.store]

    def version(self, key: NamespacedName) -> str | None:
        record = self.store.get(key)
        return record.credential.version if record else None

    async def list_credentials(self, namespace: str | None) -> AsyncIterator[Mapping[str, Any]]:
        self.lists += 1
        await self.lets_list.wait()
        if self.list_failures and namespace in (None, "shop"):
            raise self.list_failures.pop()
        for key, raw in list(self.there.items()):
            if namespace in (None, key.namespace):
                yield raw

    async def serves_credentials(self) -> bool:
        return True

    async def find_credential(self, key: NamespacedName) -> tuple[Mapping[str, Any] | None, str]:
        self.reads.append(key)
        if self.failures.get(key):
            raise self.failures[key].pop()
        return self.there.get(key), "1000"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@asynccontextmanager
async def counted(census: Census) -> AsyncIterator[None]:
    """Take a census, and answer what is doubtful, for as long as this lasts."""
    tasks = [asyncio.create_task(part) for part in (census.run(), census.settle(), census.confirm())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0.001)


@pytest.mark.rule("ABS-4")
@pytest.mark.parametrize("version", ["5", "20"], ids=["the history went back", "the watch is late"])
async def test_the_census_tells_who_has_a_name_by_uid(cluster: Cluster, version: str) -> None:
    cluster.know(ME, UID, "10")
    cluster.know(OTHER, "another", "11")
    cluster.put(ME, OTHER_UID, version)
    cluster.put(OTHER, "another", "11")
    async with counted(cluster.census):
        await until(lambda: cluster.known(ME) == OTHER_UID)
    assert cluster.reads == [ME]


@pytest.mark.rule("ABS-4")
async def test_who_is_not_listed_is_dropped_if_a_live_read_confirms_it(cluster: Cluster) -> None:
    cluster.know(ME, UID, "10")
    cluster.know(OTHER, "another", "11")
    cluster.put(OTHER, "another", "11")
    async with counted(cluster.census):
        await until(lambda: cluster.known(ME) is None)
    assert cluster.reads == [ME]
    assert cluster.known(OTHER) == "another"


@pytest.mark.rule("OUT-8")
@pytest.mark.parametrize(
    "more",
    [{"generation": 7}, {"deletionTimestamp": "2026-11-24T07:00:00Z"}, {"annotations": {REFRESH_REQUESTED: "now"}}],
    ids=str,
)
async def test_a_change_that_the_watch_does_not_bring_is_found_by_the_census(cluster: Cluster, more: Json) -> None:
    """A server that is behind sends bookmarks all the same, so its watch counts as alive."""
    cluster.know(ME, UID, "10")
    cluster.put(ME, UID, "20", **more)
    async with counted(cluster.census):
        await until(lambda: cluster.version(ME) == "20")
    assert cluster.reads == [ME]


@pytest.mark.rule("OUT-8")
async def test_another_status_alone_costs_no_read(cluster: Cluster) -> None:
    cluster.know(ME, UID, "10")
    cluster.put(ME, UID, "20")
    async with counted(cluster.census):
        await until(lambda: cluster.census.taken)
    assert cluster.reads == []


# --- At a takeover ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def taken_over(cluster: Cluster) -> AsyncIterator[None]:
    """Another replica has led until now; no census is due."""
    cluster.store.start_afresh()
    cluster.census.taken_over()
    tasks = [asyncio.create_task(part) for part in (cluster.census.confirm(), cluster.census.settle())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.rule("REPL-14")
async def test_at_a_takeover_only_what_the_list_shows_otherwise_is_read(cluster: Cluster) -> None:
    gone, new = NamespacedName("shop", "gone"), NamespacedName("shop", "new")
    for key, uid in ((ME, UID), (OTHER, "another"), (gone, "gone")):
        cluster.know(key, uid, "10")
    cluster.put(ME, UID, "20")
    cluster.put(OTHER, "another", "20", generation=7)
    cluster.put(new, "new", "20")
    async with taken_over(cluster):
        await until(lambda: (cluster.known(new), cluster.known(gone)) == ("new", None))
    assert cluster.reads == [OTHER, new, gone]
    assert cluster.version(OTHER) == "20"
    assert all(cluster.confirmed())


@pytest.mark.rule("REPL-13")
async def test_a_list_that_hangs_or_fails_is_made_again_and_holds_up_no_read(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census_module, "_RETRY", 0.01)
    cluster.lets_list.clear()
    cluster.list_failures = [ApiFailure(500, "InternalError")] * 2
    cluster.know(ME, UID, "10")
    cluster.know(OTHER, "another", "10")
    cluster.put(ME, UID, "20")
    cluster.put(OTHER, "another", "20")
    async with taken_over(cluster):
        await until(lambda: cluster.lists)
        await read_credential(cast("Kube", cluster), cluster.store, ME)
        assert cluster.confirmed() == [True, False]
        cluster.lets_list.set()
        await until(lambda: all(cluster.confirmed()))
    assert cluster.lists == 3
    assert cluster.reads == [ME]


@pytest.mark.rule("REPL-13")
async def test_only_the_namespaces_whose_list_failed_are_listed_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census_module, "_RETRY", 0.01)
    other = NamespacedName("other", "storefront")
    cluster.namespaces = ["other", "shop"]
    cluster.list_failures = [ApiFailure(500, "InternalError")] * 3
    for key, uid in ((ME, UID), (other, "another")):
        cluster.know(key, uid, "10")
        cluster.put(key, uid, "20")
    async with taken_over(cluster):
        await until(lambda: all(cluster.confirmed()))
        await until(lambda: not cluster.list_failures)
    assert cluster.lists == 5
    assert cluster.reads == []


async def test_a_takeover_before_kopf_watches_anything_is_confirmed_once_it_does(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census_module, "_RETRY", 0.01)
    cluster.namespaces = []
    cluster.know(ME, UID, "10")
    cluster.put(ME, UID, "10")
    async with taken_over(cluster):
        for _ in range(10):
            await asyncio.sleep(0)
        assert cluster.lists == 0
        cluster.namespaces = [None]
        await until(lambda: all(cluster.confirmed()))
    assert cluster.lists == 1


@pytest.mark.rule("REPL-14")
async def test_a_list_that_began_before_a_takeover_says_nothing(cluster: Cluster) -> None:
    """Neither of what it shows, nor of what it lacks."""
    cluster.lets_list.clear()
    cluster.know(ME, UID, "10")
    cluster.know(OTHER, "another", "10")
    cluster.put(ME, UID, "10")
    async with taken_over(cluster):
        await until(lambda: cluster.lists == 1)
        cluster.store.start_afresh()
        cluster.census.taken_over()
        cluster.lets_list.set()
        cluster.lets_list = asyncio.Event()  # for the next list
        await until(lambda: cluster.lists == 2)
        assert cluster.confirmed() == [False, False]
        assert cluster.reads == []
        cluster.lets_list.set()
        await until(lambda: cluster.known(OTHER) is None)
    assert cluster.reads == [OTHER]


async def test_a_live_read_that_fails_is_made_again_and_holds_up_nobody_else(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census_module, "_RETRY", 0.01)
    cluster.failures[ME] = [ApiFailure(403, "Forbidden")] * 2
    cluster.know(ME, UID, "10")
    cluster.know(OTHER, "another", "11")
    async with counted(cluster.census):
        await until(lambda: cluster.known(ME) is cluster.known(OTHER) is None)
    assert cluster.reads == [ME, OTHER, ME, ME]


async def test_what_the_watch_tells_late_is_settled_by_a_live_read(cluster: Cluster) -> None:
    cluster.put(ME, OTHER_UID, "20")
    cluster.know(ME, OTHER_UID, "20")
    async with counted(cluster.census):
        await until(lambda: cluster.census.taken)
        cluster.know(ME, UID, "10")
        assert cluster.known(ME) == OTHER_UID
        await until(lambda: cluster.reads == [ME])
        await asyncio.sleep(0)
    assert cluster.known(ME) == OTHER_UID


async def test_a_name_is_asked_about_once_however_much_is_told_of_it(cluster: Cluster) -> None:
    cluster.know(ME, OTHER_UID, "20")
    for version in range(10, 20):
        cluster.know(ME, UID, str(version))
    cluster.put(ME, UID, "19")
    cluster.census.ask_about(ME)
    async with counted(cluster.census):
        await until(lambda: cluster.known(ME) == UID)
    assert cluster.reads == [ME]


@pytest.mark.rule("ABS-8")
@pytest.mark.parametrize(
    ("listed", "ahead", "back"), [("9", False, 1), ("10", False, 0), ("11", False, 0), ("10", True, 1)]
)
async def test_a_history_that_went_back_is_noticed(cluster: Cluster, listed: str, ahead: bool, back: int) -> None:  # noqa: FBT001 -- a case
    """No watch tells of it: each waits for what comes after the last that it has seen."""
    cluster.ahead = ahead
    cluster.know(ME, UID, "10")
    cluster.put(ME, UID, listed)
    async with counted(cluster.census):
        await until(lambda: cluster.census.taken)
    assert (cluster.went_back, cluster.reads) == (back, [])


@pytest.mark.rule("ABS-8")
async def test_kopf_is_given_the_time_that_it_takes_to_list_all_that_went_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start of it asks for a census, which finds those that it has not brought yet as they were."""
    monkeypatch.setattr(census_module, "_RETRY", 0.01)
    for key, uid in ((ME, UID), (OTHER, "another")):
        cluster.know(key, uid, "1000")
        cluster.put(key, uid, "10")
    async with counted(cluster.census):
        await until(lambda: cluster.went_back == 1)
        for lists in (2, 3):
            cluster.census.take_again()
            await until(lambda lists=lists: cluster.lists >= lists)  # type: ignore[misc]  # mypy reads no defaults
            cluster.bring(ME)
        await asyncio.sleep(0.05)
        assert cluster.went_back == 1
        cluster.bring(OTHER)
        cluster.put(OTHER, "another", "9")
        cluster.census.take_again()
        await until(lambda: cluster.went_back == 2)


@pytest.fixture
def half_brought(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Two credentials are there, and kopf has brought one of them; no wait is long."""
    monkeypatch.setattr(census_module, "_RETRY", 0.01)
    cluster.put(ME, UID, "10")
    cluster.put(OTHER, "another", "11")
    cluster.know(OTHER, "another", "11")
    return cluster


@pytest.mark.rule("OUT-4")
async def test_kopf_that_brings_none_of_what_is_listed_is_started_anew(half_brought: Cluster) -> None:
    cluster = half_brought
    async with counted(cluster.census):
        await until(lambda: cluster.lost)
        assert cluster.census.unseen() == {ME}
        cluster.know(ME, UID, "10")
        assert cluster.census.unseen() == set()


async def test_how_many_are_missing_leaves_out_those_that_went_meanwhile(half_brought: Cluster) -> None:
    """Also while no list works, so that nothing comes of a new one."""
    cluster = half_brought
    async with counted(cluster.census):
        await until(lambda: cluster.census.taken)
        assert cluster.census.behind == 1
        cluster.list_failures = [ApiFailure(500, "InternalError")] * 100_000
        await until(lambda: len(cluster.list_failures) < 100_000)
        cluster.know(ME, UID, "10")
        gone = {"namespace": OTHER.namespace, "name": OTHER.name, "uid": "another", "resourceVersion": "12"}
        cluster.store.credential_ended(credential({"metadata": gone}))
        assert cluster.known(OTHER) is None
        assert cluster.census.behind == 0


async def test_very_many_that_are_missing_are_told_by_their_number_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for twenty times a second. Who came and went counts as missing until fewer are."""
    monkeypatch.setattr(census_module, "_PIECE", 3)
    names = [NamespacedName("shop", f"shop-{number}") for number in range(6)]
    for name in names:
        cluster.put(name, f"uid-{name.name}", "10")
    async with counted(cluster.census):
        await until(lambda: cluster.census.taken)
        cluster.know(names[0], f"uid-{names[0].name}", "10")
        cluster.store.credential_gone(names[0], f"uid-{names[0].name}")
        assert cluster.census.behind == 6
        for name in names[1:4]:
            cluster.know(name, f"uid-{name.name}", "10")
        assert cluster.census.behind == 2


async def test_between_two_censuses_no_table_is_kept(cluster: Cluster) -> None:
    """With 100,000 credentials each takes more than 10 MB."""
    for number in range(50):
        cluster.put(NamespacedName("shop", f"shop-{number}"), f"uid-{number}", "10")
        cluster.know(NamespacedName("shop", f"shop-{number}"), f"uid-{number}", "10")
    task = asyncio.create_task(cluster.census.run())
    await until(lambda: cluster.census.taken)
    await asyncio.sleep(0.05)
    [frame] = task.get_stack(limit=1)
    kept = [name for name, value in frame.f_locals.items() if isinstance(value, dict) and len(value) >= 50]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert kept == []


async def test_who_came_and_went_is_missed_by_nobody_whether_anybody_asked_meanwhile_or_not(cluster: Cluster) -> None:
    cluster.put(ME, UID, "10")
    async with counted(cluster.census):
        await until(lambda: cluster.census.taken)
        for _ in range(2):
            assert cluster.census.unseen() == {ME}
        cluster.know(ME, UID, "10")
        cluster.store.credential_ended(credential({"metadata": {"uid": UID, "resourceVersion": "11"}}))
        assert cluster.known(ME) is None
        assert cluster.census.unseen() == set()


async def test_an_earlier_credential_of_its_name_is_not_taken_for_one_that_was_listed(cluster: Cluster) -> None:
    cluster.know(ME, OTHER_UID, "8")
    cluster.store.credential_gone(ME, OTHER_UID)
    cluster.put(ME, UID, "10")
    async with counted(cluster.census):
        await until(lambda: cluster.census.taken)
        assert cluster.census.unseen() == {ME}


@pytest.mark.rule("OUT-4")
async def test_kopf_that_takes_its_time_is_left_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census_module, "_RETRY", 0.01)
    cluster.put(ME, UID, "10")
    async with counted(cluster.census):
        await until(lambda: cluster.census.taken)
        cluster.know(ME, UID, "10")
        cluster.census.take_again()
        cluster.put(OTHER, "another", "11")
        await until(lambda: cluster.census.unseen() == {OTHER})
        cluster.know(OTHER, "another", "11")
    assert cluster.lost == 0


@pytest.mark.rule("OUT-5")
async def test_where_a_list_is_refused_kopf_is_to_find_out_which(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told of namespaces that may not be watched; any other failure is tried again, and nothing is dropped."""
    monkeypatch.setattr(census_module, "_RETRY", 0.01)
    cluster.know(ME, UID, "10")
    cluster.put(ME, UID, "10")
    cluster.list_failures = [ApiFailure(403, "Forbidden"), ApiFailure(500, "InternalError")]
    async with counted(cluster.census):
        await until(lambda: cluster.census.taken)
    assert (cluster.lost, cluster.known(ME)) == (1, UID)
