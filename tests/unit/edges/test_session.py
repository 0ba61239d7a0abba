"""What kopf sends requests with: which of them are taken over, and what comes back of the others."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
from aiohttp import test_utils, web

from tests.support.pki import Authority
from tuinly_operator.base.foreign_json import DEEPEST
from tuinly_operator.edges.kube import ApiFailure, Login, Session, credentials_path

PATHS = (credentials_path(None), credentials_path("shop"))
DEEP = b'{"type": "ADDED", "object": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"


LOGIN: dict[str, Any] = {
    "ca_file": None,
    "ca_data": None,
    "insecure": False,
    "authorization": "Bearer canary",
    "certificate_file": None,
    "key_file": None,
    "server_name": None,
    "proxy": None,
}


@asynccontextmanager
async def opened(
    login: Login,
    lists: Mapping[str, Callable[[], Awaitable[str]]] = MappingProxyType({}),
    sign: Callable[[str], None] = lambda _: None,
    silence: float = 30.0,
) -> AsyncIterator[Session]:
    session = Session(login, lists, sign, silence=silence)
    try:
        yield session
    finally:
        await session.close()


class Server:
    """An API server behind a path, which sends what it is told; `asked` is what came to it."""

    def __init__(self, sent: bytes) -> None:
        self.sent = sent
        self.asked: list[tuple[str, str | None]] = []
        self.listed: list[str] = []
        self.failure: ApiFailure | None = None
        self.status, self.silence = 200, 30.0
        self.hangs: asyncio.Event | None = None
        self.signs: list[str] = []

    @asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[Session, str]]:
        """A session for it, and its address."""
        app = web.Application()
        app.router.add_get("/far/{path:.*}", self._answer)
        async with test_utils.TestServer(app) as server:
            address = str(server.make_url("/far/"))
            login = Login(**LOGIN, server=address)
            lists = {path: partial(self._list, path) for path in PATHS}
            async with opened(login, lists, self.signs.append, self.silence) as session:
                yield session, address.rstrip("/")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path_qs.removeprefix("/far"), request.headers.get("Authorization")))
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        for begin in range(0, len(self.sent), 1000):
            await response.write(self.sent[begin : begin + 1000])
        if self.hangs is not None:
            await self.hangs.wait()
        return response

    async def _list(self, path: str) -> str:
        self.listed.append(path)
        if self.failure:
            raise self.failure
        return "17"


@pytest.mark.rule("SEC-25")
@pytest.mark.parametrize("path", PATHS)
async def test_a_list_is_taken_over(path: str) -> None:
    server = Server(b"")
    query = "limit=500&labelSelector=watch%3Dtrue"
    async with (
        server.session() as (session, address),
        await session.request("get", f"{address}{path}?{query}") as response,
    ):
        answer = await response.json()
    assert (response.status, answer["items"], answer["metadata"]["resourceVersion"]) == (HTTPStatus.OK, [], "17")
    assert (server.listed, server.asked) == ([path], [])


@pytest.mark.parametrize("rest", [f"{PATHS[1]}?watch=true&limit=1", "/apis/tuinly.com/v1alpha1", f"{PATHS[1]}/one"])
async def test_all_else_is_sent(rest: str) -> None:
    server = Server(b"{}")
    async with server.session() as (session, address), await session.request("get", address + rest) as response:
        assert await response.json(content_type=None) == {}
    assert (server.listed, server.asked) == ([], [(rest, "Bearer canary")])


@pytest.mark.parametrize(
    ("status", "error"),
    [(None, aiohttp.ClientConnectionError), (403, aiohttp.ClientConnectionError), (404, ApiFailure)],
)
async def test_a_list_that_fails_is_tried_again_by_kopf_unless_there_is_no_definition(
    status: int | None, error: type[Exception]
) -> None:
    server = Server(b"")
    server.failure = ApiFailure(status, "Word")
    async with server.session() as (session, address):
        with pytest.raises(error, match=re.escape(str(server.failure))):
            await session.request("get", f"{address}{PATHS[0]}?limit=500")


async def test_a_watch_comes_line_by_line_however_it_arrives_and_is_never_too_deep() -> None:
    events = [b'{"number": 1}', DEEP, b'{"text": "' + b"x" * 300_000 + b'"}', b'{"number": 2}']
    server = Server(b"\n\n".join(events) + b"\n" + b'{"half of one')
    async with (
        server.session() as (session, address),
        await session.request("get", f"{address}{PATHS[0]}?watch=true") as response,
    ):
        lines = [line async for line in response.content.iter_chunked(1024 * 1024)]
    assert server.signs == [PATHS[0]] * (1 + len(events))  # its answer, and each line
    assert [line[-1:] for line in lines] == [b"\n"] * len(events)
    assert [lines[number] for number in (0, 2, 3)] == [events[number] + b"\n" for number in (0, 2, 3)]
    assert (json.loads(lines[1])["type"], lines[1].count(b"[")) == ("ADDED", DEEPEST - 1)


@pytest.mark.rule("OUT-4")
async def test_a_watch_that_falls_silent_breaks() -> None:
    server = Server(b'{"number": 1}\n')
    server.hangs, server.silence = asyncio.Event(), 0.5
    async with (
        server.session() as (session, address),
        await session.request("get", f"{address}{PATHS[0]}?watch=true") as response,
    ):
        with pytest.raises(aiohttp.ServerTimeoutError):  # which kopf takes for a watch that broke
            async for _ in response.content.iter_chunked(1024 * 1024):
                pass
        server.hangs.set()
    assert server.signs == [PATHS[0]] * 2


@pytest.mark.rule("OUT-4")
async def test_a_watch_that_is_refused_gives_no_sign() -> None:
    server = Server(b"{}")
    server.status = 403
    async with (
        server.session() as (session, address),
        await session.request("get", f"{address}{PATHS[0]}?watch=true") as response,
    ):
        assert response.status == HTTPStatus.FORBIDDEN
    assert server.signs == []


@pytest.mark.rule("OBS-7")
async def test_it_goes_by_the_proxy_of_the_login_and_by_no_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A netrc with a login for all hosts is one more than a request may have."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login canary password canary\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    proxy = Server(b"{}")
    async with proxy.session() as (_, address):
        login = Login(**{**LOGIN, "proxy": address.removesuffix("/far"), "server": "http://api.example/far"})
        async with opened(login) as session, await session.request("get", f"{login.server}/apis") as response:
            assert response.status == HTTPStatus.OK
    assert proxy.asked == [("/apis", "Bearer canary")]


@pytest.mark.rule("OBS-7")
async def test_the_servers_certificate_is_to_be_for_the_name_that_the_login_gives(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    server = test_utils.TestServer(web.Application(), scheme="https")
    await server.start_server(ssl=authority.server_context("api.example"))
    for name, error in (("api.example", None), (None, aiohttp.ClientConnectorCertificateError)):
        given = {"ca_file": str(authority.ca_file), "server_name": name, "server": str(server.make_url("/"))}
        async with opened(Login(**{**LOGIN, **given})) as session:
            with pytest.raises(error) if error else nullcontext():
                (await session.request("get", f"{given['server']}apis")).close()
    await server.close()
