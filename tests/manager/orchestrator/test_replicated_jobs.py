"""The orchestrator of jobs: replicated jobs."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Create, Update
from pyswarm.manager.orchestrator.jobs import Jobs
from pyswarm.manager.orchestrator.orchestrator import Key, ServiceKey, SlotKey
from tests.support.loops import new_store, settle
from tests.support.swarm import ANY, NONE, ON_FAILURE, cluster, ids, job, job_task, node, restart, service
from tests.support.world import Fate, World

S = api.TaskState
DRAIN, ACTIVE = api.NodeSpec.DRAIN, api.NodeSpec.ACTIVE
DOWN, READY, UNKNOWN = api.NodeStatus.DOWN, api.NodeStatus.READY, api.NodeStatus.UNKNOWN
ENDS = Fate(start=0.5, life=1.0, end=S.COMPLETE, stop=0.5)
FAILS = Fate(start=0.5, life=1.0, end=S.FAILED)


def decided(*objects: object, key: Key | None = None, now: float = 1000.0) -> list[Change]:
    """What the job `svc` needs."""
    return list(Jobs(ids()).decide(new_store(*objects), key or ServiceKey("svc"), now).changes)


def begun(changes: list[Change]) -> list[int]:
    """The slots of new tasks, which are all as a job makes them."""
    made = [c.obj for c in changes if isinstance(c, Create) and isinstance(c.obj, api.Task)]
    assert all(t.desired_state == S.COMPLETE and t.HasField("job_iteration") and not t.node_id for t in made)
    return [t.slot for t in made]


def wishes(changes: list[Change]) -> dict[str, str]:
    """Desired state by task id of the tasks that are changed."""
    return {c.obj.id: S.Name(c.obj.desired_state) for c in changes if isinstance(c, Update) and isinstance(c.obj, api.Task)}


def running(svc: api.Service, fate: Fate = ENDS, *, history: int = 5) -> World:
    """A world with nodes n1 to n3 and the job just created."""
    world = World(cluster(history), node("n1"), node("n2"), node("n3"), fate=lambda _: fate)
    world.put(svc)
    return world


def completed(world: World, iteration: int = 0) -> list[int]:
    """The slots that were completed, one entry per record."""
    return sorted(t.slot for t in world.tasks() if t.status.state == S.COMPLETE and t.job_iteration.index == iteration)


def test_first_tasks() -> None:
    """As many tasks as may run at once, in the lowest slots, to be completed, with the cluster's log driver. [orchestration 17]
    [orchestration 121]"""
    changes = decided(cluster(driver="syslog"), job(completions=30, at_once=10))
    assert begun(changes) == list(range(10))
    made = [c.obj for c in changes if isinstance(c, Create) and isinstance(c.obj, api.Task)]
    assert {(t.job_iteration.index, t.log_driver.name, t.status.state) for t in made} == {(0, "syslog", S.NEW)}


SVC = job(completions=30, at_once=10)


@pytest.mark.parametrize(
    ("tasks", "slots"),
    [
        ([job_task(f"t{n}", n, S.RUNNING, of=SVC) for n in range(0, 12, 2)], [1, 3, 5, 7]),
        ([job_task(f"t{n}", n, S.NEW, S.SHUTDOWN, of=SVC) for n in range(10)], list(range(10))),
        ([job_task(f"t{n}", n, S.COMPLETE, of=SVC) for n in range(20)], list(range(20, 30))),
        ([job_task(f"t{n}", n, S.COMPLETE, S.SHUTDOWN, of=SVC) for n in range(25)], list(range(25, 30))),
        ([job_task(f"t{n}", n, S.COMPLETE if n < 28 else S.RUNNING, of=SVC) for n in range(30)], []),
        ([job_task(f"t{n}", n, S.RUNNING, of=SVC) for n in range(12)], []),
        ([job_task(f"t{n}", n, S.RUNNING, of=SVC, iteration=7) for n in range(10)], list(range(10))),
    ],
    ids=["in progress", "given up", "most complete", "superseded but complete", "last ones run", "more than allowed", "other iteration"],
)
def test_what_begins(tasks: list[api.Task], slots: list[int]) -> None:
    """Running and complete slots are taken, those given up are open again, and no limit is exceeded. [orchestration 123]
    [orchestration 124] [orchestration 126]"""
    assert begun(decided(cluster(), SVC, *tasks)) == slots


def test_failed_ones_are_restarted() -> None:
    """Failed tasks occupy their slots and are restarted there; the others begin in slots of their own. [orchestration 125]"""
    done = [job_task(f"c{n}", n, S.COMPLETE, of=SVC, made=1) for n in range(10)]
    failed = [job_task(f"f{n}", n, S.FAILED, of=SVC, made=1) for n in range(10, 15)]
    world = World(cluster(), SVC, *done, *failed)
    world.agents = False
    world.settle()
    new = {t.slot: S.Name(t.desired_state) for t in world.tasks() if t.status.state == S.NEW}
    assert new == {**dict.fromkeys(range(10, 15), "READY"), **dict.fromkeys(range(15, 20), "COMPLETE")}
    assert {world.task(t.id).desired_state for t in failed} == {S.SHUTDOWN}
    assert {world.task(t.id).desired_state for t in done} == {S.COMPLETE}


def test_nothing_to_do() -> None:
    """A service that is gone, or one whose tasks are too many already, gets no task. [orchestration 127] [orchestration 128]"""
    assert decided(cluster()) == []
    svc = job(completions=20, at_once=10)
    assert decided(cluster(), svc, *(job_task(f"t{n}", n, S.RUNNING, of=svc) for n in range(30))) == []


def test_unset_counts() -> None:
    """Nothing is to be completed, or nothing may run: nothing is made."""
    for counts in ({}, {"max_concurrent": 3}, {"total_completions": 3}):
        svc = job()
        svc.spec.replicated_job.CopyFrom(api.ReplicatedJob(**counts))
        assert decided(cluster(), svc) == []


def test_huge_job() -> None:
    """The greatest possible counts are met in steps."""
    svc = job(completions=2**63 - 1, at_once=2**63 - 1)
    decision = Jobs(ids()).decide(new_store(svc), ServiceKey("svc"), 0.0)
    assert begun(list(decision.changes)) == list(range(200))
    assert decision.again


def test_job_without_status() -> None:
    """A job without job status is in iteration 0."""
    (create,) = decided(cluster(), job(iteration=None))
    assert isinstance(create, Create)
    assert isinstance(create.obj, api.Task)
    assert create.obj.HasField("job_iteration")
    assert create.obj.job_iteration.index == 0


def test_new_iteration() -> None:
    """Live tasks of the old iteration are to be removed, completed ones stay as they are, a failure is not repeated; the new one
    begins at once, at slot 0. [orchestration 129] [orchestration 130]"""
    svc = job(completions=30, at_once=10, iteration=1)
    live = [job_task(f"l{n}", n, S.RUNNING, of=svc, made=1) for n in range(5, 15)]
    ended = [job_task(f"e{n}", n, S.COMPLETE, of=svc, made=1) for n in range(5)]
    leaving = job_task("leaving", 20, S.RUNNING, S.SHUTDOWN, of=svc, made=1)
    failed = job_task("failed", 21, S.FAILED, of=svc, made=1)
    changes = decided(cluster(), svc, *live, *ended, leaving, failed)
    assert begun(changes) == list(range(10))
    assert {c.obj.job_iteration.index for c in changes if isinstance(c, Create) and isinstance(c.obj, api.Task)} == {1}
    assert wishes(changes) == {"failed": "SHUTDOWN", **dict.fromkeys([t.id for t in (*live, leaving)], "REMOVE")}


def test_runs_to_its_end() -> None:
    """Every slot is completed once, never more at a time than allowed, and then nothing happens any more. [orchestration 133]"""
    world = running(job(completions=7, at_once=3, policy=restart(ANY, delay=0)))
    world.run(30)
    assert completed(world) == list(range(7))
    assert len(world.tasks()) == 7
    before = len(world.commits)
    world.new_leader()
    world.run(1000)
    assert len(world.commits) == before


def test_never_restarted() -> None:
    """Condition NONE: the failed task remains the only one, whoever leads. [orchestration 131]"""
    world = running(job(policy=restart(NONE)), FAILS)
    world.run(30)
    world.new_leader()
    world.run(30)
    assert [(S.Name(t.desired_state), S.Name(t.status.state)) for t in world.tasks()] == [("SHUTDOWN", "FAILED")]


def test_limited_attempts() -> None:
    """Three attempts are three restarts, each after the delay; the fourth failure is the last, whoever leads. [orchestration 132]"""
    world = running(job(policy=restart(ON_FAILURE, delay=0.1, attempts=3)), FAILS)
    world.run(30)
    assert [S.Name(t.status.state) for t in world.tasks()] == ["FAILED"] * 4
    made = [t.meta.created_at.ToMicroseconds() / 1e6 for t in world.tasks()]
    assert all(b - a >= 1.5 + 0.1 * (n > 0) for n, (a, b) in enumerate(pairwise(made)))
    world.new_leader()
    world.run(30)
    assert len(world.tasks()) == 4


def test_spent_slot() -> None:
    """A slot whose last task may not be restarted is used up: others have their turn, it has none. [orchestration 134]"""
    world = running(job(completions=4, at_once=2, policy=restart(NONE)))
    world.fate = lambda t: FAILS if t.slot == 0 else ENDS
    world.run(30)
    assert completed(world) == [1, 2, 3]
    assert [t.slot for t in world.tasks()].count(0) == 1


def test_removed_record_is_another_chance() -> None:
    """Removing the record of a failure opens its slot again."""
    world = running(job(policy=restart(NONE)), FAILS)
    world.run(10)
    world.fate = lambda _: ENDS
    (failed,) = world.tasks()
    world.delete(failed.id)
    world.run(10)
    assert completed(world) == [0]


def test_delayed_start() -> None:
    """The replacement is made at once, to be prepared, and is let go towards COMPLETE after the delay. [orchestration 58]"""
    svc = job(policy=restart(ANY, delay=5))
    failed = job_task("a", 0, S.FAILED, of=svc, made=990)
    (down, new) = decided(cluster(), svc, failed, key=SlotKey("svc", 0))
    assert wishes([down]) == {"a": "SHUTDOWN"}
    assert isinstance(new, Create)
    assert isinstance(new.obj, api.Task)
    assert (new.obj.desired_state, new.obj.slot, new.obj.HasField("job_iteration")) == (S.READY, 0, True)
    waiting = job_task("b", 0, S.READY, S.READY, of=svc, made=1000)
    failed.desired_state = S.SHUTDOWN
    store = new_store(svc, failed, waiting, node("n1"))
    early = Jobs(ids()).decide(store, SlotKey("svc", 0), 1001.0)
    assert (list(early.changes), early.wake) == ([], 1005.0)
    assert SlotKey("svc", 0) in list(Jobs(ids()).everything(store))
    assert wishes(decided(svc, failed, waiting, key=SlotKey("svc", 0), now=1005.0)) == {"b": "COMPLETE"}


@pytest.mark.parametrize("svc", [job(policy=restart(ANY, delay=5)), service(policy=restart(ANY, delay=5))], ids=["job", "service"])
def test_clock_that_fell_back(svc: api.Service) -> None:
    """A new leader whose clock is behind waits for the delay between restarts all the same."""
    world = running(svc, Fate(rejected=True))
    world.run(1)
    world.skew = -60.0
    world.new_leader()
    world.run(31)
    made = len({e.obj.id for commit in world.commits for e in commit if isinstance(e.obj, api.Task)})
    assert 6 <= made <= 10  # one more at the moment of the change; without the delay it is hundreds


def test_removed_service() -> None:
    """All tasks of a deleted job are to be removed, whether a leader saw it go or not. [orchestration 135]"""
    for seen in (True, False):
        world = running(job(completions=9, at_once=3))
        world.run(2)
        if not seen:
            world.runners.clear()
        world.remove_service()
        if not seen:
            world.new_leader()
        world.settle()
        assert len(world.tasks()) >= 3
        assert {t.desired_state for t in world.tasks()} == {S.REMOVE}
        world.run(5)
        assert world.tasks() == []


def test_label_change_runs_it_again() -> None:
    """Every update begins a new iteration, whatever it changes. [orchestration 136]"""
    world = running(job(completions=3, at_once=3))
    world.run(5)
    world.edit_service(lambda spec: spec.annotations.labels.update({"a": "b"}))
    world.run(5)
    assert (completed(world, 0), completed(world, 1)) == ([0, 1, 2], [0, 1, 2])


def test_update_in_the_middle() -> None:
    """The old iteration's tasks are stopped and their records go; the new one comes to its end."""
    world = running(job(completions=6, at_once=2))
    world.run(2)
    assert completed(world) == [0, 1]
    world.set_image("v:2")
    world.settle()
    assert len(world.live()) == 2
    world.run(30)
    assert completed(world, 1) == list(range(6))
    assert completed(world, 0) == [0, 1]
    assert len(world.tasks()) == 8


