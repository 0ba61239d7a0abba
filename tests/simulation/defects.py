"""Planted defects: each takes something away that the operator relies on, and the simulation must find it soon.

`python -m tests.simulation.defects` plays histories with each of them in turn, and tells after how many it was found.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

from tests.simulation.history import Result, play
from tuinly_operator.base.clock import Deadline
from tuinly_operator.domain import decision, status
from tuinly_operator.domain.credential import Revision
from tuinly_operator.domain.errors import Reason
from tuinly_operator.domain.memory import Memory
from tuinly_operator.domain.schedule import refresh_offset
from tuinly_operator.domain.target import target_manifest
from tuinly_operator.edges import election, secret_watch
from tuinly_operator.edges.kube import ApiFailure, Kube
from tuinly_operator.engine import store, timers, workqueue
from tuinly_operator.engine.leadership import Leadership
from tuinly_operator.engine.limiter import Limiter
from tuinly_operator.operator import Operator
from tuinly_operator.reconciler import obtain, publish, reconcile, report, retries
from tuinly_operator.reconciler.live import read_credential

Change = tuple[object, str, Any]  # what has it, its name, and what is there instead


def _nothing(*_: object, **__: object) -> None:
    """Do nothing."""


def _without_preconditions(manifest: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def make(*args: Any) -> dict[str, Any]:  # noqa: ANN401 -- as the real one's
        made = manifest(*args)
        for name in ("resourceVersion", "uid"):
            made["metadata"].pop(name, None)
        return made

    return make


async def _delete_whatever(self: Kube, key: Any, _meta: object) -> None:  # noqa: ANN401 -- a name
    await self.ask("DELETE", f"/api/v1/namespaces/{key.namespace}/secrets/{key.name}", body={})


async def _status_of_any(self: Kube, key: Any, _uid: str, told: Mapping[str, Any]) -> tuple[str, Revision]:  # noqa: ANN401 -- the same
    path = f"/apis/tuinly.com/v1alpha1/namespaces/{key.namespace}/tuinlycredentials/{key.name}/status"
    content = "application/merge-patch+json"
    answer = await self.ask("PATCH", path, query={"fieldManager": "x"}, body={"status": told}, content=content)
    return str(answer["metadata"]["resourceVersion"]), Revision.of(answer["metadata"])


async def _is_there(kube: Kube, store: store.Store, record: store.Record) -> bool:
    await read_credential(kube, store, record.credential.key)
    record.credential = replace(record.credential, deleting=False)
    return store.get(record.credential.key) is record


def _one_too_late(watch: Callable[..., Any]) -> Callable[..., Any]:
    def resume(self: Kube, namespace: str | None, version: str, begun: Callable[[], None]) -> Any:  # noqa: ANN401
        return watch(self, namespace, str(int(version) + 1), begun)

    return resume


def _done_and_forgotten(self: workqueue.WorkQueue, key: Any) -> None:  # noqa: ANN401 -- a name
    self._active.discard(key)
    self._again.pop(key, None)
    self._wake()


def _promoted(self: Operator, _again: bool) -> None:  # noqa: FBT001 -- as the real one
    self._store.look_at_all()
    self._queue.release("another replica leads")


def _telling(log: Callable[..., None]) -> Callable[..., None]:
    def tell(self: Any, record: Any, facts: Any, decided: Any) -> None:  # noqa: ANN401 -- as the real one
        logging.getLogger("tuinly_operator").warning("published %s", decided.token.reveal())
        log(self, record, facts, decided)

    return tell


def _at_once(*_: object) -> float:
    return 0.0


def _late(offset: Callable[..., float]) -> Callable[..., float]:
    return lambda refresh, state: offset(refresh, state) + 0.45 * state.lifetime


def _never_due(self: timers.Timers, _now: object) -> float:
    self._by_wall.clear()
    self._by_boot.clear()
    return float("inf")


async def _take_anyway(self: election.Election) -> None:
    try:
        await self._take()
    except ApiFailure as failure:
        if failure.status != 409:
            raise
        self._see(await self._kube.read_lease(self._key))
        await self._take()


DEFECTS: Final[dict[str, list[Change]]] = {
    "the fence is removed": [(Kube, "fence", _nothing)],
    "the fence is checked, but not in the step that sends": [
        (Leadership, "holds", lambda self, _s=0.0: self._until is not None)
    ],
    "a token request needs no lead that lasts": [(obtain, "ASKING_SECONDS", 0.0)],
    "the lead lasts too long": [(election, "GIVE_UP_SECONDS", 20.0)],
    "others take over too early": [(election, "_patience", lambda _lease: 4.0)],
    "a leader takes the Lease back, whoever has it": [(election.Election, "_renew", _take_anyway)],
    "a leader that was demoted goes on": [(Operator, "_demoted", _nothing)],
    "a new leader goes by what it remembers": [(Operator, "_promoted", _promoted)],
    "a new leader believes its watch": [
        (store.Store, "is_confirmed", lambda *_: True),
        (store.Store, "knows_status", lambda *_: True),
        (decision, "is_for_another", lambda *_: False),
    ],
    "targets are written without preconditions": [
        (publish, "target_manifest", _without_preconditions(target_manifest))
    ],
    "targets are deleted without preconditions": [(Kube, "delete_secret", _delete_whatever)],
    "a status is written whoever has the name": [(Kube, "write_status", _status_of_any)],
    "the watch resumes one version too late": [(Kube, "watch_secrets", _one_too_late(Kube.watch_secrets))],
    "a watch that lost its place goes on": [(secret_watch, "HTTPStatus", SimpleNamespace(GONE=999))],
    "what is missing in a list stays": [(store.Store, "secrets_listed", _nothing)],
    "a Secret that goes is not noticed": [(store.Store, "secret_gone", _nothing)],
    "a credential that goes is not noticed": [
        (store.Store, "credential_ended", _nothing),
        (store.Store, "credential_gone", _nothing),
        (store.Store, "credential_read", _nothing),
    ],
    "what a deletion leaves to itself gets its owner back": [
        (decision, "is_let_go", lambda *_: False),
        (publish, "is_served", _is_there),
    ],
    "doubts are never settled": [(Operator, "_ask_about", _nothing)],
    "a wake-up is forgotten: what changes during a reconcile": [(workqueue.WorkQueue, "done", _done_and_forgotten)],
    "a wake-up is forgotten: timers": [(timers.Timers, "fire", _never_due)],
    "a lost finally: the place at the endpoint": [(Limiter, "abandoned", _nothing), (Limiter, "failed", _nothing)],
    "waits that are over keep their places": [(Limiter, "keep_only", _nothing), (Limiter, "forget", _nothing)],
    "the later clock counts": [(Deadline, "due", lambda self, now: now.wall >= self.wall and now.boot >= self.boot)],
    "a refresh comes after the end": [(decision, "refresh_offset", _late(refresh_offset))],
    "any answer is better": [(decision, "compare", lambda *_: decision.Comparison.BETTER)],
    "an answer of no use is the same again": [(decision, "compare", lambda *_: decision.Comparison.SAME)],
    "no wait after a failure": [
        (retries, "retry_delay", _at_once),
        (decision, "_wait_before_attempt", _nothing),
    ],
    "a written token is forgotten": [(Memory, "wrote", lambda self, *_, **__: self)],
    "an obtained token is dropped": [(Memory, "obtained", lambda self, *_: self)],
    "the API server is never within reach again": [
        (Operator, "_api_within_reach", lambda self, reachable: reachable or self._queue.hold("out of reach"))
    ],
    "Ready stays True": [(status, "_ready", lambda *_: ("True", Reason.ISSUED, ""))],
    "the status is not written": [(report.Reporter, "report", lambda *_: _no_report())],
    "the log tells a token": [
        (publish.Publisher, "_tell_published", _telling(publish.Publisher._tell_published))  # noqa: SLF001 -- kept
    ],
    "a rotated client Secret is not noticed": [
        (decision, "client_changed", lambda *_: False),
        (decision, "_need_client", _nothing),
    ],
    "what failed is not tried again": [
        (reconcile.Reconciler, "_wake", _nothing),
        (reconcile.Reconciler, "_try_again", _nothing),
    ],
}


async def _no_report() -> None:
    pass


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have a defect."""
    with ExitStack() as changes:
        for owner, attribute, instead in DEFECTS[name]:
            changes.enter_context(patch.object(owner, attribute, instead))
        yield


def find(name: str, seconds: float, first: int = 1) -> tuple[Result | None, int, float]:
    """Play histories with a defect until one fails; how many it took, and how many seconds of CPU."""
    began, number = time.process_time(), 0
    with planted(name):
        while time.process_time() - began < seconds:
            result = play(first + number)
            number += 1
            if result.broken:
                return result, number, time.process_time() - began
    return None, number, time.process_time() - began


def main() -> int:
    """Look for each; return 1 where one was not found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="of CPU, for each")
    parser.add_argument("only", nargs="*", help="words in the names of those to look for")
    options = parser.parse_args()
    missed = 0
    for name in DEFECTS:
        if options.only and not any(word in name for word in options.only):
            continue
        result, number, seconds = find(name, options.seconds)
        missed += result is None
        told = (
            f"found by history {number}, after {seconds:.0f} s: {result.broken}"
            if result
            else f"NOT FOUND in {number} histories"
        )
        print(f"{name}: {told}", flush=True)  # noqa: T201 -- for a person
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
