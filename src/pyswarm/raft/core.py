"""PySyncObj, driven by hand and kept on a short leash. The only module that imports it.

The library decides elections, replication and commitment. What it must not do is taken out of its hands here: it never reads a pickle,
never swallows a failed snapshot, never lets an apply error pass, never campaigns by its own timer, never queues a command
(spec/store-and-raft, section 21). All of that hangs on private names of one release, so exactly that release is demanded at start.

The library is one clock-reading object among possibly many in a process (tests run whole clusters), but its clock is a module global:
every call into it goes through `_enter`, which first points that global at this core's clock.
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
from pyswarm.raft.journal import Entry, Journal
from pyswarm.raft.snapshots import SnapshotStore
from pyswarm.raft.transfers import Sender

PINNED = "0.3.17"
APPEND_BYTES = 2 << 20
"""Entries per message; with one entry of the largest size more it stays below the 4 MiB that a gRPC message may have."""
SEND_BYTES = 8 << 20
"""Entries per member and round."""
_CANDIDATE = 1
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

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        """Queue a message for a member."""
        self._outlet.send(int(node.id), dialect.from_library(message, self._term()))
        return True

    def addNode(self, node: Node) -> None:  # noqa: N802 - the library's name
        """A voter was added to the configuration."""
        self._outlet.connect(int(node.id))

    def dropNode(self, node: Node) -> None:  # noqa: N802 - the library's name
        """A voter was removed from the configuration."""
        self._outlet.disconnect(int(node.id))

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
        leaderFallbackTimeout=timing.election,
        dynamicMembershipChange=True,
        logCompactionMinEntries=10**9,
        logCompactionMinTime=10**9,
        journalFile=journal,
        fullDumpFile=None,
        pollerType="select",
    )


class Core(library.SyncObj):  # type: ignore[misc]
    """One member's consensus. Everything runs on the caller's thread; nothing here waits.

    `apply` gets (index, command) of each committed entry in order. Its exceptions surface from `tick` as ApplyFailed and are final.
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
        self._wire = Wire(outlet, lambda: self.term)
        library.createJournal = _create_journal
        self._enter()
        super().__init__(Node(str(raft_id)), [Node(str(o)) for o in others], conf=_configuration(journal, timing), transport=self._wire)
        _demand(self, _ATTRIBUTES)
        self._SyncObj__serializer = snapshots
        self._SyncObj__needLoadDumpFile = False
        self._poller = _NoPoller()

    def start_from(self, applied: int) -> None:
        """Say that the state machine holds a snapshot of everything up to `applied`. Before the first tick only."""
        self._SyncObj__raftLastApplied = applied
        self._SyncObj__raftCommitIndex = max(applied, self.committed)
        self._SyncObj__lastSerializedEntry = applied - 1
        self._journal.reveal()

    # --- driving

    def append(self, command: bytes) -> tuple[int, int]:
        """Add an entry of this leader's term to the log; its (index, term). The caller checks leadership first.

        Bypasses the library's command queue, which would keep a command for a later term when this one ends (section 21.4, S17).
        """
        if not self.leading:
            raise RuntimeError("only a leader appends")
        index, term = self._journal.last[1] + 1, self.term
        if command[0] == commands.Type.VOTERS:
            self._SyncObj__doChangeCluster(self._SyncObj__parseChangeClusterRequest(command))
        self._journal.add(command, index, term)
        return index, term

    def tick(self) -> None:
        """Elections, commitment, apply, snapshots: whatever is due."""
        self._enter()
        self.doTick(0.0)

    def receive(self, sender: int, message: messages.Message) -> None:
        """Let the library act on a message. Only what the filter delivers may come here."""
        self._enter()
        self._SyncObj__onMessageReceived(Node(str(sender)), dialect.to_library(message))

    def connected(self, raft_id: int) -> None:
        """Messages to a voter can be sent from now on."""
        self._SyncObj__onNodeConnected(Node(str(raft_id)))

    def disconnected(self, raft_id: int) -> None:
        """Messages to a voter are lost from now on."""
        self._SyncObj__onNodeDisconnected(Node(str(raft_id)))
        self._sender.cancel(raft_id)

    def heard(self, raft_id: int) -> None:
        """A member is busy with what it was sent: it counts as reachable for the leader's check-quorum."""
        self._enter()
        self._SyncObj__lastResponseTime[Node(str(raft_id))] = self._clock()

    def install(self, prev: Entry, last: Entry, others: Iterable[int]) -> None:
        """The state machine holds a snapshot that ends with `last`: forget the log before and continue from there."""
        self._journal.restart(prev, last)
        self._SyncObj__raftLastApplied = last[1]
        self._SyncObj__raftCommitIndex = last[1]
        self._journal.setRaftCommitIndex(last[1])
        self._SyncObj__lastSerializedEntry = prev[1]
        self._SyncObj__updateClusterConfiguration([Node(str(o)) for o in others])

    def send_entries(self) -> None:
        """Send what the others lack, or a heartbeat, now."""
        self._enter()
        self._SyncObj__sendAppendEntries()

    def campaign(self) -> None:
        """Stand for election in the next tick."""
        self._SyncObj__raftElectionDeadline = float("-inf")

    def snapshot(self) -> None:
        """Begin a snapshot in the next tick."""
        self.forceLogCompaction()

    # --- state

    @property
    def leading(self) -> bool:
        """Whether this member is leader of its term; being caught up is another matter."""
        return bool(self._isLeader())

    @property
    def leader_id(self) -> int:
        """Raft id of the leader last heard of, 0 without one."""
        leader = self._getLeader()
        return 0 if leader is None else int(leader.id)

    @property
    def term(self) -> int:
        """Current term."""
        return int(self.raftCurrentTerm)

    @property
    def committed(self) -> int:
        """Index up to which the log is known to be final."""
        return int(self.raftCommitIndex)

    @property
    def applied(self) -> int:
        """Index of the last applied entry."""
        return int(self.raftLastApplied)

    @property
    def caught_up(self) -> bool:
        """Leading, and everything up to the empty entry that opened the term is applied."""
        return self.leading and self.applied >= self._SyncObj__noopIDx

    @property
    def campaigning(self) -> bool:
        """Whether this member stands for election."""
        return bool(self._SyncObj__raftState == _CANDIDATE)

    @property
    def voters(self) -> set[int]:
        """Raft ids of the other voters."""
        return {int(n.id) for n in self.otherNodes}

    @property
    def matched(self) -> dict[int, int]:
        """Per member that gets entries: up to where its log is known to equal this one. Meaningful on a leader."""
        return {int(n.id): int(i) for n, i in self._SyncObj__raftMatchIndex.items()}

    # --- taken out of the library's hands

    def _enter(self) -> None:
        library.monotonicTime = self._clock

    def _SyncObj__generateRaftTimeout(self) -> float:  # noqa: N802 - the library's name
        return float("inf")

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802 - the library's name
        # the library's own would send pickles of large entries, and repeat "no snapshot yet" without a pause for a whole heartbeat
        self._SyncObj__newAppendEntriesTime = self._clock() + self._timing.heartbeat
        for node in self._SyncObj__otherNodes | self._SyncObj__readonlyNodes:
            if node not in self._SyncObj__connectedNodes:
                self._sender.cancel(int(node.id))
            elif self._SyncObj__raftNextIndex[node] <= self._journal.first:
                self._send_snapshot(node)
            else:
                self._send_log(node)

    def _send_log(self, node: Node) -> None:
        """What a member lacks, in messages of bounded size; at least one message, which may be empty."""
        budget = SEND_BYTES
        following = int(self._SyncObj__raftNextIndex[node])
        while True:
            entries = tuple(self._journal.batch(following, APPEND_BYTES))
            prev = self._journal.at(following - 1)
            if prev is None:
                raise StorageError(f"entry {following - 1} is missing from the log")
            self._outlet.send(int(node.id), messages.Append(self.term, self.committed, prev[1], prev[2], entries))
            following += len(entries)
            budget -= sum(len(e[0]) for e in entries)
            self._SyncObj__raftNextIndex[node] = following
            if following > self._journal.last_index or budget <= 0:
                return

    def _send_snapshot(self, node: Node) -> None:
        """As many pieces as the window allows; a sign of life when there is none to send."""
        sent = 0
        while (offer := self._sender.next_piece(int(node.id))) is not None:
            piece, last = offer
            self._outlet.send(int(node.id), dataclasses.replace(piece, term=self.term))
            sent += 1
            if last:
                self._SyncObj__raftNextIndex[node] = piece.index + 1
                return
        if not sent:
            self._outlet.send(int(node.id), messages.Nudge(self.term, self.committed))

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
        raft_id = str(change.member.raft_id)
        return ["add" if change.kind == change.ADD else "rem", raft_id, Node(raft_id)]

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: ARG002, N802, N803 - the library's names
        raise StorageError("the library tried to load a snapshot by itself")
