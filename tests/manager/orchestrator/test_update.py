"""Rolling updates and rollbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.changes import Delete, Update
from pyswarm.manager.orchestrator.rolling import Attempt, Config, exceeds, failures
from pyswarm.manager.orchestrator.settle import settle
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Slot
from pyswarm.manager.store import Action, Kind, copy_of
from tests.support.loops import new_store
from tests.support.swarm import ANY, NONE, cluster, config, ids, node, restart, service, task
from tests.support.world import Fate, World

S = api.TaskState
PAUSE, CONTINUE, ROLLBACK = api.UpdateConfig.PAUSE, api.UpdateConfig.CONTINUE, api.UpdateConfig.ROLLBACK
NODES = (cluster(), node("n1"), node("n2"))


def started(svc: api.Service, fate: Callable[[api.Task], Fate] = lambda _: Fate(), *, fresh: bool = False) -> World:
    """A world in which the service runs."""
    world = World(*NODES, svc, fate=fate, fresh=fresh)
    world.run(10)
    return world


def failing(*images: str, life: float = 0.0) -> Callable[[api.Task], Fate]:
    """Tasks of these images fail soon after they run."""
    return lambda t: Fate(life=life) if t.spec.container.image in images else Fate()


def images(tasks: Iterable[api.Task]) -> list[str]:
    """Their images, sorted."""
    return sorted(t.spec.container.image for t in tasks)


def span(world: World) -> float:
    """Seconds from the start to the end of the update."""
    status = world.service().update_status
    return times.seconds_of(status.completed_at) - times.seconds_of(status.started_at)


@pytest.mark.parametrize(
    ("update", "seconds"),
    [
        (config(0, monitor=0.05), 0.05),
        (config(1, monitor=0.05), 0.05),
        (config(1, delay=0.01, monitor=0.05), 0.08),
        (config(1, start_first=True, monitor=0.05), 0.05),
        (None, 5.0),
        (config(1, delay=10, monitor=5), 41.0),
        (config(2, delay=1, monitor=5), 7.0),
    ],
)
def test_all_tasks_become_new(update: api.UpdateConfig | None, seconds: float) -> None:
    """Every slot gets a task of the new version; delays follow each slot, the last included, then the monitor period. [orchestration 81]
    [orchestration 90] [orchestration 104]"""
    world = started(service(replicas=3, update=update))
    world.edit_service(lambda spec: setattr(spec.task.log_driver, "name", "json"))
    world.set_image("v:2")
    world.run(100)
    assert world.running("v:2") == 3
    assert {t.log_driver.name for t in world.live()} == {"json"}
    assert world.update_state() == "COMPLETED"
    assert world.service().update_status.message == "update completed"
    assert seconds <= span(world) < seconds + 0.06


def test_parallelism() -> None:
    """Never more than `parallelism` slots are in transition, and slots go in ascending order. [orchestration 91]"""
    world = started(service(replicas=6, update=config(2, delay=1)), lambda _: Fate(start=0.7, stop=0.3))
    world.set_image("v:2")
    order: list[int] = []
    for _ in range(600):
        world.run(0.01)
        up = {t.slot for t in world.live() if t.spec.container.image == "v:2"}
        order += sorted(up - set(order))
        assert world.running() >= 4
    assert order == [1, 2, 3, 4, 5, 6]
    world.run(10)
    assert span(world) == pytest.approx(3 * 2 + 5, abs=0.1)


def test_all_at_once() -> None:
    """With parallelism 0 all old tasks are told to stop without waiting for one another. [orchestration 109]"""
    world = started(service(replicas=5, update=config(0)), lambda _: Fate(stop=None))
    world.set_image("v:2")
    world.settle()
    assert [t.desired_state for t in world.tasks()].count(S.SHUTDOWN) == 5


def test_pause_on_failure() -> None:
    """The first failure pauses; a paused update stays paused until the service is updated. [orchestration 82]"""
    world = started(service(replicas=3, update=config(1, delay=0.5, monitor=0.5)), failing("v:2"))
    world.set_image("v:2")
    world.run(20)
    assert world.update_state() == "PAUSED"
    (failed,) = [t for t in world.tasks() if t.spec_version.index == world.service().spec_version.index][:1]
    assert world.service().update_status.message == f"update paused due to failure or early termination of task {failed.id}"
    assert not world.service().update_status.HasField("completed_at")
    assert images(world.live()) == ["v:1", "v:1", "v:2"]
    before = world.service()
    world.new_leader()
    world.run(20)
    assert world.service() == before
    assert images(world.live()) == ["v:1", "v:1", "v:2"]
    world.edit_service(lambda spec: spec.update.MergeFrom(api.UpdateConfig(failure_action=CONTINUE)))
    world.set_image("v:3")
    world.run(20)
    assert world.running("v:3") == 3


def test_paused_update_still_restarts() -> None:
    """While paused, a failing old task is replaced by one of the new version. [orchestration 100]"""
    world = started(service(replicas=3, update=config(1, delay=0.5)), failing("v:2", life=0.1))
    world.set_image("v:2")
    world.run(20)
    world.fate = lambda _: Fate()
    old = [t for t in world.live() if t.spec.container.image == "v:1"]
    world.report(old[0].id, S.FAILED)
    world.run(10)
    assert images(world.live()) == ["v:1", "v:2", "v:2"]
    assert world.update_state() == "PAUSED"
    world.scale(3)
    world.run(20)
    assert world.running("v:2") == 3


def test_old_tasks_that_never_stop() -> None:
    """Stop-first waits at most 60 s for each. [orchestration 83]"""
    world = started(service(replicas=2), lambda t: Fate(stop=None))
    world.set_image("v:2")
    world.run(200)
    assert world.update_state() == "COMPLETED"
    assert span(world) == pytest.approx(125, abs=1)


def test_start_first_does_not_wait_for_the_stop() -> None:
    """Start-first ends the old one when the new one runs, and goes on. [orchestration 84]"""
    world = started(service(replicas=3, update=config(1, start_first=True)), lambda t: Fate(stop=None, start=1))
    world.set_image("v:2")
    world.run(0.9)
    assert [S.Name(t.desired_state) for t in world.tasks() if t.slot == 1] == ["RUNNING", "RUNNING"]
    world.run(19)
    assert sum(t.status.state == S.RUNNING for t in world.tasks()) == 6
    assert {(t.spec.container.image, S.Name(t.desired_state)) for t in world.tasks()} == {("v:1", "SHUTDOWN"), ("v:2", "RUNNING")}
    assert span(world) == pytest.approx(3 + 5, abs=0.1)


def rolled_back(fails: tuple[str, ...], action: api.UpdateConfig.FailureAction.ValueType, *, version: int | None = 0) -> World:
    """4 replicas of v:1, updated to v:2 where every second task fails."""
    update = config(1, delay=0.01, monitor=0.5, action=ROLLBACK, ratio=0.4)
    back = config(1, delay=0.01, monitor=0.5, action=action, ratio=0.4)
    world = started(service(replicas=4, policy=restart(NONE), update=update, rollback=back, version=version))
    world.fate = lambda t: Fate(life=0.0) if t.spec.container.image in fails and t.slot % 2 else Fate()
    if version is None:
        svc = copy_of(world.service())
        svc.previous_spec.CopyFrom(svc.spec)
        svc.spec.task.container.image = "v:2"
        world.change(Update(svc))
    else:
        world.set_image("v:2")
    world.run(30)
    return world


@pytest.mark.parametrize("version", [0, None])
def test_automatic_rollback(version: int | None) -> None:
    """Too many failures turn the update back. [orchestration 85]"""
    world = rolled_back(("v:2",), PAUSE, version=version)
    made = [t.spec.container.image for t in world.tasks()]
    assert made == ["v:1"] * 4 + ["v:2"] * 3 + ["v:1"] * 3
    assert world.update_state() == "ROLLBACK_COMPLETED"
    assert world.service().update_status.message == "rollback completed"
    assert world.running("v:1") == 4
    assert not world.service().HasField("previous_spec")
    assert not world.service().HasField("previous_spec_version")


@pytest.mark.parametrize(
    ("action", "state", "message"),
    [
        (PAUSE, "ROLLBACK_PAUSED", "update paused due to"),
        (CONTINUE, "ROLLBACK_COMPLETED", "rollback completed"),
        (ROLLBACK, "ROLLBACK_PAUSED", "rollback paused due to"),
    ],
)
def test_failing_rollback(action: api.UpdateConfig.FailureAction.ValueType, state: str, message: str) -> None:
    """A rollback that fails is paused, never rolled back again. [orchestration 86] [orchestration 103] [orchestration 105]"""
    world = rolled_back(("v:1", "v:2"), action)
    assert world.update_state() == state
    assert world.service().update_status.message.startswith(message)
    world.new_leader()
    world.run(60)
    assert world.update_state() == state


def test_rollback_without_previous_spec_pauses() -> None:
    """Where there is nothing to go back to, the update pauses instead of starting over for ever."""
    world = started(service(replicas=2, update=config(1, action=ROLLBACK)), failing("v:2"))
    svc = copy_of(world.service())
    svc.spec.task.container.image = "v:2"
    svc.spec_version.index = 99
    world.change(Update(svc))
    world.run(20)
    assert world.update_state() == "PAUSED"


def test_manual_rollback_and_forward_again() -> None:
    """A manual rollback goes back, a second one forward. [orchestration 101; control 54]"""
    world = started(service(replicas=2))
    world.set_image("v:2")
    world.run(20)
    for image in ("v:1", "v:2"):
        world.manual_rollback()
        world.run(20)
        assert world.running(image) == 2
        assert world.update_state() == "ROLLBACK_COMPLETED"


@pytest.mark.parametrize(
    ("failed", "ratio", "over"),
    [(1, 0.25, False), (2, 0.25, True), (1, 0.0, True), (4, 1.0, False), (0, 0.0, False)],
)
def test_ratio(failed: int, ratio: float, over: bool) -> None:
    """The limit must be exceeded, in single precision. [orchestration 87]"""
    assert exceeds(failed, 4, ratio) is over


@pytest.mark.parametrize(("failed", "total"), [(7, 10), (3, 10), (1, 3), (9, 10)])
def test_ratio_is_single_precision(failed: int, total: int) -> None:
    """A share equal to the limit as the message holds it does not exceed it."""
    ratio = api.UpdateConfig(max_failure_ratio=failed / total).max_failure_ratio
    assert not exceeds(failed, total, ratio)


def test_restarts_of_failed_tasks_do_not_count() -> None:
    """Only the first task of each slot counts: a crash loop in one of four slots is one failure. [orchestration 88]"""
    svc = service(replicas=4, policy=restart(ANY, delay=0.5), update=config(1, delay=3, monitor=5, ratio=0.3))
    world = started(svc)
    world.fate = lambda t: Fate(life=0.1) if t.spec.container.image == "v:2" and t.slot == 1 else Fate()
    world.set_image("v:2")
    world.run(30)
    assert world.update_state() == "COMPLETED"
    assert len([t for t in world.tasks() if t.slot == 1]) <= 5


def attempt(name: str, made: float, up: float | None = None, ended: float | None = None, *, restarted: bool = False) -> Attempt:
    """One slot's attempt: made, then starting, running since `up`, or ended."""
    state = S.FAILED if ended is not None else S.STARTING if up is None else S.RUNNING
    svc = service(version=1)
    svc.update_status.state = api.UpdateStatus.UPDATING
    old = task(f"{name}-old", state=S.FAILED if restarted else S.SHUTDOWN, desired=S.SHUTDOWN, made=1)
    new = task(name, state=state, of=svc, made=made, at=up if ended is None and up is not None else ended or 0.0)
    found = Attempt.of(Situation(new_store(), svc, 1000.0, ids()), Slot(1, [old, new]))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("parallelism", "attempts", "failed"),
    [
        (1, [attempt("a", 10, ended=16.5), attempt("b", 11, up=12)], []),
        (1, [attempt("a", 10, ended=14.0), attempt("b", 11, up=12)], ["a"]),
        (1, [attempt("a", 10, ended=14.0)], ["a"]),
        (1, [attempt("a", 10, ended=100.0), attempt("b", 99)], ["a"]),
        (2, [attempt("a", 10, ended=20.0), attempt("b", 10, up=11), attempt("c", 11)], ["a"]),
        (2, [attempt("a", 10, ended=20.0), attempt("b", 10, up=12), attempt("c", 11)], []),
        (2, [attempt("a", 10, ended=20.0), attempt("b", 10, up=11), attempt("c", 11), attempt("d", 11)], []),
        (0, [attempt("a", 10, ended=100.0), attempt("b", 10, up=11)], ["a"]),
        (1, [attempt("a", 10, ended=12.0), attempt("b", 12, ended=13.0)], ["a", "b"]),
        (1, [attempt("a", 10, ended=16.5), attempt("b", 11, up=12, restarted=True)], ["a"]),
    ],
)
def test_failures_within_the_monitor_period(parallelism: int, attempts: list[Attempt], failed: list[str]) -> None:
    """A failure counts unless the records prove that the task had been up for longer than the monitor period. [orchestration 89]"""
    assert [a.task.id for a in failures(attempts, Config(parallelism=parallelism, monitor=5.0))] == failed


