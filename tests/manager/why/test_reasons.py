"""Every reason, reached by letting the real loops decide."""

from __future__ import annotations

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2 as pb
from pyswarm.manager.changes import Create, Update
from pyswarm.manager.store import copy_of
from tests.manager.why.support import ORPHAN_AFTER, Whole, why, why_place, why_service
from tests.support.swarm import ANY, NONE, ON_FAILURE, cluster, config, job, node, restart, service, task
from tests.support.world import Fate

S = api.TaskState
GIB = 1 << 30
DOWN, UNKNOWN = api.NodeStatus.DOWN, api.NodeStatus.UNKNOWN
DRAIN, PAUSE = api.NodeSpec.DRAIN, api.NodeSpec.PAUSE


def nodes(count: int = 2) -> list[api.Node]:
    """Nodes n1, n2 ..., ready and active."""
    return [node(f"n{number}") for number in range(1, count + 1)]


def with_memory(made: api.Node, memory: int) -> api.Node:
    """The node as one that describes so many bytes."""
    made.description.resources.memory_bytes = memory
    return made


def until_state(world: Whole, task_id: str, state: api.TaskState.ValueType) -> None:
    """Step until a task is there."""
    for _ in range(100):
        if world.task(task_id).status.state == state:
            return
        assert world.step()
    raise AssertionError(f"{task_id} does not come to {S.Name(state)}")


def seconds(moment: object) -> float:
    """A message's moment."""
    return times.seconds_of(moment)  # type: ignore[arg-type]


def test_running() -> None:
    """What runs as its service has it is as wanted, and since when is told."""
    world = Whole(cluster(), *nodes(), service())
    world.run(5)
    told = why_place(world)
    assert (told.WhichOneof("reason"), told.service_name, told.slot, told.node_id) == ("as_wanted", "svc", 1, "n1")
    assert seconds(told.as_wanted.since) == pytest.approx(times.seconds_of(world.live()[0].status.applied_at))


def test_allocator() -> None:
    """A new task waits for the allocator; its networks are named, and what it could not be given."""
    asking = service()
    asking.spec.task.networks.add(target="net")
    for allocates, lacking in ((False, ""), (True, "network net not found")):
        world = Whole(cluster(), *nodes(), asking, allocates=allocates)
        world.run(5)
        told = why_place(world).awaits_allocation
        assert (list(told.networks), told.lacking) == (["net"], lacking)


def test_no_suitable_node() -> None:
    """Each node is counted under what the scheduler's first refusing filter finds lacking; the most frequent comes first."""
    picky = service(constraints=("node.labels.zone == east",))
    picky.spec.task.resources.reservations.memory_bytes = 2 * GIB
    east = {"zone": "east"}
    world = Whole(
        cluster(),
        *(node(f"d{n}", availability=DRAIN) for n in range(7)),
        *(with_memory(node(f"m{n}", labels=east), GIB) for n in range(3)),
        with_memory(node("w1"), 4 * GIB),
        node("u1", state=UNKNOWN),
        picky,
    )
    world.run(5)
    found = why_place(world).no_suitable_node
    assert [(r.filter, r.lacking, r.nodes) for r in found.refusals] == [
        ("ready", "DRAIN", 7),
        ("resources", "memory", 3),
        ("ready", "UNKNOWN", 1),
        ("constraints", "node.labels.zone==east", 1),
    ]
    assert (found.nodes, found.reservations.memory_bytes) == (12, 2 * GIB)
    assert list(found.refusals[0].node_ids) == ["d0", "d1", "d2", "d3", "d4"]
    assert found.refusals[1].sentence == "insufficient resources on 3 nodes"
    world.put(with_memory(node("w2", labels=east), 2 * GIB))
    world.run(5)
    assert why_place(world).node_id == "w2"


def test_room_taken_by_others() -> None:
    """What other tasks hold on a node is counted as the scheduler counts it."""
    large = service(replicas=2)
    large.spec.task.resources.reservations.memory_bytes = 3 * GIB
    world = Whole(cluster(), with_memory(node("n1"), 4 * GIB), large)
    world.run(5)
    assert [why_place(world, n).WhichOneof("reason") for n in (1, 2)] == ["as_wanted", "no_suitable_node"]
    assert why_place(world, 2).status_err == "no suitable node (insufficient resources on 1 node)"


