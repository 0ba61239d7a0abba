"""The admin API: how a test or a person tells the sandbox what to do, and asks what it saw."""

import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict

from aiohttp import web

from tests.support.sandbox.answers import catalogue
from tests.support.sandbox.clients import Client
from tests.support.sandbox.endpoints import State
from tests.support.sandbox.faults import Fault
from tests.support.sandbox.wire import InvalidError, read

BODY_LIMIT = 64 * 1024 * 1024  # ten thousand clients in one request

MANUAL = """\
GET    /                            where everything listens
GET    /clients                     the clients
POST   /clients                     register or replace many: [{"id": …, "secret": …, …}, …]
PUT    /clients/ID                  register or replace one: {"secret": …, "scopes": […], "lifetime": SECONDS, …}
DELETE /clients/ID                  remove one; its access tokens live on
POST   /clients/ID/secret           rotate its secret: {"secret": …}, made up and answered if left out
POST   /clients/ID/revoke           revoke its access tokens; {"refresh_tokens": true} ends those too
POST   /tokens/revoke               revoke one access token: {"token": …} or {"sequence": N}
GET    /faults                      the faults in force
POST   /faults                      add one: {"kind": …, …}; the newest that fits a request is done to it
DELETE /faults, /faults/N           end all, or one
GET    /answers                     the catalogue of hostile and odd answers, by endpoint
GET    /ledger                      all token requests and issued tokens, with their values
GET    /ledger/requests             token requests, ?client=ID and ?since=SEQUENCE narrow it; the same for
GET    /ledger/tokens               issued tokens
GET    /ledger/graphql              GraphQL requests
GET    /ledger/counts               how many of each, ?client=ID narrows it
GET    /concurrency                 requests in hand now and at the peak, by endpoint
DELETE /concurrency                 start the peak anew"""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """The handlers of the admin API. `addresses` is what GET / answers."""

    def __init__(self, state: State, addresses: Mapping[str, str]) -> None:
        self._state = state
        self._addresses = addresses

    def application(self) -> web.Application:
        """Return the application that serves it."""
        application = web.Application(client_max_size=BODY_LIMIT, middlewares=[_sentences])
        application.add_routes(
            [
                web.get("/", self.show_addresses),
                web.get("/clients", self.show_clients),
                web.post("/clients", self.put_clients),
                web.put("/clients/{id}", self.put_client),
                web.delete("/clients/{id}", self.remove_client),
                web.post("/clients/{id}/secret", self.rotate_secret),
                web.post("/clients/{id}/revoke", self.revoke_all),
                web.post("/tokens/revoke", self.revoke),
                web.get("/faults", self.show_faults),
                web.post("/faults", self.add_fault),
                web.delete("/faults", self.clear_faults),
                web.delete("/faults/{number}", self.clear_faults),
                web.get("/answers", self.show_answers),
                web.get("/ledger", self.show_ledger),
                web.get("/ledger/counts", self.show_counts),
                web.get("/ledger/{book:requests|tokens|graphql}", self.show_book),
                web.get("/concurrency", self.show_concurrency),
                web.delete("/concurrency", self.reset_concurrency),
            ]
        )
        return application

    async def show_addresses(self, _: web.Request) -> web.Response:
        """GET /."""
        return _json(self._addresses)

    async def show_clients(self, _: web.Request) -> web.Response:
        """GET /clients."""
        return _json([vars(client) for client in self._state.clients])

    async def put_clients(self, request: web.Request) -> web.Response:
        """POST /clients."""
        documents = await request.json()
        if not isinstance(documents, list):
            raise InvalidError("clients are given as a JSON array")
        for client in [read(Client, document) for document in documents]:
            self._state.clients.put(client)
        return _json({"clients": len(documents)})

    async def put_client(self, request: web.Request) -> web.Response:
        """PUT /clients/ID."""
        client = read(Client, {**await _document(request), "id": request.match_info["id"]})
        self._state.clients.put(client)
        return _json(vars(client))

    async def remove_client(self, request: web.Request) -> web.Response:
        """DELETE /clients/ID."""
        self._state.clients.remove(request.match_info["id"])
        return _json({})

    async def rotate_secret(self, request: web.Request) -> web.Response:
        """POST /clients/ID/secret."""
        secret = (await _document(request)).get("secret") or secrets.token_urlsafe(24)
        if not isinstance(secret, str):
            raise InvalidError("secret is a string")
        self._state.clients.rotate_secret(request.match_info["id"], secret)
        return _json({"secret": secret})

    async def revoke_all(self, request: web.Request) -> web.Response:
        """POST /clients/ID/revoke."""
        client = request.match_info["id"]
        ended = 0
        if (await _document(request)).get("refresh_tokens"):
            ended = self._state.ledger.end_refresh_tokens(client)
        revoked = self._state.ledger.revoke_all(client, by="admin", now=time.time())
        return _json({"revoked": revoked, "refresh_tokens_ended": ended})

    async def revoke(self, request: web.Request) -> web.Response:
        """POST /tokens/revoke."""
        document = await _document(request)
        tokens = self._state.ledger.tokens
        if isinstance(sequence := document.get("sequence"), int):
            token = next(iter(tokens.select(since=sequence - 1)[:1]), None) if sequence > 0 else None
        else:
            token = self._state.ledger.access_token(str(document.get("token")))
        if token is None:
            raise LookupError("there is no such access token")
        return _json({"revoked": int(self._state.ledger.revoke(token, by="admin", now=time.time()))})

    async def show_faults(self, _: web.Request) -> web.Response:
        """GET /faults."""
        return _json(
            [{"number": number, "left": left, **asdict(fault)} for number, fault, left in self._state.faults.list()]
        )

    async def add_fault(self, request: web.Request) -> web.Response:
        """POST /faults."""
        return _json({"number": self._state.faults.add(read(Fault, await request.json()))})

    async def clear_faults(self, request: web.Request) -> web.Response:
        """DELETE /faults and /faults/N."""
        number = request.match_info.get("number")
        self._state.faults.clear(_integer("the fault's number", number) if number is not None else None)
        return _json({})

    async def show_answers(self, _: web.Request) -> web.Response:
        """GET /answers."""
        return _json(
            {
                endpoint: {
                    name: {"description": named.description, "usable": named.usable}
                    for name, named in catalogue(endpoint).items()
                }
                for endpoint in ("token", "graphql")
            }
        )

    async def show_ledger(self, _: web.Request) -> web.Response:
        """GET /ledger."""
        ledger = self._state.ledger
        return _json({"requests": _records(ledger.requests.select()), "tokens": _records(ledger.tokens.select())})

    async def show_book(self, request: web.Request) -> web.Response:
        """GET /ledger/requests, /ledger/tokens and /ledger/graphql."""
        since = _integer("since", request.query.get("since", "0"))
        client = request.query.get("client")
        ledger = self._state.ledger
        match request.match_info["book"]:
            case "requests":
                return _json(_records(ledger.requests.select(client, since)))
            case "tokens":
                return _json(_records(ledger.tokens.select(client, since)))
        return _json(_records(ledger.graphql.select(client, since)))

    async def show_counts(self, request: web.Request) -> web.Response:
        """GET /ledger/counts."""
        client = request.query.get("client")
        ledger = self._state.ledger
        return _json(
            {
                "requests": ledger.requests.count(client),
                "tokens": ledger.tokens.count(client),
                "graphql": ledger.graphql.count(client),
            }
        )

    async def show_concurrency(self, _: web.Request) -> web.Response:
        """GET /concurrency."""
        return _json({endpoint: vars(load) for endpoint, load in self._state.ledger.load.items()})

    async def reset_concurrency(self, _: web.Request) -> web.Response:
        """DELETE /concurrency."""
        for load in self._state.ledger.load.values():
            load.peak = load.now
        return _json({})


def _json(document: object) -> web.Response:
    return web.json_response(document)


def _records(records: Iterable[object]) -> list[dict[str, object]]:
    return [vars(record) for record in records]


async def _document(request: web.Request) -> dict[str, object]:
    """Read a body that is a JSON object, or nothing."""
    document = await request.json() if request.body_exists else {}
    if not isinstance(document, dict):
        raise InvalidError("the body is a JSON object")
    return document


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidError(f"{name} is a whole number") from None


@web.middleware
async def _sentences(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a caller did wrong into one sentence, and never repeat what was sent."""
    try:
        return await handler(request)
    except InvalidError as error:
        return web.json_response({"error": str(error)}, status=400)
    except LookupError as error:
        return web.json_response({"error": str(error)}, status=404)
    except json.JSONDecodeError:
        return web.json_response({"error": "the body is no JSON"}, status=400)
    except web.HTTPException as error:
        return web.json_response({"error": f"{error.reason}; see --help for what there is"}, status=error.status)