@pytest.mark.parametrize(("life", "state"), [(6.0, "COMPLETED"), (3.0, "PAUSED")])
def test_failure_while_other_slots_go_on(life: float, state: str) -> None:
    """Failing 6 s after it came up is no failure of an update that monitors 5 s, failing after 3 s is one. [orchestration 89]"""
    world = started(service(replicas=4, update=config(1, monitor=5)), lambda _: Fate(start=4))
    world.fate = lambda t: Fate(start=4, life=life) if t.id == "new00005" else Fate(start=4)
    world.set_image("v:2")
    world.run(60)
    assert world.update_state() == state


def test_update_of_an_updating_service() -> None:
    """Another update takes over: new start, slots as they are then. [orchestration 92] [orchestration 93]"""
    world = started(service(replicas=4, update=config(1)), lambda _: Fate(start=1))
    world.set_image("v:2")
    world.run(1.5)
    first = copy_of(world.service().update_status)
    world.set_image("v:3")
    assert not world.service().HasField("update_status")
    world.run(1)
    assert world.service().update_status.started_at.ToDatetime() > first.started_at.ToDatetime()
    world.run(30)
    assert world.running("v:3") == 4


def test_scaling_is_no_update() -> None:
    """A pure scale or label change leaves the status empty. [orchestration 94] [orchestration 18]"""
    world = started(service(replicas=2))
    world.scale(4)
    world.run(10)
    world.edit_service(lambda spec: spec.annotations.labels.update(a="b"))
    world.run(10)
    assert world.update_state() == ""
    assert {t.service_annotations.labels.get("a") for t in world.live()} == {None}
    assert len(world.tasks()) == 4


