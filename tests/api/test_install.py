"""Installing, upgrading and removing, word for word as README and docs tell, in a cluster where nothing was before.

There is no kubelet, so no image is built and no rollout waited for; what those commands would be given is looked at.
"""

import json
import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.binaries import find_helm
from tests.support.cluster import LocalCluster, running_cluster
from tests.support.deployment import variables
from tests.support.manifests import IMAGE, VERSION
from tests.support.waiting import wait_until

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
EARLIER = Path(__file__).parent / "earlier"
"""The files of an earlier version, as they were."""

CLUSTER_WIDE = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
MONITORING = ("podmonitors", "prometheusrules", "servicemonitors")
README = (ROOT / "README.md").read_text()
UPGRADING = (ROOT / "docs" / "upgrading.md").read_text()
DEPLOYMENT = ("-n", "tuinly-system", "deployment/tuinly-operator")
pytestmark = pytest.mark.timeout(300)  # seconds: each ends with the removal of namespaces
SPEC = {"clientSecretRef": {"name": "storefront-client"}}


class Shell:
    """A shell in the checkout, with our kubectl and helm; its make and its docker only note what they are told."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self._cluster, self.folder = cluster, folder
        self._noted = folder / "noted"
        for name in ("make", "docker"):
            program = folder / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> {self._noted}\n')
            program.chmod(0o755)
        (folder / "helm").symlink_to(find_helm())

    def run(self, commands: str, *, folder: Path = ROOT, warning: str = "") -> None:
        """Run the commands one after the other; each must succeed, in pipes as well, without a warning but the one."""
        environ = os.environ | {
            "PATH": f"{self.folder}:{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "KUBECONFIG": str(self._cluster.kubeconfig),
            "KUBECACHEDIR": str(self._cluster.directory / "kubectl-cache"),
            **{f"HELM_{name}_HOME": str(self.folder / name) for name in ("CACHE", "CONFIG", "DATA")},
        }
        script = ["bash", "-euo", "pipefail", "-c", commands]
        answer = subprocess.run(  # noqa: S603 -- the README's commands
            script, cwd=folder, env=environ, capture_output=True, text=True, timeout=180, check=False
        )
        assert answer.returncode == 0, answer.stderr
        warnings = [line for line in answer.stderr.splitlines() if "Warning" in line]
        assert [line for line in warnings if not warning or warning not in line] == []

    def noted(self) -> list[str]:
        return self._noted.read_text().splitlines()


def any_object(plural: str, kind: str, group: str) -> Json:
    """Return a definition of a kind of somebody else's, which takes any object."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


@pytest.fixture(scope="module")
def empty_cluster() -> Iterator[LocalCluster]:
    if os.environ.get("KUBECONFIG_UNDER_TEST"):
        pytest.skip("installs, upgrades and removes, in a cluster that is not ours: KUBECONFIG_UNDER_TEST is set")
    with running_cluster() as local:
        for name in ("shop", "billing"):
            local.kubectl("create", "namespace", name)
        for plural, kind in zip(MONITORING, ("PodMonitor", "PrometheusRule", "ServiceMonitor"), strict=True):
            local.kubectl("create", "-f", "-", input=json.dumps(any_object(plural, kind, "monitoring.coreos.com")))
        yield local


