"""One history: a world that a seed draws, the replicas in it, the faults that strike them, and who looks on."""

import gc
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.simulation.apiserver import Server
from tests.simulation.apiserver.messages import Json
from tests.simulation.audit import Audit, BrokenRuleError
from tests.simulation.endpoint import CANARY, FAILURES, Client, Endpoint
from tests.simulation.faults import Fault, Faults, draw
from tests.simulation.loop import PROCESS, StepsExhaustedError, make_loop
from tests.simulation.people import People
from tests.simulation.reach import watched_rules
from tests.simulation.replica import SHARD, SYSTEM, Replica, Shard, SimulatedClock
from tests.simulation.wire import Machine, Network
from tests.support.crd import CRD
from tuinly_operator.base.names import NamespacedName

EPOCH: Final = 1_800_000_000.0  # the true time at which each history begins, in seconds
LIFETIMES: Final = (240, 300, 420, 600, 900, 1800)
SCOPES: Final = ("orders:read", "orders:write", "stock:read")
NAMESPACES: Final = ("shop", "store", "stock")
SECRETS: Final = "secrets"
CREDENTIALS: Final = "tuinlycredentials.tuinly.com"


@dataclass
class Result:
    """What came of a history."""

    seed: int
    faults: Sequence[Fault]
    broken: str = ""  # what was not as it must be; empty if nothing was
    seconds: float = 0.0  # simulated
    steps: int = 0
    refreshes: int = 0
    struck: dict[str, int] = field(default_factory=dict)  # faults by kind
    reached: set[str] = field(default_factory=set)
    trace: list[str] = field(default_factory=list)


class History:
    """Everything of one history. `Faults` strike it, `Audit` looks on."""

    def __init__(self, seed: int, *, traced: bool = False) -> None:
        """All of it is drawn from `seed`, each kind of thing by a generator of its own."""
        self.seed = seed
        self.traced = traced
        self.trace: list[str] = []
        self.loop = make_loop(self.chance("order"))
        self.world = self.chance("world")
        self.server = Server(self.chance("uids"), [CRD])
        self.endpoint = Endpoint(self.now, self.world.uniform(-5.0, 5.0))
        self.network = Network(self.loop, self.server, self.endpoint, self.now)
        self.people = People(lambda: self.server, self.endpoint, self.now, self.network.changed)
        self.machines: list[Machine] = []
        self.clocks: dict[str, SimulatedClock] = {}
        self.shards: list[Shard] = []
        self.replicas: list[Replica] = []  # all that ever ran
        self.audit = self.network.observer = Audit(self)
        self.keys: list[NamespacedName] = []
        self._populate()

    def chance(self, what: str) -> Random:
        """A generator for one kind of thing, whose draws no other kind moves."""
        return Random(f"{self.seed} {what}")  # noqa: S311 -- the same each time

    def now(self) -> float:
        """The true time, in seconds since the epoch."""
        return EPOCH + self.loop.time()

    def tell(self, what: str, *details: object) -> None:
        """Add a line to the trace."""
        if self.traced:
            parts = " ".join(str(detail) for detail in details)
            self.trace.append(f"{self.loop.time():12.6f} {self.loop.steps:8d} {what} {parts}")

    @property
    def live(self) -> list[Replica]:
        """The replicas that have not ended, in their order."""
        return [replica for replica in self.replicas if not (replica.crashed or replica.ended)]

    # --- What is there at first ---------------------------------------------------------------------------------------

    def _populate(self) -> None:
        world = self.world
        for namespace in (SYSTEM, *NAMESPACES):
            self.people.make_namespace(namespace)
        names = ("left", "right") if world.random() < 0.3 else ("only",)
        named = NAMESPACES if world.random() < 0.25 else ()  # or all of them
        self.shards = [Shard(name, f"{SHARD}={name}" if len(names) > 1 else "", named) for name in names]
        self.bad = world.random() < 0.3  # some tenants' clients always fail
        for number in range(world.choice((8, 14, 20))):
            self._make_credential(number)
        replicas = 2 if len(names) > 1 else world.choice((2, 3))
        for shard in self.shards:
            for number in range(replicas):
                self._make_machine(shard, number)

    def _make_credential(self, number: int) -> None:
        world = self.world
        key = NamespacedName(world.choice(NAMESPACES), f"c{number:02}")
        client = Client(
            f"{key.namespace}.{key.name}",
            [f"{CANARY}-secret-{key.name}-0"],
            world.choice(LIFETIMES),
            frozenset(SCOPES),
            rotates=world.random() < 0.7,
            revokes=world.random() < 0.15,
            refreshes=world.choice(("yes", "yes", "no", "refused")),
            repeats=world.choice((0.0, 0.0, 0.0, 0.4)),
            narrows=world.random() < 0.06,
            fails=world.choice(FAILURES) if self.bad and world.random() < 0.2 else None,
        )
        client.repeats *= client.lifetime
        self.people.sign_up(NamespacedName(key.namespace, f"{key.name}-client"), client)
        spec: Json = {"clientSecretRef": {"name": f"{key.name}-client"}}
        scopes = sorted(world.sample(SCOPES, world.randrange(3)))
        if scopes:
            spec["scopes"] = scopes
        if world.random() < 0.25:
            spec["verification"] = {"mode": "Enabled"}
        if world.random() < 0.15:
            spec["target"] = {"deletionPolicy": "Retain"}
        if world.random() < 0.3:
            spec["refresh"] = {"grant": "ClientCredentials"}
        self.people.make_credential(key, spec, {SHARD: world.choice(self.shards).name})
        self.keys.append(key)

    def _make_machine(self, shard: Shard, number: int) -> None:
        name = f"{shard.name}-{number}"
        self.machines.append(Machine(name, self.chance(f"delays of {name}")))
        clock = SimulatedClock(self.loop, EPOCH, 1000.0 * (1 + len(self.machines)))
        clock.ahead, clock.drift = self.world.uniform(-3.0, 3.0), self.world.uniform(-0.01, 0.01)
        self.clocks[name] = clock
        self.begin(self.machines[-1], shard)

    # --- Replicas -----------------------------------------------------------------------------------------------------

    def begin(self, machine: Machine, shard: Shard) -> None:
        """Start the program on a machine."""
        runs = sum(1 for replica in self.replicas if replica.machine is machine)
        name = f"{machine.name}.{runs}"
        chance = self.chance(f"draws of {name}")
        replica = Replica(name, machine, self.clocks[machine.name], self.network, shard, chance)
        self.replicas.append(replica)
        self.tell("begins", name)
        replica.begin()

    def crash(self, replica: Replica) -> None:
        """End a replica between two steps."""
        self.tell("crashes", replica)
        self.loop.crash(replica)
        self.audit.crashed(replica)

    # --- Playing ------------------------------------------------------------------------------------------------------

    def play(self, faults: Iterable[Fault], *, calm: float) -> None:
        """Let the faults strike, then nothing for `calm` seconds, and judge. Raises BrokenRuleError."""
        struck = Faults(self, sorted(faults, key=lambda fault: (fault.at, fault.number)))
        end = struck.schedule()
        self.loop.run_until(end)
        self._check()
        struck.end_all()
        self.tell("calm")
        waits = self.audit.calm_begins()
        self.loop.run_until(end + waits)
        self._check()
        self.audit.all_is_well()
        self.loop.run_until(end + waits + calm)
        self._check()
        self.audit.nothing_moved()

    def _check(self) -> None:
        """Raise what came up in a step, where nobody could."""
        self.audit.raise_broken()
        for failure in self.loop.failures:
            message = f"asyncio: {failure.get('message')} {failure.get('exception')!r}"
            raise BrokenRuleError(message)


