"""The program `tuinly-operator`: settings, logs, no core dumps, and then the operator until SIGTERM."""

import asyncio
import ctypes
import gc
import logging
import os
import resource
import sys
from asyncio.sslproto import SSLProtocol
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Final

from tuinly_operator.base.logs import configure_logging
from tuinly_operator.base.settings import PROGRAM, SettingsError, parse_settings
from tuinly_operator.base.surroundings import Surroundings, garbage_of_this_process
from tuinly_operator.base.text import printable

_PR_SET_DUMPABLE: Final = 4  # prctl(2)
# In bytes. asyncio holds a buffer of this size for each TLS connection, and takes another for a moment at each read.
# By its own 256 KiB, the 70 connections of a leader came to hold 16 MB, and more with each one that was opened anew.
TLS_BUFFER: Final = 32 * 1024
# A block of so many bytes or more is mapped by itself, and so given back to the system once it is freed. No read of a
# TLS connection may take one: to map it costs 0.05 ms of CPU.
MAPPED_FROM: Final = 128 * 1024
# By mallopt(3). Left alone, glibc raises both as soon as a large block is freed, and keeps what the pages of a long
# list took: a tenth of the memory with 10,000 credentials.
_MALLOC: Final = {-3: MAPPED_FROM, -1: 2 * 1024 * 1024}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
# Packages that would import all of their modules, where the operator needs a few: most of `kubernetes` is a second
# client, with another HTTP library.
_HOLLOW: Final = ("kubernetes", "kubernetes.aio")
# What httpx (for a command line of its own) and kopf (for that client's types) try to import, and can do without.
_MISSING: Final = ("httpx._main", "kubernetes.client")

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 after SIGTERM, 1 if the operator failed, 2 for a wrong setting."""
    try:
        settings = parse_settings(sys.argv[1:] if argv is None else argv, os.environ)  # noqa: TID251 -- read here, and handed in
        configure_logging(settings.log_level, settings.log_format)
        forbid_core_dumps()
        allow_connections()
        tune_memory()
        garbage_of_this_process().watch()
        provide_home()
        spare_imports()
        gc.disable()  # nothing of what is imported now is garbage
        # Only now: --help and a wrong setting need not wait for kopf and kubernetes.
        from tuinly_operator.operator import run  # noqa: PLC0415 -- see above

        gc.freeze()  # modules stay: the collector need not look at them again before a day has passed
        gc.enable()
        surroundings = Surroundings.of_this_process()
        with asyncio.Runner(loop_factory=surroundings.iterations.loop) as runner:
            runner.run(run(settings, surroundings))
    except SettingsError as error:
        print(f"{PROGRAM}: {printable(str(error))}", file=sys.stderr)  # noqa: T201 -- for a person at a terminal
        return 2
    except Exception:  # noqa: BLE001 -- the last one to see it
        _log.exception("the operator failed")
        return 1
    return 0


def tune_memory() -> None:
    """Have connections hold less, and glibc give large blocks back.

    Another C library does as it likes.
    """
    SSLProtocol.max_size = TLS_BUFFER
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, value in _MALLOC.items():
            libc.mallopt(parameter, value)


def allow_connections() -> None:
    """Take as many descriptors as are allowed: the usual first limit, 1,024, is for programs that use select(2)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a kernel may refuse what it has named as the most
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def spare_imports() -> None:
    """Keep libraries from importing what is never used here: a third of all modules."""
    for name in _HOLLOW:
        if (spec := find_spec(name)) is not None:
            sys.modules[name] = module_from_spec(spec)
    for name in _MISSING:
        sys.modules[name] = None  # type: ignore[assignment]  # so an import fails as if it were not installed


def provide_home() -> None:
    """Name a home, as container runtimes do, for a user that has none: the Kubernetes client asks as it is imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"  # noqa: TID251 -- written, for a library to read


def forbid_core_dumps() -> None:
    """Keep the process's memory, with its secrets, out of core files and debuggers of the same user.

    The limit alone does not do: a kernel that pipes cores to a program ignores it (core(5)).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
