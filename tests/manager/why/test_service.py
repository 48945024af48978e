"""The service around the walks."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2 as pb
from pyswarm.errors import InvalidArgument, NotFound
from pyswarm.manager.store import Store
from pyswarm.manager.why.service import SLICE_SECONDS, WhyService
from pyswarm.raft.log import LostLeadership
from pyswarm.rpc.binder import bind
from pyswarm.rpc.caller import Caller
from tests.support.clock import VirtualClock
from tests.support.log import MemoryLog
from tests.support.loops import write
from tests.support.swarm import node, service, task

S = api.TaskState
ME = Caller(node_id="node-1", local=True)


@pytest.fixture
def filled(store: Store) -> Store:
    """Two places of a service, one of which waits for a node; one place of a global service."""
    web, agent = service("web", 2), service("agent", None)
    write(store, node("n1"), node("n2"), web, agent, task("a1", 0, of=agent, on="n1"))
    write(store, task("t1", 1, of=web, on="n1"), task("t2", 2, S.PENDING, of=web))
    return store


@pytest.fixture
def why(filled: Store, clock: VirtualClock) -> WhyService:
    """The service."""
    return WhyService(filled, MemoryLog(filled), clock)


async def test_requests(why: WhyService) -> None:
    """A task, a service, one place of it by slot or node: what is named is explained."""

    async def asked(**what: object) -> list[tuple[str, str | None]]:
        answer = await why.Explain(pb.ExplainRequest(**what), ME)
        return [(told.task_id, told.WhichOneof("reason")) for told in answer.explanations]

    assert await asked(task_id="t1") == [("t1", "as_wanted")]
    assert await asked(task_id="t2") == [("t2", "awaits_scheduler")]
    assert await asked(service_id="web") == [("t2", "awaits_scheduler")]
    assert await asked(service_id="web", slot=1) == [("t1", "as_wanted")]
    assert await asked(service_id="agent", node_id="n1") == [("a1", "as_wanted")]
    for wrong in ({"task_id": "x"}, {"service_id": "x"}, {"service_id": "web", "slot": 0}, {"service_id": "agent", "node_id": "n2"}):
        with pytest.raises(NotFound):
            await asked(**wrong)
    for empty in ({}, {"task_id": ""}, {"slot": 1}):
        with pytest.raises(InvalidArgument):
            await asked(**empty)


async def test_only_the_leader_answers(filled: Store, clock: VirtualClock) -> None:
    """An answer is as current as any read."""
    log = MemoryLog(filled)
    log.leading = False
    with pytest.raises(LostLeadership):
        await WhyService(filled, log, clock).Explain(pb.ExplainRequest(task_id="t1"), ME)


async def test_others_run_in_between(filled: Store) -> None:
    """However much there is to look at, the event loop is free again after each slice."""

    class Slow(VirtualClock):
        """Every look at it takes half a slice."""

        looks = 0

        def monotonic(self) -> float:
            self.looks += 1
            return self.looks * SLICE_SECONDS / 2

    write(filled, *(node(f"m{n}") for n in range(100)))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    busy = asyncio.create_task(other())
    answer = await WhyService(filled, MemoryLog(filled), Slow()).Explain(pb.ExplainRequest(task_id="t2"), ME)
    busy.cancel()
    assert answer.explanations[0].awaits_scheduler.suitable == 102
    assert turns >= 30


def test_it_is_what_is_described(why: WhyService) -> None:
    """The class implements the described service."""
    assert bind(pb.DESCRIPTOR.services_by_name["Why"], why).descriptor.full_name == "pyswarm.v1.Why"
