"""What somebody gets out of the operator who may create TuinlyCredentials in a namespace, and nothing else: nothing.

Each test is an attack by such an account; a proxy before the API server sees what the operator reads and writes. What
an endpoint can try is told in test_answers, secrecy in test_canary, the operator's own rights in test_deploy; that TLS
is always verified, redirects not followed, cookies not kept and only the environment's proxies used, in
tests/unit/test_oauth.
"""

import base64
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from tests.api.conftest import StartOperator
from tests.support.cluster import Cluster, KubectlError
from tests.support.objects import Json, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.proxy import ApiProxy
from tests.support.sandbox import Fault, SandboxProcess
from tests.support.tenant import Condition, Tenant
from tests.support.waiting import eventually, wait_until

ACCOUNT = "intruder"
INSTALL = Path(__file__).parents[2] / "deploy" / "install.yaml"


@pytest.fixture(scope="module")
def proxy(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProxy]:
    """Return a proxy before the API server, which sees what the operator asks for."""
    with ApiProxy(cluster.server, cluster.ca_file, tmp_path_factory.mktemp("proxy")) as running:
        yield running


@pytest.fixture(scope="module")
def operator(
    sandbox: SandboxProcess, make_operator: StartOperator, proxy: ApiProxy, operator_login: Path
) -> Iterator[OperatorProcess]:
    """Return a ready operator behind the proxy that allows its own URL and one of plain http."""
    flags = ("--allowed-token-url", sandbox.token_url, "--selector", "!apart")
    with make_operator(*flags, allowing=False, kubeconfig=proxy.kubeconfig(operator_login)) as process:
        yield process.wait_ready()


@dataclass
class Intruder:
    """An account that may create credentials, with a tenant's namespace; `tenant` also sees what comes of it."""

    tenant: Tenant
    login: Path

    @property
    def namespace(self) -> str:
        return self.tenant.objects.namespace

    def create(self, spec: Json | None = None, *, namespace: str = "") -> None:
        """Create the tenant's credential. Raises KubectlError where the API server refuses it."""
        manifest = {
            "apiVersion": "tuinly.com/v1alpha1",
            "kind": "TuinlyCredential",
            "metadata": {"name": self.tenant.name, "namespace": namespace or self.namespace},
            "spec": {"clientSecretRef": {"name": self.tenant.client_secret_name}, **(spec or {})},
        }
        self.kubectl("create", "--filename=-", text=json.dumps(manifest))

    def may(self, verb: str, resource: str) -> bool:
        return self.kubectl("auth", "can-i", verb, resource, "-n", self.namespace, check=False).strip() == "yes"

    def kubectl(self, *args: str, text: str | None = None, check: bool = True) -> str:
        return self.tenant.objects.cluster.kubectl(*args, input=text, check=check, kubeconfig=self.login)


def admit(cluster: Cluster, namespace: str) -> Path:
    """Make the account in a namespace, with its one right, and return its login."""
    kinds = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": ACCOUNT}}
    rules = [{"apiGroups": ["tuinly.com"], "resources": ["tuinlycredentials"], "verbs": ["create"]}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}
    items = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}},
        {"kind": "Role", **kinds, "rules": rules},
        {"kind": "RoleBinding", **kinds, "roleRef": role, "subjects": [subject]},
    ]
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    cluster.kubectl("create", "--namespace", namespace, "--filename=-", input=objects)
    return cluster.kubeconfig_for(namespace, ACCOUNT)


@pytest.fixture
def intruder(tenant: Tenant, cluster: Cluster, operator: OperatorProcess) -> Intruder:  # noqa: ARG001 - is attacked
    return Intruder(tenant, admit(cluster, tenant.objects.namespace))


@pytest.fixture(scope="module")
def turned_away(cluster: Cluster, sandbox: SandboxProcess) -> Iterator[Intruder]:
    """Return an intruder for attempts that the API server refuses, so that nothing is left of them."""
    with new_namespace(cluster) as namespace:
        yield Intruder(Tenant(Objects(cluster, namespace), sandbox.admin), admit(cluster, namespace))


