"""The one door to the Kubernetes client: what the operator asks of the API server, a file for each kind of thing."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kubernetes.aio import client

from tuinly_operator.base.clock import SystemClock  # noqa: TID251 -- for the lead of an only replica
from tuinly_operator.edges.kube.credentials import CREDENTIALS_PAGE, Credentials, credentials_path, event
from tuinly_operator.edges.kube.failures import ApiFailure, NotLeading
from tuinly_operator.edges.kube.leases import Lease, Leases
from tuinly_operator.edges.kube.login import KubeconfigError, Login, log_in, present_login
from tuinly_operator.edges.kube.pods import Pods
from tuinly_operator.edges.kube.requests import PAGE, REQUEST_TIMEOUT, WATCH_SILENCE, rest_client
from tuinly_operator.edges.kube.secrets import Secrets, yaml_of
from tuinly_operator.edges.kube.session import Session
from tuinly_operator.engine.leadership import Leadership

__all__ = [
    "CREDENTIALS_PAGE",
    "PAGE",
    "REQUEST_TIMEOUT",
    "ApiFailure",
    "Kube",
    "KubeconfigError",
    "Lease",
    "Login",
    "NotLeading",
    "Session",
    "connect",
    "credentials_path",
    "event",
    "yaml_of",
]


class Kube(Secrets, Credentials, Pods, Leases):
    """The connection to the API server, with all that the operator asks of it."""

    def __init__(  # noqa: PLR0913 -- what it rests on, and whom it tells
        self,
        configuration: client.Configuration,
        selector: str,
        leadership: Leadership,
        *,
        reachable: Callable[[bool], None],
        pace: Callable[[str, bool], None],
        silence: float = WATCH_SILENCE,
        rest: Callable[[client.Configuration], Any] = rest_client,
    ) -> None:
        """`selector` says by labels which credentials are ours, empty for all. All else is for `Requests`."""
        super().__init__(configuration, leadership, reachable=reachable, pace=pace, silence=silence, rest=rest)
        self.selector = selector

    async def login(self) -> Login:
        """The present login; tokens of a service account change, so ask again when one is refused."""
        return await present_login(self.configuration)


async def connect(  # noqa: PLR0913 -- the same
    kubeconfig: Path | None,
    selector: str = "",
    leadership: Leadership | None = None,
    *,
    reachable: Callable[[bool], None] = lambda _: None,
    pace: Callable[[str, bool], None] = lambda _, __: None,
    silence: float = WATCH_SILENCE,
) -> Kube:
    """Log in, as `log_in` says, and connect; without a lead, this is the only replica. Raises KubeconfigError."""
    leadership = leadership or Leadership.alone(SystemClock())
    make = partial(Kube, selector=selector, leadership=leadership, reachable=reachable, pace=pace, silence=silence)
    return await log_in(kubeconfig, make)
