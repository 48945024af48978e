"""Running one raft node in a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from pyswarm.api import v1 as api
from pyswarm.clock import SystemClock
from pyswarm.raft.disk import Disk
from pyswarm.raft.node import RaftNode, RaftSettings
from tests.raft.disks import MemoryDisk

KEY = b"k" * 32


class Recorder:
    """A state machine that remembers what it was told: names of created nodes, in order."""

    def __init__(self) -> None:
        self.applied: list[tuple[int, str, Any]] = []
        self.names: list[str] = []
        self.restored = 0
        self.poison = ""

    def apply(self, index: int, request: api.InternalRaftRequest, proposal: Any | None) -> None:
        """See StateMachine."""
        for action in request.action:
            if self.poison and action.node.id == self.poison:
                raise ValueError("poisoned entry")
            self.applied.append((index, action.node.id, proposal))
            self.names.append(action.node.id)

    def capture(self) -> Callable[[], api.StoreSnapshot]:
        """See StateMachine."""
        names = tuple(self.names)
        return lambda: api.StoreSnapshot(nodes=[api.Node(id=n) for n in names])

    def prepare(self, snapshot: api.StoreSnapshot) -> Callable[[], None]:
        """See StateMachine."""
        names = [n.id for n in snapshot.nodes]

        def restore() -> None:
            self.restored += 1
            self.names = names

        return restore


class Memory:
    """A pair of directories in memory; implements `storage.Directories`."""

    def __init__(self, log: MemoryDisk | None = None, snapshots: MemoryDisk | None = None) -> None:
        self.memory_log = log or MemoryDisk()
        self.memory_snapshots = snapshots or MemoryDisk()
        self.log: Disk = self.memory_log
        self.snapshots: Disk = self.memory_snapshots

    def close(self) -> None:
        """Nothing is open."""

    @property
    def full(self) -> bool:
        """Whether either of the two is."""
        return any(d.full_at and d.calls >= d.full_at for d in (self.memory_log, self.memory_snapshots))

    def repair(self) -> None:
        """Nothing fails from now on."""
        for disk in (self.memory_log, self.memory_snapshots):
            disk.die_at = disk.full_at = 0

    def after_crash(self) -> Memory:
        """What the next process finds after a power cut."""
        return Memory(self.memory_log.after_crash(), self.memory_snapshots.after_crash())


def create(name: str, size: int = 0) -> api.InternalRaftRequest:
    """A request that creates a node object."""
    node = api.Node(id=name)
    if size:
        node.description.hostname = "x" * size
    return api.InternalRaftRequest(action=[api.StoreAction(action=api.StoreActionKind.STORE_ACTION_CREATE, node=node)])


def new_node(where: Path | Memory, machine: Recorder, config: api.RaftConfig | None = None, **changes: Any) -> RaftNode:
    """A node on a real directory or in memory."""
    settings: dict[str, Any] = {
        "node_id": "node-1",
        "cluster_id": "cluster-1",
        "directory": where if isinstance(where, Path) else Path("/memory"),
        "machine": machine,
        "data_key": KEY,
        "clock": SystemClock(),
        "settings": RaftSettings(),
        "config": lambda: config or api.RaftConfig(),
        "addr": "127.0.0.1:4242",
    }
    if isinstance(where, Memory):
        settings["open_directory"] = lambda _: where
    return RaftNode(**(settings | changes))


async def leading(node: RaftNode) -> None:
    """Wait until the node leads; fails with what ended it instead."""
    won = asyncio.Event()
    undo = node.on_leadership(lambda leads: won.set() if leads else None)
    await node.started()
    async with asyncio.timeout(10):
        await won.wait()
    undo()


@contextlib.asynccontextmanager
async def running(node: RaftNode) -> AsyncIterator[RaftNode]:
    """The node, leading, for the length of a `with` block."""
    task = asyncio.create_task(node.run())
    try:
        await leading(node)
        yield node
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