class _LogWatch(logging.Handler):
    """Gives each line of the log to the history."""

    def __init__(self, history: History) -> None:
        super().__init__(logging.DEBUG if history.traced else logging.WARNING)
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a line."""
        self._history.audit.logged(PROCESS.get(), record)


@contextmanager
def _quiet(history: History) -> Iterator[None]:
    """No garbage collection, whose time nobody could foresee, and the log goes to the history."""
    log, handler = logging.getLogger("tuinly_operator"), _LogWatch(history)
    level, propagate, collects = log.level, log.propagate, gc.isenabled()
    log.setLevel(handler.level)
    log.propagate = False
    log.addHandler(handler)
    gc.disable()
    try:
        yield
    finally:
        history.loop.end()
        log.removeHandler(handler)
        log.propagate = propagate
        log.setLevel(level)
        if collects:
            gc.enable()


def play(seed: int, faults: Sequence[Fault] | None = None, *, traced: bool = False, calm: float = 120.0) -> Result:
    """Play the history of a seed, with the faults that it draws, or with others."""
    history = History(seed, traced=traced)
    faults = draw(history) if faults is None else faults
    result = Result(seed, faults)
    with _quiet(history), watched_rules(history.audit.reached):
        try:
            history.play(faults, calm=calm)
        except (BrokenRuleError, StepsExhaustedError) as broken:
            result.broken = str(broken)
            history.tell("BROKEN", broken)
    result.seconds, result.steps = history.loop.time(), history.loop.steps
    result.trace = history.trace
    history.audit.sum_up(result)
    del history
    _collect()
    return result


def _collect() -> None:
    """Let go of all that a history leaves: tasks that are closed in the middle of something complain, to nobody."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    logging.disable()
    try:
        gc.collect()
    finally:
        logging.disable(logging.NOTSET)
        sys.unraisablehook = hook
