"""The door to the leader: where a call runs, and how long it waits to know."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import grpc.aio
import pytest

import pyswarm.manager.control
from pyswarm.api.swarmkit import control_pb2, dispatcher_pb2
from pyswarm.errors import Aborted, Unavailable, Unknown
from pyswarm.raft.log import LostLeadership, TooLarge
from pyswarm.rpc import forward, relay, roles
from pyswarm.rpc.forward import HERE, LeaderDoor, Line, NotHere
from pyswarm.rpc.managers import Managers
from tests.rpc.house import View
from tests.rpc.pki import Authority, Leader, manager_security
from tests.support.clock import VirtualClock, settle


async def test_leader_lets_pass(clock: VirtualClock) -> None:
    """On the leader a call runs at once, whatever it was marked with. [ca 165; store 92]"""
    assert await LeaderDoor(Leader(), clock).find(["10.0.0.1:1"]) is None


async def test_call_waits_for_leadership(clock: VirtualClock) -> None:
    """A call that comes while the node is still starting waits and runs as soon as it leads. [dispatcher 172; control 159]"""
    leader = Leader(leading=False)
    call = asyncio.create_task(LeaderDoor(leader, clock).find())
    await clock.advance(3)
    assert not call.done()
    leader.leading = True
    leader.tell()
    assert await call is None
    assert clock.now() == 1_700_000_003.0


async def test_no_leader_for_long(clock: VirtualClock) -> None:
    """Ten seconds without a leader, and calls fail with the known sentence, later ones at once, until there is one.

    [dispatcher 172; control 159; store 92]
    """
    view = View("manager-1")
    managers = Managers(view, manager_security(Authority()), clock)
    running = asyncio.create_task(managers.run())
    door = LeaderDoor(managers, clock)
    view.elect("manager-1")
    await clock.advance(100)
    assert await door.find() is None
    view.elect("")
    await clock.advance(4)
    call = asyncio.create_task(door.find())
    await clock.advance(5.9)
    assert not call.done()
    await clock.advance(1.2)
    with pytest.raises(Unknown, match="The swarm does not have a leader"):
        await call
    with pytest.raises(Unknown, match="The swarm does not have a leader"):
        await door.find()
    view.elect("manager-1")
    assert await door.find() is None
    await settle()
    view.elect("")
    again = asyncio.create_task(door.find())
    await settle()
    assert not again.done()
    for task in (again, running):
        task.cancel()
    await asyncio.gather(again, running, return_exceptions=True)


async def test_only_one_hop(clock: VirtualClock) -> None:
    """A call that was passed on before is refused where another leads; while nobody leads, it waits. [ca 165] [dispatcher 167]"""
    leader = Leader(leading=False)
    call = asyncio.create_task(LeaderDoor(leader, clock).find(["10.0.0.1:1", "10.0.0.2:1"]))
    await clock.advance(3)
    assert not call.done()
    async with grpc.aio.insecure_channel("127.0.0.1:1") as opened:
        leader.other = Line("manager-2", "127.0.0.1:1", opened)
        leader.tell()
        with pytest.raises(NotHere, match=r"^more than one redirect to leader from: \[10.0.0.1:1 10.0.0.2:1\]$"):
            await call


async def test_unreachable_leader(clock: VirtualClock) -> None:
    """A leader that cannot be reached gets no call, and the caller is told so after ten seconds, with name and address. [store 92]"""
    leader = Leader(leading=False)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as opened:
        leader.other = Line("manager-2", "127.0.0.1:1", opened)
        call = asyncio.create_task(LeaderDoor(leader, clock).find())
        await clock.advance(9.9)
        assert not call.done()
        await clock.advance(0.2)
        with pytest.raises(Unavailable, match=r"manager-2 leads but cannot be reached at 127.0.0.1:1 from here; the call was not made"):
            await call


async def test_stopping_server_keeps_nobody_waiting(clock: VirtualClock) -> None:
    """Calls that wait for a leader end at once when their server stops, certainly not made; what runs here still may."""
    leader = Leader(leading=False)
    door = LeaderDoor(leader, clock)
    calls = [asyncio.create_task(door.find()), asyncio.create_task(door.find(["10.0.0.1:1"], refused_by=""))]
    await settle()
    door.close()
    for call in calls:
        with pytest.raises(Unavailable, match="this manager is stopping; the call was not made") as failure:
            await call
        method = control_pb2.DESCRIPTOR.services_by_name["Control"].methods_by_name["RemoveNode"]
        assert relay.certainly_not_executed(method, failure.value)
    leader.leading = True
    assert await door.find() is None


async def test_refusal_is_followed_by_news(clock: VirtualClock) -> None:
    """After a refusal the door waits until somebody else leads, two seconds at most."""
    leader = Leader()
    door = LeaderDoor(leader, clock)
    call = asyncio.create_task(door.find(refused_by=HERE))
    await clock.advance(1.9)
    assert not call.done()
    await clock.advance(0.2)
    assert await call is None
    call = asyncio.create_task(door.find(refused_by=HERE))
    await settle()
    leader.leading = False
    leader.tell()
    await clock.advance(0.1)
    leader.leading = True
    leader.tell()
    assert await call is None


def test_tables_name_services() -> None:
    """Every name in the tables is a service of the contract."""
    names = {service.name for service in roles.services()}
    assert names >= forward.PROXIED_LOCAL | forward.PROXIED_REMOTE | forward.NOT_ON_LOCAL
    assert names - forward.PROXIED_LOCAL - forward.NOT_ON_LOCAL == {"Watch", "Health"}
    assert names - forward.PROXIED_REMOTE == {"Control", "Watch", "Logs", "Raft", "Health", "Why"}


CONTROL = control_pb2.DESCRIPTOR.services_by_name["Control"].methods_by_name
HEARTBEAT = dispatcher_pb2.DESCRIPTOR.services_by_name["Dispatcher"].methods_by_name["Heartbeat"]


def test_what_proves_that_nothing_happened() -> None:
    """Only the door's refusal, and a log entry that is certain not to be, of a method that makes no other."""
    certain = relay.certainly_not_executed
    assert certain(HEARTBEAT, NotHere(["a"]))
    assert certain(CONTROL["CreateService"], LostLeadership())
    assert not certain(CONTROL["CreateService"], LostLeadership(uncertain=True))
    assert not certain(CONTROL["RemoveNode"], LostLeadership())
    assert not certain(HEARTBEAT, LostLeadership())
    assert not certain(CONTROL["CreateService"], TooLarge())
    assert not certain(CONTROL["CreateService"], Aborted("changed"))


def test_control_methods_make_one_entry() -> None:
    """Every Control method but RemoveNode writes at most once, which is why a refused entry proves a refused call."""
    several = set()
    for path in Path(pyswarm.manager.control.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.AsyncFunctionDef):
                calls = [ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)]
                writes = [name for name in calls if name.endswith(("store.update", "store.batch", "log.propose"))]
                if len(writes) > 1 or any(name.endswith("store.batch") for name in writes):
                    several.add(node.name)
    assert several <= {"_orphan_most"}, several  # RemoveNode's own helper
