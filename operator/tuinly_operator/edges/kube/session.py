"""What kopf sends requests with: by a login of ours, and so that no answer is nested too deeply for its parser."""

import ssl
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import aiohttp

from tuinly_operator.base.nesting import loads, shallow
from tuinly_operator.edges.kube.login import Login


def open_session(login: Login) -> aiohttp.ClientSession:
    """A session on the running loop, which goes by the environment's proxy. Whoever takes it closes it.

    Raises:
        OSError: a file of the login cannot be read.
        ssl.SSLError: it is of no use.
    """
    context = ssl.create_default_context(cafile=login.ca_file, cadata=None if login.ca_file else login.ca_data)
    if login.certificate_file is not None:
        context.load_cert_chain(login.certificate_file, login.key_file)
    if login.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context),
        headers={"Authorization": login.authorization} if login.authorization else {},
        response_class=_Shallow,
        trust_env=True,
    )


async def split(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Split a stream into lines, however long they are and however they arrive; what has no end is not told."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


class _Shallow(aiohttp.ClientResponse):
    """An answer that is read whole, or by lines, without what is nested too deeply."""

    async def start(self, connection: Any) -> "_Shallow":  # noqa: ANN401 -- aiohttp's own
        """Take the head of the answer."""
        await super().start(connection)
        self.content = _Lines(self.content)  # type: ignore[assignment]
        return self

    async def json(self, **options: Any) -> Any:  # noqa: ANN401 -- JSON
        """Read it whole."""
        return await super().json(**{"loads": loads, **options})


class _Lines:
    """A body which is read by chunks that are lines, as kopf reads a watch; and all else that it was."""

    def __init__(self, body: aiohttp.StreamReader) -> None:
        self._body = body

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- as it is there
        return getattr(self._body, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Give it line by line."""
        async for line in split(self._body.iter_chunked(size)):
            yield shallow(line) + b"\n"
