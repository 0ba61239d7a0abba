"""How what kopf's threads see comes to the operator's loop: all of it and in order, whatever one call does."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from tests.unit.facts import UID, credential_object
from tuinly_operator.credential import Credential
from tuinly_operator.kube import Kube
from tuinly_operator.refusals import Refusals
from tuinly_operator.watch import CredentialWatch

MANY = 2000


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
    watch = CredentialWatch(
        kube,
        Refusals(),
        namespaces=(None,),
        selector="",
        begun=lambda: None,
        seen=heard.by("seen"),
        listed=heard.by("listed"),
        gone=heard.by("gone"),
    )
    watch._loop = asyncio.get_running_loop()  # noqa: SLF001 -- as `run` does
    return watch


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


async def test_a_list_is_told_from_an_event_and_an_end_from_both(watch: CredentialWatch, heard: Heard) -> None:
    """They do not prove the same. What is no credential is left out."""
    for kind in (None, "ADDED", "MODIFIED", "DELETED"):
        watch._hear(kind, credential_object())  # noqa: SLF001 -- what kopf's handler calls
        watch._hear(kind, {})  # noqa: SLF001 -- the same
    await until(lambda: len(heard.calls) >= 4)
    assert heard.calls == [("listed", UID), ("seen", UID), ("seen", UID), ("gone", UID)]
