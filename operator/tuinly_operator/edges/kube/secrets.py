"""Secrets on the API server: their metadata, and writes that hold only while the target is as it was seen."""

import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

import aiohttp

from tuinly_operator.base.foreign_json import loads
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.client_secret import REFUSED_TYPES
from tuinly_operator.domain.target import MANAGER, SecretMeta
from tuinly_operator.edges.kube.failures import ApiFailure, word
from tuinly_operator.edges.kube.requests import METADATA, METADATA_LIST, REQUEST_TIMEOUT, Requests, collection, lines

_WATCH_SECONDS: Final = 290  # after which the server ends a watch, so that a dead one is noticed in the end
_APPLY: Final = "application/apply-patch+yaml; charset=utf-8"  # without more, the library would write JSON itself
_WATCHED_TYPES: Final = ",".join(f"type!={kind}" for kind in REFUSED_TYPES)
_NO_ASCII: Final = re.compile(r"[^ -~]")
_BMP: Final = 0xFFFF  # the last letter that \u with four digits can name


class Secrets(Requests):
    """What the operator asks about Secrets."""

    async def read_secret(self, key: NamespacedName) -> Mapping[str, Any]:
        """Read a Secret with its data. Raises ApiFailure."""
        return await self.ask("GET", _secret_path(key))

    async def read_secret_meta(self, key: NamespacedName) -> SecretMeta | None:
        """Read a Secret's metadata from the server, past every cache; None where there is none. Raises ApiFailure."""
        try:
            return SecretMeta.from_object(await self.ask("GET", _secret_path(key), accept=METADATA))
        except ApiFailure as failure:
            if failure.not_found:
                return None
            raise

    async def apply_secret(self, key: NamespacedName, manifest: Mapping[str, Any]) -> SecretMeta:
        """Apply a Secret by server-side apply with the preconditions that its metadata holds; return what it became.

        Raises:
            ApiFailure: 409 or 422 where a precondition does not hold, others where it is refused.
        """
        query = {"fieldManager": MANAGER, "force": "true"}
        path, body = _secret_path(key), yaml_of(manifest)
        with self.writing(key.namespace):
            answer = await self.ask("PATCH", path, query=query, body=body, content=_APPLY, accept=METADATA)
        return SecretMeta.from_object(answer)

    async def delete_secret(self, key: NamespacedName, meta: SecretMeta) -> SecretMeta | None:
        """Delete a Secret if it still is what `meta` says; return what is left while a finalizer holds it.

        Raises ApiFailure.
        """
        body = {"preconditions": {"uid": meta.uid, "resourceVersion": meta.version}}
        with self.writing(key.namespace):
            answer = await self.ask("DELETE", _secret_path(key), body=body, accept=METADATA)
        return None if answer.get("kind") == "Status" else SecretMeta.from_object(answer)

    async def list_secrets(self, namespace: str | None) -> AsyncGenerator[tuple[list[Mapping[str, Any]], str]]:
        """List the metadata of all Secrets (of a namespace) by pages: the objects and the list's version.

        Raises ApiFailure.
        """
        path = collection("/api/v1", namespace, "secrets")
        async for page in self.pages(path, {"fieldSelector": _WATCHED_TYPES}):
            yield page

    async def version_of_secrets(self, namespace: str | None) -> str:
        """The version that a list of Secrets has now, past every cache. Raises ApiFailure."""
        path, query = collection("/api/v1", namespace, "secrets"), {"fieldSelector": _WATCHED_TYPES, "limit": "1"}
        answer = await self.ask("GET", path, query=query, accept=METADATA_LIST)
        return str(answer["metadata"].get("resourceVersion") or "")

    async def watch_secrets(
        self, namespace: str | None, version: str, begun: Callable[[], None]
    ) -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        """Watch the metadata of Secrets from a version on: type and object of each event. Ends when the server ends it.

        `begun` is called once the server has agreed: the first event may be long in coming.

        Raises:
            ApiFailure: 410 where the version is too old; without status where the connection broke or fell silent.
        """
        query = {
            "watch": "true",
            "fieldSelector": _WATCHED_TYPES,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        limit = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT, sock_read=self.silence)
        path = collection("/api/v1", namespace, "secrets")
        async with self.send("GET", path, query, accept=METADATA, limit=limit) as response:
            begun()
            async for line in lines(response):
                event = loads(line)
                raw = event["object"]
                if event["type"] == "ERROR":
                    raise ApiFailure(raw.get("code"), word(raw))
                yield event["type"], raw


def yaml_of(manifest: Mapping[str, Any]) -> str:
    """A manifest as the API server reads an apply: JSON that is YAML as well, whatever letters are in it.

    JSON is YAML but for its strings: YAML refuses some letters as they are (DEL, U+FFFE), folds others (NEL), and
    knows no surrogate pairs (YAML 1.2, sections 5.1 and 5.7). So everything but ASCII is escaped, each as one letter.
    """
    return _NO_ASCII.sub(_escaped, json.dumps(manifest, ensure_ascii=False))


def _escaped(letter: re.Match[str]) -> str:
    code = ord(letter[0])
    return f"\\u{code:04x}" if code <= _BMP else f"\\U{code:08x}"


def _secret_path(key: NamespacedName) -> str:
    return f"/api/v1/namespaces/{key.namespace}/secrets/{key.name}"
