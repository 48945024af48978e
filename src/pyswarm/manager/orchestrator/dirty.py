"""When a task no longer is what its service asks for (spec/orchestration, section 10.1)."""

from __future__ import annotations

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.tasks import task_time
from pyswarm.manager import constraints
from pyswarm.manager.store import copy_of

S = api.TaskState


def same_version(service: api.Service, task: api.Task) -> bool:
    """Both carry a spec version and it is the same."""
    return task.HasField("spec_version") and service.HasField("spec_version") and task.spec_version.index == service.spec_version.index


def is_dirty(service: api.Service, task: api.Task, node: api.Node | None) -> bool:
    """Whether an update has to replace the task. `node` is the one it is on, if that exists."""
    if same_version(service, task):
        return False
    wanted, has = service.spec.task, task.spec
    if wanted != has:
        if only_placement_differs(wanted, has) and (
            _is_nowhere(task) or (node is not None and constraints.node_matches(node, wanted.placement))
        ):
            return False
        if not (_credentials_may_differ(service, task) and _without_credentials(wanted) == _without_credentials(has)):
            return True
    return task.HasField("endpoint") and not _same_endpoint(service.spec, task.endpoint)


def _is_nowhere(task: api.Task) -> bool:
    """It has ended, so that another placement does not concern it; what later becomes of the node it was on even less."""
    return task.status.state > S.RUNNING


def is_current(service: api.Service, task: api.Task) -> bool:
    """Whether the task was made from the service's present spec; by content where there are no versions."""
    if task.HasField("spec_version") and service.HasField("spec_version"):
        return task.spec_version.index == service.spec_version.index
    return not is_dirty(service, task, None)


def only_placement_differs(a: api.TaskSpec, b: api.TaskSpec) -> bool:
    """The placement differs and nothing else does."""
    if a.placement == b.placement and a.HasField("placement") == b.HasField("placement"):
        return False
    a, b = copy_of(a), copy_of(b)
    a.ClearField("placement")
    b.ClearField("placement")
    return a == b


def _credentials_may_differ(service: api.Service, task: api.Task) -> bool:
    """Registry credentials are used up once the image is there; a prepared or running task needs no new ones.

    A task that has ended counts as dirty when it ended before the service was last written, and as clean when it ended later: else the end
    of a task that was to run once would start an update that runs it again.
    """
    if task.desired_state <= S.RUNNING and S.READY <= task.status.state <= S.RUNNING:
        return True
    return task.status.state > S.RUNNING and task_time(task) > times.seconds_of(service.meta.updated_at)


def _without_credentials(spec: api.TaskSpec) -> api.TaskSpec:
    if not spec.HasField("container"):
        return spec
    spec = copy_of(spec)
    spec.container.ClearField("pull_options")
    return spec


def _same_endpoint(spec: api.ServiceSpec, endpoint: api.Endpoint) -> bool:
    return spec.HasField("endpoint") == endpoint.HasField("spec") and spec.endpoint == endpoint.spec
