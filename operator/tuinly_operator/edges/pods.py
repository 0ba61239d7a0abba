"""What is asked of the API server about Pods: who uses a Secret, to tell one, and whether the policy is in force."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from tuinly_operator.base.logs import fields
from tuinly_operator.domain.credential import GROUP
from tuinly_operator.domain.push import PUSHED, SCHEDULED, Outcome, Pod, Reply, outcome_of, pod_of
from tuinly_operator.edges.kube import ApiFailure, Kube

_FORBIDDEN: Final = f"{GROUP}/push-trial"  # an annotation that the admission policy refuses if it is in force
_NOT_IN_FORCE: Final = (
    "the admission policy that limits what the operator may do to Pods is not in force in this namespace, so no Pod is "
    "touched; a cluster admin has to apply it"
)
_LOOK: Final = "check the admission policies and webhooks in this namespace"

_log = logging.getLogger(__name__)


class PodDoor:
    """Lists Pods and sets their annotation. A failed request is returned as a Reply, not raised."""

    def __init__(self, kube: Kube) -> None:
        """Makes no request yet."""
        self._kube = kube

    async def users(self, namespace: str, secrets: frozenset[str]) -> Sequence[Pod] | Reply:
        """List the Pods of a namespace that use one of these Secrets."""
        try:
            return await self._kube.list_pods(namespace, SCHEDULED, lambda raw: _read(raw, secrets))
        except ApiFailure as failure:
            return _reply(failure, "to list the Pods of this namespace")

    async def tell(self, namespace: str, pod: Pod, value: str) -> Reply:
        """Set the annotation by which a Pod is told of new content; `value` is the version of that content."""
        try:
            annotations = await self._kube.annotate_pod(namespace, pod, {PUSHED: value})
        except ApiFailure as failure:
            return _reply(failure, f"to set the annotation {PUSHED} of the Pod {pod.name}")
        if annotations.get(PUSHED) != value:
            return Reply(Outcome.REFUSED, f"something takes the annotation {PUSHED} from Pods as it is set; {_LOOK}")
        return Reply(Outcome.DONE)

    async def try_forbidden(self, namespace: str, pod: Pod) -> Reply:
        """Try, by a dry run, to set another annotation. `DONE` means that nothing is known to forbid it.

        The policy refuses by 403. A 422 says nothing of it: it comes before, where a Pod's annotations are full.
        """
        try:
            await self._kube.annotate_pod(namespace, pod, {_FORBIDDEN: "1"}, dry_run=True)
        except ApiFailure as failure:
            reply = _reply(failure, "a trial")
            if failure.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                return replace(reply, outcome=Outcome.GONE)
            if reply.outcome is Outcome.REFUSED and failure.status != HTTPStatus.FORBIDDEN:
                return Reply(Outcome.DONE, f"{reply.why}, so that nobody knows whether its policy for Pods is in force")
            return reply
        return Reply(Outcome.DONE, _NOT_IN_FORCE)


def _read(raw: Mapping[str, Any], secrets: frozenset[str]) -> Pod | None:
    """Read a Pod. One that cannot be read is left to the kubelet: it must not keep others from being told."""
    try:
        return pod_of(raw, secrets)
    except Exception as error:  # noqa: BLE001 -- whatever is odd about it
        # For debugging only: whoever has made one may have made a thousand.
        _log.debug("ignored a Pod that cannot be read", extra=fields(cause=type(error).__name__))
        return None


def _reply(failure: ApiFailure, what: str) -> Reply:
    full = failure.status == HTTPStatus.UNPROCESSABLE_ENTITY
    hint = f"its annotations may be full, or {_LOOK}" if full else f"{_LOOK} and the operator's RBAC"
    why = f"the API server refuses {what} ({failure.status} {failure.word}); {hint}"
    return Reply(outcome_of(failure.status, other_uid=failure.other_uid), why, failure.retry_after)
