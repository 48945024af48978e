"""A manager alone: what it acknowledges stays, in order and once; everything else is said plainly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.errors import Unknown
from pyswarm.raft import segments
from pyswarm.raft.errors import ApplyFailed, CorruptJournal, DirectoryInUse, ForeignDirectory, JournalFailed, StorageError, WrongKey
from pyswarm.raft.log import Compacted, LostLeadership, NodeStopped, TooLarge
from pyswarm.raft.node import RaftNode
from tests.raft.nodes import Memory, Recorder, create, leading, new_node, running


async def until(condition: object) -> None:
    """Let the loop work until a callable says yes."""
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - threads and the loop have no common event here
            await asyncio.sleep(0.001)


def open_files(below: Path) -> list[str]:
    """What this process holds open under a directory."""
    links = (p.readlink() for p in Path("/proc/self/fd").iterdir() if p.is_symlink())
    return [str(f) for f in links if f.is_relative_to(below)]


async def test_proposals_are_applied_in_order_and_once(tmp_path: Path) -> None:
    """Each entry reaches the state machine exactly once, with the proposer's own object, at the index the proposer is told. [store 63]"""
    machine = Recorder()
    async with running(new_node(tmp_path, machine)) as node:
        indexes = await asyncio.gather(*(node.propose(create(f"n{i}"), i) for i in range(50)))
        assert machine.applied == [(index, f"n{i}", i) for i, index in enumerate(indexes)]
        assert indexes == sorted(set(indexes))
        assert node.applied_index == indexes[-1]


async def test_waiting_proposals_share_one_sync() -> None:
    """Fifty writes at the same moment cost one append and one sync."""
    memory = Memory()
    async with running(new_node(memory, Recorder())) as node:
        await node.propose(create("first"))
        before = memory.memory_log.calls
        await asyncio.gather(*(node.propose(create(f"n{i}")) for i in range(50)))
        assert memory.memory_log.calls - before == 2


async def test_restart_replays_everything(tmp_path: Path) -> None:
    """All acknowledged entries are applied again after a restart, without a proposer, at the same indexes. [store 77]"""
    first, second = Recorder(), Recorder()
    async with running(new_node(tmp_path, first)) as node:
        for i in range(20):
            await node.propose(create(f"n{i}"), object())
        raft_id = node.raft_id
    async with running(new_node(tmp_path, second)) as node:
        assert [(i, n) for i, n, _ in second.applied] == [(i, n) for i, n, _ in first.applied]
        assert {p for _, _, p in second.applied} == {None}
        assert node.raft_id == raft_id
        assert await node.propose(create("more")) > first.applied[-1][0]


async def test_acknowledged_writes_survive_a_power_cut() -> None:
    """Whatever propose returned for is there after losing everything unsynced. [store 125]"""
    memory = Memory()
    async with running(new_node(memory, Recorder())) as node:
        for i in range(5):
            await node.propose(create(f"n{i}"))
        found = memory.after_crash()
    machine = Recorder()
    async with running(new_node(found, machine)):
        assert machine.names == [f"n{i}" for i in range(5)]


async def test_leadership_is_told_before_waiting_proposals_fail() -> None:
    """A fresh founder gets exactly one True; stopping tells False first, then fails who waits. [store 86]"""
    memory = Memory()
    node = new_node(memory, Recorder())
    told: list[object] = []
    node.on_leadership(told.append)
    task = asyncio.create_task(node.run())
    await leading(node)
    assert told == [True]
    await node.propose(create("first"))
    memory.memory_log.full_at = memory.memory_log.calls + 1
    proposal = asyncio.create_task(node.propose(create("never")))
    proposal.add_done_callback(lambda _: told.append("failed"))
    with pytest.raises(JournalFailed):
        await task
    with pytest.raises(LostLeadership) as caught:
        await proposal
    await asyncio.sleep(0)
    assert caught.value.uncertain
    assert told == [True, False, "failed"]
    assert not node.is_leader


async def test_a_full_disk_ends_the_node_without_acknowledging() -> None:
    """No proposal whose entry was not synced succeeds, and later ones are refused. [store 126]"""
    memory = Memory()
    machine = Recorder()
    node = new_node(memory, machine)
    task = asyncio.create_task(node.run())
    await leading(node)
    await node.propose(create("safe"))
    memory.memory_log.full_at = memory.memory_log.calls + 2
    results = await asyncio.gather(*(node.propose(create(f"n{i}")) for i in range(3)), return_exceptions=True)
    assert [type(r) for r in results] == [LostLeadership] * 3
    with pytest.raises(JournalFailed, match="No space left"):
        await task
    assert machine.names == ["safe"]
    with pytest.raises(NodeStopped):
        await node.propose(create("late"))


