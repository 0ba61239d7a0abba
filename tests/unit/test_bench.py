"""The bench's arithmetic: what it makes of counters, and how it shows figures."""

import io
import json

import pytest

from bench.measures import Lateness, of_credentials, quantile, requests
from bench.report import Bars, Figure, Lines, picture, table
from bench.stand import lifetime_for
from tuinly_operator.credential import Refresh
from tuinly_operator.schedule import lead

METRICS = """\
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",resource="secrets",scope="resource",subresource="",verb="APPLY"} 3
apiserver_request_total{code="201",resource="secrets",scope="resource",subresource="",verb="APPLY"} 2
apiserver_request_total{code="200",resource="tuinlycredentials",subresource="status",verb="PATCH"} 1e+06
apiserver_request_total{code="200",resource="leases",subresource="",verb="PUT"} 7
apiserver_request_duration_seconds_count{resource="secrets",verb="APPLY"} 9
"""


def test_requests_are_counted_by_verb_and_resource_whatever_their_status() -> None:
    counts = requests(METRICS)
    assert counts == {"APPLY secrets": 5, "PATCH tuinlycredentials/status": 1_000_000, "PUT leases": 7}
    assert of_credentials(counts) == {"APPLY secrets": 5, "PATCH tuinlycredentials/status": 1_000_000}


def test_lateness_is_told_by_the_bound_of_the_bucket_that_holds_the_share() -> None:
    def reading(*counts: float) -> Lateness:
        bounds = ("0.1", "1.0", "+Inf")
        name = "tuinly_refresh_lateness_seconds_bucket"
        samples = {(name, frozenset({("le", bound)})): n for bound, n in zip(bounds, counts, strict=True)}
        return Lateness.of({**samples, ("tuinly_leader", frozenset()): 1.0})

    late = reading(60, 199, 200).since(reading(10, 99, 100))
    assert late.count == 100
    assert [late.bound(share) for share in (0.5, 0.51, 1.0)] == [0.1, 1.0, 1.0]
    assert reading(0, 0, 1).bound(1.0) == float("inf")


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_quantile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert quantile(range(1, 101), share) == expected


@pytest.mark.parametrize("interval", [5, 20, 100, 200, 1000])
def test_a_lifetime_brings_the_refreshes_of_an_interval(interval: float) -> None:
    life = lifetime_for(interval)
    assert 0 <= (life - lead(Refresh(), life)) * 0.95 - interval < 1


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


def test_the_picture_has_bars_in_proportion() -> None:
    lines = picture([Bars("CPU (ms)", {"one": 1.0, "other": 4.0}), Bars("nothing (s)", {"one": 0.0})]).splitlines()
    assert [line.count("█") for line in lines if line.startswith("  ")] == [10, 40, 0]


def test_json_lines_tell_all_of_a_figure() -> None:
    file = io.StringIO()
    Lines(file).figure(Figure("time", 1000, 12.0, "s", most=10, details={"cpu": {"operator": 1.0}}))
    told = json.loads(file.getvalue())
    assert (told["kind"], told["value"], told["met"]) == ("figure", 12.0, False)
    assert told["details"] == {"cpu": {"operator": 1.0}}
