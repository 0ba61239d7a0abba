"""A wall clock that is set while processes go by it, by libfaketime."""

from collections.abc import Mapping
from pathlib import Path

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""None where it is not installed: apt-get install faketime."""


class WallClock:
    """The wall clock of processes that are started with its environment; their other clocks are the machine's."""

    def __init__(self, file: Path) -> None:
        """It is right; `file` holds by how much it is not."""
        self._file = file
        self.set(0)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which a program goes by it."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Seconds. To read the file at each look at the clock would cost more CPU than all else that a program does.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: float) -> None:
        """Set it to so many seconds from the right time, by which programs go after a second at the latest."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.replace(self._file)
