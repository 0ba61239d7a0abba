"""Sequences of requests as data, which can be sent to any server: what a request takes from an earlier answer is named.

In a query or a body stand for a value, wherever it is:
- {"$version": n}: the resource version of the object that step n was answered with; "1" where it was none.
- {"$uid": n}: its uid; one that nobody has where it was none.
- {"$continue": n}: the continue token of the list that step n was answered with; empty where there is none.
- {"$answer": n, "merge": patch}: the object itself, merged with a patch; the patch alone where it was none.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tests.simulation.apiserver import Answer, Request
from tests.simulation.apiserver.shapes import merged

Json = dict[str, Any]

NOBODYS: Final = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Step:
    """A request, with references to earlier answers."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: its status, and its body, if that is JSON."""

    status: int
    body: Any


class Player(Protocol):
    """A server, real or not."""

    def send(self, request: Request) -> Answer:
        """Send a request and return its answer."""

    def watch(self, request: Request, until: Callable[[Json], bool]) -> list[Json]:
        """Watch until an event comes that ends it, and return all events."""


def play(player: Player, steps: Sequence[Step], namespace: str) -> list[Told]:
    """Send the requests, one after the other, to a server; "NS" in their paths is the namespace."""
    told: list[Told] = []
    for step in steps:
        told.append(_told(player.send(request(step, told, namespace))))
    return told


def request(step: Step, told: Sequence[Told], namespace: str) -> Request:
    """The request of a step, after what was told until then."""
    body = _resolved(step.body, told)
    return Request(
        step.method,
        step.path.replace("NS", namespace),
        {name: str(_resolved(value, told)) for name, value in step.query.items()},
        {"User-Agent": "tests/1.0", **step.headers},
        b"" if body is None else json.dumps(body).replace('"NS"', f'"{namespace}"').encode(),
    )


def _told(answer: Answer) -> Told:
    try:
        return Told(answer.status, json.loads(answer.body))
    except ValueError:
        return Told(answer.status, answer.body.decode())


def _resolved(value: Any, told: Sequence[Told]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return [_resolved(item, told) for item in value]
    if not isinstance(value, dict):
        return value
    for name, find in _REFERENCES.items():
        if name in value:
            return find(told[value[name]].body, _resolved(value.get("merge"), told))
    return {name: _resolved(part, told) for name, part in value.items()}


def _meta(body: Any) -> Mapping[str, Any]:  # noqa: ANN401 - JSON
    return body.get("metadata") or {} if isinstance(body, dict) else {}


def _answer(body: Any, patch: Any) -> Any:  # noqa: ANN401 - JSON
    there = body if "uid" in _meta(body) and body.get("kind") != "PartialObjectMetadata" else {}
    return merged(there, patch)


_REFERENCES: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "$version": lambda body, _: _meta(body).get("resourceVersion") or "1",
    "$uid": lambda body, _: _meta(body).get("uid") or NOBODYS,
    "$continue": lambda body, _: _meta(body).get("continue") or "",
    "$answer": _answer,
}
