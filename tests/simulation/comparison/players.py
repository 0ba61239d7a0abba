"""Whom sequences are sent to: the model, and a real API server."""

import json
import time
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import urlencode

from kubernetes import config

from tests.simulation.apiserver import Answer, Request, Server
from tests.support.cluster import Cluster
from tests.support.crd import CRD

Json = dict[str, Any]

_TIMEOUT = 30.0  # seconds; the machine may be busy


class Model:
    """The model, as an API server that answers at once."""

    def __init__(self) -> None:
        """An empty cluster that knows TuinlyCredentials."""
        self.server = Server(Random(0), [CRD])  # noqa: S311 - no secret

    def send(self, request: Request) -> Answer:
        """Send a request and return its answer."""
        return self.server.handle(request, time.time())

    def watch(self, request: Request, until: Callable[[Json], bool]) -> list[Json]:
        """Watch until an event comes that ends it, and return all events."""
        watch = self.server.watch(request, time.time())
        assert not isinstance(watch, Answer)  # noqa: S101 - for the type checker
        events: list[Json] = []
        for line in watch.poll(time.time()):
            events.append(json.loads(line))
            if until(events[-1]):
                break
        watch.end()
        return events


class Real:
    """A real API server, asked as its admin."""

    def __init__(self, cluster: Cluster) -> None:
        """Log in; nothing is asked yet."""
        login: Any = config.new_client_from_config  # untyped
        api = login(str(cluster.kubeconfig))
        self._host = api.configuration.host
        self._authorization = api.configuration.get_api_key_with_prefix("BearerToken")
        self._pool: Any = api.rest_client.pool_manager

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def send(self, request: Request) -> Answer:
        """Send a request and return its answer."""
        response = self._send(request)
        try:
            return Answer(response.status, {}, response.read())
        finally:
            response.release_conn()

    def watch(self, request: Request, until: Callable[[Json], bool]) -> list[Json]:
        """Watch until an event comes that ends it, and return all events."""
        response = self._send(request)
        events: list[Json] = []
        try:
            for line in response:
                events.append(json.loads(line))
                if until(events[-1]):
                    break
        finally:
            response.close()
        return events

    def _send(self, request: Request) -> Any:  # noqa: ANN401 - the library does not say what its pool is
        headers = {"Accept": "application/json", "Content-Type": "application/json", **request.headers}
        return self._pool.request(
            request.method,
            f"{self._host}{request.path}" + (f"?{urlencode(request.query)}" if request.query else ""),
            body=request.body or None,
            headers={**headers, "Authorization": self._authorization},
            timeout=_TIMEOUT,
            preload_content=False,
        )
