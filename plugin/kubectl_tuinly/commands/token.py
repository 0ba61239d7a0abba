"""`token`: the access token, for a pipe. The one command that prints a secret."""

import base64
from argparse import Namespace

from kubectl_tuinly.commands.scope import one_namespace
from kubectl_tuinly.edges.access import RefusedError
from kubectl_tuinly.edges.around import now, shows_output
from kubectl_tuinly.edges.cluster import Cluster, selected
from kubectl_tuinly.edges.screen import say_secret, tell
from kubectl_tuinly.outcome import Exit, StopError
from kubectl_tuinly.rules.view import row_of
from tuinly_operator.domain.credential import Credential
from tuinly_operator.domain.target import Ownership, SecretMeta, ownership
from tuinly_operator.domain.template import layout_of

_TOKEN_ALONE = "${access_token}"  # noqa: S105 -- a variable of templates


def run(options: Namespace, cluster: Cluster) -> Exit:
    """Print what the target holds under one key, as it is."""
    if shows_output() and not options.yes:
        problem = "this would show the token on a terminal, where it stays; pipe it, or say --yes"
        raise StopError(Exit.WRONG_USE, problem)
    [raw] = selected(cluster, [options.name], one_namespace(options, cluster), "")
    credential = Credential.from_object(raw)
    if credential.problem is not None:
        raise StopError(Exit.NOT_READY, f"{credential.key}: {credential.problem.message}")
    key = options.key or _key(credential)
    value = _read(cluster, credential, key)
    row = row_of(raw, now())
    if not row.is_ready:
        tell(f"warning: {credential.key} is not ready: {row.reason}")
    say_secret(value)
    return Exit.READY if row.is_ready else Exit.NOT_READY


def _key(credential: Credential) -> str:
    """The key that holds the token and nothing else."""
    data = layout_of(credential.spec.target.template).data
    found = next((key for key, text in data.items() if text == _TOKEN_ALONE), None)
    if found is None:
        problem = f"no key of its template is the token alone; choose one by --key: {', '.join(data)}"
        raise StopError(Exit.WRONG_USE, problem)
    return found


def _read(cluster: Cluster, credential: Credential, key: str) -> bytes:
    try:
        raw = cluster.secret(credential.target)
    except RefusedError as refused:
        if refused.absent:
            problem = f"there is no Secret {credential.target} yet: kubectl tuinly why {credential.key.name} tells more"
            raise StopError(Exit.NOT_READY, problem) from None
        raise
    if ownership(SecretMeta.from_object(raw), credential) is Ownership.FOREIGN:
        raise StopError(Exit.NOT_READY, f"the Secret {credential.target} is not this credential's")
    data = raw.get("data") or {}
    if key not in data:
        raise StopError(Exit.WRONG_USE, f"the Secret {credential.target} has no key {key}; it has: {', '.join(data)}")
    return base64.b64decode(data[key])
