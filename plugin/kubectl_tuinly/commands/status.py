"""`status`: the credentials as a table, as data, or live."""

import re
import threading
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

from kubectl_tuinly.commands.scope import namespace_of
from kubectl_tuinly.edges.access import Json, RefusedError
from kubectl_tuinly.edges.around import now
from kubectl_tuinly.edges.cluster import Cluster, key_of, selected, stopped
from kubectl_tuinly.edges.screen import live_rows, say, say_json, show_rows, tell
from kubectl_tuinly.outcome import Exit, StopError
from kubectl_tuinly.rules.view import Row, rows_of

_TICK: Final = 1.0  # seconds; what is left of a life is shown anew
_AGAIN: Final = 2.0  # seconds after a watch that broke


def run(options: Namespace, cluster: Cluster) -> Exit:
    """Show credentials."""
    namespace = namespace_of(options, cluster)
    if options.watch and options.output in {"json", "yaml"}:
        raise StopError(Exit.WRONG_USE, "--watch shows a table, so it takes no -o json or yaml")
    shown = {"namespaces": options.all_namespaces, "wide": options.output == "wide"}
    found = selected(cluster, options.names, namespace, options.selector)
    if options.watch:
        _watch(options, cluster, namespace, shown)
    rows = rows_of(found, now())
    if options.output in {"json", "yaml"}:
        _show_data(rows, options.output)
    elif rows:
        show_rows(rows, **shown)
    else:
        tell(
            "no TuinlyCredentials"
            + (f" in the namespace {namespace}; -A looks in all" if namespace else " in this cluster")
        )
    return Exit.READY if all(row.is_ready for row in rows) else Exit.NOT_READY


def _show_data(rows: Sequence[Row], kind: str) -> None:
    data = {"items": [row.as_data() for row in rows]}
    if kind == "json":
        say_json(data)
        return
    from kubectl_tuinly.edges.yaml_text import written  # noqa: PLC0415 -- only where YAML is asked for

    say(written(data))


class _Latest:
    """What was seen last, handed from the thread that follows to the one that shows: what came before is dropped."""

    def __init__(self) -> None:
        self._news = threading.Event()
        self._there: dict[str, Json] = {}
        self._blind_since: float | None = None  # since when nobody can tell what has changed

    def put(self, there: dict[str, Json]) -> None:
        """Show this from now on."""
        self._there, self._blind_since = there, None
        self._news.set()

    def stand_still(self) -> None:
        """Show what was seen last as of now, until there is something new: nobody knows what becomes of it."""
        if self._blind_since is None:
            self._blind_since = now()

    def rows(self, timeout: float) -> list[Row]:
        """Wait for news for so many seconds at most; return what is to be shown then."""
        self._news.wait(timeout)
        self._news.clear()
        blind_since = self._blind_since
        return rows_of(self._there.values(), now() if blind_since is None else blind_since)


def _watch(options: Namespace, cluster: Cluster, namespace: str | None, shown: dict[str, bool]) -> NoReturn:
    """Show what changes, until the user has seen enough."""
    latest = _Latest()
    threading.Thread(target=_follow, args=(options, cluster, namespace, latest), daemon=True).start()
    with live_rows(**shown) as show:
        while True:
            show(latest.rows(_TICK))


def _follow(options: Namespace, cluster: Cluster, namespace: str | None, latest: _Latest) -> NoReturn:
    """Tell of all that is there, and again each time that something has changed.

    The first look has worked, so what fails now may pass, such as a restart of the API server: it is told once.
    """
    pause, told = threading.Event(), ""
    while True:
        try:
            for changes, there in enumerate(_seen(options, cluster, namespace)):
                latest.put(there)
                told = "" if changes else told  # a list that works does not say that the watch does
            told = ""
        except (RefusedError, StopError) as failure:
            latest.stand_still()
            stop = stopped(failure) if isinstance(failure, RefusedError) else failure
            kind = re.sub(r"\d+", "", str(stop))  # without ports
            if kind != told:
                told = kind
                tell(f"{stop}; trying again, and showing what was seen last")
        pause.wait(_AGAIN)


def _seen(options: Namespace, cluster: Cluster, namespace: str | None) -> Iterator[dict[str, Json]]:
    """All that is there, and again after each change, for as long as a watch lasts. Raises RefusedError, StopError."""
    there = {str(key_of(each)): each for each in selected(cluster, options.names, namespace, options.selector)}
    yield dict(there)
    for event in cluster.watch_credentials(namespace, options.selector):
        if event["type"] not in {"ADDED", "MODIFIED", "DELETED"}:
            return  # too old, or an error: all is listed anew
        if options.names and event["object"]["metadata"]["name"] not in options.names:
            continue
        key = str(key_of(event["object"]))
        if event["type"] == "DELETED":
            there.pop(key, None)
        else:
            there[key] = event["object"]
        yield dict(there)
