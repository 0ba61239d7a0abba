"""Objects of the API as the plugin's rules meet them."""

import copy
from typing import Any

import yaml

from kubectl_tuinly.rules.installation import Installation, installation_of
from tests.support.objects import Json
from tests.support.plugin import ROOT
from tests.unit.facts import ISSUED, credential_object
from tuinly_operator.base.clock import rfc3339
from tuinly_operator.domain.credential import Credential

BASE = ROOT / "deploy" / "base"
GOOD = "True:Issued"
NOW = ISSUED.wall + 600


def told(ready: str, refreshed: str, *, left: float = 3000, name: str = "storefront", **more: Any) -> Json:  # noqa: ANN401 - of the status
    """A credential with these conditions, `status:reason` each, and a token of which so many seconds are left."""
    conditions = [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": f"about {reason}",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-11-24T07:00:00Z",
        }
        for kind, (status, _, reason) in (("Ready", ready.partition(":")), ("Refreshed", refreshed.partition(":")))
    ]
    status = {
        "observedGeneration": 1,
        "conditions": conditions,
        "lastRefreshTime": rfc3339(ISSUED.wall),
        "tokenExpirationTime": rfc3339(NOW + left),
    }
    return credential_object({"metadata": {"name": name}, "status": {**status, **more}})


def seen(ready: str = GOOD, refreshed: str = GOOD, **more: Any) -> Credential:  # noqa: ANN401 - of the status
    return Credential.from_object(told(ready, refreshed, **more))


def operator(*args: str, ready: int = 2) -> Installation:
    raw = deployment(list(args))
    raw["status"] = {"readyReplicas": ready}
    one = installation_of(raw)
    assert one is not None
    return one


def deployment(args: list[str], env: list[Json] | None = None) -> Json:
    raw: Json = copy.deepcopy(yaml.safe_load((BASE / "deployment.yaml").read_text()))
    container = raw["spec"]["template"]["spec"]["containers"][0]
    container["args"] = ["run", *args]
    container["env"] += env or []
    return raw
