"""The API server refuses, breaks, loses or forgets single requests: each is made up for, and costs no token request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import StartOperator
from tests.support.cluster import Cluster
from tests.support.objects import Objects, new_namespace
from tests.support.proxy import ApiProxy, Fault
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import wait_until
from tuinly_operator.base.chance import Chance
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import Credential
from tuinly_operator.edges.credential_watch import CredentialWatch
from tuinly_operator.edges.kube import Kube, connect
from tuinly_operator.edges.refusals import Refusals
from tuinly_operator.edges.secret_watch import SecretWatch
from tuinly_operator.engine.store import Store

THROTTLED = Fault(path="", status=429, headers={"Retry-After": "1"}, times=2)
BROKEN = Fault(path="", status=500, times=2)
AWAY = Fault(path="", status=503, times=2)
LATE = Fault(path="", status=504, times=1)
LOST = Fault(path="", lost=True, times=1)
SWALLOWED = Fault(path="", swallowed=True, times=1)

READ = ("GET", "/secrets/{0}-client$")
LOOK = ("GET", "/secrets/{0}-token$")
CONFIRM = ("GET", "/tuinlycredentials/{0}$")
WRITE = ("PATCH", "/secrets/{0}-token")
REPORT = ("PATCH", "/tuinlycredentials/{0}/status")

SCENES: Mapping[str, tuple[tuple[str, str], Fault]] = {
    "read-429": (READ, THROTTLED),
    "read-500": (READ, BROKEN),
    "read-503": (READ, AWAY),
    "look-500": (LOOK, BROKEN),
    "confirm-500": (CONFIRM, BROKEN),
    "write-429": (WRITE, THROTTLED),
    "write-500": (WRITE, BROKEN),
    "write-503": (WRITE, AWAY),
    "write-504": (WRITE, LATE),
    "write-lost": (WRITE, LOST),
    "write-swallowed": (WRITE, SWALLOWED),
    "report-429": (REPORT, THROTTLED),
    "report-500": (REPORT, BROKEN),
    "report-lost": (REPORT, LOST),
}

# Whatever the operator lists or watches first.
AT_START = tuple(
    replace(fault, path=rf"/{plural}\?.*{kind}", times=1)
    for plural in ("secrets", "tuinlycredentials")
    for kind in ("limit=", "watch=true")
    for fault in (THROTTLED, BROKEN, AWAY)
)


@pytest.fixture(scope="module")
def tenants(
    cluster: Cluster,
    sandbox: SandboxProcess,
    make_operator: StartOperator,
    operator_login: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, Tenant]]:
    """Return a tenant per scene, all of them started; the faults meet each one's own requests."""
    with (
        new_namespace(cluster) as namespace,
        ApiProxy(cluster.server, cluster.ca_file, tmp_path_factory.mktemp("proxy")) as proxy,
    ):
        for fault in AT_START:
            proxy.fault(fault)
        for name, ((method, path), fault) in SCENES.items():
            proxy.fault(replace(fault, method=method, path=path.format(name)))
        with make_operator(kubeconfig=proxy.kubeconfig(operator_login)) as operator:
            operator.wait_ready()
            objects = Objects(cluster, namespace)
            yield {name: Tenant(objects, sandbox.admin, name).start() for name in SCENES}
            assert not operator.ended
            assert not [line for line in operator.logs() if "exc" in line]


@pytest.mark.rule("WRITE-4")
@pytest.mark.parametrize("name", SCENES)
def test_what_failed_is_done_again_but_not_the_token_request(tenants: Mapping[str, Tenant], name: str) -> None:
    """The token waits in memory."""
    tenant = tenants[name]
    target = tenant.await_ready()
    assert [token.value for token in tenant.tokens()] == [target.token]
    assert len(tenant.requests()) == 1
    assert tenant.status()["tokenExpirationTime"] == target.notes["expires-at"]


SILENCE = 1.0
"""Seconds without a word after which a watch is given up here; 75 s is what users get."""


@pytest.fixture
def proxy(cluster: Cluster, tmp_path: Path) -> Iterator[ApiProxy]:
    """Return a proxy before the API server."""
    with ApiProxy(cluster.server, cluster.ca_file, tmp_path) as running:
        yield running


