"""What `why` says of each step, and which of them it ends with."""

import pytest

from kubectl_tuinly.outcome import Exit
from kubectl_tuinly.rules.chain import (
    Served,
    attempt_step,
    client_step,
    definition_step,
    has_keys,
    operator_step,
    pods_step,
    target_step,
    url_step,
)
from kubectl_tuinly.rules.pods import How, Use
from kubectl_tuinly.rules.steps import Step, Unseen, Verdict, exit_of, next_thing
from tests.support.objects import Json
from tests.unit.facts import ISSUED, UID, TargetObject, credential, foreign_secret
from tests.unit.plugin.objects import GOOD, NOW, operator, seen
from tuinly_operator.domain.credential import Credential
from tuinly_operator.domain.errors import Failure, Reason

DENIED = Unseen("secrets is forbidden")


def secret(*keys: str, manager: str = "kubectl-create") -> Json:
    fields: Json = {"f:data": {f"f:{key}": {} for key in keys}}
    return {"metadata": {"name": "storefront-client", "managedFields": [{"manager": manager, "fieldsV1": fields}]}}


# Operator -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("PLUGIN-7")
@pytest.mark.parametrize(
    ("serving", "verdict", "text"),
    [
        ([], Verdict.WRONG, "no operator in this cluster serves it"),
        ([Served(operator(), "pod-1_a")], Verdict.FINE, "2 of 2 replicas ready; pod-1_a leads"),
        ([Served(operator(), "")], Verdict.WRONG, "none leads"),
        ([Served(operator(ready=0), "pod-1_a")], Verdict.WRONG, "0 of 2 replicas ready"),
        ([Served(operator(), DENIED)], Verdict.FINE, "who leads was not checked: secrets is forbidden"),
        ([Served(operator(), "a"), Served(operator(), "b")], Verdict.WARNING, "a leads; "),
        (DENIED, Verdict.UNCHECKED, "one has looked at it; not checked: secrets is forbidden"),
    ],
    ids=["none", "one", "leaderless", "down", "lease unseen", "two", "unseen"],
)
def test_who_serves_it(serving: list[Served] | Unseen, verdict: Verdict, text: str) -> None:
    step = operator_step(seen(), serving)
    assert step.verdict is verdict
    assert text in step.text


def test_who_may_not_look_for_operators_is_told_by_the_status_that_none_has_looked() -> None:
    step = operator_step(credential({"status": {"observedGeneration": -1}}), DENIED)
    assert step.verdict is Verdict.WRONG
    assert "no operator has looked at it" in step.text
    assert ", but not at the present spec" in operator_step(seen(observedGeneration=0), DENIED).text


# Client Secret --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "read", "verdict", "text"),
    [
        (None, None, Verdict.WRONG, "the Secret storefront-client does not exist"),
        (DENIED, None, Verdict.UNCHECKED, "not checked: secrets is forbidden"),
        (secret("client_id", "client_secret"), None, Verdict.FINE, "last written by kubectl-create"),
        (secret(), Failure(Reason.CLIENT_SECRET_INVALID, "has an empty key"), Verdict.WRONG, "has an empty key"),
        (secret(), DENIED, Verdict.UNCHECKED, "not checked"),
    ],
    ids=["missing", "unseen", "good", "flawed", "unread"],
)
def test_the_client_secret(
    meta: Json | Unseen | None, read: Failure | Unseen | None, verdict: Verdict, text: str
) -> None:
    step = client_step(seen(), meta, read)
    assert step.verdict is verdict
    assert text in step.text


def test_the_operators_word_on_a_client_secret_counts() -> None:
    step = client_step(
        seen("False:ClientSecretInvalid", "False:ClientSecretInvalid"), secret("client_id", "client_secret"), None
    )
    assert (step.verdict, step.text) == (Verdict.WRONG, "about ClientSecretInvalid")


@pytest.mark.rule("PLUGIN-8")
def test_managed_fields_tell_which_keys_there_are() -> None:
    assert has_keys(seen(), secret("client_id", "client_secret"))
    assert not has_keys(seen(), secret("client_id"))
    assert not has_keys(seen(), {"metadata": {}})


# URL ------------------------------------------------------------------------------------------------------------------


def test_the_token_url_is_judged_by_the_operators_settings_or_by_its_word() -> None:
    named = credential({"spec": {"tokenURL": "https://other.example/token"}})
    assert url_step(named, operator()).verdict is Verdict.WRONG
    assert url_step(named, operator("--allowed-token-url=https://other.example/token")).verdict is Verdict.FINE
    assert url_step(named, None).verdict is Verdict.UNCHECKED
    assert url_step(seen(), operator()).text == "https://oauth.tuinly.com/token is allowed"
    assert (
        url_step(seen(tokenURL="https://a.example"), None).text == "https://a.example, by what the operator last told"
    )
    assert url_step(seen("False:URLNotAllowed", "False:URLNotAllowed"), operator()).text == "about URLNotAllowed"


# Attempt --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("PLUGIN-7")
@pytest.mark.parametrize(
    ("of", "verdict", "text"),
    [
        (credential(), Verdict.WAITING, "none yet"),
        (seen(lastGrant="RefreshToken"), Verdict.FINE, "it worked, 10m ago by refresh token"),
        (seen(observedGeneration=0), Verdict.WAITING, "about an earlier spec"),
        (seen(GOOD, "Unknown:Suspended"), Verdict.WAITING, "suspended"),
        (seen("False:Issuing", "Unknown:Issuing"), Verdict.WAITING, "about Issuing"),
        (seen(GOOD, "False:EndpointUnavailable"), Verdict.WARNING, "EndpointUnavailable: about"),
        (seen("False:InvalidScope", "False:InvalidScope", failedAttempts=3), Verdict.WRONG, "failed attempts: 3"),
    ],
    ids=["new", "good", "outdated", "suspended", "under way", "failing", "failed"],
)
def test_the_last_attempt(of: Credential, verdict: Verdict, text: str) -> None:
    step = attempt_step(of, [], NOW)
    assert step.verdict is verdict
    assert text in step.text


