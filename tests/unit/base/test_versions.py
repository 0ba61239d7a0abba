"""Resource versions are compared as numbers, and where one is none, neither is older."""

import pytest

from tuinly_operator.base.versions import older


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("9", "10", True), ("10", "9", False), ("9", "9", False), ("a", "b", False), ("", "1", False), ("1", "", False)],
)
def test_older(one: str, other: str, expected: bool) -> None:  # noqa: FBT001 -- a column of the table
    assert older(one, other) is expected
