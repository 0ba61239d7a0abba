"""JSON that is nested too deeply, or not UTF-8, loses what is, and nothing else."""

import json
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuinly_operator.base.foreign_json import DEEPEST, loads, shallow

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
"""JSON values; what is put around them makes them deep."""


def around(value: object, levels: int) -> object:
    for level in range(levels):
        value = [value] if level % 2 else {'"}]{[\\': value}
    return value


def cut(value: object, levels: int = DEEPEST) -> object:
    """What `shallow` is to do, by way of the values."""
    if isinstance(value, dict | list) and not levels:
        return None
    if isinstance(value, dict):
        return {name: cut(each, levels - 1) for name, each in value.items()}
    return [cut(each, levels - 1) for each in value] if isinstance(value, list) else value


@pytest.mark.rule("SEC-26")
@given(st.lists(st.tuples(PLAIN, st.integers(DEEPEST - 6, DEEPEST + 3)), max_size=3), PLAIN)
def test_what_is_too_deep_is_null(deep: list[tuple[object, int]], beside: object) -> None:
    value = [*(around(inner, levels) for inner, levels in deep), beside]
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert json.loads(shallow(text.encode())) == cut(value)
        assert (shallow(text.encode()) == text.encode()) == (cut(value) == value)


@pytest.mark.rule("SEC-26")
@pytest.mark.parametrize("levels", [DEEPEST - 1, DEEPEST, DEEPEST + 1, 30_000, 200_000])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"f:a":', "}")])
def test_any_depth_is_read(levels: int, brackets: tuple[str, str]) -> None:
    """Each level that is kept, with what stands beside it."""
    opening, closing = brackets
    text = '{"before": 1, "deep": ' + opening * levels + "null" + closing * levels + ', "after": [2]}'
    value = loads(text.encode())
    assert (value["before"], value["after"]) == (1, [2])
    kept = shallow(text.encode())
    assert (kept.decode() == text) is (levels < DEEPEST)
    assert max(accumulate({ord("{"): 1, ord("["): 1}.get(each, -(each in b"]}")) for each in kept)) <= DEEPEST


@pytest.mark.rule("SEC-26")
@pytest.mark.parametrize("odd", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
@pytest.mark.parametrize("levels", [0, 30_000])
def test_what_is_not_utf_8_is_replaced(odd: bytes, levels: int) -> None:
    value = loads(b'{"before\xc3\xa9": 1, "f:' + odd + b'": [' + b"[" * levels + b"]" * levels + b'], "after": 2}')
    assert (value["before\u00e9"], value["after"], len(value)) == (1, 2, 3)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[" * 30_000, b"]" * 30_000, b'"' * 30_001, b"[" * 30_000 + b'"' + b"]" * 30_000]
)
def test_what_is_no_json_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\(char \d+\)"):
        loads(text)
