"""What the bench stands on: control plane, sandbox and operator as they are deployed, and fleets of credentials."""

import asyncio
import base64
import compileall
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import tuinly_operator
from bench.api import CLIENT, CREDENTIALS, SECRETS, Api, Json, all_of, until
from bench.measures import HELD, LATENESS, Process, Times, grants, of_credentials
from tests.support import crd
from tests.support.cluster import LocalCluster, running_cluster
from tests.support.operator import LEADS, OperatorProcess
from tests.support.sandbox import Client, SandboxProcess
from tuinly_operator.base.clock import parse_rfc3339
from tuinly_operator.domain.credential import RefreshSpec
from tuinly_operator.domain.schedule import JITTER, lead

RESTS = 8 * 3600.0
"""Seconds that a token lives while something else is measured: it is not due before that is over."""
INSTALLATION = Path(__file__).parents[1] / "deploy" / "install.yaml"
SHARDS = 4
"""Operators that may serve the credentials together, each those of one shard."""
_ONE_FOR_ALL: Sequence[str] = ("operator", "standby")
_SHARD = "shard"  # the label that tells of which shard a credential is
_POLL = 0.1
_READY_SECONDS = 180.0  # 100,000 credentials take a minute on an idle machine
_LEAD_SECONDS = 60.0  # in which one that is alone leads at the latest; a Lease that it does not find costs it 15
_STILL = 0.5  # seconds without work after which an operator counts as at rest


class Narrator:
    """Tells a person at the terminal what is under way, and when it began."""

    def __init__(self) -> None:
        """Begin to count."""
        self._begun = time.monotonic()

    def __call__(self, what: str) -> None:
        """Tell one thing."""
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        print(f"[{minutes:3}:{seconds:02}] {what}", file=sys.stderr, flush=True)  # noqa: T201 -- to a person


@dataclass(frozen=True)
class Snapshot:
    """What counters said at one moment."""

    time: float
    cpu: Mapping[str, float]
    api: Counter[str]
    token_requests: int
    lateness: Times
    grants: Counter[str]


@dataclass(frozen=True)
class Window:
    """What happened between two snapshots. `grants` tells by which grants tokens came that were published."""

    seconds: float
    cpu: Mapping[str, float]
    api: Counter[str]
    token_requests: int
    lateness: Times
    grants: Counter[str]

    @property
    def published(self) -> int:
        """How many tokens were written to target Secrets."""
        return self.api["APPLY secrets"] + self.api["PATCH secrets"]

    @property
    def reads(self) -> int:
        """How many Secrets and credentials were read, one by one; a list of the one of a name counts as such."""
        return self.api["GET secrets"] + self.api["GET tuinlycredentials"]

    @property
    def lists(self) -> int:
        """How many pages of Secrets or credentials were listed."""
        return self.api["LIST secrets"] + self.api["LIST tuinlycredentials"]

    @property
    def writes(self) -> int:
        """How many objects were written."""
        return sum(count for what, count in self.api.items() if not what.startswith(("GET ", "LIST ", "WATCH ")))


