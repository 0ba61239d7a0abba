"""The image of a Pod's first container, which holds its namespaces: one program, in an archive as OCI describes it."""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

from tests.support.node.files import PAUSE_IMAGE

_TYPE = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_pause_image(program: Path, archive: Path) -> None:
    """Write the image of `program`, whose only file that is, to `archive`."""
    with tarfile.open(archive, "w") as out:
        layer = _tar("pause", program.read_bytes(), 0o755)
        platform_ = {"architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()), "os": "linux"}
        config = {
            **platform_,
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": _add(out, json.dumps(config).encode(), "config.v1+json"),
            "layers": [_add(out, layer, "layer.v1.tar")],
        }
        described = _add(out, json.dumps(manifest).encode(), "manifest.v1+json")
        index = {
            "schemaVersion": 2,
            "manifests": [
                {**described, "platform": platform_, "annotations": {"io.containerd.image.name": PAUSE_IMAGE}}
            ],
        }
        _write(out, "index.json", json.dumps(index).encode())
        _write(out, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


def _add(out: tarfile.TarFile, blob: bytes, kind: str) -> dict[str, object]:
    """Add a blob and return its descriptor."""
    digest = hashlib.sha256(blob).hexdigest()
    _write(out, f"blobs/sha256/{digest}", blob)
    return {"mediaType": f"{_TYPE}.{kind}", "digest": f"sha256:{digest}", "size": len(blob)}


def _tar(name: str, content: bytes, mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        _write(out, name, content, mode)
    return buffer.getvalue()


def _write(out: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(content), mode
    out.addfile(file, io.BytesIO(content))
