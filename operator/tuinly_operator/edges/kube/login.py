"""Logs in to the API server, by a kubeconfig or as the Pod's service account, and renews that login."""

import asyncio
import base64
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from kubernetes.aio import client, config
from kubernetes.aio.config.kube_config import ConfigNode, KubeConfigMerger

from tuinly_operator.base.clock import Clock, Deadline, parse_rfc3339
from tuinly_operator.base.logs import fields
from tuinly_operator.edges.kube.exec_plugin import PluginError, ask_plugin

_Connection = TypeVar("_Connection")

_RENEW_SECONDS: Final = 60.0  # from one renewal to the next
_LIMIT: Final = 15.0  # seconds for a login or its renewal
_LONGEST_PAUSE: Final = 30.0  # seconds between two renewals that fail, or that the API server refuses
_EARLY: Final = 300.0  # most seconds before the end of its login that a plugin is asked for another one

_log = logging.getLogger(__name__)


class KubeconfigError(Exception):
    """The kubeconfig, or the Pod's service account, cannot be used. Its text is one line without secrets."""


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
    server_name: str | None  # that its certificate is to be for, if not the one in the URL
    proxy: str | None = field(repr=False)


class Renewal:
    """Renews a login once a minute, and at once when the API server refuses it. Requests use the last login meanwhile.

    Attributes:
        configuration: What requests are sent by; a renewal changes it.
        trouble: Why the last renewal failed, empty if it did not.
        reconnect: Makes new connections, each of which keeps the client certificate that it began with.
    """

    def __init__(self, load: Callable[[client.Configuration, bool], Awaitable[None]], source: str) -> None:
        """`load` puts the present login into a configuration; it is told whether the last one was refused.

        `source` says for people where the login comes from.
        """
        self.configuration = client.Configuration()
        self.trouble = ""
        self.reconnect: Callable[[], Awaitable[None]] = _nothing
        self._load = load
        self._source = source
        self._refused = asyncio.Event()
        self._told = False  # whether the log has this refusal

    def refused(self, authorization: str | None) -> None:
        """Note that the API server refused a login (401); one that has been renewed meanwhile does not count."""
        if authorization != self.configuration.api_key.get("BearerToken"):
            return
        if not self._told:
            _log.warning("the API server refused the login (401 Unauthorized), renewing it")
        self._told = True
        self._refused.set()

    async def run(self) -> None:
        """Renew the login whenever that is due; never ends."""
        tries = 0  # renewals in a row that failed, or that followed a refusal
        while True:
            if not self.trouble:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RENEW_SECONDS):
                        await self._refused.wait()
            self._told = refused = self._refused.is_set()
            self._note(await self.renew())
            tries = tries + 1 if refused or self.trouble else 0
            if tries:
                await asyncio.sleep(min(_LONGEST_PAUSE, 2.0 ** min(tries - 1, 10)))

    async def renew(self) -> str:
        """Renew the login, and return why that failed, empty if it did not: one line without secrets."""
        try:
            async with asyncio.timeout(_LIMIT):
                await self._load(self.configuration, refused := self._refused.is_set())
                if refused and self.configuration.cert_file:
                    await self.reconnect()
        except Exception as error:  # noqa: BLE001 -- the parsers raise what they like
            return self.problem(error)
        self._refused.clear()
        return ""

    def problem(self, error: Exception) -> str:
        """What is wrong with the login, in words that quote nothing: the texts of parsers may hold secrets."""
        match error:
            case PluginError():
                problem = str(error)
            case TimeoutError():
                problem = f"gave no login within {_LIMIT:.0f} s; check its exec plugin or identity provider"
            case config.ConfigException():
                problem = "is not complete; check its current-context, cluster and user"
            case OSError():
                problem = f"cannot be read: {error.strerror}"
            case _:
                problem = f"cannot be understood ({type(error).__name__})"
        return f"{self._source} {problem}"

    def _note(self, trouble: str) -> None:
        """Log a trouble once, and its end."""
        if trouble and trouble != self.trouble:
            _log.warning("cannot renew the login, going on with the last one", extra=fields(cause=trouble))
        elif self.trouble and not trouble:
            _log.info("the login is renewed again")
        self.trouble = trouble


