"""Who leads: judged in the step that sends what only a leader may, and at each write of a Lease."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from tests.simulation.replica import Replica

if TYPE_CHECKING:
    from tests.simulation.history import History

Json = Mapping[str, Any]
PATIENCE: Final = 14.8  # seconds after the last change of a Lease that others let pass: 15, by a drifting clock
UNDER_WAY: Final = 20.0  # seconds after its lead's end in which a replica may still be at what it had begun


class Leads:
    """Looks on who acts, and by which lead."""

    def __init__(self, history: "History", broken: Callable[[str], None]) -> None:
        """`broken` is told each rule that was broken."""
        self._history = history
        self._broken = broken
        self._led: dict[Replica, float] = {}  # when a replica last led, or went on after it was stopped
        self._acts: dict[str, tuple[Replica, int]] = {}  # by shard: who last did what only a leader may, in which lead
        self._refresh_tokens: dict[str, tuple[Replica, int]] = {}  # who was given one, in which lead
        self._leases: dict[str, float] = {}  # when each was last changed, by its path
        self._given_up: set[str] = set()  # Leases that their holders gave up

    def went_on(self, replica: Replica) -> None:
        """A replica that was stopped goes on."""
        self._led[replica] = self._history.loop.time()

    def went_back(self) -> None:
        """The storage went back to a backup: how old a Lease is cannot be told any more, nor who led since.

        A replica may find its Lease as it left it, and the targets, too, so what it remembers is of use again.
        """
        self._leases.clear()
        self._given_up.clear()
        self._refresh_tokens.clear()

    def sends(self, sender: Replica, method: str, path: str) -> None:
        """Judge a request to the API server: who stands by watches, and reads no Secret by its name."""
        now = self._history.loop.time()
        if sender.leads:
            self._led[sender] = now
        reads = method == "GET" and "/secrets/" in path
        if reads and now - self._led.get(sender, float("-inf")) > UNDER_WAY:
            self._broken(f"{sender} does not lead, and reads {path}")

    def acts(self, sender: Replica, what: str, seconds: float) -> None:
        """Judge what only a leader may do, and only if its lead lasts for `seconds` more."""
        if not sender.leadership.holds(seconds):
            self._broken(f"{sender} sends after its lead's end: {what}")
        for other in self._history.live:
            if other is not sender and other.shard is sender.shard and other.leads:
                self._broken(f"{sender} sends while {other} leads, too: {what}")
        last, leadership = self._acts.get(sender.shard.name, (sender, 0))
        self._acts[sender.shard.name] = sender, leadership if last is sender else leadership + 1

    # --- Refresh tokens -----------------------------------------------------------------------------------------------

    def asks(self, sender: Replica, body: bytes) -> None:
        """Judge a token request: a new leader knows nothing of an earlier lead, also where that was its own."""
        for value in parse_qs(body.decode()).get("refresh_token", ()):
            given = self._refresh_tokens.get(value)
            if given is not None and given != self._acts[sender.shard.name]:
                self._broken(f"{sender} sends a refresh token of an earlier lead")

    def given(self, sender: Replica, refresh_token: str) -> None:
        """A refresh token was given to a replica."""
        self._refresh_tokens[refresh_token] = self._acts[sender.shard.name]

    # --- Leases -------------------------------------------------------------------------------------------------------

    def lease_edited(self, path: str) -> None:
        """Somebody who is no replica has changed a Lease."""
        self._leases[path] = self._history.loop.time()
        self._given_up.discard(path)

    def lease_written(self, sender: Replica, path: str, before: Json | None, after: Json) -> None:
        """Judge a write of a Lease: nobody takes what another one holds, or may still hold."""
        now = self._history.loop.time()
        age, self._leases[path] = now - self._leases.get(path, float("-inf")), now
        free = path in self._given_up
        (self._given_up.add if _released(after) else self._given_up.discard)(path)
        if before is None or age >= PATIENCE or free:
            return
        holder, new = _holder(before), _holder(after)
        led = now - self._led.get(sender, float("-inf")) < PATIENCE  # and so writes over an edit
        if new not in ("", holder) and (holder or not led):
            self._broken(f"{sender} takes a Lease that {holder or 'nobody'} held, {age:.1f} s after its last change")


def _holder(lease: Json) -> str:
    return lease["spec"].get("holderIdentity") or ""


def _released(lease: Json) -> bool:
    return not _holder(lease) and lease["spec"].get("leaseDurationSeconds") == 1
