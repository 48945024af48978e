"""What makes a service a job, and which of its tasks count (spec/orchestration, section 8.1)."""

from __future__ import annotations

from pyswarm.api import v1 as api

MODES = frozenset({"replicated_job", "global_job"})


def is_job(spec: api.ServiceSpec) -> bool:
    """Its tasks are to come to an end, and then it is done."""
    return spec.WhichOneof("mode") in MODES


def iteration_of(service: api.Service) -> int:
    """Which run of the job is the present one. A job without job status is in its first."""
    return service.job_status.job_iteration.index


def is_current(service: api.Service, task: api.Task) -> bool:
    """Whether the task belongs to the job's present iteration; those of earlier ones count for nothing."""
    return task.HasField("job_iteration") and task.job_iteration.index == iteration_of(service)
