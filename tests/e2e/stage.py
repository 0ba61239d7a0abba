"""The stage of the end-to-end tests: a node, the operator from its image, the sandbox, and programs that call it."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import trustme

from tests.e2e import kinds
from tests.support import crd, manifests
from tests.support.helm import CHART, Helm
from tests.support.image import Image
from tests.support.installed import LEASE, NAME, WAIT, Installed, lease_holder
from tests.support.manifests import SANDBOX, SHOP, SYSTEM
from tests.support.node import AnyNode
from tests.support.objects import Objects
from tests.support.sandbox import SandboxAdmin
from tests.support.tenant import Tenant, seconds_of
from tests.support.waiting import wait_until

Json = dict[str, Any]

LIFETIME = 240
"""Seconds that a token lives: the shortest life that bears the kubelet's own delay, by the README's promise."""
CALLERS = 12
PUSHED_LIFETIME = 120
"""The same for credentials that ask for Push: so short that the kubelet alone would be too late. The lead is half of
it, which outlasts each of the faults."""
PUSHED_CALLERS = 4


class Figures:
    """What was measured, in the order in which it was; printed at the end."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self.lines: list[str] = []

    def add(self, what: str, value: str) -> None:
        """Note a figure."""
        self.lines.append(f"{what}: {value}")


class LeaseWatch:
    """Who holds the Lease, looked at twenty times a second: what an admin would see as the time without a leader."""

    def __init__(self, node: AnyNode) -> None:
        """Begin to look."""
        self.seen: list[tuple[float, str]] = []
        """When the holder was first seen to be this one; empty for nobody."""
        self._objects = Objects(node, SYSTEM)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ending.set()
        self._thread.join()
        self._objects.close()

    def await_other(self, than: str, since: float) -> float:
        """Return how many seconds after `since` another Pod, or the same one started again, was seen to hold it."""

        def found() -> float | None:
            return next((at for at, holder in self.seen if at > since and holder not in {"", than}), None)

        at = wait_until(found, what=f"another leader than {than}", seconds=WAIT)
        assert at is not None
        return at - since

    def gap(self, since: float) -> float:
        """Return for how many seconds since then nobody held it, as far as the Lease itself says."""
        seen = [*self.seen, (time.time(), "")]
        return sum(
            after - max(at, since)
            for (at, holder), (after, _) in itertools.pairwise(seen)
            if not holder and after > since
        )

    def _look(self) -> None:
        while not self._ending.wait(0.05):
            try:
                holder, _ = lease_holder(self._objects.read(LEASE))
            except Exception:  # noqa: BLE001, S112 -- the API server may be away: a fault of ours
                continue
            if not self.seen or self.seen[-1][1] != holder:
                self.seen.append((time.time(), holder))


@dataclass(frozen=True)
class Told:
    """What a calling program said.

    Attributes:
        calls, refused, failed: how many there were; those that failed had no answer.
        tokens: when each token was first seen in the file, and when it expires, in seconds of `time.time`.
        refusals: what it said of those that were refused.
    """

    calls: int
    refused: int
    failed: int
    tokens: list[tuple[float, float]]
    refusals: list[Json]