async def test_a_disk_that_refuses_at_the_start_is_said() -> None:
    """What an interrupted write left behind cannot be cut off: the error names the place and what to do; the log stays. [store 126]"""
    memory = Memory()
    async with running(new_node(memory, Recorder())) as node:
        await node.propose(create("one"))
        memory.memory_log.die_at = memory.memory_log.calls + 1
        with pytest.raises(LostLeadership):
            await node.propose(create("two"))
    found = Memory(memory.memory_log.after_crash(30), memory.memory_snapshots)
    found.memory_log.full_at = 1
    before = dict(found.memory_log.durable)
    with pytest.raises(StorageError, match=r"opening the raft log in /memory .* No space left on device\. Repair or free the disk"):
        await new_node(found, Recorder()).run()
    assert found.memory_log.durable == before


async def test_an_entry_that_cannot_be_applied_ends_the_node() -> None:
    """An apply error is fatal, not tried again, and keeps later entries from being applied. [store 133]"""
    machine = Recorder()
    machine.poison = "bad"
    node = new_node(Memory(), machine)
    task = asyncio.create_task(node.run())
    await leading(node)
    results = await asyncio.gather(*(node.propose(create(n)) for n in ("good", "bad", "after")), return_exceptions=True)
    with pytest.raises(ApplyFailed, match="poisoned"):
        await task
    assert machine.names == ["good"]
    assert isinstance(results[0], int)
    assert [type(r) for r in results[1:]] == [LostLeadership] * 2


async def test_size_limit_is_exact() -> None:
    """A request of 1.5 MiB passes, one byte more is refused and leaves no trace. [store 134]"""
    exact = create("x", defaults.MAX_TRANSACTION_BYTES - 100)
    exact.action[0].node.description.hostname += "y" * (defaults.MAX_TRANSACTION_BYTES - exact.ByteSize())
    assert exact.ByteSize() == defaults.MAX_TRANSACTION_BYTES
    bigger = api.InternalRaftRequest.FromString(exact.SerializeToString())
    bigger.action[0].node.description.hostname += "y"
    machine = Recorder()
    async with running(new_node(Memory(), machine)) as node:
        await node.propose(exact)
        with pytest.raises(TooLarge):
            await node.propose(bigger)
        assert machine.names == ["x"]


async def test_proposals_before_and_after_the_life_of_the_node() -> None:
    """A node that does not run answers that it is stopped. [store 67]"""
    node = new_node(Memory(), Recorder())
    with pytest.raises(NodeStopped, match="node is stopped"):
        await node.propose(create("early"))
    async with running(node):
        pass
    for attempt in (node.propose(create("late")), node.read_barrier()):
        with pytest.raises(NodeStopped):
            await attempt


async def test_a_cancelled_proposal_never_blocks_the_others() -> None:
    """Cancelling the caller of a waiting proposal drops it if it was not appended yet; the rest goes on. [store 132]"""
    machine = Recorder()
    async with running(new_node(Memory(), machine)) as node:
        given_up = asyncio.create_task(node.propose(create("given up")))
        await asyncio.sleep(0)
        given_up.cancel()
        await node.propose(create("kept"))
        assert machine.names in (["kept"], ["given up", "kept"])
        assert given_up.cancelled()


async def test_request_ids_are_unique_and_set_by_the_log() -> None:
    """Every proposal gets a request id of its own, whatever the caller put there."""
    requests = [create("a"), create("b")]
    requests[0].id = requests[1].id = 5
    async with running(new_node(Memory(), Recorder())) as node:
        for request in requests:
            await node.propose(request)
    assert requests[0].id != requests[1].id
    assert 5 not in {r.id for r in requests}


async def test_read_barrier_of_a_sole_member() -> None:
    """A member that nobody can depose answers at once, whatever is under way, and leaves no trace in the log."""
    machine = Recorder()
    async with running(new_node(Memory(), machine)) as node:
        await node.propose(create("x"))
        before = node.applied_index
        proposal = asyncio.create_task(node.propose(create("y")))
        await asyncio.sleep(0)
        for _ in range(10):
            await node.read_barrier()
        assert machine.names == ["x"]
        await proposal
        assert node.applied_index == before + 1


async def test_the_member_list_is_itself(tmp_path: Path) -> None:
    """A sole manager lists itself, leading, and takes a new address into the replicated table. [store 62]"""
    lists: list[object] = []
    for addr in ("10.0.0.1:4242", "10.0.0.2:4242"):
        node = new_node(tmp_path, Recorder(), addr=addr)
        node.on_members(lists.append)
        async with running(node):
            await until(lambda: lists and lists[-1][0].addr == addr)  # type: ignore[index]  # noqa: B023 - awaited at once
            (member,) = node.members()
            assert (member.node_id, member.addr, member.leader, member.raft_id) == ("node-1", addr, True, node.raft_id)


