"""Sensitive: whatever prints, formats or serializes by itself does not get the secret."""

import copy
import json
import pickle
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass

import pytest

from tuinly_operator.base.sensitive import Sensitive

SECRET = "hunter2"


@dataclass
class Holder:
    token: Sensitive


SHOWN: dict[str, Callable[[Sensitive], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "format": lambda secret: f"{secret} {secret!r} {secret:>30}",
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 -- logging formats so
    "container": lambda secret: repr([secret, {"key": secret}]),
    "dataclass": lambda secret: repr(Holder(secret)),
    "exception": lambda secret: str(RuntimeError(secret)),
    "traceback": lambda secret: "".join(traceback.format_exception(RuntimeError(secret))),
}

SERIALIZED: dict[str, Callable[[Sensitive], object]] = {
    "json": json.dumps,
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "asdict": lambda secret: asdict(Holder(secret)),
    "vars": vars,
    "hash": hash,
    "set": lambda secret: {secret},
}


@pytest.mark.rule("SEC-28")
@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_it_shows_a_mask(show: Callable[[Sensitive], str]) -> None:
    shown = show(Sensitive(SECRET))
    assert SECRET not in shown
    assert "<sensitive>" in shown


@pytest.mark.rule("SEC-28")
@pytest.mark.parametrize("serialize", SERIALIZED.values(), ids=SERIALIZED)
def test_it_is_not_serialized_copied_or_hashed(serialize: Callable[[Sensitive], object]) -> None:
    with pytest.raises(TypeError) as caught:
        serialize(Sensitive(SECRET))
    assert SECRET not in str(caught.value)


def test_reveal_gives_the_secret() -> None:
    assert Sensitive(SECRET).reveal() == SECRET


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (Sensitive("a"), Sensitive("a"), True),
        (Sensitive("a"), Sensitive("b"), False),
        (Sensitive("ä"), Sensitive("ä"), True),  # hmac.compare_digest takes no such str
        (Sensitive("a"), Sensitive(""), False),
        (Sensitive("a"), "a", False),
        (Sensitive("a"), None, False),
    ],
)
def test_equality(one: Sensitive, other: object, *, equal: bool) -> None:
    assert (one == other) is equal
    assert (one != other) is not equal
