"""What a process finds around it is read in one place, and nowhere else."""

import asyncio

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
    one, other = (Surroundings(SystemClock(), Chance(3), "pod", Iterations(lambda: 0.0, lambda: 0.0)) for _ in range(2))
    assert one.unique_name() == other.unique_name()
    assert one.unique_name().startswith("pod_")


@pytest.mark.parametrize("loop", ["the operator's", "a watch's"])
def test_both_loops_wait_for_what_comes_together(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = list[float]()
    monkeypatch.setattr("select.select", lambda *waits: pauses.append(waits[-1]))
    surroundings = Surroundings.of_this_process()
    factory = surroundings.iterations.loop if loop == "the operator's" else surroundings.watch_loop

    async def wait() -> None:
        async with asyncio.timeout(30):
            while not pauses:  # a thread that has ended before the loop waits does not wake it
                await asyncio.to_thread(lambda: None)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(wait())
    assert 0 < max(pauses) <= 0.01
