"""The replicated orchestrator: how many, which, and what happens to those on lost nodes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Create, Delete, Update
from pyswarm.manager.orchestrator.global_ import Global
from pyswarm.manager.orchestrator.orchestrator import NodeKey, ServiceKey, SlotKey
from pyswarm.manager.orchestrator.replicated import Replicated
from pyswarm.manager.orchestrator.settle import Outcome, settle
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.store import Action, Event, Kind, copy_of
from tests.support.loops import new_store
from tests.support.swarm import ANY, NONE, ON_FAILURE, cluster, ids, node, restart, service, task
from tests.support.world import Fate, World

S = api.TaskState
DRAIN, PAUSE, ACTIVE = api.NodeSpec.DRAIN, api.NodeSpec.PAUSE, api.NodeSpec.ACTIVE
DOWN, READY, UNKNOWN = api.NodeStatus.DOWN, api.NodeStatus.READY, api.NodeStatus.UNKNOWN
NOW = 1000.0


def decided(key: ServiceKey | SlotKey | NodeKey, *objects: object, now: float = NOW) -> list[Change]:
    """The changes for one key, with ids new00001 and on."""
    return list(Replicated(ids()).decide(new_store(*objects), key, now).changes)


def fresh(of: api.Service, number: int, slot: int, desired: api.TaskState.ValueType = S.RUNNING, made: float = NOW) -> Create:
    """The creation of a task as the orchestrator writes it."""
    made_task = task(f"new{number:05d}", slot, S.NEW, desired, of=of, at=NOW, made=made)
    made_task.status.message = "created"
    return Create(made_task)


def wanted(old: api.Task, desired: api.TaskState.ValueType) -> Update:
    """Raising a task's desired state."""
    edited = copy_of(old)
    edited.desired_state = desired
    return Update(edited)


def test_first_tasks() -> None:
    """A new service gets tasks in slots 1 and 2, with its annotations. [orchestration 14] [orchestration 17]"""
    svc = service(replicas=2)
    assert decided(ServiceKey("svc"), svc) == [fresh(svc, 1, 1), fresh(svc, 2, 2)]
    assert fresh(svc, 1, 1).obj.service_annotations.name == "svc"  # type: ignore[union-attr]


@pytest.mark.parametrize(("own", "default", "expected"), [("", "", ""), ("a", "", "a"), ("a", "b", "a"), ("", "b", "b")])
def test_log_driver(own: str, default: str, expected: str) -> None:
    """The spec's log driver, else the cluster's, else none. [orchestration 15; cli 68]"""
    svc = service()
    if own:
        svc.spec.task.log_driver.name = own
    (create,) = decided(ServiceKey("svc"), svc, cluster(driver=default))
    assert isinstance(create, Create)
    assert isinstance(create.obj, api.Task)
    assert create.obj.log_driver.name == expected
    assert create.obj.HasField("log_driver") is bool(expected)


def test_free_numbers_are_taken_from_below() -> None:
    """With slots 1, 3 and 7 occupied, two more are 2 and 4. [orchestration 32]"""
    svc = service(replicas=5)
    have = [task(f"t{n}", n) for n in (1, 3, 7)]
    assert decided(ServiceKey("svc"), svc, *have) == [fresh(svc, 1, 2), fresh(svc, 2, 4)]


def test_dead_slot_is_reused_with_its_history() -> None:
    """A dead slot's number is reused and its records stay. [orchestration 31]"""
    svc = service(replicas=2)
    dead = task("t2", 2, S.FAILED, S.SHUTDOWN, at=5, made=NOW)
    assert decided(ServiceKey("svc"), svc, task("t1", 1), dead) == [fresh(svc, 1, 2, made=NOW + 1e-6)]


def test_scale_to_zero_and_dead_slots_are_given_up() -> None:
    """All records of surplus and dead slots are to be removed; deleting is the reaper's. [orchestration 34] [orchestration 45]"""
    svc = service(replicas=0)
    live, old = task("t1", 1, made=2), task("t0", 1, S.FAILED, S.SHUTDOWN, made=1)
    dead = task("t2", 2, S.RUNNING, S.SHUTDOWN)
    assert decided(ServiceKey("svc"), svc, live, old, dead) == [wanted(t, S.REMOVE) for t in (old, live, dead)]


