"""Kustomizations of an admin's own, beside the checkout's."""

import os
from pathlib import Path
from typing import Final

import yaml

DEPLOY: Final = Path(__file__).parents[2] / "deploy"


def write_push_kustomization(folder: Path, namespace: str, prefix: str) -> None:
    """Write the kustomization of an installation with Push, in a namespace and under names of its own."""
    deploy = os.path.relpath(DEPLOY, folder)
    kustomization = {
        "namespace": namespace,
        "namePrefix": prefix,
        "resources": [f"{deploy}/base"],
        "components": [f"{deploy}/components/push"],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
