"""Pushes: which Pods are told, which need a restart instead, what an answer means, and what users are told."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from tests.support.merge import merged
from tuinly_operator.base.clock import Moment, parse_rfc3339
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.errors import Reason
from tuinly_operator.domain.push import (
    PUSHED,
    SCHEDULED,
    Content,
    Delivery,
    Outcome,
    Pod,
    Push,
    Reply,
    delivered,
    delivery,
    outcome_of,
    pod_of,
    story,
    users_of,
)

Json = dict[str, Any]

SECRET = "storefront-token"
STARTED = "2026-11-24T07:00:00Z"
WRITTEN = Moment(parse_rfc3339(STARTED) + 100, 50_000.0)
PUSH = Push(
    NamespacedName("shop", "storefront"), "uid", NamespacedName("shop", SECRET), Content("77", WRITTEN, ours=True)
)


def pod(*patches: Json) -> Json:
    """A Pod that runs and mounts the Secret, changed by merge patches."""
    raw: Json = {
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "pod-uid"},
        "spec": {
            "nodeName": "node-1",
            "volumes": [{"name": "token", "secret": {"secretName": SECRET}}],
            "containers": [{"name": "web", "volumeMounts": [{"name": "token", "mountPath": "/token"}]}],
        },
        "status": {"phase": "Running", "startTime": STARTED},
    }
    for patch in patches:
        raw = merged(raw, patch)
    return raw


def use(raw: Json) -> tuple[bool, bool] | None:
    """Whether it is shown new content of the Secret, and whether it keeps old content."""
    seen = pod_of(raw, {SECRET})
    return (SECRET in seen.shows, SECRET in seen.keeps) if seen else None


def spec(**parts: Any) -> Json:  # noqa: ANN401 -- JSON
    return {"spec": parts}


def container(name: str = "web", **parts: Any) -> Json:  # noqa: ANN401 -- JSON
    return {"name": name, **parts}


MOUNT: Json = {"name": "token", "mountPath": "/token"}
PART: Json = {"name": "token", "mountPath": "/token/access_token", "subPath": "access_token"}
VARIABLE: Json = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "access_token"}}}
OTHER_VARIABLE: Json = merged(VARIABLE, {"valueFrom": {"secretKeyRef": {"name": "other"}}})
ALL_VARIABLES: Json = {"secretRef": {"name": SECRET}}
PROJECTED = {"name": "token", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": SECRET}}]}}
NO_VOLUME = spec(volumes=[])

# --- Which Pods -------------------------------------------------------------------------------------------------------

SHOWN, KEPT, BOTH = (True, False), (False, True), (True, True)
USES: dict[str, tuple[Json, tuple[bool, bool] | None]] = {
    "a directory": ({}, SHOWN),
    "a projected one": (spec(volumes=[PROJECTED]), SHOWN),
    "an optional one": (spec(volumes=[{"name": "token", "secret": {"secretName": SECRET, "optional": True}}]), SHOWN),
    "a volume that no container mounts": (spec(containers=[container()]), SHOWN),
    "another Secret": (spec(volumes=[{"name": "token", "secret": {"secretName": "other"}}]), None),
    "another volume": (spec(volumes=[{"name": "token", "configMap": {"name": SECRET}}]), None),
    "no volume": (spec(volumes=[], containers=[container()]), None),
    "a part of it": (spec(containers=[container(volumeMounts=[PART])]), KEPT),
    "a part of a projected one": (spec(volumes=[PROJECTED], containers=[container(volumeMounts=[PART])]), KEPT),
    "a part by expression": (
        spec(containers=[container(volumeMounts=[{"name": "token", "mountPath": "/t", "subPathExpr": "$(NAME)"}])]),
        KEPT,
    ),
    "a part, and all of it": (spec(containers=[container(volumeMounts=[PART, MOUNT])]), BOTH),
    "a part in one container, all of it in another": (
        spec(containers=[container(volumeMounts=[PART]), container("side", volumeMounts=[MOUNT])]),
        BOTH,
    ),
    "a part of another volume": (
        spec(
            containers=[container(volumeMounts=[MOUNT, {**PART, "name": "other"}])],
            volumes=[*pod()["spec"]["volumes"], {"name": "other", "secret": {"secretName": "other"}}],
        ),
        SHOWN,
    ),
    "a variable": (spec(volumes=[], containers=[container(env=[VARIABLE])]), KEPT),
    "all variables": (spec(volumes=[], containers=[container(envFrom=[ALL_VARIABLES])]), KEPT),
    "a variable of another Secret": (
        spec(
            volumes=[], containers=[container(env=[merged(VARIABLE, {"valueFrom": {"secretKeyRef": {"name": "o"}}})])]
        ),
        None,
    ),
    "plain variables": (
        spec(
            containers=[
                container(
                    env=[{"name": "A", "value": "b"}, {"name": "C"}, {"name": "D", "valueFrom": {"fieldRef": {}}}],
                    envFrom=[{"configMapRef": {"name": SECRET}}],
                    volumeMounts=[MOUNT],
                )
            ]
        ),
        SHOWN,
    ),
    "a variable and a directory": (spec(containers=[container(env=[VARIABLE], volumeMounts=[MOUNT])]), BOTH),
}


@pytest.mark.rule("PUSH-2", "PUSH-3")
@pytest.mark.parametrize(("patch", "expected"), USES.values(), ids=USES.keys())
def test_how_a_pod_uses_a_secret(patch: Json, expected: tuple[bool, bool] | None) -> None:
    assert use(pod(patch)) == expected


def test_the_words_of_the_api_are_those_of_the_docs_and_of_the_policy() -> None:
    """Others go by them: a policy that lets this one annotation be set, and whoever looks at a Pod."""
    assert PUSHED == "tuinly.com/pushed"
    assert SCHEDULED == "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"


def test_an_answer_asks_for_no_wait_and_says_no_more_unless_it_does() -> None:
    assert Reply(Outcome.DONE) == Reply(Outcome.DONE, "", 0.0)


def test_of_a_pod_a_few_words_are_kept_and_of_the_secrets_those_that_are_looked_for() -> None:
    volumes = [{"name": name, "secret": {"secretName": name}} for name in (SECRET, "another", "of-no-interest")]
    raw = pod(spec(volumes=volumes, containers=[container(env=[VARIABLE, OTHER_VARIABLE])]), valued("76"))
    assert pod_of(raw, {SECRET, "another"}) == Pod(
        name="web-1",
        uid="pod-uid",
        value="76",
        started=parse_rfc3339(STARTED),
        shows=frozenset({SECRET, "another"}),
        keeps=frozenset({SECRET}),
    )
    assert seen().value == ""


KINDS = {
    "containers": "containerStatuses",
    "initContainers": "initContainerStatuses",
    "ephemeralContainers": "ephemeralContainerStatuses",
}


@pytest.mark.rule("PUSH-3")
@pytest.mark.parametrize("kind", KINDS)
def test_a_container_counts_while_it_runs_of_whichever_kind_it_is(kind: str) -> None:
    """Before, it has yet to read what is there; afterwards nobody is left to need it."""
    uses = spec(**{kind: [container("other", env=[VARIABLE])]})
    waits, runs, ended = (
        {"status": {KINDS[kind]: [{"name": "other", "state": {state: {}}}]}}
        for state in ("waiting", "running", "terminated")
    )
    assert use(pod(uses)) == BOTH
    assert use(pod(uses, runs)) == BOTH
    assert use(pod(uses, waits)) == SHOWN
    assert use(pod(uses, ended)) == SHOWN
    assert use(pod(NO_VOLUME, uses, ended)) is None


def test_those_who_know_already_are_counted() -> None:
    assert users_of(THEIRS, [seen("a", valued("77")), seen("b", valued("76"), started(50))]).know == 1


OUT_OF_THE_QUESTION: dict[str, Json] = {
    "not scheduled": spec(nodeName=None),
    "succeeded": {"status": {"phase": "Succeeded"}},
    "failed": {"status": {"phase": "Failed"}},
    "terminating": {"metadata": {"deletionTimestamp": "2026-11-24T07:00:00Z"}},
    "a mirror Pod": {"metadata": {"annotations": {"kubernetes.io/config.mirror": "hash"}}},
}


@pytest.mark.rule("PUSH-2")
@pytest.mark.parametrize("patch", OUT_OF_THE_QUESTION.values(), ids=OUT_OF_THE_QUESTION.keys())
def test_whom_no_kubelet_shows_anything_any_more(patch: Json) -> None:
    assert pod_of(pod(patch), {SECRET}) is None


@pytest.mark.rule("PUSH-2")
@pytest.mark.parametrize("phase", ["Pending", "Running", "Unknown", None])
def test_whom_a_kubelet_has_to_do_with(phase: str | None) -> None:
    assert pod_of(pod({"status": {"phase": phase}}), {SECRET}) is not None


def test_a_pod_without_anything_is_understood() -> None:
    assert pod_of({"metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": "n"}}, {SECRET}) is None


# --- Whom to tell -----------------------------------------------------------------------------------------------------


def seen(name: str = "web-1", *patches: Json) -> Pod:
    found = pod_of(pod({"metadata": {"name": name, "uid": name}}, *patches), {SECRET})
    assert found is not None
    return found


def told(push: Push, *pods: Pod) -> tuple[list[str], list[str]]:
    tell, _, beyond = users_of(push, pods)
    return [one.name for one in tell], list(beyond)


def started(seconds: float) -> Json:
    """So much after the write."""
    moment = int(WRITTEN.wall + seconds) % 60, int(WRITTEN.wall + seconds) // 60 % 60
    return {"status": {"startTime": f"2026-11-24T07:{moment[1]:02}:{moment[0]:02}Z"}}


def valued(value: str) -> Json:
    return {"metadata": {"annotations": {PUSHED: value}}}


THEIRS = replace(PUSH, content=replace(PUSH.content, ours=False))


@pytest.mark.rule("PUSH-9")
@pytest.mark.parametrize(
    ("ours", "value", "begun"), list(product([True, False], ["", "76", "77"], [None, -50, 0, 50])), ids=str
)
def test_after_a_write_of_ours_all_are_told_after_anothers_those_who_may_not_know(
    ours: bool,  # noqa: FBT001 -- a parameter of the test
    value: str,
    begun: float | None,
) -> None:
    patch = started(begun) if begun is not None else {"status": {"startTime": None}}
    tell, _ = told(PUSH if ours else THEIRS, seen("web-1", patch, valued(value)))
    knows = value == "77" or (not ours and (begun is None or begun > 0))
    assert tell == ([] if knows else ["web-1"])


@pytest.mark.rule("PUSH-8")
def test_a_pod_that_began_at_no_time_that_there_is_counts_as_one_that_has_begun() -> None:
    """The API server takes such times from whoever may write a Pod's status."""
    assert seen("web-1", {"status": {"startTime": "0000-01-01T00:00:00Z"}}).started == 0.0


