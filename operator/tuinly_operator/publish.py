"""Writes tokens into target Secrets, on the condition that each still is what it was when the write was decided."""

import logging
from dataclasses import replace
from http import HTTPStatus

from tuinly_operator import decision as rules
from tuinly_operator.clock import Clock, rfc3339
from tuinly_operator.credential import Key
from tuinly_operator.decision import Cause, Facts, Publish, RemoveOldTargets
from tuinly_operator.errors import Failure, Reason
from tuinly_operator.kube import ApiFailure, Kube
from tuinly_operator.logs import fields
from tuinly_operator.memory import Held
from tuinly_operator.metrics import Metrics
from tuinly_operator.reporter import Reporter
from tuinly_operator.sensitive import Sensitive
from tuinly_operator.setbacks import Setbacks
from tuinly_operator.state import CREDENTIAL_LABEL, Ownership, SecretMeta, ownership, target_manifest
from tuinly_operator.store import Record, Sight, Store
from tuinly_operator.template import render

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

    async def prove_absence(self, facts: Facts, sight: Sight) -> None:
        """Look for the target past the watch, which may be behind or leave its type out. Raises ApiFailure.

        Where it is gone the credential may be too, and the watch of those late: for a deleted one nothing is created.
        """
        credential = facts.credential
        sight.take(await self._kube.read_secret_meta(credential.target))
        if sight.target is None and not await self._kube.credential_exists(credential.key, credential.uid):
            self._store.credential_gone(credential.key, credential.uid)

    async def publish(self, record: Record, facts: Facts, decided: Publish, sight: Sight) -> None:
        """Write the token with its state, on the condition that the target is what it was when this was decided.

        Raises:
            ApiFailure: the API server is out of reach or overloaded.
        """
        held = replace(decided.held, state=replace(decided.held.state, template=facts.shape.digest))
        try:
            data = render(facts.shape, _values(held, decided.token))
        except Failure as failure:
            self._set_back(record, facts, failure)
            return
        try:
            meta = await self._kube.apply_secret(
                facts.credential.target, target_manifest(facts.credential, held.state, facts.shape, data, facts.target)
            )
        except ApiFailure as failure:
            await self._not_written(record, facts, sight, failure)
            return
        record.memory = record.memory.wrote(held, rules.asked_shape(facts), decided.untried)
        self._see_target(facts, sight, meta)
        self._tell_published(record, facts, decided)

    async def remove_old_targets(self, record: Record, facts: Facts, decided: RemoveOldTargets) -> None:
        """After a rename: the new target is in place, so the old ones go, and what only looks like one is told of.

        Raises ApiFailure.
        """
        by = facts.credential.key
        for key, meta in decided.targets:
            left = await self._deleted(key, meta)
            if left is not None:
                self._store.secret_seen(key, left, by)
                continue
            self._store.secret_gone(key, by)
            _log.info("deleted a renamed target", extra=fields(credential=by, target=key.name))
        if new := sorted(decided.look_alikes - record.memory.look_alikes):
            message = (
                f"the Secret {new[0]}{f' and {len(new) - 1} more' if new[1:] else ''} says that it is this "
                "credential's target, but was written by somebody else, too, so it is left alone; delete it, or remove "
                f"its owner reference and its label {CREDENTIAL_LABEL}"
            )
            self._reporter.warn(record, Reason.LOOK_ALIKE, message)
        record.memory = record.memory.told_of_look_alikes(decided.look_alikes)

    async def _deleted(self, key: Key, meta: SecretMeta) -> SecretMeta | None:
        """Delete a Secret if it still is what was seen; return what is there now. Raises ApiFailure."""
        try:
            return await self._kube.delete_secret(key, meta)
        except ApiFailure as failure:
            if failure.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise
        return await self._kube.read_secret_meta(key)

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
            # Twice the interval: one that had to wait for it is still in the row.
            record.memory = record.memory.restored(facts.now, 2 * facts.policy.min_interval)
            message = f"Secret {facts.credential.target.name} was changed or deleted and has been restored"
            self._reporter.warn(record, Reason.RESTORED, message)

    def _set_back(self, record: Record, facts: Facts, failure: Failure) -> None:
        """Remember a write that came to nothing, and when to try it again."""
        setback = self._setbacks.of(record, record.memory.write, failure, rules.written_inputs(facts))
        record.memory = record.memory.write_failed(setback)

    async def _not_written(self, record: Record, facts: Facts, sight: Sight, failure: ApiFailure) -> None:
        """Find out why a write failed: somebody was quicker, it cannot be written to, or the server refuses (wait)."""
        if failure.out_of_reach or failure.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise failure
        if failure.namespace_ends:
            record.memory = record.memory.namespace_ended()
            return
        key = facts.credential.target
        live = await self._kube.read_secret_meta(key)
        if live != facts.target:
            self._see_target(facts, sight, live)
        elif live is not None and await self._removed_unwritable(facts, failure, live):
            self._see_target(facts, sight, None)
        else:
            message = (
                f"the API server refused to write the Secret {key.name} ({failure.status} {failure.word}); "
                "check quotas, admission policies and the operator's RBAC in this namespace"
            )
            self._set_back(record, facts, Failure(Reason.TARGET_REJECTED, message))

    async def _removed_unwritable(self, facts: Facts, failure: ApiFailure, live: SecretMeta) -> bool:
        """Delete our own target where it is immutable or has another type: neither can be changed back by a write.

        Only where the API server calls the write invalid: after any other refusal a new one might be refused as well.
        """
        foreign = ownership(live, facts.credential) is Ownership.FOREIGN
        if foreign or failure.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            return False
        raw = await self._kube.read_secret(facts.credential.target)
        if not raw.get("immutable") and raw.get("type") == "Opaque":
            return False
        await self._kube.delete_secret(facts.credential.target, live)
        return True

    def _see_target(self, facts: Facts, sight: Sight, live: SecretMeta | None) -> None:
        """Believe what was just read or done, ahead of the watch."""
        sight.take(live)
        key, by = facts.credential.target, facts.credential.key
        if live is None:
            self._store.secret_gone(key, by)
        elif live.target is not None or self._store.secret(key) is not None:
            self._store.secret_seen(key, live, by)
        # Any other may be of a type that the watch leaves out: nobody would tell the store when it goes.


def _values(held: Held, token: Sensitive) -> dict[str, str]:
    """What a template's placeholders stand for."""
    return {
        "access_token": token.reveal(),
        "token_type": "Bearer",
        "expires_at": rfc3339(held.state.expires_at),
        "expires_in": str(held.state.lifetime),
        "scope": held.state.granted_scopes,
        "client_id": held.client.id if held.client else "",
    }
