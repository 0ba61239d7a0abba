"""An exec plugin of a kubeconfig for tests: a real program that prints what it is told to, or hangs with a child."""

import json
import shlex
from pathlib import Path
from typing import Any, Final

VERSION: Final = "client.authentication.k8s.io/v1"
"""Of the ExecCredential that it prints."""


class Plugin:
    """An exec plugin that prints an answer, or hangs with a child; and a kubeconfig that names it."""

    def __init__(self, folder: Path, server: str = "http://127.0.0.1:1", **cluster: str) -> None:
        """Make both in a folder; before it is told what to print, it fails."""
        self._folder = folder
        self._answer, self._hang = folder / "answer", folder / "hang"
        self._runs, self._processes = folder / "runs", folder / "processes"
        self._runs.touch()
        script = folder / "plugin"
        names = {path.name: shlex.quote(str(path)) for path in (self._answer, self._hang, self._runs, self._processes)}
        script.write_text(
            "#!/bin/sh\n"
            f"echo 1 >> {names['runs']}\n"
            f"if [ -e {names['hang']} ]; then sleep 600 & echo $$ $! > {names['processes']}.new\n"
            f"mv {names['processes']}.new {names['processes']}; wait; fi\n"
            f"echo canary-error >&2\n. {names['answer']}\n"
        )
        script.chmod(0o700)
        self.kubeconfig = folder / "kubeconfig"
        user = {"exec": {"apiVersion": VERSION, "command": str(script), "env": [{"name": "SEEN", "value": "canary"}]}}
        self.kubeconfig.write_text(json.dumps(kubeconfig(server, user, **cluster)))

    @property
    def runs(self) -> int:
        """How often it was run."""
        return self._runs.read_text().count("1")

    def prints(self, **status: str) -> None:
        """Have it print an ExecCredential."""
        printed = {"apiVersion": VERSION, "kind": "ExecCredential", "status": status}
        self.does(f"printf %s {shlex.quote(json.dumps(printed))}")

    def does(self, script: str) -> None:
        """Have it do this."""
        new = self._answer.with_suffix(".new")
        new.write_text(script)
        new.rename(self._answer)

    def hangs(self) -> None:
        """Have it hang, from the next run on."""
        self._hang.touch()

    def goes_on(self) -> None:
        """Have it hang no longer."""
        self._hang.unlink()

    def hanging(self) -> list[int]:
        """The process that hung last, and its child; empty if none did."""
        return [int(pid) for pid in self._processes.read_text().split()] if self._processes.exists() else []


def kubeconfig(server: str, user: dict[str, Any], **cluster: str) -> dict[str, Any]:
    """Return a kubeconfig with one context; `cluster` is what it says besides about the cluster."""
    name = "only"
    return {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [{"name": name, "cluster": {"server": server, **cluster}}],
        "users": [{"name": name, "user": user}],
    }
