"""The orchestrator of jobs as a loop: which keys events touch, and both kinds beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.loop import Decision, Driver
from pyswarm.manager.orchestrator.global_ import Global
from pyswarm.manager.orchestrator.jobs import Jobs
from pyswarm.manager.orchestrator.orchestrator import Key, ServiceKey, SlotKey
from pyswarm.manager.orchestrator.replicated import Replicated
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.tasklife import violations
from pyswarm.manager.store import Action, Event, Kind, Store, copy_of
from tests.support.clock import VirtualClock, settle
from tests.support.loops import new_store
from tests.support.swarm import cluster, ids, job, job_task, node, service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

S = api.TaskState
SVC, PER_NODE = job("svc", completions=5), job("glob", completions=None)
BOTH = [SVC, PER_NODE]


class Counting(Jobs):
    """Notes which services are looked at; `broken` fails."""

    def __init__(self, broken: str = "", prefix: str = "new") -> None:
        super().__init__(ids(prefix))
        self.looked: list[str] = []
        self._broken = broken

    def decide_service(self, situation: Situation) -> Decision:
        """Note it."""
        self.looked.append(situation.service.id)
        if situation.service.id == self._broken:
            raise ValueError("broken on purpose")
        return super().decide_service(situation)


@asynccontextmanager
async def driven(loop: Jobs, store: Store, clock: VirtualClock) -> AsyncIterator[None]:
    """The loop's driver runs for the length of the block."""
    running = asyncio.create_task(Driver(loop, store, clock).run())
    await settle()
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def put(store: Store, *objects: api.Service | api.Node) -> None:
    """Create objects in one commit."""
    await store.update(lambda tx: [getattr(tx, type(o).__name__.lower() + "s").create(o) for o in objects])
    await settle()


def six() -> list[api.Service]:
    """Three jobs of each kind."""
    return [*(job(f"r{n}", 2, at_once=2) for n in range(3)), *(job(f"g{n}", None) for n in range(3))]


async def test_start(store: Store, clock: VirtualClock) -> None:
    """Every job is looked at once, by its own rules, and one that fails does not prevent the others. [orchestration 148]"""
    await put(store, node("n1"), service("other"), *six())
    loop = Counting(broken="r1")
    async with driven(loop, store, clock):
        assert sorted(loop.looked) == ["g0", "g1", "g2", "r0", "r1", "r2"]
        made = sorted((t.service_id, t.slot, t.node_id) for t in store.tasks)
        assert made == [*((f"g{n}", 0, "n1") for n in range(3)), *((f"r{n}", slot, "") for n in (0, 2) for slot in (0, 1))]


async def test_created_while_running(store: Store, clock: VirtualClock) -> None:
    """Jobs that are created are looked at; after the end of leadership no longer. [orchestration 149] [orchestration 152]"""
    await put(store, node("n1"))
    loop = Counting()
    async with driven(loop, store, clock):
        await put(store, *six())
        assert sorted(set(loop.looked)) == ["g0", "g1", "g2", "r0", "r1", "r2"]
    await put(store, job("late", 1))
    assert "late" not in loop.looked
    tasks = len(store.tasks)
    async with driven(Counting(prefix="second"), store, clock):
        assert len(store.tasks) == tasks + 1


def keys(task: api.Task, old: api.Task | None = None, action: Action = Action.UPDATE) -> Iterator[Key]:
    """The keys of a task event."""
    loop = Jobs(ids())
    list(loop.everything(new_store(*BOTH)))
    return iter(list(loop.on_event(Event(Kind.TASK, action, task, old))))


def moved(task: api.Task, state: S.ValueType, desired: S.ValueType | None = None) -> api.Task:
    """The task in another state."""
    changed = copy_of(task)
    changed.status.state = state
    changed.desired_state = task.desired_state if desired is None else desired
    return changed


PREPARING = job_task("t", 2, S.PREPARING, of=SVC, on="n1")
ON_NODE = job_task("t", 0, S.PREPARING, of=PER_NODE, on="n1")


@pytest.mark.parametrize(
    ("old", "state", "desired", "expected"),
    [
        (PREPARING, S.FAILED, S.COMPLETE, {SlotKey("svc", 2)}),
        (PREPARING, S.COMPLETE, S.COMPLETE, {SlotKey("svc", 2), ServiceKey("svc")}),
        (PREPARING, S.PREPARING, S.SHUTDOWN, {SlotKey("svc", 2), ServiceKey("svc")}),
        (PREPARING, S.STARTING, S.COMPLETE, set()),
        (PREPARING, S.RUNNING, S.COMPLETE, {SlotKey("svc", 2)}),
        (moved(PREPARING, S.RUNNING, S.SHUTDOWN), S.SHUTDOWN, S.SHUTDOWN, {SlotKey("svc", 2)}),
        (ON_NODE, S.FAILED, S.COMPLETE, {SlotKey("glob", "n1")}),
        (ON_NODE, S.COMPLETE, S.COMPLETE, {SlotKey("glob", "n1")}),
    ],
)
def test_task_events(old: api.Task, state: S.ValueType, desired: S.ValueType, expected: set[Key]) -> None:
    """A task's end concerns its place; when it is no longer meant to run, also what else may begin. [orchestration 150]
    [orchestration 151]"""
    assert set(keys(moved(old, state, desired), old)) == expected


def test_shut_down_task_that_ends_changes_nothing() -> None:
    """The end of a task that was to be shut down leads to no change. [orchestration 151]"""
    svc = job(completions=2, at_once=2)
    tasks = [job_task("old", 0, S.SHUTDOWN, S.SHUTDOWN, of=svc, made=1)]
    tasks += [job_task(f"t{n}", n, S.RUNNING, of=svc, made=2) for n in (0, 1)]
    store = new_store(svc, *tasks)
    loop = Jobs(ids())
    for key in (SlotKey("svc", 0), ServiceKey("svc")):
        assert list(loop.decide(store, key, 1000.0).changes) == []


def test_deleted_records() -> None:
    """A record that goes may open its slot; one that was to be removed changes nothing."""
    assert set(keys(PREPARING, action=Action.REMOVE)) == {SlotKey("svc", 2), ServiceKey("svc")}
    done = moved(PREPARING, S.COMPLETE)
    assert ServiceKey("svc") in set(keys(done, action=Action.REMOVE))
    assert ServiceKey("svc") not in set(keys(moved(done, S.COMPLETE, S.REMOVE), action=Action.REMOVE))


def test_each_to_its_own() -> None:
    """Jobs are nobody's business but this loop's, and services are none of its."""
    store = new_store(cluster(), node("n1"), *BOTH, service("rep"), service("all", replicas=None))
    for loop in (Replicated(ids()), Global(ids())):
        assert {k.service for k in loop.everything(store) if isinstance(k, ServiceKey)} <= {"rep", "all"}
        for svc in BOTH:
            assert list(loop.decide(store, ServiceKey(svc.id), 0.0).changes) == []
            assert list(loop.on_event(Event(Kind.SERVICE, Action.CREATE, svc))) == []
    assert set(Jobs(ids()).everything(store)) == {ServiceKey("svc"), ServiceKey("glob")}


def test_iteration_never_changes() -> None:
    """A task keeps the iteration that it was made for."""
    other = copy_of(PREPARING)
    other.job_iteration.index = 1
    none = copy_of(PREPARING)
    none.ClearField("job_iteration")
    assert [violations(PREPARING, task) for task in (PREPARING, other, none)] == [[], *[["changed its job iteration"]] * 2]
