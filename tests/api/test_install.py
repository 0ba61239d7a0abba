"""Installing, upgrading and removing, word for word as README and docs tell, in a cluster where nothing was before.

There is no kubelet, so no image is built and no rollout waited for; what those commands would be given is looked at.
"""

import json
import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.binaries import find_helm
from tests.support.cluster import LocalCluster, running_cluster
from tests.support.waiting import wait_until

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
EARLIER = Path(__file__).parent / "earlier"
"""The files of an earlier version, as they were."""

MONITORING = ("podmonitors", "prometheusrules", "servicemonitors")
README = (ROOT / "README.md").read_text()
IMAGE = "registry.example.com/tuinly-operator:0.1.0"
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

    def run(self, commands: str, *, folder: Path = ROOT) -> None:
        """Run the commands one after the other; each must succeed, in pipes as well."""
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
        assert "Warning" not in answer.stderr

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
        local.kubectl("create", "namespace", "shop")
        for plural, kind in zip(MONITORING, ("PodMonitor", "PrometheusRule", "ServiceMonitor"), strict=True):
            local.kubectl("create", "-f", "-", input=json.dumps(any_object(plural, kind, "monitoring.coreos.com")))
        yield local


@pytest.fixture
def bare(empty_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """Return a cluster without the operator and its definition; what a test installs goes with it."""
    yield empty_cluster
    of_ours = ("-l", "app.kubernetes.io/part-of=tuinly-operator")
    gone = ("namespace/tuinly-system", "namespace/tuinly-billing", "crd/tuinlycredentials.tuinly.com")
    empty_cluster.kubectl("delete", "clusterroles,clusterrolebindings", *of_ours)
    empty_cluster.kubectl("delete", "roles,rolebindings", "-n", "shop", *of_ours)
    empty_cluster.kubectl("delete", "--ignore-not-found", *gone, timeout=180)


@pytest.fixture
def shell(bare: LocalCluster, tmp_path: Path) -> Shell:
    return Shell(bare, tmp_path)


def told(heading: str) -> str:
    """Return the commands of the README's first block under a heading, but for waiting until Pods run."""
    section = re.split(r"^## ", README.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
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


def pods_are_admitted(cluster: LocalCluster, home: str = "tuinly-system") -> None:
    """Wait for a Pod with the image, which its namespace takes only under the restricted profile."""

    def images() -> set[str]:
        pods = found(cluster, "-n", home, "pods")["items"]
        return {pod["spec"]["containers"][0]["image"] for pod in pods}

    namespace = found(cluster, "namespace", home)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    wait_until(lambda: IMAGE in images(), what="a Pod is admitted")


def install_earlier(shell: Shell, file: str) -> None:
    """Install the earlier version, as its own README told, with a setting."""
    told_then = f"""
        kubectl apply -f crds/ -f {file}
        kubectl -n tuinly-system set image deployment/tuinly-operator operator={IMAGE.replace("0.1.0", "0.0.9")}
        kubectl -n tuinly-system set env deployment/tuinly-operator TUINLY_TOKEN_URL=https://oauth.tuinly.example/token
        kubectl wait --for=condition=Established crd/tuinlycredentials.tuinly.com
    """
    shell.run(told_then, folder=EARLIER)


def make_credential(cluster: LocalCluster) -> str:
    """Make a credential, and return its uid."""
    manifest = {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "metadata": {"name": "storefront"}}
    cluster.kubectl("create", "-n", "default", "-f", "-", input=json.dumps(manifest | {"spec": SPEC}))
    return str(found(cluster, "-n", "default", "tuinlycredential/storefront")["metadata"]["uid"])


def test_an_installation(bare: LocalCluster, shell: Shell) -> None:
    """The image that was built and pushed is the one that Pods are to run, and no other was asked for before."""
    shell.run(told("Install"))
    assert shell.noted() == [f"make image IMAGE={IMAGE}", f"docker push {IMAGE}"]
    assert container(bare)["image"] == IMAGE
    pods_are_admitted(bare)
    assert len(found(bare, "-n", "tuinly-system", "replicasets")["items"]) == 1


@pytest.mark.parametrize("file", ["deploy/install.yaml", "deploy/namespaced.yaml"])
def test_an_upgrade_from_an_earlier_version(bare: LocalCluster, shell: Shell, file: str) -> None:
    """Its Deployment goes on with the new image; settings and credentials stay, and nothing is left over."""
    install_earlier(shell, file)
    uid, before = make_credential(bare), found(bare, *DEPLOYMENT)
    shell.run(told("Upgrade").replace("deploy/install.yaml", file))
    after = found(bare, *DEPLOYMENT)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["selector"] == before["spec"]["selector"]
    assert container(bare)["image"] == IMAGE
    assert {"name": "TUINLY_TOKEN_URL", "value": "https://oauth.tuinly.example/token"} in container(bare)["env"]
    pods_are_admitted(bare)
    assert found(bare, "-n", "default", "tuinlycredential/storefront")["metadata"]["uid"] == uid
    assert names(EARLIER, file) <= names(ROOT, file)


def test_an_upgrade_of_an_installation_that_was_made_so(bare: LocalCluster, shell: Shell) -> None:
    """Applied again for nothing, it changes nothing; for another image, that alone."""
    shell.run(told("Install"))
    before = found(bare, *DEPLOYMENT)
    shell.run(told("Upgrade"))
    assert found(bare, *DEPLOYMENT)["metadata"]["generation"] == before["metadata"]["generation"]
    newer = IMAGE.replace("0.1.0", "0.1.1")
    shell.run(told("Upgrade").replace(IMAGE, newer))
    after = found(bare, *DEPLOYMENT)
    assert container(bare)["image"] == newer
    after["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE
    assert after["spec"] == before["spec"]


def test_a_removal_and_another_installation(bare: LocalCluster, shell: Shell) -> None:
    """Nothing of it is left, and nothing stands in the way of the next one."""
    shell.run(told("Install"))
    make_credential(bare)
    shell.run(told("Uninstall"))
    left = bare.kubectl("get", "crds,clusterroles,clusterrolebindings,namespaces", "-o", "name")
    assert "tuinly" not in left
    shell.run(told("Install"))
    assert container(bare)["image"] == IMAGE


def test_what_can_be_chosen_with_kustomize(bare: LocalCluster, shell: Shell, tmp_path: Path) -> None:
    """The kustomization of the docs takes all there is to choose, and is an upgrade of the plain files of before."""
    [kustomization], [commands] = documented("Kustomize", "yaml"), documented("Kustomize", "sh")
    install_earlier(shell, "deploy/namespaced.yaml")
    before = found(bare, *DEPLOYMENT)
    checkout = os.path.relpath(ROOT, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(kustomization.replace("- tuinly-operator/", f"- {checkout}/"))
    shell.run(commands.replace("tuinly-operator/", f"{checkout}/"), folder=tmp_path)
    after = found(bare, *DEPLOYMENT)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    pods_are_admitted(bare)
    assert container(bare)["args"] == ["run", "--namespace=shop"]
    [mount] = container(bare)["volumeMounts"]
    variables = {each["name"]: each["value"] for each in container(bare)["env"]}
    assert variables["TUINLY_CA_BUNDLE"] == f"{mount['mountPath']}/ca.pem"
    [volume] = after["spec"]["template"]["spec"]["volumes"]
    assert (volume["name"], volume["configMap"]["name"]) == (mount["name"], "tuinly-ca")
    [policy] = found(bare, "-n", "tuinly-system", "networkpolicies")["items"]
    assert policy["spec"]["podSelector"]["matchLabels"] == after["spec"]["selector"]["matchLabels"]
    assert len(found(bare, "-n", "tuinly-system", "servicemonitors,prometheusrules")["items"]) == 2
    assert "tuinly-operator\n" not in bare.kubectl("get", "clusterroles", "-o", "custom-columns=:metadata.name")


# --- The chart --------------------------------------------------------------------------------------------------------


def test_the_chart_is_installed_upgraded_removed_and_installed_again(bare: LocalCluster, shell: Shell) -> None:
    """As documented, with a second release beside it: each has its own, and what goes and stays is as told."""
    install, second, upgrade, _take_over, uninstall, *_ = documented("Helm", "sh")
    shell.run(install)
    pods_are_admitted(bare)
    bare.kubectl("wait", "--for=condition=Established", "crd/tuinlycredentials.tuinly.com")
    uid = make_credential(bare)

    shell.run(second)
    pods_are_admitted(bare, "tuinly-billing")
    first_user, second_user = (
        f"system:serviceaccount:{home}:{name}"
        for home, name in (("tuinly-system", "tuinly-operator"), ("tuinly-billing", "billing-tuinly-operator"))
    )
    assert can_read_secrets(bare, first_user, "default")
    assert can_read_secrets(bare, second_user, "shop")
    assert not can_read_secrets(bare, second_user, "default")
    shell.run("helm uninstall billing --namespace tuinly-billing")
    assert not can_read_secrets(bare, second_user, "shop")

    before = found(bare, *DEPLOYMENT)
    newer = IMAGE.replace("0.1.0", "0.1.1")
    shell.run(upgrade.replace("0.1.0", "0.1.1"))
    after = found(bare, *DEPLOYMENT)
    assert container(bare)["image"] == newer
    assert after["metadata"]["uid"] == before["metadata"]["uid"]

    shell.run(uninstall)
    left = bare.kubectl("get", "crds,clusterroles,clusterrolebindings", "-o", "name")
    assert re.findall(".*tuinly.*", left) == [
        "customresourcedefinition.apiextensions.k8s.io/tuinlycredentials.tuinly.com"
    ]
    assert bare.kubectl("get", "all,roles,rolebindings,pdb", "-n", "tuinly-system", "-o", "name") == ""
    assert found(bare, "-n", "default", "tuinlycredential/storefront")["metadata"]["uid"] == uid
    shell.run("\n".join(line for line in install.splitlines() if not line.startswith("kubectl")))
    assert container(bare)["image"] == IMAGE


def can_read_secrets(cluster: LocalCluster, user: str, namespace: str) -> bool:
    command = ("auth", "can-i", "get", "secrets", "--as", user, "--namespace", namespace)
    return cluster.kubectl(*command, check=False).strip() == "yes"


def test_the_chart_takes_over_from_the_files_of_an_earlier_version(bare: LocalCluster, shell: Shell) -> None:
    """The Deployment goes on, with its settings; and an upgrade by the chart follows as any other."""
    install_earlier(shell, "deploy/install.yaml")
    uid, before = make_credential(bare), found(bare, *DEPLOYMENT)
    _install, _second, upgrade, take_over, *_ = documented("Helm", "sh")
    shell.run(take_over)
    after = found(bare, *DEPLOYMENT)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["selector"] == before["spec"]["selector"]
    assert container(bare)["image"] == IMAGE
    assert {"name": "TUINLY_TOKEN_URL", "value": "https://oauth.tuinly.example/token"} in container(bare)["env"]
    pods_are_admitted(bare)
    shell.run(upgrade)
    assert found(bare, "-n", "default", "tuinlycredential/storefront")["metadata"]["uid"] == uid


def test_what_helm_template_prints_can_be_applied(bare: LocalCluster, shell: Shell) -> None:
    """As Argo CD and Flux do it, with all that can be chosen; its test's Pod is admitted, too."""
    values = """
        image: {repository: registry.example.com/tuinly-operator}
        namespaces: [shop]
        caBundle: {pem: PEM}
        networkPolicy: {enabled: true}
        monitoring: {podMonitor: {enabled: true}, serviceMonitor: {enabled: true}, alerts: {enabled: true}}
    """
    (command,) = (block for block in documented("Helm", "sh") if "helm template" in block)
    bare.kubectl("create", "namespace", "tuinly-system")
    bare.kubectl(
        "label",
        "namespace",
        "tuinly-system",
        *(f"pod-security.kubernetes.io/{k}=restricted" for k in ("enforce", "warn")),
    )
    shell.run(f"echo '{values}' > {shell.folder}/values.yaml")
    shell.run(command.replace("values.yaml", f"{shell.folder}/values.yaml"))
    pods_are_admitted(bare)
    kinds = "networkpolicies,configmaps,podmonitors,servicemonitors,prometheusrules"
    ours = bare.kubectl(
        "get", kinds, "-n", "tuinly-system", "-l", "app.kubernetes.io/part-of=tuinly-operator", "-o", "name"
    )
    assert len(ours.split()) == 5
    chart = f"helm template tuinly-operator deploy/chart --namespace tuinly-system -f {shell.folder}/values.yaml"
    shell.run(f"{chart} -s templates/tests/ready.yaml | kubectl create --dry-run=server --warnings-as-errors -f -")
