"""What `why`, `check` and `report` look at: each with the user's rights, and what is refused is no end."""

from collections.abc import Callable
from typing import TypeVar

from kubectl_tuinly.edges.access import Json, RefusedError
from kubectl_tuinly.edges.around import now
from kubectl_tuinly.edges.cluster import Cluster
from kubectl_tuinly.rules.chain import (
    Served,
    attempt_step,
    client_step,
    definition_step,
    has_keys,
    operator_step,
    pods_step,
    problem_of,
    target_step,
    url_step,
)
from kubectl_tuinly.rules.installation import Installation, installation_of, leader_of
from kubectl_tuinly.rules.pods import uses_of
from kubectl_tuinly.rules.steps import Step, Unseen
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.text import cut, printable
from tuinly_operator.domain.client_secret import parse_client_secret
from tuinly_operator.domain.credential import Credential
from tuinly_operator.domain.errors import Failure

_Found = TypeVar("_Found")
_MOST_QUOTED = 200


def seen(read: Callable[[], _Found]) -> _Found | Unseen:
    """What a read gives, or that the user could not see it."""
    try:
        return read()
    except RefusedError as refused:
        return Unseen(cut(printable(str(refused)), _MOST_QUOTED))


def installations(cluster: Cluster, namespace: str | None) -> list[Installation] | Unseen:
    """The operators, in that namespace or in all."""
    found = seen(lambda: cluster.deployments(namespace))
    if isinstance(found, Unseen):
        return found
    return [one for one in map(installation_of, found) if one is not None]


def lease_of(cluster: Cluster, one: Installation) -> Json | Unseen | None:
    """The Lease by which its replicas elect a leader."""
    if one.lease is None:
        return None
    key = one.lease
    return seen(lambda: cluster.lease(key))


def serving(cluster: Cluster, credential: Credential, namespace: str | None) -> list[Served] | Unseen:
    """Who serves a credential."""
    found = installations(cluster, namespace)
    if isinstance(found, Unseen):
        return found
    return [Served(one, _leader(cluster, one)) for one in found if _serves(cluster, one, credential.key)]


def _serves(cluster: Cluster, one: Installation, key: NamespacedName) -> bool:
    """Whether it serves a credential; who may not ask for its labels takes it for one that is served."""
    if not one.covers(key.namespace) or not one.selector:
        return one.covers(key.namespace)
    try:
        return cluster.is_selected(key, one.selector)
    except RefusedError as refused:
        return refused.denied  # whatever else is refused is no selector


def _leader(cluster: Cluster, one: Installation) -> str | Unseen:
    if one.lease is None:
        return "its only replica" if one.ready else ""
    lease = lease_of(cluster, one)
    return lease if isinstance(lease, Unseen) else leader_of(lease, now())


def chain(cluster: Cluster, raw: Json, operator_namespace: str | None) -> list[Step]:
    """All steps of a credential's chain; of one that cannot be understood, that alone."""
    credential, time = Credential.from_object(raw), now()
    if problem_of(credential) is not None:
        return [definition_step(credential)]
    served = serving(cluster, credential, operator_namespace)
    by = served[0].by if not isinstance(served, Unseen) and len(served) == 1 else None
    target = seen(lambda: cluster.secret_metadata(credential.target))
    pods = seen(lambda: cluster.pods(credential.key.namespace))
    uses = pods if isinstance(pods, Unseen) else [use for pod in pods for use in uses_of(pod, credential.target.name)]
    return [
        definition_step(credential),
        operator_step(credential, served),
        _client(cluster, credential),
        url_step(credential, by),
        attempt_step(credential, seen(lambda: cluster.events(credential.key)), time),
        target_step(credential, target, time),
        pods_step(credential, uses, target, time),
    ]


def _client(cluster: Cluster, credential: Credential) -> Step:
    meta = seen(lambda: cluster.secret_metadata(credential.client_secret))
    read: Failure | Unseen | None = None
    if meta is not None and not isinstance(meta, Unseen) and not has_keys(credential, meta):
        read = seen(lambda: _flaw(cluster, credential))
    return client_step(credential, meta, read)


def _flaw(cluster: Cluster, credential: Credential) -> Failure | None:
    """What is wrong with what the client Secret holds, where its metadata does not tell; nothing of it is kept."""
    try:
        parse_client_secret(cluster.secret(credential.client_secret), credential.spec.client_secret_ref)
    except Failure as failure:
        return failure
    return None
