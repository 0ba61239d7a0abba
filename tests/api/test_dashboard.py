"""Every query of dashboard, docs and alerts gives a result in a real Prometheus that scrapes a real operator."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import ROOT, StartOperator
from tests.support import prometheus
from tests.support.cluster import Cluster
from tests.support.prometheus import Prometheus
from tests.support.proxy import ApiProxy
from tests.support.sandbox import Fault
from tests.support.tenant import Tenant
from tests.support.waiting import eventually
from tests.unit.test_alerts import ALERTS
from tests.unit.test_dashboard import PANELS
from tests.unit.test_docs import blocks

PROGRAMS = prometheus.programs()
MADE_BY = {"2": "make extras", "3": "make prometheus"}
with_each = pytest.mark.parametrize(
    "program",
    [
        pytest.param(PROGRAMS.get(major), id=major, marks=pytest.mark.skipif(major not in PROGRAMS, reason=made_by))
        for major, made_by in MADE_BY.items()
    ],
)


EXPRESSIONS = {alert["alert"]: alert["expr"] for alert in ALERTS}


def questions() -> Iterator[str]:
    for panel in PANELS:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for block in (block for page in (ROOT / "docs").rglob("*.md") for block in blocks(page.read_text(), "promql")):
        yield from (part for part in re.split(r"\n\n|^#.*\n", block, flags=re.MULTILINE) if part.strip())


def filled_in(question: str, namespace: str) -> str:
    return re.sub(r"\[\w+\]", "[30s]", question.replace("$namespace", namespace).replace("$__rate_interval", "30s"))


@pytest.mark.rule("OBS-28")
@with_each
def test_every_query_gives_a_result(
    start_operator: StartOperator, tenant: Tenant, tmp_path: Path, program: str
) -> None:
    """Good ones, one that is pushed in vain as the operator may not list Pods, a failing and a suspended one."""
    namespace = tenant.objects.namespace
    operator = start_operator("--namespace", namespace, "--push").wait_ready()
    with prometheus.running(program, tmp_path, [operator.health_url.removeprefix("http://")]) as server:
        tenant.start({"delivery": {"pods": "Push"}}, lifetime=8.0)
        failing = Tenant(tenant.objects, tenant.sandbox, "failing").start()
        failing.await_ready()
        failing.rotate_secret()
        failing.apply_client_secret({"client_id": failing.client.id, "client_secret": "wrong"})
        suspended = Tenant(tenant.objects, tenant.sandbox, "suspended")
        suspended.apply({"suspend": True})
        unanswered = {filled_in(question, namespace) for question in questions()}
        assert len(unanswered) > 30

        def answered() -> None:
            unanswered.difference_update({each for each in unanswered if answers(server, each)})
            assert not unanswered

        eventually(answered, seconds=90)


def answers(server: Prometheus, question: str) -> bool:
    return bool(server.ask(question))


SLOWLY = {"TuinlyQueueStuck"}  # tests/api/test_queue_alert.py
AT_LAST = ({"TuinlyNoLeader", "TuinlyAPIServerOutOfReach"}, {"TuinlyOperatorDown"})
NOBODYS = "http://127.0.0.1:9/token"


@pytest.mark.rule("OBS-27")
@with_each
def test_alerts_are_true_where_their_situation_is_made(  # noqa: PLR0913, PLR0917 -- fixtures
    start_operator: StartOperator,
    tenant: Tenant,
    cluster: Cluster,
    other_token_urls: tuple[str, ...],
    tmp_path: Path,
    program: str,
) -> None:
    """Of two operators the second may do nothing, and is at last alone, out of the API server's reach, and gone."""
    namespace = tenant.objects.namespace
    first = start_operator("--namespace", namespace, "--push", "--allowed-token-url", NOBODYS).wait_ready()
    with ApiProxy(cluster.server, cluster.ca_file, tmp_path) as proxy:
        login = proxy.kubeconfig(cluster.kubeconfig_for(namespace, "default"))
        second = start_operator("--namespace", namespace, "--lease", f"{namespace}/none", kubeconfig=login)
        targets = [each.health_url.removeprefix("http://") for each in (first, second)]
        with prometheus.running(program, tmp_path, targets) as server:
            make_trouble(tenant, other_token_urls[1])
            await_alerts(server, EXPRESSIONS.keys() - SLOWLY - AT_LAST[0] - AT_LAST[1])
            first.terminate()
            proxy.cut()
            await_alerts(server, AT_LAST[0])
            second.kill()
            await_alerts(server, AT_LAST[1])


def make_trouble(tenant: Tenant, apart: str) -> None:
    """A push in vain, a client that is refused while its token ends, no client Secret, an endpoint that is down.

    And one, at a URL apart, whose clock is two minutes behind.
    """
    tenant.start({"delivery": {"pods": "Push"}}, lifetime=8.0)
    failing = Tenant(tenant.objects, tenant.sandbox, "failing").start(lifetime=20.0)
    failing.await_ready()
    failing.apply_client_secret({"client_id": failing.client.id, "client_secret": "wrong"})
    Tenant(tenant.objects, tenant.sandbox, "missing").apply()
    down = Tenant(tenant.objects, tenant.sandbox, "down")
    down.apply_client_secret()
    down.apply({"tokenURL": NOBODYS})
    behind = Tenant(tenant.objects, tenant.sandbox, "behind")
    tenant.sandbox.fault(Fault(kind="answer", answer="date_wrong", seconds=-120, client=behind.client.id))
    behind.start({"tokenURL": apart})


def await_alerts(server: Prometheus, names: set[str], seconds: float = 90) -> None:
    """Wait until each expression gave something, though not all at a time."""
    silent = set(names)

    def told() -> None:
        silent.difference_update({name for name in silent if answers(server, EXPRESSIONS[name])})
        assert not silent

    eventually(told, seconds=seconds)
