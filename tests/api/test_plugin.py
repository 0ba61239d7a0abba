"""`kubectl tuinly` on the real API server, as people with `view`, with `edit` and with no rights."""

import base64
import json
import re
import time
import zipfile
from pathlib import Path

import pytest

from kubectl_tuinly.edges.access import Access, RefusedError
from kubectl_tuinly.edges.cluster import Cluster as AskedCluster
from tests.support.acts import force
from tests.support.canary import Canary, sightings
from tests.support.cluster import Cluster
from tests.support.crd import GOOD, Credentials
from tests.support.manifests import VERSION
from tests.support.objects import Json
from tests.support.plugin import Plugin, environment
from tests.support.sandbox import Fault
from tests.support.tenant import Tenant
from tests.support.waiting import eventually

READY, NOT_READY, WRONG_USE, UNCHECKED = range(4)


@pytest.fixture
def admin(cluster: Cluster) -> Plugin:
    return Plugin(cluster)


@pytest.fixture
def viewer(admin: Plugin, namespace: str, installed: None) -> Plugin:
    """Somebody with the role `view`, which the installation adds to."""
    del installed
    return admin.bound("view", "vera", namespace)


@pytest.fixture
def editor(admin: Plugin, namespace: str, installed: None) -> Plugin:
    """Somebody with the role `edit`, which the installation adds to."""
    del installed
    return admin.bound("edit", "edda", namespace)


@pytest.fixture
def nobody(admin: Plugin) -> Plugin:
    return admin.by("norbert")


@pytest.fixture
def where(namespace: str) -> tuple[str, str]:
    return "-n", namespace


# status ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("PLUGIN-4", "PLUGIN-6")
@pytest.mark.usefixtures("operator")
def test_status_shows_first_what_needs_attention(tenant: Tenant, viewer: Plugin, where: tuple[str, str]) -> None:
    tenant.start().await_ready()
    broken = Tenant(tenant.objects, tenant.sandbox, "broken")
    broken.apply()
    broken.await_condition("Ready", "False", "ClientSecretNotFound")
    ran = viewer.run("status", *where)
    assert ran.status == NOT_READY, ran.err
    header, first, second = ran.out.splitlines()
    assert header.split("   ")[0] == "NAME"
    assert first.split()[:2] == ["broken", "no"]
    assert "ClientSecretNotFound   you" in first
    assert second.split()[:2] == ["storefront", "yes"]
    assert "██████████" in second
    assert viewer.run("status", "storefront", *where).status == READY


@pytest.mark.rule("PLUGIN-6")
@pytest.mark.usefixtures("operator")
def test_status_is_data_for_programs(tenant: Tenant, viewer: Plugin, where: tuple[str, str]) -> None:
    tenant.start().await_ready()
    [item] = json.loads(viewer.run("status", *where, "-o", "json").out)["items"]
    status = tenant.status()
    assert item["name"] == "storefront"
    assert item["ready"] is True
    assert item["tokenExpirationTime"] == status["tokenExpirationTime"]
    assert item["secondsLeft"] > 0
    assert "secretName: storefront-token" in viewer.run("status", *where, "-o", "yaml").out
    assert "storefront-token" in viewer.run("status", *where, "-o", "wide").out


@pytest.mark.rule("PLUGIN-6")
def test_status_selects_by_labels_and_in_all_namespaces(cluster: Cluster, admin: Plugin, namespace: str) -> None:
    credential = {**GOOD, "metadata": {"name": "storefront", "labels": {"only": namespace}}}
    Credentials(cluster, namespace).create(credential)
    Credentials(cluster, namespace).create({**GOOD, "metadata": {"name": "other"}})
    ran = admin.run("status", "-A", "-l", f"only={namespace}")
    [_, row] = ran.out.splitlines()
    assert row.split()[:3] == [namespace, "storefront", "no"]


def test_a_name_that_is_not_there_is_told_with_those_that_are(
    cluster: Cluster, viewer: Plugin, namespace: str, where: tuple[str, str]
) -> None:
    Credentials(cluster, namespace).create(GOOD)
    ran = viewer.run("status", "stormfront", *where)
    assert ran.status == NOT_READY
    assert f"no TuinlyCredential stormfront in the namespace {namespace}; there are: storefront" in ran.err


