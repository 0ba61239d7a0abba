"""Chaos is drawn from its seed, and judged by what the contract says: the pure parts of it."""

import itertools
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.chaos import soak
from tests.chaos.acts import ACTS
from tests.chaos.gauges import Sample, growth, slope
from tests.chaos.kinds import KINDS, REPLICA_GONE, SERVER_FAILED
from tests.chaos.picture import LANES, how_many, per_second
from tests.chaos.plan import BURST, CALM, draw
from tests.chaos.report import Outcome, drawn, figures, summary, told
from tests.chaos.verdict import QUICK, WINDOW, Judgement, Span, Struck, deadline, judge, meets_premise, recovery
from tests.support.auditor import Change, Credential, Verdict, Wrong
from tests.support.sandbox import IssuedToken

NAME = "storefront-00007"
LIFE = 300
"""Seconds: due after 180 at the latest, 120 before the end."""
ROOT = Path(__file__).parents[2]
NOW = 1_000_000.0
SHOWN = "{http://www.w3.org/2000/svg}"


# --- The plan ---------------------------------------------------------------------------------------------------------


def test_one_seed_is_one_plan() -> None:
    assert draw(7, 100, 1800) == draw(7, 100, 1800)
    assert draw(7, 100, 1800) != draw(8, 100, 1800)


@pytest.mark.parametrize("seed", range(30))
def test_after_each_burst_there_is_calm(seed: int) -> None:
    bursts = draw(seed, 100, 1800)
    assert len(bursts) >= 7
    assert bursts[0].at == 100
    for burst, following in itertools.pairwise(bursts):
        assert following.at - burst.end >= CALM[0]
    assert 1800 - bursts[-1].end >= CALM[0]
    for burst in bursts:
        assert BURST[0] <= burst.end - burst.at <= BURST[1]
        assert all(burst.at <= fault.at <= fault.end <= burst.end for fault in burst.faults)


@pytest.mark.parametrize("seed", range(30))
def test_what_a_fault_takes_no_other_of_its_burst_strikes(seed: int) -> None:
    for burst in draw(seed, 100, 1800):
        taken = [each for fault in burst.faults for each in KINDS[fault.kind].takes]
        assert len(taken) == len(set(taken)) >= 3


def test_in_half_an_hour_most_kinds_strike_and_in_hours_all_do() -> None:
    struck = [{fault.kind for burst in draw(1, 100, seconds) for fault in burst.faults} for seconds in (1800, 4 * 3600)]
    assert len(struck[0]) > len(KINDS) / 2
    assert struck[1] == set(KINDS)


def test_kinds_that_cannot_be_are_not_drawn() -> None:
    bursts = draw(1, 100, 3600, ["target deleted", "etcd killed"])
    assert {fault.kind for burst in bursts for fault in burst.faults} == {"target deleted", "etcd killed"}


def test_where_there_is_no_time_for_a_burst_and_calm_there_is_none() -> None:
    assert draw(1, 100, 100 + BURST[0] + CALM[0] - 1) == ()
    assert len(draw(1, 100, 100 + BURST[0] + CALM[0])) == 1


def test_each_kind_is_done_and_drawn_in_one_lane() -> None:
    assert set(ACTS) == set(KINDS)
    assert [sum(belongs(kind) for belongs in LANES.values()) for kind in KINDS] == [1] * len(KINDS)


# --- The judgement ----------------------------------------------------------------------------------------------------


def struck(kind: str, begin: float, end: float, hit: str = "") -> Struck:
    return Struck(kind, NOW + begin, NOW + end, hit)


def token(number: int, at: float, revoked: float | None = None) -> IssuedToken:
    """A token that the endpoint issued, and revoked as it issued the next one."""
    return IssuedToken(
        sequence=number,
        value=f"token-{number}",
        client=NAME,
        scopes=(),
        grant="client_credentials",
        issued_at=NOW + at,
        expires_in=LIFE,
        expires_at=NOW + at + LIFE,
        revoked_at=None if revoked is None else NOW + revoked,
        revoked_by=None if revoked is None else "successor",
    )


