"""The bench's arithmetic: what it makes of counters, and how it shows figures."""

import io
import json
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import yaml

from bench import bare, naive
from bench.everyday import SCRAPE_INTERVAL, batches
from bench.measures import LATENESS, Times, grants, of_credentials, quantile, requests, watches
from bench.pods import MOUNTING, PUSHED_ROUNDS, Cost, Sample, costs, delays
from bench.report import Bars, Figure, Lines, picture, table
from bench.run import longest_iteration, pages
from bench.stand import Fleet, Stand, Window, applied_at, lifetime_for
from tests.support.sandbox import SandboxProcess
from tests.unit.facts import ISSUED, LIFETIME, TOKEN_URL, Scene, TargetObject
from tuinly_operator.base.clock import rfc3339
from tuinly_operator.domain.credential import RefreshSpec, to_json
from tuinly_operator.domain.schedule import JITTER, lead
from tuinly_operator.domain.status import status
from tuinly_operator.domain.target import target_manifest
from tuinly_operator.domain.template import VARIABLES, render

SERVICE_MONITOR = Path(__file__).parents[2] / "deploy" / "monitoring" / "servicemonitor.yaml"
GRANT = {"access_token": "token-1", "token_type": "Bearer", "expires_in": LIFETIME}

METRICS = """\
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",resource="secrets",scope="resource",subresource="",verb="APPLY"} 3
apiserver_request_total{code="201",resource="secrets",scope="resource",subresource="",verb="APPLY"} 2
apiserver_request_total{code="200",resource="tuinlycredentials",subresource="status",verb="PATCH"} 1e+06
apiserver_request_total{code="201",resource="tuinlycredentials",subresource="",verb="POST"} 8
apiserver_request_total{code="200",resource="leases",subresource="",verb="PUT"} 7
apiserver_request_duration_seconds_count{resource="secrets",verb="APPLY"} 9
apiserver_longrunning_requests{resource="secrets",scope="cluster",verb="WATCH"} 2
apiserver_longrunning_requests{resource="secrets",scope="namespace",verb="WATCH"} 1
apiserver_longrunning_requests{resource="secrets",scope="resource",verb="CONNECT"} 4
"""


def test_requests_are_counted_by_verb_and_resource_whatever_their_status() -> None:
    counts = requests(METRICS)
    assert counts == {
        "APPLY secrets": 5,
        "PATCH tuinlycredentials/status": 1_000_000,
        "POST tuinlycredentials": 8,
        "PUT leases": 7,
    }
    assert of_credentials(counts) == {"APPLY secrets": 5, "PATCH tuinlycredentials/status": 1_000_000}


def test_lateness_is_told_by_the_bound_of_the_bucket_that_holds_the_share() -> None:
    def reading(*counts: float) -> Times:
        bounds = ("0.1", "1.0", "+Inf")
        name = "tuinly_refresh_lateness_seconds_bucket"
        samples = {(name, frozenset({("le", bound)})): n for bound, n in zip(bounds, counts, strict=True)}
        return Times.of({**samples, ("tuinly_leader", frozenset()): 1.0}, LATENESS)

    late = reading(60, 199, 200).since(reading(10, 99, 100))
    assert late.count == 100
    assert [late.bound(share) for share in (0.5, 0.51, 1.0)] == [0.1, 1.0, 1.0]
    assert reading(0, 0, 1).bound(1.0) == float("inf")


def test_the_times_of_two_processes_are_taken_together() -> None:
    both = Times({0.1: 1.0, 1.0: 2.0}).and_also(Times({0.1: 3.0, 1.0: 5.0}))
    assert both == Times({0.1: 4.0, 1.0: 7.0})
    assert Times({}).and_also(both) == both.and_also(Times({})) == both


@pytest.mark.parametrize(
    ("held", "told", "met"),
    [({}, 0.005, True), ({0.05: 2.0, 0.1: 2.0}, 0.05, True), ({0.05: 1.0, 0.1: 2.0}, 0.1, False)],
)
def test_the_longest_iteration_of_the_loop_is_told_and_judged(
    held: dict[float, float], told: float, *, met: bool
) -> None:
    figure = longest_iteration("steady", 1000, Times(held))
    assert (figure.value, figure.met) == (told, met)


def test_watches_are_counted_by_resource_as_long_as_they_last() -> None:
    counts = watches(METRICS)
    assert (counts["secrets"], counts["tuinlycredentials"]) == (3, 0)


