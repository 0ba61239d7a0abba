"""The operator's reconciler in this process: for moments that no other process could be made to meet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.cluster import Cluster
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant
from tuinly_operator.base.chance import Chance
from tuinly_operator.base.clock import Moment, SystemClock
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import Credential
from tuinly_operator.domain.facts import (
    Policy,
)
from tuinly_operator.domain.target import SecretMeta
from tuinly_operator.edges.events import EventSender
from tuinly_operator.edges.kube import Kube, connect
from tuinly_operator.edges.metrics import Metrics
from tuinly_operator.edges.oauth import TokenEndpoint, origin_of
from tuinly_operator.edges.pods import PodDoor
from tuinly_operator.engine.limiter import Limiter
from tuinly_operator.engine.pusher import Pusher
from tuinly_operator.engine.store import Store
from tuinly_operator.engine.timers import Timers
from tuinly_operator.reconciler.reconcile import Reconciler

CONCURRENCY = 20


class ShiftedClock(SystemClock):
    """The machine's clocks, each with some seconds more or less."""

    def __init__(self) -> None:
        self.wall = 0.0
        self.boot = 0.0

    def now(self) -> Moment:
        """Read both clocks."""
        now = super().now()
        return Moment(now.wall + self.wall, now.boot + self.boot)


class Workers:
    """A reconciler without watches and queue: a test shows it what there is, and says when it works.

    Attributes:
        origin: of the sandbox's token URL.
    """

    def __init__(self, kube: Kube, endpoint: TokenEndpoint, token_url: str) -> None:
        """Nothing is asked yet."""
        self.clock = ShiftedClock()
        self.limiter = Limiter(CONCURRENCY, lambda _: None)
        self.origin = origin_of(token_url)
        self._store = Store(changed=lambda _: None, gone=lambda _: None)
        urls = frozenset({token_url})
        self._reconciler = Reconciler(
            store=self._store,
            kube=kube,
            endpoint=endpoint,
            limiter=self.limiter,
            timers=Timers(self.clock, lambda _: None),
            events=EventSender(kube, self.clock, "tests"),
            metrics=Metrics(self.clock),
            pusher=Pusher(
                PodDoor(kube),
                self.clock,
                Chance(),
                rate=20,
                shown=lambda _, __: True,
                came=lambda _, __: None,
                count=lambda _, __: None,
            ),
            policy=Policy(token_url, token_url, urls, urls, min_interval=0.01),
            clock=self.clock,
            chance=Chance(),
            requeue=lambda _: None,
            caught_up=lambda _: None,
        )

    def see(self, tenant: Tenant) -> NamespacedName:
        """Take in a credential and its client Secret, as the watches do; return its key."""
        credential = Credential.from_object(tenant.credential())
        secret = SecretMeta.from_object(tenant.objects.get("Secret", tenant.client_secret_name))
        self._store.secret_seen(credential.client_secret, secret)
        self._store.credential_seen(credential)
        return credential.key

    async def reconcile(self, *keys: NamespacedName) -> None:
        """Reconcile all of them at once."""
        await asyncio.gather(*map(self._reconciler.reconcile, keys))


@asynccontextmanager
async def hired(cluster: Cluster, sandbox: SandboxProcess) -> AsyncIterator[Workers]:
    """Return workers who are connected to the cluster and to the sandbox, over HTTP."""
    kube = await connect(cluster.kubeconfig)
    endpoint = TokenEndpoint(SystemClock(), ca_bundle=None, request_timeout=5, connections=CONCURRENCY)
    try:
        yield Workers(kube, endpoint, sandbox.token_url)
    finally:
        await endpoint.aclose()
        await kube.close()