@pytest.fixture
def bare(empty_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """Return a cluster without the operator and its definition; what a test installs goes with it."""
    yield empty_cluster
    of_ours = ("-l", "app.kubernetes.io/part-of=tuinly-operator")
    gone = ("namespace/tuinly-system", "namespace/tuinly-billing", "crd/tuinlycredentials.tuinly.com")
    empty_cluster.kubectl("delete", CLUSTER_WIDE, *of_ours)
    for name in ("shop", "billing"):
        empty_cluster.kubectl("delete", "roles,rolebindings", "-n", name, *of_ours)
    empty_cluster.kubectl("delete", "--ignore-not-found", *gone, timeout=180)


@pytest.fixture
def shell(bare: LocalCluster, tmp_path: Path) -> Shell:
    return Shell(bare, tmp_path)


def told(heading: str, page: str = README) -> str:
    """Return the commands of a page's first block under a heading, but for waiting until Pods run."""
    section = re.split(r"^## ", page.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
    block = re.search(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert block, heading
    commands = block[1]
    lines = [line for line in commands.splitlines() if "rollout status" not in line]
    assert len(lines) == len(commands.splitlines()) - commands.count("rollout status")
    return "\n".join(lines)


def documented(heading: str, language: str) -> list[str]:
    """Return the blocks under a heading of docs/installing.md."""
    text = (ROOT / "docs" / "installing.md").read_text()
    section = re.split(r"^## ", text.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def found(cluster: LocalCluster, *what: str) -> Json:
    answer: Json = json.loads(cluster.kubectl("get", *what, "-o", "json"))
    return answer


def container(cluster: LocalCluster) -> Json:
    [only] = found(cluster, *DEPLOYMENT)["spec"]["template"]["spec"]["containers"]
    return dict(only)


def names(version: Path, file: str) -> set[tuple[str, str]]:
    """Return kind and name of each object that a version installs by a file."""
    files = [*(version / "crds").glob("*.yaml"), version / file]
    objects = [each for file in files for each in yaml.safe_load_all(file.read_text())]
    return {(each["kind"], each["metadata"]["name"]) for each in objects}


def pods_are_admitted(cluster: LocalCluster, home: str = "tuinly-system", image: str = IMAGE) -> None:
    """Wait for a Pod with the image, which its namespace takes only under the restricted profile."""

    def images() -> set[str]:
        pods = found(cluster, "-n", home, "pods")["items"]
        return {pod["spec"]["containers"][0]["image"] for pod in pods}

    namespace = found(cluster, "namespace", home)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    wait_until(lambda: image in images(), what="a Pod is admitted")


def install_earlier(shell: Shell, file: str) -> None:
    """Install the earlier version, as its own README told, with a setting."""
    told_then = f"""
        kubectl apply -f crds/ -f {file}
        kubectl -n tuinly-system set image deployment/tuinly-operator operator={IMAGE.replace(VERSION, "0.0.9")}
        kubectl -n tuinly-system set env deployment/tuinly-operator TUINLY_TOKEN_URL=https://oauth.tuinly.example/token
        kubectl wait --for=condition=Established crd/tuinlycredentials.tuinly.com
    """
    shell.run(told_then, folder=EARLIER)


def make_credential(cluster: LocalCluster) -> str:
    """Make a credential, and return its uid."""
    manifest = {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "metadata": {"name": "storefront"}}
    cluster.kubectl("create", "-n", "default", "-f", "-", input=json.dumps(manifest | {"spec": SPEC}))
    return str(found(cluster, "-n", "default", "tuinlycredential/storefront")["metadata"]["uid"])


@pytest.mark.rule("OBS-11")
def test_an_installation(bare: LocalCluster, shell: Shell) -> None:
    """The image that was built and pushed is the one that Pods are to run, and no other was asked for before."""
    shell.run(told("Install"))
    assert shell.noted() == [f"make image IMAGE={IMAGE}", f"docker push {IMAGE}"]
    assert container(bare)["image"] == IMAGE
    pods_are_admitted(bare)
    assert len(found(bare, "-n", "tuinly-system", "replicasets")["items"]) == 1


@dataclass(frozen=True)
class Way:
    """A way to install.

    Attributes:
        earlier: the file of the earlier version, in whose place it comes.
        install: the documented commands that do so, and install again after a removal.
        remove: the documented commands that remove what was installed, and leave definition and credentials.
        folder: where these are run.
    """

    earlier: str
    install: str
    remove: str
    folder: Path = ROOT


def way_of(name: str, folder: Path) -> Way:
    """Return a way by its name; a folder is for what an admin writes."""
    everywhere, one_namespace = "deploy/install.yaml", "deploy/namespaced.yaml"
    if name.startswith("deploy/"):
        return Way(name, told("Plain files", UPGRADING).replace(everywhere, name), f"kubectl delete -f {name}")
    if name == "kustomize":
        return Way(one_namespace, kustomized(folder), "kubectl delete -k .", folder)
    _install, _second, _upgrade, take_over, uninstall, template, delete, *_ = documented("Helm", "sh")
    if name == "helm template":
        (folder / "values.yaml").write_text("image: {repository: registry.example.com/tuinly-operator}")
        template, delete = (each.replace("values.yaml", f"{folder}/values.yaml") for each in (template, delete))
        return Way(everywhere, template, delete)
    if name == "the chart for one namespace":
        return Way(one_namespace, take_over.rstrip() + " --set 'namespaces={shop}'", uninstall)
    return Way(everywhere, take_over, uninstall)


def kustomized(folder: Path) -> str:
    """Write the first kustomization of the docs, with Push, and return the commands that apply it."""
    kustomization, *_ = documented("Kustomize", "yaml")
    commands, _second = documented("Kustomize", "sh")
    write_kustomization(folder, kustomization)
    return commands.replace("tuinly-operator/", f"{os.path.relpath(ROOT, folder)}/")


def write_kustomization(folder: Path, text: str) -> None:
    """Write a kustomization of the docs where this checkout is not beside it, and take Push to its components."""
    checkout = os.path.relpath(ROOT, folder)
    text = re.sub(r"- [./]*tuinly-operator/", f"- {checkout}/", text)
    namespaced = f"- {checkout}/deploy/components/namespaced\n"
    text = text.replace(namespaced, f"{namespaced}- {checkout}/deploy/components/push\n")
    (folder / "kustomization.yaml").write_text(text)


def goes_on(cluster: LocalCluster, before: Json, credential: str) -> None:
    """Check that Deployment and credential are those of before, with their settings, but of this version."""
    after = found(cluster, *DEPLOYMENT)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["selector"] == before["spec"]["selector"]
    assert container(cluster)["image"] == IMAGE
    given = variables(after)
    assert given["TUINLY_TOKEN_URL"] == "https://oauth.tuinly.example/token"
    assert given["TUINLY_LEASE"] == "tuinly-system/tuinly-operator"
    pods_are_admitted(cluster)
    assert found(cluster, "-n", "default", "tuinlycredential/storefront")["metadata"]["uid"] == credential


def is_removed(cluster: LocalCluster, credential: str) -> None:
    """Check that of an installation nothing is left but the definition and the credential."""
    left = cluster.kubectl("get", f"crds,{CLUSTER_WIDE}", "-o", "name")
    definition = "customresourcedefinition.apiextensions.k8s.io/tuinlycredentials.tuinly.com"
    assert re.findall(".*tuinly.*", left) == [definition]
    ours = ("-l", "app.kubernetes.io/part-of=tuinly-operator", "-o", "name")
    for namespace in ("tuinly-system", "shop"):
        kinds = "all,serviceaccounts,roles,rolebindings,pdb,networkpolicies,servicemonitors,prometheusrules"
        what = ("get", kinds, "-n", namespace, *ours)
        wait_until(lambda: cluster.kubectl(*what) == "", what=f"nothing is left in {namespace}")  # noqa: B023 -- waited for
    assert found(cluster, "-n", "default", "tuinlycredential/storefront")["metadata"]["uid"] == credential


@pytest.mark.rule("OBS-11", "OBS-14", "OBS-16")
@pytest.mark.parametrize(
    "name",
    [
        "deploy/install.yaml",
        "deploy/namespaced.yaml",
        "kustomize",
        "the chart",
        "the chart for one namespace",
        "helm template",
    ],
)
def test_an_upgrade_from_an_earlier_version_a_removal_and_another_installation(
    bare: LocalCluster, shell: Shell, tmp_path: Path, name: str
) -> None:
    """Each way comes in the place of the earlier version's files, whose Deployment, settings and credentials stay."""
    way = way_of(name, tmp_path)
    install_earlier(shell, way.earlier)
    uid, before = make_credential(bare), found(bare, *DEPLOYMENT)
    shell.run(way.install, folder=way.folder)
    goes_on(bare, before, uid)
    assert names(EARLIER, way.earlier) <= names(ROOT, way.earlier)
    shell.run(way.remove, folder=way.folder)
    is_removed(bare, uid)
    shell.run(way.install, folder=way.folder)
    assert container(bare)["image"] == IMAGE
    pods_are_admitted(bare)


@pytest.mark.rule("OBS-11")
def test_an_upgrade_of_an_installation_that_was_made_so(bare: LocalCluster, shell: Shell) -> None:
    """Applied again for nothing, it changes nothing; for another image, that alone."""
    shell.run(told("Install"))
    before = found(bare, *DEPLOYMENT)
    shell.run(told("Plain files", UPGRADING))
    assert found(bare, *DEPLOYMENT)["metadata"]["generation"] == before["metadata"]["generation"]
    newer = IMAGE.replace(VERSION, "9.9.9")
    shell.run(told("Plain files", UPGRADING).replace(IMAGE, newer))
    after = found(bare, *DEPLOYMENT)
    assert container(bare)["image"] == newer
    after["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE
    assert after["spec"] == before["spec"]


@pytest.mark.rule("OBS-11")
def test_a_removal_and_another_installation(bare: LocalCluster, shell: Shell) -> None:
    """Nothing of it is left, and nothing stands in the way of the next one."""
    shell.run(told("Install"))
    make_credential(bare)
    shell.run(told("Uninstall"))
    left = bare.kubectl("get", "crds,clusterroles,clusterrolebindings,namespaces", "-o", "name")
    assert "tuinly" not in left
    shell.run(told("Install"))
    assert container(bare)["image"] == IMAGE


@pytest.mark.rule("OBS-12")
def test_what_can_be_chosen_with_kustomize(bare: LocalCluster, shell: Shell, tmp_path: Path) -> None:
    """The kustomization of the docs takes all there is to choose."""
    shell.run(kustomized(tmp_path), folder=tmp_path)
    pods_are_admitted(bare)
    deployment = found(bare, *DEPLOYMENT)
    assert container(bare)["args"] == ["run", "--namespace=shop", "--push"]
    [mount] = container(bare)["volumeMounts"]
    assert variables(deployment)["TUINLY_CA_BUNDLE"] == f"{mount['mountPath']}/ca.pem"
    [volume] = deployment["spec"]["template"]["spec"]["volumes"]
    assert (volume["name"], volume["configMap"]["name"]) == (mount["name"], "tuinly-ca")
    [policy] = found(bare, "-n", "tuinly-system", "networkpolicies")["items"]
    assert policy["spec"]["podSelector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"]
    assert len(found(bare, "-n", "tuinly-system", "servicemonitors,prometheusrules")["items"]) == 2
    assert "tuinly-operator\n" not in bare.kubectl("get", "clusterroles", "-o", "custom-columns=:metadata.name")
    found(bare, "validatingadmissionpolicybinding/tuinly-operator-push")


@pytest.mark.rule("OBS-15")
def test_two_installations_by_kustomize_are_side_by_side(bare: LocalCluster, shell: Shell, tmp_path: Path) -> None:
    """Each has names, a Lease, rights and a policy of its own, and goes without the other."""
    shell.run(kustomized(tmp_path), folder=tmp_path)
    _first, of_names, of_rights = documented("Kustomize", "yaml")
    second = tmp_path / "second"
    (second / "names").mkdir(parents=True)
    write_kustomization(second / "names", of_names)
    write_kustomization(second, of_rights)
    _first, apply_second = documented("Kustomize", "sh")
    shell.run(apply_second, folder=tmp_path)
    pods_are_admitted(bare)
    pods_are_admitted(bare, "tuinly-billing")
    each_serves_its_own(bare, "billing-tuinly-operator")
    deployment = found(bare, "-n", "tuinly-billing", "deployment/billing-tuinly-operator")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["args"] == ["run", "--namespace=billing", "--push"]
    assert variables(deployment)["TUINLY_LEASE"] == "tuinly-billing/billing-tuinly-operator"
    role = found(bare, "-n", "tuinly-billing", "role/billing-tuinly-operator-lease")
    assert role["rules"][1]["resourceNames"] == ["billing-tuinly-operator"]
    parameter = found(bare, "validatingadmissionpolicybinding/billing-tuinly-operator-push")["spec"]["paramRef"]
    assert (parameter["namespace"], parameter["name"]) == ("tuinly-billing", "billing-tuinly-operator")
    shell.run("kubectl delete -k second", folder=tmp_path)
    assert may(bare, FIRST, "get", "secrets", "shop")
    assert not may(bare, "system:serviceaccount:tuinly-billing:billing-tuinly-operator", "get", "secrets", "billing")
    found(bare, "validatingadmissionpolicybinding/tuinly-operator-push")


FIRST = "system:serviceaccount:tuinly-system:tuinly-operator"


def may(cluster: LocalCluster, user: str, verb: str, resource: str, namespace: str) -> bool:
    command = ("auth", "can-i", verb, resource, "--as", user, "--namespace", namespace)
    return cluster.kubectl(*command, check=False).strip() == "yes"


def each_serves_its_own(cluster: LocalCluster, second: str) -> None:
    """Check whose Secrets the accounts of two installations may read: the first serves shop, the second billing."""
    users = {"shop": FIRST, "billing": f"system:serviceaccount:tuinly-billing:{second}"}
    for own, user in users.items():
        assert {each for each in ("shop", "billing", "default") if may(cluster, user, "get", "secrets", each)} == {own}


# --- The chart --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("OBS-15", "OBS-16")
def test_the_chart_is_installed_upgraded_removed_and_installed_again(bare: LocalCluster, shell: Shell) -> None:
    """As documented, with a second release beside it: each has its own, and what goes and stays is as told."""
    install, second, upgrade, _take_over, uninstall, *_ = documented("Helm", "sh")
    shell.run(install)
    pods_are_admitted(bare)
    bare.kubectl("wait", "--for=condition=Established", "crd/tuinlycredentials.tuinly.com")
    uid = make_credential(bare)

    assert may(bare, FIRST, "get", "secrets", "default")
    shell.run(second)
    pods_are_admitted(bare, "tuinly-billing")
    each_serves_its_own(bare, "billing-tuinly-operator")
    shell.run("helm uninstall billing --namespace tuinly-billing")
    assert may(bare, FIRST, "get", "secrets", "shop")

    before = found(bare, *DEPLOYMENT)
    newer = IMAGE.replace(VERSION, "9.9.9")
    shell.run(upgrade.replace(VERSION, "9.9.9"))
    after = found(bare, *DEPLOYMENT)
    assert container(bare)["image"] == newer
    assert after["metadata"]["uid"] == before["metadata"]["uid"]

    shell.run(uninstall)
    is_removed(bare, uid)
    shell.run("\n".join(line for line in install.splitlines() if not line.startswith("kubectl")))
    assert container(bare)["image"] == IMAGE

    shell.run(uninstall)
    # What Helm or "create" has made lacks an annotation of kubectl's own, which it adds, and says so.
    shell.run(told("Install"), warning="last-applied-configuration")
    assert container(bare)["image"] == IMAGE
    assert found(bare, "-n", "default", "tuinlycredential/storefront")["metadata"]["uid"] == uid


CHOICES = f"""
image:
  repository: registry.example.com/tuinly-operator
  digest: "sha256:{"a" * 64}"
  pullPolicy: Always
  pullSecrets: [login]
namespaces: [shop, billing]
push: {{enabled: true}}
settings: {{TUINLY_LOG_FORMAT: text}}
caBundle: {{pem: PEM}}
replicas: 3
resources: {{requests: {{cpu: 1, memory: 1Gi}}, limits: {{memory: 1Gi}}}}
runAsUser: null
nodeSelector: {{pool: system}}
tolerations: [{{key: pool, operator: Equal, value: system, effect: NoSchedule}}]
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/arch, operator: In, values: [amd64]}}]}}]
priorityClassName: system-cluster-critical
labels: {{team: platform}}
podLabels: {{mesh: "off"}}
podAnnotations: {{note: "yes"}}
networkPolicy:
  enabled: true
  metricsFrom: [{{namespaceSelector: {{matchLabels: {{team: monitoring}}}}}}]
  dnsTo: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{k8s-app: kube-dns}}}}}}]
  endpointsTo: [{{ipBlock: {{cidr: 10.0.0.0/8}}}}]
monitoring:
  podMonitor: {{enabled: true}}
  serviceMonitor: {{enabled: true}}
  alerts: {{enabled: true}}
  labels: {{release: prom}}
"""


@pytest.mark.rule("OBS-13")
def test_what_helm_template_prints_can_be_applied(bare: LocalCluster, shell: Shell) -> None:
    """As Argo CD and Flux do it, with all that can be chosen; its test's Pod is admitted, too."""
    _install, _second, _upgrade, _take_over, _uninstall, template, *_ = documented("Helm", "sh")
    bare.kubectl("create", "namespace", "tuinly-system")
    restricted = (f"pod-security.kubernetes.io/{each}=restricted" for each in ("enforce", "warn"))
    bare.kubectl("label", "namespace", "tuinly-system", *restricted)
    values = shell.folder / "values.yaml"
    values.write_text(CHOICES)
    shell.run(template.replace("values.yaml", str(values)))
    pods_are_admitted(bare, image=f"registry.example.com/tuinly-operator@sha256:{'a' * 64}")
    kinds = "networkpolicies,configmaps,podmonitors,servicemonitors,prometheusrules"
    ours = ("-l", "app.kubernetes.io/part-of=tuinly-operator,team=platform", "-o", "name")
    assert len(bare.kubectl("get", kinds, "-n", "tuinly-system", *ours).split()) == 5
    found(bare, "validatingadmissionpolicybinding/tuinly-operator-push")
    assert {each for each in ("shop", "billing", "default") if may(bare, FIRST, "list", "pods", each)} == {
        "shop",
        "billing",
    }
    chart = f"helm template tuinly-operator deploy/chart --namespace tuinly-system -f {values}"
    shell.run(f"{chart} -s templates/tests/ready.yaml | kubectl create --dry-run=server --warnings-as-errors -f -")


@pytest.mark.rule("SEC-7")
def test_push_is_added_where_a_cluster_admin_has_applied_its_policy(bare: LocalCluster, shell: Shell) -> None:
    """The policy by itself, for the usual names or for those of a release; then a release without one of its own."""
    switch_on, usual, of_a_release = documented("Push", "sh")
    install, *_ = documented("Helm", "sh")
    shell.run(usual)
    shell.run(of_a_release)
    for name, namespace in (("tuinly-operator", "tuinly-system"), ("billing-tuinly-operator", "tuinly-billing")):
        binding = found(bare, f"validatingadmissionpolicybinding/{name}-push")["spec"]
        assert (binding["paramRef"]["name"], binding["paramRef"]["namespace"]) == (name, namespace)
        assert found(bare, f"validatingadmissionpolicy/{binding['policyName']}")
    shell.run(install)
    assert not may(bare, FIRST, "list", "pods", "shop")
    shell.run(switch_on.rstrip() + " --set push.policy=false")
    assert may(bare, FIRST, "list", "pods", "shop")
    assert container(bare)["args"] == ["run", "--push"]
    shell.run(switch_on.replace("true", "false"))
    assert not may(bare, FIRST, "list", "pods", "shop")
    found(bare, "validatingadmissionpolicybinding/tuinly-operator-push")
