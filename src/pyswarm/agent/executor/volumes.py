"""Cluster volumes of a task, as mounts of the directories where this node has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pyswarm.agent.dependencies import TaskDependencies
from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.spec import container_spec
from pyswarm.api import v1 as api

Place = Callable[[str], Path]
"""From a volume's id to where it is, or will be, on this node."""


def bound(task: api.Task, mounts: Sequence[api.Mount], place: Place) -> list[api.Mount]:
    """The task's mounts, whose templates are expanded in `mounts`, with cluster volumes as bind mounts. Pure.

    Raises ExecutorError for a mount that the manager gave no volume.
    """
    return [_bound(task, before, mount, place) for before, mount in zip(container_spec(task).mounts, mounts, strict=True)]


def _bound(task: api.Task, before: api.Mount, mount: api.Mount, place: Place) -> api.Mount:
    if mount.type != api.Mount.CLUSTER:
        return mount
    # Attachments are known by what the service says, templates and all.
    attached = next((a.id for a in task.volumes if (a.source, a.target) == (before.source, before.target)), None)
    if attached is None:
        raise ExecutorError(f"cluster volume {mount.source} (mount {mount.target}) was not attached to the task")
    return api.Mount(type=api.Mount.BIND, source=str(place(attached)), target=mount.target, readonly=mount.readonly)


def check_mounted(task: api.Task, dependencies: TaskDependencies) -> None:
    """Raises TemporaryError while one of the task's volumes is not mounted on this node."""
    for attachment in task.volumes:
        dependencies.volume(attachment.id)


def nowhere(volume_id: str) -> Path:
    """The place on a node without volumes. Raises ExecutorError."""
    raise ExecutorError(f"this node has no cluster volumes, so volume {volume_id} cannot be mounted")
