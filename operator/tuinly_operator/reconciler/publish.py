"""Writes tokens into target Secrets, on the condition that each still is what it was when the write was decided."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any

from tuinly_operator.base.clock import Clock, Deadline, rfc3339
from tuinly_operator.base.logs import fields
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain import decision as rules
from tuinly_operator.domain.acts import AskWhoServes, Cause, Publish, PutBack, RemoveOldTargets
from tuinly_operator.domain.errors import Failure, InTheWay, Reason
from tuinly_operator.domain.facts import Facts
from tuinly_operator.domain.memory import Removed
from tuinly_operator.domain.push import Content
from tuinly_operator.domain.target import (
    CREDENTIAL_LABEL,
    NOT_THERE,
    THAWED,
    Ownership,
    SecretMeta,
    ownership,
    target_manifest,
    template_values,
)
from tuinly_operator.domain.template import render
from tuinly_operator.edges.kube import REQUEST_TIMEOUT, ApiFailure, Kube, NotLeading
from tuinly_operator.edges.metrics import Metrics
from tuinly_operator.engine.store import LiveTarget, Record, Store
from tuinly_operator.reconciler.live import is_served
from tuinly_operator.reconciler.report import Reporter
from tuinly_operator.reconciler.retries import Setbacks

_log = logging.getLogger(__name__)


class Publisher:
    """Does the acts that touch the target."""

    def __init__(  # noqa: PLR0913 -- the edges it acts on
        self, *, store: Store, kube: Kube, reporter: Reporter, setbacks: Setbacks, metrics: Metrics, clock: Clock
    ) -> None:
        """Nothing is written before `publish`."""
        self._store = store
        self._kube = kube
        self._reporter = reporter
        self._setbacks = setbacks
        self._metrics = metrics
        self._clock = clock

    async def prove_absence(self, record: Record, facts: Facts, live: LiveTarget) -> None:
        """Ask the API server itself for the target: the watch may be late, or leave its type out. Raises ApiFailure.

        If there is none, look for the credential, too: it may have been deleted with its target, and then nothing may
        be created for it.
        """
        found = await self._kube.read_secret_meta(facts.credential.target)
        self._see_target(facts, live, found)
        if found is None:
            await self._is_served(record, facts.target, live)

    async def ask_who_serves(self, record: Record, facts: Facts, decided: AskWhoServes, live: LiveTarget) -> None:
        """Take in what the API server has: the credential may have changed, or gone. Raises ApiFailure.

        If it is still ours, but another operator has written its target, say so once and leave its token there: it is
        as good as ours, and else the two would overwrite each other for ever.
        """
        key, target = facts.credential.key, facts.target
        if decided.target:
            self._see_target(facts, live, await self._kube.read_secret_meta(facts.credential.target))
            target = live.freshest(facts.credential.target, live.stored)
        served = await self._is_served(record, target, live)
        if decided.other is None:
            return
        if not served:
            _log.warning("another operator serves this credential by now, or it has gone", extra=fields(credential=key))
            return
        record.memory = record.memory.overtaken(decided.other)
        if Reason.ANOTHER_OPERATOR not in record.memory.told:
            _log.warning("another operator serves this credential, too", extra=fields(credential=key))
        message = (
            "another operator writes the target of this credential, too; see to it that each credential is served by "
            "one alone: by the selectors and namespaces of the operators, and the Lease of their replicas"
        )
        self._reporter.warn_once(record, Reason.ANOTHER_OPERATOR, message)

    async def _is_served(self, record: Record, target: SecretMeta | None, live: LiveTarget) -> bool:
        """Look whether the credential is there, and ours to serve; the record has then what was found."""
        served = await is_served(self._kube, self._store, record)
        if served:
            live.confirm(target, self._clock.now())
        return served

    async def _is_unchanged(self, record: Record, facts: Facts, live: LiveTarget) -> bool:
        """The same, and whether it still is what this was decided on."""
        served = await self._is_served(record, facts.target, live)
        return served and record.credential.revision == facts.credential.revision

    async def publish(self, record: Record, facts: Facts, decided: Publish, live: LiveTarget) -> None:
        """Write the token with its state, on the condition that the target is what it was when this was decided.

        Raises:
            ApiFailure: the API server is out of reach or overloaded, or this replica does not lead.
        """
        held = replace(decided.held, state=replace(decided.held.state, template=facts.layout.digest))
        try:
            client_id = held.client.id if held.client else ""
            data = render(facts.layout, template_values(held.state, decided.token.reveal(), client_id))
        except Failure as failure:
            self._set_back(record, facts, failure)
            return
        manifest = partial(target_manifest, facts.credential, held.state, facts.layout, data)
        try:
            meta = await self._kube.apply_secret(facts.credential.target, manifest(facts.target))
        except ApiFailure as failure:
            written = await self._not_written(record, facts, live, manifest(None), failure)
            if written is None:
                return
            meta = written
        record.memory = record.memory.wrote(held, rules.wanted_target(facts), untried=decided.untried)
        if facts.pushes:
            record.memory = record.memory.to_be_pushed(Content(meta.version, self._clock.now(), ours=True))
        else:
            record.memory = record.memory.not_to_be_pushed()
        self._see_target(facts, live, meta, written=True)
        self._tell_published(record, facts, decided)

    async def remove_old_targets(self, record: Record, facts: Facts, decided: RemoveOldTargets) -> None:
        """Delete the targets under earlier names, now that the new one is in place; tell of what only looks like one.

        Raises ApiFailure.
        """
        by = facts.credential.key
        for key, meta in decided.targets:
            since = self._store.since(key)
            left = await self._deleted(key, meta)
            self._store.secret_read(key, left, since, by)
            if left is None:
                _log.info("deleted a renamed target", extra=fields(credential=by, target=key.name))
        if new := sorted(decided.look_alikes - record.memory.look_alikes):
            message = (
                f"the Secret {new[0]}{f' and {len(new) - 1} more' if new[1:] else ''} says that it is this "
                "credential's target, but was written by somebody else, too, so it is left alone; delete it, or remove "
                f"its owner reference and its label {CREDENTIAL_LABEL}"
            )
            self._reporter.warn(record, Reason.LOOK_ALIKE, message)
        record.memory = record.memory.told_of_look_alikes(decided.look_alikes)

    async def _deleted(self, key: NamespacedName, meta: SecretMeta) -> SecretMeta | None:
        """Delete a Secret if it still is what was seen; return what is there now. Raises ApiFailure."""
        try:
            return await self._kube.delete_secret(key, meta)
        except ApiFailure as failure:
            if failure.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise
            found = await self._kube.read_secret_meta(key)
            if found == meta:
                raise  # it has not changed, so no conflict is the cause, but an admission webhook that answers like one
            return found

    def _tell_published(self, record: Record, facts: Facts, decided: Publish) -> None:
        """Log, count, and for what somebody else broke send an Event."""
        held, broken = decided.held, decided.cause is Cause.BROKEN
        extra = fields(
            credential=facts.credential.key,
            reason=Reason.RESTORED if broken else Reason.ISSUED,
            grant=held.grant,
            expires=rfc3339(held.state.expires_at),
        )
        if decided.cause is Cause.NEW_TOKEN:
            _log.info("refreshed", extra=extra)
            self._metrics.published(held, -decided.due.remaining(self._clock.now()) if decided.due else None)
            return
        _log.info("restored the target" if broken else "changed the target as the spec asks", extra=extra)
        if broken:
            # Twice the interval, so that a restore that had to wait for the interval still counts as in a row.
            record.memory = record.memory.restored(facts.now, 2 * facts.policy.min_interval)
            message = f"Secret {facts.credential.target.name} was changed or deleted and has been restored"
            self._reporter.warn(record, Reason.RESTORED, message)

    def _set_back(self, record: Record, facts: Facts, failure: Failure, least: float = 0.0) -> None:
        """Remember a write that came to nothing, and when to try it again: not before `least` seconds have passed."""
        inputs, least = rules.write_inputs(facts), max(least, facts.policy.min_interval)
        setback = self._setbacks.of(record, record.memory.write, failure, inputs, least=least)
        record.memory = record.memory.write_failed(setback)

    async def put_back(self, record: Record, facts: Facts, decided: PutBack, live: LiveTarget) -> None:
        """Make a deleted target again as it was, unless somebody else has made one, or its credential has gone.

        Raises ApiFailure.
        """
        key = facts.credential.target
        self._see_target(facts, live, await self._kube.read_secret_meta(key))
        if live.of(key) is not None or not await self._is_unchanged(record, facts, live):
            return
        try:
            meta = await self._kube.apply_secret(key, json.loads(decided.removed.manifest.reveal()))
        except ApiFailure as failure:
            if not await self._was_refused(record, failure) or failure.status == HTTPStatus.CONFLICT:
                return
            message = f"the API server refused to put the Secret {key.name} back ({failure.status} {failure.word})"
            refused = Failure(Reason.TARGET_REJECTED, message)
            record.memory = record.memory.not_put_back(
                self._setbacks.of(record, decided.removed.refused, refused, key.name)
            )
            return
        record.memory = record.memory.put_back()
        self._see_target(facts, live, meta, written=True)
        _log.warning("put the target back as it was", extra=fields(credential=facts.credential.key, target=key.name))

    async def _was_refused(self, record: Record, failure: ApiFailure) -> bool:
        """Whether the API server refused or failed a write, and not only because the namespace ends.

        Raises ApiFailure where it is out of reach or overloaded, or this replica does not lead.
        """
        await self._raise_if_general(failure)
        if failure.namespace_ends:
            record.memory = record.memory.namespace_ended()
        return not failure.namespace_ends

    async def _raise_if_general(self, failure: ApiFailure) -> None:
        """Raise a failure that is not about what was sent, but about the API server or this replica."""
        away = failure.out_of_reach and not await self._kube.answers()
        if away or isinstance(failure, NotLeading) or failure.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise failure

    async def _not_written(
        self, record: Record, facts: Facts, live: LiveTarget, fresh: Mapping[str, Any], failure: ApiFailure
    ) -> SecretMeta | None:
        """Find out why a write failed: somebody changed the target, it takes no write at all, or the server refuses it.

        `fresh` is the target as it would be created. Returns what it became where it was made again.
        """
        if not await self._was_refused(record, failure):
            return None
        key = facts.credential.target
        found = await self._kube.read_secret_meta(key)
        if found != facts.target:
            self._see_target(facts, live, found)
            return None
        # Only 422 can mean that what is there takes no write.
        if found is not None and failure.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            raw = await self._kube.read_secret(key)
            if raw.get("immutable") or raw.get("type") != "Opaque":
                return await self._replace(record, facts, live, fresh, found, raw)
        self._set_back(record, facts, Failure(Reason.TARGET_REJECTED, _refusal(key, failure)), failure.retry_after)
        return None

    async def _replace(  # noqa: PLR0913, PLR0917 -- what is replaced, by what
        self,
        record: Record,
        facts: Facts,
        live: LiveTarget,
        fresh: Mapping[str, Any],
        found: SecretMeta,
        raw: Mapping[str, Any],
    ) -> SecretMeta | None:
        """Delete a target that takes no write, being immutable or of another type, and make it again.

        What it held is remembered until the new one is there: if that fails, the next decision puts it back.
        """
        if not await self._is_unchanged(record, facts, live):
            return None
        key, until = facts.credential.target, self._end_of_token(found)
        failure = await self._irreplaceable(facts, fresh, found, until)
        if failure is not None:
            self._set_back(record, facts, failure)
            return None
        note = THAWED if raw.get("immutable") else {}
        removed = Removed(key, Sensitive(json.dumps(_noted(_as_it_was(raw), note))), until)
        record.memory = record.memory.target_removed(removed)
        try:
            left = await self._deleted(key, found)
        except ApiFailure as refused:
            if refused.refused:  # it is still there; any other failure may have come after the delete
                record.memory = record.memory.put_back()
            raise
        self._see_target(facts, live, left)
        if left is not None:
            return None
        _log.info("deleted a target that takes no write", extra=fields(credential=facts.credential.key))
        try:
            return await self._kube.apply_secret(key, _noted(fresh, note))
        except ApiFailure as refused:
            return await self._not_written(record, replace(facts, target=None), live, fresh, refused)

    def _end_of_token(self, found: SecretMeta) -> Deadline:
        """When the token in a target ends, as far as it says so."""
        now, state = self._clock.now(), found.target.state if found.target else None
        return Deadline.after(max(0.0, state.expires_at - now.wall) if state else 0.0, now)

    async def _irreplaceable(
        self, facts: Facts, fresh: Mapping[str, Any], found: SecretMeta, until: Deadline
    ) -> Failure | None:
        """Why a target that takes no write must not be deleted; None if it may be.

        It must stay if it may be somebody else's, if a finalizer holds it, or, while its token lives, if the API server
        might not take a new one. A full quota counts as that, since it counts the new one beside the old.
        """
        name = facts.credential.target.name
        if ownership(found, facts.credential) is not Ownership.PROVEN:
            message = (
                f"the Secret {name} is immutable or of another type, and not written by the operator alone, so it is "
                "neither changed nor deleted; delete it, or choose another name in spec.target.name"
            )
            return InTheWay(Reason.TARGET_CONFLICT, message)
        if found.deleting:
            message = (
                f"the Secret {name} takes no write, being immutable or of another type; it is being deleted, but held "
                "by a finalizer: see to whoever set that, or remove it; the Secret is made again once it is gone"
            )
            return InTheWay(Reason.TARGET_REJECTED, message)
        refused = await self._refused_as_new(facts.credential.target, fresh)
        invalid = refused is not None and refused.status == HTTPStatus.UNPROCESSABLE_ENTITY
        if refused is None or (until.due(self._clock.now()) and not invalid):
            return None
        message = (
            f"the Secret {name} takes no write, being immutable or of another type, and a new one would be refused "
            f"({refused.status} {refused.word}), so it stays; check admission policies, make room in the quota for one "
            "more Secret, or delete it yourself"
        )
        return Failure(Reason.TARGET_REJECTED, message)

    async def _refused_as_new(self, key: NamespacedName, fresh: Mapping[str, Any]) -> ApiFailure | None:
        """Why the API server might not take a Secret as a new one, or None where it would. Raises ApiFailure."""
        try:
            await self._kube.try_create_secret(key, fresh)
        except ApiFailure as failure:
            await self._raise_if_general(failure)
            return None if failure.exists else failure
        return None

    def _see_target(self, facts: Facts, live: LiveTarget, found: SecretMeta | None, *, written: bool = False) -> None:
        """Take in what was just read, or `written`, before the watch tells of it."""
        key, by = facts.credential.target, facts.credential.key
        live.take(key, found)
        ours = written or (found is not None and found.target is not None and found.target.proven)
        # The store takes no other: it may be of a type that the watch leaves out, and nobody would tell when it goes.
        watched = found is None or ours or self._store.secret(key) is not None
        if watched and not self._store.secret_read(key, found, live.since, by):
            live.forget()
        live.since = self._store.since(key)


def _as_it_was(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest that makes a deleted Secret again, without `immutable`, so that the next token can be written."""
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
    meta = {name: raw["metadata"][name] for name in kept if name in raw["metadata"]}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**meta, "resourceVersion": NOT_THERE},
        "type": raw["type"],
        "data": raw.get("data") or {},
    }


def _noted(manifest: Mapping[str, Any], note: Mapping[str, str]) -> dict[str, Any]:
    """The same with an annotation more, if there is any."""
    meta = manifest["metadata"]
    return {**manifest, "metadata": {**meta, "annotations": {**meta.get("annotations", {}), **note}}}


def _refusal(key: NamespacedName, failure: ApiFailure) -> str:
    """The message for a write that failed though the API server works: what to look at."""
    if failure.status is None and not failure.word.endswith("TimeoutError"):
        return f"no answer came from the API server while the Secret {key.name} was written ({failure.word})"
    if failure.out_of_reach:
        how = f"{failure.status} {failure.word}" if failure.status else f"no answer in {REQUEST_TIMEOUT:.0f} s"
        return f"the API server did not write the Secret {key.name} ({how}); an admission webhook may be slow or down"
    refused = f"the API server refused to write the Secret {key.name} ({failure.status} {failure.word})"
    if failure.status == HTTPStatus.CONFLICT:
        return f"{refused}: somebody else changes or deletes it again and again, or an admission webhook answers so"
    return f"{refused}; check quotas, admission policies and the operator's RBAC in this namespace"
