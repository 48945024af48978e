"""The global orchestrator: one task on every eligible node."""

from __future__ import annotations

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.changes import Create, Delete, Update
from pyswarm.manager.orchestrator.global_ import Global
from pyswarm.manager.orchestrator.orchestrator import NodeKey, ServiceKey
from pyswarm.manager.store import Action, Event, Kind, copy_of
from tests.support.loops import new_store
from tests.support.swarm import ANY, NONE, cluster, config, ids, node, restart, service, task
from tests.support.world import Fate, World

S = api.TaskState
DRAIN, PAUSE, ACTIVE = api.NodeSpec.DRAIN, api.NodeSpec.PAUSE, api.NodeSpec.ACTIVE
DOWN, READY, UNKNOWN, DISCONNECTED = api.NodeStatus.DOWN, api.NodeStatus.READY, api.NodeStatus.UNKNOWN, api.NodeStatus.DISCONNECTED


def running(*objects: object, fate: Fate | None = None, fresh: bool = False) -> World:
    """A world with a cluster and nodes n1 to n3, some seconds old."""
    world = World(cluster(), node("n1"), node("n2"), node("n3"), *objects, fate=lambda _: fate or Fate(), fresh=fresh)
    world.run(2)
    return world


def where(world: World, service_id: str = "svc") -> list[str]:
    """The nodes on which the service is meant to run."""
    return [t.node_id for t in world.live(service_id)]


def test_new_task() -> None:
    """A global task has its node and no slot. [orchestration 17]"""
    svc = service(replicas=None)
    (create,) = Global(ids()).decide(new_store(svc, node("n1")), ServiceKey("svc"), 5.0).changes
    expected = task("new00001", 0, S.NEW, of=svc, on="n1", at=5.0, made=5.0)
    expected.status.message = "created"
    assert create == Create(expected)


def test_services_and_nodes_come_and_go() -> None:
    """Every service on every node; nothing of a node that is gone; removal of a service's tasks. [orchestration 110]
    [orchestration 111]"""
    world = running(service("a", None), service("b", None))
    world.put(node("n4"))
    world.run(1)
    assert where(world, "a") == where(world, "b") == ["n1", "n2", "n3", "n4"]
    world.change(Delete(Kind.NODE, "n4"))
    world.settle()
    assert {t.node_id for t in world.store.tasks} == {"n1", "n2", "n3"}
    world.remove_service("a")
    world.settle()
    assert {t.desired_state for t in world.tasks("a")} == {S.REMOVE}


def test_removed_node() -> None:
    """The orphaned tasks of a removed node are deleted and not replaced."""
    world = running(service(replicas=None))
    world.remove_node("n2")
    world.run(10)
    assert [t.node_id for t in world.tasks()] == ["n1", "n3"]


def test_drained_and_active_again() -> None:
    """A drained node's task is shut down and not replaced; active again it gets a new one. [orchestration 112]"""
    world = running(service(replicas=None))
    world.edit_node("n1", availability=DRAIN)
    world.run(1)
    world.edit_service(lambda spec: setattr(spec.task, "force_update", 1))
    world.run(20)
    assert where(world) == ["n2", "n3"]
    world.edit_node("n1", availability=ACTIVE)
    world.run(1)
    assert where(world) == ["n1", "n2", "n3"]


def test_paused() -> None:
    """A paused node's failing task is shut down without successor, also after an update. [orchestration 112]"""
    world = running(service(replicas=None))
    world.edit_node("n1", availability=PAUSE)
    world.report(next(t.id for t in world.live() if t.node_id == "n1"), S.FAILED)
    world.run(10)
    assert where(world) == ["n2", "n3"]
    world.set_image("v:2")
    world.run(20)
    assert where(world) == ["n2", "n3"]
    assert world.update_state() == "COMPLETED"


def test_down_and_ready_again() -> None:
    """A down node's task is shut down; back again the node gets a new one. [orchestration 113]"""
    world = running(service(replicas=None))
    world.edit_node("n1", state=DOWN)
    world.run(10)
    assert where(world) == ["n2", "n3"]
    world.edit_node("n1", state=READY)
    world.run(10)
    assert where(world) == ["n1", "n2", "n3"]


@pytest.mark.parametrize("state", [UNKNOWN, DISCONNECTED])
def test_unknown_nodes_keep_their_tasks(state: api.NodeStatus.State.ValueType) -> None:
    """Unknown and disconnected nodes are members: tasks stay and are made. [orchestration 119]"""
    world = running(service("a", None))
    world.edit_node("n1", state=state)
    world.put(service("b", None))
    world.run(1)
    assert where(world, "a") == where(world, "b") == ["n1", "n2", "n3"]


