"""The one door to kopf: it watches TuinlyCredentials and tells the store, and nothing else. The list is made here.

kopf runs on a thread and a loop of its own: when it ends it cancels every task of its loop that began after it, and in
the main thread it would take over the signal handlers. What has been learned (store, queue, refresh tokens) lives
outside, so that kopf can be started again at any time.
"""

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import kopf
from kopf._cogs.structs import bodies
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from tuinly_operator.base.chance import Chance
from tuinly_operator.base.logs import fields
from tuinly_operator.domain.credential import GROUP, PLURAL, VERSION, Credential
from tuinly_operator.domain.errors import Failure
from tuinly_operator.domain.target import MANAGER
from tuinly_operator.edges.kube import ApiFailure, Kube, Login, Session, credentials_path
from tuinly_operator.edges.refusals import SECRETS, Refusal, Refusals

_MAX_BACKOFF: Final = 5.0  # seconds
_STOP_TIMEOUT: Final = 3.0  # seconds
_LOGIN_SECONDS: Final = 10.0
_LOGIN_AGAIN: Final = 1.0  # seconds after which kopf logs in again where that failed; its own default is a minute
_LOOK: Final = 5.0  # seconds between two looks whether kopf hears anything
_LATE: Final = 60.0  # seconds; so late may be the first sign of a watch, and one that is due
_DISCOVERY_SECONDS: Final = 1.0
_PIECE: Final = 100  # so many objects of a list are taken at a time

NO_FINALIZER: Final = f"{GROUP}/no finalizer"
"""What kopf looks for: it removes its finalizer from every object that bears it, even if nobody needs it.

That is a write that nobody asked for, and that the operator has no right to; kopf would try it for ever. So it is a
name that the API server lets no object bear: it may have no space.
"""

_log = logging.getLogger(__name__)


class WatchEnded(Exception):  # noqa: N818 -- it says what happened
    """kopf has ended without saying why."""