def test_tokens_are_counted_by_the_grant_that_gave_them() -> None:
    name = "tuinly_refreshes_total"
    samples = {(name, frozenset({("grant", grant)})): n for grant, n in (("RefreshToken", 3.0), ("Other", 2.0))}
    assert grants({**samples, ("tuinly_leader", frozenset()): 1.0}) == {"RefreshToken": 3, "Other": 2}


def test_a_window_tells_reads_from_lists_and_writes() -> None:
    api = {
        "GET secrets": 1,
        "GET tuinlycredentials": 2,
        "LIST secrets": 4,
        "LIST tuinlycredentials": 8,
        "WATCH secrets": 16,
        "APPLY secrets": 32,
        "PATCH secrets": 64,
        "PATCH tuinlycredentials/status": 128,
        "POST events": 256,
    }
    window = Window(1.0, {}, Counter(api), 0, Times({}), Counter())
    assert (window.reads, window.lists, window.published, window.writes) == (3, 12, 96, 480)


@pytest.mark.parametrize(("count", "expected"), [(0, 1), (1, 1), (500, 1), (501, 2), (10_000, 20)])
def test_a_list_has_pages(count: int, expected: int) -> None:
    assert pages(count) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (200, [200]),
        (1000, [1000]),
        (3000, [1000, 2000]),
        (5000, [5000]),
        (5500, [5000, 500]),
        (6000, [1000, 5000]),
        (10_000, [1000, 5000, 4000]),
    ],
)
def test_5000_are_applied_at_once_wherever_there_are_as_many(count: int, expected: list[int]) -> None:
    assert batches(count) == expected


def test_scrapes_come_as_the_service_monitor_asks_for_them() -> None:
    monitor = yaml.safe_load(SERVICE_MONITOR.read_text())
    assert [endpoint["interval"] for endpoint in monitor["spec"]["endpoints"]] == [f"{SCRAPE_INTERVAL:.0f}s"]


async def test_a_rotation_is_of_one_client_of_one_fleet() -> None:
    with SandboxProcess() as sandbox:
        stand = cast("Stand", SimpleNamespace(sandbox=sandbox, client_secret="first"))
        fleets = [Fleet(stand, "shops", prepared=2), Fleet(stand, "others", prepared=1)]
        for fleet in fleets:
            await fleet.register()
        await fleets[0].rotate_at_endpoint("storefront-000001", "second")
        known = {client.id: client.secret for client in sandbox.admin.clients()}
    expected = {
        "shops.storefront-000000": "first",
        "shops.storefront-000001": "second",
        "others.storefront-000000": "first",
    }
    assert expected.items() <= known.items()
    assert fleets[0].client(1).secret == "second"


def test_a_target_tells_when_it_was_last_applied() -> None:
    target = TargetObject()
    target.taken("annotations", "tuinly.com/issued-at", "Update")
    target.meta["managedFields"][-1]["time"] = "2026-11-24T09:00:00Z"
    assert applied_at(target.meta) == ISSUED.wall


def test_the_bare_loop_writes_the_target_that_the_operator_writes() -> None:
    scene, target = Scene(), TargetObject()
    told = {"access_token": "token-1", "token_type": "Bearer", "expires_at": rfc3339(ISSUED.wall + LIFETIME)}
    facts, data = scene.facts(), dict.fromkeys(VARIABLES, "") | told
    theirs = target_manifest(
        facts.credential, scene.published.state, facts.layout, render(facts.layout, data), target.seen()
    )
    ours = bare.manifest(scene.object["metadata"], GRANT, ISSUED.wall, target.meta)
    made_up, real = (manifest["metadata"].pop("annotations") for manifest in (ours, theirs))
    assert ours == theirs
    assert made_up.keys() == real.keys()
    digests = ("tuinly.com/exchange-inputs", "tuinly.com/template")
    assert [len(made_up[name]) for name in digests] == [len(real[name]) for name in digests]


def test_the_bare_loop_writes_the_status_that_the_operator_writes() -> None:
    scene = Scene()
    theirs = to_json(status(scene.facts(), scene.at_rest()))
    ours = bare.status(scene.object["metadata"]["name"], TOKEN_URL, GRANT, ISSUED.wall)
    due = "nextRefreshTime"  # which the bare loop does not compute
    assert {**ours, due: ""} == {**theirs, due: ""}


