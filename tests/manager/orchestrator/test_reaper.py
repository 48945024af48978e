"""The task reaper."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Delete
from pyswarm.manager.orchestrator.reaper import AllHistoryKey, HistoryKey, Key, Reaper, TaskKey
from pyswarm.manager.store import Action, Event, Kind, View, copy_of
from tests.support import loops
from tests.support.swarm import ANY, NONE, cluster, job, job_task, node, restart, service, task
from tests.support.world import Fate, World

S = api.TaskState
SLOT = HistoryKey("svc", 1, "")


def gone(*ids: str) -> list[Change]:
    """Deletions of tasks."""
    return [Delete(Kind.TASK, i) for i in ids]


def decided(key: Key, *objects: object) -> list[Change]:
    """The deletions for one key."""
    return list(Reaper().decide(loops.new_store(*objects), key, 1000.0).changes)


def everything(view: View) -> list[Change]:
    """What a new leader deletes."""
    return [c for key in Reaper().everything(view) for c in Reaper().decide(view, key, 0.0).changes]


def test_first_pass() -> None:
    """At start, what was to be removed goes unless an agent has it, and what is within the limit stays. [orchestration 161]"""
    kept = [task("k1", 1), task("k2", 2), task("k3", 3, S.FAILED, S.SHUTDOWN)]
    marked = [task("m1", 4, S.SHUTDOWN, S.REMOVE)]
    lost = [task(f"l{s}", 5, s, S.REMOVE, of=service("other")) for s in (S.RUNNING, S.COMPLETE, S.PENDING, S.NEW)]
    found = everything(loops.new_store(cluster(2), service(), *kept, *marked, *lost))
    assert found == gone("m1", f"l{S.COMPLETE}", f"l{S.PENDING}", f"l{S.NEW}")


def test_history_of_restarts() -> None:
    """With limit 2 and two slots, two failures in each leave four records. [orchestration 162]"""
    world = World(cluster(2), node("n1"), service(replicas=2, policy=restart(ANY, delay=0)))
    for _ in range(3):
        world.run(1)
        for t in world.live():
            world.report(t.id, S.FAILED)
    world.run(1)
    assert len(world.tasks()) == 4
    assert world.running() == 2


def test_scale_down_with_unlimited_history() -> None:
    """Limit -1: what was scaled away goes when it has stopped. [orchestration 163]"""
    world = World(cluster(-1), node("n1"), service(replicas=2), fate=lambda _: Fate(stop=5))
    world.run(1)
    world.scale(1)
    world.run(4)
    assert len(world.tasks()) == 2
    world.run(3)
    assert len(world.tasks()) == 1


def test_deleted_service() -> None:
    """All tasks of a deleted service go, completed ones without further report. [orchestration 164]"""
    for fate in (Fate(stop=1), Fate(life=0.1, end=S.COMPLETE)):
        world = World(cluster(-1), node("n1"), service(replicas=2, policy=restart(NONE)), fate=lambda _, f=fate: f)  # type: ignore[misc]
        world.run(1)
        world.remove_service()
        world.run(3)
        assert world.tasks() == []


def test_update_of_a_pending_task() -> None:
    """Limit 1: the old pending task is deleted when it was replaced. [orchestration 166]"""
    svc = service(policy=restart(NONE))
    world = World(cluster(1), svc)
    world.run(1)
    assert [S.Name(t.status.state) for t in world.tasks()] == ["PENDING"]
    world.edit_service(lambda spec: setattr(spec.task, "force_update", 1))
    world.run(1)
    world.put(node("n1"))
    world.run(10)
    (left,) = world.tasks()
    assert left.spec.force_update == 1


def test_empty_and_unknown_slots() -> None:
    """A missing service or an empty slot needs nothing; one dead record is within limit 1, beside a live one it is not.
    [orchestration 167]"""
    dead, live = task("dead", state=S.FAILED, desired=S.SHUTDOWN, made=1), task("live", made=2)
    assert decided(SLOT, cluster(0), dead) == []
    assert decided(SLOT, cluster(0), service()) == []
    assert decided(SLOT, cluster(1), service(), dead) == []
    assert decided(SLOT, cluster(1), service(), dead, live) == gone("dead")


LIVE = [S.ASSIGNED, S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING]
DEAD = [S.COMPLETE, S.SHUTDOWN, S.FAILED, S.REJECTED, S.REMOVE, S.ORPHANED]
CASES = [(S.RUNNING, s, False) for s in (S.NEW, S.PENDING, *LIVE, *DEAD)]
CASES += [(S.SHUTDOWN, s, True) for s in (S.NEW, S.PENDING, *DEAD)] + [(S.SHUTDOWN, s, False) for s in LIVE]


@pytest.mark.parametrize(("desired", "state", "deleted"), CASES)
def test_what_may_go(desired: api.TaskState.ValueType, state: api.TaskState.ValueType, deleted: bool) -> None:
    """Over the limit goes what is terminal or will never run, never what lives or is still meant to: the restart delay is read from it.
    [orchestration 168, better]"""
    assert decided(SLOT, cluster(0), service(), task("t", 1, state, desired)) == (gone("t") if deleted else [])


@pytest.mark.parametrize("limit", [0, 10, -1])
def test_attempts_set_the_limit(limit: int) -> None:
    """`max_attempts` 2 keeps three records, whatever the cluster keeps. [orchestration 169]"""
    svc = service(policy=restart(ANY, attempts=2))
    records = [task(f"t{n}", 1, S.FAILED, S.SHUTDOWN, of=svc, made=n) for n in range(1, 6)]
    assert decided(SLOT, cluster(limit), svc, *records) == gone("t1", "t2")


def test_oldest_first_and_never_the_living() -> None:
    """Two live and five dead with limit 5: the two oldest dead go. [orchestration 170]"""
    live = [task("a", made=1), task("b", made=2)]
    dead = [task(f"t{n}", 1, S.FAILED, S.SHUTDOWN, made=n) for n in range(3, 8)]
    assert decided(SLOT, cluster(5), service(), *live, *dead) == gone("t3", "t4")


def test_orphaned_attachment() -> None:
    """A network attachment that became an orphan is deleted. [orchestration 171]"""
    orphan = task("t", 0, S.ORPHANED)
    orphan.service_id = ""
    assert list(Reaper().on_event(Event(Kind.TASK, Action.UPDATE, orphan))) == [TaskKey("t")]
    assert decided(TaskKey("t"), orphan) == gone("t")


def test_key_is_looked_at_again_before_deleting() -> None:
    """A task that is no longer over, or gone, is left alone."""
    assert decided(TaskKey("t"), task("t", 1, S.RUNNING, S.REMOVE)) == []
    assert decided(TaskKey("t")) == []


def test_limit_change_waits_for_an_occasion() -> None:
    """A lower limit takes effect when something happens in the slot. [orchestration 172]"""
    world = World(cluster(5), node("n1"), service(policy=restart(delay=0)))
    for _ in range(4):
        world.run(1)
        world.report(world.live()[0].id, S.FAILED)
    world.run(1)
    assert len(world.tasks()) == 5
    world.put(cluster(1))
    world.run(5)
    assert len(world.tasks()) == 5
    world.report(world.live()[0].id, S.FAILED)
    world.run(5)
    assert len(world.tasks()) == 1


def test_jobs_keep_what_they_need() -> None:
    """Of a job's present iteration the completed tasks and the last one stay, whatever the limit; older records are history.
    [orchestration 173]"""
    svc = job(completions=2, iteration=1)
    old = [job_task(f"o{n}", 1, S.COMPLETE, of=svc, made=n) for n in (1, 2)]
    failed = [job_task(f"f{n}", 1, S.FAILED, S.SHUTDOWN, of=svc, made=n, iteration=1) for n in (3, 4)]
    done = [job_task(f"c{n}", 1, S.COMPLETE, of=svc, made=n, iteration=1) for n in (5, 6)]
    assert decided(SLOT, cluster(3), svc, *old, *failed) == gone("o1")
    assert decided(SLOT, cluster(0), svc, *old, *failed) == gone("o1", "o2", "f3")
    assert decided(AllHistoryKey("svc"), cluster(0), svc, *old, *failed, *done) == gone("o1", "o2", "f3", "f4")
    assert decided(SLOT, cluster(-1), svc, *old, *failed, *done) == []
    assert decided(TaskKey("m"), svc, job_task("m", 1, S.COMPLETE, S.REMOVE, of=svc)) == gone("m")


def test_waiting_job_tasks_are_not_history() -> None:
    """A job's task that no node has yet is to run: it is neither over nor superfluous."""
    svc = job()
    tasks = [job_task("f", 1, S.FAILED, S.SHUTDOWN, of=svc, made=1), job_task("new", 1, S.PENDING, of=svc, made=2)]
    assert decided(SLOT, cluster(0), svc, *tasks) == gone("f")


