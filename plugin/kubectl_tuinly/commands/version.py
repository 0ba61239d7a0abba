"""`version`: of the plugin, the definition and the operators."""

from argparse import Namespace

from kubectl_tuinly import VERSION
from kubectl_tuinly.commands.evidence import installations, seen
from kubectl_tuinly.edges.cluster import Cluster
from kubectl_tuinly.edges.screen import say
from kubectl_tuinly.outcome import Exit, StopError
from kubectl_tuinly.rules.installation import version_of
from kubectl_tuinly.rules.steps import Unseen
from tuinly_operator.base.text import printable


def run(options: Namespace, cluster: Cluster) -> Exit:
    """Print what is known; UNCHECKED where something could not be read."""
    say(f"plugin       {VERSION}")
    try:
        definition, operators = _definition(cluster), _operators(cluster, options.operator_namespace)
    except StopError as stop:
        definition, operators = None, f"not checked: {stop}"
    say(printable(f"definition   {definition or 'not checked'}"))
    say(printable(f"operator     {operators}"))
    return Exit.UNCHECKED if definition is None or operators.startswith("not checked") else Exit.READY


def _definition(cluster: Cluster) -> str | None:
    found = seen(cluster.definition)
    if found is None:
        return "none"
    if isinstance(found, Unseen):
        return "v1alpha1 is served" if cluster.serves_resource() else "none"
    served = ", ".join(version["name"] for version in found["spec"]["versions"] if version["served"])
    return f"{version_of(found)} ({served})"


def _operators(cluster: Cluster, namespace: str | None) -> str:
    found = installations(cluster, namespace)
    if isinstance(found, Unseen):
        return f"not checked: {found.why}"
    return "; ".join(f"{one.version} ({one.key}, image {one.image})" for one in found) or "none found"
