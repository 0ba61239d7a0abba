"""The command line: the commands, their flags, and help with examples. Light, since help must not wait."""

import argparse
from collections.abc import Callable
from typing import Final, Never

from kubectl_tuinly.outcome import Exit, StopError

PROGRAM: Final = "kubectl tuinly"
_EXITS: Final = "Exit status: 0 ready or done, 1 not ready, 2 wrong use, 3 could not be checked."
MOST_SECONDS: Final = 86_400

# What kubectl takes after a plugin's name, as it stands, for the login: with a value, and by how many.
LOGIN: Final = ("--context", "--kubeconfig", "--cluster", "--user", "--as", "--as-group", "--as-uid")


class _Parser(argparse.ArgumentParser):
    """One whose errors are one line, with where to look."""

    def error(self, message: str) -> Never:
        raise StopError(Exit.WRONG_USE, f"{message} (see {self.prog} --help)")


def seconds(text: str) -> float:
    """Seconds in a duration such as 90s or 2m. Raises ArgumentTypeError."""
    from tuinly_operator.base.clock import parse_duration  # noqa: PLC0415 -- only where one is given

    try:
        found = float(text) if text.isdecimal() else parse_duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s or 2m") from None
    if found > MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than a day")
    return found


def name(text: str) -> str:
    """A name of an object. Raises ArgumentTypeError."""
    from tuinly_operator.base.names import is_name  # noqa: PLC0415 -- as above
    from tuinly_operator.base.text import cut  # noqa: PLC0415

    if not is_name(text):
        problem = f"'{cut(text, 50)}' is no name: those have small letters, digits, - and ."
        raise argparse.ArgumentTypeError(problem)
    return text


def name_or_nothing(text: str) -> str:
    """A name of an object, or, as for kubectl, nothing at all. Raises ArgumentTypeError."""
    return text and name(text)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog=PROGRAM,
        description="Tuinly access tokens in Kubernetes: which are fresh, why one is not, and what to do.",
        epilog=f"kubectl tuinly COMMAND --help explains a command, with examples. {_EXITS}",
        allow_abbrev=False,
    )
    _add_login(top)
    commands = top.add_subparsers(title="Commands", metavar="COMMAND", dest="command", required=True)
    for name, (summary, examples, add) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog="Examples:\n" + "\n".join(f"  {PROGRAM} {line}" for line in examples) + f"\n\n{_EXITS}",
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30),
            allow_abbrev=False,
        )
        add(command)
        _add_login(command)
    return top


def _add_login(command: argparse.ArgumentParser) -> None:
    login = command.add_argument_group("As for kubectl")
    login.add_argument(
        "-n",
        "--namespace",
        metavar="NAME",
        type=name_or_nothing,
        default=argparse.SUPPRESS,
        help="namespace of the credentials",
    )
    what = {
        "--context": "context of the kubeconfig",
        "--kubeconfig": "file to log in with",
        "--cluster": "cluster of the kubeconfig",
        "--user": "user of the kubeconfig",
        "--as": "act as this user",
        "--as-group": "act as a member of this group; repeatable",
        "--as-uid": "act as the user with this UID",
    }
    for flag in LOGIN:
        action = "append" if flag == "--as-group" else "store"
        login.add_argument(flag, metavar="VALUE", action=action, default=argparse.SUPPRESS, help=what[flag])


def login_flags(options: argparse.Namespace) -> list[str]:
    """The flags to hand on to kubectl."""
    flags = []
    for flag in LOGIN:
        given = getattr(options, flag.removeprefix("--").replace("-", "_"), None)
        for value in [given] if isinstance(given, str) else given or []:
            flags += [flag, value]
    return flags


# The commands ---------------------------------------------------------------------------------------------------------


def _several(command: argparse.ArgumentParser, *, needed: bool) -> None:
    what = "credentials" + ("" if needed else "; default: all")
    command.add_argument("names", metavar="NAME", nargs="*", type=name, help=what)
    command.add_argument("-A", "--all-namespaces", action="store_true", help="in all namespaces")
    command.add_argument(
        "-l", "--selector", metavar="LABELS", default="", help="those with these labels, such as team=shop"
    )


def _waiting(command: argparse.ArgumentParser, until: str) -> None:
    command.add_argument("--wait", action="store_true", help=f"wait until {until}")
    command.add_argument("--timeout", metavar="DURATION", type=seconds, default=60.0, help="of --wait (default: 60s)")


def _where(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--operator-namespace",
        metavar="NAME",
        type=name_or_nothing,
        help="where the operator is (default: found by its label)",
    )


def _status(command: argparse.ArgumentParser) -> None:
    _several(command, needed=False)
    command.add_argument("-w", "--watch", action="store_true", help="go on, and show what changes")
    command.add_argument("-o", "--output", choices=("wide", "json", "yaml"), help="more columns, or data for programs")


def _why(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", type=name, help="credential")
    _where(command)


def _renew(command: argparse.ArgumentParser) -> None:
    _several(command, needed=True)
    _waiting(command, "it was tried, and say what came of it")
    command.add_argument("-y", "--yes", action="store_true", help="do not ask where it is more than one")


def _suspend(command: argparse.ArgumentParser) -> None:
    command.add_argument("names", metavar="NAME", nargs="+", type=name, help="credentials")
    _waiting(command, "the operator has confirmed it")


def _render(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-f", "--filename", metavar="FILE", required=True, help="file with credentials; - for standard input"
    )


def _check(command: argparse.ArgumentParser) -> None:
    _where(command)
    _waiting(command, "all is as it should be")


def _report(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", nargs="?", type=name, help="credential; default: all of the namespace")
    command.add_argument(
        "-f", "--filename", metavar="FILE.zip", required=True, help="file to write; it must not exist yet"
    )
    command.add_argument("--logs", action="store_true", help="with the last lines of the operator's logs")
    _where(command)


def _token(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", type=name, help="credential")
    command.add_argument(
        "--key", metavar="KEY", help="key of the target Secret (default: the one with the token alone)"
    )
    command.add_argument("-y", "--yes", action="store_true", help="also on a terminal, where it stays to be seen")


COMMANDS: Final[dict[str, tuple[str, tuple[str, ...], Callable[[argparse.ArgumentParser], None]]]] = {
    "status": (
        "show credentials, those first that need attention",
        ("status", "status -A --watch", "status storefront -o json", "status -l team=shop -o wide"),
        _status,
    ),
    "why": ("check step by step why a credential is as it is, and say what to do", ("why storefront -n shop",), _why),
    "renew": (
        "force a new token now, for example as the present one has leaked",
        ("renew storefront --wait", "renew -A -l team=shop --yes"),
        _renew,
    ),
    "suspend": (
        "ask for no more tokens until it is resumed; the present one stays",
        ("suspend storefront --wait",),
        _suspend,
    ),
    "resume": ("go on after suspend", ("resume storefront --wait",), _suspend),
    "render": (
        "show what the target Secret would look like, offline, with a made-up token",
        ("render -f storefront.yaml", "render -f - < storefront.yaml"),
        _render,
    ),
    "check": (
        "check whether the operator's installation is healthy",
        ("check", "check --wait --timeout 2m", "check --operator-namespace tuinly-system"),
        _check,
    ),
    "report": (
        "write a zip file for support, without what any Secret holds",
        ("report -n shop -f report.zip", "report storefront -f report.zip --logs"),
        _report,
    ),
    "token": (
        "print the access token, for a pipe",
        ("token storefront | pbcopy", "token storefront --key tuinly.env > .env"),
        _token,
    ),
    "version": ("show the versions of plugin, definition and operator", ("version",), _where),
}
