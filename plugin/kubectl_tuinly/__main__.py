"""The program `kubectl-tuinly`, which kubectl finds by its name, and `kubectl_complete-tuinly` for completion."""

import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from kubectl_tuinly.arguments import PROGRAM, login_flags, parser
from kubectl_tuinly.outcome import Exit, StopError

_COMPLETES: Final = "kubectl_complete-tuinly"
_MODULES: Final = {"resume": "suspend"}  # the two are one


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    _stand_in()
    try:
        if Path(sys.argv[0]).name == _COMPLETES:
            return _complete(words)
        return _run(words)
    except StopError as stop:
        sys.stderr.write(f"{PROGRAM}: {_printable(str(stop))}\n")
        return stop.exit_status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:  # whoever read has had enough, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"{PROGRAM}: {_printable(error.strerror or str(error))}\n")
        return Exit.UNCHECKED


def _stand_in() -> None:
    """Put something in the place of streams that are closed, and of letters that the output has not."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 -- to the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(words: Sequence[str]) -> int:
    options = parser().parse_args(words)
    # Only now: --help and a wrong command line need not wait for the rest.
    from kubectl_tuinly.edges.access import Access, RefusedError  # noqa: PLC0415 -- see above
    from kubectl_tuinly.edges.cluster import Cluster, stopped  # noqa: PLC0415

    command = import_module(f"kubectl_tuinly.commands.{_MODULES.get(options.command, options.command)}")
    with Access(login_flags(options)) as access:
        try:
            status: Exit = command.run(options, Cluster(access))
        except RefusedError as refused:
            raise stopped(refused) from None
    return status


def _complete(words: Sequence[str]) -> int:
    from kubectl_tuinly.completion import complete  # noqa: PLC0415 -- the other program

    sys.stdout.write(f"{complete(words)}\n")
    return Exit.READY


def _printable(text: str) -> str:
    from tuinly_operator.base.text import printable  # noqa: PLC0415 -- only at an end before its time

    return printable(text)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End by a signal as by a failure, so that kubectl ends too."""
    del frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
