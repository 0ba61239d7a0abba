"""The alert on a queue that does not move on, which takes minutes: in a file of its own, beside which others run."""

from pathlib import Path

import pytest

from tests.api.conftest import StartOperator
from tests.api.test_dashboard import PROGRAMS, SLOWLY, await_alerts
from tests.support import prometheus
from tests.support.cluster import Cluster
from tests.support.proxy import ApiProxy, Fault
from tests.support.tenant import Tenant

pytestmark = pytest.mark.skipif(not PROGRAMS, reason="no prometheus (make extras, make prometheus)")


@pytest.mark.rule("OBS-27")
@pytest.mark.timeout(600)
def test_a_queue_in_which_credentials_wait_for_minutes_is_told_of(
    start_operator: StartOperator, tenant: Tenant, cluster: Cluster, operator_login: Path, tmp_path: Path
) -> None:
    """A slow namespace has one place here, and each write hangs for so long as a request may."""
    with ApiProxy(cluster.server, cluster.ca_file, tmp_path) as proxy:
        flags = ("--namespace", tenant.objects.namespace, "--concurrency", "1")
        operator = start_operator(*flags, kubeconfig=proxy.kubeconfig(operator_login)).wait_ready()
        proxy.fault(Fault(path="/secrets/.*-token", method="PATCH", swallowed=True))
        for number in range(24):  # the last ones wait for four minutes
            Tenant(tenant.objects, tenant.sandbox, f"waits-{number}").start()
        scraped = [operator.health_url.removeprefix("http://")]
        with prometheus.running(PROGRAMS[max(PROGRAMS)], tmp_path, scraped) as server:
            await_alerts(server, SLOWLY, seconds=400)
