"""The one door to kopf: it watches TuinlyCredentials and tells the store, and nothing else.

kopf runs on a thread and loop of its own. At its end it cancels every task of its loop that came after its start, and
it takes over the signal handlers of the main thread; here both stay the operator's. What has been learned (store,
queue, refresh tokens) lives outside, so that kopf can be started again at any time.
"""

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import kopf

from tuinly_operator.credential import GROUP, PLURAL, VERSION, Credential
from tuinly_operator.errors import Failure
from tuinly_operator.kube import WATCH_SILENCE, ApiFailure, Login
from tuinly_operator.logs import fields
from tuinly_operator.state import MANAGER

_MAX_BACKOFF: Final = 5.0  # seconds
_STOP_TIMEOUT: Final = 3.0  # seconds
_DISCOVERY_SECONDS: Final = 1.0

# kopf removes its finalizer from every watched object that bears it, even if nobody needs it: a write that nobody
# asked for. With a name that no object bears there is nothing to remove.
_NO_FINALIZER: Final = f"{GROUP}/never-used"

_log = logging.getLogger(__name__)


class CredentialWatch:
    """Runs kopf, and starts it again whenever it ends."""

    def __init__(  # noqa: PLR0913 -- what it watches, and what it needs of the others
        self,
        *,
        namespaces: Sequence[str],
        selector: str,
        login: Callable[[], Awaitable[Login]],
        served: Callable[[], Awaitable[bool]],
        begun: Callable[[], None],
        seen: Callable[[Credential], None],
        listed: Callable[[Credential], None],
        gone: Callable[[Credential], None],
        silence: float = WATCH_SILENCE,
    ) -> None:
        """`seen`, `listed` and `gone` are called on the loop that calls `run`; `login` and `served` are awaited there.

        `listed` is called with what a list shows, `seen` and `gone` with what the watch tells of; `begun` each time
        that kopf has been started: what went before that, it does not tell.
        Empty `namespaces` means all. `served` tells whether the API server knows TuinlyCredentials, or raises
        ApiFailure. After `silence`, in seconds, a connection without even a bookmark is given up.
        """
        self._namespaces = list(namespaces)
        self._selector = selector
        self._login = login
        self._served = served
        self._begun = begun
        self._seen = seen
        self._listed = listed
        self._gone = gone
        self._silence = silence
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], None] = lambda: None
        self._calls: deque[Callable[[], object]] = deque()  # for the operator's loop
        self._lock = threading.Lock()
        self.alive = False

    async def run(self) -> None:
        """Keep kopf running until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            await self._until_served()
            loop, stop, ended = asyncio.new_event_loop(), asyncio.Event(), asyncio.Event()
            self._stop = partial(_call, loop, stop.set)
            thread = threading.Thread(target=self._run_kopf, args=(loop, stop, ended), name="kopf", daemon=True)
            thread.start()
            self.alive = True
            self._begun()
            try:
                await ended.wait()
            finally:
                self.alive = False
                self._stop()
                await asyncio.shield(asyncio.to_thread(thread.join, _STOP_TIMEOUT))
            _log.warning("the watch of TuinlyCredentials ended, starting it again")
            await asyncio.sleep(random.uniform(0, _MAX_BACKOFF))  # noqa: S311 -- jitter

    def restart(self) -> None:
        """Start kopf anew: it seems to have lost track."""
        self._stop()

    async def _until_served(self) -> None:
        """Wait until the resource is there: kopf looks for it once, and waits for ever where it comes later."""
        while True:
            with suppress(ApiFailure):
                if await self._served():
                    return
            await asyncio.sleep(_DISCOVERY_SECONDS)

    def _run_kopf(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, ended: asyncio.Event) -> None:
        """The thread. `stop` is an event of kopf's loop: one of threads would be waited for even after a failure."""
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(
                    kopf.operator(
                        registry=self._handlers(),
                        settings=_settings(self._selector, self._silence),
                        standalone=True,
                        # Else it asks for the user's name, which not every user has. Its type, a str, is kopf's own.
                        identity=MANAGER,  # type: ignore[arg-type]
                        clusterwide=not self._namespaces,
                        namespaces=self._namespaces,
                        stop_flag=stop,
                    )
                )
        except Exception as error:  # noqa: BLE001 -- whatever it is, kopf is started again
            # What the API server answered needs no traceback.
            status = getattr(error, "status", None)
            extra = fields(cause=type(error).__name__, status=status)
            _log.error("the watch of TuinlyCredentials failed", extra=extra, exc_info=status is None)
        finally:
            self._tell(ended.set)

    def _handlers(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def log_in(**_: Any) -> kopf.ConnectionInfo:  # noqa: ANN401 -- kopf's arguments
            assert self._loop is not None  # noqa: S101 -- set before the thread started
            future = asyncio.run_coroutine_threadsafe(_awaited(self._login()), self._loop)
            return _connection(future.result(timeout=10))

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def on_event(event: Any, **_: Any) -> None:  # noqa: ANN401 -- kopf's arguments
            self._hear(event["type"], event["object"])

        return registry

    def _hear(self, kind: str | None, raw: Mapping[str, Any]) -> None:
        """Tell of an event, or of an object of a list, which has no kind of event.

        kopf swallows what a handler raises; here it is told and counted as seen.
        """
        try:
            credential = Credential.from_object(raw)
        except Failure as failure:
            _log.warning("ignored an object that is no TuinlyCredential", extra=fields(cause=failure))
        except Exception:  # noqa: BLE001 -- one odd object must not stop the others
            _log.exception("could not read a TuinlyCredential")
        else:
            self._tell({None: self._listed, "DELETED": self._gone}.get(kind, self._seen), credential)

    def _tell(self, what: Callable[..., None], *args: object) -> None:
        """Call something on the operator's loop, which is woken once for all that comes together."""
        assert self._loop is not None  # noqa: S101 -- set before the thread started
        with self._lock:  # an earlier thread may still be at its end
            self._calls.append(partial(what, *args))
            first = len(self._calls) == 1
        if first:
            _call(self._loop, self._make_calls)

    def _make_calls(self) -> None:
        try:
            for _ in range(len(self._calls)):
                self._calls.popleft()()
        finally:
            # What came meanwhile, or after one that failed, found calls before it and has woken nobody.
            if self._calls:
                asyncio.get_running_loop().call_soon(self._make_calls)


def _call(loop: asyncio.AbstractEventLoop, what: Callable[..., object], *args: object) -> None:
    """Call something on another thread's loop; at the very end that loop may be closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(what, *args)


class _EndlessBackoffs:
    """Delays in seconds between kopf's tries of a request: without end, or an API outage of a minute would end kopf."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.25
        while True:
            yield random.uniform(0.1, delay)  # noqa: S311 -- jitter
            delay = min(_MAX_BACKOFF, delay * 2)


class _NoSnapshots(kopf.DiffBaseStorage):
    """Keeps no snapshot by which kopf would find changes: nobody asks for those, and each event pays for the copies."""

    def build(self, **_: object) -> kopf.BodyEssence:
        """Copy nothing."""
        return kopf.BodyEssence()

    def fetch(self, **_: object) -> None:
        """Find nothing."""

    def store(self, **_: object) -> None:
        """Keep nothing."""


def _settings(selector: str, silence: float) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    if selector:
        settings.watching.label_selectors[GROUP, PLURAL] = selector
    # Watching the definitions needs rights in the whole cluster, and is of no use: kopf looks for a new resource only
    # at the moment of an event, which is before the API server serves it.
    settings.scanning.disabled = True
    settings.persistence.finalizer = _NO_FINALIZER
    settings.persistence.diffbase_storage = _NoSnapshots()
    settings.posting.enabled = False
    settings.networking.error_backoffs = _EndlessBackoffs()
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = 290
    settings.watching.inactivity_timeout = silence
    settings.watching.chunk_size = 500
    settings.queueing.idle_timeout = 0.05  # its worker per object lives no longer than its event
    settings.process.ultimate_exiting_timeout = None  # it would end the whole process
    return settings


def _connection(login: Login) -> kopf.ConnectionInfo:
    scheme, _, token = (login.authorization or "").partition(" ")
    return kopf.ConnectionInfo(
        server=login.server,
        ca_path=login.ca_file,
        ca_data=None if login.ca_file else login.ca_data,
        insecure=login.insecure,
        scheme=scheme or None,
        token=token or None,
        certificate_path=login.certificate_file,
        private_key_path=login.key_file,
        trust_env=True,
    )


async def _awaited(awaitable: Awaitable[Login]) -> Login:
    return await awaitable