def judged(
    held: Sequence[tuple[float, int | str | None]], *faults: Struck, until: float = 900, issued: Sequence[float] = (0,)
) -> Judgement:
    """Judge a credential whose target held this from these times on: a token by its number, another text, or nothing.

    Tokens are issued at these times, and live for LIFE.
    """
    tokens = [token(number, at) for number, at in enumerate(issued)]
    changes = [
        Change(NOW + at, NOW + at, exists=True, token=f"token-{what}" if isinstance(what, int) else what)
        for at, what in held
    ]
    seen = Span(NOW, NOW + until)
    return judge({Credential("chaos", NAME, "uid"): changes}, tokens, faults, ("a", "b"), seen)


def test_a_token_that_is_replaced_in_time_leaves_nothing_to_tell() -> None:
    judgement = judged([(0, 0), (170, 1)], issued=(0, 170), until=340)
    assert not judgement.findings
    assert not judgement.unwell
    first, second = judgement.lifetimes
    assert (first.since, first.until, first.due, first.expires) == (NOW, NOW + 170, NOW + 180, NOW + 300)
    assert (first.premise, second.premise, second.until) == (True, None, None)


def test_an_expired_token_is_beyond_the_bounds_where_the_promise_has_its_premise() -> None:
    outage = struck("API server killed", 100, 209)
    judgement = judged([(0, 0), (310, 1)], outage, issued=(0, 310), until=320)
    assert judgement.lifetimes[0].premise is True
    assert judgement.beyond(Wrong.EXPIRED) == pytest.approx(10)


def test_an_expired_token_without_that_premise_is_beyond_the_bounds_once_the_wait_is_over() -> None:
    outage = struck("API server killed", 200, 260)
    judgement = judged([(0, 0), (430, 1)], outage, issued=(0, 430), until=440)
    assert judgement.lifetimes[0].premise is False
    assert judgement.found(Wrong.EXPIRED) == pytest.approx(130)
    assert judgement.beyond(Wrong.EXPIRED) == pytest.approx(430 - 260 - SERVER_FAILED)


@pytest.mark.parametrize(
    ("faults", "met"),
    [
        ([], True),
        ([struck("endpoint hangs", 190, 209)], True),
        ([struck("endpoint hangs", 190, 211)], False),
        ([struck("endpoint hangs", 190, 260), struck("etcd killed", 195, 200)], False),
        ([struck("endpoint slow", 190, 260)], True),
        ([struck("leader stopped", 190, 260, "a")], True),
        ([struck("leader stopped", 190, 260, "a"), struck("standby killed", 200, 220, "b")], False),
        ([struck("leader stopped", 190, 260, "a"), struck("standby killed", 200, 209, "b")], True),
        ([struck("client secret rotated", 190, 260, NAME)], False),
        ([struck("client secret rotated", 190, 260, "another")], True),
        ([struck("target spoilt", 190, 260, NAME)], True),
    ],
)
def test_the_premise_is_that_one_replica_has_all_it_needs_for_long_enough(faults: list[Struck], met: bool) -> None:  # noqa: FBT001 - a parameter
    within = Span(NOW + 180, NOW + 180 + 120)
    assert meets_premise(within, NAME, faults, ("a", "b"), NOW + 900) is met


def test_the_premise_of_a_lead_that_is_not_over_is_not_known_but_where_it_is_met() -> None:
    within = Span(NOW + 180, NOW + 300)
    assert meets_premise(within, NAME, [], ("a",), NOW + 180 + WINDOW) is True
    assert meets_premise(within, NAME, [], ("a",), NOW + 179 + WINDOW) is None


