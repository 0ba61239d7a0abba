"""How requests and answers are written: bodies, merge patches, partial metadata, lists and their pages."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import yaml

from tests.simulation.apiserver.kinds import Kind
from tests.simulation.apiserver.messages import Json, Refusal, Request, bad_request

Shape = Callable[[Json], Json]

_PARTIAL: Final = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
_PARTIAL_LIST: Final = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}


def parsed(body: bytes) -> Json:
    """The object that a body holds, in JSON or YAML. Raises Refusal."""
    raw = parsed_any(body)
    if not isinstance(raw, dict):
        raise bad_request("the body is no object")
    return raw


def parsed_any(body: bytes) -> Any:  # noqa: ANN401 - JSON
    """What a body holds, in JSON or YAML. Raises Refusal."""
    try:
        return json.loads(body)
    except ValueError:
        pass
    try:
        return yaml.safe_load(body)
    except yaml.YAMLError:
        raise bad_request("the body cannot be read") from None


def merged(old: Any, patch: Any) -> Any:  # noqa: ANN401 - JSON
    """What a merge patch makes of a value (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for name, part in patch.items():
        if part is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), part)
    return result


def patched(raw: Json, operations: Any) -> Json:  # noqa: ANN401 - JSON
    """What a JSON patch makes of an object: tests, additions, replacements and removals of members (RFC 6902).

    Raises Refusal where one does not hold, or finds nothing.
    """
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list")
    for operation in operations:
        raw = _operated(raw, operation["path"].split("/")[1:], operation)
    return raw


def _operated(raw: Any, path: list[str], operation: Json) -> Any:  # noqa: ANN401 - JSON
    name, what = path[0].replace("~1", "/").replace("~0", "~"), operation["op"]
    lasts = len(path) == 1
    if not isinstance(raw, dict) or (name not in raw and not (lasts and what == "add")):
        raise _inapplicable()
    if not lasts:
        return {**raw, name: _operated(raw[name], path[1:], operation)}
    if what == "remove":
        return {each: part for each, part in raw.items() if each != name}
    if what != "test":
        return {**raw, name: operation["value"]}
    if raw[name] != operation["value"]:
        raise _inapplicable()
    return raw


def _inapplicable() -> Refusal:
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", "the server rejected our request", {})


def rfc3339(now: float) -> str:
    """Seconds since the epoch as the server writes times: in whole seconds."""
    return datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_dry(query: Mapping[str, str]) -> bool:
    """Whether nothing is to be stored."""
    return query.get("dryRun") == "All"


def number(query: Mapping[str, str], name: str) -> int:
    """A number that is asked with, 0 where it is left out. Raises Refusal."""
    text = query.get(name) or "0"
    if not text.isdecimal():
        raise bad_request(f"{name} is no number")
    return int(text)


def whole(raw: Json) -> Json:
    """An object as it is."""
    return raw


def partial(raw: Json) -> Json:
    """An object's metadata alone."""
    return {**_PARTIAL, "metadata": raw["metadata"]}


def shape_of(request: Request, *, many: bool) -> Shape:
    """In what shape objects are wanted. Raises Refusal where it is not served."""
    accept = request.header("accept")
    if "as=" not in accept:
        return whole
    wanted = "PartialObjectMetadataList" if many else "PartialObjectMetadata"
    asked = [dict(part.split("=", 1) for part in each.split(";")[1:] if "=" in part) for each in accept.split(",")]
    if not any(each.get("as") == wanted for each in asked):
        raise Refusal(HTTPStatus.NOT_ACCEPTABLE, "NotAcceptable", "only these shapes are served", {})
    return partial


def as_list(kind: Kind, meta: Json, items: list[Json], shape: Shape) -> Json:
    """Objects as a list; those of built-in kinds do not repeat their kind."""
    if shape is partial:
        return {**_PARTIAL_LIST, "metadata": meta, "items": [partial(raw) for raw in items] or None}
    if kind.custom:
        meta = {"continue": "", **meta}
    else:
        items = [{name: value for name, value in raw.items() if name not in {"kind", "apiVersion"}} for raw in items]
    return {"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": meta, "items": items}


def token(version: int, last: str) -> str:
    """The continue token of a page that ended with a place."""
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": f"{last}\0"}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place(text: str) -> tuple[int, str]:
    """The version and the first place that a continue token names. Raises Refusal."""
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return int(found["rv"]), str(found["start"])
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise bad_request("continue key is not valid") from None
