"""The alerts: made of metrics that exist, explained by a runbook each, the same in both forms, firing when they should.

When they fire is for promtool to tell, which comes with Prometheus (Debian: `prometheus`); without it that part is
skipped.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.exposition import every_metric, everything

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
RULES = MONITORING / "prometheus-rules.yaml"
RULE_TESTS = MONITORING / "prometheus-rules.test.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"

ALERTS: list[Json] = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
NAMES = [rule["alert"] for rule in ALERTS]
CASES: list[Json] = yaml.safe_load(RULE_TESTS.read_text())["tests"]
METRICS = every_metric()
SCRAPE_LABELS = {"namespace", "job", "instance"}
"""What Prometheus adds to each series; in ours `namespace` stays that of a credential, where there is one."""

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=NAMES)


def metrics_in(text: str) -> set[str]:
    return {re.sub("_(bucket|count|sum)$", "", name) for name in re.findall(r"\btuinly_[a-z_]+", text)}


def labels_of(metrics: set[str]) -> set[str]:
    return set().union(*(METRICS[name][1] for name in metrics)) | SCRAPE_LABELS


# What an alert is made of ---------------------------------------------------------------------------------------------


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 10


@pytest.mark.rule("OBS-27")
@each_alert
def test_an_expression_is_made_of_metrics_and_labels_that_exist(alert: Json) -> None:
    metrics = metrics_in(alert["expr"])
    assert metrics
    assert metrics <= METRICS.keys()
    named = {label for part in re.findall(r"\b(?:by|on) \((.*?)\)", alert["expr"]) for label in part.split(", ")}
    assert named <= labels_of(metrics)


@each_alert
def test_an_alert_tells_a_person_what_it_is_about(alert: Json) -> None:
    """By metrics and labels that exist, too; after `by`, no others are left."""
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    text = alert["annotations"]["summary"] + alert["annotations"]["description"]
    assert metrics_in(text) <= METRICS.keys()
    kept = [set(part.split(", ")) for part in re.findall(r"\bby \((.*?)\)", alert["expr"])]
    left = set.intersection(*kept) if kept else labels_of(metrics_in(alert["expr"]))
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= left


# Runbooks -------------------------------------------------------------------------------------------------------------


@each_alert
def test_an_alert_links_to_its_runbook(alert: Json) -> None:
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"


@pytest.mark.rule("OBS-27")
def test_there_is_a_runbook_for_each_alert_and_for_nothing_else() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"} == set(NAMES)


@each_alert
def test_a_runbook_tells_meaning_impact_diagnosis_and_cure(alert: Json) -> None:
    text = (RUNBOOKS / f"{alert['alert']}.md").read_text()
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    assert headings == [alert["alert"], "What it means", "Impact", "Diagnose", "Mend"]
    diagnosis = text[text.index("## Diagnose") : text.index("## Mend")]
    assert "```" in diagnosis


def test_the_list_of_runbooks_is_complete() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \|", (RUNBOOKS / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted((rule["alert"], rule["alert"], rule["labels"]["severity"]) for rule in ALERTS)


# The Prometheus operator's form ---------------------------------------------------------------------------------------


def wrapped(*arguments: str) -> str:
    script = ["sh", str(MONITORING / "wrap.sh"), *arguments]
    return subprocess.run(script, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own script


def test_the_wrapped_rules_are_the_plain_ones() -> None:
    committed = (MONITORING / "prometheusrule.yaml").read_text()
    assert committed == wrapped(), "run deploy/monitoring/wrap.sh > deploy/monitoring/prometheusrule.yaml"
    assert yaml.safe_load(committed)["spec"] == yaml.safe_load(RULES.read_text())


def test_runbooks_can_be_linked_to_a_copy_of_the_repository() -> None:
    rules = yaml.safe_load(wrapped("https://git.example.com/main/"))["spec"]["groups"]
    links = [rule["annotations"]["runbook_url"] for group in rules for rule in group["rules"]]
    assert links == [f"https://git.example.com/main/docs/runbooks/{name}.md" for name in NAMES]


def test_the_service_monitor_finds_the_service() -> None:
    monitor = yaml.safe_load((MONITORING / "servicemonitor.yaml").read_text())
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True
    for name in ("install.yaml", "namespaced.yaml"):
        objects = list(yaml.safe_load_all((ROOT / "deploy" / name).read_text()))
        [service] = [each for each in objects if each["kind"] == "Service"]
        assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]


# When they fire -------------------------------------------------------------------------------------------------------


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    checks = [check for case in CASES for check in case["alert_rule_test"]]
    assert {check["alertname"] for check in checks if check.get("exp_alerts")} == set(NAMES)
    assert {check["alertname"] for check in checks if not check.get("exp_alerts")} == set(NAMES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_cases_are_made_of_series_that_exist(case: Json) -> None:
    """All their labels, and whatever Prometheus adds to them."""
    for series in case["input_series"]:
        [name] = metrics_in(series["series"])
        labels = set(re.findall(r'(\w+)="', series["series"]))
        assert METRICS[name][1] <= labels <= METRICS[name][1] | SCRAPE_LABELS, series["series"]


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("needs promtool, which comes with Prometheus (Debian: apt-get install prometheus)")
    return found


@pytest.mark.rule("OBS-27")
@pytest.mark.parametrize(("what", "file"), [("check", RULES), ("test", RULE_TESTS)], ids=["check", "test"])
def test_the_alerts_fire_when_they_should(promtool: str, what: str, file: Path) -> None:
    done = subprocess.run([promtool, what, "rules", str(file)], check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_metrics_are_named_as_prometheus_wants_them(promtool: str) -> None:
    """Base units, `_total` for counters alone, help for each."""
    done = subprocess.run(  # noqa: S603
        [promtool, "check", "metrics"], input=everything().text(), check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
