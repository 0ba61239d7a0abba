"""Log lines: their two forms, that a value cannot forge one, and that libraries keep quiet."""

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr
from datetime import datetime
from enum import StrEnum

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tuinly_operator.base.logs import configure_logging, fields
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.base.text import printable
from tuinly_operator.domain.errors import Failure, Reason

LOG = logging.getLogger("tuinly_operator.reconciler.reconcile")
TIME = 1795503600.1234  # 2026-11-24T07:00:00.123Z


class Word(StrEnum):
    ISSUED = "Issued"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def logged(log_format: str, msg: str, *args: object, failure: Exception | None = None, **values: object) -> str:
    """What appears on stderr for one record of a known time."""
    with redirect_stderr(io.StringIO()) as stderr:
        configure_logging("info", log_format)
        info = (type(failure), failure, failure.__traceback__) if failure else None
        record = LOG.makeRecord(LOG.name, logging.INFO, __file__, 1, msg, args, info, extra=fields(**values))
        record.created = TIME
        LOG.handle(record)
    return stderr.getvalue()


def failure(text: str) -> Exception:
    """An exception that was raised where a local variable holds a secret."""

    def fail(_token: str) -> None:
        raise RuntimeError(text)

    with pytest.raises(RuntimeError) as caught:
        fail("hunter" + str(2))
    return caught.value


def test_a_text_line() -> None:
    line = logged("text", "refreshed after %d", 2, credential="shop/storefront", reason=Word.ISSUED, attempt=1, x=None)
    expected = "2026-11-24T07:00:00.123Z INFO    reconcile  refreshed after 2"
    assert line == f"{expected} credential=shop/storefront reason=Issued attempt=1\n"


@pytest.mark.rule("OBS-9")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_value_makes_a_long_line(log_format: str) -> None:
    """However long it is and whatever letters it has: escaped, each takes ten characters at most."""
    line = logged(log_format, "%s", "\U0001f600\x85" * 100_000, cause="\u2028" * 100_000)
    assert len(line) < 50_000
    assert line.count("\n") == 1
    assert "…" in line or "\\u2026" in line


@pytest.mark.rule("OBS-6")
def test_what_users_are_told_is_one_printable_line_and_no_long_one() -> None:
    told = Failure(Reason.INVALID_SPEC, "spec.\u202e\n\x85\U0001f600e\u0301\ufffe" + "x" * 100_000).message
    assert told.startswith("spec.\\u202e\\n\\x85\U0001f600e\u0301\\ufffe")
    assert told.isprintable()
    assert len(told) == 500


def test_a_json_line() -> None:
    line = logged("json", "refreshed after %d", 2, credential="shop/storefront", reason=Word.ISSUED, attempt=1, x=None)
    assert json.loads(line) == {
        "ts": "2026-11-24T07:00:00.123Z",
        "level": "info",
        "logger": "reconcile",
        "msg": "refreshed after 2",
        "credential": "shop/storefront",
        "reason": "Issued",
        "attempt": 1,
    }


def test_a_time_on_the_second_has_its_milliseconds() -> None:
    with redirect_stderr(io.StringIO()) as stderr:
        configure_logging("info", "json")
        record = LOG.makeRecord(LOG.name, logging.INFO, __file__, 1, "x", (), None)
        record.created = 1795503600.0
        LOG.handle(record)
    assert json.loads(stderr.getvalue())["ts"] == "2026-11-24T07:00:00.000Z"


HOSTILE = st.text() | st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp"]))


@pytest.mark.rule("OBS-9")
@given(HOSTILE, HOSTILE)
@example("refreshed\n2026-11-24T07:00:00.123Z INFO  forged", '"} {"msg": "forged\u2028')
@example("\x85\x1b[2J\r", "\udc80")
def test_a_json_line_round_trips_whatever_a_value_holds(msg: str, value: str) -> None:
    line = logged("json", "%s", msg, value=value)
    assert re.fullmatch(r"[ -~]+\n", line)
    assert {"msg": msg, "value": value}.items() <= json.loads(line).items()


@pytest.mark.rule("OBS-9")
@given(HOSTILE, HOSTILE)
@example("refreshed\n2026-11-24T07:00:00.123Z INFO  forged", "a reason=Forged")
@example("\x85\x1b[2J\r\u202e", 'a"b\\c')
def test_a_text_line_stays_one_printable_line_and_its_value_can_be_read_back(msg: str, value: str) -> None:
    line = logged("text", "%s", msg, value=value)
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    shown = line[:-1].removeprefix(f"2026-11-24T07:00:00.123Z INFO    reconcile  {printable(msg)} value=")
    assert (json.loads(shown) if shown.startswith('"') else shown) == value
    assert shown.startswith('"') or " " not in shown


@pytest.mark.parametrize("value", ["", "a b", 'a"b', "a=b", "a\nb"])
def test_a_value_that_is_not_one_plain_word_is_quoted_in_text(value: str) -> None:
    assert logged("text", "x", value=value).endswith(f" value={json.dumps(value)}\n")


