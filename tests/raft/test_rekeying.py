"""Changing the key of a log in use: new files under it at once, old ones gone at the end, both keys needed in between."""

from __future__ import annotations

import asyncio
import errno
import itertools
import threading
from pathlib import Path

import pytest

from pyswarm.api import v1 as api
from pyswarm.raft.errors import WrongKey
from pyswarm.raft.journal import Journal
from pyswarm.raft.log import NodeStopped
from pyswarm.raft.rekeying import Rekeying, Step, next_step
from pyswarm.raft.snapshots import SnapshotFiles, SnapshotStore
from pyswarm.raft.vault import Vault
from tests.raft.cluster import Box, cluster, until
from tests.raft.disks import MemoryDisk
from tests.raft.nodes import KEY, Memory, Recorder, create, new_node, running

KEY_2, KEY_3, KEY_4 = b"2" * 32, b"3" * 32, b"4" * 32
SETTINGS = api.RaftConfig(keep_old_snapshots=5, log_entries_for_slow_followers=100)


class Stubborn(MemoryDisk):
    """A directory that refuses to create files while it is told to, or takes its time with it."""

    def __init__(self) -> None:
        super().__init__()
        self.refusing = False
        self.refused = 0
        self.gate = threading.Event()
        self.gate.set()

    def create(self, name: str, data: bytes) -> None:
        """See Disk."""
        self.gate.wait(10)
        if self.refusing:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        super().create(name, data)


async def names_after_restart(where: Path | Memory, key: bytes, *old: bytes) -> list[str]:
    """What the next life finds, with these keys. Raises WrongKey."""
    machine = Recorder()
    async with running(new_node(where, machine, SETTINGS, data_key=key, old_keys=old)):
        return machine.names


@pytest.mark.parametrize(
    ("last_old", "snapshot", "applied", "step"),
    [
        (10, 0, 9, Step.WAIT),
        (10, 9, 9, Step.WAIT),
        (10, 9, 10, Step.SNAPSHOT),
        (10, 0, 99, Step.SNAPSHOT),
        (10, 10, 10, Step.REMOVE),
        (10, 11, 12, Step.REMOVE),
    ],
)
def test_what_comes_next(last_old: int, snapshot: int, applied: int, step: Step) -> None:
    """A snapshot as soon as the last entry under the old key is applied; once it covers that entry, what is older goes."""
    assert next_step(last_old, snapshot, applied) is step


async def test_a_whole_change(tmp_path: Path) -> None:
    """One snapshot, old files gone whatever is to be kept, writes as before; then only the new key opens. [store 109]"""
    config = api.RaftConfig(snapshot_interval=4, keep_old_snapshots=5, log_entries_for_slow_followers=100)
    log, snapshots = tmp_path / "wal-pyswarm", tmp_path / "snap-pyswarm"
    async with running(new_node(tmp_path, Recorder(), config)) as node:
        await node.propose(create("n1"))
        await until(lambda: any(snapshots.iterdir()))
        config.snapshot_interval = 0
        await node.propose(create("n2"))
        old = {*log.iterdir(), *snapshots.iterdir()}
        (snapshots / "0000000000000001-0000000000000001.snap.broken").write_bytes(b"damaged long ago")
        await node.rekey(KEY_2)
        assert len(list(snapshots.iterdir())) == len(list(log.iterdir())) == 1
        assert not [path for path in old if path.exists()]
        await node.propose(create("n3"))
    with pytest.raises(WrongKey):
        await new_node(tmp_path, Recorder()).run()
    assert await names_after_restart(tmp_path, KEY_2) == ["n1", "n2", "n3"]


