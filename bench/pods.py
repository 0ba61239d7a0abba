"""How late a Pod sees a new token: on a real node, with and without Push, and what a push costs.

Pods are cheap ones that do nothing: their files are looked at from the node, where the kubelet writes what is mounted
into them. It shows a new token by exchanging the link `..data`, whose time of change is the moment that counts.
"""

import contextlib
import json
import random
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.measures import Process, quantile, requests
from bench.report import Figure
from tests.support import crd
from tests.support.acts import leave_lease
from tests.support.installed import Installed
from tests.support.manifests import SYSTEM, with_push
from tests.support.node import Node, find_programs
from tests.support.node.files import PAUSE_IMAGE
from tests.support.objects import Objects
from tests.support.operator import OperatorProcess
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import wait_until

Json = dict[str, Any]

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / ".bench" / "node"
SHOP: Final = "shop"
MOUNTING: Final = 20
"""Pods that mount the Secret."""
CROWD: Final = 200
"""Pods of the namespace in all, in the second half."""
PUSHED_ROUNDS: Final = 50
"""Of tokens that are pushed: each gives a sample per Pod, so that there are 1,000."""
PLAIN_ROUNDS: Final = 2
"""Of tokens that are left to the kubelet: each takes up to 85 s."""
PAUSE: Final = (2.0, 4.0)
"""Seconds between two rounds, drawn, so that the kubelet's own rounds are met at any moment. The rate of pushes, 20 per
second and a burst of 40, is not what is measured."""
LATE: Final = 10.0
"""Seconds after which a pushed file counts as late: the push was overtaken, and the kubelet's own round brought it."""
GIVEN_UP: Final = 180.0
LISTERS: Final = 6
"""Threads that list all Pods and Secrets all the time, to make an API server busy on two cores; half as many write."""
HOUR: Final = 3600.0


