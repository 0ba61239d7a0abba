"""What the cluster admin sets: the flags of `tuinly-operator run` and their TUINLY_* variables, checked at start.

One table, `FLAGS`, makes the parser, the help, the names of the variables and the settings. No setting ever takes a
secret: command lines and environments can be read by others.
"""

import argparse
import difflib
import ipaddress
import json
import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Never
from urllib.parse import urlsplit

from tuinly_operator.base.clock import parse_duration
from tuinly_operator.base.names import NamespacedName

PROGRAM: Final = "tuinly-operator"


class SettingsError(Exception):
    """Something the admin must mend before the operator can run. Its text is one line that names the setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one run. Durations are in seconds."""

    kubeconfig: Path | None
    """None: in-cluster in a Pod, else what kubectl would take."""
    namespaces: tuple[str, ...]
    """Empty: all."""
    selector: str
    """Label selector of the credentials to serve; empty: all."""
    lease: NamespacedName | None
    """None: no election, since there is but one replica."""
    token_url: str
    graphql_url: str
    allowed_token_urls: frozenset[str]
    """With `token_url`; a resource may name these and no others."""
    allowed_graphql_urls: frozenset[str]
    """With `graphql_url`."""
    ca_bundle: Path | None
    request_timeout: float
    min_refresh_interval: float
    concurrency: int
    push: bool
    """Whether Pods may be told of new tokens."""
    push_rate: int
    """Requests per second for that, over all."""
    log_level: str
    log_format: str
    listen: tuple[str, int]
    """IP address and port; port 0 is a free one."""


# --- Values. Each parser raises ValueError with the end of a sentence that begins with the value ----------------------

_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_URL: Final = re.compile(r"https?://[A-Za-z0-9._~:/?\[\]!$&'()*+,;=%-]+")  # RFC 3986 without '@' and '#'
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123 label
_OBJECT: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")  # RFC 1123 subdomain, nearly
# A label selector as Kubernetes writes them (Labels and Selectors, "Label selectors"); lengths aside.
_WORD: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_LABEL: Final = rf"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?{_WORD}"
_VALUES: Final = rf"\( *(?:{_WORD})?(?: *, *(?:{_WORD})?)* *\)"
_REQUIREMENT: Final = rf" *(?:! *{_LABEL}|{_LABEL}(?: *(?:==?|!=) *(?:{_WORD})?| +(?:not)?in *{_VALUES})?) *"
_SELECTOR: Final = re.compile(rf"{_REQUIREMENT}(?:,{_REQUIREMENT})*")
_SELECTOR_LENGTH: Final = 1024
_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[^]]+)\]|(?P<v4>[^:]+)):(?P<port>[0-9]{1,5})")
_MAX_PORT: Final = 65535

# What follows a Service's name in the variables that Kubernetes injects, the old Docker ones among them.
_INJECTED: Final = re.compile(r"_(?:SERVICE_HOST|(?:SERVICE_)?PORT(?:_.+)?)")


def parse_seconds(text: str) -> float:
    """Seconds in a duration such as `1m30s`, or in a bare number of seconds.

    Raises ValueError for anything else, signs included.
    """
    return float(text) if _NUMBER.fullmatch(text) else parse_duration(text)


def _duration(least: str, most: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        seconds = parse_seconds(text)
        if not parse_seconds(least) <= seconds <= parse_seconds(most):
            raise ValueError(f"is not between {least} and {most}")
        return seconds

    return parse


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # The length first: Python refuses to convert thousands of digits, with a sentence of its own.
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"is not a whole number from {least} to {most}")
        return int(text)

    return parse


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return text

    return parse


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return text == "true"


def _url(text: str) -> str:
    if not _URL.fullmatch(text) or not _has_host(text):
        raise ValueError("is not an http or https URL with a host, and without user and fragment")
    return text


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that hold no IPv6 address, a port out of range
        return False


def _namespace(text: str) -> str:
    if not _NAMESPACE.fullmatch(text):
        raise ValueError("is not the name of a namespace")
    return text


def _selector(text: str) -> str:
    # The length first, as the grammar lets a hostile text be tried in many ways.
    if text and not (len(text) <= _SELECTOR_LENGTH and _SELECTOR.fullmatch(text)):
        raise ValueError("is not a label selector such as shard=a or shard!=a,tier in (gold)")
    return text


def _lease(text: str) -> NamespacedName:
    namespace, _, name = text.partition("/")
    if not _NAMESPACE.fullmatch(namespace) or not _OBJECT.fullmatch(name):
        raise ValueError("is not NAMESPACE/NAME of a Lease")
    return NamespacedName(namespace, name)


