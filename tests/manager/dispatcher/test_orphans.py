"""Tasks of nodes that stay away for a day."""

from __future__ import annotations

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.dispatcher.orphans import OrphanLoop
from pyswarm.manager.store import Store
from tests.manager.dispatcher.support import S, change, cluster, create, leading, node, task
from tests.support.clock import VirtualClock
from tests.support.log import MemoryLog
from tests.support.loops import new_store, settle

N = api.NodeStatus
HOUR = 3600.0
LOST = [S.ASSIGNED, S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING]
KEPT = [S.NEW, S.PENDING, S.COMPLETE, S.SHUTDOWN, S.FAILED, S.REJECTED]


def down_node(since: float) -> api.Node:
    """A node that went down at a moment."""
    made = node("n1", N.DOWN)
    made.meta.updated_at.CopyFrom(times.timestamp(since))
    return made


def test_tasks_are_given_up_after_a_day() -> None:
    """From ASSIGNED to RUNNING they become ORPHANED, all others stay as they are and are not written. [dispatcher 35; orchestration 175]"""
    store = new_store(down_node(0.0), *(task(f"t{s}", s) for s in LOST + KEPT), task("other", S.RUNNING, "n2"))
    loop = OrphanLoop(24 * HOUR, 0.0)
    assert settle(loop, store, 24 * HOUR - 1) == []
    made = settle(loop, store, 24 * HOUR)
    assert len(made) == len(LOST)
    assert {t.id for t in store.tasks if t.status.state == S.ORPHANED} == {f"t{s}" for s in LOST}
    assert settle(loop, store, 25 * HOUR) == []


def test_only_the_state_changes() -> None:
    """Message, error and time of the status are what the node last said."""
    lost = task("t", S.RUNNING)
    lost.status.message = "started"
    store = new_store(down_node(0.0), lost)
    settle(OrphanLoop(HOUR, 0.0), store, HOUR)
    found = store.tasks.get("t")
    assert found is not None
    assert found.status == api.TaskStatus(state=S.ORPHANED, message="started")


@pytest.mark.parametrize("state", [N.READY, N.UNKNOWN])
def test_nodes_that_are_not_away_keep_their_tasks(state: N.State.ValueType) -> None:
    """Only DOWN and DISCONNECTED nodes lose tasks."""
    store = new_store(node("n1", state), task("t", S.RUNNING))
    assert settle(OrphanLoop(0.0, 0.0), store, HOUR) == []


def test_the_clock_survives_a_leader_change() -> None:
    """Down for 23 hours when a new leader takes over: given up one hour later, not a day. [dispatcher 37, better]"""
    store = new_store(down_node(0.0), task("t", S.RUNNING))
    loop = OrphanLoop(24 * HOUR, not_before=23 * HOUR + 30)
    list(loop.everything(store))
    assert loop.decide(store, "n1", 23 * HOUR).wake == 24 * HOUR
    assert len(loop.decide(store, "n1", 24 * HOUR).changes) == 1


def test_a_new_leader_listens_first() -> None:
    """Even a node that is overdue gets the time to register with the new leader."""
    store = new_store(down_node(0.0), task("t", S.RUNNING))
    loop = OrphanLoop(24 * HOUR, not_before=30 * HOUR + 30)
    list(loop.everything(store))
    assert loop.decide(store, "n1", 30 * HOUR).wake == 30 * HOUR + 30


def test_many_tasks_go_in_portions() -> None:
    """A decision holds a few hundred changes and asks for another turn."""
    store = new_store(down_node(0.0), *(task(f"t{n}", S.RUNNING) for n in range(450)))
    loop = OrphanLoop(0.0, 0.0)
    list(loop.everything(store))
    first = loop.decide(store, "n1", HOUR)
    assert len(first.changes) == 200
    assert first.again
    assert len(settle(loop, store, HOUR)) == 450


async def test_a_node_that_returns_starts_a_new_day(store: Store, raft: MemoryLog, clock: VirtualClock) -> None:
    """Registering before the day is over saves the tasks; going down again starts a full day, whatever users change.

    [dispatcher 36; orchestration 175]
    """
    await create(store, cluster(10.0))
    async with leading(store, raft, clock) as d:
        await create(store, node(), task("t", S.RUNNING))
        await d.register()
        await clock.advance(40)
        assert d.node().status.state == N.DOWN
        await clock.advance(23 * HOUR)
        await d.register()
        await clock.advance(40)
        assert d.node().status.state == N.DOWN
        await clock.advance(12 * HOUR)
        await change(store, node(), edit=lambda n: setattr(n.spec, "availability", api.NodeSpec.DRAIN))
        await clock.advance(12 * HOUR - 60)
        assert d.state("t") == S.RUNNING
        await clock.advance(60)
        assert d.state("t") == S.ORPHANED


async def test_down_across_two_leaders(store: Store, raft: MemoryLog, clock: VirtualClock) -> None:
    """The day is counted from when the node went down, through a change of leader. [dispatcher 37, better; orchestration 175]"""
    await create(store, cluster(5.0))
    async with leading(store, raft, clock) as d:
        await create(store, node(), task("t", S.RUNNING))
        await d.register()
        await clock.advance(20)
        assert d.node().status.state == N.DOWN
        await clock.advance(23 * HOUR)
    async with leading(store, raft, clock) as d:
        await clock.advance(HOUR - 60)
        assert d.state("t") == S.RUNNING
        await clock.advance(60)
        assert d.state("t") == S.ORPHANED


async def test_many_leaders_do_not_prolong_the_day(store: Store, raft: MemoryLog, clock: VirtualClock) -> None:
    """With a new leader every four hours, the tasks are given up a day after their node went down, as with one. [dispatcher 37, better]"""
    await create(store, cluster(5.0))
    async with leading(store, raft, clock) as d:
        await create(store, node(), task("t", S.RUNNING))
        await d.register()
        await clock.advance(20)
        assert d.node().status.state == N.DOWN
        since = times.seconds_of(d.node().meta.updated_at)
        await clock.advance(4 * HOUR - 20)
    for _ in range(5):
        assert d.state("t") == S.RUNNING
        async with leading(store, raft, clock) as d:
            await clock.advance(4 * HOUR)
    async with leading(store, raft, clock) as d:
        await clock.advance(60)
        assert d.state("t") == S.ORPHANED
        found = store.tasks.get("t")
        assert found is not None
        assert times.seconds_of(found.meta.updated_at) - since == pytest.approx(24 * HOUR, abs=40)
