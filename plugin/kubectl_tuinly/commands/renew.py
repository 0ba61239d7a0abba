"""`renew`: forces an exchange, and follows it to its end."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from kubectl_tuinly.commands.evidence import serving
from kubectl_tuinly.commands.following import Followed, follow
from kubectl_tuinly.commands.scope import namespace_of
from kubectl_tuinly.edges.access import Json
from kubectl_tuinly.edges.around import now
from kubectl_tuinly.edges.cluster import Cluster, key_of, selected
from kubectl_tuinly.edges.screen import agrees, say, tell
from kubectl_tuinly.outcome import Exit, StopError
from kubectl_tuinly.rules.chain import operator_step
from kubectl_tuinly.rules.renewal import after_refusal, outcome_of, why_it_waits
from kubectl_tuinly.rules.steps import Verdict
from tuinly_operator.base.clock import rfc3339
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import Credential

_MOST_NAMED: Final = 10


def run(options: Namespace, cluster: Cluster) -> Exit:
    """Ask for new tokens, and wait for what comes of it where that is wanted."""
    namespace = namespace_of(options, cluster)
    if not options.names and not options.all_namespaces and not options.selector:
        raise StopError(Exit.WRONG_USE, "name the credentials, or select them by -A or -l")
    found = selected(cluster, options.names, namespace, options.selector)
    if not found:
        raise StopError(Exit.NOT_READY, "there is no such TuinlyCredential")
    _confirm(options, [key_of(each) for each in found])
    value = rfc3339(now(), "milliseconds")
    asked = [_ask(cluster, each, value) for each in found]
    if not options.wait:
        return Exit.READY
    return follow(cluster, asked, options.timeout)


def _confirm(options: Namespace, keys: Sequence[NamespacedName]) -> None:
    """Ask before more than one gets a new token: each costs a token request, and may revoke what Pods still use."""
    if len(keys) == 1 or options.yes:
        return
    names = ", ".join(map(str, keys[:_MOST_NAMED])) + (" and more" if len(keys) > _MOST_NAMED else "")
    if not agrees(f"Force {len(keys)} new tokens: {names}?"):
        raise StopError(Exit.WRONG_USE, f"nothing was done: {len(keys)} credentials need your yes, or --yes")


def _ask(cluster: Cluster, raw: Json, value: str) -> Followed:
    key, before = key_of(raw), Credential.from_object(raw)
    cluster.ask_refresh(key, value)
    say(f"{key}: a new token is asked for")
    waits = why_it_waits(before, now())
    if waits:
        tell(f"{key}: {waits}")
    return Followed(
        key, lambda after: outcome_of(after, value), lambda: _nobody(cluster, before), hopeless=before.spec.suspend
    )


def _nobody(cluster: Cluster, credential: Credential) -> str:
    """What to say if nothing came of it in time."""
    step = operator_step(credential, serving(cluster, credential, None))
    return step.text if step.verdict is Verdict.WRONG else after_refusal(credential)
