"""Log lines on stderr, as text for people or JSON for machines: one line each, whatever a value holds.

    _log = logging.getLogger(__name__)
    _log.info("refreshed", extra=fields(credential=key, reason=Reason.ISSUED))

    2026-11-24T07:00:00.123Z INFO    reconcile  refreshed credential=shop/storefront reason=Issued
    {"ts": "2026-11-24T07:00:00.123Z", "level": "info", "logger": "reconcile", "msg": "refreshed", "credential": …}

Nothing is redacted here: secrets are Sensitive and print as a mask by themselves. Tracebacks show code, never values.
"""

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from typing import Final

from tuinly_operator.base.clock import rfc3339
from tuinly_operator.base.text import cut, printable

_MOST: Final = 2000  # characters of a message or of a field: no value fills a disk
_PACKAGE: Final = "tuinly_operator"

# Libraries keep quiet whatever the level: at lower ones httpx logs each request, httpcore headers, kopf.objects each
# event. Only kopf's machinery may speak at debug. What aiohttp.server reports as errors are broken requests of others.
_LIBRARIES: Final = {
    "aiohttp": logging.WARNING,
    "aiohttp.server": logging.CRITICAL,
    "asyncio": logging.WARNING,
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    # They warn that kopf leaves the signals to us, as it should, and tell twice of a failure that ends kopf, as we do.
    "kopf._core.reactor.orchestration": logging.CRITICAL,
    "kopf._core.reactor.running": logging.CRITICAL,
    "kopf.objects": logging.WARNING,
    "kubernetes": logging.WARNING,
}

# kopf logs each failed try of a request as an error: every few seconds while an outage lasts, and even at the moment
# when a definition is upgraded.
_TRY: Final = re.compile(r"Request attempt #(\d+)(/\d+)? failed; will retry")


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Fields of a log line, for `extra=`. None leaves one out; JSON keeps numbers and bools, the rest is str."""
    return {"fields": {name: _plain(value) for name, value in values.items() if value is not None}}


def _plain(value: object) -> object:
    # JSON has no infinity and no NaN.
    number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return value if number else cut(str(value), _MOST)


def configure_logging(level: str, log_format: str) -> None:
    """Send logs to stderr, the operator's own from `level` (debug, info, warning, error), as text or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    handler.addFilter(_lower_try)
    if level != "debug":
        handler.addFilter(_is_no_later_try)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger(_PACKAGE).setLevel(level.upper())
    logging.getLogger("kopf").setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    for name, least in _LIBRARIES.items():
        logging.getLogger(name).setLevel(least)


def _try(record: logging.LogRecord) -> int:
    """The number of the try of a request that kopf tells of; 0 where it is about something else."""
    found = _TRY.match(record.getMessage()) if record.name.startswith("kopf.") else None
    return int(found[1]) if found else 0


def _lower_try(record: logging.LogRecord) -> bool:
    """Make a warning of each try of kopf's."""
    if _try(record):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def _is_no_later_try(record: logging.LogRecord) -> bool:
    """Whether it is to be logged: of kopf's tries, the first alone."""
    return _try(record) <= 1


class _Formatter(logging.Formatter):
    """What both forms share."""

    @staticmethod
    def time(record: logging.LogRecord) -> str:
        """RFC 3339 in UTC, with milliseconds."""
        return rfc3339(record.created, "milliseconds")

    @staticmethod
    def name(record: logging.LogRecord) -> str:
        """The logger's name; of our own, the module's."""
        ours = record.name.startswith(f"{_PACKAGE}.")
        return record.name.rpartition(".")[2] if ours else record.name

    @staticmethod
    def fields(record: logging.LogRecord) -> Mapping[str, object]:
        """What `fields` put there."""
        values: Mapping[str, object] = getattr(record, "fields", {})
        return values

    @staticmethod
    def message(record: logging.LogRecord) -> str:
        """What it says; libraries may say anything."""
        return cut(record.getMessage(), _MOST)

    def traceback(self, record: logging.LogRecord) -> str:
        """The exception with its traceback, empty if there is none."""
        return self.formatException(record.exc_info) if record.exc_info else ""


class _JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": self.time(record),
            "level": record.levelname.lower(),
            "logger": self.name(record),
            "msg": self.message(record),
            **self.fields(record),
        }
        if traceback := self.traceback(record):
            line["exc"] = traceback
        return json.dumps(line)


class _TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        start = f"{self.time(record)} {record.levelname:<7} {self.name(record)}  {self.message(record)}"
        words = [f"{name}={_quoted(value)}" for name, value in self.fields(record).items()]
        # Indented, since an exception's own text may have lines that look like ours.
        traceback = [f"    {printable(part)}" for part in self.traceback(record).splitlines()]
        return "\n".join([" ".join([printable(start), *words]), *traceback])


def _quoted(value: object) -> str:
    """A field's value as one word: as it is where it is one, else as a JSON string."""
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text)