async def test_late_listeners_are_told_at_once() -> None:
    """Who asks after leadership was won learns of it immediately, and nothing after undoing."""
    told: list[bool] = []
    async with running(new_node(Memory(), Recorder())) as node:
        undo = node.on_leadership(told.append)
        assert told == [True]
        undo()
    assert told == [True]


async def test_snapshots_appear_at_the_interval_and_shorten_the_replay(tmp_path: Path) -> None:
    """After snapshot_interval entries there is one snapshot; a restart begins there and replays only the rest. [store 100]"""
    machine, config = Recorder(), api.RaftConfig(snapshot_interval=9)
    snapshots = tmp_path / "snap-pyswarm"
    async with running(new_node(tmp_path, machine, config)) as node:
        for i in range(5):
            await node.propose(create(f"n{i}"))
        assert list(snapshots.iterdir()) == []
        for i in range(5, 25):
            await node.propose(create(f"n{i}"))
        await until(lambda: [p for p in snapshots.iterdir() if p.suffix == ".snap"])
    assert len(list(snapshots.iterdir())) == 1
    again = Recorder()
    async with running(new_node(tmp_path, again, config)):
        assert again.names == machine.names
        assert again.restored == 1
        assert 0 < len(again.applied) < 20


def past(node: RaftNode, after: int) -> list[tuple[int, str]]:
    """The writes behind an index."""
    return [(index, request.action[0].node.id) for index, request in node.history(after)]


async def test_history(tmp_path: Path) -> None:
    """Behind any index that is kept come the applied writes, each with its index, also after a restart. [store 83]"""
    async with running(new_node(tmp_path, Recorder())) as node:
        indexes = [await node.propose(create(f"n{i}")) for i in range(10)]
        everything = [(index, f"n{i}") for i, index in enumerate(indexes)]
        assert past(node, 0) == everything
        assert past(node, indexes[3]) == everything[4:]
        assert past(node, indexes[3] - 1) == everything[3:]
        assert past(node, indexes[9]) == []
        begun = node.history(indexes[0])
        await node.propose(create("later"))
        assert [index for index, _ in begun] == indexes[1:]
        with pytest.raises(Unknown, match="versions are out of order"):
            node.history(node.applied_index + 1)
    async with running(new_node(tmp_path, Recorder())) as node:
        assert past(node, indexes[3])[:6] == everything[4:]


async def test_history_that_is_gone(tmp_path: Path) -> None:
    """What a snapshot has made superfluous is refused, by name; what is kept for slow followers is still told. [store 60] [store 83]"""
    config = api.RaftConfig(snapshot_interval=9, log_entries_for_slow_followers=4)
    async with running(new_node(tmp_path, Recorder(), config)) as node:
        indexes = [await node.propose(create(f"n{i}")) for i in range(40)]
        await until(lambda: node._replica is not None and node._replica.entries(1, 1) is None)
        with pytest.raises(Compacted, match="requested index is unavailable due to compaction"):
            node.history(indexes[0])
        assert past(node, indexes[-4]) == [(index, f"n{37 + i}") for i, index in enumerate(indexes[-3:])]


async def test_snapshot_interval_zero_means_never(tmp_path: Path) -> None:
    """No periodic snapshot is taken when the interval is 0."""
    async with running(new_node(tmp_path, Recorder(), api.RaftConfig(snapshot_interval=0))) as node:
        await asyncio.gather(*(node.propose(create(f"n{i}")) for i in range(50)))
    assert list((tmp_path / "snap-pyswarm").iterdir()) == []


async def test_old_snapshots_are_kept_as_configured(tmp_path: Path) -> None:
    """keep_old_snapshots is how many stay beside the newest."""
    config = api.RaftConfig(snapshot_interval=3, keep_old_snapshots=2)
    async with running(new_node(tmp_path, Recorder(), config)) as node:
        for i in range(60):
            await node.propose(create(f"n{i}"))
            await asyncio.sleep(0.001)
    assert len(list((tmp_path / "snap-pyswarm").iterdir())) == 3


async def test_a_failed_snapshot_is_tried_again_later() -> None:
    """A snapshot that cannot be written costs nothing but a log line; a later entry triggers the next try."""
    memory = Memory()
    memory.memory_snapshots.full_at = 1
    machine = Recorder()
    async with running(new_node(memory, machine, api.RaftConfig(snapshot_interval=3))) as node:
        for i in range(12):
            await node.propose(create(f"n{i}"))
        assert memory.memory_snapshots.names() == []
        memory.memory_snapshots.full_at = 0
        await node.propose(create("later"))
        await until(memory.memory_snapshots.names)


