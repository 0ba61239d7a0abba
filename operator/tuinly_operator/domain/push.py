"""Pushes: which Pods are told of a new token, which cannot be, what an answer means, and what users are told of it.

A mounted Secret reaches a Pod when the kubelet next looks at the Pod, which takes up to about 90 seconds. A Pod that
changes is looked at at once: a push is such a change, of one annotation. (docs/decisions/0024-push-by-an-annotation.md)
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from tuinly_operator.base.clock import Deadline, Moment, noted_time
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import GROUP
from tuinly_operator.domain.errors import Reason

PUSHED: Final = f"{GROUP}/pushed"  # the annotation: the resourceVersion of the target that a Pod was last told of
PUSH_SECONDS: Final = 60.0  # after the write; who was not told by then is left to the kubelet
CATCH_UP_SECONDS: Final = 90.0  # after the write; by then the kubelet has shown it to all
_MIRROR: Final = "kubernetes.io/config.mirror"
_FINISHED: Final = frozenset({"Succeeded", "Failed"})
_MOST_NAMED: Final = 3
_LONGEST_VERSION: Final = 20  # digits of the largest resourceVersion, an unsigned number of 64 bits
_OTHER: Final = "other"  # kept in place of an annotation that is no resourceVersion

SCHEDULED: Final = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
"""The field selector for Pods that a kubelet has to do with."""


@dataclass(frozen=True, slots=True)
class Pod:
    """What is kept of a Pod that uses one of the Secrets that are looked for.

    `value` is that of our annotation: a resourceVersion, `other` for any other text, empty for none. `started` is when
    the kubelet began with it, in seconds since the epoch, None where it has not. `shows` are the Secrets of which it is
    shown new content, `keeps` those that a container has by an environment variable or a `subPath`, as they were when
    it started.
    """

    name: str
    uid: str
    value: str
    started: float | None
    shows: frozenset[str]
    keeps: frozenset[str]


def pod_of(raw: Mapping[str, Any], secrets: Collection[str]) -> Pod | None:
    """Read a Pod of the API; None where no kubelet shows it anything any more, or it uses none of these Secrets."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    annotations = meta.get("annotations") or {}
    over = status.get("phase") in _FINISHED or meta.get("deletionTimestamp") is not None
    if not spec.get("nodeName") or over or _MIRROR in annotations:
        return None
    containers = tuple(living_containers(spec, status))
    mounts: dict[str, list[bool]] = defaultdict(list)  # by volume: of each of its mounts, whether it is a subPath
    for mount in (mount for container in containers for mount in container.get("volumeMounts") or ()):
        mounts[mount["name"]].append(bool(mount.get("subPath") or mount.get("subPathExpr")))
    shows: set[str] = set()
    keeps = {name for container in containers for name in variables(container)}
    for volume in spec.get("volumes") or ():
        found, how = set(mounted(volume)), mounts[volume["name"]]
        keeps |= found if any(how) else set()
        shows |= set() if how and all(how) else found
    shows, keeps = shows.intersection(secrets), keeps.intersection(secrets)
    if not shows and not keeps:
        return None
    started, value = status.get("startTime"), annotations.get(PUSHED) or ""
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        value=_version_in(value),
        started=noted_time(started) if started else None,
        shows=frozenset(shows),
        keeps=frozenset(keeps),
    )


def _version_in(value: str) -> str:
    """The annotation's value as far as it can equal a resourceVersion; the rest is a tenant's text of any size."""
    if not value or (len(value) <= _LONGEST_VERSION and value.isascii() and value.isdigit()):
        return value
    return _OTHER


