"""What is refused: told once and its end too, tried less and less often, and nothing else is taken for it."""

from http import HTTPStatus

import pytest

from tuinly_operator.base.chance import Chance
from tuinly_operator.edges.kube import ApiFailure
from tuinly_operator.edges.refusals import SECRETS, Refusal, Refusals

GONE, SHOP = Refusal(SECRETS, "gone"), Refusal(SECRETS, "shop")
FORBIDDEN = ApiFailure(HTTPStatus.FORBIDDEN, "Forbidden")


@pytest.mark.rule("OUT-5")
def test_a_refusal_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    refusals = Refusals(Chance(1))
    refusals.end(GONE)
    for _ in range(3):
        assert refusals.note(GONE, FORBIDDEN)
    assert list(refusals) == [GONE]
    assert (GONE in refusals, SHOP in refusals) == (True, False)
    for _ in range(3):
        refusals.end(GONE)
    assert list(refusals) == []
    assert [(record.levelname, "secrets in namespace gone" in record.getMessage()) for record in caplog.records] == [
        ("WARNING", True),
        ("INFO", True),
    ]


@pytest.mark.parametrize("status", [None, *sorted(set(HTTPStatus) - {HTTPStatus.FORBIDDEN})])
def test_no_other_failure_speaks_of_a_namespace(status: int | None) -> None:
    """401 is the login's, 404 the definition's, 5xx the API server's."""
    refusals = Refusals(Chance(1))
    assert not refusals.note(GONE, ApiFailure(status, "Word"))
    assert list(refusals) == []


@pytest.mark.rule("OUT-5")
def test_it_is_tried_less_and_less_often_and_once_a_minute_at_least() -> None:
    refusals = Refusals(Chance(1))
    for tries in range(1, 2000):
        refusals.note(GONE, FORBIDDEN)
        most = min(60.0, 0.5 * 2 ** min(tries, 10))
        pauses = {refusals.pause(GONE) for _ in range(20)}
        assert all(most / 2 <= pause <= most for pause in pauses)
        assert len(pauses) > 1
    assert refusals.pause(SHOP) <= 0.5
    refusals.end(GONE)
    assert refusals.pause(GONE) <= 0.5


def test_all_namespaces_are_told_as_such() -> None:
    assert str(Refusal(SECRETS, None)) == "secrets in all namespaces"
