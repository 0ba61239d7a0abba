"""How histories follow from what the API server said, in whatever order its watches said it."""

from collections.abc import Mapping

import pytest

from tests.support.auditor.timeline import (
    CredentialSeen,
    Event,
    Key,
    NamespaceSeen,
    SecretSeen,
    Seen,
    Session,
    histories,
    ordered,
)
from tests.support.auditor.verdict import Credential

NAMESPACE = Key("namespaces", "", "shop")
CREDENTIAL = Key("tuinlycredentials", "shop", "storefront")
TARGET = Key("secrets", "shop", "storefront-token")
OTHER = Key("secrets", "shop", "other")

UP = NamespaceSeen(deleting=False)
LIVE = CredentialSeen("c1", ("storefront-token",), deleting=False)


def secret(token: str | None, uid: str = "s1", credential: str | None = "storefront") -> SecretSeen:
    """Return a Secret, by default one that is labelled as the credential's target."""
    return SecretSeen(uid, credential, token)


def session(*steps: Mapping[Key, Seen | None], at: float = 0, ended_at: float | None = None) -> Session:
    """Return a session: first the lists, then a step a second, each at a revision of its own."""
    listed = {key: seen for key, seen in steps[0].items() if seen is not None}
    events = [
        Event(at + number, number, key, seen)
        for number, step in enumerate(steps[1:], start=1)
        for key, seen in step.items()
    ]
    return Session(at, listed, events, ended_at)


def short(sessions: list[Session], until: float = 100) -> dict[str, list[tuple[float, str | None]]]:
    """Return histories as (at, token or "-" for absent or None for gone) by the credential's uid."""
    return {
        life.uid: [(change.at, (change.token or "-") if change.exists else None) for change in changes]
        for life, changes in histories(sessions, until).items()
    }


Steps = list[dict[Key, Seen | None]]
STEPS: dict[str, tuple[Steps, dict[str, list[tuple[float, str | None]]]]] = {
    "published and refreshed": (
        [{NAMESPACE: UP}, {CREDENTIAL: LIVE}, {TARGET: secret("a")}, {TARGET: secret("b")}],
        {"c1": [(1, "-"), (2, "a"), (3, "b")]},
    ),
    "there before": ([{CREDENTIAL: LIVE, TARGET: secret("a")}], {"c1": [(0, "a")]}),
    "the Secret first": ([{}, {TARGET: secret("a")}, {CREDENTIAL: LIVE}], {"c1": [(2, "a")]}),
    "the key taken away": (
        [{CREDENTIAL: LIVE, TARGET: secret("a")}, {TARGET: secret(None)}],
        {"c1": [(0, "a"), (1, "-")]},
    ),
    "the target deleted and made again": (
        [{CREDENTIAL: LIVE, TARGET: secret("a")}, {TARGET: None}, {TARGET: secret("a", uid="s2")}],
        {"c1": [(0, "a"), (1, "-"), (2, "a")]},
    ),
    "nothing that matters changed": (
        [{CREDENTIAL: LIVE, TARGET: secret("a")}, {CREDENTIAL: LIVE}, {TARGET: secret("a")}, {NAMESPACE: UP}],
        {"c1": [(0, "a")]},
    ),
    "a foreign Secret of the target's name": (
        [{CREDENTIAL: LIVE, TARGET: secret("foreign", credential=None)}, {TARGET: secret("foreign", credential="x")}],
        {"c1": [(0, "-")]},
    ),
    "the label taken off": (
        [{CREDENTIAL: LIVE, TARGET: secret("a")}, {TARGET: secret("b", credential=None)}],
        {"c1": [(0, "a"), (1, "b")]},
    ),
    "renamed": (
        [
            {CREDENTIAL: LIVE, TARGET: secret("a")},
            {CREDENTIAL: CredentialSeen("c1", ("other", "storefront-token"), deleting=False)},
            {OTHER: secret("b", uid="s2")},
            {TARGET: None},
            {CREDENTIAL: CredentialSeen("c1", ("other",), deleting=False)},
        ],
        {"c1": [(0, "a"), (2, "b")]},
    ),
    "deleted, and its target collected": (
        [{CREDENTIAL: LIVE, TARGET: secret("a")}, {CREDENTIAL: None}, {TARGET: None}],
        {"c1": [(0, "a"), (1, None)]},
    ),
    "being deleted": (
        [
            {CREDENTIAL: LIVE, TARGET: secret("a")},
            {CREDENTIAL: CredentialSeen("c1", ("storefront-token",), deleting=True)},
            {TARGET: None},
            {CREDENTIAL: None},
        ],
        {"c1": [(0, "a"), (1, None)]},
    ),
    "its namespace being deleted": (
        [
            {NAMESPACE: UP, CREDENTIAL: LIVE, TARGET: secret("a")},
            {NAMESPACE: NamespaceSeen(deleting=True)},
            {TARGET: None},
            {CREDENTIAL: None},
            {NAMESPACE: None},
        ],
        {"c1": [(0, "a"), (1, None)]},
    ),
    "deleted and created again": (
        [
            {CREDENTIAL: LIVE, TARGET: secret("a")},
            {CREDENTIAL: None},
            {TARGET: None},
            {CREDENTIAL: CredentialSeen("c2", ("storefront-token",), deleting=False)},
            {TARGET: secret("b", uid="s2")},
        ],
        {"c1": [(0, "a"), (1, None)], "c2": [(3, "-"), (4, "b")]},
    ),
}


