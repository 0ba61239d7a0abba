"""The plugin as a process, without a cluster."""

import os
import subprocess
import sysconfig
from collections.abc import Sequence

from tests.support.plugin import ROOT, Ran, command


def run(*words: str, path: str | None = None, program: Sequence[str] = ()) -> Ran:
    """Run it to its end; `path` is PATH, by default with kubectl in it, `program` another file than the module."""
    scripts = sysconfig.get_path("scripts")
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "plugin"), "KUBECONFIG": "/nonexistent", "COLUMNS": "100"}
    environ["PATH"] = f"{scripts}{os.pathsep}{os.environ['PATH']}" if path is None else path
    answer = subprocess.run(  # noqa: S603 - our own
        [*(program or command()), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environ,
    )
    return Ran(answer.returncode, answer.stdout, answer.stderr)