def test_deleted_task_comes_back() -> None:
    """A task deleted behind our back is made again: every eligible node has one. [orchestration 114]"""
    world = running(service(replicas=None))
    world.change(Delete(Kind.TASK, world.live()[0].id))
    world.run(1)
    assert where(world) == ["n1", "n2", "n3"]


def test_failing_task() -> None:
    """A failed task is replaced on its node after the delay; with NONE only by a forced update. [orchestration 115] [orchestration 60]"""
    world = running(service(replicas=None, policy=restart(ANY, delay=0.05)))
    failed = world.live()[1]
    world.report(failed.id, S.FAILED)
    world.settle()
    (new,) = [t for t in world.live() if t.desired_state == S.READY]
    assert (new.node_id, new.status.state) == (failed.node_id, S.NEW)
    world.run(0.04)
    assert world.task(new.id).desired_state == S.READY
    world.run(1)
    assert world.task(new.id).status.state == S.RUNNING
    world = running(service(replicas=None, policy=restart(NONE)))
    world.report(world.live()[1].id, S.FAILED)
    world.run(10)
    world.change(Update(copy_of(world.service())))
    world.run(10)
    assert where(world) == ["n1", "n3"]
    world.edit_service(lambda spec: setattr(spec.task, "force_update", 1))
    world.run(10)
    assert where(world) == ["n1", "n2", "n3"]


def test_constraints() -> None:
    """Only matching nodes have tasks; a label that comes brings one, a label that goes has it rejected. [orchestration 116]"""
    world = World(cluster(), node("n1", labels={"a": "b"}), node("n2"), service(replicas=None, constraints=("node.labels.a==b",)))
    world.run(2)
    assert where(world) == ["n1"]
    world.put(node("n2", labels={"a": "b"}))
    world.run(2)
    assert where(world) == ["n1", "n2"]
    world.put(node("n1"))
    world.run(20)
    assert where(world) == ["n2"]
    (gone,) = [t for t in world.tasks() if t.node_id == "n1"]
    assert (gone.status.state, gone.desired_state) == (S.REJECTED, S.SHUTDOWN)


def test_constraints_of_the_service_change() -> None:
    """Nodes that no longer match lose their task when the service is reconciled. [orchestration 117]"""
    world = running(service(replicas=None))
    world.edit_service(lambda spec: spec.task.placement.constraints.append("node.id!=n2"))
    world.run(20)
    assert where(world) == ["n1", "n3"]
    assert len(world.tasks()) == 3


def test_activated_node_is_brought_up_to_date_at_once() -> None:
    """An outdated task on a node activated again is replaced in one commit, outside any update. [orchestration 118]"""
    svc = service(replicas=None, update=config(monitor=1))
    old = task("old", 0, of=svc, on="n1", made=1)
    world = World(cluster(), node("n1", availability=PAUSE), node("n2"), svc, old, task("other", 0, of=svc, on="n2", made=1))
    world.set_image("v:2")
    world.run(10)
    assert world.update_state() == "COMPLETED"
    assert world.live()[0].id == "old"
    world.edit_node("n1", availability=ACTIVE)
    before = len(world.commits)
    world.settle()
    created, stopped = world.commits[before]
    assert (created.action, stopped.action, stopped.obj.id) == (Action.CREATE, Action.UPDATE, "old")
    new, _ = world.live()
    assert (new.desired_state, new.spec.container.image) == (S.RUNNING, "v:2")
    assert world.update_state() == "COMPLETED"


@pytest.mark.parametrize("fresh", [False, True])
def test_node_activated_before_an_update_could_begin(fresh: bool) -> None:
    """With nothing but paused nodes no update begins; the first node that is activated begins it, whoever leads."""
    svc = service(replicas=None, update=config(monitor=1))
    world = World(cluster(), node("n1", availability=PAUSE), svc, task("old", 0, of=svc, on="n1", made=1), fresh=fresh)
    world.set_image("v:2")
    world.run(10)
    assert (world.update_state(), [t.id for t in world.live()]) == ("", ["old"])
    world.edit_node("n1", availability=ACTIVE)
    world.run(5)
    assert (world.update_state(), world.running("v:2")) == ("COMPLETED", 1)


def test_node_comes_back() -> None:
    """A node that leaves and returns with its id gets a task again. [orchestration 120]"""
    world = running(service(replicas=None))
    world.remove_node("n1")
    world.run(5)
    world.put(node("n1"))
    world.run(5)
    assert where(world) == ["n1", "n2", "n3"]


