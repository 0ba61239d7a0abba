"""What kopf sends requests with: lists are taken over from it, and no line of a watch is too deep for its parser.

kopf begins with a list, and makes a task and a queue of each object: five times the CPU that reading it takes, for what
is of use only where handlers run for long. So a list is answered as if it were empty, once we have taken it ourselves;
from its version on kopf watches.
"""

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Self

import aiohttp

from tuinly_operator.base.foreign_json import shallow
from tuinly_operator.edges.kube.failures import ApiFailure
from tuinly_operator.edges.kube.login import Login

_CONNECT_SECONDS: Final = 10.0


class Session:
    """Of aiohttp's sessions what kopf uses, on the running loop."""

    def __init__(
        self,
        login: Login,
        lists: Mapping[str, Callable[[], Awaitable[str]]],
        sign: Callable[[str], None],
        silence: float,
    ) -> None:
        """Whoever takes it closes it.

        `lists` takes over, by their path, lists of objects, and tells their version. Of a watch of the same path `sign`
        is told that it was answered, and of each line; it breaks after `silence` seconds without one.

        Raises:
            OSError: a file of the login cannot be read.
            ssl.SSLError: it is of no use.
        """
        context = ssl.create_default_context(cafile=login.ca_file, cadata=None if login.ca_file else login.ca_data)
        if login.certificate_file is not None:
            context.load_cert_chain(login.certificate_file, login.key_file)
        if login.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._server = login.server.rstrip("/")
        self._server_name = login.server_name
        self._lists = lists
        self._sign = sign
        # A watch has no end of its own, and may be silent.
        self._limit = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context),
            headers={"Authorization": login.authorization} if login.authorization else {},
            proxy=login.proxy,
            trust_env=False,  # it would also look into ~/.netrc
        )

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- as it is there
        return getattr(self._session, name)

    async def request(self, method: str, url: str, **options: Any) -> Any:  # noqa: ANN401 -- an answer
        """Send a request, unless it is for a list. Raises what aiohttp does, and so what kopf tries again."""
        address, _, query = url.partition("?")
        path = address.removeprefix(self._server)
        if self._server_name is not None:
            options["server_hostname"] = self._server_name
        if path not in self._lists:
            return await self._session.request(method, url, **options)
        if "watch=true" in query.split("&"):
            return await self._watch(path, method, url, {**options, "timeout": self._limit})
        try:
            return _Listed(await self._lists[path]())
        except ApiFailure as failure:
            if failure.not_found:  # the definition is gone: kopf is to end
                raise
            raise aiohttp.ClientConnectionError(str(failure)) from None

    async def _watch(self, path: str, method: str, url: str, options: dict[str, Any]) -> aiohttp.ClientResponse:
        response = await self._session.request(method, url, **options)
        if response.status == HTTPStatus.OK:
            self._sign(path)
            lines: Any = _Lines(response.content, partial(self._sign, path))
            response.content = lines
        return response


class _Listed:
    """The answer to a list: it is empty, and has a version."""

    status = HTTPStatus.OK

    def __init__(self, version: str) -> None:
        self._version = version

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def json(self) -> Mapping[str, Any]:
        """What there is of it."""
        return {"metadata": {"resourceVersion": self._version}, "items": []}


class _Lines:
    """The body of a watch, of which kopf asks for chunks: each is a line. It is all else that it was, too."""

    def __init__(self, body: aiohttp.StreamReader, sign: Callable[[], None]) -> None:
        self._body = body
        self._sign = sign

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- as it is there
        return getattr(self._body, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Give it line by line. kopf parses them itself; of custom resources the API server writes them in UTF-8."""
        async for line in split(self._body.iter_chunked(size)):
            self._sign()
            yield shallow(line) + b"\n"


async def split(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Split a stream into lines, however long they are and however they arrive; what has no end is not told."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