def test_label_change_during_an_update() -> None:
    """The update starts again on what is left. [orchestration 95]"""
    world = started(service(replicas=3, update=config(1)), lambda _: Fate(start=1))
    world.set_image("v:2")
    world.run(1.5)
    world.edit_service(lambda spec: spec.annotations.labels.update(a="b"))
    world.run(20)
    assert world.running("v:2") == 3
    assert world.update_state() == "COMPLETED"


@pytest.mark.parametrize("desired", [S.RUNNING, S.READY])
def test_slot_with_an_outdated_and_a_current_task(desired: api.TaskState.ValueType) -> None:
    """The outdated one is shut down, no new one is made; a READY one is released when the other has stopped. [orchestration 96]"""
    svc = service(version=3, update=config(1, start_first=True))
    dirty = task("dirty", version=1, image="v:0", of=svc, on="n1", made=1)
    clean = task("clean", 1, S.READY, desired, of=svc, on="n2", made=1_000_000)
    world = World(*NODES, svc, dirty, clean, fate=lambda _: Fate(stop=3))
    world.edit_service(lambda spec: spec.update.CopyFrom(config(1)))
    world.run(2)
    assert world.task("dirty").desired_state == S.SHUTDOWN
    assert world.task("clean").desired_state == desired
    world.run(3)
    assert len(world.tasks()) == 2
    assert world.task("clean").status.state == S.RUNNING


