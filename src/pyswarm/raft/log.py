"""The contract between the replicated log and those who use it: the store below, the manager above."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pyswarm.api import v1 as api
from pyswarm.errors import Unknown


class ProposalError(Unknown):
    """A write that did not, or not certainly, take effect. `uncertain` tells which (spec/store-and-raft, section 13)."""

    uncertain = False


class NodeStopped(ProposalError):
    """This node is not (or no longer) a member."""

    def __init__(self) -> None:
        super().__init__("raft: failed to process the request: node is stopped")


class LostLeadership(ProposalError):
    """This node does not lead. With `uncertain` the entry may still commit later."""

    def __init__(self, *, uncertain: bool = False) -> None:
        super().__init__("raft: failed to process the request: node lost leader status")
        self.uncertain = uncertain


class TooLarge(ProposalError):
    """The entry exceeds 1.5 MiB."""

    def __init__(self) -> None:
        super().__init__("raft: raft message is too large and can't be sent")


class StateMachine(Protocol):
    """What the log drives. All calls come from the event loop, in log order; none may raise (a failure ends the process)."""

    def apply(self, index: int, request: api.InternalRaftRequest, proposal: Any | None) -> None:
        """Apply a committed entry. `proposal` is the object handed to `propose` when the entry is this process's own and still awaited."""
        ...

    def capture(self) -> Callable[[], api.StoreSnapshot]:
        """An immutable view of the present state; the returned function builds the message and is safe to call in another thread."""
        ...

    def restore(self, snapshot: api.StoreSnapshot) -> None:
        """Make the state equal to the snapshot."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """A manager in the log's membership. `raft_id` is never reused; `node_id` is the certificate's CN."""

    raft_id: int
    node_id: str
    addr: str
    leader: bool = False
    reachable: bool = True


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
        """Return when everything committed before the call is applied here and this node still leads. Raises LostLeadership."""
        ...

    def members(self) -> Sequence[Member]:
        """The present members, this one included."""
        ...

    def on_leadership(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Call back with True when leading and caught up, with False when that ends, before any waiting proposal fails. Returns undo."""
        ...

    def on_members(self, callback: Callable[[Sequence[Member]], None]) -> Callable[[], None]:
        """Call back with the new list after each membership change. Returns undo."""
        ...
