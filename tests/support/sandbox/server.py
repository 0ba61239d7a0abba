"""The running sandbox: its listeners for HTTP, HTTPS and the admin API."""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from tests.support.pki import Authority
from tests.support.sandbox.admin import Admin
from tests.support.sandbox.answers import WITHOUT_DATE
from tests.support.sandbox.endpoints import GraphqlEndpoint, State, TokenEndpoint

BODY_LIMIT = 64 * 1024
OWN_NAMES = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Listening:
    """Where to listen.

    Attributes:
        host, http_port, https_port: Of both Tuinly endpoints; port 0 takes a free one.
        admin_host, admin_port: Of the admin API.
        names: Names and addresses for the certificate, besides localhost and 127.0.0.1.
        ca_directory: Where the test CA's ``ca.pem`` is written.
        certificate: A folder with ``tls.crt`` and ``tls.key``, as a Secret has them, in the place of a certificate by
            the test CA, which then is not made.
    """

    ca_directory: Path
    host: str = "127.0.0.1"
    http_port: int = 0
    https_port: int = 0
    admin_host: str = "127.0.0.1"
    admin_port: int = 0
    names: Sequence[str] = ()
    certificate: Path | None = None


@asynccontextmanager
async def serving(listening: Listening, state: State) -> AsyncIterator[dict[str, str]]:
    """Serve until the context ends; yields the addresses ``http``, ``https``, ``admin``, and the ``ca`` file it made.

    Raises:
        OSError: If a port is taken or an address is not this machine's.
    """
    context, addresses = _tls(listening)
    async with AsyncExitStack() as stack:

        async def listen(name: str, application: web.Application, host: str, port: int) -> None:
            # A request whose client has gone is dropped, so that hanging ones do not pile up.
            runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, host, port, ssl_context=context if name == "https" else None).start()
            addresses[name] = _url("https" if name == "https" else "http", runner.addresses[0])

        await listen("http", _tuinly(state), listening.host, listening.http_port)
        await listen("https", _tuinly(state), listening.host, listening.https_port)
        await listen("admin", Admin(state, addresses).application(), listening.admin_host, listening.admin_port)
        yield addresses


def _tls(listening: Listening) -> tuple[ssl.SSLContext, dict[str, str]]:
    """Return the TLS server's context, and where the certificates to trust are."""
    if listening.certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(listening.certificate / "tls.crt", listening.certificate / "tls.key")
        return context, {}
    authority = Authority.create(listening.ca_directory)
    names = dict.fromkeys((*OWN_NAMES, *listening.names))
    return authority.server_context(*names), {"ca": str(authority.ca_file)}


def _tuinly(state: State) -> web.Application:
    application = web.Application(client_max_size=BODY_LIMIT)
    application.router.add_route("*", "/token", TokenEndpoint(state).handle)
    application.router.add_route("*", "/graphql", GraphqlEndpoint(state).handle)
    application.on_response_prepare.append(_leave_out_date)
    return application


async def _leave_out_date(_: web.Request, response: web.StreamResponse) -> None:
    """Take off the Date header that aiohttp adds to every answer, where an answer asks for that."""
    if response.headers.get("Date") == WITHOUT_DATE:
        del response.headers["Date"]


def _url(scheme: str, address: tuple[str, int]) -> str:
    """Return the URL of a listener; one on all addresses is reached over loopback."""
    host, port = address[0], address[1]
    return f"{scheme}://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 -- compared, not bound
