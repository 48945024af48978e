"""What a task's states mean. Values are ordered; observed and desired state use the same scale (spec/orchestration, section 2)."""

from __future__ import annotations

from pyswarm.api import defaults, times
from pyswarm.api import v1 as api

S = api.TaskState


def is_terminal(task: api.Task) -> bool:
    """The observed state can no longer lead to a running container."""
    return task.status.state > S.RUNNING


def is_runnable(task: api.Task) -> bool:
    """The manager wants it running (now, or once released from READY): of a job's task, until it is complete."""
    desired = task.desired_state
    return desired <= S.RUNNING or (desired == S.COMPLETE and task.status.state != S.COMPLETE)


def goal_of(task: api.Task) -> api.TaskState.ValueType:
    """The desired state of a task that may run: a job's task is to come to an end."""
    return S.COMPLETE if task.HasField("job_iteration") else S.RUNNING


def will_never_run(task: api.Task) -> bool:
    """No agent has it and none is going to get it."""
    return task.status.state < S.ASSIGNED and not is_runnable(task)


def task_time(task: api.Task) -> float:
    """When the newest status took effect: the leader's clock if it applied a report, else the reporter's. 0.0 without any time."""
    status = task.status
    if status.HasField("applied_at"):
        return times.seconds_of(status.applied_at)
    return times.seconds_of(status.timestamp) if status.HasField("timestamp") else 0.0


def stop_grace_period(spec: api.ContainerSpec) -> float:
    """Seconds between the stop signal and the kill."""
    return times.seconds_of(spec.stop_grace_period) if spec.HasField("stop_grace_period") else defaults.STOP_GRACE_PERIOD


def display_name(task: api.Task) -> str:
    """`<service>.<slot>.<task id>`, or the node id in place of slot 0; the annotation name wins when there is one."""
    if task.annotations.name:
        return task.annotations.name
    place = str(task.slot) if task.slot else task.node_id
    return f"{task.service_annotations.name}.{place}.{task.id}"


def runtime_name(spec: api.TaskSpec) -> str:
    """`container`, `attachment`, the lower-cased kind of a generic runtime, or empty when none is set."""
    runtime = spec.WhichOneof("runtime") or ""
    return spec.generic.kind.lower() if runtime == "generic" else runtime
