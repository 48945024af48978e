"""What one member knows of itself and the others at this moment."""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm.raft.core import Core
from pyswarm.raft.journal import Entry, Journal
from pyswarm.raft.log import Member
from pyswarm.raft.membership import Membership
from pyswarm.raft.peers import Peers
from pyswarm.raft.presence import Presence
from pyswarm.raft.traffic import Traffic
from pyswarm.raft.vault import Identity


class Standing:
    """The part of a replica that only answers. The replica sets and changes all of it."""

    _core: Core
    _journal: Journal
    _membership: Membership
    _identity: Identity
    _presence: Presence
    _election_tick: int
    _announced: int | None
    """The term in which this member leads and has said so."""
    traffic: Traffic
    peers: Peers

    @property
    def core(self) -> Core:
        """The consensus underneath."""
        return self._core

    @property
    def raft_id(self) -> int:
        """This member's id."""
        return self._identity.raft_id

    @property
    def leads(self) -> bool:
        """Leading, caught up, and announced as such."""
        return self._announced is not None

    @property
    def membership(self) -> Membership:
        """The table as of the last applied entry; not to be changed."""
        return self._membership

    @property
    def is_member(self) -> bool:
        """Whether the table names this one."""
        return self._identity.raft_id in self._membership.members

    @property
    def end_of_log(self) -> tuple[int, int]:
        """Index and term of the last entry."""
        return self._journal.last[1:]

    def entry(self, index: int) -> Entry | None:
        """A log entry, None when it is not kept any more (or not there yet)."""
        return self._journal.at(index)

    def entries(self, first: int, last: int) -> Sequence[Entry] | None:
        """The log's entries from `first` to `last`, which must be there; None when some of them are not kept any more."""
        return self._journal.between(first, last)

    def members(self) -> Sequence[Member]:
        """The present members by raft id."""
        own, leader, reachable = self._identity.raft_id, self.leader_id, self.peers.reachable()
        members = dict(self._membership.members)
        if not self._core.voters and not self._core.leader_id:
            members.setdefault(own, self._presence.facts())
        return [Member(i, m.node_id, m.addr, i == leader, i == own or i in reachable) for i, m in sorted(members.items())]

    @property
    def leader_id(self) -> int:
        """Who leads; 0 when that is not known, or it has been silent for two election time-outs."""
        if self._core.leading:
            return self._identity.raft_id if self.leads else 0
        return self._core.leader_id if self.traffic.silent_ticks < 2 * self._election_tick else 0
