"""The door to the leader."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest

from pyswarm.errors import ResourceExhausted, Unimplemented, Unknown
from pyswarm.rpc import forward, roles
from pyswarm.rpc.forward import LeaderDoor
from tests.rpc.pki import Leader
from tests.support.clock import VirtualClock, settle


async def test_leader_lets_pass(clock: VirtualClock) -> None:
    """On the leader a call goes through at once, whatever it was marked with. [ca 165]"""
    await LeaderDoor(Leader(), clock).pass_through({"redirect": ["10.0.0.1:1"]}, "10.0.0.2:1")


async def test_call_waits_for_leadership(clock: VirtualClock) -> None:
    """A call that comes while the node is still starting waits and then runs."""
    leader = Leader(leading=False)
    call = asyncio.create_task(LeaderDoor(leader, clock).pass_through({}, ""))
    await clock.advance(3)
    assert not call.done()
    leader.leading = True
    await clock.advance(1)
    await call


async def test_no_leader_for_long(clock: VirtualClock) -> None:
    """After ten seconds without leader calls fail with the well-known sentence, later ones at once, until somebody leads again."""
    leader = Leader(leading=False)
    door = LeaderDoor(leader, clock)
    call = asyncio.create_task(door.pass_through({}, ""))
    await clock.advance(11)
    with pytest.raises(Unknown, match="The swarm does not have a leader"):
        await call
    with pytest.raises(Unknown, match="The swarm does not have a leader"):
        await door.pass_through({}, "")
    leader.leading = True
    await door.pass_through({}, "")
    leader.leading = False
    again = asyncio.create_task(door.pass_through({}, ""))
    await settle()
    assert not again.done()
    again.cancel()


async def test_only_one_hop(clock: VirtualClock) -> None:
    """A follower refuses what was passed on before; passing on itself is not there yet. [ca 165]"""

    class Follower(Leader):
        def leader_channel(self) -> grpc.aio.Channel | None:
            return opened

    async with grpc.aio.insecure_channel("127.0.0.1:1") as opened:
        door = LeaderDoor(Follower(leading=False), clock)
        with pytest.raises(ResourceExhausted, match=r"more than one redirect to leader from: \[10.0.0.1:1\]"):
            await door.pass_through({"redirect": ["10.0.0.1:1"]}, "10.0.0.2:1")
        with pytest.raises(Unimplemented):
            await door.pass_through({}, "10.0.0.2:1")


def test_tables_name_services() -> None:
    """Every name in the tables is a service of the contract."""
    names = {service.name for service in roles.services()}
    assert names >= forward.PROXIED_LOCAL | forward.PROXIED_REMOTE | forward.NOT_ON_LOCAL
    assert names - forward.PROXIED_LOCAL - forward.NOT_ON_LOCAL == {"Watch", "Health"}
    assert names - forward.PROXIED_REMOTE == {"Control", "Watch", "Logs", "Raft", "Health"}
