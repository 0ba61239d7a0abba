"""A login by an exec plugin that hangs, on the real API: the operator goes on, says so, and comes back by itself."""

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from tests.api.conftest import ROOT, StartOperator
from tests.support.acts import leave_lease
from tests.support.cluster import Cluster
from tests.support.exec_plugin import Plugin
from tests.support.operator import LEADS, OperatorProcess
from tests.support.process_identity import identity
from tests.support.tenant import Tenant
from tests.support.waiting import wait_until

LEASE = "tuinly-operator"
LOST = "this replica leads no more: it was not renewed in time"
REFUSED = "the API server refused the login (401 Unauthorized), renewing it"
NOTE = "renews its login: no (the kubeconfig"
HASTY = {"_RENEW_SECONDS: Final = 60.0": "_RENEW_SECONDS: Final = 1.0", "_LIMIT: Final = 15.0": "_LIMIT: Final = 2.0"}
"""What is shorter in the operator under test, so that it need not be waited for."""


@pytest.fixture
def hasty(tmp_path: Path) -> Path:
    """Return a folder with an operator that renews its login every second."""
    package = tmp_path / "hasty" / "tuinly_operator"
    shutil.copytree(ROOT / "operator" / "tuinly_operator", package, ignore=shutil.ignore_patterns("__pycache__"))
    file = package / "edges" / "kube" / "login.py"
    text = file.read_text()
    for ours, theirs in HASTY.items():
        assert text.count(ours) == 1
        text = text.replace(ours, theirs)
    file.write_text(text)
    return package.parent


class Account:
    """The operator's account in the namespace of a tenant, and tokens of it that can be taken back."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        text = (ROOT / "deploy" / "namespaced.yaml").read_text()
        objects = yaml.safe_load_all(re.sub(r"\b(tuinly-system|shop)\b", namespace, text))
        rights = [each for each in objects if each["kind"] in {"ServiceAccount", "Role", "RoleBinding"}]
        cluster.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(rights))

    def token(self, name: str) -> str:
        """A token that holds for as long as a Secret of this name is there."""
        self._cluster.kubectl("create", "secret", "generic", name, "-n", self._namespace)
        bound = ("--bound-object-kind=Secret", f"--bound-object-name={name}")
        return self._cluster.kubectl("create", "token", "tuinly-operator", "-n", self._namespace, *bound).strip()

    def take_back(self, name: str) -> None:
        self._cluster.kubectl("delete", "secret", name, "-n", self._namespace)

    def plugin(self, folder: Path) -> Plugin:
        """A plugin, and a kubeconfig that names it in place of the account's token."""
        plugin = Plugin(folder)
        user = json.loads(plugin.kubeconfig.read_text())["users"][0]["user"]
        own = json.loads(self._cluster.kubeconfig_for(self._namespace, "tuinly-operator").read_text())
        own["users"][0]["user"] = user
        plugin.kubeconfig.write_text(json.dumps(own))
        return plugin


@pytest.fixture
def account(tenant: Tenant) -> Account:
    cluster, namespace = tenant.objects.cluster, tenant.objects.namespace
    leave_lease(cluster, namespace, LEASE)
    return Account(cluster, namespace)


@pytest.mark.rule("LOGIN-1", "LOGIN-3", "LOGIN-4", "REPL-3")
def test_a_hanging_plugin_stops_nothing_until_its_login_ends_and_a_new_login_is_used_at_once(
    tenant: Tenant, account: Account, hasty: Path, start_operator: StartOperator, tmp_path: Path
) -> None:
    plugin, namespace = account.plugin(tmp_path), tenant.objects.namespace
    plugin.prints(token=account.token("first"), expirationTimestamp="2000-01-01T00:00:00Z")  # so each renewal runs it
    flags = ("--namespace", namespace, "--lease", f"{namespace}/{LEASE}")
    operator = start_operator(*flags, kubeconfig=plugin.kubeconfig, package=hasty).wait_ready()
    tenant.start(lifetime=6)
    old = tenant.await_ready().token

    plugin.hangs()
    wait_until(plugin.hanging, what="the plugin hangs")
    operator.wait_for_log(lambda line: "cannot renew the login" in line["msg"])
    for _ in range(3):  # requests go on, and the lead with them
        old = tenant.await_token(other_than=old).token
    wait_until(lambda: NOTE in operator.get("/readyz")[1], what="/readyz says it")
    assert operator.get("/readyz")[0] == 200
    assert operator.metric("tuinly_leader") == 1
    assert count(operator, "cannot renew the login") == 1

    account.take_back("first")
    operator.wait_for_log(lambda line: line["msg"] == REFUSED)
    operator.wait_for_log(lambda line: line["msg"] == LOST)
    wait_until(lambda: operator.metric("tuinly_leader") == 0, what="it leads no more")
    assert operator.get("/healthz") == (200, "ok\n")

    plugin.prints(token=account.token("second"))
    plugin.goes_on()
    wait_until(lambda: count(operator, LEADS) == 2, what="it leads again", seconds=60)
    tenant.await_token(other_than=old)
    wait_until(lambda: operator.get("/readyz") == (200, "ok\n"), what="all is well")
    wait_until(lambda: not any(map(identity, plugin.hanging())), what="the plugin and its child have ended")
    assert operator.terminate() == 0
    assert count(operator, REFUSED) == 1
    assert [line for line in operator.logs() if line["logger"] == "asyncio"] == []  # of how the plugin was killed


def count(operator: OperatorProcess, message: str) -> int:
    return len([line for line in operator.logs() if message in line["msg"]])


@pytest.mark.rule("LOGIN-7")
def test_a_plugin_that_hangs_at_the_start_does_not_keep_the_operator_from_ending(
    start_operator: StartOperator, tmp_path: Path
) -> None:
    plugin = Plugin(tmp_path)
    plugin.hangs()
    operator = start_operator(kubeconfig=plugin.kubeconfig)
    processes = wait_until(plugin.hanging, what="the plugin hangs")
    operator.send(signal.SIGTERM)
    assert operator.wait() == 0
    wait_until(lambda: not any(map(identity, processes)), what="the plugin and its child have ended")
    assert operator.logs() == []
