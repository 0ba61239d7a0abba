"""Which credential of a name came last: in all orders of what is told, and with versions that go back."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.facts import UID, credential
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import Credential
from tuinly_operator.domain.succession import Assessment, Ends, Told, assess
from tuinly_operator.engine.store import Store

ME = NamespacedName("shop", "storefront")
A, B, C = "a", "b", "c"


# --- One thing told after another -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "told", "assessment"),
    [
        (None, Told(A, "5", there=True), Assessment.NEWS),
        (None, Told(A, "5", there=False), Assessment.NEWS),
        (Told(A, "5", there=True), Told(A, "5", there=True), Assessment.NEWS),
        (Told(A, "9", there=True), Told(A, "10", there=True), Assessment.NEWS),
        (Told(A, "10", there=True), Told(A, "9", there=True), Assessment.LATE),
        (Told(A, "5", there=True), Told(A, "6", there=False), Assessment.NEWS),
        (Told(A, "6", there=True), Told(A, "5", there=False), Assessment.DOUBTFUL),  # back in the selection since
        (Told(A, "5", there=False), Told(A, "4", there=True), Assessment.DOUBTFUL),
        (Told(A, "5", there=False), Told(A, "6", there=True), Assessment.DOUBTFUL),
        (Told(A, "5", there=False), Told(A, "5", there=False), Assessment.LATE),
        (Told(A, "9", there=True), Told(B, "10", there=True), Assessment.NEWS),
        (Told(A, "10", there=True), Told(B, "9", there=True), Assessment.DOUBTFUL),
        (Told(A, "5", there=False), Told(B, "6", there=True), Assessment.NEWS),
        (Told(A, "6", there=False), Told(B, "5", there=True), Assessment.DOUBTFUL),
        (Told(A, "", there=False), Told(B, "6", there=True), Assessment.DOUBTFUL),  # nobody knows since when it is gone
        (Told(B, "5", there=True), Told(A, "6", there=False), Assessment.DOUBTFUL),
        (Told(B, "6", there=True), Told(A, "5", there=False), Assessment.DOUBTFUL),
    ],
    ids=str,
)
def test_what_the_watch_tells_is_assessed_by_uid_and_version(
    known: Told | None, told: Told, assessment: Assessment
) -> None:
    assert assess(known, told) is assessment


@pytest.mark.rule("ABS-12")
@pytest.mark.parametrize(
    ("known", "told", "assessment"),
    [
        (Told(A, "10", there=True), Told(A, "9", there=True), Assessment.NEWS),
        (Told(A, "5", there=False), Told(A, "4", there=True), Assessment.DOUBTFUL),
        (Told(A, "10", there=True), Told(B, "9", there=True), Assessment.DOUBTFUL),
        (Told(A, "9", there=True), Told(B, "10", there=True), Assessment.NEWS),
    ],
    ids=str,
)
def test_a_relist_wins_over_what_is_known_of_the_same_uid(known: Told, told: Told, assessment: Assessment) -> None:
    """Of another uid it may have come late, and a live read decides."""
    assert assess(known, told, listed=True) is assessment


# --- All orders -------------------------------------------------------------------------------------------------------


class Watched(Store):
    """A store beside a cluster in which all has happened already; only the news of it are still to come."""

    def __init__(self, there: Credential | None, version: int) -> None:
        super().__init__(lambda _: None, lambda _: None, self._ask)
        self._there = there
        self._version = str(version)
        self._asked = False

    def _ask(self, key: NamespacedName) -> None:
        assert key == ME
        self._asked = True

    def read(self) -> None:
        """Answer by a live read, as census and doubts do."""
        self.credential_read(ME, self._there, self._version, self.known(ME))

    def settle(self) -> None:
        """Answer what was asked, if anything was."""
        if self._asked:
            self._asked = False
            self.read()

    def hear(self, event: Told) -> None:
        seen = at(event.uid, event.version)
        (self.credential_seen if event.there else self.credential_ended)(seen)

    @property
    def uid(self) -> str | None:
        record = self.get(ME)
        return record.credential.uid if record else None


def at(uid: str, version: str) -> Credential:
    return credential({"metadata": {"uid": uid, "resourceVersion": version}})


def life(uid: str, *versions: int, ends: int | None = None) -> list[Told]:
    """What is told of a credential: that it was made, changed, and went."""
    return [Told(uid, str(version), there=True) for version in versions] + (
        [] if ends is None else [Told(uid, str(ends), there=False)]
    )


HISTORIES = {
    "made again": [*life(A, 1, 2, ends=3), *life(B, 4, 5)],
    "made again and deleted": [*life(A, 1, ends=3), *life(B, 4, 5, ends=6)],
    "made again twice": [*life(A, 1, ends=3), *life(B, 4, ends=6), *life(C, 7, 8)],
    "made again twice and deleted": [*life(A, 1, ends=3), *life(B, 4, ends=6), *life(C, 7, ends=8)],
    "out of the selection, and back": [*life(A, 1, ends=2), *life(A, 3, 4)],
}


def truth(history: list[Told]) -> Credential | None:
    last = history[-1]
    return at(last.uid, last.version) if last.there else None


@pytest.mark.rule("ABS-12")
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_what_was_created_last_wins_in_every_order(history: list[Told]) -> None:
    """Live reads answer at once, or after all; a census comes at any place, and late events after it."""
    there = truth(history)
    uid = there.uid if there else None
    for order in permutations(history):
        for census in range(len(order) + 1):
            for at_once in (True, False):
                store = Watched(there, 9)
                for place, event in enumerate((*order, None)):
                    if place == census:
                        store.read()
                    if event is not None:
                        store.hear(event)
                    if at_once:
                        store.settle()
                store.settle()
                assert store.uid == uid, (order, census, at_once)


@pytest.mark.rule("ABS-12")
@pytest.mark.parametrize("history", [HISTORIES["made again"], HISTORIES["made again twice"]], ids=["two", "three"])
def test_from_its_first_event_on_the_last_one_is_never_replaced(history: list[Told]) -> None:
    """Without any live read: those may take their time."""
    last = history[-1].uid
    for order in permutations(history):
        store, told = Watched(truth(history), 9), False
        for event in order:
            store.hear(event)
            told = told or event.uid == last
            assert not told or store.uid == last, order


@pytest.mark.rule("ABS-12")
@given(st.permutations(life(A, 101, 102, ends=103)), st.permutations(life(A, 51, 52) + life(B, 54, 55)), st.data())
def test_after_the_history_went_back_a_live_read_decides(
    before: list[Told], after: list[Told], data: st.DataObject
) -> None:
    """What is left of the later history is told in any order with what belongs to the restored one."""
    there = data.draw(st.sampled_from([at(A, "52"), at(B, "55"), None]))
    store = Watched(there, 56)
    for event in before + after:
        store.hear(event)
    store.read()
    assert store.uid == (there.uid if there else None)
    record = store.get(ME)
    assert there is None or (record is not None and record.credential == there)


def test_a_live_read_that_something_overtook_is_made_again() -> None:
    store = Watched(at(A, "6"), 6)
    store.hear(Told(A, "5", there=True))
    since = store.known(ME)
    store.hear(Told(B, "8", there=True))
    store.credential_read(ME, at(A, "6"), "6", since)
    assert store.uid == B
    store.settle()
    assert store.uid == A  # as this read began after the change


# --- What is remembered of the deleted --------------------------------------------------------------------------------


@pytest.mark.rule("ABS-13")
def test_the_ends_that_are_remembered_are_bounded_in_number() -> None:
    ends = Ends(most=10)
    for number in range(50):
        ends.note(NamespacedName("shop", str(number)), Told(UID, str(number), there=False))
        if number == 44:
            ends.grow_old()
        assert len(ends) <= 10
    assert [ends.get(NamespacedName("shop", str(number))) is not None for number in (39, 40, 44, 49)] == [
        False,
        True,
        True,
        True,
    ]


def test_as_many_ends_are_remembered_as_are_cheap_to_keep() -> None:
    ends = Ends()
    for number in range(5000):
        ends.note(NamespacedName("shop", str(number)), Told(UID, str(number), there=False))
    assert len(ends) == 4096


@pytest.mark.rule("ABS-13")
def test_the_ends_that_are_remembered_are_bounded_in_time() -> None:
    """By the census: what is known of the deleted lives for one to two of those."""
    ends = Ends()
    ends.note(ME, Told(A, "5", there=False))
    ends.grow_old()
    assert ends.get(ME) is not None
    ends.grow_old()
    assert ends.get(ME) is None
    assert len(ends) == 0


def test_an_end_that_was_forgotten_is_not_remembered_as_an_earlier_one() -> None:
    ends = Ends()
    ends.note(ME, Told(A, "5", there=False))
    ends.grow_old()
    ends.note(ME, Told(B, "7", there=False))
    assert (ends.get(ME), len(ends)) == (Told(B, "7", there=False), 1)
    ends.forget(ME)
    assert ends.get(ME) is None