@pytest.mark.parametrize("policy", [restart(ANY, delay=2), None], ids=["short delay", "no policy"])
def test_drained_node(policy: api.RestartPolicy | None) -> None:
    """A drained node's running tasks begin again elsewhere as soon as they have stopped, without waiting for another event."""
    world = running(job(completions=3, at_once=3, policy=policy), Fate(life=10.0, end=S.COMPLETE, stop=0.5))
    world.run(2)
    (moved,) = [t for t in world.live() if t.node_id == "n1"]
    world.edit_node("n1", availability=DRAIN)
    world.run(1)
    assert world.task(moved.id).desired_state == S.SHUTDOWN
    (new,) = [t for t in world.live() if t.slot == moved.slot]
    assert (new.node_id != "n1", new.status.state) == (True, S.RUNNING)
    world.run(20)
    assert completed(world) == [0, 1, 2]


def test_lost_node() -> None:
    """A lost node's tasks begin again elsewhere after the restart delay; completed ones are left alone."""
    world = running(job(completions=6, at_once=3, policy=restart(ANY, delay=2)), Fate(life=3.0, end=S.COMPLETE))
    world.run(4)
    first = [t for t in world.tasks() if t.node_id == "n1"]
    assert [S.Name(t.status.state) for t in first] == ["COMPLETE", "RUNNING"]
    world.edit_node("n1", state=DOWN)
    world.run(1)
    assert [S.Name(world.task(t.id).desired_state) for t in first] == ["COMPLETE", "SHUTDOWN"]
    assert [S.Name(t.status.state) for t in world.live() if t.slot == first[1].slot] == ["READY"]
    world.run(20)
    assert completed(world) == list(range(6))
    assert len(world.tasks()) == 7


