"""The program `kubectl-tuinly`, which kubectl finds by its name, and `kubectl_complete-tuinly` for completion."""

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
    try:
        if Path(sys.argv[0]).name == _COMPLETES:
            return _complete(words)
        return _run(words)
    except StopError as stop:
        sys.stderr.write(f"{PROGRAM}: {_printable(str(stop))}\n")
        return stop.exit_status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.UNCHECKED


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