@dataclass(frozen=True)
class Sample:
    """A file that changed: how many seconds after its token was issued, shortly before the Secret was written."""

    pod: str
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What was used up to a moment, or between two: seconds of CPU by program, and requests that the API server had."""

    cpu: Mapping[str, float]
    requests: Counter[str]

    def since(self, earlier: "Cost") -> "Cost":
        """Return what came after an earlier moment."""
        cpu = {name: seconds - earlier.cpu[name] for name, seconds in self.cpu.items()}
        return Cost(cpu, self.requests - earlier.requests)


class NodeStand:
    """A node with the operator's rights on it, a sandbox, and the operator as a process in the node's network."""

    operator: OperatorProcess

    def __init__(self, running: ExitStack) -> None:
        """Start it; it ends with `running`. The calling thread moves into the node's network."""
        shutil.rmtree(FOLDER, ignore_errors=True)
        self.node = running.enter_context(Node(FOLDER, find_programs()))
        self._running = running
        self._pods: dict[str, str] = {}  # of those that mount the Secret: name and uid
        self.node.kubectl("apply", "--server-side", "-f", "crds/")
        crd.wait_until_served(self.node)
        objects = with_push()
        [deployment] = [each for each in objects if each["kind"] == "Deployment"]
        deployment["spec"]["replicas"] = 0  # the operator runs as a process beside the bench
        Installed(self.node).apply(*objects)
        self.node.kubectl("create", "namespace", SHOP)
        self._sandbox = running.enter_context(SandboxProcess())
        self.tenant = Tenant(Objects(self.node, SHOP), self._sandbox.admin)

    def start_operator(self) -> None:
        """Start the operator, logged in as its account, and wait until it is ready."""
        sandbox = self._sandbox
        leave_lease(self.node, SYSTEM, "tuinly-operator")
        operator = OperatorProcess(
            *("--token-url", sandbox.https_token_url, "--graphql-url", sandbox.https_graphql_url),
            *("--ca-bundle", str(sandbox.ca_file), "--min-refresh-interval", "200ms"),
            *("--lease", f"{SYSTEM}/tuinly-operator", "--push"),
            kubeconfig=self.node.kubeconfig_for(SYSTEM, "tuinly-operator"),
            log_file=FOLDER / "operator.log",
        )
        self.operator = self._running.enter_context(operator).wait_ready()

    def add_pods(self, count: int, *, mounting: bool) -> None:
        """Start Pods, and wait until they run."""
        mark = "mounting" if mounting else "beside"
        names = [f"{mark}-{number}" for number in range(count)]
        items = [_pod(name, self.tenant.target_name if mounting else None) for name in names]
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        self.node.kubectl("create", "-f", "-", input=document)

        def running() -> dict[str, str] | None:
            time.sleep(1)
            text = self.node.kubectl("get", "pods", "-n", SHOP, "-l", f"kind={mark}", "-o", "json")
            pods = [pod for pod in json.loads(text)["items"] if pod["status"].get("phase") == "Running"]
            uids = {pod["metadata"]["name"]: str(pod["metadata"]["uid"]) for pod in pods}
            return uids if len(uids) == count else None

        uids = wait_until(running, what=f"{count} Pods run", seconds=900)
        if mounting and uids is not None:
            self._pods = uids

    def ask(self, delivery: str) -> None:
        """Ask for this delivery to Pods, and wait until the operator has heard of it."""
        generation = self.tenant.apply({"delivery": {"pods": delivery}})["metadata"]["generation"]
        wait_until(lambda: self.tenant.status().get("observedGeneration") == generation, what=delivery)

    def rounds(self, count: int) -> list[Sample]:
        """Have the token replaced so many times, and return when each Pod's file followed."""
        samples: list[Sample] = []
        for _ in range(count):
            time.sleep(random.uniform(*PAUSE))  # noqa: S311 -- no secret
            before = {pod: self._link(uid) for pod, uid in self._pods.items()}
            samples += self._followed(before, self.renew())
        return samples

    def renewals(self, count: int) -> None:
        """Have the token replaced so many times, at the pace of rounds, whatever becomes of the files."""
        for _ in range(count):
            time.sleep(random.uniform(*PAUSE))  # noqa: S311 -- no secret
            self.renew()

    def cost(self) -> "Cost":
        """Return what was used so far."""
        programs = {name: self.process(name).cpu for name in ("kube-apiserver", "kubelet")}
        return Cost({"operator": Process(self.operator.pid).cpu, **programs}, self.requests())

    def renew(self) -> float:
        """Have the token replaced; return when the new one was issued, once the Secret has it."""
        old = self.tenant.target().token
        self.tenant.rotate_secret()  # an exchange at once; those that are forced come 10 s apart
        self.tenant.apply_client_secret()
        self.tenant.await_token(other_than=old, seconds=60)
        return self.tenant.tokens()[-1].issued_at

    def _followed(self, before: Mapping[str, tuple[str, float]], issued_at: float) -> Iterator[Sample]:
        waiting, deadline = dict(before), time.monotonic() + GIVEN_UP
        while waiting and time.monotonic() < deadline:
            for pod, (link, _) in list(waiting.items()):
                now, changed_at = self._link(self._pods[pod])
                if now != link:
                    del waiting[pod]
                    yield Sample(pod, changed_at - issued_at)
            time.sleep(0.05)
        yield from (Sample(pod, GIVEN_UP) for pod in waiting)

    def _link(self, uid: str) -> tuple[str, float]:
        """Return where the link of a Pod's volume leads to, and since when, in seconds of `time.time`."""
        volume = "volumes/kubernetes.io~secret/token/..data"
        path = Path(f"/proc/{self.node.pid}/root/var/lib/kubelet/pods/{uid}/{volume}")
        return str(path.readlink()), path.lstat().st_ctime

    def requests(self) -> Counter[str]:
        """Count the requests that the API server has answered about Pods and what a refresh is about."""
        kept = ("pods", "pods/status", "secrets", "tuinlycredentials/status", "events")
        counts = requests(self.node.kubectl("get", "--raw", "/metrics"))
        return Counter({what: count for what, count in counts.items() if what.split(" ")[1] in kept})

    def process(self, program: str) -> Process:
        """Return one of the node's programs."""
        children = Path(f"/proc/{self.node.pid}/task/{self.node.pid}/children").read_text().split()
        [pid] = [int(pid) for pid in children if _program_of(pid) == program]
        return Process(pid)

    @contextmanager
    def busy_api_server(self) -> Iterator[Counter[str]]:
        """Keep the API server as busy as it can be, by lists and by writes of other Secrets; count what it answered."""
        ending, answered = threading.Event(), Counter[str]()
        config = json.loads(self.node.kubeconfig.read_text())
        token = config["users"][0]["user"]["token"]
        context = ssl.create_default_context(cafile=str(self.node.ca_file))

        def send(method: str, path: str, body: Json | None = None) -> None:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(self.node.server + path, data, headers, method=method)  # noqa: S310
            with (
                contextlib.suppress(urllib.error.HTTPError),
                urllib.request.urlopen(request, context=context) as answer,  # noqa: S310 -- the node's API server
            ):
                answer.read()
                answered[method] += 1

        def lists() -> None:
            while not ending.is_set():
                send("GET", f"/api/v1/namespaces/{SHOP}/pods")
                send("GET", "/api/v1/secrets")

        def writes(name: str) -> None:
            self.node.kubectl("create", "secret", "generic", name, "-n", SHOP)
            while not ending.is_set():
                change = {"stringData": {"key": str(time.time_ns())}}
                send("PATCH", f"/api/v1/namespaces/{SHOP}/secrets/{name}", change)

        threads = [threading.Thread(target=lists) for _ in range(LISTERS)]
        threads += [threading.Thread(target=writes, args=(f"busy-{number}",)) for number in range(LISTERS // 2)]
        for thread in threads:
            thread.start()
        try:
            yield answered
        finally:
            ending.set()
            for thread in threads:
                thread.join()


def _pod(name: str, secret: str | None) -> Json:
    mounted = {"name": "token", "secret": {"secretName": secret}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SHOP, "labels": {"kind": name.partition("-")[0]}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "main",
                    "image": PAUSE_IMAGE,
                    "imagePullPolicy": "Never",
                    "volumeMounts": [{"name": "token", "mountPath": "/token"}] if secret else [],
                }
            ],
            "volumes": [mounted] if secret else [],
        },
    }


