"""`make kind-up`, with stand-ins for Docker, kind and kubectl that note what they are told: none of them is needed."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.manifests import VERSION

ROOT = Path(__file__).parents[2]
IMAGE = f"tuinly-operator:{VERSION}"

# kubectl notes, too, which image a file on its standard input names.
STAND_IN = """#!/bin/sh
echo "{name} $*" >> {noted}
case "{name} $*" in
"kind get clusters") echo {clusters} ;;
"kubectl apply -f -") sed -n 's/^ *image: \\([^ ]*\\).*/image \\1/p' >> {noted} ;;
esac
"""


def run_kind(checkout: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- the checkout's own script
        [checkout / "hack" / "kind.sh", "up"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def told(folder: Path, clusters: str = "other") -> list[str]:
    """Run it, and return what the programs were told, one after the other."""
    noted = folder / "noted"
    for name in ("docker", "kind", "kubectl"):
        program = folder / name
        program.write_text(STAND_IN.format(name=name, noted=noted, clusters=clusters))
        program.chmod(0o755)
    checkout = folder / "checkout"
    checkout.mkdir()
    for part in ("crds", "deploy", "pyproject.toml", "Dockerfile"):
        (checkout / part).symlink_to(ROOT / part)
    (checkout / "hack").mkdir()
    for script in (ROOT / "hack").glob("*.*"):
        (checkout / "hack" / script.name).write_bytes(script.read_bytes())
        (checkout / "hack" / script.name).chmod(0o755)
    environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    answer = run_kind(checkout, environ)
    assert answer.returncode == 0, answer.stderr
    return noted.read_text().splitlines()


def test_a_new_cluster_gets_the_image_and_the_operator(tmp_path: Path) -> None:
    """In this order: the image is there before a Pod asks for it, the definition before the operator."""
    lines = told(tmp_path)
    steps = [
        "kind create cluster --name tuinly",
        f"docker build --tag {IMAGE}",
        f"kind load docker-image {IMAGE} --name tuinly",
        "kubectl apply -f crds/",
        "kubectl apply -f -",
        f"image {IMAGE}",
        "kubectl -n tuinly-system rollout restart",
        "kubectl -n tuinly-system rollout status",
    ]
    places = [next(n for n, line in enumerate(lines) if line.startswith(step)) for step in steps]
    assert places == sorted(places)


def test_a_cluster_that_is_there_is_taken(tmp_path: Path) -> None:
    lines = told(tmp_path, clusters="tuinly")
    assert not [line for line in lines if line.startswith("kind create")]
    assert f"kind load docker-image {IMAGE} --name tuinly" in lines


@pytest.mark.parametrize("missing", ["docker", "kind"])
def test_what_is_missing_is_said(tmp_path: Path, missing: str) -> None:
    for name in {"docker", "kind"} - {missing}:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    for tool in ("sh", "dirname", "sed"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    answer = run_kind(ROOT, {"PATH": str(tmp_path)})
    assert answer.returncode == 1
    assert missing in answer.stderr.lower()
