"""The verbs that write: POST, PUT, merge patch, apply, DELETE."""

from dataclasses import replace
from http import HTTPStatus
from typing import Final, Literal

from tests.simulation.apiserver.builtin import NAMESPACE
from tests.simulation.apiserver.fields import fits, path_text
from tests.simulation.apiserver.kinds import Kind
from tests.simulation.apiserver.managed import (
    Conflicts,
    Manager,
    Managers,
    apply,
    kind_only,
    managers_of,
    update,
)
from tests.simulation.apiserver.messages import (
    Json,
    Refusal,
    Request,
    bad_request,
    cause,
    conflict,
    invalid,
    own_failure,
)
from tests.simulation.apiserver.registry import WIPED, Registry, Review, Target, in_namespace
from tests.simulation.apiserver.shapes import is_dry, merged, parsed, parsed_any, patched, rfc3339

JSON_PATCH: Final = "application/json-patch+json"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"

Written = tuple[int, Json]


class Writes(Registry):
    """Makes of requests what they ask to be written. Each method returns a status and the object that it is about."""

    def post(self, target: Target, request: Request, now: float) -> Written:
        """Create an object. Raises Refusal."""
        kind = target.kind
        raw = _sent(request, kind)
        meta = {name: value for name, value in raw["metadata"].items() if name not in WIPED}
        raw = {**raw, "metadata": in_namespace(target, meta)}
        target, dry_run = replace(target, name=meta.get("name") or ""), is_dry(request.query)
        managers = update(
            kind_only(kind), kind.encode(raw), kind, {}, _manager(request, "Update", target), rfc3339(now)
        )
        return HTTPStatus.CREATED, self.created(target, raw, managers, now, dry_run=dry_run, posted=True)

    def put(self, target: Target, request: Request, now: float) -> Written:
        """Replace an object, or create it where its kind allows that. Raises Refusal."""
        kind, dry_run, time = target.kind, is_dry(request.query), rfc3339(now)
        raw = _sent(request, kind)
        raw = _placed(target, raw)
        manager, live = _manager(request, "Update", target), self.found(target)
        if live is None and not kind.creates:
            raise target.not_found()
        uid = raw["metadata"].get("uid")
        if uid and uid != (live["metadata"]["uid"] if live else ""):
            raise target.conflict("Precondition failed: UID in precondition")
        if live is None:
            managers = update(kind_only(kind), kind.encode(raw), kind, {}, manager, time)
            return HTTPStatus.CREATED, self.created(target, raw, managers, now, dry_run=dry_run)
        managers = update(live, kind.encode(raw), kind, _kept_managers(live, raw, target), manager, time)
        return HTTPStatus.OK, self.updated(target, live, raw, managers, dry_run=dry_run)

    def patch(self, target: Target, request: Request, now: float) -> Written:
        """Change an object by a merge patch or a JSON patch, or apply it. Raises Refusal."""
        content = request.header("content-type").partition(";")[0].strip()
        if content == APPLY:
            return self._apply(target, request, now)
        if content not in {MERGE, JSON_PATCH}:
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", "no such patch", {})
        kind, live = target.kind, self.found(target)
        if live is None:
            raise target.not_found()
        patch = parsed_any(request.body)
        new = patched(live, patch) if content == JSON_PATCH else merged(live, patch)
        if not isinstance(new, dict) or not kind.readable(new):
            raise invalid("", "", "", [cause("FieldValueInvalid", "patch", "cannot be read as such an object")])
        raw = _defaulted(kind, new)
        manager = _manager(request, "Update", target)
        managers = update(live, kind.encode(raw), kind, _kept_managers(live, raw, target), manager, rfc3339(now))
        raw = _placed(target, raw)
        return HTTPStatus.OK, self.updated(target, live, raw, managers, dry_run=is_dry(request.query))

    def _apply(self, target: Target, request: Request, now: float) -> Written:
        kind, query = target.kind, request.query
        given, live = _given(request, kind), self.found(target)
        manager, force = _manager(request, "Apply", target), query.get("force") == "true"
        if not fits(given, kind.type):
            raise own_failure("failed to create typed patch object")
        before, managers = live or kind_only(kind), managers_of(live or {})
        try:
            new, managers = apply(before, given, kind, managers, manager, rfc3339(now), force=force)
        except Conflicts as conflicts:
            raise _owned_by_others(conflicts) from None
        if new is not None and not kind.readable(new):
            raise own_failure("failed to convert new object to proper version")
        raw = before if new is None else _defaulted(kind, new)
        if live is None and raw["metadata"].get("uid"):
            raise target.conflict("uid mismatch: no existing object was found")
        raw = _placed(target, raw)
        if live is None:
            return HTTPStatus.CREATED, self.created(target, raw, managers, now, dry_run=is_dry(query))
        return HTTPStatus.OK, self.updated(target, live, raw, managers, dry_run=is_dry(query))

    def delete(self, target: Target, request: Request, now: float) -> Written:
        """Delete an object, or mark it as one that goes once its finalizers let it. Raises Refusal."""
        kind, live = target.kind, self.found(target)
        options = parsed(request.body) if request.body else {}
        if live is None:
            raise target.not_found()
        wanted = options.get("preconditions") or {}
        for name in ("uid", "resourceVersion"):
            if wanted.get(name) is not None and wanted[name] != live["metadata"][name]:
                raise conflict(kind.group, kind.name, target.name, f"the {name} does not match")
        dry_run = is_dry(request.query) or "All" in (options.get("dryRun") or ())
        self.admit(Review("DELETE", kind, target.key, live, None, dry_run))
        if kind is NAMESPACE:
            return HTTPStatus.OK, self._end_namespace(target, live, now, dry_run=dry_run)
        policy = options.get("propagationPolicy") or request.query.get("propagationPolicy") or ""
        if finalizers := _finalizers(live["metadata"].get("finalizers") or [], policy):
            doomed = _doomed(live, finalizers, now)
            return HTTPStatus.OK, live if doomed == live else self.stored(target, doomed, dry_run=dry_run)
        if not dry_run:
            self.storage.delete(target.key)
        return HTTPStatus.OK, _gone(target, live)

    def _end_namespace(self, target: Target, live: Json, now: float, *, dry_run: bool) -> Json:
        """A namespace is terminating until its content is gone, which a controller sees to."""
        if "deletionTimestamp" in live["metadata"]:
            return live
        meta = {**live["metadata"], "deletionTimestamp": rfc3339(now)}
        raw = {**live, "metadata": meta, "status": {**live["status"], "phase": "Terminating"}}
        return self.stored(target, raw, dry_run=dry_run)


