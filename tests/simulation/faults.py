"""The faults: which there are, how a seed draws them, and how each strikes and ends."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.apiserver import Key, Refusal, Review
from tests.simulation.endpoint import CANARY
from tests.simulation.people import at, credential_path, decoded, lease_path, objects, secret_path
from tests.simulation.replica import OTHER_URL, SHARD, Replica
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import GROUP, PLURAL, VERSION

if TYPE_CHECKING:
    from tests.simulation.history import History

SETTLED: Final = 60.0  # seconds after the longest wait, by which all must be well

# The phases of a refresh, in their order: a fault strikes as soon as one is reached, or, without one, at its time.
PHASES: Final = ("asks", "given", "heard", "writes", "written", "confirmed", "tells", "told")
_PATIENCE: Final = 150.0  # seconds for which a fault waits for its phase
_BEGINNING: Final = 75.0
_BACKUP_SECONDS: Final = 60.0
_RESTORE_SECONDS: Final = 12.0  # for which the API server is away at least while etcd is restored
_GARBAGE_SECONDS: Final = 7.0
_DEALT_EACH: Final = 3  # histories, of which one is dealt its faults
_DEALT: Final = 25  # places by which the next one's faults are further in the row of pairs; no divisor of its length
SECRETS: Final = "secrets"
CREDENTIALS: Final = f"{PLURAL}.tuinly.com"

Undo = Callable[[], None] | None
Strike = Callable[["Faults", "Fault", Replica, NamespacedName], Undo]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: from when on, what, at which phase of whose refresh, for how long.

    `pick` says by a number in [0, 1) whom it strikes, where the phase does not; `arg` how hard.
    """

    number: int
    at: float
    kind: str
    phase: str
    seconds: float
    pick: float
    arg: float

    def __str__(self) -> str:
        return f"{self.at:.1f} {self.kind}{f' when it {self.phase}' if self.phase else ''} for {self.seconds:.1f} s"

    def plain(self) -> dict[str, Any]:
        """As JSON, from which it can be made again."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    `wait` is for how many seconds after its end its effects may last; `most` how long it lasts at most.
    """

    strike: Strike
    wait: float
    most: float


KINDS: dict[str, Kind] = {}


def kind(wait: float, most: float = 60.0) -> Callable[[Strike], Strike]:
    """Declare a kind of fault, by the function that strikes."""

    def declare(strike: Strike) -> Strike:
        KINDS[strike.__name__] = Kind(strike, wait, most)
        return strike

    return declare


def draw(history: "History") -> list[Fault]:
    """Draw which kinds are on, and the faults. Nothing else is drawn from this generator.

    Every third history has all kinds, and is dealt pairs of a kind and a phase in turn: so few of them meet all pairs.
    """
    chance = history.chance("faults")
    turn, dealt = divmod(history.seed, _DEALT_EACH)
    length = chance.choice((600.0, 900.0, 1500.0))
    if dealt == 0:
        most = chance.randrange(8, 40)
        pairs = [_PAIRS[(turn * _DEALT + number) % len(_PAIRS)] for number in range(most)]
    else:
        on = chance.sample(sorted(KINDS), chance.randrange(2, 9))
        count = chance.randrange(1, 8) if chance.random() < 0.4 else chance.randrange(8, 40)
        phases = (chance.choice(PHASES) if chance.random() < 0.6 else "" for _ in range(count))
        pairs = [(chance.choice(on), phase) for phase in phases]
    return [_draw_one(chance, number, *pair, length) for number, pair in enumerate(pairs)]


def _draw_one(chance: Random, number: int, name: str, phase: str, length: float) -> Fault:
    seconds = chance.uniform(0.0, 5.0) if chance.random() < 0.3 else chance.uniform(0.0, KINDS[name].most)
    at, pick, arg = chance.uniform(20.0, length), chance.random(), chance.random()
    return Fault(number, round(at, 3), name, phase, round(seconds, 3), pick, arg)