def test_removed_service() -> None:
    """All tasks of a deleted service are to be removed, history included. [orchestration 30] [orchestration 59]"""
    tasks = [task("a"), task("b", 2, S.FAILED, S.SHUTDOWN), task("c", 3, S.NEW, S.REMOVE)]
    assert decided(ServiceKey("svc"), *tasks) == [wanted(t, S.REMOVE) for t in tasks[:2]]
    loop = Replicated(ids())
    assert list(loop.everything(new_store(*tasks))) == [ServiceKey("svc")] * 3


def test_other_modes_are_ignored() -> None:
    """Global services and jobs are nobody's business here. [orchestration 36]"""
    job = service("job")
    job.spec.replicated_job.total_completions = 3
    for svc in (service(replicas=None), job):
        assert decided(ServiceKey(svc.id), svc) == []
        assert list(Replicated(ids()).on_event(Event(Kind.SERVICE, Action.CREATE, svc))) == []


def test_restart_writes_the_old_before_the_new() -> None:
    """A restart is the old task's SHUTDOWN and a READY task in the same slot. [orchestration 66]"""
    svc = service()
    failed = task("t1", 1, S.FAILED, of=svc, made=5, at=NOW)
    assert decided(SlotKey("svc", 1), svc, failed) == [wanted(failed, S.SHUTDOWN), fresh(svc, 1, 1, S.READY)]


@pytest.mark.parametrize(("condition", "state"), [(NONE, S.FAILED), (NONE, S.COMPLETE), (ON_FAILURE, S.COMPLETE)])
def test_policy_forbids(condition: api.RestartPolicy.RestartCondition.ValueType, state: api.TaskState.ValueType) -> None:
    """What may not be restarted is only marked as not wanted any more. [orchestration 67] [orchestration 68]"""
    svc = service(policy=restart(condition))
    ended = task("t1", 1, state, of=svc)
    assert decided(SlotKey("svc", 1), svc, ended) == [wanted(ended, S.SHUTDOWN)]
    assert decided(ServiceKey("svc"), svc, wanted(ended, S.SHUTDOWN).obj) == []


@pytest.mark.parametrize(
    ("desired", "state"), [(S.SHUTDOWN, S.FAILED), (S.REMOVE, S.RUNNING), (S.SHUTDOWN, S.RUNNING), (S.RUNNING, S.RUNNING)]
)
def test_nothing_to_restart(desired: api.TaskState.ValueType, state: api.TaskState.ValueType) -> None:
    """A task already given up, or running, is left alone. [orchestration 73]"""
    store = new_store(service(), task("t1", 1, state, desired))
    situation = Situation(store, service(), NOW, ids())
    assert settle(situation, situation.slot(1)) == Outcome()


def test_nodes_at_start() -> None:
    """At start tasks on down and drained nodes are shut down; paused and unknown nodes keep theirs. [orchestration 46]"""
    svc = service(replicas=6, policy=restart(NONE))
    nodes = [node("ok"), node("down", state=DOWN), node("unknown", state=UNKNOWN)]
    nodes += [node("paused", availability=PAUSE), node("drained", availability=DRAIN)]
    where = ["", "ok", "down", "unknown", "paused", "drained"]
    tasks = [task(f"t{n}", n, S.RUNNING if on else S.NEW, of=svc, on=on) for n, on in enumerate(where, 1)]
    world = World(svc, *nodes, *tasks)
    world.agents = False
    world.settle()
    assert [t.node_id for t in world.tasks() if t.desired_state == S.SHUTDOWN] == ["down", "drained"]
    world.put(task("late", 7, of=svc, on="down"))
    world.edit_node("paused", availability=DRAIN)
    world.change(Delete(Kind.NODE, "ok"))
    world.settle()
    left = {t.node_id for t in world.live()}
    assert left == {"", "unknown"}, "[orchestration 47]"


NODES = (cluster(), node("n1"), node("n2"), node("n3"))