@pytest.mark.parametrize(
    ("what", "kind", "wrong"),
    [(None, "target deleted", Wrong.ABSENT), ("spoilt", "target spoilt", Wrong.NEVER_ISSUED)],
)
def test_what_people_break_is_excused_for_seconds(what: str | None, kind: str, wrong: Wrong) -> None:
    held = [(0.0, 0), (50.0, what), (65.0, 0)]
    assert judged(held, struck(kind, 49.9, 50.1, NAME), until=100).beyond(wrong) == pytest.approx(15 - QUICK)
    assert judged(held, struck(kind, 49.9, 50.1, "another"), until=100).beyond(wrong) == pytest.approx(15)
    assert judged(held, struck(kind, 20, 21, NAME), until=100).beyond(wrong) == pytest.approx(15)
    assert judged(held, struck("exchange asked for", 50, 50, NAME), until=100).beyond(wrong) == pytest.approx(15)
    assert judged(held, until=100).beyond(wrong) == pytest.approx(15)


def test_what_is_overdue_is_excused_for_as_long_as_the_waits_say() -> None:
    killed = struck("leader killed: asks", 170, 190, "a")
    in_time = judged([(0, 0), (180 + 60, 1)], killed, issued=(0, 240), until=300)
    assert [seconds for _, seconds in in_time.late] == [0]
    too_late = judged([(0, 0), (190 + REPLICA_GONE + 2, 1)], killed, issued=(0, 190 + REPLICA_GONE), until=300)
    assert [seconds for _, seconds in too_late.late] == pytest.approx([2])


@pytest.mark.parametrize(("issued", "overdue"), [(10, 0), (52, 0), (54, 1), (4, 1)])
def test_a_token_that_was_given_to_a_wrong_clock_is_due_by_that_clock(issued: int, overdue: int) -> None:
    """By one that is ahead it ends later."""
    ahead = struck("clock ahead", 5, 50, "a")
    found = judged([(issued, 0), (issued + 180 + 29, 1)], ahead, issued=(issued, issued + 209), until=390)
    assert len(found.late) == overdue
    too_late = judged([(issued, 0), (issued + 180 + 32, 1)], ahead, issued=(issued, issued + 212), until=390)
    assert len(too_late.late) == 1


def test_tasks_of_every_loop_are_counted() -> None:
    """Two on the main loop, of which one runs this, and one on another thread's."""
    program = [sys.executable, "-c", TASKS]
    ended = subprocess.run(program, cwd=ROOT, check=False, capture_output=True, text=True, timeout=30)  # noqa: S603 -- ours
    assert (ended.stdout, ended.stderr) == ("3\n", "")


TASKS = """
import asyncio, threading
from tests.chaos import counted
asyncio.BaseEventLoop.run_forever = counted._noted
there = threading.Event()

async def other():
    there.set()
    await asyncio.sleep(30)

async def main():
    threading.Thread(target=asyncio.run, args=(other(),), daemon=True).start()
    waits = asyncio.create_task(asyncio.sleep(30))
    await asyncio.to_thread(there.wait)
    print(await asyncio.to_thread(counted.tasks), flush=True)
    import os
    os._exit(0)

asyncio.run(main())
"""


def test_one_wait_follows_another() -> None:
    first, second = struck("etcd killed", 0, 10), struck("standby stopped", 150, 200, "b")
    assert deadline(NOW + 5, NAME, [second, first]) == NOW + 200 + REPLICA_GONE
    assert deadline(NOW + 5, NAME, [first]) == NOW + 10 + SERVER_FAILED
    assert deadline(NOW + 500, NAME, [first, second]) == NOW + 500 + QUICK
    assert deadline(NOW + 5, NAME, [struck("etcd killed", 100, 110)]) == NOW + 5 + QUICK
    assert deadline(NOW, NAME, [struck("client secret rotated", 0, 5, "another")]) == NOW + QUICK


UNWELL: Mapping[str, Sequence[Span]] = {
    NAME: [Span(NOW + 12, NOW + 20), Span(NOW + 30, NOW + 40), Span(NOW + 60, NOW + 70)],
    "another": [Span(NOW + 25, NOW + 42)],
}


