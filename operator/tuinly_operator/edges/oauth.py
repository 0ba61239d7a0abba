"""The one door to httpx: token requests and verifications, bounded in time and size, and silent about secrets."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport, HttpxAiohttpClient

from tuinly_operator.base.clock import Clock
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.token_response import (
    MAX_BODY,
    Answer,
    TokenResponse,
    check_verification,
    parse_token_response,
    unverified,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_T = TypeVar("_T")

# The bytes that a connection reads. At once: the shortest answer has 38 bytes, of which aiohttp makes more than 1 KiB,
# and a read may bring many of them. In total: enough for TLS, a long head, the framing and `MAX_BODY`.
_MOST_AT_ONCE: Final = 2 * 1024
_MOST_IN_ALL: Final = 256 * 1024

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_HEADERS: Final = {
    "Accept": "application/json",
    # No compression: a few KiB gain nothing by it, and a small answer could unpack to a huge one.
    "Accept-Encoding": "identity",
    # Each request has its own connection. On a kept one, the bytes that arrive between two requests fill the memory, or
    # pass for the answer to the next request, which may be another tenant's.
    "Connection": "close",
    "User-Agent": "tuinly-operator",
}

# What OpenSSL's verification codes mean (x509_vfy.h): outside of its validity, or for another host or address.
_NOT_VALID_NOW: Final = frozenset({9, 10})
_OTHER_HOST: Final = frozenset({62, 64})


class _TooMuchError(OSError):
    """The server has sent more bytes than any answer needs."""


# What went wrong, told by class, the first that fits. The exceptions' texts are not used: they may quote what was sent.
_FAILURES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (_TooMuchError, f"sent more than {_MOST_IN_ALL // 1024} KiB for one answer; check that its URL is right"),
    (ssl.SSLError, "does not speak TLS as expected; check that its URL is right"),
    (aiohttp.ClientProxyConnectionError, "is behind a proxy that cannot be reached; check HTTPS_PROXY and NO_PROXY"),
    (aiohttp.ClientHttpProxyError, "is behind a proxy that refused to connect to it; check HTTPS_PROXY and NO_PROXY"),
    (socket.gaierror, "has a host name that does not resolve; check its URL and the cluster's DNS"),
    (TimeoutError, "did not answer in time; check that the operator's Pod can reach it"),
    (aiohttp.ClientConnectorError, "cannot be connected to; check that the operator's Pod can reach it"),
    (aiohttp.ClientConnectionError, "closed the connection before it had answered"),
    (aiohttp.ClientPayloadError, "did not complete its answer"),
    (aiohttp.ClientResponseError, "does not speak HTTP as expected; check that its URL is right"),
)


class TokenEndpoint:
    """Sends token requests to any token endpoint, each over a connection of its own.

    TLS is always verified, redirects are not followed, cookies are not kept, proxies come from the environment. Every
    failure is a TokenRequestFailed without cause, context or deeper frames: those would hold the form and the answer.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ca_bundle: Path | None,
        request_timeout: float,
        connections: int,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare the client; nothing is connected yet.

        `ca_bundle` is a PEM file whose roots are trusted besides the usual ones. `request_timeout`, in seconds, bounds
        a token request in all, from the look-up of the name to the last byte. `connections` is how many there are at
        most; there must be more than requests, since the time that one waits for a connection counts. Raises OSError
        for a bundle that cannot be read, ValueError with a sentence for a proxy variable that is of no use. With a
        `transport`, that one takes all requests, and neither bundle nor connections count.
        """
        self._clock = clock
        self._request_timeout = request_timeout
        self._client: httpx.AsyncClient
        if transport is None:
            self._client = make_client(tls_context(ca_bundle), connections)
        else:
            self._client = httpx.AsyncClient(
                headers=_HEADERS,
                cookies=_NoCookies(),
                timeout=None,  # noqa: S113 -- as in make_client
                transport=transport,
            )

    async def exchange(
        self, url: str, client_id: str, client_secret: Sensitive, scopes: Iterable[str]
    ) -> TokenResponse:
        """Ask for a token by client credentials (RFC 6749 section 4.4). Raises TokenRequestFailed."""
        form: dict[str, str | Sensitive] = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": client_secret,
        }
        if scope := " ".join(sorted(scopes)):
            form["scope"] = scope
        return await self._token_request(url, form)

    async def refresh(self, url: str, refresh_token: Sensitive) -> TokenResponse:
        """Ask for a token by refresh token (RFC 6749 section 6). Raises TokenRequestFailed.

        Client id and secret are not sent, nor is a scope: its absence asks for what was granted before.
        """
        return await self._token_request(url, {"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def verify(self, url: str, token: Sensitive) -> None:
        """Try a token on the GraphQL endpoint with the least of queries. Raises TokenRequestFailed unless it works."""
        await self._ask(
            url,
            check_verification,
            partial(_unanswered, Reason.VERIFICATION_INCONCLUSIVE, unverified(origin_of(url))),
            lambda: {"json": {"query": "{__typename}"}, "headers": {"Authorization": f"Bearer {token.reveal()}"}},
        )

    async def aclose(self) -> None:
        """Close all connections; a token request still under way fails."""
        await self._client.aclose()

    async def _token_request(self, url: str, form: Mapping[str, str | Sensitive]) -> TokenResponse:
        sent = [value for value in form.values() if isinstance(value, Sensitive)]
        return await self._ask(
            url,
            partial(parse_token_response, sent=sent),
            partial(_unanswered, Reason.ENDPOINT_UNAVAILABLE, f"the token endpoint {origin_of(url)}"),
            lambda: {"data": {name: _reveal(value) for name, value in form.items()}},
        )

    async def _ask(
        self,
        url: str,
        judge: Callable[[Answer, float], _T],
        unanswered: Callable[[BaseException], TokenRequestFailed],
        content: Callable[[], dict[str, Any]],
    ) -> _T:
        """Post the content and judge the answer. Raises TokenRequestFailed, without the content in this frame."""
        try:
            return judge(await self._post(url, content), self._clock.now().wall)
        except TokenRequestFailed as refusal:
            failure = replace(refusal)
        except Exception as error:  # noqa: BLE001 -- whatever broke, there is no answer, and its text must not be shown
            failure = unanswered(error)
        # A new exception, raised outside the handlers, has neither the frames nor the context of the one it stands for.
        raise failure

    async def _post(self, url: str, content: Callable[[], dict[str, Any]]) -> Answer:
        """Send the content and read the answer. Raises whatever httpx, aiohttp, ssl and the system raise."""
        async with (
            asyncio.timeout(self._request_timeout),
            self._client.stream("POST", url, **content()) as response,
        ):
            return Answer(origin_of(url), response.status_code, response.headers, await _read(response))


class _NoCookies(CookieJar):
    """Keeps no cookie and sends none, so that no server can link the requests of one tenant to those of another."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Ignore what the answer sets, unread."""

    def add_cookie_header(self, request: object) -> None:
        """Leave the request as it is."""


