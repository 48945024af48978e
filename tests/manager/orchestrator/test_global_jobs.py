"""The orchestrator of jobs: global jobs."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Create, Delete, Update
from pyswarm.manager.orchestrator.jobs import Jobs
from pyswarm.manager.orchestrator.orchestrator import NodeKey, ServiceKey
from pyswarm.manager.store import Kind, View, copy_of
from tests.support.loops import new_store, settle
from tests.support.swarm import ANY, NONE, cluster, ids, job, job_task, node, restart
from tests.support.world import Fate, World

S = api.TaskState
DRAIN, PAUSE, ACTIVE = api.NodeSpec.DRAIN, api.NodeSpec.PAUSE, api.NodeSpec.ACTIVE
DOWN, READY, UNKNOWN, DISCONNECTED = api.NodeStatus.DOWN, api.NodeStatus.READY, api.NodeStatus.UNKNOWN, api.NodeStatus.DISCONNECTED
NODES = [node("n1"), node("n2"), node("n3")]
ENDS = Fate(start=0.5, life=1.0, end=S.COMPLETE, stop=0.5)
FAILS = Fate(start=0.5, life=1.0, end=S.FAILED)


def all_decided(store: View) -> list[Change]:
    """What the job `svc` needs."""
    return list(Jobs(ids()).decide(store, ServiceKey("svc"), 1000.0).changes)


def begun(changes: list[Change]) -> list[str]:
    """The nodes of new tasks, which are all as a job makes them."""
    made = [c.obj for c in changes if isinstance(c, Create) and isinstance(c.obj, api.Task)]
    assert all((t.desired_state, t.slot) == (S.COMPLETE, 0) for t in made)
    return [t.node_id for t in made]


def wishes(changes: list[Change]) -> dict[str, str]:
    """Desired state by task id of the tasks that are changed."""
    return {c.obj.id: S.Name(c.obj.desired_state) for c in changes if isinstance(c, Update) and isinstance(c.obj, api.Task)}


def on(world: World, node_id: str) -> list[tuple[str, str]]:
    """Desired and observed states on a node, oldest first."""
    return [(S.Name(t.desired_state), S.Name(t.status.state)) for t in world.tasks() if t.node_id == node_id]


def running(svc: api.Service, fate: Fate = ENDS, seconds: float = 0.0) -> World:
    """A world with nodes n1 to n3 and the job just created."""
    world = World(cluster(), *NODES, fate=lambda _: fate)
    world.put(svc)
    world.run(seconds)
    return world


DONE = [("COMPLETE", "COMPLETE")]


def test_one_task_per_node() -> None:
    """Every node gets a task of its own, without slot, to be completed, with the cluster's log driver. [orchestration 137]
    [orchestration 17]"""
    changes = all_decided(new_store(cluster(driver="syslog"), *NODES, job(completions=None)))
    assert begun(changes) == ["n1", "n2", "n3"]
    made = [c.obj for c in changes if isinstance(c, Create) and isinstance(c.obj, api.Task)]
    assert {(t.HasField("job_iteration"), t.job_iteration.index, t.log_driver.name) for t in made} == {(True, 0, "syslog")}


def test_nodes_that_have_one() -> None:
    """Where a task runs or was completed, none is made. [orchestration 138]"""
    svc = job(completions=None)
    tasks = [job_task("a", 0, S.RUNNING, of=svc, on="n1"), job_task("b", 0, S.COMPLETE, of=svc, on="n2")]
    assert begun(all_decided(new_store(*NODES, svc, *tasks))) == ["n3"]


def test_constraints() -> None:
    """Only nodes that meet them take part. [orchestration 139]"""
    assert begun(all_decided(new_store(*NODES, job(completions=None, constraints=("node.id==n1",))))) == ["n1"]


def test_lost_node() -> None:
    """A down node's task is shut down, without another there; when the node is back it gets one. [orchestration 141]"""
    world = running(job(completions=None, policy=restart(ANY, delay=0)), Fate(life=60, end=S.COMPLETE), 1)
    world.edit_node("n1", state=DOWN)
    world.run(5)
    assert on(world, "n1") == [("SHUTDOWN", "RUNNING")]
    world.edit_node("n1", state=READY)
    world.run(5)
    assert on(world, "n1") == [("SHUTDOWN", "SHUTDOWN"), ("COMPLETE", "RUNNING")]


@pytest.mark.parametrize("condition", [ANY, NONE])
def test_drained_and_paused(condition: api.RestartPolicy.RestartCondition.ValueType) -> None:
    """A drained node's live task is shut down, nothing is made there nor on a paused node. [orchestration 140]"""
    svc = job(completions=None, policy=restart(condition))
    nodes = [node("n1", availability=DRAIN), node("n2", availability=PAUSE), node("n3")]
    store = new_store(*nodes, svc, job_task("a", 0, S.RUNNING, of=svc, on="n1"))
    changes = all_decided(store)
    assert (wishes(changes), begun(changes)) == ({"a": "SHUTDOWN"}, ["n3"])
    settle(Jobs(ids()), store, 1000.0)
    assert len(store.tasks) == 2


