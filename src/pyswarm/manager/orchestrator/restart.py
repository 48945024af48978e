"""The restart policy: may this task be replaced, and after what delay (spec/orchestration, sections 9.3 and 9.4).

Restart history is not kept anywhere: it is the run of records of one spec version at the end of the slot, of which the first was made by a
scale-up or an update and each further one by a restart. The reaper keeps enough of them (section 13).
"""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm.api import defaults, times
from pyswarm.api import v1 as api
from pyswarm.api.tasks import task_time
from pyswarm.manager.orchestrator.tasks import created

RestartPolicy = api.RestartPolicy
S = api.TaskState


def delay(spec: api.TaskSpec) -> float:
    """Seconds between the end of a task and the start of its replacement."""
    if not spec.restart.HasField("delay"):
        return defaults.RESTART_DELAY
    seconds = times.seconds_of(spec.restart.delay)
    return seconds if seconds >= 0 else defaults.RESTART_DELAY


def may_restart(records: Sequence[api.Task], task: api.Task) -> bool:
    """Whether the policy in the task's own spec allows a replacement. `records` are its slot's, oldest first."""
    if task.status.state == S.COMPLETE and task.HasField("job_iteration"):
        return False
    if not task.spec.HasField("restart"):
        return True
    policy = task.spec.restart
    if policy.condition == RestartPolicy.NONE:
        return False
    if task.status.state == S.COMPLETE and policy.condition == RestartPolicy.ON_FAILURE:
        return False
    return not policy.max_attempts or _used(records, task) < policy.max_attempts


def _used(records: Sequence[api.Task], task: api.Task) -> int:
    """How many attempts count against the limit: all, or with a window those made within it before the task's end."""
    attempts = [created(t) for t in _run(records, task)[1:]]
    window = times.seconds_of(task.spec.restart.window) if task.spec.restart.HasField("window") else 0.0
    ended = task_time(task)
    if window <= 0 or not ended:
        return len(attempts)
    return sum(1 for at in attempts if ended - window < at < ended)


def _run(records: Sequence[api.Task], task: api.Task) -> list[api.Task]:
    """The records up to the task that carry its spec version without interruption, oldest first."""
    run: list[api.Task] = []
    for record in reversed(records):
        if not run and record.id != task.id:
            continue
        if not _same_version(record, task):
            break
        run.append(record)
    return run[::-1]


def _same_version(a: api.Task, b: api.Task) -> bool:
    return a.HasField("spec_version") == b.HasField("spec_version") and a.spec_version.index == b.spec_version.index
