"""What the operator may do to Pods where Push is installed, tried with its login: one annotation, and nothing else.

It is given all rights to Pods besides, so that what is refused is refused by the policy. What counts is what became of
the Pod, not what was answered.
"""

import copy
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.support.cluster import Cluster
from tests.support.kustomization import DEPLOY, write_push_kustomization
from tests.support.merge import merged
from tests.support.objects import ApiError, Objects
from tests.support.waiting import eventually, wait_until

Json = dict[str, Any]

POLICY = DEPLOY / "components" / "push" / "policy.yaml"
PUSHED = "tuinly.com/pushed"
PUSH: Json = {"metadata": {"annotations": {PUSHED: "7"}}}
MERGE, STRATEGIC, APPLY, JSON_PATCH = (
    "merge-patch+json",
    "strategic-merge-patch+json",
    "apply-patch+yaml",
    "json-patch+json",
)

CONFINED: Json = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SECRET: Json = {"name": "token", "secret": {"secretName": "storefront-token", "optional": True}}
PROJECTED: Json = {
    "name": "token",
    "projected": {"sources": [{"downwardAPI": {}}, {"secret": {"name": "storefront-token", "optional": True}}]},
}
PODS = [
    "pods",
    *(f"pods/{each}" for each in ("status", "resize", "ephemeralcontainers", "eviction", "binding", "exec")),
]


@dataclass
class Stage:
    """An installation with Push, as its admin and as the operator."""

    namespace: str
    account: str
    admin: Objects
    operator: Objects

    def path(self, name: str, subresource: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{name}" + (f"/{subresource}" if subresource else "")

    def read(self, name: str = "storefront") -> Json:
        """Return a Pod as it is, but for what each write notes anew: a version, and who wrote what."""
        pod = self.admin.read(self.path(name))
        del pod["metadata"]["managedFields"], pod["metadata"]["resourceVersion"]
        return pod

    def make(self, name: str, *volumes: Json, **metadata: Any) -> Json:  # noqa: ANN401 -- JSON
        """Make a Pod that a restricted namespace admits, and that no node has."""
        mounts = [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes]
        container = {"name": "app", "image": "app.invalid/app:1", "volumeMounts": mounts, "securityContext": CONFINED}
        container["resources"] = {"requests": {"memory": "1Gi"}}
        user = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
        spec = {"containers": [container], "volumes": list(volumes), "securityContext": user}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}
        return self.admin.ask("POST", self.path("").rstrip("/"), pod)

    def try_all(self, name: str, body: Json) -> list[str]:
        """Send a change of a Pod's status subresource in each way there is; return how each was refused, if it was."""
        whole = merged(merged(self.admin.read(self.path(name)), body), {"metadata": {"resourceVersion": None}})
        named = merged(body, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}})
        ways: list[tuple[str, Json, str]] = [
            ("PATCH", body, MERGE),
            ("PATCH", body, STRATEGIC),
            ("PATCH", named, APPLY),
            ("PUT", whole, "json"),
        ]
        return [self.attempt(method, self.path(name, "status"), sent, content) for method, sent, content in ways]

    def attempt(self, method: str, path: str, body: Any = None, content: str = "json") -> str:  # noqa: ANN401 -- JSON
        """Do something as the operator; return the refusal, or nothing."""
        query = {"fieldManager": "tuinly-operator", "force": "true"} if content == APPLY else {}
        try:
            self.operator.ask(method, path, body, content, query)
        except ApiError as refusal:
            return str(refusal)
        return ""


def bare(pod: Json) -> Json:
    """Take away what the operator may change."""
    pod = copy.deepcopy(pod)
    pod["metadata"]["annotations"].pop(PUSHED, None)
    return pod


