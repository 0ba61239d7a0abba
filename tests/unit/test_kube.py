"""The door to the API server: what no server is needed to see."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from aiohttp import test_utils, web
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pki import Authority
from tuinly_operator import kube
from tuinly_operator.credential import Key
from tuinly_operator.kube import ApiFailure, connect, yaml_of


def write_kubeconfig(folder: Path, server: str = "https://127.0.0.1:1") -> Path:
    """Write one whose authority is in another file; without another `server`, that is not there."""
    cluster = {"server": server, "certificate-authority": str(Authority.create(folder).ca_file)}
    kubeconfig = {
        "current-context": "only",
        "contexts": [{"name": "only", "context": {"cluster": "only", "user": "only"}}],
        "clusters": [{"name": "only", "cluster": cluster}],
        "users": [{"name": "only", "user": {"token": "canary-token"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))
    return path


# YAML's keys end after 1,024 characters as they are written, up to ten for each of these; Kubernetes' after 317.
@given(st.dictionaries(st.text(max_size=100), st.text()))
def test_a_manifest_is_yaml_and_ascii_whatever_letters_are_in_it(texts: dict[str, str]) -> None:
    """With the real API server: tests/api/test_letters.py."""
    written = yaml_of({"metadata": {"annotations": texts}, "data": {}, "uid": None})
    assert written.isascii()
    assert yaml.safe_load(written) == {"metadata": {"annotations": texts}, "data": {}, "uid": None}


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


async def test_the_lease_is_read_while_very_many_requests_wait_for_their_answers(tmp_path: Path) -> None:
    """With a high --concurrency and a slow API server, a renewal must not wait for its turn."""
    busy, waiting = 150, 0
    enough, end = asyncio.Event(), asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        nonlocal waiting
        waiting += 1
        if waiting == busy:
            enough.set()
        await end.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/readyz", hang)
    async with test_utils.TestServer(app) as server:
        api = await connect(write_kubeconfig(tmp_path, str(server.make_url(""))), "", lambda _: None)
        requests = [asyncio.create_task(api.check_ready()) for _ in range(busy)]
        try:
            async with asyncio.timeout(20):
                await enough.wait()
                assert await api.read_lease(Key("shop", "lease")) is None
        finally:
            end.set()
            await asyncio.gather(*requests, return_exceptions=True)
            await api.close()
