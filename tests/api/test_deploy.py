"""What a cluster admin applies, on a real API server: accepted without a warning, admitted, and no right too many."""

import copy
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster import Cluster, KubectlError
from tests.support.deployment import variables
from tests.support.waiting import wait_until
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.settings import parse_settings

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SAMPLES = sorted((DEPLOY / "samples").glob("*.yaml"))
PROJECT: Json = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
USER = "system:serviceaccount:tuinly-system:tuinly-operator"

APPLY = ("apply", "--server-side", "--warnings-as-errors")
PROFILE = "pod-security.kubernetes.io"

ALLOWED = {
    "tuinlycredentials.tuinly.com": ("list", "watch"),
    "tuinlycredentials.tuinly.com/status": ("patch",),
    "secrets": ("get", "list", "watch", "create", "patch", "delete"),
    "events.events.k8s.io": ("create",),
}
"""What the operator may do where it serves, cluster-wide or in its namespaces."""

LEASE = "leases.coordination.k8s.io tuinly-operator"
"""The one by which its replicas elect the one at work: a resource, and a name."""

ALLOWED_AT_HOME = {"leases.coordination.k8s.io": ("create",), LEASE: ("get", "update")}
"""What it may do besides in its own namespace."""

DENIED = {
    # kopf would write finalizers and annotations, if one let it.
    "tuinlycredentials.tuinly.com": ("get", "create", "update", "patch", "delete", "deletecollection"),
    "tuinlycredentials.tuinly.com/status": ("update",),
    "tuinlycredentials.tuinly.com/finalizers": ("update",),
    "secrets": ("update", "deletecollection"),
    "events.events.k8s.io": ("get", "list", "update", "delete"),
    "events": ("create",),
    "configmaps": ("get", "list", "create"),
    "pods": ("get", "list", "create", "patch", "delete"),
    "pods/status": ("patch",),
    "pods/exec": ("create",),
    "serviceaccounts": ("get", "impersonate"),
    "serviceaccounts/token": ("create",),
    "namespaces": ("get", "list", "watch"),
    "nodes": ("list",),
    "users": ("impersonate",),
    "groups": ("impersonate",),
    "deployments.apps": ("get", "patch"),
    "leases.coordination.k8s.io": ("list", "watch", "deletecollection"),
    LEASE: ("patch", "delete"),
    "leases.coordination.k8s.io somebodys": ("get", "update", "patch", "delete"),
    # That they are there is seen by the API server's discovery, which everybody may read.
    "customresourcedefinitions.apiextensions.k8s.io": ("get", "list", "watch", "create", "update", "patch", "delete"),
    "clusterroles.rbac.authorization.k8s.io": ("bind", "escalate"),
    "rolebindings.rbac.authorization.k8s.io": ("create",),
}


def pairs(rights: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(resource, verb) for resource, verbs in rights.items() for verb in verbs]


def manifests(file: Path) -> dict[str, Json]:
    """Read a file's objects by kind: each is there once, those for Lease and teams apart ("LeaseRole" and so on)."""
    objects = list(yaml.safe_load_all(file.read_text()))
    by_kind = {}
    for each in objects:
        ending = re.search("-(lease|view|edit)$", each["metadata"]["name"])
        by_kind[(ending[1].title() if ending else "") + each["kind"]] = each
    assert len(by_kind) == len(objects)
    return by_kind


INSTALL = manifests(DEPLOY / "install.yaml")
NAMESPACED = manifests(DEPLOY / "namespaced.yaml")


def may(cluster: Cluster, user: str, verb: str, resource: str, *where: str) -> bool:
    kind, _, subresource = resource.partition("/")
    what = (kind.replace(" ", "/"), *([f"--subresource={subresource}"] if subresource else []))
    answer = cluster.kubectl("auth", "can-i", verb, *what, *where, f"--as={user}", check=False).strip()
    assert answer in {"yes", "no"}
    return answer == "yes"


def pod_of(deployment: Json) -> Json:
    """Make a Pod of a Deployment's template, as its controllers would."""
    template = copy.deepcopy(deployment["spec"]["template"])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": deployment["metadata"]["name"]},
        "spec": template["spec"],
    }


