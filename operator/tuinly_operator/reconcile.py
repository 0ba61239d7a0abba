"""Reconciles one credential: gather what is, decide, act, and again until there is nothing left to do now.

The way of a token: `attempt` obtains and judges it, `publish` writes it, `reporter` tells of it.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from tuinly_operator import decision as rules
from tuinly_operator.attempt import Attempts, client_id_of, issued_at
from tuinly_operator.clock import Clock, Deadline
from tuinly_operator.credential import Key
from tuinly_operator.decision import Act, Decision, Facts, Policy
from tuinly_operator.errors import Failure, Reason
from tuinly_operator.events import EventSender
from tuinly_operator.gate import Gate
from tuinly_operator.kube import ApiFailure, Kube, NotLeading
from tuinly_operator.logs import fields
from tuinly_operator.memory import Held
from tuinly_operator.metrics import Metrics
from tuinly_operator.oauth import TokenEndpoint, origin_of
from tuinly_operator.publish import Publisher
from tuinly_operator.reporter import Reporter
from tuinly_operator.setbacks import Setbacks
from tuinly_operator.state import believe, exchange_inputs
from tuinly_operator.store import Record, Sight, Store
from tuinly_operator.template import DEFAULT_SHAPE, shape
from tuinly_operator.timers import Timers

_MOST_ACTS: Final = 12  # in one go; more means that something changes as fast as it is looked at
_ANOTHER_GO: Final = 1.0  # seconds
_RETRY: Final = 5.0  # seconds at most until another try, where nothing else says when

_log = logging.getLogger(__name__)


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
        give_way: Callable[[Key], bool] = lambda _: False,
    ) -> None:
        """Nothing is done before `reconcile`.

        `give_way` is asked once a token is published: it queues the credential again behind others, if any wait.
        """
        self._store = store
        self._gate = gate
        self._timers = timers
        self._policy = policy
        self._clock = clock
        self._give_way = give_way
        self._under_way: dict[Key, asyncio.Task[None]] = {}
        self._reporter = Reporter(store, kube, events)
        self._setbacks = setbacks = Setbacks(clock, policy.min_interval)
        publisher = Publisher(
            store=store, kube=kube, reporter=self._reporter, setbacks=setbacks, metrics=metrics, clock=clock
        )
        attempts = Attempts(
            store=store,
            kube=kube,
            endpoint=endpoint,
            gate=gate,
            reporter=self._reporter,
            setbacks=setbacks,
            metrics=metrics,
            clock=clock,
        )
        self._acts: dict[Act, Callable[[Record, Facts, Sight], Awaitable[None]]] = {
            Act.READ_CLIENT_SECRET: attempts.read_client_secret,
            Act.EXCHANGE: attempts.attempt,
            Act.REFRESH: attempts.attempt,
            Act.VERIFY: attempts.verify,
            Act.PROVE_ABSENCE: publisher.prove_absence,
            Act.PUBLISH: publisher.publish,
            Act.REMOVE_OLD_TARGETS: publisher.remove_old_targets,
        }

    async def reconcile(self, key: Key) -> None:
        """Bring one credential to rest, or until it is given up. Never raises but for cancellation and defects."""
        record = self._store.get(key)
        if record is None:
            self._timers.cancel(key)
            return
        task = self._under_way[key] = asyncio.create_task(self._bring_to_rest(record))
        try:
            await asyncio.wait({task})
        finally:
            del self._under_way[key]
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    def give_up(self, key: Key) -> None:
        """End what is under way for a credential that has gone or has a successor: that one must not wait for it."""
        task = self._under_way.get(key)
        if task is not None and task is not asyncio.current_task():  # who found it gone ends by itself
            task.cancel()

    async def _bring_to_rest(self, record: Record) -> None:
        key = record.credential.key
        # A token that was obtained waits in memory, whatever fails here; the next try writes it.
        try:
            await self._act_until_rest(record)
            record.memory.refusal = None
        except NotLeading:
            # The lead may only be too short for a token request. Where it is lost, the queue is closed.
            self._try_again(key)
        except ApiFailure as failure:
            if failure.refused:
                message = (
                    f"the API server refuses what the operator needs ({failure.status} {failure.word}); "
                    "check its RBAC and the admission policies in this namespace"
                )
                await self._refused(record, Failure(Reason.TARGET_REJECTED, message))
                return
            _log.warning("the API server failed a request, trying again", extra=fields(credential=key, cause=failure))
            self._try_again(key)
        except Failure as failure:
            await self._refused(record, failure)

    def _try_again(self, key: Key) -> None:
        wait = random.uniform(1, _RETRY)  # noqa: S311 -- jitter
        self._timers.set(key, Deadline.after(wait, self._clock.now()))

    async def _refused(self, record: Record, failure: Failure) -> None:
        """Tell of what the API server will not do for us, and try again later: only a person can mend it."""
        memory = record.memory
        memory.refusal = self._setbacks.of(record, memory.refusal, failure, "")
        self._timers.set(record.credential.key, memory.refusal.retry)
        decision = Decision(Act.REST, failure, memory.refusal.retry)
        with suppress(ApiFailure):
            await self._reporter.report(record, self._gather(record, Sight()), decision)

    async def _act_until_rest(self, record: Record) -> None:
        sight = Sight()
        for _ in range(_MOST_ACTS):
            facts = self._gather(record, sight)
            decision = rules.decide(facts)
            if decision.act is Act.REST:
                await self._rest(record, facts, decision)
                return
            await self._acts[decision.act](record, facts, sight)
            if decision.act is Act.PUBLISH and self._give_way(record.credential.key):
                return  # others wait for a token: telling of this one comes after theirs
            if self._store.get(record.credential.key) is not record:
                return  # deleted, or replaced by another of its name, meanwhile
        self._timers.set(record.credential.key, Deadline.after(_ANOTHER_GO, self._clock.now()))

    def _gather(self, record: Record, sight: Sight) -> Facts:
        credential, memory, now = record.credential, record.memory, self._clock.now()
        target = self._store.secret(credential.target) or sight.target
        wanted, problem = DEFAULT_SHAPE, credential.problem
        try:
            wanted = shape(credential.spec.target.template) if credential.spec.target.template else DEFAULT_SHAPE
        except Failure as failure:
            problem = failure
        # One that the watch lacks may only be late: another leader has just written it.
        if not memory.met and (target or sight.looked):
            memory.met = True
            state = believe(target, credential, wanted, now.wall) if target else None
            if state is not None:
                memory.published = Held(state, issued_at(state.issued_at, now))
        url = self._policy.token_url_of(credential.spec)
        memory.keep_for(exchange_inputs(url, credential.spec))
        origin = origin_of(url)
        block = self._gate.look(origin, client_id_of(record), self._store.urgency(credential.key), now)
        return Facts(
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
            block=block,
            probe=block is None and self._gate.is_closed(origin),
            gate_epoch=self._gate.epoch(origin),
        )

    async def _rest(self, record: Record, facts: Facts, decision: Decision) -> None:
        """Report, and set the timer for when time alone changes something."""
        key = record.credential.key
        wake = decision.look_again
        published = record.memory.published
        if published is not None and not published.expiry.due(facts.now):
            wake = published.expiry.earlier(wake)
        if decision.parked:
            self._gate.park(origin_of(facts.token_url), key, self._store.urgency(key))
        if not decision.silent:
            again = await self._reporter.report(record, facts, decision)
            wake = again.earlier(wake) if again else wake
        if wake is None:
            self._timers.cancel(key)
        else:
            self._timers.set(key, wake)
