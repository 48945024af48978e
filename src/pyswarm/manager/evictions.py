"""Takes managers out of the log that should not be in it any more: demoted ones, and those whose node was removed.

Spec/ca-and-security, section 15. The removal comes first, the role after (see `rolemanager`): a node that is a worker by name but still
counts in the quorum could stop without anyone noticing what that costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from pyswarm.api import v1 as api
from pyswarm.clock import Clock, wait_for
from pyswarm.errors import SwarmError
from pyswarm.manager.store import Commit, Store, View
from pyswarm.raft.log import Member

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5.0
REMOVAL_SECONDS = 5.0


class Membership(Protocol):
    """What is asked of the log: part of `raft.node.RaftNode`."""

    def members(self) -> Sequence[Member]:
        """The present members, this one included."""
        ...

    def on_members(self, callback: Callable[[Sequence[Member]], None]) -> Callable[[], None]:
        """Call back after each change. Returns undo."""
        ...

    async def remove(self, raft_id: int) -> None:
        """Remove a member unless that may cost the quorum; the leader hands over instead of removing itself."""
        ...


def superfluous(view: View, members: Sequence[Member], node_id: str) -> list[Member]:
    """The members to remove, this manager (`node_id`) last: it cannot, and hands leadership over for somebody else to do it."""

    def wanted(member: Member) -> bool:
        node = view.nodes.get(member.node_id)
        return node is not None and node.spec.desired_role == api.NodeRole.MANAGER

    return sorted((m for m in members if not wanted(m)), key=lambda m: (m.node_id == node_id, m.raft_id))


class Evictions:
    """Runs on the leader: `run()` until cancelled."""

    def __init__(self, store: Store, raft: Membership, node_id: str, clock: Clock) -> None:
        self._store = store
        self._raft = raft
        self._node_id = node_id
        self._clock = clock
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Remove what is superfluous, now and after each change; what is refused is tried again every five seconds."""
        undo = [self._store.on_commit(self._on_commit), self._raft.on_members(lambda _: self._changed.set())]
        try:
            while True:
                self._changed.clear()
                left = [m for m in self._superfluous() if not await self._remove(m)]
                await wait_for(self._changed, self._clock, RETRY_SECONDS if left else None)
        finally:
            for step in undo:
                step()

    def _superfluous(self) -> list[Member]:
        return superfluous(self._store, self._raft.members(), self._node_id)

    def _on_commit(self, commit: Commit) -> None:
        if any(isinstance(event.obj, api.Node) for event in commit.events):
            self._changed.set()

    async def _remove(self, member: Member) -> bool:
        """Whether it worked."""
        try:
            async with asyncio.timeout(REMOVAL_SECONDS):
                await self._raft.remove(member.raft_id)
        except (SwarmError, TimeoutError) as error:
            log.info("manager not removed from the log yet", node=member.node_id, reason=str(error) or "timed out")
            return False
        log.info("manager removed from the log", node=member.node_id, raft_id=f"{member.raft_id:x}")
        return True
