"""What a process finds around it is read in one place, and nowhere else."""

import pytest

from tuinly_operator.base.chance import Chance
from tuinly_operator.base.clock import SystemClock
from tuinly_operator.base.iterations import Iterations
from tuinly_operator.base.surroundings import Surroundings


def test_the_host_is_the_pod_where_it_is_named_and_else_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "tuinly-operator-0")
    monkeypatch.setattr("socket.gethostname", lambda: "machine")
    assert Surroundings.of_this_process().host == "tuinly-operator-0"
    monkeypatch.delenv("HOSTNAME")
    assert Surroundings.of_this_process().host == "machine"


def test_no_two_processes_have_one_name_though_they_have_one_host() -> None:
    names = {Surroundings.of_this_process().unique_name() for _ in range(100)}
    assert len(names) == 100
    assert all(len(name.rpartition("_")[2]) == 8 for name in names)


def test_the_same_chance_gives_the_same_name() -> None:
    one, other = (Surroundings(SystemClock(), Chance(3), "pod", Iterations(lambda: 0.0)) for _ in range(2))
    assert one.unique_name() == other.unique_name()
    assert one.unique_name().startswith("pod_")
