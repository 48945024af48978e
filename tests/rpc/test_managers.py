"""Connections to the other managers over time: members, addresses, credentials, leaders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.dispatcher_pb2_grpc import DispatcherStub
from pyswarm.rpc.caller import MANAGER
from pyswarm.rpc.forward import Line
from tests.rpc.house import House, Node, house
from tests.rpc.pki import until
from tests.support.clock import VirtualClock, settle


@pytest.fixture
async def pair(clock: VirtualClock) -> AsyncIterator[House]:
    """Two managers on virtual time, of which `lead` leads."""
    async with house("lead", "follow", clock=clock) as built:
        await settle()
        yield built


async def connected(node: Node, other: str) -> Line:
    """The connection to another manager, once it stands."""

    def stands() -> bool:
        line = node.managers.line(other)
        return line is not None and line.stands()

    await until(stands)
    found = node.managers.line(other)
    assert found is not None
    return found


def is_closed(line: Line) -> bool:
    """Whether it was closed for good."""
    with line.in_use() as opened:
        return opened.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def streaming(
    node: Node, through: House
) -> tuple[grpc.aio.Channel, grpc.aio.UnaryStreamCall[api.SessionRequest, api.SessionMessage]]:
    """A session through a follower that has had its two messages; its channel, and itself."""
    opened = through.dial(node)
    stream = DispatcherStub(opened).Session(api.SessionRequest())
    assert [(await stream.read()).session_id for _ in range(2)] == ["one", "two"]
    return opened, stream


async def test_connections_stand_before_they_are_needed(pair: House) -> None:
    """Every manager is connected to every other, not to itself, and knows who leads and where."""
    lead, follow = pair.nodes["lead"], pair.nodes["follow"]
    await connected(lead, "follow")
    assert await connected(follow, "lead") is follow.managers.leader_line()
    assert follow.managers.leader() == ("lead", lead.remote.address)
    assert lead.managers.leader() == ("lead", lead.remote.address)
    assert lead.managers.leader_line() is None
    assert lead.managers.line("lead") is None
    assert (lead.managers.is_leader, follow.managers.is_leader) == (True, False)


async def test_change_is_told_once(pair: House) -> None:
    """Whoever waits for a change is woken by it, and by nothing else."""
    managers, view = pair.nodes["follow"].managers, pair.nodes["follow"].view
    changed = managers.changed
    view.tell()
    await settle()
    assert not changed.is_set()
    view.elect("")
    await settle()
    assert changed.is_set()
    assert managers.changed is not changed
    assert not managers.changed.is_set()


async def test_silent_change_is_noticed(pair: House, clock: VirtualClock) -> None:
    """The log does not call back when another member begins to lead; within a quarter of a second it is known all the same."""
    managers, view = pair.nodes["follow"].managers, pair.nodes["follow"].view
    changed = managers.changed
    view.leader = ""
    await clock.advance(0.3)
    assert changed.is_set()


async def test_member_that_leaves(pair: House) -> None:
    """The connection to a member that left is closed, and calls on it end."""
    follow = pair.nodes["follow"]
    old = await connected(follow, "lead")
    opened, stream = await streaming(follow, pair)
    follow.view.addresses.pop("lead")
    follow.view.tell()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await asyncio.wait_for(stream.read(), 10)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert follow.managers.line("lead") is None
    assert is_closed(old)
    await opened.close(None)


async def test_renewed_certificate(pair: House, clock: VirtualClock) -> None:
    """After a renewal calls take a new connection; a stream on the old one lives on, and the old one ends with it."""
    lead, follow = pair.nodes["lead"], pair.nodes["follow"]
    old = await connected(follow, "lead")
    opened, stream = await streaming(follow, pair)
    fresh = pair.authority.issue("follow", MANAGER)
    follow.security.replace_certificate(fresh.cert_pem, fresh.key_pem)
    await settle()
    assert await connected(follow, "lead") is not old
    await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10)
    assert len(lead.actor.callers) == 2
    assert not stream.done()
    await clock.advance(60)
    await asyncio.sleep(0.1)
    assert not stream.done()
    assert not is_closed(old)
    stream.cancel()
    await until(lambda: is_closed(old))
    await opened.close(None)


async def test_new_address(pair: House) -> None:
    """A member at a new address is connected there."""
    follow = pair.nodes["follow"]
    old = await connected(follow, "lead")
    replacement = await pair.add("elsewhere", announce=False)
    follow.view.addresses["lead"] = replacement.remote.address
    follow.view.tell()
    await settle()
    assert await connected(follow, "lead") is not old
    assert follow.managers.leader() == ("lead", replacement.remote.address)


async def test_former_leader_may_finish_for_a_moment(pair: House, clock: VirtualClock) -> None:
    """Streams to a manager that leads no more are cut after half a second, also those on a connection from before a renewal."""
    follow = pair.nodes["follow"]
    await connected(follow, "lead")
    opened, stream = await streaming(follow, pair)
    fresh = pair.authority.issue("follow", MANAGER)
    follow.security.replace_certificate(fresh.cert_pem, fresh.key_pem)
    await settle()
    await connected(follow, "lead")
    follow.view.elect("follow")
    await clock.advance(0.4)
    await asyncio.sleep(0.1)
    assert not stream.done()
    await clock.advance(0.2)
    with pytest.raises(grpc.aio.AioRpcError, match="because another manager leads") as failure:
        await asyncio.wait_for(stream.read(), 10)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    await connected(follow, "lead")
    await opened.close(None)


async def test_leader_that_comes_back_keeps_its_streams(pair: House, clock: VirtualClock) -> None:
    """A leader that was out of sight, or replaced for less than half a second, keeps the calls that were passed to it."""
    follow = pair.nodes["follow"]
    await connected(follow, "lead")
    opened, stream = await streaming(follow, pair)
    for name in ("", "lead", "follow", "lead"):
        follow.view.elect(name)
        await clock.advance(0.3)
    await clock.advance(5)
    await asyncio.sleep(0.1)
    assert not stream.done()
    stream.cancel()
    await opened.close(None)


async def test_stopping_manager_lets_calls_end(pair: House, clock: VirtualClock) -> None:
    """A manager that stops waits a second for calls that it passed on, then cuts them."""
    follow = pair.nodes["follow"]
    line = await connected(follow, "lead")
    opened, stream = await streaming(follow, pair)
    stopping = asyncio.create_task(_cancel(follow.tasks[-1]))
    await clock.advance(0.9)
    await asyncio.sleep(0.1)
    assert not stream.done()
    assert not is_closed(line)
    await clock.advance(0.2)
    await asyncio.wait_for(stopping, 10)
    with pytest.raises(grpc.aio.AioRpcError, match="or this one stops"):
        await asyncio.wait_for(stream.read(), 10)
    await opened.close(None)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_nothing_stays_open(clock: VirtualClock) -> None:
    """When it stops, every connection is closed."""
    async with house("lead", "follow", clock=clock) as built:
        follow = built.nodes["follow"]
        old = await connected(follow, "lead")
    assert is_closed(old)