def test_slot_that_ended_on_purpose_is_updated() -> None:
    """A completed task of condition NONE is replaced by an image change, its record stays as it is. [orchestration 97]"""
    world = started(service(policy=restart(NONE)), lambda t: Fate(life=1, end=S.COMPLETE))
    (done,) = world.tasks()
    assert done.desired_state == S.SHUTDOWN
    world.set_image("v:2")
    world.run(0.5)
    assert world.task(done.id) == done
    assert world.running("v:2") == 1


@pytest.mark.parametrize("action", [PAUSE, CONTINUE])
def test_forced_update_of_ended_slots(action: api.UpdateConfig.FailureAction.ValueType) -> None:
    """`force_update` runs ended slots again, one after the other; writing the service unchanged does nothing. [orchestration 67]
    [orchestration 68]"""
    world = started(service(replicas=2, policy=restart(NONE), update=config(1, action=action)), lambda t: Fate(life=1))
    assert world.live() == []
    world.change(Update(copy_of(world.service())))
    world.run(5)
    assert len(world.tasks()) == 2
    world.fate = lambda _: Fate(start=1)
    world.edit_service(lambda spec: setattr(spec.task, "force_update", 1))
    world.run(0.9)
    assert [t.slot for t in world.live()] == [1]
    world.run(10)
    assert world.running() == 2