def _sent(request: Request, kind: Kind) -> Json:
    """The object that was sent. Raises Refusal where it is none of this kind."""
    raw = parsed(request.body)
    said = (raw.get("apiVersion") or kind.api_version, raw.get("kind") or kind.name)
    if said != (kind.api_version, kind.name):
        raise bad_request("the API version in the data does not match the expected API version")
    raw = {**raw, "apiVersion": kind.api_version, "kind": kind.name, "metadata": raw.get("metadata") or {}}
    if not kind.readable(raw):
        raise bad_request(f"it cannot be handled as a {kind.name}")
    return _defaulted(kind, raw)


def _given(request: Request, kind: Kind) -> Json:
    """What is applied. Raises Refusal where it cannot be."""
    if not request.query.get("fieldManager"):
        causes = [cause("FieldValueRequired", "fieldManager", "is required for apply patch")]
        raise invalid("meta.k8s.io", "PatchOptions", "", causes)
    given = parsed(request.body)
    if given.get("apiVersion") != kind.api_version:
        raise bad_request("Incorrect version specified in apply patch.")
    if (given.get("metadata") or {}).get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    return given


def _defaulted(kind: Kind, raw: Json) -> Json:
    meta = dict(raw.get("metadata") or {})
    for name in ("labels", "annotations", "finalizers", "ownerReferences"):
        if not meta.get(name):
            meta.pop(name, None)
    filled = {**raw, "metadata": {name: value for name, value in meta.items() if value is not None}}
    kind.default(filled)
    return filled


def _placed(target: Target, raw: Json) -> Json:
    """An object with the namespace of the request. Raises Refusal where its name or namespace is another."""
    meta = in_namespace(target, raw["metadata"])
    if meta.get("name") != target.name:
        raise bad_request("the name of the object does not match the name on the URL")
    return {**raw, "metadata": meta}


def _manager(request: Request, operation: Literal["Apply", "Update"], target: Target) -> Manager:
    agent = request.header("user-agent").partition("/")[0][:128]
    return Manager(request.query.get("fieldManager") or agent or "unknown", operation, target.subresource)


def _kept_managers(live: Json, raw: Json, target: Target) -> Managers:
    """The managers that an update starts from: those that it brings, if it brings any, else those that are there."""
    brought = raw["metadata"].get("managedFields")
    if target.subresource or brought is None:
        return managers_of(live)
    if brought in ([], [{}]):
        return {}
    return managers_of(raw) or managers_of(live)


def _finalizers(finalizers: list[str], policy: str) -> list[str]:
    ours = {"Orphan": "orphan", "Foreground": "foregroundDeletion"}
    kept = [name for name in finalizers if not policy or name not in ours.values()]
    return [*kept, ours[policy]] if policy in ours else kept


def _doomed(live: Json, finalizers: list[str], now: float) -> Json:
    """An object that goes once its finalizers let it."""
    meta = {**live["metadata"], "finalizers": finalizers, "deletionGracePeriodSeconds": 0}
    if "deletionTimestamp" not in meta:
        meta["deletionTimestamp"] = rfc3339(now)
        if meta.get("generation"):
            meta["generation"] += 1
    return {**live, "metadata": meta}


def _gone(target: Target, live: Json) -> Json:
    """The answer to a deletion that is done."""
    uid = live["metadata"]["uid"]
    details = {"name": target.name, "group": target.kind.group, "kind": target.kind.plural, "uid": uid}
    shown = {name: value for name, value in details.items() if value}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": shown}


def _owned_by_others(conflicts: Conflicts) -> Refusal:
    causes = [
        cause("FieldManagerConflict", path_text(path), f'conflict with "{manager.name}"')
        for manager, fields in conflicts.fields.items()
        for path in sorted(fields)
    ]
    message = f"Apply failed with {len(causes)} conflicts"
    return Refusal(HTTPStatus.CONFLICT, "Conflict", message, {"causes": causes})
