"""Snapshot files: whole or not there."""

from __future__ import annotations

import contextlib

import pytest
from structlog.testing import capture_logs

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.raft.errors import CorruptJournal, StorageError, WrongKey
from pyswarm.raft.snapshots import SnapshotFiles, SnapshotStore, State
from pyswarm.raft.vault import Vault
from tests.raft.disks import MemoryDisk, PowerCut

KEY = b"k" * 32


def vault(key: bytes = KEY) -> Vault:
    """The manager's keys."""
    return Vault("c", "n", (key,), 1)


def snapshot(index: int, name: str = "x") -> raft_pb2.LogSnapshot:
    """A snapshot after entry `index`."""
    return raft_pb2.LogSnapshot(
        start=raft_pb2.LogStart(
            prev=raft_pb2.LogEntry(command=b"p", index=index - 1, term=1), last=raft_pb2.LogEntry(command=b"l", index=index, term=1)
        ),
        snapshot=api.Snapshot(store=api.StoreSnapshot(nodes=[api.Node(id=name)])),
    )


def test_what_was_written_is_read() -> None:
    """The newest snapshot comes back equal, and is encrypted on disk."""
    disk = MemoryDisk()
    files = SnapshotFiles(disk, vault())
    assert files.load() is None
    files.write(snapshot(10, "very-secret"), 0)
    assert files.load() == snapshot(10, "very-secret")
    assert not [data for data in disk.durable.values() if b"very-secret" in data]
    assert list(disk.durable) == ["0000000000000001-000000000000000a.snap"]


def test_older_ones_go_only_after_the_new_one_is_there() -> None:
    """A power cut at any step of writing leaves the old snapshot, the new one, or both. [store 108]"""
    for die_at in range(1, 4):
        disk = MemoryDisk()
        files = SnapshotFiles(disk, vault())
        files.write(snapshot(10), 0)
        disk.die_at = disk.calls + die_at
        with contextlib.suppress(PowerCut):
            files.write(snapshot(20), 0)
        found = SnapshotFiles(disk.after_crash(), vault())
        assert found.load() == snapshot(10 if die_at == 1 else 20)


def test_a_failed_write_keeps_what_was_there() -> None:
    """Disk full: the error is raised, the old snapshot stays. [store 108]"""
    disk = MemoryDisk()
    files = SnapshotFiles(disk, vault())
    files.write(snapshot(10), 0)
    disk.full_at = 1
    with pytest.raises(OSError, match="No space left"):
        files.write(snapshot(20), 0)
    assert files.load() == snapshot(10)


def test_every_flipped_byte_is_noticed() -> None:
    """A damaged snapshot is renamed and never read, whichever byte it is. [store 122]

    What is said about each is kept, not printed: formatting hundreds of tracebacks took more than nine tenths of the time.
    """
    disk = MemoryDisk()
    SnapshotFiles(disk, vault()).write(snapshot(10), 0)
    ((name, data),) = disk.durable.items()
    with capture_logs() as said:
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 1
            broken = MemoryDisk({name: bytes(damaged)})
            assert SnapshotFiles(broken, vault()).load() is None
            assert list(broken.durable) == [name + ".broken"]
    assert [entry["file"] for entry in said] == [name] * len(data)


def test_the_next_older_one_serves_when_the_newest_is_damaged() -> None:
    """keep_old_snapshots pays off. [store 107]"""
    disk = MemoryDisk()
    files = SnapshotFiles(disk, vault())
    files.write(snapshot(10), 0)
    files.write(snapshot(20), 1)
    newest = files.names()[0]
    disk.durable[newest] = disk.durable[newest][:-1]
    assert files.load() == snapshot(10)


def test_a_wrong_key_is_not_damage() -> None:
    """A snapshot under another key stops the start and keeps its name."""
    disk = MemoryDisk()
    SnapshotFiles(disk, vault()).write(snapshot(10), 0)
    before = dict(disk.durable)
    with pytest.raises(WrongKey):
        SnapshotFiles(disk, vault(b"o" * 32)).load()
    assert disk.durable == before


def test_an_unknown_version_is_refused() -> None:
    """A snapshot of a version to come is not guessed at."""
    disk = MemoryDisk()
    strange = snapshot(10)
    strange.snapshot.version = 7  # type: ignore[assignment]
    SnapshotFiles(disk, vault()).write(strange, 0)
    with pytest.raises(StorageError, match="unrecognized snapshot version 7"):
        SnapshotFiles(disk, vault()).load()


def test_an_interrupted_snapshot_of_another_format_is_corrupt_not_crashing() -> None:
    """A file that is no snapshot at all is set aside too."""
    disk = MemoryDisk({"0000000000000001-000000000000000a.snap": b"hello"})
    assert SnapshotFiles(disk, vault()).load() is None
    assert issubclass(CorruptJournal, StorageError)


def test_success_and_failure_are_told_once() -> None:
    """The library learns the end of a snapshot exactly once, and only after the job ended."""
    disk = MemoryDisk()
    state = ["before"]

    def capture() -> object:
        seen = state[0]
        return lambda: (raft_pb2.LogSnapshot(), api.StoreSnapshot(nodes=[api.Node(id=seen)]))

    store = SnapshotStore(SnapshotFiles(disk, vault()), capture, lambda: 0)  # type: ignore[arg-type]
    store.serialize((None, (b"l", 10, 1), (b"p", 9, 1), ()), 9)
    state[0] = "after"
    assert store.checkSerializing() == (State.WORKING, 9)
    job = store.take_job()
    assert job is not None
    assert store.take_job() is None
    job()
    assert store.index == 0
    store.finish(None)
    assert store.index == 10
    assert store.checkSerializing() == (State.SUCCESS, 9)
    assert store.checkSerializing()[0] == State.IDLE
    assert (store.take_finished(), store.take_finished()) == (10, None)
    loaded = SnapshotFiles(disk, vault()).load()
    assert loaded is not None
    assert loaded.snapshot.store.nodes[0].id == "before"
    store.serialize((None, (b"l", 12, 1), (b"p", 11, 1), ()), 11)
    store.finish(OSError("full"))
    assert store.checkSerializing()[0] == State.FAILED
    assert (store.index, store.busy) == (10, False)
