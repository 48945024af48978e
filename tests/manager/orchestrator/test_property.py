"""Random histories: what must hold always, and that a look at everything finds nothing that events did not bring."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Delete, Update
from pyswarm.manager.store import Kind, copy_of
from tests.support import invariants
from tests.support.swarm import ANY, NONE, ON_FAILURE, cluster, config, node, restart, service
from tests.support.world import Fate, World

S = api.TaskState
NODES = ("n1", "n2", "n3")
EXAMPLES = 1000 if settings.get_current_profile_name() == "deep" else 35
"""Random histories are long: few of them in `make test`."""
ENDS = (S.FAILED, S.COMPLETE, S.REJECTED)

POLICIES = st.builds(
    restart,
    st.sampled_from([ANY, NONE, ON_FAILURE]),
    delay=st.sampled_from([None, 0.05, 0.3, 2.0]),
    attempts=st.sampled_from([0, 0, 1, 2]),
    window=st.sampled_from([None, 1.0]),
)
CONFIGS = st.builds(
    config,
    st.integers(0, 3),
    delay=st.sampled_from([0.0, 0.5]),
    monitor=st.sampled_from([0.2, 2.0]),
    action=st.sampled_from([api.UpdateConfig.PAUSE, api.UpdateConfig.CONTINUE, api.UpdateConfig.ROLLBACK]),
    ratio=st.sampled_from([0.0, 0.4]),
    start_first=st.booleans(),
)
FATES = st.lists(
    st.builds(
        Fate,
        start=st.sampled_from([0.0, 0.5]),
        life=st.sampled_from([None, None, None, 0.5]),
        end=st.sampled_from([S.FAILED, S.COMPLETE]),
        stop=st.sampled_from([0.0, 1.0, None]),
        rejected=st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=5,
)
EVENTS = st.one_of(
    st.tuples(st.just("scale"), st.integers(0, 5)),
    st.tuples(st.just("image"), st.integers(1, 4)),
    st.tuples(st.just("config"), CONFIGS),
    st.tuples(st.just("back"), st.none()),
    st.tuples(st.just("availability"), st.tuples(st.sampled_from(NODES), st.sampled_from([0, 1, 2]))),
    st.tuples(st.just("state"), st.tuples(st.sampled_from(NODES), st.sampled_from([0, 1, 2, 3]))),
    st.tuples(st.just("end"), st.tuples(st.integers(0, 9), st.sampled_from(ENDS))),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("leader"), st.sampled_from([0.0, -20.0, 0.5, 3600.0])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 1.0, 7.0])),
)


def happen(world: World, what: str, value: Any) -> None:
    """One event of a history."""
    match what:
        case "scale" if world.service().spec.HasField("replicated"):
            world.scale(value)
        case "image":
            world.set_image(f"v:{value}")
        case "config":
            world.edit_service(lambda spec: spec.update.CopyFrom(value))
        case "back" if world.service().HasField("previous_spec"):
            world.manual_rollback()
        case "availability":
            world.edit_node(value[0], availability=value[1])
        case "state":
            world.edit_node(value[0], state=value[1])
        case "end":
            owned = [t for t in world.tasks() if S.ASSIGNED <= t.status.state <= S.RUNNING]
            if owned:
                chosen = owned[value[0] % len(owned)]
                early = chosen.status.state < S.STARTING
                world.report(chosen.id, S.REJECTED if early else min(value[1], S.FAILED))
        case "delete":
            if tasks := world.tasks():
                world.change(Delete(Kind.TASK, tasks[value % len(tasks)].id))
        case "leader":
            world.skew = value
            world.new_leader()
        case "wait":
            world.run(value)


def quiet(world: World) -> None:
    """Disturbances end: nodes return, containers behave, a paused update is resumed."""
    world.fate = lambda _: Fate()
    for node_id in NODES:
        world.edit_node(node_id, availability=api.NodeSpec.ACTIVE, state=api.NodeStatus.READY)
    world.run(80)
    resumed = copy_of(world.service())
    resumed.ClearField("update_status")
    world.change(Update(resumed))
    world.run(80)


@settings(max_examples=EXAMPLES)
@given(
    replicas=st.one_of(st.none(), st.integers(0, 4)),
    policy=POLICIES,
    update=CONFIGS,
    back=CONFIGS,
    fates=FATES,
    history=st.lists(EVENTS, max_size=12),
)
def test_random_histories(
    replicas: int | None,
    policy: api.RestartPolicy,
    update: api.UpdateConfig,
    back: api.UpdateConfig,
    fates: list[Fate],
    history: list[tuple[str, Any]],
) -> None:
    """Whatever happens, no state falls, no slot has two tasks meant to run but start-first, and in the end every service has its tasks,
    every slot its history, and a new leader finds nothing to do. [orchestration 13] [orchestration 180]"""
    world = World(cluster(3), *(node(n) for n in NODES), fate=lambda t: fates[int(t.id[3:]) % len(fates)])
    world.put(service(replicas=replicas, policy=policy, update=update, rollback=back))
    for what, value in history:
        happen(world, what, value)
        for _ in range(3):
            world.step()
    quiet(world)
    before = len(world.commits)
    world.new_leader()
    world.run(30)
    assert world.commits[before:] == []
    invariants.check_history(world.store)
    converged(world)


def converged(world: World) -> None:
    """Every place has one running, up-to-date task, or none where its last one ended for good."""
    svc = world.service()
    live = world.live()
    assert all(t.status.state == S.RUNNING and t.spec.container.image == svc.spec.task.container.image for t in live)
    wanted = svc.spec.replicated.replicas if svc.spec.HasField("replicated") else len(NODES)
    places = {t.slot or t.node_id for t in live}
    assert len(places) == len(live) <= wanted
    always = svc.spec.task.restart.condition == ANY and not svc.spec.task.restart.max_attempts
    if always:
        assert len(live) == wanted
