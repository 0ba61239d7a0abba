"""Which of two credentials of one name is the later one, in whatever order the news of them arrives.

News of a credential come in four ways. An event of the watch says what was true at its resource version; kopf has a
worker for each uid, so that events of two uids come in any order. A new list shows what there was when it was
made. The answer to a write, and a live read, show what there is. Within one history of etcd, resource versions of one
resource are in the order of what happened (KEP-5504), over all uids: so the later version is the later credential.
(Creation times have whole seconds, and are of no use here.) A history may also go back, when etcd is restored from a
backup. So a version proves something only where nothing speaks against it; where two tell different things, a live read
decides.
"""

from enum import Enum, auto
from typing import Final, NamedTuple

from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.versions import older

_MOST_ENDS: Final = 4096


class Told(NamedTuple):
    """One piece of news of a name: that a credential exists, or has gone, as of a resource version (empty: unknown)."""

    uid: str
    version: str
    there: bool


class Assessment(Enum):
    """What to make of it: believe it, leave it aside, or have a live read decide."""

    NEWS = auto()
    LATE = auto()
    DOUBTFUL = auto()


def assess(known: Told | None, told: Told, *, listed: bool = False) -> Assessment:
    """Assess what is told of a name by what is known of it; `listed` says that a relist shows it.

    Another uid than the known one is believed at once if it is there and its version is later; if not, it is doubtful.
    So is a uid that is there though it was seen to go. A relist of a uid that is there wins, whatever the versions.
    """
    if known is None:
        return Assessment.NEWS
    if known.uid != told.uid:
        return Assessment.NEWS if told.there and older(known.version, told.version) else Assessment.DOUBTFUL
    if not known.there:
        return Assessment.DOUBTFUL if told.there else Assessment.LATE
    if (listed and told.there) or not older(told.version, known.version):
        return Assessment.NEWS
    # The answers to our own status writes come before the watch tells of them; until then it tells what was before.
    return Assessment.LATE if told.there else Assessment.DOUBTFUL


class Ends:
    """The credentials that were seen to go: a bounded number, for a bounded time.

    If one is forgotten here and late news of it arrive after all, it is taken for a new one, until a census drops it.
    """

    def __init__(self, most: int = _MOST_ENDS) -> None:
        """`most` are kept, the latest."""
        self._most = most
        self._lately: dict[NamespacedName, Told] = {}
        self._earlier: dict[NamespacedName, Told] = {}

    def __len__(self) -> int:
        return len(self._lately) + len(self._earlier)

    def get(self, key: NamespacedName) -> Told | None:
        """The last end under a name, or None where none is remembered."""
        return self._lately.get(key) or self._earlier.get(key)

    def note(self, key: NamespacedName, end: Told) -> None:
        """Remember an end. If there are too many by that, the oldest is forgotten."""
        self.forget(key)
        self._lately[key] = end
        if len(self) > self._most:
            ends = self._earlier or self._lately
            del ends[next(iter(ends))]

    def forget(self, key: NamespacedName) -> None:
        """Another credential has that name."""
        self._lately.pop(key, None)
        self._earlier.pop(key, None)

    def grow_old(self) -> None:
        """Forget those that were noted before this was called last."""
        self._earlier, self._lately = self._lately, {}
