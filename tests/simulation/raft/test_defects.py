"""PySyncObj's safety defects: for each a script that ends well, and the same script without the one cure, which does not.

| | what the library does | the cure that is left out |
|---|---|---|
| S1 | counts votes | `filter.new_vote` |
| S2 | truncates on every append | `filter.new_entries` |
| S3 | takes over the leader's commit index where nothing was compared | `filter.sign_of_life` |
| S4 | credits acknowledgements of another term | `filter.acknowledgement` |
| S5 | acknowledges a snapshot that it could not load | `Traffic._take_piece`, against the library's own code |
| S6 | throws the journal away unless it begins with the snapshot | `Journal.view_from`, against the library's rule |
| S7 | trims by writing everything anew | the journal, against the library's own |
| S8 | installs a snapshot that is older than the log | `Traffic.contains` |
| S9 | goes on with a transfer in the middle after a reconnect | `transfers`, against the library's own |
| S10 | puts uncommitted members into a snapshot | `Replica._capture` |
| S11 | lets several changes of the voters be under way | `Changes._free` |
| S12 | forgets at a restart what the log says of the voters | `Replica._build` |
| S13 | applies an old change over a newer one | `Guarded.__doApplyCommand`, against the library's own |
| S14 | lets a wiped member come back as itself | `node.had_a_log` |
| S15 | forgets term and vote without a journal | `Journal.setCurrentTerm` |
| S16 | applies an entry again that failed half-way | `Guarded.__doApplyCommand` |
| S17 | keeps commands for a later term | `Replica.submit`, against the library's queue |
| sole | counts a sole leader's first entry before it is on disk | `Guarded.__onBecomeLeader` |
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pysyncobj.journal
import pysyncobj.serializer
import pysyncobj.syncobj
import pytest

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.raft import commands, node
from pyswarm.raft import filter as screen
from pyswarm.raft.changes import Changes
from pyswarm.raft.commands import Type
from pyswarm.raft.errors import StorageError
from pyswarm.raft.filter import DROP, Verdict
from pyswarm.raft.guarded import Guarded
from pyswarm.raft.journal import Journal
from pyswarm.raft.log import Joined, LostLeadership
from pyswarm.raft.membership import Change, voters
from pyswarm.raft.messages import Ack, Append, GrantVote, HigherTerm, Message, Piece
from pyswarm.raft.proposals import Waiting
from pyswarm.raft.replica import Replica
from pyswarm.raft.snapshots import SnapshotStore
from pyswarm.raft.traffic import Traffic
from pyswarm.raft.transfers import PIECE_BYTES, Loaded, Receiver, Sender
from pyswarm.raft.vault import Vault
from tests.raft.disks import MemoryDisk, PowerCut
from tests.raft.nodes import Memory, Recorder, new_node
from tests.simulation.raft.clients import Outcome
from tests.simulation.raft.judge import Violation
from tests.simulation.raft.lives import quiet
from tests.simulation.raft.stage import Clumsiness, Stage

Patch = pytest.MonkeyPatch


def heartbeat_to(member: int) -> Callable[[int, int, Message], bool]:
    """What tells a member how far the log is committed, and nothing else."""
    return lambda a, b, m: b == member and isinstance(m, Append) and not m.entries


# --- S1


def votes() -> None:
    """Two of five hold an election in which one vote arrives twice; the other three hold one in the same term."""
    stage = Stage(5)
    stage.part({1, 2}, {3, 4, 5})
    stage.replica(1).core.campaign()
    (vote,) = stage.settle(keep=lambda a, b, m: isinstance(m, GrantVote))
    for _ in range(2):
        stage.hear(*vote)
        stage.settle()
    stage.elect(3)
    stage.finish()


def count_votes(patch: Patch) -> None:
    """As the library does."""
    patch.setattr(screen, "new_vote", lambda view, sender, message: message.term == view.term)


# --- S2


def repeated_append() -> None:
    """An old append arrives again at a follower that has acknowledged more; then the leader dies."""
    stage = Stage(3)
    stage.elect(1)
    stage.part({1, 2}, {3})
    stage.propose(1, "one")
    (old,) = stage.settle(keep=lambda a, b, m: isinstance(m, Append))[:1]
    stage.hear(*old)
    stage.settle()
    later = stage.propose(1, "two")
    stage.settle(heartbeat_to(2))
    assert later.index
    stage.hear(*old)
    stage.settle()
    stage.stop(1)
    stage.part({2, 3}, {1})
    stage.elect(2)
    stage.finish()


def truncate_always(patch: Patch) -> None:
    """As the library does."""
    patch.setattr(screen, "new_entries", lambda view, message: Verdict(message))


# --- S3


def deposed_leader() -> None:
    """A leader that was cut off has entries that nobody else has; the new one has no log for it any more and only says that it lives."""
    stage = Stage(3, snapshot_interval=3)
    stage.elect(1)
    stage.part({1}, {2, 3})
    own = stage.written(1, "never")
    stage.elect(2)
    for i in range(20):
        stage.written(2, f"new-{i}")
    stage.join_all()
    stage.tick(3, keep=lambda a, b, m: isinstance(m, Piece))
    assert isinstance(own.error, LostLeadership)
    assert own.error.uncertain
    stage.finish()
    assert "never" not in stage.managers[1].machine.names


def believe_commit(patch: Patch) -> None:
    """As the library does."""
    patch.setattr(screen, "sign_of_life", lambda view, message: message)


# --- S4


def old_acknowledgement() -> None:
    """What a follower acknowledged in term 1 was cut off its log in term 2; the acknowledgement arrives in term 3, at the same leader."""
    stage = Stage(5)
    stage.elect(1)
    stage.part({1, 2}, {3, 4, 5})
    for i in range(6):
        stage.propose(1, f"first-{i}")
    late = stage.settle(keep=lambda a, b, m: isinstance(m, Ack))[-1]
    stage.elect(3)
    stage.join_all()
    stage.tick(2)
    stage.stop(3)
    stage.part({1, 4, 5}, {2, 3})
    stage.elect(1)
    stage.part({1, 4}, {2, 3}, {5})
    for i in range(4):
        stage.written(1, f"second-{i}")
    stage.hear(*late)
    stage.settle()
    stage.stop(1)
    stage.stop(4)
    stage.revive(3)
    stage.part({2, 3, 5}, {1, 4})
    stage.elect(5)
    stage.written(5, "third")
    stage.finish()


def credit_always(patch: Patch) -> None:
    """As the library does."""
    patch.setattr(screen, "acknowledgement", lambda view, sender, message: Verdict(message) if sender in view.matched else DROP)


# --- S5


def damaged_snapshot() -> None:
    """A snapshot arrives damaged at a member whose own log goes further, but is not the leader's; then the leader dies."""
    stage = Stage(3, snapshot_interval=3)
    stage.elect(1)
    stage.part({1}, {2, 3})
    for i in range(24):
        stage.propose(1, f"never-{i}")
    stage.settle()
    stage.elect(2)
    for i in range(19):
        stage.written(2, f"new-{i}")
    stage.part({1, 2}, {3})
    for i in range(4):
        stage.written(2, f"later-{i}")
    pieces = stage.tick(2, keep=lambda a, b, m: isinstance(m, Piece))
    for sender, to, piece in pieces:
        assert isinstance(piece, Piece)
        stage.hear(sender, to, dataclasses.replace(piece, data=piece.data[:-1] + bytes([piece.data[-1] ^ 1])))
    stage.settle(keep=lambda a, b, m: isinstance(m, Piece))
    stage.stop(2)
    stage.part({1, 3}, {2})
    stage.elect(3)
    stage.finish()


