"""What the scheduler does about changes of nodes and tasks, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Create, Delete, Update
from pyswarm.manager.loop import Driver
from pyswarm.manager.scheduler.scheduler import CONFIRMED, Pass, Scheduler
from pyswarm.manager.store import Kind, Store, Tx, copy_of
from tests.manager.scheduler.support import NOW, S, Scheduling, discrete, node, service, task
from tests.support.clock import VirtualClock
from tests.support.clock import settle as let_run
from tests.support.log import MemoryLog
from tests.support.loops import new_store, write


def three_nodes() -> Scheduling:
    """A task on id1, and two that the scheduler places at its start."""
    return Scheduling(
        *(node(i) for i in ("id1", "id2", "id3")), task("t1", on="id1", state=S.ASSIGNED), task("t2"), task("t3")
    )  # fmt: skip


def test_what_waits_at_the_start_is_placed() -> None:
    """Tasks go where fewest are. [scheduling 1]"""
    world = three_nodes()
    assert sorted([world.place("t2"), world.place("t3")]) == ["id2", "id3"]


def test_a_deleted_task_makes_its_node_the_emptiest() -> None:
    """Rewritten nodes change nothing; deletion and creation in one transaction are both seen; a task may come back. [scheduling 2, 3]"""
    world = three_nodes()
    world.update(*(world.node(i) for i in ("id1", "id2", "id3")))
    world.change(Delete(Kind.TASK, "t1"), Create(task("t4")))
    assert world.place("t4") == "id1"
    again = copy_of(world.task("t4"))
    again.node_id = ""
    again.status.state = S.PENDING
    world.update(again)
    assert world.place("t4") == "id1"


def test_nodes_that_come_and_go_in_the_same_transaction() -> None:
    """A node counts as it is at the end of the transaction. [scheduling 4, 5, 6, 7]"""
    world = three_nodes()
    world.change(Create(node("gone", state="DOWN")), Create(task("t4")), Delete(Kind.NODE, "gone"))
    assert world.place("t4") in {"id1", "id2", "id3"}
    world.create(node("id4"), task("t5"))
    assert world.place("t5") == "id4"
    world.create(node("id5", state="DOWN"), task("t6"))
    assert world.place("t6") != "id5"
    up = world.node("id5")
    up.status.state = api.NodeStatus.State.READY
    world.change(Update(up), Create(task("t7")))
    assert world.place("t7") == "id5"
    created, down = node("id6"), node("id6", state="DOWN")
    down.meta.version.index = world._index + 2
    world.change(Create(created), Update(down), Create(task("t8")))
    assert world.place("t8") != "id6"


def test_a_task_waits_for_its_first_node() -> None:
    """The reason is taken back when the task is placed. [scheduling 8]"""
    world = Scheduling(service("s"), task("t", "s"))
    assert world.why("t") == "no suitable node"
    world.create(node("id1"))
    assert (world.place("t"), world.task("t").status.err) == ("id1", "")


def test_tasks_of_deleted_services_are_not_placed() -> None:
    """Nobody wants them any more: no node is used for them, and nothing is written. [scheduling 9]"""
    linux = node("id1")
    linux.description.platform.os = "linux"
    picky = task("t", "s")
    picky.spec.placement.platforms.add(os="windows", architecture="amd64")
    world = Scheduling(service("s"), linux, picky)
    assert world.why("t") == "no suitable node (unsupported platform on 1 node)"
    world.delete(Kind.SERVICE, "s")
    windows = node("id2")
    windows.description.platform.MergeFrom(api.Platform(os="windows", architecture="amd64"))
    before = len(world.writes)
    world.create(windows)
    assert (world.place("t"), len(world.writes)) == ("", before)


def test_tasks_without_service_are_told_and_placed_later() -> None:
    """A network attachment that fits nowhere is not forgotten, but told why and tried again. [scheduling 10]"""
    world = Scheduling(task("t"))
    assert world.why("t") == "no suitable node"
    world.create(node("id1"))
    assert world.place("t") == "id1"


def test_preassigned_tasks_are_confirmed_first() -> None:
    """Their load counts before the free tasks are placed. [scheduling 11]"""
    world = Scheduling(
        service("s"), node("node1"), node("node2"), task("task1", "s"), task("task2", "s", on="node1"), task("task3", "s", on="node1")
    )
    assert [world.task(f"task{i}").node_id for i in (1, 2, 3)] == ["node2", "node1", "node1"]
    assert {world.task(t).status.message for t in ("task2", "task3")} == {CONFIRMED}


@pytest.mark.parametrize("desired", [S.SHUTDOWN, S.REMOVE])
def test_preassigned_tasks_nobody_wants_are_not_confirmed(desired: api.TaskState.ValueType) -> None:
    """Only the wanted one is assigned. [scheduling 12]"""
    unwanted = task("t1", "s", on="id1")
    unwanted.desired_state = desired
    world = Scheduling(service("s"), node("id1"), unwanted, task("t2", "s", on="id1"))
    assert world.task("t1").status.state != S.ASSIGNED
    assert world.task("t2").status.state == S.ASSIGNED
    assert set(world.info("id1").tasks) == {"t2"}


def test_only_tasks_from_pending_to_running_matter() -> None:
    """NEW is the allocator's, and what has ended takes nothing. [scheduling 13]"""
    done = task("done", "s", on="id1", state=S.COMPLETE, memory=1000)
    world = Scheduling(service("s"), node("id1", memory=1000), done, task("fresh", "s", state=S.NEW, memory=1000))
    assert world.task("fresh").status.state == S.NEW
    world.report("fresh", S.PENDING)
    assert world.place("fresh") == "id1"


