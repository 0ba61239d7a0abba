"""JSON that is nested too deeply loses what is too deep, and nothing else."""

import json
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuinly_operator.base.nesting import DEEPEST, loads, shallow

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


@given(st.lists(st.tuples(PLAIN, st.integers(DEEPEST - 6, DEEPEST + 3)), max_size=3), PLAIN)
def test_what_is_too_deep_is_null(deep: list[tuple[object, int]], beside: object) -> None:
    value = [*(around(inner, levels) for inner, levels in deep), beside]
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert json.loads(shallow(text.encode())) == cut(value)
        assert (shallow(text.encode()) == text.encode()) == (cut(value) == value)


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


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[" * 30_000, b"]" * 30_000, b'"' * 30_001, b"[" * 30_000 + b'"' + b"]" * 30_000]
)
def test_what_is_no_json_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\(char \d+\)"):
        loads(text)
