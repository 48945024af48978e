"""Two small decisions of a member about itself: when to stand for election, and when its entry in the members' table is wrong. Pure."""

from __future__ import annotations

import random

from pyswarm.api import v1 as api
from pyswarm.raft import commands
from pyswarm.raft.membership import Change, Membership
from pyswarm.raft.vault import Identity


class Patience:
    """How many silent ticks to wait for a leader: drawn anew each time, less than twice `election_tick`.

    At least a third more than that, so that a leader that was busy for one election time-out, and is heard a heartbeat later, stays.
    """

    def __init__(self, election_tick: int, chance: random.Random) -> None:
        self._election = election_tick
        self._chance = chance
        self.draw()

    def draw(self) -> None:
        """Wait for another random time."""
        self.ticks = self._chance.randint(self._election + self._election * 3 // 10, 2 * self._election - 1)

    def within(self, *, alone: bool) -> int:
        """How many ticks that is; `alone`: the connection to the leader is gone too, so it is hardly just slow."""
        return self.ticks - max(0, self.ticks - self._election) // 2 if alone else self.ticks

    def draw_short(self) -> None:
        """After an election that may have no winner: nobody leads, so there is nobody to give time to."""
        self.ticks = self._chance.randint(2, max(2, self._election - 2))


class Presence:
    """Whether the replicated table says what is true about this member. A leader corrects its own entry, asking once per term."""

    def __init__(self, identity: Identity, addr: str) -> None:
        self._identity = identity
        self._addr = addr
        self._current = False
        self._asked_in = 0

    def look(self, table: Membership) -> None:
        """The replicated table has changed."""
        member = table.members.get(self._identity.raft_id)
        self._current = member is not None and (not self._addr or member.addr == self._addr)

    def move(self, addr: str, table: Membership) -> None:
        """This member is reached elsewhere from now on."""
        self._addr, self._asked_in = addr, 0
        self.look(table)

    def due(self, leading_in: int | None) -> bool:
        """Whether this member, leader of a term (or not), should propose its entry."""
        return leading_in is not None and not self._current and self._asked_in != leading_in

    def entry(self, term: int) -> bytes:
        """The command to propose."""
        self._asked_in = term
        return commands.membership(Change(kind=Change.UPDATE, member=self.facts()))

    def facts(self) -> api.RaftMember:
        """This member as it knows itself."""
        return api.RaftMember(raft_id=self._identity.raft_id, node_id=self._identity.node_id, addr=self._addr)
