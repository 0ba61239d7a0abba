"""Builds the Grafana dashboard, by `make dashboard`: to be imported, and as a ConfigMap for Grafana's sidecar.

The library for Grafana's schema is pinned in requirements/dev.lock, and says no to what Grafana would not understand.
With an argument both go into that folder, for the test that compares them.
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import yaml
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh, VariableSort
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER: Final = Path(__file__).parents[1] / "deploy" / "monitoring" / "grafana"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")

# Series of credentials, in the chosen namespaces. All replicas tell the same of a credential, hence "max by".
CHOSEN: Final = '{namespace=~"$namespace"}'


class Query(NamedTuple):
    """An expression, and what its series are called."""

    expr: str
    legend: str = ""


class Chart(NamedTuple):
    """A panel: its title, what it tells, the unit of its values, its queries; `kind` is stat, table or time."""

    title: str
    about: str
    unit: str
    queries: Sequence[Query]
    kind: str = "time"
    width: int = 8


def quantiles(metric: str, by: str = "") -> tuple[Query, Query]:
    """The median and the worst but one in a hundred of a histogram."""
    labels = f"le, {by}" if by else "le"
    sums = f"sum by ({labels}) (rate({metric}_bucket[$__rate_interval]))"
    name = f" {{{{{by}}}}}" if by else ""
    return (
        Query(f"histogram_quantile(0.5, {sums})", f"half{name}"),
        Query(f"histogram_quantile(0.99, {sums})", f"99 of 100{name}"),
    )


READY: Final = f"max by (namespace, credential) (tuinly_credential_ready{CHOSEN})"
EXPIRY: Final = f"max by (namespace, credential) (tuinly_credential_expiration_timestamp_seconds{CHOSEN})"
FAILING: Final = f"max by (namespace, credential, reason) (tuinly_credential_failing{CHOSEN})"

ROWS: Final[dict[str, Sequence[Chart]]] = {
    "Credentials": (
        Chart("Ready", "Credentials whose target holds a good token.", "short", [Query(f"sum({READY})")], "stat", 4),
        Chart(
            "Not ready",
            "Somebody has to see to these: kubectl tuinly status -A.",
            "short",
            [Query(f"count({READY} == 0) or vector(0)")],
            "stat",
            4,
        ),
        Chart(
            "Suspended",
            "Nothing is asked for until they are resumed.",
            "short",
            [Query(f"count(max by (namespace, credential) (tuinly_credential_suspended{CHOSEN})) or vector(0)")],
            "stat",
            4,
        ),
        Chart(
            "Next expiry",
            "How long the token lives that ends first.",
            "s",
            [Query(f"min({EXPIRY} - time())")],
            "stat",
            4,
        ),
        Chart(
            "Failing by reason",
            "Credentials whose last attempt failed. Those of which the token still lives are ready all the same.",
            "short",
            [Query(f"count by (reason) ({FAILING})", "{{reason}}")],
        ),
        Chart(
            "Soonest expiries",
            "The tokens that end first, in seconds from now.",
            "s",
            [Query(f"bottomk(20, {EXPIRY} - time())")],
            "table",
            16,
        ),
        Chart("Readiness", "Ready, of all that are known.", "percentunit", [Query(f"avg({READY})", "ready")]),
    ),
    "Refreshes": (
        Chart(
            "New tokens",
            "Tokens published in target Secrets, per second.",
            "reqps",
            [Query("sum by (grant) (rate(tuinly_refreshes_total[$__rate_interval]))", "{{grant}}")],
        ),
        Chart(
            "Lateness",
            "How long after it was due a refresh was published.",
            "s",
            quantiles("tuinly_refresh_lateness_seconds"),
        ),
        Chart(
            "Token requests by outcome",
            "What came of token requests, per second.",
            "reqps",
            [Query("sum by (outcome) (rate(tuinly_token_requests_total[$__rate_interval]))", "{{outcome}}")],
        ),
    ),
    "Endpoints": (
        Chart(
            "Latency",
            "How long token requests took.",
            "s",
            quantiles("tuinly_token_request_duration_seconds", "grant"),
        ),
        Chart(
            "In flight, limit and waiting",
            "Requests under way, how many may be, and who waits for a turn.",
            "short",
            [
                Query("sum by (origin) (tuinly_endpoint_in_flight)", "{{origin}} in flight"),
                Query("sum by (origin) (tuinly_endpoint_limit)", "{{origin}} limit"),
                Query("sum by (origin) (tuinly_endpoint_waiting)", "{{origin}} waiting"),
            ],
        ),
        Chart(
            "Down",
            "1 while an endpoint is only probed after failures.",
            "short",
            [Query("max by (origin) (tuinly_endpoint_down)", "{{origin}}")],
        ),
        Chart(
            "Clock",
            "How far the operator's clock is ahead of the endpoint's. More than 30 s makes tokens end unseen.",
            "s",
            [Query("max by (origin) (tuinly_clock_difference_seconds)", "{{origin}}")],
            width=24,
        ),
    ),
    "Operator": (
        Chart("Leader", "Replicas at work: one.", "short", [Query("sum(tuinly_leader)")], "stat", 4),
        Chart(
            "API reach",
            "1 if each replica reaches the API server.",
            "short",
            [Query("min(tuinly_api_reachable)")],
            "stat",
            4,
        ),
        Chart(
            "Namespaces refused",
            "What the API server does not let it list or watch.",
            "short",
            [Query("count(max by (resource, namespace) (tuinly_namespace_refused)) or vector(0)")],
            "stat",
            4,
        ),
        Chart(
            "Versions",
            "Of the replicas.",
            "short",
            [Query("count by (version) (tuinly_build_info)", "{{version}}")],
            "stat",
            4,
        ),
        Chart(
            "Queue",
            "Credentials that wait to be looked at by the leader; those of a standby wait for its lead.",
            "short",
            [Query("max(tuinly_queue_depth and tuinly_leader == 1)", "waiting")],
        ),
        Chart(
            "Age of the queue",
            "How long the oldest has waited; after 5 minutes the replica is restarted.",
            "s",
            [Query("max(tuinly_queue_age_seconds)", "oldest")],
        ),
        Chart(
            "Long iterations of the event loop",
            "CPU time of iterations of 5 ms or more, for which everything else in the operator waited.",
            "s",
            quantiles("tuinly_loop_held_seconds"),
        ),
        Chart(
            "Pushes by outcome",
            "Pods that were to be told of a new token, per second. Nothing where Push is not installed.",
            "reqps",
            [Query("sum by (outcome) (rate(tuinly_pushes_total[$__rate_interval]))", "{{outcome}}")],
        ),
        Chart("Delay of pushes", "From the write to the Pod.", "s", quantiles("tuinly_push_delay_seconds")),
    ),
}


def main() -> None:
    """Write both files."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    text = build()
    (folder / "tuinly.json").write_text(text, encoding="utf-8")
    (folder / "configmap.yaml").write_text(configmap(text), encoding="utf-8")


