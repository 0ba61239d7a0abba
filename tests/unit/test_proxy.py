"""The proxy before a server loses what it is told to lose, and nothing else."""

import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.proxy import ApiProxy, Fault
from tests.support.sandbox import DEMO_CLIENT, SandboxProcess
from tests.support.waiting import wait_until

FORM = urlencode({"grant_type": "client_credentials", "client_id": DEMO_CLIENT.id, "client_secret": DEMO_CLIENT.secret})


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess() as running:
        yield running


@pytest.fixture
def proxy(sandbox: SandboxProcess, tmp_path: Path) -> Iterator[ApiProxy]:
    upstream = sandbox.https_token_url.removesuffix("/token")
    with ApiProxy(upstream, sandbox.ca_file, tmp_path) as running:
        yield running


def ask(proxy: ApiProxy, path: str = "/token") -> int:
    """Ask for a token through the proxy, and return the status."""
    context = ssl.create_default_context(cafile=proxy.ca_file)
    connection = HTTPSConnection(urlsplit(proxy.url).netloc, timeout=30, context=context)
    try:
        connection.request("POST", path, FORM, {"Content-Type": "application/x-www-form-urlencoded"})
        return connection.getresponse().status
    finally:
        connection.close()


def asked(proxy: ApiProxy, path: str = "/token") -> "Future[int]":
    """The same, without waiting for it."""
    answer: Future[int] = Future()

    def run() -> None:
        try:
            answer.set_result(ask(proxy, path))
        except (OSError, HTTPException) as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


def test_of_an_unanswered_request_the_server_knows_and_the_client_does_not(
    proxy: ApiProxy, sandbox: SandboxProcess
) -> None:
    before = sandbox.admin.counts()["tokens"]
    fault = proxy.fault(Fault(path="/token", unanswered=True, times=1))
    answer = asked(proxy)
    wait_until(lambda: sandbox.admin.counts()["tokens"] == before + 1, what="a token is issued")
    assert ask(proxy) == 200
    assert fault.met == 1
    assert not answer.done()
    proxy.cut()
    assert isinstance(answer.exception(30), (OSError, HTTPException))


def test_a_fault_that_ends_leaves_the_others(proxy: ApiProxy) -> None:
    first, second = proxy.fault(Fault(path="/token", status=500)), proxy.fault(Fault(path="/token", status=503))
    assert ask(proxy) == 500
    proxy.end(first)
    assert ask(proxy) == 503
    proxy.end(second)
    assert ask(proxy) == 200


def test_what_is_delayed_is_not_passed_on_before_its_time(proxy: ApiProxy, sandbox: SandboxProcess) -> None:
    before = sandbox.admin.counts()["tokens"]
    proxy.delay(3600)
    answer = asked(proxy)
    wait_until(lambda: len(proxy.requests) == 1, what="the request is there")
    proxy.pass_on()
    assert ask(proxy) == 200
    proxy.delay(0.01)
    assert ask(proxy) == 200
    assert sandbox.admin.counts()["tokens"] == before + 2
    assert not answer.done()


def test_a_silenced_request_stays_open_and_later_ones_of_its_path_pass(proxy: ApiProxy) -> None:
    proxy.delay(2.0)
    answer, other = asked(proxy), asked(proxy, "/token?other=1")
    wait_until(lambda: len(proxy.requests) == 2, what="the requests are there")
    proxy.silence("/token$")
    proxy.delay(0.0)
    assert ask(proxy) == 200
    assert other.result(30) == 400  # as the sandbox takes no query
    assert not answer.done()
