"""Which containers use a Secret, how, and whether they see its present content."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from tuinly_operator.base.clock import noted_time
from tuinly_operator.domain.push import CATCH_UP_SECONDS, PUSHED, living_containers, mounted, variables

_OVER: Final = frozenset({"Succeeded", "Failed"})


class How(StrEnum):
    """How a container has a Secret; all but a directory keep what there was when it started."""

    DIRECTORY = "directory"
    SUBPATH = "subPath"
    VARIABLE = "environment variable"


class Sees(StrEnum):
    """What a container sees of the present token."""

    IT = "it"
    SOON = "soon"
    FOR_NOW = "for now"  # and never the next one
    OLD = "old"
    UNSTARTED = "unstarted"


class Use(NamedTuple):
    """A container that has a Secret. `started` is in seconds since the epoch, None where it does not run."""

    pod: str
    container: str
    how: How
    started: float | None
    told_of: str  # the version of the Secret that a push told its Pod of; empty for none

    def sees(self, written: float, version: str, now: float) -> Sees:
        """Whether it sees what was written then, which gave the Secret that version."""
        if self.started is None:
            return Sees.UNSTARTED
        if self.how is not How.DIRECTORY:
            return Sees.OLD if self.started < int(written) else Sees.FOR_NOW
        late = self.started < written and self.told_of != version
        return Sees.SOON if late and now < written + CATCH_UP_SECONDS else Sees.IT


def uses_of(raw: Mapping[str, Any], secret: str) -> Iterator[Use]:
    """The containers of a Pod that use a Secret, each way once; none of a Pod that has ended."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    if status.get("phase") in _OVER:
        return
    told = (meta.get("annotations") or {}).get(PUSHED) or ""
    volumes = {volume["name"] for volume in spec.get("volumes") or () if secret in mounted(volume)}
    started = {
        name: time
        for kind in ("container", "initContainer", "ephemeralContainer")
        for name, time in _started(status, kind)
    }
    for container in living_containers(spec, status):
        name = container["name"]
        for how in sorted(_ways(container, secret, volumes)):
            yield Use(meta["name"], name, how, started.get(name), told)


def _ways(container: Mapping[str, Any], secret: str, volumes: set[str]) -> set[How]:
    mounts = [mount for mount in container.get("volumeMounts") or () if mount["name"] in volumes]
    ways = {How.SUBPATH if mount.get("subPath") or mount.get("subPathExpr") else How.DIRECTORY for mount in mounts}
    return ways | ({How.VARIABLE} if secret in variables(container) else set())


def _started(status: Mapping[str, Any], kind: str) -> Iterator[tuple[str, float]]:
    for told in status.get(f"{kind}Statuses") or ():
        running = (told.get("state") or {}).get("running") or {}
        if running.get("startedAt"):
            yield told["name"], noted_time(running["startedAt"])
