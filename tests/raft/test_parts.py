"""Snapshots in parts."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.raft import parts, snapshots
from pyswarm.raft.snapshots import SnapshotFiles
from pyswarm.raft.vault import Vault
from tests.raft.disks import MemoryDisk

OBJECTS = 5_000


def large() -> raft_pb2.LogSnapshot:
    """A snapshot of many objects, and one that is larger than a part should be."""
    made = raft_pb2.LogSnapshot(start=raft_pb2.LogStart(last=raft_pb2.LogEntry(command=b"l", index=7, term=3)), era=5)
    made.snapshot.membership.members.add(raft_id=1, node_id="node-1")
    store = made.snapshot.store
    store.tasks.extend(api.Task(id=f"task-{i:09d}", spec={"container": {"image": "x" * 200}}) for i in range(OBJECTS))
    store.configs.add(id="big", spec={"data": b"d" * 2 * parts.PART_BYTES})
    store.secrets.add(id="small")
    return made


def test_no_part_is_large_and_together_they_are_the_snapshot() -> None:
    """The work between two parts is bounded by the size of a part and one object, however many objects there are."""
    whole = large()
    split = list(parts.split(*parts.apart(whole)))
    assert len(split) > OBJECTS * 200 // parts.PART_BYTES
    assert sorted(map(len, split))[-2] < 1.1 * parts.PART_BYTES
    assert parts.read(b"".join(split)) == whole
    assert raft_pb2.LogSnapshot.FromString(b"".join(split)) == whole


def test_a_snapshot_in_one_part_is_read_as_well() -> None:
    """An undivided message has the same meaning."""
    whole = large()
    assert parts.read(whole.SerializeToString()) == whole
    assert parts.read(b"") == raft_pb2.LogSnapshot()


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05abc", b"\xff" * 20, b"\x0d1234", b"\x12\x03\x0a\x09x"])
def test_what_ends_in_the_middle_is_refused(data: bytes) -> None:
    """Fields and numbers that are cut off, and fields that a snapshot cannot have."""
    with pytest.raises(DecodeError):
        parts.read(data)


def test_a_file_holds_the_parts_and_its_end() -> None:
    """Each part is a record of its own; a file that lost its last records, all others being good, is damaged."""
    disk, vault = MemoryDisk(), Vault("c", "n", (b"k" * 32,), 1)
    files = SnapshotFiles(disk, vault)
    files.write(large(), 0)
    assert files.load() == large()
    ((name, data),) = disk.durable.items()
    records = snapshots.records.scan(data, 1)[0]
    assert len(records) > 5
    for kept in range(1, len(records)):
        broken = MemoryDisk({name: data[: records[kept - 1].end]})
        assert SnapshotFiles(broken, vault).load() is None, kept
        assert list(broken.durable) == [name + ".broken"]
