"""Which containers see the present token."""

from typing import Any

import pytest

from kubectl_tuinly.rules.pods import How, Sees, Use, uses_of

WRITTEN = 1_795_503_600.0
VARIABLE = {"valueFrom": {"secretKeyRef": {"name": "storefront-token"}}}
Json = dict[str, Any]


def pod(container: Json, *, phase: str = "Running", started: str | None = "2026-11-24T06:00:00Z") -> Json:
    status: Json = {"phase": phase}
    if started:
        status["containerStatuses"] = [{"name": "main", "state": {"running": {"startedAt": started}}}]
    projected = {"name": "both", "projected": {"sources": [{"secret": {"name": "storefront-token"}}]}}
    volumes = [
        {"name": "token", "secret": {"secretName": "storefront-token"}},
        projected,
        {"name": "no", "emptyDir": {}},
    ]
    return {
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "main", **container}], "volumes": volumes},
        "status": status,
    }


@pytest.mark.parametrize(
    ("container", "how"),
    [
        ({"volumeMounts": [{"name": "token"}]}, [How.DIRECTORY]),
        ({"volumeMounts": [{"name": "both"}]}, [How.DIRECTORY]),
        ({"volumeMounts": [{"name": "token", "subPath": "access_token"}]}, [How.SUBPATH]),
        ({"volumeMounts": [{"name": "token", "subPathExpr": "$(KEY)"}]}, [How.SUBPATH]),
        ({"envFrom": [{"secretRef": {"name": "storefront-token"}}]}, [How.VARIABLE]),
        ({"env": [VARIABLE], "volumeMounts": [{"name": "token"}]}, [How.DIRECTORY, How.VARIABLE]),
        ({"volumeMounts": [{"name": "no"}]}, []),
        ({}, []),
    ],
)
def test_each_way_to_use_a_secret_is_seen(container: Json, how: list[How]) -> None:
    assert [use.how for use in uses_of(pod(container), "storefront-token")] == how


def test_a_container_that_started_at_no_time_that_there_is_is_shown_all_the_same() -> None:
    [use] = uses_of(pod({"volumeMounts": [{"name": "token"}]}, started="0000-01-01T00:00:00Z"), "storefront-token")
    assert use.started == 0.0


def test_a_pod_that_has_ended_uses_nothing() -> None:
    mounted: Json = {"volumeMounts": [{"name": "token"}]}
    assert list(uses_of(pod(mounted, phase="Succeeded"), "storefront-token")) == []
    [use] = uses_of(pod(mounted, phase="Pending", started=None), "storefront-token")
    assert use.started is None


@pytest.mark.rule("PLUGIN-7")
@pytest.mark.parametrize(
    ("how", "started", "told_of", "since", "sees"),
    [
        (How.DIRECTORY, -10.0, "", 10.0, Sees.SOON),
        (How.DIRECTORY, -10.0, "30", 10.0, Sees.IT),
        (How.DIRECTORY, -10.0, "", 100.0, Sees.IT),
        (How.DIRECTORY, 5.0, "", 10.0, Sees.IT),
        (How.VARIABLE, -10.0, "30", 100.0, Sees.OLD),
        (How.SUBPATH, 5.0, "", 100.0, Sees.FOR_NOW),
        (How.SUBPATH, None, "", 100.0, Sees.UNSTARTED),
    ],
)
def test_what_a_container_sees(how: How, started: float | None, told_of: str, since: float, sees: Sees) -> None:
    use = Use("web", "main", how, None if started is None else WRITTEN + started, told_of)
    assert use.sees(WRITTEN, "30", WRITTEN + since) is sees
