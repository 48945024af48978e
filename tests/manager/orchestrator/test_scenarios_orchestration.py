"""Scenarios that need several components, or that no component's own tests have."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Create, Delete
from pyswarm.manager.store import Kind
from tests.support.swarm import NONE, cluster, config, node, restart, service, task
from tests.support.world import Fate, World

S = api.TaskState
DRAIN, PAUSE = api.NodeSpec.DRAIN, api.NodeSpec.PAUSE
DOWN, UNKNOWN = api.NodeStatus.DOWN, api.NodeStatus.UNKNOWN


def test_nodes_later() -> None:
    """A task made on a down node, on a paused node that is drained, or on a node that goes, is shut down; unknown nodes keep theirs.

    [orchestration 47]
    """
    svc = service(replicas=4, policy=restart(NONE))
    nodes = [node("ready"), node("down", state=DOWN), node("unknown", state=UNKNOWN), node("paused", availability=PAUSE)]
    tasks = [task(f"on-{name}", slot, of=svc, on=name) for slot, name in enumerate(("ready", "unknown", "paused"), 1)]
    world = World(cluster(), *nodes, svc, *tasks)
    world.agents = False
    world.new_leader()
    world.settle()
    assert {world.task(t.id).desired_state for t in tasks} == {S.RUNNING}
    (fourth,) = [t for t in world.tasks() if t.slot == 4]
    world.change(Delete(Kind.TASK, fourth.id), Create(task("on-down", 4, S.NEW, of=svc, on="down")))
    world.settle()
    assert world.task("on-down").desired_state == S.SHUTDOWN
    world.edit_node("paused", availability=DRAIN)
    world.settle()
    assert world.task("on-paused").desired_state == S.SHUTDOWN
    world.change(Delete(Kind.NODE, "ready"))
    world.settle()
    assert world.task("on-ready").desired_state == S.SHUTDOWN
    assert world.task("on-unknown").desired_state == S.RUNNING


def test_no_way_back_from_an_automatic_rollback() -> None:
    """The failed spec is forgotten, so a manual rollback has nothing to go back to. [orchestration 102 in part]"""
    update = config(monitor=1.0, action=api.UpdateConfig.ROLLBACK)
    failing = service(replicas=2, update=update, policy=restart(delay=0.1))
    world = World(
        cluster(),
        node("n1"),
        failing,
        fate=lambda t: Fate(life=0.2 if t.spec.container.image == "v:2" else None),
    )
    world.run(5)
    world.set_image("v:2")
    assert world.service().HasField("previous_spec")
    world.run(120)
    after = world.service()
    assert (after.update_status.state, after.spec.task.container.image) == (api.UpdateStatus.ROLLBACK_COMPLETED, "v:1")
    assert not after.HasField("previous_spec")
    assert not after.HasField("previous_spec_version")
    assert world.running("v:1") == 2
