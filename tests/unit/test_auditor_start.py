"""The auditor where there is nothing to audit: it says so, in time, and leaves no thread behind."""

import json
import socket
import threading
from pathlib import Path

import pytest

from tests.support import auditor
from tests.support.auditor import Auditor
from tests.support.sandbox import SandboxAdmin

NOWHERE = SandboxAdmin("http://127.0.0.1:1")


def start(kubeconfig: Path) -> None:
    """Start an auditor that cannot succeed."""
    try:
        Auditor(kubeconfig, NOWHERE).__enter__()
    finally:
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("auditor")]


def test_no_kubeconfig(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("of-no-worth", encoding="utf-8")
    with pytest.raises(ValueError, match="kubeconfig is no kubeconfig") as raised:
        start(kubeconfig)
    assert "of-no-worth" not in str(raised.value)


def test_no_api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor, "START_TIMEOUT", 0.5)
    with socket.socket() as held:  # bound, but nobody listens
        held.bind(("127.0.0.1", 0))
        server = f"https://127.0.0.1:{held.getsockname()[1]}"
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": server}}],
                    "users": [{"name": "u", "user": {"token": "of-no-worth"}}],
                }
            ),
            encoding="utf-8",
        )
        with pytest.raises(TimeoutError, match=r"sees nothing of the cluster: .*127\.0\.0\.1"):
            start(kubeconfig)
