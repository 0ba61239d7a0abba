"""The API server's model: one request at a time in, one answer out, and watches that are pulled.

It has no time and no chance of its own: both are handed in. The real one is its measure (tests/api).
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from random import Random
from typing import Any, Final

from tests.simulation.apiserver.builtin import BUILTIN
from tests.simulation.apiserver.definition import kind_of
from tests.simulation.apiserver.kinds import Kind
from tests.simulation.apiserver.messages import Answer, Json, Refusal, Request, answer, expired, no_such_page
from tests.simulation.apiserver.registry import Target
from tests.simulation.apiserver.selectors import only_name, selector
from tests.simulation.apiserver.shapes import Shape, as_list, number, place, shape_of, token
from tests.simulation.apiserver.storage import Storage
from tests.simulation.apiserver.watches import Watch
from tests.simulation.apiserver.writes import Writes

_FOR_EVER: Final = float("inf")


class Server(Writes):
    """An API server with its etcd.

    Attributes:
        kinds: the kinds that are served, by their API's path and plural.
        watches: those that were granted, and had not ended when the last one was.
    """

    def __init__(self, random: Random, definitions: Iterable[Mapping[str, Any]] = ()) -> None:
        """An empty cluster; `random` is what uids are drawn from, `definitions` make custom kinds."""
        super().__init__(random)
        self.kinds: dict[tuple[str, str], Kind] = {}
        self.watches: list[Watch] = []
        self._oldest = 0  # from which version on watches are served
        for kind in (*BUILTIN, *map(kind_of, definitions)):
            self.serve(kind)

    # --- What happens to it ---

    def serve(self, kind: Kind) -> None:
        """Serve a kind from now on."""
        self.kinds[kind.root, kind.plural] = kind

    def remove(self, kind: Kind) -> None:
        """Serve a kind no more, as when its definition is deleted: its objects go, and its watches end."""
        for key, _ in self.storage.of(kind.resource, ""):
            self.storage.delete(key)
        del self.kinds[kind.root, kind.plural]
        for watch in self.watches:
            if watch.kind is kind:
                watch.end_after_this()

    def back_up(self) -> Storage:
        """What etcd holds now, for `restore`."""
        return self.storage.copy()

    def restore(self, backup: Storage) -> None:
        """Go back to what etcd held, versions included; the server is started anew on it."""
        self.storage = backup.copy()
        self.restart()

    def restart(self) -> None:
        """Start anew on what etcd holds: watches end, and none may go on from before."""
        for watch in self.watches:
            watch.end()
        self.watches = []
        self._oldest = self.storage.version

    def compact(self, version: int | None = None) -> None:
        """Forget the history up to a version, or all of it."""
        self.storage.compact(self.storage.version if version is None else version)

    # --- What is asked of it ---

    def handle(self, request: Request, now: float) -> Answer:
        """Answer a request; `now` is the server's time in seconds since the epoch."""
        try:
            return self._answer(request, now)
        except Refusal as refusal:
            return refusal.answer()

    def watch(self, request: Request, now: float) -> Watch | Answer:
        """Grant a watch, or refuse it."""
        try:
            return self._watch(request, now)
        except Refusal as refusal:
            return refusal.answer()

    def _answer(self, request: Request, now: float) -> Answer:
        if request.path in {"/readyz", "/livez", "/healthz"}:
            return Answer(HTTPStatus.OK, {"Content-Type": "text/plain; charset=utf-8"}, b"ok")
        if (found := self._discovery(request.path)) is not None:
            return answer(HTTPStatus.OK, found)
        target = self._target(request.path)
        one, method = bool(target.name), request.method
        shape = shape_of(request, many=not one and method == "GET")
        if method == "GET":
            found = shape(self._get(target)) if one else self._list(target, request, shape)
            return answer(HTTPStatus.OK, found)
        write = ({"PUT": self.put, "PATCH": self.patch, "DELETE": self.delete} if one else {"POST": self.post}).get(
            method
        )
        if write is None:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", "the method is not allowed here", {})
        status, raw = write(target, request, now)
        return answer(status, raw if raw["kind"] == "Status" else shape(raw))

    def _discovery(self, path: str) -> Json | None:
        kinds = [kind for (root, _), kind in self.kinds.items() if root == path]
        if not kinds:
            return None
        resources: list[Json] = []
        for kind in kinds:
            own = {"namespaced": kind.namespaced, "kind": kind.name}
            resources.append({"name": kind.plural, "singularName": kind.name.lower(), **own})
            if kind.status:
                resources.append({"name": f"{kind.plural}/status", "singularName": "", **own})
        version = kinds[0].api_version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}

    def _target(self, path: str) -> Target:
        """What a path names. Raises Refusal."""
        parts = path.strip("/").split("/")
        length = 2 if parts[0] == "api" else 3
        root, rest = "/" + "/".join(parts[:length]), parts[length:]
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":  # noqa: PLR2004 - namespaces, its name, and what is in it
            namespace, rest = rest[1], rest[2:]
        kind = self.kinds.get((root, rest[0])) if rest else None
        if kind is None:
            raise no_such_page()
        name, subresource = (*rest[1:], "", "")[:2]
        unknown = subresource and not (subresource == "status" and kind.status)
        if unknown or (name and kind.namespaced and not namespace):
            raise no_such_page()
        return Target(kind, namespace, name, subresource)

    # --- Reads ---

    def _get(self, target: Target) -> Json:
        found = self.found(target)
        if found is None:
            raise target.not_found()
        return found

    def _list(self, target: Target, request: Request, shape: Shape) -> Json:
        kind, query = target.kind, request.query
        matches, limit = selector(query, kind), number(query, "limit")
        version, start = self.storage.version, ""
        if more := query.get("continue"):
            version, start = place(more)
            if version < self.storage.compacted:
                raise self._page_expired(start)
        there = [each for each in self.storage.of(kind.resource, target.namespace, version) if each[0].place >= start]
        if (name := only_name(query)) and target.namespace and not start:
            there = [each for each in there if each[0].name == name]
        items: list[Json] = []
        meta: Json = {"resourceVersion": str(version)}
        for left, (key, raw) in zip(range(len(there) - 1, -1, -1), there, strict=True):
            if matches(raw):
                items.append(kind.decode(raw))
            if limit and len(items) == limit and left:  # whether any of those that are left matches is not looked at
                meta["continue"] = token(version, key.place)
                if not query.get("labelSelector") and not query.get("fieldSelector"):
                    meta["remainingItemCount"] = left
                break
        return as_list(kind, meta, items, shape)

    def _page_expired(self, start: str) -> Refusal:
        refusal = expired("The provided continue parameter is too old to display a consistent list result.")
        refusal.metadata = {"continue": token(self.storage.version, start.rstrip("\0"))}
        return refusal

    def _watch(self, request: Request, now: float) -> Watch:
        target = self._target(request.path)
        if target.name:
            raise no_such_page()
        kind, query = target.kind, request.query
        matches, shape = selector(query, kind), shape_of(request, many=False)
        version = number(query, "resourceVersion")
        first: list[Json] = []
        if not version:
            version = self.storage.version
            first = [raw for _, raw in self.storage.of(kind.resource, target.namespace) if matches(raw)]
        watch = Watch(
            lambda: self.storage,
            kind,
            target.namespace,
            matches,
            shape,
            version=version,
            first=first,
            bookmarks=query.get("allowWatchBookmarks") == "true",
            begun=now,
            deadline=now + (number(query, "timeoutSeconds") or _FOR_EVER),
        )
        if version < self._oldest:
            watch.fail(expired(f"too old resource version: {version} ({self._oldest})"))
        self.watches = [each for each in self.watches if not each.ended] + [watch]
        return watch