@pytest.mark.rule("PLUGIN-4")
def test_who_may_not_look_is_told_what_to_ask_for(nobody: Plugin, where: tuple[str, str]) -> None:
    ran = nobody.run("status", *where)
    assert ran.status == UNCHECKED
    assert 'User "norbert" cannot list resource "tuinlycredentials"' in ran.err
    assert "ask for the role view" in ran.err


@pytest.mark.rule("PLUGIN-6")
@pytest.mark.usefixtures("operator")
def test_watch_tells_what_changes(tenant: Tenant, viewer: Plugin, where: tuple[str, str]) -> None:
    tenant.apply()
    with viewer.started("status", "--watch", *where) as lines:
        assert next(lines).split()[:2] == ["storefront", "no"]
        tenant.register()
        tenant.apply_client_secret()
        assert any(line.split()[:2] == ["storefront", "yes"] for line in lines)
        tenant.delete()


# why ------------------------------------------------------------------------------------------------------------------


def steps(out: str) -> dict[str, tuple[str, str]]:
    """Verdict and text by step."""
    lines = (re.split(" {2,}", line, maxsplit=2) for line in out.splitlines())
    return {line[1]: (line[0], line[2]) for line in lines if len(line) == 3}


@pytest.mark.rule("PLUGIN-7")
@pytest.mark.usefixtures("operator")
def test_why_checks_each_step_with_the_users_rights(
    tenant: Tenant, editor: Plugin, admin: Plugin, where: tuple[str, str]
) -> None:
    tenant.start().await_ready()
    ran = editor.run("why", "storefront", *where)
    assert ran.status == READY, ran.err
    found = steps(ran.out)
    assert found["Client Secret"] == (
        "fine",
        "storefront-client has the keys client_id, client_secret; last written by tests",
    )
    assert found["Last attempt"][0] == "fine"
    assert found["Target"][0] == "fine"
    assert found["Pods"] == ("fine", "no Pod uses the Secret storefront-token")
    assert found["Operator"][0] == "not checked"
    assert "Next: Nothing. What you may not read was not checked: 1 of 7 steps." in ran.out
    assert "tuinly-system/tuinly-operator serves it" in admin.run("why", "storefront", *where).out


@pytest.mark.rule("PLUGIN-7")
@pytest.mark.usefixtures("operator")
def test_why_without_the_right_to_secrets_says_so_and_goes_on(
    tenant: Tenant, viewer: Plugin, where: tuple[str, str]
) -> None:
    tenant.start().await_ready()
    found = steps(viewer.run("why", "storefront", *where).out)
    assert {title for title, (verdict, _) in found.items() if verdict == "not checked"} == {
        "Operator",
        "Client Secret",
        "Target",
    }


@pytest.mark.rule("PLUGIN-7")
@pytest.mark.usefixtures("operator")
def test_why_ends_with_the_one_thing_to_do(tenant: Tenant, editor: Plugin, where: tuple[str, str]) -> None:
    tenant.apply()
    tenant.await_condition("Ready", "False", "ClientSecretNotFound")
    ran = editor.run("why", "storefront", *where)
    assert ran.status == NOT_READY
    assert ran.out.endswith("Next: The Secret storefront-client does not exist; create it in this namespace.\n")
    tenant.register()
    tenant.apply_client_secret({"client_id": tenant.client.id, "client_secret": "wrong"})
    tenant.await_condition("Ready", "False", "InvalidClient")
    ran = editor.run("why", "storefront", *where)
    assert "Next: InvalidClient: " in ran.out
    assert "last Warning InvalidClient" in ran.out


@pytest.mark.rule("PLUGIN-8")
@pytest.mark.usefixtures("operator")
def test_why_reads_a_client_secret_only_where_its_metadata_does_not_tell(
    tenant: Tenant, editor: Plugin, cluster: Cluster, where: tuple[str, str]
) -> None:
    """A Secret without managed fields; what it holds is judged, and not shown."""
    tenant.start().await_ready()
    name = tenant.client_secret_name
    tenant.objects.merge("Secret", name, {"metadata": {"managedFields": [{}]}})
    tenant.apply({"suspend": True})
    tenant.objects.merge("Secret", name, {"data": {"client_secret": base64.b64encode(b"canary\x00value").decode()}})
    tenant.objects.merge("Secret", name, {"metadata": {"managedFields": [{}]}})
    cluster.kubectl("get", "secret", name, *where)
    ran = editor.run("why", "storefront", *where)
    assert "control characters or a line end in key client_secret" in ran.out
    assert "canary" not in ran.out + ran.err


