"""Several managers hold one log, over a real network."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import FailedPrecondition, InvalidArgument
from pyswarm.raft.errors import StorageError
from pyswarm.raft.log import Joined, LostLeadership
from tests.raft.cluster import cluster, until
from tests.raft.nodes import create


async def test_three_managers_hold_one_log(tmp_path: Path) -> None:
    """Managers that join get everything written before and after; all show the same members and leader. [store 62, 63]"""
    async with cluster(tmp_path, 1) as three:
        for i in range(20):
            await three.write(f"before-{i}")
        await three.join(three.add())
        await three.join(three.add())
        for i in range(20):
            await three.write(f"after-{i}")
        await three.equal()
        leader = await three.leader()
        await until(lambda: all(b.node.leader() is not None for b in three.boxes))
        for box in three.boxes:
            assert [(m.node_id, m.addr, m.leader) for m in box.node.members()] == [
                (m.node_id, m.addr, m.raft_id == leader.node.raft_id) for m in leader.node.members()
            ]
            assert {m.node_id for m in box.node.members()} == {"node-0", "node-1", "node-2"}
        await until(lambda: all(m.reachable for m in leader.node.members()))
        await leader.node.read_barrier()
        follower = next(b for b in three.boxes if b is not leader)
        with pytest.raises(LostLeadership) as refused:
            await follower.node.propose(create("no"))
        assert not refused.value.uncertain


async def test_a_killed_leader_is_replaced(tmp_path: Path) -> None:
    """The two others elect one of them and go on; the former leader comes back as a follower and catches up. [store 64, 76]"""
    async with cluster(tmp_path, 3) as three:
        await three.write("first")
        for i in range(2):
            old = await three.leader()
            begun = time.monotonic()
            await old.stop()
            await three.write(f"after-{i}")
            assert time.monotonic() - begun < 3
            await old.start()
            await three.write(f"back-{i}")
            await three.equal()
            assert not old.node.is_leader


async def test_five_managers_survive_two_losses(tmp_path: Path) -> None:
    """Writers go on while two of five, the leader among them, are gone and come back; without a third nothing commits. [store 67, 68]"""
    async with cluster(tmp_path, 5) as five:
        stop = asyncio.Event()

        async def writer(name: str) -> None:
            number = 0
            while not stop.is_set():
                await five.write(f"{name}-{number}")
                number += 1
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            for i in range(4):
                group.create_task(writer(f"w{i}"))
            await asyncio.sleep(0.2)
            leader = await five.leader()
            other = next(b for b in five.boxes if b is not leader)
            await leader.stop()
            await other.stop()
            before = len(five.acknowledged)
            await until(lambda: len(five.acknowledged) > before + 20)
            await leader.start()
            await other.start()
            await asyncio.sleep(0.2)
            stop.set()
        await five.equal()
        leader = await five.leader()
        others = [b for b in five.boxes if b is not leader]
        for box in others[:3]:
            await box.stop()
        with pytest.raises(LostLeadership) as lost:
            await leader.node.propose(create("nobody"))
        assert lost.value.uncertain
        assert leader.node.leader() is None
        assert not [box.name for box in five.boxes if box.running and "nobody" in box.machine.names]


async def test_joining_under_writes(tmp_path: Path) -> None:
    """A second and a third manager join while writers write; no write fails or is lost. [store 71]"""
    async with cluster(tmp_path, 1) as growing:
        stop = asyncio.Event()

        async def writer(name: str) -> None:
            number = 0
            while not stop.is_set():
                leader = await growing.leader()
                await leader.node.propose(create(f"{name}-{number}"))
                growing.acknowledged.append(f"{name}-{number}")
                number += 1

        async with asyncio.TaskGroup() as group:
            for i in range(4):
                group.create_task(writer(f"w{i}"))
            await growing.join(growing.add())
            await growing.join(growing.add())
            await asyncio.sleep(0.1)
            stop.set()
        await growing.equal()


async def test_joining_by_a_snapshot_that_has_the_leaders_old_address(tmp_path: Path) -> None:
    """A manager reaches the leader where it says it is, before it knows the entry that says so."""
    config = api.RaftConfig(snapshot_interval=10)
    async with cluster(tmp_path, 1, config) as growing:
        leader = await growing.leader()
        for i in range(15):
            await growing.write(f"n{i}")
        config.snapshot_interval = 0
        await leader.stop()
        leader.port = 0
        await leader.start()
        late = growing.add()
        assert not await late.open()
        joined = await (await growing.leader()).node.join(late.name, late.addr)
        for i in range(15):
            await growing.write(f"moved-{i}")
        await late.begin(joined)
        for i in range(50):
            await growing.write(f"meanwhile-{i}")
        async with asyncio.timeout(5):
            await late.node.joined()
        await growing.equal()
        assert growing.boxes[1].machine.restored == 1


async def test_two_join_at_the_same_time(tmp_path: Path) -> None:
    """Their additions follow one another."""
    async with cluster(tmp_path, 1) as growing:
        await asyncio.gather(growing.join(growing.add()), growing.join(growing.add()))
        await growing.write("one")
        await growing.equal()
        assert len((await growing.leader()).node.members()) == 3


async def test_catching_up_from_a_snapshot(tmp_path: Path) -> None:
    """A member that was away, and one that is new, get a snapshot when the log no longer reaches back far enough. [store 101]"""
    async with cluster(tmp_path, 3, api.RaftConfig(snapshot_interval=20, log_entries_for_slow_followers=5)) as three:
        leader = await three.leader()
        away = next(b for b in three.boxes if b is not leader)
        await away.stop()
        for i in range(100):
            await three.write(f"n{i}")
        await away.start()
        await three.join(three.add())
        await three.write("last")
        await three.equal()
        assert away.machine.restored == 1
        assert three.boxes[-1].machine.restored == 1
        assert len(three.boxes[-1].node.members()) == 4


async def test_everybody_stops_and_starts_again(tmp_path: Path) -> None:
    """All members know each other from disk and elect a leader; nothing is lost, also by one that was away before. [store 77]"""
    async with cluster(tmp_path, 3, api.RaftConfig(snapshot_interval=30)) as three:
        for i in range(50):
            await three.write(f"n{i}")
        late = three.boxes[2]
        await late.stop()
        await three.write("without")
        await three.stop()
        for box in three.boxes:
            await box.start()
        await three.write("again")
        await three.equal()


async def test_a_removed_member_is_told(tmp_path: Path) -> None:
    """Removal needs the quorum to stay; who was removed hears of it, leads nothing, and its raft id is burnt. [store 69]"""
    async with cluster(tmp_path, 3) as three:
        leader = await three.leader()
        gone, stays = (b for b in three.boxes if b is not leader)
        with pytest.raises(LostLeadership):
            await stays.node.remove(gone.node.raft_id)
        await until(lambda: all(m.reachable for m in leader.node.members()))
        assert leader.node.can_remove(gone.node.raft_id)
        raft_id = gone.node.raft_id
        await leader.node.remove(raft_id)
        await leader.node.remove(raft_id)
        await until(lambda: gone.removed > 0)
        assert {m.raft_id for m in leader.node.members()} == {leader.node.raft_id, stays.node.raft_id}
        with pytest.raises(InvalidArgument):
            await leader.node.remove(4711)
        with pytest.raises(FailedPrecondition, match="delete its raft directory"):
            await leader.node.join(gone.name, gone.addr)
        await gone.stop()
        shutil.rmtree(gone.directory)
        await three.join(gone)
        assert gone.node.raft_id != raft_id
        await three.write("back")
        await three.equal()
        assert gone.removed == 1


async def test_a_removal_that_would_cost_the_quorum(tmp_path: Path) -> None:
    """With one of three down, the dead one may be removed and the live one may not. [store 82]"""
    async with cluster(tmp_path, 3) as three:
        leader = await three.leader()
        dead, live = (b for b in three.boxes if b is not leader)
        await dead.stop()
        await until(lambda: sum(m.reachable for m in leader.node.members()) == 2)
        assert not leader.node.can_remove(live.node.raft_id)
        with pytest.raises(
            FailedPrecondition, match="loss of quorum: 3 managers, 2 reachable; of the 2 that would remain 1 can be reached"
        ):
            await leader.node.remove(live.node.raft_id)
        await leader.node.remove(dead.node.raft_id)
        await three.write("two are left")


async def test_the_last_member_stays(tmp_path: Path) -> None:
    """A sole member can never be removed."""
    async with cluster(tmp_path, 1) as one:
        node = (await one.leader()).node
        assert not node.can_remove(node.raft_id)
        with pytest.raises(FailedPrecondition, match="loss of quorum"):
            await node.remove(node.raft_id)
        with pytest.raises(FailedPrecondition, match="longest"):
            await node.transfer_leadership()
        await node.hand_over()
        assert node.is_leader


async def test_handing_leadership_over(tmp_path: Path) -> None:
    """Another member leads within half a second, and no write fails with an unknown outcome. [store 91]"""
    async with cluster(tmp_path, 3) as three:
        stop = asyncio.Event()

        async def writer() -> None:
            number = 0
            while not stop.is_set():
                await three.write(f"n{number}")
                number += 1

        old = await three.leader()
        await until(lambda: all(m.reachable for m in old.node.members()))
        told: dict[str, list[int]] = {box.name: [] for box in three.boxes}
        for box in three.boxes:
            box.node.on_members(lambda members, to=told[box.name]: to.extend(m.raft_id for m in members if m.leader))  # type: ignore[misc]
        async with asyncio.TaskGroup() as group:
            group.create_task(writer())
            await asyncio.sleep(0.1)
            begun = time.monotonic()
            await old.node.transfer_leadership()
            new = await three.leader()
            taken = time.monotonic() - begun
            await asyncio.sleep(0.1)
            stop.set()
        assert new is not old
        assert taken < 0.5
        await until(lambda: all(ids and ids[-1] == new.node.raft_id for ids in told.values()))
        await three.equal()
        with pytest.raises(LostLeadership):
            await new.node.remove(new.node.raft_id)
        await until(lambda: not new.node.is_leader)
        await (await three.leader()).node.hand_over()


async def test_a_wiped_member_gets_a_new_raft_id(tmp_path: Path) -> None:
    """Who lost its log forgot its votes: the old id is removed before it joins again. [store 131]"""
    async with cluster(tmp_path, 3) as three:
        await three.write("one")
        leader = await three.leader()
        wiped = next(b for b in three.boxes if b is not leader)
        old = wiped.node.raft_id
        await wiped.stop()
        shutil.rmtree(wiped.directory)
        await three.join(wiped)
        assert wiped.node.raft_id != old
        await three.write("two")
        await three.equal()
        leader = await three.leader()
        assert old not in {m.raft_id for m in leader.node.members()}
        assert len(leader.node.members()) == 3


async def test_joining_again_with_the_log(tmp_path: Path) -> None:
    """The same address changes nothing; another one is taken over, and the raft id stays. [store 72]"""
    async with cluster(tmp_path, 3) as three:
        leader = await three.leader()
        box = next(b for b in three.boxes if b is not leader)
        raft_id = box.node.raft_id
        before = leader.node.applied_index
        assert (await leader.node.join(box.name, box.addr)).raft_id == raft_id
        assert leader.node.applied_index == before
        await box.stop()
        box.port = 0
        await box.start()
        assert (await leader.node.join(box.name, box.addr)).raft_id == raft_id
        assert next(m for m in leader.node.members() if m.raft_id == raft_id).addr == box.addr
        await three.write("after")
        await three.equal()


async def test_who_cannot_be_reached_does_not_join(tmp_path: Path) -> None:
    """Nothing changes when nobody answers at the address, or the wrong kind of directory is there. [store 73]"""
    async with cluster(tmp_path, 1) as one:
        leader = await one.leader()
        with pytest.raises(FailedPrecondition, match="could not connect to prospective new cluster member"):
            await leader.node.join("node-9", "127.0.0.1:1")
        assert len(leader.node.members()) == 1
        stray = one.add()
        assert not await stray.open()
        stray.node.adopt(Joined(leader.node.raft_id, leader.node.members()))
        with pytest.raises(StorageError, match="once had a log"):
            await stray.begin()
        await one.write("fine")


async def test_a_joiner_that_stops_half_way_comes_back_as_the_same(tmp_path: Path) -> None:
    """Asked again, the leader takes up a manager that has a log but no vote yet, under the raft id it has."""
    async with cluster(tmp_path, 1) as two:
        leader = await two.leader()
        box = two.add()
        await box.open()
        first = await leader.node.join(box.name, box.addr)
        assert (await leader.node.join(box.name, box.addr)).raft_id == first.raft_id
        # it begins, but the leader has forgotten it meanwhile
        await leader.node.remove(first.raft_id)
        await box.begin(first)
        await asyncio.sleep(0.1)
        await box.stop()
        assert await box.open()
        await box.begin()
        assert (await leader.node.join(box.name, box.addr)).raft_id == first.raft_id
        async with asyncio.timeout(5):
            await box.node.joined()
        await two.write("one")
        await two.equal()