@pytest.mark.parametrize("state", [DOWN, UNKNOWN, DISCONNECTED])
def test_nodes_not_at_hand(state: api.NodeStatus.State.ValueType) -> None:
    """Only READY nodes get a task. [orchestration 141]"""
    nodes = [node("n1", state=state), node("n2"), node("n3")]
    assert begun(all_decided(new_store(*nodes, job(completions=None)))) == ["n2", "n3"]


def test_failed_ones_are_restarted() -> None:
    """A failed task is restarted on its node and has no other substitute. [orchestration 142]"""
    svc = job(completions=None)
    failed = [job_task(f"f{n}", 0, S.FAILED, of=svc, on=f"n{n}", made=1) for n in (1, 2)]
    store = new_store(*NODES, svc, *failed)
    settle(Jobs(ids()), store, 1000.0)
    made = {t.node_id: S.Name(t.desired_state) for t in store.tasks if t.status.state == S.NEW}
    assert made == {"n1": "READY", "n2": "READY", "n3": "COMPLETE"}
    assert {S.Name(t.desired_state) for t in store.tasks if t.status.state == S.FAILED} == {"SHUTDOWN"}


def test_new_iteration() -> None:
    """All tasks of the old iteration are to be removed, ended ones too, and every node gets a new one. [orchestration 143]"""
    svc = job(completions=None, iteration=1)
    states = [(S.RUNNING, S.COMPLETE), (S.COMPLETE, S.COMPLETE), (S.FAILED, S.SHUTDOWN)]
    old = [job_task(f"o{n}", 0, *pair, of=svc, on=f"n{n}", made=1) for n, pair in enumerate(states, 1)]
    changes = all_decided(new_store(*NODES, svc, *old))
    assert wishes(changes) == dict.fromkeys(["o1", "o2", "o3"], "REMOVE")
    assert begun(changes) == ["n1", "n2", "n3"]
    assert {c.obj.job_iteration.index for c in changes if isinstance(c, Create) and isinstance(c.obj, api.Task)} == {1}


def test_nothing_of_a_missing_service() -> None:
    """A service that is gone gets no tasks. [orchestration 144]"""
    assert all_decided(new_store(*NODES)) == []


def test_repair_at_start() -> None:
    """What is to be shut down stays so; what a missing node was to complete is deleted with its node's other records.
    [orchestration 144]"""
    svc = job(completions=None)
    down = job_task("down", 0, S.RUNNING, S.SHUTDOWN, of=svc, on="n1", made=1)
    lost = [job_task("lost", 0, S.RUNNING, of=svc, on="n9", made=1), job_task("done", 0, S.COMPLETE, of=svc, on="n9", made=2)]
    changes = settle(Jobs(ids()), new_store(*NODES[1:], node("n1", availability=DRAIN), svc, down, *lost), 1000.0)
    assert (wishes(changes), begun(changes)) == ({}, ["n2", "n3"])
    assert [c for c in changes if isinstance(c, Delete)] == [Delete(Kind.TASK, "lost"), Delete(Kind.TASK, "done")]


def test_nodes_come_and_go() -> None:
    """A node that joins after the job has run gets a task; a drained one's is stopped at once. [orchestration 145]"""
    world = running(job(completions=None), seconds=10)
    world.put(node("n4"))
    world.run(1)
    assert on(world, "n4") == [("COMPLETE", "RUNNING")]
    world.edit_node("n4", availability=DRAIN)
    world.run(1)
    assert on(world, "n4") == [("SHUTDOWN", "SHUTDOWN")]
    world.edit_node("n4", availability=ACTIVE)
    world.run(10)
    assert on(world, "n4") == [("SHUTDOWN", "SHUTDOWN"), *DONE]
    assert [on(world, n) for n in ("n1", "n2", "n3")] == [DONE] * 3


def test_unknown_nodes_after_a_leader_change() -> None:
    """A job made while nodes are not known to be there runs on each as soon as it is READY."""
    world = World(cluster(), *NODES, fate=lambda _: ENDS)
    for n in ("n1", "n2"):
        world.edit_node(n, state=UNKNOWN)
    world.put(job(completions=None))
    world.run(5)
    assert [on(world, n) for n in ("n1", "n2", "n3")] == [[], [], DONE]
    world.edit_node("n1", state=READY)
    world.run(5)
    assert [on(world, n) for n in ("n1", "n2", "n3")] == [DONE, [], DONE]


