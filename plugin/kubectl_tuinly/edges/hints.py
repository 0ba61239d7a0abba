"""What completion asks kubectl, briefly: nobody waits long for a hint, and where there is none, nothing is said."""

import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

_SECONDS: Final = 3


def contexts(flags: Sequence[str]) -> list[str]:
    """The contexts of the kubeconfig."""
    return _ask(["config", "get-contexts", "--output=name", *(f for f in flags if f != "--context")])


def namespaces(flags: Sequence[str]) -> list[str]:
    """The namespaces, as far as the user may list them."""
    return [name.removeprefix("namespace/") for name in _ask(["get", "namespaces", "--output=name", *flags])]


def credentials(flags: Sequence[str], namespace: str | None) -> list[str]:
    """The credentials of a namespace, or of kubectl's own."""
    where = ["--namespace", namespace] if namespace else []
    found = _ask(["get", "tuinlycredentials.tuinly.com", "--output=name", *where, *flags])
    return [name.partition("/")[2] for name in found]


def _ask(words: Sequence[str]) -> list[str]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return []
    try:
        answer = subprocess.run(  # noqa: S603 -- the user's own kubectl
            [kubectl, f"--request-timeout={_SECONDS}s", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return []
    return answer.stdout.split() if answer.returncode == 0 else []
