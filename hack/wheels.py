"""Builds wheels from sources by what this environment has, and nothing else: for the plugin and for releases."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def build_wheel(source: Path, folder: Path, environ: Mapping[str, str] | None = None) -> None:
    """Build the wheel of `source` into `folder`. setuptools leaves its work beside the sources, so give it a copy."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", folder, source], env=environ, check=True)  # noqa: S603 -- words of our own
