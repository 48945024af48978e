"""Which reported statuses are stored, and the batch in which they wait for it (spec/dispatcher-agent-node, section 8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.stable import same_status
from pyswarm.errors import PermissionDenied
from pyswarm.manager.store import Tx, View, copy_of


class TaskReport(NamedTuple):
    """What a node says of one of its tasks."""

    task_id: str
    status: api.TaskStatus


@dataclass(frozen=True, slots=True)
class VolumeReport:
    """A node no longer uses a volume."""

    volume_id: str
    node_id: str


def accepted(view: View, node_id: str, request: api.UpdateTaskStatusRequest) -> list[TaskReport]:
    """The reports worth keeping. Those without status or for unknown tasks are left out.

    Raises PermissionDenied, for the request as a whole, when one is about another node's task.
    """
    reports = []
    for update in request.updates:
        task = view.tasks.get(update.task_id)
        if task is None or not update.HasField("status"):
            continue
        if task.node_id != node_id:
            raise PermissionDenied("cannot update a task not assigned this node")
        reports.append(TaskReport(update.task_id, update.status))
    return reports


@dataclass(slots=True)
class Batch:
    """Reports since the last write: per task the most advanced one, and of equally advanced ones the latest."""

    tasks: dict[str, api.TaskStatus] = field(default_factory=dict)
    volumes: dict[VolumeReport, None] = field(default_factory=dict)

    def __len__(self) -> int:
        return max(len(self.tasks), len(self.volumes))

    def add_tasks(self, reports: Iterable[TaskReport]) -> None:
        """Take newer reports in."""
        for report in reports:
            waiting = self.tasks.get(report.task_id)
            if waiting is None or report.status.state >= waiting.state:
                self.tasks[report.task_id] = report.status

    def add_volumes(self, reports: Iterable[VolumeReport]) -> None:
        """Take reports of unused volumes in."""
        self.volumes.update(dict.fromkeys(reports))

    def merge_older(self, older: Batch) -> None:
        """Take back what could not be written; what came meanwhile is newer."""
        for task_id, status in older.tasks.items():
            waiting = self.tasks.get(task_id)
            if waiting is None or status.state > waiting.state:
                self.tasks[task_id] = status
        self.volumes = {**older.volumes, **self.volumes}

    def items(self) -> list[TaskReport | VolumeReport]:
        """Everything, tasks first."""
        return [*(TaskReport(task_id, status) for task_id, status in self.tasks.items()), *self.volumes]


def merged(task: api.Task, status: api.TaskStatus, manager_id: str, now: float) -> api.Task | None:
    """The task with the reported status, signed by the manager that applied it; None when it must stay as it is.

    A state never goes back; an equal one is applied, for its message and container facts may be new; a repetition is not written again.
    An equal one keeps the time at which the state was first applied: delays, windows and monitors count from there.
    """
    if status.state < task.status.state or same_status(status, task.status):
        return None
    changed = copy_of(task)
    changed.status.CopyFrom(status)
    changed.status.applied_by = manager_id
    if status.state == task.status.state and task.status.HasField("applied_at"):
        changed.status.applied_at.CopyFrom(task.status.applied_at)
    else:
        changed.status.applied_at.CopyFrom(times.timestamp(now))
    return changed


def unpublished(volume: api.Volume, node_id: str) -> api.Volume | None:
    """The volume with the node's use of it ended; None unless the node was asked to end it: a report that comes late, or again, says
    nothing about a use that began since.
    """
    asked, ended = api.VolumePublishStatus.PENDING_NODE_UNPUBLISH, api.VolumePublishStatus.PENDING_UNPUBLISH
    if not any(entry.node_id == node_id and entry.state == asked for entry in volume.publish_status):
        return None
    changed = copy_of(volume)
    for entry in changed.publish_status:
        if entry.node_id == node_id and entry.state == asked:
            entry.state = ended
    return changed


def write(tx: Tx, report: TaskReport | VolumeReport, manager_id: str, now: float) -> None:
    """Store one report, looking at the object once more: it may be gone or ahead by now."""
    match report:
        case TaskReport(task_id, status):
            task = tx.tasks.get(task_id)
            changed = merged(task, status, manager_id, now) if task is not None else None
            if changed is not None:
                tx.tasks.update(changed)
        case VolumeReport(volume_id, node_id):
            volume = tx.volumes.get(volume_id)
            released = unpublished(volume, node_id) if volume is not None else None
            if released is not None:
                tx.volumes.update(released)
