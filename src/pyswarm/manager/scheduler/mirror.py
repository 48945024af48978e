"""The scheduler's mirror: which tasks wait, and what every node carries (spec section 3.1 to 3.3).

Rebuilt from the store when the scheduler starts, then kept up to date from commits; it holds nothing the store does not.
"""

from __future__ import annotations

from pyswarm.api import tasks as task_facts
from pyswarm.api import v1 as api
from pyswarm.manager.scheduler.nodeinfo import NodeInfo, occupies, version_of
from pyswarm.manager.store import Action, Event, Kind, View

S = api.TaskState


class Mirror:
    """Tasks by what the scheduler has to do with them, and nodes by id."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self.tasks: dict[str, api.Task] = {}
        self.unassigned: dict[str, api.Task] = {}
        self.preassigned: dict[str, api.Task] = {}
        self._ever_preassigned: set[str] = set()

    def rebuild(self, view: View) -> None:
        """Start over from the store."""
        self.__init__()  # type: ignore[misc]  # one place that says what empty is
        for node in view.nodes:
            self._set_node(node)
        for task in view.tasks:
            if S.PENDING <= task.status.state <= S.RUNNING:
                self._enter(task)

    def on_event(self, event: Event) -> bool:
        """Follow one change; whether it may have made room or brought work."""
        if isinstance(event.obj, api.Node):
            return self._on_node(event.action, event.obj)
        if isinstance(event.obj, api.Task):
            return self._on_task(event.action, event.obj)
        if event.kind is Kind.VOLUME:
            return bool(self.unassigned or self.preassigned)
        return event.kind is Kind.SERVICE and event.action is not Action.CREATE

    def _on_node(self, action: Action, node: api.Node) -> bool:
        if action is Action.REMOVE:
            self.nodes.pop(node.id, None)
            return False
        self._set_node(node)
        return True

    def _set_node(self, node: api.Node) -> None:
        info = self.nodes.get(node.id)
        if info is not None:
            info.set_node(node)
        else:
            # Tasks may have been here before their node object, or have outlived the one before.
            self.nodes[node.id] = NodeInfo.of(node, self.tasks.values())

    def _on_task(self, action: Action, task: api.Task) -> bool:
        if action is Action.REMOVE:
            return self._leave(task.id)
        if task.status.state < S.PENDING:
            return False
        if task_facts.is_terminal(task):
            return self._on_ended(task)
        return self._enter(task)

    def _on_ended(self, task: api.Task) -> bool:
        known = self.tasks.get(task.id)
        if known is None:
            return False
        failed = task.status.state in {S.FAILED, S.REJECTED} and known.status.state != task.status.state
        info = self.nodes.get(known.node_id)
        if failed and info is not None and task.id not in self._ever_preassigned:
            info.record_failure(version_of(task), task_facts.task_time(task))
        self._leave(task.id)
        return True

    def _enter(self, task: api.Task) -> bool:
        """Take in a task that is PENDING to RUNNING; whether there is something to schedule."""
        known = self.tasks.get(task.id)
        if known is not None and known.node_id != task.node_id:
            self._leave(task.id)
        self.tasks[task.id] = task
        if not task.node_id:
            self.unassigned[task.id] = task
            return True
        if task.status.state == S.PENDING:
            self.preassigned[task.id] = task
            self._ever_preassigned.add(task.id)
            return True
        self.preassigned.pop(task.id, None)
        if occupies(task) and task.node_id in self.nodes:
            self.nodes[task.node_id].add(task)
        return False

    def _leave(self, task_id: str) -> bool:
        """Forget a task; whether a node got room by it."""
        task = self.tasks.pop(task_id, None)
        self.unassigned.pop(task_id, None)
        self.preassigned.pop(task_id, None)
        if task is None:
            return False
        self._ever_preassigned.discard(task_id)
        info = self.nodes.get(task.node_id)
        return info is not None and info.remove(task_id)
