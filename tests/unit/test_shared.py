"""Texts that are kept once: equal ones are the same, and memory stays flat however many different ones come."""

import gc
import json
import sys
from dataclasses import replace

import pytest

from tests.unit.facts import TargetObject, credential, credential_object, token_state
from tuinly_operator.clock import rfc3339
from tuinly_operator.credential import Credential
from tuinly_operator.shared import share, share_all
from tuinly_operator.state import SecretMeta, secret_key
from tuinly_operator.store import Store

BEGIN = 1_800_000_000
"""Seconds since the epoch."""


def another(text: str) -> str:
    """An equal text that is another object, as each JSON has its own."""
    return "".join(list(text))


def test_equal_texts_are_kept_once() -> None:
    assert share(another("orders:read")) is share(another("orders:read"))
    one, other = (frozenset({another("data/access_token"), another("labels/team")}) for _ in range(2))
    assert share_all(one) is share_all(other)


def test_long_texts_and_large_sets_are_not_kept() -> None:
    """A tenant could fill the memory with them."""
    assert share(another("x" * 129)) is not share(another("x" * 129))
    for strange in ({"x" * 129}, {f"data/{number}" for number in range(33)}):
        one, other = (frozenset(map(another, strange)) for _ in range(2))
        assert share_all(one) == one
        assert share_all(one) is not share_all(other)


def happens(store: Store, number: int) -> None:
    """A token is refreshed, its status told of, a template changed, and a stranger's Secret comes and goes."""
    time, version = rfc3339(BEGIN + number), str(100 + number)
    raw = credential_object(
        {
            "metadata": {"resourceVersion": version, "annotations": {"tuinly.com/refresh-requested": version}},
            "spec": {"scopes": [f"scope-{number}"], "target": {"template": {"data": {f"key-{number}": version}}}},
            "status": {"secretName": f"name-{number}", "tokenExpirationTime": time, "lastRefreshTime": time},
        }
    )
    seen = Credential.from_object(json.loads(json.dumps(raw)))
    store.credential_seen(seen)
    state = replace(token_state(seen), client_secret_version=f"u/{number}", granted_scopes=f"scope-{number}")
    target = TargetObject(seen, state, version=version)
    store.secret_seen(seen.target, SecretMeta.from_object(json.loads(json.dumps({"metadata": target.meta}))))
    stranger = {"metadata": {"namespace": "shop", "name": f"sh.helm.v1.{number}", "uid": time, "resourceVersion": "1"}}
    key = secret_key(json.loads(json.dumps(stranger)))
    store.secret_seen(key, SecretMeta.from_object(stranger))
    store.secret_gone(key)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("events", [1_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_memory_stays_flat_however_many_different_texts_come(events: int) -> None:
    """What is interned is never freed by Python 3.12; what is kept here makes room for what is met later."""
    store = Store(lambda _: None, lambda _: None)
    warm = 1_000
    for number in range(warm):
        happens(store, number)
    gc.collect()
    before = sys.getallocatedblocks()
    for number in range(warm, warm + events):
        happens(store, number)
    gc.collect()
    assert sys.getallocatedblocks() - before < 1_000
    assert len(store) == 1
    assert credential().key in {record.credential.key for record in store}