def build() -> str:
    """The dashboard as JSON."""
    built = (
        dashboard.Dashboard("Tuinly credentials")
        .uid("tuinly-operator")
        .description("Access tokens that tuinly-operator keeps fresh in Secrets.")
        .tags(["tuinly"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("namespace")
            .label("Namespace")
            .datasource(SOURCE)
            .query("label_values(tuinly_credential_ready, namespace)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)  # noqa: FBT003 -- the library's way
            .include_all(True)  # noqa: FBT003 -- the same
            .all_value(".*")
        )
    )
    number = itertools.count(1)
    for title, charts in ROWS.items():
        built = built.with_row(dashboard.Row(title).id(next(number)))
        for chart in charts:
            built = built.with_panel(panel(chart).id(next(number)))
    return json.dumps(built.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def panel(chart: Chart) -> timeseries.Panel | stat.Panel | table.Panel:
    """One panel."""
    made = {"time": timeseries.Panel, "stat": stat.Panel, "table": table.Panel}[chart.kind]()
    made = made.title(chart.title).description(chart.about).unit(chart.unit).datasource(SOURCE)
    made = made.span(chart.width).height(4 if chart.kind == "stat" else 8)
    for letter, query in zip("ABC", chart.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").datasource(SOURCE)
        target = target.ref_id(letter)
        if chart.kind != "time":
            target = target.instant()
        if chart.kind == "table":
            target = target.format(PromQueryFormat.TABLE)
        made = made.with_target(target)
    return made


def configmap(text: str) -> str:
    """The same for the sidecar of Grafana's chart, which looks for ConfigMaps by this label."""
    labels = {"app.kubernetes.io/name": "tuinly-operator", "app.kubernetes.io/part-of": "tuinly-operator"}
    metadata = {
        "name": "tuinly-operator-dashboard",
        "namespace": "tuinly-system",
        "labels": {**labels, "grafana_dashboard": "1"},
    }
    head = yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}, sort_keys=False)
    body = "".join(f"    {line}\n" for line in text.splitlines())
    return f"# Made by make dashboard from hack/dashboard.py; edit that.\n{head}data:\n  tuinly.json: |\n{body}"


if __name__ == "__main__":
    main()
