"""Tells Pods of new tokens in the background: one list per namespace at a time, and so many requests a second over all.

Nobody waits for it. Of each credential only the most recent content is pushed, for as long as that makes sense; what
was not told by then is left to the kubelet.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol

from tuinly_operator.base.chance import Chance, backoff
from tuinly_operator.base.clock import Clock
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.push import PUSH_SECONDS, Answer, Delivery, Pod, Push, Reply, Users, delivery, users_of

_PATIENCE: Final = 2.0  # seconds for which a push waits for the watch of Secrets to show what was written
_LOOK: Final = 0.02  # seconds between two looks at that
_LISTS: Final = 4  # at the same time, over all namespaces: each has a page in memory
_LEAST_WAIT: Final = 0.5  # seconds until a request is made again
_MOST_WAIT: Final = 10.0
_EVEN: Final = 1e-6  # seconds that are no difference
_PROVEN_SECONDS: Final = 3600.0  # for which a policy that was seen to be in force is taken to be
_UNPROVEN_SECONDS: Final = 60.0  # until another look where it was not


class Door(Protocol):
    """What leads to the Pods."""

    async def users(self, namespace: str, secrets: frozenset[str]) -> Sequence[Pod] | Reply:
        """List the Pods that use one of these Secrets."""

    async def tell(self, namespace: str, pod: Pod, value: str) -> Reply:
        """Tell a Pod."""

    async def try_forbidden(self, namespace: str, pod: Pod) -> Reply:
        """Try what the admission policy forbids; nothing is changed. `DONE` means that nobody forbids it."""


class Bucket:
    """So many a second, and as many more at once as have not been used, up to a burst."""

    def __init__(self, rate: float, burst: float) -> None:
        """`rate` is per second."""
        self._apart = 1 / rate
        self._most_saved = (burst - 1) / rate
        self._next = float("-inf")  # when the next one would be due at an even pace

    def take(self, now: float) -> float:
        """Take one and return 0, or return in how many seconds there is one. `now` is in seconds."""
        due = max(self._next, now - self._most_saved)
        if due - now > _EVEN:
            return due - now
        self._next = due + self._apart
        return 0.0


class _Turn(NamedTuple):
    """A Pod that is to be told, and how often that has been tried."""

    pod: Pod
    tries: int


@dataclass(slots=True, eq=False)
class _Work:
    """One push under way."""

    push: Push
    waiting: deque[_Turn] = field(default_factory=deque)
    under_way: int = 0  # requests, and waits before another one
    beyond: Sequence[str] = ()
    told: int = 0
    late: int = 0
    unlisted: bool = False
    refused: str = ""


class _Proof(NamedTuple):
    """Whether the admission policy was in force in a namespace: why not, empty where it was; and when, in seconds."""

    why_not: str
    at: float


class Pusher:
    """Has Pods told, fairly: each namespace in turn, and in it each credential in turn."""

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

        `shown` tells whether the watch of a namespace's Secrets has shown all up to a version. `came` is told what came
        of each push, `count` of each Pod the outcome and, where it was told, the seconds since the write.
        """
        self._door = door
        self._clock = clock
        self._chance = chance
        self._shown = shown
        self._came = came
        self._count = count
        self._bucket = Bucket(rate, 2 * rate)
        self._most = int(rate * (PUSH_SECONDS + 2))  # who can be told in time, if there is nobody else to tell
        self._work: dict[NamespacedName, _Work] = {}  # by credential
        self._unlisted: dict[str, dict[NamespacedName, _Work]] = {}  # by namespace: who waits for a list to begin
        self._lists = asyncio.Semaphore(_LISTS)
        self._begun: asyncio.Queue[str] = asyncio.Queue()  # namespaces in which somebody began to
        self._telling: dict[str, dict[NamespacedName, _Work]] = {}  # by namespace: who has Pods to tell
        self._some = asyncio.Event()  # set while there are any
        self._proofs: dict[str, _Proof] = {}  # by namespace

    def __len__(self) -> int:
        return len(self._work)

    def order(self, push: Push) -> None:
        """Have Pods told of what was written just now; what is under way for an earlier token is dropped."""
        self.drop(push.key)
        self._await_list(push.key, _Work(push))

    def drop(self, key: NamespacedName) -> None:
        """Tell nobody any more for a credential."""
        work = self._work.pop(key, None)
        if work is not None:
            work.waiting.clear()
            self._unlisted.get(key.namespace, {}).pop(key, None)
            self._rest_from_telling(work)

    async def run(self) -> None:
        """Tell Pods until cancelled; begun again, begin with all that was under way."""
        interrupted = [work.push for work in self._work.values()]
        self._work, self._unlisted, self._telling = {}, {}, {}
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
        """List the Pods of a namespace for all who wait for that, until nobody does: one list at a time."""
        failures = 0
        while self._unlisted[namespace]:
            await self._let_watch_catch_up(namespace)
            async with self._lists:
                waiting, self._unlisted[namespace] = self._unlisted[namespace], {}
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

        Kubelets show a Pod what they know of the Secret by their own watch of it, which the change of the Pod may
        overtake: the Pod would be shown the old token again, and not looked at for a minute.
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
        """Whom to tell, by credential; or why nobody may be told, or not now."""
        found = {work.push.key: users_of(work.push, pods) for work in waiting}
        trial = [pod for users in found.values() for pod in users.tell]
        reply = await self._prove(namespace, trial) if trial else None
        return found if reply is None else reply

    async def _prove(self, namespace: str, pods: Sequence[Pod]) -> Reply | None:
        """Look, though not each time, whether the admission policy is in force: one that is missing permits anything.

        None where it is.
        """
        now = asyncio.get_running_loop().time()
        known = self._proofs.get(namespace)
        if known is None or now - known.at >= (_UNPROVEN_SECONDS if known.why_not else _PROVEN_SECONDS):
            reply = await self._door.try_forbidden(namespace, self._chance.choice(pods))
            if reply.answer in (Answer.AGAIN, Answer.GONE):
                return replace(reply, answer=Answer.AGAIN)  # with another Pod, if there is one then
            why_not = reply.why if reply.answer is Answer.DONE else ""
            known = self._proofs[namespace] = _Proof(why_not, now)
            self._forget_old_proofs(now)
        return Reply(Answer.REFUSED, known.why_not) if known.why_not else None

    def _forget_old_proofs(self, now: float) -> None:
        for namespace in [name for name, proof in self._proofs.items() if now - proof.at >= _PROVEN_SECONDS]:
            del self._proofs[namespace]

    async def _not_listed(self, namespace: str, waiting: Iterable[_Work], reply: Reply, least: float) -> None:
        """Have them listed again after a wait, as far as there is time for that; for the others that is the end."""
        wait, again = max(reply.retry_after, least), False
        for work in waiting:
            if not self._is_current(work):
                continue
            if reply.answer is Answer.AGAIN and self._in_time(work, wait):
                self._unlisted[namespace].setdefault(work.push.key, work)
                again = True
                continue
            refused = reply.answer is Answer.REFUSED
            work.refused, work.unlisted = reply.why if refused else "", not refused
            self._count("Refused" if refused else "Late", None)
            self._end(work)
        if again:
            await asyncio.sleep(wait)

    # --- Pods ---------------------------------------------------------------------------------------------------------

    def _begin(self, work: _Work, users: Users) -> None:
        """Have Pods told, as many as can be in time."""
        work.told, work.beyond = users.know, users.beyond
        work.waiting = deque(_Turn(pod, 0) for pod in users.tell[: self._most])
        self._leave(work, len(users.tell) - len(work.waiting))
        self._go_on(work)

    def _go_on(self, work: _Work) -> None:
        """Have those told who wait; where nothing is left to do, say what came of it."""
        if not self._is_current(work):
            return
        if work.waiting:
            self._telling.setdefault(work.push.key.namespace, {})[work.push.key] = work
            self._some.set()
        elif not work.under_way:
            self._end(work)

    async def _tell_all(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._some.wait()
            work = self._next()
            if work is None:
                continue
            await self._have_turn()
            if work.waiting:  # else dropped meanwhile
                work.under_way += 1
                group.create_task(self._tell(work, work.waiting.popleft()))
                if not work.waiting:
                    self._rest_from_telling(work)

    async def _have_turn(self) -> None:
        """Wait until one more request may be made."""
        while wait := self._bucket.take(asyncio.get_running_loop().time()):  # noqa: ASYNC110 -- it says how long
            await asyncio.sleep(wait)

    def _next(self) -> _Work | None:
        """Whose turn it is; who is late is left to the kubelet on the way."""
        while self._telling:
            namespace, lane = next(iter(self._telling.items()))
            key, work = next(iter(lane.items()))
            if work.push.content.until.due(self._clock.now()):
                self._leave(work, len(work.waiting))
                work.waiting.clear()
                self._rest_from_telling(work)
                self._go_on(work)
                continue
            # To the end of both lines.
            del self._telling[namespace], lane[key]
            self._telling[namespace] = lane
            lane[key] = work
            return work
        self._some.clear()
        return None

    async def _tell(self, work: _Work, turn: _Turn) -> None:
        push, pod = work.push, turn.pod
        if not self._is_current(work):
            return  # dropped since it was its turn
        reply = await self._door.tell(push.target.namespace, pod, push.content.version)
        if reply.answer is Answer.AGAIN:
            wait = max(reply.retry_after, self._backoff(turn.tries + 1))
            if self._in_time(work, wait):
                await asyncio.sleep(wait)
                if self._is_current(work):
                    work.waiting.append(_Turn(pod, turn.tries + 1))
            else:
                self._leave(work, 1)
        elif reply.answer is Answer.DONE:
            work.told += 1
            self._count("Pushed", self._clock.now().boot - push.content.at.boot)
        elif reply.answer is Answer.REFUSED:
            work.refused = reply.why
            self._count("Refused", None)
            self._proofs.pop(push.target.namespace, None)  # it may not have been the policy that refused the trial
        else:
            self._count("Gone", None)
        work.under_way -= 1
        self._go_on(work)

    def _is_current(self, work: _Work) -> bool:
        """Whether it was neither dropped nor replaced."""
        return self._work.get(work.push.key) is work

    def _in_time(self, work: _Work, wait: float) -> bool:
        return work.push.content.until.remaining(self._clock.now()) > wait

    def _leave(self, work: _Work, pods: int) -> None:
        """Leave Pods to the kubelet."""
        work.late += pods
        for _ in range(pods):
            self._count("Late", None)

    def _rest_from_telling(self, work: _Work) -> None:
        lane = self._telling.get(work.push.key.namespace, {})
        if lane.pop(work.push.key, None) is not None and not lane:
            del self._telling[work.push.key.namespace]

    def _end(self, work: _Work) -> None:
        del self._work[work.push.key]
        came = delivery(work.told, work.late, work.beyond, unlisted=work.unlisted, refused=work.refused)
        self._came(work.push, came)

    def _backoff(self, failures: int) -> float:
        return _LEAST_WAIT + backoff(self._chance, failures, first=_LEAST_WAIT, most=_MOST_WAIT)
