"""Helm, as a user of the chart has it: our own program, a cluster, and nothing of the machine's."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.binaries import find_helm

Json = dict[str, Any]

CHART = Path(__file__).parents[2] / "deploy" / "chart"


class HelmError(Exception):
    """A helm command that failed; the message is what it said."""


class Helm:
    """Helm for one cluster, or for none."""

    def __init__(self, folder: Path, kubeconfig: Path | None = None) -> None:
        """Keep Helm's own files in `folder`."""
        self._program = find_helm()
        homes = {f"HELM_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        # An empty kubeconfig where there is no cluster: helm must not find one of the machine's.
        self._environ = os.environ | homes | {"KUBECONFIG": str(kubeconfig or os.devnull)}

    def run(self, *arguments: str, values: Json | None = None) -> str:
        """Run helm, with values on standard input if there are any, and return what it prints.

        Raises:
            HelmError: it failed.
        """
        answer = subprocess.run(  # noqa: S603 -- our own helm
            [self._program, *arguments, *(["--values", "-"] if values is not None else [])],
            input=yaml.safe_dump(values or {}),
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if answer.returncode != 0:
            raise HelmError(answer.stderr + answer.stdout)
        return answer.stdout

    def template(self, values: Json | None = None, *, release: str = "tuinly-operator") -> list[Json]:
        """Return the chart's objects for a release, without its test."""
        command = ("template", release, str(CHART), "--namespace", "tuinly-system", "--skip-tests")
        return [each for each in yaml.safe_load_all(self.run(*command, values=values or {})) if each]
