"""The definition's rules (x-kubernetes-validations): each, by its text in CEL, as a predicate.

A rule that is not here cannot be judged, and a definition that has one is refused: so none is forgotten.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tests.simulation.apiserver.messages import cause
from tests.simulation.apiserver.metadata import is_label_value, is_qualified, is_subdomain

Schema = Mapping[str, Any]

_RULES: Final = "x-kubernetes-validations"
_LONGEST_NAME: Final = 57
_MINUTES: Final = {"h": 60.0, "m": 1.0, "s": 1 / 60}
_BEFORE: Final = re.compile(r"([0-9]{1,5}([.][0-9]+)?(h|m|s))+")
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
_RESERVED: Final = re.compile(r"(.+[.])?(kubernetes[.]io|k8s[.]io|tuinly[.]com)")
_VARIABLES: Final = "access_token|token_type|expires_at|expires_in|scope|client_id"
_TEMPLATE: Final = re.compile(rf"([^$]|[$][$]|[$][{{]({_VARIABLES})[}}])*")
# As far as Go's net/url looks: a port is a number, an escape in a path has two digits.
_HOST: Final = r"([^/?#]*@)?(\[[0-9a-f:.]+\]|[-.\w~!$&'()*+,;=]+)(:[0-9]*)?"
_PATH: Final = r"(/([!-\"$&->@-~]|%[0-9a-f]{2})*)?([?#][!-~]*)?"
_URL: Final = re.compile(f"https?://{_HOST}{_PATH}", re.IGNORECASE | re.ASCII)


def _target_is_another(raw: Mapping[str, Any]) -> bool:
    spec = raw["spec"]
    target = spec["target"].get("name", f"{raw['metadata']['name']}-token")
    return bool(target != spec["clientSecretRef"]["name"])


def _is_key(text: str) -> bool:
    return bool(_KEY.fullmatch(text)) and text != "." and not text.startswith("..")


def _is_reserved(key: str) -> bool:
    prefix, slash, _ = key.partition("/")
    return bool(slash) and prefix != "app.kubernetes.io" and bool(_RESERVED.fullmatch(prefix))


def _is_before(text: str) -> bool:
    parts = re.findall(r"([0-9]+(?:[.][0-9]+)?)([hms])", text)
    minutes = sum(float(number) * _MINUTES[unit] for number, unit in parts)
    return bool(_BEFORE.fullmatch(text)) and 2.0 <= minutes <= 24 * 60.0  # noqa: PLR2004 -- 2m and 24h


PREDICATES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "self.metadata.name.size() <= 57": lambda raw: len(raw["metadata"]["name"]) <= _LONGEST_NAME,
    "(has(self.spec.target.name) ? self.spec.target.name : self.metadata.name + '-token') "
    "!= self.spec.clientSecretRef.name": _target_is_another,
    "self.clientIDKey != self.clientSecretKey": lambda ref: ref["clientIDKey"] != ref["clientSecretKey"],
    "!format.dns1123Subdomain().validate(self).hasValue()": is_subdomain,
    "self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')": _is_key,
    r"self.matches('^[\\x21\\x23-\\x5B\\x5D-\\x7E]+$')": lambda scope: bool(_SCOPE.fullmatch(scope)),
    "isURL(self) && url(self).getScheme() in ['https', 'http'] && url(self).getHostname() != '' "
    "&& self.matches('^[!-~]+$')": lambda text: bool(_URL.fullmatch(text)),
    "!self.contains('@')": lambda text: "@" not in text,
    "!self.contains('#')": lambda text: "#" not in text,
    "!format.labelValue().validate(self).hasValue()": is_label_value,
    "self.all(k, !format.qualifiedName().validate(k).hasValue())": lambda keys: all(map(is_qualified, keys)),
    "self.all(k, !k.contains('/') || k.startsWith('app.kubernetes.io/') "
    "|| !k.split('/')[0].matches('^(.+[.])?(kubernetes[.]io|k8s[.]io|tuinly[.]com)$'))": (
        lambda keys: not any(map(_is_reserved, keys))
    ),
    "!('app.kubernetes.io/managed-by' in self)": lambda keys: "app.kubernetes.io/managed-by" not in keys,
    "self.matches('^([^$]|[$][$]|[$][{]' + '(access_token|token_type|expires_at|expires_in|scope|client_id)[}])*$')": (
        lambda text: bool(_TEMPLATE.fullmatch(text))
    ),
    "self.size() > 0": bool,
    "self.all(k, k.matches('^[-._a-zA-Z0-9]{1,253}$') && k != '.' && !k.startsWith('..'))": (
        lambda keys: all(map(_is_key, keys))
    ),
    "!(has(self.before) && has(self.beforePercentage))": (
        lambda refresh: not {"before", "beforePercentage"} <= set(refresh)
    ),
    r"self.matches('^([0-9]{1,5}([.][0-9]+)?(h|m|s))+$') "
    "&& duration(self) >= duration('2m') && duration(self) <= duration('24h')": _is_before,
    "self >= 5 && self <= 50": lambda percentage: 5 <= percentage <= 50,  # noqa: PLR2004 -- as it says
}


def rules_of(schema: Schema) -> Iterator[str]:
    """The rules of a schema and of all below it."""
    yield from (rule["rule"] for rule in schema.get(_RULES, ()))
    below = [schema[each] for each in ("items", "additionalProperties") if each in schema]
    for part in [*schema.get("properties", {}).values(), *below]:
        yield from rules_of(part)


def broken(value: Any, old: Any, schema: Schema, path: str = "") -> Iterator[dict[str, str]]:  # noqa: ANN401 -- JSON
    """The rules that a value breaks, and what is in it. What is as it was, at `old`, is not judged (ratcheting)."""
    if value is None or value == old:
        return
    for rule in schema.get(_RULES, ()):
        if not PREDICATES[rule["rule"]](value):
            yield cause("FieldValueInvalid", (path + rule.get("fieldPath", "")).lstrip("."), rule["message"])
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        known, more = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name, part in value.items():
            below = f"{path}.{name}".lstrip(".") if name in known else f"{path}[{name}]"
            yield from broken(part, before.get(name), known.get(name, more), below)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from broken(item, None, schema.get("items", {}), f"{path}[{number}]")
