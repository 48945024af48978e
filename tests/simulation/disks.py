"""A manager's two directories in memory: what was not synced may be gone after a crash, and any write may be the last."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pyswarm.raft.disk import Disk
from tests.raft.disks import MemoryDisk, PowerCut
from tests.simulation.process import Process

__all__ = ["ManagerDisks", "PowerCut"]


class SimDisk(MemoryDisk):
    """A `MemoryDisk` that belongs to a process and does nothing once that is dead."""

    process: Process | None = None
    lies = False
    """Says that it synced, and did not."""

    def _step(self) -> None:
        if self.process is None or not self.process.effect():
            raise PowerCut
        super()._step()

    def read(self, name: str) -> bytes:
        """See Disk."""
        if self.process is None or not self.process.alive:
            raise PowerCut
        return super().read(name)

    def sync(self, name: str) -> None:
        """See Disk."""
        if not self.lies:
            super().sync(name)


class ManagerDisks:
    """What survives a manager's crash; implements `raft.storage.Directories`. `boot` for each life."""

    def __init__(self) -> None:
        self._log = SimDisk()
        self._snapshots = SimDisk()

    def boot(self, process: Process) -> Booted:
        """The disks as a new process finds them, powered by it."""
        self._log.process = self._snapshots.process = process
        return Booted(self._log, self._snapshots)

    def crash(self, chance: random.Random) -> None:
        """The power went: of what was not synced, a part at most is left, possibly with holes."""
        keep = chance.choice((0, 1, 60, 10**6))
        self._log = _found(self._log, keep, chance.random() < 0.3)
        self._snapshots = _found(self._snapshots, 0, False)

    @property
    def never_used(self) -> bool:
        """Nothing was ever written."""
        return not self._log.durable and not self._snapshots.durable

    @property
    def synced(self) -> Sequence[MemoryDisk]:
        """To look at."""
        return self._log, self._snapshots


class Booted:
    """Both directories while a process uses them."""

    def __init__(self, log: SimDisk, snapshots: SimDisk) -> None:
        self.log: Disk = log
        self.snapshots: Disk = snapshots

    def close(self) -> None:
        """Nothing is open."""


def _found(disk: SimDisk, keep: int, holes: bool) -> SimDisk:
    left = disk.after_crash(keep, holes)
    found = SimDisk(left.durable)
    found.lies = disk.lies
    return found