class Faults:
    """The faults of one history."""

    def __init__(self, history: "History", faults: Sequence[Fault]) -> None:
        """Nothing strikes before `schedule`."""
        self.history = history
        self._faults = faults
        self._armed: list[Fault] = []
        self._undo: dict[int, Callable[[], None]] = {}
        self._over = False
        self.struck: dict[str, int] = {}
        self.pairs: set[str] = set()
        # From when until when something may be otherwise than it should be: at first, all begins.
        self.busy: list[tuple[float, float]] = [(0.0, _BEGINNING)]
        self._open: dict[int, tuple[float, Fault]] = {}
        self._backups: list[Any] = []
        self.touched: dict[NamespacedName, float] = {}  # when people last had to do with a credential
        history.audit.faults = self

    def schedule(self) -> float:
        """Arm each at its time; return when the last has ended."""
        for fault in self._faults:
            self.history.network.later(fault.at, self._arm, fault)
        self.history.network.later(_BACKUP_SECONDS, self._back_up)
        self.history.network.later(_GARBAGE_SECONDS, self._collect_garbage)
        return max((fault.at + fault.seconds for fault in self._faults), default=60.0) + 30.0

    def phase(self, replica: Replica, key: NamespacedName, phase: str) -> None:
        """A phase of a refresh is reached, in this very step."""
        for fault in [fault for fault in self._armed if fault.phase == phase]:
            self._armed.remove(fault)
            self._strike(fault, replica, key)

    def end_all(self) -> None:
        """End what has not ended."""
        self._over = True
        self._armed.clear()
        for number in list(self._undo):
            self._end(number)
        history = self.history
        for machine in history.machines:
            if not any(replica.machine is machine for replica in history.live):
                shard = next(r.shard for r in history.replicas if r.machine is machine)
                history.begin(machine, shard)

    def longest_wait(self) -> float:
        """Seconds from now on until all effects are over."""
        now = self.history.loop.time()
        return max(end - now for _, end in self.busy)

    def is_over(self, seconds: float) -> bool:
        """Whether all effects have been over for so long."""
        return not self._open and self.longest_wait() <= -seconds

    def calm(self, begin: float, end: float, seconds: float) -> bool:
        """Whether nothing was otherwise than it should be for so long between two times of the loop."""
        now = self.history.loop.time()
        open_ones = [(since, now + 1e9) for since, _ in self._open.values()]
        at = begin
        for start, stop in sorted([*self.busy, *open_ones]):
            if min(start, end) - at >= seconds:
                return True
            at = max(at, stop)
        return end - at >= seconds

    def _arm(self, fault: Fault) -> None:
        if self._over:
            return
        if not fault.phase:
            self._strike(fault, None, None)
            return
        self._armed.append(fault)
        self.history.network.later(_PATIENCE, self._strike_anyway, fault)

    def _strike_anyway(self, fault: Fault) -> None:
        if fault in self._armed:
            self._armed.remove(fault)
            self._strike(fault, None, None)

    def _strike(self, fault: Fault, replica: Replica | None, key: NamespacedName | None) -> None:
        history = self.history
        at_phase = fault.phase if replica is not None else "rest"
        live = [each for each in history.live if not each.stopped]
        if replica is None:
            if not live:
                return
            leaders = [each for each in live if each.leads]
            choice = leaders if leaders and fault.pick < 0.7 else live
            replica = choice[int(fault.arg * len(choice))]
        if key is None or key not in history.keys:
            key = history.keys[int(fault.pick * len(history.keys))]
        self.struck[fault.kind] = self.struck.get(fault.kind, 0) + 1
        self.pairs.add(f"{fault.kind} at {at_phase}")
        history.tell("FAULT", fault, replica, key)
        now = history.loop.time()
        self._open[fault.number] = now, fault
        undo = KINDS[fault.kind].strike(self, fault, replica, key)
        self._undo[fault.number] = undo or _nothing
        history.network.later(fault.seconds, self._end, fault.number)

    def _end(self, number: int) -> None:
        if number not in self._undo:
            return
        undo = self._undo.pop(number)
        since, fault = self._open.pop(number)
        undo()
        now = self.history.loop.time()
        wait = KINDS[fault.kind].wait
        self.busy.append((since, now + wait))
        self.history.network.later(wait + SETTLED + 1.0, self.history.audit.look)
        self.history.tell("ends", fault.kind)

    def _back_up(self) -> None:
        if not self._over:
            self._backups = [*self._backups[-3:], self.history.server.back_up()]
            self.history.network.later(_BACKUP_SECONDS, self._back_up)

    def _collect_garbage(self) -> None:
        """As Kubernetes' controller does: what is owned goes once all of its owners have gone."""
        server = self.history.server
        alive = {raw["metadata"]["uid"] for raw in objects(server, CREDENTIALS).values()}
        for key, raw in objects(server, SECRETS).items():
            owners = raw["metadata"].get("ownerReferences") or []
            if owners and all(owner["uid"] not in alive for owner in owners):
                self.history.people.delete(secret_path(key))
        self.history.network.later(_GARBAGE_SECONDS, self._collect_garbage)

    def backup(self, arg: float) -> Any | None:  # noqa: ANN401 -- a Storage
        """One of the last backups."""
        return self._backups[int(arg * len(self._backups))] if self._backups else None

    def spec_of(self, key: NamespacedName) -> dict[str, Any]:
        """The spec of a credential, empty where it is gone."""
        raw = at(self.history.server, CREDENTIALS, key)
        return dict(raw["spec"]) if raw else {}

    def target_of(self, key: NamespacedName) -> NamespacedName:
        """The target that a credential asks for."""
        name = (self.spec_of(key).get("target") or {}).get("name")
        return NamespacedName(key.namespace, name or f"{key.name}-token")