@pytest.fixture
def restricted(cluster: Cluster, namespace: str) -> str:
    """Return the name of a new namespace that admits, and warns of, what the operator's own namespace does."""
    cluster.kubectl("label", "namespace", namespace, f"{PROFILE}/enforce=restricted", f"{PROFILE}/warn=restricted")
    return namespace


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("dry_run", ["--dry-run=none", "--dry-run=server"])
def test_the_installation_is_accepted_without_warnings(cluster: Cluster, dry_run: str) -> None:
    """As in the README; again and again, as an admin does."""
    cluster.kubectl(*APPLY, dry_run, "-f", str(ROOT / "crds"), "-f", str(DEPLOY / "install.yaml"))


@pytest.mark.rule("SEC-21")
@pytest.mark.usefixtures("installed")
def test_the_operators_pod_is_admitted(cluster: Cluster) -> None:
    """Its namespace enforces the restricted profile: the Pod passes, and the same Pod with more privilege does not."""
    create = ("create", "-n", "tuinly-system", "--dry-run=server", "--warnings-as-errors", "-f", "-")
    pod = pod_of(INSTALL["Deployment"])
    cluster.kubectl(*create, input=json.dumps(pod))
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        cluster.kubectl(*create, input=json.dumps(pod))


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
def test_the_samples_work(cluster: Cluster, restricted: str, file: Path) -> None:
    """A sample is valid, fits a restricted namespace, and its Pod mounts the Secret that its credential fills."""
    cluster.kubectl(*APPLY, "-n", restricted, "-f", str(file))
    sample = manifests(file)
    create = ("create", "-n", restricted, "--dry-run=server", "--warnings-as-errors", "-f", "-")
    cluster.kubectl(*create, input=json.dumps(pod_of(sample["Deployment"])))
    credential = sample["TuinlyCredential"]
    assert credential["spec"]["clientSecretRef"]["name"] == sample["Secret"]["metadata"]["name"]
    [volume] = sample["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert volume["secret"]["secretName"] == f"{credential['metadata']['name']}-token"


@pytest.mark.rule("SEC-6")
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("resource", "verb"), pairs(ALLOWED))
def test_a_right_that_the_operator_has(cluster: Cluster, resource: str, verb: str) -> None:
    assert may(cluster, USER, verb, resource, "--all-namespaces")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("resource", "verb"), pairs(ALLOWED_AT_HOME))
def test_a_right_that_the_operator_has_in_its_own_namespace_only(cluster: Cluster, resource: str, verb: str) -> None:
    assert may(cluster, USER, verb, resource, "--namespace=tuinly-system")
    assert not may(cluster, USER, verb, resource, "--namespace=default")


@pytest.mark.rule("SEC-6")
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("resource", "verb"), pairs(DENIED))
def test_a_right_that_the_operator_has_not(cluster: Cluster, resource: str, verb: str) -> None:
    """Not even in its own namespace."""
    assert not may(cluster, USER, verb, resource, "--namespace=tuinly-system")


@pytest.mark.rule("SEC-6")
def test_the_namespaced_installation_has_rights_in_its_namespace_only(cluster: Cluster, restricted: str) -> None:
    """Both of its namespaces are the test's here, or it would replace the other installation."""
    text = (DEPLOY / "namespaced.yaml").read_text()
    cluster.kubectl(*APPLY, "-f", "-", input=re.sub(r"\b(tuinly-system|shop)\b", restricted, text))
    user = USER.replace("tuinly-system", restricted)
    here, elsewhere = f"--namespace={restricted}", "--namespace=default"
    rights = pairs(ALLOWED | ALLOWED_AT_HOME)
    assert [pair for pair in rights if not may(cluster, user, pair[1], pair[0], here)] == []
    assert [pair for pair in rights if may(cluster, user, pair[1], pair[0], elsewhere)] == []


def test_both_installations_are_the_same_otherwise() -> None:
    """Two files that an admin can read from top to bottom, kept from drifting apart."""
    assert NAMESPACED["Role"]["rules"] == INSTALL["ClusterRole"]["rules"]
    others = INSTALL.keys() - {"ClusterRole", "ClusterRoleBinding", "Deployment"}
    assert {kind: NAMESPACED[kind] for kind in others} == {kind: INSTALL[kind] for kind in others}
    assert NAMESPACED.keys() - others == {"Role", "RoleBinding", "Deployment"}
    deployment = copy.deepcopy(NAMESPACED["Deployment"])
    assert deployment["spec"]["template"]["spec"]["containers"][0]["args"].pop() == "--namespace=shop"
    assert deployment == INSTALL["Deployment"]