def test_the_last_warning_is_told_of_this_very_credential() -> None:
    failing = seen(GOOD, "False:InvalidScope")
    event = {
        "type": "Warning",
        "reason": "InvalidScope",
        "eventTime": "2026-11-24T07:09:00.000000Z",
        "regarding": {"uid": UID},
    }
    other = {
        **event,
        "reason": "TokenExpired",
        "eventTime": "2026-11-24T07:09:50.000000Z",
        "regarding": {"uid": "other"},
    }
    assert "; last Warning InvalidScope, 60s ago" in attempt_step(failing, [event, other], NOW).text
    assert "Warning" not in attempt_step(failing, DENIED, NOW).text


# Target ---------------------------------------------------------------------------------------------------------------


def target(**changes: object) -> Json:
    return {"metadata": {**TargetObject().meta, **changes}}


def test_a_good_target_is_told_with_its_end() -> None:
    step = target_step(seen(), target(), NOW)
    assert (step.verdict, step.text) == (Verdict.FINE, "storefront-token holds a token that expires in 50m")
    assert target_step(seen(), target(), ISSUED.wall + 4000).verdict is Verdict.WRONG
    assert target_step(seen(), None, NOW).verdict is Verdict.WAITING
    assert target_step(seen(), DENIED, NOW).verdict is Verdict.UNCHECKED


def test_who_else_touched_the_target_is_told() -> None:
    entries = [*TargetObject().meta["managedFields"], {"manager": "kubectl-edit", "fieldsV1": {}}]
    assert "; also touched by kubectl-edit" in target_step(seen(), target(managedFields=entries), NOW).text


def test_a_foreign_target_is_to_be_deleted() -> None:
    assert foreign_secret().target is None
    raw = {"metadata": {"name": "storefront-token", "uid": "x", "resourceVersion": "1"}}
    step = target_step(seen(), raw, NOW)
    assert step.verdict is Verdict.WRONG
    assert step.todo == "Delete the Secret storefront-token, or choose another spec.target.name."


def test_a_target_that_waits_for_its_template_is_told() -> None:
    patch = {"spec": {"target": {"template": {"data": {"t": "${access_token}"}}}}}
    step = target_step(credential(patch), target(), NOW)
    assert step.verdict is Verdict.WAITING
    assert "does not look yet as spec.target asks for" in step.text


# Pods and the end -----------------------------------------------------------------------------------------------------


def test_pods_are_judged_by_when_they_started() -> None:
    entry = {**TargetObject().meta["managedFields"][0], "time": "2026-11-24T07:00:00Z"}
    there = target(managedFields=[entry])
    old = Use("web", "main", How.SUBPATH, ISSUED.wall - 10, "")
    assert pods_step(seen(), [old], there, NOW).todo.startswith("Restart web, ")
    assert pods_step(seen(), [old], DENIED, NOW).verdict is Verdict.WRONG  # by the status
    later = old._replace(started=ISSUED.wall + 10)
    assert pods_step(seen(), [later], there, NOW).verdict is Verdict.WARNING
    directory = old._replace(how=How.DIRECTORY)
    assert pods_step(seen(), [directory], there, ISSUED.wall + 5).verdict is Verdict.WAITING
    assert pods_step(seen(), [directory], there, NOW).verdict is Verdict.FINE
    assert pods_step(seen(), [], there, NOW).text == "no Pod uses the Secret storefront-token"
    assert pods_step(seen(), [directory] * 6, there, NOW).text.endswith("; and more")
    assert pods_step(seen(), DENIED, there, NOW).verdict is Verdict.UNCHECKED


def test_a_spec_that_cannot_be_understood_is_the_first_to_mend() -> None:
    bad = credential({"spec": {"target": {"template": {"data": {"a": "${no}"}}}}})
    assert definition_step(bad).todo.startswith("Mend the spec: spec.target.template.data")
    assert definition_step(seen()).verdict is Verdict.FINE


FINE = Step("a", Verdict.FINE, "")
WRONG = Step("b", Verdict.WRONG, "", "Mend it.")
WARNING = Step("c", Verdict.WARNING, "", "Beware.")
WAITING = Step("d", Verdict.WAITING, "")
HIDDEN = Step("e", Verdict.UNCHECKED, "")


@pytest.mark.rule("PLUGIN-4")
@pytest.mark.parametrize(
    ("steps", "todo", "status"),
    [
        ([FINE, FINE], "Nothing.", Exit.READY),
        ([FINE, WARNING], "Beware.", Exit.READY),
        ([WARNING, WRONG], "Mend it.", Exit.NOT_READY),
        ([WAITING, FINE], "Wait a moment, and look again", Exit.NOT_READY),
        ([FINE, HIDDEN], "not checked: 1 of 2 steps", Exit.UNCHECKED),
    ],
    ids=["fine", "warning", "wrong", "waiting", "hidden"],
)
def test_the_worst_finding_decides(steps: list[Step], todo: str, status: Exit) -> None:
    assert todo in next_thing(steps)
    assert exit_of(steps) is status