def test_unknown_node_keeps_its_task() -> None:
    """A node that is not heard of keeps what it has, and a failure that was reported before is restarted there."""
    world = running(job(completions=None, policy=restart(ANY, delay=0)), Fate(life=60, end=S.COMPLETE), 1)
    world.edit_node("n1", state=UNKNOWN)
    world.settle()
    assert on(world, "n1") == [("COMPLETE", "RUNNING")]
    (task,) = [t for t in world.tasks() if t.node_id == "n1"]
    world.report(task.id, S.FAILED)
    world.settle()
    assert on(world, "n1") == [("SHUTDOWN", "FAILED"), ("COMPLETE", "NEW")]


def test_limited_attempts() -> None:
    """Two attempts: the third failure on a node is the last there, whoever leads. [orchestration 146]"""
    world = running(job(completions=None, policy=restart(ANY, delay=0.1, attempts=2)))
    world.fate = lambda t: FAILS if t.node_id == "n2" else ENDS
    world.run(30)
    world.new_leader()
    world.run(30)
    assert [on(world, n) for n in ("n1", "n2", "n3")] == [DONE, [("SHUTDOWN", "FAILED")] * 3, DONE]


def test_never_restarted() -> None:
    """Condition NONE: a failure is final on its node."""
    world = running(job(completions=None, policy=restart(NONE)), FAILS, 10)
    world.put(node("n4"))
    world.run(10)
    world.new_leader()
    world.run(10)
    assert [on(world, n) for n in ("n1", "n4")] == [[("SHUTDOWN", "FAILED")]] * 2


@pytest.mark.parametrize("change", [{"state": DOWN}, {"availability": DRAIN}])
def test_completed_is_completed(change: dict[str, int]) -> None:
    """Another leader comes while a node that has completed is down or drained; the node returns: no second run. [orchestration 147]"""
    world = running(job(completions=None), seconds=10)
    world.edit_node("n1", **change)
    world.new_leader()
    world.run(10)
    world.edit_node("n1", state=READY, availability=ACTIVE)
    world.run(10)
    world.new_leader()
    world.run(10)
    assert on(world, "n1") == DONE
    assert len(world.tasks()) == 3


def test_removal_is_not_taken_back() -> None:
    """What is to be removed stays so on an invalid node: no desired state falls. (The reference lowers it.)"""
    svc = job(completions=None)
    leaving = job_task("a", 0, S.RUNNING, S.REMOVE, of=svc, on="n1", made=1)
    store = new_store(node("n1", availability=DRAIN), svc, leaving)
    assert settle(Jobs(ids()), store, 1000.0) == []


def test_removed_node() -> None:
    """The orphans of a removed node are not restarted there: its records go."""
    world = running(job(completions=None), seconds=1)
    world.remove_node("n2")
    world.run(10)
    assert sorted(t.node_id for t in world.tasks()) == ["n1", "n3"]


def test_paused_node() -> None:
    """A paused node's task stays; one that fails is tried again when the node is active."""
    world = running(job(completions=None, policy=restart(ANY, delay=0)), Fate(life=60, end=S.COMPLETE), 1)
    world.edit_node("n1", availability=PAUSE)
    world.settle()
    assert on(world, "n1") == [("COMPLETE", "RUNNING")]
    (task,) = [t for t in world.tasks() if t.node_id == "n1"]
    world.report(task.id, S.FAILED)
    world.run(1)
    assert on(world, "n1") == [("SHUTDOWN", "FAILED")]
    world.edit_node("n1", availability=ACTIVE)
    world.run(1)
    assert on(world, "n1") == [("SHUTDOWN", "FAILED"), ("COMPLETE", "RUNNING")]


def test_node_that_no_longer_fits() -> None:
    """The constraint enforcer rejects its live task, nothing follows there; once it fits again, a new one does."""
    fitting = node("n1", labels={"disk": "ssd"})
    world = World(cluster(), fitting, fate=lambda _: Fate(life=60, end=S.COMPLETE))
    world.put(job(completions=None, constraints=("node.labels.disk==ssd",)))
    world.run(1)
    unfit = copy_of(fitting)
    unfit.spec.annotations.labels["disk"] = "hdd"
    world.put(unfit)
    world.run(10)
    assert on(world, "n1") == [("SHUTDOWN", "REJECTED")]
    world.put(fitting)
    world.run(10)
    assert on(world, "n1") == [("SHUTDOWN", "REJECTED"), ("COMPLETE", "RUNNING")]


def test_one_node_at_a_time() -> None:
    """A node's key concerns every global job, and only that node."""
    svc, other = job("svc", completions=None), job("other", completions=None)
    store = new_store(*NODES, svc, other, job("replicated", 5))
    changes = list(Jobs(ids()).decide(store, NodeKey("n2"), 1000.0).changes)
    assert begun(changes) == ["n2", "n2"]
    assert {c.obj.service_id for c in changes if isinstance(c, Create) and isinstance(c.obj, api.Task)} == {"svc", "other"}