def test_a_node_that_returns_brings_its_tasks() -> None:
    """Tasks that were assigned before their node was known count on it. [scheduling trap 10]"""
    running = task("t1", "s", on="id1", state=S.RUNNING, memory=800)
    world = Scheduling(service("s"), running)
    world.create(node("id1", memory=1000))
    world.create(task("t2", "s", memory=800))
    assert world.why("t2") == "no suitable node (insufficient resources on 1 node)"
    world.delete(Kind.NODE, "id1")
    world.create(node("id1", memory=1000))
    assert world.why("t2") == "no suitable node (insufficient resources on 1 node)"


def test_the_reason_is_written_once() -> None:
    """The same reason again is no write, another one is. [scheduling 17]"""
    world = Scheduling(service("s"), node("id1", memory=10), task("t", "s", memory=1000))
    assert len(world.writes) == 1
    world.update(world.node("id1"))
    assert len(world.writes) == 1
    down = world.node("id1")
    down.status.state = api.NodeStatus.State.DOWN
    world.update(down)
    assert len(world.writes) == 2
    assert world.why("t") == "no suitable node (1 node not available for new tasks)"


def test_a_preassigned_task_waits_for_its_node_in_silence() -> None:
    """Nothing is said of a node that does not exist; once it does, the task is confirmed. [scheduling 18]"""
    world = Scheduling(service("s"), task("t", "s", on="id1"))
    assert (world.writes, world.task("t").status.state) == ([], S.PENDING)
    world.create(node("id1"))
    assert world.task("t").status.state == S.ASSIGNED


def test_decisions_are_made_on_the_newest_objects() -> None:
    """What changed after the scheduler last heard of it is kept, and what no longer waits is left alone. [scheduling 19, 20]"""
    store = new_store(service("s"), node("id1"), task("changed", "s"), task("gone", "s"), task("taken", "s"))
    loop = Scheduler()
    list(loop.everything(store))
    newer = task("changed", "s")
    newer.annotations.name = "newer"
    write(store, newer, task("taken", "s", on="id9", state=S.ASSIGNED))
    store.tasks.drop("gone")
    (change,) = loop.decide(store, Pass.PLACE, NOW).changes
    assert isinstance(change, Update)
    assert isinstance(change.obj, api.Task)
    assert (change.obj.id, change.obj.annotations.name, change.obj.node_id) == ("changed", "newer", "id1")


def test_a_decision_that_was_not_committed_leaves_nothing_behind() -> None:
    """What it took of a node is there again for the next one, which decides the same."""
    store = new_store(service("s"), node("id1", memory=10), *(task(f"t{i}", "s", memory=10, version=1) for i in range(2)))
    loop = Scheduler()
    list(loop.everything(store))
    first, again = (loop.decide(store, Pass.PLACE, NOW).changes for _ in range(2))
    assert len(first) == 2
    assert sorted((c.obj.node_id, c.obj.status.err) for c in first) == sorted((c.obj.node_id, c.obj.status.err) for c in again)  # type: ignore[union-attr]
    for i in range(2):
        store.tasks.drop(f"t{i}")
    assert not loop.decide(store, Pass.PLACE, NOW).changes
    assert not loop._mirror.nodes["id1"].tasks
    assert loop._mirror.nodes["id1"].memory == 10


