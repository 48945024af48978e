"""A manager that goes on alone: nothing on its disk is lost, the others' raft ids are burnt, and a crash in between harms nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import structlog.testing

from pyswarm.api import v1 as api
from pyswarm.errors import FailedPrecondition
from pyswarm.raft import commands
from pyswarm.raft.errors import StorageError
from pyswarm.raft.membership import Change, Membership
from pyswarm.raft.recovery import begin_anew
from pyswarm.raft.storage import Storage, found_storage, join_storage, open_storage
from pyswarm.raft.vault import Vault
from tests.raft.cluster import Box, Cluster, cluster, until
from tests.raft.disks import MemoryDisk, PowerCut
from tests.raft.nodes import create

DiskPair = tuple[MemoryDisk, MemoryDisk]


def vault() -> Vault:
    """The vault of the manager under test."""
    return Vault("cluster-1", "node-1", (b"k" * 32,))


def opened(disks: DiskPair) -> Storage:
    """What a start finds."""
    storage = open_storage(*disks, vault(), 0)
    assert storage is not None
    return storage


def three_members() -> DiskPair:
    """The disk of the founder of three, stopped with five acknowledged writes of which it noted only the first as committed."""
    disks = MemoryDisk(), MemoryDisk()
    owner = vault()
    owner.adopt(1)
    journal = found_storage(*disks, owner, "old:1").journal
    journal.setCurrentTerm(4, "2")
    for raft_id in (2, 3):
        member = api.RaftMember(raft_id=raft_id, node_id=f"node-{raft_id}", addr=f"a:{raft_id}")
        journal.add(commands.membership(Change(kind=Change.ADD, member=member)), raft_id, 4)
    for index in range(4, 9):
        journal.add(commands.store(create(f"n{index}").SerializeToString()), index, 4)
    journal.setRaftCommitIndex(4)
    journal.sync()
    return disks


def is_old(storage: Storage) -> bool:
    """Three members, everything as it was."""
    return (set(storage.present().members), storage.journal.last_index, storage.present().removed) == ({1, 2, 3}, 8, set())


def is_new(storage: Storage) -> bool:
    """One member, two burnt ids, all writes kept and final."""
    journal, present = storage.journal, storage.present()
    kept = [journal.at(i) is not None and journal.at(i)[2] == 4 for i in range(2, 9)]  # type: ignore[index]
    return all(kept) and (set(present.members), present.removed, journal.getRaftCommitIndex()) == ({1}, {2, 3}, 9)


def test_what_the_one_entry_says() -> None:
    """One member under its present address, the others burnt; entries beyond the recorded commit index are kept and final. [store 79]"""
    disks = three_members()
    storage = opened(disks)
    begin_anew(storage, "new:1", 77)
    for found in (storage, opened((disks[0].after_crash(), disks[1].after_crash()))):
        assert is_new(found)
        present = found.present()
        assert (present.members[1].addr, present.members[1].node_id, present.era) == ("new:1", "node-1", 77)
        assert found.journal.getCurrentTerm() == 5
        assert found.journal.getVotedForNodeId() == "1"


@pytest.mark.parametrize("again", [False, True])
def test_a_crash_at_any_write_leaves_old_or_new(again: bool) -> None:
    """Whatever of the unsynced bytes survives, the next start, with the flag or without, finds the old membership or the new. [store 79]"""
    seen = set()
    for step in range(1, 20):
        disks = three_members()
        storage = opened(disks)
        disks[0].die_at = disks[0].calls + step
        try:
            begin_anew(storage, "", 77)
            died = False
        except PowerCut:
            died = True
        loose = max((len(data) for data in disks[0].loose.values()), default=0)
        for keep in range(loose + 1):
            found = opened((disks[0].after_crash(keep), disks[1].after_crash()))
            assert is_old(found) != is_new(found)
            seen.add(is_new(found))
            if again:
                begin_anew(found, "", 78)
                assert is_new(found)
        if not died:
            break
    assert seen == {False, True}


def test_the_flag_may_stay() -> None:
    """For the only member of a cluster nothing is written; the empty address means the old one."""
    disks = three_members()
    storage = opened(disks)
    begin_anew(storage, "", 77)
    assert storage.present().members[1].addr == "old:1"
    calls = disks[0].calls
    begin_anew(opened(disks), "other:1", 78)
    assert disks[0].calls == calls


def test_who_cannot_stand_for_the_cluster() -> None:
    """A member without any entry, and one that was removed, are refused, and their disks stay as they are."""
    disks = MemoryDisk(), MemoryDisk()
    owner = vault()
    owner.adopt(9)
    fresh = join_storage(*disks, owner)
    calls = disks[0].calls
    with pytest.raises(StorageError, match="holds nothing yet"):
        begin_anew(fresh, "", 77)
    assert disks[0].calls == calls
    disks = three_members()
    storage = opened(disks)
    storage.journal.add(commands.membership(Change(kind=Change.REMOVE, member=api.RaftMember(raft_id=1))), 9, 4)
    storage.journal.sync()
    calls = disks[0].calls
    with pytest.raises(StorageError, match="raft member 1 was removed"):
        begin_anew(storage, "", 77)
    assert disks[0].calls == calls


def test_a_reset_is_final_in_every_log() -> None:
    """Who got the entry from another manager knows that all before it is committed, also before a leader says so."""
    disks = three_members()
    begin_anew(opened(disks), "", 77)
    lagging = opened(disks)
    lagging.journal.setRaftCommitIndex(2)
    lagging.journal.close()
    assert opened(disks).journal.getRaftCommitIndex() == 9


def test_a_reset_in_a_snapshot_is_not_applied_again() -> None:
    """Members that were added since stay members when the entry is still in the log behind the snapshot. [store 102]"""
    table = Membership()
    table.apply(Change(kind=Change.RESET, member=api.RaftMember(raft_id=1, node_id="node-1"), era=77))
    table.apply(Change(kind=Change.ADD, member=api.RaftMember(raft_id=4, node_id="node-4")))
    assert (set(table.members), table.removed, table.era) == ({1, 4}, set(), 77)
    again = Membership(table.snapshot(), table.era)
    copy = Membership()
    copy.replace(again)
    assert (copy.members, copy.removed, copy.era) == (table.members, set(), 77)


async def restart_forced(box: Box) -> None:
    """Start a box as the only member."""
    box.force_new_cluster = True
    await box.start()
    box.force_new_cluster = False


async def lose_majority(made: Cluster) -> tuple[Box, list[Box]]:
    """Stop everybody; who has everything is the one to go on with."""
    await made.equal()
    survivor = made.boxes[0]
    await made.stop()
    return survivor, [b for b in made.boxes if b is not survivor]


async def test_one_of_three_goes_on(tmp_path: Path) -> None:
    """Itself is the member list, data, cluster and raft id stay; two new members join; a write reaches all three. [store 79]"""
    async with cluster(tmp_path, 3) as three:
        for i in range(10):
            await three.write(f"n{i}")
        raft_id = three.boxes[0].node.raft_id
        burnt = {b.node.raft_id for b in three.boxes[1:]}
        survivor, lost = await lose_majority(three)
        await restart_forced(survivor)
        await three.write("alone")
        assert survivor.node.raft_id == raft_id
        assert [m.raft_id for m in survivor.node.members()] == [raft_id]
        for _ in range(2):
            await three.join(three.add())
        await three.write("all")
        await three.equal([survivor, *three.boxes[3:]])
        # the old ones come back with their logs: told, refused, no trace in the cluster
        term = term_of(survivor)
        for box in lost:
            await box.start()
            with pytest.raises(FailedPrecondition, match="delete its raft directory and join again"):
                await (await three.leader()).node.join(box.name, box.addr)
        await until(lambda: all(b.removed for b in lost))
        await three.write("after")
        assert term_of(survivor) == term
        assert not burnt & {m.raft_id for m in survivor.node.members()}
        # wiped they are welcome
        await lost[0].stop()
        shutil.rmtree(lost[0].directory)
        await three.join(lost[0])
        await three.equal([survivor, lost[0], *three.boxes[3:]])
        assert "alone" in lost[0].machine.names
        # an ordinary restart of the survivor changes nothing more
        await survivor.stop()
        await survivor.start()
        await three.equal([survivor, lost[0]])
        assert len(survivor.node.members()) == 4


async def test_former_members_that_the_survivor_never_knew(tmp_path: Path) -> None:
    """A majority that was not lost after all, with a leader of a higher term and members unknown here, is not listened to. [store 79]"""
    async with cluster(tmp_path, 3) as three:
        await three.write("common")
        survivor = three.boxes[0]
        await three.equal()
        await survivor.stop()
        for _ in range(2):
            await three.join(three.add())
        for i in range(5):
            await three.write(f"theirs-{i}")
        others = three.boxes[1:]
        # the newest two lead by themselves once one more is gone: three of five
        await others[0].stop()
        await until(lambda: any(b.running and b.node.is_leader for b in others))
        strangers = [b for b in others if b.running]
        theirs = next(b for b in strangers if b.node.is_leader)
        if theirs not in three.boxes[3:]:
            await theirs.node.transfer_leadership()
        with structlog.testing.capture_logs() as logs:
            await restart_forced(survivor)
            await until(lambda: survivor.node.is_leader)
            await survivor.node.propose(create("ours"))
            term = term_of(survivor)
            await until(lambda: any("began anew" in entry.get("reason", "") for entry in logs))
        await survivor.node.propose(create("ours-too"))
        assert term_of(survivor) == term
        assert survivor.machine.names == ["common", "ours", "ours-too"]
        assert [m.node_id for m in survivor.node.members()] == [survivor.name]


async def test_forced_from_a_snapshot_after_a_removal(tmp_path: Path) -> None:
    """The second was removed before the snapshot, a fourth joined after it: only the first remains, and writes work. [store 102]"""
    config = api.RaftConfig(snapshot_interval=10, log_entries_for_slow_followers=2)
    async with cluster(tmp_path, 3, config) as made:
        first, second = made.boxes[:2]
        await until(lambda: all(m.reachable for m in first.node.members()))
        gone = second.node.raft_id
        await first.node.remove(gone)
        await second.stop()
        for i in range(25):
            await made.write(f"n{i}")
        await until(lambda: bool(snapshots(first)))
        await made.join(made.add())
        survivor, lost = await lose_majority(made)
        await restart_forced(survivor)
        await made.write("alone")
        assert [m.node_id for m in survivor.node.members()] == [survivor.name]
        # the next snapshot carries it on, also to who joins from it
        for i in range(25):
            await made.write(f"m{i}")
        await made.join(made.add())
        await made.equal([survivor, made.boxes[-1]])
        assert made.boxes[-1].machine.restored == 1
        for box in (survivor, made.boxes[-1]):
            assert box.node._replica is not None
            assert box.node._replica.membership.era
            assert box.node._replica.membership.removed >= {gone}
        assert lost
        await survivor.stop()
        await survivor.start()
        await made.write("again")
        assert len(survivor.node.members()) == 2


async def test_nothing_to_go_on_with(tmp_path: Path) -> None:
    """An empty directory stays empty."""
    made = Cluster(tmp_path)
    box = made.add()
    try:
        with pytest.raises(StorageError, match="there is no log in"):
            await restart_forced(box)
    finally:
        await made.stop()
    assert not [path for path in box.directory.rglob("*") if path.is_file()]


def term_of(box: Box) -> int:
    """The term a member is in."""
    replica = box.node._replica
    assert replica is not None
    return replica.core.term


def snapshots(box: Box) -> list[str]:
    """The names of a member's snapshots."""
    return [path.name for path in (box.directory / "snap-pyswarm").glob("*.snap")]