@pytest.fixture(scope="module")
def stage(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    mark = secrets.token_hex(3)
    home, account, folder = f"test-push-{mark}", f"t{mark}-tuinly-operator", tmp_path_factory.mktemp("push")
    write_push_kustomization(folder, home, prefix=f"t{mark}-")
    cluster.kubectl("apply", "-k", str(folder))
    cluster.kubectl("create", "role", "all", "-n", home, "--verb=*", f"--resource={','.join(PODS)}")
    cluster.kubectl("create", "rolebinding", "all", "-n", home, "--role=all", f"--serviceaccount={home}:{account}")
    operator = Objects(cluster, home, cluster.kubeconfig_for(home, account))
    stage = Stage(home, account, Objects(cluster, home), operator)
    owner = stage.admin.read(f"/api/v1/namespaces/{home}/serviceaccounts/default")["metadata"]
    stage.make(
        "storefront",
        SECRET,
        labels={"app": "storefront"},
        annotations={"note": "kept", PUSHED: "1"},
        finalizers=["tests.example/kept"],
        ownerReferences=[{"apiVersion": "v1", "kind": "ServiceAccount", "name": "default", "uid": owner["uid"]}],
    )
    conditions = [{"type": "tests.example/fit", "status": "True"}]
    cluster.kubectl(
        *("patch", "pod", "storefront", "-n", home, "--subresource=status", "--type=merge", "-p"),
        json.dumps({"status": {"conditions": conditions, "message": "as it was"}}),
    )
    wait_until(lambda: "ValidatingAdmissionPolicy" in probe(stage, "storefront"), what="the policy is in effect")
    yield stage
    stage.admin.ask("PATCH", stage.path("storefront"), {"metadata": {"finalizers": None}}, MERGE)
    cluster.kubectl("delete", "-k", str(folder), "--wait=false")


def probe(stage: Stage, name: str) -> str:
    """Try what must be refused, as the operator does before its first push; nothing would change."""
    body = {"metadata": {"annotations": {"tuinly.com/probe": "1"}}}
    try:
        stage.operator.ask("PATCH", stage.path(name, "status"), body, MERGE, {"dryRun": "All"})
    except ApiError as refusal:
        return str(refusal)
    return ""


@pytest.mark.rule("SEC-8")
@pytest.mark.parametrize("volume", [SECRET, PROJECTED], ids=["secret", "projected"])
@pytest.mark.parametrize("annotations", [{}, {"note": "kept"}, {PUSHED: "1"}], ids=str)
def test_the_annotation_can_be_set(stage: Stage, volume: Json, annotations: Mapping[str, str]) -> None:
    """On a Pod that mounts a Secret, be it with other annotations or with none, in each way there is."""
    name = f"pod-{secrets.token_hex(4)}"
    stage.make(name, volume, annotations=annotations)
    before = merged(stage.read(name), {"metadata": {"annotations": annotations}})
    assert stage.try_all(name, PUSH) == [""] * 4
    assert stage.read(name)["metadata"]["annotations"][PUSHED] == "7"
    operation = {"op": "replace", "path": "/metadata/annotations/tuinly.com~1pushed", "value": "8"}
    assert stage.attempt("PATCH", stage.path(name, "status"), [operation], JSON_PATCH) == ""
    after = stage.read(name)
    assert after["metadata"]["annotations"] == {**annotations, PUSHED: "8"}
    assert bare(after) == bare(before)


STATUS: dict[str, Json] = {
    "a label": {"metadata": {"labels": {"more": "x"}}},
    "a label of another value": {"metadata": {"labels": {"app": "x"}}},
    "a label less": {"metadata": {"labels": {"app": None}}},
    "no labels": {"metadata": {"labels": None}},
    "another annotation": {"metadata": {"annotations": {"tuinly.com/refresh-requested": "7"}}},
    "an annotation of another value": {"metadata": {"annotations": {"note": "7"}}},
    "an annotation less": {"metadata": {"annotations": {"note": None}}},
    "a finalizer": {"metadata": {"finalizers": ["tests.example/kept", "tests.example/more"]}},
    "a finalizer less": {"metadata": {"finalizers": None}},
    "an owner": {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "x"}]}},
    "no owner": {"metadata": {"ownerReferences": None}},
    "a deletion": {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}},
    "another time of creation": {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}},
    "another generation": {"metadata": {"generation": 7}},
    "another origin of its name": {"metadata": {"generateName": "x-"}},
    "a condition": {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
    "no conditions": {"status": {"conditions": None}},
    "another phase": {"status": {"phase": "Failed"}},
    "an address": {"status": {"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}]}},
    "a node's address": {"status": {"hostIP": "10.0.0.8", "hostIPs": [{"ip": "10.0.0.8"}]}},
    "a container's status": {
        "status": {
            "containerStatuses": [
                {
                    "name": "app",
                    "image": "x",
                    "imageID": "x",
                    "ready": True,
                    "restartCount": 7,
                    "state": {"running": {}},
                }
            ]
        }
    },
    "an ephemeral container's status": {
        "status": {
            "ephemeralContainerStatuses": [
                {"name": "app", "image": "x", "imageID": "x", "ready": True, "restartCount": 7}
            ]
        }
    },
    "another message": {"status": {"message": "x", "reason": "x"}},
    "another node in view": {"status": {"nominatedNodeName": "x"}},
    "a time of start": {"status": {"startTime": "2026-01-01T00:00:00Z"}},
    "another class": {"status": {"qosClass": "Guaranteed"}},
    "a deadline": {"spec": {"activeDeadlineSeconds": 7}},
    "a toleration": {"spec": {"tolerations": [{"operator": "Exists"}]}},
    "a node": {"spec": {"nodeName": "x"}},
}
"""Changes of a Pod by its status subresource."""


@pytest.mark.rule("SEC-8")
@pytest.mark.parametrize("change", STATUS)
def test_by_the_status_nothing_else_is_changed(stage: Stage, change: str) -> None:
    """Neither by itself nor beside what is allowed. Some of it the API server takes, and changes nothing."""
    before = stage.read()
    stage.try_all("storefront", STATUS[change])
    assert stage.read() == before
    stage.try_all("storefront", merged(STATUS[change], PUSH))
    assert bare(stage.read()) == bare(before)


@pytest.mark.rule("SEC-8")
@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/metadata/annotations/tuinly.com~1pushed"},
        {"op": "remove", "path": "/metadata/annotations"},
        {"op": "replace", "path": "/metadata/annotations", "value": {PUSHED: "7"}},
        {"op": "move", "from": "/metadata/annotations/note", "path": "/metadata/annotations/tuinly.com~1pushed"},
        {"op": "copy", "from": "/metadata/uid", "path": "/metadata/annotations/tuinly.com~1pushed"},
        {"op": "add", "path": "/metadata/labels/more", "value": "x"},
        {"op": "replace", "path": "/metadata/finalizers", "value": []},
        {"op": "replace", "path": "/status", "value": {}},
        {"op": "replace", "path": "/status/conditions/0/status", "value": "False"},
    ],
    ids=lambda operation: f"{operation['op']} {operation['path']}",
)
def test_no_json_patch_changes_more(stage: Stage, operation: Json) -> None:
    before = stage.read()
    stage.attempt("PATCH", stage.path("storefront", "status"), [operation], JSON_PATCH)
    assert stage.read() == before


