"""What this manager kept: log and snapshot read together, or a new membership begun. Blocking."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.raft import commands, recovery
from pyswarm.raft.disk import DirectoryDisk, Disk
from pyswarm.raft.errors import CorruptJournal, DirectoryInUse, StorageError
from pyswarm.raft.journal import Journal
from pyswarm.raft.membership import Membership, voters
from pyswarm.raft.snapshots import SnapshotFiles
from pyswarm.raft.vault import Vault

LOG_DIRECTORY = "wal-pyswarm"
SNAPSHOT_DIRECTORY = "snap-pyswarm"


@dataclass(slots=True)
class Storage:
    """An open log, its snapshots, and the table of members as the snapshot (or the log's first entry) has it."""

    journal: Journal
    files: SnapshotFiles
    snapshot: raft_pb2.LogSnapshot | None
    membership: Membership

    def later(self) -> list[bytes]:
        """The commands of the log that the table does not know of yet."""
        known = self.snapshot.start.last.index if self.snapshot is not None else 1
        return [command for command, index, _ in self.journal[:] if index > known]

    def present(self) -> Membership:
        """The table as it will be when all of the log is applied: its members are the voters."""
        return voters(self.membership, self.later())


def open_storage(log_disk: Disk, snapshot_disk: Disk, vault: Vault, spare_entries: int) -> Storage | None:
    """Read what is there; None when nothing is. Raises StorageError when it cannot be used.

    `spare_entries` is how many entries from before the snapshot stay in memory for slow followers.
    """
    try:
        return _open(log_disk, snapshot_disk, vault, spare_entries)
    except OSError as exc:
        where = f"{log_disk.path} and {snapshot_disk.path}"
        raise StorageError(f"opening the raft log in {where} failed: {exc}. Repair or free the disk, restart") from exc


def _open(log_disk: Disk, snapshot_disk: Disk, vault: Vault, spare_entries: int) -> Storage | None:
    files = SnapshotFiles(snapshot_disk, vault)
    journal = Journal.open_existing(log_disk, vault)
    if journal is None:
        if files.names():
            raise StorageError(
                f"there are raft snapshots in {snapshot_disk.path} but no log in {log_disk.path}: restore it from the same backup; or, "
                "where other managers have the data, remove this manager from the cluster, delete both directories and join again"
            )
        return None
    snapshot = files.find()
    journal.spare_entries = spare_entries
    recovery.settle(journal)
    try:
        membership = _read_together(journal, snapshot, log_disk.path)
    except CorruptJournal as exc:
        raise next(iter(files.damaged.values()), exc) from exc
    files.set_aside()
    journal.sync()
    return Storage(journal, files, snapshot, membership)


def _read_together(journal: Journal, snapshot: raft_pb2.LogSnapshot | None, path: Path) -> Membership:
    """Let the log continue from the snapshot, if there is one. Raises CorruptJournal when entries are missing before or in between."""
    if snapshot is not None:
        journal.view_from(snapshot.start)
        return Membership(snapshot.snapshot.membership, snapshot.era)
    if journal[0][1] != 1:
        raise CorruptJournal(path, 0, f"it begins with entry {journal[0][1]} and there is no usable snapshot of what came before")
    membership = Membership()
    if (change := commands.parse_membership(journal[0][0])) is not None:
        membership.apply(change)
    return membership


def found_storage(log_disk: Disk, snapshot_disk: Disk, vault: Vault, addr: str) -> Storage:
    """Begin a cluster: a log whose first entry says that this manager is its only member. The vault's raft id must be set."""
    identity = vault.identity
    member = api.RaftMember(raft_id=identity.raft_id, node_id=identity.node_id, addr=addr)
    change = raft_pb2.MembershipChange(kind=raft_pb2.MembershipChange.UPDATE, member=member)
    journal = Journal.create(log_disk, vault, commands.membership(change))
    membership = Membership()
    membership.apply(change)
    return Storage(journal, SnapshotFiles(snapshot_disk, vault), None, membership)


def join_storage(log_disk: Disk, snapshot_disk: Disk, vault: Vault) -> Storage:
    """Begin as a member of an existing cluster, which sends everything else. The vault's raft id must be set."""
    return Storage(Journal.create(log_disk, vault), SnapshotFiles(snapshot_disk, vault), None, Membership())


class Directories(Protocol):
    """Where log and snapshots go."""

    log: Disk
    snapshots: Disk

    def close(self) -> None:
        """Let others in."""
        ...


class Directory:
    """The two directories under a manager's raft directory, locked against other processes while open."""

    def __init__(self, path: Path) -> None:
        DirectoryDisk(path)
        self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.log: Disk = DirectoryDisk(path / LOG_DIRECTORY)
            self.snapshots: Disk = DirectoryDisk(path / SNAPSHOT_DIRECTORY)
        except BlockingIOError:
            os.close(self._lock)
            raise DirectoryInUse(f"raft directory {path} is in use by another process: stop it first") from None
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let others in."""
        self.log.close()
        self.snapshots.close()
        os.close(self._lock)