def test_only_users_of_the_target_are_told() -> None:
    other = pod_of(pod(spec(volumes=[{"name": "token", "secret": {"secretName": "other"}}])), {SECRET, "other"})
    assert other is not None
    assert told(PUSH, other, seen()) == (["web-1"], [])


def test_who_keeps_what_it_has_is_named_in_order() -> None:
    keeps = spec(volumes=[], containers=[container(env=[VARIABLE])])
    both = spec(containers=[container(env=[VARIABLE], volumeMounts=[MOUNT])])
    assert told(PUSH, seen("c", both), seen("b", keeps), seen("a")) == (["c", "a"], ["b", "c"])


def test_content_of_another_process_is_of_interest_for_longer() -> None:
    until = {ours: Content("77", WRITTEN, ours=ours).until.remaining(WRITTEN) for ours in (True, False)}
    assert until == {True: 60, False: 90}


# --- What an answer means ---------------------------------------------------------------------------------------------


@pytest.mark.rule("PUSH-7")
@pytest.mark.parametrize(
    ("status", "other_uid", "answer"),
    [
        (404, False, Outcome.GONE),
        (422, True, Outcome.GONE),
        (409, True, Outcome.GONE),
        (422, False, Outcome.REFUSED),
        (400, False, Outcome.REFUSED),
        (401, False, Outcome.REFUSED),
        (403, False, Outcome.REFUSED),
        (405, False, Outcome.REFUSED),
        (409, False, Outcome.AGAIN),
        (429, False, Outcome.AGAIN),
        (500, False, Outcome.AGAIN),
        (504, False, Outcome.AGAIN),
        (None, False, Outcome.AGAIN),
    ],
)
def test_an_answer_means(status: int | None, other_uid: bool, answer: Outcome) -> None:  # noqa: FBT001 -- a parameter
    assert outcome_of(status, other_uid=other_uid) is answer


