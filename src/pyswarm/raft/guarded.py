"""PySyncObj with everything taken out of its hands that it must not do. This module and `core` are the only ones that import it.

It never reads a pickle, never swallows a failed snapshot, never lets an apply error pass, never campaigns by its own timer, and sends
entries our way (spec/store-and-raft, section 21). All of that hangs on private names of one release, so exactly that release is demanded.

The library's clock is a module global, and a process may hold several members (tests run whole clusters): every call into it goes
through `_enter`, which first points that global at this member's clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import pysyncobj.journal
import pysyncobj.pickle
import pysyncobj.syncobj as library
from pysyncobj.config import SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport
from pysyncobj.version import VERSION

from pyswarm.raft import commands, dialect, messages
from pyswarm.raft.errors import ApplyFailed, IncompatibleLibrary, StorageError
from pyswarm.raft.journal import Journal
from pyswarm.raft.snapshots import SnapshotStore
from pyswarm.raft.transfers import Sender

PINNED = "0.3.17"
APPEND_BYTES = 2 << 20
"""Entries per message; with one entry of the largest size more it stays below the 4 MiB that a gRPC message may have."""
SEND_BYTES = 8 << 20
"""Entries per member and round."""
_METHODS = (
    "applyLogEntries", "connectedToAnyone", "doApplyCommand", "doChangeCluster", "generateRaftTimeout", "getCurrentLogIndex",
    "getEntries", "loadDumpFile", "onBecomeLeader", "onMessageReceived", "onNodeConnected", "onNodeDisconnected",
    "onReadonlyNodeConnected", "onReadonlyNodeDisconnected", "parseChangeClusterRequest", "sendAppendEntries", "setCurrentTerm",
    "setState", "tryLogCompaction", "updateClusterConfiguration",
)  # fmt: skip
_ATTRIBUTES = (
    "commandsQueue", "connectedNodes", "lastResponseTime", "lastSerializedEntry", "needLoadDumpFile", "newAppendEntriesTime",
    "noopIDx", "otherNodes", "raftCommitIndex", "raftCurrentTerm", "raftElectionDeadline", "raftLastApplied", "raftLeader",
    "raftLog", "raftMatchIndex", "raftNextIndex", "raftState", "readonlyNodes", "serializer", "transferInProgress", "transport",
    "votedForNodeId",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    heartbeat: float
    election: float


class Outlet(Protocol):
    """Where the library's messages go, and what it says about connections."""

    def send(self, raft_id: int, message: messages.Message) -> None:
        """Hand a message on; it must leave in order, and only when what it rests on is synced."""
        ...

    def connect(self, raft_id: int) -> None:
        """A voter appeared."""
        ...

    def disconnect(self, raft_id: int) -> None:
        """A voter is gone."""
        ...


def check_library(version: str = VERSION) -> None:
    """Refuse any PySyncObj but the pinned one. Raises IncompatibleLibrary."""
    if version != PINNED:
        raise IncompatibleLibrary(f"pyswarm needs PySyncObj {PINNED} exactly, found {version}: pip install pysyncobj=={PINNED}")
    _demand(library.SyncObj, _METHODS)
    _demand_globals()


def refuse_pickles() -> None:
    """Replace the library's unpicklers by functions that raise, wherever they are bound."""
    pysyncobj.pickle.loads = pysyncobj.pickle.load = pysyncobj.journal.loads = _unpickle


def _unpickle(*_args: object) -> NoReturn:
    raise StorageError("refused to unpickle: pyswarm neither writes nor reads pickles")


def _demand(where: object, names: Iterable[str]) -> None:
    missing = [n for n in names if not hasattr(where, f"_SyncObj__{n}")]
    if missing:
        raise _lacking(missing)


def _demand_globals() -> None:
    missing = [n for n in ("monotonicTime", "createJournal") if not hasattr(library, n)]
    if missing:
        raise _lacking(missing)


def _lacking(names: Iterable[str]) -> IncompatibleLibrary:
    listed = ", ".join(sorted(names))
    return IncompatibleLibrary(f"PySyncObj {VERSION} lacks {listed}: pip install --force-reinstall pysyncobj=={PINNED}")


def _create_journal(journal: object) -> Journal:
    """The library asks for a journal by file name; ours comes ready-made in that place."""
    if not isinstance(journal, Journal):
        raise StorageError("PySyncObj was started without a journal of ours")
    return journal


class Peer(Node):  # type: ignore[misc]
    """A member as the library knows it: by its raft id. One object each, so that the library's sets and tables find it at once."""

    def __init__(self, raft_id: int) -> None:
        super().__init__(str(raft_id))
        self.raft_id = raft_id

    def __hash__(self) -> int:
        return self.raft_id

    __eq__ = Node.__eq__


class Wire(Transport):  # type: ignore[misc]
    """The library's transport: hands everything to an Outlet."""

    def __init__(self, outlet: Outlet, term: Callable[[], int]) -> None:
        super().__init__(None, None, [])
        self._outlet = outlet
        self._term = term

    @property
    def ready(self) -> bool:
        """Always: connections are somebody else's business."""
        return True

    def send(self, node: Peer, message: dict[str, Any]) -> bool:
        """Queue a message for a member."""
        self._outlet.send(node.raft_id, dialect.from_library(message, self._term()))
        return True

    def addNode(self, node: Peer) -> None:  # noqa: N802 - the library's name
        """A voter was added to the configuration."""
        self._outlet.connect(node.raft_id)

    def dropNode(self, node: Peer) -> None:  # noqa: N802 - the library's name
        """A voter was removed from the configuration."""
        self._outlet.disconnect(node.raft_id)

    def destroy(self) -> None:
        """Nothing is open here."""


