"""In which namespaces the API server refuses (403) to list or watch something; each is logged once, and so is its end.

Such a namespace was deleted together with its Role, or never had one. It holds up none of the others.
"""

import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final, NamedTuple

from tuinly_operator.base.chance import Chance
from tuinly_operator.base.logs import fields
from tuinly_operator.edges.kube import ApiFailure

SECRETS: Final = "secrets"
_MAX_BACKOFF: Final = 60.0  # seconds

_log = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """What is refused: a resource by its plural, and the namespace, None for all."""

    resource: str
    namespace: str | None

    def __str__(self) -> str:
        where = "in all namespaces" if self.namespace is None else f"in namespace {self.namespace}"
        return f"{self.resource} {where}"


class Refusals:
    """All refusals that hold now."""

    def __init__(self, chance: Chance) -> None:
        """Nothing is refused yet."""
        self._chance = chance
        self._tries: dict[Refusal, int] = {}

    def __iter__(self) -> Iterator[Refusal]:
        return iter(sorted(self._tries, key=str))

    def __contains__(self, what: Refusal) -> bool:
        return what in self._tries

    def note(self, what: Refusal, failure: ApiFailure) -> bool:
        """Note a failure if it is a refusal (403), and return whether it is one."""
        if failure.status != HTTPStatus.FORBIDDEN:
            return False
        if what not in self._tries:
            _log.warning(
                "may not list and watch %s: it is not served until it may; check its Role and RoleBinding",
                what,
                extra=fields(cause=failure),
            )
        self._tries[what] = self._tries.get(what, 0) + 1
        return True

    def end(self, what: Refusal) -> None:
        """Note that it is refused no more, if it was."""
        if self._tries.pop(what, 0):
            _log.info("may list and watch %s again", what)

    def pause(self, what: Refusal) -> float:
        """Seconds until it should be tried again."""
        most = min(_MAX_BACKOFF, 0.5 * 2.0 ** min(self._tries.get(what, 0), 10))
        return self._chance.uniform(most / 2, most)