class Timed:
    """A scheduler under its real driver, on a clock that moves when told."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.store = Store(self.clock)
        self.log = MemoryLog(self.store)
        self.store.attach(self.log)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self.store.run())]
        await let_run()
        self._tasks.append(asyncio.create_task(Driver(Scheduler(), self.store, self.clock).run()))
        await self.clock.advance(1.0)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for job in self._tasks:
            job.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def create(self, *objects: api.Node | api.Task | api.Service) -> None:
        """One transaction."""

        def write_all(tx: object) -> None:
            for obj in objects:
                getattr(tx, type(obj).__name__.lower() + "s").create(obj)

        await self.store.update(write_all)

    def entries(self, wanted: Callable[[api.Task], bool]) -> int:
        """How many log entries hold a task like that."""
        return sum(any(wanted(a.task) for a in e.action if a.HasField("task")) for e in self.log.entries)


async def test_a_burst_of_tasks_is_placed_in_one_go() -> None:
    """Ten tasks 10 ms apart are placed together, 50 ms after the last. [scheduling 14]"""
    async with Timed() as world:
        await world.create(service("s"), node("id1"))
        await world.clock.advance(1.0)
        for i in range(10):
            await world.create(task(f"t{i}", "s", version=0))
            await world.clock.advance(0.01)
        await world.clock.advance(0.039)
        assert world.entries(lambda t: t.status.state == S.ASSIGNED) == 0
        await world.clock.advance(0.01)
        assert world.entries(lambda t: t.status.state == S.ASSIGNED) == 1
        assert {t.node_id for t in world.store.tasks} == {"id1"}


async def test_an_endless_burst_delays_no_task_for_long() -> None:
    """With a commit every 20 ms the first task is placed within 1.1 s. [scheduling 15]"""
    async with Timed() as world:
        await world.create(service("s"), node("id1"))
        await world.clock.advance(1.0)
        began = world.clock.now()
        for i in range(100):
            await world.create(task(f"t{i:03}", "s", version=0))
            await world.clock.advance(0.02)
            if world.store.tasks.get("t000").node_id:  # type: ignore[union-attr]
                break
        assert 0.9 < world.clock.now() - began <= 1.1


async def test_nothing_is_retried_without_an_event() -> None:
    """A task that fits nowhere is written once, however long it waits. [scheduling 16]"""
    async with Timed() as world:
        await world.create(service("s"), task("t", "s"))
        await world.clock.advance(5.0)
        assert world.entries(lambda t: bool(t.status.err)) == 1
        assert len(world.log.entries) == 2


def test_recorded_claims_survive_a_new_leader() -> None:
    """A new scheduler takes what tasks hold from the tasks, and gives the rest. [scheduling 83]"""
    first = node("id1")
    first.description.resources.generic.extend(
        [api.GenericResource(named_resource_spec=api.NamedGenericResource(kind="gpu", value=f"GPU-{i}")) for i in (1, 2, 3)]
    )
    holder = task("a", "s", on="id1", state=S.RUNNING, discrete={"gpu": 1})
    holder.assigned_generic_resources.add(named_resource_spec=api.NamedGenericResource(kind="gpu", value="GPU-2"))
    world = Scheduling(service("s"), first, holder, task("b", "s", discrete={"gpu": 1}), task("c", "s", discrete={"gpu": 2}))
    assert [g.named_resource_spec.value for g in world.task("a").assigned_generic_resources] == ["GPU-2"]
    assert [g.named_resource_spec.value for g in world.task("b").assigned_generic_resources] == ["GPU-1"]
    assert world.why("c") == "no suitable node (insufficient resources on 1 node)"
    assert discrete("gpu", 1) in world.task("b").spec.resources.reservations.generic


def test_a_node_removed_in_the_same_transaction() -> None:
    """Nothing is put on a node that others remove in the entry in which the scheduler decides."""
    world = Scheduling(node("n"))
    world.transaction(Create(task("t")))
    tx = Tx(world.store, 1000, 0.0)
    tx.nodes.delete("n")
    for key in world.loop.everything(world.store):
        changed = [c.obj for c in world.loop.decide(tx, key, 0.0).changes if isinstance(c, Update)]
        assert not any(isinstance(obj, api.Task) and obj.node_id for obj in changed)
