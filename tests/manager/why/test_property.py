"""Random lives: every task always has exactly one reason, and it fits the task."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2 as pb
from pyswarm.api.tasks import is_runnable
from pyswarm.manager.scheduler.filters import FILTERS
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


def check_against_decisions(world: Whole) -> None:
    """At rest, what the loops wrote down and when they want to look again is what the explanations say."""
    for one in world.tasks():
        told = why(world, one.id)
        reason = told.WhichOneof("reason")
        assert reason not in {"awaits_allocation", "awaits_scheduler"}, told
        assert reason != "node_drained" or one.status.state > S.RUNNING, told
        if reason == "no_suitable_node" and one.spec_version.index >= world.service().spec_version.index:
            assert told.status_err == sentence_of(told), told
        if reason in {"awaits_delay", "awaits_predecessor"}:
            until = times.seconds_of(getattr(told, reason).until) - world.skew
            assert any(abs(until - at) < 0.001 for runner in world.runners for at in runner.wakes.values()), told


def sentence_of(told: pb.Explanation) -> str:
    """The scheduler's text, put together from the refusals."""
    refused: dict[str, int] = {}
    for refusal in told.no_suitable_node.refusals:
        refused[refusal.filter] = refused.get(refusal.filter, 0) + refusal.nodes
    used = [(f, refused[f.name]) for f in FILTERS if f.name in refused]
    text = "; ".join(f.explain(n) for f, n in sorted(used, key=lambda pair: -pair[1]))
    return text if told.node_id else f"no suitable node ({text})"


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
    """Whatever happens to a service, each of its tasks has one reason that fits; at rest the reasons are those of the loops."""
    world = Whole(cluster(3), *(node(n) for n in NODES), fate=lambda t: fates[int(t.id[3:]) % len(fates)])
    world.put(service(replicas=replicas, policy=policy, update=update, rollback=back))
    for what, value in history:
        # Never back: behind the clock of a leader before it, restarts are not delayed, and what always fails never comes to rest.
        happen(world, what, max(value, world.skew) if what == "leader" else value)
        for _ in range(3):
            world.step()
            for one in world.tasks():
                check(why(world, one.id), one)
        told = why_service(world).service
        assert 0 <= told.missing <= told.wanted
    world.run(3)
    check_against_decisions(world)
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
