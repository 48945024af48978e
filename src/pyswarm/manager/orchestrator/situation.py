"""What one decision about one service looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.manager.orchestrator import dirty, nodes, slots, tasks
from pyswarm.manager.orchestrator.slots import Place
from pyswarm.manager.store import View, by

NewId = Callable[[], str]


class Situation:
    """A view, a service, a moment. Lives for one decision; looks each node up once."""

    def __init__(self, view: View, service: api.Service, now: float, new_id: NewId) -> None:
        self.view = view
        self.service = service
        self.now = now
        self._new_id = new_id
        self._nodes: dict[str, api.Node | None] = {}
        self._cluster: list[api.Cluster] | None = None

    def node(self, node_id: str) -> api.Node | None:
        """The node, if it exists."""
        if node_id not in self._nodes:
            self._nodes[node_id] = self.view.nodes.get(node_id)
        return self._nodes[node_id]

    def is_stranded(self, task: api.Task) -> bool:
        """It has a node, and that can no longer be relied on."""
        return bool(task.node_id) and nodes.is_invalid(self.node(task.node_id))

    def is_dirty(self, task: api.Task) -> bool:
        """An update has to replace it."""
        if dirty.same_version(self.service, task):
            return False
        return dirty.is_dirty(self.service, task, self.node(task.node_id) if task.node_id else None)

    def new_task(self, place: Place, desired: api.TaskState.ValueType, after: Sequence[api.Task] = (), since: float = 0.0) -> api.Task:
        """A task for a place of the service; arguments as for `tasks.new_task`."""
        if self._cluster is None:
            self._cluster = self.view.clusters.find(by.name(defaults.CLUSTER_NAME))
        return tasks.new_task(
            self.service,
            self._cluster[0] if self._cluster else None,
            task_id=self._new_id(),
            slot=place if isinstance(place, int) else 0,
            node_id=place if isinstance(place, str) else "",
            desired=desired,
            now=self.now,
            after=after,
            since=since,
        )

    def tasks(self) -> dict[Place, slots.Slot]:
        """All tasks of the service by place."""
        return slots.group(self.view.tasks.find(by.service(self.service.id)), by_node=slots.is_global(self.service))

    def slot(self, place: Place) -> slots.Slot:
        """One place with its tasks."""
        if isinstance(place, int):
            found = self.view.tasks.find(by.slot(self.service.id, place))
        else:
            found = [t for t in self.view.tasks.find(by.node(place)) if t.service_id == self.service.id]
        return slots.Slot(place, slots.in_order(found))
