"""What the sandbox does wrong when told: each fault as a client meets it, and what the ledger says about it."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import count

import aiohttp
import pytest

from tests.support.sandbox import Client, Fault, SandboxError, SandboxProcess
from tests.support.sandbox.answers import SIZE_LIMIT, catalogue
from tests.support.sandbox.faults import Faults

pytestmark = pytest.mark.usefixtures("cleared")
_numbers = count(1)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess() as running:
        yield running


@pytest.fixture
def cleared(sandbox: SandboxProcess) -> Iterator[None]:
    """Leave no fault to the next test."""
    yield
    sandbox.admin.clear_faults()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as opened:
        yield opened


@dataclass(frozen=True)
class Reply:
    """What came back over the socket."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Caller:
    """Sends requests of one client, and asks the sandbox what it saw of them."""

    session: aiohttp.ClientSession
    sandbox: SandboxProcess
    client: Client

    async def exchange(self) -> Reply:
        """Send an exchange."""
        return await self.ask(
            grant_type="client_credentials", client_id=self.client.id, client_secret=self.client.secret, scope="a"
        )

    async def ask(self, **form: str) -> Reply:
        """Send a token request."""
        async with self.session.post(self.sandbox.token_url, data=form, allow_redirects=False) as reply:
            return Reply(reply.status, reply.headers, await reply.read())

    async def graphql(self, token: str) -> Reply:
        """Send a GraphQL request."""
        headers = {"Authorization": f"Bearer {token}"}
        query = {"query": "{__typename}"}
        url = self.sandbox.graphql_url
        async with self.session.post(url, json=query, headers=headers, allow_redirects=False) as reply:
            return Reply(reply.status, reply.headers, await reply.read())

    async def token(self) -> str:
        """Return a new access token."""
        return str(json.loads((await self.exchange()).body)["access_token"])

    def outcomes(self) -> list[tuple[str, str | None, int | None]]:
        """Return outcome, fault and status of the client's token requests."""
        requests = self.sandbox.admin.requests(self.client.id)
        return [(request.outcome, request.fault, request.status) for request in requests]


@pytest.fixture
def caller(session: aiohttp.ClientSession, sandbox: SandboxProcess) -> Caller:
    """Return a caller with a client of its own, so that tests do not meet."""
    client = Client(id=f"client-{next(_numbers)}", secret="of-no-worth", scopes=("a", "b"))
    return Caller(session, sandbox, sandbox.admin.add_client(client))


async def until(condition: Callable[[], bool]) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + 30
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "it does not come to hold"
        await asyncio.sleep(0.02)


async def test_fail_so_many_times(caller: Caller) -> None:
    caller.sandbox.admin.fault(Fault(kind="fail", status=503, body="down", headers={"X-Why": "test"}, count=2))
    first = await caller.exchange()
    assert (first.status, first.headers["X-Why"], first.body) == (503, "test", b"down")
    assert [(await caller.exchange()).status for _ in range(2)] == [503, 200]
    failed = ("unprocessed", "fail", 503)
    assert caller.outcomes() == [failed, failed, ("issued", None, 200)]


async def test_a_fault_meets_whom_it_is_for(caller: Caller) -> None:
    admin = caller.sandbox.admin
    other = Caller(
        caller.session, caller.sandbox, admin.add_client(Client(id="other", secret="of-no-worth", scopes=("a",)))
    )
    refresh_token = json.loads((await caller.exchange()).body)["refresh_token"]
    token = await caller.token()

    number = admin.fault(Fault(kind="fail", client=caller.client.id, grant="refresh_token"))
    assert (await caller.ask(grant_type="refresh_token", refresh_token=refresh_token)).status == 500
    assert (await caller.exchange()).status == 200
    assert (await caller.graphql(token)).status == 200

    admin.fault(Fault(kind="fail", endpoint="graphql", client=caller.client.id, status=502))
    assert (await caller.graphql(token)).status == 502
    assert (await other.exchange()).status == 200
    assert (await other.graphql(await other.token())).status == 200

    admin.clear_faults(number)
    assert (await caller.ask(grant_type="refresh_token", refresh_token=refresh_token)).status == 200
    assert (await caller.graphql(token)).status == 502
    assert [request.fault for request in admin.graphql_requests(caller.client.id)] == [None, "fail", "fail"]


async def test_the_newest_fault_is_done(caller: Caller) -> None:
    caller.sandbox.admin.fault(Fault(kind="fail", status=500))
    caller.sandbox.admin.fault(Fault(kind="fail", status=502, count=1))
    assert [(await caller.exchange()).status for _ in range(2)] == [502, 500]
    caller.sandbox.admin.clear_faults()
    assert (await caller.exchange()).status == 200


