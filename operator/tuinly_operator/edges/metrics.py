"""What Prometheus is told; the one door to its client.

Counters and histograms are recorded as things happen. Gauges are computed from the operator's state at each scrape, so
that they vanish with what they are about. Those of a credential come from its status, as `kubectl get` shows it: so
every replica tells the same, also one that stands by.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tuinly_operator.base.clock import Clock, parse_rfc3339
from tuinly_operator.base.settings import PROGRAM
from tuinly_operator.domain.credential import READY, REFRESHED, Credential, GrantType
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.memory import IssuedToken
from tuinly_operator.engine.limiter import Limiter
from tuinly_operator.engine.store import Store
from tuinly_operator.engine.workqueue import WorkQueue

_SLICE: Final = 500  # credentials: about a millisecond
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the gauges are read from.

    `leading` and `reachable` tell whether this replica is at work and whether the API server answers, `origins` those
    of the endpoints that credentials use now, `refused` resource and namespace (`*` for all) of what may not be
    listed or watched.
    """

    store: Store
    queue: WorkQueue
    limiter: Limiter
    leading: Callable[[], bool]
    reachable: Callable[[], bool]
    refused: Callable[[], Collection[tuple[str, str]]]
    origins: Callable[[], Collection[str]]


class Metrics:
    """One recorder for all of the operator's metrics."""

    def __init__(self, clock: Clock) -> None:
        """The registry is our own: nothing that a library registers globally is exposed by accident."""
        self._clock = clock
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
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
            registry=self._registry,
        )
        self._pushes = Counter(
            "tuinly_pushes_total",
            "Pods that were to be told of a new token, by outcome: Pushed, Gone, Refused, Late.",
            ("outcome",),
            registry=self._registry,
        )
        for outcome in ("Pushed", "Gone", "Refused", "Late"):
            self._pushes.labels(outcome)  # 0 is told, too: an increase shows only from something
        self._push_delays = Histogram(
            "tuinly_push_delay_seconds",
            "How long after the write of the target a Pod was told.",
            buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 90),
            registry=self._registry,
        )
        self._iterations = Histogram(
            "tuinly_loop_held_seconds",
            "CPU time of iterations of the event loop that took 5 ms or longer, for which all else waited.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=self._registry,
        )
        self._ahead: dict[str, float] = {}  # seconds by origin
        self._store: Store | None = None

    def expose(self, state: State) -> None:
        """Add the gauges that are read from the operator's state at each scrape."""
        self._registry.register(_Gauges(state, self._clock, self._ahead))
        self._store = state.store

    def render(self) -> Iterator[bytes]:
        """All metrics in the text format, in pieces between which others may have the loop."""
        yield generate_latest(self._registry)
        if self._store is not None:
            yield from _of_credentials(self._store)

    @contextmanager
    def token_request(self, grant: GrantType) -> Iterator[None]:
        """Count and time the token request in the block."""
        start, outcome = self._clock.now().boot, "Abandoned"
        try:
            yield
            outcome = Reason.ISSUED
        except TokenRequestFailed as failure:
            outcome = failure.reason
            raise
        finally:
            self._requests.labels(grant, outcome).inc()
            self._durations.labels(grant).observe(self._clock.now().boot - start)

    def clock_difference(self, origin: str, ahead: float) -> None:
        """Note by how many seconds this clock is ahead of a token endpoint's."""
        self._ahead[origin] = ahead

    def published(self, held: IssuedToken, lateness: float | None) -> None:
        """Count a new token that a target holds; `lateness` is in seconds, None where it was no routine refresh."""
        self._refreshes.labels(held.grant).inc()
        if lateness is not None:
            self._lateness.observe(max(0.0, lateness))

    def pushed(self, outcome: str, delay: float | None) -> None:
        """Count a Pod that was to be told; `delay` is in seconds since the write, None where it was not."""
        self._pushes.labels(outcome).inc()
        if delay is not None:
            self._push_delays.observe(max(0.0, delay))

    def long_iteration(self, seconds: float) -> None:
        """Record an iteration of the event loop for which others waited; `seconds` are of CPU."""
        self._iterations.observe(seconds)