# --- What users are told ----------------------------------------------------------------------------------------------


VERDICTS: dict[str, tuple[Delivery, str, Reason]] = {
    "all told": (Delivery(told=20), "True", Reason.PUSHED),
    "nobody there": (Delivery(), "True", Reason.PUSHED),
    "some late": (Delivery(told=20, late=1), "False", Reason.PUSH_INCOMPLETE),
    "not listed": (Delivery(unlisted=True), "False", Reason.PUSH_INCOMPLETE),
    "some beyond": (Delivery(told=20, beyond=1, names=("a",)), "False", Reason.PUSH_INCOMPLETE),
    "refused": (Delivery(refused="no policy"), "False", Reason.PUSH_REFUSED),
    "refused, and more": (Delivery(1, 1, 1, ("a",), refused="no policy"), "False", Reason.PUSH_REFUSED),
}


@pytest.mark.rule("PUSH-11")
@pytest.mark.parametrize(("came", "status", "reason"), VERDICTS.values(), ids=VERDICTS.keys())
def test_what_came_of_a_push(came: Delivery, status: str, reason: Reason) -> None:
    assert delivered(came)[:2] == (status, reason)


def test_all_that_came_of_a_push_is_told_in_one_sentence_numbers_first() -> None:
    *_, message = delivered(Delivery(told=20, late=3, beyond=1, names=("a",), refused="no policy"))
    assert message == (
        "Pods that were told of the present token: 20, not in time: 3; no policy; Pods that do not see it, since they "
        "use the Secret by an environment variable or a subPath: 1 (a); restart them; those not in time see it within "
        "about 90 seconds"
    )


