"""What members do in particular situations, played by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pyswarm.errors import InvalidArgument
from pyswarm.raft.log import LostLeadership
from pyswarm.raft.membership import Change
from pyswarm.raft.messages import Ack, Append, HigherTerm, Message, Piece, PreVote, RequestVote
from tests.simulation.raft.clients import Outcome
from tests.simulation.raft.lives import quiet
from tests.simulation.raft.stage import Sent, Stage
from tests.simulation.raft.weather import small_sizes


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """Nothing is printed."""
    with quiet():
        yield


def change(stage: Stage, kind: Change.Kind.ValueType, raft_id: int) -> Outcome:
    """Ask the leader, member 1, for a change of the members."""
    outcome = Outcome()
    stage.replica(1).changes.submit(Change(kind=kind, member=stage.managers[raft_id].facts()), outcome)  # type: ignore[arg-type]
    return outcome


def terms(stage: Stage) -> set[int]:
    """The terms of all who run."""
    return {m.replica.core.term for m in stage.managers.values() if m.replica is not None}


# --- changes of the members


def test_changes_follow_one_another() -> None:
    """Of two changes requested together the second is appended only when the first is applied. [store 127]"""
    stage = Stage(5)
    one = stage.elect(1)
    first, second = change(stage, Change.REMOVE, 4), change(stage, Change.REMOVE, 5)
    end = one.end_of_log[0]
    acks = stage.settle(keep=lambda a, b, m: isinstance(m, Ack))
    assert one.end_of_log[0] == end + 1
    assert not first.done()
    assert one.core.voters == {2, 3, 5}
    for ack in acks:
        stage.hear(*ack)
    stage.settle()
    assert first.index == end + 1
    assert second.index == end + 2
    assert one.membership.members.keys() == {1, 2, 3}


def test_changes_end_with_leadership() -> None:
    """What was not appended certainly failed; what was appended is uncertain, and what comes of it is the same everywhere. [store 127]"""
    stage = Stage(3)
    one = stage.elect(1)
    stage.part({1}, {2, 3})
    first, second = change(stage, Change.REMOVE, 3), change(stage, Change.REMOVE, 2)
    stage.settle()
    assert one.core.voters == {2}
    stage.elect(2)
    stage.join_all()
    stage.tick(3)
    assert isinstance(first.error, LostLeadership)
    assert first.error.uncertain
    assert second.refused
    assert one.core.voters == {2, 3}
    stage.finish()
    assert one.membership.members.keys() == {1, 2, 3}


def test_a_change_that_no_longer_fits_is_refused() -> None:
    """It is checked again when its turn comes: what it asks for may have been done by the one before. [store 127]"""
    stage = Stage(3)
    stage.elect(1)
    first, second = change(stage, Change.REMOVE, 3), change(stage, Change.REMOVE, 3)
    stage.settle()
    assert first.index
    assert isinstance(second.error, InvalidArgument)


# --- learners


def test_a_joiner_that_dies_early_changes_nothing() -> None:
    """While it only learns, a sole leader commits without it; after long silence it is given up. [store 130]"""
    stage = Stage(1)
    one = stage.elect(1)
    stage.newcomer(2)
    one.changes.admit(stage.managers[2].facts())
    stage.tick(keep=lambda a, b, m: b == 2)
    assert one.changes.learners
    stage.stop(2)
    assert stage.written(1, "one").index
    stage.tick(250)
    assert one.core.leading
    assert one.membership.members.keys() == {1}
    assert not one.changes.learners
    assert stage.written(1, "two").index


def test_a_joiner_that_catches_up_becomes_a_voter() -> None:
    """It gets everything written before and meanwhile, then its vote counts: without it nothing commits. [store 130]"""
    stage = Stage(1)
    one = stage.elect(1)
    for i in range(30):
        stage.written(1, f"n{i}")
    stage.newcomer(2)
    one.changes.admit(stage.managers[2].facts())
    stage.tick(3)
    assert one.core.voters == {2}
    assert stage.managers[2].machine.names == stage.managers[1].machine.names
    stage.part({1}, {2})
    pending = stage.written(1, "alone")
    assert not pending.done()
    stage.finish()


def test_a_new_voter_with_the_longest_log_can_be_elected() -> None:
    """After a restart its own addition is only in its log, not in its table; yet nobody else could win, for its log has an entry more."""
    stage = Stage(1)
    one = stage.elect(1)
    stage.newcomer(2)
    one.changes.admit(stage.managers[2].facts())
    stage.tick(3)
    assert one.core.voters == {2}
    stage.propose(1, "last")
    one.begin()
    for to, message in one.traffic.take(synced=False):
        stage.hear(1, to, message)
    stage.stop(1)  # before its own disk had the entry
    disk = stage.managers[2].disks.memory_log
    disk.die_at = disk.calls + 2  # the entry is written; the note behind it, how far the log is committed, is torn off
    stage.settle()
    assert stage.managers[2].replica is None
    stage.revive(1)
    stage.revive(2)
    assert stage.replica(2).end_of_log > stage.replica(1).end_of_log
    assert not stage.replica(2).is_member
    stage.finish()
    assert stage.leader() is stage.replica(2)


def test_a_large_snapshot_deposes_nobody() -> None:
    """The learner of two members takes longer than an election over its snapshot: the leader stays, and writes go on. [store 130]

    It arrives although the leader takes newer snapshots meanwhile: the log behind the one that is under way is kept for it.
    """
    with small_sizes():
        stage = Stage(2, snapshot_interval=50)
        one = stage.elect(1)
        for i in range(400):
            stage.written(1, f"name-of-a-node-{i}")
        stage.newcomer(3)
        one.changes.admit(stage.managers[3].facts())
        held: list[Sent] = []
        ticks = 0
        while not one.core.voters >= {2, 3}:
            held += stage.tick(keep=lambda a, b, m: isinstance(m, Piece))
            if held:
                stage.hear(*held.pop(0))
            assert one.leads
            assert stage.propose(1, f"meanwhile-{ticks}") is not None
            ticks += 1
            assert ticks < 1000
        assert ticks > 30
        stage.finish()
        assert len(stage.judge.leaders) == 1


# --- who was removed


@pytest.mark.parametrize(
    "message", [RequestVote(50, 999, 50), RequestVote(50, 999, 50, transfer=True), PreVote(50, 999, 50), HigherTerm(50)]
)
def test_who_was_removed_moves_nobody(message: Message) -> None:
    """It is told so by every member it calls, and whatever it says, no term changes and the leader stays. [store 90, 131]"""
    stage = Stage(3)
    one = stage.elect(1)
    assert change(stage, Change.REMOVE, 3) is not None
    stage.settle()
    stage.tick()
    stage.managers[3].removed = False
    for member in (1, 2):
        stage.arrive(3, stage.managers[member], message)
        assert stage.managers[3].removed
        stage.managers[3].removed = False
        stage.hear(3, member, message)
    stage.settle()
    assert one.leads
    assert {stage.replica(i).core.term for i in (1, 2)} == {1}


# --- coming back


def test_a_long_divergence_is_repaired_in_a_few_messages() -> None:
    """A thousand entries of a deposed leader give way to a thousand others in a few round trips, not one by one. [store 135]"""
    stage = Stage(3)
    stage.elect(1)
    stage.part({1}, {2, 3})
    for i in range(1000):
        stage.propose(1, f"never-{i}")
    stage.settle()
    two = stage.elect(2)
    for i in range(1000):
        stage.propose(2, f"new-{i}")
    stage.settle()
    assert stage.replica(1).end_of_log[0] > 1000
    stage.links.heal()
    stage.connect()
    passed: list[Message] = []

    def count(a: int, b: int, m: Message) -> bool:
        passed.append(m)
        return False

    for _ in range(4):
        stage.tick(1, count)
    assert stage.replica(1).applied == two.applied
    assert sum(isinstance(m, Ack) and m.reset for m in passed) <= 2
    assert sum(isinstance(m, Append) and bool(m.entries) for m in passed) <= 3
    stage.finish()


def test_who_was_cut_off_comes_back_quietly() -> None:
    """A member that heard nothing for twenty election time-outs has no higher term; it follows, nothing is elected. [store 88, 137]"""
    stage = Stage(3)
    one = stage.elect(1)
    stage.part({1, 2}, {3})
    for i in range(200):
        stage.tick()
        if i % 20 == 0:
            assert stage.written(1, f"n{i}").index
    assert terms(stage) == {1}
    stage.join_all()
    stage.tick(3)
    assert one.leads
    assert len(stage.judge.leaders) == 1
    stage.finish()


def test_a_higher_term_costs_at_most_one_election() -> None:
    """A member that comes back with a higher term is not followed, but its term is learned: one election, nothing lost. [store 137]"""
    stage = Stage(3)
    one = stage.elect(1)
    kept = stage.written(1, "before")
    for _ in range(5):
        stage.replica(3).core.campaign()  # without asking first, and nobody hears of it
        stage.settle(keep=lambda a, b, m: a == 3)
    stage.part({1, 2}, {3})
    assert stage.replica(3).core.term == 6
    assert stage.written(1, "meanwhile").index
    stage.join_all()
    stage.tick(30)
    assert kept.index
    assert stage.leader() is not None
    assert stage.leader() is not stage.replica(3), "its log is behind"
    assert len(stage.judge.leaders) <= 2
    assert one.core.term > 6
    stage.finish()


# --- full disks


def test_a_leader_that_hears_nobody_names_a_successor() -> None:
    """It steps down; the others still hear it, so the one that has most of the log stands at once instead of counting from there."""
    stage = Stage(3)
    one = stage.elect(1)
    stage.part({1, 2}, {3})
    stage.written(1, "what only 1 and 2 have")
    stage.join_all()
    stage.links.cut((2, 1))
    stage.links.cut((3, 1))
    ticks = 0
    while one.core.leading:
        stage.tick()
        ticks += 1
        assert ticks < 30
    assert stage.replica(2).core.leading
    assert stage.replica(2).leads
    stage.finish()


def test_a_follower_with_a_full_disk_acknowledges_nothing() -> None:
    """Its process ends without an answer for what it could not keep; the others go on. [store 126]"""
    stage = Stage(3)
    stage.elect(1)
    disk = stage.managers[2].disks.memory_log
    disk.full_at = disk.calls + 1
    stage.propose(1, "one")
    answers = stage.settle(keep=lambda a, b, m: isinstance(m, Ack))
    assert stage.managers[2].replica is None
    assert {sender for sender, _, _ in answers} == {3}
    for answer in answers:
        stage.hear(*answer)
    stage.settle()
    assert stage.clients.writes[-1].index
    stage.finish()