def test_what_a_server_revokes_is_no_harm_for_as_long_as_a_write_takes() -> None:
    tokens = [token(0, 0, revoked=50), token(1, 50)]
    for seconds, unwell in ((2.9, []), (3.1, [NAME])):
        changes = [
            Change(NOW + at, NOW + at, exists=True, token=f"token-{number}")
            for number, at in enumerate((0, 50 + seconds))
        ]
        found = judge({Credential("chaos", NAME, "uid"): changes}, tokens, [], ("a",), Span(NOW, NOW + 60))
        assert list(found.unwell) == unwell
        assert found.found(Wrong.SUPERSEDED) == pytest.approx(seconds)


def test_what_people_broke_while_nobody_could_look_is_excused_all_the_same() -> None:
    deleted = struck("target deleted", 50, 51, NAME)
    changes = [Change(NOW, NOW, exists=True, token="token-0"), Change(NOW + 60, NOW + 45, exists=True, token=None)]
    found = judge({Credential("chaos", NAME, "uid"): changes}, [token(0, 0)], [deleted], ("a",), Span(NOW, NOW + 65))
    assert found.found(Wrong.ABSENT) == 5
    assert found.beyond(Wrong.ABSENT) == 0


def test_recovery_lasts_until_nothing_is_unwell_for_a_while() -> None:
    assert recovery(struck("API server killed", 5, 10), [], UNWELL) == 32
    assert recovery(struck("leader stopped", 5, 10, "a"), [], UNWELL) == 37
    assert recovery(struck("target deleted", 10, 10, NAME), [], UNWELL) == 30
    assert recovery(struck("API server killed", 80, 90), [], UNWELL) == 0


def test_while_others_are_in_force_a_recovery_does_not_count() -> None:
    fault = struck("API server killed", 5, 10)
    others = [struck("endpoint hangs", 0, 22), struck("standby stopped", 35, 60, "b")]
    assert recovery(fault, [fault, *others], UNWELL) == 35 - 22
    assert recovery(fault, [fault, struck("target deleted", 0, 60, NAME)], UNWELL) == 32


# --- What is held, and how it is shown --------------------------------------------------------------------------------


def sample(at: float, files: int, *, leads: bool = True, rss: float = 100.0, tasks: int | None = 5) -> Sample:
    return Sample(NOW + at, "a", 1, leads, rss, files, 9, tasks)


def test_growth_is_from_the_first_calm_to_any_other() -> None:
    calms = [Span(NOW + 10, NOW + 20), Span(NOW + 30, NOW + 40), Span(NOW + 50, NOW + 60)]
    samples = [
        *(sample(at, files) for at, files in ((12, 99), (19, 20), (25, 1), (37, 27), (39, 99), (59, 22))),
        *(sample(at, files, leads=False) for at, files in ((19, 10), (39, 11))),
    ]
    assert growth(samples, calms) == {"rss": 0, "files": 7, "tasks": 0, "threads": 0}
    peak = sorted([*samples, sample(38, 50, rss=200), sample(59.5, 50, rss=130)], key=lambda each: each.at)
    assert growth(peak, calms)["rss"] == 30
    assert growth([*samples, sample(39.5, 50, tasks=None)], calms)["tasks"] == 0
    assert growth([], calms)["files"] == 0


def test_a_slope_is_by_least_squares() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == 2
    assert slope([(0, 1), (1, 0), (2, 2)]) == 0.5
    assert slope([(0, 1)]) == slope([]) == slope([(3, 1), (3, 2)]) == 0


def test_moments_and_spans_become_lines() -> None:
    within = Span(0, 30)
    assert per_second([0, 1, 11, 99], within) == [(5, 0.2), (15, 0.1), (25, 0), (35, 0)]
    assert how_many([Span(5, 10), Span(8, 20)], within) == [
        (0, 0), (5, 0), (5, 1), (8, 1), (8, 2), (10, 2), (10, 1), (20, 1), (20, 0), (30, 0),
    ]  # fmt: skip