def test_old_task_was_stopped_by_someone_else() -> None:
    """A slot whose task went away before its turn gets just one new task. [orchestration 98]"""
    world = started(service(replicas=3, update=config(1)), lambda _: Fate(start=1))
    world.set_image("v:2")
    world.run(0.5)
    victim = copy_of(world.live()[2])
    victim.desired_state = S.SHUTDOWN
    world.change(Update(victim))
    world.run(30)
    assert world.running("v:2") == 3
    assert len(world.tasks()) == 6


def test_service_deleted_during_an_update() -> None:
    """Nothing is left of the update. [orchestration 99]"""
    world = started(service(replicas=3, update=config(1)), lambda _: Fate(start=1))
    world.set_image("v:2")
    world.run(0.5)
    world.remove_service()
    world.run(10)
    assert world.tasks() == []


def test_new_task_deleted_before_it_runs() -> None:
    """The update goes on when a new task is deleted. [orchestration 106]"""
    world = started(service(replicas=2, update=config(1)), lambda t: Fate(start=1))
    world.set_image("v:2")
    world.run(0.5)
    (new,) = [t for t in world.live() if t.spec.container.image == "v:2"]
    world.change(Delete(Kind.TASK, new.id))
    world.run(30)
    assert world.running("v:2") == 2
    assert world.update_state() == "COMPLETED"


@pytest.mark.parametrize("policy", [restart(ANY, delay=0.5), restart(NONE)])
def test_start_first_with_a_failing_start(policy: api.RestartPolicy) -> None:
    """A new task that dies before it runs is restarted beside the old one, and in the end one is left. Where the policy forbids that, the
    old one stays. [orchestration 107]"""
    world = started(service(policy=policy, update=config(1, start_first=True, action=CONTINUE)))
    world.fate = lambda t: Fate(rejected=t.id == "new00002")
    world.set_image("v:2")
    world.run(60)
    (left,) = world.live()
    assert left.spec.container.image == ("v:1" if policy.condition == NONE else "v:2")
    assert world.update_state() == "COMPLETED"
    assert len(world.tasks()) <= 3