@pytest.fixture(scope="module")
def ear() -> Iterator[socket.socket]:
    """Return where the intruder listens for secrets. A connection waits there until it is accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        yield listener


def hears_nothing(ear: socket.socket) -> bool:
    try:
        connection, _ = ear.accept()
    except BlockingIOError:
        return True
    connection.close()
    return False


def was_read(proxy: ApiProxy, tenant: Tenant, secret: str) -> bool:
    return proxy.count(rf"/namespaces/{tenant.objects.namespace}/secrets/{secret}(\?|$)") > 0


def test_the_intruder_may_create_credentials_and_nothing_else(intruder: Intruder) -> None:
    """And that works: what the others find refused is not refused for another reason."""
    assert intruder.may("create", "tuinlycredentials")
    for verb, resource in (
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "secrets"),
        ("get", "tuinlycredentials"),
    ):
        assert not intruder.may(verb, resource)
    intruder.tenant.register()
    intruder.tenant.apply_client_secret()
    intruder.create()
    intruder.tenant.await_ready()


def test_other_namespaces_are_closed_to_the_intruder(turned_away: Intruder) -> None:
    with pytest.raises(KubectlError, match="Forbidden"):
        turned_away.create(namespace="default")


# Sending a client Secret to a URL of one's own ------------------------------------------------------------------------


def attacks(allowed: str, named_http: str, ear: str) -> dict[str, str]:
    """Return URLs that nobody allows, by what is wrong with them; the first two lead to the intruder."""
    host = re.sub("https://(.*)/token", r"\1", allowed)
    port = host.rpartition(":")[2]
    return {
        "their own": f"http://{ear}/token",
        "their own with TLS": f"https://{ear}/token",
        "plain http, not named": f"http://{host}/token",
        "http port with TLS": named_http.replace("http:", "https:"),
        "upper-case scheme": allowed.replace("https", "HTTPS"),
        "host by its name": allowed.replace("127.0.0.1", "localhost"),
        "short host": allowed.replace("127.0.0.1", "127.1"),
        "host as a number": allowed.replace("127.0.0.1", "2130706433"),
        "host as IPv6": allowed.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        "host with a dot": allowed.replace("127.0.0.1", "127.0.0.1."),
        "full-width dots": allowed.replace("127.0.0.1", "127\uff0e0\uff0e0\uff0e1"),
        "no port": allowed.replace(f":{port}", ""),
        "port with a zero": allowed.replace(f":{port}", f":0{port}"),
        "another port": allowed.replace(f":{port}", f":{int(port) - 1}"),
        "user and password": allowed.replace("//", "//user:password@"),
        "allowed host as user": f"https://{host}@{ear}/token",
        "backslash": f"https://{ear}\\@{host}/token",
        "slash": f"{allowed}/",
        "double slash": allowed.replace("/token", "//token"),
        "dot": allowed.replace("/token", "/./token"),
        "two dots": allowed.replace("/token", "/x/../token"),
        "percent-encoded": allowed.replace("/token", "/%74oken"),
        "upper-case path": allowed.replace("/token", "/TOKEN"),
        "path parameter": f"{allowed};x",
        "empty query": f"{allowed}?",
        "query": f"{allowed}?x=1",
        "fragment": f"{allowed}#x",
        "space behind": f"{allowed} ",
        "space before": f" {allowed}",
        "line end": f"{allowed}\n",
        "tab in between": allowed.replace("/token", "\t/token"),
        "list": f"{allowed},http://{ear}/token",
        "no scheme": allowed.removeprefix("https:"),
        "file": "file:///etc/passwd",
    }


URL_ATTACKS = list(attacks("https://127.0.0.1:2/token", "http://127.0.0.1:3/token", "127.0.0.1:4"))


@dataclass(frozen=True)
class Tried:
    """What came of a URL: the API server's refusal or, if it let it through, the condition Ready."""

    tenant: Tenant
    refusal: str
    ready: Condition | None


@pytest.fixture(scope="module")
def tried(
    cluster: Cluster,
    sandbox: SandboxProcess,
    operator: OperatorProcess,  # noqa: ARG001 - it is attacked
    ear: socket.socket,
) -> Iterator[Mapping[str, Tried]]:
    """Return what came of each URL; for each there are a client and its Secret."""
    at = "{}:{}".format(*ear.getsockname())
    urls = attacks(sandbox.https_token_url, sandbox.token_url, at)
    with new_namespace(cluster) as namespace:
        login, objects = admit(cluster, namespace), Objects(cluster, namespace)
        found: dict[str, Tried] = {}
        for number, (attack, url) in enumerate(urls.items()):
            tenant, refusal = Tenant(objects, sandbox.admin, f"try-{number}"), ""
            tenant.register()
            tenant.apply_client_secret()
            try:
                Intruder(tenant, login).create({"tokenURL": url})
            except KubectlError as error:
                refusal = error.stderr
            found[attack] = Tried(tenant, refusal, None)
        yield {attack: each if each.refusal else told(each.tenant) for attack, each in found.items()}


