"""Push against the real API server, without a kubelet: Pods get their node and their status by hand."""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api.conftest import StartOperator
from tests.support.acts import force
from tests.support.cluster import Cluster
from tests.support.kustomization import write_push_kustomization
from tests.support.merge import merged
from tests.support.objects import ApiError, Objects
from tests.support.tenant import Tenant
from tests.support.waiting import eventually, wait_until
from tuinly_operator.domain.push import Pod
from tuinly_operator.edges.kube import ApiFailure, connect

Json = dict[str, Any]

POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
PUSHED = "tuinly.com/pushed"
MERGE = "merge-patch+json"
PUSH: Json = {"delivery": {"pods": "Push"}}
VARIABLE: Json = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "storefront-token", "key": "access_token"}}}


@dataclass
class Installation:
    """One with Push: the rights are there, the policy where it is asked for."""

    cluster: Cluster
    kubeconfig: Path
    policy: str

    @contextmanager
    def policy_in_force(self, tenant: Tenant) -> Iterator[None]:
        """Apply the policy for as long as the context lasts, and wait until it refuses what it should."""
        self.cluster.kubectl("apply", "-f", "-", input=self.policy)
        pods = Pods(tenant.objects, self.kubeconfig)
        pods.make("probed")
        wait_until(pods.is_guarded, what="the policy is in effect")
        pods.delete("probed")
        yield
        self.cluster.kubectl("delete", "-f", "-", input=self.policy)


class Pods:
    """The Pods of a namespace, on a node that does not exist."""

    def __init__(self, objects: Objects, operator: Path | None = None) -> None:
        self._objects = objects
        self._operator = Objects(objects.cluster, objects.namespace, operator) if operator else objects

    def path(self, name: str = "", subresource: str = "") -> str:
        path = f"/api/v1/namespaces/{self._objects.namespace}/pods"
        return "/".join(part for part in (path, name, subresource) if part)

    def make(self, name: str, patch: Json | None = None, status: Json | None = None) -> Json:
        """Make one that runs and mounts the target, but for a merge patch; return it."""
        spec = {
            "nodeName": "nowhere",
            "volumes": [{"name": "token", "secret": {"secretName": "storefront-token"}}],
            "containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "token", "mountPath": "/token"}]}],
        }
        pod = merged({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}, patch or {})
        self._objects.ask("POST", self.path(), pod)
        running = {"phase": "Running", "startTime": "2026-11-24T07:00:00Z", **(status or {})}
        return self._objects.ask("PATCH", self.path(name, "status"), {"status": running}, MERGE)

    def delete(self, name: str) -> None:
        self._objects.ask("DELETE", self.path(name), query={"gracePeriodSeconds": "0"})

    def value(self, name: str) -> str | None:
        """What it was told last."""
        annotations: Json = self._objects.read(self.path(name))["metadata"].get("annotations") or {}
        return annotations.get(PUSHED)

    def version(self, name: str) -> str:
        version: str = self._objects.read(self.path(name))["metadata"]["resourceVersion"]
        return version

    def values(self, names: Sequence[str]) -> set[str | None]:
        return {self.value(name) for name in names}

    def is_guarded(self) -> bool:
        """Whether the operator may not set any other annotation."""
        body = {"metadata": {"annotations": {"tuinly.com/probe": "1"}}}
        try:
            self._operator.ask("PATCH", self.path("probed", "status"), body, MERGE, {"dryRun": "All"})
        except ApiError as refusal:
            return "ValidatingAdmissionPolicy" in str(refusal)
        return False


