"""Placing tasks: who goes where, and what the others are told."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.api import v1 as api
from pyswarm.manager.scheduler.scheduler import ASSIGNED, CONFIRMED, Pass, Scheduler
from pyswarm.manager.store import Action, Event, Kind, Store
from tests.support.loops import commit, new_store, settle, write

S = api.TaskState
NOW = 1_700_000_000.0


def node(number: int, *, cpus: int = 4, memory: int = 1 << 30, labels: dict[str, str] | None = None, state: str = "READY") -> api.Node:
    """A node that can take tasks."""
    n = api.Node(id=f"node{number:03}", status=api.NodeStatus(state=api.NodeStatus.State.Value(state)))
    n.description.resources.nano_cpus = cpus * 10**9
    n.description.resources.memory_bytes = memory
    for key, value in (labels or {}).items():
        n.spec.annotations.labels[key] = value
    return n


def task(number: int, service: str = "svc", *, state: int = S.PENDING, on: str = "", desired: int = S.RUNNING) -> api.Task:
    """A task of a service, waiting unless said otherwise."""
    t = api.Task(id=f"{service}-{number:05}", service_id=service, slot=number, node_id=on, desired_state=desired)
    t.status.state = state
    t.spec_version.index = 1
    t.spec.container.image = "x"
    return t


def service(name: str = "svc") -> api.Service:
    """The service of the tasks."""
    s = api.Service(id=name)
    s.spec_version.index = 1
    return s


def spread_of(store: Store) -> dict[str, int]:
    """How many tasks each node got."""
    return dict(collections.Counter(t.node_id for t in store.tasks if t.node_id))


def run(objects: Iterable[object]) -> Store:
    """A store in which the scheduler has done all it can."""
    store = new_store(*objects)
    settle(Scheduler(), store, NOW)
    return store


def test_tasks_spread_evenly() -> None:
    """18 tasks on 5 empty nodes become 4, 4, 4, 3, 3. [scheduling 6.1]"""
    store = run([service(), *(node(i) for i in range(5)), *(task(i) for i in range(18))])
    assert sorted(spread_of(store).values()) == [3, 3, 4, 4, 4]
    assert {(t.status.state, t.status.message) for t in store.tasks} == {(S.ASSIGNED, ASSIGNED)}


def test_fewest_of_the_service_come_before_fewest_of_all() -> None:
    """A node without the service's tasks is better than an emptier one that has one. [scheduling 5.1]"""
    store = run(
        [
            service(),
            service("other"),
            node(1),
            node(2),
            task(1, state=S.RUNNING, on="node001"),
            *(task(i, "other", state=S.RUNNING, on="node002") for i in range(5)),
            task(2),
        ]
    )
    assert store.tasks.get("svc-00002").node_id == "node002"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n: n.spec.__setattr__("availability", api.NodeSpec.Availability.DRAIN), "1 node not available for new tasks"),
        (lambda n: n.spec.__setattr__("availability", api.NodeSpec.Availability.PAUSE), "1 node not available for new tasks"),
        (lambda n: n.status.__setattr__("state", api.NodeStatus.State.DOWN), "1 node not available for new tasks"),
        (lambda n: n.description.resources.__setattr__("memory_bytes", 10), "insufficient resources on 1 node"),
        (lambda n: n.spec.annotations.labels.__setitem__("zone", "west"), "scheduling constraints not satisfied on 1 node"),
    ],
)
def test_a_refused_task_says_why(change: object, reason: str) -> None:
    """A task that fits nowhere stays PENDING, keeps its message and carries the filter's sentence in `err`. [scheduling 4.4]"""
    n = node(1, labels={"zone": "east"})
    change(n)  # type: ignore[operator]
    t = task(1)
    t.status.message = "pending task scheduling"
    t.spec.resources.reservations.memory_bytes = 100 << 20
    t.spec.placement.constraints.append("node.labels.zone==east")
    store = run([service(), n, t])
    waiting = store.tasks.get(t.id)
    assert (waiting.status.state, waiting.status.err) == (S.PENDING, f"no suitable node ({reason})")
    assert waiting.status.message == "pending task scheduling"


