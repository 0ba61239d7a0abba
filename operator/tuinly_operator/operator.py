"""The operator as a whole: its parts, what starts and stops when, and what makes it ready.

First the Secrets are listed, then kopf brings the credentials, and the queue opens. What holds the queue is here: the
first list of Secrets, the reach of the API server, and, when there are several replicas, the election.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tuinly_operator.base.clock import Deadline
from tuinly_operator.base.logs import fields
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.settings import Settings, SettingsError
from tuinly_operator.base.surroundings import Surroundings
from tuinly_operator.census import Census
from tuinly_operator.domain.facts import Policy
from tuinly_operator.edges.credential_watch import CredentialWatch
from tuinly_operator.edges.election import Election
from tuinly_operator.edges.events import EventSender
from tuinly_operator.edges.health import HealthServer
from tuinly_operator.edges.kube import ApiFailure, Kube, KubeconfigError, connect
from tuinly_operator.edges.metrics import Metrics, State
from tuinly_operator.edges.oauth import TokenEndpoint, origin_of
from tuinly_operator.edges.pods import PodDoor
from tuinly_operator.edges.refusals import Refusals
from tuinly_operator.edges.secret_watch import SecretWatch
from tuinly_operator.engine.leadership import Leadership
from tuinly_operator.engine.limiter import Limiter
from tuinly_operator.engine.parts import Parts
from tuinly_operator.engine.pusher import Pusher
from tuinly_operator.engine.store import Store
from tuinly_operator.engine.timers import Timers
from tuinly_operator.engine.workqueue import Order, Urgency, WorkQueue
from tuinly_operator.reconciler.reconcile import Reconciler

_STOPPING: Final = "the operator is stopping"
_WATCH: Final = "the watch of TuinlyCredentials"
_LISTING: Final = "the Secrets are not listed yet"
_NOT_LEADING: Final = "another replica leads"
_OUT_OF_REACH: Final = "the API server is out of reach"
_GRACE: Final = 10.0  # seconds for what is in flight at SIGTERM
_END_SECONDS: Final = 4.0  # for parts to end once they are cancelled
_CLOSE_SECONDS: Final = 3.0  # for connections to close
_PROBE_SECONDS: Final = 1.0
_WORK: Final = 2  # reconciles per token request: while one waits for its answer, another one reads and writes
_STUCK_SECONDS: Final = 300.0
_DEFECT_RETRY: Final = 60.0
_FINISH_POLL: Final = 0.02
_LIST_POLL: Final = 0.05

_log = logging.getLogger(__name__)


async def run(settings: Settings, surroundings: Surroundings) -> None:
    """Run until SIGTERM or SIGINT; what is in flight then has ten seconds to finish.

    Raises:
        SettingsError: the kubeconfig, the CA bundle, the proxy or the listen address cannot be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    operator = Operator(settings, surroundings)
    starting = asyncio.create_task(operator.start())

    def end() -> None:
        stop.set()
        starting.cancel()  # in vain once it has started

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        await starting
        await operator.work_until(stop)
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await operator.close()


@dataclass(frozen=True, slots=True)
class Doors:
    """What makes the edges through which an operator meets the world; a simulation hands in others."""

    api: Callable[..., Awaitable[Kube]] = connect
    endpoint: Callable[..., TokenEndpoint] = TokenEndpoint
    credentials: Callable[..., CredentialWatch] = CredentialWatch
    health: Callable[..., HealthServer] = HealthServer


