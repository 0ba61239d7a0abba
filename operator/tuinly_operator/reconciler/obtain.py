"""Obtains tokens: makes token requests, judges answers, tries new tokens if asked to."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tuinly_operator.base.clock import Clock, Deadline, Moment
from tuinly_operator.base.logs import fields
from tuinly_operator.domain import decision as rules
from tuinly_operator.domain.acts import Attempt, Exchange, Need, Refresh, Verify
from tuinly_operator.domain.credential import GrantType
from tuinly_operator.domain.decision import Comparison
from tuinly_operator.domain.errors import Failure, Reason, TokenRequestFailed
from tuinly_operator.domain.facts import Facts, Purpose
from tuinly_operator.domain.memory import Attempted, Client, IssuedToken, RefreshToken
from tuinly_operator.domain.schedule import MIN_LEAD, lead, refresh_offset
from tuinly_operator.domain.target import TokenState
from tuinly_operator.domain.token_response import TokenResponse
from tuinly_operator.edges.election import ASKING_SECONDS
from tuinly_operator.edges.kube import ApiFailure, Kube
from tuinly_operator.edges.metrics import Metrics
from tuinly_operator.edges.oauth import TokenEndpoint, origin_of
from tuinly_operator.engine.limiter import Ask, Limiter, Ticket
from tuinly_operator.engine.store import Record
from tuinly_operator.reconciler.report import Reporter
from tuinly_operator.reconciler.retries import Setbacks

_SLOW_REQUEST: Final = 1.0  # seconds after which the status tells that a token request is under way
_CLOCKS_APART: Final = 30.0  # seconds

_Request = Callable[[Ticket], Coroutine[Any, Any, IssuedToken | None]]

_log = logging.getLogger(__name__)


class Attempts:
    """Does the acts that lead to a token in memory."""

    def __init__(  # noqa: PLR0913 -- the edges it acts on
        self,
        *,
        look: Callable[[Record], Facts],
        kube: Kube,
        endpoint: TokenEndpoint,
        limiter: Limiter,
        reporter: Reporter,
        setbacks: Setbacks,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        """Nothing is asked before `exchange` or `refresh`; `look` gathers what is known now."""
        self._look = look
        self._kube = kube
        self._endpoint = endpoint
        self._limiter = limiter
        self._reporter = reporter
        self._setbacks = setbacks
        self._metrics = metrics
        self._clock = clock
        self._apart: set[str] = set()  # origins whose clock is too far from ours

    async def exchange(self, record: Record, facts: Facts, decided: Exchange) -> None:
        """Ask for a token by client credentials, and keep it if it is no worse."""
        await self._attempt(record, facts, decided, partial(self._by_client, facts, decided))

    async def refresh(self, record: Record, facts: Facts, decided: Refresh) -> None:
        """Ask for one by refresh token. If that is refused, the next decision is an exchange."""
        await self._attempt(record, facts, decided, partial(self._by_refresh_token, record, facts, decided))

    async def verify(self, record: Record, facts: Facts, decided: Verify) -> None:
        """Try a new token. If it does not work it is dropped; if that cannot be told, it is tried again later."""
        try:
            await self._try(facts, decided)
        except TokenRequestFailed as failure:
            if failure.reason is Reason.VERIFICATION_FAILED:
                record.memory = record.memory.rejected(decided.held)
                self._set_back(record, facts, failure)
            else:
                setback = self._setbacks.of(record, decided.last, failure, facts.inputs)
                record.memory = record.memory.unverified(decided.held, setback)
        else:
            record.memory = record.memory.verified(decided.held)

    async def _try(self, facts: Facts, decided: Verify) -> None:
        """Send the verification, and tell the limiter how it went. Raises TokenRequestFailed."""
        with self._begun(facts, Purpose.VERIFICATION) as ticket:
            self._kube.fence()
            try:
                await self._endpoint.verify(facts.graphql_url, decided.token)
            except TokenRequestFailed as failure:
                self._limiter.failed(ticket, failure, self._clock.now())
                raise
            self._limiter.succeeded(ticket, self._clock.now())

    @contextmanager
    def _begun(self, facts: Facts, purpose: Purpose) -> Iterator[Ticket]:
        """Hold the place for a request. Nothing may be awaited between the look at the limiter and this."""
        ticket = self._limiter.begin(ask_for(facts, purpose), self._clock.now())
        try:
            yield ticket
        finally:
            self._limiter.abandoned(ticket, self._clock.now())  # unless it has ended

    async def _attempt(self, record: Record, facts: Facts, decided: Attempt, request: _Request) -> None:
        try:
            self._kube.fence(ASKING_SECONDS)
            self._kube.require_reach()
            with self._begun(facts, Purpose.TOKEN) as ticket:
                record.memory = record.memory.attempt_begun(
                    Attempted(rules.counts_from(facts), facts.attempt_inputs),
                    forced_at=facts.now if rules.forced(facts) else None,
                )
                offer = await self._meanwhile(record, request(ticket))
            if offer is not None:
                self._take(record, facts, decided, offer)
        except Failure as failure:
            self._set_back(record, facts, failure)

    async def _by_refresh_token(
        self, record: Record, facts: Facts, decided: Refresh, ticket: Ticket
    ) -> IssuedToken | None:
        """One refresh-token grant; None where the server refuses it."""
        token, present = decided.token, decided.present
        issued = self._clock.now()
        try:
            asked = self._endpoint.refresh(facts.token_url, token.value)
            answer = await self._request(facts, ticket, GrantType.REFRESH_TOKEN, asked)
        except TokenRequestFailed as failure:
            if failure.reason is Reason.ENDPOINT_THROTTLED:
                raise
            if not failure.rejected:
                record.memory = record.memory.refresh_token_spent(token)
                raise  # ambiguous: the server may have taken it; the next attempt is an exchange
            record.memory = record.memory.refresh_token_refused(token, facts.attempt_inputs)
            if not token.proven:
                message = "the server refuses refresh tokens; client credentials are used from now on"
                self._reporter.warn_once(record, Reason.REFRESH_REFUSED, message)
            return None
        # From now on it belongs to the new token: if that is dropped, it is dropped, too.
        record.memory = record.memory.refresh_token_spent(token)
        state = _state(
            facts,
            answer,
            issued,
            version=decided.version,
            scopes=present.state.scopes,
            handled=present.handled or present.state.handled_refresh,
        )
        refresh = RefreshToken(answer.refresh_token or token.value, proven=True)
        return _issued_token(
            state, answer, issued, kind=GrantType.REFRESH_TOKEN, client=present.client, refresh=refresh
        )

    async def _by_client(self, facts: Facts, decided: Exchange, ticket: Ticket) -> IssuedToken:
        """One exchange by client credentials."""
        client, scopes = decided.client, facts.spec.scopes
        issued = self._clock.now()
        asked = self._endpoint.exchange(facts.token_url, client.id, client.secret, scopes)
        answer = await self._request(facts, ticket, GrantType.CLIENT_CREDENTIALS, asked)
        # Whatever its reason, an exchange is what users asked for by annotation; a grant by refresh token is not.
        handled = facts.credential.refresh_requested
        state = _state(facts, answer, issued, version=decided.version, scopes=scopes, handled=handled)
        wanted = facts.spec.refresh.grant is GrantType.REFRESH_TOKEN
        refresh = RefreshToken(answer.refresh_token) if wanted and answer.refresh_token else None
        return _issued_token(state, answer, issued, kind=GrantType.CLIENT_CREDENTIALS, client=client, refresh=refresh)

    async def _request(
        self, facts: Facts, ticket: Ticket, kind: GrantType, asked: Coroutine[Any, Any, TokenResponse]
    ) -> TokenResponse:
        """Send the token request, and tell the limiter and the metrics how it went.

        Raises:
            TokenRequestFailed: no token came of it.
            NotLeading: this replica does not lead any more, or not for long enough: nothing was sent.
        """
        try:
            with self._metrics.token_request(kind), closing(asked):
                self._kube.fence(ASKING_SECONDS)  # in the very step that sends: it may have been stopped before
                answer = await asked
        except TokenRequestFailed as failure:
            # After a refused refresh token, the exchange that follows tells.
            if not (kind is GrantType.REFRESH_TOKEN and failure.rejected):
                self._limiter.failed(ticket, failure, self._clock.now())
            raise
        self._limiter.succeeded(ticket, self._clock.now())
        self._compare_clocks(origin_of(facts.token_url), answer.server_time)
        return answer

    def _compare_clocks(self, origin: str, server_time: float | None) -> None:
        """Warn if this clock and the server's are too far apart: the one tells the expiry, the other enforces it."""
        if server_time is None:
            return
        ahead = self._clock.now().wall - server_time
        self._metrics.clock_difference(origin, ahead)
        apart = abs(ahead) > _CLOCKS_APART
        if apart and origin not in self._apart:
            extra = fields(origin=origin, ahead_seconds=round(ahead, 1))
            _log.warning("this machine's clock and the token endpoint's are more than 30 s apart", extra=extra)
        (self._apart.add if apart else self._apart.discard)(origin)

    def _take(self, record: Record, facts: Facts, decided: Attempt, offer: IssuedToken) -> None:
        """Judge an answer against the token that is held, and keep it. Raises Failure if it is worse."""
        current, now = record.memory.current, self._clock.now()
        routine = decided.why in (Need.DUE, Need.EXPIRED)
        due = rules.refresh_at(facts, current) if current is not None and routine else None
        match rules.compare(replace(facts, memory=record.memory, now=now), offer):
            case Comparison.BETTER:
                record.memory = record.memory.obtained(offer, due)
                self._remark(record, facts, offer)
            case Comparison.RENEWED:
                record.memory = record.memory.renewed(offer, due)
            case Comparison.SAME if current is not None:
                ask_again = Deadline.after(max(0.0, current.expiry.remaining(now)) / 2, now)
                asked = facts.credential.refresh_requested
                record.memory = record.memory.same_again(asked, ask_again, offer.refresh)
                _log.info("the server gave the same token again", extra=fields(credential=facts.credential.key))
            case _:
                message = "the server gave a token with narrower scopes or an earlier end than the present one"
                raise Failure(Reason.WORSE_TOKEN, message)

    def _remark(self, record: Record, facts: Facts, held: IssuedToken) -> None:
        """Warn once of settings of the server that a new token shows: narrowed scopes, short lifetimes."""
        if held.state.scopes >= facts.spec.scopes:
            record.memory = record.memory.may_tell_again(Reason.SCOPE_NARROWED)
        else:
            message = "the server granted fewer scopes than spec.scopes asks for"
            self._reporter.warn_once(record, Reason.SCOPE_NARROWED, message)
        if lead(facts.spec.refresh, held.state.lifetime) < MIN_LEAD:
            message = "tokens live less than 4 minutes: a Pod may see a new one only after the old one has expired"
            self._reporter.warn_once(record, Reason.LIFETIME_TOO_SHORT, message)
        else:
            record.memory = record.memory.may_tell_again(Reason.LIFETIME_TOO_SHORT)

    def _set_back(self, record: Record, facts: Facts, failure: Failure) -> None:
        """Remember a failed attempt and when to try again."""
        setback = self._setbacks.of(record, rules.setback(facts), failure, facts.attempt_inputs)
        last = facts.memory.attempt
        asked = facts.credential.refresh_requested or (last.asked if last else "")
        record.memory = record.memory.attempt_failed(replace(setback, asked=asked))

    async def _meanwhile(self, record: Record, request: Coroutine[Any, Any, IssuedToken | None]) -> IssuedToken | None:
        """Wait for a token request, and keep the status true while it takes its time, whatever changes meanwhile."""
        task = asyncio.create_task(request)
        wait: float | None = _SLOW_REQUEST
        try:
            while not (await asyncio.wait({task}, timeout=wait))[0]:
                facts = self._look(record)
                decision = rules.meanwhile(facts)
                # Whatever becomes of the report, the request goes on: its answer may be the only one there is.
                with suppress(ApiFailure):
                    if not decision.silent:
                        await self._reporter.report(record, facts, decision)
                published = facts.memory.published
                left = published.expiry.remaining(facts.now) if published else 0.0
                wait = left if left > 0 else None
            return task.result()
        finally:
            task.cancel()


