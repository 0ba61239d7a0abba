"""The door to the API server: what no server is needed to see."""

import json
from pathlib import Path

import pytest

from tests.support.pki import Authority
from tuinly_operator import kube
from tuinly_operator.kube import ApiFailure, connect


def write_kubeconfig(folder: Path) -> Path:
    """Write one whose authority is in another file, and whose server is not there."""
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority": str(Authority.create(folder).ca_file)}
    kubeconfig = {
        "current-context": "only",
        "contexts": [{"name": "only", "context": {"cluster": "only", "user": "only"}}],
        "clusters": [{"name": "only", "cluster": cluster}],
        "users": [{"name": "only", "user": {"token": "canary-token"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))
    return path


async def test_a_login_that_is_gone_is_a_failed_request_and_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be back in a moment: where files are replaced, or a plugin has trouble of its own."""
    monkeypatch.setattr(kube, "_LOGIN_SECONDS", -1.0)  # read anew for each request
    api = await connect(write_kubeconfig(tmp_path), "", lambda _: None)
    try:
        (tmp_path / "ca.pem").unlink()
        with pytest.raises(ApiFailure, match="no answer from the API server: ConfigException"):
            await api.check_ready()
        assert not api.reachable
    finally:
        await api.close()


async def test_a_login_does_not_show_its_token(tmp_path: Path) -> None:
    api = await connect(write_kubeconfig(tmp_path), "", lambda _: None)
    try:
        login = await api.login()
        assert login.authorization == "Bearer canary-token"
        assert "canary" not in repr(login)
    finally:
        await api.close()
