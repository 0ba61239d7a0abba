"""The program: python -m tests.support.sandbox."""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.sandbox.admin import MANUAL
from tests.support.sandbox.answers import catalogue
from tests.support.sandbox.clients import DEMO_CLIENT, Clients, load_clients
from tests.support.sandbox.endpoints import State
from tests.support.sandbox.server import Listening, serving
from tests.support.sandbox.wire import InvalidError

DESCRIPTION = """\
A stand-in for Tuinly's token and GraphQL endpoints, for trying out and testing what uses them.

It serves POST /token (exchange by client credentials, refresh-token grant without client id and secret) and
POST /graphql (Bearer tokens, the query {__typename}) over HTTP and over HTTPS with a certificate of its own test CA. A
ledger knows every token it issued, so GraphQL accepts exactly those that are valid now. An admin API, which has no
login and therefore listens on loopback, tells it to fail, hang, slow down, throttle, answer garbage or revoke, and
shows the ledger. Everything is kept in memory and gone when it ends."""

EXAMPLE = f"""\
an example:
  python -m tests.support.sandbox --http-port 8080 --https-port 8443 --admin-port 8081 --ca-dir /tmp/sandbox-ca

  curl -d grant_type=client_credentials -d client_id={DEMO_CLIENT.id} -d client_secret={DEMO_CLIENT.secret} \\
    http://127.0.0.1:8080/token
  curl -H 'Authorization: Bearer ACCESS_TOKEN' -H 'Content-Type: application/json' \\
    -d '{{"query": "{{__typename}}"}}' --cacert /tmp/sandbox-ca/ca.pem https://127.0.0.1:8443/graphql

  # the next three token requests are throttled; then one client's refreshes are answered with garbage
  curl -d '{{"kind": "throttle", "retry_after": 5, "count": 3}}' http://127.0.0.1:8081/faults
  curl -d '{{"kind": "answer", "answer": "not_json", "client": "demo", "grant": "refresh_token"}}' \\
    http://127.0.0.1:8081/faults
  curl -X DELETE http://127.0.0.1:8081/faults

in a cluster such as kind, listen where Pods can reach it and name that for the certificate:
  python -m tests.support.sandbox --host 0.0.0.0 --san sandbox.tuinly.test --san 172.18.0.1

the clients file (YAML or JSON; of a client all but id and secret may be left out, what is shown is the default):
  clients:
    - id: storefront
      secret: of-no-worth
      scopes: []                      # what it may ask for
      lifetime: 3600                  # seconds
      issues_refresh_tokens: true
      refreshes: accepted             # or refused without a client: invalid_client, invalid_request, invalid_grant
      rotates_refresh_tokens: false
      revokes_previous_on: []         # client_credentials, refresh_token: grants that end the earlier access tokens
      grants_only: null               # a list of scopes to which every grant is narrowed
      repeats_token: false            # an exchange answers the token issued before, until a third of its life is left

a fault (POST /faults; all but kind may be left out):
  kind          fail (status, body, headers) | throttle (status, retry_after, retry_after_as: seconds or date) |
                hang (seconds) | reset | slow (seconds) | drip (seconds per byte) |
                answer (a name of the catalogue in `answer`, or a verbatim `body` with status and headers)
  endpoint      token (default) | graphql
  client, grant whom it meets; everybody by default
  count         after how many requests it is over; never by default
  processed     whether the token is issued although fail, throttle, hang, reset or a verbatim answer hides it"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        clients = Clients(load_clients(options.clients) if options.clients is not None else [DEMO_CLIENT])
        with tempfile.TemporaryDirectory(prefix="tuinly-sandbox-") as temporary:
            listening = Listening(
                ca_directory=options.ca_dir or Path(temporary),
                host=options.host,
                http_port=options.http_port,
                https_port=options.https_port,
                admin_host=options.admin_host,
                admin_port=options.admin_port,
                names=options.san,
                certificate=options.certificate,
            )
            asyncio.run(_run(listening, clients, as_json=options.json, lifeline=options.lifeline))
    except (InvalidError, OSError) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 2
    return 0


async def _run(listening: Listening, clients: Clients, *, as_json: bool, lifeline: bool) -> None:
    """Serve until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if lifeline:
        loop.add_reader(sys.stdin.fileno(), _stop_at_end, sys.stdin.fileno(), stop)
    async with serving(listening, State(clients=clients)) as addresses:
        sys.stdout.write(f"{json.dumps(addresses) if as_json else _paragraph(addresses)}\n")
        sys.stdout.flush()
        await stop.wait()


def _stop_at_end(descriptor: int, stop: asyncio.Event) -> None:
    """Stop when the other end of the lifeline is gone; what comes through it is ignored."""
    if not os.read(descriptor, 4096):
        asyncio.get_running_loop().remove_reader(descriptor)
        stop.set()


def _paragraph(addresses: dict[str, str]) -> str:
    authority = addresses.get("ca", "another authority")
    return (
        f"The Tuinly sandbox serves {addresses['http']}/token and {addresses['http']}/graphql,\n"
        f"and the same at {addresses['https']}, whose certificate {authority} vouches for.\n"
        f"Its admin API is {addresses['admin']}; --help explains it. Ctrl-C ends it."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.sandbox",
        description=DESCRIPTION,
        epilog=f"{EXAMPLE}\n\nthe admin API (JSON):\n{_indented(MANUAL)}\n\n{_answers()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="where both endpoints listen (default: %(default)s)")
    parser.add_argument("--http-port", type=int, default=0, metavar="PORT", help="for HTTP (default: a free one)")
    parser.add_argument("--https-port", type=int, default=0, metavar="PORT", help="for HTTPS (default: a free one)")
    parser.add_argument(
        "--admin-host",
        default="127.0.0.1",
        metavar="HOST",
        help="where the admin API listens; whoever reaches it reads every token (default: %(default)s)",
    )
    parser.add_argument("--admin-port", type=int, default=0, metavar="PORT", help="for it (default: a free one)")
    parser.add_argument(
        "--san",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name or IP address for the certificate, besides localhost and 127.0.0.1; may be repeated",
    )
    parser.add_argument(
        "--ca-dir", type=Path, metavar="DIR", help="where ca.pem is written (default: a temporary directory)"
    )
    parser.add_argument(
        "--certificate",
        type=Path,
        metavar="DIR",
        help="serve HTTPS with DIR/tls.crt and DIR/tls.key, as a Secret has them (default: one of its own test CA)",
    )
    parser.add_argument(
        "--clients",
        type=Path,
        metavar="FILE",
        help=f"the clients at the start (default: one, {DEMO_CLIENT.id} with the secret {DEMO_CLIENT.secret})",
    )
    parser.add_argument("--json", action="store_true", help="say where it listens in one line of JSON")
    parser.add_argument("--lifeline", action="store_true", help="end when standard input, a pipe, is closed")
    return parser


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _answers() -> str:
    """Return the catalogue for --help; what both endpoints have is told once."""
    token, graphql = catalogue("token"), catalogue("graphql")
    parts = {
        "answers of both endpoints": {name: named for name, named in token.items() if name in graphql},
        "answers of the token endpoint": {name: named for name, named in token.items() if name not in graphql},
        "answers of the GraphQL endpoint": {name: named for name, named in graphql.items() if name not in token},
    }
    return "\n\n".join(
        f"{title} (* is odd, but no reason to refuse it):\n"
        + "\n".join(
            f"  {name}{'*' if named.usable else ''}".ljust(36) + named.description for name, named in part.items()
        )
        for title, part in parts.items()
    )


if __name__ == "__main__":
    sys.exit(main())