TEAMS = {
    "view": {"get", "list", "watch"},
    "edit": {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"},
}
"""What users may do with credentials where they are given one of the built-in roles."""


@pytest.mark.rule("OBS-17")
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_the_built_in_roles_take_in_credentials(cluster: Cluster, namespace: str, role: str) -> None:
    """So a team needs no role of its own making; and no status of its own writing."""
    user = f"{role}-of-{namespace}"
    cluster.kubectl("create", "rolebinding", "team", "-n", namespace, f"--clusterrole={role}", f"--user={user}")
    expected = TEAMS["view" if role == "view" else "edit"]
    credentials, here = "tuinlycredentials.tuinly.com", f"--namespace={namespace}"
    wait_until(lambda: may(cluster, user, "watch", credentials, here), what=f"{role} takes in what is labelled so")
    assert {verb for verb in TEAMS["edit"] if may(cluster, user, verb, credentials, here)} == expected
    assert not may(cluster, user, "patch", f"{credentials}/status", here)
    assert not may(cluster, user, "list", credentials, "--namespace=default")


@pytest.mark.rule("SEC-6")
@pytest.mark.parametrize("name", ["install.yaml", "namespaced.yaml"])
def test_every_verb_has_its_reason(name: str) -> None:
    """One verb a line, and a comment of some words behind it."""
    lines = re.findall(r"^  verbs:(.*)\n((?:  - .*\n)*)", (DEPLOY / name).read_text(), flags=re.MULTILINE)
    assert len(lines) >= 4
    for inline, verbs in lines:
        assert inline == ""
        for line in verbs.splitlines():
            assert re.fullmatch(r"  - [a-z]+ +# (\S+ ){3,}\S+", line)


@pytest.mark.rule("SEC-6")
def test_no_right_is_granted_that_is_not_tested_here() -> None:
    """The tables above hold all of the roles."""
    granted = {
        (f"{resource.partition('/')[0]}.{rule['apiGroups'][0]}".rstrip("."), resource.partition("/")[2], name, verb)
        for kind, role in INSTALL.items()
        if kind.endswith("Role") and kind not in {"ViewClusterRole", "EditClusterRole"}
        for rule in role["rules"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }
    tested = {
        (*re.fullmatch(r"([^ /]+)/?([^ ]*) ?(.*)", resource).groups(), verb)  # type: ignore[union-attr]  # all match
        for resource, verb in pairs(ALLOWED | ALLOWED_AT_HOME)
    }
    assert granted == tested


@pytest.mark.parametrize("objects", [INSTALL, NAMESPACED], ids=["install.yaml", "namespaced.yaml"])
def test_the_deployment_fits_the_program(objects: dict[str, Json]) -> None:
    """Its flags and variables are the program's; Service and probes reach the port where that listens."""
    template = objects["Deployment"]["spec"]["template"]
    [container] = template["spec"]["containers"]
    settings = parse_settings(container["args"], variables(objects["Deployment"]))
    assert container["ports"] == [{"name": "http", "containerPort": settings.listen[1]}]
    probes = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
    assert {probe: get["path"] for probe, get in probes.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {get["port"] for get in probes.values()} == {"http"}
    service = objects["Service"]["spec"]
    assert service["ports"][0]["targetPort"] == "http"
    for selector in (service["selector"], objects["Deployment"]["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= template["metadata"]["labels"].items()


@pytest.mark.parametrize("objects", [INSTALL, NAMESPACED], ids=["install.yaml", "namespaced.yaml"])
def test_replicas_elect_one_by_the_lease_that_they_have_rights_to(objects: dict[str, Json]) -> None:
    """Two at work would ask for twice the tokens and write over each other's."""
    [container] = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    lease = parse_settings(container["args"], variables(objects["Deployment"])).lease
    role = objects["LeaseRole"]
    assert lease == NamespacedName(role["metadata"]["namespace"], "tuinly-operator")
    assert [rule.get("resourceNames") for rule in role["rules"]] == [None, [lease.name]]
    for binding in ("LeaseRoleBinding", "ClusterRoleBinding" if "ClusterRole" in objects else "RoleBinding"):
        [subject] = objects[binding]["subjects"]
        assert f"system:serviceaccount:{subject['namespace']}:{subject['name']}" == USER


def test_one_replica_is_always_there() -> None:
    """In a rollout, and while nodes are drained; on one node as on two."""
    spec = INSTALL["Deployment"]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    [spread] = spec["template"]["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    budget = INSTALL["PodDisruptionBudget"]["spec"]
    assert budget["minAvailable"] == 1
    assert budget["selector"] == spread["labelSelector"] == spec["selector"]


@pytest.mark.rule("SEC-21")
def test_the_deployment_takes_no_chances() -> None:
    """Beyond what the restricted profile asks: nothing is writable."""
    spec = INSTALL["Deployment"]["spec"]["template"]["spec"]
    assert spec.get("volumes", []) == []
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.rule("OBS-19")
@pytest.mark.parametrize("objects", [INSTALL, NAMESPACED], ids=["install.yaml", "namespaced.yaml"])
def test_no_probe_comes_before_the_program_listens(objects: dict[str, Json]) -> None:
    """Each probe that is refused leaves a Warning; the delay is what a start was measured to take."""
    [container] = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    assert probe["initialDelaySeconds"] == 3
    # A start on a slow node is given a minute, as the others wait for this one.
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 60
    assert "initialDelaySeconds" not in container["livenessProbe"] | container["readinessProbe"]


@pytest.mark.rule("OBS-18")
@pytest.mark.parametrize("name", ["install.yaml", "namespaced.yaml"])
def test_no_cluster_can_pull_the_image_that_the_files_name(name: str) -> None:
    """Its registry is of a domain that never exists (RFC 2606, section 2), and what sets it stands above."""
    text = (DEPLOY / name).read_text()
    [only] = manifests(DEPLOY / name)["Deployment"]["spec"]["template"]["spec"]["containers"]
    registry, _, rest = only["image"].partition("/")
    assert registry.endswith(".invalid")
    assert f'sed "s|{registry}/{rest}|$IMAGE|" deploy/{name} | kubectl apply -f -' in text
    assert text.count(f"image: {registry}/{rest}") == 1


# --- The image. Tests do without Docker, so it is not built here: only what can go stale unnoticed is checked. --------

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_image_fits_the_deployment() -> None:
    """Version, user and program are written in several places, and are the same."""
    image = f"{PROJECT['name']}:{PROJECT['version']}"
    assert f"docker build -t {image} ." in DOCKERFILE
    for objects in (INSTALL, NAMESPACED):
        pod = objects["Deployment"]["spec"]["template"]
        assert pod["spec"]["containers"][0]["image"] == f"registry.invalid/{image}"
        assert pod["metadata"]["labels"]["app.kubernetes.io/version"] == PROJECT["version"]
        user = pod["spec"]["securityContext"]
        assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in DOCKERFILE
    assert f"ENTRYPOINT {json.dumps(list(PROJECT['scripts']))}" in DOCKERFILE


@pytest.mark.rule("SEC-12")
def test_what_the_build_is_told_in_confidence_is_in_no_layer() -> None:
    """Certificates and pip.conf are secrets of each step that needs the network, and of no other."""
    steps = re.findall(r"^RUN ((?:.*\\\n)*.*)", DOCKERFILE, re.MULTILINE)
    secrets = [set(re.findall(r"--mount=type=secret,id=(\S+)", step)) for step in steps]
    online = [bool(re.search("install (?!.*--no-index)", step)) for step in steps]
    assert secrets == [{"ca-bundle", "pip.conf"} if needed else set() for needed in online]
    assert any(online)
    assert not re.search("^(ARG|ENV|COPY|ADD).*(CERT|INDEX|PROXY|pip.conf)", DOCKERFILE, re.MULTILINE)


def test_the_image_is_built_from_what_is_there() -> None:
    """Each COPY finds its files, and .dockerignore lets them through."""
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for source in line.split()
    ]
    assert copied
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert set(copied) == let_through
    locks = re.findall(r"--require-hashes \S+ \S+ -r (\S+)", DOCKERFILE)
    assert [lock for lock in locks if not (ROOT / lock).exists()] == []


def test_the_lock_holds_what_the_program_needs() -> None:
    """The operator is installed without a look at its dependencies: all of them come from the lock, with hashes."""
    lock = (ROOT / "requirements" / "operator.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\\n    --hash=sha256:", lock, re.MULTILINE))
    needed = {re.split("[^a-z0-9-]", dependency)[0] for dependency in PROJECT["dependencies"]}
    assert needed <= locked.keys()