def test_what_counts_on_a_node() -> None:
    """Host ports and the number of a service's tasks count as long as a task lives there, and no longer."""
    first = service(replicas=2)
    first.spec.task.placement.max_replicas = 1
    first.spec.endpoint.ports.add(published_port=80, publish_mode=api.PortConfig.HOST)
    second = service("other")
    second.spec.endpoint.CopyFrom(first.spec.endpoint)
    world = Whole(cluster(), node("n1"), first)
    world.run(5)
    world.put(second)
    world.run(5)
    assert [r.lacking for r in why_place(world, 1, "other").no_suitable_node.refusals] == ["80/tcp"]
    less = copy_of(world.live()[1])
    less.spec.placement.max_replicas, less.endpoint.ports[0].published_port = 1, 81
    world.change(Update(less))
    assert [(r.filter, r.lacking) for r in why_place(world, 2).no_suitable_node.refusals] == [("max replicas", "1")]
    world.scale(0)
    world.run(5)
    assert why_place(world, 1, "other").WhichOneof("reason") == "as_wanted"
    ended = task("ended", 9, S.FAILED, S.SHUTDOWN, of=first, on="n2")
    ended.endpoint.ports.extend(first.spec.endpoint.ports)
    world.change(Create(node("n2")), Create(ended))
    world.scale(1, "svc")
    while not world.live() or world.live()[0].status.state < S.PENDING:
        assert world.step()
    assert why_place(world, 1).awaits_scheduler.suitable == 1


def test_no_nodes() -> None:
    """Without any node none suits."""
    world = Whole(cluster(), service())
    world.run(5)
    assert (why_place(world).no_suitable_node.nodes, len(why_place(world).no_suitable_node.refusals)) == (0, 0)


def test_own_node_refuses() -> None:
    """A task of a global service only asks the node that it is for."""
    asking = service(replicas=None)
    asking.spec.task.resources.reservations.nano_cpus = 10**9
    world = Whole(cluster(), *nodes(), asking)
    world.run(5)
    told = why_place(world, "n2")
    assert told.place_is_node
    assert [(r.lacking, r.nodes) for r in told.no_suitable_node.refusals] == [("CPUs", 1)]
    world.edit_node("n2", state=UNKNOWN)
    assert [(r.lacking, r.nodes) for r in why_place(world, "n2").no_suitable_node.refusals] == [("UNKNOWN", 1)]


def test_about_to_be_placed() -> None:
    """A task that the scheduler has not looked at yet is told how many nodes suit it."""
    world = Whole(cluster(), *nodes(), service())
    while not world.tasks() or world.tasks()[0].status.state < S.PENDING:
        assert world.step()
    assert why_place(world).awaits_scheduler.suitable == 2


def test_restart_delay() -> None:
    """A replacement waits until the delay is over, and knows which attempt it is and what the one before said."""
    world = Whole(cluster(), *nodes(), service(policy=restart(ANY, delay=30.0, attempts=3)))
    world.run(5)
    first = world.live()[0].id
    world.say(first, S.FAILED, "task: non-zero exit (3)", 3)
    ended = world.now
    world.run(10)
    waits = why_place(world).awaits_delay
    assert seconds(waits.until) == pytest.approx(ended + 30, abs=0.1)
    assert (waits.attempt, waits.max_attempts, waits.predecessor) == (1, 3, first)
    assert (waits.error, waits.exit_code) == ("task: non-zero exit (3)", 3)
    second = world.live()[0].id
    assert why(world, first).failed.replaced_by == second
    world.run(25)
    assert why_place(world).WhichOneof("reason") == "as_wanted"
    world.say(second, S.FAILED, "again")
    world.run(29)
    waits = why_place(world).awaits_delay
    assert (waits.attempt, waits.predecessor, waits.error) == (2, second, "again")