class Operator:
    """All parts, wired: the watches fill the store and the queue, reconciles empty it."""

    def __init__(self, settings: Settings, surroundings: Surroundings, doors: Doors | None = None) -> None:
        """Nothing is connected before `start`. To be made on the loop that it will run on."""
        self._settings = settings
        self._surroundings = surroundings
        self._doors = doors or Doors()
        self._policy = Policy(
            token_url=settings.token_url,
            graphql_url=settings.graphql_url,
            allowed_token_urls=settings.allowed_token_urls,
            allowed_graphql_urls=settings.allowed_graphql_urls,
            min_interval=settings.min_refresh_interval,
            push=settings.push,
        )
        self._clock, self._chance = surroundings.clock, surroundings.chance
        self._time = asyncio.get_running_loop().time  # seconds, of which none pass while the machine is suspended
        self._leadership = Leadership(self._clock) if settings.lease else Leadership.alone(self._clock)
        self._queue = WorkQueue(self._urgency, self._time, places=_WORK * settings.concurrency)
        self._timers = Timers(self._clock, self._queue.add, burst=settings.concurrency)
        self._parked = asyncio.Event()  # somebody was parked since the limiter was last tended
        self._limiter = Limiter(settings.concurrency, self._queue.add, parked=self._parked.set)
        self._store = Store(
            changed=self._queue.add,
            gone=self._forget,
            doubtful=self._ask_about,
            client_secret_changed=lambda key: self._reconciler.client_secret_changed(key),  # noqa: PLW0108 -- made later
        )
        self._metrics = Metrics(self._clock)
        surroundings.iterations.seen = self._metrics.long_iteration
        self._health = self._doors.health(
            settings.listen, alive=self.alive, ready=self.ready, notes=self.notes, metrics=self._metrics.render
        )
        self._namespaces: tuple[str | None, ...] = settings.namespaces or (None,)
        self._refusals = Refusals(self._chance)
        self._parts = Parts(self._time, self._chance)
        self._connections = AsyncExitStack()  # closes what has been opened
        self._away = asyncio.Event()  # set while the API server is out of reach
        self._listed = False  # whether all that is served has been listed since the start
        self._election: Election | None = None  # until it has logged in, and without a Lease
        self._queue.hold(_LISTING)

    async def start(self) -> None:
        """Log in, check what the settings name, and listen; `close` closes what that opened, even if this fails.

        Raises SettingsError.
        """
        await self._log_in()
        self._secret_watches = [
            SecretWatch(self._kube, self._store, namespace, self._refusals, self._chance)
            for namespace in self._namespaces
        ]
        watch = self._credential_watch = self._doors.credentials(
            self._kube,
            self._refusals,
            self._chance,
            watch_loop=self._surroundings.watch_loop,
            namespaces=self._namespaces,
            selector=self._settings.selector,
            begun=self._count_again,
            seen=self._store.credential_seen,
            created=partial(self._store.credential_seen, created=True),
            listed=partial(self._store.credential_seen, listed=True),
            gone=self._store.credential_ended,
        )
        self._census = Census(
            self._kube,
            self._store,
            lambda: watch.watched,
            lost=watch.restart,
            is_ahead=self._is_ahead,
            went_back=self._list_all_again,
        )
        self._election = self._join_election()
        self._expose_state()
        self._events = EventSender(self._kube, self._clock, self._surroundings.host)
        self._make_reconciler()
        self._connections.push_async_callback(self._health.stop)
        host, port = await self._health.start()
        _log.info("serving health and metrics", extra=fields(host=host, port=port))

    async def _log_in(self) -> None:
        """Open the doors to both servers. Raises SettingsError."""
        s = self._settings
        try:
            self._endpoint = self._doors.endpoint(
                self._clock, ca_bundle=s.ca_bundle, request_timeout=s.request_timeout, connections=_WORK * s.concurrency
            )
        except ValueError as error:
            raise SettingsError(str(error)) from None
        self._connections.push_async_callback(self._endpoint.aclose)
        try:
            self._kube = await self._doors.api(
                s.kubeconfig,
                s.selector,
                self._leadership,
                clock=self._clock,
                reachable=self._api_within_reach,
                pace=self._pace,
            )
        except KubeconfigError as error:
            message = f"--kubeconfig (TUINLY_KUBECONFIG): {error}"
            raise SettingsError(message) from None
        self._connections.push_async_callback(self._kube.close)

    def _make_reconciler(self) -> None:
        """Make what decides and acts, from the parts that are there by now."""
        self._pusher = Pusher(
            PodDoor(self._kube),
            self._clock,
            self._chance,
            rate=self._settings.push_rate,
            shown=self._has_shown,
            came=lambda push, delivery: self._reconciler.pushed(push, delivery),  # noqa: PLW0108 -- made below
            count=self._metrics.pushed,
        )
        self._reconciler = Reconciler(
            store=self._store,
            kube=self._kube,
            endpoint=self._endpoint,
            limiter=self._limiter,
            timers=self._timers,
            events=self._events,
            metrics=self._metrics,
            pusher=self._pusher,
            policy=self._policy,
            clock=self._clock,
            chance=self._chance,
            requeue=self._queue.add,
            caught_up=self._queue.caught_up,
            give_way=self._give_way,
        )

    async def work_until(self, stop: asyncio.Event) -> None:
        """Run all parts until `stop`, let what is in flight finish, and give up the lead."""
        begin = self._begin
        acting = [begin("the work", self._work)]
        if self._election is not None:
            acting += [begin("the election", self._election.run), begin("the wait for the lists", self._await_lists)]
        others = [
            *(begin("a watch of Secrets", watch.run) for watch in self._secret_watches),
            begin(_WATCH, self._watch_credentials),
            begin("the timers", self._timers.run),
            begin("the tending of the limiter", self._tend_limiter),
            begin("the sending of Events", self._events.run),
            begin("the telling of Pods", self._pusher.run),
            begin("the census", self._census.run),
            begin("the census's questions", self._census.settle),
            begin("the census at a takeover", self._census.confirm),
            begin("the probe of the API server", self._probe_api),
            begin("the renewal of the login", self._kube.renew_login),
        ]
        try:
            await stop.wait()
            await self._finish()
        finally:
            await _end(*acting)
            # Nothing is in flight any more: another replica takes over while the rest of this one ends.
            if self._election is not None:
                await self._election.release()
            await _end(*others)

    async def close(self) -> None:
        """Close all connections that `start` opened."""
        await self._connections.aclose()

    def alive(self) -> list[str]:
        """What hangs or is lost, so that only a restart of the process helps; empty if nothing does."""
        stuck = self._queue.stalled > _STUCK_SECONDS and not self._queue.holds
        hanging = [f"the queue has not moved for {self._queue.stalled:.0f} s"] if stuck else []
        return hanging + [f"{part} ended and did not come back" for part in self._parts.lost()]

    def ready(self) -> list[str]:
        """What is still missing; empty once all is there."""
        served = [watch for watch in self._secret_watches if watch.what not in self._refusals]
        missing = [] if served and all(watch.listed for watch in served) else ["Secrets listed: no"]
        if not all(watch.alive for watch in served):
            missing.append("watch of Secrets alive: no")
        if not self._credential_watch.alive or self._parts.down(_WATCH):
            missing.append("watch of TuinlyCredentials alive: no")
        if not self._census.taken:
            missing.append("TuinlyCredentials listed: no (is the CRD installed?)")
        elif behind := self._census.behind:
            missing.append(f"TuinlyCredentials seen: all but {behind}")
        return missing

    def _begin(self, name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(self._parts.add(name, run).keep())

    def notes(self) -> list[str]:
        """What /readyz tells besides; none of it makes this replica unready."""
        lease = self._election.obstacle if self._election else ""
        login = self._kube.login_trouble
        return [
            *(["API server answers: no"] if self._away.is_set() else []),
            *(f"may list and watch {refusal}: no" for refusal in self._refusals),
            *([f"reads and writes the Lease {self._settings.lease}: no ({lease})"] if lease else []),
            *([f"renews its login: no ({login})"] if login else []),
        ]

    def _expose_state(self) -> None:
        """Let the metrics read from the parts at each scrape."""
        policy = self._policy
        state = State(
            store=self._store,
            queue=self._queue,
            limiter=self._limiter,
            leading=self._leadership.holds,
            reachable=lambda: self._kube.reachable,
            refused=lambda: [(what.resource, what.namespace or "*") for what in self._refusals],
            origins=lambda: set(
                map(origin_of, {url for each in self._store for url in policy.urls_of(each.credential.spec)})
            ),
        )
        self._metrics.expose(state)

    # --- Parts --------------------------------------------------------------------------------------------------------

    async def _watch_credentials(self) -> None:
        """Start kopf once all Secrets are known, so that nothing is decided on half of them."""
        for watch in self._secret_watches:
            await watch.settled.wait()
        self._queue.release(_LISTING)
        await self._credential_watch.run()

    async def _work(self) -> None:
        """Begin a reconcile for whatever the queue hands out; how many at a time is the queue's to say."""
        async with asyncio.TaskGroup() as reconciles:
            while True:
                reconciles.create_task(self._reconcile(await self._queue.get()))
                # While keys wait and reconciles have nothing to do, nothing pauses here: let other tasks run.
                await asyncio.sleep(0)

    async def _reconcile(self, key: NamespacedName) -> None:
        try:
            await self._reconciler.reconcile(key)
        except Exception:  # noqa: BLE001 -- a defect that one credential brings to light must not stop the others
            _log.exception("a reconcile failed", extra=fields(credential=key))
            retry = Deadline.after(_DEFECT_RETRY, self._clock.now())
            self._timers.set(key, retry.earlier(self._timers.get(key)))  # it must not delay a refresh
        finally:
            self._queue.done(key)

    async def _probe_api(self) -> None:
        """While the API server is out of reach the queue is closed; this notices that it is back."""
        while True:
            await self._away.wait()
            await asyncio.sleep(_PROBE_SECONDS)
            with suppress(ApiFailure):
                await self._kube.check_ready()

    async def _tend_limiter(self) -> None:
        """Have the limiter release those who wait for time to pass alone: for a probe, or under a bounded rate."""
        while True:
            self._parked.clear()
            pause = self._limiter.tick(self._clock.now())
            await (self._parked.wait() if pause is None else asyncio.sleep(pause))

    async def _finish(self) -> None:
        """Start nothing more, and wait for what is in flight, but not for ever."""
        self._queue.hold(_STOPPING)
        _log.info("stopping", extra=fields(in_flight=self._queue.active))
        deadline = self._time() + _GRACE
        while self._queue.active and self._time() < deadline:  # noqa: ASYNC110 -- at the very end, a poll does
            await asyncio.sleep(_FINISH_POLL)
        if self._queue.active:
            _log.warning("abandoned what was still in flight", extra=fields(in_flight=self._queue.active))

    def _pace(self, namespace: str, slow: bool) -> None:  # noqa: FBT001 -- a callback
        """Keep apart the namespaces whose writes are slow."""
        self._queue.mark(namespace, slow=slow)

    # --- Election -----------------------------------------------------------------------------------------------------

    def _join_election(self) -> Election | None:
        """With a Lease, only its holder works. The others are warm: they watch all, with their queue closed."""
        lease = self._settings.lease
        if lease is None:
            return None
        election = Election(
            self._kube,
            lease,
            self._surroundings.unique_name(),
            self._clock,
            self._leadership,
            chance=self._chance,
            unfit=self._unfit,
            promoted=self._promoted,
            demoted=self._demoted,
        )
        self._queue.hold(_NOT_LEADING)
        return election

    def _demoted(self) -> None:
        """Hold the queue, and have the limiter forget who waits and how requests went."""
        self._queue.hold(_NOT_LEADING)
        self._limiter.start_afresh()

    def _unfit(self) -> str:
        """Why this replica must not lead: it has not listed everything since its start, or has lost a part of itself.

        That a watch lags or the API server is out of reach later is no reason.
        """
        if lost := self._parts.lost():
            return f"{lost[0]} ended and did not come back"
        return "" if self._listed else "not everything has been listed yet"

    async def _await_lists(self) -> None:
        """Wait until everything has been listed, and note it. Like each part of the operator, this never ends."""
        while not self._listed:
            self._note_lists()
            await asyncio.sleep(_LIST_POLL)
        await asyncio.Event().wait()

    def _note_lists(self) -> None:
        """Where the API server does not know the resource, only the Secrets count: there is nothing else to list."""
        secrets = all(watch.settled.is_set() for watch in self._secret_watches)
        if secrets and (self._credential_watch.defined is False or not self.ready()):
            self._listed = True

    def _promoted(self, again: bool) -> None:  # noqa: FBT001 -- a callback
        """Start afresh, since what was remembered may be older than what another leader has done, if there was one."""
        if again:
            self._store.look_at_all()
        else:
            self._store.start_afresh()
            self._census.taken_over()
        self._queue.release(_NOT_LEADING)

    # --- What the parts are told --------------------------------------------------------------------------------------

    def _api_within_reach(self, reachable: bool) -> None:  # noqa: FBT001 -- a callback
        self._parts.note_api(answers=reachable)
        if reachable:
            _log.info("the API server is within reach again")
            self._away.clear()
            self._census.take_again()
            self._queue.release(_OUT_OF_REACH)
        else:
            _log.warning("the API server is out of reach; no token is asked for until it is back")
            self._away.set()
            self._queue.hold(_OUT_OF_REACH)

    def _give_way(self, key: NamespacedName) -> bool:
        """Queue a credential again behind others, if any wait, and the queue is open so that its turn will come."""
        if not self._queue or self._queue.holds:
            return False
        self._queue.add(key, status_only=True)
        return True

    def _count_again(self) -> None:
        self._census.take_again()

    async def _is_ahead(self) -> bool:
        """Whether a watch of Secrets is ahead of the API server; one that cannot be asked about now is not."""
        ahead = False
        for watch in self._secret_watches:
            with suppress(ApiFailure):
                ahead |= await watch.compare()
        return ahead

    def _list_all_again(self) -> None:
        self._credential_watch.restart()
        for watch in self._secret_watches:
            watch.list_again()

    def _ask_about(self, key: NamespacedName) -> None:
        self._census.ask_about(key)

    def _forget(self, key: NamespacedName) -> None:
        self._timers.cancel(key)
        self._limiter.forget(key, self._clock.now())
        self._reconciler.give_up(key)
        self._pusher.drop(key)

    def _has_shown(self, namespace: str, version: str) -> bool:
        """Whether the watch of Secrets has come as far as a version."""
        watches = zip(self._namespaces, self._secret_watches, strict=True)
        return any(watch.has_shown(version) for of, watch in watches if of in (None, namespace))

    def _urgency(self, key: NamespacedName) -> Urgency:
        """Where a credential waits in the queue.

        One for which a place at an endpoint is kept comes first, so that the place is used soon.
        """
        if self._limiter.holds_place(key):
            return Urgency(Order.LIVING, float("-inf"))
        record, end = self._store.get(key), self._store.token_end(key)
        if record is not None and (record.credential.spec.suspend or record.credential.deleting):
            return Urgency(Order.STATUS)
        return Urgency(Order.ENDED) if end is None or end <= self._clock.now().wall else Urgency(Order.LIVING, end)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they have ended, but not for ever."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_END_SECONDS)