def test_attempts_of_a_job_stay_countable() -> None:
    """With limited attempts a slot keeps that many records of the present iteration, and none of earlier ones."""
    svc = job(policy=restart(ANY, attempts=2), iteration=1)
    old = [job_task(f"o{n}", 1, S.FAILED, S.SHUTDOWN, of=svc, made=n) for n in (1, 2, 3)]
    new = [job_task(f"n{n}", 1, S.FAILED, S.SHUTDOWN, of=svc, made=n, iteration=1) for n in (4, 5, 6)]
    assert decided(SLOT, cluster(5), svc, *old, *new) == gone("o1", "o2", "o3")


def test_update_keeps_its_records() -> None:
    """While an update is under way, the pair of records that tells its progress stays; afterwards it goes."""
    svc = service(version=2)
    svc.update_status.state = api.UpdateStatus.UPDATING
    old = task("old", 1, S.SHUTDOWN, S.SHUTDOWN, made=1, version=1)
    first, second = (task(f"f{n}", 1, S.FAILED, S.SHUTDOWN, of=svc, made=n) for n in (2, 3))
    live = task("live", of=svc, made=4)
    assert decided(SLOT, cluster(1), svc, old, first, second, live) == gone("f3")
    done = copy_of(svc)
    done.update_status.state = api.UpdateStatus.COMPLETED
    assert list(Reaper().on_event(Event(Kind.SERVICE, Action.UPDATE, done, svc))) == [AllHistoryKey("svc")]
    assert decided(AllHistoryKey("svc"), cluster(1), done, old, first, live) == gone("old", "f2")