class Stage(Installed):
    """All of it, up and ready.

    Attributes:
        figures: what was measured.
        leases: who led when.
        plain, pushed: the credentials whose tokens the kubelet finds by itself, and those that ask for Push.
        tenants: all of them, each with a program that uses its token.
    """

    def __init__(self, node: AnyNode, image: Image, helm: Helm, figures: Figures) -> None:
        """Install operator and sandbox, and credentials with a program each; wait until all call."""
        super().__init__(node)
        self.figures = figures
        self._helm = helm
        node.load(image.archive)
        certificates = trustme.CA()
        self.apply(*manifests.sandbox(certificates))
        self.apply(manifests.namespace(SYSTEM), manifests.namespace(SHOP))
        self.apply(*manifests.authority(certificates, (SYSTEM, SHOP)))
        self.await_deployment(SANDBOX, "tuinly")
        self.install_chart()
        crd.wait_until_served(node)
        address = self.get("service", "tuinly", SANDBOX)["spec"]["clusterIP"]
        self.sandbox = SandboxAdmin(f"http://{address}:8081")
        self.shop = Objects(node, SHOP)
        self.leases = LeaseWatch(node)
        try:
            self.leader()
            self._start_callers()
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Look at nothing any more."""
        self.leases.end()
        self.shop.close()

    # What an admin does -----------------------------------------------------------------------------------------------

    def install_chart(self, *options: str) -> None:
        """Install the chart, and wait until both replicas are ready."""
        begun = time.time()
        install = ("install", NAME, str(CHART), "--namespace", SYSTEM, *options)
        self._helm.run(*install, values=manifests.chart_values())
        self.await_two_ready()
        self.figures.add("both replicas ready, after helm install", f"{time.time() - begun:.1f} s")

    def test_chart(self) -> None:
        """Run the chart's own test, a Pod that asks the operator how it is."""
        self._helm.run("test", NAME, "--namespace", SYSTEM, "--logs")

    def uninstall_chart(self) -> None:
        """Uninstall the chart, and wait until all of its Pods are gone."""
        self._helm.run("uninstall", NAME, "--namespace", SYSTEM)
        labelled = ("-n", SYSTEM, "-l", f"app.kubernetes.io/name={NAME}")
        wait_until(
            lambda: not self.node.kubectl("get", "pods", *labelled, "-o", "name"), what="no Pod is left", seconds=WAIT
        )

    def install_files(self) -> None:
        """Apply the plain files, and wait until both replicas are ready."""
        begun = time.time()
        self.apply(*manifests.installation())
        self.await_two_ready()
        self.figures.add("both replicas ready, after kubectl apply", f"{time.time() - begun:.1f} s")

    # What it uses -----------------------------------------------------------------------------------------------------

    def start_kinds(self) -> dict[str, Tenant]:
        """Start a Pod with each usual way to get a Secret; return the credentials behind them."""
        names = (kinds.NAME, f"{kinds.NAME}-late")
        tenants = {name: Tenant(self.shop, self.sandbox, name) for name in names}
        tenants[kinds.NAME].start(lifetime=kinds.LIFETIME).await_ready(WAIT)
        self.apply(kinds.pod(), kinds.waiting_pod(), kinds.cron_job())
        return tenants

    def _start_callers(self) -> None:
        self.plain = [Tenant(self.shop, self.sandbox, f"caller-{number}") for number in range(CALLERS)]
        self.pushed = [Tenant(self.shop, self.sandbox, f"pushed-{number}") for number in range(PUSHED_CALLERS)]
        self.tenants = [*self.plain, *self.pushed]
        begun = time.time()
        for tenant in self.plain:
            tenant.start(lifetime=LIFETIME)
        for tenant in self.pushed:
            tenant.start({"delivery": {"pods": "Push"}}, lifetime=PUSHED_LIFETIME)
        self.tenants[0].await_ready(WAIT)
        self.figures.add("the first credential ready, after it was applied", f"{time.time() - begun:.1f} s")
        for tenant in self.tenants:
            tenant.await_ready(WAIT)
        self.apply(*(manifests.caller(tenant.name) for tenant in self.tenants))
        wait_until(lambda: all(told.tokens for told in self.told().values()), what="all programs call", seconds=WAIT)

    def events(self, namespace: str, kind: str = "") -> list[Json]:
        """Return the Events of a namespace, of one type or all."""
        items = json.loads(self.node.kubectl("get", "events", "-n", namespace, "-o", "json"))["items"]
        return [each for each in items if kind in {"", each["type"]}]

    def nothing_is_due(self) -> bool:
        """Whether each token has been replaced that is to be: those that are due again are due from now on."""
        due = [seconds_of(tenant.target().notes["next-refresh"]) for tenant in self.tenants]
        return min(due) > time.time()

    def all_is_pushed(self) -> bool:
        """Whether each Pod that is pushed to has the token of its target."""
        told = {tenant.name: self._told(tenant.name) for tenant in self.pushed}
        present = {tenant.name: seconds_of(tenant.target().data["expires_at"]) for tenant in self.pushed}
        # A kubelet that has just started has no log to show for a moment.
        return all([at for _, at in told[name].tokens[-1:]] == [expires_at] for name, expires_at in present.items())

    def working_sets(self) -> list[float]:
        """Return the working set of each of the operator's containers, in MB, as the kubelet tells it."""
        summary = json.loads(self.node.kubectl("get", "--raw", f"/api/v1/nodes/{self.node.name}/proxy/stats/summary"))
        return [
            container["memory"]["workingSetBytes"] / 1e6
            for pod in summary["pods"]
            if pod["podRef"]["namespace"] == SYSTEM
            for container in pod.get("containers", [])
        ]

    # What the programs say --------------------------------------------------------------------------------------------

    def told(self) -> dict[str, Told]:
        """Return what each calling program has said so far, by its credential's name."""
        return {tenant.name: self._told(tenant.name) for tenant in self.tenants}

    def _told(self, name: str) -> Told:
        text = self.node.kubectl("logs", "-n", SHOP, f"deployment/{name}", check=False)
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        last: Json = next((line for line in reversed(lines) if "calls" in line), {})
        tokens = [
            (line["at"], datetime.fromisoformat(line["expires_at"]).astimezone(UTC).timestamp())
            for line in lines
            if set(line) == {"at", "expires_at"}
        ]
        refusals = [line for line in lines if "calls" not in line and "refused" in line]
        calls, refused, failed = (int(last.get(count, 0)) for count in ("calls", "refused", "failed"))
        return Told(calls, refused, failed, tokens, refusals)


@contextmanager
def standing(node: AnyNode, image: Image, helm: Helm, figures: Figures) -> Iterator[Stage]:
    """Have a stage for as long as the context lasts."""
    stage = Stage(node, image, helm, figures)
    try:
        yield stage
    finally:
        stage.end()
