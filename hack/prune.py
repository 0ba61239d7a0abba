"""Takes out of the image's environment what the operator never imports: most of it are the Kubernetes client's models.

    python3 hack/prune.py /opt/tuinly

The client has a module for each of some 800 types and 60 API groups, 125 MB with bytecode, and loads each when its name
is first used. The operator reads JSON, so few are ever loaded: those are kept, and a test starts what is left.
"""

import shutil
import sys
from pathlib import Path

KEPT = {
    "kubernetes/client/models": [
        "__init__.py",
        "v1_managed_fields_entry.py",
        "v1_object_meta.py",
        "v1_owner_reference.py",
    ],
    "kubernetes/client/api": ["__init__.py"],
    "kubernetes/aio/client/models": ["__init__.py"],
    "kubernetes/aio/client/api": ["__init__.py"],
}
"""Of these folders of site-packages, only these files stay."""

PROGRAMS = ["python", "python3", "tuinly-operator"]
"""Of the environment's programs, only these and the Python that they are links to stay."""


def main() -> None:
    """Prune the environment that the first argument names; what is listed and not there is an error."""
    environment = Path(sys.argv[1])
    [packages] = environment.glob("lib/python3.*/site-packages")
    for folder, kept in KEPT.items():
        prune(packages / folder, kept)
    versioned = f"python3.{sys.version_info.minor}"
    prune(environment / "bin", [*PROGRAMS, versioned])
    shutil.rmtree(environment / "include", ignore_errors=True)


def prune(folder: Path, kept: list[str]) -> None:
    """Remove all of `folder` but the files `kept`."""
    if missing := [name for name in kept if not (folder / name).exists()]:
        sys.exit(f"{folder} has no {', '.join(missing)}: correct the list in {__file__}")
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
