"""Any node on this machine whose namespaces can be entered: what tests do in it."""

import ctypes
import os
import subprocess
import time
import urllib.request
from abc import abstractmethod
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.cluster.any_cluster import Cluster

READY_SECONDS = 120.0
"""How long it may take to become ready, and a program of it to be started again; on two idle cores it takes 7 s."""
CLONE_NEWNET = 0x40000000
"""setns(2): the descriptor must be a network namespace's."""


class NodeError(Exception):
    """The node does not start, or does not do what it is told; the message quotes what is known of why."""


class AnyNode(Cluster):
    """A running node, as a context manager, in its network.

    The thread that calls `enter_network` moves there, and so do the threads and processes that it starts from then on:
    they reach API server, Services and Pods, and nothing else.

    Attributes:
        name: the node's, as Kubernetes has it.
        pid: its first process, which is in all of its namespaces.
        enforces_policies: whether it is known to enforce network policies.
    """

    enforces_policies = False
    name: str
    pid: int

    @abstractmethod
    def stop(self) -> None:
        """End all of it."""

    @abstractmethod
    def load(self, archive: Path) -> None:
        """Give the node an image from an archive, by the name in it, which should begin with a registry.

        Raises:
            NodeError: it does not take it.
        """

    @abstractmethod
    def program_pid(self, program: str) -> int | None:
        """Return the number that one of its programs has inside; None while it is about to be started again."""

    def __enter__(self) -> Self:
        """Return itself: it is ready."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()

    def restart(self, program: str) -> None:
        """End one of the node's programs, such as the kubelet, by SIGKILL, and wait until it has been started again."""
        before = self.program_pid(program)
        self.run("kill", "-KILL", str(before))
        self.await_(lambda: self.program_pid(program) not in {before, None}, f"{program} to be started again")

    def healthy(self, url: str) -> bool:
        """Whether a GET of `url`, in the node's network, is answered with 200."""
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 -- the node's own
                return bool(answer.status == HTTPStatus.OK)
        except OSError:
            return False

    def run(self, *argv: str) -> str:
        """Run a program in all of the node's namespaces and return what it says.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        return subprocess.run(  # noqa: S603 -- what a test wants to run
            ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", *argv],  # noqa: S607 -- programs.py found it
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def enter_network(self) -> None:
        """Move this thread into the node's network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/proc/{self.pid}/ns/net").open("rb") as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def takes_pods(self) -> bool:
        """Whether the node is ready, and the namespace has what is mounted into each of its Pods."""
        path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        ready = self.kubectl("get", "node", self.name, "--output", path, check=False)
        needed = self.kubectl("get", "serviceaccount/default", "configmap/kube-root-ca.crt", "-o", "name", check=False)
        return ready == "True" and needed.count("\n") == 2  # noqa: PLR2004 -- one line each

    def await_(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something of the node.

        Raises:
            NodeError: it does not come in time, or the node has ended.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            if self.has_ended() or time.monotonic() > deadline:
                state = "ended" if self.has_ended() else "not come up"
                raise NodeError(f"the node has {state}, waiting for {what}:\n{self.tell()}")
            time.sleep(0.1)

    def has_ended(self) -> bool:
        """Whether nothing can be expected of it any more."""
        return False

    def tell(self) -> str:
        """Return what may explain why it does not do what it should."""
        return ""