@pytest.mark.parametrize("status", [429, 503])
async def test_throttle(caller: Caller, status: int) -> None:
    admin = caller.sandbox.admin
    admin.fault(Fault(kind="throttle", status=status, retry_after=30))
    admin.fault(Fault(kind="throttle", status=status, retry_after=30, retry_after_as="date", count=1))
    admin.fault(Fault(kind="throttle", status=status, count=1))

    without, date, seconds = [await caller.exchange() for _ in range(3)]

    assert {reply.status for reply in (without, date, seconds)} == {status}
    assert "Retry-After" not in without.headers
    ahead = parsedate_to_datetime(date.headers["Retry-After"]).timestamp() - time.time()
    assert 0 < ahead <= 31
    assert seconds.headers["Retry-After"] == "30"


@pytest.mark.parametrize("processed", [False, True])
async def test_reset(caller: Caller, *, processed: bool) -> None:
    caller.sandbox.admin.fault(Fault(kind="reset", count=1, processed=processed))
    with pytest.raises(aiohttp.ClientOSError):
        await caller.exchange()
    assert caller.outcomes() == [("issued" if processed else "unprocessed", "reset", None)]
    assert len(caller.sandbox.admin.tokens(caller.client.id)) == processed
    assert (await caller.exchange()).status == 200


async def test_hang_until_the_client_gives_up(caller: Caller) -> None:
    caller.sandbox.admin.fault(Fault(kind="hang", processed=True))
    caller.sandbox.admin.reset_concurrency()
    hanging = [asyncio.create_task(caller.exchange()) for _ in range(3)]
    await until(lambda: caller.sandbox.admin.concurrency()["token"].now == 3)
    assert not any(task.done() for task in hanging)

    for task in hanging:
        task.cancel()

    await until(lambda: caller.sandbox.admin.concurrency()["token"].now == 0)
    assert caller.sandbox.admin.concurrency()["token"].peak == 3
    assert caller.sandbox.admin.concurrency()["graphql"].peak == 0
    assert caller.outcomes() == [("issued", "hang", None)] * 3
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_hang_ends_with_a_reset(caller: Caller) -> None:
    caller.sandbox.admin.fault(Fault(kind="hang", seconds=0.1))
    with pytest.raises(aiohttp.ClientOSError):
        await caller.exchange()


@pytest.mark.parametrize("fault", [Fault(kind="slow", seconds=0.3), Fault(kind="drip", seconds=0.002)])
async def test_slow_and_drip_are_right_but_late(caller: Caller, fault: Fault) -> None:
    caller.sandbox.admin.fault(fault)
    reply = await caller.exchange()
    (token,) = caller.sandbox.admin.tokens(caller.client.id)
    assert json.loads(reply.body)["access_token"] == token.value
    assert time.time() - token.issued_at >= 0.3
    assert caller.outcomes() == [("issued", fault.kind, 200)]


@pytest.mark.parametrize("processed", [False, True])
async def test_a_verbatim_answer(caller: Caller, *, processed: bool) -> None:
    caller.sandbox.admin.fault(Fault(kind="answer", body='{"access_token": "forged"}', processed=processed))
    reply = await caller.exchange()
    assert (reply.status, json.loads(reply.body)) == (200, {"access_token": "forged"})
    assert caller.outcomes() == [("issued" if processed else "unprocessed", "answer", 200)]


NO_ANSWERS = {"truncated_transfer", "not_http", "huge_header"}  # what no HTTP client gets to the end of


@pytest.mark.parametrize("name", sorted(catalogue("token")))
async def test_every_answer_of_the_token_endpoint(caller: Caller, name: str) -> None:
    caller.sandbox.admin.fault(Fault(kind="answer", answer=name))
    if name in NO_ANSWERS:
        with pytest.raises(aiohttp.ClientError):
            await caller.exchange()
    else:
        reply = await caller.exchange()
        (token,) = caller.sandbox.admin.tokens(caller.client.id)
        assert is_plain(reply, token.value) == catalogue("token")[name].usable
    ((outcome, fault, _),) = caller.outcomes()
    assert (outcome, fault) == ("issued", f"answer:{name}")


