"""PySyncObj under guard."""

from __future__ import annotations

import pickle
import random

import pysyncobj.journal
import pysyncobj.pickle
import pysyncobj.syncobj
import pytest

from pyswarm.raft.core import Core, Timing, check_library
from pyswarm.raft.errors import IncompatibleLibrary, StorageError
from pyswarm.raft.journal import Journal
from pyswarm.raft.messages import Message, RequestVote
from pyswarm.raft.snapshots import SnapshotFiles, SnapshotStore
from pyswarm.raft.transfers import Sender
from pyswarm.raft.vault import Vault
from tests.raft.disks import MemoryDisk


class Silent:
    """An outlet that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Message]] = []

    def send(self, raft_id: int, message: Message) -> None:
        """See Outlet."""
        self.sent.append((raft_id, message))

    def connect(self, raft_id: int) -> None:
        """See Outlet."""

    def disconnect(self, raft_id: int) -> None:
        """See Outlet."""


def new_core(others: tuple[int, ...] = (), applied: list[tuple[int, bytes]] | None = None) -> tuple[Core, Journal, Silent]:
    """A core on an empty log in memory."""
    vault = Vault("c", "n", (b"k" * 32,), 1)
    journal = Journal.create(MemoryDisk(), vault)
    store = SnapshotStore(SnapshotFiles(MemoryDisk(), vault), lambda: lambda: None, lambda: 0)  # type: ignore[arg-type,return-value]
    outlet = Silent()
    sink = applied if applied is not None else []
    made = Core(
        1,
        others,
        journal,
        store,
        Sender(random.Random(1), lambda: 0),
        outlet,
        Timing(1.0, 10.0),
        lambda: 100.0,
        lambda i, c: sink.append((i, c)),
    )
    return made, journal, outlet


def test_another_version_is_refused() -> None:
    """Only the release whose private names we know is accepted. [store 140]"""
    check_library()
    with pytest.raises(IncompatibleLibrary, match=r"needs PySyncObj 0\.3\.17 exactly, found 0\.3\.18"):
        check_library("0.3.18")


def test_a_missing_private_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right version with a name missing is refused too. [store 140]"""
    monkeypatch.delattr(pysyncobj.syncobj.SyncObj, "_SyncObj__sendAppendEntries")
    with pytest.raises(IncompatibleLibrary, match="sendAppendEntries"):
        new_core()


def test_no_pickle_is_ever_read() -> None:
    """Every unpickler the library holds raises. [store 139]"""
    new_core()
    for load in (pysyncobj.pickle.loads, pysyncobj.pickle.load, pysyncobj.journal.loads):
        with pytest.raises(StorageError, match="refused to unpickle"):
            load(pickle.dumps("harmless"))


def test_a_sole_member_leads_when_told_to_campaign() -> None:
    """Without others one tick elects and commits the empty entry; without being told nothing ever happens."""
    made, journal, _ = new_core()
    for _ in range(100):
        made.tick()
    assert not made.leading
    made.campaign()
    made.tick()
    assert made.leading
    assert made.caught_up
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (1, "1")


def test_appending_gives_index_and_term_and_leaves_nothing_queued() -> None:
    """A command is in the log at once or not at all. [store 132]"""
    applied: list[tuple[int, bytes]] = []
    made, journal, _ = new_core(applied=applied)
    with pytest.raises(RuntimeError):
        made.append(b"dx")
    made.campaign()
    made.tick()
    assert made.append(b"dx") == (3, 1)
    assert journal.last == (b"dx", 3, 1)
    made.tick()
    assert applied[-1] == (3, b"dx")
    assert made.applied == 3


def test_others_are_asked_for_votes_and_term_is_durable_before() -> None:
    """A candidate's vote requests go out through the outlet, after term and own vote are on disk."""
    made, journal, outlet = new_core(others=(2, 3))
    made._SyncObj__onNodeConnected(made.peer(2))
    made.campaign()
    made.tick()
    assert {to for to, m in outlet.sent if isinstance(m, RequestVote)} == {2, 3}
    assert journal.getCurrentTerm() == 1
    assert not made.leading