class _Transport(AiohttpTransport):
    """httpx-aiohttp's transport with a session that keeps no cookies either."""

    def get_client(self) -> aiohttp.ClientSession:
        """Make the session; called once, at the first request, on the loop that it will run on."""
        connector = aiohttp.TCPConnector(
            ssl=self.ssl_context,
            limit=self.limits.max_connections or 0,
            force_close=True,
            socket_factory=_Socket.of,
        )
        jar = aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(connector=connector, cookie_jar=jar, response_class=_Answer)


class _Socket(socket.socket):
    """A socket that bounds what it reads, whatever the bytes are: TLS, a proxy's answer, interim answers, framing."""

    _left = _MOST_IN_ALL

    @classmethod
    def of(cls, address: aiohttp.AddrInfoType) -> Self:
        """Create one for an address that a name resolved to."""
        family, kind, protocol, *_ = address
        return cls(family, kind, protocol)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Read at most `_MOST_AT_ONCE` bytes. Raises _TooMuchError at the end of `_MOST_IN_ALL`."""
        data = super().recv(self._most(size), flags)
        self._left -= len(data)
        return data

    def recv_into(self, buffer: "WriteableBuffer", size: int = 0, flags: int = 0, /) -> int:
        """Read at most `_MOST_AT_ONCE` bytes. Raises _TooMuchError at the end of `_MOST_IN_ALL`."""
        taken = super().recv_into(buffer, self._most(size or memoryview(buffer).nbytes), flags)
        self._left -= taken
        return taken

    def _most(self, size: int) -> int:
        if not self._left:
            raise _TooMuchError
        return min(size, self._left, _MOST_AT_ONCE)


class _Answer(aiohttp.ClientResponse):
    """An answer that ends its connection, and has no reason phrase.

    RFC 9112 allows a reason that is not UTF-8, and httpx-aiohttp fails at it.
    """

    async def start(self, connection: Any) -> Self:  # noqa: ANN401 -- aiohttp's own
        """Take the head of the answer."""
        connection.add_callback(partial(_hang_up, connection.transport))
        await super().start(connection)
        self.reason = None
        return self


def _hang_up(transport: asyncio.Transport) -> None:
    """Close the connection: send TLS's closure alert (RFC 9112 section 9.8), and do not wait for the server's."""
    transport.close()
    transport.abort()


class _Client(HttpxAiohttpClient):
    """A client that makes its own transports: httpx ignores the proxy variables when one is passed to it."""

    def _init_transport(self, *_: Any, **options: Any) -> httpx.AsyncBaseTransport:  # noqa: ANN401 -- httpx's
        return _Transport(**options)

    def _init_proxy_transport(self, *proxy: Any, **options: Any) -> httpx.AsyncBaseTransport:  # noqa: ANN401 -- same
        if proxy[0].url.scheme not in {"http", "https"}:
            raise ValueError  # httpx would know SOCKS, aiohttp does not
        return _Transport(proxy=proxy[0], **options)


def make_client(tls: ssl.SSLContext, concurrency: int) -> HttpxAiohttpClient:
    """Make the client that all requests to Tuinly go over: no cookies, no time limits of its own, proxies as usual.

    `concurrency` is how many connections there are at most. Nothing is connected yet. Raises ValueError with a sentence
    for a proxy variable that is of no use.
    """
    try:
        return _Client(
            headers=_HEADERS,
            cookies=_NoCookies(),
            verify=tls,
            timeout=None,  # asyncio.timeout bounds the whole; httpx's timeouts would restart with every byte
            limits=httpx.Limits(max_connections=concurrency),
        )
    except (httpx.InvalidURL, ValueError):
        message = "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is not the URL of an HTTP proxy"
        raise ValueError(message) from None


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Trust certifi's roots, or those that SSL_CERT_FILE or SSL_CERT_DIR name, and those of the bundle (PEM), if any.

    Raises OSError for a bundle that cannot be read.
    """
    context = httpx.create_ssl_context()
    if ca_bundle is not None:
        context.load_verify_locations(cafile=ca_bundle)
    return context


