"""The constraint enforcer."""

from __future__ import annotations

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.tasks import task_time
from pyswarm.manager.changes import Update
from pyswarm.manager.orchestrator.constraintenforcer import ConstraintEnforcer
from pyswarm.manager.store import Action, Event, Kind, copy_of
from tests.support.loops import new_store
from tests.support.swarm import cluster, node, service, task
from tests.support.world import World

S = api.TaskState
U = api.UpdateStatus
NOW = 1000.0


def rejected(*objects: object, node_id: str = "n1") -> list[str]:
    """The ids of the tasks that are rejected on the node."""
    changes = ConstraintEnforcer().decide(new_store(*objects), node_id, NOW).changes
    return [c.obj.id for c in changes if not hasattr(c, "kind")]


def constrained(task_id: str, expression: str, state: api.TaskState.ValueType = S.RUNNING) -> api.Task:
    """A task without service, on n1, with a constraint of its own."""
    made = task(task_id, 0, state, on="n1")
    made.service_id = ""
    if expression:
        made.spec.placement.constraints.append(expression)
    return made


def reserving(task_id: str, memory: int, **kwargs: object) -> api.Task:
    """A task on n1 with a memory reservation."""
    made = task(task_id, on="n1", **kwargs)  # type: ignore[arg-type]
    made.spec.resources.reservations.memory_bytes = memory
    return made


def sized(memory: int = 0, discrete: int = 0, named: str = "") -> api.Node:
    """Node n1 with resources."""
    made = node("n1")
    made.description.resources.memory_bytes = memory
    if discrete:
        made.description.resources.generic.add().discrete_resource_spec.MergeFrom(api.DiscreteGenericResource(kind="apple", value=discrete))
    if named:
        made.description.resources.generic.add().named_resource_spec.MergeFrom(api.NamedGenericResource(kind="gpu", value=named))
    return made


def test_roles() -> None:
    """A changed role rejects what was constrained to the other. [orchestration 153; scheduling 69]"""
    worker = node("n1")
    done = constrained("until done", "")
    done.desired_state = S.COMPLETE
    tasks = [constrained("free", ""), constrained("manager", "node.role == manager", S.NEW), constrained("worker", "node.role == worker")]
    tasks.append(done)
    assert rejected(worker, *tasks) == ["manager"]
    promoted = copy_of(worker)
    promoted.role = api.NodeRole.MANAGER
    assert rejected(promoted, *tasks) == ["worker"]


def test_memory() -> None:
    """A reservation above what the node has left rejects; desired NEW is never looked at. [orchestration 154; scheduling 69]"""
    svc = service()
    pending = reserving("t", 900_000_000, state=S.PENDING, desired=S.READY, of=svc)
    assert rejected(sized(1_000_000_000), svc, pending) == []
    assert rejected(sized(500_000_000), svc, pending) == ["t"]
    fresh = copy_of(pending)
    fresh.desired_state = S.NEW
    assert rejected(sized(500_000_000), svc, fresh) == []


def test_service_constraints_count() -> None:
    """The service's constraints decide, not those the task was made with. [orchestration 155; scheduling 70]"""
    svc = service(constraints=("node.labels.foo == bar",))
    running = task("t", on="n1")
    assert rejected(node("n1", labels={"foo": "bar"}), svc, running) == []
    assert rejected(node("n1"), svc, running) == ["t"]


def test_generic_resources() -> None:
    """Assigned generic resources must still be there, with the same kind of value. [orchestration 156; scheduling 71]"""
    named = task("n", on="n1")
    named.assigned_generic_resources.add().named_resource_spec.MergeFrom(api.NamedGenericResource(kind="gpu", value="1"))
    discrete = task("d", 2, on="n1")
    discrete.assigned_generic_resources.add().discrete_resource_spec.MergeFrom(api.DiscreteGenericResource(kind="apple", value=2))
    assert rejected(sized(named="1", discrete=2), service(), named, discrete) == []
    assert rejected(sized(named="2", discrete=1), service(), named, discrete) == ["d", "n"]


