"""What the program finds around it: the time, and whether a person sits there."""

import os
import sys
import time
from pathlib import Path
from typing import Final

_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def now() -> float:
    """The time in seconds since the epoch."""
    return time.time()


def pause(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def has_person() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def shows_output() -> bool:
    """Whether standard output is a terminal, so that what is printed stays on a screen."""
    return sys.stdout.isatty()


def kubeconfig_named() -> bool:
    """Whether a variable names a kubeconfig."""
    return bool(os.environ.get("KUBECONFIG"))


def pod_namespace() -> str:
    """The namespace of the Pod that this runs in; empty outside of one."""
    try:
        return _POD_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
