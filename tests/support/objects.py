"""The objects of one namespace as tests handle them: applied, read, deleted, and each version that one ever had.

Objects are JSON as the API server speaks it. The requests go over `kubernetes`' connection and login, but without its
typed models: a test looks at what is really there, fields that no model knows among it.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from kubernetes import client, config

from tests.support.cluster import Cluster
from tuinly_operator.base.foreign_json import loads

Json = dict[str, Any]
Kind = Literal["Secret", "TuinlyCredential", "Event"]

_COLLECTIONS: Mapping[str, tuple[str, str]] = {
    "Secret": ("/api/v1", "secrets"),
    "TuinlyCredential": ("/apis/tuinly.com/v1alpha1", "tuinlycredentials"),
    "Event": ("/apis/events.k8s.io/v1", "events"),
}
_TIMEOUT = 30.0  # seconds; the machine may be busy


class ApiError(Exception):
    """The API server refused a request.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        """Describe the refusal in the server's own words."""
        super().__init__(f"{status}: {message}")
        self.status = status


def _message(answer: bytes) -> str:
    """Return what a refusal says; of a kind that it does not serve, the API server does not speak in JSON."""
    try:
        return str(json.loads(answer).get("message", ""))
    except ValueError:
        return answer.decode(errors="replace").strip()


@contextmanager
def _unless(*statuses: HTTPStatus) -> Iterator[None]:
    """A refusal with one of these is no error."""
    try:
        yield
    except ApiError as error:
        if error.status not in statuses:
            raise


@contextmanager
def new_namespace(cluster: Cluster) -> Iterator[str]:
    """Make a namespace for as long as the context lasts; its end is asked for, not waited for.

    Its credentials are deleted at once, though: the operator of the next test has nothing to do with them any more.
    """
    objects = Objects(cluster, f"test-{secrets.token_hex(4)}")
    objects.ask("POST", "/api/v1/namespaces", {"metadata": {"name": objects.namespace}})
    try:
        yield objects.namespace
    finally:
        objects.close()  # a connection from before may be half open, if the API server was killed
        objects.delete_all("TuinlyCredential")
        objects.delete_namespace()
        objects.close()


