"""`check`: whether the installation is healthy."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Final

from kubectl_tuinly.commands.evidence import installations, lease_of, seen
from kubectl_tuinly.edges.around import now, pause
from kubectl_tuinly.edges.cluster import Cluster
from kubectl_tuinly.edges.screen import progress, show_steps
from kubectl_tuinly.outcome import Exit
from kubectl_tuinly.rules.checks import (
    definition_step,
    deployment_step,
    kubernetes_step,
    lease_step,
    no_operator,
    push_step,
    rights_step,
)
from kubectl_tuinly.rules.installation import PUSH_RIGHTS, RIGHTS, Installation, Right, binds
from kubectl_tuinly.rules.steps import Step, Unseen, Verdict, exit_of
from tuinly_operator.base.names import NamespacedName

_LOOK_SECONDS: Final = 2.0


def run(options: Namespace, cluster: Cluster) -> Exit:
    """Check each part; with --wait, again until all is well or the time is over."""
    end = now() + options.timeout
    steps = list(findings(cluster, options.operator_namespace))
    with progress() as news:
        while options.wait and exit_of(steps) is Exit.NOT_READY and now() < end:
            news(next(step.text for step in steps if step.verdict in {Verdict.WRONG, Verdict.WAITING}))
            pause(_LOOK_SECONDS)
            steps = list(findings(cluster, options.operator_namespace))
    show_steps(steps)
    return exit_of(steps)


def findings(cluster: Cluster, namespace: str | None) -> Iterator[Step]:
    """What is found of each part of the installation."""
    yield kubernetes_step(seen(cluster.server_version))
    definition = seen(cluster.definition)
    yield definition_step(definition, served=isinstance(definition, Unseen) and cluster.serves_resource())
    found = installations(cluster, namespace)
    if isinstance(found, Unseen) or not found:
        yield no_operator(namespace or "this cluster", found if isinstance(found, Unseen) else None)
        return
    for one in found:
        yield deployment_step(one)
        yield lease_step(one, lease_of(cluster, one), now())
        yield rights_step(one, _missing(cluster, one))
        if one.push:
            yield push_step(bound=_bound(cluster, one))


def _missing(cluster: Cluster, one: Installation) -> Sequence[tuple[Right, str]] | Unseen:
    """The rights that the operator's account lacks, and where; everywhere by the empty name."""
    needed = RIGHTS + (PUSH_RIGHTS if one.push else ())
    asked = [(right, where) for where in one.namespaces or ("",) for right in needed]
    verdicts = seen(lambda: [cluster.may(one.user, _attributes(right, where)) for right, where in asked])
    if isinstance(verdicts, Unseen):
        return verdicts
    return [each for each, allowed in zip(asked, verdicts, strict=True) if not allowed]


def _attributes(right: Right, where: str) -> dict[str, str]:
    words = {"group": right.group, "resource": right.resource, "subresource": right.subresource, "verb": right.verb}
    return {**{name: value for name, value in words.items() if value}, **({"namespace": where} if where else {})}


def _bound(cluster: Cluster, one: Installation) -> bool | Unseen:
    found = seen(cluster.push_policies)
    if isinstance(found, Unseen):
        return found
    return binds(*found, NamespacedName(one.key.namespace, one.account))