def _reveal(value: str | Sensitive) -> str:
    return value.reveal() if isinstance(value, Sensitive) else value


async def _read(response: httpx.Response) -> bytes:
    """Read the body as it was sent, at most `MAX_BODY` and one byte; not at all where only the status counts."""
    if response.status_code != HTTPStatus.OK and not response.is_client_error:
        return b""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY:
            break
    return bytes(body[: MAX_BODY + 1])


def origin_of(url: str) -> str:
    """Scheme, host and port in one form: the key of the limiter, and what a message may show of a URL.

    A default port is left out, so that `https://h` and `https://h:443` are one origin. User, path and query may hold
    secrets.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "(not a URL)"
    host = f"[{host}]" if ":" in host else host
    given = "" if port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{port}"
    return f"{parts.scheme}://{host}{given}"


def _unanswered(reason: Reason, subject: str, error: BaseException) -> TokenRequestFailed:
    return TokenRequestFailed(reason, f"{subject} {_explain(error)}", transport=True)


def _explain(error: BaseException) -> str:
    """Say what went wrong, by the classes of the exception and its causes: httpx's own classes are too coarse."""
    causes = list(_chain(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        # aiohttp's exception is of this class too, but only the one from OpenSSL, last in the chain, has a code.
        return _explain_certificate(getattr(causes[-1], "verify_code", None))
    for kind, sentence in _FAILURES:
        if any(isinstance(cause, kind) for cause in causes):
            return sentence
    return f"could not be asked ({type(error).__name__}); check its URL"


def _explain_certificate(verify_code: int | None) -> str:
    if verify_code in _OTHER_HOST:
        return "presents a certificate for another host; check its URL"
    if verify_code in _NOT_VALID_NOW:
        return "presents a certificate that has expired or is not valid yet; it has to be renewed there"
    return "presents a certificate that is not trusted; if its CA is your own, name it with --ca-bundle"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