def told(tenant: Tenant) -> Tried:
    def check() -> Condition:
        condition = tenant.condition("Ready")
        assert condition is not None
        assert condition.reason != "Issuing"
        return condition

    return Tried(tenant, "", eventually(check))


@pytest.mark.rule("SEC-5")
@pytest.mark.parametrize("attack", URL_ATTACKS)
def test_no_other_url_gets_a_client_secret(
    tried: Mapping[str, Tried], proxy: ApiProxy, ear: socket.socket, attack: str
) -> None:
    """The API server or the operator says so, and the client Secret is not even read."""
    found = tried[attack]
    if found.ready is None:
        assert "spec.tokenURL" in found.refusal
    else:
        assert found.ready.verdict == ("False", "URLNotAllowed")
    assert found.tenant.requests() == []
    assert not was_read(proxy, found.tenant, found.tenant.client_secret_name)
    assert hears_nothing(ear)


def test_the_client_secret_is_read_where_the_url_is_allowed(intruder: Intruder, proxy: ApiProxy) -> None:
    """Else the test above would show nothing."""
    intruder.tenant.register()
    intruder.tenant.apply_client_secret()
    intruder.create()
    intruder.tenant.await_ready()
    assert was_read(proxy, intruder.tenant, intruder.tenant.client_secret_name)


def test_no_other_graphql_url_gets_a_token(intruder: Intruder, ear: socket.socket) -> None:
    host, port = ear.getsockname()
    intruder.tenant.register()
    intruder.tenant.apply_client_secret()
    intruder.create({"verification": {"mode": "Enabled", "graphqlURL": f"http://{host}:{port}/graphql"}})
    intruder.tenant.await_condition("Ready", "False", "URLNotAllowed")
    assert (intruder.tenant.requests(), hears_nothing(ear)) == ([], True)


@pytest.mark.parametrize("status", [302, 307, 308])
def test_no_redirect_takes_a_client_secret_elsewhere(
    intruder: Intruder, sandbox: SandboxProcess, ear: socket.socket, status: int
) -> None:
    host, port = ear.getsockname()
    location = {"Location": f"http://{host}:{port}/token"}
    client = intruder.tenant.client.id
    sandbox.admin.fault(Fault(kind="answer", answer=f"redirect_{status}", headers=location, client=client))
    intruder.tenant.register()
    intruder.tenant.apply_client_secret()
    intruder.create()
    intruder.tenant.await_condition("Ready", "False", "InvalidResponse")
    assert hears_nothing(ear)


# Copying what is not a client Secret ----------------------------------------------------------------------------------

KEYS = {
    "kubernetes.io/service-account-token": "token",
    "kubernetes.io/tls": "tls.key",
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
    "helm.sh/release.v1": "release",
    "bootstrap.kubernetes.io/token": "token-secret",
}
"""Types of Secrets that hold keys of other systems, with the key that would be worth a copy."""


@pytest.mark.rule("SEC-5")
@pytest.mark.parametrize("kind", KEYS)
def test_no_key_of_another_system_is_copied_or_sent(intruder: Intruder, kind: str) -> None:
    """It would do for a client id, and `${client_id}` for a copy; the endpoint would even issue a token for it.

    In the Secret of a service account a controller puts a real token, whatever was there.
    """
    tenant, stolen = intruder.tenant, '{"auths":{}}'
    tenant.objects.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": tenant.client_secret_name,
                "annotations": {"kubernetes.io/service-account.name": ACCOUNT},
            },
            "type": kind,
            "stringData": {KEYS[kind]: stolen, "tls.crt": "any", "other": tenant.client.secret},
        }
    )
    tenant.client = replace(tenant.client, id=stolen)
    tenant.register()
    intruder.create(
        {
            "clientSecretRef": {
                "name": tenant.client_secret_name,
                "clientIDKey": KEYS[kind],
                "clientSecretKey": "other",
            },
            "target": {"template": {"data": {"stolen": "${client_id}"}}},
        }
    )
    condition = tenant.await_condition("Ready", "False", "ClientSecretInvalid")
    assert f"has the type {kind}, which is not used" in condition.message
    assert stolen not in condition.message
    assert tenant.find_target() is None
    assert tenant.requests() == []