def test_scaling_up_and_down() -> None:
    """1 → 3 → 1 replicas. A task deleted behind our back is replaced. [orchestration 28] [orchestration 29]"""
    world = World(*NODES, service(replicas=1))
    world.run(2)
    world.scale(3)
    world.run(2)
    assert world.running() == 3
    world.scale(1)
    world.settle()
    assert sorted(t.desired_state for t in world.tasks()) == [S.RUNNING, S.REMOVE, S.REMOVE]
    world.run(2)
    (last,) = world.tasks()
    world.change(Delete(Kind.TASK, last.id))
    world.run(2)
    assert world.running() == 1


def test_deleting_history_means_nothing() -> None:
    """Deleting a record that was not to run causes no reconciliation of the service. [orchestration 35]"""
    gone = Event(Kind.TASK, Action.REMOVE, task("t", 1, S.FAILED, S.SHUTDOWN))
    assert list(Replicated(ids()).on_event(gone)) == [SlotKey("svc", 1)]


def test_updates_in_one_commit_are_one_decision() -> None:
    """The driver's dirty set is keyed by service, so several changes are one reconciliation. [orchestration 33]"""
    loop = Replicated(ids())
    events = [Event(Kind.SERVICE, Action.UPDATE, service(replicas=n)) for n in (2, 3)]
    assert {key for event in events for key in loop.on_event(event)} == {ServiceKey("svc")}


def test_many_replicas_take_several_steps() -> None:
    """1000 tasks take at least five commits and no slot twice. [orchestration 37]"""
    world = World(cluster(), service(replicas=1000))
    world.agents = False
    world.settle()
    creating = [c for c in world.commits if any(isinstance(e.obj, api.Task) and e.action is Action.CREATE for e in c)]
    assert len(creating) >= 5
    assert sorted(t.slot for t in world.tasks()) == list(range(1, 1001))


def test_victim_with_a_newer_status_is_removed() -> None:
    """A report between looking and writing does not save the victim of a scale-down. [orchestration 43]"""
    world = World(*NODES, service(replicas=2), fate=lambda _: Fate(stop=None))
    world.run(1)
    world.scale(1)
    for t in world.tasks():
        world.report(t.id, S.RUNNING)
    world.settle()
    assert [t.desired_state for t in world.tasks()].count(S.REMOVE) == 1


def test_down_and_up_again_without_restart_policy() -> None:
    """Condition NONE, 3 → 2 → 3 before the agent stopped anything: three live tasks. [orchestration 44]"""
    world = World(*NODES, service(replicas=3, policy=restart(NONE)), fate=lambda _: Fate(stop=None))
    world.run(1)
    world.scale(2)
    world.settle()
    world.scale(3)
    world.run(1)
    assert world.running() == 3


def test_removed_task_stays_until_it_has_stopped() -> None:
    """A scaled-away task's record survives other updates of the service while it runs. [orchestration 45]"""
    world = World(*NODES, service(replicas=3), fate=lambda _: Fate(stop=10))
    world.run(1)
    world.scale(2)
    world.settle()
    world.edit_service(lambda spec: spec.annotations.labels.update(a="b"))
    world.run(5)
    assert len(world.tasks()) == 3
    world.run(10)
    assert len(world.tasks()) == 2


def moved(world: World, change: Callable[[], None], until: float) -> list[float]:
    """When, in seconds after a change, the replacements of tasks on n1 were released."""
    start = world.now
    change()
    at: list[float] = []
    seen: set[str] = set()
    while world.now < start + until:
        world.run(0.5)
        for t in world.tasks():
            if (
                t.id.startswith("new")
                and t.desired_state == S.RUNNING
                and times.seconds_of(t.meta.created_at) >= start
                and t.id not in seen
            ):
                seen.add(t.id)
                at.append(round(world.now - start, 1))
    return at