async def test_a_crash_between_snapshot_and_trimming_loses_nothing() -> None:
    """With the snapshot on disk and the log untrimmed, every acknowledged entry is there. [store 124]"""
    memory = Memory()
    async with running(new_node(memory, Recorder(), api.RaftConfig(snapshot_interval=5))) as node:
        for i in range(30):
            await node.propose(create(f"n{i}"))
        await until(memory.memory_snapshots.names)
        await node.propose(create("last"))
        found = memory.after_crash()
    machine = Recorder()
    async with running(new_node(found, machine)):
        assert machine.names == [*(f"n{i}" for i in range(30)), "last"]


async def test_a_damaged_snapshot_is_set_aside_for_an_older_one(tmp_path: Path) -> None:
    """The newest snapshot has a flipped bit: it is renamed, the one before and the log give the full state. [store 107]"""
    machine, config = Recorder(), api.RaftConfig(snapshot_interval=5, keep_old_snapshots=1, log_entries_for_slow_followers=100)
    async with running(new_node(tmp_path, machine, config)) as node:
        for i in range(30):
            await node.propose(create(f"n{i}"))
            await asyncio.sleep(0.001)
    newest = max((tmp_path / "snap-pyswarm").iterdir())
    data = bytearray(newest.read_bytes())
    data[-20] ^= 1
    newest.write_bytes(data)
    again = Recorder()
    async with running(new_node(tmp_path, again)):
        assert again.names == machine.names
    assert newest.with_name(newest.name + ".broken").exists()


async def test_no_usable_snapshot_is_fatal_not_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that continues from a snapshot that is gone stops the node; it never starts with an empty state. [store 122]"""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 300)
    memory = Memory()
    async with running(new_node(memory, Recorder(), api.RaftConfig(snapshot_interval=3))) as node:
        first = memory.memory_log.names()[0]
        number = 0
        while first in memory.memory_log.names():
            number += 1
            await node.propose(create(f"n{number}"))
            await asyncio.sleep(0.001)
    memory.memory_snapshots.durable.clear()
    with pytest.raises(CorruptJournal, match="no usable snapshot"):
        await new_node(memory, Recorder()).run()


async def test_snapshots_without_a_log_are_refused() -> None:
    """A lost log directory is not a new member: its votes are lost."""
    memory = Memory()
    async with running(new_node(memory, Recorder(), api.RaftConfig(snapshot_interval=3))) as node:
        for i in range(10):
            await node.propose(create(f"n{i}"))
        await until(memory.memory_snapshots.names)
    memory.memory_log.durable.clear()
    with pytest.raises(StorageError, match="no log"):
        await new_node(memory, Recorder()).run()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"data_key": b"x" * 32}, WrongKey),
        ({"cluster_id": "another"}, ForeignDirectory),
        ({"node_id": "another"}, ForeignDirectory),
    ],
)
async def test_the_directory_of_somebody_else_is_refused(tmp_path: Path, changes: dict[str, object], error: type[Exception]) -> None:
    """Wrong key, other cluster, other node: run and started both say so. [store 109]"""
    async with running(new_node(tmp_path, Recorder())):
        pass
    node = new_node(tmp_path, Recorder(), **changes)
    with pytest.raises(error):
        await node.run()
    with pytest.raises(error):
        await node.started()


async def test_a_new_data_key_reads_what_the_old_one_wrote(tmp_path: Path) -> None:
    """During a key rotation the old key opens old files; what is written then opens with the new key."""
    first, second = Recorder(), Recorder()
    async with running(new_node(tmp_path, first)) as node:
        await node.propose(create("old"))
    async with running(new_node(tmp_path, second, data_key=b"n" * 32, old_keys=[b"k" * 32])):
        assert second.names == ["old"]


async def test_one_directory_serves_one_process(tmp_path: Path) -> None:
    """A second node on the same directory is refused while the first runs, and works after."""
    async with running(new_node(tmp_path, Recorder())):
        with pytest.raises(DirectoryInUse, match="another process"):
            await new_node(tmp_path, Recorder()).run()
    async with running(new_node(tmp_path, Recorder())):
        pass


async def test_stopping_leaves_no_thread_or_file_behind(tmp_path: Path) -> None:
    """After cancelling run no descriptor on the directory stays open."""
    async with running(new_node(tmp_path, Recorder())) as node:
        await node.propose(create("x"))
    assert not open_files(tmp_path)