class _Gauges(Collector):
    """Computes the gauges at each scrape."""

    def __init__(self, state: State, clock: Clock, ahead: dict[str, float]) -> None:
        self._state = state
        self._clock = clock
        self._ahead = ahead

    def collect(self) -> Iterator[Metric]:
        """Compute them."""
        yield from self._of_endpoints()
        state = self._state
        build = _gauge("tuinly_build_info", "1, with the version of the operator.", "version")
        build.add_metric((version(PROGRAM),), 1.0)
        yield build
        refused = _gauge(
            "tuinly_namespace_refused",
            "1 while the API server refuses to list or watch a resource in a namespace that is to be served.",
            "resource",
            "namespace",
        )
        for what in state.refused():
            refused.add_metric(what, 1.0)
        yield refused
        for name, meaning, value in (
            ("tuinly_leader", "1 in the replica that is at work, else 0.", state.leading()),
            ("tuinly_api_reachable", "1 if the API server answered last, else 0.", state.reachable()),
            ("tuinly_credentials", "TuinlyCredentials known.", len(state.store)),
            ("tuinly_queue_depth", "Credentials that wait for a reconcile.", len(state.queue)),
            (
                "tuinly_queue_age_seconds",
                "How long the oldest has waited; 0 while the queue is held.",
                state.queue.age,
            ),
        ):
            yield GaugeMetricFamily(name, meaning, value=float(value))

    def _of_endpoints(self) -> Iterator[Metric]:
        limits = {
            "down": _gauge("tuinly_endpoint_down", "1 while an endpoint is only probed, else 0.", "origin"),
            "limit": _gauge("tuinly_endpoint_limit", "Requests that may be in flight to an endpoint.", "origin"),
            "in_flight": _gauge("tuinly_endpoint_in_flight", "Requests in flight to an endpoint.", "origin"),
            "waiting": _gauge("tuinly_endpoint_waiting", "Requests that wait for their turn at an endpoint.", "origin"),
            "rate": _gauge("tuinly_endpoint_rate", "Requests per second that may begin, where bounded.", "origin"),
        }
        ahead = _gauge(
            "tuinly_clock_difference_seconds",
            "How far this clock is ahead of the token endpoint's, by the Date of its last good answer.",
            "origin",
        )
        seen = self._state.limiter.seen(self._clock.now())
        # What a replica knows of endpoints is old once it leads no more.
        for origin in sorted(self._state.origins()) if self._state.leading() else ():
            for name, gauge in limits.items():
                value = getattr(seen.get(origin), name, None)
                if value is not None:
                    gauge.add_metric((origin,), float(value))
            if origin in self._ahead:
                ahead.add_metric((origin,), self._ahead[origin])
        yield from (*limits.values(), ahead)


def _gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=labels)


# --- Of credentials: as many samples as there are credentials, so their lines are made here, and by slices ------------


class _Sample(NamedTuple):
    """A value, and with it a reason where there is one."""

    value: float
    reason: str = ""


def _of_credentials(store: Store) -> Iterator[bytes]:
    """All samples of credentials, in the text format, in pieces that are quickly made."""
    for name, meaning, sample in _CREDENTIAL_GAUGES:
        yield f"# HELP {name} {meaning}\n# TYPE {name} gauge\n".encode()
        records = tuple(store)
        for first in range(0, len(records), _SLICE):
            credentials = [record.credential for record in records[first : first + _SLICE]]
            yield "".join(_line(name, each, found) for each in credentials if (found := sample(each))).encode()


def _line(name: str, credential: Credential, sample: _Sample) -> str:
    """A line of the text format. Names need no escapes; a reason may be anybody's text."""
    namespace, of = credential.key
    more = f',reason="{sample.reason.translate(_ESCAPES)}"' if sample.reason else ""
    return f'{name}{{credential="{of}",namespace="{namespace}"{more}}} {sample.value}\n'


def _ready(credential: Credential) -> _Sample:
    condition = credential.status.condition(READY)
    return _Sample(float(condition is not None and condition.status == "True"))


def _failing(credential: Credential) -> _Sample | None:
    condition = credential.status.condition(REFRESHED)
    return _Sample(1.0, condition.reason) if condition is not None and condition.status == "False" else None


def _suspended(credential: Credential) -> _Sample | None:
    return _Sample(1.0) if credential.spec.suspend else None


def _time(time: str | None) -> _Sample | None:
    """A time of the status, if it is one: others may have written the status, too."""
    if time is not None:
        with suppress(ValueError):
            return _Sample(parse_rfc3339(time))
    return None


_CREDENTIAL_GAUGES: Final[tuple[tuple[str, str, Callable[[Credential], _Sample | None]], ...]] = (
    ("tuinly_credential_ready", "1 if the condition Ready is True, else 0.", _ready),
    ("tuinly_credential_failing", "1 while the condition Refreshed is False, with its reason.", _failing),
    ("tuinly_credential_suspended", "1 while spec.suspend is true.", _suspended),
    (
        "tuinly_credential_expiration_timestamp_seconds",
        "When the published token expires.",
        lambda credential: _time(credential.status.token_expiration_time),
    ),
    (
        "tuinly_credential_next_refresh_timestamp_seconds",
        "When the next token is asked for, as reported.",
        lambda credential: _time(credential.status.next_refresh_time),
    ),
)
