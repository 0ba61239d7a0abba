"""The program as a process: its exit statuses, one-line errors, help, and the memory that it keeps to itself."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tuinly_operator.__main__ import MAPPED_FROM, TLS_BUFFER
from tuinly_operator.base.settings import FLAGS

ALL_FLAGS = [flag for group in FLAGS.values() for flag in group]


def python(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- this very interpreter
        [sys.executable, *argv],
        env={**os.environ, "COLUMNS": "80", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def program(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "tuinly_operator", *argv, **environ)


def program_that_runs(body: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """The program with an operator of these lines: how `main` ends does not depend on what the operator does."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return python("-c", f"{STAND_IN}\n{lines}\n{RUN_MAIN}", "run", *argv)


STAND_IN = """
import sys, types
from tuinly_operator.base.settings import Settings, SettingsError
from tuinly_operator.base.surroundings import Surroundings
async def run(settings: Settings, surroundings: Surroundings) -> None:"""
RUN_MAIN = """
sys.modules["tuinly_operator.operator"] = types.ModuleType("operator")
sys.modules["tuinly_operator.operator"].run = run
from tuinly_operator.__main__ import main
sys.exit(main())
"""


@pytest.mark.rule("SET-2")
@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            ["run", "--request-timeout", "abc"],
            '--request-timeout (TUINLY_REQUEST_TIMEOUT): "abc" is not a duration such as 8s',
        ),
        (
            ["run", "--namespace", "a\nb\x1b[2J"],
            '--namespace (TUINLY_NAMESPACES): "a\\nb\\u001b[2J" is not the name of a namespace',
        ),
        (["run", "--colour\nred"], "unrecognized arguments: --colour\\nred"),
        (["run", "--concurrency"], "argument --concurrency: expected one argument"),
        (["run", "--concur", "3"], "unrecognized arguments: --concur 3"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_the_program_ends_at_once_with_one_line_and_status_2(argv: Sequence[str], line: str) -> None:
    ended = program(*argv)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"tuinly-operator: {line}\n")


def test_the_program_refuses_a_wrong_variable() -> None:
    ended = program("run", TUINLY_LOG_LEVEL="loud")
    line = 'tuinly-operator: --log-level (TUINLY_LOG_LEVEL): "loud" is not one of debug, info, warning, error\n'
    assert (ended.returncode, ended.stderr) == (2, line)


@pytest.mark.parametrize("width", [80, 120])
def test_help_explains_every_flag_with_default_and_variable_in_the_width_of_the_terminal(width: int) -> None:
    ended = program("run", "--help", COLUMNS=str(width))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert max(map(len, ended.stdout.splitlines())) <= width
    text = " ".join(ended.stdout.split())
    for flag in ALL_FLAGS:
        value = flag.metavar if flag.alone is None else f"[{flag.metavar}]"
        assert f"{flag.name} {value} {flag.help}" in text
        assert f"(default: {flag.default or flag.unset}) [{flag.variable}]" in text
    assert [title for title in FLAGS if f"\n{title}:\n" in ended.stdout] == list(FLAGS)


def test_version() -> None:
    ended = program("--version")
    assert ended.returncode == 0
    assert re.fullmatch(r"tuinly-operator \d+\.\d+\.\d+\n", ended.stdout)


def test_an_operator_that_returns_ends_with_status_0() -> None:
    ended = program_that_runs("print(settings.concurrency)", "--concurrency", "7")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "7\n", "")


def test_a_setting_that_proves_wrong_later_is_one_line_too() -> None:
    ended = program_that_runs('raise SettingsError("--kubeconfig (TUINLY_KUBECONFIG): broken\\nfile")')
    assert (ended.returncode, ended.stderr) == (
        2,
        "tuinly-operator: --kubeconfig (TUINLY_KUBECONFIG): broken\\nfile\n",
    )


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = program_that_runs(
            "from tuinly_operator.edges.health import HealthServer\n"
            "await HealthServer(settings.listen, alive=list, ready=list, notes=list, metrics=bytes).start()",
            "--listen",
            f"127.0.0.1:{port}",
        )
    line = f"--listen (TUINLY_LISTEN): cannot listen on 127.0.0.1 port {port}: Address already in use"
    assert (ended.returncode, ended.stderr) == (2, f"tuinly-operator: {line}\n")


@pytest.mark.rule("SEC-29")
def test_a_failing_operator_is_logged_with_its_traceback_but_no_values() -> None:
    ended = program_that_runs('token = "hunter" + str(2)\nraise RuntimeError("broken")', "--log-format", "json")
    assert ended.returncode == 1
    assert '"msg": "the operator failed", "exc": "Traceback' in ended.stderr
    assert "RuntimeError: broken" in ended.stderr
    assert "hunter2" not in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.rule("SEC-31")
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_no_core_dump_and_no_debugger_of_the_same_user() -> None:
    ended = program_that_runs(
        "import ctypes, resource\nprint(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3))",
    )
    assert ended.stdout == "(0, 0) 0\n"  # PR_GET_DUMPABLE is 3


SPARED = """
import sys
from tuinly_operator.__main__ import spare_imports
spare_imports()
import tuinly_operator.operator
print([name for name in ("requests", "urllib3", "rich", "click", "kubernetes.client") if sys.modules.get(name)])
"""


def test_no_library_imports_what_is_never_used() -> None:
    ended = python("-c", SPARED)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_garbage_is_collected_once_all_is_imported() -> None:
    ended = program_that_runs("import gc\nprint(gc.isenabled())")
    assert ended.stdout == "True\n"


def test_a_tls_connection_holds_little_and_what_a_read_takes_for_a_moment_is_not_mapped_each_time() -> None:
    ended = program_that_runs("from asyncio.sslproto import SSLProtocol\nprint(SSLProtocol.max_size)")
    assert ended.stdout == f"{TLS_BUFFER}\n"
    assert TLS_BUFFER + sys.getsizeof(b"") < MAPPED_FROM
