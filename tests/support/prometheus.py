"""A real Prometheus on loopback, which scrapes what a test names, each second."""

import json
import shutil
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.support.binaries import BinariesError, find_prometheus
from tests.support.guarded import Guarded
from tests.support.waiting import wait_until


def programs() -> dict[str, str]:
    """Which there are, by major version: Debian's (`make extras`), and a newer one (`make prometheus`)."""
    found = {"2": shutil.which("prometheus")}
    with suppress(BinariesError):
        found["3"] = str(find_prometheus())
    return {version: program for version, program in found.items() if program is not None}


class Prometheus:
    """One that answers."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now.

        Raises:
            AssertionError: it is none.
        """
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/query?{query}", timeout=30) as answer:  # noqa: S310 - its own URL
                found: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{expression}: {error.read().decode()}") from None
        return found

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5):  # noqa: S310 - its own URL
                return True
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass  # nobody listens yet
        return False


@contextmanager
def running(program: str, folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """Run one for as long as the context lasts; `targets` are host and port each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    job = {"job_name": "tuinly", "honor_labels": True, "static_configs": [{"targets": list(targets)}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config))
    flags = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = Guarded([program, *flags], output=log)
        try:
            server = Prometheus(f"http://{address}")
            wait_until(server.is_ready, what="Prometheus answers")
            yield server
        finally:
            process.end(grace=10)