def test_ended_before_it_was_let_go() -> None:
    """A replacement that was rejected while it waited for its delay is dealt with only then."""
    world = Whole(cluster(), *nodes(), service(policy=restart(ANY, delay=30.0)))
    world.run(5)
    world.say(world.live()[0].id, S.FAILED, "bang")
    ended = world.now
    world.run(2)
    world.say(world.live()[0].id, S.REJECTED, "exec: bad")
    world.run(2)
    told = why_place(world).failed
    assert (told.error, told.times) == ("exec: bad", 2)
    assert seconds(told.restart_at) == pytest.approx(ended + 30, abs=0.1)
    world.now += 60
    assert not why_place(world).failed.HasField("restart_at")


def test_gives_up() -> None:
    """The restart policy's part that forbids another attempt is named, and how often it failed."""
    for policy, expected, times_failed in (
        (restart(NONE), pb.Failed.CONDITION, 1),
        (restart(ON_FAILURE, delay=0.0, attempts=2), pb.Failed.MAX_ATTEMPTS, 3),
    ):
        world = Whole(cluster(), *nodes(), service(policy=policy), fate=lambda _: Fate(life=1.0, end=S.FAILED))
        world.run(60)
        told = why_place(world)
        assert (told.failed.gives_up, told.failed.times, told.state) == (expected, times_failed, S.FAILED)
        assert told.failed.HasField("last_restart") is (times_failed > 1)


def test_done() -> None:
    """A task that ended well and need not run again is as wanted."""
    world = Whole(cluster(), *nodes(), service(policy=restart(ON_FAILURE)), fate=lambda _: Fate(life=1.0, end=S.COMPLETE))
    world.run(30)
    assert (why_place(world).WhichOneof("reason"), why_place(world).state) == ("as_wanted", S.COMPLETE)


def test_image() -> None:
    """An image that no node can have is named with what the engine said."""
    said = "Error response from daemon: No such image: nosuch:1 (pulling it failed: manifest unknown)"
    world = Whole(cluster(), *nodes(), service(image="nosuch:1", policy=restart(NONE)))
    until_state(world, _first(world), S.PREPARING)
    world.say(_first(world), S.PREPARING, said)
    trying = why_place(world).image_unavailable
    assert (trying.image, trying.error, trying.HasField("failed")) == ("nosuch:1", said, False)
    world.say(_first(world), S.REJECTED, said)
    world.run(5)
    told = why_place(world).image_unavailable
    assert (told.error, told.failed.gives_up) == (said, pb.Failed.CONDITION)


def _first(world: Whole) -> str:
    while not world.tasks():
        assert world.step()
    return world.tasks()[0].id


def test_starting() -> None:
    """On its way up: the state, since when, and what went wrong last."""
    world = Whole(cluster(), *nodes(), service(), fate=lambda _: Fate(start=60.0))
    world.run(10)
    told = why_place(world)
    assert (told.state, told.WhichOneof("reason")) == (S.STARTING, "starting")
    assert world.now - seconds(told.starting.since) == pytest.approx(10, abs=0.2)
    world.say(told.task_id, S.STARTING, "engine restarting")
    assert why_place(world).starting.error == "engine restarting"


def test_ready_and_let_go() -> None:
    """A first task waits for nothing: once it is ready it is starting, whatever the restart delay."""
    world = Whole(cluster(), *nodes(), service(policy=restart(delay=600.0)))
    until_state(world, _first(world), S.READY)
    assert why_place(world).WhichOneof("reason") == "starting"


def test_missing_dependency() -> None:
    """A secret or config that is not in the store, or that a driver has to give, is named."""
    asking = service()
    asking.spec.task.container.secrets.add(secret_id="s1", secret_name="pw")
    asking.spec.task.container.secrets.add(secret_id="s2", secret_name="driven")
    asking.spec.task.container.secrets.add(secret_id="s3", secret_name="there")
    asking.spec.task.container.configs.add(config_id="c1", config_name="conf")
    driven = api.Secret(id="s2", spec=api.SecretSpec(annotations=api.Annotations(name="driven"), driver=api.Driver(name="vault")))
    there = api.Secret(id="s3", spec=api.SecretSpec(annotations=api.Annotations(name="there")))
    world = Whole(cluster(), *nodes(), driven, there, asking)
    until_state(world, _first(world), S.PREPARING)
    told = why_place(world).dependency_missing
    assert (list(told.secrets), list(told.configs)) == (["s1", "s2"], ["c1"])