def test_waiting_for_a_node_that_is_lost() -> None:
    """Who waits for a task to stop waits no longer than for the delay when that task's node is lost."""
    world = running(job(policy=restart(ANY, delay=5)), Fate(life=600, stop=None))
    world.run(1)
    (moved,) = world.live()
    world.edit_node(moved.node_id, availability=DRAIN)
    world.run(1)
    assert [S.Name(t.desired_state) for t in world.live()] == ["READY"]
    world.edit_node(moved.node_id, availability=ACTIVE, state=DOWN)
    world.run(3)
    assert [S.Name(t.desired_state) for t in world.live()] == ["READY"]
    world.run(2)
    assert [S.Name(t.desired_state) for t in world.live()] == ["COMPLETE"]


def test_lost_task_was_completed_after_all() -> None:
    """A node that was lost returns and reports the task as complete: its slot is done, and the replacement is stopped."""
    world = running(job(completions=2, policy=restart(ANY, delay=0)), Fate(life=60.0, end=S.COMPLETE))
    world.run(1)
    (lost,) = world.live()
    world.edit_node(lost.node_id, state=DOWN)
    world.run(1)
    assert [t.slot for t in world.live()] == [0]
    world.edit_node(lost.node_id, state=READY)
    world.report(lost.id, S.COMPLETE)
    world.run(1)
    assert [t.slot for t in world.live()] == [1]
    world.run(100)
    assert completed(world) == [0, 1]


