"""The few things the log asks of a directory, so that tests can put a directory there that forgets, fills up, or dies at any step.

Everything here blocks and raises OSError. `DirectoryDisk` is the real one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pyswarm.ca.files import ensure_directory, remove_durably, write_atomically

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


class Disk(Protocol):
    """One flat directory. Names contain no slash."""

    blocking: bool
    """Whether calls may take real time, and so belong into a worker thread."""

    @property
    def path(self) -> Path:
        """Where it is, for messages to people."""
        ...

    def names(self) -> Sequence[str]:
        """The files, sorted. Left-overs of interrupted `create` calls are not listed."""
        ...

    def read(self, name: str) -> bytes:
        """The whole content."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Make the file hold exactly `data`, durably and in one step."""
        ...

    def append(self, name: str, data: bytes) -> None:
        """Add to the end of an existing file; durable only after `sync`."""
        ...

    def sync(self, name: str) -> None:
        """Make everything appended to the file durable."""
        ...

    def truncate(self, name: str, size: int) -> None:
        """Cut the file to `size` bytes, durably."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Rename within the directory."""
        ...

    def remove(self, name: str) -> None:
        """Delete the file, durably; fine if it is not there."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class DirectoryDisk:
    """A real directory, created with mode 0700 when missing; files get 0600. For one process at a time.

    `create` may run in several threads, and beside anything else; `append`, `sync`, `truncate`, `remove` of the file under work may not.
    """

    blocking = True

    def __init__(self, path: Path) -> None:
        ensure_directory(path, DIRECTORY_MODE)
        self._path = path
        self._open: tuple[str, int] | None = None
        for left_over in path.glob(".tmp-*"):
            left_over.unlink(missing_ok=True)

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    def names(self) -> Sequence[str]:
        """See Disk."""
        return sorted(entry.name for entry in self._path.iterdir() if not entry.name.startswith(".tmp-") and entry.is_file())

    def read(self, name: str) -> bytes:
        """See Disk."""
        return (self._path / name).read_bytes()

    def create(self, name: str, data: bytes) -> None:
        """See Disk."""
        write_atomically(self._path / name, data, FILE_MODE)

    def append(self, name: str, data: bytes) -> None:
        """See Disk."""
        descriptor = self._descriptor(name)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, name: str) -> None:
        """See Disk. fdatasync: size and content, not the times."""
        os.fdatasync(self._descriptor(name))

    def truncate(self, name: str, size: int) -> None:
        """See Disk."""
        descriptor = self._descriptor(name)
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)

    def rename(self, old: str, new: str) -> None:
        """See Disk."""
        (self._path / old).rename(self._path / new)

    def remove(self, name: str) -> None:
        """See Disk."""
        if self._open is not None and self._open[0] == name:
            self.close()
        remove_durably(self._path / name)

    def close(self) -> None:
        """See Disk."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def _descriptor(self, name: str) -> int:
        """The file under work stays open between calls; there is only ever one."""
        if self._open is None or self._open[0] != name:
            self.close()
            self._open = (name, os.open(self._path / name, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
        return self._open[1]