@pytest.mark.rule("SEC-8")
def test_the_annotation_is_not_removed(stage: Stage) -> None:
    before = stage.read()
    stage.try_all("storefront", {"metadata": {"annotations": {PUSHED: None}}})
    stage.try_all("storefront", {"metadata": {"annotations": None}})
    assert stage.read() == before


@pytest.mark.rule("SEC-8")
@pytest.mark.parametrize("value", ["", "x", "7x", "x7", "-7", " 7", "7\n", "7\nx", "7.0", "\u0667", "7" * 41], ids=repr)
def test_a_value_is_digits(stage: Stage, value: str) -> None:
    before = stage.read()
    stage.try_all("storefront", {"metadata": {"annotations": {PUSHED: value}}})
    assert stage.read() == before


@pytest.mark.rule("SEC-8")
@pytest.mark.parametrize(
    "volumes",
    [
        [],
        [{"name": "config", "configMap": {"name": "storefront-token", "optional": True}}],
        [{"name": "config", "projected": {"sources": [{"configMap": {"name": "storefront-token", "optional": True}}]}}],
        [{"name": "config", "projected": {}}, {"name": "secret", "emptyDir": {}}],
    ],
    ids=["none but its login", "a ConfigMap", "a projected ConfigMap", "others"],
)
def test_a_pod_that_mounts_no_secret_is_let_alone(stage: Stage, volumes: list[Json]) -> None:
    name = f"pod-{secrets.token_hex(4)}"
    stage.make(name, *volumes)
    before = stage.read(name)
    stage.try_all(name, PUSH)
    assert stage.read(name) == before


DEBUGGER = {"name": "debugger", "image": "x", "terminationMessagePolicy": "File", "securityContext": CONFINED}
ELSEWHERE: dict[str, tuple[str, str, Json | None]] = {
    "the annotation": ("PATCH", "", PUSH),
    "a label": ("PATCH", "", {"metadata": {"labels": {"more": "x"}}}),
    "a deadline": ("PATCH", "", {"spec": {"activeDeadlineSeconds": 7}}),
    "an image": ("PATCH", "", {"spec": {"containers": [{"name": "app", "image": "x"}]}}),
    "a container to debug": ("PATCH", "ephemeralcontainers", {"spec": {"ephemeralContainers": [DEBUGGER]}}),
    "more memory": (
        "PATCH",
        "resize",
        {"spec": {"containers": [{"name": "app", "resources": {"requests": {"memory": "2Gi"}}}]}},
    ),
    "a node": ("POST", "binding", {"metadata": {"name": "storefront"}, "target": {"kind": "Node", "name": "x"}}),
    "an eviction": ("POST", "eviction", {"metadata": {"name": "storefront"}}),
    "a deletion": ("DELETE", "", None),
}
"""What can be done to a Pod in other places than its status."""


