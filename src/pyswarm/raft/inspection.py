"""Looking into the log of a manager that does not run, without changing anything. Blocking."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from google.protobuf.message import DecodeError

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.raft import commands, records
from pyswarm.raft.errors import CorruptJournal, DirectoryInUse, StorageError
from pyswarm.raft.journal import Entry, Journal
from pyswarm.raft.records import Kind
from pyswarm.raft.storage import LOG_DIRECTORY, SNAPSHOT_DIRECTORY, open_storage
from pyswarm.raft.vault import Vault


class FrozenDisk:
    """A directory that is only read; implements `raft.disk.Disk`. Attempts to change it have no effect."""

    blocking = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Sequence[str]:
        """See Disk."""
        if not self.path.is_dir():
            return []
        return sorted(p.name for p in self.path.iterdir() if p.is_file() and not p.name.startswith(".tmp-"))

    def read(self, name: str) -> bytes:
        """See Disk."""
        return (self.path / name).read_bytes()

    def create(self, name: str, data: bytes) -> None:
        """Nothing."""

    def append(self, name: str, data: bytes) -> None:
        """Nothing."""

    def sync(self, name: str) -> None:
        """Nothing."""

    def truncate(self, name: str, size: int) -> None:
        """Nothing."""

    def rename(self, old: str, new: str) -> None:
        """Nothing."""

    def remove(self, name: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A file of the log as it would be without encryption: records as in `raft.records`, the first holds a FileHeader."""

    name: str
    data: bytes


class Inspection:
    """The raft directory `path` of a manager, opened with its data keys. A context manager: nobody else gets the directory meanwhile.

    Its methods raise StorageError for files that cannot be used, and for a directory in use or without a log.
    """

    def __init__(self, path: Path, keys: Sequence[bytes]) -> None:
        self._path = path
        self._keys = keys
        self._log = FrozenDisk(path / LOG_DIRECTORY)
        self._snapshots = FrozenDisk(path / SNAPSHOT_DIRECTORY)
        self._lock = -1

    def __enter__(self) -> Self:
        if not _files(self._log, ".wal"):
            raise StorageError(f"there is no log in {self._path}: name the state directory of a manager")
        self._lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DirectoryInUse(f"raft directory {self._path} is in use by another process: stop the manager first") from None
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._lock)

    def entries(self) -> Sequence[Entry]:
        """The log, from the oldest entry on disk to the newest, committed or not."""
        journal = Journal.open_existing(self._log, self._vault())
        return journal[:] if journal is not None else []

    def snapshot(self) -> raft_pb2.LogSnapshot | None:
        """The newest usable snapshot."""
        storage = open_storage(self._log, self._snapshots, self._vault(), 0)
        return storage.snapshot if storage is not None else None

    def replay(self) -> tuple[api.StoreSnapshot, Sequence[tuple[int, api.InternalRaftRequest]]]:
        """The store as the newest snapshot has it, and what the log makes of it, by index; entries that are not committed included."""
        storage = open_storage(self._log, self._snapshots, self._vault(), 0)
        if storage is None:
            raise StorageError(f"there is no log in {self._path}")
        begin, start = (
            (storage.snapshot.snapshot.store, storage.snapshot.start.last.index) if storage.snapshot else (api.StoreSnapshot(), 0)
        )
        later = [e for e in storage.journal[:] if e[1] > start and e[0][0] == commands.Type.STORE]
        return begin, [(index, commands.parse_request(command)) for command, index, _ in later]

    def plain_log(self) -> list[Plain]:
        """The segments, decrypted; an interrupted last write is left out."""
        return list(self._decrypt(self._log, ".wal"))

    def plain_snapshots(self) -> list[Plain]:
        """All snapshots, decrypted."""
        return list(self._decrypt(self._snapshots, ".snap"))

    def _vault(self) -> Vault:
        """Made from what the newest segment says about whose it is: which node this is does not matter here."""
        name = _files(self._log, ".wal")[-1]
        found, _ = records.scan(self._log.read(name), None)
        try:
            header = raft_pb2.FileHeader.FromString(raft_pb2.SealedHeader.FromString(found[0].payload).header)
        except (IndexError, DecodeError):
            raise CorruptJournal(self._log.path / name, 0, "its header is not readable") from None
        return Vault(header.cluster_id, header.node_id, self._keys)

    def _decrypt(self, disk: FrozenDisk, suffix: str) -> Iterator[Plain]:
        vault, names = self._vault(), _files(disk, suffix)
        for name in names:
            file, data = str(disk.path / name), disk.read(name)
            found, damage = records.scan(data, None)
            if not found or (damage is not None and not (damage.torn and name == names[-1])):
                raise CorruptJournal(file, damage.offset if damage else 0, damage.what if damage else "it is empty")
            cipher = vault.open_file(found[0].payload, file)
            plain = [raft_pb2.SealedHeader.FromString(found[0].payload).header]
            try:
                plain += [cipher.open(r.payload, records.context(r.kind, r.number, r.index, r.term)) for r in found[1:]]
            except InvalidTag:
                raise CorruptJournal(file, 0, "a record was changed or moved") from None
            parts = (
                records.encode(Kind(r.kind), r.number, r.batch, r.index, r.term, content) for r, content in zip(found, plain, strict=True)
            )
            yield Plain(name, b"".join(parts))


def _files(disk: FrozenDisk, suffix: str) -> list[str]:
    return [name for name in disk.names() if name.endswith(suffix)]
