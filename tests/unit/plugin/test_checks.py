"""What `check` says of each part of an installation."""

import copy

import pytest

from kubectl_tuinly.rules.checks import (
    definition_step,
    deployment_step,
    kubernetes_step,
    lease_step,
    missing_fields,
    no_operator,
    push_step,
    rights_step,
)
from kubectl_tuinly.rules.installation import RIGHTS, installation_of
from kubectl_tuinly.rules.steps import Unseen, Verdict
from tests.support.crd import CRD
from tests.support.objects import Json
from tests.unit.plugin.objects import deployment, operator

NOW = 1_795_503_600.0
DENIED = Unseen("forbidden")
STORED: Json = {**CRD, "status": {"storedVersions": ["v1alpha1"]}}


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ({"major": "1", "minor": "32+", "gitVersion": "v1.32.1-eks"}, Verdict.FINE),
        ({"major": "1", "minor": "31", "gitVersion": "v1.31.9"}, Verdict.WRONG),
        ({"major": "2", "minor": "0", "gitVersion": "v2.0.0"}, Verdict.FINE),
        (DENIED, Verdict.UNCHECKED),
    ],
)
def test_kubernetes_must_be_recent(version: Json | Unseen, verdict: Verdict) -> None:
    assert kubernetes_step(version).verdict is verdict


@pytest.mark.rule("PLUGIN-12")
def test_the_definition_of_this_version_is_fine_and_an_older_one_is_not() -> None:
    assert definition_step(STORED, served=True).verdict is Verdict.FINE
    older = copy.deepcopy(STORED)
    del older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"][
        "lastHandledRefresh"
    ]
    assert missing_fields(older["spec"]["versions"][0]) == ["status.lastHandledRefresh"]
    assert definition_step(older, served=True).verdict is Verdict.WRONG
    older["spec"]["versions"][0]["name"] = "v1alpha0"
    assert definition_step(older, served=True).verdict is Verdict.WRONG
    assert (
        definition_step({**STORED, "status": {"storedVersions": ["v1", "v1alpha1"]}}, served=True).verdict
        is Verdict.WARNING
    )


def test_a_definition_that_may_not_be_read_is_seen_by_what_is_served() -> None:
    assert definition_step(DENIED, served=True).verdict is Verdict.UNCHECKED
    assert definition_step(DENIED, served=False).verdict is Verdict.WRONG
    assert definition_step(None, served=False).verdict is Verdict.WRONG


def test_replicas_must_be_ready_and_one_must_lead() -> None:
    assert deployment_step(operator()).verdict is Verdict.FINE
    assert "describe pods -l app.kubernetes.io/name=tuinly-operator" in deployment_step(operator(ready=1)).todo
    lease = {"spec": {"holderIdentity": "a_1", "renewTime": "2026-11-24T06:59:59.000000Z"}}
    assert lease_step(operator(), lease, NOW).text == "tuinly-system/tuinly-operator: a_1 leads"
    assert lease_step(operator(), None, NOW).verdict is Verdict.WRONG
    assert lease_step(operator(), DENIED, NOW).verdict is Verdict.UNCHECKED


def test_several_replicas_need_a_lease() -> None:
    raw = deployment([])
    raw["spec"]["template"]["spec"]["containers"][0]["env"] = []
    several = installation_of(raw)
    raw["spec"]["replicas"] = 1
    single = installation_of(raw)
    assert several is not None
    assert single is not None
    assert lease_step(several, None, NOW).verdict is Verdict.WRONG
    assert lease_step(single, None, NOW).verdict is Verdict.FINE


def test_missing_rights_are_named_with_what_they_are_for() -> None:
    assert rights_step(operator(), []).verdict is Verdict.FINE
    assert rights_step(operator(), DENIED).verdict is Verdict.UNCHECKED
    step = rights_step(operator(), [(RIGHTS[2], "shop")])
    assert "may not: patch tuinlycredentials/status in shop (report)" in step.text


def test_push_needs_its_policy() -> None:
    assert [push_step(bound=bound).verdict for bound in (True, False, DENIED)] == [
        Verdict.FINE,
        Verdict.WRONG,
        Verdict.UNCHECKED,
    ]


def test_no_operator_is_wrong_unless_it_could_not_be_looked_for() -> None:
    assert no_operator("this cluster", None).verdict is Verdict.WRONG
    assert no_operator("this cluster", DENIED).verdict is Verdict.UNCHECKED