def test_stop_first() -> None:
    """In an update that stops first, the new task waits for the old one; the old one is stopping and knows who comes after it."""
    world = Whole(cluster(), *nodes(), service(update=config()), fate=lambda _: Fate(stop=20.0))
    world.run(5)
    old = world.live()[0].id
    world.set_image("v:2")
    world.run(5)
    new = world.live()[0].id
    waits = why_place(world).awaits_predecessor
    assert (waits.task_id, waits.state, waits.node_id) == (old, S.RUNNING, "n1")
    assert seconds(waits.until) == pytest.approx(times.seconds_of(world.task(new).meta.created_at) + 60, abs=0.1)
    told = why(world, old)
    assert (told.WhichOneof("reason"), told.stopping.replaced_by) == ("stopping", new)
    assert (seconds(told.stopping.grace), world.now - seconds(told.stopping.since)) == (10.0, pytest.approx(5, abs=0.1))
    world.run(20)
    assert why_place(world).task_id == new
    assert why(world, old).as_wanted.replaced_by == new


def test_start_first() -> None:
    """In an update that starts first, the old task runs until the new one does."""
    world = Whole(cluster(), *nodes(), service(update=config(start_first=True)), fate=lambda t: Fate(start=20.0))
    world.run(30)
    old = world.live()[0].id
    world.set_image("v:2")
    world.run(5)
    told = why(world, old)
    assert told.update_waits.replaced_by == why_place(world).task_id != old
    assert why_place(world).WhichOneof("reason") == "starting"


def test_turn_in_an_update() -> None:
    """A slot that the update has not begun is told how it goes on, and when."""
    world = Whole(cluster(), *nodes(), service(replicas=5, update=config(2, delay=60.0)))
    world.run(5)
    world.set_image("v:2")
    world.run(10)
    told = why_place(world, 5).update_waits
    assert (told.parallelism, told.pending, told.busy, told.rollback) == (2, 3, 2, False)
    settled = min(times.seconds_of(t.status.applied_at) for t in world.live() if t.spec.container.image == "v:2")
    assert seconds(told.delay_until) == pytest.approx(settled + 60, abs=0.1)


def test_paused_update() -> None:
    """An update that failed leaves the rest as it was, and names the task that stopped it."""
    world = Whole(
        cluster(),
        *nodes(),
        service(replicas=3, policy=restart(NONE), update=config()),
        fate=lambda t: Fate(rejected=t.spec.container.image == "v:2"),
    )
    world.run(5)
    world.set_image("v:2")
    world.run(30)
    bad = next(t for t in world.tasks() if t.spec.container.image == "v:2")
    told = why_place(world, 3).update_paused
    assert (told.failed_task, told.failures, told.rollback) == (bad.id, 1, False)
    assert told.message == f"update paused due to failure or early termination of task {bad.id}"
    assert why_place(world, 1).failed.gives_up == pb.Failed.CONDITION


def test_rollback() -> None:
    """While an update is rolled back, its tasks wait for their turn to be replaced."""
    world = Whole(
        cluster(),
        *nodes(),
        service(replicas=4, policy=restart(NONE), update=config(2, action=api.UpdateConfig.ROLLBACK), rollback=config(1, delay=60.0)),
        fate=lambda t: Fate(rejected=t.spec.container.image == "v:2" and t.slot == 4),
    )
    world.run(5)
    world.set_image("v:2")
    while world.update_state() != "ROLLBACK_STARTED":
        if not world.step():
            world.run(1)
    world.run(5)
    waiting = [why(world, t.id) for t in world.live() if t.spec.container.image == "v:2"]
    assert waiting
    assert {told.update_waits.rollback for told in waiting} == {True}