def is_plain(reply: Reply, token: str) -> bool:
    """Tell whether an answer is good by the rules of RFC 6749 and common sense, odd though it may be."""
    encoding = reply.headers.get("Content-Encoding")
    if (
        reply.status != 200
        or encoding is not None
        or len(reply.body) > SIZE_LIMIT
        or reply.body.count(b"token_type") > 1
    ):
        return False
    try:
        document = json.loads(reply.body.decode("utf-8"))
    except (ValueError, RecursionError):
        return False
    match document:
        case {"access_token": access_token, "token_type": str(token_type), "expires_in": expires_in}:
            return (
                reply.body.count(b'"access_token"') == 1
                and access_token == token
                and token_type.lower() == "bearer"
                and expires_in in (3600, "3600")  # no set: it would hash what a hostile answer has
                and str(document.get("refresh_token")).startswith("sandbox-refresh-")
                and isinstance(document.get("scope", ""), str)
                and "error" not in document
            )
    return False


@pytest.mark.parametrize("name", sorted(catalogue("graphql")))
async def test_every_answer_of_the_graphql_endpoint(caller: Caller, name: str) -> None:
    token = await caller.token()
    good = await caller.graphql(token)
    caller.sandbox.admin.fault(Fault(kind="answer", endpoint="graphql", answer=name))
    if name in NO_ANSWERS:
        with pytest.raises(aiohttp.ClientError):
            await caller.graphql(token)
    else:
        assert fingerprint(await caller.graphql(token), name) != fingerprint(good, name)
    assert caller.sandbox.admin.graphql_requests(caller.client.id)[-1].fault == f"answer:{name}"


def fingerprint(reply: Reply, name: str) -> object:
    """Return what tells an answer from a good one: Date only where that is what the answer is about."""
    headers = {key: value for key, value in reply.headers.items() if key != "Date" or name.startswith("date")}
    return reply.status, headers, reply.body


async def test_the_headers_of_odd_answers(caller: Caller) -> None:
    admin = caller.sandbox.admin
    admin.fault(Fault(kind="answer", answer="redirect_307", headers={"Location": "http://127.0.0.1:1/"}, count=1))
    assert (await caller.exchange()).headers["Location"] == "http://127.0.0.1:1/"
    admin.fault(Fault(kind="answer", answer="date_wrong", seconds=-600, count=1))
    behind = time.time() - parsedate_to_datetime((await caller.exchange()).headers["Date"]).timestamp()
    assert 590 < behind < 630
    admin.fault(Fault(kind="answer", answer="date_missing", count=1))
    assert "Date" not in (await caller.exchange()).headers
    admin.fault(Fault(kind="answer", answer="set_cookie", count=1))
    assert "Set-Cookie" in (await caller.exchange()).headers
    admin.fault(Fault(kind="answer", answer="huge_chunked", count=1))
    assert "Content-Length" not in (await caller.exchange()).headers
    admin.fault(Fault(kind="answer", answer="gzip_bomb", count=1))
    bomb = (await caller.exchange()).body
    assert len(bomb) < SIZE_LIMIT < len(gzip.decompress(bomb))


async def test_who_follows_a_redirect_is_seen(caller: Caller) -> None:
    caller.sandbox.admin.fault(Fault(kind="answer", answer="redirect_302", count=1))
    seen = caller.sandbox.admin.counts()["requests"]
    form = {"grant_type": "client_credentials", "client_id": caller.client.id, "client_secret": caller.client.secret}
    async with caller.session.post(caller.sandbox.token_url, data=form) as reply:
        assert reply.status == 405
    assert [request.status for request in caller.sandbox.admin.requests(since=seen)] == [302, 405]


async def test_a_refusal_stays_one_under_a_hostile_answer(caller: Caller) -> None:
    caller.sandbox.admin.fault(Fault(kind="answer", answer="redirect_302"))
    assert (await caller.ask(grant_type="client_credentials", client_id=caller.client.id)).status == 401


@pytest.mark.parametrize("name", ["echo_in_error", "echo_in_description", "echo_in_uri", "echo_in_reason"])
async def test_echoes_repeat_the_secret(caller: Caller, name: str) -> None:
    caller.sandbox.admin.fault(Fault(kind="answer", answer=name))
    assert caller.client.secret.encode() in (await caller.exchange()).body