@asynccontextmanager
async def connected(proxy: ApiProxy, login: Path) -> AsyncIterator[Kube]:
    """Connect as the operator does, but with little patience."""
    kube = await connect(proxy.kubeconfig(login), silence=SILENCE)
    try:
        yield kube
    finally:
        proxy.cut()  # who ends TLS politely waits for the other side, and that may have been silenced
        await kube.close()


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run something in the background."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def come_true(condition: Callable[[], object], what: str) -> None:
    """Wait until something is true, and let the loop run meanwhile."""
    await asyncio.to_thread(wait_until, condition, what=what)


def fall_silent(proxy: ApiProxy) -> None:
    """Silence all connections without closing them; new ones work."""
    proxy.swallow()
    proxy.pass_on()


def note_nothing(_: NamespacedName) -> None:
    """Do nothing."""


@pytest.mark.rule("OUT-7")
async def test_a_watch_of_secrets_that_falls_silent_is_made_anew(
    tenant: Tenant, operator_login: Path, proxy: ApiProxy
) -> None:
    """It goes on from where it was: nothing is listed again, and nothing missed."""
    store = Store(changed=note_nothing, gone=note_nothing)
    namespace = tenant.objects.namespace
    old, new = NamespacedName(namespace, "old"), NamespacedName(namespace, "new")
    tenant.apply_client_secret({}, name=old.name)
    async with connected(proxy, operator_login) as kube:
        watch = SecretWatch(kube, store, namespace, Refusals(Chance()), Chance())
        async with running(watch.run()):
            await come_true(lambda: store.secret(old), "the first list")
            await come_true(lambda: proxy.count("secrets.*watch=true"), "the watch")
            fall_silent(proxy)
            tenant.objects.delete("Secret", old.name)
            tenant.apply_client_secret({}, name=new.name)
            await come_true(lambda: store.secret(new), "the news")
    assert store.secret(old) is None
    assert proxy.count("secrets.*limit=") == 1


async def test_a_watch_of_secrets_that_breaks_goes_on_from_what_it_saw_last(
    tenant: Tenant, operator_login: Path, proxy: ApiProxy
) -> None:
    """Not from where it began, or all would happen again."""
    store = Store(changed=note_nothing, gone=note_nothing)
    namespace = tenant.objects.namespace
    async with connected(proxy, operator_login) as kube:
        watch = SecretWatch(kube, store, namespace, Refusals(Chance()), Chance())
        async with running(watch.run()):
            await come_true(lambda: proxy.count("secrets.*watch=true"), "the watch")
            version = tenant.apply_client_secret({}, name="seen")["metadata"]["resourceVersion"]
            await come_true(lambda: store.secret(NamespacedName(namespace, "seen")), "an event")
            proxy.cut()
            proxy.pass_on()
            await come_true(lambda: proxy.count(f"secrets.*resourceVersion={version}"), "the watch goes on")
            await come_true(lambda: watch.alive, "it is known to be alive, though nothing happens")


@pytest.mark.rule("OUT-7")
async def test_a_watch_of_credentials_that_falls_silent_is_made_anew(
    tenant: Tenant, operator_login: Path, proxy: ApiProxy
) -> None:
    seen: list[Credential] = []
    gone: list[Credential] = []
    other = Tenant(tenant.objects, tenant.sandbox, "other")
    tenant.apply()
    async with connected(proxy, operator_login) as kube:
        watch = CredentialWatch(
            kube,
            Refusals(Chance()),
            Chance(),
            watch_loop=asyncio.new_event_loop,
            namespaces=[tenant.objects.namespace],
            selector="",
            begun=lambda: None,
            created=seen.append,
            seen=seen.append,
            listed=seen.append,
            gone=gone.append,
        )
        async with running(watch.run()):
            await come_true(lambda: seen, "the first list")
            watches = "tuinlycredentials.*watch=true"
            await come_true(lambda: proxy.count(watches) > 1, "the watch, after one to try whether it may")
            fall_silent(proxy)
            tenant.delete()
            other.apply()
            await come_true(lambda: other.name in {credential.key.name for credential in seen}, "a new one")
            await come_true(lambda: gone, "the deletion")
    assert [credential.key.name for credential in gone] == [tenant.name]
