"""Snapshots between members."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.raft import transfers
from pyswarm.raft.messages import Piece
from pyswarm.raft.transfers import Loaded, Receiver, Sender


def snapshot(index: int = 50, nodes: int = 200) -> raft_pb2.LogSnapshot:
    """A snapshot of a few pieces."""
    return raft_pb2.LogSnapshot(
        start=raft_pb2.LogStart(
            prev=raft_pb2.LogEntry(command=b"p", index=index - 1, term=3), last=raft_pb2.LogEntry(command=b"l", index=index, term=3)
        ),
        snapshot=api.Snapshot(store=api.StoreSnapshot(nodes=[api.Node(id=f"node-{i}") for i in range(nodes)])),
    )


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small snapshot has several."""
    monkeypatch.setattr(transfers, "PIECE_BYTES", 50)


def sender(index: int = 50) -> Sender:
    """A leader with a loaded snapshot."""
    made = Sender(random.Random(1), lambda: index)
    made.provide(Loaded.of(snapshot(index)))
    return made


def pieces(of: Sender, member: int = 2) -> list[Piece]:
    """A whole transfer to a member that confirms everything."""
    taken = []
    while True:
        offer = of.next_piece(member)
        assert offer is not None
        taken.append(offer[0])
        of.confirm(member, offer[0].transfer, len(taken))
        if offer[1]:
            return taken


def test_a_transfer_arrives_whole() -> None:
    """All pieces, in any order and repeated, make the same snapshot again. [store 94]"""
    sent = pieces(sender())
    assert len(sent) == sent[0].total > 5
    receiver = Receiver()
    shuffled = sent[:-1] * 2
    random.Random(2).shuffle(shuffled)
    assert {receiver.add(p) for p in shuffled} == {None}
    arrived = receiver.add(sent[-1])
    assert arrived is not None
    assert arrived.open() == snapshot()


def test_a_missing_piece_delays_a_foreign_one_restarts() -> None:
    """Pieces of another attempt never complete this one. [store 122]"""
    leader = sender()
    first, second = pieces(leader), pieces(leader)
    receiver = Receiver()
    for piece in first[:-1]:
        assert receiver.add(piece) is None
    assert receiver.add(second[-1]) is None
    assert receiver.count == 1
    for piece in second[:-2]:
        assert receiver.add(piece) is None
    arrived = receiver.add(second[-2])
    assert arrived is not None
    assert arrived.open() == snapshot()


def test_damage_is_noticed() -> None:
    """A flipped bit, or a snapshot that is not the announced one, is dropped. [store 122]"""
    sent = pieces(sender())
    for bad in (
        [replace(sent[0], data=bytes([sent[0].data[0] ^ 1]) + sent[0].data[1:]), *sent[1:]],
        [replace(p, index=51) for p in sent],
    ):
        receiver = Receiver()
        *rest, arrived = [receiver.add(p) for p in bad]
        assert rest == [None] * (len(bad) - 1)
        assert arrived is not None
        assert arrived.open() is None


def test_the_window_bounds_what_is_under_way() -> None:
    """Without confirmation only so many pieces leave; each confirmation lets more follow."""
    leader = sender()
    first = [leader.next_piece(2) for _ in range(transfers.WINDOW)]
    assert None not in first
    assert leader.next_piece(2) is None
    assert first[0] is not None
    leader.confirm(2, first[0][0].transfer + 1, 5)
    assert leader.next_piece(2) is None
    leader.confirm(2, first[0][0].transfer, 2)
    assert [leader.next_piece(2) is None for _ in range(3)] == [False, False, True]


def test_a_lost_connection_starts_again_from_the_beginning() -> None:
    """After a disconnect the next transfer is a new one (S9). [store 122]"""
    leader = sender()
    before = leader.next_piece(2)
    leader.cancel(2)
    after = leader.next_piece(2)
    assert before is not None
    assert after is not None
    assert after[0].number == 0
    assert after[0].transfer != before[0].transfer


def test_a_transfer_without_progress_is_given_up() -> None:
    """After the limit of idle ticks the attempt ends, and the snapshot leaves memory with the last one."""
    leader = sender()
    leader.next_piece(2)
    for _ in range(6):
        leader.count_tick(2)
    assert leader.next_piece(2) is None
    assert leader.wanted


def test_an_outdated_snapshot_is_loaded_anew() -> None:
    """New transfers use the newest snapshot; one under way keeps the one it began with."""
    newest = 50
    leader = Sender(random.Random(1), lambda: newest)
    leader.provide(Loaded.of(snapshot(50)))
    first = leader.next_piece(2)
    newest = 60
    assert leader.next_piece(3) is None
    assert leader.wanted
    leader.provide(Loaded.of(snapshot(60)))
    following, other = leader.next_piece(2), leader.next_piece(3)
    assert first is not None
    assert following is not None
    assert other is not None
    assert (following[0].index, other[0].index) == (50, 60)


def test_the_log_behind_a_transfer_is_kept_until_it_is_installed() -> None:
    """What follows the snapshot is wanted next; the hold ends with the member's acknowledgement, its connection, or leadership."""
    leader = sender(50)
    assert leader.held(90) == 0
    pieces(leader, 2)
    leader.next_piece(3)
    assert leader.held(90) == 40
    for _ in range(100):
        leader.count_tick(2)
    assert leader.held(90) == 40, "the one that is complete waits for the member"
    leader.acknowledged(2, 49)
    assert leader.held(90) == 40
    leader.acknowledged(2, 50)
    assert leader.held(90) == 0
    for end in (lambda: leader.cancel(2), leader.rest):
        leader.provide(Loaded.of(snapshot(50)))
        pieces(leader, 2)
        assert leader.held(90) == 40
        assert leader.held(50 + 2 * transfers.HELD_ENTRIES) == transfers.HELD_ENTRIES
        end()
        assert leader.held(90) == 0
