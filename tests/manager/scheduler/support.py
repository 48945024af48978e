"""Objects for scheduler tests, and a scheduler that lives through transactions as under its driver, but without clock or loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Create, Delete, Update
from pyswarm.manager.scheduler.nodeinfo import NodeInfo
from pyswarm.manager.scheduler.scheduler import Pass, Scheduler
from pyswarm.manager.store import Event, Kind, Store, copy_of
from tests.support.loops import commit, new_store

S = api.TaskState
HOST = api.PortConfig.PublishMode.HOST
NOW = 1_700_000_000.0


def node(node_id: str, *, state: str = "READY", memory: int = 0, cpus: int = 0, labels: Mapping[str, str] | None = None) -> api.Node:
    """A node; `cpus` in nano CPUs. Without resources its description has none."""
    made = api.Node(id=node_id, status=api.NodeStatus(state=api.NodeStatus.State.Value(state)))
    if memory or cpus:
        made.description.resources.MergeFrom(api.Resources(memory_bytes=memory, nano_cpus=cpus))
    made.spec.annotations.labels.update(labels or {})
    return made


def task(
    task_id: str,
    service: str = "",
    *,
    on: str = "",
    state: api.TaskState.ValueType = S.PENDING,
    version: int | None = None,
    memory: int = 0,
    cpus: int = 0,
    discrete: Mapping[str, int] | None = None,
) -> api.Task:
    """A task that the allocator has passed; `discrete` are reserved amounts by kind."""
    made = api.Task(id=task_id, service_id=service, node_id=on, desired_state=S.RUNNING)
    made.status.state = state
    if version is not None:
        made.spec_version.index = version
    wanted = made.spec.resources.reservations
    if memory or cpus or discrete:
        wanted.MergeFrom(api.Resources(memory_bytes=memory, nano_cpus=cpus))
    for kind, value in (discrete or {}).items():
        wanted.generic.add(discrete_resource_spec=api.DiscreteGenericResource(kind=kind, value=value))
    return made


def tasks(service: str, count: int, *, start: int = 0, version: int | None = None) -> list[api.Task]:
    """Equal tasks of a service."""
    return [task(f"{service}-{i:03}", service, version=version) for i in range(start, start + count)]


def service(service_id: str, version: int | None = None) -> api.Service:
    """A service that tasks can belong to."""
    made = api.Service(id=service_id)
    if version is not None:
        made.spec_version.index = version
    return made


def discrete(kind: str, value: int) -> api.GenericResource:
    """An amount."""
    return api.GenericResource(discrete_resource_spec=api.DiscreteGenericResource(kind=kind, value=value))


def named(kind: str, *values: str) -> list[api.GenericResource]:
    """A set."""
    return [api.GenericResource(named_resource_spec=api.NamedGenericResource(kind=kind, value=value)) for value in values]


def moved(obj: api.Task, state: api.TaskState.ValueType) -> api.Task:
    """A task as its agent reports it next."""
    edited = copy_of(obj)
    edited.status.state = state
    edited.status.timestamp.FromSeconds(int(NOW))
    return edited


class Scheduling:
    """A store and a scheduler that has started on it. `writes` are all changes the scheduler made."""

    def __init__(self, *objects: object) -> None:
        self.store: Store = new_store(*objects)
        self.loop = Scheduler()
        self.now = NOW
        self.writes: list[Change] = []
        self._index = 0
        self._dirty: set[Pass] = set(self.loop.everything(self.store))
        self.settle()

    def change(self, *changes: Change) -> None:
        """One transaction of somebody else, then whatever the scheduler does about it."""
        self.transaction(*changes)
        self.settle()

    def transaction(self, *changes: Change) -> list[Event]:
        """One transaction of somebody else, of which the scheduler has only heard."""
        return self._commit(list(changes), decided=False)

    def create(self, *objects: api.Node | api.Task | api.Service) -> None:
        """Create in one transaction, and schedule."""
        self.change(*(Create(obj) for obj in objects))

    def update(self, *objects: api.Node | api.Task | api.Service) -> None:
        """Replace in one transaction, and schedule."""
        self.change(*(Update(obj) for obj in objects))

    def delete(self, kind: Kind, *ids: str) -> None:
        """Delete in one transaction, and schedule."""
        self.change(*(Delete(kind, i) for i in ids))

    def report(self, task_id: str, state: api.TaskState.ValueType) -> None:
        """An agent's status arrives."""
        self.update(moved(self.task(task_id), state))

    def settle(self) -> None:
        """Decide until nothing is left to do, preassigned tasks first."""
        for _ in range(1000):
            if not self._dirty:
                return
            key = min(self._dirty, key=lambda k: k.value)
            self._dirty.discard(key)
            decision = self.loop.decide(self.store, key, self.now)
            if decision.again:
                self._dirty.add(key)
            if decision.changes:
                self.writes += decision.changes
                self._commit(list(decision.changes), decided=True)
        raise AssertionError("the scheduler does not come to rest")

    def _commit(self, changes: list[Change], *, decided: bool) -> list[Event]:
        self._index += 2
        events = commit(self.store, changes, self.now, self._index, decided=decided)
        for event in events:
            self._dirty |= set(self.loop.on_event(event))
        return events

    def node(self, node_id: str) -> api.Node:
        """A copy to edit."""
        return copy_of(self.store.nodes.get(node_id))  # type: ignore[type-var]

    def task(self, task_id: str) -> api.Task:
        """The stored task."""
        found = self.store.tasks.get(task_id)
        assert found is not None
        return found

    def place(self, task_id: str) -> str:
        """The node a task is assigned to; empty while it waits."""
        found = self.task(task_id)
        assert bool(found.node_id) == (found.status.state >= S.ASSIGNED)
        return found.node_id

    def why(self, task_id: str) -> str:
        """What a waiting task is told."""
        found = self.task(task_id)
        assert found.status.state == S.PENDING
        return found.status.err

    def info(self, node_id: str) -> NodeInfo:
        """What the scheduler thinks of a node."""
        return self.loop._mirror.nodes[node_id]

    def waiting(self) -> set[str]:
        """The tasks the scheduler would still look at."""
        return {*self.loop._mirror.unassigned(), *self.loop._mirror.preassigned}

    def spread(self, service_id: str) -> dict[str, int]:
        """How many of a service's tasks each node has."""
        return dict(Counter(t.node_id for t in self.store.tasks if t.service_id == service_id and t.node_id))