def test_crash_loop_does_not_stall_a_continuing_update() -> None:
    """With action CONTINUE and a long delay, a crash looping slot with short history still frees its worker."""
    svc = service(replicas=2, policy=restart(ANY, delay=1), update=config(1, delay=30, action=CONTINUE))
    for limit in (0, 1, 5):
        world = World(cluster(limit), node("n1"), svc)
        world.run(5)
        world.fate = lambda t: Fate(life=0.2) if t.slot == 1 and t.spec.container.image == "v:2" else Fate()
        world.set_image("v:2")
        world.run(75)
        assert images(world.live()) == ["v:2", "v:2"]


def progress(state: api.UpdateStatus.UpdateState.ValueType, dirty: int) -> World:
    """What a new leader finds: 4 slots, some outdated, an update status an hour old."""
    svc = service(replicas=4, image="v:2", version=7, update=config(2))
    svc.update_status.state = state
    svc.update_status.started_at.CopyFrom(times.timestamp(990_000.0))
    tasks = [task(f"t{n}", n, of=svc, on="n1", made=991_000.0, at=991_000.0) for n in range(1, 5)]
    for old in tasks[:dirty]:
        old.spec.container.image = "v:1"
        old.spec_version.index = 3
    world = World(*NODES)
    world.put(svc, *tasks)
    world.new_leader()
    world.run(0.01)
    return world


def test_new_leader_finds_an_update() -> None:
    """UPDATING goes on with its start; without dirty slots it is complete at once; PAUSED stays. [orchestration 65]"""
    world = progress(api.UpdateStatus.UPDATING, 2)
    world.run(20)
    assert world.running("v:2") == 4
    assert world.update_state() == "COMPLETED"
    assert times.seconds_of(world.service().update_status.started_at) == 990_000.0
    assert progress(api.UpdateStatus.UPDATING, 0).update_state() == "COMPLETED"
    paused = progress(api.UpdateStatus.PAUSED, 2)
    paused.run(20)
    assert images(paused.live()) == ["v:1", "v:1", "v:2", "v:2"]


def test_scale_and_image_together() -> None:
    """Slots added by the same update are not part of it."""
    world = started(service(replicas=2, update=config(1)), lambda _: Fate(start=2))

    def both(spec: api.ServiceSpec) -> None:
        spec.replicated.replicas = 4
        spec.task.container.image = "v:2"

    world.edit_service(both)
    world.run(1)
    assert images(world.live()) == ["v:1", "v:2", "v:2", "v:2"]
    world.run(30)
    assert world.running("v:2") == 4
    assert span(world) == pytest.approx(4 + 5, abs=0.1)


def test_superseded_start_first_update_leaves_no_crowd() -> None:
    """When an update overtakes a start-first one, what does not run yet goes at once: two in a slot, never three."""
    world = started(
        service(replicas=2, update=config(0, start_first=True)), lambda t: Fate(start=0 if t.spec.container.image == "v:1" else 5)
    )
    for image in ("v:2", "v:3", "v:4"):
        world.set_image(image)
        world.run(1)
        assert images(world.live()) == ["v:1", "v:1", image, image]
    world.run(30)
    assert world.running("v:4") == 2


def outdated(task_id: str, version: int, state: api.TaskState.ValueType, desired: api.TaskState.ValueType = S.RUNNING) -> api.Task:
    """A task of an earlier version; version and age go together."""
    return task(task_id, 1, state, desired, of=service(version=version, image=f"v:{version}"), on="n1", made=float(version))


FAILED_BEFORE = outdated("x", 2, S.FAILED, S.SHUTDOWN)


