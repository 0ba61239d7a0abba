"""What a Deployment tells of the operator; and the rights, which are those of deploy/base."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_tuinly.rules.installation import PUSH_RIGHTS, RIGHTS, Right, binds, installation_of, leader_of
from tests.support.manifests import VERSION
from tests.support.plugin import ROOT
from tests.unit.plugin.objects import BASE, deployment
from tuinly_operator.base.names import NamespacedName

Json = dict[str, Any]
NOW = 1_795_503_600.0


def test_the_deployment_of_the_files_is_understood() -> None:
    one = installation_of(deployment([]))
    assert one is not None
    assert (one.key, one.version) == (NamespacedName("tuinly-system", "tuinly-operator"), VERSION)
    assert one.lease == NamespacedName("tuinly-system", "tuinly-operator")
    assert one.user == "system:serviceaccount:tuinly-system:tuinly-operator"
    assert one.covers("anything")
    assert one.token_urls == {"https://oauth.tuinly.com/token"}
    assert (one.push, one.unknown) == (False, frozenset())


@pytest.mark.rule("PLUGIN-12")
def test_settings_are_read_as_the_operator_reads_them() -> None:
    """A flag over its variable, in both forms; a switch alone; several values."""
    one = installation_of(
        deployment(
            ["--namespace=shop", "--namespace", "billing", "--push", "--token-url=https://a.example/token"],
            [
                {"name": "TUINLY_TOKEN_URL", "value": "https://b.example/token"},
                {"name": "TUINLY_ALLOWED_TOKEN_URLS", "value": "https://c.example/token, https://d.example/token"},
                {"name": "TUINLY_SELECTOR", "value": "shard=a"},
                {"name": "TUINLY_LOG_LEVEL", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}},
            ],
        )
    )
    assert one is not None
    assert one.namespaces == ("shop", "billing")
    assert (one.covers("shop"), one.covers("other")) == (True, False)
    assert one.push
    assert one.default_url == "https://a.example/token"
    assert one.token_urls == {f"https://{host}.example/token" for host in "acd"}
    assert one.selector == "shard=a"
    assert one.unknown == {"TUINLY_LOG_LEVEL"}


def test_another_program_of_that_label_is_no_operator() -> None:
    raw = deployment([])
    raw["spec"]["template"]["spec"]["containers"][0]["args"] = ["serve"]
    assert installation_of(raw) is None


def rights(file: Path, kind: str) -> set[tuple[str, str, str]]:
    rules = [rule for each in yaml.safe_load_all(file.read_text()) if each["kind"] == kind for rule in each["rules"]]
    return {
        (rule["apiGroups"][0], resource, verb)
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def named(right: Right) -> tuple[str, str, str]:
    return right.group, right.resource + (f"/{right.subresource}" if right.subresource else ""), right.verb


@pytest.mark.rule("PLUGIN-12")
def test_the_rights_that_are_checked_are_those_of_the_files() -> None:
    assert {named(right) for right in RIGHTS} == rights(BASE / "rights.yaml", "ClusterRole")
    text = (ROOT / "deploy" / "components" / "push" / "rights" / "kustomization.yaml").read_text()
    added = yaml.safe_load(yaml.safe_load(text)["patches"][0]["patch"])
    assert {named(right) for right in PUSH_RIGHTS} == {
        ("", rule["value"]["resources"][0], verb) for rule in added for verb in rule["value"]["verbs"]
    }


@pytest.mark.parametrize(
    ("spec", "leader"),
    [
        (
            {"holderIdentity": "tuinly-operator-1_ab", "renewTime": "2026-11-24T06:59:58.000000Z"},
            "tuinly-operator-1_ab",
        ),
        ({"holderIdentity": "tuinly-operator-1_ab", "renewTime": "2026-11-24T06:58:00.000000Z"}, ""),
        ({"holderIdentity": None, "renewTime": "2026-11-24T06:59:58.000000Z"}, ""),
        ({}, ""),
    ],
)
def test_who_leads_is_whoever_holds_a_lease_that_is_renewed(spec: Json, leader: str) -> None:
    assert leader_of({"spec": spec}, NOW) == leader
    assert leader_of(None, NOW) == ""


def test_a_policy_binds_the_account_that_it_names_and_denies() -> None:
    policy, binding = yaml.safe_load_all((ROOT / "deploy" / "components" / "push" / "policy.yaml").read_text())
    account = NamespacedName("tuinly-system", "tuinly-operator")
    assert binds([policy], [binding], account)
    assert not binds([policy], [binding], NamespacedName("tuinly-system", "other"))
    assert not binds([], [binding], account)
    audited = {**binding, "spec": {**binding["spec"], "validationActions": ["Audit"]}}
    assert not binds([policy], [audited], account)
