"""What an attack stands on: an operator under the Deployment's memory limit, ten credentials of others, and a watch."""

import contextlib
import itertools
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self, TypeVar

from urllib3.exceptions import HTTPError

from bench.measures import Process
from bench.stand import INSTALLATION, compile_operator, is_ready
from tests.faults.crowds import Crowd, Watched
from tests.hostile.verdict import LIMIT, Attack, Measured
from tests.support import crd
from tests.support.cluster import LocalCluster, running_cluster
from tests.support.objects import ApiError, Json, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.proxy import ApiProxy
from tests.support.sandbox import Fault, SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import wait_until

LEASE: Final = "tuinly-system/tuinly-operator"
OTHERS: Final = 10
_TRUTH: Final = 2.0  # seconds after the end of a token by which a status says so
_LOOK: Final = 1.0  # seconds between two looks at others, and between two probes
_MEMORY: Final = 0.1  # the same for memory; the kernel keeps the peak between them
_PROBE: Final = 5.0  # timeoutSeconds of the Deployment's liveness probe
_SETTLED: Final = 60.0  # until all others are ready, before and after

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """What all attacks share; `seconds` is how long each lasts, and `scale` how many objects it makes."""

    cluster: LocalCluster
    sandbox: SandboxProcess
    login: Path
    seconds: float
    scale: float


@contextmanager
def world(seconds: float, scale: float) -> Iterator[World]:
    """Start the control plane and the sandbox for as long as the context lasts."""
    compile_operator()
    with running_cluster() as cluster, SandboxProcess() as sandbox:
        crd.install(cluster)
        cluster.kubectl("apply", "--server-side", "-f", str(INSTALLATION))
        yield World(cluster, sandbox, cluster.kubeconfig_for("tuinly-system", "tuinly-operator"), seconds, scale)


@dataclass
class Others(Watched):
    """The credentials of others, with how often one was Ready although its token had ended."""

    untrue: int = 0

    def look(self) -> list[float]:
        """Look at credentials first and at targets second: a token that comes in between excuses."""
        asked = time.time()
        objects = self.crowds[0].objects
        ready = {f"{each['metadata']['name']}-token" for each in objects.all("TuinlyCredential") if is_ready(each)}
        late = super().look()
        self.untrue += sum(key.name in ready and end < asked - _TRUTH for key, (_, end, _) in self._seen.items())
        return late


