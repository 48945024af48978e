"""Random histories of jobs: what must hold always, what they come to, and that a look at everything finds nothing events did not bring."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from pyswarm.api import v1 as api
from pyswarm.manager.orchestrator.jobslots import Progress, present, progress_of
from pyswarm.manager.orchestrator.slots import group
from pyswarm.manager.store import by
from tests.manager.orchestrator.test_property import EXAMPLES, POLICIES
from tests.support import invariants
from tests.support.swarm import ANY, cluster, job, node
from tests.support.world import Fate, World

S = api.TaskState
NODES = ("n1", "n2", "n3")
ENDS = (S.FAILED, S.COMPLETE, S.REJECTED)
ENDS_WELL = Fate(life=0.5, end=S.COMPLETE)
FATES = st.lists(
    st.builds(
        Fate,
        start=st.sampled_from([0.0, 0.5]),
        life=st.sampled_from([0.5, 3.0, None]),
        end=st.sampled_from([S.FAILED, S.COMPLETE]),
        stop=st.sampled_from([0.0, 1.0, None]),
        rejected=st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=5,
)
EVENTS = st.one_of(
    st.tuples(st.just("image"), st.integers(1, 4)),
    st.tuples(st.just("counts"), st.tuples(st.integers(0, 3), st.integers(0, 6))),
    st.tuples(st.just("back"), st.none()),
    st.tuples(st.just("availability"), st.tuples(st.sampled_from(NODES), st.sampled_from([0, 1, 2]))),
    st.tuples(st.just("state"), st.tuples(st.sampled_from(NODES), st.sampled_from([0, 1, 2, 3]))),
    st.tuples(st.just("remove"), st.sampled_from(NODES)),
    st.tuples(st.just("end"), st.tuples(st.integers(0, 9), st.sampled_from(ENDS))),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("leader"), st.sampled_from([0.0, -20.0, 0.5, 3600.0])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 1.0, 7.0])),
)


def counts(spec: api.ServiceSpec, at_once: int, completions: int) -> None:
    """Set what a replicated job has to do; a global one has nothing to set."""
    if spec.HasField("replicated_job"):
        spec.replicated_job.CopyFrom(api.ReplicatedJob(max_concurrent=at_once, total_completions=completions))


def happen(world: World, what: str, value: Any) -> None:
    """One event of a history."""
    match what:
        case "image":
            world.set_image(f"v:{value}")
        case "counts":
            world.edit_service(lambda spec: counts(spec, *value))
        case "back" if world.service().HasField("previous_spec"):
            world.manual_rollback()
        case "availability" if value[0] in world.store.nodes:
            world.edit_node(value[0], availability=value[1])
        case "state" if value[0] in world.store.nodes:
            world.edit_node(value[0], state=value[1])
        case "remove" if value in world.store.nodes:
            world.remove_node(value)
        case "end":
            owned = [t for t in world.tasks() if S.ASSIGNED <= t.status.state <= S.RUNNING]
            if owned:
                chosen = owned[value[0] % len(owned)]
                early = chosen.status.state < S.STARTING
                world.report(chosen.id, S.REJECTED if early else min(value[1], S.FAILED))
        case "delete":
            if tasks := world.tasks():
                world.delete(tasks[value % len(tasks)].id)
        case "leader":
            world.skew = value
            world.new_leader()
        case "wait":
            world.run(value)


def quiet(world: World) -> None:
    """Disturbances end: nodes are there, containers end well, and nobody's clock is wrong."""
    world.fate = lambda _: ENDS_WELL
    world.skew = 0.0
    for node_id in NODES:
        world.put(node(node_id))
    world.run(200)


def came_to(world: World) -> dict[Any, Progress]:
    """How far each place of the present iteration has come."""
    service = world.service()
    by_node = service.spec.HasField("global_job")
    slots = group(world.store.tasks.find(by.service("svc")), by_node=by_node)
    places = NODES if by_node else range(service.spec.replicated_job.total_completions)
    return {p: progress_of(present(service, slots[p])) if p in slots else Progress.OPEN for p in places}


@settings(max_examples=EXAMPLES)
@given(
    shape=st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(0, 6))),
    policy=POLICIES,
    fates=FATES,
    history=st.lists(EVENTS, max_size=12),
)
def test_random_histories(
    shape: tuple[int, int] | None, policy: api.RestartPolicy, fates: list[Fate], history: list[tuple[str, Any]]
) -> None:
    """Whatever happens, no state falls, no slot has two tasks meant to run, a job has no more at once than it may; in the end every place
    is complete, or spent where the policy says so, and a new leader finds nothing to do."""
    world = World(cluster(3), *(node(n) for n in NODES), fate=lambda t: fates[int(t.id[3:]) % len(fates)])
    world.put(job(completions=None, policy=policy) if shape is None else job(completions=shape[1], at_once=shape[0], policy=policy))
    for what, value in history:
        happen(world, what, value)
        for _ in range(3):
            world.step()
    quiet(world)
    before = len(world.commits)
    world.new_leader()
    world.run(100)
    assert world.commits[before:] == []
    invariants.check_history(world.store)
    idle = world.service().spec.HasField("replicated_job") and not world.service().spec.replicated_job.max_concurrent
    places = came_to(world)
    event("idle" if idle else " ".join(sorted({p.name for p in places.values()})))
    assert world.live() == []
    if idle:
        return
    assert set(places.values()) <= {Progress.COMPLETE, Progress.SPENT}
    if policy.condition == ANY and not policy.max_attempts:
        assert set(places.values()) <= {Progress.COMPLETE}
