"""Progress reads well in a terminal and in a log."""

import io

import pytest

from tests.support.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(stream: io.StringIO, *, expected: float | None, seconds: int, failed: bool = False) -> str:
    """Tick every half second for `seconds`, then end; return what was shown."""
    clock = Clock()
    progress = Progress("building etcd", expected, stream=stream, clock=clock)
    while clock.now < seconds:
        progress.tick()
        clock.now += 0.5
    (progress.failed if failed else progress.done)()
    return stream.getvalue()


def test_a_terminal_shows_one_line_that_moves_each_second() -> None:
    shown = run(Terminal(), expected=75, seconds=4)
    assert shown == "".join(
        f"\r\x1b[K  building etcd: {line}"
        for line in ("0:01 of about 1:15", "0:02 of about 1:15", "0:03 of about 1:15", "done in 0:04\n")
    )


@pytest.mark.parametrize(
    ("expected", "failed", "lines"),
    [
        (75, False, ["0:01 of about 1:15", "0:16 of about 1:15", "0:31 of about 1:15", "done in 0:40"]),
        (
            20,
            False,
            ["0:01 of about 0:20", "0:16 of about 0:20", "0:31 of about 0:20 on an idle machine", "done in 0:40"],
        ),
        (None, False, ["0:01", "0:16", "0:31", "done in 0:40"]),
        (75, True, ["0:01 of about 1:15", "0:16 of about 1:15", "0:31 of about 1:15", "failed after 0:40"]),
    ],
)
def test_a_log_gets_a_line_now_and_then(expected: float | None, *, failed: bool, lines: list[str]) -> None:
    shown = run(io.StringIO(), expected=expected, seconds=40, failed=failed)
    assert shown.splitlines() == [f"  building etcd: {line}" for line in lines]


def test_a_short_step_needs_no_word_unless_it_fails() -> None:
    assert run(io.StringIO(), expected=30, seconds=1) == ""
    assert run(io.StringIO(), expected=30, seconds=1, failed=True) == "  building etcd: failed after 0:01\n"