async def test_writes_go_on_during_a_change() -> None:
    """A slow disk for snapshots delays the end of the change, not the writes; new entries are under the new key from the beginning."""
    memory = Memory(snapshots=(slow := Stubborn()))
    async with running(new_node(memory, Recorder())) as node:
        await node.propose(create("before"))
        slow.gate.clear()
        change = asyncio.create_task(node.rekey(KEY_2))
        try:
            await until(lambda: len(memory.memory_log.durable) == 2)
            for i in range(10):
                async with asyncio.timeout(5):
                    await node.propose(create(f"n{i}"))
            assert not change.done()
            newest = Segment(memory).newest
            assert Vault("cluster-1", "node-1", [KEY_2]).open_file(newest, "newest")
        finally:
            slow.gate.set()
        await change
    assert await names_after_restart(memory.after_crash(), KEY_2) == ["before", *(f"n{i}" for i in range(10))]


class Segment:
    """The sealed header of a log's newest segment."""

    def __init__(self, memory: Memory) -> None:
        from pyswarm.raft import records

        found, _ = records.scan(memory.memory_log.read(memory.memory_log.names()[-1]), None)
        self.newest = found[0].payload


async def test_a_failed_snapshot_leaves_the_change_open() -> None:
    """It is tried again when an entry follows, not before; until then a start needs both keys, and takes the change up. [store 110]"""
    memory = Memory(snapshots=(full := Stubborn()))
    async with running(new_node(memory, Recorder(), data_key=KEY_2)) as node:
        for i in range(4):
            await node.propose(create(f"n{i}"))
        full.refusing = True
        change = asyncio.create_task(node.rekey(KEY_3))
        await until(lambda: full.refused == 1)
        for _ in range(20):
            await node.read_barrier()
            await asyncio.sleep(0)
        assert full.refused == 1
        await node.propose(create("n4"))
        await until(lambda: full.refused == 2)
        assert not change.done()
    with pytest.raises(NodeStopped):
        await change
    for key in (KEY_2, KEY_3):
        with pytest.raises(WrongKey):
            await new_node(memory.after_crash(), Recorder(), data_key=key).run()
    machine, found = Recorder(), memory.after_crash()
    async with running(new_node(found, machine, data_key=KEY_3, old_keys=[KEY_2])) as node:
        assert machine.names == ["n0", "n1", "n2", "n3", "n4"]
        await node.rekey(KEY_3)
        assert len(found.memory_snapshots.durable) == 1
    assert await names_after_restart(found, KEY_3) == machine.names


async def test_nothing_is_done_twice() -> None:
    """Where all is under the key already, as after a crash between the last deletion and the note of it, nothing is written. [store 111]"""
    memory = Memory()
    async with running(new_node(memory, Recorder())) as node:
        await node.propose(create("x"))
        await node.rekey(KEY_2)
    found = memory.after_crash()
    async with running(new_node(found, Recorder(), data_key=KEY_2, old_keys=[KEY])) as node:
        await node.read_barrier()
        calls = found.memory_snapshots.calls + found.memory_log.calls
        await node.rekey(KEY_2)
        assert found.memory_snapshots.calls + found.memory_log.calls == calls


async def test_a_change_during_a_change() -> None:
    """Both callers return when everything is under the newer key. [store 113]"""
    memory = Memory(snapshots=(slow := Stubborn()))
    async with running(new_node(memory, Recorder())) as node:
        await node.propose(create("x"))
        slow.gate.clear()
        first = asyncio.create_task(node.rekey(KEY_2))
        await until(lambda: len(memory.memory_log.durable) == 2)
        second = asyncio.create_task(node.rekey(KEY_3))
        await until(lambda: len(memory.memory_log.durable) == 3)
        slow.gate.set()
        await node.propose(create("y"))  # the snapshot under way may be under either key, so another is needed after it
        await asyncio.gather(first, second)
    assert await names_after_restart(memory.after_crash(), KEY_3) == ["x", "y"]


