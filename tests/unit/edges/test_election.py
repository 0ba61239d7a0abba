"""The election in simulated time: replicas over one Lease, with delays, losses, pauses, and edits by hand."""

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Concatenate, Final, ParamSpec, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.virtual_time import VirtualLoop
from tuinly_operator.base.chance import Chance
from tuinly_operator.base.clock import Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.settings import parse_settings
from tuinly_operator.edges.election import ASKING_SECONDS, RELEASE_SECONDS, Election
from tuinly_operator.edges.kube import ApiFailure, Kube, Lease
from tuinly_operator.engine.leadership import Leadership

KEY = NamespacedName("tuinly-system", "tuinly-operator")
LEASE_SECONDS: Final = 15.0
GIVE_UP_SECONDS: Final = 10.0
RENEWAL: Final = 3.0
"""Seconds from one renewal of the Lease to the next, at most."""
LOOK: Final = 2.0
"""Seconds between two looks at the Lease of one that does not lead, at most."""
MOST: Final = 2**31 - 1
"""That duration and transitions may be: the API server takes no more."""
LEASE_LIMIT: Final = 4.0
"""Seconds after which a request for a Lease is given up."""
SLACK: Final = 0.01
"""Seconds; requests without a fault take none."""


@dataclass
class Server:
    """The API server, as far as one Lease goes."""

    lease: Lease | None = None
    version: int = 0

    def write(self, lease: Lease) -> Lease:
        """Take a Lease on its preconditions, as the real one does (tests/api/test_lease.py).

        Where there is none it is made, whatever the version: only a uid is a condition then.
        """
        if self.lease is None:
            fits = not lease.uid
        else:
            fits = lease.version == self.lease.version and lease.uid in ("", self.lease.uid)
        if not fits:
            raise ApiFailure(HTTPStatus.CONFLICT, "Conflict")
        if not (0 < lease.seconds <= MOST and 0 <= lease.transitions <= MOST):
            raise ApiFailure(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid")
        return self._store(lease, ours=True)

    def edit(self, lease: Lease) -> Lease:
        """Take a Lease whatever was there, as somebody else than an operator writes it."""
        return self._store(lease, ours=False)

    def _store(self, lease: Lease, *, ours: bool) -> Lease:
        """Store a Lease. Who sets the duration to what it is has not set it."""
        if self.lease is not None and self.lease.seconds == lease.seconds:
            ours = self.lease.ours
        self.version += 1
        uid = self.lease.uid if self.lease else f"uid-{self.version}"
        self.lease = replace(lease, version=str(self.version), uid=uid, ours=ours)
        return self.lease


@dataclass(frozen=True)
class Call:
    """What befalls a request: seconds until it arrives, if it does, and until the answer is back, if there is one.

    A pause of the whole process is one of these, as long as it lasts: nothing else happens in it meanwhile.
    """

    before: float = 0.0
    arrives: bool = True
    after: float = 0.0
    answered: bool = True


QUICK = Call()
FAILING = Call(arrives=False, answered=False)


class Replica:
    """One process: an election, and a clock of its own."""

    def __init__(self, world: "World", name: str) -> None:
        """A clock that is a million seconds ahead of the one before."""
        self.name = name
        self.calls: list[Call] = []
        self.offset = 1e6 * len(world.replicas)
        self.wall = 0.0
        self.refusal: ApiFailure | None = None
        self.unfit = ""
        self.told: list[str] = []
        self._world = world
        self.leadership = Leadership(self)
        self.election = Election(
            cast("Kube", self),
            KEY,
            name,
            self,
            self.leadership,
            chance=Chance(1),
            unfit=lambda: self.unfit,
            promoted=lambda again: self._tell("promoted again" if again else "promoted"),
            demoted=lambda: self._tell("demoted"),
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def leads(self) -> bool:
        return self.alive and self.leadership.holds()

    def start(self) -> None:
        self._task = asyncio.create_task(self.election.run())

    async def kill(self) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def stop(self) -> None:
        await self.kill()
        await self.election.release()

    def now(self) -> Moment:
        """Read the clocks. Nobody else's are the same."""
        return Moment(self.wall, self._world.loop.time() + self.offset)

    async def read_lease(self, _: NamespacedName) -> Lease | None:
        return await self._call(lambda: self._world.server.lease)

    async def write_lease(self, _: NamespacedName, lease: Lease, *, at: float) -> Lease:  # noqa: ARG002 -- the same
        written = await self._call(lambda: self._world.server.write(lease))
        assert written is not None
        return written

    async def _call(self, do: Callable[[], Lease | None]) -> Lease | None:
        call = self.calls.pop(0) if self.calls else QUICK
        await asyncio.sleep(call.before)
        if self.refusal:
            raise self.refusal
        answer: Lease | ApiFailure | None = None
        try:
            answer = do() if call.arrives else None
        except ApiFailure as failure:
            answer = failure
        self._world.check()
        await asyncio.sleep(call.after)
        if not (call.arrives and call.answered):
            raise ApiFailure(None, "TimeoutError")
        if isinstance(answer, ApiFailure):
            raise answer
        return answer

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if what == "promoted again" and self._world.last_promoted is not self:
            self._world.violations.append(f"{self.name} leads again, but another led at {self._world.loop.now}")
        if what != "demoted":
            self._world.last_promoted = self
        self._world.check()


@dataclass
class World:
    """Replicas of one operator."""

    loop: VirtualLoop
    server: Server = field(default_factory=Server)
    replicas: list[Replica] = field(default_factory=list)
    last_promoted: Replica | None = None
    violations: list[str] = field(default_factory=list)

    def start(self, name: str) -> Replica:
        """Start one more."""
        replica = Replica(self, name)
        self.replicas.append(replica)
        replica.start()
        return replica

    def check(self) -> None:
        """The one thing that must never be: two that lead."""
        leaders = [replica.name for replica in self.replicas if replica.leads]
        if len(leaders) > 1:
            self.violations.append(f"{leaders} lead at {self.loop.now}")

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and look all the while."""
        end = self.loop.now + seconds
        while self.loop.now < end:
            await asyncio.sleep(min(0.2, end - self.loop.now))
            self.check()
            assert self.violations == []

    async def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> float:
        """Return after how many seconds a condition held."""
        begin = self.loop.now
        while not condition():
            assert self.loop.now - begin < seconds
            await self.pass_time(SLACK)
        return self.loop.now - begin

    async def happen(self, what: str) -> None:
        """Do to the Lease, or to some replica, what is named."""
        alive = [replica for replica in self.replicas if replica.alive]
        match what:
            case "start":
                self.start(str(len(self.replicas)))
            case "kill" | "stop" if len(alive) > 1:
                await (alive[0].kill() if what == "kill" else alive[0].stop())
            case "deleted":
                self.server.lease = None
            case _ if what in EDITS and self.server.lease is not None:
                self.server.edit(EDITS[what](self.server.lease))

    async def release(self) -> None:
        """Bring the Lease into the state in which the only replica leaves it that stops."""
        leader = self.start("one")
        await self.until(lambda: leader.leads)
        await leader.stop()

    async def two(self) -> tuple[Replica, Replica]:
        """Start a leader and a standby."""
        leader = self.start("one")
        await self.until(lambda: leader.leads)
        standby = self.start("two")
        await self.pass_time(LEASE_SECONDS * 2)
        assert leader.leads
        assert (leader.told, standby.told) == (["promoted"], [])
        return leader, standby


P = ParamSpec("P")


def simulated(story: Callable[Concatenate[World, P], Awaitable[None]]) -> Callable[P, None]:
    """Make a test of a story: it is told in a world of its own, in no time."""

    async def tell(world: World, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await story(world, *args, **kwargs)
        finally:
            for replica in world.replicas:
                await replica.kill()

    @functools.wraps(story)
    def test(*args: P.args, **kwargs: P.kwargs) -> None:
        loop = VirtualLoop()
        try:
            loop.run_until_complete(tell(World(loop), *args, **kwargs))
        finally:
            loop.close()

    # The world is no fixture.
    signature = inspect.signature(story)
    vars(test)["__signature__"] = signature.replace(parameters=[*signature.parameters.values()][1:])
    return test


# --- Who leads when ---------------------------------------------------------------------------------------------------


@pytest.mark.rule("REPL-4")
@simulated
async def test_the_first_leads_once_it_has_waited_and_stays_for_as_long_as_it_lives(world: World) -> None:
    """It cannot know that it is the first: a leader's Lease may just have been deleted."""
    leader = world.start("one")
    took = await world.until(lambda: leader.leads)
    assert LEASE_SECONDS <= took <= LEASE_SECONDS + LOOK
    standby = world.start("two")
    await world.pass_time(3600)
    assert leader.leads
    assert (leader.told, standby.told) == (["promoted"], [])
    assert world.server.lease is not None
    assert (world.server.lease.holder, world.server.lease.transitions) == ("one", 0)


@simulated
async def test_of_several_that_start_at_once_one_leads(world: World) -> None:
    for name in ("one", "two", "three"):
        world.start(name)
    await world.pass_time(60)
    assert sorted(replica.leads for replica in world.replicas) == [False, False, True]


@pytest.mark.rule("REPL-2")
@simulated
async def test_a_dead_leader_is_succeeded_once_it_would_have_given_up(world: World) -> None:
    leader, standby = await world.two()
    await leader.kill()
    took = await world.until(lambda: standby.leads)
    assert LEASE_SECONDS - RENEWAL <= took <= LEASE_SECONDS + LOOK + SLACK
    assert world.server.lease is not None
    assert (world.server.lease.holder, world.server.lease.transitions) == ("two", 1)


@simulated
async def test_one_that_comes_new_counts_from_its_own_first_look(world: World) -> None:
    """It cannot know how old the Lease is: no clock is compared with another's."""
    leader, standby = await world.two()
    await leader.kill()
    await standby.kill()
    await world.pass_time(3600)
    third = world.start("three")
    assert await world.until(lambda: third.leads) >= LEASE_SECONDS


@pytest.mark.rule("REPL-19")
@simulated
async def test_a_released_lease_is_taken_at_once(world: World) -> None:
    leader, standby = await world.two()
    await leader.stop()
    assert not leader.leadership.holds()
    assert await world.until(lambda: standby.leads) <= LOOK + SLACK


@pytest.mark.rule("REPL-19")
@simulated
async def test_one_that_stops_while_it_takes_the_lease_gives_it_back(world: World) -> None:
    """Its write has arrived, its answer has not: it never knew that it leads."""
    leader, standby = await world.two()
    await leader.stop()
    standby.calls = [QUICK, Call(after=3)]
    await world.until(lambda: world.server.lease is not None and world.server.lease.holder == "two")
    assert not standby.leads
    await standby.stop()
    third = world.start("three")
    assert await world.until(lambda: third.leads) <= LOOK + SLACK


@simulated
async def test_to_give_up_the_lead_does_not_hold_up_the_end(world: World) -> None:
    leader, _ = await world.two()
    leader.calls = [Call(before=100)]
    begin = world.loop.now
    await leader.stop()
    assert world.loop.now - begin <= RELEASE_SECONDS + SLACK


@simulated
async def test_a_lead_that_cannot_be_renewed_is_noticed_to_end_at_once(world: World) -> None:
    """Until then, reconciles would be tried in vain."""
    leader, _ = await world.two()
    leader.refusal = ApiFailure(HTTPStatus.FORBIDDEN, "Forbidden")
    await world.until(lambda: not leader.leads)
    await world.pass_time(SLACK)
    assert leader.told == ["promoted", "demoted"]


@pytest.mark.rule("REPL-19")
@simulated
async def test_one_that_comes_new_takes_a_released_lease_at_its_first_look(world: World) -> None:
    """As at every restart of the only replica; an answer takes its time."""
    await world.release()
    successor = world.start("two")
    successor.calls = [Call(before=0.1, after=0.1)] * 2
    assert await world.until(lambda: successor.leads) <= 0.4 + SLACK


@simulated
async def test_a_lease_is_released_though_nobody_waited_for_the_last_renewal(world: World) -> None:
    """SIGTERM comes while a renewal is under way: the version that was known is no longer the last."""
    leader, standby = await world.two()
    writes = world.server.version
    leader.calls = [Call(after=5)]
    await world.until(lambda: world.server.version > writes)
    await leader.stop()
    assert await world.until(lambda: standby.leads) <= LOOK + SLACK


@pytest.mark.rule("REPL-19")
@simulated
async def test_a_lease_is_released_though_the_last_renewal_arrives_meanwhile(world: World) -> None:
    """It was cancelled on its way, and comes between the look at the Lease and the write that releases it."""
    leader, standby = await world.two()
    await leader.kill()
    leader.calls = [Call(after=0.2)]
    releasing = asyncio.create_task(leader.election.release())
    await asyncio.sleep(0.1)
    assert world.server.lease is not None
    world.server.write(world.server.lease)
    await releasing
    assert await world.until(lambda: standby.leads) <= LOOK + SLACK


@simulated
async def test_a_standby_that_stops_releases_nothing(world: World) -> None:
    leader, standby = await world.two()
    writes = world.server.version
    await standby.stop()
    assert world.server.version == writes
    await world.pass_time(60)
    assert leader.leads


@pytest.mark.rule("REPL-19")
@simulated
async def test_who_cannot_release_is_waited_for(world: World) -> None:
    leader, standby = await world.two()
    await leader.kill()
    leader.calls = [FAILING] * 2
    await leader.stop()
    assert not leader.leadership.holds()
    await world.until(lambda: standby.leads)


# --- How sure a leader is of its lead ---------------------------------------------------------------------------------


@pytest.mark.rule("REPL-2")
@simulated
async def test_a_leader_that_cannot_renew_gives_up_in_time_and_comes_back(world: World) -> None:
    """It counts from the start of the last good renewal, however long the answer took."""
    leader, standby = await world.two()
    leader.calls = [Call(after=3)]
    writes = world.server.version
    await world.until(lambda: world.server.version > writes)
    leader.calls += [FAILING] * 20
    standby.calls = [FAILING] * 100
    took = await world.until(lambda: not leader.leads)
    assert GIVE_UP_SECONDS - SLACK <= took <= GIVE_UP_SECONDS + SLACK
    await world.until(lambda: "demoted" in leader.told)
    assert not standby.leads
    await world.until(lambda: leader.leads)
    assert leader.told == ["promoted", "demoted", "promoted again"]


@pytest.mark.rule("REPL-11")
@simulated
async def test_a_paused_leader_knows_at_its_first_step(world: World) -> None:
    """Nothing of the election has run when it is asked."""
    leader, _ = await world.two()
    leader.offset += GIVE_UP_SECONDS
    assert not leader.leadership.holds()


@pytest.mark.rule("REPL-11")
@simulated
async def test_a_lead_that_ends_soon_is_too_short_for_a_token_request(world: World) -> None:
    """One that begins now, and takes as long as it may, must be over before another leads."""
    request = parse_settings(["run"], {}).request_timeout
    leader, _ = await world.two()
    renewals = world.server.version
    await world.until(lambda: world.server.version > renewals)
    leader.offset += LEASE_SECONDS - request - 3 * SLACK
    assert leader.leadership.holds(ASKING_SECONDS)
    leader.offset += 3 * SLACK
    assert not leader.leadership.holds(ASKING_SECONDS)
    assert leader.leadership.holds()


@pytest.mark.rule("REPL-2")
@simulated
async def test_a_leader_renews_every_three_seconds_and_one_that_stands_by_looks_every_two(world: World) -> None:
    leader, _ = await world.two()
    writes = world.server.version
    await world.pass_time(60)
    assert 60 / RENEWAL - 1 <= world.server.version - writes <= 60 / 2.7 + 1
    await leader.stop()
    assert await world.until(lambda: any(replica.leads for replica in world.replicas)) <= LOOK + SLACK


@pytest.mark.rule("REPL-2")
@simulated
@pytest.mark.parametrize("seconds", [0.0, 0.7, 1.4, 2.1, 2.8])
async def test_a_leader_outlasts_some_seconds_without_an_api_server_whenever_they_begin(
    world: World, seconds: float
) -> None:
    """It tries more often when it has failed, so that one of the tries comes between their end and that of the lead."""
    leader, standby = await world.two()
    writes = world.server.version
    await world.until(lambda: world.server.version > writes)
    await world.pass_time(seconds)
    leader.refusal = ApiFailure(None, "ConnectionRefusedError")
    await world.pass_time(8.5 - seconds)
    leader.refusal = None
    await world.pass_time(LEASE_SECONDS)
    assert (leader.told, standby.told) == (["promoted"], [])


@pytest.mark.rule("REPL-3")
@simulated
async def test_the_loss_of_the_lead_is_reported_in_time_while_a_renewal_hangs(world: World) -> None:
    """Whatever it waits for, such as a login. Once that is given up it takes part again."""
    leader, standby = await world.two()
    leader.calls = [Call(before=3600)]
    await world.until(lambda: not leader.leads, GIVE_UP_SECONDS + SLACK)
    assert leader.told == ["promoted", "demoted"]
    await standby.kill()
    await world.until(lambda: leader.leads)
    assert leader.told == ["promoted", "demoted", "promoted again"]


@pytest.mark.rule("REPL-2")
@simulated
async def test_a_renewal_that_hangs_until_its_end_leaves_time_for_another(world: World) -> None:
    leader, standby = await world.two()
    leader.calls = [Call(before=LEASE_LIMIT, arrives=False)]
    await world.pass_time(LEASE_SECONDS)
    assert (leader.told, standby.told) == (["promoted"], [])


@pytest.mark.rule("REPL-12")
@simulated
async def test_after_a_gap_a_leader_whose_lease_nobody_touched_leads_again_at_once(world: World) -> None:
    """It is told so: in the gap reconciles were turned away, and nobody else would look at those credentials."""
    leader, standby = await world.two()
    leader.calls = [FAILING] * 20
    standby.calls = [FAILING] * 20
    await world.until(lambda: "demoted" in leader.told)
    leader.calls.clear()
    assert await world.until(lambda: leader.leads) <= LOOK + SLACK
    assert (leader.told, standby.told) == (["promoted", "demoted", "promoted again"], [])


@simulated
async def test_a_paused_leader_whose_lease_nobody_touched_leads_again(world: World) -> None:
    leader, _ = await world.two()
    leader.offset += 3600
    await world.until(lambda: leader.leads)
    assert leader.told == ["promoted", "demoted", "promoted again"]


@pytest.mark.rule("REPL-12")
@simulated
async def test_after_a_gap_a_leader_starts_afresh_also_if_nobody_took_over(world: World) -> None:
    """If it cannot know that: the Lease is not as it left it, though it is its own renewal whose answer was lost."""
    leader, standby = await world.two()
    leader.calls = [Call(answered=False)] + [FAILING] * 20
    standby.calls = [FAILING] * 100
    await world.until(lambda: "demoted" in leader.told)
    leader.calls.clear()
    await world.until(lambda: leader.leads)
    assert (leader.told, standby.told) == (["promoted", "demoted", "promoted"], [])


@simulated
async def test_a_gap_while_a_renewal_is_answered_counts_too(world: World) -> None:
    leader, _ = await world.two()
    renewals = world.server.version
    leader.calls = [*[FAILING] * 4, Call(after=LEASE_LIMIT)]
    await world.until(lambda: world.server.version > renewals)
    await world.until(lambda: not leader.leads)
    await world.until(lambda: leader.leads)
    assert leader.told == ["promoted", "demoted", "promoted again"]


@simulated
async def test_an_answer_that_comes_when_the_lead_would_be_over_makes_no_leader(world: World) -> None:
    await world.release()
    successor = world.start("two")
    successor.calls = [QUICK, Call(after=GIVE_UP_SECONDS + 1)]
    await world.pass_time(GIVE_UP_SECONDS + 2)
    assert successor.told == []
    await world.until(lambda: successor.leads)
    assert successor.told == ["promoted"]


@pytest.mark.rule("REPL-2")
@pytest.mark.parametrize("jump", [-1e9, 1e9])
@simulated
async def test_the_wall_clock_does_not_matter(world: World, jump: float) -> None:
    leader, standby = await world.two()
    leader.wall += jump
    standby.wall -= jump
    await world.pass_time(60)
    assert leader.leads
    assert (leader.told, standby.told) == (["promoted"], [])


# --- Hands on the Lease -----------------------------------------------------------------------------------------------

EDITS: Mapping[str, Callable[[Lease], Lease]] = {
    "foreign": lambda lease: replace(lease, holder="somebody"),
    "given": lambda lease: replace(lease, holder="two"),
    "emptied": lambda lease: replace(lease, holder=""),
    "shortened": lambda lease: replace(lease, seconds=2),
    "prolonged": lambda lease: replace(lease, seconds=1_000_000),
    "odd": lambda lease: replace(lease, seconds=0, transitions=MOST),
    "foreign and odd": lambda lease: replace(lease, holder="x" * 5000, seconds=MOST, transitions=MOST),
    "as if released": lambda lease: replace(lease, holder="", seconds=1),
}


@pytest.mark.rule("REPL-7", "REPL-10")
@pytest.mark.parametrize("renewing", [True, False], ids=["renewing", "cut off"])
@pytest.mark.parametrize("edit", EDITS)
@simulated
async def test_an_edited_lease_makes_no_second_leader(world: World, edit: str, *, renewing: bool) -> None:
    """Whatever it says, who led may still believe in it; and seconds later somebody leads, and goes on to."""
    leader, standby = await world.two()
    if not renewing:
        leader.calls = [FAILING] * 100
    assert world.server.lease is not None
    world.server.edit(EDITS[edit](world.server.lease))
    await world.pass_time(LEASE_SECONDS + RENEWAL * 2)
    assert leader.leads or standby.leads
    told = [list(replica.told) for replica in world.replicas]
    await world.pass_time(60)
    assert [replica.told for replica in world.replicas] == told


@pytest.mark.rule("REPL-9")
@simulated
async def test_a_lease_from_a_backup_makes_no_second_leader_where_the_api_server_was_away_meanwhile(
    world: World,
) -> None:
    """As it is while etcd is restored. Who does not lead has waited for that very Lease to age before."""
    await world.two()
    assert world.server.lease is not None
    backup = world.server.edit(replace(world.server.lease, holder="somebody"))
    await world.until(lambda: not any(replica.leads for replica in world.replicas))
    await world.until(lambda: any(replica.leads for replica in world.replicas))
    for replica in world.replicas:
        replica.refusal = ApiFailure(None, "refused")
    await world.pass_time(GIVE_UP_SECONDS)  # the last renewal began before
    world.server.lease, world.server.version = backup, int(backup.version)
    for replica in world.replicas:
        if not replica.leads:
            replica.refusal = None
    await world.pass_time(RENEWAL * 2)
    assert any(replica.leads for replica in world.replicas)


@simulated
async def test_a_leader_steps_down_as_soon_as_it_sees_another_holder(world: World) -> None:
    leader, _ = await world.two()
    assert world.server.lease is not None
    world.server.edit(replace(world.server.lease, holder="somebody"))
    assert await world.until(lambda: not leader.leads) <= RENEWAL + SLACK
    assert leader.told == ["promoted", "demoted"]


@pytest.mark.rule("REPL-10")
@pytest.mark.parametrize("renewing", [True, False], ids=["renewing", "cut off"])
@simulated
async def test_a_deleted_lease_is_made_again(world: World, *, renewing: bool) -> None:
    """By the leader, or once that would have given up by another; a standby must not jump in."""
    leader, standby = await world.two()
    if not renewing:
        leader.calls = [FAILING] * 100
    world.server.lease = None
    await world.pass_time(LEASE_SECONDS + RENEWAL * 2)
    assert leader.leads is renewing
    assert standby.leads is not renewing


@pytest.mark.rule("REPL-4")
@simulated
async def test_who_starts_while_the_lease_is_gone_waits_like_any_other(world: World) -> None:
    """Its leader may believe in it still."""
    leader, standby = await world.two()
    leader.calls = [FAILING] * 100
    await standby.kill()
    world.server.lease = None
    newcomer = world.start("three")
    assert await world.until(lambda: newcomer.leads) >= LEASE_SECONDS - SLACK
    assert not leader.leads


@pytest.mark.rule("REPL-8")
@simulated
async def test_a_take_over_that_comes_late_makes_no_deleted_lease_anew(world: World) -> None:
    """It is on its way while another takes the Lease, which is then deleted: that one still believes in it."""
    leader, standby = await world.two()
    other = world.start("three")
    await world.pass_time(LEASE_SECONDS)
    await leader.stop()
    other.calls = [QUICK, Call(before=RENEWAL + 1)]
    standby.calls = [QUICK, Call(before=RENEWAL * 2 + 2)]
    await world.until(lambda: other.leads)
    other.calls = [FAILING] * 10
    world.server.lease = None
    await world.pass_time(LEASE_SECONDS)
    assert not standby.leads
    assert other.told == ["promoted", "demoted"]


@pytest.mark.rule("REPL-10")
@pytest.mark.parametrize("edit", ["emptied", "shortened", "prolonged", "odd", "as if released"])
@simulated
async def test_a_leader_writes_over_an_edit_at_once(world: World, edit: str) -> None:
    """None of these is another leader, and each renewal counts."""
    leader, _ = await world.two()
    assert world.server.lease is not None
    world.server.edit(EDITS[edit](world.server.lease))
    edited = world.server.version
    await world.until(lambda: world.server.version > edited)
    assert (world.server.lease.holder, world.server.lease.seconds) == ("one", LEASE_SECONDS)
    assert leader.told == ["promoted"]


@simulated
async def test_a_renewal_that_took_too_long_writes_over_nothing(world: World) -> None:
    """Whatever it finds: another may lead, whose Lease was then emptied by hand."""
    leader, standby = await world.two()
    leader.calls = [Call(before=LEASE_SECONDS + 2 * RENEWAL)]
    await world.until(lambda: standby.leads)
    standby.calls = [FAILING] * 10
    assert world.server.lease is not None
    world.server.edit(replace(world.server.lease, holder=""))
    await world.pass_time(GIVE_UP_SECONDS)
    assert leader.told == ["promoted", "demoted"]


@pytest.mark.rule("REPL-10")
@simulated
async def test_a_leader_that_finds_its_lease_released_steps_down(world: World) -> None:
    """By another operator that says it is this one: a standby takes it at once, so it must not be written over."""
    leader, standby = await world.two()
    assert world.server.lease is not None
    await standby.kill()
    world.server.write(replace(world.server.lease, holder="", seconds=1))
    await world.until(lambda: "demoted" in leader.told)
    await world.until(lambda: leader.leads)
    assert leader.told == ["promoted", "demoted", "promoted"]


leases = st.builds(
    Lease,
    holder=st.sampled_from(["", "one", "two", "three", "x" * 253]) | st.text(max_size=300),
    seconds=st.sampled_from([0, 1, 2, 15, 3600, MOST]),
    transitions=st.sampled_from([0, 1, MOST - 1, MOST]),
)


@pytest.mark.rule("REPL-7")
@given(lease=leases)
@simulated
async def test_whatever_a_lease_says_somebody_leads_once_its_holder_is_gone(world: World, lease: Lease) -> None:
    world.server.edit(lease)
    replica = world.start("two")
    assert await world.until(lambda: replica.leads) <= LEASE_SECONDS + LOOK + SLACK
    await world.pass_time(60)
    assert replica.told == ["promoted"]


# --- Who is fit to lead -----------------------------------------------------------------------------------------------


@pytest.mark.rule("REPL-5")
@simulated
async def test_who_is_not_fit_yet_does_not_lead_and_does_as_soon_as_it_is(world: World) -> None:
    await world.release()
    late = world.start("two")
    late.unfit = "not everything is listed yet"
    await world.pass_time(60)
    assert late.told == []
    late.unfit = ""
    assert await world.until(lambda: late.leads) <= 0.1 + SLACK


@pytest.mark.rule("REPL-5")
@simulated
async def test_the_first_does_not_wait_longer_for_it_was_not_fit_from_the_start(world: World) -> None:
    first = world.start("one")
    first.unfit = "not everything is listed yet"
    await world.pass_time(LEASE_SECONDS - 1)
    first.unfit = ""
    assert await world.until(lambda: first.leads) <= 1 + LOOK + SLACK


@simulated
async def test_of_two_the_one_that_is_fit_leads(world: World) -> None:
    broken = world.start("one")
    broken.unfit = "not everything is listed yet"
    await world.pass_time(1)
    sound = world.start("two")
    assert await world.until(lambda: sound.leads) <= LEASE_SECONDS + LOOK + SLACK
    await world.pass_time(600)
    assert (broken.told, sound.told) == ([], ["promoted"])


@pytest.mark.rule("REPL-6")
@simulated
async def test_a_leader_that_is_fit_no_more_gives_up_and_another_takes_over(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Not before what it began may have ended. Fit again, it stands by."""
    leader, standby = await world.two()
    leader.unfit = "the census has ended"
    assert await world.until(lambda: not leader.leads) <= RENEWAL + SLACK
    took = await world.until(lambda: standby.leads)
    assert LEASE_SECONDS - 2 * RENEWAL <= took <= LEASE_SECONDS + LOOK
    leader.unfit = ""
    await world.pass_time(60)
    assert (leader.told, standby.told) == (["promoted", "demoted"], ["promoted"])
    assert "the census has ended" in caplog.text


@simulated
async def test_a_leader_that_was_unfit_while_nobody_else_led_leads_again(world: World) -> None:
    leader = world.start("one")
    await world.until(lambda: leader.leads)
    leader.unfit = "the census has ended"
    await world.until(lambda: not leader.leads)
    await world.pass_time(60)
    leader.unfit = ""
    assert await world.until(lambda: leader.leads) <= 0.1 + SLACK
    assert leader.told == ["promoted", "demoted", "promoted again"]


# --- What nobody thought of -------------------------------------------------------------------------------------------

LONGEST_WAIT: Final = 40.0
"""Seconds."""
waits = st.sampled_from([0.0, 0.0, 0.5, 3.9, 9.0, 12.0, LONGEST_WAIT])
calls = st.builds(Call, before=waits, arrives=st.booleans(), after=waits, answered=st.booleans())
scripts = st.lists(st.just(QUICK) | calls, max_size=30)
happenings = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.sampled_from([*EDITS, "deleted", "kill", "stop", "start"])), max_size=8
)


@pytest.mark.rule("REPL-2")
@given(scripts=st.lists(scripts, min_size=2, max_size=3), happenings=happenings)
@simulated
async def test_there_are_never_two_leaders_and_in_the_end_there_is_one(
    world: World, scripts: Sequence[Sequence[Call]], happenings: Sequence[tuple[float, str]]
) -> None:
    """Each replica's requests are late, lost, unanswered; replicas die, stop and start; people edit the Lease."""
    for name, script in zip(("one", "two", "three"), scripts, strict=False):
        world.start(name).calls = list(script)
    for pause, happening in happenings:
        await world.pass_time(pause)
        await world.happen(happening)
    for replica in world.replicas:
        replica.calls.clear()
    # A request may still be under way, to an end that changes a Lease for which all have to wait.
    await world.pass_time(2 * LONGEST_WAIT + LEASE_SECONDS + 2 * RENEWAL)
    assert sum(replica.leads for replica in world.replicas) == 1
    for replica in world.replicas:
        assert replica.told[:1] in ([], ["promoted"])
        assert set(replica.told[0::2]) <= {"promoted", "promoted again"}
        assert replica.told[1::2] == ["demoted"] * (len(replica.told) // 2)


# --- What a person sees -----------------------------------------------------------------------------------------------


@simulated
async def test_a_refusal_is_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Without the right to the Lease nobody ever leads, and nothing else would say why."""
    world.start("one").refusal = ApiFailure(HTTPStatus.FORBIDDEN, "Forbidden")
    with caplog.at_level(logging.WARNING):
        await world.pass_time(60)
    assert len(caplog.records) == 1
    assert "403 Forbidden" in str(vars(caplog.records[0]))


@pytest.mark.rule("OBS-4")
@simulated
async def test_a_standby_says_who_leads_once_per_change(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def told() -> list[str]:
        lines = [record for record in caplog.records if record.getMessage() == "another replica leads"]
        assert {record.levelname for record in lines} <= {"INFO"}
        return [vars(record)["fields"]["holder"] for record in lines]

    caplog.set_level(logging.INFO)
    leader, standby = await world.two()
    assert told() == ["one"]
    await world.pass_time(600)
    assert told() == ["one"]
    third = world.start("three")
    await world.pass_time(1)
    assert told() == ["one", "one"]
    await standby.kill()
    await leader.stop()
    await world.until(lambda: third.leads)
    assert told() == ["one", "one"]
    assert world.server.lease is not None
    world.server.edit(replace(world.server.lease, holder="x" * 5000))
    await world.pass_time(3 * RENEWAL)
    assert told() == ["one", "one", "x" * 253]


@pytest.mark.rule("OBS-20")
@simulated
async def test_what_keeps_it_from_the_lease_is_known_until_it_is_over(world: World) -> None:
    """An answer of the API server; an outage is told elsewhere."""
    replica = world.start("one")
    replica.refusal = ApiFailure(403, "Forbidden")
    await world.until(lambda: "403" in replica.election.obstacle)
    replica.refusal = None
    await world.until(lambda: replica.leads)
    assert replica.election.obstacle == ""
    replica.calls = [FAILING] * 3
    await world.until(lambda: not replica.calls)
    assert replica.election.obstacle == ""
