"""Tells users by Kubernetes Events, in the background: an Event that cannot be sent holds nothing up."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Final, NamedTuple

from tuinly_operator.base.clock import Clock, rfc3339
from tuinly_operator.base.logs import fields
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import API_VERSION, KIND, Credential
from tuinly_operator.domain.notices import Notice
from tuinly_operator.edges.kube import ApiFailure, Kube, NotLeading, event

_MOST_WAITING: Final = 1000
_PLACES: Final = 10  # requests at the same time
_PLACE_SECONDS: Final = 1.0  # after these, a request gives its place to another
_OUTAGE_SECONDS: Final = 3.0  # between two looks whether an outage is over
# After it, until this replica leads again: a look at the Lease may hang for 4 s, and the next one comes 2 s later.
_LEAD_SECONDS: Final = 7.0
_MAX_NOTE: Final = 1024  # bytes, events.k8s.io/v1

_log = logging.getLogger(__name__)


class _Subject(NamedTuple):
    """What an Event that waits keeps of its credential, which can be large."""

    key: NamespacedName
    uid: str
    version: str


class EventSender:
    """Sends Events: those of one namespace one after the other, those of several at the same time.

    A namespace in which a request takes long, as by an admission webhook, holds up no other: after a second, the
    request gives its place to the next one. If too many Events wait, the namespace with most of them loses its latest.
    """

    def __init__(self, kube: Kube, clock: Clock, host: str) -> None:
        """Nothing is sent before `run`. `host` is who sends them."""
        self._kube = kube
        self._clock = clock
        self._host = host
        self._waiting: dict[str, deque[tuple[_Subject, Notice]]] = {}  # by namespace
        self._count = 0
        self._begun: asyncio.Queue[str] = asyncio.Queue()  # namespaces whose first Event has come
        self._places = asyncio.Semaphore(_PLACES)
        self._sent = 0

    def tell(self, credential: Credential, notice: Notice) -> None:
        """Queue an Event about a credential."""
        namespace = credential.key.namespace
        if namespace not in self._waiting:
            self._waiting[namespace] = deque()
            self._begun.put_nowait(namespace)
        self._waiting[namespace].append((_Subject(credential.key, credential.uid, credential.version), notice))
        self._count += 1
        if self._count > _MOST_WAITING:
            self._drop()

    async def run(self) -> None:
        """Send until cancelled; begun again, go on with what waits."""
        self._begun = asyncio.Queue()
        for namespace in self._waiting:
            self._begun.put_nowait(namespace)
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._send_all(await self._begun.get()))

    def _drop(self) -> None:
        longest = max(self._waiting.values(), key=len)
        subject, notice = longest.pop()
        self._count -= 1
        _log.warning("an Event was dropped", extra=fields(credential=subject.key, reason=notice.reason))

    async def _send_all(self, namespace: str) -> None:
        waiting = self._waiting[namespace]
        while waiting:
            async with self._place():
                if waiting:  # else dropped meanwhile
                    self._count -= 1
                    await self._send(*waiting.popleft())
        del self._waiting[namespace]

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place for a request, which goes to another after a second."""
        await self._places.acquire()
        with ExitStack() as held:
            held.callback(self._places.release)
            late = asyncio.get_running_loop().call_later(_PLACE_SECONDS, held.close)
            held.callback(late.cancel)
            yield

    async def _send(self, subject: _Subject, notice: Notice) -> None:
        """Send one, again after an outage. By its name the API server knows one that it has got already."""
        namespace, said = subject.key.namespace, self._event(subject, notice)
        while True:
            try:
                await self._kube.post_event(namespace, said)
            except NotLeading:
                pass  # the leader tells its own
            except ApiFailure as failure:
                if failure.out_of_reach and not await self._kube.answers():
                    await self._end_of_outage()
                    continue
                if not (failure.namespace_ends or failure.exists):
                    extra = fields(credential=subject.key, reason=notice.reason, cause=failure)
                    _log.warning("an Event could not be sent", extra=extra)
            return

    async def _end_of_outage(self) -> None:
        """Wait until the API server is back, and the Lease was looked at since: the lead may have ended."""
        while not self._kube.reachable:  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(_OUTAGE_SECONDS)
        await asyncio.sleep(_LEAD_SECONDS)

    def _event(self, subject: _Subject, notice: Notice) -> dict[str, object]:
        now = self._clock.now().wall
        self._sent += 1
        return event(
            subject.key.namespace,
            # A unique name: the time to the microsecond, and a count in case two are sent in the same microsecond.
            f"{subject.key.name}.{int(now * 1e6):x}{self._sent % 4096:03x}",
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": subject.key.namespace,
                "name": subject.key.name,
                "uid": subject.uid,
                "resourceVersion": subject.version,
            },
            eventTime=rfc3339(now, "microseconds"),
            reportingInstance=self._host,
            action="Refresh",
            reason=notice.reason,
            note=notice.message.encode()[:_MAX_NOTE].decode(errors="ignore"),
            type="Warning" if notice.warning else "Normal",
        )
