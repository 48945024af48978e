"""A whole service: which places are told about, and what is said of all of them."""

from __future__ import annotations

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.errors import NotFound
from pyswarm.manager.changes import Create
from pyswarm.manager.why import walk
from tests.manager.why.support import Whole, finish, gathered, reasons, why, why_place, why_service
from tests.support.loops import write
from tests.support.swarm import NONE, cluster, config, node, restart, service, task
from tests.support.world import Fate

S = api.TaskState
DOWN, DRAIN, PAUSE, ACTIVE = api.NodeStatus.DOWN, api.NodeSpec.DRAIN, api.NodeSpec.PAUSE, api.NodeSpec.ACTIVE
EAST = {"zone": "east"}


def counts(world: Whole, service_id: str = "svc") -> tuple[int, int, int]:
    """Places wanted, as wanted, missing."""
    told = why_service(world, service_id).service
    return told.wanted, told.as_wanted, told.missing


def test_all_is_well() -> None:
    """Where everything is as wanted no task is mentioned."""
    world = Whole(cluster(), node("n1"), service(replicas=3))
    world.run(5)
    answer = why_service(world)
    assert (list(answer.explanations), counts(world)) == ([], (3, 3, 0))
    assert (answer.service.service_id, answer.service.HasField("update")) == ("svc", False)


def test_places_in_order() -> None:
    """Each place that is not as wanted has one explanation, of the task that it has come to."""
    world = Whole(
        cluster(), node("n1"), service(replicas=4, policy=restart(delay=60.0)), fate=lambda t: Fate(start=99.0 if t.slot == 4 else 0)
    )
    world.run(5)
    for slot in (2, 3):
        world.say(next(t.id for t in world.live() if t.slot == slot), S.FAILED, "bang")
        world.run(1)
    answer = why_service(world)
    assert [(told.slot, told.WhichOneof("reason")) for told in answer.explanations] == [
        (2, "awaits_delay"),
        (3, "awaits_delay"),
        (4, "starting"),
    ]
    assert counts(world) == (4, 1, 0)


def test_places_without_task() -> None:
    """Places for which nothing was made yet are counted."""
    world = Whole(cluster(), node("n1"), service(replicas=3))
    assert counts(world) == (3, 0, 3)


def test_what_is_left_of_a_place() -> None:
    """A place that was given up has no place any more, but what still stops there is told; so is the old task where a new one runs."""
    world = Whole(cluster(), node("n1"), service(replicas=2, policy=restart(delay=0.0)), fate=lambda _: Fate(stop=100.0))
    world.run(5)
    world.scale(1)
    world.run(5)
    assert (reasons(why_service(world)), counts(world)) == (["stopping"], (1, 1, 0))
    assert why_service(world).explanations[0].slot == 2
    world.run(200)
    assert reasons(why_service(world)) == []
    world.set_image("v:2")
    world.run(70)  # nobody waits longer than a minute
    answer = why_service(world)
    assert (reasons(answer), answer.service.as_wanted) == (["stopping"], 1)


def test_places_of_a_global_service() -> None:
    """It has a place on every node that is up, wanted and fits; the others are counted by what is in the way."""
    world = Whole(
        cluster(),
        *(node(f"e{n}", labels=EAST) for n in range(3)),
        *(node(f"w{n}") for n in range(2)),
        node("drained", labels=EAST, availability=DRAIN),
        node("down", labels=EAST, state=DOWN),
        node("paused", labels=EAST, availability=PAUSE),
        service(replicas=None, constraints=("node.labels.zone == east",)),
    )
    world.run(5)
    assert counts(world) == (3, 3, 0)
    left_out = why_service(world).service.left_out
    assert {(r.filter, r.lacking, r.nodes) for r in left_out} == {
        ("constraints", "node.labels.zone==east", 2),
        ("ready", "DRAIN", 1),
        ("ready", "DOWN", 1),
        ("ready", "PAUSE", 1),
    }
    assert (left_out[0].nodes, left_out[0].sentence) == (2, "scheduling constraints not satisfied on 2 nodes")
    world.edit_node("e0", availability=PAUSE)
    world.run(5)
    assert counts(world) == (3, 3, 0)  # what is on a paused node stays
    world.edit_node("e1", availability=DRAIN)
    world.run(5)
    assert counts(world) == (2, 2, 0)