class Stage:
    """The stage of one attack: namespaces for others and for the attacker, and what is measured."""

    def __init__(self, world: World, attack: Attack) -> None:
        """Nothing is made yet."""
        self.world, self.attack, self.measured = world, attack, Measured()
        self.seconds = max(world.seconds, attack.seconds)
        self.admin = world.sandbox.admin
        self.ends = 0.0
        self._over = threading.Event()
        self._watching = 0.0  # seconds of CPU
        self._parts = ExitStack()

    def __enter__(self) -> Self:
        """Make the namespaces."""
        self.folder = Path(self._parts.enter_context(TemporaryDirectory(prefix="tuinly-hostile-")))
        names = [self._parts.enter_context(new_namespace(self.world.cluster)) for _ in range(2)]
        self.shop, self.evil = (Objects(self.world.cluster, name) for name in names)
        self._parts.callback(self.admin.clear_faults)
        return self

    def __exit__(self, *_: object) -> None:
        """End all that was started."""
        self._parts.close()

    def use(self, part: contextlib.AbstractContextManager[T]) -> T:
        """Start a part of the attack that ends with the stage."""
        return self._parts.enter_context(part)

    def many(self, count: int) -> int:
        """Return how many objects an attack makes that makes so many in a full run."""
        return max(1, round(count * self.world.scale))

    # The operator -----------------------------------------------------------------------------------------------------

    def operator(self, *flags: str, kubeconfig: Path | None = None) -> OperatorProcess:
        """Start an operator with the Deployment's settings, and wait until it is ready."""
        sandbox = self.world.sandbox
        usual = ["--token-url", sandbox.https_token_url, "--graphql-url", sandbox.https_graphql_url]
        usual += ["--ca-bundle", str(sandbox.ca_file)]
        log = self.folder / f"{len(list(self.folder.iterdir()))}.log"
        login = kubeconfig or self.world.login
        return self.use(OperatorProcess(*usual, *flags, kubeconfig=login, log_file=log)).wait_ready(_SETTLED)

    def proxy(self) -> ApiProxy:
        """Return a running proxy before the API server."""
        cluster = self.world.cluster
        return self.use(ApiProxy(cluster.server, cluster.ca_file, self.folder / "proxy"))

    def tenants(
        self,
        count: int,
        spec: Json | None = None,
        name: str = "evil",
        answered: Sequence[Fault] = (),
        **ways: Any,  # noqa: ANN401 -- those of Client
    ) -> list[Tenant]:
        """Make credentials of the attacker, each with a client of its own that is always answered one of the faults."""
        tenants = [Tenant(self.evil, self.admin, f"{name}-{number}") for number in range(count)]
        for tenant, fault in zip(tenants, itertools.cycle(answered)):
            self.admin.fault(replace(fault, client=tenant.client.id))
        self.all_of(tenants, lambda tenant: tenant.start(spec, **ways))
        return tenants

    def all_of(self, items: Iterable[T], work: Callable[[T], object]) -> None:
        """Do something to all, four at a time, and count each as a request of the attacker."""
        with ThreadPoolExecutor(4) as threads:
            self.measured.requests += len(list(threads.map(work, items)))

    # The attack -------------------------------------------------------------------------------------------------------

    @contextmanager
    def served(self, *flags: str, kubeconfig: Path | None = None) -> Iterator[OperatorProcess]:
        """Have an operator serve the others; what happens within the context is the attack, and measured."""
        operator = self.operator(*flags, kubeconfig=kubeconfig)
        crowd = Crowd(self.shop, self.admin, "other", OTHERS, self.attack.lifetime).start(spread=2.0)
        self._await_others()
        self.ends = time.monotonic() + self.seconds
        with self._measured(operator, Others([crowd])):
            yield operator
            self.rest()
        if not operator.ended:
            self._await_others()

    def beats(self, per_second: float) -> Iterator[int]:
        """Count from 0, so many times per second, until the attack is over; each is a request of the attacker.

        The attack lasts from the first beat on: what it made before was to prepare it.
        """
        began = time.monotonic()
        self.ends = began + self.seconds
        for number in itertools.count():
            if self._over.wait(max(0.0, began + number / per_second - time.monotonic())):
                return
            if time.monotonic() >= self.ends:
                return
            self.measured.requests += 1
            yield number

    def rest(self) -> None:
        """Wait until the attack is over."""
        self._over.wait(max(0.0, self.ends - time.monotonic()))

    def finding(self, text: str, *, unless: bool = False) -> None:
        """Note what is wrong, unless something holds."""
        if not unless:
            self.measured.findings.append(text)

    def _await_others(self) -> None:
        def all_ready() -> bool:
            return sum(map(is_ready, self.shop.all("TuinlyCredential"))) == OTHERS

        wait_until(all_ready, what="the credentials of others are Ready", seconds=_SETTLED)

    @contextmanager
    def _measured(self, operator: OperatorProcess, others: Others) -> Iterator[None]:
        """Measure the operator, the attacker and the others."""
        gauge = _Gauge(operator, self.measured, self._over)
        works = {gauge.weigh: _MEMORY, gauge.probe: _LOOK, others.look: _LOOK}
        watches = [threading.Thread(target=self._watch, args=work, daemon=True) for work in works.items()]
        others.start()
        for watch in watches:
            watch.start()
        began, attacker = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            self._over.set()
            for watch in watches:
                watch.join()
            others.end()
            measured = self.measured
            measured.seconds, measured.cpu = seconds, gauge.cpu / seconds
            measured.attacker = max(0.0, time.process_time() - attacker - self._watching) / seconds
            measured.expired, measured.late, measured.untrue = others.expired, others.p99, others.untrue

    def _watch(self, work: Callable[[], object], every: float) -> None:
        """Do something again and again until the attack is over; what that costs is not the attacker's."""
        while not self._over.wait(every):
            with contextlib.suppress(ApiError, HTTPError, OSError):  # the attack is on the API server as well
                work()
        self._watching += time.thread_time()


class _Gauge:
    """Looks at the operator from outside; beyond the memory limit it ends it, as the kernel would."""

    def __init__(self, operator: OperatorProcess, measured: Measured, over: threading.Event) -> None:
        self._operator, self._measured, self._over = operator, measured, over
        self._url = operator.health_url
        self._process = Process(operator.pid)
        self._rss, self._cpu = self._process.rss, self._process.cpu
        self._failed = 0
        self.cpu = 0.0  # seconds so far

    def weigh(self) -> None:
        """Note memory and CPU."""
        measured, rss = self._measured, self._process.rss
        self.cpu = self._process.cpu - self._cpu
        measured.peak = self._process.peak
        measured.growth = max(measured.growth, rss - self._rss)
        if measured.peak > LIMIT and not self._over.is_set():
            measured.growth = measured.peak - self._rss
            self._operator.kill()
            self._over.set()

    def probe(self) -> None:
        """Ask as the kubelet does."""
        try:
            with urllib.request.urlopen(f"{self._url}/healthz", timeout=_PROBE):  # noqa: S310 -- its own URL
                self._failed = 0
        except OSError:
            self._failed += 1
            self._measured.failed = max(self._measured.failed, self._failed)