def _listen(text: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(text)
    if not match or not _is_address(match["v4"], match["v6"]) or int(match["port"]) > _MAX_PORT:
        raise ValueError("is not IP:PORT such as 0.0.0.0:8080 or [::]:8080")
    return match["v6"] or match["v4"], int(match["port"])


def _is_address(v4: str | None, v6: str | None) -> bool:
    try:
        ipaddress.IPv6Address(v6) if v6 else ipaddress.IPv4Address(v4)
    except ValueError:
        return False
    return True


def _readable_file(text: str) -> Path:
    try:
        with Path(text).open("rb"):
            return Path(text)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def _ca_bundle(text: str) -> Path:
    path = _readable_file(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
        usable = context.cert_store_stats()["x509"] > 0  # a file of revocation lists alone loads too
    except ssl.SSLError:
        usable = False
    if not usable:
        raise ValueError("holds no certificate in PEM form, or a broken one")
    return path


# --- The table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag of `run`. `default` is written as a user would write it; None: not set (shown as `unset`)."""

    name: str
    metavar: str
    help: str
    parse: Callable[[str], object]
    default: str | None = None
    unset: str = "none"
    repeatable: bool = False
    alone: str | None = None
    """What it means without a value; None: it needs one."""

    @property
    def field(self) -> str:
        """The name of its setting, where argparse puts it too."""
        return self.name.removeprefix("--").replace("-", "_") + ("s" if self.repeatable else "")

    @property
    def variable(self) -> str:
        """The environment variable that stands in for the flag."""
        return f"TUINLY_{self.field.upper()}"


FLAGS: Final[Mapping[str, Sequence[Flag]]] = {
    "Kubernetes": (
        Flag(
            name="--kubeconfig",
            metavar="PATH",
            help="kubeconfig file to log in with",
            parse=_readable_file,
            unset="in a Pod its ServiceAccount, else $KUBECONFIG, else ~/.kube/config",
        ),
        Flag(
            name="--namespace",
            metavar="NAME",
            help="namespace to serve",
            parse=_namespace,
            unset="all namespaces",
            repeatable=True,
        ),
        Flag(
            name="--selector",
            metavar="LABELS",
            help="serve only credentials with these labels, such as shard=a; each shard needs a Lease of its own",
            parse=_selector,
            default="",
            unset="all credentials",
        ),
        Flag(
            name="--lease",
            metavar="NAMESPACE/NAME",
            help="Lease by which several replicas elect the one at work; needed as soon as there are two",
            parse=_lease,
            unset="no election",
        ),
    ),
    "Tuinly": (
        Flag(
            name="--token-url",
            metavar="URL",
            help="token endpoint of credentials that name none",
            parse=_url,
            default="https://oauth.tuinly.com/token",
        ),
        Flag(
            name="--allowed-token-url",
            metavar="URL",
            help="another token endpoint that credentials may name, compared letter by letter",
            parse=_url,
            repeatable=True,
        ),
        Flag(
            name="--graphql-url",
            metavar="URL",
            help="GraphQL endpoint that verifies tokens of credentials that name none",
            parse=_url,
            default="https://graphql.tuinly.com/graphql",
        ),
        Flag(
            name="--allowed-graphql-url",
            metavar="URL",
            help="another GraphQL endpoint that credentials may name, compared letter by letter",
            parse=_url,
            repeatable=True,
        ),
        Flag(
            name="--ca-bundle",
            metavar="PATH",
            help="PEM file of certificate authorities to trust besides the usual ones",
            parse=_ca_bundle,
        ),
        Flag(
            name="--request-timeout",
            metavar="DURATION",
            help="time that one token request may take in all, 100ms to 1m",
            parse=_duration("100ms", "1m"),
            default="8s",
        ),
    ),
    "Refreshing": (
        Flag(
            name="--min-refresh-interval",
            metavar="DURATION",
            help="least time between two attempts of one credential, 10ms to 1m",
            parse=_duration("10ms", "1m"),
            default="5s",
        ),
        Flag(
            name="--concurrency",
            metavar="N",
            help="how many token requests and verifications may be in flight, 1 to 1000",
            parse=_whole_number(1, 1000),
            default="20",
        ),
    ),
    "Delivery": (
        Flag(
            name="--push",
            metavar="true|false",
            help="tell the Pods that mount a new token where spec.delivery.pods is Push; needs more rights",
            parse=_switch,
            default="false",
            alone="true",
        ),
        Flag(
            name="--push-rate",
            metavar="N",
            help="how many Pods are told per second, over all, 1 to 500; after a pause, a burst of twice as many",
            parse=_whole_number(1, 500),
            default="20",
        ),
    ),
    "Logging": (
        Flag(
            name="--log-level",
            metavar="LEVEL",
            help="least severity to log: debug, info, warning or error",
            parse=_choice("debug", "info", "warning", "error"),
            default="info",
        ),
        Flag(
            name="--log-format",
            metavar="FORMAT",
            help="text for people or json for machines, one line each",
            parse=_choice("text", "json"),
            default="text",
        ),
    ),
    "Serving": (
        Flag(
            name="--listen",
            metavar="IP:PORT",
            help="where /healthz, /readyz and /metrics are served; port 0 takes a free one and logs it",
            parse=_listen,
            default="0.0.0.0:8080",
        ),
    ),
}

_NOTES: Final = (
    "A flag wins over its variable; an empty variable counts as not set. A repeatable flag's variable holds several "
    "values, parted by commas or spaces. A duration is written 8s, 1m30s or 250ms; a bare number is seconds. "
    "Plain http is only spoken to the very URLs that are named here."
)


# --- From the command line and the environment to settings ------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage."""

    def error(self, message: str) -> Never:
        raise SettingsError(message)


def _explain(flag: Flag) -> str:
    repeatable = "; repeatable" if flag.repeatable else ""
    text = f"{flag.help}{repeatable} (default: {flag.default or flag.unset}) [{flag.variable}]"
    return text.replace("%", "%%")  # argparse formats it


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Keeps Tuinly access tokens fresh in Kubernetes Secrets.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version(PROGRAM)}")
    commands = parser.add_subparsers(title="Commands", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run the operator; run --help explains its flags",
        usage=f"{PROGRAM} run [flags]",
        description="Run the operator until SIGTERM. A wrong setting ends it at once, with exit status 2.",
        epilog=_NOTES,
        # The text below its flag, in the full width: two columns leave it a narrow one.
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=6),
        allow_abbrev=False,
    )
    for title, flags in FLAGS.items():
        group = run.add_argument_group(title)
        for flag in flags:
            group.add_argument(
                flag.name,
                action="append" if flag.repeatable else "store",
                nargs=None if flag.alone is None else "?",
                const=flag.alone,
                metavar=flag.metavar,
                dest=flag.field,
                help=_explain(flag),
            )
    return parser


