"""What is measured: processes by /proc, the API server's requests by its own counters, times by quantiles."""

import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
LATENESS = "tuinly_refresh_lateness_seconds"
HELD = "tuinly_loop_held_seconds"
_REFRESHES = "tuinly_refreshes_total"

Sample = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Process:
    """A running process of this machine."""

    pid: int

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it and its threads have used, in ticks of 10 ms (proc(5))."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK

    @property
    def rss(self) -> float:
        """Megabytes (10^6 bytes) of memory that it holds now."""
        return self._memory("VmRSS")

    @property
    def peak(self) -> float:
        """Megabytes of memory that it has held at most."""
        return self._memory("VmHWM")

    @property
    def threads(self) -> int:
        """How many threads it has now."""
        return self._status("Threads")

    @property
    def files(self) -> int:
        """How many file descriptors it has open now."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 -- names are enough

    def _memory(self, name: str) -> float:
        return self._status(name) * 1024 / 1e6

    def _status(self, name: str) -> int:
        return int(Path(f"/proc/{self.pid}/status").read_text().split(f"{name}:")[1].split()[0])


def requests(metrics: str) -> Counter[str]:
    """Count the requests that the API server has answered, from its metrics: by "VERB resource/subresource"."""
    counts: Counter[str] = Counter()
    for labels, count in _counts(metrics, "apiserver_request_total"):
        resource = "/".join(filter(None, (labels.get("resource"), labels.get("subresource"))))
        counts[f"{labels.get('verb')} {resource}"] += count
    return counts


def watches(metrics: str) -> Counter[str]:
    """Count the watches that the API server serves now, from its metrics: by resource."""
    counts: Counter[str] = Counter()
    for labels, count in _counts(metrics, "apiserver_longrunning_requests"):
        if labels.get("verb") == "WATCH":
            counts[labels.get("resource", "")] += count
    return counts


def _counts(metrics: str, name: str) -> Iterator[tuple[dict[str, str], int]]:
    """Read the samples of one metric that counts: labels and value."""
    for line in re.finditer(rf"^{name}\{{(?P<labels>[^}}]*)\}} (?P<count>\S+)$", metrics, re.MULTILINE):
        yield dict(_LABEL.findall(line["labels"])), int(float(line["count"]))


def of_credentials(counts: Mapping[str, int]) -> Counter[str]:
    """Keep what an operator asks for on behalf of credentials: no Leases, no open watches, nothing of controllers.

    Credentials are made by people, and here by the bench.
    """
    kept = ("secrets", "tuinlycredentials", "tuinlycredentials/status", "events")
    asked = {what: count for what, count in counts.items() if count and what.split(" ")[1] in kept}
    asked.pop("POST tuinlycredentials", None)
    return Counter(asked)


def grants(samples: Mapping[Sample, float]) -> Counter[str]:
    """Count the tokens that were published by the grant that gave them, from the operator's metrics."""
    found = {dict(labels)["grant"]: int(value) for (name, labels), value in samples.items() if name == _REFRESHES}
    return Counter(found)


@dataclass(frozen=True)
class Times:
    """How long things took, as a histogram of the operator tells it: upper bounds in seconds, and counts up to each."""

    buckets: Mapping[float, float]

    @classmethod
    def of(cls, samples: Mapping[Sample, float], histogram: str) -> "Times":
        """Take a histogram from the operator's metrics."""
        name = f"{histogram}_bucket"
        found = {dict(labels)["le"]: value for (of, labels), value in samples.items() if of == name}
        return cls({float(bound): value for bound, value in found.items()})

    def since(self, earlier: "Times") -> "Times":
        """Keep what came after an earlier reading."""
        return Times({bound: count - earlier.buckets.get(bound, 0.0) for bound, count in self.buckets.items()})

    def and_also(self, others: "Times") -> "Times":
        """Take what another process tells of the same with it."""
        bounds = {**self.buckets, **others.buckets}
        return Times({bound: self.buckets.get(bound, 0.0) + others.buckets.get(bound, 0.0) for bound in bounds})

    @property
    def count(self) -> float:
        """How many."""
        return max(self.buckets.values(), default=0.0)

    def bound(self, share: float) -> float:
        """Seconds than which this share of them took no longer: the upper bound of a bucket."""
        enough = [bound for bound, count in sorted(self.buckets.items()) if count >= share * self.count > 0]
        return enough[0] if enough else float("inf")


def quantile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that this share of the values does not exceed."""
    ordered: Sequence[float] = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def machine() -> dict[str, str | int | float]:
    """Describe this machine and the moment, without its name."""
    info = Path("/proc/cpuinfo").read_text()
    memory = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) * 1024 / 1e9
    model = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }
