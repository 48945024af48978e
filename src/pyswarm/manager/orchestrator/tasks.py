"""Building tasks of services, and edited copies of them (spec/orchestration, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_job, iteration_of
from pyswarm.manager.changes import Update
from pyswarm.manager.store import copy_of

TICK = 1e-6
"""Seconds; the resolution of stored times."""


def created(task: api.Task) -> float:
    """When its record was made, in seconds; 0.0 without a time."""
    return times.seconds_of(task.meta.created_at) if task.meta.HasField("created_at") else 0.0


def by_creation(task: api.Task) -> tuple[float, str]:
    """Sort key: oldest first. Ids break ties, which occur only between records that other programs made."""
    return created(task), task.id


def new_task(
    service: api.Service,
    cluster: api.Cluster | None,
    *,
    task_id: str,
    slot: int = 0,
    node_id: str = "",
    desired: api.TaskState.ValueType,
    now: float,
    after: Sequence[api.Task] = (),
    since: float = 0.0,
) -> api.Task:
    """A task of the service as it is now.

    `after` are the records the place holds already. Their order of creation is what restart history and update progress are read from,
    so the new one is made later than all of them, and not before `since`, even where clocks disagree.
    """
    task = api.Task(
        id=task_id,
        service_id=service.id,
        slot=slot,
        node_id=node_id,
        spec=service.spec.task,
        service_annotations=service.spec.annotations,
        desired_state=desired,
        status=api.TaskStatus(state=api.TaskState.NEW, timestamp=times.timestamp(now), message="created"),
        endpoint=api.Endpoint(spec=service.spec.endpoint) if service.spec.HasField("endpoint") else api.Endpoint(),
    )
    if service.HasField("spec_version"):
        task.spec_version.CopyFrom(service.spec_version)
    if is_job(service.spec):
        task.job_iteration.index = iteration_of(service)
    driver = _log_driver(service, cluster)
    if driver is not None:
        task.log_driver.CopyFrom(driver)
    made = max(now, since, max((created(t) for t in after), default=0.0) + TICK)
    task.meta.created_at.CopyFrom(times.timestamp(made))
    return task


def _log_driver(service: api.Service, cluster: api.Cluster | None) -> api.Driver | None:
    if service.spec.task.HasField("log_driver"):
        return service.spec.task.log_driver
    if cluster is not None and cluster.spec.task_defaults.HasField("log_driver"):
        return cluster.spec.task_defaults.log_driver
    return None


def want(task: api.Task, desired: api.TaskState.ValueType) -> list[Update]:
    """Raise what is wanted of a task. Empty when at least that much is wanted already: desired state never falls."""
    if task.desired_state >= desired:
        return []
    edited = copy_of(task)
    edited.desired_state = desired
    return [Update(edited)]