async def test_writes_snapshots_and_changes_at_the_same_time(tmp_path: Path) -> None:
    """Entries, a snapshot for every other of them, and three changes of the key do not disturb each other. [store 105]"""
    config, machine = api.RaftConfig(snapshot_interval=2, keep_old_snapshots=1, log_entries_for_slow_followers=5), Recorder()
    async with running(new_node(tmp_path, machine, config)) as node:
        changes = asyncio.gather(*(node.rekey(key) for key in (KEY_2, KEY_3, KEY_4)))
        written = 0
        while not changes.done():
            await asyncio.gather(*(node.propose(create(f"n{written + i}")) for i in range(5)))
            written += 5
        await changes
        assert written
    assert await names_after_restart(tmp_path, KEY_4) == machine.names == [f"n{i}" for i in range(written)]


def test_a_snapshot_that_was_begun_before_does_not_count() -> None:
    """One on disk, one being taken, one arriving from the leader: each may be under the old key, and the change outwaits it."""
    for stored, taken, arriving in itertools.product((0, 7), (0, 8), (0, 9)):
        vault = Vault("c", "n", [KEY], 1)
        journal = Journal.create(MemoryDisk(), vault)
        for index in range(2, 8):
            journal.add(b"x", index, 1)
        files = SnapshotFiles(MemoryDisk(), vault)
        snapshots = SnapshotStore(files, lambda: api.Snapshot, lambda: 0)
        snapshots.index = stored
        if taken:
            snapshots.serialize((None, (b"l", taken, 1), (b"p", taken - 1, 1), None), taken - 1)
        rekeying = Rekeying(vault, journal, files, snapshots)
        loop = asyncio.new_event_loop()
        rekeying.ask(KEY_2, loop.create_future())
        rekeying.begin(arriving)
        loop.close()
        covered = max(stored, taken, arriving)
        snapshots.index = covered
        assert not rekeying.advance(99)
        assert not rekeying.wants_snapshot(max(7, covered + 1) - 1)
        assert rekeying.wants_snapshot(max(7, covered + 1))
        snapshots.index = max(7, covered + 1)
        assert rekeying.advance(99)


async def test_deleting_old_snapshots_may_fail() -> None:
    """Then nothing is forgotten, and it is tried again with the next entry."""
    memory = Memory()
    async with running(new_node(memory, Recorder(), SETTINGS)) as node:
        await node.propose(create("x"))
        await node.rekey(KEY_2)
        memory.memory_snapshots.full_at = memory.memory_snapshots.calls + 2
        change = asyncio.create_task(node.rekey(KEY_3))
        await node.propose(create("y"))
        await until(lambda: memory.memory_snapshots.calls >= memory.memory_snapshots.full_at)
        assert len(memory.memory_snapshots.durable) == 2
        memory.memory_snapshots.full_at = 0
        await node.propose(create("z"))
        await change
        assert len(memory.memory_snapshots.durable) == 1
    assert await names_after_restart(memory.after_crash(), KEY_3) == ["x", "y", "z"]


@pytest.mark.timeout(60)
async def test_a_follower_changes_its_key_and_restarts_under_constant_writes(tmp_path: Path) -> None:
    """Ten times: new key, wait for the end, restart with that key alone; the cluster keeps everything. [store 112]"""
    async with cluster(tmp_path, 3, api.RaftConfig(snapshot_interval=40, log_entries_for_slow_followers=10)) as made:
        third = made.boxes[2]
        writing = asyncio.create_task(keep_writing(made.write))
        try:
            for round_number in range(10):
                before = len(made.acknowledged)
                third.key = bytes([round_number]) * 32
                async with asyncio.timeout(10):
                    await third.node.rekey(third.key)
                await restart(third)
                await until(lambda before=before: len(made.acknowledged) > before)  # type: ignore[misc]
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        await made.equal()


async def restart(box: Box) -> None:
    """Off and on."""
    await box.stop()
    await box.start()


async def keep_writing(write: object) -> None:
    """One write after the other."""
    for number in itertools.count():
        await write(f"w{number}")  # type: ignore[operator]
        await asyncio.sleep(0.002)
