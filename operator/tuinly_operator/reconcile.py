"""Reconciles one credential: gather what is, decide, act, and again until there is nothing left to do now.

The way of a token: `_attempt` obtains it, `_take` judges it, `_publish` writes it, `_rest` reports it.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from tuinly_operator import decision as rules
from tuinly_operator import report
from tuinly_operator.answers import Grant, Verdict
from tuinly_operator.client_secret import not_found, parse_client_secret
from tuinly_operator.clock import Clock, Deadline, Moment, rfc3339
from tuinly_operator.credential import GrantType, Key, to_json
from tuinly_operator.decision import Act, Comparison, Decision, Facts, Need, Policy
from tuinly_operator.errors import Failure, Reason, TokenRequestFailed, WorseAnswer
from tuinly_operator.events import EventSender
from tuinly_operator.gate import Gate
from tuinly_operator.kube import ApiFailure, Kube
from tuinly_operator.logs import fields
from tuinly_operator.memory import Client, ClientSecretRead, Held, Setback
from tuinly_operator.metrics import Metrics
from tuinly_operator.oauth import TokenEndpoint, origin_of
from tuinly_operator.schedule import MIN_LEAD, lead, refresh_offset, retry_delay
from tuinly_operator.state import Ownership, SecretMeta, TokenState, believe, ownership, target_manifest
from tuinly_operator.store import Record, Store
from tuinly_operator.template import DEFAULT_SHAPE, render, shape
from tuinly_operator.timers import Timers

_MOST_ACTS: Final = 12  # in one go; more means that something changes as fast as it is looked at
_SLOW_REQUEST: Final = 1.0  # seconds after which a token request under way is worth a status
_REPEAT_STATUS: Final = 300.0  # seconds between two writes of a status that only repeats a failure
_CLOCK_TOLERANCE: Final = 30.0  # seconds
_API_RETRY: Final = 5.0  # seconds at most until another try when the API server failed

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Sight:
    """What one reconcile has read live, past the watch: it says more than the store until the watch has caught up."""

    looked: bool = False
    target: SecretMeta | None = None

    def take(self, target: SecretMeta | None) -> None:
        """Note what a live read of the target gave."""
        self.looked, self.target = True, target


class Reconciler:
    """Does what decisions ask for."""

    def __init__(  # noqa: PLR0913 -- the edges it acts on
        self,
        *,
        store: Store,
        kube: Kube,
        endpoint: TokenEndpoint,
        gate: Gate,
        timers: Timers,
        events: EventSender,
        metrics: Metrics,
        policy: Policy,
        clock: Clock,
    ) -> None:
        """Nothing is done before `reconcile`."""
        self._store = store
        self._kube = kube
        self._endpoint = endpoint
        self._gate = gate
        self._timers = timers
        self._events = events
        self._metrics = metrics
        self._policy = policy
        self._clock = clock
        self._apart: set[str] = set()  # origins whose clock is too far from ours
        self._acts: dict[Act, Callable[[Record, Facts, _Sight], Awaitable[None]]] = {
            Act.PROVE_ABSENCE: self._look_at_target,
            Act.READ_CLIENT_SECRET: self._read_client_secret,
            Act.EXCHANGE: self._attempt,
            Act.REFRESH: self._attempt,
            Act.VERIFY: self._verify,
            Act.PUBLISH: self._publish,
            Act.REMOVE_OLD_TARGETS: self._remove_old_targets,
        }

    async def reconcile(self, key: Key) -> None:
        """Bring one credential to rest. Never raises but for cancellation and defects."""
        record = self._store.get(key)
        if record is None:
            self._timers.cancel(key)
            return
        try:
            await self._act_until_rest(record)
        except ApiFailure as failure:
            # The token, if one was obtained, waits in memory; the next try writes it.
            _log.warning("the API server failed a request, trying again", extra=fields(credential=key, cause=failure))
            wait = random.uniform(1, _API_RETRY)  # noqa: S311 -- jitter
            self._timers.set(key, Deadline.after(wait, self._clock.now()))

    async def _act_until_rest(self, record: Record) -> None:
        sight = _Sight()
        for _ in range(_MOST_ACTS):
            facts = self._gather(record, sight)
            decision = rules.decide(facts)
            if decision.act is Act.REST:
                await self._rest(record, facts, decision)
                return
            await self._acts[decision.act](record, facts, sight)
            if self._store.get(record.credential.key) is not record:
                return  # deleted, or replaced by another of its name, meanwhile
        self._timers.set(record.credential.key, Deadline.after(_SLOW_REQUEST, self._clock.now()))

    def _gather(self, record: Record, sight: _Sight) -> Facts:
        credential, memory, now = record.credential, record.memory, self._clock.now()
        target = self._store.secret(credential.target) or sight.target
        wanted, problem = DEFAULT_SHAPE, credential.problem
        try:
            wanted = shape(credential.spec.target.template) if credential.spec.target.template else DEFAULT_SHAPE
        except Failure as failure:
            problem = failure
        if not memory.met:
            memory.met = True
            state = believe(target, credential, wanted, now.wall) if target else None
            if state is not None:
                memory.published, memory.written_to = Held(state, _issued(state.issued_at, now)), credential.target
        facts = Facts(
            credential=credential,
            policy=self._policy,
            memory=memory,
            now=now,
            shape=wanted,
            problem=problem,
            client_secret=self._store.secret(credential.client_secret),
            target=target,
            old_targets=tuple((k, s) for k, s in self._store.targets_of(credential).items() if k != credential.target),
            absence_proven=sight.looked and target is None,
        )
        origin = origin_of(facts.token_url)
        block = self._gate.look(origin, _client_id(record), now)
        probe = block is None and self._gate.is_closed(origin)
        return replace(facts, block=block, probe=probe, gate_epoch=self._gate.epoch(origin))

    # --- Acts ---------------------------------------------------------------------------------------------------------

    async def _look_at_target(self, record: Record, _: Facts, sight: _Sight) -> None:
        sight.take(await self._kube.read_secret_meta(record.credential.target))

    async def _read_client_secret(self, record: Record, facts: Facts, _: _Sight) -> None:
        key, ref = facts.credential.client_secret, facts.spec.client_secret_ref
        client: Client | Failure
        try:
            raw = await self._kube.read_secret(key)
        except ApiFailure as failure:
            if not failure.not_found:
                raise
            self._store.secret_gone(key)
            record.memory.client = ClientSecretRead("", not_found(ref))
            return
        try:
            client = parse_client_secret(raw, ref)
        except Failure as failure:
            client = failure
        meta = SecretMeta.from_object(raw)
        self._store.secret_seen(key, meta)
        record.memory.client = ClientSecretRead(meta.identity, client)

    async def _attempt(self, record: Record, facts: Facts, _: _Sight) -> None:
        """Ask for a token, by refresh token first where that is due, and take what comes."""
        memory = record.memory
        self._kube.require_reach()
        memory.last_attempt = facts.now
        if rules.need(facts) is Need.DUE and memory.due is None and memory.current is not None:
            memory.due = rules.refresh_at(facts, memory.current)
        if rules.forced(facts):
            memory.last_forced = facts.now
        failure: Failure
        try:
            if rules.use_refresh_token(facts):
                asked = await self._meanwhile(record, facts, self._refresh(record, facts))
            else:
                asked = await self._meanwhile(record, facts, self._exchange(record, facts))
            if asked is not None:
                self._take(record, facts, asked)
        except Failure as error:
            failure = error
        else:
            return
        self._set_back(record, facts, failure)

    async def _refresh(self, record: Record, facts: Facts) -> Held | None:
        """One refresh-token grant. Refused, it gives None, and the exchange comes next in the same reconcile."""
        memory = record.memory
        token, current = memory.refresh_token, memory.current
        assert token is not None and current is not None  # noqa: S101, PT018 -- the decision to refresh implies both
        issued = self._clock.now()
        try:
            asked = self._endpoint.refresh(facts.token_url, token)
            grant = await self._request(record, facts, GrantType.REFRESH_TOKEN, asked)
        except TokenRequestFailed as failure:
            if failure.reason is Reason.ENDPOINT_THROTTLED:
                raise
            memory.refresh_token = None
            if not failure.rejected:
                raise  # ambiguous: the server may have taken it; the next attempt is an exchange
            memory.last_attempt = None  # the exchange that follows belongs to this attempt
            if not memory.refresh_proven:
                memory.refresh_refused = rules.refresh_inputs(facts)
                message = "the server refuses refresh tokens; client credentials are used from now on"
                self._tell_once(record, Reason.REFRESH_REFUSED, message)
            return None
        memory.refresh_proven = True
        memory.refresh_token = grant.refresh_token or token
        read = memory.client
        known = read is not None and read.client == current.client
        version = read.identity if read is not None and known else current.state.client_secret_version
        scopes = grant.scopes if grant.scopes is not None else current.state.scopes
        return self._held(
            facts, grant, issued, kind=GrantType.REFRESH_TOKEN, client=current.client, version=version, scopes=scopes
        )

    async def _exchange(self, record: Record, facts: Facts) -> Held:
        """One exchange by client credentials."""
        memory, read = record.memory, record.memory.client
        assert read is not None and isinstance(read.client, Client)  # noqa: S101, PT018 -- decided on it
        issued = self._clock.now()
        asked = self._endpoint.exchange(facts.token_url, read.client.id, read.client.secret, facts.spec.scopes)
        grant = await self._request(record, facts, GrantType.CLIENT_CREDENTIALS, asked)
        wanted = facts.spec.refresh.grant is GrantType.REFRESH_TOKEN
        memory.refresh_token, memory.refresh_proven = (grant.refresh_token if wanted else None), False
        scopes = grant.scopes if grant.scopes is not None else facts.spec.scopes
        kind = GrantType.CLIENT_CREDENTIALS
        return self._held(facts, grant, issued, kind=kind, client=read.client, version=read.identity, scopes=scopes)

    async def _request(self, record: Record, facts: Facts, kind: GrantType, asked: Coroutine[Any, Any, Grant]) -> Grant:
        """Send one token request, and tell the gate and the metrics how it went. Raises TokenRequestFailed."""
        origin, client_id = origin_of(facts.token_url), _client_id(record)
        self._gate.begin(origin, self._clock.now())
        try:
            with self._metrics.token_request(kind):
                grant = await asked
        except TokenRequestFailed as failure:
            self._gate.failed(origin, client_id, failure, self._clock.now())
            raise
        except BaseException:
            self._gate.abandoned(origin)
            raise
        self._gate.succeeded(origin)
        self._compare_clocks(origin, grant.server_time)
        return grant

    def _compare_clocks(self, origin: str, server_time: float | None) -> None:
        """Expiry is counted by this clock and enforced by the server's: warn when they are too far apart."""
        if server_time is None:
            return
        ahead = self._clock.now().wall - server_time
        self._metrics.clock_difference(origin, ahead)
        apart = abs(ahead) > _CLOCK_TOLERANCE
        if apart and origin not in self._apart:
            extra = fields(origin=origin, ahead_seconds=round(ahead, 1))
            _log.warning("this machine's clock and the token endpoint's are more than 30 s apart", extra=extra)
        (self._apart.add if apart else self._apart.discard)(origin)

    @staticmethod
    def _held(  # noqa: PLR0913 -- all that a token is known by
        facts: Facts,
        grant: Grant,
        issued: Moment,
        *,
        kind: GrantType,
        client: Client | None,
        version: str,
        scopes: frozenset[str],
    ) -> Held:
        """A token with its state; `version` is that of the client Secret it was issued for."""
        current = facts.memory.current
        at = int(issued.wall)
        state = TokenState(
            credential_uid=facts.credential.uid,
            issued_at=at,
            expires_at=at + grant.lifetime,
            next_refresh=0,
            granted_scopes=" ".join(sorted(scopes)),
            exchange_inputs=facts.inputs,
            template=facts.shape.digest,
            client_secret_version=version,
            # Any exchange does what users may have asked for; a refresh-token grant is not what they meant.
            handled_refresh=current.state.handled_refresh
            if current and kind is GrantType.REFRESH_TOKEN
            else facts.credential.refresh_requested,
        )
        state = replace(state, next_refresh=int(at + refresh_offset(facts.spec.refresh, state)))
        return Held(state, _issued(at, issued), grant.access_token, client, kind)

    def _take(self, record: Record, facts: Facts, held: Held) -> None:
        """Judge an answer against the token that is held, and keep the better one. Raises WorseAnswer."""
        memory, current, now = record.memory, record.memory.current, self._clock.now()
        match rules.compare(replace(facts, now=now), held):
            case Comparison.BETTER:
                memory.pending, memory.verified, memory.verification = held, False, None
                memory.look_again = None
                self._remark(record, facts, held)
            case Comparison.SAME if current is not None:
                memory.look_again = Deadline.after(max(0.0, current.expiry.remaining(now)) / 2, now)
                memory.handled_refresh = facts.credential.refresh_requested
                memory.attempt = None
                _log.info("the server gave the same token again", extra=fields(credential=facts.credential.key))
            case _:
                message = "the server gave a token with narrower scopes or an earlier end than the present one"
                raise WorseAnswer(Reason.INVALID_RESPONSE, message)

    def _remark(self, record: Record, facts: Facts, held: Held) -> None:
        """Tell what a new token shows of the server's settings, once."""
        if rules.need(facts) is Need.FIRST and not held.state.scopes >= facts.spec.scopes:
            self._tell_once(record, Reason.SCOPE_NARROWED, "the server granted fewer scopes than spec.scopes asks for")
        if lead(facts.spec.refresh, held.state.lifetime) < MIN_LEAD:
            message = "tokens live less than 4 minutes: a Pod may see a new one only after the old one has expired"
            self._tell_once(record, Reason.LIFETIME_TOO_SHORT, message)

    def _set_back(self, record: Record, facts: Facts, failure: Failure) -> None:
        """Remember a failed attempt and when to try again."""
        record.memory.attempt = self._setback(record, rules.setback(facts), failure, facts.tried_inputs)

    def _setback(self, record: Record, last: Setback | None, failure: Failure, inputs: str) -> Setback:
        """Count a failure and draw when to try again; log it where it is a new one."""
        now, published = self._clock.now(), record.memory.published
        attempts = last.attempts + 1 if last and last.inputs == inputs else 1
        life_left = published.expiry.remaining(now) if published else 0.0
        drawn = random.random()  # noqa: S311 -- jitter
        delay = retry_delay(failure, attempts, life_left, self._policy.min_interval, drawn)
        if isinstance(failure, TokenRequestFailed) and failure.retry_after is not None:
            delay = max(delay, failure.retry_after)
        repeated = last is not None and last.failure.reason is failure.reason
        extra = fields(
            credential=record.credential.key,
            reason=failure.reason,
            attempt=attempts,
            retry_in=round(delay, 1),
            cause=failure.message,
        )
        _log.log(logging.DEBUG if repeated else logging.WARNING, "failed, trying again", extra=extra)
        return Setback(failure, attempts, now.wall, Deadline.after(delay, now), inputs)

    async def _verify(self, record: Record, facts: Facts, _: _Sight) -> None:
        """Try the pending token. One that does not work is forgotten; one that nobody can tell of waits."""
        memory, held = record.memory, record.memory.pending
        assert held is not None and held.token is not None  # noqa: S101, PT018 -- decided on it
        verdict = await self._endpoint.verify(facts.graphql_url, held.token)
        if verdict is Verdict.ACCEPTED:
            memory.verified, memory.verification = True, None
        elif verdict is Verdict.REJECTED:
            memory.pending, memory.refresh_token = None, None
            message = f"the new token does not work at {origin_of(facts.graphql_url)}; check the client's rights"
            self._set_back(record, facts, Failure(Reason.VERIFICATION_FAILED, message))
        else:
            message = f"{origin_of(facts.graphql_url)} could not tell whether the new token works; it is tried again"
            failure = Failure(Reason.VERIFICATION_INCONCLUSIVE, message)
            memory.verification = self._setback(record, memory.verification, failure, facts.inputs)

    async def _publish(self, record: Record, facts: Facts, sight: _Sight) -> None:
        """Write the token with its state, on the condition that the target is what it was when this was decided."""
        held, key, memory = rules.unwritten(facts), facts.credential.target, record.memory
        assert held is not None  # noqa: S101 -- decided on it
        held = replace(held, state=replace(held.state, template=facts.shape.digest))
        try:
            data = render(facts.shape, _values(held))
        except Failure as failure:
            memory.write = self._setback(record, memory.write, failure, rules.written_inputs(facts))
            return
        try:
            meta = await self._kube.apply_secret(
                key, target_manifest(facts.credential, held.state, facts.shape, data, facts.target)
            )
        except ApiFailure as failure:
            await self._not_written(record, facts, sight, failure)
            return
        new, moved = memory.pending is not None, memory.written_to != key
        memory.published, memory.written_to, memory.pending, memory.write = held, key, None, None
        if new:
            memory.attempt = None
        self._see_target(key, sight, meta)
        self._tell_published(record, facts, held, new=new, moved=moved)

    def _tell_published(self, record: Record, facts: Facts, held: Held, *, new: bool, moved: bool) -> None:
        """Log, count, and for what somebody else broke send an Event."""
        broken = not new and not moved and not facts.in_place
        extra = fields(
            credential=facts.credential.key,
            reason=Reason.RESTORED if broken else Reason.ISSUED,
            grant=held.grant,
            expires=rfc3339(held.state.expires_at),
        )
        if new:
            _log.info("refreshed", extra=extra)
            due, record.memory.due = record.memory.due, None
            self._metrics.published(held, -due.remaining(self._clock.now()) if due else None)
            return
        record.memory.last_restore = facts.now
        _log.info("restored the target" if broken else "changed the target as the spec asks", extra=extra)
        if broken:
            message = f"Secret {facts.credential.target.name} was changed or deleted and has been restored"
            self._events.tell(
                facts.credential, report.Transition(warning=True, reason=Reason.RESTORED, message=message)
            )

    async def _not_written(self, record: Record, facts: Facts, sight: _Sight, failure: ApiFailure) -> None:
        """Find out why a write failed: somebody was quicker, it cannot be written to, or the server refuses (wait)."""
        if failure.out_of_reach or failure.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise failure
        if failure.word == "NamespaceTerminating":
            record.memory.namespace_ends = True
            return
        key = facts.credential.target
        live = await self._kube.read_secret_meta(key)
        if live != facts.target:
            self._see_target(key, sight, live)
        elif live is not None and await self._removed_unwritable(facts, live):
            self._see_target(key, sight, None)
        else:
            message = (
                f"the API server refused to write the Secret {key.name} ({failure.status} {failure.word}); "
                "check quotas, admission policies and the operator's RBAC in this namespace"
            )
            refused = Failure(Reason.TARGET_REJECTED, message)
            record.memory.write = self._setback(record, record.memory.write, refused, rules.written_inputs(facts))

    async def _removed_unwritable(self, facts: Facts, live: SecretMeta) -> bool:
        """Delete our own target where it is immutable or has another type: neither can be changed back by a write."""
        if ownership(live, facts.credential) is Ownership.FOREIGN:
            return False
        raw = await self._kube.read_secret(facts.credential.target)
        if not raw.get("immutable") and raw.get("type") == "Opaque":
            return False
        await self._kube.delete_secret(facts.credential.target, live)
        return True

    def _see_target(self, key: Key, sight: _Sight, live: SecretMeta | None) -> None:
        """Believe what was just read or done, ahead of the watch."""
        sight.take(live)
        if live is None:
            self._store.secret_gone(key)
        else:
            self._store.secret_seen(key, live)

    async def _remove_old_targets(self, _: Record, facts: Facts, __: _Sight) -> None:
        """After a rename: the new target is in place, so the old ones go."""
        for key, meta in facts.old_targets:
            try:
                await self._kube.delete_secret(key, meta)
            except ApiFailure as failure:
                if failure.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                    raise
                live = await self._kube.read_secret_meta(key)
                if live is not None:
                    self._store.secret_seen(key, live)
                    continue
            self._store.secret_gone(key)
            _log.info("deleted a renamed target", extra=fields(credential=facts.credential.key, target=key.name))

    # --- Reports ------------------------------------------------------------------------------------------------------

    async def _meanwhile(self, record: Record, facts: Facts, request: Coroutine[Any, Any, Held | None]) -> Held | None:
        """Wait for a token request, and keep the status true while it takes its time."""
        task = asyncio.create_task(request)
        wait: float | None = _SLOW_REQUEST
        try:
            while not (await asyncio.wait({task}, timeout=wait))[0]:
                now = self._clock.now()
                # Whatever becomes of the report, the request goes on: its answer may be the only one there is.
                with suppress(ApiFailure):
                    await self._report(
                        record, replace(facts, credential=record.credential, now=now), Decision(Act.REST)
                    )
                published = record.memory.published
                left = published.expiry.remaining(now) if published else 0.0
                wait = left if left > 0 else None
            return task.result()
        finally:
            task.cancel()

    async def _rest(self, record: Record, facts: Facts, decision: Decision) -> None:
        """Report, and set the timer for when time alone changes something."""
        key = record.credential.key
        wake = decision.look_again
        published = record.memory.published
        if published is not None and not published.expiry.due(facts.now):
            wake = published.expiry.earlier(wake)
        if decision.parked:
            urgency = published.state.expires_at if published else 0.0
            self._gate.park(origin_of(facts.token_url), key, urgency)
        if not decision.silent:
            again = await self._report(record, facts, decision)
            wake = again.earlier(wake) if again else wake
        if wake is None:
            self._timers.cancel(key)
        else:
            self._timers.set(key, wake)

    async def _report(self, record: Record, facts: Facts, decision: Decision) -> Deadline | None:
        """Write the status if it differs, and send the Events of its transitions.

        Returns when to write it again, where a difference that only repeats a failure has to wait.
        """
        before = facts.credential.status
        after = report.status(facts, decision)
        if after == before:
            return None
        wait = record.status_written + _REPEAT_STATUS - facts.now.boot
        if wait > 0 and report.same_story(before, after):
            return Deadline.after(wait, facts.now)
        key = facts.credential.key
        try:
            version = await self._kube.write_status(key, facts.credential.uid, to_json(after))
        except ApiFailure as failure:
            if failure.not_found or failure.status in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY):
                await self._drop_if_gone(record)
                return None
            raise
        self._store.status_written(key, after, version, facts.now.boot)
        for transition in report.transitions(before, after):
            self._events.tell(facts.credential, transition)
        return None

    async def _drop_if_gone(self, record: Record) -> None:
        """A status that cannot be written to this uid: the credential is gone, whether the watch has said so or not."""
        credential = record.credential
        if not await self._kube.credential_exists(credential.key, credential.uid):
            self._store.credential_gone(credential.key, credential.uid)

    def _tell_once(self, record: Record, reason: Reason, message: str) -> None:
        if reason not in record.memory.told:
            record.memory.told.add(reason)
            self._events.tell(record.credential, report.Transition(warning=True, reason=reason, message=message))


def _issued(at: int, now: Moment) -> Moment:
    """The moment of issue on both clocks, from its time in whole seconds since the epoch."""
    return Moment(at, now.boot - (now.wall - at))


def _client_id(record: Record) -> str:
    """The client id as far as it is known: what a server's Retry-After is kept by."""
    read, current = record.memory.client, record.memory.current
    known = read.client if read else current.client if current else None
    return known.id if isinstance(known, Client) else ""


def _values(held: Held) -> dict[str, str]:
    """What a template's placeholders stand for."""
    assert held.token is not None  # noqa: S101 -- only a token in memory is written
    return {
        "access_token": held.token.reveal(),
        "token_type": "Bearer",
        "expires_at": rfc3339(held.state.expires_at),
        "expires_in": str(held.state.lifetime),
        "scope": held.state.granted_scopes,
        "client_id": held.client.id if held.client else "",
    }
