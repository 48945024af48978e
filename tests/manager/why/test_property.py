"""Random lives: every task always has exactly one reason, and it fits the task."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2 as pb
from pyswarm.api.tasks import is_runnable
from pyswarm.manager.why import walk
from tests.manager.orchestrator.test_property import CONFIGS, EVENTS, EXAMPLES, FATES, NODES, POLICIES, happen
from tests.manager.why.support import Whole, finish, why, why_service
from tests.support.loops import new_store, write
from tests.support.swarm import cluster, node, service, task
from tests.support.world import Fate

S = api.TaskState
GOES_UP = {"awaits_allocation", "no_suitable_node", "awaits_scheduler", "awaits_delay", "awaits_predecessor", "starting"}
RUNS = {"update_waits", "update_paused"}


def check(told: pb.Explanation, of: api.Task) -> None:
    """The reason does not contradict the task."""
    reason = told.WhichOneof("reason")
    assert reason, of
    assert (told.task_id, told.state, told.desired_state) == (of.id, of.status.state, of.desired_state)
    if reason in GOES_UP | RUNS | {"stopping"}:
        assert is_runnable(of) is (reason != "stopping"), (reason, of)
        assert of.status.state <= S.RUNNING, (reason, of)
        assert (of.status.state == S.RUNNING) is (reason in RUNS) or reason == "stopping", (reason, of)
    if reason == "failed":
        assert of.status.state > S.RUNNING, of
    if reason == "as_wanted":
        assert (of.status.state == S.RUNNING) == is_runnable(of), of


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    replicas=st.one_of(st.none(), st.integers(0, 4)),
    policy=POLICIES,
    update=CONFIGS,
    back=CONFIGS,
    fates=FATES,
    history=st.lists(EVENTS, max_size=10),
)
def test_lives(
    replicas: int | None,
    policy: api.RestartPolicy,
    update: api.UpdateConfig,
    back: api.UpdateConfig,
    fates: list[Fate],
    history: list[tuple[str, Any]],
) -> None:
    """Whatever happens to a service, each of its tasks has one reason that fits; in rest, wanted places are told or as wanted."""
    world = Whole(cluster(3), *(node(n) for n in NODES), fate=lambda t: fates[int(t.id[3:]) % len(fates)])
    world.put(service(replicas=replicas, policy=policy, update=update, rollback=back))
    for what, value in history:
        happen(world, what, value)
        for _ in range(3):
            world.step()
            for one in world.tasks():
                check(why(world, one.id), one)
        told = why_service(world).service
        assert 0 <= told.missing <= told.wanted
    world.run(3)
    answer = why_service(world)
    places = {(told.slot, told.node_id if told.place_is_node else "") for told in answer.explanations}
    assert len(places) == len(answer.explanations)


STATES = st.sampled_from(
    [S.NEW, S.PENDING, S.ASSIGNED, S.PREPARING, S.READY, S.RUNNING, S.COMPLETE, S.SHUTDOWN, S.FAILED, S.REJECTED, S.ORPHANED]
)
DESIRED = st.sampled_from([S.READY, S.RUNNING, S.COMPLETE, S.SHUTDOWN, S.REMOVE])


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    mode=st.sampled_from(["replicated", "global", "replicated_job", "global_job"]),
    records=st.lists(
        st.tuples(
            STATES,
            DESIRED,
            st.integers(0, 2),
            st.sampled_from(["", "n1", "n2", "gone"]),
            st.integers(0, 2),
            st.sampled_from(["svc", "no", ""]),
        ),
        max_size=8,
    ),
    status=st.sampled_from(list(api.UpdateStatus.UpdateState.values())),
    policy=POLICIES,
    state=st.integers(0, 4),
    availability=st.integers(0, 3),
)
def test_any_store(
    mode: str,
    records: list[tuple[Any, Any, int, str, int, str]],
    status: api.UpdateStatus.UpdateState.ValueType,
    policy: api.RestartPolicy,
    state: int,
    availability: int,
) -> None:
    """Also records that no orchestrator of ours would make, as another program may have left them, are explained."""
    made = service(replicas=1, version=1, policy=policy)
    getattr(made.spec, mode).SetInParent()
    if status:
        made.update_status.state = status
    store = new_store(cluster(), node("n1"), node("n2", state=state, availability=availability), made)  # type: ignore[arg-type]
    for number, (observed, desired, slot, on, version, owner) in enumerate(records):
        one = task(f"t{number}", slot, observed, desired, of=made, on=on, at=1000.0 + number, made=number, version=version)
        one.service_id = owner
        if mode.endswith("job"):
            one.job_iteration.index = version
        write(store, one)
    found = walk.Gathered(store, 2000.0, 60.0)
    for one in store.tasks:
        (told,) = finish(walk.explain_task(found, one.id)).explanations
        assert told.WhichOneof("reason")
    answer = finish(walk.explain_service(found, "svc"))
    assert all(told.WhichOneof("reason") not in {None, "as_wanted"} for told in answer.explanations)
