"""The sandbox as a program: its start, what it says, its clients file, and that it outlives nobody."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sandbox import DEMO_CLIENT, SandboxProcess
from tests.support.sandbox.process import REPOSITORY

PROGRAM = (sys.executable, "-m", "tests.support.sandbox")


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Tell whether a process that is not our child has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(  # noqa: S603 -- the sandbox
        [*PROGRAM, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "COLUMNS": "100"},  # --help is as wide as the terminal
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def start(*arguments: str) -> "subprocess.Popen[str]":
    """Start the program."""
    command = [*PROGRAM, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True)  # noqa: S603 -- the sandbox


def test_help_explains_all_of_it() -> None:
    shown = run("--help").stdout
    for word in ("client_credentials", "--clients", "/ledger/requests", "kind ", DEMO_CLIENT.secret, "duplicate_keys"):
        assert word in shown
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("clients.yaml", "clients:\n- id: shop\n  secret: of-no-worth\n  lifetime: 7\n"),
        ("list.yaml", "- {id: shop, secret: of-no-worth, lifetime: 7.5}\n"),
        ("clients.json", '[{"id": "shop", "secret": "of-no-worth", "lifetime": 7}]'),
    ],
)
def test_a_clients_file_takes_the_place_of_the_demo_client(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with SandboxProcess("--clients", str(file)) as sandbox:
        assert [(client.id, int(client.lifetime)) for client in sandbox.admin.clients()] == [("shop", 7)]


def test_without_one_there_is_the_demo_client() -> None:
    with SandboxProcess() as sandbox:
        assert sandbox.admin.clients() == [DEMO_CLIENT]


@pytest.mark.parametrize(
    "text",
    [
        "- {id: shop}",
        "shop: of-no-worth-1",
        "- {id: shop, secret: of-no-worth-1, colour: red}",
        "- [: of-no-worth-1",
        "\0",
    ],
)
def test_a_bad_clients_file_ends_it_with_a_line_that_shows_no_secret(tmp_path: Path, text: str) -> None:
    file = tmp_path / "clients.yaml"
    file.write_text(text, encoding="utf-8")
    ended = run("--clients", str(file))
    assert ended.returncode == 2
    assert ended.stderr.startswith("sandbox: ")
    assert len(ended.stderr.splitlines()) == 1
    assert "of-no-worth-1" not in ended.stderr


def test_a_taken_port_ends_it_with_a_line() -> None:
    with SandboxProcess() as sandbox:
        port = sandbox.token_url.rpartition(":")[2].partition("/")[0]
        with pytest.raises(RuntimeError, match=f"does not start: sandbox: .*{port}"):
            SandboxProcess("--http-port", port).__enter__()


def test_it_ends_with_its_context_and_leaves_no_file() -> None:
    with SandboxProcess() as sandbox:
        pid, ca_file = sandbox.pid, sandbox.ca_file
        assert ca_file.read_text(encoding="ascii").startswith("-----BEGIN CERTIFICATE-----")
    assert is_gone(pid)
    assert not ca_file.parent.exists()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = sandbox.pid


def test_it_ends_and_leaves_no_file_when_whoever_started_it_is_killed() -> None:
    starter = """
import signal
from tests.support.sandbox import SandboxProcess
with SandboxProcess() as sandbox:
    print(sandbox.pid, sandbox.ca_file, flush=True)
    signal.pause()
"""
    command = [sys.executable, "-c", starter]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as parent:  # noqa: S603 -- ours
        assert parent.stdout is not None
        pid, _, ca_file = parent.stdout.readline().partition(" ")
        parent.kill()
    wait_for(lambda: is_gone(int(pid)))
    assert not Path(ca_file.strip()).parent.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_for_people_it_says_where_it_is_and_ends_on_signals(tmp_path: Path, number: signal.Signals) -> None:
    with start("--ca-dir", str(tmp_path / "ca")) as process:
        assert process.stdout is not None
        said = "".join(process.stdout.readline() for _ in range(3))
        process.send_signal(number)
    assert process.returncode == 0
    assert str(tmp_path / "ca" / "ca.pem") in said
    assert "/token" in said


def test_for_programs_it_says_so_in_one_line_of_json() -> None:
    with start("--json", "--lifeline") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        addresses = json.loads(process.stdout.readline())
        process.stdin.close()
    assert set(addresses) == {"http", "https", "admin", "ca"}
    assert process.returncode == 0


def test_the_certificate_is_for_the_names_given() -> None:
    with SandboxProcess("--san", "sandbox.tuinly.test", "--san", "10.0.0.7") as sandbox:
        trust = ssl.create_default_context(cafile=sandbox.ca_file)
        port = int(sandbox.https_token_url.rpartition(":")[2].partition("/")[0])
        for name in ("sandbox.tuinly.test", "10.0.0.7", "localhost", "127.0.0.1"):
            with socket.create_connection(("127.0.0.1", port)) as raw, trust.wrap_socket(raw, server_hostname=name):
                pass
        with (
            socket.create_connection(("127.0.0.1", port)) as raw,
            pytest.raises(ssl.SSLCertVerificationError),
            trust.wrap_socket(raw, server_hostname="oauth.tuinly.com"),
        ):
            pass
