"""The one door to the Kubernetes client: reads, writes with preconditions, lists and watches, status, Events.

Requests go through `kubernetes.aio`'s connection, login and TLS, but not through its typed models: those cost 27 MB
of memory and most of the time of a call, and what is read here is mostly metadata.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import client, config

from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.client_secret import REFUSED_TYPES
from tuinly_operator.domain.credential import GROUP, PLURAL, VERSION
from tuinly_operator.domain.target import MANAGER, SecretMeta

REQUEST_TIMEOUT: Final = 10.0  # seconds; the library's own default is five minutes
_WATCH_SECONDS: Final = 290  # the server ends a watch after this long, so that a lost one is not believed for ever
WATCH_SILENCE: Final = 75.0  # seconds without even a bookmark, which come every 60: the connection is dead
PAGE: Final = 500
# Bytes. Anybody may fill the metadata of an object with a quarter of a MiB of annotations, and more of managed fields.
_MOST_OF_A_PAGE: Final = 8 * 1024 * 1024
_LEASES: Final = "/apis/coordination.k8s.io/v1"
_LEASE_LIMIT: Final = aiohttp.ClientTimeout(total=4.0)  # a renewal that hangs must leave time for another
_SLOW_WRITE: Final = 1.0  # seconds; one that nobody holds up takes some 10 ms, and on a busy API server more
_OWN_LIMIT: Final = aiohttp.ClientTimeout(total=3.0)  # for what the API server says of itself
_LOGIN_SECONDS: Final = 60.0
_MOST_PATIENCE: Final = 300.0  # seconds; what Retry-After may ask for at most, which a webhook may choose

_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_APPLY: Final = "application/apply-patch+yaml; charset=utf-8"  # without more, the library would write JSON itself
_MERGE: Final = "application/merge-patch+json"

_WATCHED_TYPES: Final = ",".join(f"type!={kind}" for kind in REFUSED_TYPES)
_UNREACHABLE: Final = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
_ENDING: Final = "NamespaceTerminating"
_REFUSALS: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
_NO_ASCII: Final = re.compile(r"[^ -~]")
_BMP: Final = 0xFFFF  # the last letter that four digits can name
_WORD: Final = re.compile(r"[A-Za-z]{1,40}")


class KubeconfigError(Exception):
    """The kubeconfig, or the Pod's service account, cannot be used. Its text is one line without secrets."""


