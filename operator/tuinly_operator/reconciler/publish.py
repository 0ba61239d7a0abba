"""Writes tokens into target Secrets, on the condition that each still is what it was when the write was decided."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from tuinly_operator.base.clock import Clock, rfc3339
from tuinly_operator.base.logs import fields
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain import decision as rules
from tuinly_operator.domain.acts import AskWhoServes, Cause, Publish, RemoveOldTargets
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.facts import Facts
from tuinly_operator.domain.push import Content
from tuinly_operator.domain.target import (
    CREDENTIAL_LABEL,
    SecretMeta,
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
        manifest = target_manifest(facts.credential, held.state, facts.layout, data, facts.target)
        try:
            meta = await self._kube.apply_secret(facts.credential.target, manifest)
        except ApiFailure as failure:
            await self._not_written(record, facts, live, failure)
            return
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

    async def _not_written(self, record: Record, facts: Facts, live: LiveTarget, failure: ApiFailure) -> None:
        """Find out why a write failed: somebody changed the target, it takes no write at all, or the server refuses it.

        Raises ApiFailure where it is out of reach or overloaded, or this replica does not lead.
        """
        away = failure.out_of_reach and not await self._kube.answers()
        if away or isinstance(failure, NotLeading) or failure.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise failure
        if failure.namespace_ends:
            record.memory = record.memory.namespace_ended()
            return
        key = facts.credential.target
        found = await self._kube.read_secret_meta(key)
        if found != facts.target:
            self._see_target(facts, live, found)
            return
        refused = Failure(Reason.TARGET_REJECTED, _refusal(key, failure))
        # Only 422 can mean that what is there takes no write.
        if found is not None and failure.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            refused = _conflict(await self._kube.read_secret(key)) or refused
        self._set_back(record, facts, refused, failure.retry_after)

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


def _conflict(found: Mapping[str, Any]) -> Failure | None:
    """Why a Secret takes no token at all; None if it does. Its type cannot be changed, nor, if immutable, anything."""
    meta, kind = found["metadata"], found.get("type")
    if not found.get("immutable") and kind == "Opaque":
        return None
    what = "immutable" if found.get("immutable") else f"of type {kind}"
    how = "remove its finalizers" if meta.get("deletionTimestamp") else "delete it"
    message = f"the Secret {meta['name']} is {what}, so the token cannot be written; {how}, and it is created again"
    return Failure(Reason.TARGET_CONFLICT, message)


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
