"""The auditor's arithmetic: histories and a ledger in, figures out."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.auditor import Change, Credential, Verdict, Wrong, audit
from tests.support.sandbox.ledger import IssuedToken, RevokedBy

CREDENTIAL = Credential("shop", "storefront", "uid-1")
A, B, FORGED, ABSENT, GONE = "value-of-a", "value-of-b", "value-of-none", None, "gone"


Step = tuple[float, str | None] | tuple[float, str | None, float]
Ledger = list[IssuedToken]


def token(
    sequence: int, value: str, expires_at: float, revoked_at: float | None = None, by: RevokedBy | None = None
) -> IssuedToken:
    """Return a token of the ledger."""
    return IssuedToken(
        sequence=sequence,
        value=value,
        client="client",
        scopes=(),
        grant="client_credentials",
        issued_at=0,
        expires_in=max(1, int(expires_at)),
        expires_at=expires_at,
        revoked_at=revoked_at,
        revoked_by=by if by is not None or revoked_at is None else "admin",
    )


def history(*changes: Step) -> list[Change]:
    """Return changes from (at, state) or (at, state, earliest)."""
    return [
        Change(
            at=change[0],
            earliest=change[2] if len(change) == 3 else change[0],
            exists=change[1] != GONE,
            token=None if change[1] == GONE else change[1],
        )
        for change in changes
    ]


def judge(changes: Sequence[Change], tokens: Sequence[IssuedToken], until: float = 100, bound: float = 0) -> Verdict:
    """Audit one credential from second 0 on."""
    return audit({CREDENTIAL: changes}, tokens, 0, until, bound)


CASES: dict[str, tuple[list[Step], Ledger, tuple[float, float, float]]] = {
    "good throughout": ([(0, A)], [token(1, A, 200)], (0, 0, 0)),
    "refreshed in time": ([(0, A), (49, B)], [token(1, A, 50), token(2, B, 150)], (0, 0, 0)),
    "refreshed in the last moment": ([(0, A), (50, B)], [token(1, A, 50), token(2, B, 150)], (0, 0, 0)),
    "refreshed late": ([(0, A), (53, B)], [token(1, A, 50), token(2, B, 150)], (3, 0, 0)),
    "never refreshed": ([(0, A)], [token(1, A, 50)], (50, 0, 0)),
    "published when expired": ([(60, A)], [token(1, A, 50)], (40, 0, 0)),
    "never issued": ([(10, FORGED), (30, A)], [token(1, A, 200)], (0, 20, 0)),
    "an empty token": ([(10, ""), (30, A)], [token(1, A, 200)], (0, 20, 0)),
    "revoked": ([(0, A), (30, B)], [token(1, A, 200, 20), token(2, B, 200)], (0, 10, 0)),
    "revoked, then expired": ([(0, A)], [token(1, A, 50, 20)], (50, 30, 0)),
    "revoked before it was published": ([(30, A), (40, B)], [token(1, A, 200, 20), token(2, B, 200)], (0, 10, 0)),
    "not yet published": ([(0, ABSENT), (30, A)], [token(1, A, 200)], (0, 0, 0)),
    "lost": ([(0, A), (30, ABSENT), (35, A)], [token(1, A, 200)], (0, 0, 5)),
    "lost for good": ([(0, A), (30, ABSENT)], [token(1, A, 200)], (0, 0, 70)),
    "deleted": ([(0, A), (30, GONE)], [token(1, A, 50)], (0, 0, 0)),
    "lost, then deleted": ([(0, A), (30, ABSENT), (35, GONE)], [token(1, A, 50)], (0, 0, 5)),
    "changed after the end": ([(0, A), (120, FORGED)], [token(1, A, 200)], (0, 0, 0)),
    "wrong until after the end": ([(0, A), (120, B)], [token(1, A, 50), token(2, B, 200)], (50, 0, 0)),
    "never seen": ([], [], (0, 0, 0)),
}


@pytest.mark.parametrize("what", CASES)
def test_figures(what: str) -> None:
    changes, tokens, figures = CASES[what]
    verdict = judge(history(*changes), tokens)
    assert (verdict.expired_token_seconds, verdict.bad_token_seconds, verdict.absent_seconds) == figures
    assert verdict.is_good == (figures == (0, 0, 0))
    assert verdict.doubt_seconds == 0


DOUBTS: dict[str, tuple[list[Step], Ledger, float]] = {
    "the old one was good to the end": ([(0, A), (60, B, 20)], [token(1, A, 70), token(2, B, 200)], 0),
    "the old one expired meanwhile": ([(0, A), (60, B, 20)], [token(1, A, 50), token(2, B, 200)], 10),
    "the old one was expired before": ([(0, A), (60, B, 20)], [token(1, A, 10), token(2, B, 200)], 40),
    "the new one is wrong": ([(0, A), (60, FORGED, 20)], [token(1, A, 200)], 40),
    "it went": ([(0, A), (60, ABSENT, 20)], [token(1, A, 200)], 40),
    "it went with its credential": ([(0, A), (60, GONE, 20)], [token(1, A, 200)], 0),
    "it came": ([(0, ABSENT), (60, A, 20)], [token(1, A, 200)], 0),
    "it came back": ([(0, A), (10, ABSENT), (60, A, 20)], [token(1, A, 200)], 40),
    "the second of two changes was wrong": (
        [(0, A), (60, B, 20), (61, FORGED, 20)],
        [token(1, A, 99), token(2, B, 99)],
        1,
    ),
    "changed twice since the break": ([(0, A), (60, B, 20), (61, A, 20)], [token(1, A, 200), token(2, B, 200)], 0),
}


@pytest.mark.parametrize("what", DOUBTS)
def test_what_nobody_could_see_is_in_doubt_at_worst(what: str) -> None:
    changes, tokens, doubt = DOUBTS[what]
    verdict = judge(history(*changes), tokens)
    assert verdict.doubt_seconds == doubt
    assert verdict.is_good <= (doubt == 0)


@pytest.mark.parametrize(("bound", "good"), [(0, False), (1.9, False), (2, True)])
def test_gaps_of_servers_that_revoke_predecessors_have_a_bound(bound: float, good: bool) -> None:  # noqa: FBT001 -- a case
    changes = history((0, A), (22, B), (41, A))
    ledger = [token(1, A, 200), token(2, B, 200, 40, "successor")]
    ledger[0].revoked_at, ledger[0].revoked_by = 20, "successor"
    verdict = judge(changes, ledger, until=41, bound=bound)
    assert verdict.bad_token_seconds == 3
    assert verdict.longest_gap == 2
    assert verdict.is_good is good
    assert "2 gaps" in str(verdict)
    assert f"the bound is {bound:.3f} s" in str(verdict) or bound == 0


def test_the_bound_is_for_gaps_alone() -> None:
    assert not judge(history((0, A)), [token(1, A, 200, 99)], bound=50).is_good
    assert not judge(history((0, FORGED)), [], bound=500).is_good


def test_the_verdict_reads_well_and_names_no_token() -> None:
    other = Credential("shop", "billing", "uid-2")
    histories = {CREDENTIAL: history((0, A), (30, FORGED), (40, ABSENT)), other: history((0, B), (60, A, 50))}
    verdict = audit(histories, [token(7, A, 20.5), token(8, B, 55)], 0, 100)
    assert str(verdict).splitlines() == [
        "NOT GOOD: 2 credentials, 100.0 s",
        "expired-token-seconds 49.500",
        "bad-token-seconds     10.000",
        "absent-seconds        60.000",
        "in doubt              10.000 (the API server was out of reach)",
        "  shop/storefront: token 7, past its expiry, for 9.500 s from 00:00:20.500Z",
        "  shop/storefront: a token, never issued, for 10.000 s from 00:00:30.000Z",
        "  shop/storefront: no token, absent, for 60.000 s from 00:00:40.000Z",
        "  shop/billing: token 7, past its expiry, for 40.000 s from 00:01:00.000Z",
    ]
    shown = f"{verdict}{verdict!r}{histories!r}"
    assert not any(value in shown for value in (A, B, FORGED))


def test_no_wrong_is_shown_as_zero() -> None:
    assert "expired-token-seconds 0.001" in str(judge(history((0, A)), [token(1, A, 99.9999)]))


seconds = st.integers(0, 30)
states = st.sampled_from([A, B, FORGED, ABSENT, GONE])


@given(
    steps=st.lists(st.tuples(seconds, states), max_size=6, unique_by=lambda step: step[0]),
    expiries=st.tuples(seconds, seconds),
    revocations=st.tuples(st.none() | seconds, st.none() | seconds),
)
def test_figures_are_the_sum_over_all_seconds(
    steps: list[tuple[int, str | None]], expiries: tuple[int, int], revocations: tuple[int | None, int | None]
) -> None:
    """Count second by second what the auditor adds up in stretches."""
    changes = history(*sorted(steps, key=lambda step: step[0]))
    # The ledger revokes nothing that has expired.
    revoked = [at if at is not None and at < end else None for at, end in zip(revocations, expiries, strict=True)]
    ledger = [token(1, A, expiries[0], revoked[0]), token(2, B, expiries[1], revoked[1])]
    verdict = judge(changes, ledger, until=30)

    counted = dict.fromkeys(Wrong, 0)
    published = False
    for second in range(30):
        now = next((change for change in reversed(changes) if change.at <= second), None)
        published = published or (now is not None and now.token is not None)
        if now is None or not now.exists:
            continue
        held = next((issued for issued in ledger if issued.value == now.token), None)
        if now.token is None:
            counted[Wrong.ABSENT] += published
        elif held is None:
            counted[Wrong.NEVER_ISSUED] += 1
        elif second >= held.expires_at:
            counted[Wrong.EXPIRED] += 1
        elif held.revoked_at is not None and second >= held.revoked_at:
            counted[Wrong.REVOKED] += 1

    assert verdict.expired_token_seconds == counted[Wrong.EXPIRED]
    assert verdict.bad_token_seconds == counted[Wrong.NEVER_ISSUED] + counted[Wrong.REVOKED]
    assert verdict.absent_seconds == counted[Wrong.ABSENT]
