"""How tools that wait for health judge a credential in each situation: kstatus (Helm 4, Flux) and Argo CD's script.

By those tools' own code, over statuses that the operator writes: `judge` of hack/health runs it.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.binaries import BinariesError, find_judge
from tests.unit.domain.test_schema_parity import SCHEMA
from tests.unit.facts import (
    DUE,
    EXPIRED,
    OTHER_SCOPES,
    REFUSED_URL,
    SUSPENDED,
    TEMPLATED,
    Change,
    Scene,
    absence_proven,
    blocked,
    brand_new,
    client_invalid,
    client_known,
    client_missing,
    failing,
    pending,
    spec,
    target_foreign,
    target_gone,
    throttled,
    write_refused,
)
from tuinly_operator.domain.credential import to_json
from tuinly_operator.domain.errors import Reason
from tuinly_operator.domain.status import status

Json = dict[str, Any]

ARGO_CD: Json = yaml.safe_load((Path(__file__).parents[3] / "deploy" / "argocd" / "argocd-cm.yaml").read_text())["data"]
HEALTH = "resource.customizations.health.tuinly.com_TuinlyCredential"
ACTIONS = "resource.customizations.actions.tuinly.com_TuinlyCredential"
NEW = (brand_new, client_known, absence_proven)

CURRENT, HELD_UP, FAILED = ("Current", "Healthy"), ("InProgress", "Progressing"), ("Failed", "Degraded")
SITUATIONS: dict[str, tuple[Sequence[Change], tuple[str, str]]] = {
    "fresh": ((), CURRENT),
    "fresh, a refresh under way": ((DUE,), CURRENT),
    "fresh, the endpoint down": ((DUE, blocked), CURRENT),
    "fresh, refreshes refused": ((DUE, failing(Reason.INVALID_CLIENT)), CURRENT),
    "fresh, no client Secret": ((client_missing,), CURRENT),
    "fresh, the template waits": ((TEMPLATED, DUE, pending, write_refused), ("InProgress", "Healthy")),
    "new, under way": (NEW, HELD_UP),
    "new, no client Secret": ((brand_new, client_missing), HELD_UP),
    "new, the endpoint down": ((*NEW, blocked), HELD_UP),
    "new, throttled": ((*NEW, throttled), HELD_UP),
    "new, the write refused": ((*NEW, pending, write_refused), HELD_UP),
    "new, an odd client Secret": ((brand_new, client_invalid), FAILED),
    "new, the client refused": ((*NEW, failing(Reason.INVALID_CLIENT)), FAILED),
    "new, the request rejected": ((*NEW, failing(Reason.REQUEST_REJECTED)), FAILED),
    "new, the target foreign": ((brand_new, target_foreign), FAILED),
    "other scopes, under way": ((OTHER_SCOPES,), HELD_UP),
    "other scopes, refused": ((OTHER_SCOPES, failing(Reason.INVALID_SCOPE)), FAILED),
    "the target lost": ((target_gone,), HELD_UP),
    "a URL that is not allowed": ((REFUSED_URL,), FAILED),
    "a spec that is not understood": ((spec({"scopes": "all"}),), FAILED),
    # Only a person sees that this is no mere delay; the tool's own time-out decides.
    "expired, the endpoint down": ((EXPIRED, blocked), ("InProgress", "Degraded")),
    "suspended, fresh": ((SUSPENDED,), ("Current", "Suspended")),
    "suspended, fresh, the template waits": ((TEMPLATED, SUSPENDED), ("Current", "Suspended")),
    "suspended, new": ((brand_new, SUSPENDED), ("InProgress", "Suspended")),
    "suspended, expired": ((EXPIRED, SUSPENDED), ("InProgress", "Suspended")),
}


def judge(*arguments: str, objects: Sequence[Json]) -> list[Json]:
    try:
        program = find_judge()
    except BinariesError as missing:
        pytest.skip(str(missing))
    answer = subprocess.run(  # noqa: S603 -- our own program
        [program, *arguments], input=json.dumps(objects), capture_output=True, text=True, timeout=60, check=True
    )
    judged: list[Json] = json.loads(answer.stdout)
    return judged


def script(tmp_path: Path, text: str) -> str:
    file = tmp_path / "script.lua"
    file.write_text(text)
    return str(file)


def object_of(*changes: Change) -> Json:
    """The credential as the API server has it, with the status that the operator writes."""
    scene = Scene(*changes)
    told = {name: value for name, value in to_json(status(scene.facts(), scene.at_rest())).items() if value is not None}
    return {**scene.object, "status": told}


def unseen(generation: int, told: Json) -> Json:
    scene = Scene()
    return {**scene.object, "metadata": {**scene.object["metadata"], "generation": generation}, "status": told}


@pytest.mark.rule("STATUS-13")
def test_each_situation_is_judged_as_it_is(tmp_path: Path) -> None:
    objects = [object_of(*changes) for changes, _ in SITUATIONS.values()]
    by_kstatus = [judged["status"] for judged in judge("kstatus", objects=objects)]
    by_script = [judged["status"] for judged in judge("argocd", script(tmp_path, ARGO_CD[HEALTH]), objects=objects)]
    found = dict(zip(SITUATIONS, zip(by_kstatus, by_script, strict=True), strict=True))
    assert found == {name: expected for name, (_, expected) in SITUATIONS.items()}


@pytest.mark.rule("STATUS-13")
@pytest.mark.parametrize("why", ["nobody has looked", "it was changed since"])
def test_what_was_not_looked_at_is_in_progress(tmp_path: Path, why: str) -> None:
    told = SCHEMA["status"]["default"] if why == "nobody has looked" else object_of()["status"]
    one = unseen(7, told)
    assert judge("kstatus", objects=[one])[0]["status"] == "InProgress"
    assert judge("argocd", script(tmp_path, ARGO_CD[HEALTH]), objects=[one])[0]["status"] == "Progressing"


def test_each_message_says_why(tmp_path: Path) -> None:
    one = object_of(*NEW, failing(Reason.INVALID_CLIENT))
    for judged in (
        *judge("kstatus", objects=[one]),
        *judge("argocd", script(tmp_path, ARGO_CD[HEALTH]), objects=[one]),
    ):
        assert "InvalidClient" in judged["message"]


# --- Argo CD's actions ------------------------------------------------------------------------------------------------


def act(tmp_path: Path, name: str, one: Json) -> Json:
    [definition] = [each for each in yaml.safe_load(ARGO_CD[ACTIONS])["definitions"] if each["name"] == name]
    return judge("argocd", script(tmp_path, definition["action.lua"]), objects=[one])[0]


def offered(tmp_path: Path, one: Json) -> set[str]:
    discovery = yaml.safe_load(ARGO_CD[ACTIONS])["discovery.lua"]
    [found] = judge("argocd", script(tmp_path, discovery), objects=[one])
    return {name for name, action in found.items() if not action.get("disabled")}


@pytest.mark.rule("STATUS-13")
def test_what_a_person_can_do_is_what_makes_sense(tmp_path: Path) -> None:
    assert offered(tmp_path, object_of()) == {"refresh", "suspend"}
    assert offered(tmp_path, object_of(SUSPENDED)) == {"resume"}


def test_a_refresh_is_asked_for_by_a_value_that_is_new_each_time(tmp_path: Path) -> None:
    done = act(tmp_path, "refresh", object_of())
    assert done["metadata"]["annotations"]["tuinly.com/refresh-requested"].endswith("Z")
    assert done["spec"]["clientSecretRef"] == object_of()["spec"]["clientSecretRef"]


def test_it_is_suspended_and_resumed(tmp_path: Path) -> None:
    assert act(tmp_path, "suspend", object_of())["spec"]["suspend"] is True
    assert act(tmp_path, "resume", object_of(SUSPENDED))["spec"]["suspend"] is False
