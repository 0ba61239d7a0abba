"""What tells a process from a later one that got the same number."""

import subprocess
from pathlib import Path


def identity(pid: int) -> str | None:
    """Return a text that no other process of this machine ever has; None if the process is gone, or only a zombie."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        try:
            # The second field, the program's name, may hold anything; it ends with the last parenthesis. After it the
            # state is the first field and the start, in clock ticks since boot, the twentieth (proc(5)).
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else f"{boot.read_text().strip()} {fields[19]}"
    ps = ["ps", "-o", "state=", "-o", "lstart=", "-p", str(pid)]
    answer = subprocess.run(ps, capture_output=True, text=True, check=False).stdout  # noqa: S603 - constant but for a number
    state, _, started = answer.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None