def _state(  # noqa: PLR0913 -- all that a token is known by
    facts: Facts, answer: TokenResponse, issued: Moment, *, version: str, scopes: frozenset[str], handled: str
) -> TokenState:
    """The state of a new token.

    `version` is that of the client Secret it was issued for, `scopes` are those that count where the answer tells none.
    """
    at = int(issued.wall)
    state = TokenState(
        credential_uid=facts.credential.uid,
        issued_at=at,
        expires_at=at + answer.lifetime,
        next_refresh=0,
        granted_scopes=" ".join(sorted(scopes if answer.scopes is None else answer.scopes)),
        exchange_inputs=facts.inputs,
        template=facts.layout.digest,
        client_secret_version=version,
        handled_refresh=handled,
    )
    return replace(state, next_refresh=int(at + refresh_offset(facts.spec.refresh, state)))


def _issued_token(  # noqa: PLR0913 -- all that came with a token
    state: TokenState,
    answer: TokenResponse,
    issued: Moment,
    *,
    kind: GrantType,
    client: Client | None,
    refresh: RefreshToken | None,
) -> IssuedToken:
    return IssuedToken(state, issued.moved_to(state.issued_at), answer.access_token, client, kind, refresh)


def ask_for(facts: Facts, purpose: Purpose) -> Ask:
    """What to ask the limiter for; with the client id, if it is known."""
    url = facts.token_url if purpose is Purpose.TOKEN else facts.graphql_url
    read, current = facts.memory.client, facts.memory.current
    client = read.client if read else current.client if current else None
    client_id = client.id if isinstance(client, Client) else ""
    return Ask(facts.credential.key, origin_of(url), purpose, rules.present_end(facts), client_id)
