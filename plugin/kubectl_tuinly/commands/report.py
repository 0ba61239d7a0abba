"""`report`: what support needs to see, in a zip file, and nothing that a Secret holds."""

import json
import zipfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kubectl_tuinly import VERSION
from kubectl_tuinly.commands.check import findings
from kubectl_tuinly.commands.evidence import chain, seen
from kubectl_tuinly.commands.scope import one_namespace
from kubectl_tuinly.edges.access import Json
from kubectl_tuinly.edges.around import now
from kubectl_tuinly.edges.cluster import Cluster, key_of, selected
from kubectl_tuinly.edges.screen import say, steps_text, tell
from kubectl_tuinly.outcome import Exit, StopError
from kubectl_tuinly.rules import redacted
from kubectl_tuinly.rules.installation import installation_of
from kubectl_tuinly.rules.steps import Unseen
from tuinly_operator.base.clock import rfc3339
from tuinly_operator.base.names import NamespacedName


class _Report:
    """The file while it is written, and what is missing in it."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.missing: list[str] = []

    def add(self, name: str, content: object) -> None:
        """Add a text, or JSON; of what could not be seen, a line among what is missing."""
        if isinstance(content, Unseen):
            self.missing.append(f"{name}: {content.why}")
            return
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        self._archive.writestr(name, redacted.text(text) + "\n")


def run(options: Namespace, cluster: Cluster) -> Exit:
    """Write the file; UNCHECKED where something could not be read, which the file lists."""
    namespace = one_namespace(options, cluster)
    found = selected(cluster, [options.name] if options.name else [], namespace, "")
    path = Path(options.filename)
    try:
        # Not over a file that is there; for its owner alone, since names are nobody else's business.
        path.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise StopError(Exit.WRONG_USE, f"{path} cannot be made: {error.strerror}") from None
    try:
        missing = _write(path, options, cluster, found)
    except BaseException:
        path.unlink()  # half a report tells half the truth
        raise
    say(f"{path}: {len(found)} credentials; look into it before you give it away")
    for line in missing:
        tell(f"not read: {line}")
    return Exit.UNCHECKED if missing else Exit.READY


def _write(path: Path, options: Namespace, cluster: Cluster, found: Sequence[Json]) -> Sequence[str]:
    """Write all of it, and return what is missing."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        report = _Report(archive)
        report.add("about.txt", f"kubectl tuinly {VERSION}, {rfc3339(now())}")
        for raw in found:
            _credential(report, cluster, raw, options.operator_namespace)
        _installation(report, cluster, options.operator_namespace, logs=options.logs)
        report.add("missing.txt", "\n".join(report.missing) or "nothing")
    return report.missing


def _credential(report: _Report, cluster: Cluster, raw: Json, operator_namespace: str | None) -> None:
    key = key_of(raw)
    folder = f"credentials/{key.name}"
    report.add(f"{folder}/credential.json", redacted.credential(raw))
    report.add(f"{folder}/events.json", _each(seen(lambda: cluster.events(key)), redacted.other))
    report.add(f"{folder}/why.txt", steps_text(chain(cluster, raw, operator_namespace)))


def _installation(report: _Report, cluster: Cluster, namespace: str | None, *, logs: bool) -> None:
    report.add("check.txt", steps_text(list(findings(cluster, namespace))))
    deployments = seen(lambda: cluster.deployments(namespace))
    report.add("operator/deployments.json", _each(deployments, redacted.deployment))
    for raw in [] if isinstance(deployments, Unseen) else deployments:
        one = installation_of(raw)
        if one is None:
            continue
        folder = f"operator/{one.key.namespace}.{one.key.name}"
        if one.lease is not None:
            report.add(f"{folder}/lease.json", seen(partial(_lease, cluster, one.lease)))
        if logs:
            _logs(report, cluster, one.key.namespace, ",".join(f"{k}={v}" for k, v in one.replicas.items()), folder)


def _lease(cluster: Cluster, key: NamespacedName) -> Json | None:
    found = cluster.lease(key)
    return None if found is None else redacted.other(found)


def _logs(report: _Report, cluster: Cluster, namespace: str, selector: str, folder: str) -> None:
    pods = seen(lambda: [pod["metadata"]["name"] for pod in cluster.replicas(namespace, selector)])
    if isinstance(pods, Unseen):
        report.add(f"{folder}/logs", pods)
        return
    for name in pods:
        report.add(f"{folder}/logs/{name}.log", seen(partial(cluster.log, namespace, name)))


def _each(found: Sequence[Json] | Unseen, redact: Callable[[Json], dict[str, Any]]) -> object:
    return found if isinstance(found, Unseen) else [redact(raw) for raw in found]
