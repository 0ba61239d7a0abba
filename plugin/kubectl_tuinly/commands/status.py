"""`status`: the credentials as a table, as data, or live."""

import queue
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
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


def _watch(options: Namespace, cluster: Cluster, namespace: str | None, shown: dict[str, bool]) -> NoReturn:
    """Show what changes, until the user has seen enough."""
    news: queue.SimpleQueue[dict[str, Json]] = queue.SimpleQueue()
    threading.Thread(target=_follow, args=(options, cluster, namespace, news.put), daemon=True).start()
    there: dict[str, Json] = {}
    with live_rows(**shown) as show:
        while True:
            with suppress(queue.Empty):
                there = news.get(timeout=_TICK)
            show(rows_of(there.values(), now()))


def _follow(
    options: Namespace, cluster: Cluster, namespace: str | None, put: Callable[[dict[str, Json]], None]
) -> NoReturn:
    """Tell of all that is there, and again each time that something has changed.

    The first look has worked, so what fails now may pass, such as a restart of the API server: it is told once.
    """
    pause, told = threading.Event(), ""
    while True:
        try:
            for there in _seen(options, cluster, namespace):
                put(there)
                told = ""
        except (RefusedError, StopError) as failure:
            stop = stopped(failure) if isinstance(failure, RefusedError) else failure
            if str(stop) != told:
                told = str(stop)
                tell(f"{stop}; trying again")
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