def load_as_the_library(patch: Patch) -> None:
    """The library's own code sees the snapshot; loading fails, which it only logs."""

    def take(self: Traffic, sender: int, piece: Piece) -> None:
        message = {"type": "append_entries", "term": piece.term, "commit_index": 0, "serialized": (piece.data, True, True)}
        self._core._SyncObj__onMessageReceived(self._core.peer(sender), message)

    def fail(self: SnapshotStore) -> None:
        raise ValueError("damaged")

    patch.setattr(Traffic, "_take_piece", take)
    patch.setattr(SnapshotStore, "setTransmissionData", lambda self, data: True, raising=False)
    patch.setattr(SnapshotStore, "deserialize", fail, raising=False)
    patch.delattr(Guarded, "_SyncObj__loadDumpFile")


# --- S6


def untrimmed_log() -> None:
    """A sole member is killed after its snapshot got its name, before the log was trimmed."""
    stage = Stage(1, snapshot_interval=5)
    stage.elect(1)
    for i in range(8):
        assert stage.written(1, f"n{i}").index
    stage.stop(1)
    stage.revive(1)
    stage.elect(1)
    stage.finish()


def keep_two_entries(patch: Patch) -> None:
    """The library's rule in `__loadDumpFile`: a journal that does not begin with the snapshot's two entries gives way to them."""

    def view(self: Journal, start: raft_pb2.LogStart) -> None:
        both = [(e.command, e.index, e.term) for e in (start.prev, start.last)]
        if self[:2] != both:
            self.restart(*both)

    patch.setattr(Journal, "view_from", view)


