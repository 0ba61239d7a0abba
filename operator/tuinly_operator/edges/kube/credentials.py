"""TuinlyCredentials on the API server: who is there, their status, and the Events that tell of them."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import GROUP, PLURAL, VERSION, Revision
from tuinly_operator.domain.target import MANAGER
from tuinly_operator.edges.kube.failures import ApiFailure
from tuinly_operator.edges.kube.requests import JSON_PATCH, METADATA, METADATA_LIST, Requests, collection

# How many credentials are listed at once. What a large page takes for a moment, the process does not give back.
CREDENTIALS_PAGE: Final = 250


class Credentials(Requests):
    """What the operator asks about TuinlyCredentials. It knows only those whose labels match its `selector`."""

    selector = ""

    async def find_credential(self, key: NamespacedName) -> tuple[Mapping[str, Any] | None, str]:
        """Read a credential past every cache, None where there is none or it is not selected.

        Returns with it the resource version as of which that is so. Raises ApiFailure.
        """
        try:
            answer = await self.ask("GET", credentials_path(key.namespace), query=self._named(key))
        except ApiFailure as failure:
            if failure.not_found:  # the CRD is gone
                return None, ""
            raise
        version = str(answer["metadata"].get("resourceVersion") or "")
        return next(iter(answer.get("items") or ()), None), version

    async def serves_credentials(self) -> bool:
        """Ask the server, by its discovery, whether it knows TuinlyCredentials. Raises ApiFailure."""
        try:
            answer = await self.ask("GET", f"/apis/{GROUP}/{VERSION}")
        except ApiFailure as failure:
            if failure.not_found:
                return False
            raise
        return any(resource.get("name") == PLURAL for resource in answer.get("resources") or ())

    async def list_credentials(self, namespace: str | None) -> AsyncGenerator[Mapping[str, Any]]:
        """List the metadata of all selected credentials (of a namespace). Raises ApiFailure."""
        async for page, _ in self._pages(namespace, METADATA_LIST):
            for raw in page:
                yield raw

    def list_whole_credentials(self, namespace: str | None) -> AsyncGenerator[tuple[list[Mapping[str, Any]], str]]:
        """List all selected credentials (of a namespace) by pages: the objects and the list's version.

        Raises ApiFailure.
        """
        return self._pages(namespace, "application/json")

    async def try_to_watch_credentials(self, namespace: str | None) -> None:
        """Ask for one credential, and for a watch that is given up at once. Raises ApiFailure, 403 where it may not."""
        query = {"labelSelector": self.selector, "limit": "1"}
        answer = await self.ask("GET", credentials_path(namespace), query=query, accept=METADATA_LIST)
        version = str(answer["metadata"].get("resourceVersion") or "")
        query = {"watch": "true", "labelSelector": self.selector, "resourceVersion": version, "timeoutSeconds": "1"}
        async with self.send("GET", credentials_path(namespace), query, accept=METADATA):
            pass

    async def write_status(self, key: NamespacedName, uid: str, status: Mapping[str, Any]) -> tuple[str, Revision]:
        """Write a credential's status, if it still is the one with that uid; return its new version, and its revision.

        Of a merge patch of the status, or an apply, the API server ignores the metadata, and so a uid: only a JSON
        patch can test it (RFC 6902, section 4.6). What is null in `status` is left out.

        Raises:
            ApiFailure: 404 where there is none of that name, 422 where it is another one.
        """
        value = {name: part for name, part in status.items() if part is not None}
        body: list[dict[str, Any]] = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": value},  # in place of what is there, if anything is
        ]
        path = f"{credentials_path(key.namespace)}/{key.name}/status"
        query = {"fieldManager": MANAGER}
        with self.writing(key.namespace):
            answer = await self.ask("PATCH", path, query=query, body=body, content=JSON_PATCH, accept=METADATA)
        meta = answer["metadata"]
        return str(meta["resourceVersion"]), Revision.of(meta)

    def _pages(self, namespace: str | None, accept: str) -> AsyncGenerator[tuple[list[Mapping[str, Any]], str]]:
        query = {"labelSelector": self.selector}
        return self.pages(credentials_path(namespace), query, accept=accept, page=CREDENTIALS_PAGE)

    def _named(self, key: NamespacedName) -> Mapping[str, str]:
        """What selects one credential by its name, if it is of those that this operator serves."""
        return {"labelSelector": self.selector, "fieldSelector": f"metadata.name={key.name}"}

    async def post_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        """Send an Event (events.k8s.io/v1). Raises ApiFailure."""
        path = collection("/apis/events.k8s.io/v1", namespace, "events")
        with self.writing(namespace):
            await self.ask("POST", path, body=event, accept=METADATA)


def event(namespace: str, name: str, regarding: Mapping[str, str], **values: str) -> dict[str, Any]:
    """An Event of events.k8s.io/v1 about one object."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "name": name},
        "regarding": dict(regarding),
        "reportingController": f"{GROUP}/{MANAGER}",
        **values,
    }


def credentials_path(namespace: str | None) -> str:
    """The path of all credentials, of a namespace or of all."""
    return collection(f"/apis/{GROUP}/{VERSION}", namespace, PLURAL)
