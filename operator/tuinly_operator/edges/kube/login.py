"""Logs in to the API server: by a kubeconfig, or as the Pod's service account."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from kubernetes.aio import client, config

_Connection = TypeVar("_Connection")

_LOGIN_SECONDS: Final = 60.0


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


async def log_in(kubeconfig: Path | None, connect: Callable[[client.Configuration], _Connection]) -> _Connection:
    """Log in and connect: by the kubeconfig if one is named, else as the Pod's service account, else as kubectl would.

    What is wrong with a certificate shows only where `connect` uses it.

    Raises:
        KubeconfigError: none of them can be used.
    """
    configuration = client.Configuration()
    in_cluster = kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ  # noqa: TID251 -- where the library looks
    source = (
        "the Pod's service account"
        if in_cluster
        else f"the kubeconfig {kubeconfig or config.KUBE_CONFIG_DEFAULT_LOCATION}"
    )
    try:
        if in_cluster:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            path = str(kubeconfig) if kubeconfig else None
            load: Any = config.load_kube_config  # untyped
            loader = await load(path, client_configuration=configuration, persist_config=False)
            setattr(configuration, "refresh_api_key_hook", _keep_login_fresh(loader))  # noqa: B010 -- declared as None
        connection = connect(configuration)
    except config.ConfigException:
        problem = "is not complete; check its current-context, cluster and user"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except Exception as error:  # noqa: BLE001 -- the parsers raise what they like; their texts may quote secrets
        problem = f"cannot be understood ({type(error).__name__})"
    else:
        return connection
    message = f"{source} {problem}"
    raise KubeconfigError(message)


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


def _keep_login_fresh(loader: Any) -> Callable[[client.Configuration], Awaitable[None]]:  # noqa: ANN401
    """A hook that reads the login again at most once a minute: token files change, plugins give tokens that end."""
    last = asyncio.get_running_loop().time()

    async def hook(configuration: client.Configuration) -> None:
        nonlocal last
        if asyncio.get_running_loop().time() - last > _LOGIN_SECONDS:
            last = asyncio.get_running_loop().time()
            await loader.load_and_set(configuration)

    return hook
