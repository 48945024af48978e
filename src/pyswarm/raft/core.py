"""One member's consensus: what the rest of the room may ask of PySyncObj, in our own words and types."""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm.raft import commands, dialect, messages
from pyswarm.raft.guarded import Guarded, Outlet, Timing, check_library
from pyswarm.raft.journal import Entry

__all__ = ["Core", "Outlet", "Timing", "check_library"]

_CANDIDATE, _LEADER = 1, 2


class Core(Guarded):
    """One member's consensus. Everything runs on the caller's thread; nothing here waits."""

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
        self._SyncObj__raftElectionDeadline = float("inf")  # an election that could not begin now is not to begin by itself later

    def receive(self, sender: int, message: messages.Message) -> None:
        """Let the library act on a message. Only what the filter delivers may come here."""
        self._enter()
        self._SyncObj__onMessageReceived(self.peer(sender), dialect.to_library(message))

    def connected(self, raft_id: int) -> None:
        """Messages to a voter can be sent from now on."""
        self._SyncObj__onNodeConnected(self.peer(raft_id))

    def disconnected(self, raft_id: int) -> None:
        """Messages to a voter are lost from now on."""
        self._SyncObj__onNodeDisconnected(self.peer(raft_id))
        self._sender.cancel(raft_id)

    def learner_connected(self, raft_id: int) -> None:
        """Send the log to a member that does not vote, and follow how far it gets."""
        self._SyncObj__onReadonlyNodeConnected(self.peer(raft_id))

    def learner_disconnected(self, raft_id: int) -> None:
        """No longer: it is gone, or about to become a voter."""
        self._SyncObj__onReadonlyNodeDisconnected(self.peer(raft_id))
        self._sender.cancel(raft_id)

    def set_voters(self, others: Iterable[int]) -> None:
        """Make the other voters exactly these."""
        self._enter()
        wanted = set(others)
        for raft_id in wanted - self.voters:
            self._SyncObj__doChangeCluster(["add", str(raft_id), self.peer(raft_id)])
        for raft_id in self.voters - wanted:
            self._SyncObj__doChangeCluster(["rem", str(raft_id), self.peer(raft_id)])

    def heard(self, raft_id: int) -> None:
        """A member is busy with what it was sent: it counts as reachable for the leader's check-quorum."""
        self._enter()
        self._SyncObj__lastResponseTime[self.peer(raft_id)] = self._clock()

    def install(self, prev: Entry, last: Entry, others: Iterable[int]) -> None:
        """The state machine holds a snapshot that ends with `last`: forget the log before and continue from there."""
        self._journal.restart(prev, last)
        self._SyncObj__raftLastApplied = last[1]
        self._SyncObj__raftCommitIndex = last[1]
        self._journal.setRaftCommitIndex(last[1])
        self._SyncObj__lastSerializedEntry = prev[1]
        self._SyncObj__updateClusterConfiguration([self.peer(o) for o in others])

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
        return bool(self._SyncObj__raftState == _LEADER)

    @property
    def leader_id(self) -> int:
        """Raft id of the leader last heard of, 0 without one."""
        leader = self._SyncObj__raftLeader
        return 0 if leader is None else int(leader.raft_id)

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
        return {n.raft_id for n in self._SyncObj__otherNodes}

    @property
    def matched(self) -> dict[int, int]:
        """Per member that gets entries: up to where its log is known to equal this one. Meaningful on a leader."""
        return {n.raft_id: i for n, i in self._SyncObj__raftMatchIndex.items()}
