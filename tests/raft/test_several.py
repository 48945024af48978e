"""Several managers hold one log, over a real network."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.raft.cluster import cluster, until


async def test_three_managers_hold_one_log(tmp_path: Path) -> None:
    """Managers that join get everything written before and after; all show the same members and leader. [store 88]"""
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


async def test_a_killed_leader_is_replaced(tmp_path: Path) -> None:
    """The two others elect one of them and go on; the former leader comes back as a follower and catches up. [store 83]"""
    async with cluster(tmp_path, 3) as three:
        await three.write("one")
        old = await three.leader()
        begun = asyncio.get_running_loop().time()
        await old.stop()
        await three.write("two")
        print("failover", asyncio.get_running_loop().time() - begun)
        assert asyncio.get_running_loop().time() - begun < 4
        await old.start()
        await three.write("three")
        await three.equal()
        assert not old.node.is_leader
