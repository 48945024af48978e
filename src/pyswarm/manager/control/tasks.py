"""Tasks: get, list, remove (spec/control-api, section 7). Only the control loops create them."""

from __future__ import annotations

from pyswarm.api import tasks as task_facts
from pyswarm.api import v1 as api
from pyswarm.errors import NotFound
from pyswarm.manager.control import filters
from pyswarm.manager.control.environment import Part, require
from pyswarm.manager.orchestrator.dirty import is_dirty
from pyswarm.manager.store import Tx, View, by
from pyswarm.rpc.caller import Caller


class Tasks(Part):
    """The RPCs about tasks."""

    async def GetTask(self, request: api.GetTaskRequest, _caller: Caller) -> api.GetTaskResponse:  # noqa: N802
        """One task. Raises NotFound."""
        require(request.task_id)
        return api.GetTaskResponse(task=_existing(await self._reading(), request.task_id))

    async def ListTasks(self, request: api.ListTasksRequest, _caller: Caller) -> api.ListTasksResponse:  # noqa: N802
        """The tasks that every given filter field matches."""
        store, wanted = await self._reading(), request.filters
        found = filters.all_of(
            store.tasks,
            # The narrowest index first: runtime and desired state each select most of a cluster.
            narrow=(
                (wanted.names, by.name),
                (wanted.service_ids, by.service),
                (wanted.node_ids, by.node),
                (wanted.id_prefixes, by.id_prefix),
                (wanted.name_prefixes, by.name_prefix),
                (wanted.desired_states, by.desired_state),
                (wanted.runtimes, by.runtime),
            ),
            tests=(
                filters.among(wanted.names, task_facts.display_name),
                filters.prefixed(wanted.name_prefixes, task_facts.display_name),
                filters.prefixed(wanted.id_prefixes, filters.id_of),
                filters.labelled(wanted.labels, lambda task: task.service_annotations.labels),
                filters.among(wanted.service_ids, lambda task: task.service_id),
                filters.among(wanted.node_ids, lambda task: task.node_id),
                filters.among(wanted.runtimes, lambda task: task_facts.runtime_name(task.spec) or None),
                filters.among(wanted.desired_states, lambda task: task.desired_state),
                (lambda task: _is_up_to_date(store, task)) if wanted.up_to_date else None,
            ),
        )
        return api.ListTasksResponse(tasks=found)

    async def RemoveTask(self, request: api.RemoveTaskRequest, _caller: Caller) -> api.RemoveTaskResponse:  # noqa: N802
        """Delete whatever its state; its agent stops it. Raises NotFound."""
        require(request.task_id)

        def remove(tx: Tx) -> None:
            _existing(tx, request.task_id)
            tx.tasks.delete(request.task_id)

        await self._env.store.update(remove)
        return api.RemoveTaskResponse()


def _existing(view: View, task_id: str) -> api.Task:
    task = view.tasks.get(task_id)
    if task is None:
        raise NotFound(f"task {task_id} not found")
    return task


def _is_up_to_date(view: View, task: api.Task) -> bool:
    """Whether the task's service exists and an update would leave the task alone."""
    service = view.services.get(task.service_id)
    return service is not None and not is_dirty(service, task, view.nodes.get(task.node_id))