def test_unreachable_nodes_keep_their_tasks() -> None:
    """Unknown and paused nodes keep what they have."""
    world = running(job(completions=3, at_once=3), Fate(life=5.0, end=S.COMPLETE))
    world.run(1)
    before = [t.id for t in world.live()]
    world.edit_node("n1", state=UNKNOWN)
    world.edit_node("n2", availability=api.NodeSpec.PAUSE)
    world.settle()
    assert [t.id for t in world.live()] == before


def test_removed_node() -> None:
    """The orphans of a removed node are restarted on others."""
    world = running(job(completions=3, at_once=3, policy=restart(ANY, delay=1)), Fate(life=5.0, end=S.COMPLETE))
    world.run(1)
    world.remove_node("n1")
    world.run(20)
    assert completed(world) == [0, 1, 2]
    assert {t.node_id for t in world.tasks() if t.status.state == S.COMPLETE} == {"n2", "n3"}


def test_failures_without_end_leave_few_records() -> None:
    """A job that fails for ever keeps as many records per slot as a service does; what is complete stays."""
    world = running(job(completions=2, at_once=2, policy=restart(ANY, delay=1)), history=3)
    world.fate = lambda t: FAILS if t.slot == 0 else ENDS
    world.run(100)
    assert completed(world) == [1]
    assert len([t for t in world.tasks() if t.slot == 0]) == 3


