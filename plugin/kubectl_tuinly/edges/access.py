"""The one door to the API server: through `kubectl proxy`, so with whatever login, proxy and impersonation kubectl has.

The proxy listens on a socket in a folder that only this user may enter, for as long as the command runs.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

from kubectl_tuinly.edges.around import kubeconfig_named, pod_namespace
from kubectl_tuinly.outcome import Exit, StopError
from tuinly_operator.base.foreign_json import loads

Json = dict[str, Any]

_REQUEST_SECONDS: Final = 60.0  # longer than kubectl's own patience with a server that does not answer
_PAGE: Final = 500  # objects of a list in one answer
_LOG_LINE: Final = re.compile(r"[EFIW][0-9]{4} ")  # klog's
_WATCH_SECONDS: Final = 300
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class RefusedError(Exception):
    """The API server refused a request; `status` is the HTTP status, the text is the server's own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def denied(self) -> bool:
        """Whether the user may not ask this."""
        return self.status == HTTPStatus.FORBIDDEN

    @property
    def absent(self) -> bool:
        """Whether there is no such thing."""
        return self.status == HTTPStatus.NOT_FOUND


class _Connection(HTTPConnection):
    """HTTP over a socket of the file system."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Access:
    """The API server, as kubectl reaches it with these flags of its own. kubectl starts with the first request."""

    def __init__(self, flags: Sequence[str]) -> None:
        self._flags = flags
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._proxy: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._said: list[str] = []
        self._over = False  # from then on no proxy is started, whichever thread still asks

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._end()

    # Requests ---------------------------------------------------------------------------------------------------------

    def get(self, path: str, *, metadata_only: bool = False, **query: str) -> Json:
        """Read an object; `metadata_only` has the server send nothing else of it. Raises RefusedError."""
        accept = {"Accept": METADATA_ONLY} if metadata_only else {}
        return self._json("GET", path, query, accept)

    def list(self, path: str, **query: str) -> list[Json]:
        """Read all objects of a collection. Raises RefusedError."""
        found: list[Json] = []
        page: Json = {}
        while not found or page["metadata"].get("continue"):
            more = {"continue": page["metadata"]["continue"]} if page else {}
            page = self._json("GET", path, {"limit": str(_PAGE), **query, **more})
            if not isinstance(page.get("items"), list) or not isinstance(page.get("metadata"), dict):
                raise _stranger()
            found += page["items"]
            if not page["items"]:
                break
        return found

    def merge(self, path: str, patch: Json) -> Json:
        """Change an object by a merge patch (RFC 7396), and return what it became. Raises RefusedError."""
        query = {"fieldManager": "kubectl-tuinly"}
        return self._json("PATCH", path, query, {"Content-Type": "application/merge-patch+json"}, json.dumps(patch))

    def post(self, path: str, body: Json) -> Json:
        """Create an object, and return it. Raises RefusedError."""
        return self._json("POST", path, {}, {"Content-Type": "application/json"}, json.dumps(body))

    def text(self, path: str, **query: str) -> str:
        """Read what is no JSON, such as logs. Raises RefusedError."""
        return self._send("GET", path, query).read().decode(errors="replace")

    def watch(self, path: str, **query: str) -> Iterator[Json]:
        """The events of a collection, until the server ends the watch. Raises RefusedError."""
        limit = {"watch": "true", "timeoutSeconds": str(_WATCH_SECONDS)}
        answer = self._send("GET", path, {**query, **limit}, timeout=2.0 * _WATCH_SECONDS)
        with suppress(OSError, HTTPException, ValueError):  # it may break, in a line too: then list anew
            for line in answer:
                yield loads(line)

    def namespace(self) -> str:
        """The namespace that kubectl takes where none is named."""
        words = ("config", "view", "--minify", "--output", "jsonpath={..namespace}")
        answer = subprocess.run(  # noqa: S603 -- the user's own kubectl
            [_kubectl(), *words, *self._flags],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if answer.returncode == 0:
            return answer.stdout.strip() or "default"
        # Without any kubeconfig kubectl goes by the Pod that it runs in.
        if not kubeconfig_named() and "--kubeconfig" not in self._flags and pod_namespace():
            return pod_namespace()
        raise StopError(Exit.UNCHECKED, f"kubectl says: {_first_line(answer.stderr)}")

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
    ) -> Json:
        try:
            answer = loads(self._send(method, path, query, headers, body).read())
        except ValueError:
            raise _stranger() from None
        if not isinstance(answer, dict):
            raise _stranger()
        return answer

    def _send(  # noqa: PLR0913, PLR0917 -- the parts of a request
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
        timeout: float = _REQUEST_SECONDS,
    ) -> HTTPResponse:
        connection, url = _Connection(self._socket(), timeout), path + (f"?{urlencode(query)}" if query else "")
        try:
            # Each request has a connection of its own, which ends with its answer.
            connection.connect()
            with suppress(BrokenPipeError, ConnectionResetError):  # who refuses at once answers, and reads no more
                connection.request(method, url, body, {"Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            if answer.status < HTTPStatus.BAD_REQUEST:
                return answer
            told = answer.read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            connection.close()
            raise StopError(Exit.UNCHECKED, f"the API server does not answer ({type(error).__name__})") from None
        raise _failure(answer.status, told)

    # kubectl ----------------------------------------------------------------------------------------------------------

    def _socket(self) -> Path:
        """The proxy's socket; the proxy is started if it does not run yet, or any more, or its socket has gone."""
        if self._over:
            raise StopError(Exit.UNCHECKED, "the command has ended")
        path = Path(self._folder.name, "api") if self._folder else None
        if path is None or self._proxy is None or self._proxy.poll() is not None or not path.exists():
            self._end()
            self._folder = tempfile.TemporaryDirectory(prefix="kubectl-tuinly-")  # of mode 0700
            path = Path(self._folder.name, "api")
            self._start(path)
        return path

    def _start(self, path: Path) -> None:
        asks = None if sys.stdin.isatty() else subprocess.DEVNULL  # a login may ask for something
        command = [_kubectl(), "proxy", f"--unix-socket={path}", *self._flags]
        # No buffers: what a login has started may hold the other end for long, and a buffer that is waited for cannot
        # be closed.
        self._proxy = subprocess.Popen(  # noqa: S603 -- the user's own kubectl
            command, stdin=asks, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self._said = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        if self._proxy.stdout is None or not self._proxy.stdout.readline():
            self._listener.join(timeout=5.0)
            raise StopError(Exit.UNCHECKED, f"kubectl says: {_first_line(''.join(self._said))}")

    def _end(self) -> None:
        if self._proxy is not None and self._listener is not None:
            self._proxy.terminate()
            self._proxy.wait()
            self._listener.join(timeout=1.0)
            for pipe in (self._proxy.stdout, self._proxy.stderr):
                if pipe is not None:
                    pipe.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _listen(self) -> None:
        """Pass on what a login says to the user, such as where to enter a code; failures come with the answers."""
        if self._proxy is None or self._proxy.stderr is None:
            return
        failed, said = False, self._said
        with suppress(ValueError, OSError):  # it was closed meanwhile
            for raw in self._proxy.stderr:
                line = raw.decode(errors="replace")
                failed = failed or bool(_LOG_LINE.match(line)) or line.startswith("error: ")
                said.append(line)
                if not failed:
                    sys.stderr.write(line)
                    sys.stderr.flush()


def _kubectl() -> str:
    found = shutil.which("kubectl")
    if found is None:
        raise StopError(Exit.UNCHECKED, "there is no kubectl on PATH; this plugin logs in by it, so install it")
    return found


def _failure(status: int, told: str) -> Exception:
    """What an answer other than a good one means: a refusal by the API server, or that it was not reached."""
    try:
        said = loads(told)
        message = said["message"] if said["kind"] == "Status" else ""
    except (ValueError, KeyError, TypeError):
        message = ""
    if status == HTTPStatus.UNAUTHORIZED:
        return StopError(Exit.UNCHECKED, "the API server does not know you; log in again, as for any kubectl command")
    if not message and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return StopError(Exit.UNCHECKED, f"the API server cannot be reached: {_first_line(told)}")
    return RefusedError(status, message or _first_line(told))


def _stranger() -> StopError:
    return StopError(Exit.UNCHECKED, "what answers is no API server's; is it the right cluster?")


def _first_line(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip()), "nothing")
    return first.removeprefix("error: ").strip()
