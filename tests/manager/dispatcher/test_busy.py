"""A manager whose event loop is busy most of the time must not blame its nodes."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.store import Commit, Store
from tests.manager.dispatcher.support import Harness, cluster, create, leading, node
from tests.support.clock import VirtualClock, settle
from tests.support.log import MemoryLog, running_store

N = api.NodeStatus
NODES = 1000
PAUSE = 0.1
ROUNDS = 5
"""Turns of the loop until a request that has arrived reaches its handler."""


class BusyClock(VirtualClock):
    """Time as it passes for a loop that computes for a while, gets to its callbacks once, and computes again."""

    async def labour(self, seconds: float, burst: float) -> None:
        """So many seconds of bursts of this length, with short pauses."""
        end = self._now + seconds
        while self._now < end:
            for span in (burst, PAUSE):
                self._now += span
                self.ring_all()
                await settle(10 * ROUNDS)


async def beat(d: Harness, node_id: str, session: str) -> None:
    """A node that sends its next heartbeat when it was told to, until cancelled."""
    while True:
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        await d.clock.sleep(await d.heartbeat(session, node_id))


async def register(d: Harness, node_id: str) -> str:
    """A session of which only the id is kept."""
    stream = d.service.Session(api.SessionRequest(), d.caller(node_id))
    message: api.SessionMessage = await anext(stream)
    await stream.aclose()
    return message.session_id


def gated(store: Store) -> asyncio.Event:
    """An event without which the store's log commits nothing; set at first."""
    log, gate = store._log, asyncio.Event()
    assert isinstance(log, MemoryLog)
    propose = log.propose
    gate.set()

    async def wait_and_propose(request: api.InternalRaftRequest, proposal: object | None = None) -> int:
        await gate.wait()
        return await propose(request, proposal)

    log.propose = wait_and_propose  # type: ignore[method-assign]
    return gate


@pytest.mark.parametrize(("period", "burst"), [(5.0, 1.0), (1.0, 1.0), (1.0, 3.5)])
async def test_no_node_is_blamed_for_a_busy_manager(period: float, burst: float) -> None:
    """With the loop busy by bursts, even longer ones than the nodes' grace, and a store that writes nothing meanwhile, none of a thousand
    beating nodes is declared down; one that is silent still is."""
    clock = BusyClock()
    async with running_store(clock) as store:
        gate = gated(store)
        await create(store, cluster(period))
        async with leading(store, MemoryLog(store), clock) as d:
            names = [f"n{number}" for number in range(NODES)]
            await create(store, *map(node, names), node("silent"))
            sessions = await asyncio.gather(*(register(d, name) for name in names))
            await register(d, "silent")
            commits: list[Commit] = []
            store.on_commit(commits.append)
            async with asyncio.TaskGroup() as group:
                beats = [group.create_task(beat(d, name, session)) for name, session in zip(names, sessions, strict=True)]
                gate.clear()
                await clock.labour(10 * period, burst)
                gate.set()
                await clock.labour(25 * burst, burst)
                for task in beats:
                    task.cancel()
            written = [
                (event.obj.id, event.obj.status.state) for commit in commits for event in commit.events if isinstance(event.obj, api.Node)
            ]
            assert written == [("silent", N.DOWN)]
            assert {n.status.state for n in store.nodes if n.id != "silent"} == {N.READY}