def test_update_under_way() -> None:
    """The service says how far its update is."""
    world = Whole(cluster(), node("n1"), service(replicas=5, update=config(2, delay=60.0, monitor=70.0)))
    world.run(5)
    world.set_image("v:2")
    world.run(10)
    update = why_service(world).service.update
    assert (update.state, update.message) == (api.UpdateStatus.UPDATING, "update in progress")
    assert (update.parallelism, update.pending, update.busy, update.failures) == (2, 3, 2, 0)
    assert times.seconds_of(update.delay_until) > world.now
    assert reasons(why_service(world)) == ["update_waits"] * 3
    world.run(400)
    update = why_service(world).service.update
    assert (update.state, update.pending, update.HasField("completed_at")) == (api.UpdateStatus.COMPLETED, 0, True)
    assert update.parallelism == 0  # no numbers are gathered for what is over
    assert counts(world) == (5, 5, 0)


def test_rolled_back() -> None:
    """An update that was turned back says because of which task, also when all is well again."""
    world = Whole(
        cluster(),
        node("n1"),
        service(replicas=2, policy=restart(NONE), update=config(1, action=api.UpdateConfig.ROLLBACK)),
        fate=lambda t: Fate(rejected=t.spec.container.image == "v:2"),
    )
    world.run(5)
    world.set_image("v:2")
    world.run(3)
    bad = next(t.id for t in world.tasks() if t.spec.container.image == "v:2")
    assert why_service(world).service.update.failed_task == bad
    world.run(60)
    update = why_service(world).service.update
    assert update.state == api.UpdateStatus.ROLLBACK_COMPLETED
    assert counts(world) == (2, 2, 0)
    assert why(world, bad).failed.replaced_by == world.live()[0].id


def test_jobs() -> None:
    """What a job has not begun is missing, and how many tasks may run at once is told."""
    job = service("job", replicas=0)
    job.spec.replicated_job.total_completions = 5
    job.spec.replicated_job.max_concurrent = 2
    world = Whole(cluster(), node("n1"), job)
    for slot, state in ((0, S.COMPLETE), (1, S.COMPLETE)):
        made = task(f"t{slot}", slot, state, S.COMPLETE, of=job, on="n1")
        made.job_iteration.index = 0
        world.change(Create(made))
    told = why_service(world, "job").service
    assert (told.wanted, told.as_wanted, told.missing, told.max_concurrent) == (5, 2, 3, 2)


def test_what_speaks_for_a_place_of_a_job() -> None:
    """A completed task, though a later one was begun; of an earlier iteration none; one that is to be removed neither."""
    job = service("job", replicas=0)
    job.spec.replicated_job.total_completions = 3
    job.job_status.job_iteration.index = 4
    world = Whole(cluster(), node("n1"), job)
    for task_id, slot, state, desired, iteration in (
        ("done", 0, S.COMPLETE, S.COMPLETE, 4),
        ("late", 0, S.SHUTDOWN, S.SHUTDOWN, 4),
        ("before", 1, S.FAILED, S.SHUTDOWN, 3),
        ("given-up", 2, S.FAILED, S.REMOVE, 4),
    ):
        made = task(task_id, slot, state, desired, of=job, on="n1")
        made.job_iteration.index = iteration
        world.change(Create(made))
    assert why_place(world, 0, "job").task_id == "done"
    assert (reasons(why_service(world, "job")), counts(world, "job")) == ([], (3, 1, 2))