@dataclass
class Fleet:
    """Credentials with a client and a client Secret each, in a namespace of their own."""

    stand: "Stand"
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    prepared: int = 0
    size: int = 0
    lifetime: float = RESTS
    rotated: dict[str, str] = field(default_factory=dict, repr=False)  # client secrets that are no more the first ones

    @staticmethod
    def name(number: int) -> str:
        """The name of a credential."""
        return f"storefront-{number:06}"

    @property
    def credentials(self) -> str:
        """The path of the credentials."""
        return CREDENTIALS.format(self.namespace)

    @property
    def secrets(self) -> str:
        """The path of the Secrets."""
        return SECRETS.format(self.namespace)

    async def prepare(self, count: int) -> None:
        """Register clients and create client Secrets, until there are as many."""
        if count <= self.prepared:
            return
        api, first = self.stand.api, self.prepared
        if not first:
            await api.create("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.prepared = count
        await self.register()
        await all_of(api.create(self.secrets, self._client_secret(number)) for number in range(first, count))

    async def start(self, count: int) -> float:
        """Create credentials until there are as many, all at once; return the seconds until all are ready."""
        await self.prepare(count)
        first, self.size = self.size, count
        issued, begun = await self._issued(), time.monotonic()
        await all_of(self.stand.api.create(self.credentials, self.credential(n)) for n in range(first, count))
        # The cheap question first: who polls takes time from those who work.
        await until(lambda: self._asked(issued + count - first), _POLL)
        await until(self._are_ready, max(_POLL, self.size / 10_000))
        return time.monotonic() - begun

    async def _issued(self) -> int:
        return (await asyncio.to_thread(self.stand.sandbox.admin.counts))["tokens"]

    async def _asked(self, tokens: int) -> bool:
        return await self._issued() >= tokens

    async def _are_ready(self) -> bool:
        return sum([is_ready(found) async for found in self.stand.api.all(self.credentials)]) >= self.size

    async def seconds_to_mend(self, name: str, first: Callable[[], object] = lambda: None) -> float:
        """Do something first, if need be, delete a credential's target; return the seconds until there is a new one."""
        api, path = self.stand.api, f"{self.secrets}/{name}-token"
        old = (await api.send("GET", path))["metadata"]["uid"]

        async def lose() -> None:
            await asyncio.to_thread(first)
            await api.send("DELETE", path)

        return await api.seconds_until(self.secrets, f"{name}-token", lose, lambda meta: bool(meta["uid"] != old))

    async def pace(self, lifetime: float, *, over: float | None = None) -> None:
        """Let tokens live for so long from now on, and wait until each credential has one of these.

        They come when the present ones are due, or are asked for by people, evenly `over` so many seconds.
        """
        issued = await self._issued()  # first: some tokens come with the new lifetime before all clients have it
        await self.live(lifetime)
        if over is not None:
            await self._force(over)

        async def live_so_long() -> bool:
            return all(round(span(target)) == lifetime for target in await self.targets())

        await until(lambda: self._asked(issued + self.size), _POLL)
        await until(live_so_long, max(_POLL, self.size / 5_000))

    async def live(self, lifetime: float) -> None:
        """Let tokens that are issued from now on live for so many seconds."""
        self.lifetime = lifetime
        await self.register()

    async def _force(self, over: float) -> None:
        patch = {"metadata": {"annotations": {"tuinly.com/refresh-requested": secrets.token_hex(4)}}}
        begun = time.monotonic()
        async with asyncio.TaskGroup() as asked:
            for number in range(self.size):
                await asyncio.sleep(max(0.0, begun + over * number / self.size - time.monotonic()))
                asked.create_task(self.stand.api.merge(f"{self.credentials}/{self.name(number)}", patch))

    async def targets(self) -> list[Json]:
        """Return the metadata of the target Secrets."""
        return [meta for meta in await self.stand.api.metadata(self.secrets) if meta["name"].endswith("-token")]

    async def delete(self) -> None:
        """Delete the credentials and all Secrets: the fleet is used no more."""
        await self.stand.api.send("DELETE", self.credentials)
        await self.stand.api.send("DELETE", self.secrets)

    async def register(self) -> None:
        """Make the clients known to the sandbox, or as they are to be from now on."""
        clients = list(map(self.client, range(self.prepared)))
        await asyncio.to_thread(self.stand.sandbox.admin.add_clients, clients)

    def client(self, number: int) -> Client:
        """The client of this number, as the sandbox is to know it."""
        name = self.name(number)
        secret = self.rotated.get(name, self.stand.client_secret)
        client = CLIENT.format(self.namespace, name)
        return Client(id=client, secret=secret, lifetime=self.lifetime, scopes=("orders:read",))

    async def rotate_at_endpoint(self, name: str, secret: str) -> None:
        """Give a credential's client another secret; its client Secret has the old one still."""
        self.rotated[name] = secret
        client = CLIENT.format(self.namespace, name)
        await asyncio.to_thread(self.stand.sandbox.admin.rotate_secret, client, secret)

    async def rotate_in_cluster(self, name: str, secret: str) -> None:
        """Give a credential's client Secret another content."""
        patch = {"data": {"client_secret": base64.b64encode(secret.encode()).decode()}}
        await self.stand.api.merge(f"{self.secrets}/{name}-client", patch)

    def _client_secret(self, number: int) -> Json:
        client = self.client(number)
        values = {"client_id": client.id, "client_secret": client.secret}
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        return {"metadata": {"name": f"{self.name(number)}-client"}, "data": data}

    def credential(self, number: int) -> Json:
        """The credential of this number, as a team would write it: half are refreshed by each grant."""
        return {
            "apiVersion": "tuinly.com/v1alpha1",
            "kind": "TuinlyCredential",
            "metadata": {"name": self.name(number), "labels": {**self.labels, _SHARD: str(number % SHARDS)}},
            "spec": {
                "clientSecretRef": {"name": f"{self.name(number)}-client"},
                "refresh": {"grant": ("RefreshToken", "ClientCredentials")[number % 2]},
            },
        }


def moment(target: Json, what: str) -> float:
    """When the token in a target Secret was issued ("issued-at") or ends ("expires-at"), in seconds since 1970."""
    return parse_rfc3339(target["annotations"][f"tuinly.com/{what}"])


def applied_at(target: Json) -> float:
    """When a target Secret was last applied, by the API server's clock, in seconds since 1970."""
    return max(parse_rfc3339(entry["time"]) for entry in target["managedFields"] if entry["operation"] == "Apply")


def is_ready(credential: Json) -> bool:
    """Whether a credential says that it is."""
    conditions = credential.get("status", {}).get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def span(target: Json) -> float:
    """Seconds that the token in a target Secret lives in all."""
    return moment(target, "expires-at") - moment(target, "issued-at")


class Stand:
    """A control plane, the sandbox over HTTPS, and the operator under its own login and rights."""

    def __init__(self, cluster: LocalCluster, sandbox: SandboxProcess, api: Api, tell: Narrator) -> None:
        """Nothing runs yet but the cluster and the sandbox."""
        self.cluster = cluster
        self.sandbox = sandbox
        self.api = api
        self.tell = tell
        self.client_secret = secrets.token_urlsafe(24)
        self.login = cluster.kubeconfig_for("tuinly-system", "tuinly-operator")
        self.setbacks: Counter[str] = Counter()  # what operators that have ended told of, by reason and cause
        self._held: dict[OperatorProcess, Times] = {}  # of each replica, what it told last of its long iterations
        self._replicas: list[OperatorProcess] = []
        self._names: Sequence[str] = _ONE_FOR_ALL  # of the replicas, in the order in which they were started
        self._started = 0
        # What the bare loop and the naive operator work on the operator leaves alone.
        self.fleet = Fleet(self, "bench")
        self.few = Fleet(self, "few")
        self.herd = Fleet(self, "herd")
        self.rate = Fleet(self, "rate")
        self.slow = Fleet(self, "slow")
        self.hour = Fleet(self, "hour")
        self.naive = Fleet(self, "naive", {"bench": "naive"})
        self.bare = Fleet(self, "bare", {"bench": "bare"})

    @property
    def operator(self) -> OperatorProcess | None:
        """The replica that has run for longest, which leads; None where none runs."""
        return self._replicas[0] if self._replicas else None

    async def start_operator(self) -> OperatorProcess:
        """Start the operator if it does not run, and wait until it is ready and leads.

        Raises:
            RuntimeError: it has ended by itself.
        """
        if self.operator is not None:
            if self.operator.ended:
                raise RuntimeError(f"the operator has ended: {self.operator.last_lines(5)}")
            return self.operator
        replica = await self.start_replica()
        await self._await_lead(replica)
        return replica

    async def start_replica(self, shard: int | None = None) -> OperatorProcess:
        """Start one more replica under the Lease of all, or of a shard, and wait until it is ready.

        It is warm, if another leads.
        """
        flags = ["--token-url", self.sandbox.https_token_url, "--ca-bundle", str(self.sandbox.ca_file)]
        lease = "tuinly-operator" if shard is None else f"shard-{shard}"
        mine = "" if shard is None else f",{_SHARD}={shard}"
        flags += ["--lease", f"tuinly-system/{lease}", "--selector", "bench notin (bare,naive)" + mine]
        self._started += 1
        log = self.cluster.directory / f"operator-{self._started}.log"
        replica = OperatorProcess(*flags, kubeconfig=self.login, log_file=log).__enter__()
        self._replicas.append(replica)
        await asyncio.to_thread(replica.wait_ready, _READY_SECONDS)
        return replica

    async def start_shards(self) -> list[OperatorProcess]:
        """Start an operator for each shard, all at once, where none runs; wait until they are ready and lead."""
        self._names = (*(f"shard {number}" for number in range(SHARDS)), "standby")
        leaders = await asyncio.gather(*map(self.start_replica, range(SHARDS)))
        await asyncio.gather(*map(self._await_lead, leaders))
        return leaders

    async def _await_lead(self, replica: OperatorProcess) -> None:
        # Its log tells, and costs nothing of the CPU that is measured: a scrape has all credentials in it.
        await asyncio.to_thread(replica.wait_for_log, lambda line: bool(line["msg"] == LEADS), _LEAD_SECONDS)

    def allow_leases_of_shards(self) -> None:
        """Let the operator's account hold other Leases than the one that its installation names."""
        role = ["role", "shards", "--verb=get,update", "--resource=leases.coordination.k8s.io"]
        binding = ["rolebinding", "shards", "--role=shards", "--serviceaccount=tuinly-system:tuinly-operator"]
        for what in (role, binding):
            self.cluster.kubectl("create", "--namespace=tuinly-system", *what)

    def end_replica(self, replica: OperatorProcess) -> None:
        """End a replica as Kubernetes does, if it still runs, and keep what it told of."""
        self._ask_for_long_iterations(replica)
        self._replicas.remove(replica)
        replica.__exit__(None, None, None)
        failed = (line for line in replica.logs() if line["msg"] == "failed, trying again")
        self.setbacks.update(f"{line['reason']}: {line['cause']}" for line in failed)

    def stop_operator(self) -> None:
        """End all replicas, those that stand by first."""
        for replica in self._replicas[::-1]:
            self.end_replica(replica)
        self._names = _ONE_FOR_ALL

    @property
    def processes(self) -> dict[str, Process]:
        """All that takes part, by name."""
        found = {name: Process(process.pid) for name, process in self.cluster.processes.items()}
        found["sandbox"] = Process(self.sandbox.pid)
        for name, replica in zip(self._names, self._replicas, strict=False):
            found[name] = Process(replica.pid)
        return found

    async def snapshot(self, *, last: bool = False) -> Snapshot:
        """Read all counters. Reading the operator's costs it some time, which stays outside of the window."""
        early = None if last else await self._counters()
        cpu = {name: process.cpu for name, process in self.processes.items()}
        now = time.monotonic()
        api = await self.api.requests()
        token_requests = (await asyncio.to_thread(self.sandbox.admin.counts))["requests"]
        lateness, by_grant = early or await self._counters()
        return Snapshot(now, cpu, api, token_requests, lateness, by_grant)

    def held(self) -> Times:
        """The long iterations of the loops of all replicas so far; of one that was killed, what it told last."""
        for replica in self._replicas:
            self._ask_for_long_iterations(replica)
        return reduce(Times.and_also, self._held.values(), Times({}))

    def _ask_for_long_iterations(self, replica: OperatorProcess) -> None:
        if not replica.ended:
            self._held[replica] = Times.of(replica.metrics(), HELD)

    async def _counters(self) -> tuple[Times, Counter[str]]:
        """The operator's own: how late refreshes were, and by which grants tokens came."""
        told = [await asyncio.to_thread(replica.metrics) for replica in self._replicas if not replica.ended]
        late = (Times.of(samples, LATENESS) for samples in told)
        return reduce(Times.and_also, late, Times({})), sum(map(grants, told), Counter[str]())

    async def since(self, before: Snapshot) -> Window:
        """Tell what has happened since a snapshot."""
        after = await self.snapshot(last=True)
        api, by_grant = after.api.copy(), after.grants.copy()
        api.subtract(before.api)
        by_grant.subtract(before.grants)
        return Window(
            seconds=after.time - before.time,
            cpu={name: after.cpu[name] - before.cpu[name] for name in after.cpu if name in before.cpu},
            api=of_credentials(api),
            token_requests=after.token_requests - before.token_requests,
            lateness=after.lateness.since(before.lateness),
            grants=by_grant,
        )

    async def at_rest(self, process: Process, seconds: float = 300.0) -> float:
        """Wait until a process has used next to no CPU for a moment; return when that moment began (monotonic).

        Raises:
            TimeoutError: it goes on and on.
        """
        async with asyncio.timeout(seconds):
            readings: list[tuple[float, float]] = []
            while True:
                now, cpu = time.monotonic(), process.cpu
                readings = [(at, used) for at, used in readings if now - at < _STILL] + [(now, cpu)]
                if now - readings[0][0] >= _STILL * 0.8 and cpu - readings[0][1] <= 0.03:  # noqa: PLR2004 -- three ticks
                    return readings[0][0]
                await asyncio.sleep(0.05)


@asynccontextmanager
async def standing(tell: Narrator) -> AsyncIterator[Stand]:
    """Set it all up for as long as the context lasts."""
    compile_operator()
    tell("control plane and sandbox")
    with running_cluster() as cluster, SandboxProcess() as sandbox:
        crd.install(cluster)
        cluster.kubectl("apply", "--server-side", "-f", str(INSTALLATION))
        async with Api(cluster.kubeconfig) as api:
            tell("until the garbage collector watches credentials: it reads the owner of what it has not seen")
            await until(lambda: api.is_watched(CREDENTIALS.rpartition("/")[2]), 1.0)
            stand = Stand(cluster, sandbox, api, tell)
            try:
                yield stand
            finally:
                stand.stop_operator()


def compile_operator() -> None:
    """Have the operator's bytecode beside it, as the image has: else each start compiles it anew where none is written.

    PYTHONDONTWRITEBYTECODE has that effect, which is set in many containers.
    """
    compileall.compile_dir(Path(tuinly_operator.__file__).parent, quiet=1)


def lifetime_for(interval: float) -> float:
    """The lifetime, in whole seconds, with which tokens are refreshed about every `interval` seconds by default."""
    return float(next(life for life in range(2, 100_000) if mean_interval(life) >= interval))


def mean_interval(lifetime: float) -> float:
    """Seconds between two refreshes on average, by default, of a token that lives for so many."""
    return (lifetime - lead(RefreshSpec(), lifetime)) * (1 - JITTER / 2)
