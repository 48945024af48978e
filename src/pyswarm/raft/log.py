"""The contract between the replicated log and those who use it: the store below, the manager above."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pyswarm.api import v1 as api
from pyswarm.errors import Unknown


class ProposalError(Unknown):
    """A write that did not, or not certainly, take effect. `uncertain` tells which (spec/store-and-raft, section 13)."""

    uncertain = False


class NodeStopped(ProposalError):
    """This node is not (or no longer) a member. With `uncertain` the entry was on its way, and may commit later."""

    def __init__(self, *, uncertain: bool = False) -> None:
        super().__init__("raft: failed to process the request: node is stopped")
        self.uncertain = uncertain


class LostLeadership(ProposalError):
    """This node does not lead. With `uncertain` the entry may still commit later."""

    def __init__(self, *, uncertain: bool = False) -> None:
        super().__init__("raft: failed to process the request: node lost leader status")
        self.uncertain = uncertain


class TooLarge(ProposalError):
    """The entry exceeds 1.5 MiB."""

    def __init__(self) -> None:
        super().__init__("raft: raft message is too large and can't be sent")


class Dropped(ProposalError):
    """Leadership is being handed over; nothing was appended."""

    def __init__(self) -> None:
        super().__init__("raft proposal dropped")


class Compacted(Unknown):
    """Entries that were asked for are not kept any more."""

    def __init__(self) -> None:
        super().__init__("requested index is unavailable due to compaction")


class StateMachine(Protocol):
    """What the log drives. All calls come from the event loop, in log order; none may raise (a failure ends the process)."""

    def apply(self, index: int, request: api.InternalRaftRequest, proposal: Any | None) -> None:
        """Apply a committed entry. `proposal` is the object handed to `propose` when the entry is this process's own and still awaited."""
        ...

    def capture(self) -> Callable[[], api.StoreSnapshot]:
        """An immutable view of the present state; the returned function builds the message and is safe to call in another thread."""
        ...

    def prepare(self, snapshot: api.StoreSnapshot) -> Callable[[], None]:
        """Do what takes long before the state can become that of the snapshot, in any thread; then call what is returned on the loop."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """A manager in the log's membership. `raft_id` is never reused; `node_id` is the certificate's CN."""

    raft_id: int
    node_id: str
    addr: str
    leader: bool = False
    reachable: bool = True


def shortage(members: Sequence[Member], leaving: str) -> str:
    """Why a member (by node id) may not leave, in numbers; empty when enough others can be reached (spec/store-and-raft, section 14.2).

    Enough is a majority of those that would remain, so that they can go on; how many of them may fail after that is another matter.
    """
    others = [member for member in members if member.node_id != leaving]
    reachable, needed = sum(member.reachable for member in others), len(others) // 2 + 1
    if reachable >= needed:
        return ""
    return (
        f"{len(members)} managers, {sum(member.reachable for member in members)} reachable; of the {len(others)} that would remain "
        f"{reachable} can be reached, and a quorum needs {needed}"
    )


@dataclass(frozen=True, slots=True)
class Joined:
    """The answer to a manager that joins: its raft id, who is there, and which raft ids are gone for good."""

    raft_id: int
    members: Sequence[Member]
    removed: Sequence[int] = ()


class Log(Protocol):
    """The door: what the store and the manager may ask of the replicated log. Event loop only."""

    @property
    def applied_index(self) -> int:
        """Index of the last applied entry; the version that a transaction beginning now will carry."""
        ...

    @property
    def is_leader(self) -> bool:
        """Leading and caught up: proposals are accepted."""
        ...

    async def propose(self, request: api.InternalRaftRequest, proposal: Any | None = None) -> int:
        """Replicate one entry; returns its index after `StateMachine.apply` ran for it. The log sets `request.id`.

        Raises LostLeadership, NodeStopped, TooLarge. An outcome that is not known is raised with `uncertain` set, never hidden.
        """
        ...

    async def read_barrier(self) -> None:
        """Return when everything committed before the call is applied here, and nobody else had been elected by then: a read is current.

        Costs a round trip to a majority, shared by all who wait, and no entry. Raises LostLeadership, never `uncertain`.
        """
        ...

    def history(self, after: int) -> Iterable[tuple[int, api.InternalRaftRequest]]:
        """The applied writes behind an index, each with its own, as they are at the moment of the call; read as they are taken.

        Raises Compacted, and Unknown for an index that is not applied here yet.
        """
        ...

    def members(self) -> Sequence[Member]:
        """The present members, this one included."""
        ...

    def on_leadership(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Call back with True when leading and caught up, with False when that ends, before any waiting proposal fails. Returns undo."""
        ...

    def on_members(self, callback: Callable[[Sequence[Member]], None]) -> Callable[[], None]:
        """Call back with the new list after each change of the members or of who leads. Returns undo."""
        ...

    def on_removed(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once when this manager is no member any more, however it got to know. Returns undo."""
        ...

    def leader(self) -> Member | None:
        """Who leads, as far as this manager knows; None when nobody does, or the leader has been silent for too long."""
        ...

    async def join(self, node_id: str, addr: str) -> Joined:
        """Take a manager in; on the leader. Answers as soon as its raft id is known: it then gets the log, and votes once it is caught up.

        Raises LostLeadership, and FailedPrecondition when the manager cannot be reached at `addr`, or takes the place of one that lost its
        log and whose removal would cost the quorum.
        """
        ...

    async def remove(self, raft_id: int) -> None:
        """Remove a member for good; on the leader. Fine if it is removed already.

        Raises LostLeadership (also for the own id, after handing leadership over), FailedPrecondition when too few would remain reachable,
        InvalidArgument for an id that never was.
        """
        ...

    def can_remove(self, raft_id: int) -> bool:
        """Whether enough reachable members would remain."""
        ...

    async def transfer_leadership(self) -> None:
        """Let another member lead; returns when one does. Raises LostLeadership, FailedPrecondition (nobody there), DeadlineExceeded."""
        ...
