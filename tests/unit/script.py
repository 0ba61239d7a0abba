"""A script of hack/ as a module: they are in no package."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final

_HACK: Final = Path(__file__).parents[2] / "hack"


def load(name: str) -> ModuleType:
    """Run a script's definitions; return the module."""
    spec = importlib.util.spec_from_file_location(name, _HACK / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
