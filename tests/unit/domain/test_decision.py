"""Decisions: from what is known and the time to the one next act, rule by rule, and what holds for all of them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit import facts as world
from tests.unit.facts import (
    DUE,
    ENDING,
    EXPIRED,
    FORCED,
    ISSUED,
    OTHER_SCOPES,
    OTHER_TOKEN_URL,
    REFUSED_URL,
    SUSPENDED,
    TEMPLATED,
    VERIFIES,
    Change,
    Json,
    Scene,
    TargetObject,
    absence_proven,
    annotated,
    at_once,
    attempted,
    blocked,
    brand_new,
    client_edited,
    client_gone,
    client_invalid,
    client_known,
    client_missing,
    client_relabelled,
    client_rotated,
    client_unread,
    created,
    deleting,
    failing,
    graphql_down,
    graphql_queued,
    label_removed,
    lives,
    named,
    old_left,
    passed,
    pending,
    queued,
    queued_long,
    refreshable,
    renamed,
    restarted,
    served,
    spec,
    target_edited,
    target_foreign,
    target_gone,
    target_of_another,
    target_overtaken,
    throttled,
    token,
    unconfirmed,
    unverifiable,
    write_refused,
)
from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.acts import (
    Act,
    AskWhoServes,
    Cause,
    Decision,
    Exchange,
    Need,
    ProveAbsence,
    Publish,
    ReadClientSecret,
    Refresh,
    RemoveOldTargets,
    Rest,
    Verify,
)
from tuinly_operator.domain.credential import DeletionPolicy, GrantType
from tuinly_operator.domain.decision import (
    READ_AGAIN,
    SURE_OF_LIFE,
    Comparison,
    compare,
    counts_from,
    meanwhile,
    need,
    setback,
    unblocked,
    unwritten,
    wanted_target,
)
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.facts import (
    Block,
    Facts,
    Permit,
    Purpose,
)
from tuinly_operator.domain.memory import Attempted, AttemptInputs, ClientSecretRead, IssuedToken
from tuinly_operator.domain.target import SecretMeta, is_for_another

Changes = Sequence[Change]

CLIENT_CREDENTIALS = spec({"refresh": {"grant": "ClientCredentials"}})
RETAINED = spec({"target": {"deletionPolicy": "Retain"}})
OTHER_LEAD = spec({"refresh": {"before": "30m"}})
OTHER_KEY = spec({"clientSecretRef": {"clientSecretKey": "other"}})


def namespace_ends(scene: Scene) -> None:
    """The API server has said that the namespace is being deleted."""
    scene.memory = scene.memory.namespace_ended()


def client_read_anew(scene: Scene) -> None:
    """The client Secret has been read by the keys that are named now."""
    facts = scene.facts()
    if facts.client_secret is not None:
        world.has_read(scene, facts.client_identity, world.OTHER_CLIENT)


def in_doubt(scene: Scene) -> None:
    """That was before: it has not been looked for since."""
    scene.facts()
    scene.absence_proven = False


def created_obtained(scene: Scene) -> None:
    """The pending token is the first of a credential that this leader saw created."""
    obtained = scene.memory.pending
    created(scene)
    scene.remember(pending=obtained)


def refresh_refused(scene: Scene) -> None:
    """The server refused a refresh token at its first use."""
    scene.remember(refresh_refused=scene.facts().attempt_inputs)


def given_again(scene: Scene) -> None:
    """The newest token has failed a verification before, and the server gave it again."""
    held = scene.memory.current
    if held is not None:
        scene.memory = replace(scene.memory, rejected_token=held.token)


def verified(scene: Scene) -> None:
    """The pending token works."""
    scene.waiting(verified=True)


def restored(scene: Scene) -> None:
    """The target was restored a second ago."""
    scene.memory = scene.memory.restored(Moment(scene.now.wall - 1, scene.now.boot - 1), 10)


def restored_often(scene: Scene) -> None:
    """It was the third time in a row."""
    for _ in range(3):
        restored(scene)


def forced_before(scene: Scene) -> None:
    """An exchange that users asked for was made six seconds ago."""
    six_seconds_ago = Moment(scene.now.wall - 6, scene.now.boot - 6)
    scene.memory = scene.memory.attempt_begun(
        Attempted(six_seconds_ago, AttemptInputs("", "")), forced_at=six_seconds_ago
    )


def passed_the_interval(scene: Scene) -> None:
    """The attempt of a second ago followed on another by a change."""
    assert scene.memory.last_attempt is not None
    later = Moment(scene.now.wall + 4, scene.now.boot + 4)
    scene.remember(last_attempt=replace(scene.memory.last_attempt, at=later))


def same_token_again(scene: Scene) -> None:
    """The server gave the same token again; it is asked again in ten minutes."""
    scene.hold(ask_again=Deadline.after(600, scene.now))


def refused_again_later(scene: Scene) -> None:
    """The wait after a refused write is over."""
    assert scene.memory.write is not None
    scene.remember(write=replace(scene.memory.write, retry=Deadline.after(0, scene.now)))


def graphql_throttled(scene: Scene) -> None:
    """The GraphQL endpoint has asked for a minute."""
    throttled(scene)
    scene.permit, scene.verify_permit = Permit(), scene.permit


def graphql_queued_long(scene: Scene) -> None:
    """Others have gone first at the GraphQL endpoint for a while."""
    queued_long(scene)
    scene.permit, scene.verify_permit = Permit(), scene.permit


def graphql_down_of_late(scene: Scene) -> None:
    """The GraphQL endpoint is down, and this credential has only just come to wait for it."""
    scene.verify_permit = Permit(Block(None, Deadline.after(5, scene.now), parks=True, long=True))


def annotations_removed(scene: Scene) -> None:
    """Somebody removed all annotations of the target."""
    if scene.target is not None:
        for name in scene.target.meta.pop("annotations"):
            scene.target.removed("annotations", name)


def owner_removed(scene: Scene) -> None:
    """As the garbage collector does it while a credential is deleted with `--cascade=orphan`, or anybody else."""
    if scene.target is not None:
        scene.target.meta.pop("ownerReferences", None)
        scene.target.touched()


def target_touched(scene: Scene) -> None:
    """Somebody changed something about the target that is not ours."""
    if scene.target is not None:
        scene.target.shared("labels", "theirs", "Update")


# --- Which act comes next ---------------------------------------------------------------------------------------------

ACTS: dict[str, tuple[Changes, type[Decision]]] = {
    # A routine life.
    "fresh": ([], Rest),
    "before the refresh": ([passed(2407)], Rest),
    "three seconds before it is due, when it may come with others": ([passed(2408)], Exchange),
    "due": ([DUE], Exchange),
    "due, refresh token": ([refreshable, DUE], Refresh),
    "due, refresh token not wanted": ([refreshable, CLIENT_CREDENTIALS, DUE], Exchange),
    "due, refresh tokens refused by this server": ([refreshable, refresh_refused, DUE], Exchange),
    "due, refused for another client Secret": ([refreshable, refresh_refused, client_relabelled, DUE], Refresh),
    "due, a refresh token needs no client": ([refreshable, client_unread, DUE], Refresh),
    "expired": ([EXPIRED], Exchange),
    "expired, refresh token": ([refreshable, EXPIRED], Refresh),
    "expired, client secret rotated": ([refreshable, client_rotated, EXPIRED], Exchange),
    "expired, forced": ([refreshable, FORCED, EXPIRED], Exchange),
    "expired, other scopes": ([refreshable, OTHER_SCOPES, EXPIRED], Exchange),
    "due, forced a moment ago": ([DUE, forced_before], Exchange),
    "a longer lead makes it due": ([passed(2000), OTHER_LEAD], Exchange),
    "a shorter lead puts it off": ([DUE, spec({"refresh": {"before": "2m"}})], Rest),
    "the same token again": ([DUE, same_token_again], Rest),
    "the same token again, almost ten minutes ago": ([same_token_again, passed(599.5)], Rest),
    "the same token again, ten minutes ago": ([same_token_again, passed(600)], Exchange),
    # The first token: nothing is asked for before the client is known and absence is proven.
    "new": ([brand_new], ReadClientSecret),
    "new, client known": ([brand_new, client_known], ProveAbsence),
    "new, no target for sure": ([brand_new, client_known, absence_proven], Exchange),
    "created, client known": ([created, client_known], Exchange),
    "created, to be retained": ([created, RETAINED, client_known], ProveAbsence),
    "created, and what was in the way has gone": ([created, client_known, absence_proven, in_doubt], ProveAbsence),
    "created, obtained": ([pending, created_obtained], Publish),
    "created, obtained some time ago": ([pending, created_obtained, passed(6)], AskWhoServes),
    "created, obtained, to be retained": ([pending, created_obtained, RETAINED], ProveAbsence),
    "new, its client Secret not seen": ([brand_new, client_gone], ReadClientSecret),
    "new, client Secret changed since it was read": (
        [brand_new, client_known, client_edited, passed(2)],
        ReadClientSecret,
    ),
    # A token in memory is written before anything else is thought of.
    "obtained": ([pending], Publish),
    "obtained, client Secret edited": ([pending, client_edited], Publish),
    "obtained, client Secret gone": ([pending, client_missing], Publish),
    "obtained, endpoint down": ([pending, blocked], Publish),
    "obtained, target not seen": ([pending, target_gone], ProveAbsence),
    "obtained, no target for sure": ([pending, absence_proven], Publish),
    "obtained, but expired": ([pending, passed(2 * 3600)], Exchange),
    "obtained for former inputs": ([client_known, pending, OTHER_SCOPES], Exchange),
    "obtained for former inputs, nobody can tell of it": (
        [VERIFIES, client_known, pending, unverifiable, OTHER_SCOPES],
        Exchange,
    ),
    # What others did to the target is put right, from memory where the token is there.
    "edited": ([target_edited], Publish),
    "label removed": ([label_removed], Publish),
    "edited again": ([target_edited, restored], Publish),
    "edited for the third time": ([target_edited, restored, restored], Publish),
    "edited a while after": ([restored_often, passed(5), target_edited], Publish),
    "edited again and again, a new token obtained": ([target_edited, restored_often, pending], Publish),
    "edited again and again, and now the template changes": ([target_edited, restored_often, TEMPLATED], Publish),
    "owner removed": ([owner_removed], AskWhoServes),
    "owner removed, and still served": ([owner_removed, served], Publish),
    "owner removed, a new token obtained": ([owner_removed, pending], AskWhoServes),
    "owner removed, as none is wanted": ([RETAINED, owner_removed], Rest),
    "edited some time after": ([passed(6), target_edited], AskWhoServes),
    "edited some time after, and still served": ([passed(6), served, target_edited], Publish),
    "obtained some time ago": ([pending, passed(6)], AskWhoServes),
    "obtained some time ago, still served": ([pending, passed(6), served], Publish),
    "obtained some time ago, no target for sure": ([pending, passed(6), absence_proven], Publish),
    "another's token": ([target_overtaken], AskWhoServes),
    "another's token, and still served": ([target_overtaken, served], Publish),
    "another's token, and one obtained": ([target_overtaken, pending], AskWhoServes),
    "another's token, edited": ([target_overtaken, target_edited], Publish),
    "annotations removed": ([annotations_removed], Publish),
    "deleted, perhaps": ([target_gone], ProveAbsence),
    "deleted": ([absence_proven], Publish),
    "touched where it is not ours": ([target_touched], Rest),
    "template changed": ([TEMPLATED], Publish),
    # After a restart the token is unknown.
    "restarted": ([restarted], Rest),
    "restarted, due": ([DUE, restarted], ReadClientSecret),
    "restarted, due, client known": ([DUE, restarted, client_known], Exchange),
    "restarted, client Secret edited meanwhile": ([restarted, client_edited], ReadClientSecret),
    "edited while it was down": ([target_edited, restarted, client_known], Exchange),
    "deleted while it was down": ([target_gone, restarted, client_known], ProveAbsence),
    "restarted, then edited": ([restarted, client_known, target_edited], Exchange),
    "restarted, then deleted": ([restarted, client_known, absence_proven], Exchange),
    "restarted, label removed": ([restarted, client_known, label_removed], Exchange),
    "restarted, template changed": ([restarted, client_known, TEMPLATED], Exchange),
    # A change of what is asked for.
    "client Secret rotated right after an attempt": ([attempted, client_rotated], Exchange),
    "client Secret relabelled right after an attempt that failed": (
        [failing(), attempted, client_relabelled, DUE],
        Exchange,
    ),
    "other scopes right after an attempt": ([attempted, OTHER_SCOPES], Exchange),
    "forced right after an attempt": ([attempted, FORCED], Rest),
    "other scopes": ([OTHER_SCOPES], Exchange),
    "other URL": ([OTHER_TOKEN_URL], Exchange),
    "another key of the client Secret": ([OTHER_KEY], ReadClientSecret),
    "another key of the client Secret, read": ([OTHER_KEY, client_read_anew], Exchange),
    "another client Secret": ([spec({"clientSecretRef": {"name": "other"}})], ReadClientSecret),
    "other scopes, refresh token": ([refreshable, OTHER_SCOPES, DUE], Exchange),
    "client Secret edited": ([client_edited], ReadClientSecret),
    "client Secret relabelled": ([client_relabelled], Rest),
    "client secret rotated": ([client_rotated], Exchange),
    "client secret rotated, refresh token": ([refreshable, client_rotated, DUE], Exchange),
    "client Secret gone, perhaps": ([client_gone], ReadClientSecret),
    "client Secret gone five minutes ago": ([client_missing, passed(300)], ReadClientSecret),
    # A rename: the new target first, then the old one goes.
    "renamed": ([renamed], ProveAbsence),
    "renamed, no target there": ([renamed, absence_proven], Publish),
    "renamed, other scopes": ([renamed, absence_proven, OTHER_SCOPES], Exchange),
    "old target left": ([old_left], AskWhoServes),
    "old target left, and still served": ([old_left, served], RemoveOldTargets),
    "old target left, new one edited": ([old_left, target_edited], Publish),
    "old target left, due": ([old_left, DUE], Exchange),
    "old target left, to be retained": ([RETAINED, token(), old_left], Rest),
    "old target left, new one lost": ([old_left, target_gone, restarted, client_known], ProveAbsence),
    # What the watch alone says may be late.
    "of another": ([target_of_another], AskWhoServes),
    "of another, and still served": ([target_of_another, served], Publish),
    "of another, and nothing known of its token": ([target_of_another, restarted, client_known], AskWhoServes),
    "of another, nothing known of its token, and still served": (
        [target_of_another, restarted, client_known, served],
        Exchange,
    ),
    "due, to be retained": ([RETAINED, owner_removed, DUE], AskWhoServes),
    "due, to be retained, and still served": ([RETAINED, owner_removed, DUE, served], Exchange),
    "unconfirmed": ([unconfirmed], Rest),
    "unconfirmed, due": ([unconfirmed, DUE], AskWhoServes),
    "unconfirmed, due, and served": ([unconfirmed, DUE, served], Exchange),
    "unconfirmed, edited": ([unconfirmed, target_edited], AskWhoServes),
    "unconfirmed, client Secret edited": ([unconfirmed, client_edited], ReadClientSecret),
    "unconfirmed, to be verified": ([unconfirmed, VERIFIES, pending], AskWhoServes),
    # What users ask for.
    "forced": ([FORCED], Exchange),
    "forced, refresh token": ([refreshable, FORCED, DUE], Exchange),
    "forced at creation": ([FORCED, token(handled_refresh="now")], Rest),
    "forced, and the same token came": ([FORCED, lambda scene: scene.hold(handled="now")], Rest),
    "forced anew": ([token(handled_refresh="before"), FORCED], Exchange),
    "the annotation removed": ([token(handled_refresh="before"), annotated(None)], Rest),
    "the annotation emptied": ([token(handled_refresh="before"), annotated("")], Rest),
    # Verification.
    "obtained, to be verified": ([VERIFIES, pending], Verify),
    "obtained, to be verified, present one edited": ([VERIFIES, pending, target_edited], Verify),
    "verified": ([VERIFIES, pending, verified], Publish),
    "nothing to verify": ([VERIFIES], Rest),
    "the first token, to be verified": ([VERIFIES, brand_new, client_known, pending], Verify),
    "restored without another verification": ([VERIFIES, target_edited], Publish),
    # The limiter.
    "fresh, endpoint down": ([blocked], Rest),
    "its turn at once": ([DUE, failing(), at_once], Exchange),
    "queued, and nothing prepared": ([brand_new, queued], ReadClientSecret),
    "queued, and absence not proven": ([brand_new, client_known, queued], ProveAbsence),
    "verified at once": ([VERIFIES, pending, unverifiable, passed(6), at_once], Verify),
    "not to be verified, GraphQL down": ([pending, graphql_down], Publish),
    "the first token, GraphQL down": (
        [VERIFIES, brand_new, client_known, absence_proven, pending, graphql_down],
        Publish,
    ),
    "the present one about to end, GraphQL down": ([VERIFIES, ENDING, pending, graphql_down], Publish),
    "the present one about to end, queued": ([VERIFIES, ENDING, pending, graphql_queued], Publish),
}


@pytest.mark.rule("WHEN-5", "VERIFY-6", "WRITE-9", "DRIFT-7", "OWN-16", "OWN-17", "ABS-2", "ABS-3", "REPL-13")
@pytest.mark.parametrize(("changes", "act"), ACTS.values(), ids=ACTS.keys())
def test_the_next_act(changes: Changes, act: type[Decision]) -> None:
    decision = Scene(*changes).decide()
    assert type(decision) is act
    assert not isinstance(decision, Rest) or (decision.blocked_by, decision.silent) == (None, False)


# --- What hinders it --------------------------------------------------------------------------------------------------

HINDRANCES: dict[str, tuple[Changes, Reason]] = {
    "foreign target": ([target_foreign], Reason.TARGET_CONFLICT),
    "foreign target, new": ([brand_new, target_foreign], Reason.TARGET_CONFLICT),
    "foreign target, due": ([DUE, target_foreign], Reason.TARGET_CONFLICT),
    "foreign target, obtained": ([pending, target_foreign], Reason.TARGET_CONFLICT),
    "foreign target, client Secret edited": ([client_edited, target_foreign], Reason.TARGET_CONFLICT),
    "no client Secret": ([client_missing], Reason.CLIENT_SECRET_NOT_FOUND),
    "no client Secret, new": ([brand_new, client_missing], Reason.CLIENT_SECRET_NOT_FOUND),
    "no client Secret, due": ([DUE, client_missing], Reason.CLIENT_SECRET_NOT_FOUND),
    "odd client Secret": ([client_invalid], Reason.CLIENT_SECRET_INVALID),
    "odd client Secret, expired": ([EXPIRED, client_invalid], Reason.CLIENT_SECRET_INVALID),
    "foreign target, obtained, to be verified": ([VERIFIES, pending, target_foreign], Reason.TARGET_CONFLICT),
    "foreign target, suspended": ([SUSPENDED, target_foreign], Reason.SUSPENDED),
    "suspended, URL not allowed": ([SUSPENDED, REFUSED_URL], Reason.URL_NOT_ALLOWED),
    "InvalidSpec": ([spec({"scopes": "orders:read"})], Reason.INVALID_SPEC),
    "InvalidSpec in the template": (
        [spec({"target": {"template": {"data": {"a": "$x"}}}})],
        Reason.INVALID_SPEC,
    ),
    "graphqlURL": (
        [spec({"verification": {"mode": "Enabled", "graphqlURL": "https://elsewhere.example.com"}})],
        Reason.URL_NOT_ALLOWED,
    ),
    "endpoint down, due": ([DUE, blocked], Reason.ENDPOINT_UNAVAILABLE),
    "throttled, due": ([DUE, throttled], Reason.ENDPOINT_THROTTLED),
    "throttled, forced": ([FORCED, throttled], Reason.ENDPOINT_THROTTLED),
    "throttled, client secret rotated": ([client_rotated, throttled], Reason.ENDPOINT_THROTTLED),
    "failing": ([DUE, failing(Reason.INVALID_CLIENT)], Reason.INVALID_CLIENT),
    "failing, new": (
        [brand_new, client_known, absence_proven, failing(Reason.INVALID_SCOPE)],
        Reason.INVALID_SCOPE,
    ),
    "failing, forced": ([FORCED, failing()], Reason.ENDPOINT_UNAVAILABLE),
    "failing, refresh token": ([refreshable, DUE, failing()], Reason.ENDPOINT_UNAVAILABLE),
    "write refused": ([pending, write_refused], Reason.TARGET_REJECTED),
    "restore refused": ([target_edited, write_refused], Reason.TARGET_REJECTED),
    "verification inconclusive": ([VERIFIES, pending, unverifiable], Reason.VERIFICATION_INCONCLUSIVE),
    "verification inconclusive, GraphQL down": (
        [VERIFIES, pending, unverifiable, graphql_down],
        Reason.VERIFICATION_INCONCLUSIVE,
    ),
    "odd client Secret, verification inconclusive": (
        [VERIFIES, pending, unverifiable, client_invalid],
        Reason.CLIENT_SECRET_INVALID,
    ),
}


@pytest.mark.parametrize(("changes", "reason"), HINDRANCES.values(), ids=HINDRANCES.keys())
def test_what_hinders_the_next_act(changes: Changes, reason: Reason) -> None:
    decision = Scene(*changes).decide()
    assert isinstance(decision, Rest)
    assert decision.blocked_by is not None
    assert decision.blocked_by.reason is reason
    assert decision.blocked_by.message


def hindrance_of(scene: Scene) -> Failure | None:
    """What hinders the next act; there is none."""
    decision = scene.decide()
    assert isinstance(decision, Rest)
    return decision.blocked_by


# Whatever there would be to do.
WORK: dict[str, Changes] = {
    "nothing": [],
    "new": [brand_new],
    "new, all known": [brand_new, client_known, absence_proven],
    "due": [DUE],
    "due, refresh token": [refreshable, DUE],
    "expired": [EXPIRED],
    "obtained": [pending],
    "to be verified": [VERIFIES, pending],
    "edited": [target_edited],
    "deleted": [target_gone],
    "renamed": [renamed],
    "old target left": [old_left],
    "client Secret edited": [client_edited],
    "client secret rotated": [client_rotated],
    "no client Secret": [client_missing],
    "foreign target": [target_foreign],
    "forced": [FORCED],
    "failing": [DUE, failing()],
    "endpoint down": [DUE, blocked],
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
@pytest.mark.parametrize("why", [deleting, namespace_ends], ids=["credential", "namespace"])
@pytest.mark.parametrize("besides", [[], [SUSPENDED], [REFUSED_URL]], ids=["", "suspended", "URL not allowed"])
def test_what_is_being_deleted_is_inert_and_silent(work: Changes, why: Change, besides: Changes) -> None:
    assert Scene(*work, why, *besides).decide() == Rest(silent=True)


@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
def test_suspended_does_nothing(work: Changes) -> None:
    decision = Scene(*work, SUSPENDED).decide()
    assert isinstance(decision, Rest)
    assert (decision.requeue_at, decision.silent) == (None, False)
    assert decision.blocked_by is not None
    assert decision.blocked_by.reason is Reason.SUSPENDED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([REFUSED_URL], Reason.URL_NOT_ALLOWED),
        ([REFUSED_URL, SUSPENDED], Reason.URL_NOT_ALLOWED),
        ([SUSPENDED], Reason.SUSPENDED),
        ([SUSPENDED, target_foreign], Reason.SUSPENDED),
        ([target_foreign], Reason.TARGET_CONFLICT),
        ([failing()], None),
        ([blocked], None),
        ([client_missing], None),
        ([target_edited], None),
    ],
    ids=range(9),
)
def test_while_a_token_is_asked_for_only_what_forbids_that_by_now_is_told(
    changes: Changes, reason: Reason | None
) -> None:
    scene = Scene(*changes)
    rest = meanwhile(scene.facts())
    assert (rest.blocked_by.reason if rest.blocked_by else None) is reason
    assert rest.silent is False
    assert reason or rest == unblocked(scene.facts())


@pytest.mark.parametrize("change", [deleting, namespace_ends], ids=["credential", "namespace"])
def test_while_a_token_is_asked_for_nothing_is_told_of_what_is_being_deleted(change: Change) -> None:
    assert meanwhile(Scene(change, REFUSED_URL).facts()) == Rest(silent=True)


@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
def test_a_url_that_the_admin_does_not_allow_reads_and_asks_nothing(work: Changes) -> None:
    decision = Scene(*work, REFUSED_URL).decide()
    assert isinstance(decision, Rest)
    assert decision.requeue_at is None
    assert decision.blocked_by is not None
    assert decision.blocked_by.reason is Reason.URL_NOT_ALLOWED
    assert "spec.tokenURL" in decision.blocked_by.message


@pytest.mark.parametrize(
    ("patch", "field", "flag"),
    [
        ({"tokenURL": "https://elsewhere.example.com"}, "spec.tokenURL", "--allowed-token-url"),
        (
            {"verification": {"mode": "Enabled", "graphqlURL": "https://elsewhere.example.com"}},
            "spec.verification.graphqlURL",
            "--allowed-graphql-url",
        ),
    ],
    ids=["token", "GraphQL"],
)
def test_a_url_that_is_not_allowed_is_told_by_its_field_and_what_to_ask_for(patch: Json, field: str, flag: str) -> None:
    blocked_by = hindrance_of(Scene(spec(patch)))
    assert blocked_by is not None
    assert blocked_by.message.startswith(f"{field} ")
    assert blocked_by.message.endswith(f" {flag}")


@pytest.mark.rule("SEC-1")
def test_urls_are_compared_exactly() -> None:
    for url in (f"{world.TOKEN_URL}/", world.TOKEN_URL.upper(), world.TOKEN_URL.replace("https", "http")):
        blocked_by = hindrance_of(Scene(spec({"tokenURL": url})))
        assert blocked_by is not None, url
        assert blocked_by.reason is Reason.URL_NOT_ALLOWED


def test_a_graphql_url_counts_only_where_verification_is_enabled() -> None:
    assert hindrance_of(Scene(spec({"verification": {"graphqlURL": "https://elsewhere.example.com"}}))) is None


# --- How long it waits ------------------------------------------------------------------------------------------------


def later(seconds: float, *, wall: float | None = None) -> Change:
    """So much time after that; `wall` is what the wall clock says, if it was set meanwhile."""

    def change(scene: Scene) -> None:
        passed_by_wall = seconds if wall is None else wall
        scene.now = Moment(scene.now.wall + passed_by_wall, scene.now.boot + seconds)

    return named(f"later({seconds}, wall={wall})", change)


def requeued_in(*changes: Change) -> float:
    """Seconds until time alone changes the decision."""
    scene = Scene(*changes)
    decision = scene.decide()
    assert isinstance(decision, Rest)
    assert decision.requeue_at is not None
    return decision.requeue_at.remaining(scene.now)


@pytest.mark.rule("WHEN-7")
@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ([DUE, attempted], 4),  # five seconds between two attempts
        ([FORCED, attempted], 4),
        ([client_rotated, attempted], 4),
        ([OTHER_SCOPES, attempted], 4),
        ([attempted, passed_the_interval, OTHER_SCOPES], 4),  # once
        ([DUE, attempted, passed_the_interval], 9),  # and it is made up for
        ([DUE, failing()], 30),
        ([DUE, failing(), attempted], 30),  # the later of the two
        ([FORCED, failing()], 30),
        ([FORCED, forced_before], 4),  # ten seconds between two that users asked for
        ([client_rotated, forced_before, failing()], 30),
        ([pending, write_refused], 30),
        ([target_edited, restored_often], 4),  # somebody else keeps writing: no race without end
        ([DUE, throttled], 60),
        ([DUE, failing(), throttled], 60),  # Retry-After binds whatever else was planned
        ([DUE, same_token_again], 600),
        ([VERIFIES, pending, unverifiable], 30),
        ([VERIFIES, pending, unverifiable, at_once], 4),  # five seconds between two verifications
        ([VERIFIES, pending, unverifiable, FORCED, attempted], 4),  # whichever comes first
        ([VERIFIES, DUE, pending, graphql_throttled], 60),
        ([VERIFIES, passed(3490), pending, unverifiable], 10),  # the present token comes to its last 100 s first
    ],
    ids=range(21),
)
def test_how_long_it_waits(changes: Changes, seconds: float) -> None:
    assert requeued_in(*changes) == pytest.approx(seconds)


@pytest.mark.rule("CLIENT-5")
@pytest.mark.parametrize(
    ("changes", "seconds"),
    [([target_foreign], 300), ([client_missing, later(200)], 100), ([client_invalid], None), ([], None)],
    ids=["foreign target", "no client Secret", "odd client Secret", "fresh"],
)
def test_what_nobody_may_tell_of_is_looked_at_again(changes: Changes, seconds: float | None) -> None:
    scene = Scene(*changes)
    decision = scene.decide()
    assert isinstance(decision, Rest)
    assert (decision.recheck_at.remaining(scene.now) if decision.recheck_at else None) == seconds


def test_a_fresh_token_waits_for_its_refresh() -> None:
    assert 3600 - 1188 - 241.2 <= requeued_in() <= 3600 - 1188
    assert requeued_in(passed(600)) == pytest.approx(requeued_in() - 600)
    assert requeued_in(passed(600), restarted) == pytest.approx(requeued_in() - 600)


def test_a_change_of_the_lead_only_reschedules() -> None:
    assert 0.9 * (3600 - 300) <= requeued_in(spec({"refresh": {"before": "5m"}})) <= 3600 - 300


TURNS: list[tuple[Sequence[Change], Purpose | None, bool, bool]] = [
    ([DUE, blocked], Purpose.TOKEN, False, False),
    ([DUE, failing(), blocked], Purpose.TOKEN, False, False),  # as a probe it may go before its retry
    ([DUE, failing(), queued], None, True, False),  # its retry comes first
    ([DUE, throttled], None, True, False),
    ([FORCED, forced_before, queued], None, True, False),
    ([DUE, queued], Purpose.TOKEN, True, True),
    ([refreshable, DUE, queued], Purpose.TOKEN, True, True),
    ([EXPIRED, queued], Purpose.TOKEN, True, False),  # the status must show that the token has ended
    ([DUE, queued_long], Purpose.TOKEN, False, False),
    ([blocked], None, True, False),
    ([VERIFIES, pending, graphql_down], Purpose.VERIFICATION, True, False),
    ([VERIFIES, pending, graphql_queued], Purpose.VERIFICATION, True, True),
    ([VERIFIES, pending, graphql_throttled], None, True, False),
    ([VERIFIES, brand_new, client_known, pending, graphql_queued], Purpose.VERIFICATION, True, True),
    ([VERIFIES, brand_new, client_known, pending, graphql_down_of_late], Purpose.VERIFICATION, True, True),
    ([VERIFIES, brand_new, client_known, pending, graphql_queued_long], Purpose.VERIFICATION, True, False),
    ([VERIFIES, pending, unverifiable, graphql_queued], None, True, False),  # it does not wait for its turn yet
    ([VERIFIES, pending, unverifiable, graphql_down], Purpose.VERIFICATION, True, False),
]


@pytest.mark.rule("LIM-14")
@pytest.mark.parametrize(("changes", "parks", "looks_again", "silent"), TURNS)
def test_who_must_wait_for_a_turn_is_told_by_the_limiter_and_says_so_after_a_while(
    changes: Changes, parks: Purpose | None, *, looks_again: bool, silent: bool
) -> None:
    decision = Scene(*changes).decide()
    assert isinstance(decision, Rest)
    assert decision.parks == ({parks} if parks else set())
    assert (decision.requeue_at is not None) is looks_again
    assert decision.silent is silent


def test_one_credential_may_wait_for_its_turn_at_both_endpoints() -> None:
    decision = Scene(VERIFIES, pending, graphql_queued, FORCED, queued).decide()
    assert isinstance(decision, Rest)
    assert decision.parks == {Purpose.TOKEN, Purpose.VERIFICATION}


@pytest.mark.rule("VERIFY-2")
@pytest.mark.parametrize("trouble", [graphql_down, unverifiable], ids=["down", "inconclusive"])
def test_a_token_that_was_rejected_and_is_given_again_is_not_published_untried(trouble: Change) -> None:
    scene = Scene(VERIFIES, brand_new, client_known, absence_proven, pending, trouble)
    assert isinstance(scene.decide(), Publish)
    given_again(scene)
    assert isinstance(scene.decide(), Rest)


@pytest.mark.rule("VERIFY-7")
def test_a_last_call_that_is_over_does_not_wake_what_must_be_verified_all_the_same() -> None:
    assert isinstance(Scene(VERIFIES, ENDING, pending, unverifiable).decide(), Publish)
    assert requeued_in(VERIFIES, ENDING, pending, given_again, unverifiable) > 0


def test_a_failure_is_told_also_while_it_waits_for_its_turn() -> None:
    decision = Scene(DUE, failing(Reason.INVALID_CLIENT), blocked).decide()
    assert isinstance(decision, Rest)
    assert decision.blocked_by is not None
    assert decision.blocked_by.reason is Reason.INVALID_CLIENT


def test_a_probe_heeds_the_minimum_interval() -> None:
    assert requeued_in(DUE, failing(), attempted, at_once) == pytest.approx(4)


@pytest.mark.rule("RETRY-4")
@pytest.mark.parametrize(
    ("change", "act"),
    [
        (OTHER_SCOPES, Exchange),
        (OTHER_TOKEN_URL, Exchange),
        (client_edited, ReadClientSecret),
        (client_rotated, Exchange),
        (client_relabelled, Exchange),
        (FORCED, Exchange),
        (at_once, Exchange),
    ],
    ids=["scopes", "URL", "client Secret", "client secret", "label of the client Secret", "forced", "endpoint back"],
)
def test_a_change_of_what_is_tried_ends_the_wait(change: Change, act: type[Decision]) -> None:
    assert type(Scene(DUE, failing(Reason.INVALID_CLIENT)).decide()) is Rest
    assert type(Scene(DUE, failing(Reason.INVALID_CLIENT), change).decide()) is act


@pytest.mark.rule("RETRY-4")
@pytest.mark.parametrize(
    ("before", "change"),
    [
        ([], spec({"refresh": {"before": "25m"}})),
        ([], TEMPLATED),
        ([], restored),
        ([FORCED], annotated(None)),
        ([annotated("before"), token(handled_refresh="before")], annotated(None)),
    ],
    ids=["lead", "template", "restore", "annotation removed", "handled annotation removed"],
)
def test_no_other_change_ends_the_wait(before: Changes, change: Change) -> None:
    """Nothing about the next attempt would be different. Removing the annotation does nothing at all."""
    scene = Scene(*before, DUE, failing(Reason.INVALID_CLIENT), change)
    scene.written(held=replace(scene.published, token=None))  # so that a template is a matter of an attempt
    assert type(scene.decide()) is Rest


@pytest.mark.parametrize(
    "change", [refused_again_later, target_touched, TEMPLATED], ids=["time", "target changed", "template"]
)
def test_a_refused_write_is_tried_again(change: Change) -> None:
    assert type(Scene(pending, write_refused, change).decide()) is Publish


def test_a_refused_write_of_an_old_name_does_not_hinder_a_new_one() -> None:
    assert type(Scene(pending, absence_proven, write_refused).decide()) is Rest
    assert type(Scene(pending, absence_proven, write_refused, renamed).decide()) is Publish


# --- By which clock ---------------------------------------------------------------------------------------------------

HOUR = 3600


@pytest.mark.rule("CLOCK-1")
@pytest.mark.parametrize(
    ("time", "why"),
    [
        (passed(2000), None),
        (DUE, Need.DUE),
        (EXPIRED, Need.EXPIRED),
        (passed(2000, wall=2000 - HOUR), None),  # the wall clock was set back an hour
        (passed(2500, wall=2500 - HOUR), Need.DUE),
        (passed(HOUR, wall=0), Need.EXPIRED),
        (passed(600, wall=600 + HOUR), Need.EXPIRED),  # it was set forward: rather too early than too late
        (passed(100, wall=2500), Need.DUE),
        (passed(8 * HOUR, wall=8 * HOUR), Need.EXPIRED),  # the machine slept
    ],
    ids=["2000", "2500", "3600", "2000, back", "2500, back", "3600, back", "600, forward", "100, forward", "slept"],
)
def test_a_token_is_due_and_expired_by_whichever_clock_gets_there_first(time: Change, why: Need | None) -> None:
    assert need(Scene(time).facts()) is why


@pytest.mark.rule("CLOCK-3")
@pytest.mark.parametrize(
    ("time", "why"),
    [
        (passed(2000, wall=2000 - HOUR), Need.FIRST),  # issued in the future: not believed
        (passed(2500, wall=2500), Need.DUE),
        (passed(-40_000, wall=600), None),  # another boot
        (passed(-40_000, wall=2500), Need.DUE),
    ],
    ids=["back", "due", "another boot", "another boot, due"],
)
def test_after_a_restart_there_is_only_the_wall_clock(time: Change, why: Need | None) -> None:
    assert need(Scene(time, restarted).facts()) is why


@pytest.mark.parametrize(
    ("time", "act"),
    [
        (passed(2529), Rest),
        (passed(2530), Exchange),
        (passed(2529, wall=2529 - HOUR), Rest),
        (passed(2530, wall=2530 - HOUR), Exchange),
        (passed(2501, wall=2530), Exchange),
    ],
    ids=["29 s", "30 s", "29 s, back", "30 s, back", "forward"],
)
def test_a_wait_for_a_retry_ends_by_whichever_clock_gets_there_first(time: Change, act: type[Decision]) -> None:
    assert type(Scene(DUE, failing(), time).decide()) is act


@pytest.mark.parametrize("back", [0, HOUR], ids=["", "back"])
def test_the_minimum_interval_ends_by_whichever_clock_gets_there_first(back: float) -> None:
    assert type(Scene(DUE, attempted, passed(2503, wall=2503 - back)).decide()) is Rest
    assert type(Scene(DUE, attempted, passed(2504, wall=2504 - back)).decide()) is Exchange


# --- Why a token is asked for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ([], None),
        ([brand_new], Need.FIRST),
        ([restarted, target_edited], Need.LOST),
        ([target_edited], None),  # it is in memory, and only has to be written again
        ([restarted, TEMPLATED], Need.LAYOUT_CHANGED),
        ([TEMPLATED], None),
        ([EXPIRED], Need.EXPIRED),
        ([OTHER_SCOPES], Need.INPUTS_CHANGED),
        ([client_rotated], Need.CLIENT_CHANGED),
        ([client_relabelled], None),
        ([client_edited], None),  # how it has changed is read first
        ([restarted, client_relabelled], Need.CLIENT_CHANGED),  # what it was before is not known: one attempt
        ([FORCED], Need.FORCED),
        ([DUE], Need.DUE),
        ([pending], None),
        ([DUE, pending], None),
        # Of several reasons the first counts.
        ([restarted, TEMPLATED, EXPIRED], Need.LAYOUT_CHANGED),
        ([OTHER_SCOPES, EXPIRED], Need.EXPIRED),
        ([OTHER_SCOPES, client_rotated], Need.INPUTS_CHANGED),
        ([client_rotated, FORCED], Need.CLIENT_CHANGED),
        ([FORCED, DUE], Need.FORCED),
    ],
    ids=range(21),
)
def test_why_a_token_is_asked_for(changes: Changes, why: Need | None) -> None:
    assert need(Scene(*changes).facts()) is why


@pytest.mark.rule("VERIFY-6")
def test_a_token_for_former_inputs_is_not_written_where_the_target_is_restored() -> None:
    scene = Scene(pending, OTHER_SCOPES, target_edited)
    assert type(scene.decide()) is Publish
    wanted = unwritten(scene.facts())
    assert wanted is not None
    assert wanted.held is scene.memory.published


# --- Verification -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("VERIFY-7")
@pytest.mark.parametrize(
    ("changes", "act"),
    [
        ([passed(3499), pending, unverifiable], Rest),
        ([passed(3500), pending, unverifiable], Publish),  # less than 100 s are left
        ([lives(240), passed(179), pending, unverifiable], Rest),
        ([lives(240), passed(180), pending, unverifiable], Publish),  # or less than half of the lead
        ([lives(240), passed(180, wall=180 - HOUR), pending, unverifiable], Publish),
        ([passed(3500), pending], Verify),  # it is tried once in any case
        ([client_known, pending, unverifiable, absence_proven], Publish),  # there is no token at all
        ([OTHER_SCOPES, pending, unverifiable], Publish),  # nor one for what is asked for now
        ([restarted, target_edited, client_known, pending, unverifiable], Publish),  # nor one that could be restored
        ([EXPIRED, pending, unverifiable], Publish),
        ([passed(2500), pending, unverifiable, passed(2530)], Verify),  # the wait is over
    ],
    ids=range(11),
)
def test_a_token_that_nobody_can_verify_is_held_while_the_present_one_lasts(
    changes: Changes, act: type[Decision]
) -> None:
    assert type(Scene(VERIFIES, *changes).decide()) is act


# --- Never worse ------------------------------------------------------------------------------------------------------


def offer(lifetime: int = HOUR, scopes: str = "", value: str = "token-2", *, issued: int = 2500) -> IssuedToken:
    """A token that an answer offers, `issued` seconds after the present one."""
    at = int(ISSUED.wall) + issued
    state = world.token_state(issued_at=at, expires_at=at + lifetime, granted_scopes=scopes)
    return IssuedToken(state, Moment(ISSUED.wall + issued, ISSUED.boot + issued), Sensitive(value), world.CLIENT)


GOOD, EQUAL, EARLIER, SAME = offer(), offer(1100, "b a"), offer(1099, "a b"), offer(HOUR, "a b", "token-1")
SAME_END = offer(1110, "a b", "token-1")  # ten seconds are what it may take on the way
WIDER, NARROWER = offer(HOUR, "a b c"), offer(HOUR, "a")


@pytest.mark.rule("ANS-12", "ANS-13", "ANS-14")
@pytest.mark.parametrize(
    ("changes", "offered", "judgement"),
    [
        ([DUE], offer(HOUR, "a b"), Comparison.BETTER),
        ([DUE], EQUAL, Comparison.BETTER),
        ([DUE], WIDER, Comparison.BETTER),
        ([DUE], EARLIER, Comparison.WORSE),
        ([DUE], NARROWER, Comparison.WORSE),
        ([DUE], GOOD, Comparison.WORSE),  # no scope at all is narrower, too
        ([DUE], SAME, Comparison.RENEWED),
        ([DUE], SAME_END, Comparison.SAME),
        ([DUE], offer(1111, "a b", "token-1"), Comparison.RENEWED),
        ([DUE], offer(HOUR, "a", "token-1"), Comparison.SAME),  # with narrower scopes nothing of it is taken
        ([ENDING], offer(HOUR, "a", "token-1"), Comparison.RENEWED),
        ([DUE, restarted], SAME, Comparison.BETTER),  # which the present one is, is not known any more
        # With less than two minutes left anything is better than nothing.
        ([passed(HOUR - 120)], EARLIER, Comparison.WORSE),
        ([passed(HOUR - 120)], NARROWER, Comparison.WORSE),
        ([passed(HOUR - 119)], EARLIER, Comparison.BETTER),
        ([ENDING], NARROWER, Comparison.BETTER),
        ([EXPIRED], NARROWER, Comparison.BETTER),
        ([passed(HOUR, wall=0)], EARLIER, Comparison.BETTER),
        # The spec has changed.
        ([OTHER_SCOPES], EARLIER, Comparison.BETTER),
        ([OTHER_SCOPES], NARROWER, Comparison.BETTER),
        ([OTHER_SCOPES], SAME, Comparison.BETTER),
        # The client has, or users asked for it: it may end earlier, and still covers what it covered.
        ([client_rotated], EARLIER, Comparison.BETTER),
        ([client_rotated], NARROWER, Comparison.WORSE),
        ([client_rotated], SAME, Comparison.BETTER),  # else it would be asked for again and again
        ([client_relabelled], EARLIER, Comparison.WORSE),
        ([FORCED], EARLIER, Comparison.BETTER),
        ([FORCED], NARROWER, Comparison.WORSE),
        ([FORCED], SAME_END, Comparison.SAME),
        ([FORCED], SAME, Comparison.RENEWED),
        # There is no token that could be made worse.
        ([brand_new], NARROWER, Comparison.BETTER),
        ([restarted, target_edited], EARLIER, Comparison.BETTER),
        ([restarted, target_edited], NARROWER, Comparison.BETTER),
        ([restarted, target_gone], EARLIER, Comparison.BETTER),
        # The target only looks otherwise than is asked for; its token is good.
        ([restarted, TEMPLATED], offer(1089, "a b"), Comparison.WORSE),
    ],
    ids=range(34),
)
def test_an_answer_is_judged_against_the_present_token(
    changes: Changes, offered: IssuedToken, judgement: Comparison
) -> None:
    assert compare(Scene(token(granted_scopes="a b"), *changes).facts(), offered) is judgement


@pytest.mark.parametrize("wall", [-1, 0, 1])
@pytest.mark.parametrize("boot", [-1, 0, 1])
def test_an_answer_ends_earlier_only_if_both_clocks_say_so(wall: int, boot: int) -> None:
    """After one of them was set, every new token seems to end before the present one."""
    offered = replace(offer(1100), issued=Moment(ISSUED.wall + 2500 + wall, ISSUED.boot + 2500 + boot))
    judgement = compare(Scene(DUE).facts(), offered)
    assert judgement is (Comparison.WORSE if wall < 0 and boot < 0 else Comparison.BETTER)


SCOPES = st.frozensets(st.sampled_from("abc")).map(lambda scopes: " ".join(sorted(scopes)))


@pytest.mark.rule("KEEP-1")
@given(
    present=SCOPES,
    time=st.integers(0, HOUR - 121),
    offered=st.builds(
        offer, st.integers(1, 2 * HOUR), SCOPES, st.sampled_from(["token-1", "token-2"]), issued=st.integers(0, HOUR)
    ),
    changes=st.lists(st.sampled_from([client_rotated, client_relabelled, FORCED, refreshable]), unique=True),
)
def test_a_good_token_is_only_replaced_by_one_at_least_as_good(
    present: str, time: int, offered: IssuedToken, changes: Changes
) -> None:
    scene = Scene(token(granted_scopes=present), passed(time), *changes)
    judgement = compare(scene.facts(), offered)
    narrower = not offered.state.scopes >= frozenset(present.split())
    earlier = offered.state.expires_at < scene.published.state.expires_at
    if judgement is Comparison.BETTER:
        assert not narrower
        assert not earlier or client_rotated in changes or FORCED in changes
    elif judgement in (Comparison.SAME, Comparison.RENEWED):
        assert offered.token == scene.published.token
        assert judgement is Comparison.SAME or not (narrower or earlier)
    else:
        assert narrower or earlier


@pytest.mark.rule("ANS-12")
@pytest.mark.parametrize(
    ("seconds", "known", "judgement"),
    [
        (10, False, Comparison.BETTER),
        (11, False, Comparison.WORSE),
        (1, True, Comparison.WORSE),
    ],
)
def test_a_token_that_may_be_the_same_again_need_not_end_as_late_to_the_second(
    seconds: int, *, known: bool, judgement: Comparison
) -> None:
    """After a restart nobody knows the token in the target, and an endpoint that gives it again counts in seconds."""
    scene = Scene(passed(600), *([] if known else [restarted]))
    given = offer(HOUR - 600 - seconds, "", "token-2", issued=600)
    assert given.expiry.wall == scene.published.expiry.wall - seconds
    assert compare(scene.facts(), given) is judgement


# --- Whatever the world looks like ------------------------------------------------------------------------------------

ANYTHING: Changes = [
    *(SUSPENDED, OTHER_SCOPES, OTHER_TOKEN_URL, REFUSED_URL, VERIFIES, TEMPLATED, FORCED, CLIENT_CREDENTIALS),
    *(spec({"scopes": 5}), RETAINED, annotated(None)),
    *(brand_new, restarted, deleting, namespace_ends),
    *(
        target_gone,
        absence_proven,
        target_foreign,
        target_edited,
        target_overtaken,
        label_removed,
        target_touched,
        owner_removed,
        renamed,
        old_left,
        target_of_another,
        unconfirmed,
    ),
    *(client_unread, client_known, client_edited, client_relabelled, client_rotated),
    *(client_invalid, client_gone, client_missing, OTHER_KEY, client_read_anew),
    *(refreshable, refresh_refused, attempted, forced_before, failing(), failing(Reason.INVALID_CLIENT)),
    *(same_token_again, pending, given_again, verified, unverifiable, write_refused, restored, restored_often),
    *(blocked, throttled, queued, queued_long, graphql_down, graphql_queued, at_once),
]
TIMES = [passed(0), passed(2000), DUE, ENDING, EXPIRED, passed(2500, wall=-1000), passed(600, wall=5000)]
LATER = [later(0), later(10), later(100), later(10, wall=10 - HOUR), later(10, wall=10 + HOUR)]
WORLDS = st.builds(
    lambda time, changes, later: Scene(time, *changes, later),
    st.sampled_from(TIMES),
    st.lists(st.sampled_from(ANYTHING), max_size=12, unique=True),
    st.sampled_from(LATER),
)
TOKEN_REQUESTS = {Exchange, Refresh}


@pytest.mark.rule("WRITE-8")
@given(WORLDS)
def test_nothing_is_sent_or_written_that_must_not_be(scene: Scene) -> None:
    facts, decision = scene.facts(), scene.decide()
    memory = facts.memory
    if facts.credential.deleting or memory.namespace_ends or facts.spec.suspend or facts.problem:
        assert isinstance(decision, Rest)
    if facts.token_url not in facts.policy.allowed_token_urls:
        assert isinstance(decision, Rest)
    if scene.foreign:
        assert isinstance(decision, Rest)
    if isinstance(decision, Exchange | Refresh | Publish):
        assert facts.target is not None or facts.absence_proven
    if isinstance(decision, Publish) and facts.now.boot - decision.held.issued.boot > SURE_OF_LIFE:
        assert facts.served or facts.absence_proven
    if isinstance(decision, Exchange | Refresh):
        assert facts.permit.block is None
        assert unwritten(facts) is None
        last = memory.last_attempt
        least = 0.0 if last and last.inputs != facts.attempt_inputs else facts.policy.min_interval
        assert last is None or Deadline.after(least, last.at).due(facts.now)
        failed = setback(facts)
        assert failed is None or failed.retry.due(facts.now) or facts.permit.at_once
    if isinstance(decision, Exchange):
        assert memory.client is not None
        just_read = not Deadline.after(READ_AGAIN, memory.client.at).due(facts.now)
        assert memory.client.ref == facts.spec.client_secret_ref
        assert memory.client.client == decision.client
        assert just_read or memory.client.identity == facts.client_identity
    if isinstance(decision, Refresh):
        assert facts.spec.refresh.grant is GrantType.REFRESH_TOKEN
        assert decision.present is memory.current
        assert decision.token is decision.present.refresh
        assert decision.present.state.exchange_inputs == facts.inputs
    if isinstance(decision, RemoveOldTargets):
        assert facts.in_place


@pytest.mark.rule("WRITE-9", "OWN-16", "OWN-17", "REPL-13")
@given(WORLDS)
def test_nothing_is_done_on_the_word_of_the_watch_alone_where_that_may_be_late(scene: Scene) -> None:
    facts, decision = scene.facts(), scene.decide()
    if facts.served:
        return
    if isinstance(decision, Exchange | Refresh | Verify | Publish | RemoveOldTargets):
        assert facts.confirmed
    if isinstance(decision, Exchange | Refresh | Publish):
        assert not is_for_another(facts.target, facts.credential)
    if isinstance(decision, Exchange | Refresh):
        assert facts.spec.target.deletion_policy is DeletionPolicy.DELETE
    if isinstance(decision, RemoveOldTargets):
        assert not decision.targets


@given(WORLDS)
def test_rest_is_explained_and_never_restless(scene: Scene) -> None:
    facts, decision = scene.facts(), scene.decide()
    if not isinstance(decision, Rest):
        return
    # Nothing that is due already is waited for: that would be a loop without a pause.
    assert decision.requeue_at is None or not decision.requeue_at.due(facts.now)
    # Without a blocked_by there is a time to look again, and no credential is forgotten.
    assert decision.blocked_by or decision.requeue_at or decision.silent
    assert decision.recheck_at is None or not decision.recheck_at.due(facts.now)
    # Silent is what nobody needs to know: the end of a credential, and a short wait for the limiter.
    ends = facts.credential.deleting or facts.memory.namespace_ends
    published = facts.memory.published
    ended = published is not None and published.expiry.due(facts.now)
    assert decision.silent is (ends or bool(decision.parks and not decision.blocked_by and not ended))


class Reconciler:
    """Does what was decided as the real one does, in a world whose endpoint works or does not."""

    def __init__(self, scene: Scene, *, endpoint: bool) -> None:
        self.scene, self.endpoint = scene, endpoint

    def act(self, decided: Act) -> None:
        match decided:
            case ReadClientSecret():
                self.read(self.scene.facts())
            case ProveAbsence():
                self.scene.absence_proven = self.scene.served = True
            case AskWhoServes():
                self.scene.served = True
                if decided.other is not None:
                    self.scene.memory = self.scene.memory.overtaken(decided.other)
            case Exchange() | Refresh():
                self.attempt(self.scene.facts(), decided)
            case Verify():
                self.scene.waiting(verified=True) if self.endpoint else unverifiable(self.scene)
            case Publish():
                self.publish(self.scene.facts(), decided)
            case RemoveOldTargets():
                self.scene.old_targets = ()

    def read(self, facts: Facts) -> None:
        if facts.client_secret is None:
            client_missing(self.scene)
            return
        client = world.CLIENT if facts.client_secret.version == "20" else world.OTHER_CLIENT
        world.has_read(self.scene, facts.client_secret.identity, client)

    def attempt(self, facts: Facts, decided: Exchange | Refresh) -> None:
        attempt = Attempted(counts_from(facts), facts.attempt_inputs)
        forced_at = facts.now if facts.credential.refresh_requested else None
        self.scene.memory = facts.memory.attempt_begun(attempt, forced_at=forced_at)
        if self.endpoint:
            pending(self.scene)
            return
        failing()(self.scene)
        if isinstance(decided, Refresh):
            self.scene.memory = self.scene.memory.refresh_token_spent(decided.token)

    def publish(self, facts: Facts, decided: Publish) -> None:
        held = replace(decided.held, state=replace(decided.held.state, template=facts.layout.digest))
        self.scene.target = TargetObject(facts.credential, held.state, version=str(int(facts.now.boot)))
        self.scene.memory = facts.memory.wrote(held, wanted_target(facts), untried=decided.untried)
        if decided.cause is Cause.BROKEN:
            self.scene.memory = self.scene.memory.restored(facts.now, 10)
        self.scene.absence_proven = False


def come_to_rest(scene: Scene, *, endpoint: bool) -> Rest:
    reconciler = Reconciler(scene, endpoint=endpoint)
    for _ in range(12):  # acts that the real one does in one go
        decision = scene.decide()
        if isinstance(decision, Rest):
            return decision
        reconciler.act(decision)
    pytest.fail(f"no rest: {scene.decide()}")


@given(WORLDS, st.booleans())
def test_every_world_comes_to_rest(scene: Scene, endpoint: bool) -> None:  # noqa: FBT001 -- drawn
    come_to_rest(scene, endpoint=endpoint)


@given(WORLDS)
def test_with_everything_in_order_a_token_comes(scene: Scene) -> None:
    """Whatever was before: with a spec, a client, a target and an endpoint to go by, Ready comes in a few minutes."""
    facts = scene.facts()
    assume(not (facts.credential.deleting or facts.memory.namespace_ends or facts.spec.suspend or facts.problem))
    assume(facts.token_url in facts.policy.allowed_token_urls)
    scene.foreign, scene.permit, scene.verify_permit = None, Permit(), Permit()
    if scene.client_secret is None or isinstance(scene.memory.client, ClientSecretRead):
        scene.client_secret = SecretMeta("client-uid", "22")
        client_unread(scene)
    for _ in range(8):
        decision = come_to_rest(scene, endpoint=True)
        if scene.facts().usable and decision.blocked_by is None:
            return
        again = decision.recheck_at or decision.requeue_at
        assert again is not None
        wait = again.remaining(scene.now)
        assert wait <= 300
        scene.now = Moment(scene.now.wall + wait, scene.now.boot + wait)
    pytest.fail(f"no token: {scene.decide()}")


def test_a_rest_in_which_nothing_is_to_come_waits_for_nothing() -> None:
    rest = Rest()
    assert (rest.requeue_at, rest.recheck_at, rest.parks, rest.silent) == (None, None, frozenset(), False)
