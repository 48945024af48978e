"""A log that commits at once: what store tests put where raft would be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.clock import Clock
from pyswarm.errors import FailedPrecondition, Unknown
from pyswarm.manager.store import Store
from pyswarm.raft.log import Compacted, Joined, LostLeadership, Member, TooLarge
from tests.support.clock import VirtualClock


class MemoryLog:
    """Implements `raft.log.Log` for one member; keeps the entries. `leading=False` refuses; `step` is how far the index moves per entry."""

    def __init__(self, store: Store, step: int = 1) -> None:
        self.store = store
        self.entries: list[api.InternalRaftRequest] = []
        self.leading = True
        self.step = step
        self.compacted = 0
        self._index = 0

    @property
    def applied_index(self) -> int:
        """Grows by `step` per entry."""
        return self._index

    @property
    def is_leader(self) -> bool:
        """As set."""
        return self.leading

    async def propose(self, request: api.InternalRaftRequest, proposal: Any | None = None) -> int:
        """Commit and apply at once, after letting others run (as a real log would)."""
        await asyncio.sleep(0)
        if not self.leading:
            raise LostLeadership
        if request.ByteSize() > defaults.MAX_TRANSACTION_BYTES:
            raise TooLarge
        self._index += self.step
        kept = api.InternalRaftRequest.FromString(request.SerializeToString())
        self.entries.append(kept)
        self.store.apply(self._index, kept, proposal)
        return self._index

    async def read_barrier(self) -> None:
        """Nothing to wait for."""
        if not self.leading:
            raise LostLeadership

    def history(self, after: int) -> list[tuple[int, api.InternalRaftRequest]]:
        """All that came after; `compacted` says up to where nothing is kept."""
        if after > self._index:
            raise Unknown("versions are out of order")
        if after < self.compacted:
            raise Compacted
        return [(i, kept) for i, kept in ((n * self.step, kept) for n, kept in enumerate(self.entries, 1)) if i > after]

    def members(self) -> Sequence[Member]:
        """Itself."""
        return (Member(raft_id=1, node_id="node-1", addr="127.0.0.1:4242", leader=True),)

    def on_leadership(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Always leading."""
        callback(True)
        return lambda: None

    def on_members(self, callback: Callable[[Sequence[Member]], None]) -> Callable[[], None]:
        """Never changes."""
        return lambda: None

    def on_removed(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Never happens."""
        return lambda: None

    def leader(self) -> Member | None:
        """Itself, while it leads."""
        return self.members()[0] if self.leading else None

    async def join(self, node_id: str, addr: str) -> Joined:
        """Nobody else can."""
        raise FailedPrecondition("could not connect to prospective new cluster member using its advertised address: no network")

    async def remove(self, raft_id: int) -> None:
        """The last one stays."""
        raise FailedPrecondition("raft: member cannot be removed, because removing it may result in loss of quorum")

    def can_remove(self, raft_id: int) -> bool:
        """The last one stays."""
        return False

    async def transfer_leadership(self) -> None:
        """To nobody."""
        raise FailedPrecondition("failed to get longest-active member: failed to find longest active peer")


@contextlib.asynccontextmanager
async def running_store(clock: Clock | None = None, step: int = 1) -> AsyncIterator[Store]:
    """A store that serves writers, on a memory log, for the length of a `with` block."""
    store = Store(clock or VirtualClock())
    store.attach(MemoryLog(store, step))
    task = asyncio.create_task(store.run())
    await asyncio.sleep(0)
    try:
        yield store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
