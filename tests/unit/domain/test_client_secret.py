"""Client Secrets: what is taken for an id and a secret, and sentences about the rest that never show a value."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.facts import Json
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.client_secret import REFUSED_TYPES, is_watched, not_found, not_readable, parse_client_secret
from tuinly_operator.domain.credential import ClientSecretRef
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.memory import Client

REF = ClientSecretRef("storefront-client")
CANARY = "canary-9f3a"
KEYS = [REF.client_id_key, REF.client_secret_key]


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def secret(**data: object) -> Json:
    """A good client Secret, with some keys replaced."""
    good: Json = {"client_id": encoded(b"shop"), "client_secret": encoded(CANARY.encode())}
    return {"metadata": {"name": REF.name}, "type": "Opaque", "data": good | data}


def refusal(raw: Json, ref: ClientSecretRef = REF) -> str:
    with pytest.raises(Failure) as refused:
        parse_client_secret(raw, ref)
    assert refused.value.reason is Reason.CLIENT_SECRET_INVALID
    return refused.value.message


# --- What is taken ----------------------------------------------------------------------------------------------------


@pytest.mark.rule("CLIENT-1", "CLIENT-2")
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"a", "a"),
        (b"a b~!\"'\\", "a b~!\"'\\"),  # VSCHAR is all of printable ASCII
        (b" padded ", " padded "),
        (b"a\n", "a"),
        (b"a\r\n", "a"),
        (b"x" * 32_768, "x" * 32_768),
    ],
    ids=["one character", "all sorts", "spaces", "newline", "CRLF", "long"],
)
def test_a_value(key: str, value: bytes, text: str) -> None:
    client = parse_client_secret(secret(**{key: encoded(value)}), REF)
    assert text == (client.id if key == REF.client_id_key else client.secret.reveal())


def test_other_keys_are_read_where_the_credential_names_them() -> None:
    raw = secret(user=encoded(b"other"), password=encoded(b"word"))
    assert parse_client_secret(raw, ClientSecretRef("c", "user", "password")) == Client("other", Sensitive("word"))


@pytest.mark.rule("CLIENT-1")
@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1))
def test_all_of_vschar_is_taken_as_it_is(text: str) -> None:
    client = parse_client_secret(secret(client_secret=encoded(text.encode())), REF)
    assert client.secret.reveal() == text


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.rule("CLIENT-2", "CLIENT-3")
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("value", "flaw"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\r\n", "empty"),
        (b"\n\n", "line end"),
        (b"%s\n\n", "line end"),
        (b"%s\nb", "line end"),
        (b"\n%s", "line end"),
        (b"%s\n\r", "line end"),
        (b"%s\r", "line end"),
        (b"%s\x00", "control"),
        (b"%s\t", "control"),
        (b"%s\x7f", "control"),
        (b"\xff\xfe%s", "binary"),
        ("%sä".encode(), "ASCII"),
        ("\ufeff%s".encode(), "ASCII"),
        (b"%s" * 4_000, "more than 32768 characters"),
    ],
    ids=str,
)
def test_a_flaw_is_named_with_its_key_and_without_the_value(key: str, value: bytes, flaw: str) -> None:
    message = refusal(secret(**{key: encoded(value.replace(b"%s", CANARY.encode()))}))
    assert f"key {key}" in message
    assert flaw in message
    assert REF.name in message
    assert CANARY not in message


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "value",
    [CANARY + "=", "Y2Fu YXJ5", "Y2Fu\nYXJ5", "ä", 5, True, 1.5, [CANARY], {CANARY: CANARY}],
    ids=str,
)
def test_what_is_no_base64_is_named_with_its_key_and_without_the_value(key: str, value: object) -> None:
    message = refusal(secret(**{key: value}))
    assert f"key {key}" in message
    assert CANARY not in message


@pytest.mark.parametrize("value", [None, "", [], {}, 0], ids=repr)
def test_nothing_is_no_value(value: object) -> None:
    assert "empty key client_secret" in refusal(secret(client_secret=value))


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(key: str) -> None:
    raw = secret()
    del raw["data"][key]
    assert f"no key {key}" in refusal(raw)


@pytest.mark.parametrize("data", [None, {}, [], ""], ids=repr)
def test_a_secret_without_data_lacks_the_first_key(data: object) -> None:
    assert "no key client_id" in refusal({"type": "Opaque", "data": data})


@pytest.mark.parametrize("kind", REFUSED_TYPES)
def test_other_systems_keys_are_never_read(kind: str) -> None:
    message = refusal(secret() | {"type": kind})
    assert kind in message
    assert CANARY not in message


@pytest.mark.rule("CLIENT-4")
def test_these_types_are_refused() -> None:
    """Service accounts' and bootstrap tokens, Helm releases, TLS, and both of docker's configs."""
    assert set(REFUSED_TYPES) == {
        "kubernetes.io/service-account-token",
        "bootstrap.kubernetes.io/token",
        "helm.sh/release.v1",
        "kubernetes.io/tls",
        "kubernetes.io/dockercfg",
        "kubernetes.io/dockerconfigjson",
    }


@pytest.mark.parametrize("kind", ["Opaque", "", None, "kubernetes.io/basic-auth", "example.com/own"])
def test_all_other_types_are_read(kind: str | None) -> None:
    assert parse_client_secret(secret() | {"type": kind}, REF).id == "shop"


@given(st.binary(max_size=40))
def test_no_bytes_do_harm_and_what_is_taken_is_one_printable_line(value: bytes) -> None:
    try:
        client: Client | Failure = parse_client_secret(secret(client_secret=encoded(value)), REF)
    except Failure as failure:
        client = failure
    if isinstance(client, Failure):
        assert client.reason is Reason.CLIENT_SECRET_INVALID
    else:
        assert client.secret.reveal()
        assert all(0x20 <= ord(c) <= 0x7E for c in client.secret.reveal())


def test_a_client_does_not_show_its_secret() -> None:
    assert CANARY not in repr(parse_client_secret(secret(), REF))


@pytest.mark.parametrize(
    ("failure", "advice"),
    [(not_found(REF), "does not exist; create it"), (not_readable(REF.name), "grant it get on Secrets")],
    ids=["absent", "not readable"],
)
def test_a_secret_that_is_absent_or_may_not_be_read_is_named_with_what_to_do(failure: Failure, advice: str) -> None:
    assert failure.reason is Reason.CLIENT_SECRET_NOT_FOUND
    assert REF.name in failure.message
    assert advice in failure.message


@pytest.mark.parametrize("kind", [*REFUSED_TYPES, "Opaque", None])
def test_the_watch_shows_what_may_be_read(kind: str | None) -> None:
    assert is_watched({"type": kind}) is (kind not in REFUSED_TYPES)


@pytest.mark.rule("SEC-29")
def test_the_exception_holds_no_trace_of_the_value() -> None:
    """A chained UnicodeDecodeError would carry the bytes to whoever logs it."""
    with pytest.raises(Failure) as refused:
        parse_client_secret(secret(client_secret=encoded(b"\xff" + CANARY.encode())), REF)
    chain: list[Any] = [refused.value.__cause__, refused.value.__context__]
    assert refused.value.__suppress_context__ or chain == [None, None]