@pytest.mark.rule("PUSH-11")
def test_three_are_named_who_need_a_restart() -> None:
    came = delivery(5, 0, ["a", "b", "c", "d"], unlisted=False, refused="")
    *_, message = delivered(came)
    assert ": 4 (a, b, c and others); restart them" in message
    *_, message = delivered(replace(came, beyond=3))
    assert ": 3 (a, b, c); restart them" in message


def test_a_push_is_summed_up() -> None:
    came = delivery(5, 2, ["a", "b", "c", "d"], unlisted=True, refused="no")
    assert came == Delivery(told=5, late=2, beyond=4, names=("a", "b", "c"), unlisted=True, refused="no")
    assert delivery(0, 0, [], unlisted=False, refused="") == Delivery()


@pytest.mark.rule("PUSH-12")
def test_how_many_were_told_is_a_mere_number_and_who_cannot_be_is_not() -> None:
    one, more, late, beyond, other = (
        story(delivered(came)[2])
        for came in (
            Delivery(told=1),
            Delivery(told=20),
            Delivery(told=1, late=1),
            Delivery(told=1, late=1, beyond=1, names=("a",)),
            Delivery(told=9, late=7, beyond=1, names=("b",)),
        )
    )
    assert one == more
    assert story(delivered(Delivery(told=3, late=8))[2]) == late
    assert len({one, late, beyond, other}) == 4


@pytest.mark.rule("PUSH-5")
@pytest.mark.parametrize("forged", ["1" * 200_000, "9" * 21, "\u0661", "v1", "-1", " 1", "1\n"], ids=ascii)
def test_of_an_annotation_that_is_no_resource_version_only_a_constant_is_kept(forged: str) -> None:
    assert seen("web-1", valued(forged)).value == "other"
    assert seen("web-1", valued(str(2**64 - 1))).value == str(2**64 - 1)