BAD_FAULTS = {
    "no kind": ({}, "needs the field 'kind'"),
    "an unknown kind": ({"kind": "explode"}, "kind is one of fail, throttle"),
    "an unknown field": ({"kind": "fail", "colour": 1}, "no field 'colour'"),
    "a wrong type": ({"kind": "fail", "status": "500"}, "status is of type int"),
    "a bool for a number": ({"kind": "slow", "seconds": True}, "seconds is of type float"),
    "an impossible status": ({"kind": "fail", "status": 99}, "status is an HTTP status"),
    "an unknown answer": ({"kind": "answer", "answer": "nice"}, "has no answer 'nice'"),
    "another endpoint's answer": ({"kind": "answer", "answer": "data_null"}, "has no answer 'data_null'"),
    "neither answer nor body": ({"kind": "answer"}, "either an answer of the catalogue or a body"),
    "an answer for another kind": ({"kind": "fail", "answer": "not_json"}, "only a fault of kind answer"),
    "count 0": ({"kind": "fail", "count": 0}, "count is at least 1"),
    "negative seconds": ({"kind": "slow", "seconds": -1}, "seconds are not negative"),
    "no object": ([], "given as a JSON object"),
}


@pytest.mark.parametrize("what", BAD_FAULTS)
async def test_bad_faults_are_refused_with_a_sentence(caller: Caller, what: str) -> None:
    fault, sentence = BAD_FAULTS[what]
    url = f"{caller.sandbox.admin.url}/faults"
    async with caller.session.post(url, json=fault) as reply:
        assert reply.status == 400
        assert sentence in (await reply.json())["error"]
    async with caller.session.get(url) as reply:
        assert await reply.json() == []


BAD_CALLS = {
    "no JSON": ("POST", "/faults", "{", 400, "the body is no JSON"),
    "no list": ("POST", "/clients", "{}", 400, "given as a JSON array"),
    "no secret": ("PUT", "/clients/x", "{}", 400, "needs the field 'secret'"),
    "an empty secret": ("PUT", "/clients/x", '{"secret": ""}', 400, "a client's secret is one or more"),
    "no lifetime": ("PUT", "/clients/x", '{"secret": "x", "lifetime": 0}', 400, "lifetime is a positive"),
    "a scope with a space": ("PUT", "/clients/x", '{"secret": "x", "scopes": ["a b"]}', 400, "a scope is printable"),
    "an unknown client": ("POST", "/clients/nobody/secret", "{}", 404, "there is no client 'nobody'"),
    "a secret of another type": ("POST", "/clients/demo/secret", '{"secret": 1}', 400, "secret is a string"),
    "a token never issued": ("POST", "/tokens/revoke", '{"token": "x"}', 404, "no such access token"),
    "a sequence number never used": ("POST", "/tokens/revoke", '{"sequence": 0}', 404, "no such access token"),
    "no number": ("GET", "/ledger/requests?since=yesterday", "", 400, "since is a whole number"),
    "an unknown path": ("GET", "/nothing", "", 404, "see --help"),
}


@pytest.mark.parametrize("what", BAD_CALLS)
async def test_bad_calls_are_refused_with_a_sentence(caller: Caller, what: str) -> None:
    method, path, body, status, sentence = BAD_CALLS[what]
    async with caller.session.request(method, caller.sandbox.admin.url + path, data=body) as reply:
        assert reply.status == status
        assert sentence in (await reply.json())["error"]


def test_the_typed_client_raises_the_sentence(sandbox: SandboxProcess) -> None:
    with pytest.raises(SandboxError, match="there is no client 'nobody'"):
        sandbox.admin.rotate_secret("nobody")


async def test_what_there_is_can_be_listed(caller: Caller) -> None:
    number = caller.sandbox.admin.fault(Fault(kind="fail", count=3, client="x"))
    for path, expected in {
        "/": caller.sandbox.admin.addresses(),
        "/faults": [{"number": number, "left": 3, "kind": "fail", "client": "x"}],
        "/clients": [{"id": caller.client.id, "secret": caller.client.secret}],
        "/answers": {"token": {"not_json": {"description": "an HTML page of a proxy", "usable": False}}},
        "/ledger": {"requests": [], "tokens": []},
    }.items():
        async with caller.session.get(caller.sandbox.admin.url + path) as reply:
            assert contains(await reply.json(), expected), path


def contains(whole: object, part: object) -> bool:
    """Tell whether JSON has at least what another has."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and contains(whole[key], value) for key, value in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return all(any(contains(item, wanted) for item in whole) for wanted in part)
    return whole == part


def test_a_fault_may_meet_every_so_many_requests() -> None:
    faults = Faults()
    faults.add(Fault(kind="fail", every=3))
    assert [faults.take("token", "demo") is not None for _ in range(6)] == [False, False, True] * 2


def test_a_fault_may_spare_so_many_per_second_without_bursts() -> None:
    faults = Faults()
    faults.add(Fault(kind="throttle", rate=0.001))
    assert [faults.take("token", "demo") is not None for _ in range(3)] == [False, True, True]