def test_node_down() -> None:
    """What may still run on a node that is down says since when, until when, and who has taken its place."""
    world = Whole(cluster(), *nodes(), service(policy=restart(delay=0.0)))
    world.run(5)
    old = world.live()[0]
    world.edit_node(old.node_id, state=DOWN)
    went = world.now
    world.run(100)
    told = why(world, old.id).node_away
    assert (told.node_id, told.state, told.replaced_by) == (old.node_id, DOWN, world.live()[0].id)
    assert seconds(told.since) == pytest.approx(went, abs=0.01)
    assert seconds(told.given_up_at) == pytest.approx(went + ORPHAN_AFTER, abs=0.01)
    assert why_place(world).WhichOneof("reason") == "as_wanted"


def test_node_not_heard_from() -> None:
    """What runs counts as running while a new leader waits to hear from its node; what was coming up there does not."""
    world = Whole(cluster(), node("n1"), service(replicas=2), fate=lambda t: Fate(start=1000.0 if t.slot == 2 else 0.0))
    world.run(5)
    world.edit_node("n1", state=UNKNOWN)
    assert [why_place(world, n).WhichOneof("reason") for n in (1, 2)] == ["as_wanted", "node_away"]
    away = why_place(world, 2).node_away
    assert (away.state, away.HasField("given_up_at")) == (UNKNOWN, False)


def test_node_removed() -> None:
    """A task whose node was removed was given up with it, and is replaced."""
    world = Whole(cluster(), *nodes(), service(policy=restart(delay=0.0)))
    world.run(5)
    old = world.live()[0]
    world.remove_node(old.node_id)
    world.run(5)
    told = why(world, old.id)
    assert (told.state, told.failed.replaced_by) == (S.ORPHANED, world.live()[0].id)
    lost = copy_of(old)
    lost.id, lost.slot = "lost", 9
    world.change(Create(lost))
    assert (why(world, "lost").WhichOneof("reason"), why(world, "lost").node_away.HasField("state")) == ("node_away", False)


def test_drained() -> None:
    """Until the orchestrator has decided, a task on a drained node has to leave."""
    world = Whole(cluster(), *nodes(), service())
    world.run(5)
    world.edit_node("n1", availability=DRAIN)
    assert why_place(world).node_drained.node_id == "n1"


def test_place_on_a_drained_node() -> None:
    """A global service's task that a drain stopped names the drain; with the node back in use its place is as wanted again."""
    world = Whole(cluster(), *nodes(), service(replicas=None))
    world.run(5)
    world.edit_node("n1", availability=DRAIN)
    world.run(5)
    assert (why_place(world, "n1").state, why_place(world, "n1").node_drained.node_id) == (S.SHUTDOWN, "n1")
    world.edit_node("n1", availability=api.NodeSpec.ACTIVE)
    world.run(5)
    assert why_place(world, "n1").WhichOneof("reason") == "as_wanted"


@pytest.mark.parametrize(
    "made",
    [service(policy=restart(NONE)), job(policy=restart(NONE)), job(completions=None, policy=restart(NONE))],
    ids=["replicated", "job", "global job"],
)
def test_stopped_by_a_drain_for_good(made: api.Service) -> None:
    """Where a policy forbids that a drained task is made anew, its place is not as wanted, and the policy is named."""
    world = Whole(cluster(), node("n1"), made)
    world.run(5)
    world.edit_node("n1", availability=DRAIN)
    world.run(5)
    world.edit_node("n1", availability=api.NodeSpec.ACTIVE)
    world.run(5)
    answer = why_service(world)
    assert (answer.service.wanted, answer.service.as_wanted, answer.service.missing) == (1, 0, 0)
    (told,) = answer.explanations
    assert (told.WhichOneof("reason"), told.state, told.failed.gives_up) == ("failed", S.SHUTDOWN, pb.Failed.CONDITION)


def test_paused_node() -> None:
    """A task of a global service that ended on a paused node gets no successor there, nor an update."""
    world = Whole(cluster(), *nodes(3), service(replicas=None, policy=restart(delay=0.0)))
    world.run(5)
    world.edit_node("n1", availability=PAUSE)
    world.edit_node("n2", availability=PAUSE)
    world.say(next(t.id for t in world.live() if t.node_id == "n1"), S.FAILED, "bang")
    world.run(5)
    world.set_image("v:2")
    world.run(60)
    assert [why_place(world, n).WhichOneof("reason") for n in ("n1", "n2", "n3")] == ["node_paused", "node_paused", "as_wanted"]