@pytest.mark.parametrize(("stop", "release"), [(3.0, [3.5]), (None, [60.5]), (0.0, [0.5])])
def test_drain(stop: float | None, release: list[float]) -> None:
    """After a drain the replacement starts when the old one stopped, at last after 60 s. [orchestration 48]"""
    world = World(cluster(), node("n1"), node("n2", availability=PAUSE), service(), fate=lambda _: Fate(stop=stop))
    world.run(1)
    world.edit_node("n2", availability=ACTIVE)
    assert moved(world, lambda: world.edit_node("n1", availability=DRAIN), 70) == release


def test_node_down_and_back() -> None:
    """A down node's tasks are replaced after the delay without waiting; nothing moves back. [orchestration 49] [orchestration 51]"""
    world = World(cluster(), node("n1"), node("n2", availability=PAUSE), service())
    world.run(1)
    world.edit_node("n2", availability=ACTIVE)
    assert moved(world, lambda: world.edit_node("n1", state=DOWN), 20) == [5.5]
    world.edit_node("n1", state=READY)
    world.run(20)
    assert [(t.node_id, S.Name(t.status.state)) for t in world.tasks()] == [("n1", "SHUTDOWN"), ("n2", "RUNNING")]


def test_node_removed() -> None:
    """A removed node's tasks are orphaned and replaced after the delay. [orchestration 50]"""
    world = World(cluster(), node("n1"), node("n2", availability=PAUSE), service())
    world.run(1)
    world.edit_node("n2", availability=ACTIVE)
    assert moved(world, lambda: world.remove_node("n1"), 20) == [5.5]


def test_node_goes_down_while_its_task_is_waited_for() -> None:
    """Waiting ends when the old task's node goes down. [orchestration 76]"""
    world = World(cluster(), node("n1"), node("n2", availability=PAUSE), service(policy=restart(delay=1)), fate=lambda _: Fate(stop=None))
    world.run(1)
    world.edit_node("n2", availability=ACTIVE)
    world.edit_node("n1", availability=DRAIN)
    world.run(10)
    assert world.running() == 0
    world.edit_node("n1", state=DOWN)
    world.run(1)
    assert world.running() == 1


def test_waited_for_record_is_deleted() -> None:
    """Waiting ends when the old task's record goes, after the replacement's own delay. [orchestration 77]"""
    world = World(cluster(), node("n1"), node("n2"), service(policy=restart(delay=1)), fate=lambda _: Fate(stop=None))
    world.run(1)
    (first,) = world.tasks()
    world.edit_node(first.node_id, availability=DRAIN)
    world.run(10)
    assert world.running() == 0
    world.change(Delete(Kind.TASK, first.id))
    world.run(1)
    assert world.running() == 1


def test_paused_node() -> None:
    """A paused node keeps its tasks; what fails there is replaced elsewhere. [orchestration 52]"""
    world = World(cluster(), node("n1"), service(policy=restart(delay=1)))
    world.run(1)
    world.put(node("n2"))
    world.edit_node("n1", availability=PAUSE)
    world.run(10)
    assert [t.node_id for t in world.tasks()] == ["n1"]
    world.report(world.tasks()[0].id, S.FAILED)
    world.run(10)
    assert [t.node_id for t in world.live()] == ["n2"]


@pytest.mark.parametrize(("state", "desired"), [(S.REJECTED, S.READY), (S.FAILED, S.RUNNING)])
def test_repair_at_start(state: api.TaskState.ValueType, desired: api.TaskState.ValueType) -> None:
    """A dead task found at start is restarted, a live one is not. [orchestration 53] [orchestration 54]"""
    svc = service(replicas=2)
    world = World(cluster(), node("n1"), svc, task("dead", 1, state, desired, of=svc, on="n1"), task("ok", 2, S.STARTING, of=svc, on="n1"))
    world.agents = False
    world.new_leader()
    world.settle()
    # `put` gave the records a creation time, so a READY one is held for its delay first.
    world.run(6)
    assert world.task("dead").desired_state == S.SHUTDOWN
    assert [(t.slot, S.Name(t.status.state)) for t in world.live()] == [(1, "NEW"), (2, "STARTING")]