async def log_in(kubeconfig: Path | None, connect: Callable[[Renewal], _Connection], clock: Clock) -> _Connection:
    """Log in and connect: by the kubeconfig if one is named, else as the Pod's service account, else as kubectl would.

    What is wrong with a certificate shows only where `connect` uses it.

    Raises:
        KubeconfigError: none of them can be used.
    """
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:  # noqa: TID251 -- where the library looks
        renewal = Renewal(_load_service_account, "the Pod's service account")
    else:
        source = f"the kubeconfig {kubeconfig or config.KUBE_CONFIG_DEFAULT_LOCATION}"
        renewal = Renewal(_Kubeconfig(kubeconfig, clock).load, source)
    problem = await renewal.renew()
    if not problem:
        try:
            return connect(renewal)
        except Exception as error:  # noqa: BLE001 -- whatever the parsers of certificates raise
            problem = renewal.problem(error)
    raise KubeconfigError(problem)


async def present_login(c: client.Configuration) -> Login:
    """How to reach the API server now; tokens of a service account change, so ask again when one is refused."""
    return Login(
        server=c.host,
        ca_file=c.ssl_ca_cert,
        ca_data=c.ca_cert_data,
        insecure=not c.verify_ssl,
        authorization=await c.get_api_key_with_prefix("BearerToken"),
        certificate_file=c.cert_file,
        key_file=c.key_file,
        server_name=c.tls_server_name,
        proxy=c.proxy,
    )


async def _nothing() -> None:
    """There are no connections yet."""


async def _load_service_account(configuration: client.Configuration, _refused: bool) -> None:  # noqa: FBT001 -- as above
    load: Any = config.load_incluster_config  # untyped
    load(configuration, try_refresh_token=False)  # the library would read the token again by the wall clock


class _Kubeconfig:
    """A kubeconfig, read once. What it names, token files and plugins, is read and run at each renewal."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        """Without a path, it is the file, or the files, that kubectl would take."""
        self._path = path
        self._clock = clock
        self._content: Any = None
        self._user: dict[str, Any] = {}  # the one that a plugin's answers change
        self._own: Mapping[str, Any] = {}  # what the kubeconfig itself says of that user
        self._plugin: Mapping[str, Any] = {}
        self._asked = False  # whether the plugin has given a login
        self._renew: Deadline | None = None  # when it is to be asked again; None: once that login is refused

    async def load(self, configuration: client.Configuration, refused: bool) -> None:  # noqa: FBT001 -- a callback
        """Put the present login into a configuration, whole or not at all."""
        if self._content is None:
            self._content = _read(self._path)
            self._user = _user_of(self._content)
            self._plugin = self._user.pop("exec", {})
            self._own = dict(self._user)
        if self._plugin and (refused or not self._asked or (self._renew and self._renew.due(self._clock.now()))):
            self._take(await ask_plugin(self._plugin))
        load: Any = config.load_kube_config_from_dict  # untyped
        await load(self._content, client_configuration=configuration)

    def _take(self, status: Mapping[str, Any]) -> None:
        """Let what a plugin answered stand where a kubeconfig without one has it: all of it, or nothing.

        As in kubectl, a login without an end is used until it is refused.
        """
        user = dict(self._own)
        if token := status.get("token"):
            user["token"] = token
        if certificate := status.get("clientCertificateData"):
            user["client-certificate-data"] = base64.b64encode(certificate.encode())
            user["client-key-data"] = base64.b64encode(status["clientKeyData"].encode())
        renew, now = None, self._clock.now()
        if end := status.get("expirationTimestamp"):
            life = parse_rfc3339(end) - now.wall
            renew = Deadline.after(max(life - _EARLY, life / 2), now)  # a short login at half of its life
        self._user.clear()
        self._user.update(user)
        self._asked, self._renew = True, renew


def _read(path: Path | None) -> Any:  # noqa: ANN401 -- untyped
    """Read a kubeconfig. Only $KUBECONFIG may be a list of several, divided by colons."""
    node: Any = ConfigNode
    if path is not None:
        return node(str(path), yaml.safe_load(path.read_bytes()), str(path))
    merger: Any = KubeConfigMerger
    if merged := merger(config.KUBE_CONFIG_DEFAULT_LOCATION).config:
        return merged
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _user_of(content: Any) -> dict[str, Any]:  # noqa: ANN401 -- untyped
    """The user of the current context, as the kubeconfig holds it; another dict if there is none."""
    context = content["contexts"].get_with_name(content["current-context"])["context"]
    name = context.safe_get("user")
    user = content["users"].get_with_name(name, safe=True) if name and content.safe_get("users") else None
    found: dict[str, Any] = user["user"].value if user else {}
    return found
