"""The requests about Pods: to list those of a namespace, and to set annotations by way of their status."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from tuinly_operator.domain.push import Pod
from tuinly_operator.domain.target import MANAGER
from tuinly_operator.edges.kube.requests import MERGE, METADATA, Requests, collection

# Pods are read whole, and JSON becomes about five times as large in memory: so a page has few of them.
_PAGE: Final = 100  # Pods
_MOST_OF_A_PAGE: Final = 2 * 1024 * 1024  # bytes


class Pods(Requests):
    """The requests about Pods."""

    async def list_pods(
        self, namespace: str, selector: str, keep: Callable[[Mapping[str, Any]], Pod | None]
    ) -> list[Pod]:
        """List the Pods of a namespace by pages; return what `keep` makes of each Pod, except None.

        `selector` selects by fields. Only the leader may do this. Raises ApiFailure.
        """
        self.fence()
        kept: list[Pod] = []
        pages = self.pages(
            _pods(namespace),
            {"fieldSelector": selector},
            accept="application/json",
            page=_PAGE,
            most=_MOST_OF_A_PAGE,
        )
        async for page, _ in pages:
            while page:  # so that nothing of this page is in memory while the next one is read
                found = keep(page.pop())
                if found is not None:
                    kept.append(found)
        return kept

    async def annotate_pod(
        self, namespace: str, pod: Pod, annotations: Mapping[str, str], *, dry_run: bool = False
    ) -> Mapping[str, str]:
        """Set annotations of exactly this Pod, and return all annotations that it has then.

        The request goes to the Pod's status, by which nothing of its spec can be changed. Raises ApiFailure.
        """
        query = {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}
        body = {"metadata": {"uid": pod.uid, "annotations": annotations}}
        path = f"{_pods(namespace)}/{pod.name}/status"
        answer = await self.ask("PATCH", path, query=query, body=body, content=MERGE, accept=METADATA)
        return answer["metadata"].get("annotations") or {}


def _pods(namespace: str) -> str:
    return collection("/api/v1", namespace, "pods")