def test_ready_task_that_died_waits_for_its_delay() -> None:
    """A replacement that dies before its release is dealt with once, when the delay is over. [orchestration 72]"""
    world = World(cluster(), node("n1"), service(), fate=lambda t: Fate(rejected=t.id != "new00001"))
    world.run(1)
    world.report("new00001", S.FAILED)
    world.run(4)
    assert [(S.Name(t.desired_state), S.Name(t.status.state)) for t in world.tasks()] == [("SHUTDOWN", "FAILED"), ("READY", "REJECTED")]
    world.report(world.tasks()[1].id, S.REJECTED)
    world.run(2)
    assert [S.Name(t.desired_state) for t in world.tasks()] == ["SHUTDOWN", "SHUTDOWN", "READY"]
    world.run(60)
    assert 12 <= len({t.id for c in world.commits for e in c if isinstance(t := e.obj, api.Task)}) <= 15


def test_deleted_replacement_and_stopped_leader() -> None:
    """A replacement deleted during its delay is not missed by anyone; one left READY by a leader is promoted by the next.
    [orchestration 78]"""
    world = World(cluster(), node("n1"), service(replicas=2))
    world.run(1)
    for t in world.tasks():
        world.report(t.id, S.FAILED)
    world.settle()
    ready = [t for t in world.live() if t.desired_state == S.READY]
    world.change(Delete(Kind.TASK, ready[0].id))
    world.run(2)
    world.new_leader()
    assert world.task(ready[1].id).desired_state == S.READY
    world.run(3.1)
    assert world.task(ready[1].id).desired_state == S.RUNNING


@pytest.mark.parametrize(("state", "index"), [(S.FAILED, 0), (S.COMPLETE, 1)])
def test_restart_with_a_delay(state: api.TaskState.ValueType, index: int) -> None:
    """The replacement is there at once and released after the delay. [orchestration 66] [orchestration 69]"""
    world = World(cluster(), node("n1"), service(replicas=2, policy=restart(delay=0.1)))
    world.run(1)
    failed = world.tasks()[index]
    world.report(failed.id, state)
    world.settle()
    start = world.now
    (fresh_one,) = [t for t in world.live() if t.desired_state == S.READY]
    assert fresh_one.slot == failed.slot
    world.run(0.09)
    assert world.task(fresh_one.id).desired_state == S.READY
    world.run(0.2)
    assert world.task(fresh_one.id).status.state == S.RUNNING
    assert times.seconds_of(world.task(fresh_one.id).status.timestamp) - start >= 0.09


def test_attempts_then_a_new_version() -> None:
    """`max_attempts` 1: one restart for each slot, and one more after an update. [orchestration 70] [orchestration 169]"""
    world = World(cluster(), node("n1"), service(replicas=2, policy=restart(delay=0.1, attempts=1)))
    for _ in range(3):
        world.run(2)
        for t in world.live():
            world.report(t.id, S.FAILED)
        world.run(2)
    assert world.live() == []
    assert len(world.tasks()) == 4
    world.set_image("v:2")
    world.run(20)
    for t in world.live():
        world.report(t.id, S.FAILED)
    world.run(2)
    assert world.running("v:2") == 2


def test_attempts_within_a_window() -> None:
    """With a window only recent restarts count. [orchestration 71]"""
    world = World(cluster(), node("n1"), service(replicas=2, policy=restart(delay=0, attempts=1, window=0.5)))
    world.run(2)
    for t in world.live():
        world.report(t.id, S.FAILED)
    world.run(0.1)
    one, two = world.live()
    world.report(one.id, S.FAILED)
    world.run(1.2)
    world.report(two.id, S.FAILED)
    world.run(1)
    assert [t.slot for t in world.live()] == [2]


def test_eviction_asks_the_policy() -> None:
    """A drained node's RUNNING task is replaced with ON_FAILURE, and only shut down with NONE. [orchestration 80]"""
    for condition, left in ((ON_FAILURE, 1), (NONE, 0)):
        world = World(cluster(), node("n1"), service(policy=restart(condition)))
        world.run(1)
        world.put(node("n2"))
        world.edit_node("n1", availability=DRAIN)
        world.run(10)
        assert world.running() == left