def test_ended_tasks_reserve_nothing() -> None:
    """A completed job task takes no room. [orchestration 157; scheduling 72]"""
    done = reserving("a", 700, state=S.COMPLETE, desired=S.COMPLETE)
    assert rejected(sized(1024), service(), done, reserving("b", 700)) == []


def test_one_rejection_does_not_hide_another() -> None:
    """After a missing generic resource the other tasks are still looked at, and what is rejected takes nothing. [orchestration 159]"""
    lost = reserving("a", 600)
    lost.assigned_generic_resources.add().discrete_resource_spec.MergeFrom(api.DiscreteGenericResource(kind="apple", value=1))
    fits = reserving("b", 600)
    wrong = constrained("c", "node.role == manager")
    assert rejected(sized(1024), service(), lost, fits, wrong) == ["a", "c"]


@pytest.mark.parametrize("availability", [api.NodeSpec.PAUSE, api.NodeSpec.DRAIN])
def test_only_active_nodes(availability: api.NodeSpec.Availability.ValueType) -> None:
    """Paused and drained nodes are left to the orchestrators. [orchestration 158]"""
    assert rejected(node("n1", availability=availability), constrained("t", "node.role == manager")) == []


def test_rejected_task_is_replaced_elsewhere() -> None:
    """The observed state says why, and the orchestrator does the rest. [orchestration 158]"""
    first, second = node("n1", labels={"a": "b"}), node("n2")
    world = World(cluster(), first, second, service(constraints=("node.labels.a == b",)))
    world.agents = False
    world.put(task("t", 1, of=world.service(), on="n1"))
    world.settle()
    world.put(node("n1"))
    world.settle()
    old = world.task("t")
    assert (old.status.state, old.status.message, old.status.err) == (
        S.REJECTED,
        "task rejected by constraint enforcer",
        "assigned node no longer meets constraints",
    )
    (new,) = world.live()
    assert (new.slot, new.node_id) == (1, "")


def test_only_changes_that_matter() -> None:
    """A node update with nothing that constraints look at causes no decision."""
    old = node("n1")
    new = copy_of(old)
    new.manager_status.leader = True
    assert list(ConstraintEnforcer().on_event(Event(Kind.NODE, Action.UPDATE, new, old))) == []
    new.description.resources.memory_bytes = 5
    assert list(ConstraintEnforcer().on_event(Event(Kind.NODE, Action.UPDATE, new, old))) == ["n1"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (U.UPDATING, []),
        (U.PAUSED, []),
        (U.ROLLBACK_STARTED, []),
        (U.ROLLBACK_PAUSED, []),
        (U.COMPLETED, ["old"]),
        (U.ROLLBACK_COMPLETED, ["old"]),
    ],
)
def test_outdated_tasks_are_the_updates(state: U.UpdateState.ValueType, expected: list[str]) -> None:
    """While an update takes new constraints from slot to slot, nobody takes its outdated tasks down all at once, not even a new leader."""
    svc = service(version=2, constraints=("node.labels.foo == bar",))
    svc.update_status.state = state
    assert rejected(node("n1"), svc, task("old", on="n1", version=1)) == expected
    assert rejected(node("n1"), svc, task("new", on="n1", version=2)) == ["new"]


def test_who_waits_for_room_has_reserved_nothing() -> None:
    """A task bound for a full node waits there; it is rejected only when the node could never hold it, and takes nothing from others."""
    waiting, there = reserving("a", 700, state=S.NEW), reserving("b", 700)
    assert rejected(sized(1000), service(), waiting, there) == []
    assert rejected(sized(600), service(), waiting, there) == ["a", "b"]


def test_rejection_has_its_own_time() -> None:
    """The end of a rejected task is when it was rejected, not when its last report was applied."""
    running = task("t", on="n1")
    running.status.applied_at.CopyFrom(times.timestamp(5.0))
    (change,) = ConstraintEnforcer().decide(new_store(service(constraints=("node.id == x",)), node("n1"), running), "n1", NOW).changes
    assert isinstance(change, Update)
    assert isinstance(change.obj, api.Task)
    assert task_time(change.obj) == NOW
