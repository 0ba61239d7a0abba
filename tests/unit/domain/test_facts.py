"""What is known when it is decided what to do: what a look at the target teaches, and what is told of it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.unit.facts import (
    DUE,
    EXPIRED,
    ISSUED,
    OTHER_SCOPES,
    OTHER_URL,
    POLICY,
    TEMPLATED,
    TOKEN_URL,
    VERIFIES,
    Change,
    Json,
    Scene,
    TargetObject,
    absence_proven,
    brand_new,
    client_gone,
    created,
    credential,
    label_removed,
    old_left,
    passed,
    pending,
    renamed,
    restarted,
    served,
    spec,
    target_edited,
    target_foreign,
    target_gone,
    target_overtaken,
    unverifiable,
)
from tuinly_operator.base.clock import Moment
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.facts import Block, Facts, Permit
from tuinly_operator.domain.memory import AttemptInputs, IssuedToken, Memory, Written
from tuinly_operator.domain.push import Content
from tuinly_operator.domain.template import DEFAULT_LAYOUT

Changes = Sequence[Change]
GRAPHQL_URL = POLICY.graphql_url
RETAINED = spec({"target": {"deletionPolicy": "Retain"}})

# --- What a look at the target teaches --------------------------------------------------------------------------------


def told(scene: Scene) -> Written:
    """What the target's annotations tell, dated by the present wall clock."""
    assert scene.target is not None
    meta = scene.target.seen().target
    assert meta is not None
    assert meta.state is not None
    return Written(IssuedToken(meta.state, scene.now.moved_to(meta.state.issued_at)))


def unmet(scene: Scene) -> None:
    """This process has not looked at the target yet."""
    scene.memory = Memory()


def lost(scene: Scene) -> None:
    """What was written is not known to this process."""
    scene.memory = Memory(met=True)


def unknown(scene: Scene) -> None:
    """The token in the target is one of an earlier process."""
    scene.hold(token=None, client=None)


def overtaken_by_an_earlier_one(scene: Scene) -> None:
    """Somebody put an earlier target back."""
    target_overtaken(scene)
    scene.hold(state=replace(scene.published.state, issued_at=int(ISSUED.wall) + 2))


@pytest.mark.parametrize(
    ("changes", "taken_up"),
    [
        # At the first look.
        ([unmet], True),
        ([passed(600, wall=700), unmet], True),
        ([target_edited, unmet], False),
        # Later than a token that is not known.
        ([unknown, target_overtaken], True),
        ([unknown, passed(600, wall=700), target_overtaken], True),
        ([lost], True),
        ([unknown, target_overtaken, target_edited], False),
        ([unknown, overtaken_by_an_earlier_one], False),
        ([unknown], False),
        # One that is known is written over by what a rule decides.
        ([], False),
        ([target_overtaken], False),
    ],
    ids=range(11),
)
def test_the_target_is_believed_at_the_first_look_and_then_of_later_tokens(changes: Changes, *, taken_up: bool) -> None:
    scene = Scene(*changes)
    before = scene.memory
    after = scene.facts().memory
    assert after.met
    assert after == (replace(before, met=True, written=told(scene)) if taken_up else replace(before, met=True))


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ([unmet, target_gone], False),  # the watch may be late
        ([unmet, absence_proven], True),
        ([unmet, target_foreign], True),
        ([lost, target_foreign], True),
        ([unmet, target_edited], True),
    ],
    ids=["not seen", "absent", "foreign", "foreign and met", "edited"],
)
def test_a_target_that_tells_nothing_is_met_all_the_same(changes: Changes, *, met: bool) -> None:
    assert Scene(*changes).facts().memory == Memory(met=met)


def verified(scene: Scene) -> None:
    scene.waiting(verified=True)


def written_unheard(scene: Scene) -> None:
    """The token that waits was written, and the answer was lost."""
    assert scene.memory.pending is not None
    scene.target = TargetObject(scene.facts().credential, scene.memory.pending.held.state, version="31")


@pytest.mark.rule("WRITE-6")
@pytest.mark.parametrize(
    ("changes", "untried"),
    [
        ([pending], False),
        ([VERIFIES, pending, verified], False),
        ([VERIFIES, pending, unverifiable], True),
        ([VERIFIES, pending], True),  # nobody could even try
    ],
    ids=["not to be verified", "verified", "inconclusive", "endpoint down"],
)
def test_a_write_whose_answer_was_lost_is_known_by_the_target(changes: Changes, *, untried: bool) -> None:
    scene = Scene(DUE, *changes)
    assert scene.memory.pending is not None
    held = scene.memory.pending.held
    written_unheard(scene)
    after = scene.facts().memory
    assert after.written == Written(held, untried=untried)
    assert after.pending is None


def pushes(scene: Scene) -> None:
    spec({"delivery": {"pods": "Push"}})(scene)
    scene.policy = replace(scene.policy, push=True)


def push_not_installed(scene: Scene) -> None:
    scene.policy = replace(scene.policy, push=False)