def _program_of(pid: str) -> str:
    return Path(Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()).name


def delays(name: str, samples: Sequence[Sample], *, pushed: bool | None) -> Iterator[Figure]:
    """Return what is told of the files' delays.

    `pushed` says what is asked of them: nothing without a push, else that they come quickly, and with an API server
    that is busy (None) only that no push was overtaken.
    """
    seconds = [sample.seconds for sample in samples]
    late = sum(each > LATE for each in seconds)
    details = {"samples": len(seconds), "seconds": [round(each, 3) for each in seconds]}
    yield Figure(f"{name}: samples", 1, len(seconds), "", details=details)
    yield Figure(f"{name}: issued → file changed, p50", 1, quantile(seconds, 0.5), "s", most=0.3 if pushed else None)
    yield Figure(f"{name}: issued → file changed, p99", 1, quantile(seconds, 0.99), "s", most=2.0 if pushed else None)
    yield Figure(f"{name}: issued → file changed, slowest", 1, max(seconds), "s")
    if pushed is not False:
        yield Figure(f"{name}: files later than {LATE:.0f} s", 1, late, "", most=0)


def push(tell: Callable[[str], None]) -> Iterator[Figure]:
    """Push, on a real node: token issued until a Pod's file has changed, with and without, and what it costs."""
    with ExitStack() as running:
        tell("a node, and the operator with Push")
        stand = NodeStand(running)
        stand.tenant.start(lifetime=HOUR)
        stand.start_operator()
        stand.tenant.await_ready(60)
        stand.add_pods(MOUNTING, mounting=True)
        yield from _with_and_without(stand, f"{MOUNTING} Pods", tell)
        tell(f"{CROWD} Pods, of which {MOUNTING} mount the Secret")
        stand.add_pods(CROWD - MOUNTING, mounting=False)
        yield from _with_and_without(stand, f"{MOUNTING} of {CROWD} Pods", tell)
        tell("a busy API server")
        with stand.busy_api_server() as answered:
            begun = time.monotonic()
            samples = stand.rounds(PUSHED_ROUNDS)
            seconds = time.monotonic() - begun
        name = f"{MOUNTING} of {CROWD} Pods, API server busy"
        yield Figure(f"{name}: other requests it answered", 1, answered.total() / seconds, "/s")
        yield from delays(f"{name}, Push", samples, pushed=None)


def _with_and_without(stand: NodeStand, name: str, tell: Callable[[str], None]) -> Iterator[Figure]:
    stand.ask("None")
    tell(f"{name}: {PLAIN_ROUNDS} tokens that the kubelet finds by itself")
    yield from delays(f"{name}, no Push", stand.rounds(PLAIN_ROUNDS), pushed=False)
    tell(f"{name}: what {PUSHED_ROUNDS} refreshes cost without Push")
    before = stand.cost()
    stand.renewals(PUSHED_ROUNDS)
    plain = stand.cost().since(before)
    stand.ask("Push")
    tell(f"{name}: {PUSHED_ROUNDS} tokens that are pushed")
    before = stand.cost()
    samples = stand.rounds(PUSHED_ROUNDS)
    pushed = stand.cost().since(before)
    yield from delays(f"{name}, Push", samples, pushed=True)
    yield from costs(name, plain, pushed)


def costs(name: str, plain: Cost, pushed: Cost) -> Iterator[Figure]:
    """Return what refreshes cost without Push, and how much more with it, for each Pod that is pushed to."""
    pushes = PUSHED_ROUNDS * MOUNTING
    for program, seconds in plain.cpu.items():
        yield Figure(f"{name}: {program}, CPU per refresh, no Push", 1, seconds * 1000 / PUSHED_ROUNDS, "ms")
        more = (pushed.cpu[program] - seconds) * 1000 / pushes
        yield Figure(f"{name}: {program}, CPU per push beyond that", 1, more, "ms")
    for what in ("LIST pods", "PATCH pods/status"):
        details = {"plain": dict(plain.requests), "pushed": dict(pushed.requests)}
        more = (pushed.requests[what] - plain.requests[what]) / PUSHED_ROUNDS
        yield Figure(f"{name}: {what}, more of them per refresh", 1, more, "", details=details)