def _nothing() -> None:
    pass


def _drop(values: dict[str, float], name: str) -> None:
    values.pop(name, None)


# --- Replicas ---------------------------------------------------------------------------------------------------------


@kind(wait=75.0)
def crash(f: Faults, _fault: Fault, replica: Replica, _key: NamespacedName) -> Undo:
    """SIGKILL between two steps; another process starts later."""
    if replica.crashed or replica.ended:
        return None
    f.history.crash(replica)
    return lambda: f.history.begin(replica.machine, replica.shard)


@kind(wait=75.0)
def terminate(f: Faults, _fault: Fault, replica: Replica, _key: NamespacedName) -> Undo:
    """SIGTERM; another process starts later."""
    if replica.crashed or replica.ended or replica.stopped:
        return None
    replica.terminate()

    def go_on() -> None:
        if replica.crashed:
            return
        if not replica.ended:
            f.history.crash(replica)
        f.history.begin(replica.machine, replica.shard)

    return go_on


@kind(wait=90.0, most=240.0)
def stop(f: Faults, _fault: Fault, replica: Replica, _key: NamespacedName) -> Undo:
    """SIGSTOP, and SIGCONT later."""
    if replica.stopped or replica.crashed:
        return None
    replica.stopped = True

    def go_on() -> None:
        f.history.loop.resume(replica)
        f.history.audit.leads.went_on(replica)

    return go_on


# --- Networks ---------------------------------------------------------------------------------------------------------


def _way(*names: str, of: str) -> Strike:
    def strike(_f: Faults, _fault: Fault, replica: Replica, _key: NamespacedName) -> Undo:
        ways = [getattr(replica.machine, each) for each in of.split()]

        def add(number: int) -> None:
            for way in ways:
                for name in names:
                    setattr(way, name, getattr(way, name) + number)

        add(1)
        return lambda: add(-1)

    return strike


for _name, _names, _of in (
    ("api_refused", ("refused",), "api"),
    ("api_lost_out", ("lost_out",), "api"),
    ("api_lost_back", ("lost_back",), "api"),
    ("endpoint_refused", ("refused",), "endpoint"),
    ("endpoint_lost_out", ("lost_out",), "endpoint"),
    ("endpoint_lost_back", ("lost_back",), "endpoint"),
    ("both_lost", ("lost_out", "lost_back"), "api endpoint"),
):
    KINDS[_name] = Kind(_way(*_names, of=_of), wait=165.0, most=120.0)


# --- The API server ---------------------------------------------------------------------------------------------------


@kind(wait=90.0, most=90.0)
def api_restart(f: Faults, _fault: Fault, _replica: Replica, _key: NamespacedName) -> Undo:
    """The API server goes, and comes back from its store."""
    network = f.history.network
    network.api_down += 1
    network.break_streams()

    def come_back() -> None:
        network.api_down -= 1
        f.history.server.restart()

    return come_back


def _api_mood(status: int) -> Strike:
    def strike(f: Faults, _fault: Fault, _replica: Replica, _key: NamespacedName) -> Undo:
        moods = f.history.network.api_moods
        moods.append(status)
        return lambda: moods.remove(status)

    return strike


for _status in (429, 500, 503, 403):
    KINDS[f"api_{_status}"] = Kind(_api_mood(_status), wait=150.0, most=60.0)


