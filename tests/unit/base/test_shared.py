"""Texts that are kept once: equal ones are the same, and memory stays flat however many different ones come."""

import gc
import json
import sys
from dataclasses import replace

import pytest

from tests.unit.facts import TargetObject, credential_object, token_state
from tuinly_operator.base.shared import share, share_all
from tuinly_operator.domain.credential import Credential
from tuinly_operator.domain.target import SecretMeta, secret_key
from tuinly_operator.engine.store import Store

WARM = 2_000
"""Events until all is kept that can be."""


def another(text: str) -> str:
    """An equal text that is another object, as each JSON has its own."""
    return "".join(list(text))


def test_equal_texts_are_kept_once() -> None:
    assert share(another("orders:read")) is share(another("orders:read"))
    one, other = (frozenset({another("data/access_token"), another("labels/team")}) for _ in range(2))
    assert share_all(one) is share_all(other)


@pytest.mark.rule("SEC-22")
def test_long_texts_and_large_sets_are_not_kept() -> None:
    """A tenant could fill the memory with them."""
    assert share(another("x" * 129)) is not share(another("x" * 129))
    for strange in ({"x" * 129}, {f"data/{number}" for number in range(33)}):
        one, other = (frozenset(map(another, strange)) for _ in range(2))
        assert share_all(one) == one
        assert share_all(one) is not share_all(other)


NUMBER = 7777777
"""Stands for the number of an event wherever it has texts of its own."""


def texts() -> tuple[str, str, str]:
    """A credential, its target and a stranger's Secret, as JSON in which NUMBER is replaced: quicker than all anew."""
    time, version = f"2026-11-24T07:00:00.{NUMBER}Z", str(NUMBER)
    raw = credential_object(
        {
            "metadata": {"resourceVersion": version, "annotations": {"tuinly.com/refresh-requested": version}},
            "spec": {"scopes": [f"scope-{NUMBER}"], "target": {"template": {"data": {f"key-{NUMBER}": version}}}},
            "status": {"secretName": f"name-{NUMBER}", "tokenExpirationTime": time, "lastRefreshTime": time},
        }
    )
    seen = Credential.from_object(raw)
    state = replace(token_state(seen), client_secret_version=f"u/{NUMBER}", exchange_inputs=f"inputs-{NUMBER}")
    target = TargetObject(seen, state, version=version).meta
    stranger = {"namespace": "shop", "name": f"sh.helm.v1.{NUMBER}", "uid": time, "resourceVersion": version}
    credential_text, target_text, stranger_text = map(json.dumps, (raw, {"metadata": target}, {"metadata": stranger}))
    return credential_text, target_text, stranger_text


def happens(store: Store, number: int, about: tuple[str, str, str]) -> None:
    """A token is refreshed, its status told of, a template changed, and a stranger's Secret comes and goes."""
    raw, target, stranger = (json.loads(text.replace(str(NUMBER), str(number))) for text in about)
    store.credential_seen(Credential.from_object(raw))
    store.secret_seen(secret_key(target), SecretMeta.from_object(target))
    key = secret_key(stranger)
    store.secret_seen(key, SecretMeta.from_object(stranger))
    store.secret_gone(key, "", "")


@pytest.mark.rule("SEC-22")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("events", [10_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_memory_stays_flat_however_many_different_texts_come(events: int) -> None:
    """What is interned is never freed by Python 3.12; what is kept here makes room for what is met later."""
    store = Store(lambda _: None, lambda _: None)
    about, first = texts(), 1_000_000
    for number in range(first, first + WARM):
        happens(store, number, about)
    gc.collect()
    before = sys.getallocatedblocks()
    for number in range(first + WARM, first + WARM + events):
        happens(store, number, about)
    gc.collect()
    assert sys.getallocatedblocks() - before < 1_000
    [record] = store
    assert record.credential.version == str(first + WARM + events - 1)
    target = store.secret(record.credential.target)
    assert target is not None
    assert target.target is not None
    assert target.target.state is not None
    assert target.target.state.exchange_inputs == f"inputs-{record.credential.version}"
