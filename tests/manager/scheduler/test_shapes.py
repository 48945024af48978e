"""Whole clusters at once: where everything ends, and in how many transactions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from bench.scheduler import PLAIN, PLUGIN, SERVICE, Shape, measure

from pyswarm.api import defaults
from pyswarm.manager.scheduler import filters, pool, scheduler, spread
from pyswarm.manager.scheduler.nodeinfo import NodeInfo
from pyswarm.manager.scheduler.scheduler import Pass, Scheduler
from tests.manager.scheduler.support import NOW, S, Scheduling, node, service, task, tasks
from tests.support.loops import commit, new_store


def test_only_eligible_nodes_are_used_evenly() -> None:
    """1,000 tasks that need a plugin, on the 334 of 1,000 nodes that have it. [scheduling 145]"""
    nodes = [node(f"id{i:04}") for i in range(1000)]
    for made in nodes:
        made.description.engine.SetInParent()
    for made in nodes[::3]:
        made.description.engine.plugins.add(type="Network", name="network")
    waiting = tasks("s", 1000, version=0)
    for one in waiting:
        one.networks.add().network.driver_state.name = "network"
    counts = Scheduling(service("s"), *nodes, *waiting).spread("s")
    assert Counter(counts.values()) == {3: 332, 2: 2}
    assert set(counts) <= {n.id for n in nodes[::3]}


@pytest.mark.parametrize("kind", [PLAIN, PLUGIN, SERVICE])
async def test_benchmark_shapes(kind: str) -> None:
    """Each kind of the benchmark ends with every task placed, and with placements in which the checker finds nothing wrong."""
    line = await measure(Shape(100, 1_000, kind), checked=True, idle=0)
    assert (line["tasks"], line["entries"]) == (1_000, 1_000 // defaults.MAX_TRANSACTION_CHANGES)


def test_a_large_service_is_placed_evenly() -> None:
    """10,000 tasks on 1,000 nodes are 10 on each, in transactions of at most 200 changes. [scheduling 145, 146 in part]"""
    store = new_store(service("s"), *(node(f"id{i:04}") for i in range(1000)), *(task(f"t{i:05}", "s", version=0) for i in range(10_000)))
    loop = Scheduler()
    list(loop.everything(store))
    entries = 0
    while (decision := loop.decide(store, Pass.PLACE, NOW)).changes:
        assert len(decision.changes) <= defaults.MAX_TRANSACTION_CHANGES
        entries += 1
        for event in commit(store, list(decision.changes), NOW, entries):
            list(loop.on_event(event))
    assert set(Counter(t.node_id for t in store.tasks).values()) == {10}
    assert entries == 10_000 // defaults.MAX_TRANSACTION_CHANGES


def test_a_group_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand tasks of one version, five transactions full, are placed after one look at the nodes. [scheduling 14, 146]"""
    made: list[spread.Plan] = []

    class Counting(spread.Plan):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(scheduler, "Plan", Counting)
    world = Scheduling(service("s"), node("n1"), node("n2"), *tasks("s", 1000, version=0))
    assert (world.spread("s"), len(made)) == ({"n1": 500, "n2": 500}, 1)
    assert all(t.status.state == S.ASSIGNED for t in world.store.tasks)


def test_only_what_changed_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that wait for room cost one look at the node that changed, however many wait and however many nodes there are."""
    looked: list[str] = []
    refusing = filters.Pipeline.refusing

    def watching(self: filters.Pipeline, info: NodeInfo) -> filters.Filter | None:
        looked.append(info.node.id)
        return refusing(self, info)

    monkeypatch.setattr(filters.Pipeline, "refusing", watching)
    waiting = [task(f"t{i:03}", "s", version=0, memory=1000) for i in range(300)]
    world = Scheduling(service("s"), *(node(f"n{i:02}", memory=10) for i in range(50)), *waiting)
    assert len(looked) == 50
    looked.clear()
    world.update(world.node("n07"))
    assert looked == ["n07"]
    larger = world.node("n07")
    larger.description.resources.memory_bytes = 1000
    looked.clear()
    world.update(larger)
    assert set(looked) == {"n07"}
    assert world.spread("s") == {"n07": 1}
    assert world.why("t299") == "no suitable node (insufficient resources on 50 nodes)"


def test_what_is_known_of_nodes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs that nobody had for the longest time are forgotten; what they are is found again, and placements stay right."""
    monkeypatch.setattr(pool, "MOST_ENTRIES", 60)
    world = Scheduling(service("s"), *(node(f"n{i}", memory=1000) for i in range(10)))
    for size in (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3):
        number = len(world.store.tasks)
        world.create(*(task(f"t{number + i:03}", "s", version=size, memory=size) for i in range(2)))
    kept = world.loop._mirror.pools._pools
    assert (len(kept), len({world.place(t.id) for t in world.store.tasks})) == (6, 10)
    assert all(t.node_id for t in world.store.tasks)
