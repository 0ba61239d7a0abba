"""`suspend` and `resume`: set spec.suspend, and wait until the operator has taken note."""

from argparse import Namespace

from kubectl_tuinly.commands.evidence import serving
from kubectl_tuinly.commands.following import Followed, follow
from kubectl_tuinly.commands.scope import one_namespace
from kubectl_tuinly.edges.access import Json
from kubectl_tuinly.edges.cluster import Cluster, key_of, selected
from kubectl_tuinly.edges.screen import say
from kubectl_tuinly.outcome import Exit
from kubectl_tuinly.rules.chain import operator_step
from kubectl_tuinly.rules.renewal import suspension_of
from tuinly_operator.domain.credential import Credential


def run(options: Namespace, cluster: Cluster) -> Exit:
    """Suspend or resume, by the command's own name."""
    wanted = options.command == "suspend"
    found = selected(cluster, options.names, one_namespace(options, cluster), "")
    asked = [_set(cluster, each, wanted=wanted) for each in found]
    return follow(cluster, asked, options.timeout) if options.wait else Exit.READY


def _set(cluster: Cluster, raw: Json, *, wanted: bool) -> Followed:
    key = key_of(raw)
    already = Credential.from_object(raw).spec.suspend is wanted
    after = cluster.suspend(key, suspend=wanted)
    word = "suspended" if wanted else "resumed"
    say(f"{key}: {'was already so' if already else word}")
    credential = Credential.from_object(after)
    late = lambda: operator_step(credential, serving(cluster, credential, None)).text  # noqa: E731 -- asked only if it is late
    return Followed(key, lambda seen: suspension_of(seen, wanted=wanted), late)