class CredentialWatch:
    """Runs kopf for the namespaces that may be watched, and anew once one more may be."""

    def __init__(  # noqa: PLR0913 -- what it watches, and whom it tells
        self,
        kube: Kube,
        refusals: Refusals,
        chance: Chance,
        *,
        watch_loop: Callable[[], asyncio.AbstractEventLoop],
        namespaces: Sequence[str | None],
        selector: str,
        begun: Callable[[], None],
        created: Callable[[Credential], None],
        seen: Callable[[Credential], None],
        listed: Callable[[Credential], None],
        gone: Callable[[Credential], None],
    ) -> None:
        """To be made on the loop that will call `run`: all is told there. A namespace of None means all.

        `watch_loop` makes the loop of kopf's thread.
        `listed` is called with each credential of a list, and of those that the watch tells of `created` with each that
        was made, or is selected by now, `seen` with each that has changed, and `gone` with each that has gone. `begun`
        is called each time that kopf has been started: it never tells what was deleted before. `refusals` is told what
        may not be watched; a namespace whose Secrets may not be is left out, too.
        """
        self._kube = kube
        self._refusals = refusals
        self._chance = chance
        self._watch_loop = watch_loop
        self._namespaces = namespaces
        self._selector = selector
        self._begun = begun
        self._created = created
        self._seen = seen
        self._listed = listed
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._stop: Callable[[], None] = lambda: None
        self._restarting = False
        self._calls: deque[Callable[[], object]] = deque()  # for the operator's loop
        self._lock = threading.Lock()
        self._trouble = ""  # the last reason why kopf cannot be started: logged once
        self.defined: bool | None = None  # whether the API server knows the resource, if it has said so
        self.watched: Sequence[str | None] = ()  # the namespaces that kopf was last started for
        self._heard: dict[str, int] = {}  # how often something came of each watch of kopf's, its answer at first
        self._pages: dict[str, int] = {}  # how many came of each list; while they come kopf waits
        self.alive = False  # whether each watch of kopf's was answered, and kopf has not failed or gone deaf since

    async def run(self) -> None:
        """Watch until kopf fails, and raise its error; then this is to be called again."""
        try:
            while True:
                await self._until_defined()
                watched = await self._until_allowed()
                await self._watch(watched)
                _log.info("watching the TuinlyCredentials anew")
        finally:
            self.alive = False

    def restart(self) -> None:
        """Start kopf anew: it seems to have lost track, or there is more to watch."""
        self._restarting = True
        self._stop()

    async def _watch(self, namespaces: Sequence[str | None]) -> None:
        """Run kopf on its thread until it is to be started anew. Raises its error if it fails."""
        loop, stop = self._watch_loop(), asyncio.Event()
        ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._restarting, self._stop = False, partial(_call, loop, stop.set)
        self._heard = {credentials_path(each): 0 for each in namespaces}
        self._pages = dict(self._heard)
        args = (loop, stop, namespaces, partial(_settle, ended))
        thread = threading.Thread(target=self._run_kopf, args=args, name="kopf", daemon=True)
        thread.start()
        self.watched = namespaces
        self._begun()
        others = asyncio.create_task(self._await_others(set(self._namespaces) - set(namespaces)))
        guard = asyncio.create_task(self._restart_if_deaf())
        try:
            error = await ended
        finally:
            others.cancel()
            guard.cancel()
            self._stop()
            await asyncio.shield(asyncio.to_thread(thread.join, _STOP_TIMEOUT))
        if not self._restarting:
            raise error or WatchEnded

    async def _restart_if_deaf(self) -> None:
        """Start kopf anew where one of its watches is not answered, or dead, though the API server is within reach.

        kopf tells of neither: it tries for ever what is refused, waits for a resource that it did not find, and goes on
        without a watcher that was cancelled. Looks are counted, not seconds: the process may have been stopped.
        """
        before: dict[str, tuple[int, int]] = {}
        quiet = dict.fromkeys(self._heard, 0)
        while True:
            await asyncio.sleep(_LOOK)
            for path, count in self._heard.items():
                signs = count, self._pages[path]
                same = signs == before.get(path) and self._kube.reachable
                quiet[path] = quiet[path] + 1 if same else 0
                before[path] = signs
                if quiet[path] * _LOOK > _LATE + (self._kube.silence if count else 0):
                    _log.warning("kopf hears nothing of TuinlyCredentials, starting it anew", extra=fields(path=path))
                    self.alive = False
                    self.restart()
                    return

    async def _until_defined(self) -> None:
        """Wait until the API server knows the resource: kopf looks only once, and would never notice that it came."""
        while True:
            try:
                known = self.defined
                self.defined = await self._kube.serves_credentials()
                if self.defined:
                    return
                if known is not False:
                    _log.warning("the API server does not know TuinlyCredentials; is the CRD installed?")
            except ApiFailure as failure:
                self._tell_trouble(failure)
            await asyncio.sleep(_DISCOVERY_SECONDS)

    async def _until_allowed(self) -> Sequence[str | None]:
        """Wait until one of the namespaces at least may be watched, and return those that may be."""
        while True:
            try:
                if allowed := await self._allowed(self._namespaces):
                    self._trouble = ""
                    return allowed
                self.alive, self.watched = False, ()
            except ApiFailure as failure:
                self._tell_trouble(failure)
            await asyncio.sleep(self._pause(self._namespaces))

    async def _await_others(self, refused: Collection[str | None]) -> None:
        """Start anew as soon as one of the namespaces that are refused may be watched."""
        while refused:
            await asyncio.sleep(self._pause(refused))
            with suppress(ApiFailure):
                if await self._allowed(refused):
                    self.restart()
                    return

    async def _allowed(self, namespaces: Iterable[str | None]) -> list[str | None]:
        """Those that may be watched now. Raises ApiFailure where the API server does not say."""
        return [each for each in namespaces if await self._may_watch(each)]

    async def _may_watch(self, namespace: str | None) -> bool:
        what = Refusal(PLURAL, namespace)
        if Refusal(SECRETS, namespace) in self._refusals:
            return False
        try:
            await self._kube.try_to_watch_credentials(namespace)
        except ApiFailure as failure:
            if self._refusals.note(what, failure):
                return False
            raise
        self._refusals.end(what)
        return True

    def _pause(self, namespaces: Iterable[str | None]) -> float:
        return min(self._refusals.pause(Refusal(PLURAL, each)) for each in namespaces)

    def _tell_trouble(self, failure: ApiFailure) -> None:
        """Say why kopf cannot be started, once; that the API server is out of reach is told elsewhere."""
        if str(failure) != self._trouble and not failure.out_of_reach:
            _log.warning("cannot watch TuinlyCredentials yet", extra=fields(cause=failure))
        self._trouble = str(failure)

    def _run_kopf(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: asyncio.Event,
        namespaces: Sequence[str | None],
        ended: Callable[[Exception | None], None],
    ) -> None:
        """What the thread runs. `stop` is an event of its loop: kopf would wait for a thread's, even after failing."""
        error: Exception | None = None
        named = [each for each in namespaces if each is not None]
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(
                    kopf.operator(
                        registry=self._handlers(namespaces),
                        settings=_settings(self._selector, _EndlessBackoffs(self._chance)),
                        standalone=True,
                        # Else kopf asks for the user's name, which not every user has.
                        identity=MANAGER,  # type: ignore[arg-type]
                        clusterwide=not named,
                        namespaces=named,
                        stop_flag=stop,
                        memories=_NoMemories(),
                    )
                )
        except Exception as failure:  # noqa: BLE001 -- whatever it is, kopf is started again
            error = failure
        finally:
            self._tell(ended, error)

    def _sign(self, heard: dict[str, int], path: str) -> None:
        """Something came of a watch: on kopf's thread."""
        heard[path] += 1
        if heard[path] == 1:
            self._tell(self._answered, heard)

    def _answered(self, heard: Mapping[str, int]) -> None:
        self.alive = self.alive or all(heard.values())

    def _handlers(self, namespaces: Sequence[str | None]) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        lists = {credentials_path(each): partial(self._list_for_kopf, each) for each in namespaces}
        sign = partial(self._sign, self._heard)
        session: kopf.AiohttpSession | None = None
        last: Login | None = None

        # The same session for the same login: kopf asks again where it was refused, and ends at one that it knows.
        @kopf.on.login(registry=registry, id="log_in", backoff=_LOGIN_AGAIN)
        async def log_in(**_: Any) -> kopf.AiohttpSession:  # noqa: ANN401 -- kopf's arguments
            nonlocal session, last
            async with asyncio.timeout(_LOGIN_SECONDS):
                login = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._kube.login(), self._loop))
            if session is None or login != last:
                ours: Any = Session(login, lists, sign, self._kube.silence)  # it has of a session what kopf uses
                session, last = kopf.AiohttpSession(server=login.server, aiohttp_session=ours), login
            return session

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def on_event(event: Any, **_: Any) -> None:  # noqa: ANN401 -- kopf's arguments
            self._hear(event["type"], event["object"])

        return registry

    async def _list_for_kopf(self, namespace: str | None) -> str:
        """Have the operator's loop list what kopf would, and return the list's version. Raises ApiFailure."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._list(namespace), self._loop))

    async def _list(self, namespace: str | None) -> str:
        """List the credentials, tell of them, and return the list's version. Raises ApiFailure."""
        path, version = credentials_path(namespace), ""
        async for page, version in self._kube.list_whole_credentials(namespace):  # noqa: B007 -- the last one counts
            self._pages[path] = self._pages.get(path, 0) + 1
            for number, raw in enumerate(page):
                if number % _PIECE == 0:
                    await asyncio.sleep(0)
                if credential := _credential(raw):
                    self._listed(credential)
        return version

    def _hear(self, kind: str, raw: Mapping[str, Any]) -> None:
        """Hand on an event."""
        if credential := _credential(raw):
            self._tell({"ADDED": self._created, "DELETED": self._gone}.get(kind, self._seen), credential)

    def _tell(self, what: Callable[..., None], *args: object) -> None:
        """Have something called on the operator's loop, which is woken once for all calls that come together."""
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
            # What came meanwhile, or is left after a call that failed, has woken nobody: it was not the first.
            if self._calls:
                asyncio.get_running_loop().call_soon(self._make_calls)