def living_containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The containers of all three kinds that run, as far as is known.

    A container that has yet to start, or to start again, will have what is there then. One that has ended has nothing.
    """
    for kind in ("container", "initContainer", "ephemeralContainer"):
        states = {told["name"]: told.get("state") or {} for told in status.get(f"{kind}Statuses") or ()}
        for container in spec.get(f"{kind}s") or ():
            state = states.get(container["name"])
            if not state or "running" in state:
                yield container


def variables(container: Mapping[str, Any]) -> Iterator[str]:
    """The Secrets of which a container has environment variables."""
    for variable in container.get("env") or ():
        yield from _named(variable.get("valueFrom") or {}, "secretKeyRef", "name")
    for source in container.get("envFrom") or ():
        yield from _named(source, "secretRef", "name")


def mounted(volume: Mapping[str, Any]) -> Iterator[str]:
    """The Secrets in a volume."""
    yield from _named(volume, "secret", "secretName")
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield from _named(source, "secret", "name")


def _named(source: Mapping[str, Any], kind: str, key: str) -> Iterator[str]:
    """The Secret that a source names, if it is of this kind and names one."""
    if name := (source.get(kind) or {}).get(key):
        yield name


# --- What is pushed ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Content:
    """New content of a target: the version that its write gave, and when that was.

    Where it is not `ours`, only the target tells of it: whoever wrote it may have told some Pods already, or all.
    """

    version: str
    at: Moment
    ours: bool

    @property
    def until(self) -> Deadline:
        """Until when Pods are told of it."""
        return Deadline.after(PUSH_SECONDS if self.ours else CATCH_UP_SECONDS, self.at)


@dataclass(frozen=True, slots=True)
class Push:
    """The content that the Pods of one target are to be told of."""

    key: NamespacedName
    uid: str
    target: NamespacedName
    content: Content


class Users(NamedTuple):
    """The Pods that use a target: whom to tell, how many know already, and the names of those who need a restart."""

    tell: Sequence[Pod]
    know: int
    beyond: Sequence[str]


def users_of(push: Push, pods: Iterable[Pod]) -> Users:
    """Sort out what a push means to Pods that use Secrets."""
    name, content = push.target.name, push.content
    users = [pod for pod in pods if name in pod.shows or name in pod.keeps]
    shown = [pod for pod in users if name in pod.shows]
    tell = [pod for pod in shown if pod.value != content.version]
    know = len(shown) - len(tell)
    if not content.ours:
        tell = [pod for pod in tell if _began_by(pod, content.at.wall)]
    return Users(tell, know, sorted(pod.name for pod in users if name in pod.keeps))


def _began_by(pod: Pod, time: float) -> bool:
    return pod.started is not None and pod.started <= time


class Outcome(Enum):
    """What the API server's answer to a request about a Pod means."""

    DONE = auto()
    GONE = auto()
    AGAIN = auto()  # later
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `retry_after` is in seconds, `why` is for people."""

    outcome: Outcome
    why: str = ""
    retry_after: float = 0.0


def outcome_of(status: int | None, *, other_uid: bool) -> Outcome:
    """What a failed request means, by its HTTP status, None for no answer; `other_uid` says that it is another Pod."""
    if status == HTTPStatus.NOT_FOUND or other_uid:
        return Outcome.GONE
    passing = (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
    if status is None or status in passing or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome.AGAIN
    return Outcome.REFUSED


# --- What came of it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of a push: how many Pods know of it by their annotation, and how many were not told in time.

    `beyond` is how many Pods need a restart to see new content, and `names` are the first of them. `unlisted` says that
    nobody knows which Pods there are, as they could not be listed in time; `refused` why Pods may not be told, empty if
    they may.
    """

    told: int = 0
    late: int = 0
    beyond: int = 0
    names: tuple[str, ...] = ()
    unlisted: bool = False
    refused: str = ""


def delivery(told: int, late: int, beyond: Sequence[str], *, unlisted: bool, refused: str) -> Delivery:
    """Sum up a push."""
    return Delivery(told, late, len(beyond), tuple(beyond[:_MOST_NAMED]), unlisted, refused)


def delivered(came: Delivery) -> tuple[str, Reason, str]:
    """Status, reason and message of the condition `Delivered`. `story` leaves out the numbers before its semicolon."""
    told = f"Pods that were told of the present token: {came.told}"
    if came.late:
        told += f", not in time: {came.late}"
    more = "".join(f"; {text}" for text in (came.refused, _beyond(came), _late(came)) if text)
    if came.refused:
        return "False", Reason.PUSH_REFUSED, told + more
    if more:
        return "False", Reason.PUSH_INCOMPLETE, told + more
    return "True", Reason.PUSHED, told


def _beyond(came: Delivery) -> str:
    if not came.beyond:
        return ""
    names = ", ".join(came.names) + (" and others" if came.beyond > len(came.names) else "")
    return (
        "Pods that do not see it, since they use the Secret by an environment variable or a subPath: "
        f"{came.beyond} ({names}); restart them"
    )


def _late(came: Delivery) -> str:
    if came.unlisted:
        return "the Pods could not be listed in time; they see it within about 90 seconds"
    return "those not in time see it within about 90 seconds" if came.late else ""


def story(message: str) -> str:
    """A message without its mere numbers."""
    return message.partition(";")[2]