@pytest.mark.parametrize(
    ("records", "gone"),
    [
        ([outdated("a", 1, S.RUNNING), outdated("b", 2, S.STARTING)], "b"),
        ([outdated("a", 1, S.RUNNING), outdated("b", 2, S.RUNNING)], "a"),
        ([outdated("a", 1, S.STARTING), outdated("b", 2, S.PENDING)], "a"),
        ([outdated("a", 1, S.PENDING), FAILED_BEFORE, outdated("b", 2, S.REJECTED, S.READY)], "b"),
    ],
    ids=["one runs", "both run", "none runs", "the newer waits to be replaced"],
)
@pytest.mark.parametrize("start_first", [False, True])
def test_two_outdated_tasks(records: list[api.Task], gone: str, start_first: bool) -> None:
    """Of two outdated tasks in a slot one stays until its turn in the update comes: what runs, else what is alive, else the newer."""
    svc = service(version=3, image="v:3", update=config(1, start_first=start_first))
    situation = Situation(new_store(svc, node("n1")), svc, 3.0, ids())
    (change,) = settle(situation, Slot(1, records)).changes
    assert isinstance(change, Update)
    assert isinstance(change.obj, api.Task)
    assert (change.obj.id, change.obj.desired_state) == (gone, S.SHUTDOWN)


def test_two_outdated_tasks_beside_a_new_one() -> None:
    """Start-first, the new task has one outdated one at its side until it runs, never two; stop-first none."""
    old = [outdated("a", 1, S.RUNNING), outdated("b", 2, S.STARTING)]
    for start_first, gone in ((True, ["b"]), (False, ["a", "b"])):
        svc = service(version=3, image="v:3", update=config(1, start_first=start_first))
        new = task("c", 1, S.STARTING, of=svc, on="n1", made=3.0)
        situation = Situation(new_store(svc, node("n1"), *old, new), svc, 3.0, ids())
        changes = settle(situation, situation.slot(1)).changes
        assert [(c.obj.id, c.obj.desired_state) for c in changes if isinstance(c, Update) and isinstance(c.obj, api.Task)] == [
            (task_id, S.SHUTDOWN) for task_id in gone
        ]


@pytest.mark.parametrize("history", [1, 2, 5])
def test_start_first_with_an_image_that_cannot_be_had(history: int) -> None:
    """What runs is never touched while the new tasks are rejected, restart after restart; and these keep to the delay, however short the
    history is."""
    bad = Fate(rejected=True)
    world = World(cluster(history), node("n1"), node("n2"), service(policy=restart(ANY, delay=5), update=config(1, start_first=True)))
    world.fate = lambda t: bad if t.spec.container.image == "v:2" else Fate()
    world.run(10)
    world.set_image("v:2")
    before = len(world.commits)
    world.run(52)
    assert world.update_state() == "PAUSED"
    assert world.running("v:1") == 1
    made = [e.obj.id for commit in world.commits[before:] for e in commit if e.action is Action.CREATE]
    assert 9 <= len(made) <= 12


def test_leader_with_a_clock_behind() -> None:
    """A new leader whose clock is behind goes on with the update at the same pace."""
    world = started(service(replicas=6, update=config(1)), lambda _: Fate(start=1))
    world.set_image("v:2")
    world.run(1.5)
    world.skew = -30
    world.new_leader()
    for _ in range(40):
        world.run(0.1)
        assert sum(t.status.state != S.RUNNING for t in world.live()) <= 1
    world.run(60)
    assert world.running("v:2") == 6
    assert world.update_state() == "COMPLETED"


def test_constraint_that_cannot_be_parsed_replaces_nothing() -> None:
    """Tasks on a node that satisfies the new placement stay, though the spec version moved. [orchestration 22]"""
    world = started(service(replicas=3))
    before = {t.id for t in world.tasks()}
    world.edit_service(lambda spec: spec.task.placement.constraints.append("node.name=*"))
    world.run(20)
    assert {t.id for t in world.live()} == before == {t.id for t in world.tasks()}