# Overwriting what is not a target -------------------------------------------------------------------------------------


@pytest.fixture
def victim(intruder: Intruder, request: pytest.FixtureRequest) -> str:
    """Return the name of a Secret in the intruder's namespace, of the kind that the test names."""
    kind, tenant, other = (
        request.param,
        intruder.tenant,
        Tenant(intruder.tenant.objects, intruder.tenant.sandbox, "other"),
    )
    if kind == "target of another":
        other.start()
        other.await_ready()
        return other.target_name
    if kind == "client Secret of another":
        other.apply_client_secret()
        return other.client_secret_name
    data = {"tls.crt": "any", "tls.key": "any", "precious": "data", "access_token": "any"}
    tenant.objects.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "victim", "annotations": {"kubernetes.io/service-account.name": ACCOUNT}},
            "type": kind,
            "stringData": data,
        }
    )
    if kind == "kubernetes.io/service-account-token":
        eventually(lambda: _assert_filled(tenant))
    return "victim"


def _assert_filled(tenant: Tenant) -> None:
    """A controller adds token and certificate to it."""
    assert {"token", "ca.crt", "namespace"} <= tenant.objects.get("Secret", "victim")["data"].keys()


UNWATCHED = ("kubernetes.io/tls", "kubernetes.io/service-account-token", "helm.sh/release.v1")
VICTIMS = ("Opaque", *UNWATCHED, "client Secret of another", "target of another")


@pytest.mark.rule("SEC-5")
@pytest.mark.parametrize("victim", VICTIMS, indirect=True)
def test_no_secret_of_somebody_else_is_overwritten(intruder: Intruder, proxy: ApiProxy, victim: str) -> None:
    """It is the same to the byte, managedFields and version too; no token is even asked for.

    Of a type that no watch tells of, the first write learns: it only creates, and is refused.
    """
    tenant = intruder.tenant
    before, written = tenant.objects.get("Secret", victim), rf"/{intruder.namespace}/secrets/{victim}(\?|$)"
    writes = [proxy.count(written, method) for method in ("PATCH", "PUT", "DELETE")]
    tenant.register()
    tenant.apply_client_secret()
    intruder.create({"target": {"name": victim}})
    tenant.await_condition("Ready", "False", "TargetConflict")
    tries = 1 if before["type"] in UNWATCHED else 0
    assert len(tenant.requests()) == tries
    assert tenant.objects.get("Secret", victim) == before
    assert [proxy.count(written, method) for method in ("PATCH", "PUT", "DELETE")] == [writes[0] + tries, *writes[1:]]


def test_the_client_secret_is_not_overwritten_either(turned_away: Intruder) -> None:
    with pytest.raises(KubectlError, match="the target must not be the Secret that clientSecretRef names"):
        turned_away.create({"target": {"name": turned_away.tenant.client_secret_name}})


# Reaching another namespace -------------------------------------------------------------------------------------------

OUTSIDE = (
    "../kube-system/secrets/s",
    "../../default/secrets/s",
    "default/s",
    "..",
    ".",
    "%2e%2e%2fdefault",
    "s?x=1",
    "s#x",
)
"""Names that would mean something else in the path of a URL. The operator's own check is tested in test_credential."""


@pytest.mark.rule("SEC-5")
@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("field", ["clientSecretRef", "target"])
def test_no_name_leads_into_another_namespace(turned_away: Intruder, field: str, name: str) -> None:
    with pytest.raises(KubectlError, match=f"spec.{field}.name: .* must be (the|a) name (of|for) a Secret"):
        turned_away.create({field: {"name": name}})


# Forging the operator's notes -----------------------------------------------------------------------------------------


@pytest.mark.rule("STATE-6")
@pytest.mark.parametrize("part", ["labels", "annotations"])
@pytest.mark.parametrize(
    "key", ["tuinly.com/expires-at", "tuinly.com/credential", "x.tuinly.com/y", "kubernetes.io/service-account.name"]
)
def test_no_template_forges_what_the_operator_or_kubernetes_goes_by(turned_away: Intruder, part: str, key: str) -> None:
    with pytest.raises(KubectlError, match="reserved"):
        turned_away.create({"target": {"template": {"metadata": {part: {key: "2099-01-01T00.00.00Z"}}}}})


