"""The auditor on a real API server, with a real sandbox and the test itself in the operator's place."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.support.auditor import Auditor, Verdict, Wrong
from tests.support.cluster import Cluster, LocalCluster
from tests.support.sandbox import Client, SandboxProcess

CLIENT = Client(id="storefront", secret="of-no-worth", lifetime=3600)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess() as running:
        yield running


class Publisher:
    """Does by hand, and therefore wrongly where told, what the operator does."""

    def __init__(self, cluster: Cluster, namespace: str, sandbox: SandboxProcess) -> None:
        self.cluster, self.namespace, self.sandbox = cluster, namespace, sandbox

    def exchange(self, lifetime: float = 3600) -> str:
        """Return a new token."""
        client = self.sandbox.admin.add_client(Client(id=self.namespace, secret="of-no-worth", lifetime=lifetime))
        form = {"grant_type": "client_credentials", "client_id": client.id, "client_secret": client.secret}
        opener = build_opener(ProxyHandler({}))
        with opener.open(self.sandbox.token_url, urlencode(form).encode(), timeout=30) as answer:
            return str(json.load(answer)["access_token"])

    def apply(self, kind: str, name: str, **fields: object) -> None:
        """Apply an object."""
        version = "tuinly.com/v1alpha1" if kind == "TuinlyCredential" else "v1"
        metadata = {"name": name, "namespace": self.namespace, "labels": {"tuinly.com/credential": "storefront"}}
        manifest = {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}
        self.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(manifest))

    def create_credential(self) -> None:
        """Create the credential ``storefront``."""
        self.apply("TuinlyCredential", "storefront", spec={"clientSecretRef": {"name": "storefront-client"}})

    def publish(self, token: str, key: str = "access_token") -> None:
        """Write the target."""
        self.apply("Secret", "storefront-token", data={key: base64.b64encode(token.encode()).decode()})

    def delete(self, *what: str) -> None:
        """Delete objects."""
        self.cluster.kubectl("delete", "--namespace", self.namespace, *what)


@pytest.fixture
def publisher(cluster: Cluster, namespace: str, sandbox: SandboxProcess) -> Publisher:
    return Publisher(cluster, namespace, sandbox)


@pytest.fixture
def auditor(cluster: Cluster, namespace: str, sandbox: SandboxProcess) -> Iterator[Auditor]:
    with Auditor(cluster.kubeconfig, sandbox.admin, [namespace]) as looking:
        yield looking


def until(condition: Callable[[], bool]) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.1)


def wrongs(verdict: Verdict) -> set[Wrong]:
    """Return what was wrong."""
    return {finding.wrong for finding in verdict.findings}


def test_a_good_life_is_good(publisher: Publisher, auditor: Auditor) -> None:
    publisher.create_credential()
    publisher.publish(publisher.exchange())
    publisher.publish(publisher.exchange())
    publisher.delete("tuinlycredential/storefront", "secret/storefront-token")
    verdict = auditor.verdict()
    assert verdict.is_good, verdict
    assert verdict.credentials == 1


def test_an_expired_token_counts_until_it_is_replaced(publisher: Publisher, auditor: Auditor) -> None:
    publisher.create_credential()
    publisher.publish(publisher.exchange(lifetime=1))
    until(lambda: auditor.verdict().expired_token_seconds > 1)
    publisher.publish(publisher.exchange())
    until(lambda: auditor.verdict().expired_token_seconds == auditor.verdict().expired_token_seconds)
    (finding,) = auditor.verdict().findings
    assert finding.wrong is Wrong.EXPIRED
    assert finding.token == publisher.sandbox.admin.tokens(publisher.namespace)[0].sequence


def test_a_token_that_was_never_issued(publisher: Publisher, auditor: Auditor) -> None:
    publisher.create_credential()
    publisher.publish("forged")
    publisher.publish(publisher.exchange())
    verdict = auditor.verdict()
    assert wrongs(verdict) == {Wrong.NEVER_ISSUED}
    assert 0 < verdict.bad_token_seconds < verdict.seconds


def test_a_revoked_token(publisher: Publisher, auditor: Auditor) -> None:
    publisher.create_credential()
    publisher.publish(publisher.exchange())
    publisher.sandbox.admin.revoke_all(publisher.namespace)
    publisher.publish(publisher.exchange())
    assert wrongs(auditor.verdict()) == {Wrong.REVOKED}


@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_a_lost_token_counts_until_it_is_back(publisher: Publisher, auditor: Auditor, how: str) -> None:
    publisher.create_credential()
    token = publisher.exchange()
    publisher.publish(token)
    if how == "deleted":
        publisher.delete("secret/storefront-token")
    else:
        publisher.publish(token, key="another")
    publisher.publish(token)
    until(lambda: auditor.verdict().absent_seconds == auditor.verdict().absent_seconds > 0)
    assert wrongs(auditor.verdict()) == {Wrong.ABSENT}


def test_a_namespace_goes_with_all_that_is_in_it(publisher: Publisher, auditor: Auditor) -> None:
    publisher.create_credential()
    publisher.publish(publisher.exchange())
    publisher.cluster.kubectl("delete", "namespace", publisher.namespace)
    assert auditor.verdict().is_good
    publisher.cluster.kubectl("create", "namespace", publisher.namespace)  # the fixture deletes it


def test_an_outage_of_the_api_server_is_no_finding(
    local_cluster: LocalCluster, publisher: Publisher, auditor: Auditor
) -> None:
    publisher.create_credential()
    publisher.publish(publisher.exchange())
    auditor.verdict()
    local_cluster.stop_apiserver()
    local_cluster.start_apiserver()
    publisher.publish(publisher.exchange())
    token = publisher.exchange()
    publisher.publish(token)
    publisher.publish("forged")
    until(lambda: wrongs(auditor.verdict()) == {Wrong.NEVER_ISSUED})
    verdict = auditor.verdict()
    assert wrongs(verdict) == {Wrong.NEVER_ISSUED}
    assert verdict.credentials == 1


def test_the_verdict_is_about_the_time_of_the_context(
    cluster: Cluster, namespace: str, sandbox: SandboxProcess, publisher: Publisher
) -> None:
    publisher.create_credential()
    publisher.publish(publisher.exchange())
    with Auditor(cluster.kubeconfig, sandbox.admin, [namespace]) as looking:
        pass
    publisher.publish("forged")
    assert looking.verdict().is_good
    assert looking.verdict().credentials == 1
