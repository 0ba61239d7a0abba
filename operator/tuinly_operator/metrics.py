"""What Prometheus is told; the one door to its client.

Figures of a credential are computed from the store when they are asked for, so that they go with it and can never be
stale.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tuinly_operator.credential import GrantType
from tuinly_operator.errors import TokenRequestFailed
from tuinly_operator.gate import Gate
from tuinly_operator.memory import Held
from tuinly_operator.report import READY
from tuinly_operator.store import Store
from tuinly_operator.timers import Timers
from tuinly_operator.workqueue import WorkQueue

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for

_SUCCESS: Final = "Issued"
_LABELS: Final = ("namespace", "credential")


class Metrics:
    """One recorder for all of the operator's metrics."""

    def __init__(self, store: Store, timers: Timers, queue: WorkQueue, gate: Gate) -> None:
        """The registry is our own: nothing that a library registers globally is exposed by accident."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tuinly_token_requests_total",
            "Token requests by grant and outcome (Issued, or the reason of the failure).",
            ("grant", "outcome"),
            registry=self._registry,
        )
        self._durations = Histogram(
            "tuinly_token_request_duration_seconds",
            "How long token requests took, by grant.",
            ("grant",),
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 8),
            registry=self._registry,
        )
        self._refreshes = Counter(
            "tuinly_refreshes_total",
            "Tokens published in target Secrets, by the grant that gave them.",
            ("grant",),
            registry=self._registry,
        )
        self._lateness = Histogram(
            "tuinly_refresh_lateness_seconds",
            "How long after it was due a routine refresh was published.",
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
            registry=self._registry,
        )
        self._clock_difference = Gauge(
            "tuinly_clock_difference_seconds",
            "How far this clock is ahead of the token endpoint's, by the Date of its last good answer.",
            ("origin",),
            registry=self._registry,
        )
        self._registry.register(_Live(store, timers, queue, gate))

    def watch_lead(self, leading: Callable[[], bool]) -> None:
        """Tell whether this replica leads, by asking at each scrape."""
        gauge = Gauge("tuinly_leader", "1 in the replica that is at work, else 0.", registry=self._registry)
        gauge.set_function(lambda: float(leading()))

    def render(self) -> bytes:
        """All metrics in the text format."""
        return generate_latest(self._registry)

    @contextmanager
    def token_request(self, grant: GrantType) -> Iterator[None]:
        """Count and time the token request in the block."""
        start, outcome = time.monotonic(), "Abandoned"
        try:
            yield
            outcome = _SUCCESS
        except TokenRequestFailed as failure:
            outcome = failure.reason
            raise
        finally:
            self._requests.labels(grant, outcome).inc()
            self._durations.labels(grant).observe(time.monotonic() - start)

    def clock_difference(self, origin: str, ahead: float) -> None:
        """Note by how many seconds this clock is ahead of a token endpoint's."""
        self._clock_difference.labels(origin).set(ahead)

    def published(self, held: Held, lateness: float | None) -> None:
        """Count a new token that a target holds; `lateness` is in seconds, None where it was no routine refresh."""
        self._refreshes.labels(held.grant).inc()
        if lateness is not None:
            self._lateness.observe(max(0.0, lateness))


class _Live(Collector):
    """Gauges that are read off the operator's state at each scrape."""

    def __init__(self, store: Store, timers: Timers, queue: WorkQueue, gate: Gate) -> None:
        self._gate = gate
        self._store = store
        self._timers = timers
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        """Compute the gauges."""
        ready = GaugeMetricFamily(
            "tuinly_credential_ready", "1 if the condition Ready is True, else 0.", labels=_LABELS
        )
        expiry = GaugeMetricFamily(
            "tuinly_credential_expiration_timestamp_seconds", "When the published token expires.", labels=_LABELS
        )
        due = GaugeMetricFamily(
            "tuinly_credential_next_refresh_timestamp_seconds",
            "When the credential is looked at again.",
            labels=_LABELS,
        )
        for record in self._store:
            labels = tuple(record.credential.key)
            condition = record.credential.status.condition(READY)
            ready.add_metric(labels, 1.0 if condition and condition.status == "True" else 0.0)
            if record.memory.published:
                expiry.add_metric(labels, record.memory.published.state.expires_at)
            if deadline := self._timers.get(record.credential.key):
                due.add_metric(labels, deadline.wall)
        yield from (ready, expiry, due)
        gates = GaugeMetricFamily(
            "tuinly_gate_closed", "1 while a token endpoint is spared, else 0.", labels=("origin",)
        )
        for origin, closed in self._gate.closed().items():
            gates.add_metric((origin,), float(closed))
        yield gates
        yield GaugeMetricFamily("tuinly_credentials", "TuinlyCredentials known.", value=len(self._store))
        yield GaugeMetricFamily("tuinly_queue_depth", "Credentials that wait for a reconcile.", value=len(self._queue))
        yield GaugeMetricFamily(
            "tuinly_queue_age_seconds", "How long the oldest of them has waited.", value=self._queue.age
        )