def test_service_gone() -> None:
    """A task outlives its service until it has stopped."""
    world = Whole(cluster(), *nodes(), service(policy=restart(NONE)), fate=lambda _: Fate(stop=30.0))
    world.run(5)
    task_id = world.live()[0].id
    world.remove_service()
    world.run(5)
    told = why(world, task_id)
    assert (told.WhichOneof("reason"), told.service_name) == ("service_gone", "svc")
    assert world.now - seconds(told.service_gone.since) == pytest.approx(5, abs=0.1)
    assert seconds(told.service_gone.grace) == 10
    world.say(task_id, S.FAILED, "bang")
    assert (why(world, task_id).failed.error, why(world, task_id).failed.gives_up) == ("bang", pb.Failed.NO)


def test_rejected_by_the_enforcer() -> None:
    """A node that no longer fits rejected it: its own words are passed on."""
    world = Whole(cluster(), node("n1", labels={"a": "b"}), service(constraints=("node.labels.a==b",), policy=restart(delay=30.0)))
    world.run(5)
    task_id = world.live()[0].id
    changed = copy_of(world.store.nodes.get("n1") or api.Node())
    del changed.spec.annotations.labels["a"]
    world.change(Update(changed))
    world.run(5)
    assert why(world, task_id).failed.error == "assigned node no longer meets constraints"
    assert why_place(world).no_suitable_node.refusals[0].lacking == "node.labels.a==b"


def test_task_without_service() -> None:
    """A network attachment belongs to no service."""
    world = Whole(cluster(), node("n1"))
    alone = api.Task(id="alone", node_id="n1", desired_state=S.RUNNING, status=api.TaskStatus(state=S.RUNNING))
    world.change(Create(alone))
    assert why(world, "alone").WhichOneof("reason") == "as_wanted"


def test_tasks_of_jobs() -> None:
    """A job's task that was completed is as wanted; one of an iteration before does not speak for its place."""
    job = service("job", replicas=0)
    job.spec.replicated_job.total_completions = 2
    job.spec.replicated_job.max_concurrent = 1
    job.job_status.job_iteration.index = 7
    world = Whole(cluster(), *nodes(), job)
    for task_id, iteration, state in (("old", 6, S.FAILED), ("new", 7, S.COMPLETE)):
        made = api.Task(id=task_id, service_id="job", slot=1, node_id="n1", spec=job.spec.task, desired_state=S.COMPLETE)
        made.job_iteration.index = iteration
        made.status.state = state
        world.change(Create(made))
    assert (why_place(world, 1, "job").task_id, why_place(world, 1, "job").WhichOneof("reason")) == ("new", "as_wanted")


def test_only_failures_in_a_row_count() -> None:
    """A task that was told to leave did not fail, and ends the row of those that did."""
    world = Whole(cluster(), *nodes(), service(policy=restart(ANY, delay=0.0)))
    world.run(5)
    world.say(world.live()[0].id, S.FAILED, "bang")
    world.run(5)
    world.edit_node(world.live()[0].node_id, availability=DRAIN)
    world.run(5)
    last = world.live()[0].id
    world.say(last, S.FAILED, "bang")
    assert (why(world, last).failed.times, len(world.tasks())) == (1, 3)


def test_ended_too_early() -> None:
    """A task that is always to run did not do so when it ended, however well it ended."""
    world = Whole(cluster(), *nodes(), service(policy=restart(ANY, delay=0.0)))
    world.run(5)
    old = world.live()[0].id
    world.say(old, S.COMPLETE)
    world.run(5)
    told = why(world, old)
    assert (told.state, told.failed.replaced_by) == (S.COMPLETE, world.live()[0].id)


def test_stopping_what_no_agent_has() -> None:
    """Nothing has to be stopped of a task that never got to a node."""
    world = Whole(cluster(), service())
    world.run(5)
    unwanted = copy_of(world.live()[0])
    unwanted.desired_state = S.SHUTDOWN
    world.change(Update(unwanted))
    told = why(world, unwanted.id)
    assert (told.WhichOneof("reason"), seconds(told.stopping.grace)) == ("stopping", 0.0)
