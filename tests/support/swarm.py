"""Short builders for the objects that orchestration tests are about."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from pyswarm.api import times
from pyswarm.api import v1 as api

S = api.TaskState
ANY = api.RestartPolicy.ANY
NONE = api.RestartPolicy.NONE
ON_FAILURE = api.RestartPolicy.ON_FAILURE


def ids(prefix: str = "new") -> Callable[[], str]:
    """A source of predictable ids: new1, new2 ..."""
    numbers = count(1)
    return lambda: f"{prefix}{next(numbers):05d}"


def cluster(history: int = 5, driver: str = "") -> api.Cluster:
    """The cluster object with a task history limit and maybe a default log driver."""
    made = api.Cluster(id="cluster", spec=api.ClusterSpec(annotations=api.Annotations(name="default")))
    made.spec.orchestration.task_history_retention_limit = history
    if driver:
        made.spec.task_defaults.log_driver.name = driver
    return made


def node(
    node_id: str,
    *,
    state: api.NodeStatus.State.ValueType = api.NodeStatus.READY,
    availability: api.NodeSpec.Availability.ValueType = api.NodeSpec.ACTIVE,
    labels: dict[str, str] | None = None,
) -> api.Node:
    """A node, READY and ACTIVE unless said otherwise."""
    spec = api.NodeSpec(availability=availability, annotations=api.Annotations(name=node_id, labels=labels or {}))
    return api.Node(id=node_id, spec=spec, status=api.NodeStatus(state=state), description=api.NodeDescription(hostname=node_id))


def restart(
    condition: api.RestartPolicy.RestartCondition.ValueType = ANY,
    delay: float | None = None,
    attempts: int = 0,
    window: float | None = None,
) -> api.RestartPolicy:
    """A restart policy; None leaves a duration unset."""
    policy = api.RestartPolicy(condition=condition, max_attempts=attempts)
    if delay is not None:
        policy.delay.CopyFrom(times.duration(delay))
    if window is not None:
        policy.window.CopyFrom(times.duration(window))
    return policy


def config(
    parallelism: int = 1,
    *,
    delay: float = 0.0,
    monitor: float | None = None,
    action: api.UpdateConfig.FailureAction.ValueType = api.UpdateConfig.PAUSE,
    ratio: float = 0.0,
    start_first: bool = False,
) -> api.UpdateConfig:
    """An update config."""
    made = api.UpdateConfig(parallelism=parallelism, failure_action=action, max_failure_ratio=ratio)
    made.order = api.UpdateConfig.START_FIRST if start_first else api.UpdateConfig.STOP_FIRST
    made.delay.CopyFrom(times.duration(delay))
    if monitor is not None:
        made.monitor.CopyFrom(times.duration(monitor))
    return made


def service(
    service_id: str = "svc",
    replicas: int | None = 1,
    *,
    image: str = "v:1",
    version: int | None = 0,
    policy: api.RestartPolicy | None = None,
    update: api.UpdateConfig | None = None,
    rollback: api.UpdateConfig | None = None,
    constraints: tuple[str, ...] = (),
) -> api.Service:
    """A replicated service, or a global one when `replicas` is None."""
    spec = api.ServiceSpec(annotations=api.Annotations(name=service_id), update=update, rollback=rollback)
    spec.task.container.image = image
    if policy is not None:
        spec.task.restart.CopyFrom(policy)
    if constraints:
        spec.task.placement.constraints.extend(constraints)
    if replicas is None:
        spec.MergeFrom(api.ServiceSpec(**{"global": api.GlobalService()}))
    else:
        spec.replicated.replicas = replicas
    made = api.Service(id=service_id, spec=spec)
    if version is not None:
        made.spec_version.index = version
    return made


def job(
    service_id: str = "svc",
    completions: int | None = 1,
    *,
    at_once: int = 1,
    policy: api.RestartPolicy | None = None,
    iteration: int | None = 0,
    constraints: tuple[str, ...] = (),
) -> api.Service:
    """A replicated job, `at_once` tasks at a time, or a global one when `completions` is None."""
    made = service(service_id, policy=policy, constraints=constraints)
    if completions is None:
        made.spec.global_job.SetInParent()
    else:
        made.spec.replicated_job.CopyFrom(api.ReplicatedJob(max_concurrent=at_once, total_completions=completions))
    if iteration is not None:
        made.job_status.job_iteration.index = iteration
    return made


def job_task(
    task_id: str,
    slot: int,
    state: api.TaskState.ValueType,
    desired: api.TaskState.ValueType = S.COMPLETE,
    *,
    of: api.Service,
    on: str = "",
    made: float = 0.0,
    iteration: int = 0,
) -> api.Task:
    """A task as the job makes it in an iteration; other arguments as for `task`."""
    made_task = task(task_id, slot, state, desired, of=of, on=on, made=made)
    made_task.job_iteration.index = iteration
    return made_task


def task(
    task_id: str,
    slot: int = 1,
    state: api.TaskState.ValueType = S.RUNNING,
    desired: api.TaskState.ValueType = S.RUNNING,
    *,
    of: api.Service | None = None,
    on: str = "",
    at: float = 0.0,
    made: float = 0.0,
    version: int | None = None,
    image: str = "",
) -> api.Task:
    """A task as the service makes it. `at` is the time of its status, `made` of its creation, `on` its node; a global one has slot 0."""
    of = of if of is not None else service()
    made_task = api.Task(
        id=task_id,
        service_id=of.id,
        slot=slot,
        node_id=on,
        spec=of.spec.task,
        service_annotations=of.spec.annotations,
        desired_state=desired,
        status=api.TaskStatus(state=state),
        endpoint=api.Endpoint(),
    )
    if version is not None or of.HasField("spec_version"):
        made_task.spec_version.index = of.spec_version.index if version is None else version
    if image:
        made_task.spec.container.image = image
    if at:
        made_task.status.timestamp.CopyFrom(times.timestamp(at))
    if made:
        made_task.meta.created_at.CopyFrom(times.timestamp(made))
    return made_task