def outcome(judgement: Judgement, *faults: Struck, not_ready: int = 0) -> Outcome:
    within = Span(NOW, NOW + 340)
    samples = [sample(at, 20) for at in (100, 200, 300)]
    bursts = [Span(NOW + 40, NOW + 90)]
    return Outcome(1, 1, within, bursts, faults, judgement, [NOW, NOW + 120, NOW + 240], samples, not_ready, [])


def test_a_run_in_which_all_was_well_says_so() -> None:
    fault = struck("target deleted", 50, 50, NAME)
    held = [(0, 0), (50, None), (50.5, 0), (120, 1), (240, 2)]
    run = outcome(judged(held, fault, issued=(0, 120, 240), until=340), fault)
    assert [figure.name for figure in figures(run) if figure.met is False] == []
    found = {figure.name: figure.value for figure in figures(run)}
    assert (found["refreshes"], found["token requests per refresh due"]) == (2, 1)
    assert found["absent-seconds in all"] == pytest.approx(0.5)
    assert summary(run).endswith("all was well")
    assert "| target deleted | 1        | 0.5" in told(run)


def test_a_bound_that_is_broken_is_told_in_the_last_line() -> None:
    run = outcome(judged([(0, 0), (50, None), (53, 0), (170, 1)], issued=(0, 170), until=340), not_ready=1)
    assert summary(run).endswith("MISSED absent-seconds beyond the bounds, not Ready in the end")
    assert "absent 3 s beyond" in summary(run)


def test_the_picture_is_one_for_light_and_dark() -> None:
    fault = struck("endpoint hangs", 50, 60)
    text = drawn(outcome(judged([(0, 0)], fault, until=340), fault))
    root = ET.fromstring(text)  # noqa: S314 - our own
    boxes = [box for box in root.iter(f"{SHOWN}rect") if box.get("class") == "fault"]
    assert [each.text for box in boxes for each in box] == ["endpoint hangs"]
    [box] = boxes
    assert float(box.get("width", 0)) == pytest.approx(10 / 340 * (960 - 220), abs=0.1)
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def soaked(per_hour: float, files: int = 20) -> soak.Soaked:
    """Half an hour in which both replicas warm up at first, and grow by so many MB per hour after that."""
    earlier = [(100, 3), (600, 20), (800, 20), (1100, 99), (1200, 99)]
    samples = [
        Sample(NOW + at, name, 1, leads=False, rss=80 + per_hour * at / 3600 - (20 if at < 600 else 0), files=held,
               threads=9, tasks=5)
        for name in ("a", "b") for at, held in [*earlier, (1500, files), (1800, files + 30)]
    ]  # fmt: skip
    within = Span(NOW, NOW + 1800)
    return soak.Soaked(10, within, samples, [NOW + at for at in range(300)], 300, Verdict(10, 1800, ()))


def test_a_soak_measures_what_grows_once_it_has_settled() -> None:
    found = {figure.name: figure for figure in soak.figures(soaked(0.5, files=70))}
    assert found["memory slope of replica b"].value == pytest.approx(0.5)
    assert found["refreshes per credential and minute"].value == 1
    assert [name for name, figure in found.items() if figure.met is False] == [
        "growth of replica a: file descriptors",
        "growth of replica b: file descriptors",
    ]
    assert found["growth of replica a: file descriptors"].value == 50


def test_memory_that_grows_by_more_than_a_megabyte_per_hour_is_told() -> None:
    missed = [figure.name for figure in soak.figures(soaked(1.5)) if figure.met is False]
    assert missed == ["memory slope of replica a", "memory slope of replica b"]
    ET.fromstring(soak.drawn(soaked(1.5)))  # noqa: S314 - our own
