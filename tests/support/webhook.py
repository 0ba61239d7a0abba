"""An admission webhook that takes its time, on loopback, as a tenant's own or a broken policy engine may."""

import base64
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.cluster import Cluster
from tests.support.pki import Authority

HOST: Final = "127.0.0.1"


class SlowWebhook:
    """A webhook that answers each review after some seconds, as a context manager; it allows everything.

    Attributes:
        reviews: How many it has got.
    """

    def __init__(self, cluster: Cluster, directory: Path, namespace: str, resources: tuple[str, ...]) -> None:
        """It is asked for writes of `resources` ("secrets", …) in one namespace."""
        self._cluster = cluster
        self._authority = Authority.create(directory)
        self._namespace = namespace
        self._resources = resources
        self.reviews = 0
        self.seconds = 15.0
        self._end = threading.Event()
        self._server = ThreadingHTTPServer((HOST, 0), self._handler())
        self._server.daemon_threads = True
        context: ssl.SSLContext = self._authority.server_context(HOST)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> Self:
        """Serve, and have the API server ask it."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._cluster.kubectl("apply", "-f", "-", input=json.dumps(self._configuration()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Have it asked no more, and end it."""
        self._end.set()
        self._cluster.kubectl("delete", "validatingwebhookconfiguration", self._namespace)
        self._server.shutdown()
        self._server.server_close()

    def _configuration(self) -> dict[str, Any]:
        rule = {
            "operations": ["CREATE", "UPDATE", "DELETE"],
            "apiGroups": ["*"],
            "apiVersions": ["*"],
            "resources": list(self._resources),
        }
        url = f"https://{HOST}:{self._server.server_address[1]}/"
        webhook = {
            "name": "slow.example.com",
            "clientConfig": {"url": url, "caBundle": _encoded(self._authority.ca_file)},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self._namespace}},
            "rules": [rule],
            "timeoutSeconds": 30,
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": self._namespace},
            "webhooks": [webhook],
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.reviews += 1
                hook._end.wait(hook.seconds)
                review["response"] = {"uid": review["request"]["uid"], "allowed": True}
                body = json.dumps(review).encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:  # who asked has given up
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has
                """Say nothing."""

        return Handler


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
