"""Another version of the operator, for rollouts: this one with some differences that show from outside."""

import shutil
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

OTHER_VERSION, OTHER_AGENT, OTHER_NOTE = "0.0.1", "tuinly-operator/0.0.1", "written-by"
DIFFERENCES: Mapping[str, tuple[str, str]] = {
    "edges/oauth.py": ('"User-Agent": "tuinly-operator"', f'"User-Agent": "{OTHER_AGENT}"'),
    "domain/status.py": ("holds a valid access token", "holds an access token"),
    "domain/target.py": (
        "_STATE_VERSION_KEY: STATE_VERSION",
        f'"tuinly.com/{OTHER_NOTE}": "", _STATE_VERSION_KEY: STATE_VERSION',
    ),
}
"""By file, how another version differs: in a request, in a status, and by an annotation that this one does not know."""


def other_version(directory: Path) -> Path:
    """Make a folder with a version of the operator that is as ours but for its number and the differences.

    Raises:
        ValueError: one of the differences is to be made where nothing stands any more.
    """
    package, info = directory / "tuinly_operator", directory / f"tuinly_operator-{OTHER_VERSION}.dist-info"
    shutil.copytree(ROOT / "operator" / "tuinly_operator", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (ours, theirs) in DIFFERENCES.items():
        text = (package / name).read_text()
        if text.count(ours) != 1:
            raise ValueError(f"{name} has changed")
        (package / name).write_text(text.replace(ours, theirs))
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tuinly-operator\nVersion: {OTHER_VERSION}\n")
    return directory
