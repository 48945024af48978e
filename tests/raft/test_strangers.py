"""Who speaks another raft never becomes a voter."""

from __future__ import annotations

from pathlib import Path

import grpc.aio
import pytest

from pyswarm.errors import FailedPrecondition
from tests.raft.cluster import cluster


async def test_a_manager_of_another_kind_does_not_join(tmp_path: Path) -> None:
    """Before anything changes it is asked for its log, in a way that SwarmKit's managers do not know; then it is refused. [store 141]"""
    stranger = grpc.aio.server()
    port = stranger.add_insecure_port("127.0.0.1:0")
    await stranger.start()
    try:
        async with cluster(tmp_path, 1) as one:
            leader = (await one.leader()).node
            await one.write("one")
            before = leader.applied_index
            with pytest.raises(FailedPrecondition, match="advertised address: no pyswarm manager listens there"):
                await leader.join("node-of-swarmkit", f"127.0.0.1:{port}")
            assert [m.raft_id for m in leader.members()] == [leader.raft_id]
            await one.write("goes on")
            assert leader.applied_index == before + 1
    finally:
        await stranger.stop(None)
