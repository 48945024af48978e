"""Statuses on their way to a manager: the newest per task, many to one call, never lost, never going back
(spec/dispatcher-agent-node, section 19).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from pyswarm.agent.client import DispatcherClient, RemovedNode
from pyswarm.api import v1 as api
from pyswarm.api.stable import same_status
from pyswarm.errors import NotFound, PermissionDenied

log = structlog.get_logger(__name__)
MOST_AT_ONCE = 1024


class Reporter:
    """Filled at any time, emptied by `serve`, which each session runs as one of its loops."""

    def __init__(self) -> None:
        self._tasks: dict[str, api.TaskStatus] = {}
        self._volumes: dict[str, None] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks) + len(self._volumes)

    def report(self, task_id: str, status: api.TaskStatus) -> None:
        """Send this status, unless one as new or further on is waiting. `status` must not be changed afterwards."""
        waiting = self._tasks.get(task_id)
        if waiting is not None and (status.state < waiting.state or same_status(status, waiting)):
            return
        self._tasks[task_id] = status
        self._wake.set()

    def forget(self, task_id: str) -> None:
        """Nothing is reported of a task that was taken away."""
        self._tasks.pop(task_id, None)

    def volume_unpublished(self, volume_id: str) -> None:
        """This node no longer uses the volume."""
        self._volumes[volume_id] = None
        self._wake.set()

    async def serve(self, client: DispatcherClient, session_id: str) -> None:
        """Send what waits, until an error ends the session; what was not delivered stays. Raises SwarmError."""
        while True:
            while self._tasks:
                await self._send_tasks(client, session_id)
            if self._volumes:
                await self._send_volumes(client, session_id)
            if not len(self):
                self._wake.clear()
                await self._wake.wait()

    async def _send_tasks(self, client: DispatcherClient, session_id: str) -> None:
        batch = {task_id: self._tasks[task_id] for task_id in list(self._tasks)[:MOST_AT_ONCE]}
        for task_id in batch:
            del self._tasks[task_id]
        try:
            try:
                await client.update_task_status(_request(session_id, batch))
            except RemovedNode:
                raise  # it is not about these tasks
            except PermissionDenied as error:
                await self._send_one_by_one(client, session_id, batch, error)
            batch = {}
        except NotFound as error:
            if error.message == "node not registered":
                raise
            # The manager knows no such thing: as good as delivered.
            batch = {}
        finally:
            self._put_back(batch)

    async def _send_one_by_one(
        self, client: DispatcherClient, session_id: str, batch: dict[str, api.TaskStatus], refusal: PermissionDenied
    ) -> None:
        """One task that is not this node's makes a manager refuse all of a request: find it and drop it."""
        if len(batch) == 1:
            log.warning("manager refused a status", task=next(iter(batch)), error=refusal.message)
            return
        for task_id in list(batch):
            try:
                await client.update_task_status(_request(session_id, {task_id: batch[task_id]}))
            except PermissionDenied as error:
                log.warning("manager refused a status", task=task_id, error=error.message)
            del batch[task_id]

    def _put_back(self, batch: Mapping[str, api.TaskStatus]) -> None:
        for task_id, status in batch.items():
            waiting = self._tasks.get(task_id)
            if waiting is None or status.state > waiting.state:
                self._tasks[task_id] = status

    async def _send_volumes(self, client: DispatcherClient, session_id: str) -> None:
        request = api.UpdateVolumeStatusRequest(session_id=session_id)
        for volume_id in self._volumes:
            request.updates.add(id=volume_id, unpublished=True)
        await client.update_volume_status(request)
        for update in request.updates:
            self._volumes.pop(update.id, None)


def _request(session_id: str, batch: Mapping[str, api.TaskStatus]) -> api.UpdateTaskStatusRequest:
    request = api.UpdateTaskStatusRequest(session_id=session_id)
    for task_id, status in batch.items():
        request.updates.add(task_id=task_id, status=status)
    return request