@kind(wait=150.0)
def api_slow(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """An admission webhook takes its time in one namespace."""
    slow = f.history.network.slow
    slow[key.namespace] = fault.arg * 14.0
    return lambda: _drop(slow, key.namespace)


@kind(wait=360.0, most=120.0)
def role_gone(f: Faults, _fault: Fault, replica: Replica, key: NamespacedName) -> Undo:
    """The operator has no rights any more: in a namespace, where it was given some in each; else in none."""
    refused, where = f.history.network.refused, key.namespace if replica.shard.namespaces else ""
    refused.append(where)
    return lambda: refused.remove(where)


def _refusing(*operations: str) -> Strike:
    def strike(f: Faults, _fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
        def refuse(review: Review) -> Refusal | None:
            concerned = review.kind.plural == SECRETS and review.key.namespace == key.namespace
            if not concerned or review.operation not in operations or "-client" in review.key.name:
                return None
            return Refusal(403, "Forbidden", "exceeded quota")

        admissions = f.history.server.admissions
        admissions.append(refuse)
        return lambda: admissions.remove(refuse)

    return strike


KINDS["quota"] = Kind(_refusing("CREATE"), wait=150.0, most=90.0)
KINDS["admission"] = Kind(_refusing("CREATE", "UPDATE"), wait=150.0, most=90.0)


def _plural(fault: Fault) -> str:
    return SECRETS if fault.arg < 0.5 else PLURAL


@kind(wait=90.0)
def watch_late(_f: Faults, fault: Fault, replica: Replica, _key: NamespacedName) -> Undo:
    """What one kind of watch tells comes late, while the other is in time."""
    late = replica.machine.late
    late[_plural(fault)] = fault.seconds
    return lambda: _drop(late, _plural(fault))


@kind(wait=90.0)
def late_takeover(f: Faults, fault: Fault, replica: Replica, key: NamespacedName) -> Undo:
    """The leader goes (SIGTERM) after a credential was made again, or renamed its target, of which no standby knows."""
    running = [each for each in f.history.live if each.shard is replica.shard and not each.stopped]
    leader = next((each for each in running if each.leads), None)
    raw = at(f.history.server, CREDENTIALS, key)
    if leader is None or raw is None:
        return None
    late = [each.machine.late for each in running if each is not leader]
    for each in late:
        each[PLURAL] = 2 * fault.seconds
    if fault.arg < 0.5:
        f.history.people.delete(credential_path(key))
        f.history.people.make_again(key, raw)
    else:
        f.history.people.change_spec(key, {"target": {"name": f"{key.name}-{fault.number}"}})
    begin_again: list[Callable[[], None] | None] = []

    def end_leader() -> None:
        begin_again.append(terminate(f, fault, leader, key))

    def end() -> None:
        for each in late:
            _drop(each, PLURAL)
        for begin in filter(None, begin_again):
            begin()

    f.history.network.later(fault.seconds / 2, end_leader)
    return end


@kind(wait=660.0, most=200.0)
def watch_deaf(_f: Faults, fault: Fault, replica: Replica, _key: NamespacedName) -> Undo:
    """A watch falls silent, its connection dead, and nobody says so."""
    deaf, plural = replica.machine.deaf, _plural(fault)
    deaf[plural] = deaf.get(plural, 0) + 1

    def hear() -> None:
        deaf[plural] -= 1

    return hear


@kind(wait=60.0)
def watch_cut(f: Faults, _fault: Fault, _replica: Replica, _key: NamespacedName) -> Undo:
    """All watches break off."""
    f.history.network.break_streams()
    return None


@kind(wait=60.0)
def compaction(f: Faults, _fault: Fault, _replica: Replica, _key: NamespacedName) -> Undo:
    """What was is forgotten: watches break off, and cannot go on where they were."""
    f.history.server.compact()
    f.history.network.break_streams()
    return None


@kind(wait=720.0)
def restore(f: Faults, fault: Fault, _replica: Replica, _key: NamespacedName) -> Undo:
    """Etcd is restored from an older backup. Meanwhile there is no API server, as Kubernetes asks for.

    For longer than a lead lasts: else a replica could take a Lease that looks as if nobody had renewed it since it last
    looked, while another one leads by a renewal that is gone.
    """
    backup, network = f.backup(fault.arg), f.history.network
    if backup is None:
        return None
    network.api_down += 1
    network.break_streams()

    def come_back() -> None:
        network.api_down -= 1
        f.history.server.restore(backup)
        f.history.audit.went_back()

    network.later(max(_RESTORE_SECONDS, fault.seconds), come_back)
    return None


@kind(wait=90.0)
def unseen(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """All watches break off right before something changes, as the first thing after what they have told last.

    What was before may be forgotten, too.
    """
    people, target = f.history.people, secret_path(f.target_of(key))
    client, name = f.history.audit.client_of(key), NamespacedName(key.namespace, f"{key.name}-client")

    def change() -> None:
        f.history.network.break_streams()
        match int(fault.arg * 4):
            case 0:
                people.delete(target)
            case 1:
                people.patch(target, {"data": {"access_token": None}})
            case 2 if client is not None:
                people.store_client(name, client.id, f.history.endpoint.rotate(client, keeps=True))
            case _:
                people.change_spec(key, {"scopes": ["orders:read"]})
        if fault.pick < 0.5:
            f.history.server.compact()

    people.patch(secret_path(name), {"metadata": {"labels": {"touched": str(fault.number)}}})
    f.history.network.later(0.1, change)
    return None


# --- The token endpoint -----------------------------------------------------------------------------------------------


def _endpoint_mood(how: str) -> Strike:
    def strike(f: Faults, _fault: Fault, _replica: Replica, _key: NamespacedName) -> Undo:
        moods = f.history.endpoint.moods
        moods.append(how)
        return lambda: moods.remove(how)

    return strike


for _how, _wait in (
    ("500", 150.0),
    ("503", 240.0),
    ("429", 150.0),
    ("302", 150.0),
    ("404", 360.0),
    ("garbage", 150.0),
    ("hang", 165.0),
):
    KINDS[f"endpoint_{_how}"] = Kind(_endpoint_mood(_how), wait=_wait, most=120.0)


@kind(wait=360.0)
def client_fails(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """One client is refused, for no reason that its tenant knows of."""
    client = f.history.audit.client_of(key)
    if client is None or client.fails is not None:
        return None
    client.fails = ("401", "429", "500", "302", "hang")[int(fault.arg * 5)]

    def forgive() -> None:
        client.fails = None

    return forgive


@kind(wait=360.0, most=400.0)
def shorter(f: Faults, _fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """A client's tokens live for a quarter of their time, so that a new one may end before the one that it replaces."""
    client = f.history.audit.client_of(key)
    if client is None:
        return None
    before = client.lifetime
    client.lifetime = before // 4

    def lengthen() -> None:
        client.lifetime = max(client.lifetime, before)

    return lengthen


@kind(wait=360.0, most=400.0)
def narrower(f: Faults, _fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """A client gets fewer scopes than it asks for."""
    client = f.history.audit.client_of(key)
    if client is None or client.narrows:
        return None
    client.narrows = True

    def widen() -> None:
        client.narrows = False

    return widen


@kind(wait=150.0)
def graphql_refuses(f: Faults, _fault: Fault, _replica: Replica, _key: NamespacedName) -> Undo:
    """The GraphQL endpoint refuses all tokens, so that no new one passes its verification."""
    endpoint = f.history.endpoint
    endpoint.distrusts += 1

    def trust() -> None:
        endpoint.distrusts -= 1

    return trust


# --- Clocks -----------------------------------------------------------------------------------------------------------


@kind(wait=360.0, most=120.0)
def clock_jump(f: Faults, fault: Fault, replica: Replica, _key: NamespacedName) -> Undo:
    """A wall clock is set wrong, and right later; meanwhile it may drift as well."""
    clock = f.history.clocks[replica.machine.name]
    before = clock.ahead
    by = (fault.arg - 0.5) * (20.0 if fault.pick < 0.5 else 600.0)
    clock.set_wall(before + by, (fault.pick - 0.5) * 0.02)
    return lambda: clock.set_wall(max(-3.0, min(3.0, before)))


# --- People -----------------------------------------------------------------------------------------------------------


@kind(wait=60.0)
def rotate(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """The client's secret is another one; the Secret says so at once, or a little later."""
    client = f.history.audit.client_of(key)
    if client is None:
        return None
    secret = f.history.endpoint.rotate(client, keeps=fault.arg < 0.5)
    name = NamespacedName(key.namespace, f"{key.name}-client")
    return lambda: f.history.people.store_client(name, client.id, secret)


@kind(wait=360.0)
def spoil_client(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """The client Secret holds nonsense, or is gone, for a while."""
    people, name = f.history.people, NamespacedName(key.namespace, f"{key.name}-client")
    client = f.history.audit.client_of(key)
    if client is None:
        return None
    match int(fault.arg * 3):
        case 0:
            people.delete(secret_path(name))
        case 1:
            people.store_client(name, client.id, "a secret\nof two lines")
        case _:
            people.store_client(name, client.id, f"{CANARY}-wrong")
    return lambda: people.store_client(name, client.id, client.secrets[0])


@kind(wait=90.0)
def edit_target(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """Somebody edits the target."""
    path, people = secret_path(f.target_of(key)), f.history.people
    match int(fault.arg * 4):
        case 0:
            people.patch(path, {"data": {"access_token": "bm9uc2Vuc2U="}})
        case 1:
            people.patch(path, {"data": {"access_token": None}})
        case 2:
            people.patch(path, {"metadata": {"annotations": {"tuinly.com/expires-at": "2100-01-01T00:00:00Z"}}})
        case _:
            people.patch(path, {"metadata": {"labels": {"team": "blue"}}, "data": {"more": "bW9yZQ=="}})
    return None


@kind(wait=90.0)
def delete_target(f: Faults, _fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """Somebody deletes the target."""
    f.history.people.delete(secret_path(f.target_of(key)))
    return None


@kind(wait=150.0)
def freeze_target(f: Faults, _fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """Somebody makes the target immutable, and deletes it later, as the status asks."""
    path, people = secret_path(f.target_of(key)), f.history.people
    people.patch(path, {"immutable": True})
    return lambda: people.delete(path)


@kind(wait=150.0)
def hold_target(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """A finalizer holds the target, and it is deleted."""
    path, people = secret_path(f.target_of(key)), f.history.people
    people.patch(path, {"metadata": {"finalizers": ["example.com/hold"]}})
    if fault.arg < 0.7:
        people.delete(path)
    return lambda: people.patch(path, {"metadata": {"finalizers": None}})


@kind(wait=90.0)
def copy_target(f: Faults, _fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """Somebody copies the target."""
    f.history.people.copy(f.target_of(key), f"{key.name}-copy")
    return lambda: f.history.people.delete(secret_path(NamespacedName(key.namespace, f"{key.name}-copy")))


@kind(wait=360.0)
def foreign_target(f: Faults, _fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """Somebody's own Secret bears the target's name."""
    target, people = f.target_of(key), f.history.people
    people.delete(secret_path(target))
    body = {"metadata": {"name": target.name}, "data": {"mine": "bWluZQ=="}}
    people.ask("POST", f"/api/v1/namespaces/{target.namespace}/secrets", body)

    def take_away() -> None:
        raw = at(f.history.server, SECRETS, target)
        if raw is not None and "mine" in (raw.get("data") or {}):
            people.delete(secret_path(target))

    return take_away


@kind(wait=90.0)
def recreate(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """A credential is deleted, and made anew, at once or later."""
    raw = at(f.history.server, CREDENTIALS, key)
    if raw is None:
        return None
    f.history.people.delete(credential_path(key))

    def make_again() -> None:
        f.history.people.make_again(key, raw)

    if fault.arg < 0.3:
        make_again()
        return None
    return make_again


@kind(wait=90.0)
def orphan(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """A credential is deleted, and its target left to itself (`--cascade=orphan`); then it is made anew."""
    raw, people, path = at(f.history.server, CREDENTIALS, key), f.history.people, credential_path(key)
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None
    people.delete(path, propagation="Orphan")

    def is_going() -> bool:
        now = at(f.history.server, CREDENTIALS, key)  # a backup may have brought it back
        meta = now["metadata"] if now else {}
        return meta.get("uid") == raw["metadata"]["uid"] and "deletionTimestamp" in meta

    def take_owner_off() -> None:
        if not is_going():
            return
        for where, secret in objects(f.history.server, SECRETS).items():
            owners = secret["metadata"].get("ownerReferences") or []
            kept = [owner for owner in owners if owner["uid"] != raw["metadata"]["uid"]]
            if kept != owners:
                people.patch(secret_path(where), {"metadata": {"ownerReferences": kept}})
                f.history.audit.let_go(where, raw["metadata"]["uid"])

    def make_again() -> None:
        take_owner_off()
        if is_going():
            people.patch(path, {"metadata": {"finalizers": None}})
        people.make_again(key, raw)

    f.history.network.later(fault.arg, take_owner_off)
    return make_again


@kind(wait=90.0)
def hold_credential(f: Faults, _fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """A credential is deleted, but held by a finalizer for a while; then it is made anew."""
    raw, people, path = at(f.history.server, CREDENTIALS, key), f.history.people, credential_path(key)
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None
    people.patch(path, {"metadata": {"finalizers": ["example.com/hold"]}})
    people.delete(path)

    def let_go() -> None:
        people.patch(path, {"metadata": {"finalizers": None}})
        people.make_again(key, raw)

    return let_go


def _change(changes: Callable[["Faults", Fault, NamespacedName], dict[str, Any]], *, back: bool = True) -> Strike:
    """A change of the spec, which may be taken back."""

    def strike(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
        before = f.spec_of(key)
        if not before:
            return None
        change = changes(f, fault, key)
        f.history.people.change_spec(key, change)
        if not back:
            return None
        return lambda: f.history.people.set_spec(key, {name: before.get(name) for name in change})

    return strike


_CHANGES: dict[str, tuple[Callable[[Faults, Fault, NamespacedName], dict[str, Any]], bool, float]] = {
    "suspend": (lambda *_: {"suspend": True}, True, 90.0),
    "other_scopes": (
        lambda _f, fault, _k: {"scopes": ["orders:read"] if fault.arg < 0.5 else ["stock:read"]},
        True,
        90.0,
    ),
    "other_url": (lambda *_: {"tokenURL": OTHER_URL}, True, 90.0),
    "bad_url": (lambda *_: {"tokenURL": "https://evil.example.net/token"}, True, 90.0),
    "bad_scope": (lambda *_: {"scopes": ["everything"]}, True, 360.0),
    "push": (lambda *_: {"delivery": {"pods": "Push"}}, True, 90.0),
    "other_grant": (
        lambda _f, fault, _k: {"refresh": {"grant": "RefreshToken" if fault.arg < 0.5 else "ClientCredentials"}},
        False,
        90.0,
    ),
    "other_lead": (lambda _f, fault, _k: {"refresh": {"beforePercentage": 10 + int(fault.arg * 40)}}, False, 90.0),
    "verify": (
        lambda _f, fault, _k: {"verification": {"mode": "Enabled" if fault.arg < 0.5 else "Disabled"}},
        False,
        150.0,
    ),
    "retain": (
        lambda _f, fault, _k: {"target": {"deletionPolicy": "Retain" if fault.arg < 0.5 else "Delete"}},
        False,
        90.0,
    ),
    "rename_target": (
        lambda _f, fault, key: {"target": {"name": f"{key.name}-other{int(fault.arg * 3)}"}},
        False,
        90.0,
    ),
    "template": (lambda *_: {"target": {"template": {"data": {"env": "TOKEN=${access_token}"}}}}, True, 150.0),
}
for _name, (_changes, _back, _wait) in _CHANGES.items():
    KINDS[_name] = Kind(_change(_changes, back=_back), wait=_wait, most=90.0)


# Specs that the rules of the definition refuse: below the spec, and, the last one, at the root of the object.
_WRONG: Final[tuple[Callable[[NamespacedName], dict[str, Any]], ...]] = (
    lambda _: {"target": {"template": {"data": {"env": "${nonsense}"}}}},
    lambda _: {"refresh": {"before": "20m", "beforePercentage": 20}},
    lambda _: {"scopes": ["orders:read stock:read"]},
    lambda _: {"clientSecretRef": {"clientIDKey": "client_secret"}},
    lambda key: {"target": {"name": f"{key.name}-client"}},
)


@kind(wait=150.0, most=90.0)
def older_definition(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """A spec that would be refused was stored under an older definition, without rules; people mend it later."""
    server, before = f.history.server, f.spec_of(key)
    present = server.kinds.get((f"/apis/{GROUP}/{VERSION}", PLURAL))
    if not before or present is None:
        return None
    change = _WRONG[int(fault.arg * len(_WRONG))](key)
    server.serve(replace(present, validate=lambda _new, _old: []))
    f.history.people.change_spec(key, change)
    server.serve(present)
    return lambda: f.history.people.set_spec(key, {name: before.get(name) for name in change})


@kind(wait=360.0)
def swap_targets(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """Two credentials of one namespace swap their targets."""
    others = [each for each in f.history.keys if each.namespace == key.namespace and each != key]
    if not others:
        return None
    other = others[int(fault.arg * len(others))]
    mine, theirs = f.target_of(key).name, f.target_of(other).name
    people = f.history.people
    people.change_spec(key, {"target": {"name": theirs}})
    people.change_spec(other, {"target": {"name": mine}})

    def swap_back() -> None:
        people.change_spec(key, {"target": {"name": mine}})
        people.change_spec(other, {"target": {"name": theirs}})

    return swap_back


@kind(wait=90.0)
def move_label(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """A credential goes to another shard, where there are two."""
    shards = f.history.shards
    f.history.people.label(key, {SHARD: shards[int(fault.arg * len(shards))].name})
    return None


@kind(wait=360.0)
def delete_namespace(f: Faults, fault: Fault, replica: Replica, key: NamespacedName) -> Undo:
    """A namespace is deleted with all that is in it, its Role as well, and made anew later with what it had."""
    history, namespace = f.history, key.namespace
    roles = [namespace] if replica.shard.namespaces else []
    credentials = {
        each: raw for each, raw in objects(history.server, CREDENTIALS).items() if each.namespace == namespace
    }
    clients = {
        each: at(history.server, SECRETS, NamespacedName(namespace, f"{each.name}-client")) for each in credentials
    }
    history.people.delete(f"/api/v1/namespaces/{namespace}")

    def empty() -> None:
        for resource in (SECRETS, CREDENTIALS, "events.events.k8s.io"):
            for each in objects(history.server, resource):
                if each.namespace == namespace:
                    history.server.storage.delete(Key(resource, namespace, each.name))
        history.network.changed()

    history.network.refused += roles
    history.network.later(fault.arg * 10.0, empty)

    def make_again() -> None:
        for role in roles:
            history.network.refused.remove(role)
        empty()
        place = Key("namespaces", "", namespace)
        if place in history.server.storage.objects:
            history.server.storage.delete(place)
        history.people.make_namespace(namespace)
        for each, raw in credentials.items():
            if (client := clients[each]) is not None:
                secret = NamespacedName(namespace, f"{each.name}-client")
                history.people.store_client(secret, decoded(client, "client_id"), decoded(client, "client_secret"))
            history.people.make_again(each, raw)

    return make_again


@kind(wait=150.0)
def delete_crd(f: Faults, _fault: Fault, _replica: Replica, _key: NamespacedName) -> Undo:
    """The CRD is deleted, and with it all credentials; later all are applied again."""
    history = f.history
    credentials = objects(history.server, CREDENTIALS)
    found = history.server.kinds.get((f"/apis/{GROUP}/{VERSION}", PLURAL))
    if found is None:
        return None
    history.server.remove(found)
    history.network.changed()

    def apply_again() -> None:
        history.server.serve(found)
        for each, raw in credentials.items():
            history.people.make_again(each, raw)

    return apply_again


@kind(wait=60.0)
def force(f: Faults, fault: Fault, _replica: Replica, key: NamespacedName) -> Undo:
    """Somebody asks for an exchange."""
    f.history.people.force(key, f"{fault.number}")
    return None


@kind(wait=90.0)
def spoil_lease(f: Faults, fault: Fault, replica: Replica, _key: NamespacedName) -> Undo:
    """Somebody edits the Lease."""
    change = (
        {"holderIdentity": None},
        {"holderIdentity": "nobody-knows"},
        {"leaseDurationSeconds": 2},
        {"holderIdentity": None, "leaseDurationSeconds": 1},  # as if its holder had given it up
        {"leaseTransitions": 2**31 - 1},
    )[int(fault.arg * 5)]
    path, version = lease_path(replica.shard.lease), f.history.server.storage.version
    f.history.people.patch(path, {"spec": change})
    if f.history.server.storage.version != version:
        f.history.audit.leads.lease_edited(path)
    return None


@kind(wait=90.0)
def delete_lease(f: Faults, _fault: Fault, replica: Replica, _key: NamespacedName) -> Undo:
    """Somebody deletes the Lease."""
    f.history.people.delete(lease_path(replica.shard.lease))
    return None


# As they are dealt: those of one kind, or of one phase, are not next to each other.
_PAIRS: Final = [(name, phase) for name in sorted(KINDS) for phase in PHASES]
Random("pairs").shuffle(_PAIRS)  # noqa: S311 -- the same each time
