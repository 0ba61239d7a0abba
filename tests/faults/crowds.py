"""Crowds of credentials with one client each, and how late they are, as it shows in their targets from outside."""

import base64
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.objects import Json, Objects
from tests.support.sandbox import Client, Fault, SandboxAdmin
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.target import SecretMeta

LIFETIME = 90.0
"""Seconds: due after 40 to 45."""
_POLL_SECONDS = 15.0

BAD = {
    "500": Fault(kind="fail"),
    "503": Fault(kind="throttle", status=503, retry_after=300),
    "429": Fault(kind="throttle"),
    "302": Fault(kind="fail", status=302),
    "404": Fault(kind="fail", status=404),
    "401": Fault(kind="fail", status=401),
    "garbage": Fault(kind="answer", answer="not_json"),
    "hang": Fault(kind="hang", seconds=30),
}
"""What a bad client is always answered."""


class Crowd:
    """So many credentials of one client, in a namespace.

    Attributes:
        client: the client's id.
        names: of the credentials.
        fault: the number by which ends what it has been answered from its start on.
    """

    def __init__(
        self, objects: Objects, admin: SandboxAdmin, name: str, count: int, lifetime: float = LIFETIME
    ) -> None:
        """Nothing is made yet."""
        self.objects, self.admin, self.lifetime = objects, admin, lifetime
        self.client = f"{objects.namespace}-{name}"
        self.names = [f"{name}-{number}" for number in range(count)]
        self.fault: int | None = None
        self._name = name

    def start(self, spec: Json | None = None, fault: Fault | None = None, spread: float = 0.0) -> "Crowd":
        """Register the client, with what it is always answered, and make all of them, over so many seconds."""
        client = Client(id=self.client, secret=secrets.token_urlsafe(12), lifetime=self.lifetime)
        self.admin.add_client(client)
        if fault is not None:
            self.fault = self.answer(fault)
        secret = {"client_id": client.id, "client_secret": client.secret}
        meta = {"name": f"{self._name}-client"}
        self.objects.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": secret})
        self.make(self.names, spec, spread)
        return self

    def make(self, names: Sequence[str], spec: Json | None = None, spread: float = 0.0) -> None:
        """Make some of them, over so many seconds."""
        wanted = {"clientSecretRef": {"name": f"{self._name}-client"}, **(spec or {})}
        manifests: list[Json] = [
            {
                "apiVersion": "tuinly.com/v1alpha1",
                "kind": "TuinlyCredential",
                "metadata": {"name": name},
                "spec": wanted,
            }
            for name in names
        ]
        start = time.monotonic()

        def make(number: int) -> None:
            time.sleep(max(0.0, start + spread * number / len(names) - time.monotonic()))
            self.objects.apply(manifests[number])

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(make, range(len(names))))

    def make_again(self, names: Sequence[str]) -> None:
        """Delete some of them, and make them again."""
        for name in names:
            self.objects.delete("TuinlyCredential", name)
        self.make(names)

    def edit_secret(self) -> None:
        """Give the client Secret another content."""
        data = {"client_secret": base64.b64encode(secrets.token_bytes(9).hex().encode()).decode()}
        self.objects.merge("Secret", f"{self._name}-client", {"data": data})

    def force(self, names: Sequence[str]) -> None:
        """Ask for exchanges, as users do."""
        patch = {"metadata": {"annotations": {"tuinly.com/refresh-requested": str(time.time())}}}
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda name: self.objects.merge("TuinlyCredential", name, patch), names))

    def answer(self, fault: Fault) -> int:
        """Have the sandbox answer its client so; return the number by which that ends."""
        return self.admin.fault(Fault(**{**vars(fault), "client": self.client}))

    def tokens(self) -> int:
        """How many tokens its client has got."""
        return self.admin.counts(self.client)["tokens"]

    def requests(self) -> int:
        """How many token requests its client has made."""
        return self.admin.counts(self.client)["requests"]


@dataclass
class Watched:
    """What was seen of the targets of some credentials. Times are in seconds since the epoch."""

    crowds: Sequence[Crowd]
    late: list[float] = field(default_factory=list)
    expired: float = 0.0
    since: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self._seen: dict[NamespacedName, tuple[int, int, int]] = {}
        self._names = {
            NamespacedName(crowd.objects.namespace, f"{name}-token") for crowd in self.crowds for name in crowd.names
        }

    def start(self) -> None:
        """Count from now on."""
        self.late, self.expired, self.since = [], 0.0, time.time()

    def look(self) -> list[float]:
        """Look at all targets; return by how much each is late at this moment."""
        late_now = []
        for objects in {crowd.objects.namespace: crowd.objects for crowd in self.crowds}.values():
            for raw in objects.all("Secret"):
                key = NamespacedName(objects.namespace, raw["metadata"]["name"])
                target = SecretMeta.from_object(raw).target
                if key not in self._names or target is None or target.state is None:
                    continue
                now = (target.state.issued_at, target.state.expires_at, target.state.next_refresh)
                before = self._seen.get(key)
                if before is not None and before != now:
                    self.late.append(max(0.0, now[0] - max(before[2], self.since)))
                    self.expired += max(0.0, now[0] - max(before[1], self.since))
                self._seen[key] = now
                late_now.append(max(0.0, time.time() - max(now[2], self.since)))
        return late_now

    def end(self) -> None:
        """Count those that are late or expired by now, too."""
        self.late += self.look()
        self.expired += sum(max(0.0, time.time() - max(end, self.since)) for _, end, _ in self._seen.values())

    @property
    def worst(self) -> float:
        """Seconds by which the latest refresh was late."""
        return max(self.late, default=0.0)

    @property
    def p99(self) -> float:
        """The same, for the 99th percentile."""
        late = sorted(self.late)
        return late[int(len(late) * 0.99)] if late else 0.0


@contextmanager
def watched(*crowds: Crowd) -> Iterator[Watched]:
    """Watch the targets of crowds for as long as the context lasts: no token lives shorter than two looks are apart."""
    seen, stop = Watched(crowds), threading.Event()

    def watch() -> None:
        while not stop.wait(_POLL_SECONDS):
            seen.look()

    seen.look()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
        seen.end()