class Objects:
    """The objects of a namespace, as the cluster's admin handles them."""

    def __init__(self, cluster: Cluster, namespace: str, kubeconfig: Path | None = None) -> None:
        """Log in, as the admin or by another kubeconfig; nothing is asked yet."""
        self.cluster = cluster
        self.namespace = namespace
        # Any: the library's types stop at its models.
        login: Any = config.new_client_from_config
        api: client.ApiClient = login(str(kubeconfig or cluster.kubeconfig))
        self._configuration = api.configuration
        self._pool = api.rest_client.pool_manager

    def close(self) -> None:
        """Close the connections; they are opened again when they are needed."""
        self._pool.clear()

    def apply(self, manifest: Json) -> Json:
        """Create the object or change it to this (server-side apply); return what it became.

        What an earlier `apply` gave and this one does not is removed.
        """
        path = self._path(manifest["kind"], manifest["metadata"]["name"])
        return self._json("PATCH", path, {"fieldManager": "tests", "force": "true"}, manifest, "apply-patch+yaml")

    def merge(self, kind: Kind, name: str, patch: Json, *, subresource: str = "") -> Json:
        """Change an object by a JSON merge patch (RFC 7396), as somebody other than `apply`; return what it became."""
        path = self._path(kind, name) + (f"/{subresource}" if subresource else "")
        return self._json("PATCH", path, {"fieldManager": "somebody"}, patch, "merge-patch+json")

    def read(self, path: str) -> Json:
        """Return what the API server answers to a GET of `path`, of whatever kind it is.

        Raises:
            ApiError: it is refused, or not there.
        """
        return self._json("GET", path)

    def ask(
        self,
        method: str,
        path: str,
        body: Json | list[Json] | None = None,
        content: str = "json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """Send any request, with a body of any content type, and return the answer.

        Raises:
            ApiError: it is refused.
        """
        return self._json(method, path, query, body, content)

    def find(self, kind: Kind, name: str) -> Json | None:
        """Return the object, or None where there is none."""
        try:
            return self._json("GET", self._path(kind, name))
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def get(self, kind: Kind, name: str) -> Json:
        """Return the object, which is there.

        Raises:
            ApiError: it is not.
        """
        return self._json("GET", self._path(kind, name))

    def all(self, kind: Kind) -> list[Json]:
        """Return all objects of a kind."""
        items: list[Json] = self._json("GET", self._path(kind))["items"]
        return items

    def delete(self, kind: Kind, name: str) -> None:
        """Delete the object, which is there; what it owns is left to the garbage collector."""
        self._json("DELETE", self._path(kind, name), {"propagationPolicy": "Background"})

    def delete_all(self, kind: Kind) -> None:
        """Delete all objects of a kind, where there is such a kind and a namespace."""
        with _unless(HTTPStatus.NOT_FOUND):
            self._json("DELETE", self._path(kind))

    def delete_namespace(self) -> None:
        """Delete the namespace, if that has not begun already."""
        with _unless(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
            self._json("DELETE", f"/api/v1/namespaces/{self.namespace}")

    def version(self, kind: Kind) -> str:
        """Return the present version of the collection: what is written from now on has a later one."""
        version: str = self._json("GET", self._path(kind), {"limit": "1"})["metadata"]["resourceVersion"]
        return version

    def versions(self, kind: Kind, name: str, *, since: str) -> list[Json]:
        """Return each version of the object that was written after the version `since`, oldest first.

        Nothing is missed, as a poll would: the API server keeps the history of the last minutes. The last version of an
        object that was deleted comes twice.
        """
        present = self.find(kind, name)
        last = present["metadata"]["resourceVersion"] if present is not None else None
        found: list[Json] = []
        if last is not None and int(last) <= int(since):
            return found
        # Without a version to end with, the watch ends when it has told the history and nothing more has come.
        with self._watched(kind, name, since, _TIMEOUT if last is not None else 1.0) as events:
            for event in events:
                if event["type"] == "ERROR":
                    raise ApiError(event["object"].get("code", 0), event["object"].get("message", ""))
                found.append(event["object"])
                if event["object"]["metadata"]["resourceVersion"] == last:
                    break
        return found

    @contextmanager
    def _watched(self, kind: Kind, name: str, since: str, seconds: float) -> Iterator[Iterator[Json]]:
        query = {
            "watch": "true",
            "resourceVersion": since,
            "fieldSelector": f"metadata.name={name}",
            "timeoutSeconds": f"{seconds:.0f}",
        }
        response = self._send("GET", self._path(kind), query)
        try:
            yield (loads(line) for line in response)
        finally:
            response.close()

    def _path(self, kind: str, name: str = "") -> str:
        group, plural = _COLLECTIONS[kind]
        return f"{group}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Json | list[Json] | None = None,
        content: str = "json",
    ) -> Json:
        response = self._send(method, path, query or {}, body, content)
        try:
            answer: Json = loads(response.read())
        finally:
            response.close()  # the connection too, if the answer was cut; else that is kept for the next request
        return answer

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Json | list[Json] | None = None,
        content: str = "json",
    ) -> Any:  # noqa: ANN401 - the library does not say what its pool is
        """Send a request and return its good answer, unread.

        Raises:
            ApiError: the answer is a refusal.
        """
        headers = {"Accept": "application/json", "Content-Type": f"application/{content}"}
        if authorization := self._configuration.get_api_key_with_prefix("BearerToken"):
            headers["Authorization"] = authorization
        response = self._pool.request(
            method,
            f"{self._configuration.host}{path}?{urlencode(query)}",
            body=None if body is None else json.dumps(body),
            headers=headers,
            timeout=_TIMEOUT,
            preload_content=False,
        )
        if response.status >= HTTPStatus.BAD_REQUEST:
            text = response.read()
            response.release_conn()
            raise ApiError(response.status, _message(text))
        return response
