"""What must be the same of two answers: all but what this file names, which each server makes up by itself.

Not compared: the numbers of resource versions and uids, but which are the same; times that the server sets, but that
they are set; texts for people; the version of a list and of a bookmark, since others write meanwhile; tokens of pages,
but whether there is one; the order of causes and of managed fields, and that a cause is told twice.
"""

import json
from typing import Any, Final

Json = dict[str, Any]

_TIMES: Final = frozenset({"creationTimestamp", "deletionTimestamp"})


class Names:
    """Calls the uids and versions that a server makes up by the order in which they appear."""

    def __init__(self, namespace: str) -> None:
        """`namespace` is the name that stands for NS."""
        self._known = {namespace: "NS"}

    def comparable(self, value: Any) -> Any:  # noqa: ANN401 - JSON
        """An answer's body, or a watch's event, as it is compared."""
        self._meet(value)
        return self._named(value)

    def _meet(self, value: Any) -> None:  # noqa: ANN401 - JSON
        """Give names to what is new."""
        if isinstance(value, list):
            for item in value:
                self._meet(item)
        elif isinstance(value, dict):
            for name in ("uid", "resourceVersion"):
                if "uid" in value and isinstance(text := value.get(name), str):
                    self._known.setdefault(text, f"{name} {len(self._known)}")
            for name in sorted(value.keys() - {"managedFields"}):
                self._meet(value[name])

    def _named(self, value: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, list):
            return [self._named(item) for item in value]
        if not isinstance(value, dict):
            return self._known.get(value, value) if isinstance(value, str) else value
        if value.get("kind") == "Status":
            value = _status(value)
        return {name: self._field(name, part, ours="uid" in value) for name, part in value.items()}

    def _field(self, name: str, part: Any, *, ours: bool) -> Any:  # noqa: ANN401 - JSON
        if name == "resourceVersion" and not ours:
            return "a version"
        if name in _TIMES:
            return part and "a time"
        if name == "continue":
            return part and "more"
        if name == "managedFields":
            return sorted((self._entry(entry) for entry in part), key=json.dumps)
        return self._named(part)

    def _entry(self, entry: Json) -> Json:
        """Who owns which fields; owners are among these by their uids."""
        text = json.dumps({**entry, "time": "a time"} if "time" in entry else entry, sort_keys=True)
        for value, name in self._known.items():
            if name.startswith("uid"):
                text = text.replace(value, name)
        found: Json = json.loads(text)
        return found


def _status(value: Json) -> Json:
    """A Status as it is compared: what programs read of it."""
    details = dict(value.get("details") or {})
    if "causes" in details:
        told = {(cause.get("reason", ""), cause.get("field", "")) for cause in details["causes"]}
        details["causes"] = [list(each) for each in sorted(told)]
    kept: Json = {name: value[name] for name in ("status", "reason", "code", "metadata") if name in value}
    return {**kept, "details": details}
