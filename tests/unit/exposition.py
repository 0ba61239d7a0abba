"""The metrics as Prometheus gets them, from an operator to which everything has happened."""

import time
from dataclasses import replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.unit.facts import ISSUED, TOKEN_URL, credential_object
from tuinly_operator.base.clock import Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import Credential, GrantType
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.memory import IssuedToken
from tuinly_operator.domain.target import TokenState
from tuinly_operator.edges.metrics import Metrics, State
from tuinly_operator.edges.oauth import origin_of
from tuinly_operator.engine.limiter import Ask, Limiter
from tuinly_operator.engine.store import Store
from tuinly_operator.engine.workqueue import Order, Urgency, WorkQueue

ORIGIN = origin_of(TOKEN_URL)
KEY = NamespacedName("shop", "storefront")
TOKEN = TokenState("uid", 0, 3600, 2400, "", "", "", "", "")


class Scraped:
    """An operator's metrics with what they are read off, for tests to change.

    Attributes:
        origins: those of the endpoints in use.
        time: what the clocks say.
        leading, reachable: whether this replica is at work, and the API server within reach.
    """

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.queue = WorkQueue(lambda _: Urgency(Order.LIVING), time.monotonic, places=20)
        self.limiter = Limiter(20, lambda _: None)
        self.store = Store(changed=lambda _: None, gone=lambda _: None)
        self.origins: set[str] = set()
        self.leading = self.reachable = True
        self.refused: list[tuple[str, str]] = []
        self.time = ISSUED
        self.metrics = Metrics(self)
        self.metrics.expose(
            State(
                store=self.store,
                queue=self.queue,
                limiter=self.limiter,
                leading=lambda: self.leading,
                reachable=lambda: self.reachable,
                refused=lambda: self.refused,
                origins=lambda: self.origins,
            )
        )

    def now(self) -> Moment:
        """What the clocks say."""
        return self.time

    def see(self, name: str, *, spec: Any = None, **status: Any) -> Credential:  # noqa: ANN401 - JSON
        """Take in a credential with this in its status; return it."""
        patch = {"metadata": {"name": name, "uid": name}, "spec": spec or {}, "status": status}
        credential = Credential.from_object(credential_object(patch))
        record = self.store.get(credential.key)
        version = int(record.credential.version) if record else 0
        credential = replace(credential, version=str(version + 1))
        self.store.credential_seen(credential)
        return credential

    def text(self) -> str:
        """Return what is served."""
        return b"".join(self.metrics.render()).decode()

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of the samples of this name, by their labels' values."""
        return {
            tuple(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
            if sample.name == name
        }


def condition(kind: str, status: str, reason: str) -> dict[str, object]:
    """Return a condition of a status."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "in a sentence",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-24T07:00:00Z",
    }


def everything() -> Scraped:
    """Return an operator to which everything has happened."""
    scraped = Scraped()
    conditions = [condition("Ready", "True", "Issued"), condition("Refreshed", "False", "InvalidClient")]
    times = {"tokenExpirationTime": "2026-11-24T08:00:00Z", "nextRefreshTime": "2026-11-24T07:40:00Z"}
    scraped.see("storefront", conditions=conditions, **times)
    scraped.see("paused", spec={"suspend": True})
    scraped.origins = {ORIGIN}
    scraped.refused = [("secrets", "gone")]
    throttled = TokenRequestFailed(Reason.ENDPOINT_THROTTLED, "", 429)
    scraped.limiter.failed(scraped.limiter.begin(Ask(KEY, ORIGIN, end=ISSUED.wall), ISSUED), throttled, ISSUED)
    scraped.metrics.clock_difference(ORIGIN, 0.5)
    scraped.metrics.pushed("Pushed", 0.2)
    for grant in GrantType:
        with scraped.metrics.token_request(grant):
            pass
        scraped.metrics.published(IssuedToken(TOKEN, ISSUED, grant=grant), 0.5)
    return scraped


def every_metric() -> dict[str, tuple[str, set[str]]]:
    """Return each metric's type and labels by the name that people query."""
    return {
        # The parser takes the ending off a counter's name.
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in text_string_to_metric_families(everything().text())
    }
