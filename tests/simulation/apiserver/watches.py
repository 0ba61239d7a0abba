"""Watches: what changed after a version, as lines of JSON that are pulled."""

import json
from collections.abc import Callable, Iterator
from typing import Final

from tests.simulation.apiserver.kinds import Kind
from tests.simulation.apiserver.messages import Answer, Json, Refusal, expired
from tests.simulation.apiserver.selectors import Selector
from tests.simulation.apiserver.shapes import Shape
from tests.simulation.apiserver.storage import Change, Storage

_BOOKMARK_SECONDS: Final = 60.0
_LAST_BOOKMARK_SECONDS: Final = 2.0


class Watch:
    """A watch that was granted. Its lines are pulled; nothing is lost by pulling late, but for what is compacted.

    Attributes:
        kind: what kind of object it is about.
        answer: the good answer that came first, without a body.
        ended: whether the server has ended it: no more will come.
    """

    def __init__(  # noqa: PLR0913 - what it is about, and for how long
        self,
        storage: Callable[[], Storage],
        kind: Kind,
        namespace: str,
        matches: Selector,
        shape: Shape,
        *,
        version: int,
        first: list[Json],
        bookmarks: bool,
        begun: float,
        deadline: float,
    ) -> None:
        """Tell of changes after `version`, once the objects of `first` were told as added; times are in seconds."""
        self.answer = Answer(200, {"Content-Type": "application/json"}, b"")
        self.ended = False
        self._storage = storage
        self.kind = kind
        self._namespace = namespace
        self._matches = matches
        self._shape = shape
        self._version = version
        self._waiting = [("ADDED", raw) for raw in first]
        self._bookmark_at = self._next_bookmark(begun, deadline) if bookmarks else float("inf")
        self._bookmarks_end = deadline
        self._deadline = deadline

    @property
    def version(self) -> int:
        """Up to which version it has told."""
        return self._version

    def wakes_at(self) -> float:
        """When something comes without a change: a bookmark, or the end."""
        return min(self._bookmark_at, self._deadline)

    def poll(self, now: float) -> list[bytes]:
        """The lines that have come since the last time, each with its line feed; `now` in seconds."""
        if self.ended:
            return []
        lines = [self._line(kind, raw) for kind, raw in (*self._waiting, *self._news())]
        self._waiting = []
        if now >= self._bookmark_at:
            self._bookmark_at = self._next_bookmark(now, self._bookmarks_end)
            lines.append(self._bookmark())
        if now >= self._deadline:
            self.ended = True
        return lines

    def end(self) -> None:
        """End it, as a server does that goes away, or whose resource does."""
        self.ended = True

    def end_after_this(self) -> None:
        """End it once what has happened until now is told."""
        self._deadline = 0.0

    def fail(self, refusal: Refusal) -> None:
        """End it by an ERROR event, which is the next and last line."""
        self._waiting = [("ERROR", refusal.status())]
        self.end_after_this()

    @staticmethod
    def _next_bookmark(now: float, deadline: float) -> float:
        last = deadline - _LAST_BOOKMARK_SECONDS
        return min(now + _BOOKMARK_SECONDS, last) if now < last else float("inf")

    def _news(self) -> Iterator[tuple[str, Json]]:
        storage = self._storage()
        if any(kind == "ERROR" for kind, _ in self._waiting):
            return
        if self._version < storage.compacted:
            self.ended = True
            yield "ERROR", expired("The resourceVersion for the provided watch is too old.").status()
            return
        for change in storage.since(self._version):
            self._version = change.version
            if change.key.resource == self.kind.resource and self._namespace in {"", change.key.namespace}:
                yield from self._told(change)

    def _told(self, change: Change) -> Iterator[tuple[str, Json]]:
        """What a change is to this watch: one that is selected no more was deleted."""
        was = change.before is not None and self._matches(change.before)
        if change.after is not None and self._matches(change.after):
            yield ("MODIFIED" if was else "ADDED"), change.after
        elif was and change.before is not None:
            meta = {**change.before["metadata"], "resourceVersion": str(change.version)}
            yield "DELETED", {**change.before, "metadata": meta}

    def _line(self, kind: str, raw: Json) -> bytes:
        return _written(kind, raw if kind == "ERROR" else self._shape(self.kind.decode(raw)))

    def _bookmark(self) -> bytes:
        own = {"apiVersion": self.kind.api_version, "kind": self.kind.name}
        return _written("BOOKMARK", self._shape({**own, "metadata": {"resourceVersion": str(self._version)}}))


def _written(kind: str, raw: Json) -> bytes:
    return json.dumps({"type": kind, "object": raw}, separators=(",", ":")).encode() + b"\n"
