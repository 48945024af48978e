"""What the deprecated Tasks stream tells its node: the full list, every time (spec/dispatcher-agent-node, section 10)."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.api.stable import same_task
from pyswarm.manager.store import Action, Event, View, by

S = api.TaskState


class TaskList:
    """One stream's knowledge: same shape as `assignments.Assignments`."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._tasks: dict[str, api.Task] = {}

    def start(self, view: View) -> None:
        """Collect the node's tasks."""
        self._tasks = {task.id: task for task in view.tasks.find(by.node(self._node_id))}

    def on_event(self, view: View, event: Event) -> bool:  # noqa: ARG002 - the shape of a feed
        """Take note of a change; whether a new list is due. An agent's own reports are not."""
        task = event.obj
        if not isinstance(task, api.Task):
            return False
        if event.action is Action.REMOVE:
            return self._tasks.pop(task.id, None) is not None
        known = self._tasks.get(task.id)
        self._tasks[task.id] = task
        return not (known is not None and task.status.state > S.ASSIGNED and same_task(known, task))

    def take(self) -> api.TasksMessage:
        """All tasks from ASSIGNED on."""
        return api.TasksMessage(tasks=[task for task in self._tasks.values() if task.status.state >= S.ASSIGNED])