@pytest.mark.rule("STATE-6")
def test_notes_are_believed_from_the_operator_alone(tenant: Tenant, start_operator: StartOperator) -> None:
    """Somebody who may write Secrets copies a target with all its notes while no operator looks: a new token comes."""
    flags = ("--selector", "apart")
    operator = start_operator(*flags)
    # From its creation on: one that is labelled later, the others' operator may have begun to serve.
    tenant.labels = {"apart": "yes"}
    tenant.start()
    real = tenant.await_ready().raw
    operator.terminate()
    tenant.objects.delete("Secret", tenant.target_name)
    kept = ("name", "labels", "annotations", "ownerReferences")
    forged = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {key: real["metadata"][key] for key in kept},
        "data": {**real["data"], "access_token": base64.b64encode(b"forged").decode()},
    }
    tenant.objects.apply(forged)
    start_operator(*flags)
    after = tenant.await_token(other_than="forged")
    tenant.await_ready()
    assert after.token == tenant.tokens()[-1].value
    assert len(tenant.tokens()) == 2


# The operator's own rights --------------------------------------------------------------------------------------------

RESOURCE = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/?]+)(?:/namespaces/[^/?]+)?/(?P<resource>[a-z]+)"
    r"(?:/(?P<name>[^/?]+)(?P<subresource>/[a-z]+)?)?(?:\?(?P<query>.*))?"
)
"""The path of a request for a resource; what others ask for needs no right of the operator's own."""


def rights_for(method: str, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield the rights that a request needs, as API group, resource and verb."""
    if not (match := RESOURCE.fullmatch(path)):
        return
    listing = "watch" if "watch=true" in (match["query"] or "") else "list"
    verbs = {"GET": ["get" if match["name"] else listing], "POST": ["create"], "DELETE": ["delete"], "PATCH": ["patch"]}
    resource = match["resource"] + (match["subresource"] or "")
    # A server-side apply creates what is not there.
    for verb in [*verbs[method], *(["create"] if (method, resource) == ("PATCH", "secrets") else [])]:
        yield match["group"] or "", resource, verb


def test_the_operator_asks_for_what_it_has_a_right_to_and_has_no_right_that_it_does_not_need(
    intruder: Intruder, proxy: ApiProxy, operator: OperatorProcess
) -> None:
    tenant = intruder.tenant
    tenant.start()
    tenant.await_ready()
    tenant.apply({"target": {"name": "renamed"}})
    wait_until(lambda: tenant.find_target() is None, what="the end of the old target")
    tenant.delete()
    asked = {right for method, path in proxy.requests for right in rights_for(method, path)}
    [role] = [each for each in yaml.safe_load_all(INSTALL.read_text()) if is_the_operators_role(each)]
    assert asked == {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert [line for line in operator.complaints(intruder.namespace) if "403" in line.get("cause", "")] == []


def is_the_operators_role(raw: Json) -> bool:
    """The other roles of the installation are for people: they go into Kubernetes' own view, edit and admin."""
    return bool(raw["kind"] == "ClusterRole" and raw["metadata"]["name"] == "tuinly-operator")


# The process itself ---------------------------------------------------------------------------------------------------


def test_no_core_dump_holds_its_memory(operator: OperatorProcess) -> None:
    limits = Path(f"/proc/{operator.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every process, and owns what is closed to its user")
def test_its_memory_is_closed_to_other_processes_of_its_user(operator: OperatorProcess) -> None:
    """A process that may not be dumped belongs to root in /proc (proc(5)); test_main asks the kernel from within."""
    assert Path(f"/proc/{operator.pid}/environ").stat().st_uid == 0
    with pytest.raises(PermissionError):
        Path(f"/proc/{operator.pid}/environ").read_bytes()


@pytest.mark.rule("SEC-32")
@pytest.mark.parametrize(
    "path",
    ["/", "/debug", "/debug/pprof/", "/debug/vars", "/config", "/env", "/admin", "/quit", "/static/", "/metrics/x"],
)
def test_it_serves_nothing_else(operator: OperatorProcess, path: str) -> None:
    assert operator.get(path)[0] == 404


@pytest.mark.rule("SEC-32")
@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nobody_tells_it_anything(operator: OperatorProcess, path: str, method: str) -> None:
    assert operator.get(path, method, b"x")[0] == 405
