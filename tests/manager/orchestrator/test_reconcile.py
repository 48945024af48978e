"""Random histories: following events and looking at everything anew come to the same store, at every moment, for each loop alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_job
from pyswarm.manager.changes import Delete, Update
from pyswarm.manager.dispatcher import statuses
from pyswarm.manager.orchestrator import tasklife
from pyswarm.manager.orchestrator.constraintenforcer import ConstraintEnforcer
from pyswarm.manager.orchestrator.tasklife import Owner
from pyswarm.manager.store import Kind, copy_of
from tests.manager.orchestrator.test_property import CONFIGS, EXAMPLES, FATES, NODES, POLICIES
from tests.support import invariants
from tests.support.swarm import cluster, job, node, service
from tests.support.twins import Compared
from tests.support.world import Fate, World

S = api.TaskState
SERVICES = ("svc", "two")
ZONE = "node.labels.zone == a"
REPORTED = tuple(sorted({after for _, after in tasklife.TRANSITIONS[Owner.AGENT]}))
"""States that agents report."""

# --- what happens

Happening = tuple[str, Any]
SCALE = st.tuples(st.just("scale"), st.tuples(st.sampled_from(SERVICES), st.integers(0, 5)))
IMAGE = st.tuples(st.just("image"), st.tuples(st.sampled_from(SERVICES), st.integers(1, 3)))
CONFIG = st.tuples(st.just("config"), st.tuples(st.sampled_from(SERVICES), CONFIGS))
BACK = st.tuples(st.just("back"), st.sampled_from(SERVICES))
SERVICE = st.tuples(st.sampled_from(["remove service", "create service"]), st.sampled_from(SERVICES))
PLACEMENT = st.tuples(st.just("constrain"), st.tuples(st.sampled_from(SERVICES), st.booleans()))
AVAILABILITY = st.tuples(st.just("availability"), st.tuples(st.sampled_from(NODES), st.sampled_from([0, 1, 2])))
STATE = st.tuples(st.just("state"), st.tuples(st.sampled_from(NODES), st.sampled_from([0, 1, 2, 3])))
LABEL = st.tuples(st.just("zone"), st.tuples(st.sampled_from(NODES), st.sampled_from(["a", "b"])))
MEMORY = st.tuples(st.just("memory"), st.tuples(st.sampled_from(NODES), st.sampled_from([100, 250, 1000])))
PRESENCE = st.tuples(st.sampled_from(["remove node", "add node"]), st.sampled_from(NODES))
REPORT = st.tuples(st.just("report"), st.tuples(st.integers(0, 20), st.sampled_from(REPORTED)))
DELETE = st.tuples(st.just("delete task"), st.integers(0, 20))
LIMIT = st.tuples(st.just("limit"), st.sampled_from([-1, 0, 1, 3]))
AGENTS = st.tuples(st.just("agents"), st.integers(1, 6))
WAIT = st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 6.0]))
COMMON = [IMAGE, CONFIG, BACK, SERVICE, AVAILABILITY, STATE, PRESENCE, REPORT, REPORT, DELETE, AGENTS, AGENTS, WAIT]


@dataclass(frozen=True)
class Case:
    """What kind of services there are, and what a history is made of besides the usual."""

    services: st.SearchStrategy[api.Service]
    more: tuple[st.SearchStrategy[Happening], ...]


def services(replicas: st.SearchStrategy[int | None]) -> st.SearchStrategy[api.Service]:
    """Services of so many replicas; global ones for None."""
    return st.builds(
        lambda replicas, policy, update, back: service(replicas=replicas, policy=policy, update=update, rollback=back),
        replicas,
        POLICIES,
        CONFIGS,
        CONFIGS,
    )


JOBS = st.builds(
    lambda completions, at_once, policy: job(completions=completions, at_once=at_once, policy=policy),
    st.one_of(st.none(), st.integers(0, 5)),
    st.integers(0, 3),
    POLICIES,
)
CASES = {
    "replicated": Case(services(st.integers(0, 4)), (SCALE, SCALE, PLACEMENT, LABEL)),
    "global": Case(services(st.none()), (PLACEMENT, LABEL, LABEL)),
    "constraint enforcer": Case(services(st.one_of(st.none(), st.integers(1, 4))), (PLACEMENT, LABEL, LABEL, MEMORY)),
    "reaper": Case(st.one_of(services(st.one_of(st.none(), st.integers(0, 3))), JOBS), (SCALE, LIMIT, REPORT, DELETE)),
    "jobs": Case(JOBS, (PLACEMENT, LABEL)),
}


def happen(world: World, what: str, value: Any) -> None:
    """One event of a history, if it is possible now."""
    match what:
        case "scale" | "image" | "config" | "constrain" if value[0] in world.store.services:
            _edit(world, what, *value)
        case "back" if value in world.store.services and world.service(value).HasField("previous_spec"):
            world.manual_rollback(value)
        case "remove service" if value in world.store.services:
            world.remove_service(value)
        case "create service" if value not in world.store.services:
            world.put(service(value, replicas=2))
        case "availability" | "state" | "zone" | "memory" if value[0] in world.store.nodes:
            _edit_node(world, what, *value)
        case "remove node" if value in world.store.nodes:
            world.remove_node(value)
        case "add node" if value not in world.store.nodes:
            world.put(made_node(value))
        case "report":
            _report(world, *value)
        case "delete task":
            if tasks := sorted(world.store.tasks, key=lambda t: t.id):
                world.change(Delete(Kind.TASK, tasks[value % len(tasks)].id))
        case "limit":
            limited = copy_of(world.store.clusters.get("cluster") or cluster())
            limited.spec.orchestration.task_history_retention_limit = value
            world.change(Update(limited))
            world.new_leader()  # a limit takes effect where something happens, and everywhere with the next leader


def made_node(node_id: str) -> api.Node:
    """A node of some size in zone a."""
    made = node(node_id, labels={"zone": "a"})
    made.description.resources.memory_bytes = 1000
    return made


def _edit(world: World, what: str, service_id: str, value: Any) -> None:
    def edit(spec: api.ServiceSpec) -> None:
        match what:
            case "scale" if spec.HasField("replicated"):
                spec.replicated.replicas = value
            case "image":
                spec.task.container.image = f"v:{value}"
            case "config" if not is_job(spec):
                spec.update.CopyFrom(value)
            case "constrain":
                spec.task.placement.constraints[:] = [ZONE] if value else []

    world.edit_service(edit, service_id)


def _edit_node(world: World, what: str, node_id: str, value: Any) -> None:
    if what in ("availability", "state"):
        world.edit_node(node_id, **{what: value})
        return
    changed = copy_of(world.store.nodes.get(node_id) or made_node(node_id))
    if changed.spec.availability != api.NodeSpec.ACTIVE:
        return  # nobody enforces anything there, until an update comes or the node is used again
    if what == "zone":
        changed.spec.annotations.labels["zone"] = value
    else:
        changed.description.resources.memory_bytes = value
    world.change(Update(changed))


def _report(world: World, number: int, state: api.TaskState.ValueType) -> None:
    """A node reports a state that it may come to, has reported before, or is past; the dispatcher's rule says what is stored."""
    tasks = sorted((t for t in world.store.tasks if t.node_id), key=lambda t: t.id)
    if not tasks:
        return
    task = tasks[number % len(tasks)]
    if state > task.status.state and Owner.AGENT not in tasklife.owners(task.status.state, state):
        return
    stored = statuses.merged(task, world.stamped(state), "m1", world.now)
    if stored is not None:
        world.change(Update(stored))


