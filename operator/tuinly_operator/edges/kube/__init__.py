"""The one door to the Kubernetes client: what the operator asks of the API server, a file for each kind of thing."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kubernetes.aio import client

from tuinly_operator.base.clock import Clock, SystemClock  # noqa: TID251 -- for callers that hand in none
from tuinly_operator.edges.kube.credentials import CREDENTIALS_PAGE, Credentials, credentials_path, event
from tuinly_operator.edges.kube.failures import ApiFailure, NotLeading
from tuinly_operator.edges.kube.leases import Lease, Leases
from tuinly_operator.edges.kube.login import KubeconfigError, Login, Renewal, log_in, present_login
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
        renewal: Renewal | None = None,
    ) -> None:
        """`selector` says by labels which credentials are ours, empty for all. All else is for `Requests`.

        `renewal` renews the login of the configuration; without it the login stays as it is.
        """
        super().__init__(configuration, leadership, reachable=reachable, pace=pace, silence=silence, rest=rest)
        self.selector = selector
        self._renewal = renewal
        if renewal:
            renewal.reconnect = self.reconnect

    @property
    def login_trouble(self) -> str:
        """Why the login could not be renewed the last time, empty if it could."""
        return self._renewal.trouble if self._renewal else ""

    async def renew_login(self) -> None:
        """Renew the login whenever that is due; never ends."""
        await (self._renewal.run() if self._renewal else asyncio.Event().wait())

    def refused(self, authorization: str | None) -> None:
        """Have a login renewed that the API server refused."""
        if self._renewal:
            self._renewal.refused(authorization)

    async def login(self) -> Login:
        """The present login; tokens of a service account change, so ask again when one is refused."""
        return await present_login(self.configuration)


async def connect(  # noqa: PLR0913 -- the same
    kubeconfig: Path | None,
    selector: str = "",
    leadership: Leadership | None = None,
    *,
    clock: Clock | None = None,
    reachable: Callable[[bool], None] = lambda _: None,
    pace: Callable[[str, bool], None] = lambda _, __: None,
    silence: float = WATCH_SILENCE,
) -> Kube:
    """Log in, as `log_in` says, and connect; without a lead, this is the only replica. Raises KubeconfigError."""
    clock = clock or SystemClock()
    leadership = leadership or Leadership.alone(clock)
    make = partial(Kube, selector=selector, leadership=leadership, reachable=reachable, pace=pace, silence=silence)
    return await log_in(kubeconfig, lambda renewal: make(renewal.configuration, renewal=renewal), clock)