@pytest.mark.parametrize("parallelism", [1, 2])
def test_rolling_update(parallelism: int) -> None:
    """Node by node, the new tasks on the same nodes. [orchestration 108]"""
    svc = service(replicas=None, update=config(parallelism, delay=1))
    world = running(svc, fate=Fate(start=1, stop=1))
    world.run(5)
    world.set_image("v:2")
    order: list[str] = []
    for _ in range(120):
        world.run(0.1)
        order += sorted({t.node_id for t in world.live() if t.spec.container.image == "v:2"} - set(order))
    assert order == ["n1", "n2", "n3"]
    world.run(20)
    assert world.running("v:2") == 3
    status = world.service().update_status
    seconds = times.seconds_of(status.completed_at) - times.seconds_of(status.started_at)
    assert seconds == pytest.approx(5 + 3 * -(-3 // parallelism), abs=0.1)


def test_repair_at_start() -> None:
    """Doubles on a node are reduced to one; tasks on drained nodes are shut down, on missing ones deleted; dead ones are restarted.
    [orchestration 60] [orchestration 61] [orchestration 62]"""
    svc = service(replicas=None, policy=restart(ANY, delay=0), update=config(1, start_first=True))
    double = [task("d1", 0, of=svc, on="n1", made=1), task("d2", 0, of=svc, on="n1", made=2)]
    others = [task("dr", 0, of=svc, on="n2", made=1), task("lost", 0, of=svc, on="n9", made=1)]
    dead = task("dead", 0, S.REJECTED, S.READY, of=svc, on="n3", made=1)
    world = World(cluster(), node("n1"), node("n2", availability=DRAIN), node("n3"))
    world.put(svc, *double, *others, dead)
    world.agents = False
    world.new_leader()
    world.settle()
    assert [t.id for t in world.live() if t.node_id == "n1"] == ["d1"]
    assert world.task("dr").desired_state == S.SHUTDOWN
    assert world.store.tasks.get("lost") is None
    assert [(S.Name(t.desired_state), S.Name(t.status.state)) for t in world.tasks() if t.node_id == "n3"] == [
        ("SHUTDOWN", "REJECTED"),
        ("RUNNING", "NEW"),
    ]


def test_up_to_date_services_are_left_alone() -> None:
    """Nothing is written for services in order; a change touches only its own. [orchestration 63]"""
    policy = restart(ANY, delay=0)
    world = running(service("a", None, policy=policy), service("b", None, policy=policy))
    before = len(world.commits)
    world.new_leader()
    world.run(5)
    assert len(world.commits) == before
    world.edit_service(lambda spec: spec.task.restart.CopyFrom(restart(delay=1)), "a")
    world.run(20)
    touched = {e.obj.service_id for c in world.commits[before:] for e in c if isinstance(e.obj, api.Task)}
    assert touched == {"a"}


def test_heartbeats_touch_nothing() -> None:
    """A node update that changes nothing of note causes no decision."""
    old = node("n1")
    new = copy_of(old)
    new.manager_status.leader = True
    assert list(Global(ids()).on_event(Event(Kind.NODE, Action.UPDATE, new, old))) == []
    new.status.state = DOWN
    assert list(Global(ids()).on_event(Event(Kind.NODE, Action.UPDATE, new, old))) == [NodeKey("n1")]


def test_activated_node_waits_for_its_turn_in_an_update() -> None:
    """While an update is under way, a node that comes back is updated in its turn, not at once."""
    world = running(service(replicas=None, update=config(1, delay=5)))
    world.set_image("v:2")
    world.run(1)
    world.edit_node("n3", availability=PAUSE)
    world.edit_node("n3", availability=ACTIVE)
    world.run(1)
    assert [t.spec.container.image for t in world.live()] == ["v:2", "v:1", "v:1"]
    world.run(60)
    assert world.running("v:2") == 3


def test_paused_node_gives_its_worker_back() -> None:
    """A node that is paused while an update starts its task there does not hold the update up: the next node has its turn."""
    world = running(service(replicas=None, update=config(1, monitor=0.1)))
    world.fate = lambda t: Fate(start=None if t.node_id == "n1" else 0.0)
    world.set_image("v:2")
    world.run(1)
    assert [t.spec.container.image for t in world.live()] == ["v:2", "v:1", "v:1"]
    world.edit_node("n1", availability=PAUSE)
    world.run(5)
    assert [t.spec.container.image for t in world.live()] == ["v:2", "v:2", "v:2"]


@pytest.mark.parametrize("fresh", [False, True])
def test_node_paused_between_two_updates(fresh: bool) -> None:
    """A node that is paused in the middle of a start-first update, which another overtakes, is left with one task."""
    world = running(service(replicas=None, update=config(1, start_first=True)), fresh=fresh)
    world.fate = lambda _: Fate(start=1.0)
    world.set_image("v:2")
    world.run(0.5)
    assert [t.spec.container.image for t in world.live() if t.node_id == "n1"] == ["v:1", "v:2"]
    world.edit_node("n1", availability=PAUSE)
    world.set_image("v:3")
    world.run(30)
    assert [t.spec.container.image for t in world.live()] == ["v:1", "v:3", "v:3"]
    assert world.update_state() == "COMPLETED"
