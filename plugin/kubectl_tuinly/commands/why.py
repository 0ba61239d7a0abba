"""`why`: the chain from client Secret to Pod, each step checked now."""

from argparse import Namespace

from kubectl_tuinly.commands.evidence import chain
from kubectl_tuinly.commands.scope import one_namespace
from kubectl_tuinly.edges.around import now
from kubectl_tuinly.edges.cluster import Cluster, selected
from kubectl_tuinly.edges.screen import say, show_steps
from kubectl_tuinly.outcome import Exit
from kubectl_tuinly.rules.view import row_of


def run(options: Namespace, cluster: Cluster) -> Exit:
    """Show the steps; the exit status is the credential's readiness."""
    [raw] = selected(cluster, [options.name], one_namespace(options, cluster), "")
    row = row_of(raw, now())
    say(f"{row.key} is {'ready' if row.is_ready else 'not ready'}: {row.reason}\n")
    show_steps(chain(cluster, raw, options.operator_namespace))
    return Exit.READY if row.is_ready else Exit.NOT_READY
