"""What every executor reads from a task's spec in the same way. Pure."""

from __future__ import annotations

from pyswarm.agent.executor import ExecutorError
from pyswarm.api import v1 as api

RESOURCE_PREFIX = "DOCKER_RESOURCE_"


def container_spec(task: api.Task) -> api.ContainerSpec:
    """The task's container spec. Raises ExecutorError for any other runtime."""
    if task.spec.WhichOneof("runtime") != "container":
        raise ExecutorError("exec: unsupported runtime")
    return task.spec.container


def resource_environment(task: api.Task) -> list[str]:
    """One `DOCKER_RESOURCE_<KIND>=<value>,<value>` for each kind of generic resource the scheduler assigned, in order of assignment."""
    values: dict[str, list[str]] = {}
    for resource in task.assigned_generic_resources:
        if resource.WhichOneof("resource") == "named_resource_spec":
            values.setdefault(resource.named_resource_spec.kind, []).append(resource.named_resource_spec.value)
        else:
            values.setdefault(resource.discrete_resource_spec.kind, []).append(str(resource.discrete_resource_spec.value))
    return [f"{RESOURCE_PREFIX}{kind.upper()}={','.join(held)}" for kind, held in values.items()]
