"""The door to the API server: what no server is needed to see."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import test_utils, web
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pki import Authority
from tuinly_operator.base.clock import SystemClock
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.target import SecretMeta
from tuinly_operator.edges.kube import ApiFailure, Kube, Lease, NotLeading, connect, requests, yaml_of
from tuinly_operator.engine.leadership import Leadership


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
@pytest.mark.rule("TARGET-6")
@given(st.dictionaries(st.text(max_size=100), st.text()))
def test_a_manifest_is_yaml_and_ascii_whatever_letters_are_in_it(texts: dict[str, str]) -> None:
    """With the real API server: tests/api/test_letters.py."""
    written = yaml_of({"metadata": {"annotations": texts}, "data": {}, "uid": None})
    assert written.isascii()
    assert yaml.safe_load(written) == {"metadata": {"annotations": texts}, "data": {}, "uid": None}


async def test_a_login_does_not_show_its_token(tmp_path: Path) -> None:
    api = await connect(write_kubeconfig(tmp_path))
    try:
        login = await api.login()
        assert login.authorization == "Bearer canary-token"
        assert "canary" not in repr(login)
    finally:
        await api.close()


@pytest.mark.rule("OUT-13")
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
        api = await connect(write_kubeconfig(tmp_path, str(server.make_url(""))))
        requests = [asyncio.create_task(api.check_ready()) for _ in range(busy)]
        try:
            async with asyncio.timeout(20):
                await enough.wait()
                assert await api.read_lease(NamespacedName("shop", "lease")) is None
        finally:
            end.set()
            await asyncio.gather(*requests, return_exceptions=True)
            await api.close()


class OddServer:
    """An API server that answers a read of a Secret by whatever a webhook might choose, and for itself as it is told.

    Attributes:
        answer: What the read gets: a status, 0 for none in time.
        own: The same for /readyz.
        checks: How often it was asked about itself.
    """

    def __init__(self) -> None:
        self.answer, self.own, self.checks = 504, 200, 0
        self.headers: dict[str, str] = {}
        self.end = asyncio.Event()
        app = web.Application()
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/{path:.*}", self._read)
        self.server = test_utils.TestServer(app)

    async def _ready(self, _: web.Request) -> web.Response:
        self.checks += 1
        return await self._give(self.own)

    async def _read(self, _: web.Request) -> web.Response:
        return await self._give(self.answer)

    async def _give(self, status: int) -> web.Response:
        if not status:
            await self.end.wait()
        return web.json_response({"reason": "Word"}, status=status or 200, headers=self.headers)


@pytest.fixture
async def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[OddServer, Kube]]:
    odd = OddServer()
    monkeypatch.setattr(requests, "REQUEST_TIMEOUT", 0.3)
    monkeypatch.setattr(requests, "_OWN_LIMIT", aiohttp.ClientTimeout(total=0.3))
    async with odd.server as server:
        api = await connect(write_kubeconfig(tmp_path, str(server.make_url(""))))
        yield odd, api
        odd.end.set()
        await api.close()


async def read(api: Kube) -> ApiFailure:
    with pytest.raises(ApiFailure) as failed:
        await api.read_secret(NamespacedName("shop", "client"))
    return failed.value


@pytest.mark.rule("OUT-2")
@pytest.mark.parametrize("answer", [0, 502, 503, 504])
@pytest.mark.parametrize("own", [0, 200, 403, 500, 503])
async def test_it_is_out_of_reach_only_where_it_does_not_answer_for_itself(
    odd: tuple[OddServer, Kube], answer: int, own: int
) -> None:
    """A time-out or a 504 of one request may be the choice of a webhook that tenants run."""
    server, api = odd
    server.answer, server.own = answer, own
    assert (await read(api)).status == (answer or None)
    assert await api.answers() is (own in (200, 403))
    assert api.reachable is (own in (200, 403))


@pytest.mark.rule("OUT-3")
@pytest.mark.parametrize("answer", [401, 403])
@pytest.mark.parametrize("own", [0, 200, 403, 500, 503])
async def test_a_refusal_is_believed_only_of_a_server_that_is_ready(
    odd: tuple[OddServer, Kube], answer: int, own: int
) -> None:
    """One that has just started knows no rights yet, and refuses everybody everything."""
    server, api = odd
    server.answer, server.own = answer, own
    assert (await read(api)).status == (answer if own in (200, 403) else None)
    assert api.reachable is (own in (200, 403))


@pytest.mark.rule("OUT-3")
@pytest.mark.parametrize("answer", [0, 401, 403, 503])
async def test_what_fails_right_after_an_outage_counts_as_a_part_of_it(
    odd: tuple[OddServer, Kube], monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    """A write that hung until then was held up by no webhook, and a refusal may be one of the last of its start."""
    server, api = odd
    monkeypatch.setattr(requests, "_SETTLING", 0.5)
    server.own = 500
    await read(api)
    assert not await api.answers()
    server.answer, server.own = answer, 200
    await api.check_ready()
    assert api.reachable
    assert (await read(api)).out_of_reach
    assert not await api.answers()
    await asyncio.sleep(0.6)
    assert (await read(api)).status == (answer or None)
    assert await api.answers()


@pytest.mark.rule("OUT-2")
@pytest.mark.parametrize("answer", [400, 404, 409, 429, 500])
async def test_no_other_answer_makes_it_doubtful(odd: tuple[OddServer, Kube], answer: int) -> None:
    server, api = odd
    server.answer, server.own = answer, 503
    await read(api)
    assert await api.answers()
    assert server.checks == 0


@pytest.mark.rule("OUT-2")
async def test_it_is_asked_about_itself_once_for_all_who_have_doubts(odd: tuple[OddServer, Kube]) -> None:
    server, api = odd
    server.own = 0
    await asyncio.gather(*(read(api) for _ in range(50)))
    assert not await api.answers()
    assert server.checks == 1


@pytest.mark.rule("RETRY-5")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("7", 7),
        ("299", 299),
        ("2147483647", 300),
        ("-1", 0),
        ("soon", 0),
        ("1.5", 0),
        ("\u0663", 0),
        ("", 0),
    ],
)
async def test_for_how_long_it_asks_to_be_left_alone(
    odd: tuple[OddServer, Kube], text: str | None, seconds: float
) -> None:
    server, api = odd
    server.answer, server.headers = 429, {} if text is None else {"Retry-After": text}
    assert (await read(api)).retry_after == seconds


@pytest.mark.rule("RETRY-5")
@pytest.mark.parametrize("answer", [0, 403, 500])
async def test_a_failure_tells_which_request_it_was(odd: tuple[OddServer, Kube], answer: int) -> None:
    server, api = odd
    server.answer = answer
    assert (await read(api)).request == "GET /api/v1/namespaces/shop/secrets/client"


WRITES: dict[str, Callable[[Kube, NamespacedName], Awaitable[object]]] = {
    "apply": lambda api, key: api.apply_secret(key, {"metadata": {}}),
    "delete": lambda api, key: api.delete_secret(
        key, SecretMeta.from_object({"metadata": {"uid": "u", "resourceVersion": "7"}})
    ),
    "status": lambda api, key: api.write_status(key, "u", {}),
    "event": lambda api, key: api.post_event(key.namespace, {}),
}


@pytest.mark.rule("REPL-11")
@pytest.mark.parametrize("write", WRITES)
async def test_whether_this_replica_leads_is_looked_at_in_the_step_that_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    """It may be stopped for long between any two steps, and another one leads when it goes on."""
    leadership = Leadership.alone(SystemClock())
    api = await connect(write_kubeconfig(tmp_path), leadership=leadership)

    async def log_in(_: str) -> None:
        await asyncio.sleep(0)
        leadership.end()

    monkeypatch.setattr(api.configuration, "get_api_key_with_prefix", log_in)
    with pytest.raises(NotLeading):
        await WRITES[write](api, NamespacedName("shop", "storefront"))
    with pytest.raises(ApiFailure) as failed:  # but whoever stands by reads, and takes part in the election
        await api.write_lease(NamespacedName("shop", "lease"), Lease("", 15), at=0.0)
    assert not isinstance(failed.value, NotLeading)
    await api.close()


class Pages:
    """An API server that lists objects by pages; `large` of them have a MiB of annotations each."""

    def __init__(self, count: int, large: range) -> None:
        self.count, self.large = count, large
        self.sent: list[int] = []  # bytes of each answer
        app = web.Application()
        app.router.add_get("/api/v1/secrets", self._list)
        self.server = test_utils.TestServer(app)

    async def _list(self, request: web.Request) -> web.Response:
        begin, limit = int(request.query.get("continue", 0)), int(request.query["limit"])
        end = min(begin + limit, self.count)
        names = [f"{number:06}" + "x" * (1 << 20) * (number in self.large) for number in range(begin, end)]
        more = {"continue": str(end)} if end < self.count else {}
        body = json.dumps({"metadata": {"resourceVersion": "7", **more}, "items": [{"name": name} for name in names]})
        self.sent.append(len(body))
        return web.Response(text=body, content_type="application/json")


@pytest.mark.rule("SEC-25")
@pytest.mark.parametrize("large", [range(0), range(100), range(1000, 1040), range(0, 2000, 30)], ids=str)
async def test_a_list_is_read_in_pieces_of_some_mebibytes_whatever_is_in_it(tmp_path: Path, large: range) -> None:
    """Anybody may make many Secrets with large metadata, which would fill the memory all at once."""
    pages = Pages(2000, large)
    async with pages.server as server:
        api = await connect(write_kubeconfig(tmp_path, str(server.make_url(""))))
        try:
            read = [[*page] async for page, _ in api.list_secrets(None)]
        finally:
            await api.close()
    names = [item["name"][:6] for page in read for item in page]
    assert names == [f"{number:06}" for number in range(2000)]
    most = max(sum(len(item["name"]) for item in page) for page in read)
    assert most <= 4 << 20
    assert len(pages.sent) <= 4 + len(large) * 6 // 5
