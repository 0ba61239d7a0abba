"""The whole operator in a simulated world (docs/reliability.md), and the simulation itself.

The same seed is the same history, what is broken is found, and a failure becomes a short one.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulation.__main__ import failed, seeds_of
from tests.simulation.defects import planted
from tests.simulation.faults import KINDS, Fault
from tests.simulation.history import History, Result, play
from tests.simulation.shrink import shortest

SEED = 3


def trace(seed: int, hash_seed: str, path: Path) -> bytes:
    """The trace of a history, played in a process of its own."""
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed), "--trace", str(path)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=100)  # noqa: S603 -- ours
    return path.read_bytes()


def test_a_seed_is_a_history_to_the_byte_in_any_process(tmp_path: Path) -> None:
    """Whatever Python hashes texts to, and wherever objects lie in memory."""
    one, other = trace(SEED, "1", tmp_path / "one"), trace(SEED, "2", tmp_path / "other")
    assert one.count(b"\n") > 1000
    assert one == other
    assert one.decode() == "\n".join(play(SEED, traced=True).trace) + "\n"


@pytest.mark.rule("WAIT-1")
def test_without_faults_all_is_well_and_nothing_moves() -> None:
    result = play(SEED, [])
    assert not result.broken
    assert result.refreshes


@pytest.mark.rule("WAIT-1")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_of_fault_strikes_and_ends(kind: str) -> None:
    fault = Fault(0, 30.0, kind, "", 10.0, 0.5, 0.4)
    result = play(1, [fault], calm=0.0)
    assert result.struck == {kind: 1}
    assert not result.broken


@pytest.mark.parametrize(("seed", "faults"), failed())
def test_what_once_failed_is_well(seed: int, faults: list[Fault]) -> None:
    assert not play(seed, faults).broken


@pytest.mark.rule("WAIT-1")
@pytest.mark.timeout(600)
def test_new_histories_are_well() -> None:
    """Sixty seconds of CPU of them, others with each commit."""
    end = time.process_time() + 60.0
    for seed in seeds_of(commit()):
        assert not play(seed).broken, f"make simulate SEED={seed}"
        if time.process_time() > end:
            break


def commit() -> str:
    """What this checkout is of, the same text where it is none."""
    told = subprocess.run(["git", "rev-parse", "HEAD"], check=False, capture_output=True, text=True)  # noqa: S607 -- git
    return told.stdout.strip()


@pytest.mark.parametrize(
    ("defect", "seed", "kind", "arg", "rule"),
    [
        (
            "a leader takes the Lease back, whoever has it",
            1,
            "spoil_lease",
            0.3,
            "takes a Lease that nobody-knows held",
        ),
        ("a new leader goes by what it remembers", 2, "spoil_lease", 0.3, "sends a refresh token of an earlier lead"),
        ("the watch resumes one version too late", 1, "unseen", 0.1, "the target holds no token"),
        ("a watch that lost its place goes on", 1, "unseen", 0.1, "the target holds no token"),
        ("what is missing in a list stays", 1, "unseen", 0.1, "the target holds no token"),
        ("a Secret that goes is not noticed", 1, "delete_target", 0.1, "the target holds no token"),
        ("any answer is better", 1, "shorter", 0.1, "has a token that ends"),
        ("a rotated client Secret is not noticed", 1, "rotate", 0.1, "for another client secret than the present one"),
        ("a written token is forgotten", 1, "edit_target", 0.1, "between faults"),
        ("a new leader believes its watch", 2, "late_takeover", 0.1, "was written for another"),
        ("what a deletion leaves to itself gets its owner back", 3, "orphan", 0.1, "has an owner again"),
    ],
)
def test_a_planted_defect_is_found_by_what_shows_it(defect: str, seed: int, kind: str, arg: float, rule: str) -> None:
    """By one kind of fault alone; without the defect the same history is well."""
    seconds = 700.0 if kind == "shorter" else 5.0
    faults = [Fault(n, 60.0 + 150 * n, kind, "", seconds, (0.3 + 0.17 * n) % 1, arg) for n in range(5)]
    assert not play(seed, faults).broken
    with planted(defect):
        assert rule in play(seed, faults).broken


def test_what_goes_wrong_is_told_and_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a crash were forbidden, but only after a Lease was deleted."""
    deleted: list[int] = []
    crash = History.crash

    def forbidden(history: History, replica: object) -> None:
        crash(history, replica)  # type: ignore[arg-type]  # a replica
        if history.audit.faults.struck.get("delete_lease"):
            deleted.append(history.seed)
            history.audit.broken("a replica crashed")

    monkeypatch.setattr(History, "crash", forbidden)
    kinds = ["rotate", "delete_lease", "force", "watch_cut", "crash", "force", "crash"]
    faults = [Fault(n, 20.0 + 10 * n, kind, "", 1.0, 0.5, 0.5) for n, kind in enumerate(kinds)]
    result = play(1, faults)
    assert "a replica crashed" in result.broken
    told: list[str] = []
    kept, broken = shortest(Result(1, faults, broken=result.broken), tell=told.append)
    assert told[0] == "try 1: 4 of 7 faults"
    assert [fault.kind for fault in kept] == ["delete_lease", "crash"]
    assert "a replica crashed" in broken


def test_what_is_not_short_in_time_is_told_as_it_is() -> None:
    told: list[str] = []
    faults = [Fault(n, 20.0, "force", "", 1.0, 0.5, 0.5) for n in range(4)]
    assert shortest(Result(1, faults, broken="something"), seconds=0.0, tell=told.append) == (faults, "something")
    assert told == ["no shorter one within 0 s"]
