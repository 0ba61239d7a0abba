"""Objects of the API as they may be given away: without what a Secret holds, or may come to hold."""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kubectl_tuinly.rules.installation import is_operator
from tuinly_operator.domain.credential import GROUP

_VARIABLE: Final = re.compile(r"\$\$|\$\{[a-z_]+\}")
_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s\"]+(?=@)")
_OURS: Final = f"{GROUP}/"
_MASK: Final = "(left out)"


def credential(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A credential; of its template's texts, the variables are kept, since the rest goes into a Secret."""
    found = _bare(raw)
    template = ((found.get("spec") or {}).get("target") or {}).get("template") or {}
    if isinstance(template.get("data"), dict):
        template["data"] = {key: _variables(str(each)) for key, each in template["data"].items()}
    return found


def deployment(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A Deployment; the operator's own words and settings are kept, since others may hold a password."""
    found = _bare(raw)
    template = found["spec"]["template"]
    _without_annotations(template.get("metadata") or {})
    pod = template["spec"]
    for container in [*pod.get("containers", ()), *pod.get("initContainers", ())]:
        if not is_operator(container):
            container |= {name: [_MASK] for name in ("command", "args") if name in container}
        for variable in container.get("env") or ():
            if "value" in variable and not variable["name"].startswith("TUINLY_"):
                variable["value"] = _MASK
    return found


def other(raw: Mapping[str, Any]) -> dict[str, Any]:
    """An object that holds no secret."""
    return _bare(raw)


def text(whole: str) -> str:
    """A text, or several in one; of a URL with a password, without that."""
    return _PASSWORD.sub(_MASK, whole)


def _bare(raw: Mapping[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(dict(raw))
    _without_annotations(found["metadata"])
    return found


def _without_annotations(metadata: Mapping[str, Any]) -> None:
    """Leave out what is not ours: kubectl and other tools keep the whole object in an annotation once more."""
    annotations = metadata.get("annotations") or {}
    annotations |= {name: _MASK for name in annotations if not name.startswith(_OURS)}


def _variables(template: str) -> str:
    return "".join(_kept(template)) or _MASK


def _kept(template: str) -> Iterator[str]:
    """The variables of a text, and a mark for what stands between them."""
    end = 0
    for match in _VARIABLE.finditer(template):
        if match.start() > end:
            yield _MASK
        yield match[0]
        end = match.end()
    if end < len(template):
        yield _MASK
