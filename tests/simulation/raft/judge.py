"""What must hold: at every moment, and in the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyswarm.raft import commands
from pyswarm.raft.membership import Membership, voters
from pyswarm.raft.replica import Replica
from tests.simulation.raft.clients import Clients, step
from tests.support.linear import explain

if TYPE_CHECKING:
    from tests.simulation.raft.cluster import Manager


class Violation(AssertionError):
    """An invariant does not hold."""


class Judge:
    """Remembers what was applied where."""

    def __init__(self) -> None:
        self.history: dict[int, tuple[bytes, int]] = {}
        """Per index: command and term of the entry that was applied."""
        self.known_in: dict[int, int] = {}
        """Per index: the term of who applied it first. It was committed in that term or before; its own term may be much older."""
        self.tables: dict[int, Any] = {}
        self.leaders: dict[int, int] = {}
        """Per term: who led."""
        self.installed = 0
        self.patient = False
        """Let a member count wrongly, and see what comes of it."""

    def look(self, manager: Manager, replica: Replica) -> None:
        """After a round of a member."""
        core = replica.core
        if core.leading and core.term not in self.leaders:
            self.leaders[core.term] = manager.raft_id
            self._complete(replica)
        if core.leading and self.leaders[core.term] != manager.raft_id:
            raise Violation(f"two leaders in term {core.term}")
        if core.applied < manager.checked:
            raise Violation(f"member {manager.raft_id} went back from entry {manager.checked} to {core.applied}")
        if core.applied > manager.checked:
            self._applied(manager, replica)
        if not self.patient:
            self._counted(manager, replica)

    def _complete(self, replica: Replica) -> None:
        """A new leader has every entry that was committed in an earlier term.

        What a later leader committed it need not have, even if the entry is older: votes may have been on their way for long.
        """
        first, term = replica.core.applied, replica.core.term
        for index, known in self.history.items():
            if index > first and self.known_in[index] < term:
                entry = replica.entry(index)
                if entry is None or (entry[0], entry[2]) != known:
                    raise Violation(f"the leader of term {term} does not have committed entry {index}: an acknowledged write is lost")

    def _applied(self, manager: Manager, replica: Replica) -> None:
        for index in range(manager.checked + 1, replica.core.applied + 1):
            entry = replica.entry(index)
            if entry is None:
                self.installed += 1
                break
            known = self.history.setdefault(index, (entry[0], entry[2]))
            self.known_in.setdefault(index, replica.core.term)
            if known != (entry[0], entry[2]):
                raise Violation(f"entry {index} was applied differently on member {manager.raft_id}")
        manager.checked = replica.core.applied
        table = _table(replica.membership)
        if self.tables.setdefault(manager.checked, table) != table:
            raise Violation(f"member {manager.raft_id} has another members' table after entry {manager.checked}: a phantom")

    def _counted(self, manager: Manager, replica: Replica) -> None:
        """Whom a member counts is what its table and its log together say; and never are there two changes of that under way."""
        core = replica.core
        first = core.applied + 1
        later = [entry for i in range(first, replica.end_of_log[0] + 1) if (entry := replica.entry(i)) is not None]
        changes = [entry[0] for entry in later if entry[0][0] == commands.Type.VOTERS]
        table = voters(replica.membership, changes) if changes else replica.membership
        if core.voters != table.members.keys() - {manager.raft_id}:
            raise Violation(f"member {manager.raft_id} counts {sorted(core.voters)}, its log names {sorted(table.members)}")
        if core.leading and sum(entry[1] > core.committed and entry[0][0] == commands.Type.VOTERS for entry in later) > 1:
            raise Violation(f"two changes of the voters are under way on member {manager.raft_id}")

    def conclude(self, members: Sequence[Manager], clients: Clients) -> None:
        """In the end: every acknowledged write is everywhere, once, in one order, and reads saw what was there."""
        order: list[str] = max((m.machine.names for m in members), key=len)
        for manager in members:
            names = manager.machine.names
            if names != order[: len(names)]:
                raise Violation(f"member {manager.raft_id} has another state")
            if len(set(names)) != len(names):
                raise Violation("a write was applied twice")
            if missing := {w.name for w in clients.writes if w.index is not None} - set(names):
                raise Violation(f"acknowledged writes are lost on member {manager.raft_id}: {sorted(missing)[:3]}")
        written = set(order)
        if written - {w.name for w in clients.writes}:
            raise Violation("a write appeared that was never proposed")
        if back := written & {w.name for w in clients.writes if w.refused}:
            raise Violation(f"writes that were refused for certain happened all the same: {sorted(back)[:3]}")
        if explain(clients.history(order), 0, step) is None:
            raise Violation("writes and reads have no order that explains what they were told: something old was read as fresh")


def _table(membership: Membership) -> Any:
    return sorted((m.raft_id, m.node_id, m.addr) for m in membership.members.values()), sorted(membership.removed)