class ApiFailure(Exception):  # noqa: N818 -- named like the failures of the domain
    """A request to the API server failed.

    `status` is the HTTP status, None where there was no answer; `word` the machine-readable reason of the answer;
    `retry_after` the seconds for which it asks to be left alone. The library's exceptions hold headers and body, so
    they never come as cause or context.
    """

    def __init__(self, status: int | None, word: str, retry_after: float = 0.0) -> None:
        super().__init__(
            f"the API server answered {status} {word}" if status else f"no answer from the API server: {word}"
        )
        self.status = status
        self.word = word
        self.retry_after = retry_after

    @property
    def out_of_reach(self) -> bool:
        """Whether the API server as a whole may not be available; a slow or broken admission webhook looks the same."""
        return self.status is None or self.status in _UNREACHABLE

    @property
    def refused(self) -> bool:
        """Whether the API server understood and will not do it, now or later, until somebody changes something."""
        return self.status in _REFUSALS

    @property
    def namespace_ends(self) -> bool:
        """Whether the namespace is being deleted, and takes nothing new."""
        return self.word == _ENDING

    @property
    def exists(self) -> bool:
        """Whether there is one of that name already."""
        return self.word == "AlreadyExists"

    @property
    def not_found(self) -> bool:
        """Whether the object is not there."""
        return self.status == HTTPStatus.NOT_FOUND


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach the API server, for a client other than this one."""

    server: str
    ca_file: str | None
    ca_data: str | bytes | None
    insecure: bool
    authorization: str | None = field(repr=False)
    certificate_file: str | None
    key_file: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """A Lease (coordination.k8s.io/v1): its holder (empty for nobody), its duration in seconds, how often it changed.

    `version` is its resourceVersion; that and its uid are empty for one that does not exist yet.
    """

    holder: str
    seconds: int
    transitions: int = 0
    version: str = ""
    uid: str = ""


class NotLeading(ApiFailure):
    """This replica must not act: it does not lead, or cannot be sure of it for long enough."""

    def __init__(self) -> None:
        super().__init__(None, "NotLeading")


class Kube:
    """A connection to the API server."""

    def __init__(self, configuration: client.Configuration, selector: str, reachable: Callable[[bool], None]) -> None:
        """`selector` says by labels which credentials there are for us, empty for all.

        `reachable` is called whenever it becomes known that the API server is, or is not, within reach.
        """
        self._selector = selector
        # The proxy of the environment is looked up once: aiohttp's own trust_env asks a thread at each request.
        configuration.client_session_kwargs = {"cookie_jar": aiohttp.DummyCookieJar(), "trust_env": False}
        configuration.proxy = configuration.proxy or _proxy(configuration.host)
        # No limit: those who ask are bounded themselves, and the Lease's renewal must not wait behind all the others.
        configuration.connection_pool_maxsize = 0
        self._configuration = configuration
        self._rest: Any = client.ApiClient(configuration).rest_client  # untyped
        self._notify = reachable
        self._reachable = True
        self._check: asyncio.Task[None] | None = None
        self.pace: Callable[[str, bool], None] = lambda _, __: None
        self.leads: Callable[[float], bool] = lambda _: True  # without an election there is but one replica
        self.silence = WATCH_SILENCE  # tests have less patience

    @property
    def reachable(self) -> bool:
        """Whether the API server has answered well since it last did not answer."""
        return self._reachable

    @contextmanager
    def _writing(self, namespace: str) -> Iterator[None]:
        """Tell `pace` that a write of this namespace is slow, as soon as it is, or that it was quick."""
        loop = asyncio.get_running_loop()
        begun, late = loop.time(), loop.call_later(_SLOW_WRITE, self.pace, namespace, True)  # noqa: FBT003 -- a callback
        try:
            yield
        finally:
            late.cancel()
        if loop.time() - begun < _SLOW_WRITE:
            self.pace(namespace, False)  # noqa: FBT003 -- a callback

    async def answers(self) -> bool:
        """Whether the API server is within reach, after a failure that made this doubtful: once a check has told."""
        if self._check is not None:
            await asyncio.wait({self._check})
        return self._reachable

    def fence(self, seconds: float = 0.0) -> None:
        """Stop a replica that does not lead (any more), right before what only the leader may do.

        `seconds` is for how long it must be sure of its lead. Raises NotLeading.
        """
        if not self.leads(seconds):
            raise NotLeading

    def require_reach(self) -> None:
        """Refuse to go on while the API server is known to be out of reach. Raises ApiFailure."""
        if not self._reachable:
            raise ApiFailure(None, "OutOfReach")

    async def login(self) -> Login:
        """The present login; tokens of a service account change, so ask again when one is refused."""
        c = self._configuration
        return Login(
            server=c.host,
            ca_file=c.ssl_ca_cert,
            ca_data=c.ca_cert_data,
            insecure=not c.verify_ssl,
            authorization=await c.get_api_key_with_prefix("BearerToken"),
            certificate_file=c.cert_file,
            key_file=c.key_file,
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._check is not None:
            self._check.cancel()
        await self._rest.close()

    async def check_ready(self) -> None:
        """Ask the API server whether it is ready. Raises ApiFailure."""
        async with self._call("GET", "/readyz", {}, limit=_OWN_LIMIT):
            pass

    # --- Secrets ------------------------------------------------------------------------------------------------------

    async def read_secret(self, key: NamespacedName) -> Mapping[str, Any]:
        """Read a Secret with its data. Raises ApiFailure."""
        return await self._json("GET", _secret_path(key))

    async def read_secret_meta(self, key: NamespacedName) -> SecretMeta | None:
        """Read a Secret's metadata from the server, past every cache; None where there is none. Raises ApiFailure."""
        try:
            return SecretMeta.from_object(await self._json("GET", _secret_path(key), accept=_METADATA))
        except ApiFailure as failure:
            if failure.not_found:
                return None
            raise

    async def apply_secret(self, key: NamespacedName, manifest: Mapping[str, Any]) -> SecretMeta:
        """Apply a Secret by server-side apply with the preconditions that its metadata holds; return what it became.

        Raises:
            ApiFailure: 409 or 422 where a precondition does not hold, others where it is refused.
        """
        self.fence()
        query = {"fieldManager": MANAGER, "force": "true"}
        path, body = _secret_path(key), yaml_of(manifest)
        with self._writing(key.namespace):
            answer = await self._json("PATCH", path, query=query, body=body, content=_APPLY, accept=_METADATA)
        return SecretMeta.from_object(answer)

    async def try_create_secret(self, key: NamespacedName, manifest: Mapping[str, Any]) -> None:
        """Ask whether a Secret would be accepted if it were created: nothing is.

        Raises:
            ApiFailure: 409 `AlreadyExists` if so, but for the one that is there, since validation and admission come
                before that; others where it is refused.
        """
        meta = {name: value for name, value in manifest["metadata"].items() if name != "resourceVersion"}
        query = {"fieldManager": MANAGER, "dryRun": "All"}
        path, body = _collection("/api/v1", key.namespace, "secrets"), {**manifest, "metadata": meta}
        with self._writing(key.namespace):
            await self._json("POST", path, query=query, body=body, accept=_METADATA)

    async def delete_secret(self, key: NamespacedName, meta: SecretMeta) -> SecretMeta | None:
        """Delete a Secret if it still is what `meta` says; return what is left while a finalizer holds it.

        Raises ApiFailure.
        """
        self.fence()
        body = {"preconditions": {"uid": meta.uid, "resourceVersion": meta.version}}
        with self._writing(key.namespace):
            answer = await self._json("DELETE", _secret_path(key), body=body, accept=_METADATA)
        return None if answer.get("kind") == "Status" else SecretMeta.from_object(answer)

    async def list_secrets(self, namespace: str | None) -> AsyncGenerator[tuple[list[Mapping[str, Any]], str]]:
        """List the metadata of all Secrets (of a namespace) by pages: the objects and the list's version.

        Raises ApiFailure.
        """
        path = _collection("/api/v1", namespace, "secrets")
        async for page in self._pages(path, {"fieldSelector": _WATCHED_TYPES}):
            yield page

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
        path = _collection("/api/v1", namespace, "secrets")
        async with self._call("GET", path, query, accept=_METADATA, limit=limit) as response:
            begun()
            async for line in _lines(response):
                event = json.loads(line)
                raw = event["object"]
                if event["type"] == "ERROR":
                    raise ApiFailure(raw.get("code"), _word(raw))
                yield event["type"], raw

    # --- Credentials --------------------------------------------------------------------------------------------------

    async def credential_exists(self, key: NamespacedName, uid: str) -> bool:
        """Ask the server, past every cache, whether this very credential is there and selected. Raises ApiFailure."""
        query = {"labelSelector": self._selector, "fieldSelector": f"metadata.name={key.name}"}
        try:
            answer = await self._json("GET", _credentials(key.namespace), query=query, accept=_METADATA_LIST)
        except ApiFailure as failure:
            if failure.not_found:  # the CRD is gone
                return False
            raise
        return any(item["metadata"]["uid"] == uid for item in answer.get("items") or ())

    async def find_credential(self, key: NamespacedName) -> tuple[Mapping[str, Any] | None, str]:
        """Read a credential past every cache, None where there is none or it is not selected.

        Returns with it the resource version as of which that is so. Raises ApiFailure.
        """
        query = {"labelSelector": self._selector, "fieldSelector": f"metadata.name={key.name}"}
        try:
            answer = await self._json("GET", _credentials(key.namespace), query=query)
        except ApiFailure as failure:
            if failure.not_found:  # the CRD is gone
                return None, ""
            raise
        version = str(answer["metadata"].get("resourceVersion") or "")
        return next(iter(answer.get("items") or ()), None), version

    async def serves_credentials(self) -> bool:
        """Ask the server, by its discovery, whether it knows TuinlyCredentials. Raises ApiFailure."""
        try:
            answer = await self._json("GET", f"/apis/{GROUP}/{VERSION}")
        except ApiFailure as failure:
            if failure.not_found:
                return False
            raise
        return any(resource.get("name") == PLURAL for resource in answer.get("resources") or ())

    async def list_credentials(self, namespace: str | None) -> AsyncGenerator[Mapping[str, Any]]:
        """List the metadata of all selected credentials (of a namespace). Raises ApiFailure."""
        async for page, _ in self._pages(_credentials(namespace), {"labelSelector": self._selector}):
            for raw in page:
                yield raw

    async def try_to_watch_credentials(self, namespace: str | None) -> None:
        """Ask for one credential, and for a watch that is given up at once. Raises ApiFailure, 403 where it may not."""
        query = {"labelSelector": self._selector, "limit": "1"}
        answer = await self._json("GET", _credentials(namespace), query=query, accept=_METADATA_LIST)
        version = str(answer["metadata"].get("resourceVersion") or "")
        query = {"watch": "true", "labelSelector": self._selector, "resourceVersion": version, "timeoutSeconds": "1"}
        async with self._call("GET", _credentials(namespace), query, accept=_METADATA):
            pass

    async def write_status(self, key: NamespacedName, uid: str, status: Mapping[str, Any]) -> str:
        """Write a credential's status, if it still is the one with that uid; return its new version.

        Raises ApiFailure.
        """
        self.fence()
        body = {"metadata": {"uid": uid}, "status": status}
        path = f"{_credentials(key.namespace)}/{key.name}/status"
        query = {"fieldManager": MANAGER}
        with self._writing(key.namespace):
            answer = await self._json("PATCH", path, query=query, body=body, content=_MERGE, accept=_METADATA)
        return str(answer["metadata"]["resourceVersion"])

    async def post_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        """Send an Event (events.k8s.io/v1). Raises ApiFailure."""
        self.fence()
        path = _collection("/apis/events.k8s.io/v1", namespace, "events")
        with self._writing(namespace):
            await self._json("POST", path, body=event, accept=_METADATA)

    # --- Leases -------------------------------------------------------------------------------------------------------

    async def read_lease(self, key: NamespacedName) -> Lease | None:
        """Read a Lease, None where there is none. Raises ApiFailure."""
        try:
            return _lease(await self._json("GET", _lease_path(key), limit=_LEASE_LIMIT))
        except ApiFailure as failure:
            if failure.not_found:
                return None
            raise

    async def write_lease(self, key: NamespacedName, lease: Lease) -> Lease:
        """Create a Lease, or replace the one of that uid and version; return what it became.

        Raises ApiFailure, 409 if it is another by now. Without the uid, one that is gone would be created anew.
        """
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        metadata = {"name": key.name, "namespace": key.namespace}
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": lease.holder or None,
                "leaseDurationSeconds": lease.seconds,
                "leaseTransitions": lease.transitions,
                "renewTime": now,
            },
        }
        if not lease.version:
            path = _collection(_LEASES, key.namespace, "leases")
            return _lease(await self._json("POST", path, body=body, limit=_LEASE_LIMIT))
        metadata |= {"resourceVersion": lease.version, "uid": lease.uid}
        return _lease(await self._json("PUT", _lease_path(key), body=body, limit=_LEASE_LIMIT))

    # --- Requests -----------------------------------------------------------------------------------------------------

    async def _pages(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[tuple[list[Mapping[str, Any]], str]]:
        """List by pages. One that is too large is asked for again in smaller ones, and then they grow again."""
        more, limit = "", PAGE
        while True:
            page = {**query, "limit": str(limit), **({"continue": more} if more else {})}
            try:
                most = _MOST_OF_A_PAGE if limit > 1 else None
                answer = await self._json("GET", path, query=page, accept=_METADATA_LIST, most=most)
            except _TooLargeError:
                limit = max(1, limit // 8)
                continue
            limit = min(PAGE, limit * 2)
            meta = answer["metadata"]
            yield answer.get("items") or [], str(meta.get("resourceVersion") or "")
            more = meta.get("continue") or ""
            if not more:
                return

    async def _json(  # noqa: PLR0913 -- a request has that many parts
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | str | None = None,
        content: str = "application/json",
        accept: str = "application/json",
        limit: aiohttp.ClientTimeout | None = None,
        most: int | None = None,
    ) -> Mapping[str, Any]:
        call = self._call(method, path, query or {}, body=body, content=content, accept=accept, limit=limit)
        async with call as response:
            answer = json.loads(await _read(response, most))
        if not isinstance(answer, Mapping):
            raise ApiFailure(response.status, "NotAnObject")
        return answer

    @asynccontextmanager
    async def _call(  # noqa: PLR0913 -- a request has that many parts
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: Mapping[str, Any] | str | None = None,
        content: str = "application/json",
        accept: str = "application/json",
        limit: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give its good answer; keep book of whether the API server is within reach."""
        failure: ApiFailure
        try:
            headers = {"Accept": accept, "Content-Type": content, "User-Agent": MANAGER}
            if authorization := await self._configuration.get_api_key_with_prefix("BearerToken"):
                headers["Authorization"] = authorization
            url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
            limit = limit or aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
            answer = await self._rest.request(method, url, headers=headers, body=body, _request_timeout=limit)
            async with answer.response as response:
                if response.status < HTTPStatus.BAD_REQUEST:
                    self._note(reachable=True)
                    yield response
                    return
                failure = ApiFailure(response.status, _word_of(await response.read()), _retry_after(response))
        except (aiohttp.ClientError, OSError, ValueError, config.ConfigException) as error:  # the last: no login
            failure = ApiFailure(None, type(error).__name__)
        # A refusal does not say that it is back: a server that has just started refuses what it does not know yet.
        if failure.out_of_reach:
            self._doubt()
        raise failure from None

    def _doubt(self) -> None:
        """Have the API server asked about itself, once for all who have doubts.

        A time-out or a 504 of one write is no sign: an admission webhook, which tenants may run, chooses both.
        """
        if self._reachable and (self._check is None or self._check.done()):
            self._check = asyncio.create_task(self._check_reach())

    async def _check_reach(self) -> None:
        try:
            await self.check_ready()
        except ApiFailure as failure:
            if failure.status is None or failure.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self._note(reachable=False)

    def _note(self, *, reachable: bool) -> None:
        if reachable is not self._reachable:
            self._reachable = reachable
            self._notify(reachable)


def _proxy(server: str) -> str | None:
    """The proxy that the environment names for a URL (HTTPS_PROXY, NO_PROXY), if any."""
    url = urlsplit(server)
    return None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)


async def connect(kubeconfig: Path | None, selector: str, reachable: Callable[[bool], None]) -> Kube:
    """Log in: by the kubeconfig if one is named, else as the Pod's service account, else as kubectl would.

    Raises:
        KubeconfigError: none of them can be used.
    """
    configuration = client.Configuration()
    in_cluster = kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ
    source = (
        "the Pod's service account"
        if in_cluster
        else f"the kubeconfig {kubeconfig or config.KUBE_CONFIG_DEFAULT_LOCATION}"
    )
    problem = ""
    try:
        if in_cluster:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            path = str(kubeconfig) if kubeconfig else None
            load: Any = config.load_kube_config  # untyped
            loader = await load(path, client_configuration=configuration, persist_config=False)
            setattr(configuration, "refresh_api_key_hook", _keep_login_fresh(loader))  # noqa: B010 -- declared as None
        return Kube(configuration, selector, reachable)
    except config.ConfigException:
        problem = "is not complete; check its current-context, cluster and user"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except Exception as error:  # noqa: BLE001 -- the parsers raise what they like; their texts may quote secrets
        problem = f"cannot be understood ({type(error).__name__})"
    message = f"{source} {problem}"
    raise KubeconfigError(message)


def yaml_of(manifest: Mapping[str, Any]) -> str:
    """A manifest as the API server reads an apply: JSON that is YAML as well, whatever letters are in it.

    JSON is YAML but for its strings: YAML refuses some letters as they are (DEL, U+FFFE), folds others (NEL), and
    knows no surrogate pairs (YAML 1.2, sections 5.1 and 5.7). So everything but ASCII is escaped, each as one letter.
    """
    return _NO_ASCII.sub(_escaped, json.dumps(manifest, ensure_ascii=False))


def _escaped(letter: re.Match[str]) -> str:
    code = ord(letter[0])
    return f"\\u{code:04x}" if code <= _BMP else f"\\U{code:08x}"


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


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Split a stream into lines, however long they are and however they arrive."""
    rest = b""
    try:
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line:
                    yield line
    except (aiohttp.ClientError, TimeoutError) as error:
        failure = ApiFailure(None, type(error).__name__)
    else:
        return
    raise failure from None


def _keep_login_fresh(loader: Any) -> Callable[[client.Configuration], Awaitable[None]]:  # noqa: ANN401
    """A hook that reads the login again at most once a minute: token files change, plugins give tokens that end."""
    last = time.monotonic()

    async def hook(configuration: client.Configuration) -> None:
        nonlocal last
        if time.monotonic() - last > _LOGIN_SECONDS:
            last = time.monotonic()
            await loader.load_and_set(configuration)

    return hook


def _secret_path(key: NamespacedName) -> str:
    return f"/api/v1/namespaces/{key.namespace}/secrets/{key.name}"


def _lease_path(key: NamespacedName) -> str:
    return f"{_LEASES}/namespaces/{key.namespace}/leases/{key.name}"


def _lease(raw: Mapping[str, Any]) -> Lease:
    """Read a Lease that anybody may have edited."""
    spec = raw.get("spec") or {}
    seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    return Lease(
        holder=spec.get("holderIdentity") or "",
        seconds=seconds if isinstance(seconds, int) else 0,
        transitions=transitions if isinstance(transitions, int) else 0,
        version=raw["metadata"]["resourceVersion"],
        uid=raw["metadata"]["uid"],
    )


def _credentials(namespace: str | None) -> str:
    return _collection(f"/apis/{GROUP}/{VERSION}", namespace, PLURAL)


def _collection(root: str, namespace: str | None, plural: str) -> str:
    return f"{root}/{plural}" if namespace is None else f"{root}/namespaces/{namespace}/{plural}"


class _TooLargeError(Exception):
    """An answer has more bytes than is wanted at once."""


async def _read(response: aiohttp.ClientResponse, most: int | None) -> bytes:
    """Read an answer, of `most` bytes at most. Raises _TooLargeError, and what aiohttp does."""
    if most is None:
        return await response.read()
    parts, size = [], 0
    async for chunk in response.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size > most:
            response.close()  # unread: the rest is not wanted
            raise _TooLargeError
    return b"".join(parts)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds that the API server, which never sends a date, asks for; 0 where it does not."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), _MOST_PATIENCE) if text.isascii() and text.isdigit() else 0.0


def _word_of(body: bytes) -> str:
    try:
        return _word(json.loads(body))
    except (ValueError, AttributeError):
        return "Unknown"


def _word(status: Mapping[str, Any]) -> str:
    """The reason of a Status object, if it is the one word that it should be; its message may quote what was sent."""
    causes = (status.get("details") or {}).get("causes") or ()
    # The one cause that matters more than the reason (Forbidden) it comes with.
    ending = any(cause.get("reason") == _ENDING for cause in causes)
    word = _ENDING if ending else str(status.get("reason") or "")
    return word if _WORD.fullmatch(word) else "Unknown"