def test_what_shows_that_a_slot_is_done_stays() -> None:
    """With limit 0 the record of a task that is not to be run again is kept, or it would be; without a service that wants it, it goes."""
    done = task("t2", 1, S.COMPLETE, S.SHUTDOWN, of=service(policy=restart(NONE)), made=2)
    before = task("t1", 1, S.COMPLETE, S.SHUTDOWN, of=service(policy=restart(NONE)), made=1)
    assert decided(SLOT, cluster(0), service(policy=restart(NONE)), before, done) == gone("t1")
    world = World(cluster(0), node("n1"), service(policy=restart(NONE)), fate=lambda _: Fate(life=0.2, end=S.COMPLETE))
    world.run(5)
    world.new_leader()
    world.run(5)
    assert [t.id for t in world.tasks()] == ["new00001"]


def test_what_shows_the_restart_delay_stays() -> None:
    """Beside a living outdated task the predecessor of one that waits is kept until that may start; then a key comes for the slot."""
    old, dead = task("old", made=1), task("dead", 1, S.FAILED, S.SHUTDOWN, version=1, made=2)
    waits = task("waits", 1, S.READY, S.READY, version=1, made=3)
    assert decided(SLOT, cluster(1), service(version=1), old, dead, waits) == []
    assert decided(SLOT, cluster(1), service(version=1), dead, waits) == gone("dead")
    released = copy_of(waits)
    released.desired_state = S.RUNNING
    assert list(Reaper().on_event(Event(Kind.TASK, Action.UPDATE, released, waits))) == [SLOT]
    assert decided(SLOT, cluster(1), service(version=1), old, dead, released) == gone("dead")


def test_what_goes_anyway_does_not_count() -> None:
    """A record to be removed takes no other with it, whichever key comes first."""
    dead, removed = task("dead", 1, S.FAILED, S.SHUTDOWN, made=1), task("removed", 1, S.SHUTDOWN, S.REMOVE, made=2)
    assert decided(SLOT, cluster(2), service(), dead, removed, task("live", made=3)) == []
