"""Settings: flags, variables, defaults, and one clear line for whatever is wrong with them."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from tuinly_operator.base.settings import FLAGS, Flag, Settings, SettingsError, parse_seconds, parse_settings

ALL_FLAGS = [flag for group in FLAGS.values() for flag in group]
TOKEN_URL = "https://oauth.tuinly.com/token"
GRAPHQL_URL = "https://graphql.tuinly.com/graphql"


def run(*flags: str, **environ: str) -> Settings:
    return parse_settings(["run", *flags], environ)


def refusal(*flags: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        run(*flags, **environ)
    return str(caught.value)


def test_defaults_are_tuinlys_own_and_those_of_the_contract() -> None:
    assert run() == Settings(
        kubeconfig=None,
        namespaces=(),
        selector="",
        lease=None,
        token_url=TOKEN_URL,
        graphql_url=GRAPHQL_URL,
        allowed_token_urls=frozenset({TOKEN_URL}),
        allowed_graphql_urls=frozenset({GRAPHQL_URL}),
        ca_bundle=None,
        request_timeout=8.0,
        min_refresh_interval=5.0,
        concurrency=20,
        push=False,
        push_rate=20,
        log_level="info",
        log_format="text",
        listen=("0.0.0.0", 8080),  # noqa: S104 -- a Pod's port is meant to be reached
    )


# --- Flags and variables ---


@pytest.fixture
def given_texts(tmp_path: Path) -> dict[str, str]:
    """For every flag a value that is not its default."""
    file = tmp_path / "file.pem"
    trustme.CA().cert_pem.write_to_path(file)
    return {
        "--kubeconfig": str(file),
        "--namespace": "shop",
        "--selector": "shard=a",
        "--lease": "tuinly-system/tuinly-operator",
        "--token-url": "http://sandbox/token",
        "--allowed-token-url": "https://other/token",
        "--graphql-url": "http://sandbox/graphql",
        "--allowed-graphql-url": "https://other/graphql",
        "--ca-bundle": str(file),
        "--request-timeout": "1s",
        "--min-refresh-interval": "1s",
        "--concurrency": "1",
        "--push": "true",
        "--push-rate": "50",
        "--log-level": "debug",
        "--log-format": "json",
        "--listen": "127.0.0.1:0",
    }


@pytest.mark.rule("SET-1")
@pytest.mark.parametrize("flag", ALL_FLAGS, ids=lambda flag: flag.name)
def test_a_variable_sets_what_its_flag_sets(flag: Flag, given_texts: dict[str, str]) -> None:
    text = given_texts[flag.name]
    by_flag = run(flag.name, text)
    assert by_flag != run()
    assert run(**{flag.variable: text}) == by_flag


@pytest.mark.rule("SET-1")
@pytest.mark.parametrize("flag", ALL_FLAGS, ids=lambda flag: flag.name)
def test_an_empty_variable_is_not_set(flag: Flag) -> None:
    assert run(**{flag.variable: " "}) == run()


@pytest.mark.parametrize("flag", ALL_FLAGS, ids=lambda flag: flag.name)
def test_no_setting_could_be_taken_for_a_variable_that_kubernetes_injects(flag: Flag) -> None:
    assert not re.search(r"_SERVICE_HOST$|_PORT(_|$)", flag.variable)


def test_a_switch_needs_no_value() -> None:
    assert run("--push").push
    assert run("--push", "--concurrency", "3").concurrency == 3
    assert not run("--push=false", TUINLY_PUSH="true").push
    assert not run("--push", "false").push


@pytest.mark.rule("SET-1")
def test_a_flag_wins_over_its_variable() -> None:
    assert run("--concurrency", "3", TUINLY_CONCURRENCY="nonsense").concurrency == 3
    assert run("--namespace", "shop", TUINLY_NAMESPACES="a,b").namespaces == ("shop",)


def test_the_last_of_a_flag_given_twice_wins() -> None:
    assert run("--concurrency", "3", "--concurrency", "4").concurrency == 4


@pytest.mark.parametrize("text", ["shop,bank", "shop bank", " shop,\n bank,,shop "])
def test_a_repeatable_variable_is_parted_by_commas_or_spaces(text: str) -> None:
    assert run(TUINLY_NAMESPACES=text).namespaces == ("shop", "bank")


def test_a_repeatable_flag_is_taken_as_it_is() -> None:
    urls = ["https://a/token?x=1,2", "http://[::1]:8443/token"]
    settings = run("--allowed-token-url", urls[0], "--allowed-token-url", urls[1])
    assert settings.allowed_token_urls == {TOKEN_URL, *urls}


@pytest.mark.rule("SEC-2")
def test_another_default_url_is_allowed_in_the_place_of_tuinlys() -> None:
    settings = run("--token-url", "http://sandbox:1/token")
    assert settings.allowed_token_urls == {"http://sandbox:1/token"}


@pytest.mark.parametrize(
    ("text", "listen"),
    [("[::]:8080", ("::", 8080)), ("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:65535", ("::1", 65535))],
)
def test_listen(text: str, listen: tuple[str, int]) -> None:
    assert run("--listen", text).listen == listen


@pytest.mark.parametrize(("text", "seconds"), [("100ms", 0.1), ("0.1", 0.1), ("1m", 60.0), ("60", 60.0)])
def test_bounds_are_included(text: str, seconds: float) -> None:
    assert run("--request-timeout", text).request_timeout == seconds


# --- What is wrong is said ---

URL_RULE = "is not an http or https URL with a host, and without user and fragment"
LISTEN_RULE = "is not IP:PORT such as 0.0.0.0:8080 or [::]:8080"


@pytest.mark.rule("SET-2")
@pytest.mark.parametrize(
    ("flag", "text", "rule"),
    [
        ("--request-timeout", "abc", "is not a duration such as 8s"),
        ("--request-timeout", "", "is not a duration such as 8s"),
        ("--request-timeout", "-5", "is not a duration such as 8s"),
        ("--request-timeout", "1d", "is not a duration such as 8s"),
        ("--request-timeout", "inf", "is not a duration such as 8s"),
        ("--request-timeout", "٣s", "is not a duration such as 8s"),
        ("--request-timeout", "٣", "is not a duration such as 8s"),
        ("--request-timeout", "0", "is not between 100ms and 1m"),
        ("--request-timeout", "61", "is not between 100ms and 1m"),
        ("--request-timeout", "9" * 400, "is not between 100ms and 1m"),
        ("--min-refresh-interval", "9ms", "is not between 10ms and 1m"),
        ("--concurrency", "0", "is not a whole number from 1 to 1000"),
        ("--concurrency", "1001", "is not a whole number from 1 to 1000"),
        ("--concurrency", "2.5", "is not a whole number from 1 to 1000"),
        ("--concurrency", "9" * 5000, "is not a whole number from 1 to 1000"),
        ("--log-level", "INFO", "is not one of debug, info, warning, error"),
        ("--log-format", "xml", "is not one of text, json"),
        ("--namespace", "Shop", "is not the name of a namespace"),
        ("--namespace", "a,b", "is not the name of a namespace"),
        ("--namespace", "a" * 64, "is not the name of a namespace"),
        *(
            ("--selector", text, "is not a label selector such as shard=a or shard!=a,tier in (gold)")
            for text in (
                *(
                    "shard=ä",
                    "=",
                    "=,=",
                    ",",
                    "a,",
                    "a=b,",
                    "a in (b",
                    "a in b",
                    "a in",
                    "in (b)",
                    "!",
                    "a=b=c",
                    "a==b c",
                ),
                *("a,-b", "a=-b", "A/b/c", "/a", "a!b", "a notin ()()", "a=" + "b" * 1023, "a-" * 500),
            )
        ),
        ("--lease", "tuinly-operator", "is not NAMESPACE/NAME of a Lease"),
        ("--lease", "a/b/c", "is not NAMESPACE/NAME of a Lease"),
        ("--token-url", "", URL_RULE),
        ("--token-url", "oauth.tuinly.com/token", URL_RULE),
        ("--token-url", "ftp://oauth.tuinly.com/token", URL_RULE),
        ("--token-url", "https:///token", URL_RULE),
        ("--token-url", "https://:443/token", URL_RULE),
        ("--token-url", "https://[::1/token", URL_RULE),
        ("--token-url", "https://host:0/token", URL_RULE),
        ("--token-url", "https://host:65536/token", URL_RULE),
        ("--token-url", "https://host/to ken", URL_RULE),
        ("--token-url", "https://host/token#part", URL_RULE),
        ("--graphql-url", "https://host\\path", URL_RULE),
        ("--listen", "8080", LISTEN_RULE),
        ("--listen", ":8080", LISTEN_RULE),
        ("--listen", "localhost:8080", LISTEN_RULE),
        ("--listen", "0.0.0.0:65536", LISTEN_RULE),
        ("--listen", "::1:8080", LISTEN_RULE),
        ("--listen", "[127.0.0.1]:8080", LISTEN_RULE),
        ("--kubeconfig", "/nowhere/config", "cannot be read: No such file or directory"),
        ("--kubeconfig", "/", "cannot be read: Is a directory"),
        ("--ca-bundle", "/nowhere/ca.pem", "cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_value_is_named_with_flag_variable_and_rule(flag: str, text: str, rule: str) -> None:
    variable = next(f.variable for f in ALL_FLAGS if f.name == flag)
    shown = text.replace("\\", "\\\\")
    assert refusal(flag, text) == f'{flag} ({variable}): "{shown}" {rule}'


@pytest.mark.parametrize(
    "text",
    [
        *("a", "!a", "! a", "a=b", "a==b", "a = b", "a!=b", "a=", "a in (b)", "a in (b,c)", "a notin ( b , c )"),
        *("example.com/a=b,c", "shard notin (a,b),tier", "bench notin (bare,naive),shard=0", "in=a", "a in (,b)"),
    ],
)
def test_each_form_of_a_label_selector_is_taken(text: str) -> None:
    assert parse_settings(["run", "--selector", text], {}).selector == text


def test_a_list_that_names_nothing_is_not_taken_for_all() -> None:
    message = 'TUINLY_NAMESPACES: "," names nothing; leave it out for the default'
    assert refusal(TUINLY_NAMESPACES=",") == message


def test_a_wrong_variable_is_refused_like_a_wrong_flag() -> None:
    assert refusal(TUINLY_CONCURRENCY="many") == refusal("--concurrency", "many")


@pytest.mark.rule("SEC-30")
@pytest.mark.parametrize("url", ["https://user:hunter2@host/token", "ftp://host/token?key=hunter2"])
def test_a_password_in_a_url_is_refused_but_not_shown(url: str) -> None:
    assert refusal("--token-url", url) == f"--token-url (TUINLY_TOKEN_URL): the URL {URL_RULE}"


def revocation_list() -> bytes:
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder(x509.Name([]), now, now)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)


UNUSABLE = {
    "empty": lambda: b"",
    "binary": lambda: bytes(range(256)),
    "private-key": trustme.CA().private_key_pem.bytes,
    "revocation-list": revocation_list,
    "one-good-one-cut": lambda: (pem := trustme.CA().cert_pem.bytes()) + pem[:200] + b"\n-----END CERTIFICATE-----\n",
}


@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE)
def test_a_ca_bundle_without_a_usable_certificate_is_refused(tmp_path: Path, content: Callable[[], bytes]) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(content())
    assert refusal("--ca-bundle", str(bundle)) == (
        f'--ca-bundle (TUINLY_CA_BUNDLE): "{bundle}" holds no certificate in PEM form, or a broken one'
    )


@pytest.mark.rule("SET-3")
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("TUINLY_REQUEST_TIMOUT", "is TUINLY_REQUEST_TIMEOUT meant?"),
        ("TUINLY_NAMESPACE", "is TUINLY_NAMESPACES meant?"),
        ("TUINLY_ZZZ", "tuinly-operator run --help lists them"),
        ("TUINLY_LISTEN_PORT", "is TUINLY_LISTEN meant?"),
    ],
)
def test_a_variable_that_sets_nothing_is_refused_without_its_value(name: str, hint: str) -> None:
    assert refusal(**{name: "hunter2"}) == f"{name}: no such variable; {hint}"


@pytest.mark.rule("SET-3")
@pytest.mark.parametrize("service", ["TUINLY", "TUINLY_OPERATOR_METRICS"])
def test_variables_that_kubernetes_injects_for_a_service_are_left_alone(service: str) -> None:
    injected = {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "8080",
        f"{service}_SERVICE_PORT_METRICS": "8080",
        f"{service}_PORT": "tcp://10.0.0.1:8080",
        f"{service}_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        f"{service}_PORT_8080_TCP_PROTO": "tcp",
        f"{service}_PORT_8080_TCP_PORT": "8080",
        f"{service}_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    assert run(**injected) == run()
    assert refusal(**injected, TUINLY_LISTENER="x").startswith("TUINLY_LISTENER: no such variable")


# --- Durations ---


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int, millis: int) -> None:
    expected = hours * 3600 + minutes * 60 + seconds + millis / 1000
    assert parse_seconds(f"{hours}h{minutes}m{seconds}s{millis}ms") == pytest.approx(expected)


@given(st.floats(0, 10**6, allow_nan=False).map(lambda seconds: f"{seconds:.6f}"))
def test_a_bare_number_is_seconds(text: str) -> None:
    assert parse_seconds(text) == parse_seconds(f"{text}s") == float(text)


@given(st.text() | st.from_regex(r"[0-9.hms +-]{1,8}", fullmatch=True))
@example("1e3")
@example("1_0")
@example("8s\n")
@example("1..5s")
def test_any_other_text_is_no_duration(text: str) -> None:
    part = r"[0-9]+(\.[0-9]+)?"
    if re.fullmatch(rf"{part}|({part}(h|ms|m|s))+", text):
        assert parse_seconds(text) >= 0
    else:
        with pytest.raises(ValueError, match="is not a duration such as 8s"):
            parse_seconds(text)