def test_new_service_has_no_history() -> None:
    """A service created again starts with fresh attempts. [orchestration 79]"""
    policy = restart(ANY, delay=0, attempts=1)
    world = World(cluster(), node("n1"), service(policy=policy))
    world.run(1)
    world.remove_service()
    world.put(service("svc2", policy=policy))
    world.run(1)
    world.report(world.live("svc2")[0].id, S.FAILED)
    world.run(1)
    assert world.tasks() == []
    assert world.running() == 1


def test_drained_node_goes_down_before_the_stop() -> None:
    """A node that leaves the drain by going down no longer is waited for; its tasks' replacements start after the delay."""
    world = World(cluster(), node("n1"), node("n2", availability=PAUSE), service(), fate=lambda _: Fate(stop=None))
    world.run(1)
    world.edit_node("n2", availability=ACTIVE)
    world.edit_node("n1", availability=DRAIN)
    world.run(1)
    world.edit_node("n1", availability=ACTIVE, state=DOWN)
    world.run(3.5)
    assert world.running() == 0
    world.run(1)
    assert world.running() == 1


def test_modes_are_told_apart() -> None:
    """Each orchestrator owns the services of its mode only. [orchestration 27]"""
    jobs = [api.ServiceSpec(replicated_job=api.ReplicatedJob()), api.ServiceSpec(global_job=api.GlobalJob())]
    others = [api.Service(id="job", spec=spec) for spec in jobs]
    assert [Replicated().owns(s) for s in (service(), service(replicas=None), *others)] == [True, False, False, False]
    assert [Global().owns(s) for s in (service(), service(replicas=None), *others)] == [False, True, False, False]


def test_task_on_a_down_node_at_start() -> None:
    """A running task on a down node found at start is shut down and replaced. [orchestration 55]"""
    svc = service()
    lost = task("lost", of=svc, on="n1", made=5)
    world = World(cluster(), node("n1", state=DOWN), svc, lost)
    world.agents = False
    world.new_leader()
    world.settle()
    assert world.task("lost").desired_state == S.SHUTDOWN
    assert [(t.slot, t.node_id, t.status.state, t.desired_state) for t in world.live()] == [(1, "", S.NEW, S.READY)]


def test_node_with_many_tasks_goes_down() -> None:
    """A full node is emptied in steps, and no step looks again at what the ones before have done."""
    svc = service(replicas=600)
    world = World(cluster(), node("n1"), svc, *(task(f"t{n:03d}", n, of=svc, on="n1", made=5) for n in range(1, 601)))
    world.agents = False
    world.settle()
    before = len(world.commits)
    world.edit_node("n1", state=DOWN)
    world.settle()
    assert {t.desired_state for t in world.live()} == {S.READY}
    assert len(world.live()) == 600
    assert len(world.commits) - before <= 8


def test_drain_cuts_the_delay_of_a_restart_short() -> None:
    """A replacement that waits for the restart delay starts at once when its predecessor's node is drained meanwhile."""
    world = World(cluster(), node("n1"), service(policy=restart(ANY, delay=5)))
    world.run(1)
    world.put(node("n2"))
    world.edit_node("n1", availability=PAUSE)
    world.report(world.live()[0].id, S.FAILED)
    world.run(1)
    (waiting,) = world.live()
    assert (waiting.node_id, waiting.desired_state) == ("n2", S.READY)
    world.edit_node("n1", availability=DRAIN)
    world.settle()
    assert world.task(waiting.id).desired_state == S.RUNNING


@pytest.mark.parametrize("attempts", [0, 1])
def test_record_that_kept_a_slot_occupied_is_deleted(attempts: int) -> None:
    """A slot that was done is empty once a user deletes the record that showed it, and is filled again."""
    world = World(cluster(), node("n1"), service(policy=restart(ANY, delay=1, attempts=1) if attempts else restart(NONE)))
    world.fate = lambda _: Fate(life=0.2)
    world.run(10)
    assert world.live() == []
    world.fate = lambda _: Fate()
    world.change(Delete(Kind.TASK, world.tasks()[-1].id))
    world.run(5)
    assert world.running() == 1