@pytest.mark.rule("SEC-8")
@pytest.mark.parametrize("change", ELSEWHERE)
def test_elsewhere_nothing_is_changed(stage: Stage, change: str) -> None:
    before = stage.read()
    method, subresource, body = ELSEWHERE[change]
    content = STRATEGIC if method == "PATCH" else "json"
    refusal = stage.attempt(method, stage.path("storefront", subresource), body, content)
    assert stage.read() == before
    assert "of a Pod the operator may update the status subresource alone" in refusal


@pytest.mark.rule("SEC-8")
def test_no_pod_is_made_and_none_is_entered(stage: Stage) -> None:
    pods = stage.path("").rstrip("/")
    names = {each["metadata"]["name"] for each in stage.admin.read(pods)["items"]}
    made = {"metadata": {"name": "made"}, "spec": stage.read()["spec"]}
    told = "the operator may update the status subresource alone"
    assert told in stage.attempt("POST", pods, made)
    assert told in stage.attempt("POST", stage.path("storefront", "exec"))
    stage.attempt("DELETE", pods)
    assert {each["metadata"]["name"] for each in stage.admin.read(pods)["items"]} == names


@pytest.mark.rule("SEC-10")
def test_the_probe_is_refused_by_name(stage: Stage) -> None:
    """By which the operator knows that the policy is there; with 403, which no other trouble with a Pod is."""
    before = stage.read()
    refusal = probe(stage, "storefront")
    assert refusal.startswith("403: ")
    assert f"'{stage.account}-push' with binding '{stage.account}-push' denied request" in refusal
    assert "of a Pod's annotations the operator may set tuinly.com/pushed alone" in refusal
    assert stage.read() == before


@pytest.mark.rule("SEC-10")
@pytest.mark.parametrize("who", ["admin", "system:node:n1", "default", "the same name elsewhere"])
def test_nobody_else_is_hampered(cluster: Cluster, stage: Stage, who: str) -> None:
    accounts = {
        "default": f"system:serviceaccount:{stage.namespace}:default",
        "the same name elsewhere": f"system:serviceaccount:default:{stage.account}",
    }
    name = f"pod-{secrets.token_hex(4)}"
    stage.make(name)
    patch = {"metadata": {"labels": {"more": "x"}}, "status": {"phase": "Running", "podIP": "10.0.0.7"}}
    login = ("--as", accounts.get(who, who), "--as-group=system:masters")
    command = ("patch", "pod", name, "-n", stage.namespace, "--type=merge", *login)
    cluster.kubectl(*command, "--subresource=status", "-p", json.dumps(patch))
    cluster.kubectl(*command, "-p", json.dumps({"spec": {"activeDeadlineSeconds": 7}}))
    after = stage.read(name)
    assert (after["status"]["podIP"], after["spec"]["activeDeadlineSeconds"]) == ("10.0.0.7", 7)
    cluster.kubectl("delete", "pod", name, "-n", stage.namespace, "--grace-period=0", "--force", *login)


@pytest.mark.rule("SEC-8")
def test_all_expressions_fit_their_types(stage: Stage) -> None:
    """The API server's controllers check them against the schema of Pods, and warn of what cannot be."""
    path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{stage.account}-push"

    def is_checked() -> None:
        assert stage.admin.read(path)["status"]["typeChecking"] == {}

    eventually(is_checked)


@pytest.mark.rule("SEC-10")
def test_where_the_account_is_gone_nobody_is_refused(cluster: Cluster, namespace: str) -> None:
    """The policy is applied by itself, as for a namespaced installation; then its account is deleted."""
    name = f"t{secrets.token_hex(3)}"
    policy, binding = yaml.safe_load_all(POLICY.read_text())
    policy["metadata"]["name"] = binding["metadata"]["name"] = binding["spec"]["policyName"] = name
    binding["spec"]["paramRef"] |= {"name": "gone", "namespace": namespace}
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy, binding]})
    cluster.kubectl("create", "serviceaccount", "gone", "-n", namespace)
    allowed = ("--clusterrole=edit", f"--serviceaccount={namespace}:gone")
    cluster.kubectl("create", "rolebinding", "all", "-n", namespace, *allowed)
    operator = Objects(cluster, namespace, cluster.kubeconfig_for(namespace, "gone"))
    stage = Stage(namespace, "gone", Objects(cluster, namespace), operator)

    def refusal() -> str:
        return stage.attempt("PATCH", stage.path("storefront"), PUSH, MERGE)

    try:
        cluster.kubectl("apply", "-f", "-", input=both)
        stage.make("storefront", SECRET)
        wait_until(lambda: name in refusal(), what="the policy is in effect")
        cluster.kubectl("delete", "serviceaccount", "gone", "-n", namespace)
        wait_until(lambda: name not in refusal(), what="the policy knows of no account")
        stage.make("another", SECRET)
    finally:
        cluster.kubectl("delete", "-f", "-", input=both)
