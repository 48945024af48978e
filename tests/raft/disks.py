"""A directory in memory that can fill up, or lose power at any step."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path


class PowerCut(Exception):
    """The machine stops here; nothing after this happens."""


class MemoryDisk:
    """Implements `raft.disk.Disk`. What was appended and not synced is kept apart, so that a crash can take it.

    `die_at`: the number of the changing call that raises PowerCut instead of taking effect. `full_at`: likewise, with "disk full".
    """

    blocking = False

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self._durable: dict[str, bytes] = dict(files or {})
        self._added: dict[str, list[bytes]] = {}
        self.loose: dict[str, bytes] = {}
        self.calls = 0
        self.die_at = 0
        self.full_at = 0
        self.path = Path("/memory")

    @property
    def durable(self) -> dict[str, bytes]:
        """What is safe, by name. Put together when somebody looks: a journal is synced very often and read once."""
        while self._added:
            name, parts = self._added.popitem()
            self._durable[name] = b"".join((self._durable[name], *parts))
        return self._durable

    def after_crash(self, keep: int = 0, holes: bool = False) -> MemoryDisk:
        """The disk as found after losing power: of unsynced bytes only the first `keep`.

        With `holes` the file has its full length, but the sectors after those that hold the first `keep` bytes are zeros.
        """
        found = MemoryDisk(self.durable)
        for name, data in self.loose.items():
            kept = data[:keep]
            if holes:
                size = len(self.durable[name])
                whole_sectors = (size + keep) // 512 * 512 - size
                kept = data[: max(0, whole_sectors)]
                kept += bytes(len(data) - len(kept))
            found.durable[name] += kept
        return found

    def _step(self) -> None:
        self.calls += 1
        if self.calls == self.die_at:
            raise PowerCut
        if self.full_at and self.calls >= self.full_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    def names(self) -> Sequence[str]:
        """See Disk."""
        return sorted(self.durable)

    def read(self, name: str) -> bytes:
        """See Disk."""
        return self.durable[name] + self.loose.get(name, b"")

    def create(self, name: str, data: bytes) -> None:
        """See Disk."""
        self._step()
        self.durable[name] = data
        self.loose.pop(name, None)

    def append(self, name: str, data: bytes) -> None:
        """See Disk. Dying in it may still leave any part of the data behind."""
        if self.calls + 1 == self.die_at:
            self.loose[name] = self.loose.get(name, b"") + data
        self._step()
        self.loose[name] = self.loose.get(name, b"") + data

    def sync(self, name: str) -> None:
        """See Disk."""
        self._step()
        self._added.setdefault(name, []).append(self.loose.pop(name, b""))

    def truncate(self, name: str, size: int) -> None:
        """See Disk."""
        self._step()
        self.durable[name] = self.read(name)[:size]
        self.loose.pop(name, None)

    def rename(self, old: str, new: str) -> None:
        """See Disk."""
        self._step()
        self.durable[new] = self.durable.pop(old)

    def remove(self, name: str) -> None:
        """See Disk."""
        self._step()
        self.durable.pop(name, None)

    def close(self) -> None:
        """Nothing is open."""
