"""Who is a manager: the replicated table of members and of raft ids that are gone for good. Pure.

The table changes when an entry is applied. The set of voters changes already when an entry is appended (spec/store-and-raft, section 21.9);
`voters` computes that set from a table and the entries behind it.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.errors import InvalidArgument
from pyswarm.raft import commands

Change = raft_pb2.MembershipChange


class Membership:
    """Members by raft id, and the removed ids.

    `era` tells a cluster that began anew from one manager from what it was before: that one may not have known every raft id of then.
    """

    def __init__(self, snapshot: api.ClusterSnapshot | None = None, era: int = 0) -> None:
        self.members: dict[int, api.RaftMember] = {}
        self.removed: set[int] = set()
        self.era = era
        if snapshot is not None:
            self.members = {m.raft_id: _facts(m) for m in snapshot.members}
            self.removed = set(snapshot.removed)

    def snapshot(self) -> api.ClusterSnapshot:
        """The table as a message, in a fixed order."""
        return api.ClusterSnapshot(members=[self.members[i] for i in sorted(self.members)], removed=sorted(self.removed))

    def replace(self, other: Membership) -> None:
        """Become equal to another table."""
        self.members, self.removed, self.era = dict(other.members), set(other.removed), other.era

    def check(self, change: Change) -> None:
        """Raise InvalidArgument when a change must not be proposed (texts: spec section 14.3)."""
        raft_id = change.member.raft_id
        if raft_id in self.removed:
            raise InvalidArgument("membership: node was removed during cluster lifetime")
        if change.kind == Change.ADD:
            if raft_id in self.members:
                raise InvalidArgument("membership: can't add node to cluster, node id is a duplicate")
        elif change.kind in {Change.REMOVE, Change.UPDATE}:
            if raft_id not in self.members:
                raise InvalidArgument("membership: member not found in cluster list")
        elif change.kind != Change.RESET:
            raise InvalidArgument("membership: ConfChange type should be either AddNode, RemoveNode or UpdateNode")

    def apply(self, change: Change) -> None:
        """Take a committed change in. One that does not fit any more changes nothing: every manager decides the same."""
        raft_id = change.member.raft_id
        if change.kind == Change.REMOVE:
            self.members.pop(raft_id, None)
            self.removed.add(raft_id)
        elif change.kind == Change.RESET:
            self.removed |= self.members.keys() - {raft_id}
            self.members = {raft_id: _facts(change.member)}
            self.era = change.era
        elif change.kind in {Change.ADD, Change.UPDATE} and raft_id not in self.removed:
            known = self.members.get(raft_id)
            if known is None or known.node_id == change.member.node_id:
                self.members[raft_id] = _facts(change.member)


def voters(table: Membership, later: Iterable[bytes]) -> Membership:
    """The table as it will be when the given commands, which follow it in the log, are all applied: its members are the voters."""
    result = Membership(table.snapshot())
    for command in later:
        change = commands.parse_membership(command)
        if change is not None:
            result.apply(change)
    return result


def _facts(member: api.RaftMember) -> api.RaftMember:
    """Only what is replicated."""
    return api.RaftMember(raft_id=member.raft_id, node_id=member.node_id, addr=member.addr)
