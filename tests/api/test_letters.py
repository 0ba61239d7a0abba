"""Letters that some reader on the way might not take: annotations, templates and keys of users are any UTF-8."""

import json
from collections.abc import Iterator, Mapping

import pytest

from tests.support.acts import FORCE, edit
from tests.support.cluster import Cluster
from tests.support.objects import Json, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.sandbox import SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("operator")

LETTERS: Mapping[str, str] = {
    "emoji": "\U0001f600",
    "last": "\U0010ffff",
    "astral": "\U00010000\U0001fffe",
    "separators": "\u2028\u2029",
    "delete": "\x7f",
    "c1": "\x80\x85\x9f",
    "c0": "\x01\t\n\r\x1b\x1f",
    "bom": "\ufeff",
    "noncharacters": "\ufffe\uffff\ufdd0",
    "combining": "e\u0301\u0327\u200d",
    "bidi": "\u202e abc \u2066 x \u2069",
    "escapes": "\\ud83d\\ude00 \\ \" ' ${} %s",
    "blanks": "  a   b  ",
    "long": "\U0001f600" * 4_000,
}


def everywhere(letters: str) -> Json:
    """Return a spec that carries the letters wherever a text of a user's goes into the target as it is."""
    template: Json = {"metadata": {"annotations": {"example.com/letters": letters}}}
    template["data"] = {"letters": letters.replace("$", "$$"), "token": "${access_token}"}
    return {"target": {"template": template}}


@pytest.fixture(scope="module")
def tenants(
    cluster: Cluster,
    sandbox: SandboxProcess,
    operator: OperatorProcess,  # noqa: ARG001 - it does the work
) -> Iterator[Mapping[str, Tenant]]:
    """Return a tenant for each kind of letters, who asked for an exchange by them at once."""
    with new_namespace(cluster) as namespace:
        objects = Objects(cluster, namespace)
        tenants = {name: Tenant(objects, sandbox.admin, name) for name in LETTERS}
        for name, tenant in tenants.items():
            tenant.register()
            tenant.apply_client_secret()
            # As JSON, as kubectl sends it: the tests' own apply is YAML.
            body = {
                "apiVersion": "tuinly.com/v1alpha1",
                "kind": "TuinlyCredential",
                "metadata": {"name": name, "annotations": {FORCE: LETTERS[name]}},
                "spec": {"clientSecretRef": {"name": tenant.client_secret_name}, **everywhere(LETTERS[name])},
            }
            cluster.kubectl("-n", namespace, "create", "-f", "-", input=json.dumps(body))
        yield tenants


@pytest.mark.rule("RES-14", "TARGET-6")
@pytest.mark.parametrize("name", LETTERS)
def test_letters_go_into_the_target_as_they_are_and_ask_for_one_exchange(
    tenants: Mapping[str, Tenant], name: str
) -> None:
    tenant, letters = tenants[name], LETTERS[name]
    target = tenant.await_ready()
    assert target.data["letters"] == letters
    assert target.raw["metadata"]["annotations"]["example.com/letters"] == letters
    # What users asked by is kept and written as it is, or as a digest where it is long.
    handled = target.notes["handled-refresh"]
    assert handled.startswith("sha256:") if name == "long" else handled == letters
    assert len(tenant.requests()) == 1


@pytest.mark.rule("TARGET-6")
def test_a_later_write_comes_through_too_and_nothing_is_asked_anew(tenants: Mapping[str, Tenant]) -> None:
    for tenant in tenants.values():
        tenant.await_ready()
        edit(tenant, {"data": {"token": "dW5kb25l"}})
    for name, tenant in tenants.items():

        def check(tenant: Tenant = tenant) -> None:
            assert tenant.target().data["token"] == tenant.tokens()[0].value

        eventually(check)
        assert tenant.target().data["letters"] == LETTERS[name]
        assert len(tenant.requests()) == 1


@pytest.mark.rule("OBS-6")
@pytest.mark.parametrize("letters", ["\U0001f600", "client\x7f", "\ufeffclient", "cl\u0131ent"])
def test_a_client_id_of_other_letters_is_told_without_them(tenant: Tenant, letters: str) -> None:
    tenant.register()
    tenant.apply_client_secret({"client_id": letters, "client_secret": tenant.client.secret})
    tenant.apply()
    told = tenant.await_condition("Refreshed", "False", "ClientSecretInvalid").message
    assert told.isascii()
    assert told.isprintable()
    note = tenant.await_event("ClientSecretInvalid")["note"]
    assert note == told
    assert tenant.requests() == []


@pytest.mark.rule("OBS-9")
def test_each_line_of_the_log_is_one_line_of_ascii(tenants: Mapping[str, Tenant], operator: OperatorProcess) -> None:
    for tenant in tenants.values():
        tenant.await_ready()
    assert operator.logs()
    assert operator.log_file.read_bytes().isascii()
