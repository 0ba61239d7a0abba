"""An installation of the operator, as its Deployment tells it: whom it serves, which URLs it allows, who leads it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tuinly_operator.base.clock import parse_rfc3339
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.settings import FLAGS
from tuinly_operator.domain.credential import GROUP, PLURAL

_REFERENCE: Final = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")  # Kubernetes, of variables before
_VERSION: Final = "app.kubernetes.io/version"
# A leader renews every 3 s, and others take over after 15; the rest is for clocks that differ.
LEASE_SECONDS: Final = 60.0
LEAST_KUBERNETES: Final = (1, 32)


class Right(NamedTuple):
    """What the operator must be allowed to do, and what cannot be done without it."""

    group: str
    resource: str
    subresource: str
    verb: str
    why: str


# As in deploy/base/rights.yaml, which a test holds it to.
RIGHTS: Final = (
    Right(GROUP, PLURAL, "", "list", "learn of credentials"),
    Right(GROUP, PLURAL, "", "watch", "notice changes of credentials"),
    Right(GROUP, PLURAL, "status", "patch", "report"),
    Right("", "secrets", "", "get", "read client Secrets"),
    Right("", "secrets", "", "list", "know targets and client Secrets"),
    Right("", "secrets", "", "watch", "notice changes of Secrets"),
    Right("", "secrets", "", "create", "write first tokens"),
    Right("", "secrets", "", "patch", "write later tokens"),
    Right("", "secrets", "", "delete", "remove old targets"),
    Right("events.k8s.io", "events", "", "create", "tell of failures"),
)
PUSH_RIGHTS: Final = (
    Right("", "pods", "", "list", "find the Pods that use a target"),
    Right("", "pods", "status", "patch", "tell them of a new token"),
)


@dataclass(frozen=True, slots=True)
class Installation:
    """An operator's Deployment. `namespaces` empty: all. `unknown` are settings that come from elsewhere."""

    key: NamespacedName
    account: str
    version: str
    image: str
    wanted: int
    ready: int
    replicas: Mapping[str, str]  # labels of its Pods
    namespaces: tuple[str, ...]
    selector: str
    lease: NamespacedName | None
    token_urls: frozenset[str]
    default_url: str
    push: bool
    unknown: frozenset[str]

    def covers(self, namespace: str) -> bool:
        """Whether it serves credentials of that namespace, as far as is known."""
        return not self.namespaces or namespace in self.namespaces

    @property
    def user(self) -> str:
        """Whom the API server takes it for."""
        return f"system:serviceaccount:{self.key.namespace}:{self.account}"


def is_operator(container: Mapping[str, Any]) -> bool:
    """Whether a container of a Pod is the operator's."""
    return "run" in (container.get("args") or ())


def installation_of(raw: Mapping[str, Any]) -> Installation | None:
    """Read a Deployment; None where it is no operator's."""
    meta, spec = raw["metadata"], raw["spec"]
    pod = spec["template"]["spec"]
    container = next(filter(is_operator, pod["containers"]), None)
    if container is None:
        return None
    key = NamespacedName(meta["namespace"], meta["name"])
    account = pod.get("serviceAccountName") or "default"
    variables, unknown = _variables(container, key.namespace, account)
    values = _settings([_filled(word, variables) for word in container["args"]], variables)
    lease = values["--lease"][0].partition("/") if values["--lease"] else None
    default = values["--token-url"][-1]
    return Installation(
        key=key,
        account=account,
        version=version_of(raw),
        image=container.get("image", ""),
        wanted=spec.get("replicas", 1),
        ready=(raw.get("status") or {}).get("readyReplicas", 0),
        replicas=spec["selector"].get("matchLabels") or {},
        namespaces=tuple(values["--namespace"]),
        selector=values["--selector"][-1],
        lease=NamespacedName(lease[0], lease[2]) if lease else None,
        token_urls=frozenset((default, *values["--allowed-token-url"])),
        default_url=default,
        push=values["--push"][-1] == "true",
        unknown=unknown,
    )


def version_of(raw: Mapping[str, Any]) -> str:
    """The version of the operator that an object came with."""
    return str((raw["metadata"].get("labels") or {}).get(_VERSION, "unknown"))


def _variables(container: Mapping[str, Any], namespace: str, account: str) -> tuple[dict[str, str], frozenset[str]]:
    """The container's variables as far as the Deployment tells them, and the settings among the others."""
    fields = {"metadata.namespace": namespace, "spec.serviceAccountName": account}
    found: dict[str, str] = {}
    unknown: set[str] = set()
    for variable in container.get("env") or ():
        name, source = variable["name"], variable.get("valueFrom")
        value = fields.get((source.get("fieldRef") or {}).get("fieldPath", "")) if source else variable.get("value", "")
        if value is not None:
            found[name] = _filled(value, found)
        elif name.startswith("TUINLY_"):
            unknown.add(name)
    return found, frozenset(unknown)


def _filled(text: str, variables: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda match: variables.get(match[1], match[0]), text)


def _settings(words: Sequence[str], variables: Mapping[str, str]) -> dict[str, list[str]]:
    """The values of each flag, by flag over variable over default, as the operator reads them."""
    given = list(_given(words))
    values: dict[str, list[str]] = {}
    for flag in (flag for group in FLAGS.values() for flag in group):
        from_variable = variables.get(flag.variable, "").strip()
        parts = re.split(r"[,\s]+", from_variable) if flag.repeatable else [from_variable]
        default = [] if flag.default is None else [flag.default]
        values[flag.name] = (
            [v or flag.alone or "" for n, v in given if n == flag.name] or [p for p in parts if p] or default
        )
    return values


def _given(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Flags with their values, of `--flag=value`, `--flag value` and `--flag`."""
    for at, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            following = words[at + 1] if at + 1 < len(words) and not words[at + 1].startswith("--") else ""
            yield name, value if equals else following


def leader_of(lease: Mapping[str, Any] | None, now: float) -> str:
    """Who leads by a Lease: the holder, which begins with its Pod's name; empty if nobody does."""
    spec = (lease or {}).get("spec") or {}
    try:
        renewed = parse_rfc3339(spec.get("renewTime") or "")
    except ValueError:
        return ""
    alive = renewed > now - LEASE_SECONDS
    return str(spec.get("holderIdentity") or "") if alive else ""


def binds(
    policies: Sequence[Mapping[str, Any]], bindings: Sequence[Mapping[str, Any]], account: NamespacedName
) -> bool:
    """Whether a policy for Push is bound to that account, and denies."""
    names = {policy["metadata"]["name"] for policy in policies}
    for binding in bindings:
        spec, parameter = binding["spec"], binding["spec"].get("paramRef") or {}
        same = (parameter.get("namespace"), parameter.get("name")) == tuple(account)
        if same and spec.get("policyName") in names and "Deny" in (spec.get("validationActions") or ()):
            return True
    return False
