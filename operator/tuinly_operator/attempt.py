"""Obtains tokens: reads the client Secret, makes token requests, judges answers, tries new tokens if asked to."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from tuinly_operator import decision as rules
from tuinly_operator.answers import Grant, Verdict
from tuinly_operator.client_secret import not_found, not_readable, parse_client_secret
from tuinly_operator.clock import Clock, Deadline, Moment
from tuinly_operator.credential import GrantType
from tuinly_operator.decision import Comparison, Facts, Need
from tuinly_operator.election import ASKING_SECONDS
from tuinly_operator.errors import Failure, Reason, TokenRequestFailed, WorseAnswer
from tuinly_operator.gate import Gate
from tuinly_operator.kube import ApiFailure, Kube
from tuinly_operator.logs import fields
from tuinly_operator.memory import Client, ClientSecretRead, Held
from tuinly_operator.metrics import Metrics
from tuinly_operator.oauth import TokenEndpoint, origin_of
from tuinly_operator.reporter import Reporter
from tuinly_operator.schedule import MIN_LEAD, lead, refresh_offset
from tuinly_operator.setbacks import Setbacks
from tuinly_operator.state import SecretMeta, TokenState
from tuinly_operator.store import Record, Sight, Store

_SLOW_REQUEST: Final = 1.0  # seconds after which a token request under way is worth a status
_CLOCK_TOLERANCE: Final = 30.0  # seconds

_log = logging.getLogger(__name__)


class Attempts:
    """Does the acts that lead to a token in memory."""

    def __init__(  # noqa: PLR0913 -- the edges it acts on
        self,
        *,
        store: Store,
        kube: Kube,
        endpoint: TokenEndpoint,
        gate: Gate,
        reporter: Reporter,
        setbacks: Setbacks,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        """Nothing is asked before `attempt`."""
        self._store = store
        self._kube = kube
        self._endpoint = endpoint
        self._gate = gate
        self._reporter = reporter
        self._setbacks = setbacks
        self._metrics = metrics
        self._clock = clock
        self._apart: set[str] = set()  # origins whose clock is too far from ours

    async def read_client_secret(self, record: Record, facts: Facts, _: Sight) -> None:
        """Read the client id and secret, or what is wrong with them. Raises ApiFailure, or Failure if it may not."""
        key, ref = facts.credential.client_secret, facts.spec.client_secret_ref
        client: Client | Failure
        try:
            raw = await self._kube.read_secret(key)
        except ApiFailure as failure:
            if failure.status == HTTPStatus.FORBIDDEN:
                raise not_readable(ref) from None
            if not failure.not_found:
                raise
            self._store.secret_gone(key, facts.credential.key)
            record.memory.client = ClientSecretRead(ref, "", not_found(ref))
            return
        try:
            client = parse_client_secret(raw, ref)
        except Failure as failure:
            client = failure
        meta = SecretMeta.from_object(raw)
        self._store.secret_seen(key, meta, facts.credential.key)
        record.memory.client = ClientSecretRead(ref, meta.identity, client)

    async def attempt(self, record: Record, facts: Facts, sight: Sight) -> None:
        """Ask for a token, by refresh token first where that is due, and take what comes."""
        memory = record.memory
        self._kube.fence(ASKING_SECONDS)
        self._kube.require_reach()
        # Nothing may be awaited between the look at the gate and this, or others would pass as probes too.
        self._gate.begin(origin_of(facts.token_url), self._clock.now())
        memory.last_attempt, memory.tried = rules.counts_from(facts), rules.refresh_inputs(facts)
        memory.tried_request = facts.credential.refresh_requested or memory.tried_request
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
            # What was seen before a request that took its time has to be looked at again before it is acted on.
            if self._clock.now().boot - facts.now.boot > _SLOW_REQUEST:
                sight.looked = False
            return
        self._set_back(record, facts, failure)

    async def verify(self, record: Record, facts: Facts, _: Sight) -> None:
        """Try the pending token. One that does not work is forgotten; one that nobody can tell of waits."""
        memory, held = record.memory, record.memory.pending
        assert held is not None and held.token is not None  # noqa: S101, PT018 -- decided on it
        verdict = await self._endpoint.verify(facts.graphql_url, held.token)
        if verdict is Verdict.ACCEPTED:
            memory.verified, memory.verification = True, None
        elif verdict is Verdict.REJECTED:
            memory.pending, memory.verification, memory.refresh_token = None, None, None
            message = f"the new token does not work at {origin_of(facts.graphql_url)}; check the client's rights"
            self._set_back(record, facts, Failure(Reason.VERIFICATION_FAILED, message))
        else:
            message = f"{origin_of(facts.graphql_url)} could not tell whether the new token works; it is tried again"
            failure = Failure(Reason.VERIFICATION_INCONCLUSIVE, message)
            memory.verification = self._setbacks.of(record, memory.verification, failure, facts.inputs)

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
                self._reporter.warn_once(record, Reason.REFRESH_REFUSED, message)
            return None
        memory.refresh_proven = True
        memory.refresh_token = grant.refresh_token or token
        read = memory.client
        known = read is not None and read.client == current.client
        version = read.identity if read is not None and known else current.state.client_secret_version
        scopes = grant.scopes if grant.scopes is not None else current.state.scopes
        return _held(
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
        return _held(facts, grant, issued, kind=kind, client=read.client, version=read.identity, scopes=scopes)

    async def _request(self, record: Record, facts: Facts, kind: GrantType, asked: Coroutine[Any, Any, Grant]) -> Grant:
        """Send the token request, and tell the gate and the metrics how it went. Raises TokenRequestFailed."""
        origin, client_id = origin_of(facts.token_url), client_id_of(record)
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

    def _take(self, record: Record, facts: Facts, held: Held) -> None:
        """Judge an answer against the token that is held, and keep the better one. Raises WorseAnswer."""
        memory, current, now = record.memory, record.memory.current, self._clock.now()
        match rules.compare(replace(facts, now=now), held):
            case Comparison.BETTER:
                memory.pending, memory.verified, memory.verification = held, False, None
                memory.look_again = None
                self._remark(record, facts, held, first=current is None)
            case Comparison.SAME if current is not None:
                memory.look_again = Deadline.after(max(0.0, current.expiry.remaining(now)) / 2, now)
                memory.handled_refresh = facts.credential.refresh_requested
                memory.attempt = memory.due = None
                _log.info("the server gave the same token again", extra=fields(credential=facts.credential.key))
            case _:
                message = "the server gave a token with narrower scopes or an earlier end than the present one"
                raise WorseAnswer(Reason.INVALID_RESPONSE, message)

    def _remark(self, record: Record, facts: Facts, held: Held, *, first: bool) -> None:
        """Tell what a new token shows of the server's settings, once."""
        if first and not held.state.scopes >= facts.spec.scopes:
            message = "the server granted fewer scopes than spec.scopes asks for"
            self._reporter.warn_once(record, Reason.SCOPE_NARROWED, message)
        if lead(facts.spec.refresh, held.state.lifetime) < MIN_LEAD:
            message = "tokens live less than 4 minutes: a Pod may see a new one only after the old one has expired"
            self._reporter.warn_once(record, Reason.LIFETIME_TOO_SHORT, message)
        elif Reason.LIFETIME_TOO_SHORT in record.memory.told:  # else each would get an empty set of its own
            record.memory.told -= {Reason.LIFETIME_TOO_SHORT}

    def _set_back(self, record: Record, facts: Facts, failure: Failure) -> None:
        """Remember a failed attempt and when to try again: a gate that it opened does not end that wait."""
        after = replace(facts, gate_epoch=self._gate.epoch(origin_of(facts.token_url)))
        record.memory.attempt = self._setbacks.of(record, rules.setback(facts), failure, after.tried_inputs)

    async def _meanwhile(self, record: Record, facts: Facts, request: Coroutine[Any, Any, Held | None]) -> Held | None:
        """Wait for a token request, and keep the status true while it takes its time."""
        task = asyncio.create_task(request)
        wait: float | None = _SLOW_REQUEST
        try:
            while not (await asyncio.wait({task}, timeout=wait))[0]:
                now = self._clock.now()
                # Whatever becomes of the report, the request goes on: its answer may be the only one there is.
                with suppress(ApiFailure):
                    seen = replace(facts, credential=record.credential, now=now)
                    await self._reporter.report(record, seen, rules.unhindered(seen))
                published = record.memory.published
                left = published.expiry.remaining(now) if published else 0.0
                wait = left if left > 0 else None
            return task.result()
        finally:
            task.cancel()


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
    return Held(state, issued_at(at, issued), grant.access_token, client, kind)


def issued_at(at: int, now: Moment) -> Moment:
    """The moment of issue on both clocks, from its time in whole seconds since the epoch."""
    return Moment(at, now.boot - (now.wall - at))


def client_id_of(record: Record) -> str:
    """The client id as far as it is known: what a server's Retry-After is kept by."""
    read, current = record.memory.client, record.memory.current
    known = read.client if read else current.client if current else None
    return known.id if isinstance(known, Client) else ""
