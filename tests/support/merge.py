"""JSON merge patches, by which tests say how an object differs from one that is good."""

from typing import Any

Json = dict[str, Any]


def merged(base: Json, patch: Json) -> Json:
    """Apply a JSON merge patch (RFC 7396): None removes, objects merge, everything else replaces."""
    result = {**base}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key, {}), dict):
            result[key] = merged(result.get(key, {}), value)
        else:
            result[key] = value
    return result