@pytest.fixture(scope="module")
def installation(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    mark, folder = secrets.token_hex(3), tmp_path_factory.mktemp("push")
    home = f"test-push-{mark}"
    write_push_kustomization(folder, home, prefix=f"t{mark}-")
    objects = list(yaml.safe_load_all(cluster.kubectl("kustomize", str(folder))))
    rest, policy = (
        json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        for items in (
            [each for each in objects if each["kind"] not in POLICIES],
            [each for each in objects if each["kind"] in POLICIES],
        )
    )
    cluster.kubectl("apply", "-f", "-", input=rest)
    yield Installation(cluster, cluster.kubeconfig_for(home, f"t{mark}-tuinly-operator"), policy)
    cluster.kubectl("delete", "-f", "-", "--wait=false", input=rest)


@pytest.fixture
def pods(tenant: Tenant) -> Pods:
    return Pods(tenant.objects)


@pytest.mark.rule("PUSH-1")
def test_the_pods_that_mount_the_target_are_told_of_each_new_token_and_no_others(
    installation: Installation, start_operator: StartOperator, tenant: Tenant, pods: Pods
) -> None:
    users = [f"web-{number}" for number in range(5)]
    others: dict[str, Json] = {
        "another": {"spec": {"volumes": [{"name": "token", "secret": {"secretName": "other"}}]}},
        "unscheduled": {"spec": {"nodeName": None}},
    }
    with installation.policy_in_force(tenant):
        operator = start_operator("--push", kubeconfig=installation.kubeconfig).wait_ready()
        for name in users:
            pods.make(name)
        for name, patch in others.items():
            pods.make(name, patch)
        pods.make("finished", status={"phase": "Succeeded"})
        before = pods.make("web")
        tenant.start(PUSH)
        condition = tenant.await_condition("Delivered", "True", "Pushed")
        assert condition.message.endswith("token: 6")
        target = tenant.await_ready()
        assert pods.values([*users, "web"]) == {target.version}
        assert pods.values([*others, "finished"]) == {None}
        after = tenant.objects.read(pods.path("web"))
        assert (after["spec"], after["status"]) == (before["spec"], before["status"])
        versions = len(tenant.objects.versions("TuinlyCredential", tenant.name, since=tenant.begin))
        force(tenant, "again")
        later = tenant.await_token(other_than=target.token)
        eventually(lambda: _all_told(pods, users, later.version))
        tenant.await_condition("Ready", "True", "Issued")
        # One status for the refresh, and none for the push; the annotation that forced it is one more version.
        assert len(tenant.objects.versions("TuinlyCredential", tenant.name, since=tenant.begin)) == versions + 2
        assert operator.metric("tuinly_pushes_total", outcome="Pushed") == 12
        assert tenant.event_reasons() == ["Issued"]


def _all_told(pods: Pods, names: Sequence[str], version: str) -> None:
    assert pods.values(names) == {version}


@pytest.mark.rule("PUSH-11")
def test_who_needs_a_restart_is_named_and_the_token_comes_all_the_same(
    installation: Installation, start_operator: StartOperator, tenant: Tenant, pods: Pods
) -> None:
    with installation.policy_in_force(tenant):
        start_operator("--push", kubeconfig=installation.kubeconfig).wait_ready()
        pods.make("fine")
        pods.make(
            "variable", {"spec": {"volumes": None, "containers": [{"name": "a", "image": "i", "env": [VARIABLE]}]}}
        )
        tenant.start(PUSH)
        condition = tenant.await_condition("Delivered", "False", "PushIncomplete")
        assert "1 (variable); restart them" in condition.message
        assert pods.values(["fine"]) == {tenant.await_ready().version}


@pytest.mark.rule("PUSH-8")
def test_without_the_policy_no_pod_is_touched(
    installation: Installation, start_operator: StartOperator, tenant: Tenant, pods: Pods
) -> None:
    start_operator("--push", kubeconfig=installation.kubeconfig).wait_ready()
    before = pods.make("web")
    tenant.start(PUSH)
    condition = tenant.await_condition("Delivered", "False", "PushRefused")
    assert "admission policy" in condition.message
    tenant.await_ready()
    assert pods.version("web") == before["metadata"]["resourceVersion"]


@pytest.mark.rule("PUSH-11")
def test_without_the_rights_the_token_comes_all_the_same(start_operator: StartOperator, tenant: Tenant) -> None:
    start_operator("--push").wait_ready()
    tenant.start(PUSH)
    condition = tenant.await_condition("Delivered", "False", "PushRefused")
    assert "403" in condition.message
    tenant.await_ready()


@pytest.mark.rule("PUSH-9")
def test_a_new_leader_tells_those_who_may_not_know_of_a_token_that_was_just_written(
    installation: Installation, start_operator: StartOperator, tenant: Tenant, pods: Pods
) -> None:
    with installation.policy_in_force(tenant):
        first = start_operator("--push", kubeconfig=installation.kubeconfig).wait_ready()
        tenant.start(PUSH)
        version = tenant.await_ready().version
        tenant.await_condition("Delivered", "True", "Pushed")
        assert first.terminate() == 0
        pods.make("untold")
        pods.make("later", status={"startTime": "2100-01-01T00:00:00Z"})
        told = pods.make("told", {"metadata": {"annotations": {PUSHED: version}}})
        start_operator("--push", kubeconfig=installation.kubeconfig).wait_ready()
        eventually(lambda: _all_told(pods, ["untold"], version))
        assert pods.value("later") is None
        assert (
            tenant.objects.read(pods.path("told"))["metadata"]["resourceVersion"] == told["metadata"]["resourceVersion"]
        )


@pytest.mark.rule("PUSH-7")
async def test_a_pod_is_that_very_pod_and_whoever_else_writes_to_it_is_no_matter(
    cluster: Cluster, tenant: Tenant, pods: Pods
) -> None:
    made = pods.make("web")
    namespace, uid = tenant.objects.namespace, made["metadata"]["uid"]

    def pod(uid: str, name: str = "web") -> Pod:
        return Pod(name, uid, "", None, frozenset(), frozenset())

    kube = await connect(cluster.kubeconfig)
    try:
        tenant.objects.ask("PATCH", pods.path("web"), {"metadata": {"labels": {"a": "b"}}}, MERGE)
        assert (await kube.annotate_pod(namespace, pod(uid), {PUSHED: "7"}))[PUSHED] == "7"
        with pytest.raises(ApiFailure) as caught:
            await kube.annotate_pod(namespace, pod("00000000-0000-4000-8000-000000000000"), {PUSHED: "8"})
        assert caught.value.other_uid
        with pytest.raises(ApiFailure) as caught:
            await kube.annotate_pod(namespace, pod(uid, "gone"), {PUSHED: "8"})
        assert caught.value.not_found
        assert pods.value("web") == "7"
        await kube.annotate_pod(namespace, pod(uid), {"tuinly.com/trial": "1"}, dry_run=True)
        assert "tuinly.com/trial" not in tenant.objects.read(pods.path("web"))["metadata"]["annotations"]
    finally:
        await kube.close()
