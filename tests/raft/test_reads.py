"""Reads that are never stale."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from pyswarm.raft.log import LostLeadership
from pyswarm.raft.reads import Reads
from tests.raft.cluster import cluster
from tests.simulation.raft.clients import Outcome
from tests.simulation.raft.cluster import Cluster, Manager
from tests.simulation.raft.weather import CALM

TWO, FOUR = frozenset({2, 3}), frozenset({2, 3, 4, 5})


def reader(reads: Reads) -> Outcome:
    """One more read."""
    outcome = Outcome()
    reads.add(outcome)  # type: ignore[arg-type]
    return outcome


@pytest.mark.parametrize("voters", [frozenset(range(2, size + 1)) for size in range(1, 8)])
def test_a_majority_with_this_member_is_needed(voters: frozenset[int]) -> None:
    """One echo fewer than a majority lacks proves nothing, however often it comes, and one more does."""
    needed = (len(voters) + 1) // 2
    for echoing in itertools.combinations(sorted(voters), needed):
        reads = Reads()
        read = reader(reads)
        reads.advance(10, 10, voters)
        for member in echoing:
            assert not read.done()
            for _ in range(3):
                reads.echo(member, 1)
                reads.echo(member, 2)
                reads.echo(99, 1)
            if member != echoing[-1]:
                reads.advance(10, 10, voters)
        reads.advance(10, 10, voters)
        assert read.index == 10


def test_reads_that_wait_together_share_a_round_and_later_ones_do_not() -> None:
    """An answer to a question that was put before a read came says nothing about it."""
    reads = Reads()
    early = [reader(reads) for _ in range(5)]
    reads.advance(10, 10, TWO)
    assert reads.questions(TWO, again=False) == (1, [2, 3])
    late = reader(reads)
    reads.advance(11, 11, TWO)
    assert reads.questions(TWO, again=False) == (1, [])
    reads.echo(2, 1)
    reads.advance(11, 11, TWO)
    assert all(r.index == 11 for r in early)
    assert not late.done()
    assert reads.questions(TWO, again=False) == (2, [2, 3])
    reads.echo(3, 1)
    reads.advance(11, 11, TWO)
    assert not late.done()
    reads.echo(3, 2)
    reads.advance(11, 11, TWO)
    assert late.index == 11
    assert reads.questions(TWO, again=True) == (0, [])


def test_a_lost_question_is_put_again() -> None:
    """With each heartbeat those are asked again who have not answered; a new voter is asked at once."""
    reads = Reads()
    reader(reads)
    reads.advance(10, 10, FOUR)
    assert reads.questions(FOUR, again=False) == (1, [2, 3, 4, 5])
    reads.echo(3, 1)
    assert reads.questions(FOUR, again=False) == (1, [])
    assert reads.questions(FOUR, again=True) == (1, [2, 4, 5])
    assert reads.questions(FOUR | {6}, again=False) == (1, [6])


def test_the_voters_of_the_moment_decide() -> None:
    """A member that lost its vote meanwhile does not count any more, one that got it does."""
    reads = Reads()
    read = reader(reads)
    reads.advance(10, 10, TWO)
    reads.echo(2, 1)
    reads.advance(10, 10, frozenset({3, 4}))
    assert not read.done()
    reads.echo(4, 1)
    reads.advance(10, 10, frozenset({3, 4}))
    assert read.done()


def test_nothing_is_shown_before_it_is_applied() -> None:
    """A proven read waits until this member has applied what was committed when it began."""
    reads = Reads()
    read = reader(reads)
    reads.advance(10, 8, TWO)
    reads.echo(2, 1)
    reads.advance(12, 9, TWO)
    assert not read.done()
    reads.advance(12, 10, TWO)
    assert read.index == 10


def test_no_read_survives_leadership() -> None:
    """Waiting, asked for and proven ones all fail, and certainly: a read changes nothing."""
    reads = Reads()
    proven = reader(reads)
    reads.advance(10, 9, TWO)
    reads.echo(2, 1)
    reads.advance(10, 9, TWO)
    asked = reader(reads)
    reads.advance(10, 9, TWO)
    waiting = reader(reads)
    reads.fail(LostLeadership())
    for outcome in (proven, asked, waiting):
        assert isinstance(outcome.error, LostLeadership)
        assert not outcome.error.uncertain
    reads.echo(3, 2)
    reads.advance(20, 20, TWO)
    assert proven.index is None


def led(size: int) -> tuple[Cluster, Manager]:
    """A cluster in peace, and who leads it."""
    made = Cluster(1, size, CALM)
    for _ in range(1000):
        made.step()
        if (leader := made.leader()) is not None:
            return made, made.managers[leader.raft_id]
    raise AssertionError("nobody leads")


def steps(made: Cluster, number: int) -> None:
    """Let time pass."""
    for _ in range(number):
        made.step()


def write(made: Cluster) -> None:
    """Have a write acknowledged by whoever can."""
    for _ in range(3000):
        for manager in made.managers.values():
            if manager.replica is not None and manager.replica.leads and manager.frozen_until <= made.now:
                outcome = made.write(manager)
                steps(made, 30)
                if outcome.index is not None:
                    return
        made.step()
    raise AssertionError("no write goes through")


@pytest.mark.parametrize("size", [3, 5])
def test_a_paused_leader_answers_nothing_old(size: int) -> None:
    """One that slept while others elected and wrote, and wakes up believing that it leads, fails every read."""
    made, old = led(size)
    write(made)
    made.freeze(old, 300)
    while made.leader() is None:
        made.step()
    write(made)
    assert old.replica is not None
    assert old.replica.leads
    read = made.read(old)
    old.frozen_until = 0
    old.hears_from = made.now + 1
    steps(made, 50)
    assert isinstance(read.error, LostLeadership)
    assert not read.error.uncertain


def test_a_leader_that_is_cut_off_answers_nothing() -> None:
    """Without a majority there is no answer; when leadership ends the read fails."""
    made, old = led(3)
    assert old.replica is not None
    for other in made.managers:
        if other != old.raft_id:
            made.links.cut((old.raft_id, other))
            made.links.cut((other, old.raft_id))
    read = made.read(old)
    steps(made, 50)
    assert not read.done()
    write(made)
    steps(made, 200)
    assert isinstance(read.error, LostLeadership)


async def test_reads_of_three_managers_leave_the_log_alone(tmp_path: Path) -> None:
    """Reads show what was acknowledged before, share rounds, and add no entry; a follower refuses them."""
    async with cluster(tmp_path, 3) as three:
        leader = await three.leader()
        await three.write("one")
        before = leader.node.applied_index
        for _ in range(20):
            await leader.node.read_barrier()
        replica = leader.node._replica
        assert replica is not None
        rounds = replica._reads._number
        async with asyncio.TaskGroup() as group:
            for _ in range(200):
                group.create_task(leader.node.read_barrier())
        assert replica._reads._number <= rounds + 2
        assert leader.node.applied_index == before
        assert leader.machine.names == ["one"]
        follower = next(b for b in three.boxes if b is not leader)
        with pytest.raises(LostLeadership):
            await follower.node.read_barrier()


async def test_reads_go_on_while_members_come_and_go(tmp_path: Path) -> None:
    """Reads of a growing and shrinking cluster always hold the newest acknowledged write."""
    async with cluster(tmp_path, 1) as growing:
        stop = asyncio.Event()

        async def user() -> None:
            number = 0
            while not stop.is_set():
                await growing.write(f"n{number}")
                leader = await growing.leader()
                await leader.node.read_barrier()
                assert f"n{number}" in leader.machine.names
                number += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(user())
            await growing.join(growing.add())
            await growing.join(growing.add())
            leader = await growing.leader()
            gone = next(b for b in growing.boxes if b is not leader)
            await leader.node.remove(gone.node.raft_id)
            stop.set()