def _credential(raw: Mapping[str, Any]) -> Credential | None:
    """Read an object, and log where it is none: nothing may be raised, which would stop all others."""
    try:
        return Credential.from_object(raw)
    except Failure as failure:
        _log.warning("ignored an object that is no TuinlyCredential", extra=fields(cause=failure))
    except Exception:  # noqa: BLE001 -- one odd object must not stop the others
        _log.exception("could not read a TuinlyCredential")
    return None


def _call(loop: asyncio.AbstractEventLoop, what: Callable[..., object], *args: object) -> None:
    """Call something on another thread's loop, unless that is closed already, as it may be at the very end."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(what, *args)


def _settle(ended: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not ended.done():
        ended.set_result(error)


class _EndlessBackoffs:
    """Delays in seconds between kopf's tries of a request: without end, or an API outage of a minute would end kopf."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance

    def __iter__(self) -> Iterator[float]:
        delay = 0.25
        while True:
            yield self._chance.uniform(0.1, delay)
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


class _NoProgress(kopf.ProgressStorage):
    """Keeps nothing of how far handlers of changes have come, and looks for nothing: there are none."""

    def fetch(self, **_: object) -> None:
        """Find nothing."""

    def store(self, **_: object) -> None:
        """Keep nothing."""

    def purge(self, **_: object) -> None:
        """Remove nothing."""

    def touch(self, **_: object) -> None:
        """Write nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Leave it as it is."""
        return essence


class _NoMemories(ResourceMemories):
    """Remembers nothing of an object between two events, as only handlers of changes need, which there are none of.

    It would also hold up events of an object at which kopf itself has failed. kopf has no setting for it, and would
    keep 0.9 kB and six containers for each credential.
    """

    async def recall(self, raw_body: bodies.RawBody, **options: Any) -> ResourceMemory:  # noqa: ANN401 -- kopf's
        """Begin anew at each event, without copying the memo that no handler looks at."""
        return await super().recall(raw_body, **{**options, "memobase": None, "ephemeral": True})


def _settings(selector: str, backoffs: _EndlessBackoffs) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    if selector:
        settings.watching.label_selectors[GROUP, PLURAL] = selector
    # Watching the definitions needs rights in the whole cluster, and is of no use: kopf looks for a new resource only
    # at the moment of an event, which is before the API server serves it.
    settings.scanning.disabled = True
    settings.persistence.finalizer = NO_FINALIZER
    settings.persistence.diffbase_storage = _NoSnapshots()
    settings.persistence.progress_storage = _NoProgress()
    settings.posting.enabled = False
    settings.networking.error_backoffs = backoffs
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = 290
    # The session ends a silent watch. kopf would cancel whatever it is at, at times the watcher itself, for good.
    settings.watching.inactivity_timeout = math.inf
    settings.queueing.idle_timeout = 0.05  # seconds; kopf has a worker per object, which need not outlive its event
    settings.process.ultimate_exiting_timeout = None  # it would end the whole process
    return settings