def test_old_iterations_are_history() -> None:
    """Completed tasks of earlier iterations stay within the history limit; those of the present one stay whatever the limit is."""
    for limit, expected in ((3, 3), (0, 1), (-1, 5)):
        world = running(job(), history=limit)
        for _ in range(4):
            world.run(5)
            world.edit_service(lambda spec: spec.annotations.labels.update({"a": "b"}))
        world.run(5)
        assert completed(world, 4) == [0]
        assert len(world.tasks()) == expected


def test_drain_cuts_the_delay_of_a_restart_short() -> None:
    """A task that waits for the restart delay starts at once when the node of the one before is drained meanwhile."""
    world = World(cluster(), node("n1"), job(policy=restart(ANY, delay=5)), fate=lambda _: ENDS)
    world.run(1)
    world.put(node("n2"))
    world.edit_node("n1", availability=api.NodeSpec.PAUSE)
    world.report(world.live()[0].id, S.FAILED)
    world.run(1)
    (waiting,) = world.live()
    assert (waiting.node_id, waiting.desired_state) == ("n2", S.READY)
    world.edit_node("n1", availability=DRAIN)
    world.settle()
    assert world.task(waiting.id).desired_state == S.COMPLETE


def test_attempts_count_anew_after_going_back() -> None:
    """An iteration has its own attempts, also when it runs a spec that an earlier one has spent."""
    svc = job(policy=restart(ANY, attempts=1, delay=0), iteration=2)
    old = [job_task(f"old{n}", 0, S.FAILED, S.SHUTDOWN, of=svc, made=n) for n in (1, 2)]
    assert begun(decided(cluster(), svc, *old)) == [0]
    first = job_task("first", 0, S.FAILED, of=svc, made=3, iteration=2)
    changes = decided(cluster(), svc, *old, first, key=SlotKey("svc", 0))
    assert [c.obj.desired_state for c in changes if isinstance(c, Create) and isinstance(c.obj, api.Task)] == [S.READY]


def test_doubles() -> None:
    """Of two live tasks in a slot one is stopped, and all of them when the slot is complete; a new leader sees it too."""
    svc = job(completions=2, at_once=2)
    double = [job_task("a", 0, S.RUNNING, of=svc, made=1), job_task("b", 0, S.RUNNING, of=svc, made=2)]
    late = [job_task("c", 1, S.COMPLETE, S.SHUTDOWN, of=svc, made=1), job_task("d", 1, S.RUNNING, of=svc, made=2)]
    store = new_store(cluster(), svc, *double, *late)
    changes = settle(Jobs(ids()), store, 10.0)
    assert wishes(changes) == {"b": "SHUTDOWN", "d": "SHUTDOWN"}


def test_large_job_stays_cheap() -> None:
    """A completion in a job of 4000 tasks costs one look at its records and makes one task."""
    svc = job(completions=5000, at_once=100)
    done = [job_task(f"t{n}", n, S.COMPLETE, of=svc, made=1) for n in range(4000)]
    live = [job_task(f"l{n}", n, S.RUNNING, of=svc, made=1) for n in range(4000, 4099)]
    assert begun(decided(svc, *done, *live)) == [4099]
