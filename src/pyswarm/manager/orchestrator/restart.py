"""The restart policy: may this task be replaced, and after what delay (spec/orchestration, sections 9.3 and 9.4).

Restart history is not kept anywhere: it is the run of records of one spec version at the end of the slot, of which the first was made by a
scale-up or an update and each further one by a restart. The reaper keeps enough of them (section 13).
"""

from __future__ import annotations

import enum
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


class Forbids(enum.Enum):
    """Why a policy allows no replacement."""

    CONDITION = "it never restarts"
    SUCCESS = "what was completed is done"
    ATTEMPTS = "there were as many attempts as it allows"


def may_restart(records: Sequence[api.Task], task: api.Task) -> bool:
    """Whether the policy in the task's own spec allows a replacement. `records` are its slot's, oldest first."""
    return forbidden(records, task) is None


def forbidden(records: Sequence[api.Task], task: api.Task) -> Forbids | None:
    """Why the policy in the task's own spec allows no replacement; None when it does. `records` are its slot's, oldest first."""
    if task.status.state == S.COMPLETE and task.HasField("job_iteration"):
        return Forbids.SUCCESS
    if not task.spec.HasField("restart"):
        return None
    policy = task.spec.restart
    if policy.condition == RestartPolicy.NONE:
        return Forbids.CONDITION
    if task.status.state == S.COMPLETE and policy.condition == RestartPolicy.ON_FAILURE:
        return Forbids.SUCCESS
    return Forbids.ATTEMPTS if policy.max_attempts and used(records, task) >= policy.max_attempts else None


def used(records: Sequence[api.Task], task: api.Task) -> int:
    """How many attempts count against the limit: all, or with a window those made within it before the task's end."""
    attempts = [created(t) for t in run(records, task)[1:]]
    window = times.seconds_of(task.spec.restart.window) if task.spec.restart.HasField("window") else 0.0
    ended = task_time(task)
    if window <= 0 or not ended:
        return len(attempts)
    return sum(1 for at in attempts if ended - window < at < ended)


def run(records: Sequence[api.Task], task: api.Task) -> list[api.Task]:
    """The records up to the task that carry its spec version without interruption, oldest first."""
    found: list[api.Task] = []
    for record in reversed(records):
        if not found and record.id != task.id:
            continue
        if not _same_version(record, task):
            break
        found.append(record)
    return found[::-1]


def _same_version(a: api.Task, b: api.Task) -> bool:
    return a.HasField("spec_version") == b.HasField("spec_version") and a.spec_version.index == b.spec_version.index