@pytest.mark.parametrize("lifetime", [20.0, 63.0, 300.0, 1000.0, 3600.0, 86_400.0])
def test_the_naive_operator_refreshes_when_the_operator_does(lifetime: float, monkeypatch: pytest.MonkeyPatch) -> None:
    latest = lifetime - lead(RefreshSpec(), lifetime)
    monkeypatch.setattr(random, "uniform", max)
    assert naive.refresh_after(lifetime) == pytest.approx(latest)
    monkeypatch.setattr(random, "uniform", min)
    assert naive.refresh_after(lifetime) == pytest.approx(latest * (1 - JITTER))


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_quantile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert quantile(range(1, 101), share) == expected


@pytest.mark.parametrize("interval", [5, 20, 100, 200, 1000])
def test_a_lifetime_brings_the_refreshes_of_an_interval(interval: float) -> None:
    life = lifetime_for(interval)
    assert 0 <= (life - lead(RefreshSpec(), life)) * 0.95 - interval < 1


@pytest.mark.parametrize(
    ("value", "most", "least", "met"),
    [(1, None, None, None), (1, 1, None, True), (2, 1, None, False), (1, None, 1, True), (0, None, 1, False)],
)
def test_a_figure_is_met_within_its_bounds(
    value: float, most: float | None, least: float | None, *, met: bool | None
) -> None:
    assert Figure("time", 1000, value, "s", most=most, least=least).met is met


def test_the_table_tells_what_was_measured_asked_and_missed() -> None:
    text = table([Figure("time", 1000, 12.345, "s", most=10), Figure("rate", 50, 100, "/s", least=100)])
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()]
    assert rows[2:] == [["time", "1,000", "12.3 s", "≤ 10", "MISSED"], ["rate", "50", "100 /s", "≥ 100", "met"]]
    assert len({len(row) for row in text.splitlines()}) == 1


def test_what_is_beyond_all_bounds_of_a_histogram_is_told_too() -> None:
    beyond = Times({1.0: 3.0, float("inf"): 4.0}).bound(1.0)
    told = table([Figure("longest iteration", 1, beyond, "s", most=0.05)])
    assert told.splitlines()[-1].split(" | ")[2:] == ["∞ s     ", "≤ 0.05 ", "MISSED |"]


def test_the_picture_has_bars_in_proportion() -> None:
    lines = picture([Bars("CPU (ms)", {"one": 1.0, "other": 4.0}), Bars("nothing (s)", {"one": 0.0})]).splitlines()
    assert [line.count("█") for line in lines if line.startswith("  ")] == [10, 40, 0]


def test_json_lines_tell_all_of_a_figure() -> None:
    file = io.StringIO()
    Lines(file).figure(Figure("time", 1000, 12.0, "s", most=10, details={"cpu": {"operator": 1.0}}))
    told = json.loads(file.getvalue())
    assert (told["kind"], told["value"], told["met"]) == ("figure", 12.0, False)
    assert told["details"] == {"cpu": {"operator": 1.0}}


def test_a_pushed_file_must_be_quick_and_one_that_the_kubelet_finds_is_only_told() -> None:
    samples = [Sample("pod", seconds) for seconds in (0.1, 0.2, 0.4, 12.0)]
    told = {figure.name.removeprefix("Push: "): figure for figure in delays("Push", samples, pushed=True)}
    assert {name: (figure.value, figure.met) for name, figure in told.items()} == {
        "samples": (4, None),
        "issued → file changed, p50": (0.2, True),
        "issued → file changed, p99": (12.0, False),
        "issued → file changed, slowest": (12.0, None),
        "files later than 10 s": (1, False),
    }
    assert {figure.met for figure in delays("none", samples, pushed=False)} == {None}
    busy = [figure for figure in delays("busy", samples, pushed=None) if figure.met is not None]
    assert [figure.name for figure in busy] == ["busy: files later than 10 s"]


def test_what_a_push_costs_is_what_refreshes_with_it_cost_more() -> None:
    plain = Cost({"operator": 0.5}, Counter({"LIST pods": 3, "PATCH pods/status": 5}))
    pushed = Cost(
        {"operator": 0.5 + 0.002 * PUSHED_ROUNDS * MOUNTING},
        Counter({"LIST pods": 3 + PUSHED_ROUNDS, "PATCH pods/status": 5 + PUSHED_ROUNDS * MOUNTING}),
    )
    told = {figure.name: figure.value for figure in costs("here", plain, pushed)}
    assert told == {
        "here: operator, CPU per refresh, no Push": pytest.approx(500 / PUSHED_ROUNDS),
        "here: operator, CPU per push beyond that": pytest.approx(2.0),
        "here: LIST pods, more of them per refresh": 1,
        "here: PATCH pods/status, more of them per refresh": MOUNTING,
    }
