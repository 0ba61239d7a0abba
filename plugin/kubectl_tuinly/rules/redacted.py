"""Objects of the API as they may be given away: without what a Secret holds, or may come to hold."""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_VARIABLE: Final = re.compile(r"\$\$|\$\{[a-z_]+\}")
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"  # the whole object once more
_MASK: Final = "(left out)"


def credential(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A credential; of its template's texts, the variables are kept, since the rest goes into a Secret."""
    found = _bare(raw)
    template = ((found.get("spec") or {}).get("target") or {}).get("template") or {}
    if isinstance(template.get("data"), dict):
        template["data"] = {key: _variables(str(text)) for key, text in template["data"].items()}
    return found


def deployment(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A Deployment; of its variables, the operator's settings are kept, since others may hold a password."""
    found = _bare(raw)
    pod = found["spec"]["template"]["spec"]
    for container in [*pod.get("containers", ()), *pod.get("initContainers", ())]:
        for variable in container.get("env") or ():
            if "value" in variable and not variable["name"].startswith("TUINLY_"):
                variable["value"] = _MASK
    return found


def other(raw: Mapping[str, Any]) -> dict[str, Any]:
    """An object that holds no secret."""
    return _bare(raw)


def _bare(raw: Mapping[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(dict(raw))
    (found["metadata"].get("annotations") or {}).pop(_LAST_APPLIED, None)
    return found


def _variables(text: str) -> str:
    return "".join(_kept(text)) or _MASK


def _kept(text: str) -> Iterator[str]:
    """The variables of a text, and a mark for what stands between them."""
    end = 0
    for match in _VARIABLE.finditer(text):
        if match.start() > end:
            yield _MASK
        yield match[0]
        end = match.end()
    if end < len(text):
        yield _MASK
