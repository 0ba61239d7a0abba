"""Follows what was asked for until the status tells of it, or the time is over."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from kubectl_tuinly.edges.access import RefusedError
from kubectl_tuinly.edges.around import now, pause
from kubectl_tuinly.edges.cluster import Cluster
from kubectl_tuinly.edges.screen import progress, say, tell
from kubectl_tuinly.outcome import Exit
from kubectl_tuinly.rules.renewal import Came
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.text import printable
from tuinly_operator.domain.credential import Credential

_LOOK_SECONDS: Final = 0.5


class Followed(NamedTuple):
    """A credential of which something is awaited; `hopeless`: nothing will come of it as things are."""

    key: NamespacedName
    came: Callable[[Credential], Came]
    late: Callable[[], str]
    hopeless: bool = False


def follow(cluster: Cluster, asked: Sequence[Followed], timeout: float) -> Exit:
    """Wait for all of them, telling how it goes; READY if all came to a good end."""
    end, open_ = now() + timeout, [each for each in asked if not each.hopeless]
    good = len(open_) == len(asked)
    with progress() as news:
        while open_:
            still = []
            for each in open_:
                came = _look(cluster, each)
                if came.good is None:
                    still.append(each)
                    news(f"{each.key}: {came.text}" + (f" (and {len(open_) - 1} more)" if len(open_) > 1 else ""))
                else:
                    say(printable(f"{each.key}: {came.text}"))
                    good = good and came.good
            open_ = still
            if not open_ or now() > end:
                break
            pause(_LOOK_SECONDS)
    for each in open_:
        tell(printable(f"{each.key}: not within {timeout:g} s; {each.late()}"))
    return Exit.READY if good and not open_ else Exit.NOT_READY


def _look(cluster: Cluster, each: Followed) -> Came:
    try:
        return each.came(Credential.from_object(cluster.credential(each.key)))
    except RefusedError as refused:
        if refused.absent:
            return Came(good=False, text="it was deleted meanwhile")
        raise
