"""Where a command looks: the namespace that was named, or kubectl's own."""

from argparse import Namespace

from kubectl_tuinly.edges.cluster import Cluster
from kubectl_tuinly.outcome import Exit, StopError


def namespace_of(options: Namespace, cluster: Cluster) -> str | None:
    """The namespace; None for all of them. Raises StopError where names and a selection do not go together."""
    names, everywhere = getattr(options, "names", ()), getattr(options, "all_namespaces", False)
    if names and (everywhere or getattr(options, "selector", "")):
        raise StopError(Exit.WRONG_USE, "either NAME, or -A and -l, not both")
    if everywhere:
        if hasattr(options, "namespace"):
            raise StopError(Exit.WRONG_USE, "either -n or -A, not both")
        return None
    return one_namespace(options, cluster)


def one_namespace(options: Namespace, cluster: Cluster) -> str:
    """The namespace of a command that looks into one."""
    named: str = getattr(options, "namespace", "")
    return named or cluster.own_namespace()