def test_no_nodes_at_all() -> None:
    """Without any node the reason has no details. [scheduling 4.4]"""
    store = run([service(), task(1)])
    assert store.tasks.get("svc-00001").status.err == "no suitable node"


def test_reasons_are_ordered_by_count() -> None:
    """The most frequent refusal comes first. [scheduling 4.4]"""
    t = task(1)
    t.spec.resources.reservations.nano_cpus = 2 * 10**9
    store = run([service(), node(1, state="DOWN"), node(2, cpus=1), node(3, cpus=1), t])
    assert store.tasks.get(t.id).status.err == "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)"


def test_reservations_are_never_exceeded() -> None:
    """Two tasks that do not fit one node together go to two; the third waits. [scheduling 8]"""
    tasks = [task(i) for i in range(3)]
    for t in tasks:
        t.spec.resources.reservations.nano_cpus = 3 * 10**9
    store = run([service(), node(1), node(2), *tasks])
    assert spread_of(store) == {"node001": 1, "node002": 1}
    assert [t.status.err for t in store.tasks if not t.node_id] == ["no suitable node (insufficient resources on 2 nodes)"]


def test_room_made_later_is_used() -> None:
    """A waiting task is placed as soon as the task that took the room has ended. [scheduling 3.3]"""
    big, waiting = task(1, state=S.RUNNING, on="node001"), task(2)
    for t in (big, waiting):
        t.spec.resources.reservations.nano_cpus = 3 * 10**9
    store = new_store(service(), node(1), big, waiting)
    loop = Scheduler()
    settle(loop, store, NOW)
    ended = api.Task()
    ended.CopyFrom(store.tasks.get(big.id))
    ended.status.state = S.SHUTDOWN
    write(store, ended)
    settle(loop, store, NOW)
    assert store.tasks.get(waiting.id).node_id == "node001"


def test_preassigned_tasks_are_confirmed_or_told() -> None:
    """A task whose node is given is checked against that node alone; the reason comes without the prefix. [scheduling 7.3]"""
    fits, too_big = task(1, on="node001"), task(2, on="node001")
    too_big.spec.resources.reservations.nano_cpus = 99 * 10**9
    store = run([service(), node(1), node(2), fits, too_big])
    assert (store.tasks.get(fits.id).status.state, store.tasks.get(fits.id).status.message) == (S.ASSIGNED, CONFIRMED)
    assert store.tasks.get(too_big.id).status.err == "insufficient resources on 1 node"


def test_unwanted_tasks_end_without_a_node() -> None:
    """A PENDING task with desired state SHUTDOWN is not placed; it ends where it is."""
    store = run([service(), node(1), task(1, desired=S.SHUTDOWN)])
    assert store.tasks.get("svc-00001").status.state == S.SHUTDOWN
    assert not store.tasks.get("svc-00001").node_id


def test_max_replicas_and_host_ports() -> None:
    """At most `max_replicas` tasks per node, and one task per host port and node. [scheduling 4]"""
    limited = [task(i, "lim") for i in range(5)]
    for t in limited:
        t.spec.placement.max_replicas = 2
    ported = [task(i, "port") for i in range(3)]
    for t in ported:
        t.endpoint.ports.add(publish_mode=api.PortConfig.PublishMode.HOST, published_port=80, target_port=80)
    store = run([service("lim"), service("port"), node(1), node(2), *limited, *ported])
    per_node = collections.Counter((t.service_id, t.node_id) for t in store.tasks if t.node_id)
    assert per_node == {("lim", "node001"): 2, ("lim", "node002"): 2, ("port", "node001"): 1, ("port", "node002"): 1}
    assert {t.status.err for t in store.tasks if not t.node_id} == {
        "no suitable node (max replicas per node limit exceed)",
        "no suitable node (host-mode port already in use on 2 nodes)",
    }