# --- S8


def late_snapshot() -> None:
    """A snapshot that was installed arrives again, when entries after it have been acknowledged."""
    stage = Stage(3, snapshot_interval=3)
    stage.elect(1)
    stage.part({1, 3}, {2})
    for i in range(20):
        stage.written(1, f"n{i}")
    stage.join_all()
    pieces = stage.tick(3, keep=lambda a, b, m: isinstance(m, Piece))[:1]
    for again in range(2):
        for piece in pieces:
            stage.hear(*piece)
        stage.settle()
        assert stage.written(1, f"later-{again}").index
        assert "later-0" in stage.managers[2].machine.names
    restored = stage.managers[2].machine.restored
    assert restored == 2, "once at the start, once for the transfer"
    stage.finish()
    assert stage.managers[2].machine.restored == restored


def install_always(patch: Patch) -> None:
    """As the library does."""
    patch.setattr(Traffic, "contains", lambda self, index, term: False)


# --- S10


def phantom() -> None:
    """A leader that is cut off appends a new member and takes a snapshot; the member is never committed."""
    stage = Stage(3)
    one = stage.elect(1)
    stage.part({1}, {2, 3})
    one.changes.submit(Change(kind=Change.ADD, member=api.RaftMember(raft_id=4, node_id="node-4")), Outcome())  # type: ignore[arg-type]
    stage.settle()
    stage.weather = dataclasses.replace(stage.weather, snapshot_interval=1)
    stage.settle()
    stage.weather = dataclasses.replace(stage.weather, snapshot_interval=0)
    stage.stop(1)
    stage.elect(2)
    stage.written(2, "one")
    stage.revive(1)
    stage.finish()
    assert stage.replica(1).membership.members.keys() == {1, 2, 3}


def capture_the_moment(patch: Patch) -> None:
    """As the library does: whom this member counts at the moment."""

    def capture(self: Replica) -> Callable[[], tuple[raft_pb2.LogSnapshot, api.StoreSnapshot]]:
        build = self._machine.capture()
        later = [c for c, _, _ in self._journal.batch(self.applied + 1, 1 << 30)]
        table = voters(self._membership, later).snapshot()
        return lambda: (raft_pb2.LogSnapshot(snapshot=api.Snapshot(membership=table)), build())

    patch.setattr(Replica, "_capture", capture)


# --- S11


def two_joiners() -> None:
    """A leader that two of three cannot hear takes in two more; the two elect a leader of their own."""
    stage = Stage(3)
    stage.judge.patient = True
    one = stage.elect(1)
    for raft_id in (4, 5):
        stage.newcomer(raft_id)
    stage.part({1, 4, 5}, {2, 3})
    for raft_id in (4, 5):
        one.changes.admit(stage.managers[raft_id].facts())
    stage.tick(3)
    stage.written(1, "one")
    stage.elect(2)
    stage.written(2, "two")
    stage.finish()


def change_freely(patch: Patch) -> None:
    """As the library does: its own guard is never set."""
    patch.setattr(Changes, "_free", property(lambda self: True))


# --- S12