@pytest.mark.rule("PLUGIN-7")
@pytest.mark.usefixtures("operator")
def test_why_names_pods_that_keep_an_older_token(tenant: Tenant, editor: Plugin, where: tuple[str, str]) -> None:
    tenant.start().await_ready()
    written = time.time()
    pod(
        tenant,
        "old",
        {"env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "storefront-token", "key": "access_token"}}}]},
        written - 600,
    )
    pod(tenant, "good", {"volumeMounts": [{"name": "token", "mountPath": "/t"}]}, written - 600)
    ran = editor.run("why", "storefront", *where)
    text = steps(ran.out)["Pods"][1]
    assert "old/main (in an environment variable) started before the present token was written" in text
    assert "good/main (as a directory) sees the present token" in text
    assert "Next: Restart old, and mount the Secret as a directory, without subPath." in ran.out


def pod(tenant: Tenant, name: str, container: Json, started: float) -> None:
    """Make a Pod that runs, as a kubelet would tell; there is no node."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))
    namespace = tenant.objects.namespace
    spec = {
        "nodeName": "somewhere",
        "containers": [{"name": "main", "image": "example.com/none", **container}],
        "volumes": [{"name": "token", "secret": {"secretName": "storefront-token"}}],
    }
    path = f"/api/v1/namespaces/{namespace}/pods"
    tenant.objects.ask("POST", path, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    told = {
        "name": "main",
        "ready": True,
        "restartCount": 0,
        "image": "",
        "imageID": "",
        "state": {"running": {"startedAt": at}},
    }
    status = {"status": {"phase": "Running", "startTime": at, "containerStatuses": [told]}}
    tenant.objects.ask("PATCH", f"{path}/{name}/status", status, "strategic-merge-patch+json")


# renew, suspend, resume -----------------------------------------------------------------------------------------------


@pytest.mark.rule("PLUGIN-9")
@pytest.mark.usefixtures("operator")
def test_renew_forces_an_exchange_and_follows_it_to_its_end(
    tenant: Tenant, editor: Plugin, where: tuple[str, str]
) -> None:
    before = tenant.start().await_ready().token
    ran = editor.run("renew", "storefront", "--wait", *where)
    assert ran.status == READY, ran.err
    assert "there is a new token" in ran.out
    assert tenant.target().token != before


@pytest.mark.rule("PLUGIN-9")
@pytest.mark.usefixtures("operator")
def test_renew_says_what_failed_and_that_the_token_stays(
    tenant: Tenant, editor: Plugin, where: tuple[str, str]
) -> None:
    before = tenant.start().await_ready().token
    tenant.rotate_secret()
    ran = editor.run("renew", "storefront", "--wait", *where)
    assert ran.status == NOT_READY
    assert "InvalidClient" in ran.out
    assert "the present token stays" in ran.out
    assert tenant.target().token == before


@pytest.mark.rule("PLUGIN-9")
@pytest.mark.usefixtures("operator")
def test_renew_says_why_it_must_wait(tenant: Tenant, editor: Plugin, where: tuple[str, str]) -> None:
    tenant.start().await_ready()
    assert "exchanges are up to 10 s apart" in editor.run("renew", "storefront", *where).err
    tenant.sandbox.fault(Fault(kind="throttle", client=tenant.client.id, retry_after=3600))
    force(tenant, "throttled")
    tenant.await_condition("Refreshed", "False", "EndpointThrottled")
    ran = editor.run("renew", "storefront", "--wait", "--timeout", "1s", *where)
    assert ran.status == NOT_READY
    assert "does not pass a Retry-After" in ran.err
    assert "not within 1 s; EndpointThrottled" in ran.err


@pytest.mark.rule("PLUGIN-9")
def test_renew_does_not_wait_for_what_will_not_come(
    cluster: Cluster, editor: Plugin, namespace: str, where: tuple[str, str]
) -> None:
    suspended = {**GOOD, "spec": {**GOOD["spec"], "suspend": True}}
    Credentials(cluster, namespace).create(suspended)
    ran = editor.run("renew", "storefront", "--wait", "--timeout", "1h", *where)
    assert ran.status == NOT_READY
    assert "it is suspended, so nothing happens until it is resumed" in ran.err


@pytest.mark.rule("PLUGIN-9")
def test_more_than_one_is_renewed_only_with_a_yes(
    cluster: Cluster, editor: Plugin, namespace: str, where: tuple[str, str]
) -> None:
    for name, team in (("one", "blue"), ("two", "red")):
        Credentials(cluster, namespace).create({**GOOD, "metadata": {"name": name, "labels": {"team": team}}})
    ran = editor.run("renew", "one", "two", *where)
    assert ran.status == WRONG_USE
    assert "nothing was done: 2 credentials need your yes, or --yes" in ran.err

    def asked() -> list[bool]:
        there = json.loads(cluster.kubectl("get", "tc", *where, "-o", "json"))["items"]
        return ["tuinly.com/refresh-requested" in each["metadata"].get("annotations", {}) for each in there]

    assert asked() == [False, False]
    assert editor.run("renew", "-l", "team=blue", "--yes", *where).status == READY
    assert asked() == [True, False]
    assert editor.run("renew", "one", "two", "--yes", *where).status == READY
    assert asked() == [True, True]


@pytest.mark.parametrize(
    "words", [("why",), ("renew",), ("suspend",), ("resume",), ("token", "--yes"), ("report", "-f")], ids=" ".join
)
def test_who_has_no_rights_is_told_so_in_a_sentence(  # noqa: PLR0913, PLR0917 -- fixtures
    cluster: Cluster, nobody: Plugin, namespace: str, where: tuple[str, str], words: tuple[str, ...], tmp_path: Path
) -> None:
    Credentials(cluster, namespace).create(GOOD)
    command, *flags = words
    file = [str(tmp_path / "report.zip")] if command == "report" else []
    ran = nobody.run(command, "storefront", *flags, *file, *where)
    assert ran.status == UNCHECKED
    assert "norbert" in ran.out + ran.err
    assert "Traceback" not in ran.err


@pytest.mark.rule("PLUGIN-9")
def test_who_may_only_look_changes_nothing(
    cluster: Cluster, viewer: Plugin, namespace: str, where: tuple[str, str]
) -> None:
    Credentials(cluster, namespace).create(GOOD)
    for words in (("renew", "storefront"), ("suspend", "storefront"), ("resume", "storefront")):
        ran = viewer.run(*words, *where)
        assert ran.status == UNCHECKED
        assert "edit (to change)" in ran.err


@pytest.mark.rule("PLUGIN-10")
@pytest.mark.usefixtures("operator")
def test_suspend_and_resume_wait_until_it_is_confirmed(tenant: Tenant, editor: Plugin, where: tuple[str, str]) -> None:
    tenant.start().await_ready()
    assert editor.run("suspend", "storefront", "--wait", *where).status == READY
    suspended = tenant.condition("Refreshed")
    assert suspended is not None
    assert suspended.reason == "Suspended"
    assert "Next: Resume it: kubectl tuinly resume storefront" in editor.run("why", "storefront", *where).out
    assert editor.run("resume", "storefront", "--wait", *where).status == READY
    resumed = tenant.condition("Refreshed")
    assert resumed is not None
    assert resumed.reason == "Issued"


# token, report --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("PLUGIN-13")
@pytest.mark.usefixtures("operator")
def test_token_goes_into_a_pipe_as_it_is(
    tenant: Tenant, editor: Plugin, viewer: Plugin, where: tuple[str, str]
) -> None:
    template = {"data": {"env": "TUINLY_TOKEN=${access_token}\n", "token": "${access_token}"}}
    tenant.start({"target": {"template": template}}).await_ready()
    [token] = tenant.tokens()
    assert editor.run("token", "storefront", *where) == (READY, token.value, "")
    assert editor.run("token", "storefront", "--key", "env", *where).out == f"TUINLY_TOKEN={token.value}\n"
    missing = editor.run("token", "storefront", "--key", "x", *where)
    assert (missing.status, missing.out) == (WRONG_USE, "")
    assert "has no key x; it has: env, token" in missing.err
    refused = viewer.run("token", "storefront", *where)
    assert (refused.status, refused.out) == (UNCHECKED, "")


@pytest.mark.rule("PLUGIN-13")
@pytest.mark.usefixtures("operator")
def test_a_report_holds_no_secret_and_lists_what_is_missing(
    tenant: Tenant, editor: Plugin, cluster: Cluster, tmp_path: Path, where: tuple[str, str]
) -> None:
    """The client Secret was applied by kubectl, which writes all of it into an annotation.

    The template has a literal.
    """
    tenant.register()
    data = {"client_id": tenant.client.id, "client_secret": tenant.client.secret}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": tenant.client_secret_name}, "stringData": data}
    cluster.kubectl("apply", *where, "-f", "-", input=json.dumps(secret))
    literal = "canary-of-the-template-4711"
    spec = {**GOOD["spec"], "target": {"template": {"data": {"t": "${access_token}", "own": f"{literal} ${{scope}}"}}}}
    cluster.kubectl("apply", *where, "-f", "-", input=json.dumps({**GOOD, "spec": spec}))
    tenant.await_ready()
    file = tmp_path / "report.zip"
    ran = editor.run("report", "storefront", "-f", str(file), "--logs", *where)
    assert ran.status == UNCHECKED, ran.err
    assert "operator/deployments.json" in ran.err
    assert file.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(file) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert {"about.txt", "check.txt", "missing.txt", "credentials/storefront/credential.json"} <= set(texts)
    assert "Issued" in texts["credentials/storefront/events.json"]
    assert "Next: Nothing" in texts["credentials/storefront/why.txt"]
    assert "operator/deployments.json" in texts["missing.txt"]
    assert "(left out)${scope}" in texts["credentials/storefront/credential.json"]
    [token] = tenant.tokens()
    canaries = [Canary("client secret", tenant.client.secret), Canary("token", token.value), Canary("literal", literal)]
    assert sightings("\n".join([*texts.values(), ran.out, ran.err]), canaries) == []
    again = editor.run("report", "-f", str(file), *where)
    assert again.status == WRONG_USE
    assert "File exists" in again.err


@pytest.mark.rule("PLUGIN-13")
@pytest.mark.usefixtures("installed")
def test_a_report_of_an_admin_has_the_installation_but_no_foreign_variables(
    cluster: Cluster, admin: Plugin, namespace: str, tmp_path: Path
) -> None:
    cluster.kubectl(
        "-n", "tuinly-system", "set", "env", "deployment/tuinly-operator", "HTTPS_PROXY=http://u:pw-4711@proxy"
    )
    file = tmp_path / "report.zip"
    try:
        assert admin.run("report", "-f", str(file), "-n", namespace, "--logs").status == READY
    finally:
        cluster.kubectl("-n", "tuinly-system", "set", "env", "deployment/tuinly-operator", "HTTPS_PROXY-")
    with zipfile.ZipFile(file) as archive:
        text = archive.read("operator/deployments.json").decode()
    assert "tuinly-operator" in text
    assert "pw-4711" not in text


# check, version -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("PLUGIN-12")
@pytest.mark.usefixtures("installed")
def test_check_finds_what_is_wrong_with_an_installation(admin: Plugin) -> None:
    """There is no node here, so no replica runs; the rest is as it should be."""
    ran = admin.run("check")
    assert ran.status == NOT_READY
    found = steps(ran.out)
    assert found["Kubernetes"][0] == found["Rights"][0] == "fine"
    assert found["Definition"] == ("fine", f"{VERSION}, served: v1alpha1; stored: v1alpha1")
    assert found["Deployment"][0] == "wrong"
    assert "0 of 2 replicas ready, serves all namespaces" in found["Deployment"][1]
    assert "Next: Look why: kubectl -n tuinly-system describe pods" in ran.out


@pytest.mark.rule("PLUGIN-12")
@pytest.mark.usefixtures("installed")
def test_check_tells_which_right_is_missing(cluster: Cluster, admin: Plugin) -> None:
    role = json.loads(cluster.kubectl("get", "clusterrole", "tuinly-operator", "-o", "json"))
    rules = [rule for rule in role["rules"] if rule["apiGroups"] != ["events.k8s.io"]]
    cluster.kubectl("patch", "clusterrole", "tuinly-operator", "--type=merge", "-p", json.dumps({"rules": rules}))
    try:

        def told() -> None:
            out = admin.run("check", "--operator-namespace", "tuinly-system").out
            assert "may not: create events (tell of failures)" in out

        eventually(told)
    finally:
        cluster.kubectl(
            "patch", "clusterrole", "tuinly-operator", "--type=merge", "-p", json.dumps({"rules": role["rules"]})
        )


@pytest.mark.rule("PLUGIN-12")
@pytest.mark.usefixtures("installed")
def test_check_says_what_it_could_not_check(nobody: Plugin, admin: Plugin) -> None:
    ran = nobody.run("check")
    assert ran.status == UNCHECKED
    assert "v1alpha1 is served; not checked further" in ran.out
    assert "name where it is: --operator-namespace" in ran.out
    assert (
        "there is no Deployment of the operator in default" in admin.run("check", "--operator-namespace", "default").out
    )


@pytest.mark.usefixtures("installed")
def test_who_may_review_rights_in_a_namespace_alone_asks_there(
    cluster: Cluster, admin: Plugin, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the admin of a namespace, who installed an operator for it."""
    admin.bound("admin", "rita", namespace)
    monkeypatch.setenv("PATH", environment(cluster)["PATH"])
    read = {"namespace": namespace, "verb": "get", "resource": "secrets"}
    with Access(["--kubeconfig", str(cluster.kubeconfig), "--as", "rita"]) as access:
        asked = AskedCluster(access)
        assert [asked.may(user, read) for user in ("rita", "norbert")] == [True, False]
        with pytest.raises(RefusedError) as refused:
            asked.may("rita", {"verb": "get", "resource": "secrets"})
    assert refused.value.denied


@pytest.mark.usefixtures("installed")
def test_versions_of_all_three(admin: Plugin, nobody: Plugin) -> None:
    ran = admin.run("version")
    assert ran.status == READY
    assert ran.out.splitlines()[:2] == [f"plugin       {VERSION}", f"definition   {VERSION} (v1alpha1)"]
    assert f"operator     {VERSION} (tuinly-system/tuinly-operator" in ran.out
    assert nobody.run("version").status == UNCHECKED


# The way in -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("PLUGIN-1")
@pytest.mark.usefixtures("installed")
def test_it_logs_in_as_kubectl_does(cluster: Cluster, admin: Plugin, namespace: str, tmp_path: Path) -> None:
    """By an exec plugin, in the second of two files, with a context and its namespace, as somebody else."""
    Credentials(cluster, namespace).create(GOOD)
    admin.bound("view", "vera", namespace)
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
    cluster.kubectl("create", "serviceaccount", "imposter", "-n", namespace)
    cluster.kubectl(
        "create",
        "clusterrolebinding",
        f"imposter-{namespace}",
        "--clusterrole=cluster-admin",
        f"--serviceaccount={namespace}:imposter",
    )
    token = cluster.kubectl("create", "token", "imposter", "-n", namespace).strip()
    answer = tmp_path / "answer.json"
    answer.write_text(
        json.dumps(
            {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
        )
    )
    execute = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "cat",
        "args": [str(answer)],
        "interactiveMode": "Never",
    }
    context = {"cluster": config["clusters"][0]["name"], "user": "by-plugin", "namespace": namespace}
    users = {
        "kind": "Config",
        "apiVersion": "v1",
        "users": [{"name": "by-plugin", "user": {"exec": execute}}],
        "contexts": [{"name": "mine", "context": context}],
    }
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(json.dumps(users))
    second.write_text(json.dumps({**config, "users": [], "contexts": [], "current-context": ""}))
    both = Plugin(cluster, ("--context", "mine"))
    ran = both.run("status", "storefront", kubeconfig=f"{first}:{second}")
    assert "storefront" in ran.out, ran.err
    assert (
        "storefront"
        in both.run(
            "status", "storefront", "--as", "vera", "--as-group", "system:authenticated", kubeconfig=f"{first}:{second}"
        ).out
    )
    assert "norbert" in both.run("status", "storefront", "--as", "norbert", kubeconfig=f"{first}:{second}").err


@pytest.mark.rule("PLUGIN-1")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--context", "nowhere"), "kubectl says: cannot locate context nowhere"),
        (("--kubeconfig", "/nonexistent", "-n", "shop"), "kubectl says: stat /nonexistent: no such file or directory"),
    ],
)
def test_a_login_that_fails_is_one_line(admin: Plugin, words: tuple[str, ...], told: str) -> None:
    ran = admin.run("status", *words)
    assert ran.status == UNCHECKED
    assert told in ran.err
    assert len(ran.err.splitlines()) == 1
