"""The Grafana dashboard: current, made of metrics that exist, in both forms, with no panel upon another."""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_alerts import METRICS, metrics_in

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring" / "grafana"
BOARD: Json = json.loads((FOLDER / "tuinly.json").read_text())
PANELS: list[Json] = BOARD["panels"]


@pytest.mark.rule("OBS-28")
def test_both_forms_are_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "hack" / "dashboard.py", tmp_path], check=True, timeout=60)  # noqa: S603 - our own
    for file in sorted(FOLDER.iterdir()):
        assert file.read_text() == (tmp_path / file.name).read_text(), "run `make dashboard`"


@pytest.mark.rule("OBS-28")
def test_the_configmap_holds_the_dashboard_for_the_sidecar() -> None:
    configmap = yaml.safe_load((FOLDER / "configmap.yaml").read_text())
    assert json.loads(configmap["data"]["tuinly.json"]) == BOARD
    assert configmap["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.rule("OBS-28")
@pytest.mark.parametrize(
    "panel", [each for each in PANELS if each["type"] != "row"], ids=lambda each: str(each["title"])
)
def test_a_panel_is_made_of_metrics_that_exist_and_says_what_it_is_for(panel: Json) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters) > 0
    for target in panel["targets"]:
        assert metrics_in(target["expr"]) <= METRICS.keys()
        assert metrics_in(target["expr"])


def test_every_metric_has_its_place() -> None:
    """But for those that only alerts and other panels' neighbours need."""
    shown = {name for panel in PANELS for target in panel.get("targets", ()) for name in metrics_in(target["expr"])}
    elsewhere = {"tuinly_credentials", "tuinly_credential_next_refresh_timestamp_seconds", "tuinly_endpoint_rate"}
    assert METRICS.keys() - shown == elsewhere


@pytest.mark.rule("OBS-28")
def test_panels_lie_side_by_side_within_the_grid() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
