"""Reconciles one credential: gather what is, decide, act, and again until there is nothing left to do now.

The way of a token: `obtain` asks for it and judges it, `publish` writes it, `report` tells of it.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Final, assert_never

from tuinly_operator.base.chance import Chance
from tuinly_operator.base.clock import Clock, Deadline, Moment, rfc3339
from tuinly_operator.base.logs import fields
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain import decision as rules
from tuinly_operator.domain.acts import (
    Act,
    AskWhoServes,
    Exchange,
    ProveAbsence,
    Publish,
    ReadClientSecret,
    Refresh,
    RemoveOldTargets,
    Rest,
    Verify,
)
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.facts import Facts, Permit, Policy, Purpose, gather
from tuinly_operator.domain.push import Delivery, Push
from tuinly_operator.edges.events import EventSender
from tuinly_operator.edges.kube import ApiFailure, Kube, NotLeading
from tuinly_operator.edges.metrics import Metrics
from tuinly_operator.edges.oauth import TokenEndpoint
from tuinly_operator.engine.limiter import Ask, Limiter
from tuinly_operator.engine.pusher import Pusher
from tuinly_operator.engine.store import LiveTarget, Record, Store
from tuinly_operator.engine.timers import Timers
from tuinly_operator.reconciler.client_secrets import ClientSecrets
from tuinly_operator.reconciler.obtain import Attempts, ask_for
from tuinly_operator.reconciler.publish import Publisher
from tuinly_operator.reconciler.report import Reporter
from tuinly_operator.reconciler.retries import Setbacks

_MOST_ACTS: Final = 12  # in one reconcile; more means that something changes as fast as it is looked at
_RETRY: Final = 5.0  # seconds at most until another try, where nothing else says when
_LEAST_RETRY: Final = 1.0
_FAILURES_IN_SILENCE: Final = 2  # in a row, before users are told: most pass by themselves

_log = logging.getLogger(__name__)


class Reconciler:
    """Does what decisions ask for."""

    def __init__(  # noqa: PLR0913 -- the edges it acts on
        self,
        *,
        store: Store,
        kube: Kube,
        endpoint: TokenEndpoint,
        limiter: Limiter,
        timers: Timers,
        events: EventSender,
        metrics: Metrics,
        pusher: Pusher,
        policy: Policy,
        clock: Clock,
        chance: Chance,
        requeue: Callable[[NamespacedName], None],
        caught_up: Callable[[NamespacedName], None],
        give_way: Callable[[NamespacedName], bool] = lambda _: False,
    ) -> None:
        """Nothing is done before `reconcile`.

        `requeue` asks for another reconcile of a credential, also of one that is being reconciled. `caught_up` is
        called once all that is known has been gathered for a decision: what was asked for until then needs no other
        reconcile. The watch, for one, often shows a write before its answer comes.
        `give_way` is asked once a token is published: it queues the credential again behind others, if any wait.
        """
        self._store = store
        self._kube = kube
        self._limiter = limiter
        self._timers = timers
        self._pusher = pusher
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._requeue = requeue
        self._caught_up = caught_up
        self._give_way = give_way
        self._under_way: dict[NamespacedName, asyncio.Task[frozenset[Ask]]] = {}
        self._reporter = Reporter(store, kube, events, clock)
        self._setbacks = setbacks = Setbacks(clock, chance, policy.min_interval)
        self._publisher = Publisher(
            store=store, kube=kube, reporter=self._reporter, setbacks=setbacks, metrics=metrics, clock=clock
        )
        self._client_secrets = ClientSecrets(store, kube, clock)
        self._attempts = Attempts(
            look=lambda record: self._gather(record, LiveTarget()),
            kube=kube,
            endpoint=endpoint,
            limiter=limiter,
            reporter=self._reporter,
            setbacks=setbacks,
            metrics=metrics,
            clock=clock,
        )

    async def reconcile(self, key: NamespacedName) -> None:
        """Bring one credential to rest, or until it is given up. Never raises but for cancellation and defects."""
        record, parked = self._store.get(key), frozenset[Ask]()
        try:
            if record is None:
                self._timers.cancel(key)
            else:
                parked = await self._until_given_up(record)
        finally:
            # Whatever came of it: a credential that waits for no request keeps no place for one.
            self._limiter.keep_only(key, parked, self._clock.now())

    async def _until_given_up(self, record: Record) -> frozenset[Ask]:
        key = record.credential.key
        task = self._under_way[key] = asyncio.create_task(self._bring_to_rest(record))
        try:
            await asyncio.wait({task})
        finally:
            del self._under_way[key]
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        return frozenset() if task.cancelled() else task.result()

    def give_up(self, key: NamespacedName) -> None:
        """End what is under way for a credential that has gone; a successor of its name must not wait for that."""
        task = self._under_way.get(key)
        if task is not None and task is not asyncio.current_task():  # else it has found that out itself, and ends
            task.cancel()

    def client_secret_changed(self, key: NamespacedName) -> None:
        """Have a credential look at its client Secret once that may be read again: edits in a loop are not followed.

        One that is being reconciled is reconciled again: at its end it would set its timer anew.
        """
        record = self._store.get(key)
        if record is None or record.credential.spec.suspend:
            return
        there, ref = self._store.secret(record.credential.client_secret), record.credential.spec.client_secret_ref
        again = rules.read_again_at(record.memory.client, ref, there, self._clock.now())
        if again is None or key in self._under_way:
            self._requeue(key)
        else:
            self._wake(key, again)

    async def _bring_to_rest(self, record: Record) -> frozenset[Ask]:
        """Act, and tell how it is; return the requests whose turn it waits for."""
        key, parked = record.credential.key, frozenset[Ask]()
        # A token that was obtained waits in memory, whatever fails here; the next try writes it.
        telling = False
        try:
            rest = await self._act_until_rest(record)
            if rest is not None:
                parked, telling = self._park(*rest), True
                await self._rest(record, *rest)
            record.memory = record.memory.came_to_rest()
        except NotLeading:
            # What is left of the lead may only be too short for a token request. If it is lost, the queue is closed.
            self._try_again(key)
        except ApiFailure as failure:
            await self._failed(record, failure, telling=telling)
        except Failure as failure:
            await self._set_back(record, failure, tell=True)
        return parked

    async def _failed(self, record: Record, failure: ApiFailure, *, telling: bool) -> None:
        """Wait longer each time; tell users what the API server refuses, and what it fails at again and again.

        `telling` says that what failed was the write of the status.
        """
        if failure.out_of_reach and not await self._kube.answers():
            # An outage is not this credential's failure: all go on soon after its end.
            self._try_again(record.credential.key)
            return
        what, where = ("refuses", "operator's RBAC") if failure.refused else ("fails", "API server")
        if failure.reason is Reason.TARGET_REJECTED:
            where += " and the admission policies and webhooks in this namespace"
        message = (
            f"the API server {what} {failure.request or 'what the operator needs'} "
            f"({failure.status or 'no answer'} {failure.word}); check the {where}"
        )
        attempts = record.memory.refusal.attempts if record.memory.refusal else 0
        least = None if failure.refused else max(_LEAST_RETRY, failure.retry_after)
        tell = not telling and (failure.refused or attempts >= _FAILURES_IN_SILENCE)
        await self._set_back(record, Failure(failure.reason, message), tell=tell, least=least)

    def _try_again(self, key: NamespacedName) -> None:
        wait = self._chance.uniform(_LEAST_RETRY, _RETRY)
        self._wake(key, Deadline.after(wait, self._clock.now()))

    def _wake(self, key: NamespacedName, deadline: Deadline) -> None:
        """Requeue at that time, or at an earlier one that was set already: trouble must not delay a refresh."""
        self._timers.set(key, deadline.earlier(self._timers.get(key)))

    async def _set_back(self, record: Record, failure: Failure, *, tell: bool, least: float | None = None) -> None:
        """Try again later what the API server did not do for us, and tell of it."""
        setback = self._setbacks.of(record, record.memory.refusal, failure, "", least=least)
        record.memory = record.memory.refused(setback)
        self._wake(record.credential.key, setback.retry)
        if tell:
            with suppress(ApiFailure):
                await self._reporter.report(record, self._gather(record, LiveTarget()), Rest(failure, setback.retry))

    async def _act_until_rest(self, record: Record) -> tuple[Facts, Rest] | None:
        """Act until nothing is left to do now, and return why; None if others, or another record, come first.

        Raises:
            ApiFailure: a request failed; 409 where something changes as fast as it is looked at.
            Failure: something that only a person can mend.
        """
        live, published = LiveTarget(), False
        for _ in range(_MOST_ACTS):
            facts = self._gather(record, live)
            if facts.target is live.stored:  # else the store may have lost what only this reconcile has seen
                self._caught_up(record.credential.key)
            self._push(record, facts)
            if published and self._give_way(record.credential.key):
                return None  # others wait for a token: telling of this one comes after theirs
            decision = rules.decide(facts)
            if isinstance(decision, Rest):
                return facts, decision
            await self._act(record, facts, decision, live)
            published = isinstance(decision, Publish) and record.memory.write is None
            if self._store.get(record.credential.key) is not record:
                return None  # deleted, or replaced by another of its name, meanwhile
        raise ApiFailure(HTTPStatus.CONFLICT, "TooManyChanges")

    async def _act(self, record: Record, facts: Facts, decided: Act, live: LiveTarget) -> None:
        """Do what was decided, with what it was decided on."""
        match decided:
            case ReadClientSecret():
                await self._client_secrets.read(facts)
            case ProveAbsence():
                await self._publisher.prove_absence(record, facts, live)
            case Exchange():
                await self._attempts.exchange(record, facts, decided)
            case Refresh():
                await self._attempts.refresh(record, facts, decided)
            case Verify():
                await self._attempts.verify(record, facts, decided)
            case Publish():
                await self._publisher.publish(record, facts, decided, live)
            case AskWhoServes():
                await self._publisher.ask_who_serves(record, facts, decided, live)
            case RemoveOldTargets():
                await self._publisher.remove_old_targets(record, facts, decided)
            case _:
                assert_never(decided)

    def _gather(self, record: Record, live: LiveTarget) -> Facts:
        """Put together what is known now, and remember what is learned by that."""
        credential, now = record.credential, self._clock.now()
        live.since = self._store.since(credential.target)
        live.grow_old(now)
        target = live.freshest(credential.target, live.stored)
        facts = gather(
            credential,
            self._policy,
            record.memory,
            now,
            client_secret=self._store.secret(credential.client_secret),
            target=target,
            looked=live.looked_for(credential.target),
            created=record.created,
            served=live.is_served(target),
            confirmed=self._store.is_confirmed(credential.key),
            old_targets=tuple((k, s) for k, s in self._store.targets_of(credential).items() if k != credential.target),
        )
        if record.memory.met and facts.memory.published is not record.memory.published and facts.memory.published:
            expires = rfc3339(facts.memory.published.state.expires_at)
            _log.info("the target holds a later token", extra=fields(credential=credential.key, expires=expires))
        record.memory = facts.memory
        if rules.need(facts) is not None:
            facts = replace(facts, permit=self._permit(ask_for(facts, Purpose.TOKEN), now))
        if facts.memory.pending is not None and facts.verifies:
            facts = replace(facts, verify_permit=self._permit(ask_for(facts, Purpose.VERIFICATION), now))
        return facts

    def _permit(self, ask: Ask, now: Moment) -> Permit:
        """What the limiter says of a request; a place that it keeps for that is used, or given back at the end."""
        self._limiter.picked_up(ask)
        return self._limiter.look(ask, now)

    def _push(self, record: Record, facts: Facts) -> None:
        """Have Pods told of what is new in the target, or of nothing any more."""
        push = rules.to_push(facts)
        if push is not None:
            self._pusher.order(push)
            record.memory = record.memory.push_ordered()
        elif not facts.pushes:
            self._pusher.cut_short(record.credential.key)

    def pushed(self, push: Push, delivery: Delivery) -> None:
        """Remember what came of a push, and tell of it where that is news."""
        record = self._store.get(push.key)
        if record is None or record.credential.uid != push.uid:
            return
        before, record.memory = record.memory.delivery, record.memory.pushed(delivery)
        if delivery.refused and (before is None or before.refused != delivery.refused):
            _log.warning("Pods are not told of new tokens", extra=fields(credential=push.key, cause=delivery.refused))
        if delivery != before:
            self._requeue(push.key)  # not by its timer, which a reconcile that is about to end would set anew

    def _park(self, facts: Facts, decision: Rest) -> frozenset[Ask]:
        """Put the requests that must wait into the limiter's line, before anything can fail; return them."""
        parked = [ask_for(facts, purpose) for purpose in Purpose if purpose in decision.parks]
        for ask in parked:
            self._limiter.park(ask, facts.now)
        return frozenset(parked)

    async def _rest(self, record: Record, facts: Facts, decision: Rest) -> None:
        """Report, and set the timer for when time alone changes something."""
        key = record.credential.key
        wake = decision.recheck_at.earlier(decision.requeue_at) if decision.recheck_at else decision.requeue_at
        published = record.memory.published
        if published is not None and not published.expiry.due(facts.now):
            wake = published.expiry.earlier(wake)
        if not decision.silent:
            if wake is not None:
                self._wake(key, wake)  # also where the report fails
            again = await self._reporter.report(record, facts, decision)
            wake = again.earlier(wake) if again else wake
        if wake is None:
            self._timers.cancel(key)
        else:
            self._timers.set(key, wake, rules.slack_before(facts, wake))