def test_one_pass_counts_preassigned_and_unassigned_together() -> None:
    """What a global service's task takes of a node in a pass, a replicated one does not get in the same transaction."""
    tasks = [task(1, "everywhere", on="node001"), task(2, "somewhere")]
    for t in tasks:
        t.spec.resources.reservations.nano_cpus = 3_000_000_000
    store = new_store(service("everywhere"), service("somewhere"), node(1, cpus=4), *tasks)
    loop = Scheduler()
    commit(store, [change for key in loop.everything(store) for change in loop.decide(store, key, NOW).changes], NOW)
    states = {t.service_id: t.status.state for t in store.tasks}
    assert states == {"everywhere": S.ASSIGNED, "somewhere": S.PENDING}


def test_faulty_node_comes_last() -> None:
    """A node on which five tasks of this version failed within five minutes is used only when nothing else is left. [scheduling 5.2]"""
    store = new_store(service(), node(1), node(2))
    loop = Scheduler()
    list(loop.everything(store))
    for i in range(5):
        running = task(i, state=S.RUNNING, on="node001")
        failed = api.Task()
        failed.CopyFrom(running)
        failed.status.state = S.FAILED
        failed.status.timestamp.FromSeconds(int(NOW) - 10)
        list(loop.on_event(Event(Kind.TASK, Action.CREATE, running)))
        list(loop.on_event(Event(Kind.TASK, Action.UPDATE, failed, running)))
    waiting = [task(10 + i) for i in range(3)]
    for t in waiting:
        write(store, t)
        list(loop.on_event(Event(Kind.TASK, Action.CREATE, t)))
    commit(store, list(loop.decide(store, Pass.PLACE, NOW).changes), NOW)
    assert spread_of(store) == {"node002": 3}


def test_named_generic_resources_are_exclusive() -> None:
    """Each member of a set goes to one task; the claim is recorded on the task. [scheduling 9.4]"""
    n = node(1)
    for gpu in ("a", "b"):
        n.description.resources.generic.add(named_resource_spec=api.NamedGenericResource(kind="gpu", value=gpu))
    tasks = [task(i) for i in range(3)]
    for t in tasks:
        t.spec.resources.reservations.generic.add(discrete_resource_spec=api.DiscreteGenericResource(kind="gpu", value=1))
    store = run([service(), n, *tasks])
    got = [g.named_resource_spec.value for t in store.tasks for g in t.assigned_generic_resources]
    assert sorted(got) == ["a", "b"]
    assert sum(1 for t in store.tasks if t.node_id) == 2


@settings(max_examples=40, deadline=None)
@given(
    zones=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    replicas=st.integers(1, 300),
    drained=st.sets(st.integers(0, 11), max_size=4),
)
def test_preferences_are_levelled_exactly(zones: list[int], replicas: int, drained: set[int]) -> None:
    """With room everywhere, zones differ by at most one task, and so do the nodes within a zone. [scheduling 6.2]"""
    nodes = [node(i, labels={"zone": str(z)}) for i, z in enumerate(zones)]
    for i in drained & set(range(len(nodes))):
        nodes[i].spec.availability = api.NodeSpec.Availability.DRAIN
    tasks = [task(i) for i in range(replicas)]
    for t in tasks:
        t.spec.placement.preferences.add(spread=api.SpreadOver(spread_descriptor="node.labels.zone"))
    store = run([service(), *nodes, *tasks])
    usable = [(n, z) for i, (n, z) in enumerate(zip(nodes, zones, strict=True)) if i not in drained]
    placed = spread_of(store)
    assert sum(placed.values()) == (replicas if usable else 0)
    per_zone: dict[int, list[int]] = {}
    for n, z in usable:
        per_zone.setdefault(z, []).append(placed.get(n.id, 0))
    totals = [sum(counts) for counts in per_zone.values()]
    assert not totals or max(totals) - min(totals) <= 1
    assert all(max(counts) - min(counts) <= 1 for counts in per_zone.values())


def test_large_groups_are_split_into_transactions() -> None:
    """A decision fits one transaction; the rest follows at once, and nothing waits without a reason."""
    store = new_store(service(), node(1, cpus=300), *(task(i) for i in range(450)))
    for t in list(store.tasks):
        t.spec.resources.reservations.nano_cpus = 10**9
    loop = Scheduler()
    made = settle(loop, store, NOW)
    assert len(made) == 450
    assert spread_of(store) == {"node001": 300}
    assert all(t.status.err for t in store.tasks if not t.node_id)