@dataclass(frozen=True)
class Life:
    """A service and what happens to it."""

    service: api.Service
    fates: list[Fate]
    history: list[Happening]


def lives(case: Case) -> st.SearchStrategy[Life]:
    """Lives of a case."""
    return st.builds(Life, case.services, FATES, st.lists(st.one_of(*COMMON, *case.more), max_size=20))


def live(life: Life) -> Compared:
    """The world after a life; at each of its moments every loop was compared with a new one."""
    world = Compared(cluster(2), *map(made_node, NODES), fate=lambda t: life.fates[int(t.id[3:]) % len(life.fates)])
    life.service.spec.task.resources.reservations.memory_bytes = 100
    world.put(life.service)
    for what, value in life.history:
        if what == "wait":
            world.pass_time(value)
        elif what == "agents":
            for _ in range(value):
                world.agents_step()
                world.follow()
        else:
            happen(world, what, value)
            world.follow(first=ConstraintEnforcer if what in ("zone", "memory") else None)
    return world


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_events_and_reconcile_agree(name: str, data: st.DataObject) -> None:
    """A loop that followed events all along and a new one that looks at everything decide the same, at every moment; no state falls, no
    slot has two tasks meant to run but start-first, and in the end no drained node has tasks, and no slot too much history.

    [orchestration 180]
    """
    world = live(data.draw(lives(CASES[name])))
    world.fate = lambda _: Fate()
    if NODES[0] in world.store.nodes:
        world.edit_node(NODES[0], availability=api.NodeSpec.DRAIN, state=api.NodeStatus.READY)
    world.pass_time(160)
    invariants.check_history(world.store)
    assert not [t.id for t in world.store.tasks if t.node_id == NODES[0] and S.ASSIGNED <= t.status.state <= S.RUNNING]
