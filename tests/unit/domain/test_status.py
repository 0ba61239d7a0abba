"""What users are told: the conditions of the contract row by row, the other fields, and Events on transitions only."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.merge import merged
from tests.unit.domain.test_decision import WORLDS
from tests.unit.domain.test_schema_parity import SCHEMA
from tests.unit.facts import (
    DUE,
    EXPIRED,
    FORCED,
    ISSUED,
    LIFETIME,
    OTHER_SCOPES,
    OTHER_TOKEN_URL,
    OTHER_URL,
    REFUSED_URL,
    SUSPENDED,
    TEMPLATED,
    TOKEN_URL,
    VERIFIES,
    Change,
    Scene,
    absence_proven,
    annotated,
    attempted,
    blocked,
    brand_new,
    client_edited,
    client_invalid,
    client_known,
    client_missing,
    client_relabelled,
    client_rotated,
    failing,
    label_removed,
    named,
    passed,
    pending,
    queued_long,
    refreshable,
    renamed,
    reported,
    restarted,
    spec,
    target_edited,
    target_foreign,
    target_gone,
    throttled,
    token,
    unverifiable,
    write_refused,
)
from tuinly_operator.domain.acts import (
    Exchange,
    Rest,
)
from tuinly_operator.domain.credential import Condition, GrantType, Status, parse_status, to_json
from tuinly_operator.domain.errors import Reason
from tuinly_operator.domain.notices import Notice
from tuinly_operator.domain.push import Delivery
from tuinly_operator.domain.status import same_story, status, transitions

Changes = Sequence[Change]


def told(scene: Scene) -> Status:
    """The status that is written when the scene is at rest or, if an act is under way, meanwhile."""
    return status(scene.facts(), scene.at_rest())


def verdicts(found: Status) -> dict[str, str]:
    return {condition.type: f"{condition.status} {condition.reason}" for condition in found.conditions}


def condition(found: Status, kind: str) -> Condition:
    one = found.condition(kind)
    assert one is not None
    return one


# --- The table of conditions ------------------------------------------------------------------------------------------

FRESH = "True Issued"
NEW: Changes = [brand_new, client_known, absence_proven]
ROWS: dict[str, tuple[Changes, str, str]] = {
    "fresh": ([], FRESH, FRESH),
    "fresh, refresh under way": ([DUE], FRESH, FRESH),
    "fresh, refresh by refresh token under way": ([refreshable, DUE], FRESH, FRESH),
    "fresh, forced exchange under way": ([FORCED], FRESH, FRESH),
    "fresh, client Secret edited": ([client_edited], FRESH, FRESH),
    "fresh, client Secret relabelled": ([client_relabelled], FRESH, FRESH),
    "fresh, client secret rotated": ([client_rotated], FRESH, FRESH),
    "fresh, template changed": ([TEMPLATED], FRESH, FRESH),
    "fresh, template changed, restarted": ([restarted, TEMPLATED], FRESH, FRESH),
    "fresh, label removed": ([label_removed], FRESH, FRESH),
    "fresh, Retain": ([spec({"target": {"deletionPolicy": "Retain"}})], FRESH, FRESH),
    "fresh, another lead": ([spec({"refresh": {"before": "30m"}})], FRESH, FRESH),
    "fresh, endpoint down": ([blocked], FRESH, FRESH),
    "fresh, a new one obtained": ([pending], FRESH, FRESH),
    # The first token, or one for changed inputs or a lost target, under way.
    "new": ([brand_new], "False Issuing", "Unknown Issuing"),
    "new, under way": (NEW, "False Issuing", "Unknown Issuing"),
    "new, obtained": ([*NEW, pending], "False Issuing", "Unknown Issuing"),
    "other scopes": ([OTHER_SCOPES], "False Issuing", "Unknown Issuing"),
    "other URL": ([OTHER_TOKEN_URL], "False Issuing", "Unknown Issuing"),
    "other client": ([spec({"clientSecretRef": {"clientSecretKey": "k"}})], "False Issuing", "Unknown Issuing"),
    "renamed": ([renamed], "False Issuing", "Unknown Issuing"),
    "lost": ([target_gone], "False Issuing", "Unknown Issuing"),
    "edited": ([target_edited], "False Issuing", "Unknown Issuing"),
    "lost while it was down": ([target_gone, restarted], "False Issuing", "Unknown Issuing"),
    "other scopes, an attempt just made": ([OTHER_SCOPES, attempted], "False Issuing", "Unknown Issuing"),
    "other scopes, failed before they were": ([failing(), OTHER_SCOPES], "False Issuing", "Unknown Issuing"),
    # The same, failing.
    "new, failing": ([*NEW, failing(Reason.INVALID_CLIENT)], "False InvalidClient", "False InvalidClient"),
    "new, failing, tried again now": (
        [*NEW, failing(Reason.INVALID_CLIENT), passed(31)],
        "False InvalidClient",
        "False InvalidClient",
    ),
    "new, no client Secret": (
        [brand_new, client_missing],
        "False ClientSecretNotFound",
        "False ClientSecretNotFound",
    ),
    "new, odd client Secret": ([brand_new, client_invalid], "False ClientSecretInvalid", "False ClientSecretInvalid"),
    "new, endpoint down": ([*NEW, blocked], "False EndpointUnavailable", "False EndpointUnavailable"),
    "new, throttled": ([*NEW, throttled], "False EndpointThrottled", "False EndpointThrottled"),
    "new, others first for a while": ([*NEW, queued_long], "False Issuing", "Unknown Issuing"),
    "fresh, due, others first for a while": ([DUE, queued_long], FRESH, "Unknown Issuing"),
    "fresh, failing, and a new one obtained": ([DUE, failing(), pending], FRESH, "False EndpointUnavailable"),
    "new, target foreign": ([brand_new, target_foreign], "False TargetConflict", "False TargetConflict"),
    "new, write refused": ([*NEW, pending, write_refused], "False TargetRejected", "False TargetRejected"),
    "lost, restore refused": ([target_edited, write_refused], "False TargetRejected", "False TargetRejected"),
    "other scopes, failing": (
        [OTHER_SCOPES, failing(Reason.INVALID_SCOPE)],
        "False InvalidScope",
        "False InvalidScope",
    ),
    "other scopes, request rejected": (
        [OTHER_SCOPES, failing(Reason.REQUEST_REJECTED)],
        "False RequestRejected",
        "False RequestRejected",
    ),
    "other URL, failing": ([OTHER_TOKEN_URL, failing()], "False EndpointUnavailable", "False EndpointUnavailable"),
    "renamed, the new name taken": ([renamed, target_foreign], "False TargetConflict", "False TargetConflict"),
    "other scopes, verification failing": (
        [VERIFIES, OTHER_SCOPES, failing(Reason.VERIFICATION_FAILED)],
        "False VerificationFailed",
        "False VerificationFailed",
    ),
    # Fresh, but something fails.
    "fresh, failing": ([DUE, failing()], FRESH, "False EndpointUnavailable"),
    "fresh, refused": ([client_rotated, failing(Reason.INVALID_CLIENT)], FRESH, "False InvalidClient"),
    "fresh, due, endpoint down": ([DUE, blocked], FRESH, "False EndpointUnavailable"),
    "fresh, due, throttled": ([DUE, throttled], FRESH, "False EndpointThrottled"),
    "fresh, no client Secret": ([client_missing], FRESH, "False ClientSecretNotFound"),
    "fresh, odd client Secret": ([client_invalid], FRESH, "False ClientSecretInvalid"),
    "fresh, write refused": ([DUE, pending, write_refused], FRESH, "False TargetRejected"),
    "fresh, refused, and the client secret rotated since": (
        [failing(Reason.INVALID_CLIENT), client_rotated],
        FRESH,
        "Unknown Issuing",
    ),
    "fresh, refused, and an exchange forced since": (
        [client_rotated, failing(Reason.INVALID_CLIENT), FORCED],
        FRESH,
        "Unknown Issuing",
    ),
    "fresh, refused, and the client Secret as before again": (
        [failing(Reason.INVALID_CLIENT), client_relabelled],
        FRESH,
        FRESH,
    ),
    "fresh, verification failed": (
        [VERIFIES, DUE, failing(Reason.VERIFICATION_FAILED)],
        FRESH,
        "False VerificationFailed",
    ),
    "fresh, verification inconclusive": (
        [VERIFIES, DUE, pending, unverifiable],
        FRESH,
        "False VerificationInconclusive",
    ),
    "new, obtained, nobody could tell whether it works before it expired": (
        [VERIFIES, *NEW, pending, unverifiable, EXPIRED],
        "False VerificationInconclusive",
        "False VerificationInconclusive",
    ),
    "fresh, published untried": ([VERIFIES, unverifiable], FRESH, "False VerificationInconclusive"),
    # What is not allowed, understood or possible: the token stays, whatever it is worth.
    "URL not allowed": ([REFUSED_URL], "False URLNotAllowed", "False URLNotAllowed"),
    "URL not allowed, expired": ([EXPIRED, REFUSED_URL], "False URLNotAllowed", "False URLNotAllowed"),
    "URL not allowed, new": ([brand_new, REFUSED_URL], "False URLNotAllowed", "False URLNotAllowed"),
    "graphqlURL not allowed": (
        [spec({"verification": {"mode": "Enabled", "graphqlURL": "https://elsewhere.example.com"}})],
        "False URLNotAllowed",
        "False URLNotAllowed",
    ),
    "graphqlURL not allowed and not used": (
        [spec({"verification": {"graphqlURL": "https://elsewhere.example.com"}})],
        FRESH,
        FRESH,
    ),
    "InvalidSpec": ([spec({"suspend": "yes"})], "False InvalidSpec", "False InvalidSpec"),
    "InvalidSpec, expired": ([EXPIRED, spec({"suspend": "yes"})], "False InvalidSpec", "False InvalidSpec"),
    # Expired.
    "expired, nothing has failed yet": ([EXPIRED, client_known], "False TokenExpired", "False TokenExpired"),
    "expired, failing": ([EXPIRED, failing()], "False TokenExpired", "False EndpointUnavailable"),
    "expired, no client Secret": ([EXPIRED, client_missing], "False TokenExpired", "False ClientSecretNotFound"),
    "expired, endpoint down": ([EXPIRED, blocked], "False TokenExpired", "False EndpointUnavailable"),
    "expired by the boot clock": ([passed(3600, wall=0), failing()], "False TokenExpired", "False EndpointUnavailable"),
    "expired, restarted, failing": (
        [EXPIRED, restarted, client_known, failing()],
        "False TokenExpired",
        "False EndpointUnavailable",
    ),
    # Suspended.
    "suspended, fresh": ([SUSPENDED], FRESH, "Unknown Suspended"),
    "suspended, due": ([DUE, SUSPENDED], FRESH, "Unknown Suspended"),
    "suspended, failing": ([DUE, failing(), SUSPENDED], FRESH, "Unknown Suspended"),
    "suspended, expired": ([EXPIRED, SUSPENDED], "False TokenExpired", "Unknown Suspended"),
    "suspended, new": ([brand_new, SUSPENDED], "False Suspended", "Unknown Suspended"),
    "suspended, lost": ([target_gone, SUSPENDED], "False Suspended", "Unknown Suspended"),
    "suspended, other scopes": ([OTHER_SCOPES, SUSPENDED], "False Suspended", "Unknown Suspended"),
}


@pytest.mark.rule("STATUS-2", "STATUS-5", "STATUS-6", "STATUS-10")
@pytest.mark.parametrize(("changes", "ready", "refreshed"), ROWS.values(), ids=ROWS.keys())
def test_conditions(changes: Changes, ready: str, refreshed: str) -> None:
    found = verdicts(told(Scene(*changes)))
    assert (found["Ready"], found["Refreshed"]) == (ready, refreshed)


@pytest.mark.rule("STATUS-12")
@pytest.mark.parametrize(("changes", "ready", "refreshed"), ROWS.values(), ids=ROWS.keys())
def test_it_is_stalled_until_somebody_mends_something(changes: Changes, ready: str, refreshed: str) -> None:
    """By the reason of Ready alone: who waits for the credential need not wait any longer."""
    del refreshed
    found = told(Scene(*changes))
    value, _, reason = ready.partition(" ")
    stalls = value == "False" and reason in STALLING
    assert verdicts(found).get("Stalled") == (f"True {reason}" if stalls else None)
    if stalls:
        assert condition(found, "Stalled").message == condition(found, "Ready").message


STALLING = {
    "InvalidSpec",
    "URLNotAllowed",
    "InvalidClient",
    "InvalidScope",
    "RequestRejected",
    "ClientSecretInvalid",
    "TargetConflict",
}


@pytest.mark.rule("STATUS-14")
@pytest.mark.parametrize(("changes", "ready", "refreshed"), ROWS.values(), ids=ROWS.keys())
def test_it_reconciles_while_a_good_token_has_the_template_of_before(
    changes: Changes, ready: str, refreshed: str
) -> None:
    del refreshed
    reshaped = TEMPLATED in changes and ready == FRESH and SUSPENDED not in changes
    found = verdicts(told(Scene(*changes)))
    assert found.get("Reconciling") == ("True TemplateChanged" if reshaped else None)


@pytest.mark.rule("STATUS-14")
@pytest.mark.parametrize(
    ("changes", "reconciles"),
    [
        ([TEMPLATED, SUSPENDED], False),
        ([TEMPLATED, DUE, pending, write_refused], True),
        ([TEMPLATED, OTHER_SCOPES], False),
        ([TEMPLATED, EXPIRED], False),
        ([TEMPLATED, REFUSED_URL], False),
        ([label_removed, SUSPENDED], False),
        ([spec({"target": {"deletionPolicy": "Retain"}}), SUSPENDED], False),
    ],
)
def test_what_hinders_it_says_whether_it_reconciles(changes: Changes, *, reconciles: bool) -> None:
    assert ("Reconciling" in verdicts(told(Scene(*changes)))) is reconciles


@pytest.mark.parametrize(("changes", "ready", "refreshed"), ROWS.values(), ids=ROWS.keys())
def test_every_message_is_a_sentence_without_a_secret(changes: Changes, ready: str, refreshed: str) -> None:
    del ready, refreshed
    found = told(Scene(*changes))
    assert all(len(condition.message) > 10 for condition in found.conditions)
    assert not any(word in json.dumps(to_json(found)) for word in ("token-1", "token-2", "refresh-1", "client-secret"))


PUSH = spec({"delivery": {"pods": "Push"}})
CAME = Delivery(told=7)
MANY_BEYOND = Delivery(told=7, beyond=9, names=("a" * 253, "b" * 253, "c" * 253))


def enabled(scene: Scene) -> None:
    """The operator was installed with Push."""
    scene.policy = replace(scene.policy, push=True)


def came(delivery: Delivery) -> Change:
    return named(f"came({delivery})", lambda scene: scene.remember(delivery=delivery))


REPORTED = named("reported", lambda scene: reported(scene, told(scene)))
DELIVERED: dict[str, tuple[Changes, str | None]] = {
    "not asked for": ([enabled, came(CAME)], None),
    "not enabled": ([PUSH, came(CAME)], "False PushNotEnabled"),
    "not enabled, new": ([*NEW, PUSH], "False PushNotEnabled"),
    "nothing pushed yet": ([PUSH, enabled], "Unknown Pushing"),
    "new": ([*NEW, PUSH, enabled], "Unknown Pushing"),
    "pushed": ([PUSH, enabled, came(CAME)], "True Pushed"),
    "pushed, failing since": ([PUSH, enabled, came(CAME), EXPIRED, failing()], "True Pushed"),
    "pushed, suspended since": ([PUSH, enabled, came(CAME), SUSPENDED], "True Pushed"),
    "pushed by an earlier process": ([PUSH, enabled, came(CAME), REPORTED, restarted], "True Pushed"),
    "not enabled before": ([PUSH, REPORTED, enabled], "Unknown Pushing"),
    "some beyond": ([PUSH, enabled, came(MANY_BEYOND)], "False PushIncomplete"),
    "some beyond before": ([PUSH, enabled, came(MANY_BEYOND), REPORTED, restarted], "False PushIncomplete"),
    "refused": ([PUSH, enabled, came(Delivery(refused="no"))], "False PushRefused"),
    "refused before": ([PUSH, enabled, came(Delivery(refused="no")), REPORTED, restarted], "False PushRefused"),
    "InvalidSpec": ([PUSH, enabled, came(CAME), spec({"suspend": "yes"})], None),
}


@pytest.mark.rule("PUSH-11")
@pytest.mark.parametrize(("changes", "expected"), DELIVERED.values(), ids=DELIVERED.keys())
def test_delivered(changes: Changes, expected: str | None) -> None:
    scene = Scene(*changes)
    found = told(scene)
    assert verdicts(found).get("Delivered") == expected
    without = Scene(*changes)
    without.object = merged(without.object, {"spec": {"delivery": None}})
    others = {kind: verdict for kind, verdict in verdicts(found).items() if kind != "Delivered"}
    assert others == {kind: verdict for kind, verdict in verdicts(told(without)).items() if kind != "Delivered"}
    assert all(len(one.message) <= 500 for one in found.conditions)


def test_how_many_pods_were_told_is_the_same_story_and_who_cannot_be_is_another() -> None:
    def of(delivery: Delivery) -> Status:
        return told(Scene(PUSH, enabled, came(delivery)))

    assert of(CAME) != of(Delivery(told=8))
    assert same_story(of(CAME), of(Delivery(told=8)))
    for other in (Delivery(told=7, late=1), MANY_BEYOND, Delivery(refused="no")):
        assert not same_story(of(CAME), of(other))
    assert not same_story(of(MANY_BEYOND), of(replace(MANY_BEYOND, beyond=8)))


def tried(scene: Scene) -> None:
    """A later token was written, and has been tried."""
    scene.written(untried=False)


UNTRIED: Changes = [VERIFIES, unverifiable, REPORTED]
INCONCLUSIVE = "False VerificationInconclusive"
REMEMBERED: dict[str, tuple[Changes, str]] = {
    "restarted": ([*UNTRIED, restarted], INCONCLUSIVE),
    "tried since": ([*UNTRIED, tried], FRESH),
    "restarted, and nothing is to be verified any more": (
        [*UNTRIED, restarted, spec({"verification": {"mode": "Disabled"}})],
        FRESH,
    ),
    "restarted, and another token is there": ([*UNTRIED, token(issued_at=int(ISSUED.wall) + 1), restarted], FRESH),
    "restarted, and another one was held back": ([VERIFIES, DUE, pending, unverifiable, REPORTED, restarted], FRESH),
    "restarted, and nothing was told": ([VERIFIES, unverifiable, restarted], FRESH),
}


@pytest.mark.parametrize(("changes", "refreshed"), REMEMBERED.values(), ids=REMEMBERED.keys())
def test_that_a_token_was_published_untried_is_known_by_the_status_as_long_as_it_is_that_one(
    changes: Changes, refreshed: str
) -> None:
    assert verdicts(told(Scene(*changes)))["Refreshed"] == refreshed


@pytest.mark.rule("STATUS-8")
def test_expiry_is_told_at_the_second() -> None:
    assert verdicts(told(Scene(passed(LIFETIME - 0.001), failing())))["Ready"] == FRESH
    assert verdicts(told(Scene(passed(LIFETIME), failing())))["Ready"] == "False TokenExpired"


@given(WORLDS)
def test_ready_means_that_the_target_holds_a_good_token(scene: Scene) -> None:
    facts, found = scene.facts(), told(scene)
    assume(not scene.at_rest().silent)  # nothing is told of a credential that is being deleted
    if verdicts(found)["Ready"] == FRESH:
        assert facts.in_place
        assert facts.memory.published is not None
        assert facts.memory.published.state.exchange_inputs == facts.inputs
        assert not facts.memory.published.expiry.due(facts.now)
        assert facts.token_url in facts.policy.allowed_token_urls
        assert facts.problem is None
    allowed = SCHEMA["status"]["properties"]["conditions"]["items"]["properties"]["status"]["enum"]
    for one in found.conditions:
        assert one.status in allowed
        assert Reason(one.reason) is one.reason
        assert one.observed_generation == facts.credential.generation
        fine = one.reason in {Reason.ISSUED, Reason.PUSHED}
        assert (one.status == "True") is fine or one.type in ("Stalled", "Reconciling")


def target_deleting(scene: Scene) -> None:
    """Somebody deletes the target, and a finalizer holds it."""
    assert scene.target is not None
    scene.target.touched()
    scene.target.meta["deletionTimestamp"] = "2026-11-24T07:00:00Z"


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ([], ""),
        (
            [target_deleting],
            "; it is being deleted and held by a finalizer: it is kept up to date, and made again once it is gone",
        ),
    ],
    ids=["there", "held by a finalizer"],
)
def test_ready_says_which_secret_holds_the_token_and_whether_it_will_stay(changes: Changes, more: str) -> None:
    message = condition(told(Scene(*changes)), "Ready").message
    assert message == f"Secret storefront-token holds a valid access token{more}"


# --- The other fields -------------------------------------------------------------------------------------------------


def test_the_status_of_a_fresh_token() -> None:
    found = to_json(told(Scene(token(granted_scopes="orders:write orders:read"), passed(600.7))))
    conditions = found.pop("conditions")
    next_time = found.pop("nextRefreshTime")
    assert found == {
        "observedGeneration": 1,
        "secretName": "storefront-token",
        "tokenURL": TOKEN_URL,
        "tokenExpirationTime": "2026-11-24T08:00:00Z",
        "lastRefreshTime": "2026-11-24T07:00:00Z",
        "lastGrant": "ClientCredentials",
        "scopes": ["orders:read", "orders:write"],
        "failedAttempts": 0,
        "lastFailureTime": None,
        "lastHandledRefresh": None,
    }
    assert "2026-11-24T07:36:10Z" <= next_time <= "2026-11-24T07:40:12Z"
    assert [condition["type"] for condition in conditions] == ["Ready", "Refreshed"]
    assert {condition["lastTransitionTime"] for condition in conditions} == {"2026-11-24T07:10:00Z"}


def test_the_status_of_a_new_credential() -> None:
    found = to_json(told(Scene(brand_new)))
    known = {name: value for name, value in found.items() if value is not None}
    assert known.keys() == {"observedGeneration", "conditions", "tokenURL", "failedAttempts"}


def test_the_status_of_a_failing_refresh() -> None:
    found = told(Scene(DUE, failing()))
    assert found.failed_attempts == 3
    assert found.last_failure_time == "2026-11-24T07:41:39Z"
    assert found.next_refresh_time == "2026-11-24T07:42:10Z"
    assert "what EndpointUnavailable means and what to do" in condition(found, "Refreshed").message


def test_the_effective_url_is_told() -> None:
    assert told(Scene(OTHER_TOKEN_URL)).token_url == OTHER_URL


@pytest.mark.parametrize("changes", [[renamed], [target_foreign], [target_gone]], ids=["renamed", "foreign", "gone"])
def test_the_secret_that_was_last_written_is_told_until_another_is(changes: Changes) -> None:
    scene = Scene()
    reported(scene, told(scene))
    for change in changes:
        change(scene)
    assert told(scene).secret_name == "storefront-token"


def test_what_only_an_earlier_process_knew_is_carried_over() -> None:
    scene = Scene()
    reported(scene, replace(told(scene), last_grant=GrantType.REFRESH_TOKEN, last_failure_time="2026-11-24T06:00:00Z"))
    scene.restart()
    found = told(scene)
    assert found.last_grant is GrantType.REFRESH_TOKEN
    assert found.last_failure_time == "2026-11-24T06:00:00Z"


BEFORE = named("before", lambda scene: reported(scene, replace(told(scene), last_handled_refresh="before")))


@pytest.mark.parametrize(
    ("changes", "handled"),
    [
        ([], "before"),  # an earlier process knew
        ([brand_new], "before"),
        ([FORCED], "before"),  # under way
        ([FORCED, failing()], "now"),
        ([FORCED, token(handled_refresh="now")], "now"),
        ([FORCED, lambda scene: scene.hold(handled="now")], "now"),  # the same token came
        ([token(handled_refresh="earlier"), FORCED], "before"),
        ([token(handled_refresh="earlier")], "before"),  # of attempts that failed since, only the status tells
        ([FORCED, token(handled_refresh="now"), failing(), annotated(None)], "now"),
        ([FORCED, token(handled_refresh="now"), annotated(None), failing()], "before"),
        ([failing(), FORCED, token(handled_refresh="now")], "now"),  # what failed was not asked for
    ],
    ids=range(11),
)
def test_which_forced_exchange_was_tried_last_is_told(changes: Changes, handled: str) -> None:
    assert told(Scene(BEFORE, *changes)).last_handled_refresh == handled


@pytest.mark.rule("STATUS-19")
@pytest.mark.parametrize("time", [0.0, 600.0, 2000.9])
@pytest.mark.parametrize(
    "changes",
    [
        [],
        [SUSPENDED],
        [REFUSED_URL],
        [token(granted_scopes="b a")],
        [spec({"target": {"deletionPolicy": "Retain"}})],
        [VERIFIES],
    ],
    ids=["fresh", "suspended", "URL not allowed", "scopes", "retained", "verifies"],
)
def test_a_restart_changes_nothing_and_so_writes_nothing(changes: Changes, time: float) -> None:
    scene = Scene(*changes, *([] if SUSPENDED in changes else [rewritten]))
    before = told(scene)
    reported(scene, before)
    passed(time)(scene)
    scene.restart()
    assert isinstance(scene.decide(), Rest)
    after = told(scene)
    assert after == before == parse_status(json.loads(json.dumps(to_json(after))))


def rewritten(scene: Scene) -> None:
    """The target has been written as the spec asks now."""
    token(granted_scopes=scene.published.state.granted_scopes)(scene)


def test_a_refresh_under_way_changes_nothing_and_so_writes_nothing() -> None:
    scene = Scene(client_known)
    before = told(scene)
    reported(scene, before)
    DUE(scene)
    assert isinstance(scene.decide(), Exchange)
    assert told(scene) == before


@pytest.mark.rule("STATUS-18")
def test_a_transition_time_moves_only_with_the_status() -> None:
    scene = Scene()
    reported(scene, told(scene))
    passed(2500)(scene)
    failing()(scene)
    found = told(scene)
    assert condition(found, "Ready").last_transition_time == "2026-11-24T07:00:00Z"
    assert condition(found, "Refreshed").last_transition_time == "2026-11-24T07:41:40Z"
    reported(scene, found)
    passed(2600)(scene)
    failing(Reason.INVALID_CLIENT)(scene)
    found = told(scene)
    assert condition(found, "Refreshed").reason == "InvalidClient"
    assert condition(found, "Refreshed").last_transition_time == "2026-11-24T07:41:40Z"


# --- When a status is worth a write -----------------------------------------------------------------------------------

BASE = told(Scene(DUE, failing()))


@pytest.mark.rule("STATUS-19")
@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"failed_attempts": 9, "last_failure_time": "2026-11-24T07:45:00Z"}, True),
        ({"next_refresh_time": "2026-11-24T07:45:00Z"}, True),
        ({"observed_generation": 2}, False),
        ({"conditions": ()}, False),
        ({"secret_name": "other"}, False),
        ({"token_url": OTHER_URL}, False),
        ({"token_expiration_time": None}, False),
        ({"last_refresh_time": None}, False),
        ({"last_grant": GrantType.REFRESH_TOKEN}, False),
        ({"scopes": ("a",)}, False),
    ],
    ids=str,
)
def test_a_failure_that_only_repeats_is_the_same_story(changes: dict[str, object], *, same: bool) -> None:
    assert same_story(BASE, replace(BASE, **changes)) is same  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["Ready", "Refreshed"])
def test_other_words_of_what_is_told_of_the_token_are_another_story(kind: str) -> None:
    reworded = (replace(c, message="other words") if c.type == kind else c for c in BASE.conditions)
    assert not same_story(BASE, replace(BASE, conditions=tuple(reworded)))


def test_a_failure_that_repeats_is_the_same_story() -> None:
    scene = Scene(DUE, failing())
    before = told(scene)
    reported(scene, before)
    passed(2540)(scene)
    failing()(scene)
    assert told(scene) != before
    assert same_story(before, told(scene))


# --- Events -----------------------------------------------------------------------------------------------------------


def conditions(ready: str, refreshed: str) -> Status:
    made = []
    for kind, verdict in (("Ready", ready), ("Refreshed", refreshed)):
        value, reason = verdict.split()
        made.append(Condition(kind, value, reason, f"{kind}: {reason}", 1, "2026-11-24T07:00:00Z"))
    return Status(conditions=tuple(made))


ISSUING = conditions("False Issuing", "Unknown Issuing")
ALL_WELL = conditions(FRESH, FRESH)
FAILING = conditions(FRESH, "False EndpointUnavailable")


@pytest.mark.rule("OBS-3")
@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        (Status(), ISSUING, []),
        (Status(), ALL_WELL, ["Normal Issued"]),
        (ISSUING, ALL_WELL, ["Normal Issued"]),
        (ALL_WELL, ALL_WELL, []),
        (ALL_WELL, ISSUING, []),
        (ALL_WELL, FAILING, ["Warning EndpointUnavailable"]),
        (FAILING, FAILING, []),
        (FAILING, conditions(FRESH, "False InvalidClient"), ["Warning InvalidClient"]),
        (FAILING, ALL_WELL, ["Normal Issued"]),
        (
            FAILING,
            conditions("False TokenExpired", "False EndpointUnavailable"),
            ["Warning TokenExpired"],
        ),
        (
            ALL_WELL,
            conditions("False TokenExpired", "False InvalidClient"),
            ["Warning TokenExpired", "Warning InvalidClient"],
        ),
        (conditions("False TokenExpired", "False InvalidClient"), ALL_WELL, ["Normal Issued"]),
        (ISSUING, conditions("False InvalidClient", "False InvalidClient"), ["Warning InvalidClient"]),
        (
            Status(),
            conditions("False ClientSecretNotFound", "False ClientSecretNotFound"),
            ["Warning ClientSecretNotFound"],
        ),
        (conditions(FRESH, "Unknown EndpointUnavailable"), FAILING, ["Warning EndpointUnavailable"]),
        (ALL_WELL, conditions(FRESH, "Unknown Suspended"), ["Normal Suspended"]),
        (Status(), conditions("False Suspended", "Unknown Suspended"), ["Normal Suspended"]),
        (conditions(FRESH, "Unknown Suspended"), ALL_WELL, ["Normal Issued"]),
        (ALL_WELL, conditions("False URLNotAllowed", "False URLNotAllowed"), ["Warning URLNotAllowed"]),
    ],
    ids=range(19),
)
def test_events_tell_of_transitions_once_per_reason(before: Status, after: Status, events: list[str]) -> None:
    found = transitions(before, after)
    assert [f"{'Warning' if one.warning else 'Normal'} {one.reason}" for one in found] == events
    messages = {one.message for one in after.conditions}
    assert all(one.message in messages for one in found)
    assert all(one.about == "Ready" for one in found)


def delivered(value: str) -> Status:
    """The condition Delivered has that value; none for an empty one."""
    reason = {"True": "Pushed", "False": "PushIncomplete", "Unknown": "Pushing"}.get(value, "")
    return Status(conditions=(Condition("Delivered", value, reason, "as it came", 1, ""),) if value else ())


@pytest.mark.parametrize("after", ["True", "False", "Unknown", ""])
@pytest.mark.parametrize("before", ["True", "False", "Unknown", ""])
def test_of_pushes_an_event_tells_when_all_pods_were_told_or_no_longer_all(before: str, after: str) -> None:
    reason = {"True": Reason.PUSHED, "False": Reason.PUSH_INCOMPLETE}
    turns = {before, after} == {"True", "False"}
    event = [Notice(after == "False", reason[after], "as it came", "Delivered")] if turns else []
    assert transitions(delivered(before), delivered(after)) == event


def test_a_message_that_changes_is_no_transition() -> None:
    after = replace(FAILING, conditions=tuple(replace(one, message="other") for one in FAILING.conditions))
    assert transitions(FAILING, after) == []


def test_a_routine_refresh_is_no_transition() -> None:
    scene = Scene(DUE)
    before = told(scene)
    reported(scene, before)
    pending(scene)
    assert transitions(before, told(scene)) == []
    assert transitions(before, status(scene.facts(), Rest())) == []


def test_an_event_says_what_the_condition_says() -> None:
    assert transitions(ALL_WELL, FAILING) == [
        Notice(warning=True, reason=Reason.ENDPOINT_UNAVAILABLE, message="Refreshed: EndpointUnavailable")
    ]


@given(WORLDS, st.booleans())
def test_the_same_status_twice_is_no_transition(scene: Scene, new: bool) -> None:  # noqa: FBT001 -- drawn
    found = told(scene)
    assert transitions(found, found) == []
    if new:
        reported(scene, found)
        assert told(scene).conditions == found.conditions