@pytest.mark.parametrize(
    ("changes", "version"),
    [
        ([pushes, unmet], "30"),
        ([pushes, DUE, pending, written_unheard], "31"),
        ([pushes], None),  # what this process wrote it has told of already
        ([pushes, unmet, target_edited], None),
        ([pushes, unmet, push_not_installed], None),
        ([pushes, unmet, spec({"delivery": {"pods": "None"}})], None),
    ],
    ids=range(6),
)
def test_content_that_only_the_target_tells_of_is_pushed_as_anothers_dated_by_the_api_server(
    changes: Changes, version: str | None
) -> None:
    scene = Scene(*changes)
    content = Content(version, scene.now.moved_to(ISSUED.wall), ours=False) if version else None
    assert scene.facts().memory.unpushed == content


# --- What is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "in_place", "looks_as_asked", "usable"),
    [
        ([], True, True, True),
        ([restarted], True, True, True),
        ([TEMPLATED], True, False, True),
        ([label_removed], True, False, True),
        ([OTHER_SCOPES], True, True, False),
        ([EXPIRED], True, True, False),
        ([target_edited], False, False, False),
        ([target_overtaken], False, False, False),  # it is another's, and looks right
        ([target_gone], False, False, False),
        ([brand_new], False, False, False),
        ([target_foreign], False, False, False),
    ],
    ids=range(11),
)
def test_what_the_target_is_worth(changes: Changes, *, in_place: bool, looks_as_asked: bool, usable: bool) -> None:
    facts = Scene(*changes).facts()
    assert (facts.in_place, facts.looks_as_asked, facts.usable) == (in_place, looks_as_asked, usable)


def test_what_was_looked_for_is_told() -> None:
    plain, all_there = Scene().facts(), Scene(old_left, served).facts()
    assert (plain.old_targets, plain.served, plain.absence_proven) == ((), False, False)
    assert [key.name for key, _ in all_there.old_targets] == ["old-name"]
    assert all_there.served
    assert Scene(absence_proven).facts().absence_proven
    assert not Scene(absence_proven, lambda scene: setattr(scene, "served", False)).facts().absence_proven
    there = Scene(absence_proven, lambda scene: setattr(scene, "target", TargetObject()))
    assert not there.facts().absence_proven
    assert not Scene(target_gone).facts().absence_proven


@pytest.mark.parametrize(
    ("changes", "may_create"),
    [
        ([absence_proven], True),
        ([target_gone], False),
        ([brand_new], False),
        ([created], True),
        ([created, RETAINED], False),
        ([created, RETAINED, absence_proven], True),
        ([created, lost], False),  # the target has been met since
    ],
    ids=range(7),
)
def test_a_target_that_is_not_seen_is_taken_for_absent_by_proof_or_where_nobody_can_have_made_one(
    changes: Changes, *, may_create: bool
) -> None:
    assert Scene(*changes).facts().may_create is may_create


def test_an_attempt_would_be_made_with_the_present_inputs_and_client_secret() -> None:
    facts = Scene().facts()
    assert facts.attempt_inputs == AttemptInputs(facts.inputs, "client-uid/20")
    assert facts.inputs == Scene(renamed).facts().inputs != Scene(OTHER_SCOPES).facts().inputs
    assert Scene(client_gone).facts().attempt_inputs == AttemptInputs(facts.inputs, "")


@pytest.mark.parametrize(
    ("patch", "urls"),
    [
        ({}, (TOKEN_URL,)),
        ({"tokenURL": OTHER_URL}, (OTHER_URL,)),
        ({"verification": {"mode": "Enabled"}}, (TOKEN_URL, GRAPHQL_URL)),
        ({"verification": {"mode": "Disabled", "graphqlURL": "https://g.example"}}, (TOKEN_URL,)),
        ({"verification": {"mode": "Enabled", "graphqlURL": "https://g.example"}}, (TOKEN_URL, "https://g.example")),
    ],
    ids=range(5),
)
def test_requests_are_sent_to_the_urls_of_the_spec_or_else_to_those_of_the_admin(
    patch: Json, urls: tuple[str, ...]
) -> None:
    facts = Scene(spec(patch)).facts()
    assert POLICY.urls_of(facts.spec) == urls
    assert ((facts.token_url, facts.graphql_url) if facts.verifies else (facts.token_url,)) == urls


def test_a_template_that_cannot_be_followed_is_a_problem_of_the_spec() -> None:
    facts = Scene(spec({"target": {"template": {"data": {"a": "$x"}}}})).facts()
    assert facts.problem is not None
    assert facts.problem.reason is Reason.INVALID_SPEC
    assert facts.layout is DEFAULT_LAYOUT


def test_those_without_a_template_share_one_layout() -> None:
    assert Scene().facts().layout is DEFAULT_LAYOUT
    assert set(Scene(TEMPLATED).facts().layout.data) == {"authorization"}


def test_unless_the_limiter_says_so_nothing_is_kept_back() -> None:
    facts = Facts(credential(), POLICY, Memory(), ISSUED, DEFAULT_LAYOUT)
    assert facts.permit == facts.verify_permit == Permit(None, at_once=False)
    assert (facts.problem, facts.client_secret, facts.target, facts.old_targets) == (None, None, None, ())
    assert (facts.absence_proven, facts.created, facts.served, POLICY.push) == (False, False, False, False)
    failure = Failure(Reason.ISSUING, "it waits")
    assert Block(failure) == Block(failure, None, parks=False, long=False)


def test_what_is_told_by_the_wall_clock_is_dated_on_both() -> None:
    facts = Scene(passed(600, wall=700), unmet).facts()
    assert facts.memory.published is not None
    assert facts.memory.published.issued == Moment(ISSUED.wall, ISSUED.boot - 100)
