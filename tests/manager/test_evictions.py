"""Who has to leave the log, and in which order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import FailedPrecondition
from pyswarm.manager.evictions import RETRY_SECONDS, Evictions, superfluous
from pyswarm.manager.rolemanager import RoleManager
from pyswarm.raft.log import Member
from tests.support.clock import VirtualClock
from tests.support.log import running_store

MANAGER, WORKER = api.NodeRole.MANAGER, api.NodeRole.WORKER


class Table:
    """A members' table; `refusing` is how often a removal fails."""

    def __init__(self, *node_ids: str, refusing: int = 0) -> None:
        self.present = [Member(number, node_id, "") for number, node_id in enumerate(node_ids, 1)]
        self.refusing = refusing
        self.attempts = 0
        self._callbacks: list[Callable[[Sequence[Member]], None]] = []

    def members(self) -> Sequence[Member]:
        """The present ones."""
        return tuple(self.present)

    def on_members(self, callback: Callable[[Sequence[Member]], None]) -> Callable[[], None]:
        """As `Log.on_members`."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def remove(self, raft_id: int) -> None:
        """Remove, or refuse."""
        self.attempts += 1
        if self.refusing:
            self.refusing -= 1
            raise FailedPrecondition("raft: member cannot be removed, because removing it may result in loss of quorum")
        self.present = [member for member in self.present if member.raft_id != raft_id]
        for callback in self._callbacks:
            callback(self.present)


def node(node_id: str, desired: api.NodeRole.ValueType, role: api.NodeRole.ValueType = MANAGER) -> api.Node:
    """A node object."""
    return api.Node(id=node_id, role=role, spec=api.NodeSpec(desired_role=desired))


async def test_superfluous() -> None:
    """Demoted members and those without a node object go, this manager itself as the last one."""
    async with running_store() as store:
        for made in (node("a", WORKER), node("b", MANAGER), node("c", WORKER)):
            await store.update(lambda tx, made=made: tx.nodes.create(made))  # type: ignore[misc]
        found = superfluous(store, Table("a", "b", "c", "gone").members(), "a")
        assert [member.node_id for member in found] == ["c", "gone", "a"]


async def test_removal_is_retried(clock: VirtualClock) -> None:
    """A demotion that the quorum does not allow now is tried again every five seconds. [ca 169]"""
    async with running_store(clock) as store:
        await store.update(lambda tx: tx.nodes.create(node("b", WORKER)))
        await store.update(lambda tx: tx.nodes.create(node("a", MANAGER)))
        table = Table("a", "b", refusing=2)
        task = asyncio.create_task(Evictions(store, table, "a", clock).run())
        try:
            await clock.advance(0)
            assert table.attempts == 1
            await clock.advance(RETRY_SECONDS)
            assert table.attempts == 2
            await clock.advance(RETRY_SECONDS)
            assert [member.node_id for member in table.present] == ["a"]
            await clock.advance(10 * RETRY_SECONDS)
            assert table.attempts == 3
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("member", [True, False])
async def test_role_follows_membership(member: bool) -> None:
    """The observed role becomes worker only when the log does not know the node any more. [ca 168]"""
    async with running_store() as store:
        await store.update(lambda tx: tx.nodes.create(node("a", WORKER)))
        decision = RoleManager(lambda _: member).decide(store, "a", 100.0)
        assert bool(decision.changes) is not member
        assert (decision.wake is not None) is member
