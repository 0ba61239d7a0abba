"""The operator as users run it: a process of its own, its log lines as data, its metrics and its end."""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.support.guarded import Guarded
from tests.support.waiting import wait_until

Json = dict[str, Any]
Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]

READY_SECONDS = 30.0
"""How long it may take to become ready; it takes 1 to 2 s."""
EXIT_SECONDS = 30.0
"""How long it may take to end: 10 s for what is in flight, 4 s for the Lease, the rest for a busy machine."""
LEADS = "this replica leads now"
"""What it logs when it begins to lead."""


def read_metrics(text: str) -> Metrics:
    """Read what /metrics says: name and labels of each sample, and its value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class OperatorProcess:
    """A running operator, as a context manager. However its starter ends, it does not outlive it.

    Attributes:
        log_file: what it writes, a JSON object per line.
        running: all that were started and whose context has not ended.
    """

    running: ClassVar[list["OperatorProcess"]] = []

    def __init__(
        self,
        *flags: str,
        kubeconfig: Path | None,
        log_file: Path,
        package: Path | None = None,
        launcher: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, "-m", "tuinly_operator"),
    ) -> None:
        """Start it with the flags of `tuinly-operator run`; it listens on a free port of loopback.

        `package` is a folder with another version of the operator, to be run in place of this one, and `program` how it
        is run; `launcher` comes before its arguments, and runs them. Without a kubeconfig it logs in as the environment
        tells.
        """
        self.log_file = log_file
        argv = [*launcher, *program, "run"]
        argv += ["--kubeconfig", str(kubeconfig)] if kubeconfig is not None else []
        argv += ["--listen", "127.0.0.1:0", "--log-format", "json", *flags]
        # Whoever runs the tests may have settings and a cluster of their own.
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("TUINLY_", "KUBE"))}
        if package is not None:  # its lines are none of those whose coverage counts
            environ = {name: value for name, value in environ.items() if not name.startswith("COVERAGE_")}
            environ["PYTHONPATH"] = str(package)
        with log_file.open("wb") as output:
            self._process = Guarded(argv, output=output, env=environ)
        self.running.append(self)

    def __enter__(self) -> Self:
        """Return itself: it is running."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, if it has not ended: by SIGTERM, so that the coverage of its lines is written."""
        self.running.remove(self)
        self._process.end(grace=EXIT_SECONDS)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    @property
    def health_url(self) -> str:
        """Where it serves /healthz, /readyz and /metrics, without a trailing slash."""
        line = self.wait_for_log(lambda line: line["msg"] == "serving health and metrics", READY_SECONDS)
        return f"http://{line['host']}:{line['port']}"

    def wait_ready(self, seconds: float = READY_SECONDS) -> Self:
        """Wait until /readyz says so, and return itself.

        Raises:
            TimeoutError: it does not; the message has what it said.
            RuntimeError: it has ended; the message has its last lines.
        """
        said = ""

        def ready() -> bool:
            nonlocal said
            status, said = self.get("/readyz")
            return status == 200  # noqa: PLR2004 - OK

        try:
            wait_until(ready, what="the operator is ready", seconds=seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it says {said!r}") from None
        return self

    def get(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
        """Return status and text of one of the paths it serves, or of what else is asked there.

        An address that opens more connections than it may is refused for a moment.
        """
        deadline = time.monotonic() + 10
        while True:
            try:
                return self._ask_once(path, method, body)
            except (ConnectionError, urllib.error.URLError) as error:
                reason = getattr(error, "reason", error)
                if not isinstance(reason, ConnectionResetError) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _ask_once(self, path: str, method: str, body: bytes | None) -> tuple[int, str]:
        request = urllib.request.Request(self.health_url + path, body, method=method)  # noqa: S310 - its own URL
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the same
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read().decode()

    def logs(self) -> list[Json]:
        """Return its log lines so far.

        Raises:
            ValueError: a line is no JSON object.
        """
        # What follows the last line end is a line that is just being written.
        lines = self.log_file.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def complaints(self, namespace: str) -> list[Json]:
        """Return its warnings and errors but those about credentials of other namespaces, which other tests left."""
        about = f"{namespace}/"
        return [
            line for line in self.logs() if line["level"] != "info" and line.get("credential", about).startswith(about)
        ]

    def wait_for_log(self, wanted: Callable[[Json], bool], seconds: float = 30.0) -> Json:
        """Return the first log line that is `wanted`, once it is there.

        Raises:
            TimeoutError: it was not there in time.
            RuntimeError: the operator ended without it.
        """

        def find() -> Json | None:
            ended = self.ended
            found = next(filter(wanted, self.logs()), None)
            if found is None and ended:
                raise RuntimeError(f"the operator ended with exit status {self.wait()}:\n{self.last_lines()}")
            return found

        found = wait_until(find, what="a line in the operator's log", seconds=seconds)
        assert found is not None  # noqa: S101 - wait_until returns what is true
        return found

    def metrics(self) -> Metrics:
        """Return its metrics: name and labels of each sample, and its value."""
        return read_metrics(self.get("/metrics")[1])

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of the one sample with exactly these labels, or None where there is none."""
        return self.metrics().get((name, frozenset(labels.items())))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float = EXIT_SECONDS) -> int:
        """Wait for its end and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        return self._process.wait(seconds)

    def terminate(self) -> int:
        """End it as Kubernetes does, by SIGTERM, and return its exit status."""
        self.send(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it as a crash of its machine would."""
        self.send(signal.SIGKILL)
        self.wait()

    def last_lines(self, count: int = 40) -> str:
        """Return the end of its log, for a person."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-count:])
