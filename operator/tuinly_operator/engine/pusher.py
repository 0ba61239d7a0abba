"""Pushes: tells Pods of new tokens in the background, at a bounded rate over all.

It first lists the Pods of a namespace, one list per namespace at a time, and then tells one Pod after the other.
Nothing else waits for that. Of each credential only the newest content is pushed, for about a minute. Pods that have
not been told by then see the new content when the kubelet next looks at them by itself.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol

from tuinly_operator.base.chance import Chance, backoff
from tuinly_operator.base.clock import Clock
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.push import PUSH_SECONDS, Delivery, Outcome, Pod, Push, Reply, Users, delivery, users_of

_PATIENCE: Final = 2.0  # seconds for which a list waits, at most, until the watch of Secrets shows what was written
_LOOK: Final = 0.02  # seconds between two looks whether it does
_LISTS: Final = 4  # lists at the same time, over all namespaces, since each holds a page of Pods in memory
_LEAST_WAIT: Final = 0.5  # seconds until a failed request is made again
_MOST_WAIT: Final = 10.0  # the same, without what Retry-After asks for
_EVEN: Final = 1e-6  # seconds; two times that are closer together are the same
_PROVEN_SECONDS: Final = 3600.0  # after these, a policy that was found to be in force is tried again
_UNPROVEN_SECONDS: Final = 60.0  # the same for one that was not in force


class Door(Protocol):
    """The way to the Pods: the three requests that are made about them (edges/pods.py)."""

    async def users(self, namespace: str, secrets: frozenset[str]) -> Sequence[Pod] | Reply:
        """List the Pods that use one of these Secrets."""

    async def tell(self, namespace: str, pod: Pod, value: str) -> Reply:
        """Tell a Pod."""

    async def try_forbidden(self, namespace: str, pod: Pod) -> Reply:
        """Try, by a dry run, what the admission policy forbids. The answer `DONE` means that it was not forbidden."""


class Bucket:
    """Bounds a rate. What was not used in the past may be used at once, up to a burst."""

    def __init__(self, rate: float, burst: float) -> None:
        """`rate` is per second."""
        self._apart = 1 / rate
        self._most_saved = (burst - 1) / rate
        self._next = float("-inf")  # when the next one would be due if all came at even intervals

    def take(self, now: float) -> float:
        """Take one and return 0; or, if there is none now, return in how many seconds there is. `now` is in seconds."""
        due = max(self._next, now - self._most_saved)
        if due - now > _EVEN:
            return due - now
        self._next = due + self._apart
        return 0.0


class _Turn(NamedTuple):
    """A Pod that is to be told, and how often that has failed so far."""

    pod: Pod
    tries: int


@dataclass(slots=True, eq=False)
class _Work:
    """One push under way."""

    push: Push
    begun: bool = False  # its Pods are known
    waiting: deque[_Turn] = field(default_factory=deque)
    under_way: int = 0  # Pods for which a request, or the wait before the next one, is under way
    beyond: Sequence[str] = ()
    told: int = 0
    late: int = 0
    unlisted: bool = False
    refused: str = ""


class _Proof(NamedTuple):
    """What was found of the admission policy in a namespace.

    `why_not` says why it is taken not to be in force, and is empty if it is. `at` is in seconds of the event loop.
    """

    why_not: str
    at: float


class Pusher:
    """Has Pods told. Namespaces take turns, and so do the credentials of a namespace."""

    def __init__(  # noqa: PLR0913 -- what it rests on
        self,
        door: Door,
        clock: Clock,
        chance: Chance,
        *,
        rate: float,
        shown: Callable[[str, str], bool],
        came: Callable[[Push, Delivery], None],
        count: Callable[[str, float | None], None],
    ) -> None:
        """Nothing is done before `run`. `rate` is in requests per second.

        `shown` answers whether the watch of a namespace's Secrets has come up to a resource version. `came` is called
        with the outcome of each push. `count` is called with the outcome for each Pod and, if the Pod was told, with
        the seconds since the Secret was written.
        """
        self._door = door
        self._clock = clock
        self._chance = chance
        self._shown = shown
        self._came = came
        self._count = count
        self._bucket = Bucket(rate, 2 * rate)
        self._most = int(rate * (PUSH_SECONDS + 2))  # no more Pods than this can be told in time
        self._work: dict[NamespacedName, _Work] = {}  # by credential
        self._unlisted: dict[str, dict[NamespacedName, _Work]] = {}  # by namespace: waits for the next list to begin
        self._lists = asyncio.Semaphore(_LISTS)
        self._begun: asyncio.Queue[str] = asyncio.Queue()  # namespaces that have just come into `_unlisted`
        self._ready: dict[str, dict[NamespacedName, _Work]] = {}  # by namespace: has Pods to tell now
        self._some = asyncio.Event()  # set while there is anything in `_ready`
        self._proofs: dict[str, _Proof] = {}  # by namespace

    def __len__(self) -> int:
        return len(self._work)

    def order(self, push: Push) -> None:
        """Have Pods told of what was just written. A push of an earlier token of that credential is dropped."""
        self.drop(push.key)
        self._await_list(push.key, _Work(push))

    def drop(self, key: NamespacedName) -> None:
        """Give up the push of a credential; no Pod is told any more."""
        work = self._work.pop(key, None)
        if work is not None:
            work.waiting.clear()
            self._unlisted.get(key.namespace, {}).pop(key, None)
            self._leave_line(work)

    def cut_short(self, key: NamespacedName) -> None:
        """Give it up, and tell what came of it: who was not told yet is left to the kubelet."""
        work = self._work.get(key)
        if work is None:
            return
        left, work.unlisted = len(work.waiting) + work.under_way, not work.begun
        self.drop(key)
        self._leave(work, left)
        self._sum_up(work)

    async def run(self) -> None:
        """Tell Pods until cancelled. If this is started again, the pushes that were under way begin anew."""
        interrupted = [work.push for work in self._work.values()]
        self._unlisted = {}
        self._begun, self._some = asyncio.Queue(), asyncio.Event()
        for push in interrupted:
            self.order(push)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_all(group))
            while True:
                group.create_task(self._list_all(await self._begun.get()))

    # --- Lists --------------------------------------------------------------------------------------------------------

    def _await_list(self, key: NamespacedName, work: _Work) -> None:
        self._work[key] = work
        if key.namespace not in self._unlisted:
            self._unlisted[key.namespace] = {}
            self._begun.put_nowait(key.namespace)
        self._unlisted[key.namespace][key] = work

    async def _list_all(self, namespace: str) -> None:
        """List the Pods of a namespace, one list after the other, until no push waits for a list any more."""
        failures = 0
        while self._unlisted[namespace]:
            await self._let_watch_catch_up(namespace)
            async with self._lists:
                waiting, self._unlisted[namespace] = self._unlisted[namespace], {}
                if not waiting:
                    continue  # all were dropped meanwhile
                pods = await self._door.users(namespace, frozenset(w.push.target.name for w in waiting.values()))
            found = pods if isinstance(pods, Reply) else await self._sort_out(namespace, waiting.values(), pods)
            if isinstance(found, Reply):
                failures += 1
                await self._not_listed(namespace, waiting.values(), found, self._backoff(failures))
                continue
            failures = 0
            for key, work in waiting.items():
                if self._is_current(work):
                    self._begin(work, found[key])
        del self._unlisted[namespace]

    async def _let_watch_catch_up(self, namespace: str) -> None:
        """Wait until our watch of Secrets shows what was written, though not for long.

        A kubelet has a watch of its own. If the change of the Pod reached it before the new content of the Secret did,
        it would show the Pod the old token again, and then not look at the Pod for a minute. What our watch shows, the
        kubelet's most likely shows as well.
        """
        until = asyncio.get_running_loop().time() + _PATIENCE
        while asyncio.get_running_loop().time() < until:
            waiting = self._unlisted[namespace].values()
            if all(self._shown(namespace, work.push.content.version) for work in waiting):
                return
            await asyncio.sleep(_LOOK)

    async def _sort_out(
        self, namespace: str, waiting: Iterable[_Work], pods: Sequence[Pod]
    ) -> Mapping[NamespacedName, Users] | Reply:
        """Find out which Pods to tell, by credential; or return why none may be told now, or at all."""
        found = {work.push.key: users_of(work.push, pods) for work in waiting}
        trial = [pod for users in found.values() for pod in users.tell]
        reply = await self._prove(namespace, trial) if trial else None
        return found if reply is None else reply

    async def _prove(self, namespace: str, pods: Sequence[Pod]) -> Reply | None:
        """Make sure that the admission policy is in force, since without it the operator could change any Pod.

        Return None if it is, else what to do instead. What was found is remembered for a while.
        """
        now = asyncio.get_running_loop().time()
        known = self._proofs.get(namespace)
        if known is None or now - known.at >= (_UNPROVEN_SECONDS if known.why_not else _PROVEN_SECONDS):
            reply = await self._door.try_forbidden(namespace, self._chance.choice(pods))
            if reply.outcome in (Outcome.AGAIN, Outcome.GONE):
                return replace(reply, outcome=Outcome.AGAIN)  # with another Pod, if there is one then
            why_not = reply.why if reply.outcome is Outcome.DONE else ""
            known = self._proofs[namespace] = _Proof(why_not, now)
            self._forget_old_proofs(now)
        return Reply(Outcome.REFUSED, known.why_not) if known.why_not else None

    def _forget_old_proofs(self, now: float) -> None:
        for namespace in [name for name, proof in self._proofs.items() if now - proof.at >= _PROVEN_SECONDS]:
            del self._proofs[namespace]

    async def _not_listed(self, namespace: str, waiting: Iterable[_Work], reply: Reply, least: float) -> None:
        """Wait and have the Pods listed again, for each push that still has time for that; end the others."""
        wait, again = max(reply.retry_after, least), False
        for work in waiting:
            if not self._is_current(work):
                continue
            if reply.outcome is Outcome.AGAIN and self._in_time(work, wait):
                self._unlisted[namespace][work.push.key] = work
                again = True
                continue
            refused = reply.outcome is Outcome.REFUSED
            work.refused, work.unlisted = reply.why if refused else "", not refused
            self._count("Refused" if refused else "Late", None)
            self._end(work)
        if again:
            await asyncio.sleep(wait)

    # --- Pods ---------------------------------------------------------------------------------------------------------

    def _begin(self, work: _Work, users: Users) -> None:
        """Have the Pods told, as many as can be told in time."""
        work.begun, work.told, work.beyond = True, users.know, users.beyond
        work.waiting = deque(_Turn(pod, 0) for pod in users.tell[: self._most])
        self._leave(work, len(users.tell) - len(work.waiting))
        self._go_on(work)

    def _go_on(self, work: _Work) -> None:
        """Have the next Pod told if there is one; if nothing is left to do or to wait for, end the push."""
        if not self._is_current(work):
            return
        if work.waiting:
            self._ready.setdefault(work.push.key.namespace, {})[work.push.key] = work
            self._some.set()
        elif not work.under_way:
            self._end(work)

    async def _tell_all(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._some.wait()
            work = self._take_next()
            if work is None:
                continue
            await self._have_turn()
            if work.waiting:  # else it was dropped meanwhile
                work.under_way += 1
                group.create_task(self._tell(work, work.waiting.popleft()))
                if not work.waiting:
                    self._leave_line(work)

    async def _have_turn(self) -> None:
        """Wait until the rate allows one more request."""
        while wait := self._bucket.take(asyncio.get_running_loop().time()):  # noqa: ASYNC110 -- it says how long
            await asyncio.sleep(wait)

    def _take_next(self) -> _Work | None:
        """Take the push whose turn it is, None if there is none. Pushes whose time is over end on the way."""
        while self._ready:
            namespace, lane = next(iter(self._ready.items()))
            key, work = next(iter(lane.items()))
            if work.push.content.until.due(self._clock.now()):
                self._leave(work, len(work.waiting))
                work.waiting.clear()
                self._leave_line(work)
                self._go_on(work)
                continue
            # Both the namespace and the credential go to the end of their lines.
            del self._ready[namespace], lane[key]
            self._ready[namespace] = lane
            lane[key] = work
            return work
        self._some.clear()
        return None

    async def _tell(self, work: _Work, turn: _Turn) -> None:
        push, pod = work.push, turn.pod
        if not self._is_current(work):
            return  # it was dropped after its turn had come
        reply = await self._door.tell(push.target.namespace, pod, push.content.version)
        if reply.outcome is Outcome.AGAIN:
            wait = max(reply.retry_after, self._backoff(turn.tries + 1))
            if self._in_time(work, wait):
                await asyncio.sleep(wait)
                work.waiting.append(_Turn(pod, turn.tries + 1))
            else:
                self._leave(work, 1)
        elif reply.outcome is Outcome.DONE:
            work.told += 1
            self._count("Pushed", self._clock.now().boot - push.content.at.boot)
        elif reply.outcome is Outcome.REFUSED:
            work.refused = reply.why
            self._count("Refused", None)
            self._proofs.pop(push.target.namespace, None)  # perhaps something else refused the trial, not the policy
        else:
            self._count("Gone", None)
        work.under_way -= 1
        self._go_on(work)

    def _is_current(self, work: _Work) -> bool:
        """Whether it has neither ended nor been dropped or replaced."""
        return self._work.get(work.push.key) is work

    def _in_time(self, work: _Work, wait: float) -> bool:
        return work.push.content.until.remaining(self._clock.now()) > wait

    def _leave(self, work: _Work, pods: int) -> None:
        """Count Pods as late: they see the new content when the kubelet next looks at them."""
        work.late += pods
        for _ in range(pods):
            self._count("Late", None)

    def _leave_line(self, work: _Work) -> None:
        """Take a push out of those that are ready, if it is there: by now it may be the one that replaced it."""
        lane = self._ready.get(work.push.key.namespace, {})
        if lane.get(work.push.key) is not work:
            return
        del lane[work.push.key]
        if not lane:
            del self._ready[work.push.key.namespace]

    def _end(self, work: _Work) -> None:
        del self._work[work.push.key]
        self._sum_up(work)

    def _sum_up(self, work: _Work) -> None:
        came = delivery(work.told, work.late, work.beyond, unlisted=work.unlisted, refused=work.refused)
        self._came(work.push, came)

    def _backoff(self, failures: int) -> float:
        return _LEAST_WAIT + backoff(self._chance, failures, first=_LEAST_WAIT, most=_MOST_WAIT)