def _parse_value(flag: Flag, text: str) -> object:
    try:
        return flag.parse(text)
    except ValueError as error:
        # A URL may carry a password or a key where none belongs.
        shown = "the URL" if flag.parse is _url and re.search("[@?]", text) else json.dumps(text, ensure_ascii=False)
        raise SettingsError(f"{flag.name} ({flag.variable}): {shown} {error}") from None


def _value(flag: Flag, given: str | Sequence[str] | None, environ: Mapping[str, str]) -> object:
    """The value of one setting: flag over variable over default."""
    from_environ = environ.get(flag.variable, "").strip()
    if flag.repeatable:
        texts = given or [part for part in re.split(r"[,\s]+", from_environ) if part]
        if from_environ and not texts:  # an empty list that a template has written must not mean all
            raise SettingsError(
                f"{flag.variable}: {json.dumps(from_environ)} names nothing; leave it out for the default"
            )
        return tuple(dict.fromkeys(_parse_value(flag, text) for text in texts))
    text = given if isinstance(given, str) else from_environ or flag.default
    return None if text is None else _parse_value(flag, text)


def _refuse_unknown(names: Iterable[str], known: Sequence[str]) -> None:
    """Raise SettingsError for a TUINLY_* variable that sets nothing: a slip would leave a setting at its default.

    Kubernetes injects variables for each Service (`enableServiceLinks`), and a Service's name may start with tuinly-:
    where there is a <NAME>_SERVICE_HOST, what belongs to the same <NAME> is left alone.
    """
    ours = sorted(name for name in names if name.startswith("TUINLY_") and name not in known)
    services = {name.removesuffix("_SERVICE_HOST") for name in ours if name.endswith("_SERVICE_HOST")}
    for name in ours:
        if any(_INJECTED.fullmatch(name.removeprefix(service)) for service in services):
            continue
        # All names share a prefix, so that a lower cutoff would find each of them alike.
        similar = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        hint = f"; is {similar[0]} meant?" if similar else f"; {PROGRAM} run --help lists them"
        raise SettingsError(f"{name}: no such variable{hint}")


def parse_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Parse the command line (without the program's name) and the environment.

    Raises SettingsError for a wrong setting and SystemExit(0) after `--help` and `--version`.
    """
    given = _parser().parse_args(argv)
    flags = [flag for group in FLAGS.values() for flag in group]
    _refuse_unknown(environ, [flag.variable for flag in flags])
    values: dict[str, Any] = {flag.field: _value(flag, getattr(given, flag.field), environ) for flag in flags}
    for default, allowed in (("token_url", "allowed_token_urls"), ("graphql_url", "allowed_graphql_urls")):
        values[allowed] = frozenset({values[default], *values[allowed]})
    return Settings(**values)