@pytest.mark.parametrize("number", [0, -1, 2.5, True, False, 10**30])
def test_numbers_stay_numbers_in_json(number: float) -> None:
    assert json.loads(logged("json", "x", value=number))["value"] is not str(number)
    assert json.loads(logged("json", "x", value=number))["value"] == number


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_what_json_has_no_number_for_is_text(number: float) -> None:
    assert json.loads(logged("json", "x", value=number))["value"] == str(number)


@pytest.mark.rule("SEC-28")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_secret_shows_as_its_mask_wherever_it_is_put(log_format: str) -> None:
    secret = Sensitive("hunter2")
    line = logged(log_format, "%s %r", secret, secret, failure=failure(f"{secret}"), value=secret, values=[secret])
    assert "hunter2" not in line
    assert line.count("<sensitive>") == 5


@pytest.mark.rule("SEC-29")
def test_a_traceback_in_json_is_a_field_of_the_line_and_shows_no_values() -> None:
    line = logged("json", "x", failure=failure("broken\nforged"))
    assert line.count("\n") == 1
    exc = json.loads(line)["exc"]
    assert exc.startswith("Traceback (most recent call last):\n")
    assert exc.endswith("RuntimeError: broken\nforged")
    assert "hunter2" not in exc


def test_a_traceback_in_text_is_indented_so_that_its_lines_are_not_taken_for_records() -> None:
    first, *others = logged("text", "x", failure=failure("broken\n2026 forged\x1b[2J")).splitlines()
    assert first.endswith("reconcile  x")
    assert others[0] == "    Traceback (most recent call last):"
    assert others[-2:] == ["    RuntimeError: broken", "    2026 forged\\x1b[2J"]
    assert all(line.startswith("    ") for line in others)
    assert "hunter2" not in "".join(others)


# --- Who may speak ---

LIBRARIES = [
    "tuinly_operator",
    "aiohttp",
    "aiohttp.access",
    "aiohttp.server",
    "asyncio",
    "httpcore.http11",
    "httpx",
    "kopf",
    "kopf._core.reactor.queueing",
    "kopf.objects",
    "kubernetes.aio.client.rest",
    "some.other",
]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_our_own_follow_the_level(level: str) -> None:
    configure_logging(level, "text")
    assert LOG.getEffectiveLevel() == getattr(logging, level.upper())


@pytest.mark.parametrize("level", ["debug", "info"])
@pytest.mark.parametrize("name", LIBRARIES[1:])
def test_libraries_keep_quiet_whatever_the_level(name: str, level: str) -> None:
    configure_logging(level, "text")
    logger = logging.getLogger(name)
    if name.startswith("kopf") and name != "kopf.objects":
        assert logger.isEnabledFor(logging.DEBUG) == (level == "debug")
    else:
        assert not logger.isEnabledFor(logging.INFO)
    assert logger.isEnabledFor(logging.WARNING) == (name != "aiohttp.server")


@pytest.mark.rule("OBS-8")
@pytest.mark.parametrize(("number", "told"), [("1", True), ("2", False), ("17/20", False)])
def test_a_request_that_kopf_tries_again_is_told_once_and_is_no_error(number: str, *, told: bool) -> None:
    """As when a definition is upgraded: for a moment the API server asks to be left alone."""
    with redirect_stderr(io.StringIO()) as stderr:
        configure_logging("info", "json")
        logger = logging.getLogger("kopf._cogs.clients.watching")
        logger.error("Request attempt #%s failed; will retry: GET /apis -> APITooManyRequestsError()", number)
        logger.error("something else failed")
    levels = [json.loads(line)["level"] for line in stderr.getvalue().splitlines()]
    assert levels == (["warning", "error"] if told else ["error"])


def test_a_library_that_set_its_own_level_is_set_back() -> None:
    logging.getLogger("httpx").setLevel(logging.DEBUG)
    configure_logging("debug", "text")
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)


def test_configured_twice_it_logs_once() -> None:
    configure_logging("info", "text")
    with redirect_stderr(io.StringIO()) as stderr:
        configure_logging("info", "json")
        LOG.info("x")
    assert stderr.getvalue().count("\n") == 1


@pytest.mark.skipif(sys.flags.dev_mode, reason="development mode shows warnings in its own way")
def test_pythons_warnings_become_log_lines() -> None:
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()) as stderr:
        warnings.simplefilter("always")
        configure_logging("info", "json")
        warnings.warn("old\nthing", DeprecationWarning, stacklevel=1)
    line = json.loads(stderr.getvalue())
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "old\nthing" in line["msg"]


def test_the_time_of_a_record_is_now() -> None:
    before = datetime.now().astimezone()
    with redirect_stderr(io.StringIO()) as stderr:
        configure_logging("info", "json")
        LOG.info("x")
    shown = datetime.fromisoformat(json.loads(stderr.getvalue())["ts"])
    assert before.timestamp() - 0.001 <= shown.timestamp() <= datetime.now().astimezone().timestamp()
