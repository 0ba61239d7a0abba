"""Stands in kubectl's place: serves the answers of a file on the socket that it is told, and notes requests.

    fake_kubectl.py ANSWERS.json proxy --unix-socket=PATH …

The file holds `says`, lines for standard error before anything else, `fails`, a line instead of a start, and `answers`:
for each path a list of [status, body], of which each request takes one, and the last one stays.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers by the file."""

    def address_string(self) -> str:
        """A socket of the file system has no address."""
        return "here"

    def log_message(self, *words: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer, and note what was asked."""
        with Path(sys.argv[1]).with_suffix(".asked").open("a") as file:
            file.write(json.dumps([self.path, self.headers.get("Accept")]) + "\n")
        answers: list[Any] = ANSWERS["answers"][self.path.partition("?")[0]]
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_PATCH = do_GET  # noqa: N815 - the body stays unread, as by a server that refuses a request for its sender


class Server(ThreadingMixIn, UnixStreamServer):
    """One thread a request."""

    daemon_threads = True


ANSWERS = json.loads(Path(sys.argv[1]).read_text())
if "fails" in ANSWERS:
    sys.exit(ANSWERS["fails"])
for line in ANSWERS.get("says", ()):
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
place = next(word.partition("=")[2] for word in sys.argv if word.startswith("--unix-socket="))
with Server(place, Handler) as server:
    print("Starting to serve on", place, flush=True)  # noqa: T201 - as kubectl does
    server.serve_forever()
