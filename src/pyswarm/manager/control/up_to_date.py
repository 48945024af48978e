"""Does a task still match its service? (spec/orchestration, section 10.1). Pure."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.manager import constraints
from pyswarm.manager.store import View, copy_of

S = api.TaskState


def is_up_to_date(view: View, task: api.Task) -> bool:
    """Whether the task's service exists and would not replace the task."""
    service = view.services.get(task.service_id)
    if service is None:
        return False
    if task.HasField("spec_version") and service.HasField("spec_version") and task.spec_version == service.spec_version:
        return True
    if _only_placement_differs(service.spec.task, task.spec):
        node = view.nodes.get(task.node_id)
        if node is not None and constraints.node_matches(node, service.spec.task.placement):
            return True
    if task.HasField("endpoint") and task.endpoint.spec != service.spec.endpoint:
        return False
    return _same_spec(service.spec.task, task)


def _only_placement_differs(wanted: api.TaskSpec, actual: api.TaskSpec) -> bool:
    if wanted == actual:
        return False
    placed = copy_of(actual)
    placed.ClearField("placement")
    if wanted.HasField("placement"):
        placed.placement.CopyFrom(wanted.placement)
    return placed == wanted


def _same_spec(wanted: api.TaskSpec, task: api.Task) -> bool:
    """Equal specs; registry credentials do not count while the task is past pulling and meant to run."""
    if wanted == task.spec:
        return True
    pulled = task.desired_state <= S.RUNNING and S.READY <= task.status.state <= S.RUNNING
    if not pulled or not (wanted.HasField("container") and task.spec.HasField("container")):
        return False
    one, other = copy_of(wanted), copy_of(task.spec)
    one.container.ClearField("pull_options")
    other.container.ClearField("pull_options")
    return one == other
