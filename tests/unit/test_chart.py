"""The Helm chart, as it is rendered: the objects of the plain files by default, and what its values choose."""

import copy
import itertools
import json
import os
import re
import subprocess
import sysconfig
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.support import deployment
from tests.support.binaries import BinariesError
from tests.support.helm import CHART, Helm, HelmError
from tuinly_operator.base.settings import parse_settings

Json = dict[str, Any]
Identity = tuple[str, str, str]

ROOT = Path(__file__).parents[2]
PEER: Json = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    try:
        return Helm(tmp_path_factory.mktemp("helm"))
    except BinariesError as reason:
        pytest.skip(str(reason))


def by_identity(objects: list[Json]) -> dict[Identity, Json]:
    """Return objects by kind, namespace and name; each is there once."""
    found = {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


def plain(file: str) -> dict[Identity, Json]:
    texts = [ROOT / "crds" / "tuinlycredentials.yaml", ROOT / "deploy" / file]
    return by_identity([each for text in texts for each in yaml.safe_load_all(text.read_text())])


def composed(folder: Path, *components: str) -> dict[Identity, Json]:
    """Return the objects of a kustomization that takes these components to the base."""
    deploy = os.path.relpath(ROOT / "deploy", folder)
    kustomization = {
        "resources": [f"{deploy}/base"],
        "components": [f"{deploy}/components/{each}" for each in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    kubectl = Path(sysconfig.get_path("scripts")) / "kubectl"
    objects = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True).stdout  # noqa: S603 -- from its wheel
    return by_identity(list(yaml.safe_load_all(objects)))


def without_helms_own(each: Json) -> Json:
    """Take away what only a chart has: Helm's labels, and that the definition is kept."""
    each = copy.deepcopy(each)
    for label in ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart"):
        each["metadata"].get("labels", {}).pop(label, None)
    if each["kind"] == "CustomResourceDefinition":
        assert each["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    return each


def chosen(objects: list[Json], kind: str) -> Json:
    [only] = [each for each in objects if each["kind"] == kind]
    return only


def pod_of(objects: list[Json]) -> Json:
    pod: Json = chosen(objects, "Deployment")["spec"]["template"]["spec"]
    return pod


def variables(objects: list[Json]) -> dict[str, str]:
    return deployment.variables(chosen(objects, "Deployment"))


@pytest.mark.rule("OBS-13")
@pytest.mark.parametrize(("file", "values"), [("install.yaml", {}), ("namespaced.yaml", {"namespaces": ["shop"]})])
def test_the_objects_are_those_of_the_plain_files(helm: Helm, file: str, values: Json) -> None:
    """Object by object, but for the namespace, which Helm does not make, and what only a chart has."""
    ours, theirs = by_identity(helm.template(values)), plain(file)
    assert theirs.keys() - ours.keys() == {("Namespace", "", "tuinly-system")}
    assert ours.keys() <= theirs.keys()
    for identity, each in ours.items():
        assert without_helms_own(each) == theirs[identity], identity


@pytest.mark.rule("OBS-13", "OBS-15")
def test_two_releases_share_no_object_but_the_definition(helm: Helm) -> None:
    """Nor does the one select Pods of the other."""
    first, second = by_identity(helm.template()), by_identity(helm.template(release="second"))
    assert first.keys() & second.keys() == {("CustomResourceDefinition", "", "tuinlycredentials.tuinly.com")}
    selectors = [
        each[("Deployment", "tuinly-system", name)]["spec"]["selector"]["matchLabels"]
        for each, name in ((first, "tuinly-operator"), (second, "second-tuinly-operator"))
    ]
    assert selectors == [{"app.kubernetes.io/name": n} for n in ("tuinly-operator", "second-tuinly-operator")]
    settings = parse_settings(["run"], variables(list(second.values())))
    assert settings.lease == ("tuinly-system", "second-tuinly-operator")
    [role] = [each for key, each in second.items() if key[2] == "second-tuinly-operator-lease" and key[0] == "Role"]
    assert role["rules"][1]["resourceNames"] == ["second-tuinly-operator"]


@pytest.mark.parametrize("release", ["a" * 53, f"{'b' * 30}-tuinly-operator"])
def test_names_fit_whatever_a_release_is_called(helm: Helm, release: str) -> None:
    """A label's value, which the name is as well, and a Service's name end after 63 characters."""
    assert (
        max(len(name) for *_, name in by_identity(helm.template({"crds": {"enabled": False}}, release=release))) <= 63
    )


def test_several_namespaces_have_a_role_and_a_flag_each(helm: Helm) -> None:
    objects = helm.template({"namespaces": ["shop", "billing"]})
    keys = by_identity(objects).keys()
    for kind in ("Role", "RoleBinding"):
        assert {space for k, space, name in keys if (k, name) == (kind, "tuinly-operator")} == {"shop", "billing"}
    assert pod_of(objects)["containers"][0]["args"] == ["run", "--namespace=shop", "--namespace=billing"]
    assert not [key for key in keys if key[0] == "ClusterRoleBinding"]


def test_the_image_is_named_by_tag_or_digest(helm: Helm) -> None:
    image: Json = {"repository": "registry.example.com:5000/a/b", "pullSecrets": ["login"], "pullPolicy": "Always"}
    by_tag = pod_of(helm.template({"image": image | {"tag": "1.2"}}))
    assert by_tag["containers"][0]["image"] == "registry.example.com:5000/a/b:1.2"
    assert by_tag["containers"][0]["imagePullPolicy"] == "Always"
    assert by_tag["imagePullSecrets"] == [{"name": "login"}]
    digest = f"sha256:{'a' * 64}"
    by_digest = pod_of(helm.template({"image": image | {"tag": "1.2", "digest": digest}}))
    assert by_digest["containers"][0]["image"] == f"registry.example.com:5000/a/b@{digest}"


def test_settings_are_variables_of_the_program(helm: Helm) -> None:
    values = {"settings": {"TUINLY_LOG_FORMAT": "text", "TUINLY_CONCURRENCY": 7, "HTTPS_PROXY": "http://proxy:3128"}}
    given = variables(helm.template(values))
    assert given.pop("HTTPS_PROXY") == "http://proxy:3128"
    settings = parse_settings(["run"], given)
    assert (settings.log_format, settings.concurrency) == ("text", 7)


@pytest.mark.parametrize(
    ("bundle", "name", "key"),
    [
        ({"configMap": "ours", "key": "root.crt"}, "ours", "root.crt"),
        ({"pem": "-----BEGIN CERTIFICATE-----\n"}, "tuinly-operator-ca", "ca.pem"),
    ],
)
def test_certificate_authorities_come_from_a_config_map(helm: Helm, bundle: Json, name: str, key: str) -> None:
    """One that is there, or one that is made of the values."""
    objects = helm.template({"caBundle": bundle})
    pod = pod_of(objects)
    [mount], [volume] = pod["containers"][0]["volumeMounts"], pod["volumes"]
    assert volume == {"name": mount["name"], "configMap": {"name": name}}
    assert variables(objects)["TUINLY_CA_BUNDLE"] == f"{mount['mountPath']}/{key}"
    made = [each["data"] for each in objects if each["kind"] == "ConfigMap"]
    assert made == ([{key: bundle["pem"]}] if "pem" in bundle else [])


def test_the_platform_may_choose_the_user(helm: Helm) -> None:
    context = pod_of(helm.template({"runAsUser": None, "runAsGroup": None}))["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_where_and_how_pods_run_is_as_it_was_given(helm: Helm) -> None:
    values: Json = {
        "replicas": 3,
        "resources": {"limits": {"memory": "1Gi"}},
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "labels": {"team": "platform"},
        "podLabels": {"mesh": "off"},
        "podAnnotations": {"note": "yes"},
    }
    objects = helm.template(values)
    spec = chosen(objects, "Deployment")["spec"]
    template = spec["template"]
    assert spec["replicas"] == 3
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert template["spec"][name] == values[name]
    # Helm merges what is given with what is there by default.
    assert template["spec"]["containers"][0]["resources"]["limits"] == {"memory": "1Gi"}
    assert template["metadata"]["annotations"] == {"note": "yes"}
    assert {"team": "platform", "mesh": "off"}.items() <= template["metadata"]["labels"].items()
    definition = "CustomResourceDefinition"
    assert {each["metadata"]["labels"].get("team") for each in objects if each["kind"] != definition} == {"platform"}
    assert spec["selector"]["matchLabels"] == {"app.kubernetes.io/name": "tuinly-operator"}


@pytest.mark.rule("OBS-24", "SEC-9")
def test_the_network_policy_is_the_components_and_can_be_narrowed(helm: Helm) -> None:
    component = yaml.safe_load((ROOT / "deploy" / "components" / "network-policy" / "policy.yaml").read_text())
    policy = chosen(helm.template({"networkPolicy": {"enabled": True}}), "NetworkPolicy")
    assert without_helms_own(policy) == component
    narrow = {"enabled": True, "metricsFrom": [PEER], "dnsTo": [PEER], "endpointsTo": [PEER], "endpointPorts": [8443]}
    spec = chosen(helm.template({"networkPolicy": narrow}), "NetworkPolicy")["spec"]
    assert [rule["from"] for rule in spec["ingress"]] == [[PEER]]
    assert [rule["to"] for rule in spec["egress"]] == [[PEER], [PEER]]
    assert spec["egress"][1]["ports"] == [{"port": 8443, "protocol": "TCP"}]


@pytest.mark.rule("OBS-23")
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_drain_can_take_the_last_replica(helm: Helm, replicas: int) -> None:
    """With `minAvailable: 1` the eviction of a single replica is refused for ever, so that one has no budget."""
    budgets = [each for each in helm.template({"replicas": replicas}) if each["kind"] == "PodDisruptionBudget"]
    assert [budget["spec"]["minAvailable"] for budget in budgets] == ([1] if replicas > 1 else [])


@pytest.mark.rule("OBS-24")
def test_by_default_the_network_policy_admits_no_pod_to_health_and_metrics(helm: Helm) -> None:
    """No rule at all: a rule without peers would admit all."""
    spec = chosen(helm.template({"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]
    assert spec["ingress"] == []
    assert "Ingress" in spec["policyTypes"]


@pytest.mark.rule("SEC-7")
@pytest.mark.parametrize(
    ("values", "components"),
    [
        ({}, ["push"]),
        ({"namespaces": ["shop"]}, ["namespaced", "push"]),
        ({"namespaces": ["shop"]}, ["push", "namespaced"]),
    ],
    ids=json.dumps,
)
def test_push_is_the_component(helm: Helm, tmp_path: Path, values: Json, components: list[str]) -> None:
    """Whatever the order of the components is."""
    ours, theirs = by_identity(helm.template({**values, "push": {"enabled": True}})), composed(tmp_path, *components)
    for each in (ours, theirs):  # The flags' order is the components'.
        pod_of(list(each.values()))["containers"][0]["args"].sort()
    del ours["CustomResourceDefinition", "", "tuinlycredentials.tuinly.com"]
    del theirs["Namespace", "", "tuinly-system"]
    assert {identity: without_helms_own(each) for identity, each in ours.items()} == theirs


@pytest.mark.rule("SEC-7")
def test_push_adds_two_rights_a_flag_and_the_policy(helm: Helm, tmp_path: Path) -> None:
    """Nothing else; and where a cluster admin has applied the policy, that is left out."""
    without, pushing = plain("install.yaml"), composed(tmp_path, "push")
    added = pushing.keys() - without.keys()
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    assert added == {(kind, "", "tuinly-operator-push") for kind in kinds}
    role = pushing["ClusterRole", "", "tuinly-operator"]["rules"]
    assert role[-2:] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]},
    ]
    del role[-2:]
    args = pod_of(list(pushing.values()))["containers"][0]["args"]
    assert parse_settings(args, {}).push
    assert args.pop() == "--push"
    assert {identity: each for identity, each in pushing.items() if identity not in added} == {
        identity: each for identity, each in without.items() if identity[0] != "CustomResourceDefinition"
    }
    by_others = by_identity(helm.template({"push": {"enabled": True, "policy": False}}))
    assert by_others.keys() == by_identity(helm.template()).keys()
    rights = composed(tmp_path, "push/rights")
    assert rights.keys() == pushing.keys() - added
    assert rights["ClusterRole", "", "tuinly-operator"] == without_helms_own(
        by_others["ClusterRole", "", "tuinly-operator"]
    )


@pytest.mark.rule("SEC-7")
def test_the_policy_is_named_by_the_installation_and_binds_its_account(helm: Helm) -> None:
    objects = helm.template({"push": {"enabled": True}}, release="second")
    binding = chosen(objects, "ValidatingAdmissionPolicyBinding")
    assert binding["metadata"]["name"] == binding["spec"]["policyName"] == "second-tuinly-operator-push"
    assert chosen(objects, "ValidatingAdmissionPolicy")["metadata"]["name"] == "second-tuinly-operator-push"
    account = chosen(objects, "ServiceAccount")["metadata"]
    assert {k: binding["spec"]["paramRef"][k] for k in ("name", "namespace")} == {
        k: account[k] for k in ("name", "namespace")
    }


def test_the_notes_tell_of_a_policy_that_others_apply(helm: Helm) -> None:
    """By a command that gives what this release has left out."""
    command = ("install", "second", str(CHART), "--namespace", "tuinly-system", "--dry-run=client")
    values: Json = {"push": {"enabled": True, "policy": False}}
    told = helm.run(*command, values=values).partition("NOTES:\n")[2]
    assert "Push waits for its policy" in told
    for others in ({"push": {"enabled": True}}, {"push": {"policy": False}}):
        assert "policy" not in helm.run(*command, values=others).partition("NOTES:\n")[2]
    shell_words = re.search(r"helm (template .*?) \|", told.replace("\\\n", ""), re.DOTALL)
    assert shell_words
    arguments = shell_words[1].replace("CHART", str(CHART)).split()
    printed = [each for each in yaml.safe_load_all(helm.run(*arguments)) if each]
    ours = helm.template({"push": {"enabled": True}}, release="second")
    assert printed == [each for each in ours if each["kind"].startswith("ValidatingAdmissionPolicy")]


def test_monitors_and_alerts_are_those_of_the_plain_files(helm: Helm) -> None:
    on = {"enabled": True}
    values: Json = {"monitoring": {"podMonitor": on, "serviceMonitor": on, "alerts": on, "labels": {"release": "prom"}}}
    objects = helm.template(values)
    files = ("servicemonitor.yaml", "podmonitor.yaml", "prometheusrule.yaml")
    for kind, file in zip(("ServiceMonitor", "PodMonitor", "PrometheusRule"), files, strict=True):
        ours = without_helms_own(chosen(objects, kind))
        assert ours["metadata"]["labels"].pop("release") == "prom"
        assert ours == yaml.safe_load((ROOT / "deploy" / "monitoring" / file).read_text())
    pods = chosen(objects, "Deployment")["spec"]["template"]
    assert (
        chosen(objects, "PodMonitor")["spec"]["selector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()
    )
    assert "http" in [port["name"] for port in pods["spec"]["containers"][0]["ports"]]


def test_what_others_have_already_can_be_left_out(helm: Helm) -> None:
    objects = helm.template({"crds": {"enabled": False}, "teamRoles": {"enabled": False}})
    assert {"CustomResourceDefinition"}.isdisjoint(each["kind"] for each in objects)
    assert [each["metadata"]["name"] for each in objects if each["kind"] == "ClusterRole"] == ["tuinly-operator"]


@pytest.mark.rule("OBS-13")
@pytest.mark.parametrize(
    "values",
    [
        {"replica": 2},
        {"image": {"repo": "a/b"}},
        {"image": {"repository": "a/b:1.0"}},
        {"image": {"digest": "sha256:abc"}},
        {"image": {"pullPolicy": "Sometimes"}},
        {"namespaces": "shop"},
        {"namespaces": ["Shop"]},
        {"namespaces": ["shop", "shop"]},
        {"settings": {"TUINLY_LEASE": "a/b"}},
        {"settings": {"TUINLY_NAMESPACES": "shop"}},
        {"settings": {"PATH": "/bin"}},
        {"runAsUser": 0},
        {"runAsUser": "nobody"},
        {"networkPolicy": {"enabled": "yes"}},
        {"networkPolicy": {"endpointPorts": []}},
        {"resources": {"limit": {}}},
        {"fullnameOverride": "A"},
        {"push": True},
        {"push": {"rate": 20}},
        {"settings": {"TUINLY_PUSH": "true"}},
    ],
    ids=json.dumps,
)
def test_a_value_that_means_nothing_is_refused(helm: Helm, values: Json) -> None:
    with pytest.raises(HelmError, match="don't meet the specifications of the schema"):
        helm.template(values)


@pytest.mark.rule("OBS-13")
def test_each_value_is_in_the_schema_and_described() -> None:
    """With a comment or a description, and a default that the schema takes."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()

    def check(part: Json, value: object) -> None:
        if isinstance(value, dict) and "properties" in part:
            assert part["additionalProperties"] is False
            assert part["properties"].keys() >= value.keys()
            for name, inner in value.items():
                check(part["properties"][name], inner)

    for name, value in values.items():
        check(schema["properties"][name], value)


def test_the_versions_are_the_programs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert chart["version"] == chart["appVersion"]
    assert f'version = "{chart["version"]}"' in project


def test_the_chart_passes_lint(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART))


def test_the_test_asks_the_service_and_is_selected_by_nothing(helm: Helm) -> None:
    """What `helm test` runs: confined as the operator is, without a login, and never taken for a replica."""
    command = ("template", "tuinly-operator", str(CHART), "--namespace", "tuinly-system")
    objects = [each for each in yaml.safe_load_all(helm.run(*command)) if each]
    test, service, spec = chosen(objects, "Pod"), chosen(objects, "Service"), pod_of(objects)
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert test["metadata"]["labels"]["app.kubernetes.io/name"] != service["spec"]["selector"]["app.kubernetes.io/name"]
    assert test["spec"]["automountServiceAccountToken"] is False
    assert test["spec"]["securityContext"] == spec["securityContext"]
    [container], [operator] = test["spec"]["containers"], spec["containers"]
    assert (container["image"], container["securityContext"]) == (operator["image"], operator["securityContext"])
    address = f"http://{service['metadata']['name']}.tuinly-system:{service['spec']['ports'][0]['port']}/"
    assert address in container["args"][0]


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ([200], ["healthz", "readyz", "metrics"]),
        ([200, 503, 200], ["healthz", "readyz", "readyz", "metrics"]),
        ([None, 200], ["healthz", "healthz", "readyz", "metrics"]),
    ],
)
def test_the_test_asks_again_what_was_not_answered(
    helm: Helm, monkeypatch: pytest.MonkeyPatch, answers: list[int | None], asked: list[str]
) -> None:
    """Right after a rollout, a node may still lead the Service to a Pod that is gone."""
    endpoint = AnswersInOrder(answers)
    run_the_test(helm, monkeypatch, endpoint)
    assert endpoint.asked == asked


def test_the_test_fails_after_half_a_minute(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = AnswersInOrder([200, 503])
    with pytest.raises(OSError, match="503"):
        run_the_test(helm, monkeypatch, endpoint)
    assert endpoint.asked == ["healthz", *["readyz"] * 31]


class AnswersInOrder:
    """A status for each request, the last of them ever after; None refuses the connection."""

    def __init__(self, answers: list[int | None]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def urlopen(self, url: str, timeout: float) -> nullcontext[SimpleNamespace]:
        status = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(url.rpartition("/")[2])
        assert timeout
        if status != 200:
            raise OSError(status or "refused")
        return nullcontext(SimpleNamespace(status=status))


def run_the_test(helm: Helm, monkeypatch: pytest.MonkeyPatch, endpoint: AnswersInOrder) -> None:
    """Run what the chart's test runs, where the seconds that it waits pass at once."""
    seconds = itertools.count()
    monkeypatch.setattr("urllib.request.urlopen", endpoint.urlopen)
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    monkeypatch.setattr("time.sleep", lambda _: None)
    objects = [each for each in yaml.safe_load_all(helm.run("template", "tuinly-operator", str(CHART))) if each]
    exec(chosen(objects, "Pod")["spec"]["containers"][0]["args"][0], {})  # noqa: S102 -- our own chart's


@pytest.mark.parametrize("values", [{}, {"namespaces": ["shop"], "image": {"repository": "registry.example.com/t"}}])
def test_the_notes_say_the_next_step(helm: Helm, values: Json) -> None:
    """And first, where the image is not set, that it is not."""
    command = ("install", "tuinly-operator", str(CHART), "--namespace", "tuinly-system", "--dry-run=client")
    notes = helm.run(*command, values=values).partition("NOTES:\n")[2]
    assert ("THE IMAGE IS NOT SET" in notes) is (values == {})
    assert "helm test tuinly-operator --namespace tuinly-system" in notes
    credential = yaml.safe_load(notes.partition("<<'END'\n")[2].partition("  END\n")[0])
    assert credential["kind"] == "TuinlyCredential"
    assert ("all namespaces" in notes) is (values == {})
