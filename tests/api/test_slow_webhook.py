"""A webhook that takes 15 s per write in one namespace: told there, and no matter elsewhere."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.api.conftest import StartOperator
from tests.support.acts import edit
from tests.support.cluster import Cluster
from tests.support.objects import Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import wait_until
from tests.support.webhook import SlowWebhook

CONCURRENCY = 4
SLOW, OTHERS = 12, 8
LIFETIME = 8
"""Seconds. A token is refreshed after half of that; each write of the slow ones is given up after 10 s."""
REFRESHES = 100
"""How many are waited for; with the webhook in their way there would be none in its first 10 s."""


@pytest.fixture
def slow_namespace(cluster: Cluster) -> Iterator[str]:
    with new_namespace(cluster) as name:
        yield name


@pytest.fixture
def namespace_apart(cluster: Cluster) -> Iterator[str]:
    with new_namespace(cluster) as name:
        yield name


def lateness(operator: OperatorProcess) -> Mapping[str, float]:
    """Return how many refreshes were up to so many seconds late, and how many there were."""
    name = "tuinly_refresh_lateness_seconds_bucket"
    return {dict(labels)["le"]: value for (sample, labels), value in operator.metrics().items() if sample == name}


def late(operator: OperatorProcess) -> float:
    """Return how many refreshes were more than a second late."""
    seen = lateness(operator)
    return seen["+Inf"] - seen["1.0"]


def start_others(cluster: Cluster, sandbox: SandboxProcess, namespace: str) -> list[Tenant]:
    """Start those whom a slow webhook elsewhere must not concern, and wait until they are ready."""
    others = [Tenant(Objects(cluster, namespace), sandbox.admin, f"other{number}") for number in range(OTHERS)]
    for tenant in others:
        tenant.start(lifetime=LIFETIME)
    for tenant in others:
        tenant.await_ready()
    return others


@pytest.mark.rule("WHEN-12", "WRITE-7", "OBS-2")
def test_a_slow_webhook_is_told_where_it_is_and_holds_up_no_other_namespace(  # noqa: PLR0913, PLR0917 - fixtures
    cluster: Cluster,
    sandbox: SandboxProcess,
    start_operator: StartOperator,
    namespace: str,
    slow_namespace: str,
    namespace_apart: str,
    tmp_path: Path,
) -> None:
    """What a busy machine makes late, that of an operator without a slow namespace has, too."""
    places = ("--concurrency", str(CONCURRENCY))
    operator = start_operator(*places, "--namespace", namespace, "--namespace", slow_namespace).wait_ready()
    apart = start_operator(*places, "--namespace", namespace_apart).wait_ready()
    others = start_others(cluster, sandbox, namespace)
    start_others(cluster, sandbox, namespace_apart)
    slow = [Tenant(Objects(cluster, slow_namespace), sandbox.admin, f"slow{number}") for number in range(SLOW)]
    for tenant in slow:
        tenant.register()
        tenant.apply_client_secret()
    with SlowWebhook(cluster, tmp_path, slow_namespace, ("secrets", "events")) as webhook:
        before, late_before, late_apart = lateness(operator)["+Inf"], late(operator), late(apart)
        for tenant in slow:
            tenant.apply()
        wait_until(lambda: lateness(operator)["+Inf"] >= before + REFRESHES, what="refreshes", seconds=120)
        edit(others[0], {"data": {"access_token": "dW5kb25l"}})
        others[0].await_event("Restored")
        told = slow[0].await_condition("Refreshed", "False", "TargetRejected", seconds=90)
        assert "an admission webhook may be slow" in told.message
        assert webhook.reviews > CONCURRENCY
        refreshes, by_the_machine = lateness(operator)["+Inf"] - before, late(apart) - late_apart
        assert late(operator) - late_before <= 0.01 * refreshes + 2 * by_the_machine + 1
    assert not [line for line in operator.logs() if "out of reach" in line["msg"]]
    slow[0].await_ready(seconds=90)
    assert len(slow[0].requests()) == 1