def test_what_speaks_for_a_place_of_a_service() -> None:
    """What is meant to run, though a later one has ended."""
    web = service("web", 1)
    world = Whole(cluster(), node("n1"))
    write(world.store, web, task("runs", 1, of=web, on="n1", made=1.0), task("ended", 1, S.FAILED, S.SHUTDOWN, of=web, on="n1", made=2.0))
    assert (why_place(world, 1, "web").task_id, counts(world, "web")) == ("runs", (1, 1, 0))
    assert why_service(world, "web").service.as_wanted == 1


def test_paused_node_of_others() -> None:
    """A paused node is no place of a global service because of what others have there."""
    world = Whole(cluster(), node("n1", availability=PAUSE), node("n2"), service(replicas=None))
    write(world.store, task("other", 1, of=service("web"), on="n1"))
    world.run(5)
    assert counts(world) == (1, 1, 0)


def test_update_of_nodes_in_reach() -> None:
    """An update does not wait for nodes on which the service has no place."""
    world = Whole(cluster(), node("n1"), node("n2"), service(replicas=None, update=config(1, delay=60.0, monitor=70.0)))
    world.run(5)
    world.edit_node("n1", availability=PAUSE)
    world.set_image("v:2")
    world.run(5)
    update = why_service(world).service.update
    assert (update.state, update.pending, update.busy) == (api.UpdateStatus.UPDATING, 0, 1)


def test_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer has its limit; the rest is counted."""
    monkeypatch.setattr(walk, "MOST_EXPLAINED", 3)
    world = Whole(cluster(), service(replicas=5))
    world.run(5)
    answer = why_service(world)
    assert (reasons(answer), answer.service.more) == (["no_suitable_node"] * 3, 2)


def test_equal_tasks_ask_once() -> None:
    """Tasks that every filter treats alike are refused by the same nodes: these are asked once."""
    world = Whole(cluster(), *(node(f"n{n}", availability=DRAIN) for n in range(10)), service(replicas=8))
    world.run(5)
    found = gathered(world)
    answer = finish(walk.explain_service(found, "svc"))
    assert [told.no_suitable_node.nodes for told in answer.explanations] == [10] * 8
    assert len(found.surveys) == 1


def test_unknown() -> None:
    """What is not there is NOT_FOUND, under the name that was asked for."""
    world = Whole(cluster(), service(replicas=1))
    world.run(5)
    with pytest.raises(NotFound, match="task nosuch not found"):
        why(world, "nosuch")
    with pytest.raises(NotFound, match="service nosuch not found"):
        why_service(world, "nosuch")
    with pytest.raises(NotFound, match="service nosuch not found"):
        why_place(world, 1, "nosuch")
    with pytest.raises(NotFound, match=r"task svc\.7 not found"):
        why_place(world, 7)


def test_a_task_that_gets_a_node_meanwhile() -> None:
    """While the nodes are asked the cluster lives on: the answer is about the task as it is in the end."""
    world = Whole(cluster(), *(node(f"n{n}", availability=DRAIN) for n in range(5)), service())
    world.run(5)
    work = walk.explain_service(gathered(world), "svc")
    for _ in range(4):
        next(work)
    world.edit_node("n0", availability=ACTIVE)
    world.run(5)
    assert reasons(finish(work)) == []
    work = walk.explain_task(gathered(world), world.live()[0].id)
    world.remove_service()
    world.run(20)
    with pytest.raises(NotFound):
        finish(work)


def test_pieces_are_small() -> None:
    """No piece of a walk looks at more than one node or place, or a few hundred tasks."""
    world = Whole(cluster(), *(node(f"n{n}", availability=DRAIN) for n in range(7)), service(replicas=3))
    write(world.store, *(task(f"t{n}", n, S.RUNNING, of=service("large"), on="n1") for n in range(1, 401)), service("large", 400))
    world.run(5)
    found = gathered(world)
    assert sum(1 for _ in walk.explain_task(found, world.live()[0].id)) == 7
    assert sum(1 for _ in walk.explain_service(found, "large")) >= 400 + 400 // walk.PIECE