class _NoPoller:
    """The library polls its own sockets each tick; it has none."""

    def poll(self, timeout: float) -> None:
        """Nothing to wait for."""


def _configuration(journal: Journal, timing: Timing) -> SyncObjConf:
    """The library's settings, with the reasons in spec/store-and-raft, section 21.10."""
    return SyncObjConf(
        autoTick=False,
        useFork=False,
        commandsWaitLeader=False,
        commandsQueueSize=0,
        appendEntriesUseBatch=True,
        appendEntriesBatchSizeBytes=2 << 20,
        appendEntriesPeriod=timing.heartbeat,
        raftMinTimeout=max(timing.election, 4 * timing.heartbeat),
        raftMaxTimeout=2 * max(timing.election, 4 * timing.heartbeat),
        connectionTimeout=3 * max(timing.election, 4 * timing.heartbeat),
        leaderFallbackTimeout=1.5 * timing.election,  # not at once after a stall as long as one time-out
        dynamicMembershipChange=True,
        logCompactionMinEntries=10**9,
        logCompactionMinTime=10**9,
        journalFile=journal,
        fullDumpFile=None,
        pollerType="select",
    )


class Guarded(library.SyncObj):  # type: ignore[misc]
    """The library's object under guard; `Core` is what others use.

    `apply` gets (index, command) of each committed entry in order. Its exceptions surface as ApplyFailed and are final.
    """

    def __init__(
        self,
        raft_id: int,
        others: Iterable[int],
        journal: Journal,
        snapshots: SnapshotStore,
        sender: Sender,
        outlet: Outlet,
        timing: Timing,
        clock: Callable[[], float],
        apply: Callable[[int, bytes], None],
    ) -> None:
        check_library()
        refuse_pickles()
        self._clock = clock
        self._journal = journal
        self._sender = sender
        self._outlet = outlet
        self._timing = timing
        self._apply = apply
        self._peers: dict[int, Peer] = {}
        wire = Wire(outlet, lambda: int(self.raftCurrentTerm))
        library.createJournal = _create_journal
        self._enter()
        super().__init__(self.peer(raft_id), [self.peer(o) for o in others], conf=_configuration(journal, timing), transport=wire)
        _demand(self, _ATTRIBUTES)
        self._SyncObj__serializer = snapshots
        self._SyncObj__needLoadDumpFile = False
        self._poller = _NoPoller()

    def _enter(self) -> None:
        library.monotonicTime = self._clock

    def peer(self, raft_id: int) -> Peer:
        """A member in the library's terms."""
        found = self._peers.get(raft_id)
        if found is None:
            found = self._peers[raft_id] = Peer(raft_id)
        return found

    def _checkCommandsToApply(self) -> None:  # noqa: N802 - the library's name
        """Its queue of commands is not used: see `Core.append`."""

    def _SyncObj__generateRaftTimeout(self) -> float:  # noqa: N802 - the library's name
        return float("inf")

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802 - the library's name
        super()._SyncObj__onBecomeLeader()
        if not self._SyncObj__otherNodes:
            self._journal.sync()  # alone, the library counts the entry that opens the term as committed in this very tick

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802 - the library's name
        # the library's own would send pickles of large entries, and repeat "no snapshot yet" without a pause for a whole heartbeat
        self._SyncObj__newAppendEntriesTime = self._clock() + self._timing.heartbeat
        for node in self._SyncObj__otherNodes | self._SyncObj__readonlyNodes:
            if node not in self._SyncObj__connectedNodes:
                self._sender.cancel(node.raft_id)
            elif self._SyncObj__raftNextIndex[node] <= self._journal.first:
                self._send_snapshot(node)
            else:
                self._send_log(node)

    def _send_log(self, node: Peer) -> None:
        """What a member lacks, in messages of bounded size; at least one message, which may be empty."""
        budget = SEND_BYTES
        following = int(self._SyncObj__raftNextIndex[node])
        while True:
            entries = tuple(self._journal.batch(following, APPEND_BYTES))
            prev = self._journal.at(following - 1)
            if prev is None:
                raise StorageError(f"entry {following - 1} is missing from the log")
            self._outlet.send(
                node.raft_id, messages.Append(int(self.raftCurrentTerm), int(self.raftCommitIndex), prev[1], prev[2], entries)
            )
            following += len(entries)
            budget -= sum(len(e[0]) for e in entries)
            self._SyncObj__raftNextIndex[node] = following
            if following > self._journal.last_index or budget <= 0:
                return

    def _send_snapshot(self, node: Peer) -> None:
        """As many pieces as the window allows; a sign of life when there is none to send."""
        sent = 0
        while (offer := self._sender.next_piece(node.raft_id)) is not None:
            piece, last = offer
            self._outlet.send(node.raft_id, dataclasses.replace(piece, term=int(self.raftCurrentTerm)))
            sent += 1
            if last:
                self._SyncObj__raftNextIndex[node] = piece.index + 1
                return
        if not sent:
            self._outlet.send(node.raft_id, messages.Nudge(int(self.raftCurrentTerm), int(self.raftCommitIndex)))

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:  # noqa: N802 - the library's name
        index = int(self.raftLastApplied) + 1
        try:
            self._apply(index, command)
        except Exception as exc:
            raise ApplyFailed(f"log entry {index} could not be applied ({exc!r}): stopping rather than differ from the others") from exc

    def _SyncObj__parseChangeClusterRequest(self, command: bytes) -> list[Any] | None:  # noqa: N802 - the library's name
        if command[0] != commands.Type.VOTERS:
            return None
        change = commands.parse_membership(command)
        if change is None:
            return None
        member = self.peer(change.member.raft_id)
        return ["add" if change.kind == change.ADD else "rem", member.id, member]

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: ARG002, N802, N803 - the library's names
        raise StorageError("the library tried to load a snapshot by itself")