@pytest.mark.parametrize("what", STEPS)
def test_histories(what: str) -> None:
    steps, expected = STEPS[what]
    assert short([session(*steps)]) == expected


def test_events_happened_in_the_order_of_their_revisions() -> None:
    """The collector's deletion of the target arrives before the deletion of the credential, which caused it."""
    late = session({CREDENTIAL: LIVE, TARGET: secret("a")})
    late.events += [Event(5.0, 12, TARGET, None), Event(5.2, 11, CREDENTIAL, None)]
    assert short([late]) == {"c1": [(0, "a"), (5.0, None)]}
    assert [(event.at, event.revision) for event in ordered(late.events)] == [(5.0, 11), (5.0, 12)]


def test_what_is_the_same_after_a_break_was_so_all_the_time() -> None:
    same: dict[Key, Seen | None] = {CREDENTIAL: LIVE, TARGET: secret("a")}
    assert short([session(same, ended_at=10), session(same, at=20)]) == {"c1": [(0, "a")]}


BREAKS: dict[str, tuple[dict[Key, Seen | None], list[tuple[float, float, str | None]]]] = {
    "refreshed": ({CREDENTIAL: LIVE, TARGET: secret("b")}, [(20, 10, "b")]),
    "the target gone": ({CREDENTIAL: LIVE}, [(20, 10, "-")]),
    "both gone": ({}, [(20, 10, None)]),
    "another life": (
        {CREDENTIAL: CredentialSeen("c2", ("storefront-token",), deleting=False), TARGET: secret("b", uid="s2")},
        [(20, 10, None), (20, 10, "b")],
    ),
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_found_after_a_break_may_have_come_at_any_time_since(what: str) -> None:
    after, expected = BREAKS[what]
    before: dict[Key, Seen | None] = {CREDENTIAL: LIVE, TARGET: secret("a")}
    seen = histories([session(before, ended_at=10), session(after, at=20)], until=100)
    assert [
        (change.at, change.earliest, (change.token or "-") if change.exists else None)
        for changes in seen.values()
        for change in changes
        if change.at > 0
    ] == expected


def test_after_the_last_break_all_is_in_doubt() -> None:
    seen = histories([session({CREDENTIAL: LIVE, TARGET: secret("a")}, ended_at=10)], until=50)
    (changes,) = seen.values()
    assert [(change.at, change.earliest, change.token) for change in changes] == [(0, 0, "a"), (50, 10, "a")]
    assert set(seen) == {Credential("shop", "storefront", "c1")}


def test_what_is_seen_does_not_print() -> None:
    assert "value-of-a" not in repr(session({TARGET: secret("value-of-a")}))