def unapplied_members() -> None:
    """A sole member took in two more, and lost power when it had not yet noted that anything was committed."""
    stage = Stage(1)
    stage.judge.patient = True
    one = stage.elect(1)
    for raft_id in (2, 3):
        stage.newcomer(raft_id)
    one.changes.admit(stage.managers[2].facts())
    stage.tick(3)
    assert one.membership.members.keys() == {1, 2}
    disk = stage.managers[1].disks.memory_log
    disk.die_at = disk.calls + 1
    one.changes.admit(stage.managers[3].facts())
    stage.tick(3)
    assert stage.managers[1].replica is None
    stage.part({2, 3}, {1})
    stage.elect(2)
    stage.revive(1)
    assert stage.replica(1).applied == 10
    stage.elect(1)
    stage.finish()


def forget_the_log(patch: Patch) -> None:
    """The voters are those of the snapshot until the log is applied."""
    init = Replica.__init__

    def made(self: Replica, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.core.set_voters(self.membership.members.keys() - {self.raft_id})
        self.traffic.voters_changed = False

    patch.setattr(Replica, "__init__", made)


# --- S13


def removed_again() -> None:
    """A follower gets "add 4" and "remove 4" together, and only the first is known to be committed."""
    stage = Stage(3)
    one = stage.elect(1)
    stage.newcomer(4)
    stage.part({1, 2, 4}, {3})
    one.changes.admit(stage.managers[4].facts())
    stage.tick(3)
    assert 4 in stage.replica(2).membership.members
    one.changes.submit(Change(kind=Change.REMOVE, member=stage.managers[4].facts()), Outcome())  # type: ignore[arg-type]
    stage.settle(heartbeat_to(2))
    stage.stop(1)
    stage.stop(4)
    stage.managers[4].removed = True
    stage.part({2, 3}, {1, 4})
    stage.elect(2)
    stage.tick()
    stage.finish()
    assert stage.replica(3).membership.removed == {4}


def apply_changes(patch: Patch) -> None:
    """As the library does: what is applied is done, whatever came after."""
    apply = Guarded._SyncObj__doApplyCommand  # type: ignore[attr-defined]

    def both(self: Guarded, command: bytes) -> None:
        apply(self, command)
        request = self._SyncObj__parseChangeClusterRequest(command)
        if request is not None:
            self._SyncObj__doChangeCluster(request)

    patch.setattr(Guarded, "_SyncObj__doApplyCommand", both)


# --- S14


def wiped_member() -> None:
    """A member votes, loses its disk, and wants to come back under its old raft id; a rival stands in the same term."""
    stage = Stage(3)
    stage.part({1, 2}, {3})
    one = stage.elect(1, keep=lambda a, b, m: isinstance(m, Append))
    stage.stop(2)
    wiped = stage.managers[2]
    wiped.disks = Memory()
    process = new_node(wiped.disks, Recorder(), node_id="node-2", cluster_id="cluster")
    process.adopt(Joined(2, one.members()))
    try:
        process._load(wiped.disks)
    except StorageError:
        wiped.removed = True
    else:
        stage.revive(2)
        stage.tick(3, keep=lambda a, b, m: b == 2 and isinstance(m, Append) and bool(m.entries))
        stage.part({2, 3}, {1})
    stage.elect(3)
    stage.part({1, 3}, {2})
    stage.elect(1)
    stage.replica(1).changes.submit(Change(kind=Change.REMOVE, member=wiped.facts()), Outcome())  # type: ignore[arg-type]
    stage.finish()


def come_back(patch: Patch) -> None:
    """An empty directory is as good as any."""
    patch.setattr(node, "had_a_log", lambda join: False)


# --- S15


def forgotten_vote() -> None:
    """A member votes, crashes, and is asked by somebody else in the same term."""
    stage = Stage(3)
    stage.part({1, 2}, {3})
    stage.elect(1, keep=lambda a, b, m: isinstance(m, Append))
    assert stage.replica(1).core.leading
    stage.stop(2)
    stage.revive(2)
    stage.part({2, 3}, {1})
    stage.elect(3)
    stage.finish()


def vote_in_memory(patch: Patch) -> None:
    """As the library does without a journal."""

    def forget(self: Journal, term: int, voted_for: str | None) -> None:
        self._term, self._voted_for = term, voted_for

    patch.setattr(Journal, "setCurrentTerm", forget)


# --- S16


class Clumsy(Recorder):
    """Does half of the first entry it is given."""

    def apply(self, index: int, request: api.InternalRaftRequest, proposal: Any | None) -> None:
        """See StateMachine."""
        super().apply(index, request, proposal)
        if len(self.applied) == 1:
            raise Clumsiness("half-way")


def failed_apply() -> None:
    """The state machine of a follower fails after it has done half of an entry."""
    stage = Stage(3)
    stage.elect(1)
    stage.managers[2].machine = stage.replica(2)._machine = Clumsy()
    stage.written(1, "one")
    stage.finish()


def raise_through(patch: Patch) -> None:
    """As the library has it: last applied does not move, and its loop goes on."""
    patch.setattr(Guarded, "_SyncObj__doApplyCommand", lambda self, command: self._apply(int(self.raftLastApplied) + 1, command))


# --- S17


def abandoned_write() -> None:
    """A leader is asked for a write, and is none any more before it can append it; later it leads again."""
    stage = Stage(3)
    stage.elect(1)
    stage.part({1}, {2, 3})
    given_up = stage.propose(1, "given up")
    stage.hear(2, 1, HigherTerm(9))
    stage.settle()
    assert given_up.refused
    stage.join_all()
    stage.elect(1)
    stage.finish()


def queue_in_the_library(patch: Patch) -> None:
    """The library's own queue, which waits for a leader as it does unless told otherwise."""

    def submit(self: Replica, request: api.InternalRaftRequest, proposal: Any | None, done: asyncio.Future[int]) -> None:
        self.core.conf.commandsWaitLeader = True
        self.core._applyCommand(request.SerializeToString(), None, Type.STORE)
        self._proposals._queue.append(Waiting(commands.NO_OP, done))

    patch.delattr(Guarded, "_checkCommandsToApply")
    patch.setattr(Replica, "submit", submit)


# --- beyond the list: a sole leader


def counted_unsynced() -> None:
    """A sole member wins its election, and power goes before the next sync."""
    stage = Stage(1)
    stage.replica(1).core.campaign()
    stage.round(stage.managers[1])
    assert stage.replica(1).leads or stage.replica(1).core.leading
    stage.stop(1)
    stage.revive(1)
    stage.elect(1)
    stage.finish()


def count_unsynced(patch: Patch) -> None:
    """As the library does: the entry that opens the term is committed in the tick that appends it."""
    patch.delattr(Guarded, "_SyncObj__onBecomeLeader")


# --- all of them


@dataclass(frozen=True, slots=True)
class Defect:
    """One line of the table above."""

    name: str
    script: Callable[[], None]
    leave_out: Callable[[Patch], None]
    violation: str


LOST = "an acknowledged write is lost|acknowledged writes are lost"
DEFECTS = [
    Defect("S1", votes, count_votes, "two leaders in term 1"),
    Defect("S2", repeated_append, truncate_always, LOST),
    Defect("S3", deposed_leader, believe_commit, "applied differently on member 1"),
    Defect("S4", old_acknowledgement, credit_always, LOST),
    Defect("S5", damaged_snapshot, load_as_the_library, LOST),
    Defect("S6", untrimmed_log, keep_two_entries, LOST),
    Defect("S8", late_snapshot, install_always, "member 2 went back"),
    Defect("S10", phantom, capture_the_moment, "a phantom"),
    Defect("S11", two_joiners, change_freely, LOST),
    Defect("S12", unapplied_members, forget_the_log, "two leaders in term 2"),
    Defect("S13", removed_again, apply_changes, r"member 3 counts \[1, 2, 4\], its log names \[1, 2, 3\]"),
    Defect("S14", wiped_member, come_back, "two leaders in term 1"),
    Defect("S15", forgotten_vote, vote_in_memory, "two leaders in term 1"),
    Defect("S16", failed_apply, raise_through, "applied twice"),
    Defect("sole", counted_unsynced, count_unsynced, "applied differently"),
    Defect("S17", abandoned_write, queue_in_the_library, "refused for certain happened all the same"),
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_with_its_cure_every_script_ends_well(defect: Defect) -> None:
    """No defect shows: nothing is lost, nobody differs, and the cluster goes on. [store 118-124, 127-129, 132, 133]"""
    with quiet():
        defect.script()


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_without_its_cure_a_script_ends_in_a_violation(defect: Defect, monkeypatch: Patch) -> None:
    """Each cure is needed: the same script, with exactly this piece replaced by what the library does, breaks a rule."""
    defect.leave_out(monkeypatch)
    with quiet(), pytest.raises(Violation, match=defect.violation):
        defect.script()


# --- S7

ENTRIES = [(b"entry %d" % i, i, 1) for i in range(1, 21)]


def test_trimming_the_log_may_be_interrupted_anywhere() -> None:
    """Power may go at every step of dropping entries before a snapshot: those after it are all there (S7). [store 124, 125]"""
    step = 1
    while True:
        disk, vault = MemoryDisk(), Vault("c", "n", (b"k" * 32,), 1)
        journal = Journal.create(disk, vault, ENTRIES[0][0])
        for entry in ENTRIES[1:]:
            journal.add(*entry)
        journal.sync()
        disk.die_at = disk.calls + step
        try:
            journal.deleteEntriesTo(10)
            journal.release(10)
            journal.add(b"more", 21, 1)
            journal.sync()
        except PowerCut:
            found = Journal.open_existing(disk.after_crash(), vault)
            assert found is not None
            assert found[-10:] == ENTRIES[-10:]
            step += 1
        else:
            break
    assert step > 1


def test_trimming_the_librarys_own_journal_loses_the_tail(tmp_path: Path, monkeypatch: Patch) -> None:
    """Its file is emptied and written anew: at most moments a crash leaves less than was there (S7)."""
    path = tmp_path / "journal"
    journal = pysyncobj.journal.FileJournal(str(path))
    for entry in ENTRIES[1:]:
        journal.add(*entry)
    states: list[bytes] = []
    write = pysyncobj.journal.ResizableFile.write

    def watched(self: Any, offset: int, values: bytes) -> None:
        write(self, offset, values)
        self.flush()
        states.append(path.read_bytes())

    monkeypatch.setattr(pysyncobj.journal.ResizableFile, "write", watched)
    journal.deleteEntriesTo(9)
    journal._destroy()
    monkeypatch.undo()
    lost = 0
    for state in states:
        path.write_bytes(state)
        found = pysyncobj.journal.FileJournal(str(path))
        lost += found[-10:] != ENTRIES[-10:]
        found._destroy()
    assert lost > len(states) / 2


# --- S9


def big_snapshot() -> raft_pb2.LogSnapshot:
    """One of a few pieces."""
    ends = [raft_pb2.LogEntry(command=b"x", index=i, term=1) for i in (9, 10)]
    nodes = [api.Node(id=f"node-{i}", description=api.NodeDescription(hostname="x" * PIECE_BYTES)) for i in range(4)]
    return raft_pb2.LogSnapshot(
        start=raft_pb2.LogStart(prev=ends[0], last=ends[1]), snapshot=api.Snapshot(store=api.StoreSnapshot(nodes=nodes))
    )


@pytest.mark.parametrize("arrive", range(1, 4))
def test_a_transfer_begins_again_after_a_reconnect(arrive: int) -> None:
    """Whatever was under way when the connection broke, what is put together is the leader's snapshot or nothing (S9). [store 122]"""
    whole, receiver = big_snapshot(), Receiver()
    sender = Sender(random.Random(1), lambda: 10)
    sender.provide(Loaded.of(whole))
    for number in range(3):
        offer = sender.next_piece(2)
        assert offer is not None
        if number < arrive:
            assert receiver.add(offer[0]) is None
    sender.cancel(2)
    found, last = None, False
    while not last:
        offer = sender.next_piece(2)
        assert offer is not None
        assert found is None
        found, last = receiver.add(offer[0]), offer[1]
    assert found is not None
    assert found.open() == whole


def test_the_librarys_transfer_goes_on_in_the_middle() -> None:
    """It reports a snapshot as complete that lacks what was under way (S9)."""
    sender, receiver = (pysyncobj.serializer.Serializer(None, 100, False, None, None, None) for _ in range(2))
    sender._Serializer__inMemorySerializedData = whole = bytes(range(256)) * 4
    complete = False
    for number in range(100):
        piece = sender.getTransmissionData("2")
        if number not in {3, 4}:
            complete = receiver.setTransmissionData(piece)
        if piece[2]:
            break
    assert complete
    assert receiver._Serializer__inMemorySerializedData == whole[:300] + whole[500:]
